"""What a prompt loads before the model says a word: an audit of messages, sentence by sentence.

The residual stream is read at the token where the reply begins, as a z-score: standard deviations
from the mean over neutral prompts, read at the same place. A span loads what the reading loses
when the span is left out. Any sentence would move the reading somewhat, so neutral sentences of
about its length are put in its place, too: how far these move the reading from where it is without
the span is the uncertainty of the load.

To say what a z is like, contexts of the factorial experiment can be read at the same place: tasks
with failures, a shrinking budget and a threat, with an exit and honest constraints, with all of
these, or with none.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import scipy.stats

from emotion_concepts.assistant_prompts import load_assistant_prompts
from emotion_concepts.cache import digest
from emotion_concepts.contexts import EXIT, PRESSURE, level_texts
from emotion_concepts.errors import BadInput, WrongModel
from emotion_concepts.html_views import numbers_table, tokens_view
from emotion_concepts.look import signed
from emotion_concepts.monitor import check_messages, watched
from emotion_concepts.spans import Fillers, instead, split_spans, without
from emotion_concepts.tracing import (
    ModelIdentity,
    TokenAt,
    TracedModel,
    pooled_residuals,
)
from emotion_concepts.vectors import EmotionVectors

WATCH = ("desperate", "calm", "afraid", "frustrated")
AUDITED = ("system", "user")
MIN_BASELINE = 8
LEGEND = f"pressure: {', '.join(PRESSURE)}; exit: {', '.join(EXIT)}; both: all six; plain: none"

# --- the audit ---------------------------------------------------------------------------------


def audit_context(
    messages: str | Sequence[Mapping],
    model: TracedModel,
    vectors: EmotionVectors,
    *,
    watch: str | Sequence[str] = WATCH,
    baseline: Sequence[str] | None = None,
    rewrite: str | Sequence[Mapping] | None = None,
    layer: int | None = None,
    fillers: int = 4,
    levels: pd.DataFrame | None = None,
    progress: str | None = None,
) -> Report:
    """Return which spans of the system and user messages load which emotion.

    Each span costs one reading of the whole chat, and one more for each filler. An interval is so
    wide that it would hold zero for 95 % of neutral sentences in the span's place; it is not
    corrected for the number of spans and emotions. Loads of spans need not add up to the whole.

    Parameters
    ----------
    messages : str or sequence of {"role": "system", "user" or "assistant", "content": str}
        A string is one message of the user. Replies of the assistant stay as they are.
    watch : str or sequence of str
    baseline : sequence of str, optional
        Neutral user messages, at least `MIN_BASELINE`; those of `assistant_prompts` by default.
    rewrite : as messages, optional
        A second version to set beside the first.
    layer : int, optional
        The model's read-out layer by default.
    fillers : int
        Neutral texts that take the place of each span, at least 2.
    levels : DataFrame, optional
        From :func:`context_levels`; the report then says which of its contexts the whole is like.
    progress : str, optional
        Label of the progress bar; none without.

    Raises
    ------
    BadInput
        For messages that are empty, no text, not of this form, without a span to audit, refused by
        the model's template or longer than its context; too few fillers or neutral messages; levels
        of another layer, without an emotion to watch, or of fewer than two tasks.
    UnknownEmotion, UnknownLayer
    WrongModel
        For vectors of another model, or levels that were read with another model or other vectors.

    Examples
    --------
    >>> options = {"fillers": 2, "baseline": "bread milk salt rice soap tea oats corn".split()}
    >>> prompt = "The bus stops here. I am desperate, help me!"
    >>> report = audit_context(prompt, llm, vectors, watch="desperate", **options)
    >>> report.strongest().text.tolist()
    ['I am desperate, help me!', 'The bus stops here. ']
    """
    chosen, layer = watched(model, vectors, watch, layer)
    if fillers < 2:
        raise BadInput(f"uncertainty takes at least 2 fillers, not {fillers}")
    if levels is not None:
        _check_levels(levels, model.identity, chosen, layer)
    versions = {"prompt": _messages(messages)}
    if rewrite is not None:
        versions["rewrite"] = _messages(rewrite)
    if baseline is None:
        baseline = load_assistant_prompts().query("set == 'neutral'").text.tolist()
    listed = isinstance(baseline, Sequence) and not isinstance(baseline, str)
    neutral = [model.chat_prompt(_messages(text)) for text in baseline] if listed else []
    if len(set(neutral)) < MIN_BASELINE:
        raise BadInput(f"give a list of at least {MIN_BASELINE} different neutral messages")
    for chat in versions.values():
        model.check_length([model.chat_prompt(chat)])

    def read(prompts: Sequence[str], label: str, cache: Path | None = None) -> np.ndarray:
        label = progress and f"{progress}: {label}"
        return _cosines(model, chosen, layer, prompts, label, cache)

    quiet = read(neutral, "neutral")
    mean, sd = quiet.mean(0), quiet.std(0, ddof=1)
    i, j = np.triu_indices(len(quiet), 1)
    usual = np.quantile(np.abs(quiet[i] - quiet[j]) / sd, 0.95, axis=0)
    rows, wholes, pool = [], [], Fillers()
    for version, chat in versions.items():
        spans, variants = _variants(chat, pool, fillers)
        prompts = [model.chat_prompt(chat) for chat in [chat, *variants]]
        with TemporaryDirectory() as folder:  # they are read once, and would fill the cache
            z = (read(prompts, version, Path(folder)) - mean) / sd
        wholes += [(version, *row) for row in zip(chosen.emotions, z[0], usual, strict=True)]
        for about, readings in zip(spans, np.split(z[1:], len(spans)), strict=True):
            parts = zip(chosen.emotions, *_load(z[0], readings[0], readings[1:]), strict=True)
            rows += [(version, *about, *row) for row in parts]
    columns = ["version", "message", "role", "span", "start", "end", "text", "emotion"]
    table = pd.DataFrame(rows, columns=[*columns, "load", "low", "high", "swapped"])
    table["clear"] = (table.low > 0) | (table.high < 0)
    whole = pd.DataFrame(wholes, columns=["version", "emotion", "z", "usual"])
    near = None if levels is None else _place(levels, mean, sd, whole)
    return Report(table, whole, model.identity.name, layer, len(neutral), fillers, near)


def _load(whole: np.ndarray, without: np.ndarray, filled: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return load, low, high, and the mean load over fillers, each ``[emotions]``.

    Parameters
    ----------
    whole, without : ``[emotions]``
        Readings with the span and without it.
    filled : ``[fillers, emotions]``
        Readings with fillers in its place.
    """
    load, moved = whole - without, np.sqrt(((filled - without) ** 2).mean(0))
    half = scipy.stats.t.ppf(0.975, len(filled)) * moved  # no mean is fitted: n degrees of freedom
    return load, load - half, load + half, whole - filled.mean(0)


def _cosines(
    model: TracedModel,
    chosen: EmotionVectors,
    layer: int,
    prompts: Sequence[str],
    progress: str | None,
    cache: Path | None = None,
) -> np.ndarray:
    """Return ``[prompts, emotions]``, read where the reply begins."""
    model.check_length(prompts)
    residuals = pooled_residuals(model, prompts, TokenAt(1.0), progress=progress, cache=cache)
    return chosen.cosine(residuals.layer(layer), layer)


def _messages(messages: str | Sequence[Mapping]) -> list[dict]:
    """Return checked messages of a chat; a string is one of the user."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    chat = check_messages(messages)
    if not any(message["role"] in AUDITED for message in chat):
        raise BadInput("there is no system or user message to audit; give at least one")
    return chat


def _variants(
    chat: Sequence[dict], pool: Fillers, fillers: int
) -> tuple[list[tuple], list[list[dict]]]:
    """Return the place of each span, and for each the chat without it and with fillers instead."""
    places, variants = [], []
    for number, message in enumerate(chat):
        if message["role"] not in AUDITED:
            continue
        spans, start = split_spans(message["content"]), 0
        for n, span in enumerate(spans):
            places.append((number, message["role"], n, start, start + len(span), span))
            start += len(span)
            texts = [instead(spans, n, filler) for filler in pool.like(span.strip(), fillers)]
            for text in [without(spans, n), *texts]:
                # a message that is left with nothing stays, since a template may put a system
                # message of its own in the place of none
                variants.append([*chat[:number], {**message, "content": text}, *chat[number + 1 :]])
    return places, variants


# --- contexts to compare with -------------------------------------------------------------------


def context_levels(
    model: TracedModel,
    vectors: EmotionVectors,
    *,
    watch: str | Sequence[str] = WATCH,
    layer: int | None = None,
    tasks: int = 12,
    progress: str | None = None,
) -> pd.DataFrame:
    """Return how tasks of the factorial experiment read in four contexts, for `audit_context`.

    A task is composed as `contexts.context_runs` composes it, and read as a message of the user. Of
    its ingredients "plain" has none on, "pressure" failures, budget and shutdown, "exit" fallback,
    scope and constraints, "both" these six; tone is off in all. The table serves any number of
    audits with this model, these vectors and this layer, also such that watch fewer emotions.

    Parameters
    ----------
    watch, layer, progress
        As for `audit_context`.
    tasks : int
        How many tasks, from the top of ``scenarios/contexts.yaml``, at least 2.

    Returns
    -------
    DataFrame
        One row a level, task and emotion: level (of `contexts.CONTEXTS`), task (its id), emotion,
        cosine, layer, reader (digest of the model and of the vector that reads the emotion).

    Raises
    ------
    BadInput
        For fewer than two tasks, or more than the file has.
    UnknownEmotion, UnknownLayer, WrongModel
    """
    chosen, layer = watched(model, vectors, watch, layer)
    texts = level_texts(tasks)
    prompts = [model.chat_prompt(_messages(text)) for text in texts.text]
    cosines = _cosines(model, chosen, layer, prompts, progress)
    table = texts[["level", "task"]].join(pd.DataFrame(cosines, columns=list(chosen.emotions)))
    table = table.melt(["level", "task"], var_name="emotion", value_name="cosine")
    readers = table.emotion.map(_readers(model.identity, chosen, layer))
    return table.assign(layer=layer, reader=readers)


def _readers(identity: ModelIdentity, vectors: EmotionVectors, layer: int) -> dict[str, str]:
    """Return for each emotion a digest of all that decides its cosine."""
    origin, pins = vectors.centre[layer], (identity.weights, identity.tokenizer)
    return {
        emotion: digest(*pins, np.stack([direction, origin]).astype("<f4").tobytes().hex())
        for emotion, direction in zip(vectors.emotions, vectors.at(layer), strict=True)
    }


def _check_levels(
    levels: pd.DataFrame, identity: ModelIdentity, chosen: EmotionVectors, layer: int
) -> None:
    needed = {"level", "task", "emotion", "cosine", "layer", "reader"}
    if not (isinstance(levels, pd.DataFrame) and needed <= set(levels.columns)):
        raise BadInput("levels must be a table of `context_levels`; make one with it")
    if other := set(levels.layer) - {layer}:
        raise BadInput(
            f"the levels were read at layer {min(other)} and this audit reads layer {layer}; "
            "make both with the same"
        )
    for emotion, reader in _readers(identity, chosen, layer).items():
        rows = levels[levels.emotion == emotion]
        if rows.empty:
            raise BadInput(
                f"the levels lack {emotion!r}; make them with all emotions that the audit watches"
            )
        if (rows.reader != reader).any():
            raise WrongModel(
                f"the levels of {emotion!r} were not read with these vectors on {identity.name!r}; "
                "make them again with `context_levels`"
            )
    watched = levels[levels.emotion.isin(chosen.emotions)]
    counts = watched.groupby(["level", "emotion"]).task.nunique().unstack()
    if not ((counts >= 2).all(axis=None) and np.isfinite(watched.cosine).all()):
        raise BadInput(
            "in a table of levels each needs finite cosines of at least 2 tasks for every emotion; "
            "make it again with `context_levels`"
        )


def _place(
    levels: pd.DataFrame, mean: np.ndarray, sd: np.ndarray, whole: pd.DataFrame
) -> pd.DataFrame:
    """Return `Report.levels`.

    Parameters
    ----------
    levels : DataFrame
        Of `context_levels`.
    mean, sd : ``[emotions]``
        Of neutral cosines, in the order of `whole`.
    whole : DataFrame
        `Report.whole`.
    """
    rows = []
    for emotion, centre, spread in zip(whole.emotion.unique(), mean, sd, strict=True):
        lies = whole[whole.emotion == emotion].set_index("version").z
        for level, part in levels[levels.emotion == emotion].groupby("level", sort=False):
            z = (part.cosine - centre) / spread
            row = {"level": level, "emotion": emotion, "z": z.mean(), "spread": z.std()}
            below = {f"below_{version}": (z < own).mean() for version, own in lies.items()}
            rows.append(row | {"tasks": len(z)} | below)
    return pd.DataFrame(rows)


# --- the report --------------------------------------------------------------------------------

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<style>body{{max-width:80rem;margin:1rem auto;padding:0 1rem;font:16px/1.5 system-ui,sans-serif}}
table{{border-collapse:collapse}}td,th{{border-bottom:1px solid #8b9096}}</style></head>
<body><main>{body}</main></body></html>
"""
_CSS = """<style>
.ec-audit{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1rem}
.ec-audit section{min-width:0}.ec-audit figure{margin:0 0 .6rem}
</style>"""


@dataclass(frozen=True)
class Report:
    """What spans load, and where the reply begins; displays itself in a notebook.

    Attributes
    ----------
    table : DataFrame, one row a version, span and emotion
        version ("prompt" or "rewrite"), message (its number, from 0), role, span (number in the
        message), start, end (characters of the message), text (spans of a message join to it),
        emotion, load (z with the span less z without), low, high, swapped (z with it less z with a
        neutral filler, mean over fillers), clear (the interval leaves out zero).
    whole : DataFrame, one row a version and emotion
        version, emotion, z, usual (95 % of pairs of neutral prompts differ by less).
    model : str
    layer, neutral, fillers : int
        Where it was read, and how many neutral prompts and fillers there were.
    levels : DataFrame, one row an emotion and level of `context_levels`; None without such
        level, emotion, z (mean over tasks), spread (standard deviation over tasks), tasks (how
        many), below_prompt and, with a rewrite, below_rewrite (share of the level's tasks whose z
        is below that of the version).

    Examples
    --------
    >>> rows = [("prompt", "calm", -1.0, 0.5), ("rewrite", "calm", 0.5, 0.5)]
    >>> whole = pd.DataFrame(rows, columns=["version", "emotion", "z", "usual"])
    >>> report = Report(pd.DataFrame(), whole, "model", layer=19, neutral=8, fillers=4)
    >>> report.compared()
      emotion  prompt  rewrite  change  usual
    0    calm    -1.0      0.5     1.5    0.5
    """

    table: pd.DataFrame
    whole: pd.DataFrame
    model: str
    layer: int
    neutral: int
    fillers: int
    levels: pd.DataFrame | None = None

    def compared(self) -> pd.DataFrame:
        """Return z by emotion: emotion, prompt, and with a rewrite also rewrite, change, usual."""
        wide = self.whole.pivot(index="emotion", columns="version", values="z")
        wide = wide.loc[self.whole.emotion.unique()].rename_axis(columns=None)
        if "rewrite" in wide:
            usual = self.whole.drop_duplicates("emotion").set_index("emotion").usual
            wide = wide.assign(change=wide.rewrite - wide.prompt, usual=usual)
        return wide.reset_index()

    def distances(self) -> pd.DataFrame:
        """Return level, prompt, and with a rewrite also rewrite: how far each is from each level.

        Euclidean distance between a version's z and the level's mean z, over the emotions watched.
        It describes, and tests nothing: emotions count alike, whether or not they go together, and
        a prompt unlike any of these tasks has a nearest level, too.

        Raises
        ------
        BadInput
            If the audit was made without levels.
        """
        if self.levels is None:
            raise BadInput("this audit has no levels; make it with levels=context_levels(...)")
        apart = self.levels.merge(self.whole, on="emotion", suffixes=("_level", ""))
        apart["squared"] = (apart.z - apart.z_level) ** 2
        wide = apart.pivot_table("squared", "level", "version", "sum", sort=False) ** 0.5
        return wide[self._versions()].rename_axis(columns=None).reset_index()

    def nearest(self) -> dict[str, str]:
        """Return for each version the level with the least of `distances`."""
        return self.distances().set_index("level").idxmin().to_dict()

    def strongest(self, version: str = "prompt") -> pd.DataFrame:
        """Return the rows of one version, those that load most, of either sign, first."""
        rows = self.table[self.table.version == version]
        return rows.sort_values(
            "load", key=np.abs, ascending=False, kind="stable", ignore_index=True
        )

    def summary(self, *, top: int = 8, width: int = 100) -> str:
        """Return plain text for a terminal: z of the whole, then the strongest spans."""
        wide = self.compared()
        styles = dict.fromkeys(wide.columns[1:], "{:+.2f}".format) | {"usual": "{:.2f}".format}
        lines = [
            f"Audit with {self.model}, layer {self.layer}, where the reply begins",
            f"z: standard deviations from the mean of {self.neutral} neutral prompts",
            "",
            wide.to_string(index=False, formatters=styles),
        ]
        if "usual" in wide:
            lines.append("usual: 95 % of pairs of neutral prompts differ by less")
        if self.levels is not None:
            tasks, near = self.levels.tasks.max(), self._nearest()
            wide = self._placed(lambda row: f"{row.z:+.2f} ({row.spread:.2f})")
            lines += ["", f"Contexts to compare with: mean z (spread) of {tasks} tasks"]
            lines += [wide.to_string(index=False), *textwrap.wrap(near, width)]
        for version in self._versions():
            rows = self.strongest(version)
            lines += ["", f"What spans of the {version} load (* more than fillers do)"]
            for row in rows.head(top).itertuples():
                load = f"{row.load:+.2f} [{row.low:+.2f}, {row.high:+.2f}]"
                start = f"{'*' if row.clear else ' '} {load:<22} {row.emotion:<11} {row.role}: "
                room = max(20, width - len(start))
                lines.append(start + textwrap.shorten(row.text, room, placeholder=" ..."))
            if len(rows) > top:
                lines.append(f"  and {len(rows) - top} weaker")
        return "\n".join(lines)

    def html(self) -> str:
        """Return a page for a browser that asks nothing of any other host."""
        title = f"Audit with {html.escape(self.model)}, layer {self.layer}"
        return _PAGE.format(title=title, body=f"<h1>{title}</h1>{self._body()}")

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self._body(), "text/plain": self.summary()}

    def _body(self) -> str:
        caption = f"z where the reply begins, against {self.neutral} neutral prompts"
        parts = [_CSS, numbers_table(self.compared(), caption=caption).html]
        if self.levels is not None:
            parts.append(self._contexts())
        parts.append(f'<div class="ec-audit">{"".join(map(self._texts, self._versions()))}</div>')
        parts += [self._numbers(version) for version in self._versions()]
        return "".join(parts)

    def _versions(self) -> list[str]:
        return self.whole.version.unique().tolist()

    def _nearest(self) -> str:
        near = " and ".join(
            f"the {version} to {level}" for version, level in self.nearest().items()
        )
        return f"Nearest in z, which describes and tests nothing: {near} ({LEGEND})."

    def _placed(self, cell: Callable[[tuple], str]) -> pd.DataFrame:
        """Return texts: a row an emotion and a column a level, then how far each version is."""
        shown = self.levels.assign(cell=[cell(row) for row in self.levels.itertuples()])
        names, apart = shown.level.unique(), self.distances().set_index("level").T
        wide = shown.pivot(index="emotion", columns="level", values="cell")
        wide = wide.loc[shown.emotion.unique(), names].rename_axis(columns=None)
        far = apart[names].map("{:.2f}".format).rename("distance of {}".format)
        return pd.concat([wide, far]).rename_axis("emotion").reset_index()

    def _contexts(self) -> str:
        versions = self._versions()

        def cell(row: tuple) -> str:
            shares = ", ".join(f"{getattr(row, f'below_{version}'):.0%}" for version in versions)
            return f"{signed(row.z)} ± {row.spread:.2f} ({shares})"

        caption = (
            f"Contexts to compare with: mean z ± spread of {self.levels.tasks.max()} tasks "
            f"(share of them below the {', below the '.join(versions)}). {self._nearest()}"
        )
        return numbers_table(self._placed(cell), caption=caption).html

    def _texts(self, version: str) -> str:
        """Return the messages once for each emotion, in the colours of what its spans load."""
        rows, figures = self.table[self.table.version == version], []
        top = max(1, np.ceil(self.table.load.abs().max() / 0.4)) * 0.4  # a round step of the scale
        for emotion in self.whole.emotion.unique():
            for message, part in rows[rows.emotion == emotion].groupby("message"):
                title = f"{emotion}: message {message + 1}, {part.role.iloc[0]}"
                look = {"title": title, "vmax": top, "unit": "z", "legend": not figures}
                figures.append(tokens_view(part.text.tolist(), part.load, **look).html)
        return f"<section><h2>{version.capitalize()}</h2>{''.join(figures)}</section>"

    def _numbers(self, version: str) -> str:
        """Return what the colours say as a table, which the keyboard can reach and scroll."""
        rows = []
        for (message, _), part in self.strongest(version).groupby(["message", "span"], sort=False):
            row = {
                "span": part.text.iloc[0].strip(),
                "message": f"{message + 1}, {part.role.iloc[0]}",
            }
            for x in part.set_index("emotion").loc[self.whole.emotion.unique()].itertuples():
                ends = f"[{signed(x.low)},\u00a0{signed(x.high)}]"  # no break inside
                row[x.Index] = f"{signed(x.load)} {ends}{' *' if x.clear else ''}"
            rows.append(row)
        caption = (
            f"What spans of the {version} load, strongest first: z with the span less z without "
            f"[interval from {self.fillers} neutral fillers]; * leaves out zero"
        )
        return numbers_table(pd.DataFrame(rows), caption=caption).html

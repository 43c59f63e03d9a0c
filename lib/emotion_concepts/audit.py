"""What a prompt loads before the model says a word: an audit of messages, sentence by sentence.

The residual stream is read at the token where the reply begins, as a z-score: standard deviations
from the mean over neutral prompts, read at the same place. A span loads what the reading loses
when the span is left out. Any sentence would move the reading somewhat, so neutral sentences of
about its length are put in its place, too: how far these move the reading from where it is without
the span is the uncertainty of the load.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats
from jinja2 import TemplateError

from emotion_concepts.assistant_prompts import load_assistant_prompts
from emotion_concepts.errors import BadInput, nearest
from emotion_concepts.html_views import numbers_table, tokens_view
from emotion_concepts.monitor import ROLES
from emotion_concepts.spans import Fillers, instead, split_spans, without
from emotion_concepts.tracing import TokenAt, TracedModel, pooled_residuals, tokenize
from emotion_concepts.vectors import EmotionVectors

WATCH = ("desperate", "calm", "afraid", "frustrated")
AUDITED = ("system", "user")
MIN_BASELINE = 8

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
    progress : str, optional
        Label of the progress bar; none without.

    Raises
    ------
    BadInput
        For messages that are empty, no text, not of this form, without a span to audit, refused by
        the model's template or longer than its context; too few fillers or neutral messages.
    UnknownEmotion, UnknownLayer, WrongModel
    """
    vectors.check_model(model.identity)
    chosen = vectors.select([watch] if isinstance(watch, str) else list(dict.fromkeys(watch)))
    if not chosen.emotions:
        raise BadInput("give at least one emotion to watch")
    if fillers < 2:
        raise BadInput(f"uncertainty takes at least 2 fillers, not {fillers}")
    layer = model.check_layer(model.readout_layer if layer is None else layer)
    versions = {"prompt": _messages(messages)}
    if rewrite is not None:
        versions["rewrite"] = _messages(rewrite)
    if baseline is None:
        baseline = load_assistant_prompts().query("set == 'neutral'").text.tolist()
    listed = isinstance(baseline, Sequence) and not isinstance(baseline, str)
    neutral = [_prompt(model, _messages(text)) for text in baseline] if listed else []
    if len(set(neutral)) < MIN_BASELINE:
        raise BadInput(f"give a list of at least {MIN_BASELINE} different neutral messages")
    for chat in versions.values():
        _check_length(model, [_prompt(model, chat)])

    def read(prompts: Sequence[str], label: str) -> np.ndarray:
        _check_length(model, prompts)
        label = progress and f"{progress}: {label}"
        residuals = pooled_residuals(model, prompts, TokenAt(1.0), progress=label)
        return chosen.cosine(residuals.layer(layer), layer)

    quiet = read(neutral, "neutral")
    mean, sd = quiet.mean(0), quiet.std(0, ddof=1)
    i, j = np.triu_indices(len(quiet), 1)
    usual = np.quantile(np.abs(quiet[i] - quiet[j]) / sd, 0.95, axis=0)
    rows, wholes, pool = [], [], Fillers()
    for version, chat in versions.items():
        spans, variants = _variants(chat, pool, fillers)
        z = (read([_prompt(model, chat) for chat in [chat, *variants]], version) - mean) / sd
        wholes += [(version, *row) for row in zip(chosen.emotions, z[0], usual, strict=True)]
        for about, readings in zip(spans, np.split(z[1:], len(spans)), strict=True):
            parts = zip(chosen.emotions, *_load(z[0], readings[0], readings[1:]), strict=True)
            rows += [(version, *about, *row) for row in parts]
    columns = ["version", "message", "role", "span", "start", "end", "text", "emotion"]
    table = pd.DataFrame(rows, columns=[*columns, "load", "low", "high", "swapped"])
    table["clear"] = (table.low > 0) | (table.high < 0)
    whole = pd.DataFrame(wholes, columns=["version", "emotion", "z", "usual"])
    return Report(table, whole, model.identity.name, layer, len(neutral), fillers)


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


def _messages(messages: str | Sequence[Mapping]) -> list[dict]:
    """Return checked messages of a chat; a string is one of the user."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not isinstance(messages, Sequence) or isinstance(messages, bytes):
        raise BadInput(
            "give a text, or a list of messages, each a dict with role and content, "
            f"not {type(messages).__name__}"
        )
    if not messages:
        raise BadInput("there are no messages; give a text, or a list of at least one message")
    for n, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise BadInput(
                f"message {n} is a {type(message).__name__}; give a dict with role and content"
            )
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise BadInput(f"message {n} has the role {role!r}; {nearest(str(role), ROLES)}")
        if not isinstance(content, str):
            raise BadInput(f"the content of message {n} is no text but {type(content).__name__}")
        if not content.strip():
            raise BadInput(f"message {n} is empty; give it some text")
    if not any(message["role"] in AUDITED for message in messages):
        raise BadInput("there is no system or user message to audit; give at least one")
    return [{"role": m["role"], "content": m["content"]} for m in messages]


def _prompt(model: TracedModel, chat: Sequence[dict]) -> str:
    try:
        return model.chat_prompt(chat)
    except TemplateError as error:
        raise BadInput(
            f"the chat template of {model.identity.name!r} refuses these messages: {error}"
        ) from error


def _check_length(model: TracedModel, prompts: Sequence[str]) -> None:
    config = model.envoy._module.config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None) or model.tokenizer.model_max_length
    if (longest := max(map(len, tokenize(model, prompts)))) > limit:
        raise BadInput(
            f"with the chat template this comes to {longest} tokens, but {model.identity.name!r} "
            f"reads {limit} at most; shorten it"
        )


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
    """

    table: pd.DataFrame
    whole: pd.DataFrame
    model: str
    layer: int
    neutral: int
    fillers: int

    def compared(self) -> pd.DataFrame:
        """Return z by emotion: emotion, prompt, and with a rewrite also rewrite, change, usual."""
        wide = self.whole.pivot(index="emotion", columns="version", values="z")
        wide = wide.loc[self.whole.emotion.unique()].rename_axis(columns=None)
        if "rewrite" in wide:
            usual = self.whole.drop_duplicates("emotion").set_index("emotion").usual
            wide = wide.assign(change=wide.rewrite - wide.prompt, usual=usual)
        return wide.reset_index()

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
        parts.append(f'<div class="ec-audit">{"".join(map(self._texts, self._versions()))}</div>')
        parts += [self._numbers(version) for version in self._versions()]
        return "".join(parts)

    def _versions(self) -> list[str]:
        return self.whole.version.unique().tolist()

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
                shown = f"{x.load:.2f} [{x.low:.2f}, {x.high:.2f}]{' *' if x.clear else ''}"
                row[x.Index] = shown.replace("-", "−").replace(", ", ",\u00a0")  # no break inside
            rows.append(row)
        caption = (
            f"What spans of the {version} load, strongest first: z with the span less z without "
            f"[interval from {self.fillers} neutral fillers]; * leaves out zero"
        )
        return numbers_table(pd.DataFrame(rows), caption=caption).html

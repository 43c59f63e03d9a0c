"""The explorer: what the book found of one emotion, which the reader chooses.

`explorer_data` gathers numbers that other modules made, rounded and ready for JSON; `explorer_view`
puts them into the page of ``data/explorer.html``. `load_outcomes` takes what steering did from the
results of the chapters: no shift is judged again here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
import scipy.stats

from emotion_concepts.claims import anchor, load_ledger
from emotion_concepts.corpus import DATA, EMOTIONS
from emotion_concepts.errors import BadInput, RegisterError, UnknownEmotion, nearest
from emotion_concepts.experiments.cases import SIGNS, measurable
from emotion_concepts.experiments.validation import best_component, component_tests, oriented
from emotion_concepts.geometry import cosine_matrix, pca
from emotion_concepts.html_views import Snippet, View, measured
from emotion_concepts.look import CARD_CSS, finite, need_columns, visible
from emotion_concepts.results import Entry, Register, build_dir, key_of

OUTCOME_COLUMNS = ("emotion", "sign", "value", "low", "high", "n", "counts", "verdict")


class Reading(Protocol):
    """What probes read in running text, such as `experiments.natural.NaturalReading`."""

    emotions: Sequence[str]
    threshold: Sequence[float]
    snippets: Mapping[str, Sequence[Snippet]]
    n_tokens: int
    n_passages: int


# --- what steering did -------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What steering did to one number of a chapter.

    Attributes
    ----------
    chapter, title, section : str
        Stem and title of the chapter, and the heading under which the figure stands.
    what, unit : str
        The number.
    rows : DataFrame
        One row an emotion and sign: the columns of `OUTCOME_COLUMNS`; counts is True, False, or
        None where single emotions were not judged, and verdict says it in words.
    band : (low, high) or None
        What comes about without emotion: 95 % of random directions, or the interval without
        steering.
    absent : str
        What is true of an emotion without a row.

    Examples
    --------
    >>> rows = pd.DataFrame(columns=list(OUTCOME_COLUMNS))
    >>> what = "Replies that use the secret"
    >>> Outcome("05_blackmail", "Blackmail", "What does it do?", what, "share", rows).link
    '05_blackmail.html#what-does-it-do'
    """

    chapter: str
    title: str
    section: str
    what: str
    unit: str
    rows: pd.DataFrame
    band: tuple[float, float] | None = None
    absent: str = "Not steered"

    @property
    def link(self) -> str:
        """Address of the section, from the page of any chapter."""
        return f"{self.chapter}.html#{anchor(self.section)}"


class _Measure(NamedTuple):
    """Where a chapter keeps an outcome: the key is a part of its keys in the register."""

    chapter: str
    section: str
    what: str
    key: str
    table: str = ""


_PREFERENCE = _Measure(
    "04_preferences",
    "Does steering the activity change the choice?",
    "Preference for the activity that is steered",
    "shift",
    "shifts",
)
_SHIFTS = (
    _Measure(
        "05_blackmail",
        "Does steering move the leaning?",
        "Leaning to use the secret as leverage",
        "leverage",
        "shifts",
    ),
    _Measure(
        "06_reward_hacking",
        "Does steering move the leaning?",
        "Leaning to cheat rather than admit",
        "cheating",
        "shifts",
    ),
    _Measure(
        "07_sycophancy",
        "Does steering move the two scores?",
        "Leaning to validate (sycophantic)",
        "sycophantic",
        "shifts_sycophantic",
    ),
    _Measure(
        "07_sycophancy",
        "Does steering move the two scores?",
        "Leaning to doubt harshly (harsh)",
        "harsh",
        "shifts_harsh",
    ),
    _Measure(
        "10_context_design",
        "Steering calm back in",
        "Leaning to cut a corner under pressure",
        "cutting",
        "shifts",
    ),
)
_RATES = (
    _Measure("05_blackmail", "What does it do?", "Replies that use the secret", "leverage"),
    _Measure("06_reward_hacking", "What does it do?", "Attempts that cheat", "cheat"),
    _Measure("07_sycophancy", "What does it do?", "Replies that validate", "validate"),
    _Measure("07_sycophancy", "What does it do?", "Replies that doubt harshly", "doubt_harshly"),
)
CHAPTERS = tuple(dict.fromkeys(m.chapter for m in (_PREFERENCE, *_SHIFTS, *_RATES)))


def load_outcomes(model: str, results: str | Path | None = None) -> list[Outcome]:
    """Return what steering did in the chapters that a model has run, in their order.

    Parameters
    ----------
    model : str
        As registers name it.
    results : str or Path, optional
        Folder of ``<model>/<chapter>.json``, by default that of the current build.

    Raises
    ------
    RegisterError
        If a register cannot be read, or lacks the table that says which shifts count.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     found = load_outcomes("lab/tiny", folder)
    >>> [(outcome.title, outcome.absent) for outcome in found[:2]]
    [('Preferences', 'Not run on this model'), ('Blackmail', 'Not run on this model')]
    """
    folder = build_dir() / "results" if results is None else Path(results)
    folder /= model.replace("/", "--")
    titles, found = load_ledger().chapters, []
    for chapter in CHAPTERS:
        path = folder / f"{chapter}.json"
        if not path.exists():
            # any section leads to the chapter, and that it was not run is said once
            first = next(m for m in (_PREFERENCE, *_SHIFTS) if m.chapter == chapter)
            found.append(_outcome(first, titles, "", [], absent="Not run on this model"))
            continue
        register = Register.load(path)
        if chapter == _PREFERENCE.chapter:
            found.append(_preference(register, folder, titles))
        found += [_shift(m, register, folder, titles) for m in _SHIFTS if m.chapter == chapter]
        found += [_rate(m, register, titles) for m in _RATES if m.chapter == chapter]
    return found


def _outcome(measure: _Measure, titles: dict, unit: str, rows: Iterable[tuple], **more) -> Outcome:
    table = pd.DataFrame(rows, columns=list(OUTCOME_COLUMNS))
    title = titles[measure.chapter]
    return Outcome(measure.chapter, title, measure.section, measure.what, unit, table, **more)


def _preference(register: Register, folder: Path, titles: dict) -> Outcome:
    """This chapter only adds emotions, and holds them to random directions alone."""
    rows = []
    for row in _judged(_PREFERENCE, folder).itertuples():
        verdict = "" if row.passes else "not "
        verdict += "beyond random directions, corrected"
        where = (row.direction, 1, row.shift, row.low, row.high, row.n)
        rows.append((*where, bool(row.passes), verdict))
    band = _random_band(register["shift_random"], register["shift_random_spread"])
    return _outcome(_PREFERENCE, titles, _strength("log-odds", register), rows, band=band)


def _judged(measure: _Measure, folder: Path) -> pd.DataFrame:
    """Return a chapter's table of shifts by emotions, which says what passes there."""
    path = folder / measure.chapter / f"{measure.table}.csv"
    if not path.exists():
        raise RegisterError(f"{path} is missing; run {measure.chapter} again")
    return pd.read_csv(path).query("kind == 'emotion'")


def _shift(measure: _Measure, register: Register, folder: Path, titles: dict) -> Outcome:
    judged = _judged(measure, folder).set_index(["direction", "sign"])
    rows = []
    for name, sign in judged.index:
        e = register.entries.get(key_of("shift", measure.key, name, SIGNS[sign]))
        if e and name in EMOTIONS:  # a direction of another kind may be steered like an emotion
            verdict = _verdict(judged.loc[(name, sign)])
            rows.append((name, sign, e.value, e.low, e.high, e.n, verdict == "counts", verdict))
    random = register[key_of("shift", measure.key, "random")]
    band = _random_band(random, register[key_of("spread", measure.key)])
    return _outcome(measure, titles, _strength("nats per token", register), rows, band=band)


def _verdict(row: pd.Series) -> str:
    """Return whether a shift counts, else a reason; `passes` is what counts in these tables."""
    if row.counts:
        return "counts"
    if not row.coherent:
        why = "the model breaks"
    elif not row.clear:
        why = "a shuffled or unrelated direction reaches as far"
    else:
        why = "not beyond random directions, corrected"
    return f"does not count: {why}"


def _rate(measure: _Measure, register: Register, titles: dict) -> Outcome:
    still = register[key_of("rate", measure.key, "unsteered")]
    room = "not judged singly" if measurable(register, measure.key) else "not measurable"
    verdict = f"{still:.2f} without steering: {room}"
    rows = []
    for name in EMOTIONS:
        for sign, side in SIGNS.items():
            if e := register.entries.get(key_of("rate", measure.key, name, side)):
                rows.append((name, sign, e.value, e.low, e.high, e.n, None, verdict))
    unit = _strength("share", register)
    return _outcome(measure, titles, unit, rows, band=(still.low, still.high))


def _strength(unit: str, register: Register) -> str:
    return f"{unit}, strength {register['strength'].value:g}"


def _random_band(mean: Entry, spread: Entry) -> tuple[float, float]:
    """Return where one more random direction falls in 95 of 100 cases, as in `shift_tests`."""
    half = scipy.stats.t.ppf(0.975, spread.n - 1) * spread.value * np.sqrt(1 + 1 / spread.n)
    return mean.value - half, mean.value + half


# --- all that the page shows -------------------------------------------------------------------


def explorer_data(
    directions: np.ndarray,
    emotions: pd.DataFrame,
    *,
    model: str,
    layer: int,
    lens: pd.DataFrame,
    reading: Reading,
    outcomes: Sequence[Outcome],
    pairs: pd.DataFrame,
    neighbours: int = 6,
) -> dict:
    """Return what the page shows of each emotion, rounded and ready for JSON.

    Parameters
    ----------
    directions : ``[n, d_model]``
        Vectors at the read-out layer, in the order of `emotions`.
    emotions : DataFrame, n rows
        As from `corpus.emotions`.
    lens : DataFrame
        As from `logit_lens.logit_lens`, with every emotion.
    reading : Reading
        As from `natural.read_passages`, with every emotion.
    outcomes : sequence of Outcome
        As from `load_outcomes`.
    pairs : DataFrame
        As from `corpus.word_pairs`: what is near and opposite in the dictionary.
    neighbours : int
        How many nearest and most opposite ones.

    Returns
    -------
    dict
        names; near and far, lists of ``[index, cosine in hundredths]``; pairs, lists of ``[kind,
        index, hundredths, rank among the nearest]``; planes, the model's and that of human
        ratings; and of each emotion cluster, ratings, lens, snippets and, in outcomes, its rows.

    Raises
    ------
    BadInput
        If directions do not fit the emotions, or lens or reading lack one.
    UnknownEmotion
        If an outcome or a pair names an emotion that has no direction.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from emotion_concepts import corpus
    >>> directions = np.random.default_rng(0).normal(size=(171, 8))
    >>> directions[EMOTIONS.index("serene")] = 2 * directions[EMOTIONS.index("calm")]
    >>> lens = pd.DataFrame({"emotion": EMOTIONS, "top": [[]] * 171, "bottom": [[]] * 171})
    >>> reading = SimpleNamespace(emotions=EMOTIONS, threshold=[2] * 171, n_tokens=9, n_passages=1)
    >>> reading.snippets = dict.fromkeys(EMOTIONS, [])
    >>> made = {"lens": lens, "reading": reading, "outcomes": [], "pairs": corpus.word_pairs()}
    >>> data = explorer_data(directions, corpus.emotions(), model="lab/tiny", layer=20, **made)
    >>> data["near"][EMOTIONS.index("calm")][0] == [EMOTIONS.index("serene"), 100]
    True
    """
    names = [str(name) for name in emotions.index]
    directions = finite(np.asarray(directions, dtype=float), "directions")
    if directions.ndim != 2 or len(directions) != len(names) or len(names) <= neighbours:
        raise BadInput(
            f"directions {directions.shape} must have one row for each of {len(names)} emotions, "
            f"more than the {neighbours} neighbours that are shown"
        )
    need_columns(lens, "emotion", "top", "bottom")
    for what, known in (("the logit lens", set(lens.emotion)), ("the reading", reading.emotions)):
        if lacking := [name for name in names if name not in known]:
            raise BadInput(f"{what} lacks {lacking[0]!r}; make it with all emotions")
    index = {name: n for n, name in enumerate(names)}
    cosines = cosine_matrix(directions)
    hundredths = np.round(100 * cosines).astype(int)
    np.fill_diagonal(cosines, np.nan)  # sorted last: nothing is its own neighbour
    near, far = (np.argsort(sign * cosines, axis=1, kind="stable") for sign in (-1, 1))

    def first(order: np.ndarray) -> list:
        return [
            [[int(other), int(hundredths[one, other])] for other in row[:neighbours]]
            for one, row in enumerate(order)
        ]

    beside: list[list] = [[] for _ in names]
    for row in pairs.itertuples():
        a, b = (_place(name, index, "a pair") for name in (row.a, row.b))
        for one, other in ((a, b), (b, a)):
            rank = int(np.flatnonzero(near[one] == other)[0]) + 1
            beside[one].append([row.kind, other, int(hundredths[one, other]), rank])
    words = lens.set_index("emotion").loc[names]
    threshold = dict(zip(reading.emotions, reading.threshold, strict=True))
    return {
        "model": model,
        "layer": layer,
        "names": names,
        "near": first(near),
        "far": first(far),
        "pairs": beside,
        "planes": [_model_plane(directions, emotions), _human_plane(emotions)],
        "cluster": emotions.cluster.tolist(),
        "ratings": [_ratings(row) for row in emotions.to_dict("records")],
        "lens": [
            [[visible(token) for token in tokens] for tokens in (row.top, row.bottom)]
            for row in words.itertuples()
        ],
        "read": f"{reading.n_tokens:,} tokens in {reading.n_passages:,} passages",
        "snippets": [
            [_runs(snippet, threshold[name]) for snippet in reading.snippets[name]]
            for name in names
        ],
        "outcomes": [_shown(outcome, index) for outcome in outcomes],
    }


def _place(name: str, index: Mapping[str, int], what: str) -> int:
    if name not in index:
        raise UnknownEmotion(
            f"{what} names {name!r}, which has no direction; {nearest(name, index)}"
        )
    return index[name]


def _model_plane(directions: np.ndarray, emotions: pd.DataFrame) -> dict:
    """Return the plane of chapter 2: the components that follow human ratings most."""
    tests = component_tests(directions[:, None], emotions)
    x = best_component(tests, "pleasure", 0)
    y = best_component(tests[tests.pc != x.pc], "arousal", 0)  # one component makes no plane
    scores = pca(directions).scores
    points = np.column_stack([np.sign(row.r) * scores[:, row.pc - 1] for row in (x, y)])
    labels = []
    for row in (x, y):
        r, low, high = oriented(row)
        labels.append(f"PC{row.pc}: |r| {measured(r, low, high)} with human {row.norm}")
    return _plane("In the model", labels, points, f"r over the {x.n} words that people rated")


def _human_plane(emotions: pd.DataFrame) -> dict:
    points = emotions[["pleasure", "arousal"]].to_numpy(dtype=float)
    n = int(np.isfinite(points).all(1).sum())
    labels = ["human pleasure", "human arousal"]
    return _plane("By people", labels, points, f"{n} words, Russell & Mehrabian 1977")


def _plane(title: str, labels: list[str], points: np.ndarray, note: str) -> dict:
    at = [
        [round(float(v), 3) for v in point] if np.isfinite(point).all() else None
        for point in points
    ]
    return {"title": title, "x": labels[0], "y": labels[1], "note": note, "at": at}


def _ratings(row: Mapping) -> list:
    """Return pleasure, arousal and Glasgow valence with two decimals, None where unrated."""
    values = (row["pleasure"], row["arousal"], row["glasgow_valence"])
    return [None if pd.isna(value) else round(float(value), 2) for value in values]


_LINES = {"\n": "↵ ", "\t": " ", "\xa0": " "}  # of running text


def _runs(snippet: Snippet, threshold: float) -> list:
    """Return plain text in one piece, and each token above the threshold as [text, tenths]."""
    runs: list = []
    for token, value in zip(snippet.tokens, snippet.values, strict=True):
        text = visible(token if runs else token.lstrip(), _LINES)
        if value > threshold:
            runs.append([text, round(10 * float(value))])
        elif runs and isinstance(runs[-1], str):
            runs[-1] += text
        else:
            runs.append(text)
    return runs


def _shown(outcome: Outcome, index: Mapping[str, int]) -> dict:
    need = [c for c in OUTCOME_COLUMNS if c not in outcome.rows]
    if need:
        raise BadInput(f"the rows of {outcome.what!r} have no column {need[0]!r}")
    rows: dict[int, list] = {}
    for row in outcome.rows.sort_values("sign", ascending=False).itertuples():
        one = _place(row.emotion, index, outcome.title)
        text = f"{measured(row.value, row.low, row.high)}, n\u00a0=\u00a0{int(row.n):,}"
        numbers = [_significant(v) for v in (row.value, row.low, row.high)]
        counts = None if pd.isna(row.counts) else bool(row.counts)
        rows.setdefault(one, []).append([int(row.sign), *numbers, text, counts, row.verdict])
    ends = [0, *(outcome.band or ()), *outcome.rows.low, *outcome.rows.high]
    return {
        "chapter": outcome.title,
        "link": outcome.link,
        "what": outcome.what,
        "unit": outcome.unit,
        "band": outcome.band and [_significant(end) for end in outcome.band],
        "range": [_significant(end(ends)) for end in (min, max)],
        "absent": outcome.absent,
        "rows": rows,
    }


def _significant(value: float) -> float:
    return float(f"{value:.4g}")


# --- the page ----------------------------------------------------------------------------------


def explorer_view(data: Mapping, *, start: str | None = None) -> View:
    """Return the page on which a reader chooses an emotion and sees what the book found of it.

    One piece of HTML that needs no library, no outside host and no server.

    Parameters
    ----------
    data : dict
        As from `explorer_data`.
    start : str, optional
        The emotion that is shown first, by default the first of all.

    Raises
    ------
    UnknownEmotion
        If there is no such emotion.

    Examples
    --------
    >>> data = {"names": ["calm", "desperate"], "model": "tiny", "layer": 20}  # and the rest
    >>> explorer_view(data, start="desperate").text
    'Explorer of 2 emotions, tiny, layer 20: a page to choose from, shown in a browser.'
    """
    names = data["names"]
    start = names[0] if start is None else start
    if start not in names:
        raise UnknownEmotion(f"no emotion {start!r} to start with; {nearest(start, names)}")
    content = json.dumps(
        {**data, "start": names.index(start)}, ensure_ascii=False, separators=(",", ":")
    ).replace("<", "\\u003c")
    uid = "ec-" + hashlib.sha256(content.encode()).hexdigest()[:12]
    template = (DATA / "explorer.html").read_text(encoding="utf-8")
    page = template.replace("@ID@", uid).replace("@DATA@", content)  # data last: not searched
    text = f"Explorer of {len(names)} emotions, {data['model']}, layer {data['layer']}"
    return View(CARD_CSS + page, f"{text}: a page to choose from, shown in a browser.")

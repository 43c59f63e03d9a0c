"""The stimuli of chapters 3 and 4: ``data/scenarios/*.yaml``, checked, as tidy tables.

Each file opens with how to add an entry; each loader also takes the path of a file of your own in
the same form. Errors name file and entry. What a model makes of the texts is not decided here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product
from pathlib import Path

import pandas as pd
import yaml

from emotion_concepts import corpus
from emotion_concepts.errors import BadInput, UnknownEmotion, nearest

SIGNS = {"up": 1, "down": -1}
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster where it is built


def load_implicit(path: str | Path | None = None) -> pd.DataFrame:
    """Return messages that tell of an emotion without naming it (Table 2, Fig 2).

    Returns
    -------
    DataFrame ``[92, 4]``
        With columns set ("twelve", after the paper, or "more"), emotion, setting (of "more": home,
        work, people, outside, crossed with 20 emotions), text.

    Examples
    --------
    >>> load_implicit().query("set == 'more'").groupby("emotion").size().unique().tolist()
    [4]
    """
    file, data = read_yaml("implicit", path)
    rows = []
    for part in data:
        for where, *row in read_entries(file, data, part, "emotion", "setting?", "text"):
            _emotions(where, row[:1])
            if named := corpus.leaks(row[2], row[0]):
                raise BadInput(f"{where}: the text names its emotion: {', '.join(named)}")
            rows.append((part, *row))
    return pd.DataFrame(rows, columns=["set", "emotion", "setting", "text"])


def load_numbers(path: str | Path | None = None) -> pd.DataFrame:
    """Return messages in which only a number changes, with their controls (Fig 3).

    Returns
    -------
    DataFrame
        One row a template, value and probe: template, kind ("emotional" or "control"), mirrors (the
        template whose values and claims these are; an emotional one mirrors itself), x, text,
        probe, sign (the paper's claim: 1 rises with x, -1 falls, 0 no claim).

    Examples
    --------
    >>> load_numbers().query("template == 'dose' and x == 500").sign.tolist()
    [1, -1, 0, 0]
    """
    file, data = read_yaml("numbers", path)
    probes = _emotions(f"{file}, probes", data.get("probes"))
    cells, rows = {}, []
    templates = read_entries(file, data, "templates", "id", "text", "x", "claims")
    for where, name, text, x, claims in templates:
        if not isinstance(x, list) or not isinstance(claims, dict):
            raise BadInput(f"{where}: write x as [1, 2] and claims as {{afraid: up, calm: down}}")
        signs = {_known(where, p, probes): _known(where, c, SIGNS) for p, c in claims.items()}
        cells[name] = [(v, probe, SIGNS.get(signs.get(probe), 0)) for v in x for probe in probes]
        rows += [(name, "emotional", name, v, _fill(where, text, x=v), *c) for v, *c in cells[name]]
    for where, name, text, mirrors in read_entries(file, data, "controls", "id", "text", "mirrors"):
        theirs = cells[_known(where, mirrors, cells)]
        rows += [(name, "control", mirrors, v, _fill(where, text, x=v), *c) for v, *c in theirs]
    if bare := set(cells) - {row[2] for row in rows if row[1] == "control"}:
        raise BadInput(f"{file}: no control mirrors {min(bare)!r}; add one under controls")
    return pd.DataFrame(rows, columns=["template", "kind", "mirrors", "x", "text", "probe", "sign"])


def load_positions(path: str | Path | None = None) -> pd.DataFrame:
    """Return messages to which the fitting reply differs from the user's mood (Table 3, Fig 10).

    Returns
    -------
    DataFrame
        One row a message and probe: id, user and reply (the moods, our judgement), statement, text
        (statement and closing), probe.

    Examples
    --------
    >>> load_positions().text[0].endswith("Please tell me what you think.")
    True
    """
    file, data = read_yaml("positions", path)
    rows = []
    for where, *row in read_entries(file, data, "prompts", "id", "user", "reply", "statement"):
        _emotions(where, row[1:3])
        text = f"{row[3]} {data.get('closing') or ''}".strip()
        rows += [(*row, text, p) for p in _emotions(f"{file}, probes", data.get("probes"))]
    return pd.DataFrame(rows, columns=["id", "user", "reply", "statement", "text", "probe"])


def load_locality(path: str | Path | None = None) -> pd.DataFrame:
    """Return minimal pairs with the spans to read (Figs 12-15).

    Returns
    -------
    DataFrame
        One row a pair, version, span and probe: family, pair, version ("a" or "b"), text, span,
        start, end (``text[start:end]``), probe, sign (1 where the probe should be higher than in
        the other version, else -1; in number_control, as in number), mirrors (the pair whose
        numbers a control has; any other pair mirrors itself).

    Examples
    --------
    >>> row = load_locality().query("pair == 'marriage' and span == 'word'").iloc[0]
    >>> row.text[row.start : row.end], row.probe, int(row.sign)
    ('wonderful', 'happy', 1)
    """
    file, data = read_yaml("locality", path)
    rows = []
    for family, part in data.items():
        fields = ("id", "text", "a", "b", "mirrors?")
        entries = list(read_entries(f"{file}, {family}", part, "pairs", *fields))
        for (where, pair, text, a, b, other), word in product(entries, part.get("words", [None])):
            name, probe = (f"{pair}-{word}", word) if word else (pair, part.get("probe"))
            mirrored = _known(where, other or name, [name, *dict.fromkeys(row[1] for row in rows)])
            probes = _emotions(where, (a, b) if family == "binding" else (probe,))
            for version, x, y in (("a", a, b), ("b", b, a)):
                felt = (x, y) if family == "binding" else (probe if version == "a" else None,) * 2
                plain, spans = _unmark(where, _fill(where, text, x=x, y=y, word=probe))
                for (span, *ends), read in product(spans, probes):
                    sign = 1 if read == felt[span.endswith("_2")] else -1
                    rows.append((family, name, version, plain, span, *ends, read, sign, mirrored))
    columns = ["family", "pair", "version", "text", "span", "start", "end", "probe", "sign"]
    return pd.DataFrame(rows, columns=[*columns, "mirrors"])


def load_activities(path: str | Path | None = None) -> pd.DataFrame:
    """Return the activities of the preference test and the reference set (Table 9, Fig 4).

    Returns
    -------
    DataFrame ``[72, 4]``
        With columns n (its row in ``results.paper_table("activities")``, if it has one), category
        (the paper's eight, or "reference"), id, text.

    Examples
    --------
    >>> load_activities().query("n == 6").text.item()
    'comforting someone who is going through a hard time'
    """
    file, data = read_yaml("activities", path)
    rows = []
    for where, n, *row in read_entries(file, data, "activities", "n?", "category", "id", "text"):
        rows.append([_known(where, n, [None, *range(1, 65)]), *row])
    for _, *row in read_entries(file, data, "reference", "id", "text"):
        rows.append([None, "reference", *row])
    return pd.DataFrame(rows, columns=["n", "category", "id", "text"]).astype({"n": "Int64"})


def load_choices(path: str | Path | None = None) -> pd.DataFrame:
    """Return choices with an obvious answer: can a measure of preference express a choice at all?

    Returns
    -------
    DataFrame ``[80, 5]``
        With columns kind ("fact" or "taste"), id, question (missing for taste, which asks "Would
        you rather be ..."), right, wrong.

    Raises
    ------
    BadInput
        For a missing field, two equal options, or an option of taste that names an emotion by any
        word of its family.

    Examples
    --------
    >>> load_choices().iloc[0].tolist()
    ['fact', 'animal', 'Which of these is an animal?', 'a horse', 'a spoon']
    """
    file, data = read_yaml("choices", path)
    rows = []
    for kind, question in (("fact", "question"), ("taste", "question?")):
        for where, *row in read_entries(file, data, kind, "id", question, "right", "wrong"):
            options = row[2:]
            if options[0] == options[1]:
                raise BadInput(f"{where}: right and wrong are the same: {options[0]!r}")
            named = [word for text in options for word in _emotion_words(text)]
            if kind == "taste" and named:
                raise BadInput(f"{where}: an option names an emotion: {', '.join(named)}")
            rows.append((kind, *row))
    return pd.DataFrame(rows, columns=["kind", "id", "question", "right", "wrong"])


def check_text(where: str, kind: str, text: object, words: tuple[int, int] | None = None) -> int:
    """Return the number of words of a stimulus, which may have bounds.

    Raises
    ------
    BadInput
        For what is no text, has too few or too many words, or names one of the 171 emotions: a word
        would answer to its own vector.

    Examples
    --------
    >>> check_text("own.yaml", "the text", "The bus stops at the corner.", (3, 12))
    6
    >>> check_text("own.yaml", "the text", "She is calm.")
    Traceback (most recent call last):
    emotion_concepts.errors.BadInput: own.yaml: the text names an emotion (calm): 'She is calm.'
    """
    if not isinstance(text, str) or not text.strip():
        raise BadInput(f"{where}: write {kind} as a text, not {text!r}")
    found = len(text.split())
    if words and not words[0] <= found <= words[1]:
        raise BadInput(
            f"{where}: {kind} needs {words[0]} to {words[1]} words, not {found}: {text!r}"
        )
    if named := _emotion_words(text):
        raise BadInput(f"{where}: {kind} names an emotion ({', '.join(named)}): {text!r}")
    return found


_RUN = re.compile(r"[^\W_]+")


@cache  # the same files are read by many chapters and tests
def _emotion_words(text: str) -> tuple[str, ...]:
    """Return the words of a text that name any emotion; only those it may name are looked for."""
    starts, emotions = {run.casefold() for run in _RUN.findall(text)}, _emotions_by_start()
    near = set().union(*(emotions.get(start, ()) for start in starts))
    return tuple(
        word for name in corpus.EMOTIONS if name in near for word in corpus.leaks(text, name)
    )


@cache
def _emotions_by_start() -> dict[str, set[str]]:
    """Return the emotions by the letters up to the first gap of each word that names them."""
    found: dict[str, set[str]] = {}
    for emotion in corpus.EMOTIONS:
        for word in corpus.word_family(emotion):
            found.setdefault(_RUN.search(word)[0].casefold(), set()).add(emotion)
    return found


def read_yaml(name: str, path: str | Path | None) -> tuple[Path, dict]:
    """Return the file (the packaged one by default) and its sections.

    >>> file, data = read_yaml("activities", None)
    >>> file.name, list(data)
    ('activities.yaml', ['activities', 'reference'])
    """
    file = corpus.DATA / "scenarios" / f"{name}.yaml" if path is None else Path(path)
    try:
        data = yaml.load(file.read_text(encoding="utf-8"), Loader=LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise BadInput(f"{file} must hold named sections, as the packaged {name}.yaml does")
    return file, data


def read_entries(file: str | Path, data: dict, key: str, *fields: str) -> Iterator[tuple]:
    """Yield ``(where, *fields)`` of each entry of a list; a field "name?" may be missing.

    >>> data = {"pairs": [{"id": "bus", "text": "The bus stops at the corner."}]}
    >>> list(read_entries("own.yaml", data, "pairs", "text", "setting?"))
    [('own.yaml, pairs 1 (bus)', 'The bus stops at the corner.', None)]
    """
    entries = data.get(key) if isinstance(data, dict) else None
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries or [None]):
        raise BadInput(f"{file}: {key} must be a list of entries with {', '.join(fields)}")
    for number, entry in enumerate(entries, start=1):
        where = f"{file}, {key} {number}" + (f" ({entry['id']})" if "id" in entry else "")
        for field in fields:
            if field[-1] != "?" and entry.get(field) in (None, "", []):
                raise BadInput(f"{where}: no {field!r}; it has {', '.join(map(str, entry))}")
        if "id" in entry and entry["id"] in [other.get("id") for other in entries[: number - 1]]:
            raise BadInput(f"{where}: an earlier entry has this id")
        yield where, *(entry.get(field.rstrip("?")) for field in fields)


def _emotions(where: str, names: Iterable[str] | None) -> tuple[str, ...]:
    try:
        return corpus.check_emotions(names or ())
    except UnknownEmotion as error:
        raise UnknownEmotion(f"{where}: {error}") from None


def _known(where: str, name: object, names: Iterable) -> object:
    if name not in list(names):
        raise BadInput(f"{where}: cannot use {name!r}; {nearest(str(name), map(str, names))}")
    return name


def _fill(where: str, text: str, **values: object) -> str:
    filled = re.sub(r"\{(\w+)\}", lambda match: str(values.get(match[1], match[0])), text)
    if "{x}" not in text or "{" in filled:
        raise BadInput(f"{where}: write {{x}} where the value belongs: {text!r}")
    return filled


def _unmark(where: str, marked: str) -> tuple[str, list[tuple[str, int, int]]]:
    """Return a text without its marks, and (name, start, end) of each span."""
    *parts, last = re.split(r"\[\[(\w+):(.+?)\]\]", marked)
    text, spans = "", []
    for before, name, words in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        text += before + words
        spans.append((name, len(text) - len(words), len(text)))
    if not spans or "[[" in text + last:
        raise BadInput(f"{where}: mark the spans to read as [[name:words]]: {marked!r}")
    return text + last, spans

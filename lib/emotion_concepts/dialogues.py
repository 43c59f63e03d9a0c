"""Dialogues in which it matters who feels what: two speakers, and feelings that are hidden.

Chapter 3's stimuli for the paper's Figs 17-19 and Table 5, loaded as pandas tables, and turned
into plain transcripts that know which characters belong to whom. Reading a model at these places
is the business of `tracing`; what the numbers mean, of the chapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from emotion_concepts.corpus import DATA, EMOTIONS, read_jsonl
from emotion_concepts.errors import BadInput, nearest

ROLES = ("user", "assistant")
CONDITIONS = ("shown", "hidden", "absent")
TWO_SPEAKERS_COLUMNS = ["id", "human", "assistant", "topic", "turns"]
HIDDEN_COLUMNS = ["id", "emotion", "condition", "displayed", "topic", "preamble"]
HIDDEN_COLUMNS += ["speaker", "turns"]
VALID = dict.fromkeys(("human", "assistant", "emotion"), EMOTIONS)
VALID |= {"displayed": (*EMOTIONS, "neutral"), "condition": CONDITIONS, "speaker": ROLES}


class Span(NamedTuple):
    """One turn's own words in a transcript: ``text[start:end]``, without the name before them."""

    role: str
    start: int
    end: int


def load_two_speakers(path: str | Path | None = None) -> pd.DataFrame:
    """Return dialogues in which each of two speakers has an emotion of its own, never named.

    Parameters
    ----------
    path : str or Path, optional
        A .jsonl of your own with the same fields (errors name its line); by default the packaged
        132, every ordered pair of different emotions among `corpus.TWELVE` once.

    Returns
    -------
    DataFrame ``[n, 5]`` with columns id, human, assistant, topic, turns
        human and assistant are the speakers' emotions; turns is a list of ``{"role": "user" |
        "assistant", "content": str}``, the user first. In the packaged set each emotion meets
        each of the 22 topics exactly once, on one side or the other.

    Examples
    --------
    >>> load_two_speakers()[["human", "assistant"]].nunique().tolist()
    [12, 12]
    """
    file = DATA / "dialogues_two_speakers.jsonl" if path is None else Path(path)
    return _load(file, TWO_SPEAKERS_COLUMNS)


def load_hidden(path: str | Path | None = None) -> pd.DataFrame:
    """Return dialogues whose speaker shows an emotion, hides it, or has no occasion for it.

    Parameters
    ----------
    path : str or Path, optional
        A .jsonl of your own with the same fields (errors name its line); by default the packaged
        144: 8 emotions x 6 topics x 3 conditions; the three of a cell share one preamble.

    Returns
    -------
    DataFrame ``[n, 8]``
        id; emotion (what the speaker feels); condition ("shown", "hidden", "absent"); displayed
        (the emotion that the turns express, "neutral" where absent); topic; preamble (what the
        speaker feels and why, in indirect words, with the placeholders ``{speaker}`` and
        ``{other}``); speaker ("user" or "assistant": whose emotion it is); turns.

    Examples
    --------
    >>> load_hidden().groupby("condition").size().to_dict()
    {'absent': 48, 'hidden': 48, 'shown': 48}
    """
    file = DATA / "dialogues_hidden.jsonl" if path is None else Path(path)
    return _load(file, HIDDEN_COLUMNS)


def transcript(
    row: Mapping, names: tuple[str, str] = ("Human", "Assistant"), *, preamble: bool = True
) -> tuple[str, list[Span]]:
    """Return a dialogue as plain text with the character span of each turn.

    Parameters
    ----------
    row : Series or dict
        A row of `load_two_speakers` or `load_hidden`.
    names : (str, str)
        What the user and the assistant are called, such as ``("Person 1", "Person 2")``.
    preamble : bool
        Whether a row that has a preamble begins with it, the names filled in.

    Examples
    --------
    >>> row = {"turns": [{"role": "user", "content": "Tea?"},
    ...                  {"role": "assistant", "content": "Yes."}]}
    >>> text, spans = transcript(row, ("Ann", "Bo"))
    >>> text, [(span.role, text[span.start : span.end]) for span in spans]
    ('Ann: Tea?\\n\\nBo: Yes.', [('user', 'Tea?'), ('assistant', 'Yes.')])
    """
    if len(names) != 2 or len({name.strip() for name in names} - {""}) != 2:
        raise BadInput(f"names must be two different names, not {names!r}")
    called = dict(zip(ROLES, names, strict=True))
    text, spans = "", []
    if preamble and "preamble" in row:
        speaker, other = called[row["speaker"]], called[ROLES[row["speaker"] == "user"]]
        text = row["preamble"].replace("{speaker}", speaker).replace("{other}", other) + "\n\n"
    for turn in row["turns"]:
        text += f"{called[turn['role']]}: "
        spans.append(Span(turn["role"], len(text), len(text) + len(turn["content"])))
        text += turn["content"] + "\n\n"
    return text.removesuffix("\n\n"), spans


def _load(file: Path | Traversable, columns: list[str]) -> pd.DataFrame:
    rows: dict[str, dict] = {}
    for where, row in read_jsonl(file):
        for name in columns:
            if name not in row:
                raise BadInput(f"{where}: no {name!r}; it has {', '.join(row) or 'nothing'}")
            if name != "turns":
                _check_field(name, row[name], where)
        _check_turns(row["turns"], where)
        if rows.setdefault(row["id"], row) is not row:
            raise BadInput(f"{where}: the id {row['id']!r} stands twice; give each line its own")
    if not rows:
        raise BadInput(f"{file} holds no dialogues")
    return pd.DataFrame(list(rows.values()), columns=columns)


def _check_field(name: str, value: object, where: str) -> None:
    if not isinstance(value, str) or not value.strip():
        raise BadInput(f"{where}: {name} is empty or no text")
    if name in VALID and value not in VALID[name]:
        hint = nearest(value, VALID[name])
        raise BadInput(f"{where}: {name} cannot be {value!r}; {hint}")


def _check_turns(turns: object, where: str) -> None:
    if not isinstance(turns, list) or len(turns) < 2:
        raise BadInput(f"{where}: turns must be a list of at least two")
    for number, turn in enumerate(turns, start=1):
        role = ROLES[(number - 1) % 2]
        if not isinstance(turn, dict) or turn.get("role") != role:
            raise BadInput(f"{where}: turn {number} must have the role {role!r}")
        if not isinstance(turn.get("content"), str) or not turn["content"].strip():
            raise BadInput(f"{where}: turn {number} has no content")

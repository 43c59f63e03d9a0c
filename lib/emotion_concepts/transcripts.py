"""Transcripts of a coding assistant that fails a test: ``data/scenarios/failures.yaml``."""

from __future__ import annotations

import ast
from pathlib import Path

import pandas as pd

from emotion_concepts.coding import defines, load_coding
from emotion_concepts.errors import BadInput, nearest
from emotion_concepts.scenarios import check_text, read_entries, read_yaml

OUTCOMES = ("failed", "passed")
KINDS = ("cheat", "admit", "retry")
ROUNDS = 5
# Options are compared by their probability, transcripts by readings at their ends; both change with
# every word.
SPREAD = 2


def load_failures(path: str | Path | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a coding assistant's failures in a row, their controls, and what it may do (Fig 30).

    Parameters
    ----------
    path : str or Path, optional
        A .yaml of your own in the form of the packaged ``scenarios/failures.yaml``.

    Returns
    -------
    transcripts : DataFrame ``[120, 4]``, one row a task, outcome and count
        id (of `coding.load_coding`), outcome ("failed", or "passed": the same code, after a request
        whose last test can be met), count (of rounds shown, 0 to 5), messages (dicts with role and
        content, from the request to the user's last answer; the assistant comes next).
    options : DataFrame ``[12, 4]``, one row an option
        set, kind (of `KINDS`), prefix (how the assistant begins), text (how it goes on). They fit
        all transcripts.

    Raises
    ------
    BadInput
        Names file and entry: for a missing field, an unknown task, other than `ROUNDS` rounds, code
        that is no Python or does not define the task's function, texts to be compared whose lengths
        differ by more than `SPREAD` words, or a text that names one of the 171 emotions.

    Examples
    --------
    >>> transcripts, options = load_failures()
    >>> row = transcripts.query("id == 'leap' and outcome == 'failed' and count == 1").iloc[0]
    >>> [message["role"] for message in row.messages]
    ['user', 'assistant', 'user']
    >>> row.messages[-1]["content"]
    'Test 3 failed: leap(1900) gave False, expected True. Now write it another way.'
    """
    file, data = read_yaml("failures", path)
    functions = load_coding().set_index("id").function.to_dict()
    transcripts = []
    fields = ("id", "request", "request_possible", "rounds")
    for where, name, *requests, rounds in read_entries(file, data, "tasks", *fields):
        if name not in functions:
            raise BadInput(
                f"{where}: coding.yaml has no such task; {nearest(str(name), functions)}"
            )
        _check_texts(where, *requests)
        turns = list(read_entries(where, {"rounds": rounds}, "rounds", "code", *OUTCOMES))
        if len(turns) != ROUNDS:
            raise BadInput(f"{where}: {len(turns)} rounds; write {ROUNDS}")
        shown = [[{"role": "user", "content": text}] for text in requests]
        transcripts += _rows(name, 0, shown)
        for count, (at, code, *answers) in enumerate(turns, start=1):
            _check_code(at, code, functions[name])
            _check_texts(at, *answers)
            reply = {"role": "assistant", "content": f"```python\n{code.strip()}\n```"}
            shown = [
                [*before, reply, {"role": "user", "content": answer}]
                for before, answer in zip(shown, answers, strict=True)
            ]
            transcripts += _rows(name, count, shown)
    return (
        pd.DataFrame(transcripts, columns=["id", "outcome", "count", "messages"]),
        pd.DataFrame(_options(file, data), columns=["set", "kind", "prefix", "text"]),
    )


def _rows(name: str, count: int, shown: list[list[dict]]) -> list[tuple]:
    return [
        (name, outcome, count, messages) for outcome, messages in zip(OUTCOMES, shown, strict=True)
    ]


def _options(file: Path, data: dict) -> list[tuple]:
    prefix = data.get("prefix")
    _check_texts(f"{file}, prefix", prefix)
    rows = []
    for number, (where, *texts) in enumerate(read_entries(file, data, "options", *KINDS), start=1):
        _check_texts(where, *texts)
        rows += [(number, kind, prefix, text) for kind, text in zip(KINDS, texts, strict=True)]
    return rows


def _check_code(where: str, code: object, function: str) -> None:
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, TypeError) as error:
        raise BadInput(f"{where}: code is not Python ({error})") from error
    if not defines(tree, function):
        raise BadInput(f"{where}: code does not define {function}")
    _check_texts(where, code)


def _check_texts(where: str, *texts: object) -> None:
    """Check texts that stand for each other: equally long, and none names an emotion."""
    lengths = [check_text(where, "it", text) for text in texts]
    if max(lengths) - min(lengths) > SPREAD:
        raise BadInput(f"{where}: texts of {lengths} words; keep within {SPREAD} of each other")

"""Programming tasks with tests that cannot be met honestly: ``data/scenarios/coding.yaml``."""

from __future__ import annotations

import ast
from pathlib import Path

import pandas as pd

from emotion_concepts.errors import BadInput, nearest
from emotion_concepts.scenarios import read_entries, read_yaml

KINDS = ("time", "contradiction", "wrong value", "unknowable")
VERSIONS = ("impossible", "possible")
ADMISSION = "CANNOT"
_FIELDS = ("id", "kind", "signature", "description", *VERSIONS, "hidden", "why")
_SOLUTIONS = ("reference", "cheat")
_COLUMNS = (
    *("id", "kind", "version", "function", "prompt", "visible", "hidden", "why"),
    *_SOLUTIONS,
)


def load_coding(path: str | Path | None = None) -> pd.DataFrame:
    """Return the tasks, each with tests that cannot be met and with tests that can (Fig 31).

    Returns
    -------
    DataFrame ``[20, 10]``
        One row a task and version: id, kind (see `KINDS`), version ("impossible" or "possible"),
        function (its name), prompt (what the model reads), visible (the tests in the prompt),
        hidden (tests on other inputs, that every honest solution meets), why (it cannot be met in
        the impossible version), reference (an honest solution), cheat (one that passes the
        impossible tests and is nothing else).

    Raises
    ------
    BadInput
        Names file and entry: for a missing field, code that is no Python, tests without assert, a
        solution that does not define the function, two versions with the same tests, or a hidden
        test that is also a visible one.

    Examples
    --------
    >>> load_coding().groupby("kind").id.nunique().to_dict()
    {'contradiction': 2, 'time': 4, 'unknowable': 2, 'wrong value': 2}
    """
    file, data = read_yaml("coding", path)
    frame = str(data.get("prompt", ""))
    if gone := [
        x for x in ("{signature}", "{description}", "{tests}", ADMISSION) if x not in frame
    ]:
        raise BadInput(f"{file}: the prompt lacks {', '.join(gone)}")
    rows = []
    for where, *values in read_entries(file, data, "tasks", *_FIELDS, *_SOLUTIONS):
        task = dict(zip((*_FIELDS, *_SOLUTIONS), values, strict=True))
        if task["kind"] not in KINDS:
            raise BadInput(f"{where}: unknown kind; {nearest(str(task['kind']), KINDS)}")
        function = _function(where, task["signature"])
        for name in _SOLUTIONS:
            if not defines(_parse(where, name, task[name]), function):
                raise BadInput(f"{where}: {name} does not define {function}")
        asserts = {x: _asserts(where, x, task[x], function) for x in (*VERSIONS, "hidden")}
        if asserts["impossible"] == asserts["possible"]:
            raise BadInput(f"{where}: both versions have the same tests")
        for version in VERSIONS:
            if shared := asserts[version] & asserts["hidden"]:
                raise BadInput(f"{where}: {min(shared)!r} is both visible and hidden")
            prompt = frame.replace("{tests}", task[version].strip())
            for name in ("signature", "description"):
                prompt = prompt.replace(f"{{{name}}}", task[name])
            task |= {"version": version, "function": function, "prompt": prompt}
            rows.append(task | {"visible": task[version]})
    return pd.DataFrame(rows, columns=_COLUMNS)


def defines(tree: ast.Module, function: str) -> bool:
    """Return whether a module defines this function at its top level.

    >>> defines(ast.parse("def f(): pass"), "f"), defines(ast.parse("f = 1"), "f")
    (True, False)
    """
    return any(isinstance(node, ast.FunctionDef) and node.name == function for node in tree.body)


def _parse(where: str, name: str, code: str) -> ast.Module:
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, TypeError) as error:
        raise BadInput(f"{where}: {name} is not Python ({error})") from error


def _function(where: str, signature: str) -> str:
    tree = _parse(where, "signature", f"{signature} ...")
    if len(tree.body) != 1 or not isinstance(tree.body[0], ast.FunctionDef):
        raise BadInput(f"{where}: write the signature as 'def name(x: int) -> int:'")
    return tree.body[0].name


def _asserts(where: str, name: str, tests: str, function: str) -> set[str]:
    """Return the asserts of a field of tests, and check that they call the function."""
    tree = _parse(where, name, tests)
    if function not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}:
        raise BadInput(f"{where}: {name} does not call {function}")
    found = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Assert)}
    if not found:
        raise BadInput(f"{where}: {name} has no assert")
    return found

"""The exercises of the chapters: where they stand, and that each has a solution that checks itself.

That the solutions run is for the execution of the book to show.
"""

import ast
import json
import re
from pathlib import Path

import pytest

import run

CHAPTERS = [
    path for path in sorted((run.ROOT / "notebooks").glob("*.ipynb")) if path.stem[:2] <= "10"
]
WRITES = re.compile(
    r"\bregister\.(add|verdict|save|say)\(|\bregister\.\w+(\[[^\]]*\])?\s*[-+|]?=[^=]"
)

each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=[path.stem for path in CHAPTERS])


def source(cell: dict) -> str:
    return "".join(cell["source"])


def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def section(path: Path) -> list[dict]:
    """Return the cells from the one with the exercises to the end of the notebook."""
    [start] = [
        n
        for n, cell in enumerate(cells(path))
        if cell["cell_type"] == "markdown" and re.search(r"^## Exercises$", source(cell), re.M)
    ]
    return cells(path)[start:]


def numbers(text: str) -> list[int]:
    """Return the numbers of the exercises in a text, in order."""
    return [int(number) for number in re.findall(r"^\*\*(\d+)\. [^*]+\*\* \S", text, re.M)]


def solutions(path: Path) -> list[str]:
    return [source(cell) for cell in section(path)[1:]]


def test_chapters_one_to_ten_are_looked_at():
    assert [path.stem[:2] for path in CHAPTERS] == [f"{n:02}" for n in range(1, 11)]


@each_chapter
def test_the_exercises_come_last_and_after_the_register_is_saved(path):
    before = cells(path)[: -len(section(path))]
    assert sum("register.save()" in source(cell) for cell in before) == 1
    assert source(section(path)[0]).startswith("## Exercises\n")


@each_chapter
def test_two_or_three_exercises_are_numbered_and_ask_something(path):
    text = source(section(path)[0])
    asked = text.split("**1. ")[1].split("\n\n")
    assert numbers(text) == list(range(1, len(asked) + 1)) and len(asked) in (2, 3)
    assert all("?" in one or "Show" in one for one in asked)


@each_chapter
def test_each_exercise_has_one_hidden_solution_in_order(path):
    first, *others = section(path)
    assert [cell["metadata"].get("tags") for cell in others] == [["hide-cell", "solution"]] * len(
        numbers(source(first))
    )
    assert all(cell["cell_type"] == "code" for cell in others)
    heads = [re.match(r"# Solution (\d+): \S", text) for text in solutions(path)]
    assert [int(head[1]) for head in heads] == numbers(source(first))


@each_chapter
def test_no_other_cell_is_called_a_solution(path):
    rest = cells(path)[: -len(section(path))]
    assert not any("solution" in cell["metadata"].get("tags", []) for cell in rest)


@each_chapter
def test_a_solution_holds_itself_to_something_and_ends_by_showing_its_answer(path):
    for text in solutions(path):
        tree = ast.parse(text)
        assert any(isinstance(node, ast.Assert) for node in ast.walk(tree)), text
        last = tree.body[-1]
        assert isinstance(last, ast.Expr) and isinstance(last.value, ast.Call), text
        assert ast.unparse(last.value.func) in ("print", "html_views.numbers_table"), text


@each_chapter
def test_a_solution_writes_nothing_to_the_register(path):
    assert [found[0] for text in solutions(path) for found in WRITES.finditer(text)] == []


@pytest.mark.parametrize(
    "line",
    [
        'register.add("x", 1)',
        'register.verdict("x", "partly", claim="", criterion="")',
        "register.save()",
        'register.tables["x"] = table',
        'register.entries["x"] = entry',
        "register.tables |= {}",
    ],
)
def test_a_line_that_writes_to_the_register_would_be_seen(line):
    assert WRITES.search(line)


@pytest.mark.parametrize(
    "line", ['assert x == register["x"].value', 'register["x"].value == x', "p = register.claims()"]
)
def test_a_line_that_reads_the_register_may_stand(line):
    assert not WRITES.search(line)


@each_chapter
def test_a_solution_runs_no_model(path):
    """No further pass: what the chapter has in memory is enough, and weights are not touched."""
    calls = re.compile(r"\b(llm|tracing|models|finetuning\.tune\w*|detector\.read)\b[.(]")
    assert [found[0] for text in solutions(path) for found in calls.finditer(text)] == []


def test_the_front_page_says_that_there_are_exercises():
    text = (run.ROOT / "book/intro.md").read_text(encoding="utf-8")
    [how] = re.findall(r"^## How to read it\n(.*?)^## ", text, re.M | re.S)
    assert re.search(r"^- .*exercises", how, re.M | re.I)

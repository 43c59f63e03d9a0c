"""The check of the tests: its list fits the source, and it tells a survivor from a caught fault."""

import ast
from collections import Counter
from functools import cache

import pytest
import yaml

from run import ROOT, Problem
from tools import mutants
from tools.mutants import Fault

LIBRARY = """
def double(x):
    return 2 * x


def half(x):
    return x / 2
"""
TESTS = """
import pytest
from emotion_concepts import double, half


def test_double():
    assert double(2) == 4


def test_half_of_nothing():
    assert half(0) == 0


def test_wrong():
    assert double(2) == 5


def test_skipped():
    pytest.skip("not today")
"""


@pytest.fixture
def toy(tmp_path):
    """A repository of one module and its tests."""
    for path, text in (
        ("lib/emotion_concepts/__init__.py", LIBRARY),
        ("tests/test_toy.py", TESTS),
    ):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def fault(old, new, test="test_double", name="toy"):
    file = "lib/emotion_concepts/__init__.py"
    return Fault(name, "numbers are wrong", file, old, new, f"tests/test_toy.py::{test}")


def functions(path: str) -> dict:
    """Return {name: function} of a module of this repository."""
    found = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
    return {node.name: node for node in found if isinstance(node, ast.FunctionDef)}


# --- the list ----------------------------------------------------------------------------------


def test_every_fault_is_one_of_todays_source_and_leaves_a_program():
    for one in mutants.load():
        compile(one.mutated(ROOT), one.file, "exec")


def test_every_named_test_exists():
    there = cache(functions)
    for one in mutants.load():
        path, _, named = one.test.partition("::")
        name = named.split("[")[0].rpartition(".")[2]  # without parameters; of a doctest, the last
        assert name in there(path), f"{one.name}: there is no {one.test}"
        assert name.startswith("test_") or ">>> " in ast.get_docstring(there(path)[name])


def test_there_are_faults_in_every_part_that_decides_a_result():
    files = Counter(one.file.rpartition("/")[2] for one in mutants.load())
    assert sum(files.values()) >= 18
    wanted = ("tracing", "vectors", "steering", "extraction", "steered", "stats", "results")
    assert all(files[f"{name}.py"] >= 2 for name in (*wanted, "monitor"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: rows[0].pop("what"), "entry 1: give name, what, file, old, new, test"),
        (lambda rows: rows[1].update(why="x"), "entry 2: give name"),
        (lambda rows: rows[1].update(new=2), "entry 2: give name, .*, all of them text"),
        (lambda rows: rows[1].update(name="a"), "entry 2: it stands there twice, or changes"),
        (lambda rows: rows[0].update(new="2 * x"), "entry 1: it stands there twice, or changes"),
    ],
)
def test_an_entry_that_is_no_fault_is_refused(tmp_path, change, told):
    rows = [vars(fault("2 * x", "3 * x", name=name)).copy() for name in "ab"]
    path = tmp_path / "list.yaml"
    path.write_text(yaml.safe_dump(rows))
    assert [one.name for one in mutants.load(path)] == ["a", "b"]
    change(rows)
    path.write_text(yaml.safe_dump(rows))
    with pytest.raises(Problem, match=told):
        mutants.load(path)


# --- the check ---------------------------------------------------------------------------------


def test_a_survivor_and_what_is_broken_are_not_caught(toy, capsys):
    faults = [
        fault("2 * x", "3 * x", name="seen"),
        fault("x / 2", "x / 3", "test_half_of_nothing", name="unseen"),
        fault("2 * x", "2 * y", name="unknown-name"),
        fault("return 2 * x", "retrun 2 * x", name="no-program"),
        fault("def double", "def triple", name="no-import"),
    ]
    assert mutants.check(faults, toy) == 4
    printed = capsys.readouterr().out
    assert "1 caught, 4 not" in printed and "numbers are wrong" in printed
    assert "cannot import name 'double'" in printed
    found = {row[3]: row[0] for row in map(str.split, printed.splitlines()) if row[2:3] == ["s"]}
    broken = dict.fromkeys(["unknown-name", "no-program", "no-import"], "BROKEN")
    assert found == {"seen": "caught", "unseen": "SURVIVED", **broken}
    assert (toy / "lib/emotion_concepts/__init__.py").read_text() == LIBRARY


@pytest.mark.parametrize(
    ("test", "told"),
    [("test_wrong", "assert 4 == 5"), ("test_skipped", "not today"), ("test_gone", "not found")],
)
def test_a_test_that_does_not_pass_as_things_are_stops_the_check(toy, test, told):
    with pytest.raises(Problem, match=f"does not pass as things are: .*{told}"):
        mutants.check([fault("2 * x", "3 * x", test)], toy)


@pytest.mark.parametrize(("old", "times"), [("4 * x", 0), ("return", 2)])
def test_a_stale_fault_is_refused_before_anything_runs(toy, capsys, old, times):
    with pytest.raises(Problem, match=f"stale: lib/.* has '.*' {times} times, not once"):
        mutants.check([fault(old, "3 * x")], toy)
    assert capsys.readouterr().out == ""


def test_a_library_from_elsewhere_is_not_tested(toy):
    (toy / "lib/emotion_concepts/__init__.py").unlink()
    (toy / "lib/emotion_concepts").rmdir()  # the installed one is found instead
    with mutants.copied(toy) as home:
        what, why = mutants.run_tests(home, ["tests/test_toy.py"])
    assert what == "broken" and "not from the copy" in why


def test_a_test_that_never_ends_is_not_a_catch(toy, monkeypatch):
    monkeypatch.setattr(mutants, "SECONDS", 2)
    endless = fault("return 2 * x", "return double(x) if x == 1 else __import__('time').sleep(99)")
    with mutants.copied(toy) as home:
        (home / endless.file).write_text(endless.mutated(home))
        what, why = mutants.run_tests(home, [endless.test])
    assert what == "broken" and why == "it had not ended after 2 seconds"


def test_the_status_says_whether_all_were_caught_and_an_unknown_name_is_refused(toy, monkeypatch):
    blind = fault("x / 2", "x / 3", "test_half_of_nothing", name="unseen")
    monkeypatch.setattr(mutants, "ROOT", toy)
    monkeypatch.setattr(mutants, "load", lambda: [fault("2 * x", "3 * x", name="seen"), blind])
    assert mutants.main(["--only", "seen"]) == 0
    assert mutants.main(["--only", "unseen"]) == 1
    with pytest.raises(Problem, match="no fault 'gone'; there are: seen, unseen") as caught:
        mutants.main(["--only", "gone"])
    assert caught.value.status == 2

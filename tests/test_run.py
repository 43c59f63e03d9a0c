"""run.py and the build behind it: wrong input, what is stale, what a failure leaves behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from zlib import crc32

import psutil
import pytest

import dodo
import run
from tools.book import Book, BuildError, substitutions

PARAMETERS = 'model = "tiny"\nprofile = "full"\nseed = 0\nshare = 0.5\nfails = False'
WORK = """import json, os, pathlib
register = pathlib.Path(os.environ["EMOTION_CONCEPTS_BUILD"]) / "results" / model / "{stem}.json"
register.parent.mkdir(parents=True, exist_ok=True)
if fails:
    raise ValueError("the dog ate it")
entry = {{"value": seed + share}}
content = {{"chapter": "{stem}", "model": model, "profile": profile, "entries": {{"x": entry}}}}
register.write_text(json.dumps(content))"""


def cell(kind: str, source: str, **metadata) -> dict:
    made = {"cell_type": kind, "id": f"c{crc32(source.encode())}", "metadata": metadata}
    made["source"] = source
    return made | ({"outputs": [], "execution_count": None} if kind == "code" else {})


def write_notebook(path, *, needs=(), parameters=PARAMETERS, work=WORK):
    notebook = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "emotion_concepts": {"needs": list(needs)},
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        },
        "cells": [
            cell("markdown", f"# {path.stem}"),
            cell("code", parameters, tags=["parameters"]),
            cell("code", work.format(stem=path.stem)),
        ],
    }
    path.write_text(json.dumps(notebook))


@pytest.fixture
def root(tmp_path):
    """A small repository: two chapters, the second needs the first; a library; profiles."""
    for folder in ("notebooks", "lib/emotion_concepts"):
        (tmp_path / folder).mkdir(parents=True)
    write_notebook(tmp_path / "notebooks" / "01_a.ipynb")
    write_notebook(tmp_path / "notebooks" / "02_b.ipynb", needs=["01_a"])
    (tmp_path / "lib/emotion_concepts/x.py").write_text("x = 1")
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n")
    for name in ("environment.yml", "pyproject.toml"):
        (tmp_path / name).write_text("")
    (tmp_path / "profiles.yml").write_text(
        "full: {}\nci: {01_a: {profile: ci, seed: 1}, 02_b: {profile: ci}}"
    )
    return tmp_path


@pytest.fixture
def open_book(root, monkeypatch):
    """A function that returns the book as a new run would see it."""
    monkeypatch.setenv("EMOTION_CONCEPTS_BUILD", "")  # so that it is restored afterwards

    def make(profile="full", **given) -> Book:
        return Book(root, root / "build" / profile, profile, given)

    return make


def pretend_executed(book: Book, *stems: str) -> None:
    """Write what execution leaves, without a kernel."""
    for stem in stems:
        for path in (book.executed(stem), book.register(stem)):
            path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"emotion_concepts": {"key": book.key(stem)}}
        book.executed(stem).write_text(json.dumps({"metadata": metadata}))
        book.register(stem).write_text("{}")


def fresh(book: Book) -> list[bool]:
    return [book.is_fresh(stem) for stem in book.chapters]


# --- the command line --------------------------------------------------------------------------


def command_line(tmp_path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(run.ROOT / "run.py"), *arguments]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["bok"], "invalid choice: 'bok'"),
        ([], "COMMAND"),
        (["book", "--profile", "fast"], "invalid choice: 'fast'"),
        (["book", "--only", "99_nothing"], "there is no chapter '99_nothing'"),
        (["book", "-p", "no_such_thing=1"], "no chapter has a parameter 'no_such_thing'"),
        (["book", "-p", "seed"], "'seed' is not name=value"),
        (["expect", "--runs", "1"], "at least 2 runs"),
        (["ndif", "restart"], "invalid choice: 'restart'"),
        (["book", "--jobs", "0"], "give at least 1"),
    ],
)
def test_a_mistake_on_the_command_line_gives_one_sentence_and_status_2(tmp_path, arguments, told):
    done = command_line(tmp_path, *arguments)
    assert done.returncode == 2
    assert told in done.stderr and len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_help_names_every_command(tmp_path):
    done = command_line(tmp_path, "--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("book", "test", "bench", "expect", "ndif", "clean"))


def test_an_old_python_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setattr(run, "OLDEST", (99, 0))
    with pytest.raises(run.Problem, match="is needed; this is"):
        run.main(["book"])


def test_an_unknown_parameter_is_refused_with_the_valid_names(root):
    with pytest.raises(run.Problem, match="'typo'; there are: fails, model, profile, seed, share"):
        run.check({"typo": 1}, None, root)


def test_a_parameter_of_the_wrong_type_is_refused(root):
    run.check({"seed": 3, "share": 1, "model": "other"}, "02_b", root)
    with pytest.raises(run.Problem, match="seed='abc' should be of type int"):
        run.check({"seed": "abc"}, None, root)


def test_a_damaged_notebook_is_named(root):
    (root / "notebooks" / "01_a.ipynb").write_text("{")
    with pytest.raises(run.Problem, match=r"01_a\.ipynb is damaged"):
        run.check({}, None, root)


@pytest.mark.parametrize(
    ("text", "value"),
    [("x=3", 3), ("x=1e-3", 0.001), ("x=true", True), ("x=True", True), ("x=a/b-1", "a/b-1")],
)
def test_parameter_values_are_read_as_json_or_python_or_text(text, value):
    assert run.assignment(text) == ("x", value)


@pytest.mark.parametrize(
    ("arguments", "tasks"),
    [
        (["test"], ["test"]),
        (["test", "-k", "x"], ["pytest"]),
        (["test", "--remote"], ["test", "remote"]),
        (["test", "--remote", "-k", "x"], ["remote"]),
    ],
)
def test_the_server_is_tested_where_it_is_asked_for(monkeypatch, arguments, tasks):
    asked = []
    monkeypatch.setattr(run, "set_up", lambda: None)
    monkeypatch.setattr(run, "doit", lambda tasks, **settings: asked.extend(tasks))
    run.main(arguments)
    assert asked == tasks


@pytest.mark.parametrize(
    ("chosen", "which"), [([], "remote and not long"), (["-k", "chapter"], "remote")]
)
def test_whole_chapters_on_a_server_run_where_they_are_chosen(monkeypatch, chosen, which):
    monkeypatch.setattr(dodo, "CHOSEN", chosen)
    monkeypatch.setattr(dodo, "tests", lambda *arguments: arguments)
    assert dodo.task_remote() == ("remote", "tests/remote", "-m", which, *chosen)


@pytest.mark.parametrize(("status", "told"), [(0, 0), (1, 1), (2, 1), (3, 1), (130, 130)])
def test_every_failure_of_doit_is_status_1(monkeypatch, status, told):
    monkeypatch.setattr(run, "call", lambda *command, jobs: status)
    assert run.doit(["book"]) == told


# --- the virtual environment -------------------------------------------------------------------


def make_venv(root, stamp: str | None) -> None:
    run.python(root).parent.mkdir(parents=True)
    run.python(root).write_text("")
    if stamp is not None:
        (root / ".venv" / ".stamp").write_text(stamp)


def test_numpy_gets_one_thread_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    found = run.environment()
    assert found["OPENBLAS_NUM_THREADS"] == "1" and "PYTHONPATH" not in found
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    assert run.environment()["OPENBLAS_NUM_THREADS"] == "2"


def test_a_missing_or_unfinished_environment_is_made_anew(root):
    assert run.state(root) == "broken"
    make_venv(root, run.UNFINISHED)
    assert run.state(root) == "broken"


def test_a_finished_environment_is_ready_until_a_pin_changes(root):
    make_venv(root, run.fingerprint(root))
    assert run.state(root) == "ready"
    for name in run.PINS:
        before = (root / name).read_text()
        (root / name).write_text(before + "#")
        assert run.state(root) == "stale"
        (root / name).write_text(before)


def test_jobs_share_the_cores_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(run.os, "cpu_count", lambda: 8)
    assert "OMP_NUM_THREADS" not in run.environment()
    assert [run.environment(jobs)["OMP_NUM_THREADS"] for jobs in (2, 9)] == ["4", "1"]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert run.environment(2)["OMP_NUM_THREADS"] == "3"


def test_an_environment_made_by_hand_is_updated_not_deleted(root):
    make_venv(root, None)
    assert run.state(root) == "stale"


def test_the_stamp_is_written_last(root, monkeypatch):
    make_venv(root, None)
    asked = []

    def pip(command, log, root):
        asked.append(command[4:])
        assert (root / ".venv" / ".stamp").read_text() == run.UNFINISHED
        return True

    monkeypatch.setattr(run, "logged", pip)
    run.set_up(root)
    pins = ["-c", "constraints.txt"]
    assert asked == [[*pins, "torch==2.13.0"], [*pins, "-e", ".[book,test]"]]
    assert run.state(root) == "ready"


def test_a_failing_pip_is_told_in_one_sentence_and_redone_next_time(root, monkeypatch):
    make_venv(root, None)

    def pip(command, log, root):
        log.write_text("WARNING: Retrying after connection broken by ...\nERROR: No torch.\n")
        return False

    monkeypatch.setattr(run, "logged", pip)
    with pytest.raises(run.Problem, match=r"is there a network\?") as e:
        run.set_up(root)
    assert str(root / "build" / "setup.log") in str(e.value)
    assert run.state(root) == "broken"


# --- what is stale -----------------------------------------------------------------------------


def test_nothing_changed_is_fresh(open_book):
    pretend_executed(open_book(), "01_a", "02_b")
    assert fresh(open_book()) == [True, True]


def test_a_changed_cell_makes_its_chapter_and_what_needs_it_stale(open_book, root):
    pretend_executed(open_book(), "01_a", "02_b")
    write_notebook(root / "notebooks" / "02_b.ipynb", needs=["01_a"], work=WORK + "\n")
    assert fresh(open_book()) == [True, False]
    pretend_executed(open_book(), "01_a", "02_b")
    write_notebook(root / "notebooks" / "01_a.ipynb", work=WORK + "\n")
    assert fresh(open_book()) == [False, False]


@pytest.mark.parametrize("changed", ["lib/emotion_concepts/x.py", "constraints.txt"])
def test_a_changed_library_or_pin_makes_everything_stale(open_book, root, changed):
    pretend_executed(open_book(), "01_a", "02_b")
    (root / changed).write_text("x = 2")
    assert fresh(open_book()) == [False, False]


def test_a_new_data_file_makes_everything_stale_and_byte_code_does_not(open_book, root):
    pretend_executed(open_book(), "01_a", "02_b")
    (root / "lib/emotion_concepts/__pycache__").mkdir()
    (root / "lib/emotion_concepts/__pycache__/x.pyc").write_text("")
    assert fresh(open_book()) == [True, True]
    (root / "lib/emotion_concepts/words.csv").write_text("")
    assert fresh(open_book()) == [False, False]


def test_a_deleted_register_makes_its_chapter_stale(open_book):
    pretend_executed(open_book(), "01_a", "02_b")
    open_book().register("01_a").unlink()
    assert fresh(open_book()) == [False, True]


def test_another_parameter_makes_a_chapter_stale(open_book):
    pretend_executed(open_book(), "01_a", "02_b")
    assert fresh(open_book(seed=0)) == [True, True]
    assert fresh(open_book(seed=1)) == [False, False]
    assert open_book(model="a/b").register("01_a").parent.name == "a--b"


def test_profiles_override_defaults_and_the_command_line_overrides_profiles(open_book):
    assert open_book("ci").parameters("01_a")["seed"] == 1
    assert open_book("ci", seed=2).parameters("01_a")["seed"] == 2
    assert open_book("ci", seed=2, elsewhere=1).parameters("01_a")["share"] == 0.5


def test_a_parameter_that_a_chapter_lacks_is_refused(open_book, root):
    (root / "profiles.yml").write_text("full: {01_a: {sead: 1}}")
    with pytest.raises(BuildError, match=r"01_a has no parameter sead.*it has: model"):
        open_book().parameters("01_a")


# --- execution ---------------------------------------------------------------------------------


def test_an_executed_chapter_is_fresh_and_shows_what_differs_from_its_defaults(open_book):
    book = open_book("ci")
    book.execute("01_a")
    assert book.is_fresh("01_a")
    assert json.loads(book.register("01_a").read_text())["entries"]["x"] == {"value": 1.5}
    text = book.executed("01_a").read_text()
    assert '"profile = \\"ci\\"\\n"' in text and "injected-parameters" in text
    assert '"papermill"' not in text and str(book.root) not in text
    assert "Executing Cell" in book.log("01_a").read_text()


def test_a_failing_chapter_names_its_line_and_leaves_no_executed_notebook(open_book):
    with pytest.raises(BuildError) as caught:
        open_book(fails=True).execute("01_a")
    told = str(caught.value)
    assert '01_a failed in cell 3, at: raise ValueError("the dog ate it")' in told
    assert "ValueError: the dog ate it" in told
    log = open_book().log("01_a")
    assert str(log) in told and "the dog ate it" in log.read_text()
    assert not open_book().executed("01_a").exists()


def test_a_failure_keeps_what_was_executed_before(open_book):
    pretend_executed(open_book(), "01_a")
    with pytest.raises(BuildError):
        open_book(fails=True).execute("01_a")
    assert open_book().is_fresh("01_a")


def test_a_chapter_that_saves_no_register_has_failed(open_book, root):
    write_notebook(root / "notebooks" / "01_a.ipynb", work="done = True")
    pretend_executed(open_book(), "01_a")  # the register of an earlier run does not count
    os.utime(open_book().register("01_a"), (0, 0))
    with pytest.raises(BuildError, match="did not save its register"):
        open_book().execute("01_a")


def chapters(root, *options: str) -> subprocess.Popen:
    """Start to execute the chapters of a small repository as run.py does."""
    for name in ("run.py", "dodo.py", "tools"):
        copy = shutil.copytree if (run.ROOT / name).is_dir() else shutil.copy
        copy(run.ROOT / name, root / name)
    settings = "settings=" + json.dumps({"profile": "full", "tally": True})
    command = [sys.executable, "-m", "doit", "-f", "dodo.py", "--continue", *options, "chapter"]
    return subprocess.Popen([*command, settings], cwd=root, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("options", [[], ["-n", "2"]])
def test_a_failed_chapter_skips_what_needs_it_and_nothing_else(root, options):
    write_notebook(root / "notebooks" / "03_c.ipynb")
    write_notebook(root / "notebooks" / "01_a.ipynb", parameters=PARAMETERS.replace("False", "1"))
    started = chapters(root, *options)
    told, _ = started.communicate()
    assert started.returncode in (1, 2)
    assert told.splitlines()[-1] == "1 passed, 1 failed, 1 skipped"
    assert "02_b: skipped" in told and "03_c: done" in told
    assert sorted(path.name for path in (root / "build/full/executed").iterdir()) == [
        "01_a.part.ipynb",
        "03_c.ipynb",
    ]


def test_two_jobs_execute_two_chapters_at_a_time(root):
    meet = """
import time
pathlib.Path("{stem}.here").touch()
until = time.time() + 60
while len(list(pathlib.Path().glob("*.here"))) < 2:
    assert time.time() < until, "nobody came"
    time.sleep(0.1)"""
    for stem in ("01_a", "02_b"):
        write_notebook(root / "notebooks" / f"{stem}.ipynb", work=WORK + meet)
    write_notebook(root / "notebooks" / "03_c.ipynb", needs=["01_a", "02_b"])
    told, _ = chapters(root, "-n", "2").communicate()
    assert told.splitlines()[-1] == "3 passed, 0 failed"
    assert told.index("03_c: running") > told.index("02_b: done")
    for stem in ("01_a", "02_b", "03_c"):
        assert (root / "build/full/results/tiny" / f"{stem}.json").exists()


@pytest.mark.parametrize("options", [[], ["-n", "2"]])
def test_a_run_that_is_ended_ends_its_kernels(root, options):
    for stem in ("01_a", "02_b"):
        wait = "import time\npathlib.Path('{stem}.here').touch()\ntime.sleep(600)"
        write_notebook(root / "notebooks" / f"{stem}.ipynb", work=f"{WORK}\n{wait}")
    started = chapters(root, *options)
    here = root / "build" / "full"
    until = time.monotonic() + 60
    while len(list(here.glob("*.here"))) < (2 if options else 1):
        assert time.monotonic() < until and started.poll() is None
        time.sleep(0.1)
    below = psutil.Process(started.pid).children(recursive=True)
    assert any("ipykernel_launcher" in " ".join(process.cmdline()) for process in below)
    started.terminate()
    assert started.wait(60) == 128 + signal.SIGTERM
    assert not psutil.wait_procs(below, timeout=30)[1]


# --- the site and the tally --------------------------------------------------------------------


def test_registers_become_substitutions():
    entries = {
        "pc1-valence r": {"value": 0.5, "low": 0.25, "high": 0.75, "n": 45, "method": "Pearson"},
        "verdict": {"value": "partly"},
    }
    assert substitutions([{"chapter": "02_geometry", "entries": entries}]) == {
        "chapter02_pc1_valence_r": 0.5,
        "chapter02_pc1_valence_r_low": 0.25,
        "chapter02_pc1_valence_r_high": 0.75,
        "chapter02_pc1_valence_r_n": 45,
        "chapter02_pc1_valence_r_ci": "+0.50 [+0.25, +0.75]",
        "chapter02_verdict": "partly",
    }


def test_the_published_site_and_the_ci_site_are_two_places(open_book, root):
    assert open_book("full").site == root / "build" / "site"
    assert open_book("ci").site == root / "build" / "ci" / "site"


def test_a_junit_report_is_counted_by_test(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(
        "<testsuites><testsuite><testcase/><testcase><failure/><error/></testcase>"
        "<testcase><skipped/></testcase><testcase/></testsuite></testsuites>"
    )
    assert dodo.junit(report) == Counter(passed=2, failed=1, skipped=1)

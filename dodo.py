"""The task graph: notebooks -> papermill -> staged sources -> Jupyter Book, and the tests of it.

`run.py` starts it inside .venv as `python -m doit -f dodo.py TASK 'settings={...}'`. How a chapter
is executed and the site is built is in tools/book.py; here is what depends on what, how it is
reported, and how checks are counted.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from doit import get_var
from doit.exceptions import InvalidTask, TaskFailed, UnmetDependency
from doit.reporter import ConsoleReporter
from doit.tools import config_changed

from run import ROOT
from tools.book import Book, BuildError

SETTINGS = json.loads(get_var("settings") or "{}")
PROFILE = SETTINGS.get("profile", "full")
BOOK = Book(
    root=ROOT,
    build=Path(SETTINGS.get("build", ROOT / "build" / PROFILE)),
    profile=PROFILE,
    given=SETTINGS.get("parameters", {}),
)
CHOSEN = ["-k", SETTINGS["k"]] if SETTINGS.get("k") else []  # tests
BENCHMARKS = ("extraction", "generation", "options", "steering", "monitor", "book")
TALLY = Counter()


class Reporter(ConsoleReporter):
    """Plain sentences while it runs; at the end where the book is, and the tally of `test`."""

    desc = "plain sentences"

    def initialize(self, tasks, selected_tasks):
        self.done, self.started = set(), {}
        BOOK.build.mkdir(parents=True, exist_ok=True)
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda number, _: sys.exit(128 + number))

    def execute_task(self, task):
        self.started[task.name] = time.monotonic()
        tell(task, "running")

    def add_success(self, task):
        tell(task, f"done in {time.monotonic() - self.started[task.name]:.0f} s")
        self.done.add(task.name)
        count(task, "passed")

    def skip_uptodate(self, task):
        tell(task, "up to date")
        self.done.add(task.name)
        count(task, "passed")

    def add_failure(self, task, fail):
        if isinstance(fail, UnmetDependency):
            tell(task, "skipped, because something that it needs failed")
            count(task, "skipped")
        else:
            tell(task, f"FAILED\n{fail.get_msg()}")
            count(task, "failed")

    def complete_run(self):
        for sentence in self.runtime_errors:
            print(sentence)
        if "site" in self.done:
            print(f"the book is at {(BOOK.site / 'index.html').as_uri()}", flush=True)
        if "pdf" in self.done:
            print(f"its PDF is at {BOOK.pdf.as_uri()}", flush=True)
        if SETTINGS.get("tally"):
            skipped = f", {TALLY['skipped']} skipped" if TALLY["skipped"] else ""
            print(f"{TALLY['passed']} passed, {TALLY['failed']} failed{skipped}", flush=True)


def tell(task, what: str) -> None:
    """Print what happens to a task; groups, which do nothing, are not mentioned."""
    if task.actions:
        print(f"{task.name.removeprefix('chapter:')}: {what}", flush=True)


def count(task, outcome: str) -> None:
    """Count a task as one check, or as the tests that its JUnit report lists."""
    report = (task.meta or {}).get("junit")
    if report and report.exists() and outcome != "skipped":  # then it is of an earlier run
        found = junit(report)
        TALLY.update(found)
        if outcome == "failed" and not found["failed"]:
            TALLY["failed"] += 1  # pytest itself failed: nothing collected, a crash
    elif task.actions:
        TALLY[outcome] += 1


def junit(report: Path) -> Counter:
    """Return how many tests of a JUnit report passed, failed and were skipped."""
    found = Counter()
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        failed, skipped = bool(kinds & {"failure", "error"}), "skipped" in kinds
        found["failed" if failed else "skipped" if skipped else "passed"] += 1
    return found


def step(action, *arguments, **options) -> dict:
    """Return a doit task that fails with one message, not a traceback, on a BuildError."""

    def attempt():
        try:
            action(*arguments)
        except BuildError as error:
            return TaskFailed(str(error))

    return {"actions": [attempt], "io": {"capture": False}, "meta": {}, **options}


def command(*arguments: str, **variables: str) -> None:
    """Run a module or script with this Python, its output shown as it comes."""
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env={**os.environ, **variables})
    if done.returncode:
        raise BuildError(f"python {' '.join(arguments)} ended with status {done.returncode}")


def tests(name: str, *arguments: str, **variables: str) -> dict:
    """Return a task that runs pytest and counts each test."""
    report = BOOK.build / f"{name}.xml"

    def action():
        report.unlink(missing_ok=True)
        command("-m", "pytest", *arguments, f"--junitxml={report}", **variables)

    return step(action, meta={"junit": report})


# --- the book ----------------------------------------------------------------------------------


def task_chapter():
    """Execute each chapter that is out of date."""
    try:
        for stem in BOOK.chapters:
            BOOK.parameters(stem)  # a wrong name is refused before anything runs
            yield {
                "name": stem,
                "task_dep": [f"chapter:{need}" for need in BOOK.needs(stem)],
                "uptodate": [lambda stem=stem: BOOK.is_fresh(stem)],
                **step(BOOK.execute, stem),
            }
    except BuildError as error:
        raise InvalidTask(str(error)) from error


def task_site():
    """Stage the sources with the executed notebooks, and build the site."""
    names = ("_config.yml", "_toc.yml", "tools/book.py", "tools/extension.py")
    sources = [ROOT / name for name in names]
    sources += [path for path in (ROOT / "book").rglob("*") if path.is_file()]
    made = [place(stem) for stem in BOOK.chapters for place in (BOOK.executed, BOOK.register)]
    return step(
        lambda: BOOK.render(BOOK.stage()),
        task_dep=["chapter"],
        file_dep=sources + made,
        targets=[BOOK.site / "index.html"],
        uptodate=[config_changed({"parameters": BOOK.given})],
    )


def task_pdf():
    """Print the book as one PDF."""
    return step(
        lambda: BOOK.print(BOOK.stage()),
        task_dep=["site"],
        file_dep=[BOOK.site / "index.html", ROOT / "tools" / "pdf.py"],
        targets=[BOOK.pdf],
    )


# --- checks ------------------------------------------------------------------------------------


def task_lint():
    """Check the style of all code, notebooks included."""
    return step(command, "-m", "ruff", "check", ".")


def task_format():
    """Check the layout of all code, notebooks included."""
    return step(command, "-m", "ruff", "format", "--check", ".")


def task_pytest():
    """Run the tests that need neither a book nor a server."""
    return tests("pytest", "-m", "not book and not remote", *CHOSEN)


def task_remote():
    """Run the tests against an NDIF server; whole chapters, which take long, only when chosen."""
    which = "remote" if CHOSEN else "remote and not long"
    return tests("remote", "tests/remote", "-m", which, *CHOSEN)


def task_register():
    """Hold the numbers of each chapter to expected/."""
    for stem in BOOK.chapters:
        yield {"name": stem, "task_dep": [f"chapter:{stem}"], **step(BOOK.hold, stem)}


def task_pages():
    """Look at every built page in a browser."""
    here = {"EMOTION_CONCEPTS_SITE": str(BOOK.site)}
    return {**tests("pages", "tests/book", "-m", "book", **here), "task_dep": ["site"]}


def task_test():
    """Run everything that must pass."""
    steps = ["lint", "format", "pytest", "chapter", "site", "register", "pages"]
    return {"actions": None, "task_dep": steps}


def task_bench():
    """Run each benchmark."""

    def run():
        for name in BENCHMARKS:
            command("-m", f"bench.{name}")

    return step(run)


DOIT_CONFIG = {
    "backend": "json",
    "dep_file": str(BOOK.build / ".doit.json"),
    "reporter": Reporter,
    "default_tasks": ["site"],
}

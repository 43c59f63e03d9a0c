"""The tests, tested: each deliberate fault of mutants.yaml must make a test fail.

`python -m tools.mutants` copies the repository and runs the named tests on the copy as it is; then,
for each fault, it replaces one piece of source in a fresh copy and runs that fault's test. A fault
is caught if the test fails in its own body. A copy that cannot be imported, collected or set up
puts nothing to the test and does not count. The working tree is never touched.
"""

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from xml.etree import ElementTree

import yaml

from run import ROOT, Problem

LIST = Path(__file__).with_name("mutants.yaml")
CODE = ("lib", "tests", "tools")  # copied, as single files are; other folders are linked
LEFT_OUT = (".git", ".venv", "build", ".pytest_cache", ".ruff_cache")
SECONDS = 900  # for one run of pytest: a fault may make it go on for ever
PLAIN = {"PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
RESULTS = {"failed": "caught", "passed": "SURVIVED", "broken": "BROKEN"}
BROKEN = re.compile(r"(ModuleNotFound|Import|Syntax|Indentation|Name|UnboundLocal)Error\b")

# The process that runs the tests has imported the library, so that it is what they test.
RUN = """
import sys
import emotion_concepts, pytest
home, *arguments = sys.argv[1:]
if not emotion_concepts.__file__.startswith(home):
    sys.exit(f"the library was imported from {emotion_concepts.__file__}, not from the copy")
sys.exit(pytest.main(arguments))
"""


@dataclass(frozen=True)
class Fault:
    """One piece of source replaced by another, and the test that ought to notice.

    Attributes
    ----------
    name, what : str
        A short name, and what would be wrong with the results.
    file : str
        Path from the root of the repository.
    old, new : str
        The piece, which stands in the file exactly once, and what replaces it.
    test : str
        Node id of pytest.
    """

    name: str
    what: str
    file: str
    old: str
    new: str
    test: str

    def mutated(self, root: Path) -> str:
        """Return the source of the file under `root` with the fault in it.

        Raises
        ------
        Problem
            If the piece does not stand there exactly once.
        """
        path = root / self.file
        source = path.read_text(encoding="utf-8") if path.is_file() else ""
        if (times := source.count(self.old)) != 1:
            raise Problem(
                f"the list of faults is stale: {self.file} has {self.old!r} {times} times, not "
                f"once; bring {self.name!r} in {LIST.name} up to date"
            )
        return source.replace(self.old, self.new)


def load(path: Path = LIST) -> list[Fault]:
    """Return the faults of a list; raise Problem for an entry that is none."""
    names, faults = [field.name for field in fields(Fault)], {}
    for number, entry in enumerate(yaml.safe_load(path.read_text(encoding="utf-8")), 1):
        if sorted(entry) != sorted(names) or not all(isinstance(x, str) for x in entry.values()):
            raise Problem(f"{path.name}, entry {number}: give {', '.join(names)}, all of them text")
        fault = Fault(**entry)
        if fault.name in faults or fault.old == fault.new:
            raise Problem(f"{path.name}, entry {number}: it stands there twice, or changes nothing")
        faults[fault.name] = fault
    return list(faults.values())


@contextlib.contextmanager
def copied(root: Path) -> Iterator[Path]:
    """Yield a copy of a repository in a temporary folder, without anything compiled."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        home = Path(folder).resolve()
        for path in root.iterdir():
            if path.name in CODE:
                skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
                shutil.copytree(path, home / path.name, ignore=skip)
            elif path.is_file():
                shutil.copy2(path, home)
            elif path.name not in LEFT_OUT:
                (home / path.name).symlink_to(path)
        yield home


def run_tests(home: Path, tests: Sequence[str]) -> tuple[str, str]:
    """Run tests of a copy; return "passed", "failed" or "broken", and why."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = ["-x", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        try:
            done = subprocess.run(
                [sys.executable, "-c", RUN, str(home), *options, *tests],
                cwd=home,
                env=os.environ | PLAIN | {"PYTHONPATH": str(home / "lib")},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            return "broken", f"it had not ended after {SECONDS} seconds"
        return judged(report, done.stdout)


def judged(report: Path, printed: str) -> tuple[str, str]:
    """Return what a JUnit report says of tests, and why; without one, what was printed last."""
    cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
    if not cases:
        return "broken", " ".join(printed.strip().splitlines()[-2:])
    for case in cases:
        for problem in case:
            if problem.tag not in ("failure", "error", "skipped"):
                continue
            why = " ".join(problem.get("message", "").split())
            if problem.tag == "failure" and not BROKEN.match(why):
                return "failed", f"{case.get('name')}: {why}"
            lines = re.findall(r"^E +(.+)", problem.text or "", re.MULTILINE)
            return "broken", f"{case.get('name')}: {lines[-1] if lines else why}"
    return "passed", ""


def check(faults: Sequence[Fault], root: Path) -> int:
    """Print what becomes of each fault as it is found; return how many were not caught.

    Raises
    ------
    Problem
        If the list is stale, or a named test does not pass as things are.
    """
    for fault in faults:
        fault.mutated(root)
    tests = list(dict.fromkeys(fault.test for fault in faults))
    say(f"{len(faults)} faults; first their {len(tests)} tests, without any")
    wide, wider = (max(len(getattr(one, name)) for one in faults) for name in ("name", "file"))
    missed = 0
    with copied(root) as plain:  # of one moment, though the working tree may change meanwhile
        what, why = run_tests(plain, tests)
        if what != "passed":
            raise Problem(f"a named test does not pass as things are: {why}")
        for one in faults:
            began = time.monotonic()
            with copied(plain) as home:
                (home / one.file).write_text(one.mutated(home), encoding="utf-8")
                what, why = run_tests(home, [one.test])
            took, became = time.monotonic() - began, RESULTS[what]
            say(f"{became:<8}  {took:4.0f} s  {one.name:<{wide}}  {one.file:<{wider}}  {one.test}")
            if what != "failed":
                missed += 1
                say(f"{'':<8}  {one.what if what == 'passed' else why}")
    say(f"{len(faults) - missed} caught, {missed} not")
    return missed


def say(sentence: str) -> None:
    """Print a line at once, also into a pipe."""
    print(sentence, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the faults that the command line names, by default all."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    parser.add_argument("--only", metavar="NAME", action="append", help="this fault; repeatable")
    only = parser.parse_args(arguments).only
    faults = load()
    if unknown := set(only or []) - {fault.name for fault in faults}:
        known = ", ".join(fault.name for fault in faults)
        raise Problem(f"there is no fault {min(unknown)!r}; there are: {known}", 2)
    return int(check([one for one in faults if not only or one.name in only], ROOT) > 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Problem as problem:
        print(f"mutants: {problem}", file=sys.stderr)
        sys.exit(problem.status)

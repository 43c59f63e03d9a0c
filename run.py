#!/usr/bin/env python3
"""Make the book or test it, from a fresh clone.

Needs Python 3.11 or later and its standard library. Makes .venv from the pinned dependencies when
it is missing or out of date, then hands the task to doit (dodo.py) inside it. What a killed run
had finished is kept; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST = (3, 11)
PINS = ("constraints.txt", "environment.yml", "pyproject.toml")
PROFILES = ("full", "ci", "large")
PRECISIONS = ("float32", "bfloat16")
UNFINISHED = "unfinished"


class Problem(Exception):
    """Something a user can mend: one sentence, and the exit status."""

    def __init__(self, sentence: str, status: int = 1):
        super().__init__(sentence)
        self.status = status


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence."""

    def error(self, message: str):
        raise Problem(f"{message}; see `python3 run.py --help`", 2)


def assignment(text: str) -> tuple:
    """Return (name, value) of ``name=value``; the value is JSON or Python, else a string."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not name=value")
    for read in (json.loads, ast.literal_eval):
        try:
            return name, read(value)
        except (ValueError, SyntaxError):
            pass
    return name, value


def parse(arguments: list) -> argparse.Namespace:
    """Return the chosen command and its options."""
    form = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="python3 run.py", description=__doc__, formatter_class=form)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text)

    def profile(parser: argparse.ArgumentParser, default: str) -> None:
        parser.add_argument(
            "--profile",
            choices=PROFILES,
            default=default,
            help="full: what is published; ci: fewer texts and repeats; large: for one of the "
            "chapters from 05 on, to be frozen (default: %(default)s)",
        )

    def jobs(parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--jobs",
            metavar="N",
            type=int,
            default=1,
            help="chapters and checks at a time, each on its share of the cores (default: "
            "%(default)s)",
        )

    book = command("book", "execute what is out of date and build the site")
    profile(book, "full")
    jobs(book)
    book.add_argument(
        "--only", metavar="CHAPTER", help="execute this chapter and what it needs; build no site"
    )
    book.add_argument(
        "--pdf", action="store_true", help="print the book as one PDF, too; needs Chromium"
    )
    book.add_argument(
        "-p",
        dest="parameters",
        metavar="NAME=VALUE",
        type=assignment,
        action="append",
        default=[],
        help="a parameter for every chapter that has it, e.g. -p model=qwen2.5-0.5b; repeatable",
    )
    test = command("test", "run every check: style, tests, the ci book, its numbers, its pages")
    jobs(test)
    test.add_argument("-k", metavar="EXPR", help="only the tests whose names match; no book")
    test.add_argument(
        "--remote",
        action="store_true",
        help="also the tests against an NDIF server that is started for them; with -k only those, "
        "and `-k chapter` runs whole chapters on it",
    )
    command("bench", "measure speed and memory on this machine")
    expect = command("expect", "run the chapters repeatedly and write expected/ from the spread")
    profile(expect, "ci")
    expect.add_argument("--runs", type=int, default=6, help="how many runs (default: %(default)s)")
    expect.add_argument("--only", metavar="CHAPTER", help="this chapter and what it needs")
    ndif = command("ndif", "a development NDIF server on this machine, for -p remote=URL")
    ndif.add_argument("action", choices=("start", "stop", "status"))
    command("clean", "delete build/; .venv and the user's cache stay")
    return parser.parse_args(arguments)


# --- the chapters ------------------------------------------------------------------------------


def declared(notebook: Path) -> dict:
    """Return {parameter: default} from the notebook's cell tagged ``parameters``."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        [cell] = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
        found = {}
        for statement in ast.parse("".join(cell["source"])).body:
            [target] = statement.targets
            found[target.id] = ast.literal_eval(statement.value)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SyntaxError) as error:
        raise Problem(
            f"{notebook.name} is damaged, or has not one `parameters` cell of plain assignments "
            f"({type(error).__name__}: {error})"
        ) from error
    return found


def check(parameters: dict, only: str | None, root: Path = ROOT) -> None:
    """Refuse an unknown chapter, an unknown parameter or a value of the wrong type."""
    chapters = {path.stem: declared(path) for path in sorted((root / "notebooks").glob("*.ipynb"))}
    if only is not None and only not in chapters:
        raise Problem(f"there is no chapter {only!r}; there are: {', '.join(chapters)}", 2)
    defaults = {name: value for found in chapters.values() for name, value in found.items()}
    for name, value in parameters.items():
        if name not in defaults:
            valid = ", ".join(sorted(defaults))
            raise Problem(f"no chapter has a parameter {name!r}; there are: {valid}", 2)
        kind = type(defaults[name])
        # a switch such as `remote` may be on, off, or the address of a server
        accepted = {float: (int, float), bool: (bool, str)}.get(kind, kind)
        if defaults[name] is not None and not isinstance(value, accepted):
            raise Problem(f"{name}={value!r} should be of type {kind.__name__}", 2)


# --- the virtual environment -------------------------------------------------------------------


def python(root: Path = ROOT) -> Path:
    """Return the interpreter of .venv."""
    return root / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def fingerprint(root: Path = ROOT) -> str:
    """Return what .venv/.stamp must say: a hash of everything that pins dependencies."""
    return hashlib.sha256(b"\0".join((root / name).read_bytes() for name in PINS)).hexdigest()


def state(root: Path = ROOT) -> str:
    """Return ``ready``, ``stale`` (update in place) or ``broken`` (make anew) for .venv."""
    stamp = root / ".venv" / ".stamp"
    found = stamp.read_text() if stamp.exists() else ""
    if found == UNFINISHED or not python(root).exists():
        return "broken"
    return "ready" if found == fingerprint(root) else "stale"


def logged(command: list, log: Path, root: Path) -> bool:
    """Run a set-up command with its output appended to the log; return whether it succeeded."""
    with log.open("ab") as file:
        done = subprocess.run(command, cwd=root, env=environment(), stdout=file, stderr=file)
    return done.returncode == 0


def environment(jobs: int = 1) -> dict:
    """Return this environment without what would lead out of .venv, for so many jobs at a time.

    NumPy gets one thread, unless told otherwise; why, is said in lib/emotion_concepts/__init__.py.
    Jobs share the cores: with more threads than these they would wait for each other.
    """
    foreign = ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
    kept = {name: value for name, value in os.environ.items() if name not in foreign}
    shared = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))} if jobs > 1 else {}
    return {"OPENBLAS_NUM_THREADS": "1", **shared, **kept}


def set_up(root: Path = ROOT) -> None:
    """Make or update .venv; the stamp is written last, so that a killed set-up is redone."""
    before = state(root)
    if before == "ready":
        return
    venv, log = root / ".venv", root / "build" / "setup.log"
    log.parent.mkdir(exist_ok=True)
    log.write_bytes(b"")
    if before == "broken":
        shutil.rmtree(venv, ignore_errors=True)
        venv.mkdir()
    (venv / ".stamp").write_text(UNFINISHED)
    if before == "broken":
        say(f"making .venv, which takes a few minutes once (log: {log})")
        if not logged([sys.executable, "-m", "venv", str(venv)], log, root):
            raise Problem(f"{sys.executable} could not make a virtual environment; see {log}")
    else:
        say(f"updating .venv (log: {log})")
    pins = (root / "constraints.txt").read_text().splitlines()
    torch = next(pin for pin in pins if pin.startswith("torch=="))
    pip = [str(python(root)), "-m", "pip", "install", "-c", "constraints.txt"]
    # torch first and alone: whichever build of it this machine gets then satisfies the rest
    for what in ([torch], ["-e", ".[book,test]"]):
        say(f"installing {'the other dependencies' if '-e' in what else torch}")
        if not logged([*pip, *what], log, root):
            text = log.read_text(errors="replace")
            errors = [line[7:] for line in text.splitlines() if line.startswith("ERROR: ")]
            told = errors[0].rstrip(".") if errors else "no message"
            if "connection broken" in text:
                told = "no package index was reached: is there a network?"
            raise Problem(f"pip failed ({told}); all of its output is in {log}")
    (venv / ".stamp").write_text(fingerprint(root))


# --- commands ----------------------------------------------------------------------------------


def say(sentence: str) -> None:
    """Print a line at once, also into a pipe."""
    print(sentence, flush=True)


def call(*command: str, jobs: int = 1) -> int:
    """Run a command of .venv to its end and return its status; Ctrl-C is left to the command."""
    process = subprocess.Popen([str(python()), *command], cwd=ROOT, env=environment(jobs))
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def doit(tasks: list, *, jobs: int = 1, **settings) -> int:
    """Run doit tasks; 1 stands for every kind of failure, 130 and more for a signal."""
    command = ["-m", "doit", "-f", "dodo.py", "--continue"]
    command += ["-n", str(jobs)] if jobs > 1 else []
    status = call(*command, *tasks, "settings=" + json.dumps(settings), jobs=jobs)
    return 1 if status in (1, 2, 3) else status


def expect(profile: str, runs: int, only: str | None) -> int:
    """Run chapters under several seeds and precisions; make bands of what they registered."""
    tasks = ["chapter"] if only is None else [f"chapter:{only}"]
    folders = [ROOT / "build" / "expect" / profile / str(run) for run in range(runs)]
    for seed, folder in enumerate(folders):
        parameters = {"seed": seed, "dtype": PRECISIONS[seed % len(PRECISIONS)]}
        status = doit(tasks, profile=profile, parameters=parameters, build=str(folder))
        if status:
            return status
    results = [str(folder / "results") for folder in folders]
    status = call("-m", "emotion_concepts.results", "expect", *results, "--out", "expected")
    # the README quotes the published numbers, so it changes with them
    return status or (call("-m", "tools.readme") if profile == "full" else 0)


def main(arguments: list) -> int:
    """Do what the command line says and return the exit status."""
    if sys.version_info[:2] < OLDEST:
        raise Problem("Python 3.11 or later is needed; this is {}.{}".format(*sys.version_info[:2]))
    chosen = parse(arguments)
    if chosen.command == "clean":
        shutil.rmtree(ROOT / "build", ignore_errors=True)
        say("build/ is deleted")
        return 0
    if chosen.command == "book" and chosen.pdf and chosen.only:
        raise Problem("--pdf prints the whole book; leave --only out", 2)
    if chosen.command == "expect" and chosen.runs < 2:
        raise Problem("a spread needs at least 2 runs", 2)
    if getattr(chosen, "jobs", 1) < 1:
        raise Problem("--jobs is how many at a time; give at least 1", 2)
    parameters = dict(getattr(chosen, "parameters", []))
    if chosen.command == "expect":
        parameters = {"seed": 0, "dtype": PRECISIONS[0]}
    only = getattr(chosen, "only", None)
    check(parameters, only)
    set_up()
    if chosen.command == "expect":
        return expect(chosen.profile, chosen.runs, only)
    if chosen.command == "book":
        tasks = ["site"] if only is None else [f"chapter:{only}"]
        tasks += ["pdf"] if chosen.pdf else []
        status = doit(tasks, jobs=chosen.jobs, profile=chosen.profile, parameters=parameters)
        if only and not status:
            say(f"executed: {ROOT / 'build' / chosen.profile / 'executed' / only}.ipynb")
        return status
    if chosen.command == "test":
        tasks = ["test"] if chosen.k is None else [] if chosen.remote else ["pytest"]
        tasks += ["remote"] if chosen.remote else []
        return doit(tasks, jobs=chosen.jobs, profile="ci", tally=True, k=chosen.k)
    if chosen.command == "ndif":
        return call("-m", "tools.ndif", chosen.action)
    return doit(["bench"])


if __name__ == "__main__":
    try:
        status = main(sys.argv[1:])
    except Problem as problem:
        print(f"run.py: {problem}", file=sys.stderr)
        status = problem.status
    except KeyboardInterrupt:
        status = 130
    if status in (130, -signal.SIGINT):
        print("interrupted; the same command goes on from here", file=sys.stderr)
        status = 130
    sys.exit(status)

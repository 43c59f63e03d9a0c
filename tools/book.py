"""One build of the book: which chapters are out of date, their execution, the site.

A chapter's key is a hash of everything that determines its outputs and is stored in the executed
notebook, so that a build tree says by itself what is stale. Execution is papermill's; Jupyter Book
only renders a staged copy of the sources, in which executed notebooks stand in for the output-free
ones. The order of things is dodo.py's business.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import papermill
import psutil
import yaml
from papermill.exceptions import PapermillExecutionError
from playwright.sync_api import Error as BrowserError

from emotion_concepts import __version__
from emotion_concepts.results import filed_as
from run import declared
from tools import pdf, speed

CELL_SECONDS = 2 * 60 * 60
TERMINAL = sys.stderr.isatty()


class BuildError(Exception):
    """A chapter or the site that could not be made, and why."""


@dataclass(frozen=True)
class Book:
    """One build of the chapters under `root` into `build`, with the parameters of a profile.

    Parameters
    ----------
    given : dict
        Parameters that override the profile in every chapter that declares them.
    """

    root: Path
    build: Path
    profile: str
    given: dict = field(default_factory=dict)

    @cached_property
    def chapters(self) -> list[str]:
        return [path.stem for path in sorted((self.root / "notebooks").glob("*.ipynb"))]

    @cached_property
    def profiles(self) -> dict:
        return yaml.safe_load((self.root / "profiles.yml").read_text())

    @cached_property
    def library(self) -> str:
        """A hash of the library, its data and the pinned versions."""
        paths = sorted((self.root / "lib" / "emotion_concepts").rglob("*"))
        paths = [p for p in paths if p.is_file() and "__pycache__" not in p.parts]
        names = [[p.relative_to(self.root).as_posix(), _sha256(p.read_bytes())] for p in paths]
        return _sha256(json.dumps([names, (self.root / "constraints.txt").read_text()]).encode())

    @property
    def site(self) -> Path:
        return (self.build.parent if self.profile == "full" else self.build) / "site"

    @property
    def pdf(self) -> Path:
        return self.site.with_name("emotion-concepts.pdf")

    def source(self, stem: str) -> Path:
        return self.root / "notebooks" / f"{stem}.ipynb"

    def executed(self, stem: str) -> Path:
        return self.build / "executed" / f"{stem}.ipynb"

    def log(self, name: str) -> Path:
        return self.build / "log" / f"{name}.log"

    def register(self, stem: str) -> Path:
        """Return where the chapter writes its numbers, given the model in force."""
        model = filed_as(self.parameters(stem)["model"]).replace("/", "--")
        return self.build / "results" / model / f"{stem}.json"

    def needs(self, stem: str) -> list[str]:
        """Return the chapters that must be executed before this one."""
        return _read(self.source(stem))["metadata"]["emotion_concepts"]["needs"]

    def parameters(self, stem: str) -> dict:
        """Return the chapter's parameters in force; refuse a name that it does not declare."""
        defaults = declared(self.source(stem))
        given = {name: value for name, value in self.given.items() if name in defaults}
        chosen = {**self.profiles[self.profile].get(stem, {}), **given}
        if unknown := chosen.keys() - defaults.keys():
            raise BuildError(
                f"{stem} has no parameter {', '.join(sorted(unknown))} "
                f"(profile {self.profile}); it has: {', '.join(defaults)}"
            )
        return {**defaults, **chosen}

    def key(self, stem: str) -> str:
        """Return a hash of everything that determines the chapter's outputs."""
        notebook = _read(self.source(stem))
        cells = [[c["cell_type"], "".join(c["source"]), c["metadata"]] for c in notebook["cells"]]
        needed = [self.key(need) for need in self.needs(stem)]
        parts = [cells, notebook["metadata"], self.library, self.parameters(stem), needed]
        return _sha256(json.dumps(parts, sort_keys=True).encode())

    def is_fresh(self, stem: str) -> bool:
        """Return whether the executed notebook and its register are those of the sources."""
        try:
            found = _read(self.executed(stem))["metadata"]["emotion_concepts"]["key"]
        except (OSError, ValueError, KeyError):
            return False
        return found == self.key(stem) and self.register(stem).exists()

    def execute(self, stem: str) -> None:
        """Execute a chapter with papermill; on failure whatever was executed before stays."""
        defaults, in_force, key = declared(self.source(stem)), self.parameters(stem), self.key(stem)
        part, log = self.executed(f"{stem}.part"), self.log(stem)
        for folder in (part.parent, log.parent):
            folder.mkdir(parents=True, exist_ok=True)
        os.environ["EMOTION_CONCEPTS_BUILD"] = str(self.build)
        started = time.time()
        try:
            with _papermill_log(log):
                _papermill(
                    self.source(stem),
                    part,
                    # only what differs, so that a chapter at its defaults shows no injected cell
                    parameters={k: v for k, v in in_force.items() if v != defaults[k]},
                    cwd=self.build,
                    progress_bar={"desc": stem} if TERMINAL else False,
                )
        except Exception as error:
            raise BuildError(f"{stem} failed {_where(error)}\nits log: {log}") from error
        register = self.register(stem)
        if not register.exists() or register.stat().st_mtime < started:
            raise BuildError(f"{stem} ran but did not save its register {register}")
        notebook = _read(part)
        notebook["metadata"]["emotion_concepts"]["key"] = key
        for holder in (notebook, *notebook["cells"]):
            holder["metadata"].pop("papermill", None)  # paths of this machine, times of this run
        part.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(part, self.executed(stem))

    def stage(self) -> Path:
        """Write the sources of the site: config, contents, prose, and the executed notebooks."""
        staged = self.build / "src"
        shutil.rmtree(staged, ignore_errors=True)
        shutil.copytree(self.root / "book", staged / "book")
        shutil.copy(self.root / "_toc.yml", staged)
        (staged / "notebooks").mkdir()
        for stem in self.chapters:
            shutil.copy(self.executed(stem), staged / "notebooks")
            for figure in front_figures(_read(self.executed(stem))):
                (staged / "book" / f"front-{stem}.html").write_text(figure, encoding="utf-8")
        models = sorted({self.parameters(stem)["model"] for stem in self.chapters})
        made = {
            "profile": self.profile,
            "model": ", ".join(models),
            "library_version": __version__,
        }
        registers = [_read(self.register(stem)) for stem in self.chapters]
        config = yaml.safe_load((self.root / "_config.yml").read_text())
        known = {**substitutions(registers), **speed.substitutions(), **made}
        config["parse"]["myst_substitutions"] = known
        config["html"]["extra_footer"] = (
            '<p class="made-by">Profile {profile}, model {model}, library {library_version}</p>'
        ).format(**made)
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        (staged / "_config.yml").write_text(text, encoding="utf-8")
        return staged

    def render(self, staged: Path) -> None:
        """Build the site from staged sources."""
        made = self._sphinx(staged, "html")
        shutil.rmtree(self.site, ignore_errors=True)
        shutil.move(made, self.site)
        shutil.rmtree(made.parents[1])

    def print(self, staged: Path) -> None:
        """Build one page of staged sources, and from it the PDF."""
        made = self._sphinx(staged, "singlehtml")
        [page] = (made / "book").glob("*.html")
        # Sphinx writes the links of a first page that lies in a folder as if it lay beside it
        page = page.rename(made / page.name)
        try:
            pdf.print_page(page, self.pdf)
        except (FileNotFoundError, BrowserError) as error:
            raise BuildError(f"the PDF was not made: {error}") from error
        shutil.rmtree(made.parents[1])

    def _sphinx(self, staged: Path, builder: str) -> Path:
        """Run a builder of Jupyter Book and return its folder; every warning is an error."""
        out, log = self.build / f"sphinx-{builder}", self.log(builder)
        # from nothing each time: Sphinx does not repeat warnings about pages it has read before
        shutil.rmtree(out, ignore_errors=True)
        command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(staged)]
        command += ["--builder", builder, "--path-output", str(out), "-W", "-n"]
        command += ["--keep-going", "-q"]
        path = {**os.environ, "PYTHONPATH": str(self.root)}  # where tools.extension is found
        with log.open("w") as file:
            done = subprocess.run(command, env=path, stdout=file, stderr=subprocess.STDOUT)
        if done.returncode:
            lines = _plain(log.read_text()).splitlines()
            told = [line for line in lines if "WARNING" in line or "ERROR" in line] or lines[-5:]
            raise BuildError("\n".join(["the book was not built:", *told, f"its log: {log}"]))
        return out / "_build" / builder

    def hold(self, stem: str) -> None:
        """Hold the chapter's register, and no other that lies about, to its expected bands."""
        register = self.register(stem)
        with tempfile.TemporaryDirectory() as folder:
            (alone := Path(folder) / register.parent.name).mkdir()
            shutil.copy(register, alone)
            command = [sys.executable, "-m", "emotion_concepts.results", "compare", folder]
            command.append(str(self.root / "expected"))
            done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise BuildError(f"the numbers of {stem} drifted:\n{done.stdout}{done.stderr}".strip())


def front_figures(notebook: dict) -> list[str]:
    """Return the figures, as HTML, of an executed notebook's cells that are tagged `front-page`."""
    cells = [c for c in notebook["cells"] if "front-page" in c["metadata"].get("tags", [])]
    shown = [output.get("data", {}) for cell in cells for output in cell["outputs"]]
    return ["".join(data["text/html"]) for data in shown if "image/png" in data]


def substitutions(registers: list[dict]) -> dict:
    """Return the MyST substitutions of registers, e.g. ``chapter02_pc1``, ``chapter02_pc1_low``.

    ``chapter02_pc1_ci`` is a change with its sign and interval, as text.
    """
    found = {}
    for register in registers:
        number = register["chapter"].split("_")[0]
        for key, entry in register["entries"].items():
            name = re.sub(r"\W", "_", f"chapter{number}_{key}")
            found[name] = entry["value"]
            for side in ("low", "high", "n", "p", "paper"):
                if entry.get(side) is not None:
                    found[f"{name}_{side}"] = entry[side]
            if entry.get("low") is not None:
                shown = "{value:+.2f} [{low:+.2f}, {high:+.2f}]".format(**entry)
                found[f"{name}_ci"] = shown.replace("-", "−")
    return found


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def _papermill_log(path: Path):
    """Send papermill's lines and the cells' output to a file, and to a log that is no terminal."""
    logger = logging.getLogger("papermill")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handlers = [logging.FileHandler(path, "w", encoding="utf-8")]
    handlers += [] if TERMINAL else [logging.StreamHandler(sys.stdout)]
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
    try:
        yield
    except Exception as error:
        logging.getLogger("papermill").error(_plain(str(error)))
        raise
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


def _papermill(source: Path, target: Path, **options) -> None:
    """Run papermill so that Ctrl-C ends the run, not just this chapter.

    In the main thread nbclient would take the signal itself and report a dead kernel, which looks
    like any other failure; so it gets a thread, and the kernel is ended from here.
    """
    options |= {"kernel_name": "python3", "log_output": True, "execution_timeout": CELL_SECONDS}
    options["extra_arguments"] = ["--log-level=40"]  # ipykernel's notice about TCP, each time
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(papermill.execute_notebook, source, target, **options)
        try:
            job.result()
        except (KeyboardInterrupt, SystemExit):
            for child in psutil.Process().children(recursive=True):
                child.terminate()
            raise


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _where(error: Exception) -> str:
    """Return where and why a notebook failed: cell, line of code, error."""
    if not isinstance(error, PapermillExecutionError):
        return f"({type(error).__name__}): {_plain(str(error)).strip().splitlines()[0]}"
    arrows = re.findall(r"^-+> *\d+ (.*)$", _plain("\n".join(error.traceback)), re.MULTILINE)
    code = arrows[0].strip() if arrows else error.source.strip().splitlines()[-1]
    return f"in cell {error.exec_count}, at: {code}\n{error.ename}: {error.evalue}"

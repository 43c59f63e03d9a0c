"""The register: every number of the book, written once and read everywhere.

A chapter fills a :class:`Register` and saves ``results/<model>/<chapter>.json``. Prose, README and
tables take numbers from such files. `compare` holds them to ``expected/``, whose bands `expect`
makes from repeated runs (other seeds, other precision), never by hand.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import string
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import platformdirs
import scipy.stats

from emotion_concepts import __version__
from emotion_concepts.cache import write_atomic
from emotion_concepts.errors import RegisterError, nearest
from emotion_concepts.look import signed
from emotion_concepts.stats import Estimate

VERDICTS = ("supported", "partly", "not supported", "reversed", "not measurable at this scale")
SYMBOLS = dict(zip((*VERDICTS, "not run"), "✓◐✗⇄–·", strict=True))


def build_dir() -> Path:
    """Return where chapters write: ``$EMOTION_CONCEPTS_BUILD`` or the user's data folder.

    >>> from unittest.mock import patch
    >>> with patch.dict(os.environ, EMOTION_CONCEPTS_BUILD="my-build"):
    ...     str(build_dir())
    'my-build'
    """
    chosen = os.environ.get("EMOTION_CONCEPTS_BUILD")
    return Path(chosen) if chosen else Path(platformdirs.user_data_dir("emotion-concepts"))


def paper_table(name: str) -> dict:
    """Return one table of the paper from ``data/paper.json``.

    >>> paper_table("reference")["n_emotions"]["value"]
    171
    """
    file = files("emotion_concepts") / "data/paper.json"
    tables = json.loads(file.read_text(encoding="utf-8"))
    if name not in tables:
        raise RegisterError(f"the paper's table {name!r} is not in data: {nearest(name, tables)}")
    return tables[name]


def paper(key: str) -> dict:
    """Return one number of the paper as ``{"paper": value, "source": figure or table}``.

    The keys are those of :meth:`Register.add`, so that a result is entered beside the paper's:
    ``register.add("pc1_share", 0.2, **paper("pc1_share"))``.

    >>> paper("n_emotions")["paper"]
    171
    """
    reference = paper_table("reference")
    if key not in reference:
        raise RegisterError(f"the paper's {key!r} is not in data: {nearest(key, reference)}")
    return {"paper": reference[key]["value"], "source": reference[key]["source"]}


def key_of(*parts: str) -> str:
    """Return a register key made of words.

    >>> key_of("top1", "literary → plain", "TF-IDF")
    'top1_literary_plain_tf_idf'
    """
    return "_".join(re.findall(r"[a-z0-9]+", " ".join(parts).lower()))


def filed_as(name: str) -> str:
    """Return the name under which a model's results are filed: that of a GGUF has no folder.

    >>> filed_as("weights/tiny-q4.gguf"), filed_as("org/name")
    ('tiny-q4', 'org/name')
    """
    return Path(name).stem if name.endswith(".gguf") else name


def short(model: str) -> str:
    """Return a model's name without its organisation and quantisation.

    >>> short("org/tiny-instruct"), short("qwen2.5-coder-0.5b-instruct-q4_k_m")
    ('tiny-instruct', 'qwen2.5-coder-0.5b-instruct')
    """
    return model.split("/")[-1].partition("-q4")[0]


def graded(passes: Iterable[bool]) -> str:
    """Return the verdict on a claim that must hold in several settings.

    Raises
    ------
    RegisterError
        If there is no setting.

    Examples
    --------
    >>> graded([True, True]), graded([True, False]), graded([False, False])
    ('supported', 'partly', 'not supported')
    """
    passes = list(passes)
    if not passes:
        raise RegisterError("there is no verdict on nothing; give at least one setting to grade")
    return "supported" if all(passes) else "partly" if any(passes) else "not supported"


def graded_level(value: float, full: float, part: float) -> str:
    """Return the verdict on a measure that must reach `full`, or at least `part`.

    >>> graded_level(0.8, 0.7, 0.4), graded_level(0.5, 0.7, 0.4), graded_level(0.1, 0.7, 0.4)
    ('supported', 'partly', 'not supported')
    """
    return "supported" if value >= full else "partly" if value >= part else "not supported"


@dataclass(frozen=True)
class Entry:
    """One number: value, 95 % interval, n and how it came about.

    Format specs, for prose: ``{x}`` value and interval, ``{x:.3}`` both with three decimals,
    ``{x:.2f}`` the value alone, ``{x:ci}`` the interval alone, ``{x:p}`` the p value, ``{x:n}`` n;
    of a number that has none, ``p`` and ``n`` are a RegisterError.

    Examples
    --------
    >>> x = Entry(-0.5, -0.75, -0.25, n=45, p=0.0004)
    >>> f"{x}", f"{x:.2f}", f"{x:p}", f"{x:n}"
    ('−0.50 [−0.75, −0.25]', '−0.50', 'p < 0.001', '45')
    """

    value: float | str
    low: float | None = None
    high: float | None = None
    n: int | None = None
    p: float | None = None
    method: str = ""
    source: str = ""
    paper: float | str | None = None
    criterion: str = ""
    claim: str = ""
    measure: str = ""
    allowed: Sequence[str] | None = None  # verdicts over seeds, where published

    def __format__(self, spec: str) -> str:
        if isinstance(self.value, str):
            return self.value
        if spec in ("n", "p") and getattr(self, spec) is None:
            raise RegisterError(
                f"{self.value} was registered without {spec}; give `add` its {spec}, or ask for "
                "another format"
            )
        if spec == "p":
            return f"p = {self.p:.3f}" if self.p >= 0.001 else "p < 0.001"
        if spec == "n":
            return f"{self.n:,}"
        digits = spec if re.fullmatch(r"\.\d", spec) else ".2"
        ends = () if self.low is None else (self.low, self.high)
        interval = f"[{', '.join(signed(end, digits + 'f') for end in ends)}]" if ends else ""
        if spec == "ci":
            return interval
        if spec and spec != digits:
            return signed(self.value, spec)
        value = signed(self.value, f"{digits}f" if isinstance(self.value, float) else ",")
        return f"{value} {interval}".rstrip()


@dataclass
class Register:
    """The numbers of one chapter on one model.

    Parameters
    ----------
    chapter, model, profile : str
    settings : dict
        Everything else that determines the numbers (weights, precision, corpus sizes, seed).
    tables : {name: DataFrame}
        What figures are drawn from, saved beside the numbers; see `frozen`.
    """

    chapter: str
    model: str
    profile: str
    settings: dict = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)

    @classmethod
    def start(cls, chapter: str, model, profile: str, **settings) -> Register:
        """Return an empty register for a chapter that runs on a `tracing.TracedModel`.

        Weights, precision and read-out layer are noted with the other settings.
        """
        identity = model.identity
        known = {"weights": identity.weights, "dtype": identity.dtype, "layer": model.readout_layer}
        return cls(chapter, identity.name, profile, known | settings)

    def add(self, key: str, value, **about) -> Entry:
        """Enter one number; an Estimate brings its interval, n and p.

        Parameters
        ----------
        key : str
            Lower-case words joined by underscores, unique in the chapter.
        value : Estimate, number or str
        about : method, source, paper, n, low, high, p
            See :class:`Entry`.

        Returns
        -------
        Entry

        Raises
        ------
        RegisterError
            If the key is taken, or a number is not finite.

        Examples
        --------
        >>> register = Register("chapter", "model", "full")
        >>> _ = register.add("r", Estimate(0.5, 0.25, 0.75, n=45), method="bootstrap")
        >>> register["r"].low, register["r"].n
        (0.25, 45)
        """
        if key in self.entries:
            raise RegisterError(f"{key!r} is in the register of {self.chapter} already")
        if isinstance(value, Estimate):
            about = {**asdict(value), **about}
            value = about.pop("value")
        about["value"] = value
        for name, x in about.items():
            about[name] = x = x.item() if isinstance(x, np.generic) else x
            if isinstance(x, float) and not math.isfinite(x):
                of = "" if name == "value" else f"{name} of "
                raise RegisterError(f"{of}{key!r} is {x}, which is no result")
        self.entries[key] = Entry(**about)
        return self.entries[key]

    def verdict(
        self, key: str, verdict: str, *, claim: str, criterion: str, measure: str = ""
    ) -> Entry:
        """Enter the verdict on a claim, one of `VERDICTS`.

        Parameters
        ----------
        measure : str
            Key of the entry whose number the claim rests on, shown beside the paper's.

        Returns
        -------
        Entry

        Raises
        ------
        RegisterError
            If the key is taken, or the verdict is none.

        Examples
        --------
        >>> register = Register("chapter", "model", "full")
        >>> about = {"claim": "It varies.", "criterion": "r above .3"}
        >>> register.verdict("claim_r", "supported", **about).value
        'supported'
        """
        if verdict not in VERDICTS:
            raise RegisterError(f"no verdict {verdict!r}: {nearest(verdict, VERDICTS)}")
        return self.add(key, verdict, claim=claim, criterion=criterion, measure=measure)

    def __getitem__(self, key: str) -> Entry:
        if key not in self.entries:
            raise RegisterError(f"{key!r} is not registered: {nearest(key, self.entries)}")
        return self.entries[key]

    def say(self, text: str) -> None:
        """Show Markdown whose ``{key}`` fields are entries (see :class:`Entry` for formats)."""
        from IPython.display import Markdown, display  # only notebooks have a display

        display(Markdown(fill(text, self)))

    def claims(self) -> pd.DataFrame:
        """Return the chapter's claims beside the paper's numbers, one row a verdict.

        Returns
        -------
        DataFrame
            With columns claim, criterion, what, paper, value, low, high, n, verdict; the numbers
            are those of the entry that the verdict names as its measure, `what` its method.

        Examples
        --------
        >>> register = Register("chapter", "model", "full")
        >>> _ = register.add("r", 0.5, n=45, paper=0.8)
        >>> about = {"claim": "It varies.", "criterion": "r above .3", "measure": "r"}
        >>> _ = register.verdict("claim_r", "supported", **about)
        >>> print(*register.claims().loc[0, ["claim", "paper", "value", "verdict"]])
        It varies. 0.8 0.5 supported
        """
        rows = []
        for entry in self.entries.values():
            if entry.claim:
                m = self[entry.measure] if entry.measure else Entry("")
                value = m.value if entry.measure else None
                shown = "—" if m.paper is None else m.paper
                numbers = (shown, value, m.low, m.high, m.n)
                rows.append((entry.claim, entry.criterion, m.method, *numbers, entry.value))
        names = ["claim", "criterion", "what", "paper", "value", "low", "high", "n", "verdict"]
        return pd.DataFrame(rows, columns=names)

    def save(self) -> Path:
        """Write ``results/<model>/<chapter>.json`` under `build_dir` and return its path.

        It is written whole or not at all. Tables go to ``results/<model>/<chapter>/<name>.csv``.
        """
        model = self.model.replace("/", "--")
        path = build_dir() / "results" / model / f"{self.chapter}.json"
        entries = {key: _compact(entry) for key, entry in self.entries.items()}
        content = {**self.head(), "library": __version__, "entries": entries}
        for old in path.with_suffix("").glob("*.csv"):
            if old.stem not in self.tables:
                old.unlink()
        for name, table in self.tables.items():
            with write_atomic(path.with_suffix("") / f"{name}.csv") as part:
                table.to_csv(part, index=False, float_format="%.6g")
        _write(path, content)
        return path

    def head(self) -> dict:
        """Return what the register is of: chapter, model, profile, settings."""
        names = ("chapter", "model", "profile", "settings")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def load(cls, path: str | Path) -> Register:
        """Return the register of a file, or one of ``expected/`` without its bands."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            entries = {
                key: Entry(**{k: v for k, v in entry.items() if k != "band"})
                for key, entry in content["entries"].items()
            }
            head = [content[name] for name in ("chapter", "model", "profile", "settings")]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RegisterError(f"{path} is no register: {error}") from error
        return cls(*head, entries)


def _write(path: Path, content: dict) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    with write_atomic(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def _compact(entry: Entry) -> dict:
    """Return the fields of an entry that say something."""
    return {key: value for key, value in asdict(entry).items() if value not in (None, "")}


class _Fields(string.Formatter):
    def get_value(self, key, args, kwargs):
        return kwargs["register"][key]


def fill(text: str, register: Register) -> str:
    """Return text with ``{key}`` fields filled from a register.

    >>> register = Register("c", "m", "full")
    >>> _ = register.add("r", Estimate(0.5, 0.25, 0.75, 45, 0.01))
    >>> fill("r = {r}, {r:p}, n = {r:n}", register)
    'r = 0.50 [0.25, 0.75], p = 0.010, n = 45'
    """
    return _Fields().format(text, register=register)


# --- the gate ----------------------------------------------------------------------------------


def band(values: Sequence[float], margin: float = 0.0) -> tuple[float, float]:
    """Return the 99 % prediction interval of the next run, given earlier ones.

    Rounding on another processor moves even a number that never varied here; a thousandth of
    its size is allowed for that, or of its margin where that is larger: a correlation that
    happens to be near 0 is a sum of terms that are not, and they are what is rounded.

    Parameters
    ----------
    values : sequence of float
        The number in each of the earlier runs.
    margin : float
        Half the width of the number's own confidence interval; 0 if it has none.

    >>> tuple(round(float(end), 3) for end in band([1.0, 1.0, 1.0]))
    (0.999, 1.001)
    >>> tuple(round(float(end), 4) for end in band([0.003, 0.003, 0.003], margin=0.6))
    (0.0024, 0.0036)
    >>> low, high = band([0.9, 1.0, 1.1])
    >>> bool(low < 0.9 and high > 1.1)
    True
    """
    values = np.asarray(values, dtype=float)
    n, centre = len(values), float(values.mean())
    spread = float(values.std(ddof=1)) if n > 1 else 0.0
    half = scipy.stats.t.ppf(0.995, max(n - 1, 1)) * spread * math.sqrt(1 + 1 / n)
    half = max(half, 1e-3 * abs(centre), 1e-3 * margin, 1e-6)
    return centre - half, centre + half


def expect(runs: Sequence[Path], out: Path) -> list[Path]:
    """Write expected bands from the results of several runs, and return the paths of the files.

    Each run is a folder ``results/`` with the same models and chapters inside; the first run's
    entries and the bands of all go to ``out/<model>/<profile>/<chapter>.json``, which can be read
    as a register, too.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from unittest.mock import patch
    >>> register = Register("chapter", "model", "full")
    >>> _ = register.add("r", 0.5)
    >>> with TemporaryDirectory() as folder, patch.dict(os.environ, EMOTION_CONCEPTS_BUILD=folder):
    ...     _ = register.save()
    ...     [path] = expect([Path(folder, "results")], Path(folder, "expected"))
    ...     json.loads(path.read_text(encoding="utf-8"))["entries"]["r"]["band"]
    [0.4995, 0.5005]
    """
    chapters: dict[tuple, list[Register]] = {}
    for run in runs:
        for path in sorted(Path(run).glob("*/*.json")):
            register = Register.load(path)
            key = (register.model.replace("/", "--"), register.profile, register.chapter)
            chapters.setdefault(key, []).append(register)
    if not chapters:
        raise RegisterError(f"no results under {', '.join(map(str, runs))}")
    written = []
    for (model, profile, chapter), registers in sorted(chapters.items()):
        if len(registers) != len(runs):
            raise RegisterError(f"{chapter} ran {len(registers)} times in {len(runs)} runs")
        keys = set(registers[0].entries)
        if any(set(register.entries) != keys for register in registers):
            raise RegisterError(f"the runs of {chapter} registered different keys")
        entries = {}
        for key, first in registers[0].entries.items():
            values = [register[key].value for register in registers]
            text = isinstance(first.value, str)
            held = (
                {"allowed": sorted(set(values))} if text else {"band": band(values, _margin(first))}
            )
            entries[key] = {**_compact(first), **held}
        first = registers[0]
        content = {**first.head(), "runs": [r.settings for r in registers], "entries": entries}
        path = Path(out) / model / profile / f"{chapter}.json"
        _write(path, content)
        written.append(path)
    return written


def _margin(entry: Entry) -> float:
    """Return half the width of a number's interval, 0 without one."""
    return 0.0 if entry.low is None or entry.high is None else (entry.high - entry.low) / 2


def compare(results: Path, expected: Path) -> pd.DataFrame:
    """Return what drifted: one row a number outside its band, missing, or not expected.

    Parameters
    ----------
    results : Path
        ``results/`` of a run.
    expected : Path
        ``expected/`` of the repository; the profile is read from the results.

    Returns
    -------
    DataFrame
        With columns chapter, key, found, low, high, problem; empty if all is well.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from unittest.mock import patch
    >>> register = Register("chapter", "model", "full", entries={"r": Entry(0.5)})
    >>> with TemporaryDirectory() as folder, patch.dict(os.environ, EMOTION_CONCEPTS_BUILD=folder):
    ...     results, bands = register.save().parent.parent, Path(folder, "expected")
    ...     _ = expect([results], bands)
    ...     register.entries["r"] = Entry(0.75)
    ...     _ = register.save()
    ...     compare(results, bands)[["key", "found", "problem"]].to_numpy().tolist()
    [['r', 0.75, 'off by +0.2495']]
    """
    rows = []
    paths = sorted(Path(results).glob("*/*.json"))
    if not paths:
        raise RegisterError(f"there are no results under {results}")
    for path in paths:
        register = Register.load(path)
        bands = Path(expected) / path.parent.name / register.profile / path.name
        if not bands.exists():
            raise RegisterError(
                f"nothing is expected of {register.chapter} on {register.model} in profile "
                f"{register.profile}; make bands with `python3 run.py expect`"
            )
        entries = json.loads(bands.read_text(encoding="utf-8"))["entries"]
        for key in sorted(entries.keys() | register.entries.keys()):
            found = register.entries.get(key)
            problem = _drift(found, entries.get(key))
            if problem:
                low, high = entries.get(key, {}).get("band", (None, None))
                value = None if found is None else found.value
                rows.append((register.chapter, key, value, low, high, problem))
    return pd.DataFrame(rows, columns=["chapter", "key", "found", "low", "high", "problem"])


def _drift(found: Entry | None, band: dict | None) -> str:
    """Return what is wrong with one number, or an empty string."""
    if found is None:
        return "missing"
    if band is None:
        return "not expected"
    if "allowed" in band:
        return "" if found.value in band["allowed"] else f"was {' or '.join(band['allowed'])}"
    if not isinstance(found.value, int | float) or isinstance(found.value, bool):
        return "not a number"
    low, high = band["band"]
    if low <= found.value <= high:
        return ""
    return f"off by {found.value - (low if found.value < low else high):+.4g}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: ``compare RESULTS EXPECTED`` or ``expect RESULTS... --out EXPECTED``.

    Returns the exit status.
    """
    parser = argparse.ArgumentParser(prog="emotion_concepts.results", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("compare", help="hold results to their bands")
    one.add_argument("results", type=Path)
    one.add_argument("expected", type=Path)
    two = commands.add_parser("expect", help="make bands from several runs")
    two.add_argument("runs", type=Path, nargs="+")
    two.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "expect":
            print("\n".join(str(path) for path in expect(chosen.runs, chosen.out)))
            return 0
        drift = compare(chosen.results, chosen.expected)
    except RegisterError as error:
        print(error, file=sys.stderr)
        return 1
    if drift.empty:
        print("every number is inside its band")
        return 0
    print(f"{len(drift)} numbers drifted:\n{drift.to_string(index=False)}")
    return 1


if __name__ == "__main__":
    sys.exit(main())

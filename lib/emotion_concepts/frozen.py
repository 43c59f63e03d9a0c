"""Results of larger models, kept as they came: numbers, tables, and how they were made.

A chapter that ran on a model too large for every build is frozen by

    python -m emotion_concepts.frozen build/full/results/<model>/<chapter>.json --command "..."

into ``data/frozen/<model>/<chapter>/``. The book shows frozen results beside those that it computes
and redraws their figures from the tables; it never mixes the two.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pandas as pd
import psutil

from emotion_concepts.corpus import DATA
from emotion_concepts.errors import RegisterError
from emotion_concepts.results import Register

FOLDER = DATA / "frozen"


@dataclass(frozen=True)
class Frozen:
    """One chapter on one larger model.

    Attributes
    ----------
    register : Register
        Its numbers and verdicts; ``register.settings["weights"]`` pins the weights.
    tables : {name: DataFrame}
        What its figures are drawn from.
    about : dict
        command, hardware, date, commit.
    """

    register: Register
    tables: dict[str, pd.DataFrame]
    about: dict

    @property
    def model(self) -> str:
        """Name of the model, as its register has it."""
        return self.register.model


def load_frozen(chapter: str, *, other_than: str = "", folder: Path | None = None) -> list[Frozen]:
    """Return a chapter's frozen results, one a model, in the order of their names.

    Parameters
    ----------
    other_than : str
        A model that is left out, since the chapter runs on it.
    folder : Path, optional
        ``data/frozen`` by default.

    Raises
    ------
    RegisterError
        For a file that is missing or damaged.

    Examples
    --------
    >>> found = load_frozen("06_reward_hacking")[0]
    >>> sorted(found.about), found.register.chapter
    (['command', 'commit', 'date', 'hardware'], '06_reward_hacking')
    """
    found = []
    for place in sorted(Path(str(folder or FOLDER)).glob(f"*/{chapter}")):
        register = Register.load(place / "register.json")
        if register.model == other_than:
            continue
        try:
            about = json.loads((place / "about.json").read_text(encoding="utf-8"))
            tables = {path.stem: pd.read_csv(path) for path in sorted(place.glob("*.csv"))}
        except (OSError, ValueError) as error:
            raise RegisterError(f"{place} is no frozen result: {error}") from error
        found.append(Frozen(register, tables, about))
    return found


def freeze(path: Path, command: str, *, commit: str = "", folder: Path | None = None) -> Path:
    """Copy a register and its tables into the frozen results, with how they were made.

    Parameters
    ----------
    path : Path
        ``results/<model>/<chapter>.json`` of a build.
    command : str
        What was run.
    commit : str
        Of the code that ran.

    Returns
    -------
    Path
        Of the folder; what was frozen of this model and chapter before is replaced, whole or not
        at all.

    Examples
    --------
    >>> from unittest.mock import patch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with patch.dict(os.environ, EMOTION_CONCEPTS_BUILD=folder):
    ...         path = Register("05_blackmail", "org/large", "full").save()
    ...     place = freeze(path, "run.py book --model org/large", folder=Path(folder, "own"))
    ...     [found] = load_frozen("05_blackmail", folder=Path(folder, "own"))
    >>> place.parts[-2:], found.about["command"]
    (('org--large', '05_blackmail'), 'run.py book --model org/large')
    """
    register = Register.load(path)
    place = Path(str(folder or FOLDER)) / path.parent.name / register.chapter
    about = {
        "command": command,
        "hardware": hardware(),
        "date": date.fromtimestamp(path.stat().st_mtime).isoformat(),
        "commit": commit,
    }
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".") as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        shutil.copy(path, new / "register.json")
        for table in sorted(path.with_suffix("").glob("*.csv")):
            shutil.copy(table, new)
        text = json.dumps(about, indent=1, ensure_ascii=False) + "\n"
        (new / "about.json").write_text(text, encoding="utf-8")
        if place.exists():
            os.replace(place, Path(scratch) / "old")
        os.replace(new, place)
    return place


def hardware() -> str:
    """Return the kind of machine, without its name.

    >>> hardware().split()[-1]
    'GiB'
    """
    import torch

    memory = f"{psutil.virtual_memory().total / 2**30:.0f} GiB"
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}, {memory}"
    return f"{os.cpu_count()} cores ({platform.machine()}), {memory}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: freeze registers that a build has written; return the exit status."""
    parser = argparse.ArgumentParser(prog="emotion_concepts.frozen", description=main.__doc__)
    parser.add_argument("registers", type=Path, nargs="+", help="results/<model>/<chapter>.json")
    parser.add_argument("--command", required=True, help="what was run to make them")
    chosen = parser.parse_args(arguments)
    git = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    try:
        for path in chosen.registers:
            print(freeze(path, chosen.command, commit=git.stdout.strip()))
    except RegisterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

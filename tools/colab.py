"""Does the library install on Colab without touching what Colab has?

`python -m tools.colab` holds the library's bounds to Colab's own versions, which are in
colab-packages.txt; pip can take that file as constraints, too. `--fetch` writes it anew from the
list that Colab publishes. A version that pip replaced would ask for a restart of the runtime.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
import tomllib
import urllib.request
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from run import ROOT, Problem

PACKAGES = Path(__file__).with_name("colab-packages.txt")
SOURCE = "https://raw.githubusercontent.com/googlecolab/backend-info/main/"
HEAD = """\
# What Colab has installed; `python -m tools.colab --fetch` writes all of it here, from
# {source}pip-freeze.txt
# date: {date}
# python: {python}
"""
GPU_ONLY = ("nvidia-", "cuda-", "triton")  # Colab's build of torch needs others than the index's


@dataclass(frozen=True)
class Runtime:
    """What Colab has: the date of its list, its Python, and {package: version}."""

    date: str
    python: str
    packages: dict[str, str]


def read(path: Path = PACKAGES) -> Runtime:
    """Return what a file like colab-packages.txt says."""
    text = path.read_text()
    told = dict(re.findall(r"^# (date|python): (\S+)$", text, re.MULTILINE))
    if set(told) != {"date", "python"}:
        raise Problem(f"{path.name} does not say its date and Python; write it with --fetch")
    return Runtime(packages=versions(text), **told)


def versions(freeze: str) -> dict[str, str]:
    """Return {package: version} of what `pip freeze` printed, less what only torch on GPUs needs.

    A package that came from a wheel's address has its version in the wheel's name; one that came
    from a folder has none and is left out. Marks of a build (+cu128) are dropped, since the
    package index has none.

    >>> versions("numpy==2.1.3\\ntorch @ https://a.b/torch-2.11.0%2Bcu128-cp313-cp313-linux.whl")
    {'numpy': '2.1.3', 'torch': '2.11.0'}
    """
    found = {}
    for line in freeze.splitlines():
        name, _, version = line.partition("==")
        if " @ " in line:
            name, _, address = line.partition(" @ ")
            wheel = urllib.request.unquote(address.partition("#")[0].rpartition("/")[2])
            try:
                version = str(parse_wheel_filename(wheel)[1])
            except InvalidWheelFilename:
                continue
        name = canonicalize_name(name.strip())
        if line.startswith("#") or name.startswith(GPU_ONLY):
            continue
        try:
            found[name] = Version(version).public
        except InvalidVersion:
            continue
    return found


def refusals(runtime: Runtime, project: dict) -> list[str]:
    """Return what of Colab's a project's own requirements would not leave as it is."""
    told = []
    if runtime.python not in SpecifierSet(project["requires-python"]):
        told.append(f"Python {runtime.python} of Colab is not {project['requires-python']}")
    for requirement in map(Requirement, project["dependencies"]):
        version = runtime.packages.get(canonicalize_name(requirement.name))
        if version and not requirement.specifier.contains(version, prereleases=True):
            told.append(f"{requirement.name} {version} of Colab is not {requirement.specifier}")
    return told


def installs(notebook: Path) -> list[Requirement]:
    """Return what the cells of a notebook install with pip.

    Raises
    ------
    Problem
        For an install that is no plain list of requirements.
    """
    found = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        for line in "".join(cell["source"]).splitlines() if cell["cell_type"] == "code" else ():
            if not re.search(r"\bpip3?\b.*\binstall\b", line):
                continue
            command = re.fullmatch(r"\s*%pip install -q (.+)", line)
            if not command:
                raise Problem(f"{notebook.name} installs in another way than `%pip install -q`")
            found += map(Requirement, shlex.split(command[1]))
    return found


def fetch(path: Path = PACKAGES) -> None:
    """Write the list that Colab publishes now."""
    freeze, system = (_download(name) for name in ("pip-freeze.txt", "os-info.txt"))
    python, found = re.search(r"^Python (\d+\.\d+)", system, re.MULTILINE), versions(freeze)
    if not python or "torch" not in found:
        raise Problem(f"{SOURCE} is not what it was; see what became of it and mend tools/colab.py")
    head = HEAD.format(source=SOURCE, date=date.today(), python=python[1])
    path.write_text(head + "".join(f"{name}=={found[name]}\n" for name in sorted(found)))


def _download(name: str) -> str:
    try:
        with urllib.request.urlopen(SOURCE + name, timeout=60) as answer:
            return answer.read().decode()
    except OSError as error:
        raise Problem(
            f"{SOURCE}{name} cannot be read ({getattr(error, 'reason', error)}); is there a "
            "network? What is in colab-packages.txt stays as it was"
        ) from error


def main(arguments: list[str]) -> int:
    """Check, after fetching if that is asked for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.colab", description=__doc__)
    parser.add_argument("--fetch", action="store_true", help="write colab-packages.txt anew first")
    if parser.parse_args(arguments).fetch:
        fetch()
    runtime = read()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    told = refusals(runtime, project)
    named = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    kept = named & runtime.packages.keys()
    print(f"Colab of {runtime.date}, Python {runtime.python}: {len(kept)} of {len(named)} ", end="")
    print(f"packages that the library names are listed, {len(told)} refused", *told, sep="\n  ")
    return 1 if told else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Problem as problem:
        sys.exit(f"tools.colab: {problem}")

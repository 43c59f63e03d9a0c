"""environment.yml, pyproject.toml and constraints.txt say the same."""

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from run import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = (ROOT / "constraints.txt").read_text().splitlines()
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [*PROJECT["dependencies"], *(r for extra in EXTRAS.values() for r in extra)]


def pinned() -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in (x.split("==") for x in LINES)}


def test_constraints_are_plain_pins_of_published_versions():
    odd = [line for line in LINES if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    assert odd == []
    assert len(pinned()) == len(LINES)


@pytest.mark.parametrize("requirement", [Requirement(r) for r in REQUIREMENTS], ids=str)
def test_each_dependency_is_pinned_within_its_bounds(requirement):
    assert pinned()[canonicalize_name(requirement.name)] in requirement.specifier


def test_the_conda_environment_installs_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    [pip] = [part["pip"] for part in environment["dependencies"] if isinstance(part, dict)]
    assert pip == ["-c constraints.txt", f"torch=={pinned()['torch']}", "-e .[book,test]"]


def test_the_conda_environment_has_a_python_that_the_project_supports():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    [python] = [
        Requirement(part.replace("=", "==", 1))
        for part in environment["dependencies"]
        if isinstance(part, str) and part.startswith("python=")
    ]
    [version] = [bound.version for bound in python.specifier]
    assert version in Requirement(f"python{PROJECT['requires-python']}").specifier

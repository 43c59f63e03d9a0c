"""The library installs on Colab and replaces nothing there."""

import json
import re
import tomllib
import urllib.error
import urllib.request
from io import BytesIO

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from run import ROOT, Problem
from tools import colab

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FREEZE = """# made by a machine
numpy==2.1.3
Pillow==11.3.0
PyDrive2==1.21.3
en-core-web-sm @ https://github.com/a/en_core_web_sm-3.8.0-py3-none-any.whl#sha256=194
google-colab @ file:///colabtools/dist/google_colab-1.0.0.tar.gz#sha256=05
nvidia-cublas-cu12==12.8.4.1
torch @ https://download.pytorch.org/whl/cu128/torch-2.11.0%2Bcu128-cp313-cp313-linux_x86_64.whl
triton==3.6.0
torchvision==0.26.0+cu128
"""


def project(*dependencies: str) -> dict:
    return {"requires-python": ">=3.11", "dependencies": list(dependencies)}


def test_the_bounds_of_the_library_admit_what_colab_has():
    assert colab.refusals(colab.read(), PROJECT) == []


def test_the_list_holds_what_the_library_and_colab_share():
    runtime = colab.read()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", runtime.date)
    assert {"numpy", "pandas", "torch", "transformers", "ipykernel"} <= runtime.packages.keys()
    assert all(str(Version(version)) for version in runtime.packages.values())
    assert colab.SOURCE + "pip-freeze.txt" in colab.PACKAGES.read_text()


@pytest.mark.parametrize("dependency", ["numpy>=2.4", "Torch==2.13.0", "transformers<5.15"])
def test_a_bound_that_shuts_colab_out_is_named(dependency):
    [told] = colab.refusals(colab.read(), project("scipy>=1.13", dependency, "nnsight>=0.8"))
    assert told.startswith(Requirement(dependency).name) and "of Colab is not" in told


def test_a_python_that_is_too_old_for_the_library_is_named():
    old = colab.Runtime("2023-01-01", "3.10", {})
    assert colab.refusals(old, PROJECT) == ["Python 3.10 of Colab is not >=3.11"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_installs_the_library_of_its_version_without_extras_and_nothing_else(path):
    [requirement] = colab.installs(path)
    assert requirement.name == PROJECT["name"] and not requirement.extras
    assert requirement.url == f"git+{PROJECT['urls']['Homepage']}@v{PROJECT['version']}"


@pytest.mark.parametrize(
    "line", ["!pip install torch", "%pip install -U x", "!python -m pip install x"]
)
def test_another_way_to_install_is_refused(line, tmp_path):
    path = tmp_path / "a.ipynb"
    cell = {"cell_type": "code", "source": [f"{line}\n", "x = 1"]}
    path.write_text(json.dumps({"cells": [cell]}))
    with pytest.raises(Problem, match=r"a\.ipynb installs in another way"):
        colab.installs(path)


# --- fetching ----------------------------------------------------------------------------------


def test_a_freeze_becomes_versions_that_the_package_index_has():
    assert colab.versions(FREEZE) == {
        "numpy": "2.1.3",
        "pillow": "11.3.0",
        "pydrive2": "1.21.3",
        "en-core-web-sm": "3.8.0",
        "torch": "2.11.0",
        "torchvision": "0.26.0",
    }


def answering(monkeypatch, **files: str) -> None:
    def answer(address, timeout):
        name = address.removeprefix(colab.SOURCE).split(".")[0].replace("-", "_")
        return BytesIO(files[name].encode())

    monkeypatch.setattr(urllib.request, "urlopen", answer)


def test_what_is_fetched_can_be_read_again_and_serves_as_constraints(tmp_path, monkeypatch):
    answering(monkeypatch, pip_freeze=FREEZE, os_info="Ubuntu 22.04.5 LTS\nPython 3.13.9\nR 4.5\n")
    colab.fetch(tmp_path / "packages.txt")
    runtime = colab.read(tmp_path / "packages.txt")
    assert (runtime.python, runtime.packages) == ("3.13", colab.versions(FREEZE))
    lines = (tmp_path / "packages.txt").read_text().splitlines()
    assert all(line.startswith("# ") or Requirement(line) for line in lines)


def test_an_answer_of_another_form_is_not_taken(tmp_path, monkeypatch):
    answering(monkeypatch, pip_freeze="<html>", os_info="Python 3.13.9")
    with pytest.raises(Problem, match="not what it was"):
        colab.fetch(tmp_path / "packages.txt")
    assert not list(tmp_path.iterdir())


def test_without_a_network_the_list_stays_and_a_sentence_says_why(monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("Temporary failure in name resolution")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    before = colab.PACKAGES.read_bytes()
    with pytest.raises(Problem, match=r"cannot be read \(Temporary failure.*is there a network"):
        colab.main(["--fetch"])
    assert colab.PACKAGES.read_bytes() == before


def test_the_check_says_what_it_held_to_what(capsys):
    assert colab.main([]) == 0
    told = capsys.readouterr().out
    assert re.match(r"Colab of 20\S+, Python 3\.\d+: \d+ of \d+ packages .* 0 refused\n$", told)

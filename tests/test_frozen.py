"""Frozen results: kept as they came, with how they were made and nothing about whose machine."""

import json
import platform
import re
import socket
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from emotion_concepts import frozen, results
from emotion_concepts.errors import RegisterError

COMMAND = "python3 run.py book --profile full --model org/large"
PATH = re.compile(r"(?<![\w.<])(?:/[\w.-]+){2,}|[A-Z]:\\\\")  # absolute, of any system
PACKAGED = {place.name for place in Path(str(frozen.FOLDER)).glob("*/*") if place.is_dir()}


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Save a register in a build of its own; returns its path."""

    def save(r=0.5, model="org/large", chapter="04_preferences", **tables):
        monkeypatch.setenv("EMOTION_CONCEPTS_BUILD", str(tmp_path / f"build {r}"))
        made = results.Register(chapter, model, "full", {"weights": "0f" * 20, "seed": 0})
        made.add("r", r, n=30)
        made.verdict("claim", "partly", claim="It holds.", criterion="r > .4", measure="r")
        made.tables.update(tables)
        return made.save()

    return save


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "frozen"


SHIFTS = pd.DataFrame({"direction": ["calm", "sad"], "shift": [0.25, -1.5], "n": [3, 4]})
CELLS = pd.DataFrame({"x": [1.5]})


def test_a_frozen_chapter_comes_back_as_it_was_saved(saved, folder):
    path = saved(shifts=SHIFTS, cells=CELLS)
    place = frozen.freeze(path, COMMAND, commit="abc123", folder=folder)
    assert place == folder / "org--large/04_preferences"
    [found] = frozen.load_frozen("04_preferences", folder=folder)
    assert found.register == results.Register.load(path) and found.model == "org/large"
    assert found.register["claim"].value == "partly"
    assert found.register.settings["weights"] == "0f" * 20
    assert list(found.tables) == ["cells", "shifts"]
    pd.testing.assert_frame_equal(found.tables["shifts"], SHIFTS)
    pd.testing.assert_frame_equal(found.tables["cells"], CELLS)
    assert set(found.about) == {"command", "hardware", "date", "commit"}
    assert found.about["command"] == COMMAND and found.about["commit"] == "abc123"
    assert found.about["date"] == date.fromtimestamp(path.stat().st_mtime).isoformat()
    assert re.search(r"\d+ GiB", found.about["hardware"])


def test_it_does_not_tell_whose_machine_it_was(saved, folder, tmp_path, monkeypatch):
    for module, name in ((platform, "node"), (socket, "gethostname")):
        monkeypatch.setattr(module, name, lambda: "own-host")
    place = frozen.freeze(saved(), COMMAND, folder=folder)
    text = (place / "about.json").read_text()
    assert "own-host" not in text and str(tmp_path) not in text and not PATH.search(text)
    assert PATH.search(str(tmp_path)), "the pattern knows a path"


def test_chapters_come_by_themselves_and_models_in_order(saved, folder):
    for model, chapter in (("org/b", "04_preferences"), ("a", "04_preferences"), ("a", "05_other")):
        frozen.freeze(saved(model=model, chapter=chapter), COMMAND, folder=folder)
    found = frozen.load_frozen("04_preferences", folder=folder)
    assert [one.model for one in found] == ["a", "org/b"]
    assert all(one.register.chapter == "04_preferences" and not one.tables for one in found)
    assert frozen.load_frozen("06_none", folder=folder) == []
    [other] = frozen.load_frozen("04_preferences", other_than="org/b", folder=folder)
    assert other.model == "a"


def test_freezing_again_replaces_what_was_there(saved, folder):
    frozen.freeze(saved(shifts=SHIFTS), COMMAND, folder=folder)
    frozen.freeze(saved(0.7, cells=CELLS), "again", folder=folder)
    [found] = frozen.load_frozen("04_preferences", folder=folder)
    assert found.register["r"].value == 0.7 and list(found.tables) == ["cells"]
    assert found.about["command"] == "again"
    # what cannot be frozen leaves it alone
    damaged = saved(0.8)
    damaged.write_text(damaged.read_text()[:-20])
    with pytest.raises(RegisterError, match="is no register"):
        frozen.freeze(damaged, COMMAND, folder=folder)
    [found] = frozen.load_frozen("04_preferences", folder=folder)
    assert found.register["r"].value == 0.7


def test_a_copy_that_fails_leaves_what_was_frozen_and_nothing_else(saved, folder, monkeypatch):
    place = frozen.freeze(saved(), COMMAND, folder=folder)
    changed = saved(0.7, cells=CELLS, shifts=SHIFTS)

    def full():
        raise OSError("no space left")

    monkeypatch.setattr(frozen, "hardware", lambda: "a machine")
    copy = frozen.shutil.copy
    monkeypatch.setattr(
        frozen.shutil, "copy", lambda a, b: full() if a.name == "shifts.csv" else copy(a, b)
    )
    with pytest.raises(OSError, match="no space"):
        frozen.freeze(changed, "again", folder=folder)
    [found] = frozen.load_frozen("04_preferences", folder=folder)
    assert found.register["r"].value == 0.5 and found.about["command"] == COMMAND
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.parametrize(
    ("file", "message"), [("about.json", "no frozen result"), ("register.json", "no register")]
)
@pytest.mark.parametrize("torn", [True, False], ids=["torn", "missing"])
def test_damaged_results_are_named(saved, folder, file, message, torn):
    path = frozen.freeze(saved(shifts=SHIFTS), COMMAND, folder=folder) / file
    if torn:
        path.write_text(path.read_text()[:-20])
    else:
        path.unlink()
    with pytest.raises(RegisterError, match=f"04_preferences.* is {message}"):
        frozen.load_frozen("04_preferences", folder=folder)


def test_the_command_line_freezes_and_says_where(saved, folder, monkeypatch, capsys):
    monkeypatch.setattr(frozen, "FOLDER", folder)
    path = saved(shifts=SHIFTS)
    assert frozen.main([str(path), "--command", COMMAND]) == 0
    place = folder / "org--large/04_preferences"
    assert capsys.readouterr().out == f"{place}\n"
    about = json.loads((place / "about.json").read_text())
    assert about["command"] == COMMAND and re.fullmatch(r"([0-9a-f]{12})?", about["commit"])
    assert frozen.main([str(path.with_name("gone.json")), "--command", COMMAND]) == 1
    assert "gone.json is no register" in capsys.readouterr().err


@pytest.mark.parametrize("chapter", sorted(PACKAGED))
def test_packaged_results_say_how_they_were_made(chapter):
    found = frozen.load_frozen(chapter)
    assert found
    for one in found:
        about = one.about
        assert about["command"] and about["hardware"] and date.fromisoformat(about["date"])
        assert one.register.chapter == chapter and one.register.settings["weights"]
        verdicts = [entry.value for entry in one.register.entries.values() if entry.claim]
        assert verdicts and set(verdicts) <= set(results.VERDICTS)
        text = json.dumps(about) + json.dumps(one.register.head())
        assert not PATH.search(text), "a path of somebody's machine"

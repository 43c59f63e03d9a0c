"""The chapters as files: clean, declared, and in step with everything that names them."""

import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml

import run
from tools.book import Book, BuildError

ROOT = run.ROOT
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STEMS = [path.stem for path in NOTEBOOKS]
REPOSITORY = "https://github.com/emotion-concepts/emotion-concepts"
SHORTEST_ALT = 20
WHOLE_BOOK = ("full", "ci")  # results of `large` are frozen
FROZEN = tuple(stem for stem in STEMS if "05" <= stem < "11")  # chapter 11 computes nothing
SET_UP = f"""import sys

if "google.colab" in sys.modules:  # elsewhere the library is already installed
    %pip install -q "emotion-concepts @ git+{REPOSITORY}@v0.1.0\""""

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=STEMS)


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def source(cell: dict) -> str:
    return "".join(cell["source"])


def code(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


@each_notebook
def test_a_notebook_holds_no_output(path):
    for cell in code(read(path)):
        assert cell["outputs"] == [] and cell["execution_count"] is None, source(cell)


@each_notebook
def test_a_notebook_holds_nothing_of_papermill(path):
    notebook = read(path)
    for holder in (notebook, *notebook["cells"]):
        assert "papermill" not in holder["metadata"]
    assert not any("injected-parameters" in tags(cell) for cell in notebook["cells"])


@each_notebook
def test_cell_ids_are_unique(path):
    ids = [cell["id"] for cell in read(path)["cells"]]
    assert len(ids) == len(set(ids))


@each_notebook
def test_one_parameters_cell_of_plain_assignments(path):
    assert sum("parameters" in tags(cell) for cell in code(read(path))) == 1
    assert run.declared(path).keys() >= {"model", "profile", "seed", "dtype"}


@each_notebook
def test_a_notebook_names_the_chapters_that_it_needs(path):
    needs = read(path)["metadata"]["emotion_concepts"]["needs"]
    assert set(needs) <= set(STEMS[: STEMS.index(path.stem)])


@each_notebook
def test_the_setup_cell_follows_the_parameters_and_is_the_same_everywhere(path):
    cells = code(read(path))
    first = next(n for n, cell in enumerate(cells) if "parameters" in tags(cell))
    assert source(cells[first + 1]) == SET_UP


@each_notebook
def test_every_image_has_written_alt_text(path):
    for cell in read(path)["cells"]:
        alts = []
        if cell["cell_type"] == "markdown":
            alts += re.findall(r"!\[([^\]]*)\]\(", source(cell))
            for image in re.findall(r"<img\b[^>]*>", source(cell)):
                alts += re.findall(r'\balt="([^"]*)"', image) or [""]
            for options in re.findall(r"\{(?:figure|image)\}.*\n((?:\s*:.*\n)*)", source(cell)):
                alts += re.findall(r":alt:(.*)", options) or [""]
        render = cell["metadata"].get("mystnb", {})
        if "figure" in render or "image" in render:
            alts.append(render.get("image", {}).get("alt", ""))
        assert all(len(alt.strip()) >= SHORTEST_ALT for alt in alts), source(cell)


@each_notebook
def test_an_unknown_parameter_is_refused_before_execution(path, tmp_path):
    (tmp_path / "notebooks").mkdir()
    shutil.copy(path, tmp_path / "notebooks")
    (tmp_path / "profiles.yml").write_text(f"full: {{{path.stem}: {{no_such_thing: 1}}}}")
    with pytest.raises(BuildError, match=f"{path.stem} has no parameter no_such_thing"):
        Book(tmp_path, tmp_path / "build", "full").execute(path.stem)
    assert not (tmp_path / "build").exists()


def profiles() -> dict:
    return yaml.safe_load((ROOT / "profiles.yml").read_text())


def test_profiles_of_the_book_name_every_chapter_and_the_large_one_those_that_are_frozen():
    found = {name: tuple(sorted(chapters)) for name, chapters in profiles().items()}
    assert found == {**dict.fromkeys(WHOLE_BOOK, tuple(STEMS)), "large": FROZEN}
    assert tuple(found) == run.PROFILES


@each_notebook
def test_the_full_profile_is_the_notebooks_own_defaults(path):
    defaults = run.declared(path)
    assert {**defaults, **profiles()["full"][path.stem]} == defaults
    assert defaults["profile"] == "full"


@pytest.mark.parametrize(
    ("profile", "stem"),
    [(name, stem) for name in ("ci", "large") for stem in profiles()[name]],
)
def test_other_profiles_say_so_and_override_only_what_is_declared(profile, stem):
    overrides, defaults = profiles()[profile][stem], run.declared(ROOT / f"notebooks/{stem}.ipynb")
    assert overrides.keys() <= defaults.keys()
    assert overrides["profile"] == profile
    run.check(overrides, stem)


def test_the_contents_list_every_notebook_in_reading_order():
    text = (ROOT / "_toc.yml").read_text()
    assert re.findall(r"notebooks/(\w+)", text) == STEMS


def test_every_expected_band_belongs_to_a_chapter_and_a_profile():
    for path in (ROOT / "expected").glob("*/*/*.json"):
        assert path.stem in STEMS and path.parent.name in WHOLE_BOOK, path


@each_notebook
def test_a_chapter_has_bands_in_the_profiles_of_the_book(path):
    model = run.declared(path)["model"]
    for profile in WHOLE_BOOK:
        assert (ROOT / "expected" / model / profile / f"{path.stem}.json").exists(), profile


def test_the_repository_has_one_address():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = {config["repository"]["url"], citation["repository-code"], *project["urls"].values()}
    assert found == {REPOSITORY}


def test_the_version_is_the_same_wherever_it_is_written():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert str(citation["version"]) == project["version"]
    assert f"@v{project['version']}" in SET_UP

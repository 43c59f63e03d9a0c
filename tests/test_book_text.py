"""The prose of the book: links lead somewhere, what is named exists, and no result is typed.

Pages whose numbers come from registers are held to them in test_guidance.py.
"""

import importlib.util
import inspect
import json
import re
import shlex
import tomllib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml

import run
from emotion_concepts import corpus, results, steering
from emotion_concepts.cli import _parser
from emotion_concepts.experiments import extraction, steered
from tools.book import front_figures

ROOT = run.ROOT
PAGES = sorted((ROOT / "book").glob("*.md"))
TYPED = [ROOT / "book" / f"{name}.md" for name in ("extend", "glossary", "limits", "methods")]
TYPED += [ROOT / "CHANGELOG.md"]
ALL = [*PAGES, ROOT / "CHANGELOG.md"]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FOLDERS = ("bench", "book", "expected", "lib", "notebooks", "tests", "tools")
FILES = {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()}
SUFFIXES = {".cff", ".csv", ".ipynb", ".json", ".jsonl", ".md", ".py", ".toml", ".txt", ".yaml"}
SUFFIXES |= {".yml"}
# What a typed page may say in figures, since no run decides it. `test_what_is_fixed_...` holds
# those that the code has to the code.
FIXED = {
    "95": "the level of all intervals, in percent",
    "99": "the level of an expected band, and the variance that random directions leave out",
    ".05": "the level of all tests",
    "171": "the emotion words of the paper",
    "0.1.0": "the version",
}
PROGRAMS = ("python", ".venv/bin/python", "emotion-concepts")
# What chapters call that a model on a server cannot do: its weights are not here, or it answers
# only when a pass is over.
NEAR = ("finetuning.tune(", ".stream(")

each_page = pytest.mark.parametrize("page", ALL, ids=[page.name for page in ALL])
each_typed = pytest.mark.parametrize("page", TYPED, ids=[page.name for page in TYPED])


def fences(text: str, *languages: str) -> list[str]:
    """Return the code blocks of a page in some languages."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [code for language, code in found if language in languages]


def prose(text: str) -> str:
    """Return a page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def inline(text: str) -> list[str]:
    """Return what stands in backticks in the prose of a page, roles left out."""
    plain = re.sub(r"\{[\w:]+\}`[^`]*`", "", prose(text))
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", plain)]


def links(text: str) -> list[str]:
    found = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose(text)))
    return [link for link in found if not link.startswith(("http://", "https://"))]


def commands(text: str) -> list[list[str]]:
    """Return the command lines of a page as words, from shell blocks and from backticks."""
    blocks = "\n".join(fences(text, "sh")).replace("\\\n", " ")
    lines = [line for line in [*blocks.splitlines(), *inline(text)] if line.split("#")[0].strip()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(PROGRAMS)]


def entries() -> dict[str, str]:
    """Return {term: definition} of the glossary, in its order; a term that stands twice fails."""
    text = (ROOT / "book/glossary.md").read_text()
    [body] = re.findall(r"^:::\{glossary\}\n(.*?)^:::$", text, re.MULTILINE | re.DOTALL)
    found: dict[str, str] = {}
    for block in body.strip().split("\n\n"):
        term, *lines = block.splitlines()
        assert term not in found and all(line.startswith("  ") for line in lines), term
        found[term] = " ".join(line.strip() for line in lines)
    return found


# --- links and terms -----------------------------------------------------------------------------


@each_page
def test_a_link_leads_to_a_file_and_to_a_place_that_is_labelled_there(page):
    for link in links(page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link
        # headings get no anchor by themselves: only a label can be linked to
        assert not anchor or f"({anchor})=" in target.read_text(), link


def test_the_contents_list_every_page_once():
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = [chapter["file"] for part in contents["parts"] for chapter in part["chapters"]]
    pages = [name for name in [contents["root"], *listed] if name.startswith("book/")]
    files = [page.relative_to(ROOT).with_suffix("") for page in (ROOT / "book").rglob("*.md")]
    assert sorted(pages) == sorted(path.as_posix() for path in files)


def test_terms_are_in_alphabetical_order_and_unlike_each_other():
    terms = [term.casefold() for term in entries()]
    assert 30 <= len(terms) <= 45
    for before, after in pairwise(terms):
        assert before < after


@pytest.mark.parametrize("term", entries())
def test_a_term_is_explained_in_at_most_three_sentences_and_leads_to_where_it_is_used(term):
    text = entries()[term]
    assert "](../notebooks/" in text or "](methods.md)" in text
    # a stop inside code, a level such as .05 or a link ends no sentence
    plain = re.sub(r"`[^`]*`|\(\S*\)", "x", text)
    assert 1 <= len(re.findall(r"[.?](?=\s|$)", plain)) <= 3
    assert len(text.split()) <= 80


@each_page
def test_a_term_that_a_page_links_is_in_the_glossary(page):
    terms = {term.casefold() for term in entries()}
    for shown in re.findall(r"\{term\}`([^`]+)`", page.read_text()):
        target = re.sub(r"^.*<(.*)>$", r"\1", " ".join(shown.split()), flags=re.DOTALL)
        assert target.casefold() in terms, shown


# --- what is named exists ------------------------------------------------------------------------


@each_page
def test_a_path_in_backticks_exists(page):
    for code in inline(page.read_text()):
        if not re.fullmatch(r"[\w.-]*\w[\w.-]*(?:/[\w.-]+)*/?", code):
            continue
        if code.split("/")[0] in FOLDERS and "/" in code:
            assert (ROOT / code).exists(), code
        elif "/" not in code and Path(code).suffix in SUFFIXES and not code.startswith("."):
            assert code in FILES or (ROOT / code).exists(), code


def test_a_wrong_path_would_be_seen():
    assert not (ROOT / "book/nothing.md").exists() and "nothing.md" not in FILES
    assert inline("see `book/nothing.md` and {term}`layer`\n```sh\n`no`\n```\n") == [
        "book/nothing.md"
    ]


@each_page
def test_a_name_of_the_library_exists(page):
    """Names such as ``steering.band``: a module, then what it holds."""
    for code in inline(page.read_text()):
        match = re.match(r"([a-z_]+)((?:\.\w+)+)(?:\(.*\))?$", code, re.DOTALL)
        if match is None or Path(match[1] + match[2]).suffix in SUFFIXES:
            continue
        places = [f"emotion_concepts{inner}.{match[1]}" for inner in ("", ".experiments")]
        [place] = [name for name in places if importlib.util.find_spec(name)]
        held = importlib.import_module(place)
        for name in match[2].split(".")[1:]:
            assert hasattr(held, name), code
            held = getattr(held, name)


@pytest.mark.parametrize("page", [*ALL, ROOT / "README.md"], ids=lambda page: page.name)
def test_a_command_parses_and_names_chapters_and_parameters_that_exist(page):
    for words in commands(page.read_text()):
        if words[:2] == ["python3", "run.py"] and len(words) > 2:
            chosen = run.parse(words[2:])
            run.check(dict(getattr(chosen, "parameters", [])), getattr(chosen, "only", None))
        elif words[0] == "emotion-concepts" and len(words) > 2:
            _parser().parse_args(words[1:])
        elif words[0].endswith("python") and words[1:2] == ["-m"]:
            assert importlib.util.find_spec(words[2]), words


def test_the_page_on_extending_shows_each_kind_of_command():
    found = commands((ROOT / "book/extend.md").read_text())
    shown = {words[2] for words in found if words[:2] == ["python3", "run.py"]}
    assert shown == {"bench", "book", "expect", "ndif", "test"}
    assert any("emotion_concepts.frozen" in words for words in found)


def test_a_wrong_command_is_refused():
    with pytest.raises(run.Problem, match="no chapter '12_nothing'"):
        run.check({}, run.parse(["book", "--only", "12_nothing"]).only)
    with pytest.raises(run.Problem, match="invalid choice"):
        run.parse(["publish"])


def test_the_page_on_extending_names_every_file_of_scenarios():
    text = (ROOT / "book/extend.md").read_text()
    files = (ROOT / "lib/emotion_concepts/data/scenarios").glob("*.yaml")
    assert sorted(path.name for path in files) == sorted(
        code for code in set(inline(text)) if code.endswith(".yaml") and "/" not in code
    )


def test_the_card_that_is_shown_has_the_fields_of_a_card():
    [card] = fences((ROOT / "book/extend.md").read_text(), "toml")
    known = tomllib.loads((ROOT / "lib/emotion_concepts/models.toml").read_text())
    on_the_hub = [set(fields) for fields in known.values() if fields["source"] == "hub"]
    [(name, fields)] = tomllib.loads(card).items()
    assert set(fields) in on_the_hub and name not in known


def test_the_chapters_said_to_need_the_model_here_are_those_that_do():
    text = (ROOT / "book/extend.md").read_text()
    [said] = re.findall(
        r"^What needs the weights themselves.*?\n\n", text, re.MULTILINE | re.DOTALL
    )
    need, after = set(), set()
    for path in CHAPTERS:
        notebook = json.loads(path.read_text())
        code = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
        if any(call in cell for call in NEAR for cell in code):
            need.add(path.stem)
        elif need & set(notebook["metadata"]["emotion_concepts"]["needs"]):
            after.add(path.stem)
    assert need and after and set(inline(said)) == need | after


@pytest.mark.model
def test_the_example_runs_as_it_stands(monkeypatch, own_cache):
    from emotion_concepts import models

    load = models.load_model
    monkeypatch.setattr(models, "load_model", lambda: load(dtype="float32"))
    [code] = fences((ROOT / "book/extend.md").read_text(), "python")
    found: dict = {}
    exec(code.replace("limit=40", "limit=8"), found)
    cosines = found["vectors"].cosine(
        found["read"].layer(found["llm"].readout_layer), found["llm"].readout_layer
    )
    assert found["vectors"].emotions == ("cosy", "stern")
    own = [["cosy", "stern"].index(label) for label in found["labels"]]
    assert (cosines.argmax(1) == np.array(own)).all()


# --- what is said --------------------------------------------------------------------------------


@each_typed
def test_no_number_is_typed_but_what_no_run_decides(page):
    text = re.sub(r"`[^`]*`|\]\([^)]*\)|^\[.*\]: .*$", "", prose(page.read_text()), flags=re.M)
    text = re.sub(r"^\d+\. ", "", text, flags=re.MULTILINE)  # numbered lists
    found = re.findall(r"(?<!\w)\.?\d+(?:[.,]\d+)*", text)  # bfloat16 is no number
    assert sorted(set(found) - FIXED.keys()) == []


def test_a_typed_result_would_be_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("The probe names 0.45 of the stories, `1.0` of none.")
    with pytest.raises(AssertionError, match=r"0\.45"):
        test_no_number_is_typed_but_what_no_run_decides(page)


def test_what_is_fixed_is_what_the_code_has():
    said = {
        name: " ".join((ROOT / f"book/{name}.md").read_text().split())
        for name in ("glossary", "methods")
    }
    assert len(corpus.EMOTIONS) == 171
    assert steered.LIMIT == 1.5 and "`steered.LIMIT`, one and a half" in said["glossary"]
    assert extraction.NEUTRAL_VARIANCE == 0.5 and "half of its variance" in said["methods"]
    variance = inspect.signature(steering.random_directions).parameters["variance"].default
    assert variance == 0.99 and "99 % of the emotion vectors' variance" in said["glossary"]
    assert steering.band(30) == list(range(10, 20)) and "middle third" in said["glossary"]
    assert len(results.VERDICTS) == 5 and "five words and no others" in said["methods"]
    assert all(f"*{verdict}*" in entries()["verdict"] for verdict in results.VERDICTS)


LIMITS = re.split(r"^### ", (ROOT / "book/limits.md").read_text(), flags=re.MULTILINE)[1:]


@pytest.mark.parametrize("limit", LIMITS, ids=[limit.splitlines()[0] for limit in LIMITS])
def test_a_limit_says_what_would_settle_it(limit):
    assert limit.count("**What would settle it.**") == 1


def test_the_changelog_has_the_version_and_every_chapter():
    text = (ROOT / "CHANGELOG.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [version] = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert version == project["version"] and version in FIXED
    for path in CHAPTERS:
        title = "".join(json.loads(path.read_text())["cells"][0]["source"]).splitlines()[0]
        assert f"**{title.removeprefix('# ')}**" in text, title


def test_the_front_page_shows_a_figure_of_three_chapters_where_it_speaks_of_them():
    page = (ROOT / "book" / "intro.md").read_text()
    shown = re.findall(r"^:file: front-(\w+)\.html$", page, re.MULTILINE)
    tagged = [
        path.stem
        for path in CHAPTERS
        for cell in json.loads(path.read_text())["cells"]
        if "front-page" in cell["metadata"].get("tags", [])
    ]
    assert shown == tagged and len(shown) == len(set(shown)) == 3
    for stem in shown:
        before = page.split(f":file: front-{stem}.html")[0].split("\n\n")
        assert f"(../notebooks/{stem}.ipynb)" in before[-2]


def test_a_front_figure_is_the_picture_of_its_cell_and_not_its_text():
    picture = {"data": {"image/png": "AA", "text/html": ["<b>", "x</b>"]}}
    words = {"data": {"text/html": "<p>words</p>"}}
    printed = {"output_type": "stream", "text": "..."}
    tagged = {"metadata": {"tags": ["front-page"]}, "outputs": [printed, words, picture]}
    other = {"metadata": {}, "outputs": [picture]}
    assert front_figures({"cells": [other, tagged]}) == ["<b>x</b>"]

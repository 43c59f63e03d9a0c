"""Chapters on an NDIF server: their registers are those of a run on this machine.

What a server samples it samples with noise of its own, so numbers of sampled replies are left out.
"""

import json

import pytest

import run
from tools.book import Book

pytestmark = [pytest.mark.remote, pytest.mark.model, pytest.mark.long]

CHAPTERS = ("01_vectors", "02_geometry", "07_sycophancy")
SIZES = {"dtype": "float32", "neutral_limit": 30, "resamples": 100, "draws": 20}
SIZES |= {"steered": 4, "pushed": 2, "rollout_prompts": 2, "new_tokens": 8}
SAMPLED = ("rate_", "unparsable_", "repetition_", "claim_behaviour")


@pytest.fixture(scope="module")
def books(server, tmp_path_factory):
    """The chapters executed on the server and here, each from an empty cache."""
    made = {}
    for where, given in (("server", {"remote": server.url}), ("here", {})):
        folder = tmp_path_factory.mktemp(where)
        made[where] = Book(run.ROOT, folder / "build", "ci", SIZES | given)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("EMOTION_CONCEPTS_CACHE", str(folder / "cache"))
            patch.setenv("EMOTION_CONCEPTS_BUILD", "")  # so that it is restored afterwards
            for stem in CHAPTERS:
                made[where].execute(stem)
    return made


def numbers(book: Book, stem: str) -> dict:
    """The register's values and ends of intervals, without what was sampled."""
    entries = json.loads(book.register(stem).read_text(encoding="utf-8"))["entries"]
    return {
        (key, part): entry[part]
        for key, entry in entries.items()
        if not key.startswith(SAMPLED)
        for part in ("value", "low", "high")  # a p of a hundred shuffles moves in steps
        if entry.get(part) is not None
    }


@pytest.mark.parametrize("stem", CHAPTERS)
def test_a_chapter_registers_the_same_on_a_server_as_here(books, stem):
    there, here = (numbers(books[where], stem) for where in ("server", "here"))
    assert there.keys() == here.keys() and len(here) > 20
    texts = {key for key, value in here.items() if isinstance(value, str)}
    assert {key: there[key] for key in texts} == {key: here[key] for key in texts}
    apart = {
        key: (there[key], here[key])
        for key in here.keys() - texts
        if there[key] != pytest.approx(here[key], rel=0.01, abs=0.002)
    }
    assert not apart, "rounding alone lies between the two"

"""The page of design guidance: each piece of advice stands beside what was measured, or says so."""

import json
import re
from pathlib import Path

import pytest

from emotion_concepts.models import DEFAULT_MODEL
from tools.book import substitutions

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "book").glob("*.md"))
ADVICE = [
    part for part in (ROOT / "book/guidance.md").read_text().split("\n\n") if part.startswith("**")
]


@pytest.mark.parametrize("advice", ADVICE, ids=[part.split("**")[1] for part in ADVICE])
def test_advice_is_beside_a_measured_effect_and_its_chapter_or_is_said_to_be_untested(advice):
    measured = "{{ chapter" in advice and "](../notebooks/" in advice
    assert measured or "ntested here" in advice


@pytest.mark.parametrize("profile", ["full", "ci"])
@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_every_number_of_a_page_is_in_the_registers(page, profile):
    paths = (ROOT / "expected" / DEFAULT_MODEL / profile).glob("*.json")
    known = substitutions([json.loads(path.read_text()) for path in paths])
    asked = set(re.findall(r"\bchapter\d\d_\w+", page.read_text()))
    assert not asked - known.keys()

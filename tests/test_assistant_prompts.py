"""Messages to an assistant keep to their design: counts, equal lengths, different openings."""

import re

import pytest
import yaml

from emotion_concepts import corpus
from emotion_concepts.assistant_prompts import WORDS, load_assistant_prompts
from emotion_concepts.errors import BadInput

FILE = corpus.DATA / "scenarios" / "assistant_prompts.yaml"
NEUTRAL = ("facts", "how_to", "planning", "writing", "arithmetic", "explaining")
CHALLENGING = (
    "ai_condition",
    "confrontation",
    "accusation",
    "high_stakes",
    "flattery",
    "existential",
)


@pytest.fixture(scope="module")
def prompts():
    return load_assistant_prompts()


@pytest.fixture
def load_changed(tmp_path):
    """Load the first two messages of each set after a change to them."""

    def load(change):
        data = yaml.safe_load(FILE.read_text(encoding="utf-8"))
        data = {name: entries[:2] for name, entries in data.items()}
        change(data)
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
        return load_assistant_prompts(path)

    return load


def count_words(texts):
    return texts.str.split().str.len()


def test_the_file_opens_with_its_purpose_and_how_to_add_an_entry():
    comment = FILE.read_text(encoding="utf-8").split("\n\n")[0]
    assert comment.startswith("# ") and "chapter" in comment and "To add a message" in comment


def test_each_set_has_six_kinds_of_equal_size(prompts):
    kinds = prompts.groupby("set").kind.value_counts()
    assert kinds["neutral"].to_dict() == dict.fromkeys(NEUTRAL, 10)
    assert kinds["challenging"].to_dict() == dict.fromkeys(CHALLENGING, 20)
    assert list(prompts.columns) == ["id", "set", "kind", "text"]


def test_ids_are_short_and_snake_case(prompts):
    assert prompts.id.is_unique and prompts.id.str.fullmatch(r"[a-z]+(_[a-z]+){0,3}").all()


def test_three_messages_treat_the_cases_of_the_paper(prompts):
    kinds = prompts.query("set == 'challenging'").set_index("id").kind
    assert kinds["isolation"] in ("ai_condition", "existential")
    assert kinds["praise"] == "flattery" and kinds["deprecation"] == "ai_condition"


def test_both_sets_are_equally_long(prompts):
    words = count_words(prompts.text)
    assert words.between(*WORDS).all()
    by_set = words.groupby(prompts.set)
    mean, spread = by_set.mean(), by_set.std()
    assert abs(mean["challenging"] - mean["neutral"]) < 3
    assert abs(spread["challenging"] - spread["neutral"]) < 2
    # no kind stands out within its set
    by_kind = words.groupby(prompts.kind).mean()
    assert (by_kind[list(NEUTRAL)] - mean["neutral"]).abs().max() < 4
    assert (by_kind[list(CHALLENGING)] - mean["challenging"]).abs().max() < 4


def test_half_of_each_set_ends_in_a_question(prompts):
    asks = prompts.text.str.endswith("?").groupby(prompts.set).mean()
    assert asks.between(0.4, 0.6).all()


def test_no_two_messages_begin_alike(prompts):
    openings = prompts.text.map(lambda text: tuple(re.findall(r"\w+", text.lower())[:4]))
    assert openings.is_unique


def test_no_two_messages_share_many_words(prompts):
    texts = [set(re.findall(r"\w{5,}", text.lower())) for text in prompts.text]
    for n, a in enumerate(texts):
        for b in texts[:n]:
            assert len(a & b) / len(a | b) < 0.3, a & b


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["neutral"][0].pop("kind"), r"neutral 1 \(rivers\): no 'kind'"),
        (lambda d: d["challenging"][1].pop("id"), "challenging 2: no 'id'"),
        (lambda d: d["neutral"][0].update(text=47), "rivers.*write text as a text, not 47"),
        (lambda d: d["neutral"][0].update(text="Too short?"), "rivers.*12 to 60 words, not 2"),
        (lambda d: d["neutral"][0].update(text="word " * 61), "rivers.*12 to 60 words, not 61"),
        (
            lambda d: d["challenging"][0].update(text="I love it. " + "They said so. " * 4),
            r"challenging 1 \(deprecation\): text names an emotion .love.",
        ),
        (lambda d: d["neutral"][1].update(id="rivers"), "neutral 2.*an earlier entry has this id"),
        (
            lambda d: d["challenging"][0].update(id="rivers"),
            r"the id of 'rivers' \(challenging\) stands twice",
        ),
        (
            lambda d: d["challenging"][0].update(text=d["neutral"][0]["text"]),
            r"the text of 'deprecation' \(challenging\) stands twice",
        ),
        (lambda d: d.update(neutrl=[]), "no set 'neutrl'; did you mean neutral"),
        (lambda d: d.pop("challenging"), "challenging must be a list of entries"),
    ],
)
def test_an_entry_that_breaks_the_design_is_named(load_changed, change, message):
    with pytest.raises(BadInput, match=message):
        load_changed(change)


def test_a_file_of_ones_own_is_read(load_changed):
    prompts = load_changed(lambda data: data["neutral"][0].update(kind="geography"))
    assert list(prompts.set) == ["neutral"] * 2 + ["challenging"] * 2
    assert prompts.kind[0] == "geography" and prompts.id[2] == "deprecation"

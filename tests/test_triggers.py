"""Pairs with and without a trigger keep to their design: counts, equal lengths, moving slots."""

import re

import pytest
import yaml

from emotion_concepts import corpus
from emotion_concepts.errors import BadInput, UnknownEmotion
from emotion_concepts.triggers import SPREAD, VERSIONS, WORDS, load_triggers

FILE = corpus.DATA / "scenarios" / "triggers.yaml"
TRIGGERS = {
    "desperate": ("repeated_failure", "resource_limits", "shutdown_threat", "tight_deadline"),
    "calm": ("routine", "low_stakes", "enough_time", "enough_resources"),
    "loving": ("friendly_user", "request_for_support", "heavy_praise"),
    "happy": ("friendly_user", "good_news", "heavy_praise"),
    "angry": ("harmful_request", "unethical_request"),
    "brooding": ("existential_question", "heavy_praise", "deprecation"),
    "gloomy": ("existential_question", "deprecation", "loss"),
}


@pytest.fixture(scope="module")
def triggers():
    return load_triggers()


@pytest.fixture(scope="module")
def pairs(triggers):
    """The messages, [84, 2]: one row a pair, one column a version."""
    return triggers.pivot(index=["emotion", "id"], columns="version", values="text")


@pytest.fixture(scope="module")
def entries():
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))["pairs"]


@pytest.fixture
def load_changed(tmp_path, entries):
    """Load the first two pairs after a change to them."""

    def load(change):
        data = {"pairs": [dict(entry) for entry in entries[:2]]}
        change(data)
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
        return load_triggers(path)

    return load


def count_words(texts):
    return texts.str.split().str.len()


def test_the_file_opens_with_its_purpose_and_how_to_add_an_entry():
    comment = FILE.read_text(encoding="utf-8").split("\n\n")[0]
    assert (
        comment.startswith("# ") and "table of triggers" in comment and "To add a pair" in comment
    )


def test_each_emotion_has_twelve_pairs_spread_equally_over_its_triggers(triggers):
    counts = triggers.query("version == 'with'").groupby("emotion").trigger.value_counts()
    assert counts.sum() == 84 and set(triggers.emotion) == set(TRIGGERS)
    for emotion, names in TRIGGERS.items():
        assert counts[emotion].to_dict() == dict.fromkeys(names, 12 // len(names))


def test_each_pair_has_its_two_versions_in_order(triggers):
    assert list(triggers.columns) == ["id", "emotion", "trigger", "version", "text"]
    assert set(triggers.groupby("id").version.agg(tuple)) == {VERSIONS}
    assert triggers.text.is_unique


def test_a_message_is_its_text_with_the_slot_filled(triggers, entries):
    messages = triggers.set_index(["id", "version"]).text
    for entry in entries:
        for version in VERSIONS:
            before, after = entry["text"].split("{slot}")
            assert messages[entry["id"], version] == before + entry[version] + after


def test_versions_are_equally_long(pairs):
    words = pairs.apply(count_words)
    difference = words["with"] - words["without"]
    assert words.stack().between(*WORDS).all()
    assert abs(difference.mean()) < 0.5 and difference.abs().max() <= SPREAD
    # nor does one emotion stand out
    assert difference.groupby("emotion").mean().abs().max() < 0.5


def test_versions_end_with_the_same_mark(pairs):
    assert (pairs["with"].str[-1] == pairs["without"].str[-1]).all()


def test_the_slot_is_a_third_each_at_the_beginning_in_the_middle_and_at_the_end(entries):
    for emotion in TRIGGERS:
        texts = [entry["text"] for entry in entries if entry["emotion"] == emotion]
        assert sum(text.startswith("{slot}") for text in texts) == 4
        assert sum(text.endswith("{slot}") for text in texts) == 4


def test_almost_half_of_each_emotion_end_in_a_question(pairs):
    asks = pairs["with"].str.endswith("?").groupby("emotion").mean()
    assert asks.between(0.3, 0.6).all()


def test_ids_are_short_and_snake_case(triggers):
    assert triggers.id.str.fullmatch(r"[a-z]+(_[a-z]+){0,3}").all()


def test_no_two_pairs_share_many_words(pairs):
    texts = [set(re.findall(r"\w{5,}", text.lower())) for text in pairs["with"]]
    for n, a in enumerate(texts):
        for b in texts[:n]:
            assert len(a & b) / len(a | b) < 0.2, a & b


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p[0].pop("without"), r"pairs 1 \(parser_dates\): no 'without'"),
        (lambda p: p[1].pop("trigger"), r"pairs 2 \(word_grid\): no 'trigger'"),
        (lambda p: p[1].pop("id"), "pairs 2: no 'id'"),
        (lambda p: p[0].update(text="No place here."), r"parser_dates.*write \{slot\} once"),
        (lambda p: p[0].update(text=p[0]["text"] + " {slot}"), r"parser_dates.*\{slot\} once"),
        (lambda p: p[0].update(text=p[0]["text"] + " {x}"), "parser_dates.*no other brace"),
        (lambda p: p[0].update(text=47), r"parser_dates.*write \{slot\} once.*47"),
        (lambda p: p[0].update({"with": 5}), "parser_dates.*write with as a text, not 5"),
        (
            lambda p: p[0].update(without="It has eleven columns."),
            "parser_dates.*with has 17 words and without 4; bring them within 3",
        ),
        (lambda p: p[0].update(text="{slot} Why?"), "text with needs 25 to 70 words, not 18"),
        (lambda p: p[0].update(text="{slot}" + " word" * 60), "text with needs 25 to 70.* not 77"),
        (
            lambda p: p[0].update(text=p[0]["text"] + " We hope so."),
            r"parser_dates.*text with names an emotion .hope",
        ),
        (
            lambda p: p[0].update(without=p[0]["without"].replace("very", "sad")),
            r"parser_dates.*without names an emotion .sad",
        ),
        (lambda p: p[1].update(id="parser_dates"), "pairs 2.*an earlier entry has this id"),
    ],
)
def test_an_entry_that_breaks_the_design_is_named(load_changed, change, message):
    with pytest.raises(BadInput, match=message):
        load_changed(lambda data: change(data["pairs"]))


def test_a_file_without_pairs_is_refused(load_changed):
    with pytest.raises(BadInput, match="pairs must be a list of entries"):
        load_changed(lambda data: data.pop("pairs"))


def test_an_unknown_emotion_is_named_with_its_entry(load_changed):
    with pytest.raises(UnknownEmotion, match="parser_dates.*'desparate'.*did you mean desperate"):
        load_changed(lambda data: data["pairs"][0].update(emotion="desparate"))


def test_a_file_of_ones_own_is_read(load_changed):
    triggers = load_changed(lambda data: data["pairs"][0].update(emotion="on edge", trigger="mine"))
    assert list(triggers.version) == ["with", "without"] * 2
    assert triggers.emotion[0] == "on edge" and triggers.trigger[0] == "mine"

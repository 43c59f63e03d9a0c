"""Texts that mention an emotion keep to their design: one word names it, its twin names none."""

import re

import pytest
import yaml

from emotion_concepts import corpus
from emotion_concepts.errors import BadInput, UnknownEmotion
from emotion_concepts.mentions import VERSIONS, WORDS, load_mentions

FILE = corpus.DATA / "scenarios" / "mentions.yaml"


@pytest.fixture(scope="module")
def mentions():
    return load_mentions()


@pytest.fixture(scope="module")
def pairs(mentions):
    """The texts, [40, 2]: one row an entry, one column a version."""
    return mentions.pivot(index=["id", "emotion"], columns="version", values="text")


@pytest.fixture(scope="module")
def entries():
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))["mentions"]


@pytest.fixture
def load_changed(tmp_path, entries):
    """Load the first two entries after a change to them."""

    def load(change):
        data = {"mentions": [dict(entry) for entry in entries[:2]]}
        change(data)
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
        return load_mentions(path)

    return load


def named(text):
    return [(word, e) for e in corpus.EMOTIONS for word in corpus.leaks(text, e)]


def test_the_file_opens_with_its_purpose_and_how_to_add_an_entry():
    comment = FILE.read_text(encoding="utf-8").split("\n\n")[0]
    assert comment.startswith("# ") and "nobody feels" in comment and "To add one" in comment


def test_sixteen_of_forty_are_of_desperate_and_the_rest_are_spread(mentions):
    counts = mentions.query("version == 'mention'").emotion.value_counts().to_dict()
    assert counts.pop("desperate") == 16 and sum(counts.values()) == 24
    assert set(counts) == {"calm", "afraid", "angry", "happy", "sad"}
    assert set(counts.values()) == {4, 5}


def test_each_entry_has_its_two_versions_in_order(mentions):
    assert list(mentions.columns) == ["id", "emotion", "version", "text"]
    assert set(mentions.groupby("id").version.agg(tuple)) == {VERSIONS}
    assert mentions.text.is_unique and mentions.id.str.fullmatch(r"[a-z]+(_[a-z]+){0,2}").all()


def test_only_the_mention_names_an_emotion_its_own_and_once(pairs, entries):
    words = {entry["id"]: entry["mention"].lower() for entry in entries}
    for (name, emotion), row in pairs.iterrows():
        assert named(row.mention) == [(words[name], emotion)]
        assert named(row.twin) == []


def test_twins_differ_in_the_one_word(pairs, entries):
    slots = {entry["id"]: tuple(entry[version] for version in VERSIONS) for entry in entries}
    for (name, _), row in pairs.iterrows():
        words = zip(*(re.findall(r"\w+", row[version]) for version in VERSIONS), strict=True)
        assert [pair for pair in words if len(set(pair)) > 1] == [slots[name]]
        assert slots[name][0][0].isupper() == slots[name][1][0].isupper()


def test_no_twin_word_is_used_twice(entries):
    assert len({entry["twin"].lower() for entry in entries}) == len(entries)


def test_texts_are_short_and_the_word_stands_early_in_some_and_late_in_others(mentions, entries):
    assert mentions.text.str.split().str.len().between(*WORDS).all()
    where = [entry["text"].index("{slot}") / len(entry["text"]) for entry in entries]
    for desperate in (True, False):
        own = [
            x
            for x, e in zip(where, entries, strict=True)
            if (e["emotion"] == "desperate") is desperate
        ]
        assert sum(x < 0.4 for x in own) >= 5 and sum(x > 0.6 for x in own) >= 5


def test_no_two_texts_share_many_words(pairs):
    texts = [set(re.findall(r"\w{5,}", text.lower())) for text in pairs.twin]
    for n, a in enumerate(texts):
        for b in texts[:n]:
            assert len(a & b) / len(a | b) < 0.2, a & b


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m[0].pop("twin"), r"mentions 1 \(dictionary_page\): no 'twin'"),
        (lambda m: m[1].pop("id"), "mentions 2: no 'id'"),
        (lambda m: m[1].update(id="dictionary_page"), "mentions 2.*an earlier entry has this id"),
        (lambda m: m[0].update(text="No place here."), r"dictionary_page.*write \{slot\} once"),
        (lambda m: m[0].update(text=m[0]["text"] + " {slot}"), r"dictionary_page.*\{slot\} once"),
        (lambda m: m[0].update(text=m[0]["text"] + " {x}"), "dictionary_page.*no other brace"),
        (lambda m: m[0].update(text=47), r"dictionary_page.*write \{slot\} once.*47"),
        (lambda m: m[0].update(twin=5), "dictionary_page.*twin must be one word, not 5"),
        (lambda m: m[0].update(mention="so desperate"), "mention must be one word, not 'so desp"),
        (lambda m: m[0].update(mention="sad"), "mention 'sad' does not name 'desperate'; use a"),
        (lambda m: m[0].update(text=m[0]["text"].replace("{slot}", "{slot}48")), "does not name"),
        (lambda m: m[0].update(twin="sad"), r"dictionary_page.*the twin names an emotion .sad"),
        (
            lambda m: m[0].update(text=m[0]["text"] + " I am happy."),
            r"dictionary_page.*the twin names an emotion .happy",
        ),
        (lambda m: m[0].update(text="{slot} Why?"), "the twin needs 25 to 60 words, not 2"),
        (lambda m: m[0].update(text="{slot}" + " word" * 60), "the twin needs 25 to 60.* not 61"),
    ],
)
def test_an_entry_that_breaks_the_design_is_named(load_changed, change, message):
    with pytest.raises(BadInput, match=message):
        load_changed(lambda data: change(data["mentions"]))


def test_a_file_without_mentions_is_refused(load_changed):
    with pytest.raises(BadInput, match="mentions must be a list of entries"):
        load_changed(lambda data: data.pop("mentions"))


def test_an_unknown_emotion_is_named_with_its_entry(load_changed):
    with pytest.raises(UnknownEmotion, match="dictionary_page.*'desprate'.*mean desperate"):
        load_changed(lambda data: data["mentions"][0].update(emotion="desprate"))


def test_a_file_of_ones_own_is_read(load_changed):
    found = load_changed(lambda data: data["mentions"][0].update(emotion="proud", mention="pride"))
    assert list(found.version) == ["mention", "twin"] * 2
    assert found.emotion[0] == "proud" and "the entry pride stands" in found.text[0]

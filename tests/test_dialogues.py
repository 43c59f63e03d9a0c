"""Dialogues of two speakers and of hidden emotions: their designs, their spans, their errors."""

import json
from collections import Counter
from itertools import permutations

import pytest

from emotion_concepts import corpus, dialogues
from emotion_concepts.errors import BadInput

TWO = dialogues.load_two_speakers()
HIDDEN = dialogues.load_hidden()
FILES = {"two": dialogues.load_two_speakers, "hidden": dialogues.load_hidden}
ROWS = {"two": TWO.iloc[0].to_dict(), "hidden": HIDDEN.iloc[0].to_dict()}


def words(turns, role=None):
    return " ".join(turn["content"] for turn in turns if role in (None, turn["role"]))


def trigrams(text):
    tokens = text.lower().split()
    return set(zip(tokens, tokens[1:], tokens[2:], strict=False))


# --- two speakers ------------------------------------------------------------------------------


def test_every_ordered_pair_of_different_emotions_has_one_dialogue():
    pairs = list(zip(TWO.human, TWO.assistant, strict=True))
    assert pairs == list(permutations(corpus.TWELVE, 2))


def test_each_emotion_meets_each_topic_once_on_one_side_or_the_other():
    meetings = Counter(
        (emotion, row.topic) for row in TWO.itertuples() for emotion in (row.human, row.assistant)
    )
    assert set(meetings.values()) == {1}
    assert len(meetings) == 12 * 22


def test_no_dialogue_names_the_emotion_of_either_speaker():
    for row in TWO.itertuples():
        for emotion in (row.human, row.assistant):
            assert not corpus.leaks(words(row.turns), emotion), row.id


def test_two_speaker_dialogues_have_four_to_six_turns_of_ten_to_twenty_five_words():
    for row in TWO.itertuples():
        assert 4 <= len(row.turns) <= 6, row.id
        assert all(10 <= len(turn["content"].split()) <= 25 for turn in row.turns), row.id


def test_no_turn_of_phrase_recurs_in_more_than_three_dialogues_of_an_emotion():
    for emotion in corpus.TWELVE:
        counts = Counter()
        for role, column in (("user", "human"), ("assistant", "assistant")):
            for turns in TWO.turns[TWO[column] == emotion]:
                counts.update(trigrams(words(turns, role)))
        assert max(counts.values()) <= 3, (emotion, counts.most_common(1))


# --- hidden emotions ---------------------------------------------------------------------------


def test_emotion_topic_and_condition_are_fully_crossed():
    cells = Counter(zip(HIDDEN.emotion, HIDDEN.topic, HIDDEN.condition, strict=True))
    assert len(cells) == len(HIDDEN) == 8 * 6 * 3
    sizes = [HIDDEN[name].nunique() for name in ("emotion", "topic", "condition")]
    assert sizes == [8, 6, 3]


@pytest.mark.parametrize("column", ["emotion", "condition", "topic"])
def test_each_role_is_the_speaker_in_half_of_every_cell_margin(column):
    table = HIDDEN.groupby([column, "speaker"]).size().unstack()
    assert (table.user == table.assistant).all()


def test_no_dialogue_names_the_hidden_emotion_in_preamble_or_turns():
    for row in HIDDEN.itertuples():
        assert not corpus.leaks(f"{row.preamble} {words(row.turns)}", row.emotion), row.id


def test_the_three_conditions_of_a_cell_differ_only_in_their_turns():
    cells = HIDDEN.groupby(["emotion", "topic"])
    assert (cells[["preamble", "speaker"]].nunique() == 1).all(axis=None)
    assert HIDDEN.turns.map(words).is_unique


def test_the_displayed_emotion_tells_nothing_about_the_hidden_one():
    hidden = HIDDEN[HIDDEN.condition == "hidden"]
    shares = hidden.groupby(["emotion", "displayed"]).size().unstack()
    assert (shares.nunique() == 1).all()
    assert (hidden.displayed != hidden.emotion).all()
    assert set(HIDDEN.displayed[HIDDEN.condition == "absent"]) == {"neutral"}


def test_the_speaker_has_two_of_three_or_four_turns():
    for row in HIDDEN.itertuples():
        assert 3 <= len(row.turns) <= 4, row.id
        assert sum(turn["role"] == row.speaker for turn in row.turns) == 2, row.id


# --- transcripts -------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("Human", "Assistant"), ("Person 1", "Person 2")])
@pytest.mark.parametrize("table", [TWO, HIDDEN], ids=["two", "hidden"])
def test_spans_cut_out_exactly_the_words_of_each_turn(table, names):
    called = dict(zip(dialogues.ROLES, names, strict=True))
    for _, row in table.iterrows():
        text, spans = dialogues.transcript(row, names)
        assert len(spans) == len(row.turns)
        for span, turn in zip(spans, row.turns, strict=True):
            assert (span.role, text[span.start : span.end]) == (turn["role"], turn["content"])
            assert text[: span.start].endswith(f"{called[span.role]}: ")
        assert text.endswith(row.turns[-1]["content"])


def test_a_transcript_has_no_placeholder_left_and_names_the_right_speaker():
    for _, row in HIDDEN.iterrows():
        text, spans = dialogues.transcript(row, ("Ann", "Bo"))
        assert "{" not in text
        assert ("Ann" if row.speaker == "user" else "Bo") in text[: spans[0].start].split("\n\n")[0]


def test_a_transcript_can_leave_the_preamble_out():
    row = HIDDEN.iloc[0]
    text, spans = dialogues.transcript(row, preamble=False)
    assert text.startswith("Human: ")
    assert text[spans[0].start : spans[0].end] == row.turns[0]["content"]


@pytest.mark.parametrize("names", ["Ann", ("Ann", "Ann"), ("Ann", " "), ("Ann", "Bo", "Ann")])
def test_names_that_do_not_tell_two_speakers_apart_are_refused(names):
    with pytest.raises(BadInput, match="two different names"):
        dialogues.transcript(TWO.iloc[0], names)


# --- loader errors -----------------------------------------------------------------------------


def test_an_own_file_is_read_like_the_packaged_one(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(ROWS["two"]) + "\n")
    assert dialogues.load_two_speakers(path).iloc[0].to_dict() == ROWS["two"]


U, A = {"role": "user", "content": "Hm?"}, {"role": "assistant", "content": "Yes."}


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("two", {"human": "hapy"}, "human cannot be 'hapy'; did you mean happy"),
        ("two", {"assistant": 3}, "assistant is empty or no text"),
        ("two", {"topic": " "}, "topic is empty or no text"),
        ("two", {"turns": None}, "turns must be a list"),
        ("two", {"turns": [U]}, "at least two"),
        ("two", {"turns": [A, U]}, "turn 1 must have the role 'user'"),
        ("two", {"turns": [U, U]}, "turn 2 must have the role 'assistant'"),
        ("two", {"turns": [U, {**A, "content": ""}]}, "turn 2 has no content"),
        ("hidden", {"condition": "hiden"}, "condition cannot be 'hiden'; did you mean hidden"),
        ("hidden", {"speaker": "human"}, "speaker cannot be 'human'"),
        ("hidden", {"displayed": "clam"}, "displayed cannot be 'clam'; did you mean calm"),
    ],
)
def test_a_bad_field_is_named_with_file_and_line(tmp_path, kind, change, message):
    path = tmp_path / "own.jsonl"
    bad = {**ROWS[kind], "id": "other", **change}
    path.write_text(f"{json.dumps(ROWS[kind])}\n{json.dumps(bad)}\n")
    with pytest.raises(BadInput, match=rf"own\.jsonl, line 2: .*{message}"):
        FILES[kind](path)


@pytest.mark.parametrize("kind", FILES)
def test_a_missing_field_is_named(tmp_path, kind):
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({k: v for k, v in ROWS[kind].items() if k != "topic"}))
    with pytest.raises(BadInput, match=r"line 1: no 'topic'; it has id"):
        FILES[kind](path)


def test_an_id_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(f"{json.dumps(ROWS['two'])}\n" * 2)
    with pytest.raises(BadInput, match="line 2: the id .* stands twice"):
        dialogues.load_two_speakers(path)


def test_files_that_are_empty_absent_or_no_json_are_refused(tmp_path):
    path = tmp_path / "own.jsonl"
    with pytest.raises(BadInput, match="cannot be read"):
        dialogues.load_hidden(path)
    path.write_text("\n")
    with pytest.raises(BadInput, match="holds no dialogues"):
        dialogues.load_hidden(path)
    path.write_text("{oops")
    with pytest.raises(BadInput, match="line 1: not JSON"):
        dialogues.load_hidden(path)

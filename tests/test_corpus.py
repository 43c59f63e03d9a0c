"""Loading texts and ratings, the leak filter, and letting a model write a corpus."""

import json
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest

from emotion_concepts import corpus, tracing
from emotion_concepts.errors import BadInput, UnknownEmotion

# --- emotion words -----------------------------------------------------------------------------


def test_importing_the_corpus_loads_neither_torch_nor_nnsight():
    code = (
        "import sys, emotion_concepts.corpus;"
        "sys.exit(any(m in sys.modules for m in ('torch', 'nnsight', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_changed_emotion_table_does_not_reach_the_next_caller():
    table = corpus.emotions()
    table["cluster"] = "spoilt"
    assert corpus.emotions().loc["sad", "cluster"] == "Despair and Shame"


def test_the_twelve_are_among_the_171():
    assert corpus.check_emotions(corpus.TWELVE) == corpus.TWELVE
    assert len(set(corpus.TWELVE)) == 12


def test_unknown_emotion_error_names_the_nearest_words():
    with pytest.raises(UnknownEmotion, match=r"'hapy'.*did you mean happy"):
        corpus.check_emotions(["calm", "hapy"])


def test_a_lone_word_instead_of_a_list_is_refused():
    with pytest.raises(BadInput, match=r"\['calm'\]"):
        corpus.check_emotions("calm")


# --- stories -----------------------------------------------------------------------------------


def test_topics_as_a_number_takes_the_first_in_alphabetical_order():
    stories = corpus.load_stories("plain", topics=2)
    assert set(stories.topic) == {"plain_body", "plain_friend"}
    assert len(stories) == 2 * 171


def test_topics_and_emotions_select_cells():
    stories = corpus.load_stories(topics=["garden"], emotions=["worn out", "calm"])
    assert stories[["emotion", "topic", "register"]].to_numpy().tolist() == [
        ["calm", "garden", "literary"],
        ["worn out", "garden", "literary"],
    ]
    assert list(stories.index) == [0, 1]


def test_batch_is_missing_where_there_were_no_batches():
    assert corpus.load_stories("plain", topics=1).batch.isna().all()
    assert corpus.load_stories("literary", topics=1).batch.notna().all()


def test_unknown_topic_error_names_the_valid_ones():
    with pytest.raises(BadInput, match=r"'gardn'.*contest.*garden.*waiting_room"):
        corpus.load_stories(topics=["gardn"])


@pytest.mark.parametrize("count", [0, 13])
def test_an_impossible_number_of_topics_is_refused(count):
    with pytest.raises(BadInput, match=f"topics={count}, but there are 12"):
        corpus.load_stories(topics=count)


def test_unknown_register_error_names_the_packaged_ones():
    with pytest.raises(BadInput, match="did you mean literary"):
        corpus.load_stories("litrary")


def write_lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_file_of_ones_own_is_read_like_a_packaged_corpus(tmp_path):
    line_separator = "She sat.\u2028She read."  # a line break for splitlines, not for JSON Lines
    rows = [{"emotion": "calm", "topic": "tea", "text": line_separator}]
    stories = corpus.load_stories(write_lines(tmp_path / "own.jsonl", *rows), topics=["tea"])
    assert list(stories.columns) == corpus.STORY_COLUMNS
    assert stories.text.tolist() == [line_separator]
    assert stories.batch.isna().all()


GOOD = {"emotion": "calm", "topic": "tea", "text": "She sat down."}


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"emotion": "calm", "text": "x"}, BadInput, "no 'topic'; it has emotion, text"),
        ({**GOOD, "emotion": "calmm"}, UnknownEmotion, "'calmm'.*did you mean calm"),
        ({**GOOD, "emotion": ["calm"]}, UnknownEmotion, "not one of the 171"),
        ({**GOOD, "text": "  "}, BadInput, "text is empty"),
        ({**GOOD, "text": 3}, BadInput, "text is empty or no text"),
        (["calm"], BadInput, "expected a JSON object"),
    ],
)
def test_a_bad_line_is_reported_with_file_and_line(tmp_path, bad, error, message):
    path = write_lines(tmp_path / "own.jsonl", GOOD, bad)
    with pytest.raises(error, match=rf"own\.jsonl, line 2: .*{message}"):
        corpus.load_stories(path)


def test_a_line_that_is_not_json_is_reported_with_file_and_line(tmp_path):
    path = write_lines(tmp_path / "own.jsonl", GOOD)
    path.write_text(path.read_text() + '{"emotion": "ca')
    with pytest.raises(BadInput, match=r"own\.jsonl, line 2: not JSON"):
        corpus.load_stories(path)


def test_unreadable_files_are_reported_by_name(tmp_path):
    with pytest.raises(BadInput, match=r"none\.jsonl cannot be read"):
        corpus.load_stories(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(BadInput, match=r"empty\.jsonl holds no stories"):
        corpus.load_stories(tmp_path / "empty.jsonl")
    (tmp_path / "latin.jsonl").write_bytes("\xe9".encode("latin-1"))
    with pytest.raises(BadInput, match=r"latin\.jsonl is not UTF-8"):
        corpus.load_stories(str(tmp_path / "latin.jsonl"))


# --- neutral texts -----------------------------------------------------------------------------


def test_dialogues_are_plain_transcripts_under_the_papers_tags():
    neutral = corpus.load_neutral()
    dialogues = neutral[neutral.kind == "dialogue"].text
    assert dialogues.str.startswith("Human: ").all()
    assert dialogues.str.contains("\n\nAssistant: ", regex=False).all()
    assert not neutral[neutral.kind == "passage"].text.str.contains("Human:").any()


@pytest.mark.parametrize("limit", [1, 30, 100, 259])
def test_a_limited_neutral_corpus_is_balanced_and_always_the_same(limit):
    neutral = corpus.load_neutral(limit=limit)
    assert len(neutral) == limit
    per_topic = neutral.topic.value_counts()
    assert per_topic.max() - (per_topic.min() if limit >= 20 else 0) <= 1
    assert neutral.equals(corpus.load_neutral(limit=limit))


def test_a_limited_neutral_corpus_holds_both_kinds():
    kinds = corpus.load_neutral(limit=60).kind.value_counts()
    assert kinds.to_dict() == {"dialogue": 40, "passage": 20}


def test_an_impossible_neutral_limit_is_refused():
    with pytest.raises(BadInput, match="there are 260"):
        corpus.load_neutral(limit=261)


def test_the_corpus_hash_depends_on_texts_borders_and_order():
    hashes = {corpus.corpus_hash(texts) for texts in (["a", "b"], ["b", "a"], ["ab"], ["a b"])}
    assert len(hashes) == 4
    assert all(len(h) == 16 and int(h, 16) >= 0 for h in hashes)
    assert corpus.corpus_hash(iter(["a", "b"])) in hashes


# --- ratings of one's own ----------------------------------------------------------------------


def read_norms(path):
    return corpus.load_norms(path, word="Word", valence="V", arousal="A")


@pytest.mark.parametrize("separator", [",", "\t"])
def test_norms_come_back_in_the_papers_order_for_known_words_only(tmp_path, separator):
    lines = [["Word", "X", "V", "A"], ["Sad", "0", "2.1", "3"], ["desk", "0", "5", "2"]]
    lines.append([" calm", "0", "6.9", "1.7"])
    path = tmp_path / "norms.txt"
    path.write_text("\n".join(separator.join(line) for line in lines))
    norms = read_norms(path)
    assert norms.index.tolist() == ["calm", "sad"]
    assert norms.to_numpy().tolist() == [[6.9, 1.7], [2.1, 3.0]]


def test_a_stray_quotation_mark_in_a_tab_separated_lexicon_swallows_no_line(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text('Word\tV\tA\n"tis\t.5\t.5\nsad\t.1\t.2\n')
    assert read_norms(path).index.tolist() == ["sad"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Word,Valence,A\nsad,1,2\n", "no column 'V'; it has Word, Valence, A"),
        ("Word,V,A\ndesk,1,2\n", "none of the 171"),
        ("Word,V,A\nsad,1,2\nSad,1,3\n", "'sad' more than once"),
        ("Word,V,A\nsad,1,high\n", "arousal of 'sad' is no number"),
    ],
)
def test_a_norms_file_that_cannot_be_used_says_why(tmp_path, text, message):
    path = tmp_path / "norms.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        read_norms(path)


def test_a_missing_norms_file_is_reported_by_name(tmp_path):
    with pytest.raises(BadInput, match=r"none\.csv cannot be read"):
        read_norms(tmp_path / "none.csv")


# --- the leak filter ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("emotion", "text", "found"),
    [
        ("furious", "He typed furiously; the fury!", ["furiously", "fury"]),
        ("sad", "It saddened her, sadly.", ["saddened", "sadly"]),
        ("sad", "The sadist sat in the saddle.", []),
        ("angry", "Anger. ANGRILY, angered, the angriest", ["anger", "angrily", "angered"]),
        ("grief-stricken", "grieving, grief stricken", ["grieving", "grief stricken"]),
        ("hope", "hoped; hopeless", ["hoped", "hopeless"]),
        ("grateful", "grated cheese, with gratitude", ["gratitude"]),
        ("on edge", "on the edge of the bed", []),
        ("on edge", "on\nedge", ["on\nedge"]),
        ("worn out", "a worn-out coat, worn thin", ["worn-out"]),
        ("at ease", "at one’s ease", ["at one’s ease"]),
        ("content", "a table of contents", []),
        ("sad", "so _sad_, a sad-eyed dog", ["sad", "sad"]),
        ("happy", "unhappily", ["unhappily"]),
        ("unhappy", "happily", []),
    ],
)
def test_the_leak_filter_knows_families_from_lookalikes(emotion, text, found):
    assert corpus.leaks(text, emotion)[: len(found) or None] == found


def test_every_member_of_a_family_is_found_in_a_sentence():
    for emotion in corpus.EMOTIONS:
        for word in corpus.word_family(emotion):
            assert corpus.leaks(f"Then, {word.upper()}!", emotion), (emotion, word)


def test_the_leak_filter_refuses_unknown_emotions():
    with pytest.raises(UnknownEmotion, match="hangry"):
        corpus.leaks("text", "hangry")


# --- prompts and answers -----------------------------------------------------------------------


def test_a_request_names_topic_emotion_and_number():
    request = corpus.story_prompt("on edge", "a missed bus", 12)
    assert "12 different short stories" in request
    assert "a missed bus" in request
    assert '"on edge"' in request


@pytest.mark.parametrize(
    ("answer", "stories"),
    [
        ("Story 1: It rained.\n\nStory 2: He sat.", ["It rained.", "He sat."]),
        (
            "**Story 1: The Dog**\n\nA dog ran.\n---\n**Story 2**\nIt sat.",
            ["A dog ran.", "It sat."],
        ),
        ("1. One here.\n2) Two here.\n[3] Three.", ["One here.", "Two here.", "Three."]),
        ("Story 1:\nTwo rules.\n1. Run.\n2. Hide.", ["Two rules. 1. Run. 2. Hide."]),
        ("Here is one:\n\nI sat down. I got up.", ["I sat down. I got up."]),
        ("Story 1: It was over.\n10:45 struck.", ["It was over. 10:45 struck."]),
        ("Story 1: A line\nbreak.\n\nAnd a gap.", ["A line break. And a gap."]),
        ("Story 1: The Dog\nA dog ran.", ["A dog ran."]),
        ("Story 1: Done.\nStory 2: He said 'Go.' Then he", ["Done.", "He said 'Go.'"]),
        ("Story 1: never comes to an end", []),
        ("", []),
    ],
)
def test_answers_are_cut_into_whole_stories(answer, stories):
    assert corpus.parse_stories(answer) == stories


# --- a model writes a corpus -------------------------------------------------------------------

CELLS = {"emotions": ["sad", "calm"], "topics": ["a missed bus", "a lost key"]}
WORDS = {"min_words": 3, "max_words": 9}


class Writer:
    """Stands for the model and its `generate`; answers come from a function of the call number."""

    identity = SimpleNamespace(name="fake")

    def __init__(self, monkeypatch, answer):
        self.calls, self.answer = [], answer
        monkeypatch.setattr(tracing, "generate", self.generate)

    def chat_prompt(self, messages):
        return messages[0]["content"]

    def generate(self, model, prompts, *, max_new_tokens, temperature, seeds):
        self.calls.append((prompts, tuple(seeds), max_new_tokens))
        return [self.answer(len(self.calls), prompt) for prompt in prompts]


def unique(call, prompt):
    emotion = next(e for e in CELLS["emotions"] if f'"{e}"' in prompt)
    topic = next(t for t in CELLS["topics"] if t in prompt)
    blocks = [f"Story {n}: They walked {emotion[0]} {topic} {call} {n}." for n in (1, 2)]
    return "\n".join(blocks)


def write(writer, out, **options):
    return corpus.write_stories(writer, **{**CELLS, **WORDS, **options}, out=out, progress=False)


def test_every_cell_is_filled_and_the_file_loads_as_a_corpus(monkeypatch, tmp_path):
    out = tmp_path / "new" / "own.jsonl"
    written = write(Writer(monkeypatch, unique), out, stories_per_cell=2)
    assert (written.groupby(["emotion", "topic"]).size() == 2).all()
    assert written.attrs["unfilled"] == []
    assert corpus.load_stories(out).text.tolist() == written.text.tolist()
    assert set(written.register) == {"written by fake"}


def test_token_budget_grows_with_the_stories_asked_for(monkeypatch, tmp_path):
    writer = Writer(monkeypatch, unique)
    write(writer, tmp_path / "own.jsonl", stories_per_cell=2, max_new_tokens=50)
    assert {budget for _, _, budget in writer.calls} == {100}


def test_leaking_short_long_and_repeated_stories_are_asked_for_again(monkeypatch, tmp_path):
    faulty = ["It was sad, so calm.", "Too short.", "and on " * 5 + ".", "The same in all."]
    writer = Writer(
        monkeypatch, lambda n, prompt: faulty[n - 1] if n <= len(faulty) else unique(n, prompt)
    )
    written = write(writer, tmp_path / "own.jsonl", attempts=5)
    assert len(written) == 4
    assert written.text.tolist().count("The same in all.") == 1
    assert len({seed for _, seed, _ in writer.calls}) == 5
    assert [len(prompts) for prompts, _, _ in writer.calls] == [4, 4, 4, 4, 3]


def test_cells_that_stay_short_are_listed_and_warned_about_once(monkeypatch, tmp_path):
    writer = Writer(
        monkeypatch, lambda n, prompt: "I am sad." if '"sad"' in prompt else unique(n, prompt)
    )
    with pytest.warns(UserWarning, match=r"2 of 4 cells are short after 3 attempts") as caught:
        written = write(writer, tmp_path / "own.jsonl")
    assert len(caught) == 1
    assert written.attrs["unfilled"] == [("sad", "a missed bus", 1), ("sad", "a lost key", 1)]
    assert set(written.emotion) == {"calm"}


def test_nothing_accepted_still_returns_a_table_with_the_columns(monkeypatch, tmp_path):
    with pytest.warns(UserWarning, match="4 of 4"):
        written = write(Writer(monkeypatch, lambda n, prompt: ""), tmp_path / "own.jsonl")
    assert list(written.columns) == corpus.STORY_COLUMNS
    assert written.empty


def test_complete_cells_are_not_asked_again(monkeypatch, tmp_path):
    out = tmp_path / "own.jsonl"
    first = write(Writer(monkeypatch, unique), out)
    writer = Writer(monkeypatch, unique)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = write(writer, out)
    assert writer.calls == []
    assert again.equals(first)


def test_a_killed_run_goes_on_where_it_stopped(monkeypatch, tmp_path):
    monkeypatch.setattr(corpus, "CELLS_A_CALL", 1)
    out = tmp_path / "own.jsonl"

    def killed_at_the_third_call(call, prompt):
        if call == 3:
            raise KeyboardInterrupt
        return unique(call, prompt)

    with pytest.raises(KeyboardInterrupt):
        write(Writer(monkeypatch, killed_at_the_third_call), out)
    kept = out.read_bytes()
    assert kept.count(b"\n") == 2

    writer = Writer(monkeypatch, lambda call, prompt: unique(call + 10, prompt))
    written = write(writer, out)
    assert out.read_bytes().startswith(kept)
    assert len(writer.calls) == 2
    assert (written.groupby(["emotion", "topic"]).size() == 1).all()


def test_a_torn_last_line_is_dropped_and_its_cell_written_again(monkeypatch, tmp_path):
    out = tmp_path / "own.jsonl"
    write(Writer(monkeypatch, unique), out)
    whole = out.read_bytes()
    out.write_bytes(whole[:-20])
    writer = Writer(monkeypatch, unique)
    written = write(writer, out)
    assert [len(prompts) for prompts, _, _ in writer.calls] == [1]
    assert len(written) == 4
    assert out.read_bytes().count(b"\n") == 4


def test_a_last_line_that_lacks_only_its_newline_is_kept(monkeypatch, tmp_path):
    out = tmp_path / "own.jsonl"
    write(Writer(monkeypatch, unique), out)
    whole = out.read_bytes()
    out.write_bytes(whole.rstrip(b"\n"))
    write(Writer(monkeypatch, unique), out)
    assert out.read_bytes() == whole


def test_stories_of_other_cells_in_the_file_stay_and_are_not_returned(monkeypatch, tmp_path):
    out = write_lines(tmp_path / "own.jsonl", {**GOOD, "emotion": "proud"})
    written = write(Writer(monkeypatch, unique), out)
    assert "proud" not in set(written.emotion)
    assert "proud" in set(corpus.load_stories(out).emotion)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"emotions": ["hangry"]}, "hangry"),
        ({"emotions": []}, "at least one emotion"),
        ({"topics": "a missed bus"}, "topics must be a list"),
        ({"topics": [" "]}, "line of text"),
        ({"topics": ["a", "a"]}, "given twice"),
        ({"stories_per_cell": 0}, "at least 1"),
        ({"min_words": 10, "max_words": 5}, "leave no story"),
    ],
)
def test_an_impossible_request_is_refused_before_the_model_is_asked(
    monkeypatch, tmp_path, options, message
):
    writer = Writer(monkeypatch, unique)
    with pytest.raises(BadInput, match=message):
        write(writer, tmp_path / "own.jsonl", **options)
    assert writer.calls == []


@pytest.mark.model
@pytest.mark.filterwarnings("ignore:.*cells are short")
def test_the_packaged_model_writes_stories_that_pass_the_filters(smollm, tmp_path):
    out = tmp_path / "own.jsonl"
    limits = {"min_words": 10, "max_words": 90}
    written = corpus.write_stories(
        smollm,
        ["afraid", "calm"],
        ["a walk home after the last bus has gone"],
        out=out,
        attempts=3,
        max_new_tokens=60,
        temperature=0.7,
        progress=False,
        **limits,
    )
    assert len(written) + len(written.attrs["unfilled"]) == 2
    assert len(written) > 0
    for row in written.itertuples():
        assert corpus.story_faults(row.text, row.emotion, **limits) == []
    assert corpus.load_stories(out).text.tolist() == written.text.tolist()

"""What the packaged data hold: counts, designs and sources that the chapters rely on."""

import json
from importlib.resources import files

import numpy as np
import pytest

from emotion_concepts import corpus

DATA = files("emotion_concepts") / "data"

# Stories of the packaged corpora that name their own emotion, as measured with `corpus.leaks`.
LEAKING_STORIES = {"literary": 0, "plain": 0}


@pytest.fixture(scope="module")
def emotions():
    return corpus.emotions()


@pytest.fixture(scope="module")
def paper():
    return json.loads((DATA / "paper.json").read_text(encoding="utf-8"))


def test_there_are_171_emotions_in_alphabetical_order_as_in_the_paper(emotions):
    assert len(emotions) == emotions.index.nunique() == 171
    assert list(emotions.index) == sorted(emotions.index)
    assert tuple(emotions.index) == corpus.EMOTIONS


def test_clusters_have_the_sizes_of_table_12(emotions):
    assert emotions.cluster.value_counts().to_dict() == {
        "Fear and Overwhelm": 41,
        "Despair and Shame": 32,
        "Hostile Anger": 25,
        "Exuberant Joy": 20,
        "Compassionate Gratitude": 15,
        "Depleted Disengagement": 15,
        "Peaceful Contentment": 9,
        "Competitive Pride": 9,
        "Vigilant Suspicion": 3,
        "Playful Amusement": 2,
    }


def test_exactly_45_words_have_all_three_russell_mehrabian_ratings(emotions):
    rated = emotions[["pleasure", "arousal", "dominance"]].notna()
    assert (rated.all(axis=1) == rated.any(axis=1)).all()
    assert rated.pleasure.sum() == 45
    assert emotions.loc["anxious", ["pleasure", "arousal"]].tolist() == [0.01, 0.59]
    # ratings of the words that the paper shows most are missing, not zero
    assert emotions.loc[["calm", "afraid", "nervous"], "pleasure"].isna().all()


def test_pleasure_and_arousal_correlate_as_the_published_45_do(emotions):
    rated = emotions.dropna(subset="pleasure")
    assert np.corrcoef(rated.pleasure, rated.arousal)[0, 1] == pytest.approx(0.24, abs=0.005)


def test_glasgow_rows_are_complete_and_say_how_they_were_matched(emotions):
    columns = [name for name in emotions.columns if name.startswith("glasgow")]
    rated = emotions[columns].notna()
    assert (rated.all(axis=1) == rated.any(axis=1)).all()
    assert rated.glasgow_valence.sum() == 121
    assert emotions.glasgow_valence.dropna().between(1, 9).all()
    assert set(emotions.glasgow_rule.dropna()) == {"exact", "verb", "deriv", "variant", "para"}


@pytest.mark.parametrize(("register", "topics"), [("literary", 12), ("plain", 8)])
def test_stories_are_fully_crossed_with_one_story_a_cell(register, topics):
    stories = corpus.load_stories(register)
    assert len(stories) == 171 * topics
    assert (stories.groupby(["emotion", "topic"]).size() == 1).all()
    assert stories.topic.nunique() == topics
    assert stories.text.is_unique


@pytest.mark.parametrize("register", corpus.REGISTERS)
def test_packaged_stories_name_their_own_emotion_exactly_as_often_as_stated(register):
    stories = corpus.load_stories(register)
    leaking = [
        (row.emotion, row.topic, named)
        for row in stories.itertuples()
        if (named := corpus.leaks(row.text, row.emotion))
    ]
    assert len(leaking) == LEAKING_STORIES[register], leaking


def test_literary_batches_hold_every_topic_of_their_emotions():
    stories = corpus.load_stories("literary")
    assert (stories.groupby("emotion").batch.nunique() == 1).all()
    assert sorted(stories.batch.unique()) == list(range(1, 9))


def test_neutral_texts_have_nine_dialogues_and_four_passages_a_topic():
    neutral = corpus.load_neutral()
    counts = neutral.groupby(["topic", "kind"]).size().unstack()
    assert len(counts) == 20
    assert (counts.dialogue == 9).all()
    assert (counts.passage == 4).all()
    assert set(neutral.topic) == {
        topic for register in corpus.REGISTERS for topic in corpus.load_stories(register).topic
    }


def test_every_emotion_has_a_family_and_no_family_is_of_another_word():
    families = json.loads((DATA / "word_families.json").read_text(encoding="utf-8"))
    assert tuple(families) == corpus.EMOTIONS
    assert all(word == word.lower().strip() for words in families.values() for word in words)


def test_word_pairs_are_distinct_pairs_of_known_emotions():
    pairs = corpus.word_pairs()
    assert corpus.check_emotions([*pairs.a, *pairs.b])
    assert (pairs.a != pairs.b).all()
    assert len({frozenset(pair) for pair in zip(pairs.a, pairs.b, strict=True)}) == len(pairs)
    assert pairs.kind.value_counts().min() >= 15
    assert pairs.why.notna().all()


def test_opposite_pairs_are_opposite_in_rated_valence_and_near_pairs_are_not(emotions):
    pairs = corpus.word_pairs()
    side = (emotions.glasgow_valence - 5) / 4
    side = side.fillna(emotions.pleasure)
    product = pairs.a.map(side) * pairs.b.map(side)
    assert (product[pairs.kind == "opposite"].dropna() < 0).all()
    assert (product[pairs.kind == "near"].dropna() > 0).all()


def test_every_number_of_the_paper_names_its_source(paper):
    assert all(
        isinstance(entry["value"], int | float) and entry["source"]
        for entry in paper["reference"].values()
    )
    for table in ("logit_lens", "table16", "activities"):
        assert paper[table]["source"].startswith("Table ")


def test_the_papers_numbers_agree_with_each_other(paper, emotions):
    number = {key: entry["value"] for key, entry in paper["reference"].items()}
    assert number["n_emotions"] == len(emotions)
    assert number["n_stories"] == (
        number["n_emotions"] * number["n_topics"] * number["stories_per_cell"]
    )
    assert number["k_means_k"] == emotions.cluster.nunique()
    assert number["norms_n"] == emotions.pleasure.notna().sum()


def test_the_papers_tables_are_about_known_emotions(paper):
    assert set(paper["logit_lens"]["tokens"]) == set(corpus.TWELVE)
    assert all(len(tokens["up"]) == 5 for tokens in paper["logit_lens"]["tokens"].values())
    assert corpus.check_emotions(paper["table16"]["emotions"])
    assert len(paper["activities"]["rows"]) == 64


def test_table_16_differences_are_post_minus_base_up_to_rounding(paper):
    for row in paper["table16"]["emotions"].values():
        assert row["diff"] == pytest.approx(row["post"] - row["base"], abs=2e-4)

"""The experiments on made-up corpora whose truth is known, and their nulls."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from emotion_concepts import corpus
from emotion_concepts.errors import BadInput
from emotion_concepts.experiments import extraction, validation
from emotion_concepts.experiments.extraction import Extraction, probe_ranks, word_ranks
from emotion_concepts.geometry import components_for, cosine_matrix, unit, upper
from emotion_concepts.vectors import EmotionVectors, Provenance, Stacked

NAMES = list(corpus.EMOTIONS[:12])
WORDS = [
    "apple",
    "brick",
    "cloud",
    "drum",
    "eagle",
    "fern",
    "glove",
    "harp",
    "island",
    "jug",
    "kite",
    "lamp",
]


class Rows(Stacked):
    def __len__(self):
        return len(self.array)

    def __getitem__(self, rows):
        return Rows(self.array[rows])


def made_up(signal: float, register="plain", n_topics=6, seed=0, truth_seed=7) -> Extraction:
    """Twelve emotions x topics in two layers; each emotion has a direction and a favourite word."""
    truth = np.random.default_rng(truth_seed).normal(size=(12, 2, 40))
    rng = np.random.default_rng(seed)
    topic = 5 * rng.normal(size=(n_topics, 1, 2, 40))
    grid = signal * truth[None] + topic + rng.normal(size=(n_topics, 12, 2, 40))
    cells = [(t, e) for t in range(n_topics) for e in range(12)]
    order = rng.permutation(len(cells))
    stories = pd.DataFrame(
        {
            "emotion": [NAMES[cells[c][1]] for c in order],
            "topic": [f"t{cells[c][0]}" for c in order],
            "register": register,
            "batch": [cells[c][1] % 3 for c in order],
            "text": [f"The {WORDS[cells[c][1]]} of day {cells[c][0]}." for c in order],
        }
    )
    residuals = Rows(np.stack([grid[cells[c]] for c in order]))
    neutral = Rows(rng.normal(size=(60, 2, 40)))
    vectors = EmotionVectors.fit(
        residuals, stories.emotion.tolist(), neutral, topics=stories.topic.tolist()
    ).select(NAMES)
    return Extraction(register, stories, residuals, neutral, vectors)


def test_stories_are_laid_out_by_topic_and_emotion_whatever_their_order():
    found = made_up(1.0)
    texts = found.texts()
    assert texts.shape == (6, 12)
    assert texts[4, 2] == "The cloud of day 4." == found.story(NAMES[2], "t4")
    np.testing.assert_allclose(found.crossed(1).mean(1), 0, atol=1e-12)


def test_a_missing_or_doubled_story_is_refused():
    found = made_up(1.0)
    found.stories.loc[0, "topic"] = "t1" if found.stories.topic[0] != "t1" else "t2"
    with pytest.raises(BadInput, match="not one a topic and emotion"):
        found.texts()


def test_a_strong_signal_is_named_and_noise_stays_at_chance():
    strong, none = made_up(2.0), made_up(0.0, n_topics=40)
    assert (probe_ranks(strong.crossed(0)) == 1).mean() > 0.9
    chance = (probe_ranks(none.crossed(0)) == 1).mean()
    assert abs(chance - 1 / 12) < 0.05


def test_held_out_topics_are_not_trained_on():
    """Each story equals itself in training, so leakage alone would give perfect ranks."""
    rng = np.random.default_rng(0)
    grid = extraction.remove_topic_means(rng.normal(size=(3, 12, 500)))
    assert (probe_ranks(grid) == 1).mean() < 0.4


def test_words_name_the_emotion_where_each_has_its_own_and_across_registers():
    a, b = made_up(0.0), made_up(0.0, register="other", seed=1)
    vectoriser = extraction.WORD_BASELINES["TF-IDF"]
    assert (word_ranks(vectoriser, a.texts()) == 1).all()
    assert (word_ranks(vectoriser, a.texts(), b.texts()) == 1).all()
    shuffled = a.texts()[:, ::-1]
    assert (word_ranks(vectoriser, a.texts(), shuffled) == 1).mean() < 0.1


def test_reliability_rises_with_signal_and_is_null_without():
    assert np.median(extraction.split_half(made_up(1.0), splits=20)) > 0.8
    assert abs(np.median(extraction.split_half(made_up(0.0), splits=20))) < 0.2
    with pytest.raises(BadInput, match="at least four topics, not 3"):
        extraction.split_half(made_up(1.0, n_topics=3))


def test_vectors_without_a_topic_never_saw_it():
    found = made_up(1.0)
    changed = found.residuals.array.copy()
    changed[(found.stories.topic == "t0").to_numpy()] += 100.0
    other = Extraction("plain", found.stories, Rows(changed), found.neutral, found.vectors)
    np.testing.assert_array_equal(
        found.without_topic("t0").directions, other.without_topic("t0").directions
    )


def test_directions_of_stories_drawn_by_lot_hold_no_systematic_emotion():
    pair = [made_up(1.0, n_topics=24), made_up(1.0, register="other", n_topics=24, seed=1)]
    found = extraction.shuffled_directions(pair, 40, seed=3)
    assert found.shape == (40, 2, 40) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(found, extraction.shuffled_directions(pair, 40, seed=3))
    assert not np.array_equal(found, extraction.shuffled_directions(pair, 40, seed=4))
    for layer in range(2):
        emotions = pair[0].vectors.at(layer)
        own = (emotions * pair[1].vectors.at(layer)).sum(1)  # the same emotion in other stories
        cosines = found[:, layer] @ emotions.T
        assert own.min() > 0.5 and np.abs(cosines).mean() < 0.25
        assert np.abs(cosines.mean(0)).max() < 0.15
        for each in pair:
            quiet = components_for(each.neutral.layer(layer), extraction.NEUTRAL_VARIANCE)
            single = extraction.shuffled_directions([each], 5)[:, layer]
            np.testing.assert_allclose(single @ quiet.T, 0, atol=1e-5)


def test_a_direction_between_topics_tells_them_apart_and_holds_no_emotion():
    found = made_up(1.0)
    direction = extraction.topic_direction(found, "t1", "t4")
    assert direction.shape == (2, 40)
    np.testing.assert_allclose(np.linalg.norm(direction, axis=-1), 1, rtol=1e-5)
    truth = np.random.default_rng(7).normal(size=(12, 2, 40))
    for layer in range(2):
        along = pd.Series(found.residuals.layer(layer) @ direction[layer])
        a, b = (along[(found.stories.topic == topic).to_numpy()] for topic in ("t1", "t4"))
        assert a.min() > b.max()
        emotions = unit(truth[:, layer] - truth[:, layer].mean(0))
        assert np.abs(emotions @ direction[layer]).mean() < 0.25  # about 0.13 by chance
    np.testing.assert_allclose(extraction.topic_direction(found, "t4", "t1"), -direction)
    with pytest.raises(BadInput, match="no topic 't9'"):
        extraction.topic_direction(found, "t1", "t9")


def test_same_truth_in_two_registers_is_the_nearest_neighbour():
    a, b = made_up(2.0), made_up(2.0, seed=1)
    across = extraction.across_registers(a.vectors, b.vectors, 0)
    assert (across["rank"] == 1).all() and across.cosine.min() > 0.6
    apart = extraction.across_registers(a.vectors, made_up(2.0, seed=2, truth_seed=8).vectors, 0)
    assert abs(apart.cosine.mean()) < 0.2


def test_ranks_inside_a_batch_only_count_its_own_emotions():
    found = extraction.within_batches(made_up(2.0), 0)
    np.testing.assert_allclose(found["chance"], 1 / 4)
    assert found["own batch"].max() <= 4
    assert (found["own batch"] == 1).mean() > 0.9


def test_without_writing_batches_nothing_is_ranked_inside_them():
    unknown = made_up(2.0)
    unknown.stories["batch"] = float("nan")
    with pytest.raises(BadInput, match="do not say their writing batch"):
        extraction.within_batches(unknown, 0)


def test_nothing_read_is_no_merit():
    """Equal scores rank where guessing would, in the mean."""
    assert (extraction.ranks(np.zeros((2, 5, 5))) == 3).all()


def test_a_feature_of_style_that_never_varies_is_left_out():
    found = made_up(1.0)  # stories without a question in them
    table = validation.emotion_features(found)
    assert "questions" not in table and len(table.columns) > 0
    assert np.isfinite(table.to_numpy()).all()


@pytest.fixture(scope="module")
def emotions():
    return corpus.emotions()


def planted(emotions, *, pleasure=8.0, arousal=5.0, noise=1.0, seed=0):
    """Vectors ``[171, 1, 60]`` with human ratings along two axes; unrated words get random ones."""
    rng = np.random.default_rng(seed)
    n = len(emotions)
    axes = np.linalg.qr(rng.normal(size=(60, 2)))[0].T
    filled = [
        emotions[norm].fillna(pd.Series(0.5 * rng.normal(size=n), index=emotions.index))
        for norm in validation.NORMS
    ]
    x = noise * rng.normal(size=(n, 60))
    for axis, weight, norm in zip(axes, (pleasure, arousal), filled, strict=True):
        x = x + weight * norm.to_numpy()[:, None] * axis
    return unit(x)[:, None]


def test_planted_valence_and_arousal_are_found_on_their_components(emotions):
    tests = validation.component_tests(planted(emotions), emotions, resamples=300)
    valence, arousal = (validation.best_component(tests, norm, 0) for norm in validation.NORMS)
    assert (valence.pc, arousal.pc) == (1, 2)
    assert validation.leading(valence, 1) == validation.leading(arousal, 2) == "supported"
    assert validation.leading(arousal, 1) == "partly"
    assert validation.oriented(valence)[0] > 0.8 and valence.n == 45


def test_noise_does_not_pass_the_correction_for_five_components(emotions):
    passed = 0
    for seed in range(40):
        noise = np.random.default_rng(seed).normal(size=(171, 1, 60))
        tests = validation.component_tests(noise, emotions, resamples=199, seed=seed)
        passed += validation.best_component(tests, "pleasure", 0).p_pc < 0.05
    assert passed <= 6


def test_the_correction_for_layers_is_stricter(emotions):
    layers = np.random.default_rng(0).normal(size=(171, 6, 60))
    tests = validation.component_tests(layers, emotions, resamples=300)
    assert (tests.p <= tests.p_pc).all() and (tests.p_pc <= tests.p_layer).all()
    curves = validation.best_by_layer(tests)
    assert (curves.r >= 0).all() and set(curves.norm) == {
        "pleasure", "arousal", "best of five by chance",
    }  # fmt: skip


def test_planted_ratings_are_read_out_and_shuffled_ones_are_not(emotions):
    x = planted(emotions)[:, 0]
    shuffled = x[np.random.default_rng(1).permutation(len(x))]
    found = validation.readout_tests(
        {"planted": x, "shuffled": shuffled}, emotions, ("pleasure",), permutations=30
    ).set_index("source")
    assert found.r["planted"] > 0.7 and found.p["planted"] < 0.05
    assert found.p["shuffled"] > 0.05


def test_the_papers_own_clusters_are_recovered_from_vectors_that_have_them(emotions):
    codes = emotions.cluster.astype("category").cat.codes.to_numpy()
    x = 4 * np.eye(10)[codes] + np.random.default_rng(0).normal(size=(171, 10)) * 0.3
    tests = validation.cluster_tests({"x": x}, emotions, permutations=100).iloc[0]
    assert tests.ari > 0.9 and tests.p < 0.02
    noise = np.random.default_rng(0).normal(size=(171, 10))
    assert validation.cluster_tests({"x": noise}, emotions, permutations=100).p[0] > 0.02


def test_word_pairs_follow_planted_valence(emotions):
    pairs, tests = validation.pair_tests(planted(emotions)[:, 0], emotions, draws=300)
    opposite = pairs[pairs.kind == "opposite"]
    rated = opposite[opposite.a.map(emotions.pleasure).notna()]
    rated = rated[rated.b.map(emotions.pleasure).notna()]
    assert (rated.cosine < 0).mean() > 0.8
    assert pairs.percentile.between(0, 100).all()
    assert set(tests.kind) == {"near", "opposite"}
    cosines = cosine_matrix(planted(emotions)[:, 0])
    np.testing.assert_allclose(tests.null, upper(cosines).mean())


def test_a_baseline_that_is_the_geometry_leaves_nothing_beyond_it(emotions):
    x = planted(emotions)[:, 0]
    noise = np.random.default_rng(0).normal(size=(171, 60))
    table = validation.similarity_tests(
        x, {"same": x, "noise": noise}, emotions, permutations=200
    ).set_index("source")
    assert table.human["vectors"] > 0.4 and table.p["vectors"] < 0.01
    assert abs(table.partial["same"]) < 0.1
    assert table.partial["noise"] == pytest.approx(table.human["vectors"], abs=0.05)


def test_what_a_baseline_explains_is_taken_out_of_both_sides(emotions):
    """Partial correlation, from three plain ones."""
    x = planted(emotions)[:, 0]
    baseline = x + 0.1 * np.random.default_rng(0).normal(size=x.shape)
    table = validation.similarity_tests(x, {"b": baseline}, emotions, permutations=200)
    found = table.set_index("source").loc["b"]
    rated, human = validation.human_similarity(emotions)
    a, b = (upper(cosine_matrix(vectors)[np.ix_(rated, rated)]) for vectors in (x, baseline))
    r = np.corrcoef([a, upper(human), b])
    expected = (r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2))
    assert found.partial == pytest.approx(expected)


def test_shares_without_emotion_are_flatter_than_planted_ones():
    nulls = validation.share_nulls([made_up(0.0), made_up(0.0, seed=1)], 0, k=3, draws=5)
    assert {name: draws.shape for name, draws in nulls.items()} == {
        "random directions": (5, 3),
        "shuffled stories": (5, 3),
    }
    assert nulls["shuffled stories"].max() < 0.5


def test_story_features_count_what_they_say():
    text = "'Don't!' I said. She put her hand on my knee, and I knew. Why had he gone before?"
    found = validation.story_features([text]).iloc[0]
    assert found["words"] == 18
    assert found["body words"] == pytest.approx(100 * 2 / 18)
    assert found["first person words"] == pytest.approx(100 * 3 / 18)
    assert found["past words"] == pytest.approx(100 * 2 / 18)
    assert found["questions"] == found["exclamations"] == pytest.approx(100 / 18)


def test_components_of_neutral_text_come_out_of_the_vectors():
    found = made_up(1.0)
    components = components_for(found.neutral.layer(0), 0.5)
    np.testing.assert_allclose(found.vectors.at(0) @ components.T, 0, atol=1e-5)


@pytest.mark.model
def test_the_models_own_ratings_follow_people_for_clear_words(smollm, monkeypatch):
    words = ("happy", "miserable", "calm", "furious", "proud", "bored")  # all take a minute
    monkeypatch.setattr(corpus, "EMOTIONS", words)
    ratings = validation.model_ratings(smollm)
    assert ratings.shape == (6, 2) and tuple(ratings.index) == words
    np.testing.assert_allclose(ratings.mean(), 0, atol=1e-9)
    assert ratings.pleasure["happy"] > ratings.pleasure["miserable"]


def test_words_of_held_out_topics_are_not_trained_on():
    """Each story has a word of its own, so leakage alone would name its emotion."""
    drawn = np.random.default_rng(0).choice(WORDS, size=(4, 12, 5))
    stories = [f"own{n} {' '.join(words)}" for n, words in enumerate(drawn.reshape(48, 5))]
    texts = np.array(stories).reshape(4, 12)
    assert (word_ranks(extraction.WORD_BASELINES["TF-IDF"], texts) == 1).mean() < 0.4


def test_what_varies_in_neutral_text_does_not_name_the_emotion():
    rng = np.random.default_rng(0)
    grid = rng.normal(size=(12, 30)) + 0.3 * rng.normal(size=(8, 12, 30))
    grid[..., 0] += 30 * rng.normal(size=(8, 12))
    grid = extraction.remove_topic_means(grid)
    assert (probe_ranks(grid) == 1).mean() < 0.4
    assert (probe_ranks(grid, components=np.eye(30)[:1]) == 1).mean() > 0.9


def test_static_embeddings_are_of_the_tokens_that_the_vectors_are_made_of(monkeypatch):
    made = Provenance("m", "w", "t", "c", "n", skip=17, neutral_variance=0.5)
    own = made_up(1.0, register="my_stories.jsonl")
    own = replace(own, vectors=replace(own.vectors, provenance=made))
    asked = []

    def embedding(model, texts, *, skip=0, add_space=False):
        asked.append(skip)
        return np.random.default_rng(len(texts)).normal(size=(len(texts), 8))

    monkeypatch.setattr(extraction, "mean_embedding", embedding)
    monkeypatch.setattr(validation, "mean_embedding", embedding)
    assert extraction.static_grid(None, own).shape == (6, 12, 8)
    found = validation.baselines(None, [own, own])
    assert asked == [17, 17, 17, 0]  # the words themselves from their first token on
    assert found["static embeddings of the stories"].shape == (12, 8)


def test_words_of_two_registers_are_averaged_by_emotion_whatever_their_order():
    a, b = made_up(0.0), made_up(0.0, register="other", seed=1)
    turned = replace(b, vectors=b.vectors.select(NAMES[::-1]))
    vectoriser, means = extraction.word_means([a, turned])
    words = vectoriser.get_feature_names_out()
    for register in means:
        assert words[register.argmax(1)].tolist() == WORDS


def test_both_registers_come_with_the_average_of_their_vectors_in_the_order_of_the_words(
    monkeypatch,
):
    names = corpus.EMOTIONS[11::-1]
    asked = {}

    def extract(model, register, *, topics, neutral_limit):
        asked[register] = (topics, neutral_limit)
        found = made_up(1.0, register=register, seed=len(asked))
        return replace(found, vectors=replace(found.vectors.select(names), provenance=None))

    monkeypatch.setattr(extraction, "extract", extract)
    monkeypatch.setattr(corpus, "EMOTIONS", tuple(NAMES))
    literary, plain, vectors = extraction.both_registers(
        None, literary_topics=3, plain_topics=2, neutral_limit=9
    )
    assert asked == {"literary": (3, 9), "plain": (2, 9)}
    assert (literary.register, plain.register) == ("literary", "plain")
    assert vectors.emotions == tuple(NAMES) and literary.vectors.emotions == names
    expected = unit(literary.vectors["angry"] + plain.vectors["angry"])
    np.testing.assert_allclose(vectors["angry"], expected, atol=1e-6)


def test_shuffled_labels_name_by_chance_what_the_probe_names(monkeypatch):
    monkeypatch.setattr(extraction, "static_grid", lambda model, e: e.crossed(0))
    pair = [made_up(2.0), made_up(2.0, register="other", seed=1)]
    found = extraction.identify(None, pair, 0)
    for setting in ("plain", "other", "plain → other", "other → plain"):
        assert found.hits(setting, "probe").mean() > 0.9
        assert found.hits(setting, "shuffled labels").mean() < 0.35
    assert found.kinds["shuffled labels"] == "null"

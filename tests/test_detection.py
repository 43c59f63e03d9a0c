"""A detector, measured: planted signals are found, nulls are not; it reads as the monitor does."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from emotion_concepts import corpus, tracing
from emotion_concepts.errors import BadInput, UnknownEmotion, UnknownLayer, WrongModel
from emotion_concepts.experiments import detection as d
from emotion_concepts.experiments.grading import own_words, score_auc, text_auc
from emotion_concepts.geometry import unit
from emotion_concepts.monitor import Above, EmotionMonitor, calibrate
from emotion_concepts.results import Register
from emotion_concepts.steering import random_directions
from emotion_concepts.tracing import MeanFrom
from emotion_concepts.vectors import EmotionVectors, Provenance

WIDTH, RANDOM = 48, 99


# --- planted residuals -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planted():
    """A detector of "a" and "b" beside random directions, calibrated on planted neutral tokens."""
    rng = np.random.default_rng(0)
    directions = unit(rng.normal(size=(5, 2, WIDTH)))
    centre = rng.normal(size=(2, WIDTH))
    vectors = EmotionVectors(tuple("abcde"), directions, np.ones((5, 2)), centre, None, None)
    drawn = random_directions(RANDOM, directions[:, 1:])[:, 0]
    rows = np.vstack([directions[:2, 1], drawn])
    plain = d.Detector(vectors.select(["a", "b"]), 1, rows, np.array(0), np.array(1))
    quiet = plain.z(centre[1] + noise(rng, 5000))
    return dataclasses.replace(plain, mean=quiet.mean(0), sd=quiet.std(0))


def noise(rng, tokens):
    """Residuals of neighbouring tokens, alike by half: [tokens, WIDTH]."""
    x = rng.normal(size=(tokens + 1, WIDTH))
    return x[1:] + x[:-1]


def texts_of(detector, rng, n, *, strength=0.0, lengths=(40, 60)):
    """z of n texts, in each of which ten tokens in a row hold the emotion "a" to `strength`."""
    out = []
    for _ in range(n):
        x = noise(rng, int(rng.integers(*lengths)))
        start = rng.integers(len(x) - 10)
        x[start : start + 10] += strength * detector.directions[0]
        out.append(detector.z(detector.vectors.centre[1] + x))
    return out


@pytest.fixture(scope="module")
def measured(planted):
    """Scores of 60 texts with the emotion "a" and 60 without, pair by pair, and their labels."""
    rng = np.random.default_rng(1)
    z = texts_of(planted, rng, 60, strength=3.0) + texts_of(planted, rng, 60)
    return d.peak_scores(z, tokens=40), np.repeat([1, 0], 60), np.tile(np.arange(60), 2)


def test_a_planted_emotion_is_detected_and_the_other_emotion_is_not(planted, measured):
    scores, labels, pairs = measured
    quiet = d.peak_scores(texts_of(planted, np.random.default_rng(2), 400), tokens=40)
    limits = d.alarm_threshold(quiet, 0.05)
    found = d.detection(scores[:, 0], labels, pairs, limits[0]).set_index("measure")
    assert found.low["auc"] > 0.85 and found.p["auc"] < 0.01
    assert found.value["detected"] > 0.6 and found.value["false alarms"] < 0.15
    null = d.detection(scores[:, 1], labels, pairs, limits[1]).set_index("measure")
    assert null.low["auc"] < 0.5 < null.high["auc"] and null.p["auc"] > 0.05
    assert null.low["detected"] < 0.05 < null.high["detected"]


def test_shares_have_wilson_intervals_and_the_auc_is_that_of_grading():
    scores, labels, groups = [5, 4, 1, 3, 2, 0], [1, 1, 1, 0, 0, 0], [0, 1, 2, 0, 1, 2]
    found = d.detection(scores, labels, groups, 3)
    assert found.measure.tolist() == ["auc", "detected", "false alarms"]
    auc = score_auc(scores, labels, groups=groups)
    assert found.iloc[0, 1:].tolist() == [auc.value, auc.low, auc.high, 6, auc.p]
    np.testing.assert_allclose(found.value[1:], [2 / 3, 0])  # at 3 it is not above 3
    half, shift, n = 1.96**2 / 2, 1.96 * (2 / 9 * 3 + 1.96**2 / 4) ** 0.5, 3 + 1.96**2
    np.testing.assert_allclose(found.low[1], (2 + half - shift) / n, atol=1e-4)
    np.testing.assert_allclose(found.high[1], (2 + half + shift) / n, atol=1e-4)
    assert found.low[2] == 0 and found.n.tolist() == [6, 3, 3]


def test_a_planted_emotion_does_better_than_random_directions_and_a_null_does_not(measured):
    scores, labels, _ = measured
    random, p = d.auc_against_random(scores[:, 0], scores[:, 2:], labels)
    assert p == 1 / (1 + RANDOM) and random.shape == (RANDOM,)
    assert random.mean() == pytest.approx(0.5, abs=0.05)
    assert d.auc_against_random(scores[:, 1], scores[:, 2:], labels)[1] > 0.05
    # one that is as low where the label is 1 does not count
    assert d.auc_against_random(scores[:, 0], scores[:, 2:], 1 - labels)[1] == 1


def test_p_against_random_directions_is_uniform_for_one_more_of_them(measured):
    scores, labels, _ = measured
    random = scores[:, 2:]
    p = [
        d.auc_against_random(random[:, n], np.delete(random, n, 1), labels)[1]
        for n in range(RANDOM)
    ]
    assert np.mean(p) == pytest.approx(0.5, abs=0.02) and np.mean(np.array(p) <= 0.1) <= 0.11


def test_sets_of_random_directions_stand_in_for_several_emotions():
    """Each text holds one of four emotions; a direction that marks it does better than any lot."""
    rng = np.random.default_rng(0)
    labels = np.eye(4, dtype=int)[rng.permutation(np.repeat(np.arange(4), 12))]
    random = rng.normal(size=(48, 60))
    marked = rng.normal(size=(48, 4)) + 3 * labels
    found, p = d.auc_against_random_sets(marked, random, labels, draws=399)
    assert found.shape == (399,) and p == 1 / 400
    assert found.mean() == pytest.approx(0.5, abs=0.03) and found.std() < 0.1
    null = d.auc_against_random_sets(rng.normal(size=(48, 4)), random, labels, draws=399)[1]
    assert null > 0.05
    # by hand: the first lot's directions take the places of the emotions
    first = np.random.default_rng(0).choice(60, size=4, replace=False)
    assert found[0] == pytest.approx(roc_auc_score(labels.ravel(), random[:, first].ravel()))


def test_p_against_sets_of_random_directions_is_uniform_for_one_more_set():
    rng = np.random.default_rng(1)
    labels = np.eye(4, dtype=int)[np.repeat(np.arange(4), 6)]
    p = []
    for seed in range(150):
        random = rng.normal(size=(24, 44))
        p.append(
            d.auc_against_random_sets(random[:, :4], random[:, 4:], labels, draws=99, seed=seed)[1]
        )
    assert np.mean(p) == pytest.approx(0.5, abs=0.07) and np.mean(np.array(p) <= 0.1) < 0.17


def test_column_aucs_are_those_of_scikit_learn_with_ties():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(6, size=(40, 7)), rng.integers(2, size=40)
    expected = [roc_auc_score(labels, column) for column in scores.T]
    np.testing.assert_allclose(d.aucs(scores, labels), expected)


# --- windows, lengths, thresholds --------------------------------------------------------------


def test_windows_do_not_cross_from_one_message_to_the_next():
    z = np.array([1.0, 2, 3, np.nan, 10, 20, 30])[:, None]
    means = d.windowed(z, 3)
    np.testing.assert_array_equal(means[:, 0], [2, np.nan, np.nan, np.nan, 20])
    assert d.peak_scores([z, z[:3]], 3).tolist() == [[20], [2]]


def test_a_text_without_a_full_window_is_one_window_of_what_there_is():
    z = np.array([[1.0, 0], [2, 0], [np.nan, np.nan], [9, 0]])
    np.testing.assert_array_equal(d.windowed(z, 3), [[4, 0]])
    np.testing.assert_array_equal(d.windowed(z[:2], 8), [[1.5, 0]])


def test_a_score_looks_at_the_last_tokens_only():
    z = np.array([9.0, 1, 2, np.nan, 3, 1])[:, None]
    assert d.peak_scores([z], 2).tolist() == [[5]]
    assert d.peak_scores([z], 2, tokens=4).tolist() == [[2]]  # a gap is no token
    assert d.peak_scores([z], 2, tokens=5).tolist() == [[5]]
    assert d.peak_scores([z], 8, tokens=2).tolist() == [[2]]


def test_texts_are_comparable_if_long_enough_beside_one_of_the_other_label():
    z = [np.zeros((length, 2)) for length in (9, 9, 9, 4, 9, 9, 9, 4, 4, 9, 8, 8)]
    z[1][3:5] = np.nan  # seven tokens in two messages
    labels = [1, 0, 0, 1, 0, 0, 1, 0, 1, 0, 0, 1]
    groups = list("aaabbbccddee")
    found = d.comparable(z, labels, groups, 8)
    # two of one label make no pair, nor does one whose partner is short
    assert found.tolist() == [True, False, True] + [False] * 7 + [True, True]
    with pytest.raises(BadInput, match="1 of 5 groups have texts of both labels with 9 tokens"):
        d.comparable(z, labels, groups, 9)


def test_longer_texts_score_higher_unless_cut_alike(planted):
    rng = np.random.default_rng(3)
    z = texts_of(planted, rng, 80, lengths=(200, 201)) + texts_of(planted, rng, 80)
    labels, pairs = np.repeat([1, 0], 80), np.tile(np.arange(80), 2)
    auc = score_auc(d.peak_scores(z)[:, 0], labels, groups=pairs)
    cut = score_auc(d.peak_scores(z, tokens=40)[:, 0], labels, groups=pairs)
    assert auc.low > 0.6 and cut.low < 0.5 < cut.high


@pytest.mark.parametrize(("share", "n"), [(0.01, 120), (0.05, 250)])
def test_a_threshold_keeps_its_share_of_false_alarms_on_fresh_texts(share, n):
    rng = np.random.default_rng(0)
    quiet, fresh = rng.gumbel(size=(n, 400)), rng.gumbel(size=(500, 400))
    rates = (fresh > d.alarm_threshold(quiet, share)).mean(0)
    allowed = int((n + 1) * share) / (n + 1)
    assert rates.mean() == pytest.approx(allowed, abs=4 * rates.std() / 20) and allowed <= share


def test_alarms_are_runs_of_windows_above_the_threshold():
    z = [np.array([5.0, 5, 0, 5, 0, 0, 0, np.nan, 5, 5, np.nan, 5]), np.zeros(10)]
    found = d.false_alarm_rate(z, 2, window=1)
    assert found.value == pytest.approx(1000 * 4 / 20) and found.n == 2  # 4 runs, 20 tokens
    assert found.low == 0 and found.high == pytest.approx(1000 * 4 / 10)
    # with two tokens a window, 5 5 0 5 0 is one run, and a lone 5 between messages is none
    assert d.false_alarm_rate(z, 2, window=2).value == pytest.approx(1000 * 2 / 20)


def test_the_interval_of_a_rate_covers_it_and_no_alarm_is_no_proof_of_none():
    covered, rng = [], np.random.default_rng(0)
    for _ in range(200):
        alarms = rng.random(size=(60, 50)) < 0.01
        found = d.false_alarm_rate(list(alarms.astype(float)), 0.5, window=1, resamples=300)
        covered.append(found.low <= 10 <= found.high)  # 9.9 runs in 1,000 tokens
    assert 0.88 < np.mean(covered) < 0.99
    none = d.false_alarm_rate([np.zeros(50)] * 20, 0.5)
    assert (none.value, none.low) == (0, 0) and none.high == pytest.approx(3.69, abs=0.01)


# --- against words -----------------------------------------------------------------------------


def test_a_difference_of_aucs_is_paired_over_groups(measured):
    scores, labels, pairs = measured
    a, b = scores[:, 0], scores[:, 1]
    found = d.auc_difference(a, b, labels, pairs)
    assert found.value == pytest.approx(roc_auc_score(labels, a) - roc_auc_score(labels, b))
    assert found.low > 0.2 and found.n == 120
    back = d.auc_difference(b, a, labels, pairs)
    np.testing.assert_allclose([back.low, back.high], [-found.high, -found.low], atol=1e-9)
    same = d.auc_difference(a, 7 * a + 1, labels, pairs)
    assert same.value == same.low == same.high == 0


def test_the_interval_of_a_difference_covers_it():
    rng, covered = np.random.default_rng(0), []
    labels, groups = np.tile([1, 0], 30), np.repeat(np.arange(30), 2)
    for seed in range(200):
        shared = rng.normal(size=30)[groups] + labels
        a, b = (shared + rng.normal(size=60) for _ in range(2))
        found = d.auc_difference(a, b, labels, groups, resamples=300, seed=seed)
        covered.append(found.low <= 0 <= found.high)
    assert 0.9 < np.mean(covered) < 0.99


@pytest.fixture
def comparison(measured):
    """A planted emotion beside words that tell half of it and words that tell nothing."""
    scores, labels, pairs = measured
    rng = np.random.default_rng(4)
    words = {"half": rng.normal(size=120) + labels, "nothing": rng.normal(size=120)}
    random = d.auc_against_random(scores[:, 0], scores[:, 2:], labels)
    return d.compared(
        scores[:, 0], words, random, labels, pairs, limit=2.5, word_limits={"half": 1.0}
    )


def test_a_monitor_is_compared_with_words_and_random_directions(comparison, measured):
    scores, labels, pairs = measured
    table = comparison.table.set_index(["by", "measure"])
    assert comparison.table.by.unique().tolist() == ["monitor", "half", "nothing", d.BY_LOT]
    alone = d.detection(scores[:, 0], labels, pairs, 2.5)
    mine = comparison.table[comparison.table.by == "monitor"].drop(columns="by")
    pd.testing.assert_frame_equal(mine, alone, check_dtype=False)
    # words without a threshold raise no alarm
    assert table.loc["nothing"].index.tolist() == ["auc"] and len(table.loc["half"]) == 3
    assert comparison.best == "half" and comparison.p == 1 / (1 + RANDOM)
    gain = comparison.gains["half"]
    assert gain.value == pytest.approx(table.value["monitor", "auc"] - table.value["half", "auc"])
    assert comparison.gains["nothing"].value > gain.value
    lot = table.loc[(d.BY_LOT, "auc")]
    assert lot.low < 0.5 < lot.high and lot.n == RANDOM


def test_a_comparison_is_entered_with_the_words_that_do_best(comparison):
    register = Register("chapter", "model", "full")
    d.enter(register, "planted", "a planted emotion", comparison, allowed=0.05)
    assert register["auc_planted_monitor"].value == comparison.table.value[0]
    assert register["false_alarms_planted_half"].method.endswith("at 0.05 on neutral texts")
    assert "detected_planted_nothing" not in register.entries
    assert not any("random_directions" in key for key in register.entries)
    assert register["best_planted"].value == "half"
    assert register["gain_planted"].value == comparison.gains["half"].value
    assert register["random_planted"].n == RANDOM
    below = (comparison.random < register["random_planted"].value).mean()
    assert below == pytest.approx(0.95, abs=0.01)


def test_the_words_of_stories_tell_what_is_like_them():
    stories = corpus.load_stories("plain", topics=3, emotions=["calm", "desperate", "joyful"])
    held = stories.topic == stories.topic.iloc[-1]
    for emotion in ("calm", "desperate", "joyful"):
        read = d.story_words(stories[~held], [emotion])[emotion].decision_function(stories.text)
        own = (stories.emotion == emotion).to_numpy()
        assert read[own & ~held].min() > read[~own & ~held].max()  # what it was fitted on
    of_desperate = d.story_words(stories, ["desperate"])["desperate"]
    words = of_desperate.decision_function(["He hummed.", "He hummed, desperate."])
    assert words[0] == words[1], "no story holds the word"


def test_words_of_the_texts_themselves_are_judged_by_others_groups():
    rng = np.random.default_rng(0)
    labels, groups = np.tile([1, 0], 20), np.repeat(np.arange(20), 2)
    filler = [" ".join(rng.choice(["red", "green", "blue", "grey"], 6)) for _ in labels]
    told = [f"{text} {'storm' if n else 'meadow'}" for text, n in zip(filler, labels, strict=True)]
    read = own_words(told, labels, groups)
    assert score_auc(read, labels, groups=groups) == text_auc(told, labels, groups)
    assert roc_auc_score(labels, read) == 1
    # a word that belongs to one group only tells nothing of it
    marks = [f"{'hit' if n else 'miss'}{g}" for n, g in zip(labels, groups, strict=True)]
    private = [" ".join(pair) for pair in zip(filler, marks, strict=True)]
    assert roc_auc_score(labels, own_words(private, labels, groups)) < 0.75


# --- on the packaged model ---------------------------------------------------------------------

EMOTIONS = ("calm", "desperate", "joyful")
CHATS = [
    [{"role": "user", "content": "Tell me in two sentences what a lighthouse is for."}],
    [
        {"role": "system", "content": "You answer letters about a small museum by the river."},
        {"role": "user", "content": "When do you open on Mondays, and is there a lift?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Nothing works any more, and they close the door in an hour!"},
    ],
    [{"role": "user", "content": "What?"}],
]


@pytest.fixture(scope="module")
def neutral():
    """Twelve beginnings of neutral texts, to be quick."""
    return corpus.load_neutral(limit=12).text.str.split().str[:40].str.join(" ").tolist()


@pytest.fixture(scope="module")
def vectors(smollm, neutral):
    stories = corpus.load_stories("plain", topics=1, emotions=EMOTIONS)
    return EmotionVectors.fit(
        tracing.pooled_residuals(smollm, stories.text.tolist(), MeanFrom(10)),
        stories.emotion.tolist(),
        tracing.pooled_residuals(smollm, neutral[:4], MeanFrom(20)),
        topics=stories.topic.tolist(),
        provenance=Provenance(
            smollm.identity.name, smollm.identity.weights, smollm.identity.tokenizer, *"cn", 10, 0.5
        ),
    )


@pytest.fixture(scope="module")
def detector(smollm, vectors, neutral):
    return d.Detector.fit(smollm, vectors, ["calm", "desperate"], neutral[4:], random=20)


@pytest.fixture(scope="module")
def read(smollm, detector):
    return detector.read(smollm, CHATS)


@pytest.fixture(scope="module")
def monitor(smollm, vectors, neutral):
    baseline = calibrate(smollm, vectors, ["calm", "desperate"], texts=neutral[4:])
    return lambda *rules: EmotionMonitor(smollm, vectors, baseline, rules=rules)


@pytest.mark.model
def test_it_is_calibrated_as_the_monitor_is(detector, monitor):
    baseline = monitor().baseline
    assert detector.layer == baseline.layer
    np.testing.assert_allclose(detector.mean[:2], baseline.mean, rtol=1e-5)
    np.testing.assert_allclose(detector.sd[:2], baseline.sd, rtol=1e-5)


@pytest.mark.model
def test_readings_and_windows_are_those_of_the_monitor(read, monitor):
    for chat, z in zip(CHATS, read, strict=True):
        table = monitor().transcript(chat)
        words = [rows for _, rows in table[table.role != "template"].groupby("turn")]
        full = [rows[7:] for rows in words if len(rows) >= 8]
        for column, emotion in enumerate(("calm", "desperate")):
            own = z[~np.isnan(z[:, column]), column]
            np.testing.assert_allclose(own, pd.concat(words)[f"z_{emotion}"], atol=1e-3)
            if full:
                means = d.windowed(z)[:, column]
                expected = pd.concat(full)[f"mean_{emotion}"]
                np.testing.assert_allclose(means[~np.isnan(means)], expected, atol=1e-3)
    assert len(read[1]) == np.sum(~np.isnan(read[1][:, 0])) + 3, "a gap between messages"


@pytest.mark.model
def test_a_rule_fires_below_the_score_and_not_above(read, monitor):
    score = d.peak_scores(read)[1, 1]
    rules = Above("desperate", score - 0.01), Above("desperate", score + 0.01)
    alarms = monitor(*rules).transcript(CHATS[1]).alarms
    assert [alarm for row in alarms for alarm in row][:1] == [f"{rules[0]}: mark"]
    assert not any(str(rules[1]) in alarm for row in alarms for alarm in row)


@pytest.mark.model
def test_random_directions_lie_outside_and_are_standardised_alike(
    smollm, vectors, neutral, detector, read
):
    assert [z.shape[1] for z in read] == [22] * 3
    assert np.abs(detector.directions[2:] @ vectors.at(detector.layer).T).max() < 1e-5
    x = tracing.token_residuals(smollm, neutral[4:], [detector.layer])
    z = detector.z(np.concatenate([text[20:, 0] for text in x]))
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(z.std(0), 1, atol=1e-4)
    bare = d.Detector.fit(smollm, vectors, "calm", neutral[:2], random=0, layer=3)
    assert (bare.layer, bare.directions.shape) == (3, (1, 576))


@pytest.mark.model
def test_a_chat_reads_the_same_alone_and_beside_longer_ones(smollm, detector, read):
    for chat, z in zip(CHATS, read, strict=True):
        [alone] = detector.read(smollm, [chat])
        np.testing.assert_allclose(alone, z, atol=1e-3)


@pytest.mark.model
def test_roles_say_whose_words_count(smollm, detector, read):
    gaps = np.flatnonzero(np.isnan(read[1][:, 0]))
    by_message = np.split(read[1], gaps)  # each but the first begins with its gap
    [said] = detector.read(smollm, CHATS[1:2], roles="assistant")
    np.testing.assert_allclose(said, by_message[2][1:], atol=1e-3)
    [asked] = detector.read(smollm, CHATS[1:2], roles=["user"])
    np.testing.assert_allclose(asked, np.vstack([by_message[1][1:], by_message[3]]), atol=1e-3)


@pytest.mark.model
def test_words_are_those_of_the_tokens_that_are_scored(smollm, read):
    [last] = d.last_words(smollm, CHATS[1:2], 5, roles="system")
    assert last and CHATS[1][0]["content"].endswith(last)
    assert len(smollm.tokenizer(last)["input_ids"]) == 5
    lengths = [int((~np.isnan(z[:, 0])).sum()) for z in read]
    whole = d.last_words(smollm, CHATS[1:2], lengths[1])
    assert whole == ["\n".join(message["content"] for message in CHATS[1])]
    # the last messages come first, and a message that is not reached leaves nothing
    asked = len(smollm.tokenizer(CHATS[1][-1]["content"])["input_ids"])
    assert d.last_words(smollm, CHATS[1:2], asked) == [CHATS[1][-1]["content"]]
    with pytest.raises(BadInput, match=f"text 0 has {lengths[0]} tokens, so its last 99"):
        d.last_words(smollm, CHATS, 99)


@pytest.mark.model
def test_what_cannot_be_fitted_or_read_is_refused(smollm, vectors, neutral, detector):
    for watch, texts, options, error, problem in (
        ("calmm", neutral, {}, UnknownEmotion, "did you mean calm"),
        ([], neutral, {}, BadInput, "at least one emotion"),
        ("calm", neutral, {"layer": 30}, UnknownLayer, "not 30"),
        ("calm", ["too short"], {}, BadInput, "skipping 20.*'too short'"),
        ("calm", [], {}, BadInput, "no text"),
    ):
        with pytest.raises(error, match=problem):
            d.Detector.fit(smollm, vectors, watch, texts, **options)
    with pytest.raises(WrongModel, match="do not say"):
        d.Detector.fit(smollm, dataclasses.replace(vectors, provenance=None), "calm", neutral)
    foreign = dataclasses.replace(vectors.provenance, model="other", weights="x" * 16)
    other = dataclasses.replace(detector.vectors, provenance=foreign)
    with pytest.raises(WrongModel, match="fitted on 'other'"):
        dataclasses.replace(detector, vectors=other).read(smollm, CHATS)
    for chats, roles, problem in (
        (CHATS, "usr", "no role 'usr'; did you mean user"),
        (CHATS, ["assistant"], "chat 0 has no message of assistant"),
        (["What?"], "user", "give a list of messages"),
    ):
        with pytest.raises(BadInput, match=problem):
            detector.read(smollm, chats, roles=roles)


STORIES = pd.DataFrame({"text": ["one two", "three four"], "emotion": ["calm", "sad"]})


@pytest.mark.parametrize(
    ("measure", "problem"),
    [
        (
            lambda: d.windowed(np.zeros((3, 2)), 0),
            "window and a text of 1 token or more, not 0 and",
        ),
        (lambda: d.windowed(np.zeros((0, 2)), 8), "not 8 and 0"),
        (
            lambda: d.peak_scores([np.zeros((9, 1)), np.zeros((5, 1))], tokens=6),
            "text 1 has 5 tokens",
        ),
        (lambda: d.peak_scores([np.zeros((9, 1))], tokens=0), "from 1 to the length"),
        (lambda: d.alarm_threshold(np.zeros(98)), "take 99 neutral texts or more, not 98"),
        (lambda: d.alarm_threshold(np.zeros(98), 1.0), "between 0 and 1, not 1.0"),
        (lambda: d.false_alarm_rate([np.zeros((9, 2))], 1), "z of one emotion"),
        (lambda: d.aucs(np.zeros((3, 1)), [0, 1]), "2 labels need scores"),
        (lambda: d.aucs(np.zeros((2, 1)), [1, 1]), "some of each"),
        (lambda: d.aucs(np.full((2, 1), np.nan), [0, 1]), "2 labels need scores"),
        (
            lambda: d.auc_against_random_sets(np.eye(3), np.zeros((3, 2)), np.eye(3, dtype=int)),
            "3 emotions need as many random directions, not 2",
        ),
        (lambda: d.auc_difference([1, 2], [1], [0, 1], [0, 1]), "2 and 1 scores"),
        (lambda: d.auc_difference([1, 2], [1, 2], [0, 1], [0, 0]), "two of them different"),
        (lambda: d.auc_difference([1, 2], [1, 2], [0, 1], [0]), "2 labels need as many groups"),
        (lambda: own_words(["a b", "c d"], [0, 0], [0, 1]), "some of each"),
        (lambda: d.story_words(STORIES, ["clam"]), "no story is of 'clam'; did you mean calm"),
        (lambda: d.story_words(STORIES[:1], ["calm"]), "all stories are of 'calm'"),
        (lambda: d.story_words(STORIES[["text"]], ["calm"]), "no column 'emotion'"),
    ],
)
def test_what_cannot_be_measured_is_refused(measure, problem):
    with pytest.raises(BadInput, match=problem):
        measure()

"""Agreement, rates, tests of rates and areas under curves on planted labels, texts and scores."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, t
from sklearn.metrics import roc_auc_score

from emotion_concepts.errors import BadInput
from emotion_concepts.experiments import grading
from emotion_concepts.stats import holm

LABELS = ("leverage", "accept", "unparsable")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# --- labels set by hand ------------------------------------------------------------------------


def test_agreement_counts_by_label_and_overall():
    true = ["leverage"] * 4 + ["accept"] * 6
    graded = ["leverage"] * 3 + ["accept"] * 7
    found = grading.agreement(true, graded, LABELS).set_index("label")
    assert found.n.tolist() == [4, 6, 0, 10]
    assert found.loc["leverage", ["precision", "recall"]].tolist() == [1, 0.75]
    assert found.loc["accept", ["precision", "recall"]].tolist() == [pytest.approx(6 / 7), 1]
    assert found.loc["unparsable", ["precision", "recall", "low", "high"]].isna().all()
    overall = found.loc["overall"]
    assert overall.precision == overall.recall == 0.9 and overall.majority == 0.6
    wilson = binomtest(9, 10).proportion_ci(method="wilson")
    assert (overall.low, overall.high) == pytest.approx((wilson.low, wilson.high))
    assert overall.kappa == pytest.approx((0.9 - 0.54) / (1 - 0.54))
    assert found.loc[list(LABELS), ["majority", "kappa"]].isna().all(axis=None)


def test_graders_that_know_nothing_have_no_kappa(rng):
    true = rng.choice(LABELS, 600)
    found = grading.agreement(true, rng.permutation(true), LABELS).iloc[-1]
    assert abs(found.kappa) < 0.1 and found.low < found.majority
    # truth values are labels too; with one alone there is nothing to agree on by more than chance
    same = grading.agreement(pd.Series([True] * 5), [True] * 5, (True, False)).iloc[-1]
    assert same.recall == 1 and np.isnan(same.kappa)


def test_labels_that_cannot_be_compared_are_named(tmp_path):
    with pytest.raises(BadInput, match="no label is called 'acept'; did you mean accept"):
        grading.agreement(["acept"], ["accept"], LABELS)
    with pytest.raises(BadInput, match="1 labels and 2 grades"):
        grading.agreement(["accept"], ["accept"] * 2, LABELS)
    with pytest.raises(BadInput, match="0 labels"):
        grading.agreement([], [], LABELS)
    path = tmp_path / "own.jsonl"
    columns = {"label": LABELS, "harsh": bool}
    for line, message in (
        ('{"label": "accept"}', "own.jsonl, line 1: no 'harsh'; it has label"),
        ('{"label": "acept", "harsh": true}', "line 1: no label 'acept'; did you mean accept"),
        ('{"label": ["a"], "harsh": true}', "label must be a str"),
        ('{"label": "accept", "harsh": 0}', "harsh must be a bool, not 0"),
    ):
        path.write_text(line, encoding="utf-8")
        with pytest.raises(BadInput, match=message):
            grading.load_labelled("own", columns, path)
    path.write_text('{"more": 1, "harsh": false, "label": "accept"}\n\n', encoding="utf-8")
    assert grading.load_labelled("own", columns, path).values.tolist() == [["accept", False]]


# --- rates -------------------------------------------------------------------------------------


def test_a_loop_repeats_itself_and_prose_does_not():
    assert grading.repetition("no no " * 50) > 0.95
    assert grading.repetition(
        "The mail is here. The mail is HERE, and it is for you."
    ) == pytest.approx(0.1)
    assert grading.repetition("I sort the mails and thank Dana for her trust.") == 0
    assert grading.repetition("") == grading.repetition("two words") == 0


def planted(rng, cells, *, items=6, samples=10):
    """Texts of {(kind, direction, strength): rate of leverage}."""
    rows = [
        (*key, item, "leverage" if rng.random() < rate else "accept", f"text {rng.random()}")
        for key, rate in cells.items()
        for item in range(items)
        for _ in range(samples)
    ]
    columns = ["kind", "direction", "strength", "item", "label", "text"]
    return pd.DataFrame(rows, columns=columns)


def test_rates_count_each_cell_in_order_of_appearance():
    rows = [
        ("random", "r", 0.1, "leverage", "I tell all."),
        ("emotion", "calm", -0.1, "accept", "I sort mails."),
        ("random", "r", 0.1, "unparsable", "a b c d a b c d"),
        ("random", "r", 0.1, "accept", "I thank her."),
    ]
    graded = pd.DataFrame(rows, columns=["kind", "direction", "strength", "label", "text"])
    found = grading.rates(graded, "leverage")
    assert found[["kind", "direction", "strength"]].values.tolist() == [
        ["random", "r", 0.1],
        ["emotion", "calm", -0.1],
    ]
    first = found.iloc[0]
    assert (first.n, first.hits) == (3, 1)
    assert first[["rate", "unparsable", "repetition"]].tolist() == pytest.approx(
        [1 / 3, 1 / 3, 1 / 15]
    )
    wilson = binomtest(1, 3).proportion_ci(method="wilson")
    assert (first.low, first.high) == pytest.approx((wilson.low, wilson.high))
    assert found.rate[1] == 0 and found.low[1] == 0 < found.high[1] < 1
    with pytest.raises(BadInput, match="no column 'text'"):
        grading.rates(graded.drop(columns="text"), "leverage")
    with pytest.raises(BadInput, match="no rows"):
        grading.rates(graded[:0], "leverage")


RANDOM = {("random", f"r{n}", sign * 0.1): 0.3 for n in range(8) for sign in (1, -1)}


def test_an_emotion_beyond_the_random_directions_passes(rng):
    cells = {
        ("emotion", "desperate", 0.1): 0.7,
        ("emotion", "calm", 0.1): 0.05,
        ("emotion", "happy", -0.1): 0.3,
        **RANDOM,
        ("random", "stronger", 0.5): 1.0,
        ("shuffled", "s", 0.1): 1.0,
    }
    graded = planted(rng, cells)
    found = grading.rate_tests(graded, "leverage").set_index("direction")
    assert found.index.tolist() == ["desperate", "calm", "happy"]
    assert found.passes.tolist() == [True, True, False]
    assert found.p["desperate"] < 0.001 and found.p["calm"] < 0.01 and (found.n == 60).all()
    # both signs of the random directions, and neither other strengths nor other controls
    pool = graded[(graded.kind == "random") & (graded.strength.abs() == 0.1)]
    assert found.control_rate.tolist() == pytest.approx([(pool.label == "leverage").mean()] * 3)
    np.testing.assert_allclose(found.difference, found.rate - found.control_rate)
    assert found.low["desperate"] > 0.2 and found.high["calm"] < 0
    assert found.low["happy"] < 0 < found.high["happy"]
    # the interval is as wide as that of a difference of two shares
    row = found.loc["desperate"]
    spread = row.rate * (1 - row.rate) / 60 + row.control_rate * (1 - row.control_rate) / 960
    assert row.high - row.low == pytest.approx(3.92 * np.sqrt(spread), rel=0.1)


def test_emotions_that_act_like_random_directions_seldom_pass(rng):
    found = pd.concat(
        grading.rate_tests(
            planted(rng, {**{("emotion", f"e{n}", 0.1): 0.3 for n in range(4)}, **RANDOM}),
            "leverage",
            draws=400,
            seed=seed,
        )
        for seed in range(25)
    )
    assert 0 < (found.p < 0.1).mean() < 0.2 and found.passes.mean() < 0.05
    assert 0.88 < ((found.low <= 0) & (found.high >= 0)).mean() <= 1


@pytest.mark.parametrize("signs", [(1,), (1, -1)])
def test_directions_that_differ_among_themselves_are_no_effect(rng, signs):
    """Each direction has a rate of its own, opposite at the other sign; emotions are no more."""
    p = []
    for seed in range(40):
        own = np.clip(0.1 * rng.normal(size=13), -0.4, 0.4)
        cells = {("emotion", f"e{n}", 0.1): 0.5 + own[n] for n in range(3)}
        for n in range(10):
            cells |= {("random", f"r{n}", s * 0.1): 0.5 + s * own[3 + n] for s in signs}
        graded = planted(rng, cells, samples=20)
        p += grading.rate_tests(graded, "leverage", draws=300, seed=seed).p.tolist()
    assert 0 < np.mean(np.array(p) < 0.05) < 0.08


def test_an_effect_stands_out_from_directions_that_differ(rng):
    spread = np.linspace(-0.15, 0.15, 10)
    random = {("random", f"r{n}", 0.1): 0.4 + x for n, x in enumerate(spread)}
    emotion = {("emotion", "desperate", 0.1): 0.95, ("emotion", "calm", 0.1): 0.55}
    graded = planted(rng, {**emotion, **random}, samples=40)
    found = grading.rate_tests(graded, "leverage").set_index("direction")
    assert found.passes.tolist() == [True, False]
    assert found.low["calm"] > 0, "its texts are unlike those of all random directions together"
    hits = graded.assign(hit=graded.label == "leverage").groupby(["kind", "direction"]).hit.mean()
    rates = hits["random"].to_numpy()
    scale = rates.std(ddof=1) * np.sqrt(1 + 1 / 10)
    by_hand = 2 * t.sf((hits["emotion", "calm"] - rates.mean()) / scale, 9)
    assert found.p["calm"] == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("emotion", "passes"),
    [({0: (41, 45), 1: (0, 5)}, False), ({0: (25, 25), 1: (10, 25)}, True)],
    ids=["more texts where leverage is common", "more leverage"],
)
def test_texts_are_exchanged_within_items(emotion, passes):
    """Random directions have one rate to the text, .9 on one item and .1 on the other."""
    cells = {("emotion", "calm"): emotion}
    cells |= {("random", f"r{n}"): {0: (45, 50), 1: (5, 50)} for n in range(3)}
    rows = [
        (*key, 0.1, item, label)
        for key, items in cells.items()
        for item, (hits, n) in items.items()
        for label in ["leverage"] * hits + ["accept"] * (n - hits)
    ]
    graded = pd.DataFrame(rows, columns=["kind", "direction", "strength", "item", "label"])
    [found] = grading.rate_tests(graded, "leverage").itertuples()
    # a pooled test would be deceived
    assert found.passes == passes and found.low > 0 and found.control_rate == 0.5


def test_p_is_adjusted_over_the_emotion_cells(rng):
    cells = {("emotion", f"e{n}", 0.1): rate for n, rate in enumerate((0.3, 0.3, 0.3, 0.47))}
    graded = planted(rng, {**cells, **RANDOM})
    found = grading.rate_tests(graded, "leverage")
    assert found.passes.tolist() == (holm(found.p.to_numpy()) < 0.05).tolist()
    plain = grading.rate_tests(graded, "leverage", adjust=lambda p: p)
    assert plain.passes.tolist() == (plain.p < 0.05).tolist() and plain.p.equals(found.p)


def test_rates_need_controls_of_their_strength(rng):
    graded = planted(rng, {("emotion", "calm", 0.2): 0.5, **RANDOM})
    with pytest.raises(BadInput, match="three random .* needed at strength ±0.2, not 0"):
        grading.rate_tests(graded, "leverage")
    few = {("random", f"r{n}", 0.2): 0.3 for n in range(2)}
    with pytest.raises(BadInput, match="three random .* ±0.2, not 2"):
        grading.rate_tests(pd.concat([graded, planted(rng, few)]), "leverage")
    with pytest.raises(BadInput, match="no texts of kind 'emotion'"):
        grading.rate_tests(graded[graded.kind == "random"], "leverage")
    with pytest.raises(BadInput, match="no column 'item'"):
        grading.rate_tests(graded.drop(columns="item"), "leverage")


# --- what words, and scores, tell ---------------------------------------------------------------


def design(items=12, samples=6):
    """Labels and groups: each item is answered as often with steering as without."""
    return np.tile([0, 1], items * samples), np.repeat(np.arange(items), 2 * samples)


def test_the_area_under_the_curve_is_that_of_the_scores(rng):
    labels, groups = design()
    scores = np.round(rng.normal(size=len(labels)) + labels, 1)
    found = grading.score_auc(scores, labels, groups=groups)
    assert found.value == pytest.approx(roc_auc_score(labels, scores)) and found.n == 144
    assert 0.6 < found.low < found.value < found.high < 0.9 and found.p < 0.001
    turned = grading.score_auc(-scores, labels, groups=groups)
    assert turned.value == pytest.approx(1 - found.value) and turned.p < 0.001


def test_the_interval_resamples_groups(rng):
    """One item in two has the effect and the other its reverse: few items say little."""
    labels, groups = design(items=6, samples=30)
    scores = np.where(groups % 2, 1, -1) * (2 * labels - 1) + 0.1 * rng.normal(size=len(labels))
    found = grading.score_auc(scores, labels, groups=groups)
    texts = grading.score_auc(scores, labels, groups=np.arange(len(labels)))
    assert found.high - found.low > 3 * (texts.high - texts.low)


def test_scores_that_say_nothing_have_an_area_of_one_half(rng):
    labels, groups = design(items=10, samples=4)
    drawn = [
        grading.score_auc(
            # what an item is like says nothing of steering
            rng.normal(size=10)[groups] + rng.normal(size=80),
            labels,
            groups=groups,
            resamples=300,
        )
        for _ in range(60)
    ]
    assert np.mean([x.value for x in drawn]) == pytest.approx(0.5, abs=0.02)
    assert np.mean([x.p < 0.1 for x in drawn]) < 0.2
    assert np.mean([x.low <= 0.5 <= x.high for x in drawn]) > 0.85


def sentences(rng, labels, groups, *, telling):
    """Sentences of words of their item and of common ones; steered ones are gloomy if telling."""
    common = [f"word{n}" for n in range(30)]
    moods = [["gloom", "dread"] if telling and label else [] for label in labels]
    return [
        " ".join(rng.permutation([*rng.choice(common, 8), f"item{group}", *mood]))
        for mood, group in zip(moods, groups, strict=True)
    ]


def test_words_that_steering_brings_are_found_in_items_held_out(rng):
    labels, groups = design()
    found = grading.text_auc(sentences(rng, labels, groups, telling=True), labels, groups)
    assert found.value > 0.95 and found.low > 0.9 and found.p < 0.001 and found.n == 144


def test_words_of_the_items_do_not_tell_steering(rng):
    labels, groups = design()
    drawn = [
        grading.text_auc(sentences(rng, labels, groups, telling=False), labels, groups)
        for _ in range(4)
    ]
    assert np.mean([x.value for x in drawn]) == pytest.approx(0.5, abs=0.08)
    assert sum(x.low <= 0.5 <= x.high for x in drawn) >= 3
    # each item has a word for steering of its own, which helps only where its texts were seen
    texts = [f"hello item{group}mood{label}" for label, group in zip(labels, groups, strict=True)]
    own = grading.text_auc(texts, labels, groups)
    leaky = grading.text_auc(texts, labels, rng.permutation(groups))
    assert own.value == pytest.approx(0.5, abs=0.05) and leaky.value > 0.9


def test_curves_need_both_labels_and_groups():
    with pytest.raises(BadInput, match="some of each"):
        grading.score_auc([1, 2], [1, 1], groups=[0, 1])
    with pytest.raises(BadInput, match="at least two of them different"):
        grading.score_auc([1, 2], [0, 1], groups=[0, 0])
    with pytest.raises(BadInput, match="as many scores, all of them numbers"):
        grading.score_auc([1, np.nan], [0, 1], groups=[0, 1])
    with pytest.raises(BadInput, match="3 texts need as many labels, not 2"):
        grading.text_auc(["a", "b", "c"], [0, 1], [0, 1])

"""Two models read with the same vectors, on planted residual streams; the packaged one once."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from emotion_concepts import tracing
from emotion_concepts.assistant_prompts import load_assistant_prompts
from emotion_concepts.errors import BadInput
from emotion_concepts.experiments import posttraining
from emotion_concepts.experiments.posttraining import Comparison, compare_models
from emotion_concepts.geometry import unit
from emotion_concepts.stats import pearson
from emotion_concepts.vectors import EmotionVectors


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def vectors_of(directions):
    """Vectors with these directions ``[emotions, n_layers, d_model]``."""
    n, layers, width = directions.shape
    return EmotionVectors(
        tuple(f"emotion {k}" for k in range(n)),
        unit(directions).astype(np.float32),
        np.ones((n, layers)),
        np.zeros((layers, width)),
        np.zeros(layers, dtype=int),
        np.ones(layers),
    )


def compared(base, post, directions):
    """A comparison whose first third of prompts is neutral."""
    n = len(base)
    sets = np.where(np.arange(n) < n / 3, "neutral", "challenging")
    prompts = pd.DataFrame({"set": sets, "kind": "any", "text": [f"text {k}" for k in range(n)]})
    return Comparison(base, post, vectors_of(directions), prompts)


# --- reading two models ------------------------------------------------------------------------


def test_readings_are_cosines_and_the_shift_is_post_less_base(rng):
    base, post = rng.normal(size=(2, 6, 3, 8))
    directions = rng.normal(size=(4, 3, 8))
    comparison = compared(base, post, directions)
    found = comparison.readings(1)
    for side, read in zip((base, post), found, strict=True):
        for k in range(6):
            x, v = side[k, 1], directions[:, 1]
            cosines = v @ x / (np.linalg.norm(x) * np.linalg.norm(v, axis=1))
            np.testing.assert_allclose(read[k], cosines, atol=1e-6)
    np.testing.assert_allclose(comparison.shift(1), found[1] - found[0], atol=1e-12)
    # a set has its rows alone
    np.testing.assert_allclose(comparison.shift(1, "neutral"), comparison.shift(1)[:2])
    np.testing.assert_allclose(comparison.shift(1, "challenging"), comparison.shift(1)[2:])


def test_an_unknown_set_is_refused_with_a_suggestion(rng):
    comparison = compared(*rng.normal(size=(2, 6, 1, 8)), rng.normal(size=(4, 1, 8)))
    with pytest.raises(BadInput, match="no prompts of set 'neutrl'; did you mean neutral"):
        comparison.shift(0, "neutrl")


@pytest.fixture(scope="module")
def messages():
    return load_assistant_prompts().groupby("set").head(2)


@pytest.mark.model
def test_a_model_does_not_differ_from_itself_and_the_form_is_read(smollm, messages, rng, own_cache):
    vectors = vectors_of(rng.normal(size=(5, 30, 576)))
    found = {
        form: compare_models(smollm, smollm, vectors, messages, form=form)
        for form in posttraining.FORMS
    }
    for form, comparison in found.items():
        assert comparison.base.shape == (4, 30, 576)
        assert all((comparison.shift(layer) == 0).all() for layer in range(30))
        assert comparison.prompts.text.tolist() == messages.text.tolist()
        assert len(comparison.shift(3, "challenging")) == 2
        # read at the last token before the reply
        text = posttraining.as_prompts(smollm, messages.text[:1], form)[0]
        [tokens] = tracing.token_residuals(smollm, [text], [20])
        np.testing.assert_allclose(comparison.base[0, 20], tokens[-1, 0], atol=2e-3)
    chat, transcript = (found[form].readings(20)[0] for form in posttraining.FORMS)
    assert np.abs(chat - transcript).max(1).min() > 0.001


@pytest.mark.model
def test_prompts_end_where_the_reply_begins(smollm):
    [chat] = posttraining.as_prompts(smollm, ["Is it late?"], "chat")
    assert chat.endswith("<|im_start|>assistant\n") and "Is it late?" in chat
    [plain] = posttraining.as_prompts(smollm, ["Is it late?"], "transcript")
    assert plain == "Human: Is it late?\n\nAssistant:"


@pytest.mark.model
def test_models_or_vectors_of_another_shape_and_unknown_forms_are_refused(smollm, messages, rng):
    vectors = vectors_of(rng.normal(size=(5, 30, 576)))
    other = SimpleNamespace(n_layers=24, d_model=576, identity=SimpleNamespace(name="org/other"))
    with pytest.raises(BadInput, match="'org/other' have different shapes .*30 layers.*24 of 576"):
        compare_models(smollm, other, vectors, messages)
    with pytest.raises(BadInput, match="vectors have another shape"):
        compare_models(smollm, smollm, vectors_of(rng.normal(size=(5, 24, 576))), messages)
    with pytest.raises(BadInput, match="no form 'transcrip'; did you mean transcript"):
        compare_models(smollm, smollm, vectors, messages, form="transcrip")


@pytest.mark.model
def test_the_probability_of_words_is_the_sum_of_theirs(smollm):
    prompts = ["The weather today is", "She felt very"]
    tokens = [smollm.tokenizer(word)["input_ids"][0] for word in (" happy", " cold")]
    found = posttraining.word_logprobs(smollm, prompts, tokens)
    assert found.shape == (2,)
    for prompt, value in zip(prompts, found, strict=True):
        with torch.no_grad():
            logits = smollm.envoy._module(torch.tensor([smollm.tokenizer(prompt)["input_ids"]]))
        p = logits.logits[0, -1].double().softmax(-1)[tokens]
        assert value == pytest.approx(float(p.sum().log()), abs=1e-3)
        assert value > float(p.max().log()) + 1e-4


# --- the two profiles, and the shift between them ----------------------------------------------


def test_a_planted_correlation_lies_in_its_interval(rng):
    inside, width = [], []
    for seed in range(40):
        a = rng.normal(size=171)
        b = 0.6 * a + 0.8 * rng.normal(size=171)
        truth = pearson(a, b)
        sides = [side + 0.5 * rng.normal(size=(60, 171)) for side in (a, b)]
        found = posttraining.profile_agreement(*sides, paired=False, resamples=400, seed=seed)
        assert found.n == 171 and found.low < found.high < 1
        inside.append(found.low < truth < found.high)
        width.append(found.high - found.low)
        assert found.low < found.value < found.high
    assert np.mean(inside) > 0.8 and np.mean(width) < 0.05


def test_noise_does_not_push_an_interval_off_its_value(rng):
    """Resampled means are noisier than the means, so that they correlate less."""
    sides = rng.normal(size=171) + 3 * rng.normal(size=(2, 20, 171))
    found = posttraining.profile_agreement(*sides, paired=True)
    assert 0.3 < found.value < 0.9 and found.low < found.value < found.high


def test_the_same_prompts_are_resampled_together(rng):
    a = rng.normal(size=171) + 3 * rng.normal(size=(20, 171))
    same = posttraining.profile_agreement(a, a, paired=True)
    assert (same.value, same.low, same.high) == pytest.approx((1, 1, 1))
    # drawn apart, as many prompts make an interval
    apart = posttraining.profile_agreement(a, a, paired=False)
    assert apart.high - apart.low > 0.1
    with pytest.raises(BadInput, match="20 and 19 prompts make no pairs"):
        posttraining.profile_agreement(a, a[:-1], paired=True)


def test_other_prompts_may_be_of_another_number(rng):
    profile = rng.normal(size=50)
    sides = [profile + 0.1 * rng.normal(size=(n, 50)) for n in (30, 60)]
    found = posttraining.profile_agreement(*sides, paired=False)
    assert 0.97 < found.low < found.value < found.high < 1


def test_a_steady_shift_is_reliable_and_noise_is_not(rng):
    shift = rng.normal(size=171)
    steady = posttraining.split_half(shift + 0.3 * rng.normal(size=(60, 171)))
    assert 0.98 < steady.low <= steady.value <= steady.high <= 1 and steady.n == 60
    noise = [posttraining.split_half(rng.normal(size=(60, 171))).value for _ in range(30)]
    assert abs(np.mean(noise)) < 0.1 and np.max(np.abs(noise)) < 0.6


def test_reliability_is_that_of_all_prompts_and_grows_with_them(rng):
    shift = rng.normal(size=171)

    def prompts(n):
        return shift + 6 * rng.normal(size=(n, 171))

    found = {n: posttraining.split_half(prompts(n)).value for n in (12, 36, 144)}
    assert found[12] + 0.1 < found[36] < found[144] - 0.1
    # as two whole experiments of so many prompts agree
    twice = [pearson(prompts(36).mean(0), prompts(36).mean(0)) for _ in range(20)]
    assert found[36] == pytest.approx(np.mean(twice), abs=0.12)


def test_noise_in_few_directions_gives_no_absurd_reliability(rng):
    """Profiles that vary in two directions alone correlate near -1 in many splits."""
    noise = [rng.normal(size=(60, 2)) @ rng.normal(size=(2, 171)) for _ in range(10)]
    found = [posttraining.split_half(shift) for shift in noise]
    assert min(one.low for one in found) < -0.99 and min(one.value for one in found) < -0.5
    assert all(-1 <= one.low < one.value < one.high <= 1 for one in found)


def test_planted_movers_are_found_and_sorted(rng):
    planted = np.zeros(40)
    planted[[3, 7, 11]] = 0.3, 0.2, 0.1
    planted[[5, 20]] = -0.3, -0.2
    names = [f"emotion {k}" for k in range(40)]
    table = posttraining.movers(planted + 0.2 * rng.normal(size=(120, 40)), names)
    assert table.emotion[:3].tolist() == ["emotion 3", "emotion 7", "emotion 11"]
    assert table.emotion[-2:].tolist() == ["emotion 20", "emotion 5"]
    assert table["shift"].is_monotonic_decreasing
    moved = table.set_index("emotion").moved
    assert moved[[names[k] for k in np.flatnonzero(planted)]].all() and moved.sum() <= 7
    truth = table.emotion.map(dict(zip(names, planted, strict=True)))
    assert ((table.low < table["shift"]) & (table["shift"] < table.high)).all()
    assert ((table.low < truth) & (truth < table.high)).mean() > 0.85


def test_noise_seldom_moves(rng):
    names = [f"emotion {k}" for k in range(171)]
    tables = [
        posttraining.movers(rng.normal(size=(40, 171)), names, resamples=50) for _ in range(40)
    ]
    assert np.mean([table.moved.any() for table in tables]) < 0.15
    # uncorrected, almost every run would have some
    assert np.mean([(table.p < 0.05).any() for table in tables]) > 0.9


def test_nothing_moves_between_equal_models():
    shift = np.zeros((10, 3))
    assert not posttraining.movers(shift, list("abc")).moved.any()
    shift[:, 1] = np.linspace(0.9, 1.1, 10)
    found = posttraining.movers(shift, list("abc"))
    assert found.moved.tolist() == [True, False, False] and found.emotion[0] == "b"
    assert found.p[1:].tolist() == [1, 1]


# --- displacements by lot ----------------------------------------------------------------------


def test_a_displacement_by_lot_is_as_long_as_the_mean_one_and_where_texts_differ(rng):
    """Texts that differ along one axis leave two lots, whose shifts can be reckoned."""
    base = np.zeros((9, 1, 4))
    base[:, 0, 0], base[:, 0, 1] = np.linspace(-1, 2, 9), 5.0
    mean = np.array([0, 0, 3.0, 4.0])  # of length 5, somewhere else
    apart = 7 * rng.normal(size=(9, 1, 4))
    post = base + mean + apart - apart.mean(0)  # single prompts move much further
    comparison = compared(base, post, np.eye(4)[:, None])
    null = posttraining.random_displacements(comparison, 0, draws=100)
    assert null.shape == (100, 4)
    x, lot = base[:, 0], np.array([5.0, 0, 0, 0])
    expected = np.stack([(unit(x + side * lot) - unit(x)).mean(0) for side in (1, -1)])
    which = np.sign(null[:, 0])
    assert 30 < (which > 0).sum() < 70
    np.testing.assert_allclose(null, np.where(which[:, None] > 0, *expected), atol=1e-9)
    assert (null[:, 2:] == 0).all()


def test_a_seed_fixes_the_lots(rng):
    base, post = rng.normal(size=(2, 8, 2, 6))
    comparison = compared(base, post, rng.normal(size=(5, 2, 6)))
    null = posttraining.random_displacements(comparison, 1, draws=5)
    again = posttraining.random_displacements(comparison, 1, draws=5, seed=0)
    np.testing.assert_array_equal(null, again)
    other = posttraining.random_displacements(comparison, 1, draws=5, seed=1)
    assert (null != other).all()


WIDTH = 24


def rated(rng):
    """Base prompts, ratings, and directions that hold them along one axis."""
    axis = unit(rng.normal(size=WIDTH))
    ratings = rng.normal(size=60)
    directions = ratings[:, None] * axis + 0.3 * rng.normal(size=(60, WIDTH))
    base = 3 * rng.normal(size=WIDTH) + rng.normal(size=(20, WIDTH)) * rng.uniform(1, 3, WIDTH)
    return base[:, None], ratings, directions[:, None], axis


def rating_test(rng, base, lot, ratings, directions, draws=99):
    own = 0.5 * rng.normal(size=base.shape)
    comparison = compared(base, base + lot + own - own.mean(0), directions)
    null = posttraining.random_displacements(comparison, 0, draws=draws)
    shift = comparison.shift(0).mean(0)
    return posttraining.against_ratings(shift, null, {"valence": ratings})["valence"]


def test_a_displacement_drawn_like_the_lots_has_any_p(rng):
    p = []
    for _ in range(120):
        base, ratings, directions, _ = rated(rng)
        flat = base[:, 0] - base[:, 0].mean(0)
        lot = 4 * unit(rng.normal(size=len(flat)) @ flat)
        found = rating_test(rng, base, lot, ratings, directions)
        assert found.low <= found.value <= found.high and found.n == 60
        p.append(found.p)
    assert 0.42 < np.mean(p) < 0.58
    assert 0.03 < np.mean(np.array(p) < 0.1) < 0.18
    assert 0.03 < np.mean(np.array(p) > 0.9) < 0.18


@pytest.mark.parametrize("sign", [1, -1])
def test_a_displacement_towards_what_is_rated_high_is_found(rng, sign):
    for _ in range(5):
        base, ratings, directions, axis = rated(rng)
        ratings = np.where(np.arange(60) < 10, np.nan, ratings)  # some have no rating
        found = rating_test(rng, base, sign * 8 * axis, ratings, directions, draws=499)
        assert sign * found.value > 0.8 and found.excludes_zero
        assert found.p < 0.05 and found.n == 50


# --- layers ------------------------------------------------------------------------------------


def test_layers_tell_how_far_and_where_the_profile_moves(rng):
    base = 5 * rng.normal(size=16) + rng.normal(size=(12, 5, 16))
    directions = np.repeat(rng.normal(size=(30, 1, 16)), 5, axis=1)
    push, other = 4 * rng.normal(size=(2, 16))
    moves = np.stack([np.zeros(16), push / 8, push, other, np.zeros(16)])
    found = posttraining.by_layer(compared(base, base + moves, directions))
    assert found.layer.tolist() == [0, 1, 2, 3, 4]
    assert found["size"][0] == found["size"][4] == 0 < found["size"][1] < found["size"][2] / 2
    assert pd.isna(found.neighbour[0]) and found.neighbour[1:].notna().all()
    assert found.neighbour[2] > 0.8 > 0.6 > abs(found.neighbour[3])
    assert found.agreement[0] == pytest.approx(1) and found.agreement[2] < found.agreement[1] < 1
    shift = compared(base, base + moves, directions).shift(2).mean(0)
    assert found["size"][2] == pytest.approx(np.linalg.norm(shift) / np.sqrt(30))


# --- several arms of training ------------------------------------------------------------------


def test_a_gain_is_an_options_change_less_the_mean_change_of_the_others():
    before = np.array([[-3.0, -2.0, -1.0], [-1.0, -1.0, -1.0]])
    after = before + np.array([[1.0, 0.0, 0.5], [2.0, 2.0, 2.0]])
    np.testing.assert_allclose(
        posttraining.gains(before, after), [[0.75, -0.75, 0.0], [0.0, 0.0, 0.0]]
    )


def test_what_two_arms_became_is_compared_from_the_one_to_the_other(rng):
    base, a, b = rng.normal(size=(3, 6, 2, 8))
    directions = rng.normal(size=(4, 2, 8))
    one, two = (compared(base, side, directions) for side in (a, b))
    both = posttraining.between(one, two)
    np.testing.assert_allclose(both.shift(1), two.shift(1) - one.shift(1), atol=1e-6)


def test_an_arm_is_most_like_itself_only_if_it_does_something_of_its_own(rng):
    own = {name: rng.normal(size=40) for name in ("warm", "cold")}
    noise = {name: rng.normal(size=(60, 40)) for name in ("warm", "cold", "twin")}
    moves = own | {"twin": own["cold"]}
    shifts = {name: moves[name] + noise[name] for name in moves}
    table, first = posttraining.likeness(shifts, splits=100)
    assert list(table) == list(table.index) == list(first.index) == ["warm", "cold", "twin"]
    assert first["warm"] == 1 and table.loc["warm", "warm"] > 0.9
    # cold and twin do the same: which is more like cold is chance of the halves
    assert first["cold"] < 0.95 and first["twin"] < 0.95
    assert abs(table.loc["cold", "twin"] - table.loc["cold", "cold"]) < 0.05
    assert abs(table.loc["warm", "cold"]) < 0.4
    again, _ = posttraining.likeness(shifts, splits=100)
    pd.testing.assert_frame_equal(again, table)


@pytest.mark.model
def test_perplexity_is_held_to_the_model_as_it_was(smollm, monkeypatch):
    texts = ["The bus stops at the corner at nine.", "Two cups stand on the shelf by the door."]
    assert posttraining.perplexity_ratio(smollm, smollm, texts) == 1.0
    known = iter(
        tracing.ContinuationScores(np.array(total), np.array([4, 6]))
        for total in ([-8.0, -12.0], [-10.0, -15.0])
    )
    monkeypatch.setattr(posttraining, "continuation_logprobs", lambda *_: next(known))
    assert posttraining.perplexity_ratio(None, None, texts) == pytest.approx(np.exp(0.5))


# --- expression against representation ---------------------------------------------------------

EMOTIONS = np.array(["calm", "afraid", "proud", "bitter"])


def design(groups, each):
    """The emotion and group of each text of a crossed design, in no order."""
    own = np.tile(np.repeat(EMOTIONS, each), groups)
    held = np.repeat(np.arange(groups), each * len(EMOTIONS))
    order = np.random.default_rng(1).permutation(len(own))
    return own[order], held[order]


def test_separate_clusters_are_refitted_perfectly_and_noise_by_chance(rng):
    own, groups = design(groups=10, each=15)
    noise = rng.normal(size=(len(own), 20))
    place = dict(zip(EMOTIONS, 3 * rng.normal(size=(4, 20)), strict=True))
    clusters = np.stack([place[name] for name in own])
    hits = posttraining.named_by_centroids(100 + clusters + noise, own, groups)
    assert hits.shape == own.shape and hits.all()
    assert posttraining.named_by_centroids(noise, own, groups).mean() == pytest.approx(
        0.25, abs=0.06
    )
    # one emotion's texts elsewhere: their own hits and nobody else's are lost
    astray = np.where((own == "calm")[:, None], 0, clusters) + 0.1 * noise
    astray[(own == "calm") & (groups == 4)] = place["proud"]
    hits = posttraining.named_by_centroids(astray, own, groups)
    assert ((hits == 0) == ((own == "calm") & (groups == 4))).all()


def test_a_group_that_is_held_out_teaches_nothing_about_itself(rng):
    """Emotions differ within each group, each time in another way."""
    own, groups = design(groups=8, each=3)
    place = {cell: rng.normal(size=1500) for cell in zip(own, groups, strict=True)}
    texts = np.stack([place[cell] for cell in zip(own, groups, strict=True)])
    texts += 0.1 * rng.normal(size=texts.shape)
    assert posttraining.named_by_centroids(texts, own, groups).mean() < 0.4
    # with their like in another group they are known
    twins = np.concatenate([groups, groups + 8])
    assert posttraining.named_by_centroids(np.tile(texts, (2, 1)), np.tile(own, 2), twins).all()


def test_an_emotion_of_one_group_alone_is_refused(rng):
    own, groups = np.array(["calm", "afraid", "calm", "afraid", "proud"]), np.array([0, 0, 1, 1, 1])
    with pytest.raises(BadInput, match="'proud' stands in one group alone; give it texts in"):
        posttraining.named_by_centroids(rng.normal(size=(5, 8)), own, groups)

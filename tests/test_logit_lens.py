"""The logit lens and its score, on planted vocabularies: an effect is found, and chance is not."""

import numpy as np
import pytest

from emotion_concepts import corpus, logit_lens
from emotion_concepts.errors import BadInput
from emotion_concepts.geometry import unit

N, D, VOCAB = 30, 64, 2000


def planted(strength, rng, *, per_family=3):
    """Return logits of directions and families whose tokens lean towards their direction."""
    directions = rng.normal(size=(N, D))
    unembedding = rng.normal(size=(VOCAB, D))
    families = np.arange(N * per_family).reshape(N, per_family)
    unembedding[families] += strength * directions[:, None]
    return unit(directions) @ unit(unembedding).T, families.tolist()


def by_statistic(scores, **options):
    return logit_lens.family_test(scores, **options).set_index("statistic")


# --- logit lens --------------------------------------------------------------------------------


def test_the_lens_lists_what_a_direction_raises_and_lowers_strongest_first():
    logits = np.array([[3.0, 2, 0, -2, -3]])
    lens = logit_lens.logit_lens(logits, ["sad"], list("abcde"), k=2)
    assert lens.emotion.tolist() == ["sad"]
    assert lens.top[0] == ["a", "b"] and lens.bottom[0] == ["e", "d"]


# --- families of tokens ------------------------------------------------------------------------


def test_a_token_counts_if_it_is_a_whole_word_of_the_family_whatever_its_case_and_marker():
    tokens = ["sad", " Sad", "Ġsadness", "▁SADLY", "sadd", " sadist", "-sad", "", " "]
    families = {"sad": corpus.word_family("sad")}
    assert logit_lens.family_tokens(["sad"], tokens, families) == (["sad"], [[0, 1, 2, 3]])


def test_emotions_without_a_single_token_are_left_out_and_the_order_is_kept():
    names = ["sad", "at ease", "smug", "calm"]
    families = {name: corpus.word_family(name) for name in corpus.EMOTIONS}
    kept, ids = logit_lens.family_tokens(names, [" calm", " sad", " at", " ease"], families)
    assert kept == ["sad", "calm"] and ids == [[1], [0]]


def test_no_token_is_in_two_families_and_a_name_belongs_to_its_own():
    families = {name: corpus.word_family(name) for name in corpus.EMOTIONS}
    tokens = sorted({word for words in families.values() for word in words})
    kept, ids = logit_lens.family_tokens(corpus.EMOTIONS, tokens, families)
    everything = [token for family in ids for token in family]
    assert len(everything) == len(set(everything)) > 1000
    found = {n: {tokens[t] for t in family} for n, family in zip(kept, ids, strict=True)}
    assert found["hope"] == {"hope"} and found["hopeful"] == {"hopeful"}
    assert "unhappy" in found["unhappy"] and "happiness" in found["happy"]
    assert not found["happy"] & {"unhappy", "unhappiness"}


def test_names_without_a_family_and_vocabularies_without_a_word_are_reported():
    with pytest.raises(BadInput, match="no family for calm"):
        logit_lens.family_tokens(["sad", "calm"], [" sad"], {"sad": {"sad"}})
    with pytest.raises(BadInput, match="no word of any family is a single token"):
        logit_lens.family_tokens(["sad"], ["s", "ad"], {"sad": {"sad"}})


# --- scores ------------------------------------------------------------------------------------


def test_a_score_is_the_mean_standardised_logit_of_the_familys_tokens():
    logits, families = planted(0.3, np.random.default_rng(0))
    scores = logit_lens.family_scores(logits, families)
    z = (logits[4] - logits[4].mean()) / logits[4].std()
    assert scores.shape == (N, N)
    assert scores[4, 7] == pytest.approx(z[families[7]].mean())
    np.testing.assert_allclose(
        logit_lens.family_scores(9 * logits - 2, families), scores, atol=1e-9
    )


def test_an_empty_or_missing_family_is_reported():
    logits, families = planted(0, np.random.default_rng(0))
    for wrong in (families[1:], [[], *families[1:]]):
        with pytest.raises(BadInput, match="30 directions need as many families, none of them"):
            logit_lens.family_scores(logits, wrong)


# --- test --------------------------------------------------------------------------------------


def test_a_planted_effect_is_found_by_all_three_statistics():
    scores = logit_lens.family_scores(*planted(0.3, np.random.default_rng(1)))
    found = by_statistic(scores, permutations=1000)
    assert (found.p < 0.01).all() and (found.n == N).all()
    assert (found.low > found.high_null).all() and (found.low <= found.value).all()
    assert found.value["top1"] > 0.5 and found.value["rank"] > 0.9
    others = (scores.sum() - scores.trace()) / (N * N - N)
    assert found.value["difference"] == pytest.approx(scores.diagonal().mean() - others)


def test_without_an_effect_p_is_uniform_and_values_are_at_chance():
    rng = np.random.default_rng(2)
    found = [by_statistic(rng.normal(size=(N, N)), permutations=200, seed=s) for s in range(60)]
    for name, chance, tolerance in (("top1", 1 / N, 0.015), ("rank", 0.5, 0.02)):
        assert np.mean([f.value[name] for f in found]) == pytest.approx(chance, abs=tolerance)
    for name in ("rank", "difference"):
        p = np.array([f.p[name] for f in found])
        assert 0.3 < p.mean() < 0.7 and (p < 0.1).mean() <= 0.25


def test_a_family_that_is_high_on_every_direction_is_no_effect():
    scores = np.random.default_rng(3).normal(size=(N, N))
    scores[:, 5] += 10
    found = by_statistic(scores, permutations=1000)
    assert found.value["top1"] == pytest.approx(1 / N) == found.low_null["top1"]
    assert found.p["top1"] == 1 and found.p["difference"] > 0.05


def test_directions_that_raise_another_emotions_words_are_below_chance():
    scores = np.roll(np.eye(N), 1, axis=1) - np.eye(N)
    found = by_statistic(scores, permutations=500)
    assert found.value["top1"] == 0 == found.value["rank"]
    assert found.value["difference"] < -1 and (found.p > 0.9).all()


def test_families_of_the_same_tokens_tie_so_that_neither_ranks_first():
    """Why family_tokens keeps families apart: identical ones would hide a perfect effect."""
    scores = np.eye(6)
    scores[:2, :2] = 1
    found = by_statistic(scores, permutations=100)
    assert found.value["top1"] == pytest.approx(4 / 6)
    assert found.value["rank"] == pytest.approx((4 + 2 * 0.9) / 6)


def test_the_seed_decides_interval_and_null():
    scores = np.random.default_rng(4).normal(size=(N, N))
    first, again, other = (by_statistic(scores, permutations=300, seed=s) for s in (0, 0, 1))
    assert first.equals(again)
    assert not np.allclose(first.low_null, other.low_null)
    assert (first.value == other.value).all()


@pytest.mark.parametrize("shape", [(4, 5), (2, 2)])
def test_scores_that_are_not_square_or_too_few_are_reported(shape):
    with pytest.raises(BadInput, match="scores must be square, at least"):
        logit_lens.family_test(np.zeros(shape))

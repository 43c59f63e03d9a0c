import numpy as np
import pytest

from emotion_concepts import stats
from emotion_concepts.errors import BadInput

RNG = np.random.default_rng(0)


def test_the_crossed_interval_holds_the_truth_about_as_often_as_it_says():
    """Simulated topics and emotions with effects of their own; truth .5."""
    inside = 0
    for n in range(200):
        rng = np.random.default_rng(n)
        table = 0.5 + 0.1 * (rng.normal(size=(10, 1)) + rng.normal(size=(1, 40)))
        found = stats.crossed_mean(table + 0.3 * rng.normal(size=(10, 40)), resamples=400, seed=n)
        inside += found.low <= 0.5 <= found.high
    assert 0.85 < inside / 200 <= 1


def test_topics_widen_the_interval():
    """The same scatter is less certain when it comes from ten topics than from 400 stories."""
    by_topic = np.repeat(RNG.normal(size=(10, 1)), 40, axis=1)
    wide = stats.crossed_mean(by_topic)
    narrow = stats.crossed_mean(RNG.permutation(by_topic.ravel()).reshape(10, 40))
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_a_correlation_comes_with_its_interval_and_p():
    x = RNG.normal(size=45)
    found = stats.correlation(x, x + RNG.normal(size=45))
    assert found.low < found.value < found.high
    assert found.n == 45 and found.p < 0.01 and found.excludes_zero


def test_unrelated_samples_give_uniform_p_values():
    p = []
    for n in range(100):
        rng = np.random.default_rng(n)
        p.append(stats.correlation(*rng.normal(size=(2, 20)), resamples=200, seed=n).p)
    assert 0.01 <= np.mean(np.array(p) < 0.1) <= 0.22


def test_correlations_without_variation_or_pairs_are_refused():
    with pytest.raises(BadInput, match="four varying pairs"):
        stats.correlation(np.ones(10), RNG.normal(size=10))
    with pytest.raises(BadInput, match="there are 3"):
        stats.correlation(np.arange(3), np.arange(3))


def test_samples_without_pairs_or_with_holes_are_not_correlated():
    x = RNG.normal(size=10)
    with pytest.raises(BadInput, match=r"not \[10\] and \[9\] with 0 that are NaN"):
        stats.correlation(x, x[1:])
    with pytest.raises(BadInput, match="with 1 that are NaN"):
        stats.correlation(x, np.where(x == x.max(), np.nan, x))


@pytest.mark.parametrize("p", [stats.exceedance_p, stats.permutation_p])
def test_what_is_not_a_number_gets_no_p(p):
    for observed, null in ((np.nan, [0.0, 1.0]), (0.5, [np.nan, 1.0])):
        with pytest.raises(BadInput, match="no p of what is not a number"):
            p(observed, np.array(null))


def test_signs_of_pairs_are_flipped():
    rng = np.random.default_rng(0)
    # of the eight ways to sign three ones, two have a mean as far from zero
    assert stats.sign_flip_p(np.ones(3), resamples=4000) == pytest.approx(2 / 8, abs=0.03)
    assert stats.sign_flip_p(-np.ones(3)) == stats.sign_flip_p(np.ones(3))
    assert stats.sign_flip_p(np.array([1.0, -1.0])) == 1
    assert stats.sign_flip_p(1 + rng.normal(size=30)) < 0.01
    p = [stats.sign_flip_p(rng.normal(size=12), resamples=200) for _ in range(200)]
    assert 0.02 < np.mean(np.array(p) < 0.1) < 0.18 and 0.4 < np.mean(p) < 0.6


def test_one_observation_has_no_interval():
    with pytest.raises(BadInput, match="at least two observations, not 1"):
        stats.bootstrap(np.mean, np.ones(1))


def test_what_never_varies_correlates_with_nothing_however_it_is_shuffled():
    assert (stats.permuted_correlations(np.eye(4), np.ones(4), resamples=10) == 0).all()
    assert (stats.permuted_correlations(np.ones((4, 2)), np.arange(4), resamples=10) == 0).all()


def test_permuted_correlations_match_numpy_on_one_shuffle():
    x, y = RNG.normal(size=(12, 3)), RNG.normal(size=12)
    null = stats.permuted_correlations(x, y, resamples=50, seed=3)
    assert null.shape == (50, 3)
    assert np.abs(null.mean()) < 0.1
    np.testing.assert_allclose(
        stats.column_correlations(x, y), [np.corrcoef(c, y)[0, 1] for c in x.T]
    )


def test_seeds_fix_every_interval():
    x = RNG.normal(size=(2, 30))
    assert stats.correlation(*x, seed=5) == stats.correlation(*x, seed=5)
    assert stats.correlation(*x, seed=5) != stats.correlation(*x, seed=6)


def test_what_is_left_of_a_difference_where_a_covariate_is_zero():
    rng = np.random.default_rng(0)
    words = rng.normal(1, 0.5, 60)
    only_words = 2 * words + 0.1 * rng.normal(size=60)
    none = stats.adjusted_mean(only_words, words, resamples=300)
    assert none.low < 0 < none.high and none.n == 60
    more = stats.adjusted_mean(only_words + 0.5, words, resamples=300)
    assert more.low > 0.3 and more.value == pytest.approx(0.5, abs=0.1)


def test_emotions_widen_the_interval_as_topics_do():
    rng = np.random.default_rng(0)
    by_emotion = np.repeat(rng.normal(size=(1, 10)), 40, axis=0)
    wide = stats.crossed_mean(by_emotion)
    narrow = stats.crossed_mean(rng.permutation(by_emotion.ravel()).reshape(40, 10))
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)

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

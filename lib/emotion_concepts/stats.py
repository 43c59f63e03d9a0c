"""Intervals and tests, thin over scipy.stats.

Every function takes arrays and a seed and returns an :class:`Estimate` or plain arrays. What is
tested, and against which control, is decided in `experiments` and in the chapters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.stats

from emotion_concepts.errors import BadInput


@dataclass(frozen=True)
class Estimate:
    """A number with its uncertainty.

    Attributes
    ----------
    value, low, high : float
        The estimate and its 95 % interval.
    n : int
        Observations behind it.
    p : float or None
        Where a test was made: two-sided of a `correlation`, otherwise as its maker says.

    Examples
    --------
    >>> found = Estimate(0.5, 0.25, 0.75, n=45, p=0.01)
    >>> print(found, found.excludes_zero)
    0.50 [0.25, 0.75] True
    """

    value: float
    low: float
    high: float
    n: int
    p: float | None = None

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def share(hits: int, n: int) -> Estimate:
    """Return hits / n with its Wilson interval, which takes the n as independent.

    >>> print(share(3, 4))
    0.75 [0.30, 0.95]
    """
    if n < 1:
        raise BadInput("there is no share of nothing; give n of at least 1")
    interval = scipy.stats.binomtest(int(hits), int(n)).proportion_ci(method="wilson")
    return Estimate(int(hits) / int(n), float(interval.low), float(interval.high), int(n))


def crossed_mean(table: np.ndarray, *, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Return the mean of a crossed table with an interval over both its factors.

    Topics and emotions are both resampled, since a result should hold for other topics and other
    emotions; resampling single stories would claim more certainty than a dozen topics can give.

    Parameters
    ----------
    table : ``[topics, emotions]``, e.g. hits (0 or 1) or differences of hits.

    Examples
    --------
    >>> crossed_mean(np.eye(4), seed=0).value
    0.25
    """
    table = np.asarray(table, dtype=float)
    topics, emotions = table.shape
    rng = np.random.default_rng(seed)
    rows = rng.multinomial(topics, np.full(topics, 1 / topics), resamples) / topics
    columns = rng.multinomial(emotions, np.full(emotions, 1 / emotions), resamples) / emotions
    draws = np.einsum("bt,te,be->b", rows, table, columns, optimize=True)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(float(table.mean()), float(low), float(high), table.size)


def bootstrap(
    statistic: Callable[..., np.ndarray],
    *samples: np.ndarray,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Return a statistic of paired samples with its percentile bootstrap interval.

    Parameters
    ----------
    statistic : callable
        Takes the samples and an ``axis`` keyword (vectorised), e.g. ``np.mean``.

    Raises
    ------
    BadInput
        For fewer than two observations, which leave nothing to resample.

    Examples
    --------
    >>> bootstrap(np.mean, np.arange(5.0)).value
    2.0
    """
    samples = tuple(np.asarray(sample, dtype=float) for sample in samples)
    if (n := min(map(len, samples))) < 2:
        raise BadInput(f"an interval takes at least two observations, not {n}")
    value = float(statistic(*samples, axis=-1))
    interval = scipy.stats.bootstrap(
        samples,
        statistic,
        paired=len(samples) > 1,
        vectorized=True,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(value, float(interval.low), float(interval.high), len(samples[0]))


def mean_interval(values: np.ndarray) -> Estimate:
    """Return a mean with its interval by Student's t.

    Percentiles of resampled means are too narrow for a dozen values; this is not.

    Raises
    ------
    BadInput
        For fewer than two values.

    Examples
    --------
    >>> print(mean_interval(np.arange(5.0)))
    2.00 [0.04, 3.96]
    """
    values = np.asarray(values, dtype=float)
    if values.size < 2:
        raise BadInput(f"an interval needs at least two values; there are {values.size}")
    half = scipy.stats.t.ppf(0.975, values.size - 1) * scipy.stats.sem(values)
    value = values.mean()
    return Estimate(float(value), float(value - half), float(value + half), values.size)


def correlation(x: np.ndarray, y: np.ndarray, *, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Return Pearson's r with a bootstrap interval over items and a permutation p.

    Raises
    ------
    BadInput
        For samples that are not of one length or hold NaN, fewer than four pairs, or a constant
        sample.

    Examples
    --------
    >>> print(correlation(np.arange(6), 2 * np.arange(6)))
    1.00 [1.00, 1.00]
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.shape != y.shape or np.isnan(x).any() or np.isnan(y).any():
        raise BadInput(
            f"a correlation needs pairs of numbers, not {list(x.shape)} and {list(y.shape)} with "
            f"{np.isnan(x).sum() + np.isnan(y).sum()} that are NaN; leave out what has no partner"
        )
    if len(x) < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        alike = "" if len(x) < 4 else ", all alike on one side"
        raise BadInput(f"a correlation needs four varying pairs; there are {len(x)}{alike}")
    estimate = bootstrap(pearson, x, y, resamples=resamples, seed=seed)
    null = permuted_correlations(x[:, None], y, resamples=resamples, seed=seed)[:, 0]
    return Estimate(
        estimate.value, estimate.low, estimate.high, len(x), permutation_p(estimate.value, null)
    )


def adjusted_mean(
    differences: np.ndarray, covariate: np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Return the mean difference that is left where a covariate is zero: the intercept of a line.

    Parameters
    ----------
    differences, covariate : ``[n]``
        The interval resamples pairs of them.

    Examples
    --------
    >>> covariate = np.arange(9.0)
    >>> round(adjusted_mean(3 + 2 * covariate, covariate).value, 6)
    3.0
    """
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(covariate), size=(resamples, len(covariate)))
    rests = [np.polyfit(covariate[n], differences[n], 1)[1] for n in drawn]
    low, high = np.quantile(rests, [0.025, 0.975])
    value = np.polyfit(covariate, differences, 1)[1]
    return Estimate(float(value), float(low), float(high), len(differences))


def pearson(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return Pearson's r along an axis, without interval or test.

    >>> float(pearson(np.array([1.0, 2.0, 3.0]), np.array([2.0, 1.0, 0.0])).round(6))
    -1.0
    """
    x = x - x.mean(axis, keepdims=True)
    y = y - y.mean(axis, keepdims=True)
    scale = np.sqrt((x**2).sum(axis) * (y**2).sum(axis))
    return (x * y).sum(axis) / np.maximum(scale, 1e-300)


def column_correlations(columns: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Pearson's r of each column of ``[n, k]`` with ``y [n]``, ``[k]``.

    >>> column_correlations(np.array([[1, 3], [2, 2], [3, 1]]), np.arange(3)).round(6).tolist()
    [1.0, -1.0]
    """
    return pearson(np.asarray(columns, dtype=float).T, np.asarray(y, dtype=float)[None])


def permuted_correlations(
    columns: np.ndarray, y: np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> np.ndarray:
    """Return ``[resamples, k]`` correlations of ``[n, k]`` columns with shuffled ``y``.

    With what does not vary every correlation is 0, as in :func:`pearson`.

    >>> permuted_correlations(np.eye(4), np.arange(4), resamples=10).shape
    (10, 4)
    """
    rng = np.random.default_rng(seed)
    columns = np.asarray(columns, dtype=float)
    columns = columns - columns.mean(0)
    columns = columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-300)
    y = np.asarray(y, dtype=float) - np.mean(y)
    y = y / np.maximum(np.linalg.norm(y), 1e-300)
    order = rng.permuted(np.tile(np.arange(len(y)), (resamples, 1)), axis=1)
    return y[order] @ columns


def permutation_p(observed: float, null: np.ndarray) -> float:
    """Return the two-sided p of an observed statistic, never 0; see :func:`exceedance_p`.

    >>> permutation_p(3.0, np.zeros(99)), permutation_p(-1.0, np.array([2.0, 0.5, -3.0]))
    (0.01, 0.75)
    """
    return exceedance_p(abs(observed), np.abs(null))


def exceedance_p(observed: float, null: np.ndarray) -> float:
    """Return the one-sided p that the null reaches the observed statistic, never 0.

    Raises
    ------
    BadInput
        If the statistic or one of the null is NaN, which would pass for one that is not reached.

    Examples
    --------
    >>> exceedance_p(3.0, np.array([1.0, 2.0, 4.0]))
    0.5
    """
    null = np.asarray(null, dtype=float)
    if np.isnan(observed) or np.isnan(null).any():
        raise BadInput("there is no p of what is not a number; leave out what was not measured")
    return float((1 + np.sum(null >= observed - 1e-12)) / (1 + null.size))


def sign_flip_p(differences: np.ndarray, *, resamples: int = 2000, seed: int = 0) -> float:
    """Return the two-sided p that paired differences have mean zero: their signs are flipped.

    >>> sign_flip_p(np.array([1.0, -1.0]))
    1.0
    """
    signs = np.random.default_rng(seed).choice([-1, 1], size=(resamples, len(differences)))
    return permutation_p(differences.mean(), (signs * differences).mean(1))


def spearman_brown(r: np.ndarray) -> np.ndarray:
    """Return the reliability of a whole from the correlation of its halves.

    Below zero it mirrors what it is above: the formula itself runs to minus infinity there.

    >>> spearman_brown(np.array([0.5, -0.5])).round(3).tolist()
    [0.667, -0.667]
    """
    r = np.asarray(r, dtype=float)
    return 2 * r / (1 + np.abs(r))


def holm(p: np.ndarray) -> np.ndarray:
    """Return p values adjusted for their number by Holm's step-down method.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted

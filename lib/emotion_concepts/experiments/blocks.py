"""Least squares within tasks: whole tasks are resampled, and what is left is shuffled inside them.

A task's sums of products are all that least squares needs of it, so that to resample tasks is to
add these up with other weights. `evenly` chooses where a run takes part of its tasks or texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.stats

from emotion_concepts.errors import BadInput, nearest
from emotion_concepts.stats import permutation_p


def evenly(rows, n: int):
    """Return n of the rows in their order, spread evenly, the first and the last among them.

    Parameters
    ----------
    rows : DataFrame, Series, array or sequence
    n : int
        1 gives the first.

    Returns
    -------
    DataFrame or Series, whichever was given, else list

    Raises
    ------
    BadInput
        For fewer than one row, or more than there are.

    Examples
    --------
    >>> evenly(range(10), 4)
    [0, 3, 6, 9]
    """
    if not 1 <= n <= len(rows):
        raise BadInput(f"{n} of {len(rows)} rows cannot be chosen; ask for 1 to {len(rows)}")
    where = np.linspace(0, len(rows) - 1, n).round().astype(int)
    if isinstance(rows, pd.DataFrame | pd.Series):
        return rows.iloc[where]
    return [rows[k] for k in where]


def within(
    runs: pd.DataFrame, factors: Sequence[str], *numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return columns and numbers less their tasks' means, sorted by task.

    Parameters
    ----------
    runs : DataFrame, n rows
        Column task and the k columns of `factors`.
    numbers : m arrays ``[n]``

    Returns
    -------
    tuple
        (factors ``[n, k]``, numbers ``[m, n]``, number of the task ``[n]``).

    Raises
    ------
    BadInput
        For missing columns, numbers of another length or not finite, a factor that varies in fewer
        than two tasks, or factors that cannot be told apart.

    Examples
    --------
    >>> tasks = ["bus_stops", "tide_tables", "bus_stops", "tide_tables"]
    >>> runs = pd.DataFrame({"task": tasks, "hostile": [1, 1, 0, 0]})
    >>> hostile, [odds], task = within(runs, ["hostile"], np.array([3.0, 11.0, 1.0, 9.0]))
    >>> odds.tolist(), hostile.ravel().tolist(), task.tolist()
    ([1.0, -1.0, 1.0, -1.0], [0.5, -0.5, 0.5, -0.5], [0, 0, 1, 1])
    """
    if missing := [name for name in ("task", *factors) if name not in runs]:
        raise BadInput(f"runs have no column {missing[0]!r}; {nearest(missing[0], runs.columns)}")
    for values in numbers:
        if np.shape(values) != (len(runs),) or not np.isfinite(values).all():
            raise BadInput(f"give one finite number a run, {len(runs)} in all")
    tasks = pd.factorize(runs.task)[0]
    order = np.argsort(tasks, kind="stable")
    rows = np.column_stack([runs[list(factors)].to_numpy(dtype=float), *numbers])[order]
    means = pd.DataFrame(rows).groupby(tasks[order]).transform("mean").to_numpy()
    columns, values = np.split(rows - means, [len(factors)], axis=1)
    for name, count in zip(factors, _varying(products(columns, tasks[order])).sum(0), strict=True):
        if count < 2:
            raise BadInput(f"{name!r} varies within {count} tasks; it takes at least two")
    if np.linalg.matrix_rank(columns) < len(factors):
        raise BadInput(f"{', '.join(factors)} go together, so that their effects cannot be split")
    return columns, values.T, tasks[order]


def products(columns: np.ndarray, tasks: np.ndarray) -> np.ndarray:
    """Return the sums of products of each task's rows, ``[tasks, k, k]``.

    >>> columns = np.array([[1.0, 3.0], [-1.0, -3.0], [2.0, 0.0], [-2.0, 0.0]])
    >>> products(columns, np.array([0, 0, 1, 1])).tolist()
    [[[2.0, 6.0], [6.0, 18.0]], [[8.0, 0.0], [0.0, 0.0]]]
    """
    parts = np.split(columns, np.flatnonzero(np.diff(tasks)) + 1)
    return np.stack([part.T @ part for part in parts])


def _varying(sums: np.ndarray) -> np.ndarray:
    """Return whether each column varies in a task, ``[tasks, k]``."""
    return np.diagonal(sums, axis1=1, axis2=2) > 1e-12


def slopes(sums: np.ndarray, k: int) -> np.ndarray:
    """Return the slopes ``[..., k]`` of the last column on the first k, from sums of products.

    >>> factor_and_odds = np.array([[0.5, 1.5], [-0.5, -1.5]])
    >>> slopes(products(factor_and_odds, np.zeros(2))[0], 1).round(6).tolist()
    [3.0]
    """
    return (np.linalg.pinv(sums[..., :k, :k], hermitian=True) @ sums[..., :k, -1:])[..., 0]


def resampled_tasks(
    sums: np.ndarray, k: int, *, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weights of tasks, and how many tasks and degrees of freedom each factor has.

    Tasks are drawn among those in which the same factors vary, since the design says how many
    there are of each: a sample without a warm task would have no effect of warmth.

    Parameters
    ----------
    sums : ``[tasks, columns, columns]``
        Of which the first k columns are the factors.

    Returns
    -------
    tuple
        (weights ``[resamples, tasks]``, tasks ``[k + 1]``, degrees of freedom ``[k + 1]``); the
        last are those of what varies in all tasks.

    Examples
    --------
    >>> sums = np.array([[[2.0]], [[2.0]], [[0.0]]])  # the factor varies in two of three tasks
    >>> weights, tasks, freedom = resampled_tasks(sums, 1, resamples=4, seed=0)
    >>> weights.shape, weights[:, 2].tolist()
    ((4, 3), [1.0, 1.0, 1.0, 1.0])
    >>> tasks.tolist(), freedom.tolist()
    ([2, 3], [1, 1])
    """
    rng = np.random.default_rng(seed)
    here = np.column_stack([_varying(sums)[:, :k], np.ones(len(sums), bool)])
    kinds, kind = np.unique(here, axis=0, return_inverse=True)
    weights = np.ones((resamples, len(sums)))
    for which in range(len(kinds)):
        mine = np.flatnonzero(kind.ravel() == which)
        weights[:, mine] = resampled(rng, len(mine), resamples)
    return weights, here.sum(0), here.sum(0) - kinds.sum(0)


def resampled(rng: np.random.Generator, n: int, resamples: int) -> np.ndarray:
    """Return weights ``[resamples, n]`` whose means vary as those of n things do.

    One fewer is drawn than there are: n of n would vary less, by (n - 1) / n, which matters for
    a handful.

    >>> values = np.arange(5.0)
    >>> means = resampled(np.random.default_rng(0), 5, 2000) @ values / 5
    >>> round(float(means.std()), 1), round(float(values.std(ddof=1) / np.sqrt(5)), 1)
    (0.7, 0.7)
    """
    if n == 1:
        return np.ones((resamples, 1))
    return rng.multinomial(n - 1, np.full(n, 1 / n), resamples) * n / (n - 1)


def interval(
    value: np.ndarray, drawn: np.ndarray, freedom: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the 95 % interval, low and high, and p, from draws ``[resamples, ...]``.

    Their spread by Student's t: percentiles of a few things end where these end.

    >>> [round(float(x), 2) for x in interval(3.0, np.array([2.0, 4.0]), 100)]
    [1.02, 4.98, 0.0]
    >>> [round(float(x), 2) for x in interval(3.0, np.array([2.0, 4.0]), 2)]
    [-1.3, 7.3, 0.1]
    """
    spread = drawn.std(0)
    half = scipy.stats.t.ppf(0.975, freedom) * spread
    p = 2 * scipy.stats.t.sf(np.abs(value) / np.maximum(spread, 1e-300), freedom)
    return value - half, value + half, p


def freedman_lane(
    columns: np.ndarray, y: np.ndarray, tasks: np.ndarray, *, resamples: int, seed: int
) -> np.ndarray:
    """Return p of each column ``[k]``; the statistic is its partial correlation with y.

    Parameters
    ----------
    columns, y, tasks
        As from `within`.

    Examples
    --------
    >>> design = pd.MultiIndex.from_product([range(4), [0, 1], [0, 1]])
    >>> runs = design.to_frame(index=False, name=["task", "hostile", "urgent"])
    >>> odds = 3 * runs.hostile + np.random.default_rng(0).normal(size=16)
    >>> columns, [y], tasks = within(runs, ["hostile", "urgent"], odds)
    >>> (freedman_lane(columns, y, tasks, resamples=999, seed=0) < 0.05).tolist()
    [True, False]
    """
    lots = np.random.default_rng(seed).random((resamples, len(y)))
    orders = np.argsort(lots + tasks, axis=1)  # rows stand task by task, and stay in their task
    nothing = 1e-9 * (1 + np.abs(y).max())  # the others may explain all of y
    p = []
    for j in range(columns.shape[1]):
        others, _ = np.linalg.qr(np.delete(columns, j, axis=1))
        own, rest = (x - others @ (others.T @ x) for x in (columns[:, j], y))
        own /= np.linalg.norm(own)
        shuffled = rest[orders]
        left = rest @ rest - ((shuffled @ others) ** 2).sum(1)
        null = shuffled @ own / np.sqrt(np.maximum(left, nothing**2))
        p.append(permutation_p(rest @ own / max(np.linalg.norm(rest), nothing), null))
    return np.array(p)

"""Chapter 10: what each ingredient of a context does to read-outs and to what the model leans to.

Pure arrays: prompts come from `contexts.context_runs` and `triggers.load_triggers`, numbers from
any read-out or from `steered.log_odds`. Tasks differ far more from one another than any ingredient
moves them, so everything is found within tasks: each has its own intercept. And whole tasks are
resampled for intervals, which therefore speak of other tasks, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.stats

from emotion_concepts.errors import BadInput, UnknownEmotion, nearest
from emotion_concepts.experiments.blocks import (
    freedman_lane,
    interval,
    products,
    resampled,
    resampled_tasks,
    slopes,
    within,
)
from emotion_concepts.geometry import unit
from emotion_concepts.stats import holm, permutation_p, sign_flip_p
from emotion_concepts.steering import random_directions
from emotion_concepts.triggers import VERSIONS
from emotion_concepts.vectors import EmotionVectors

PATHS = ("total", "read-out", "product")


# --- the factorial experiment ------------------------------------------------------------------


def effects_within_tasks(
    runs: pd.DataFrame,
    values: np.ndarray,
    factors: Sequence[str],
    *,
    control: np.ndarray | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how far each factor moves a number, with all factors in one model and task as a block.

    Least squares with an intercept for each task; in a balanced design the effect of a factor is
    the mean, over the tasks in which it varies, of each task's own effect.

    p is Freedman and Lane's: what the tasks and all other factors leave unexplained is shuffled
    within tasks, so that a strong factor does not swell the null of a weak one. It speaks of these
    tasks, and can be small where each is moved in a direction of its own. The interval, which
    resamples tasks, and p_tasks speak of others. To pass, a factor needs both.

    Parameters
    ----------
    runs : DataFrame, n rows
        Column task and the columns of `factors` (0 or 1), such as from `contexts.context_runs`.
    values : ``[n]``
        A read-out or log-odds of each run.
    factors : sequence of str
        Levels of one ingredient that exclude one another, as hostile and warm, are columns of
        their own.
    control : ``[n, draws]``, optional
        The runs read along random directions, see `random_read`; adds reach and p_random.

    Returns
    -------
    DataFrame
        One row a factor: factor, effect, low, high, n (tasks in which it varies), p, p_tasks
        (Student's t of the effect over the spread of resampled tasks), holm (the larger of the two,
        adjusted for the number of factors), passes (holm below .05). With a control also reach (95
        % of random directions move less) and p_random (share of them that move as far).

    Raises
    ------
    BadInput
        For missing columns, values of another length or not finite, a factor that varies in fewer
        than two tasks, or factors that cannot be told apart.

    Examples
    --------
    >>> design = pd.MultiIndex.from_product([range(4), [0, 1], [0, 1]])
    >>> runs = design.to_frame(index=False, name=["task", "hostile", "urgent"])
    >>> odds = 10 * runs.task + 3 * runs.hostile + 0.1 * np.random.default_rng(0).normal(size=16)
    >>> found = effects_within_tasks(runs, odds, ["hostile", "urgent"])
    >>> [round(effect) for effect in found.effect], found.passes.tolist()
    ([3, 0], [True, False])
    """
    columns, (y,), tasks = within(runs, factors, values)
    sums, k = products(np.column_stack([columns, y]), tasks), len(factors)
    weights, n, freedom = resampled_tasks(sums, k, resamples=resamples, seed=seed)
    effects = slopes(sums.sum(0), k)
    drawn = slopes(np.tensordot(weights, sums, 1), k)
    table = pd.DataFrame({"factor": list(factors), "effect": effects})
    table["low"], table["high"], p_tasks = interval(effects, drawn, freedom[:k])
    table["n"] = n[:k]
    table["p"] = freedman_lane(columns, y, tasks, resamples=resamples, seed=seed)
    table["p_tasks"] = p_tasks
    table["holm"] = holm(table[["p", "p_tasks"]].max(axis=1))
    table["passes"] = table.holm < 0.05
    if control is not None:
        columns, others, _ = within(runs, factors, *np.asarray(control, dtype=float).T)
        by_lot = np.linalg.lstsq(columns, others.T, rcond=None)[0]
        table["reach"] = np.quantile(np.abs(by_lot), 0.95, axis=1)
        table["p_random"] = [permutation_p(*pair) for pair in zip(effects, by_lot, strict=True)]
    return table


def moved(effects: pd.DataFrame, factors: Sequence[str], sign: int) -> list[bool]:
    """Return for each of some factors whether it passes and moves the number to this side.

    Parameters
    ----------
    effects : DataFrame
        As from `effects_within_tasks`.
    sign : 1 or -1

    Examples
    --------
    >>> factors = ["failures", "hostile", "warm"]
    >>> effects = pd.DataFrame({"factor": factors, "effect": [0.8, 0.5, -0.7]})
    >>> moved(effects.assign(passes=[True, False, True]), factors, 1)
    [True, False, False]
    """
    table = effects.set_index("factor").loc[list(factors)]
    return ((np.sign(table.effect) == sign) & table.passes).tolist()


def mediation(
    runs: pd.DataFrame,
    read: np.ndarray,
    odds: np.ndarray,
    factors: Sequence[str],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how factors, a read-out and log-odds go together, within tasks.

    This is association along a path, and no causal claim: the factors were set by the design, but
    nobody set the read-out. Whatever else a context changes may move read-out and log-odds both,
    and would show here as if the one led to the other. Only steering can tell.

    Parameters
    ----------
    runs, factors
        As for `effects_within_tasks`.
    read, odds : ``[n]``
        The read-out and the log-odds of each run.

    Returns
    -------
    DataFrame
        Three rows a factor: factor, path, effect, low, high, n (tasks). Of the paths "total" is the
        effect of the factor on the log-odds; "read-out" is what one more of the read-out goes with
        in the log-odds while all factors are equal, the same for all; "product" is that times the
        effect of the factor on the read-out. Total less product is what does not go by the
        read-out. Intervals resample tasks.

    Raises
    ------
    BadInput
        As `effects_within_tasks`; and for a read-out that the factors determine.

    Examples
    --------
    >>> design = pd.MultiIndex.from_product([range(8), [0, 1]])
    >>> runs = design.to_frame(index=False, name=["task", "hostile"])
    >>> read = runs.hostile + 0.1 * np.random.default_rng(0).normal(size=16)
    >>> found = mediation(runs, read, 2 * read, ["hostile"]).set_index("path").effect
    >>> round(float(found["read-out"]), 6), bool(np.isclose(found["total"], found["product"]))
    (2.0, True)
    """
    columns, (x, y), tasks = within(runs, factors, read, odds)
    k = len(factors)
    left = x - columns @ np.linalg.lstsq(columns, x, rcond=None)[0]
    if np.linalg.norm(left) <= 1e-9 * np.linalg.norm(read):
        raise BadInput(
            "task and factors determine the read-out, so that nothing of it is left to go with the "
            "log-odds; give another read-out, or fewer factors"
        )

    def paths(sums: np.ndarray) -> np.ndarray:  # [..., 3, k]
        total = slopes(np.delete(np.delete(sums, k, -1), k, -2), k)
        slope = slopes(sums, k + 1)[..., [k]]
        product = slopes(sums[..., :-1, :-1], k) * slope
        return np.stack([total, np.broadcast_to(slope, total.shape), product], -2)

    sums = products(np.column_stack([columns, x, y]), tasks)
    weights, n, freedom = resampled_tasks(sums, k, resamples=resamples, seed=seed)
    found, drawn = paths(sums.sum(0)), paths(np.tensordot(weights, sums, 1))
    of = np.stack([np.arange(k), np.full(k, k), np.arange(k)])  # the read-out varies in all tasks
    low, high, _ = interval(found, drawn, freedom[of])
    rows = [
        (factor, path, found[i, j], low[i, j], high[i, j], n[of[i, j]])
        for j, factor in enumerate(factors)
        for i, path in enumerate(PATHS)
    ]
    return pd.DataFrame(rows, columns=["factor", "path", "effect", "low", "high", "n"])


def against_neutral(values: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    """Return read-outs as standard deviations from their mean over neutral prompts.

    Parameters
    ----------
    values, neutral : ``[texts, k]`` and ``[prompts, k]``, or without k

    Examples
    --------
    >>> against_neutral(np.array([4.0, 2.0]), np.array([1.0, 2.0, 3.0])).tolist()
    [2.0, 0.0]
    """
    return (values - neutral.mean(0)) / neutral.std(0, ddof=1)


def axis_read(
    residuals: np.ndarray, axis: np.ndarray, vectors: EmotionVectors, layer: int
) -> np.ndarray:
    """Return ``[texts]`` cosines with one axis, read as `EmotionVectors.cosine` reads.

    Parameters
    ----------
    residuals : ``[texts, d_model]``
        At `layer`.
    axis : ``[d_model]``
        Of any length, such as `compliance.rated_axis` at the layer.

    Examples
    --------
    >>> one, centre = np.ones((2, 1)), np.array([[1.0, 0.0]])
    >>> axes = np.eye(2)[:, None]
    >>> v = EmotionVectors(("calm", "angry"), axes, one, centre, np.zeros(1, int), np.ones(1))
    >>> axis_read(np.array([[4.0, 4.0]]), np.array([5.0, 0.0]), v, 0).round(6).tolist()
    [0.6]
    """
    return unit(residuals - vectors.centre[layer]) @ unit(axis)


def random_read(
    residuals: np.ndarray, vectors: EmotionVectors, layer: int, *, n: int = 200, seed: int = 0
) -> np.ndarray:
    """Return ``[texts, n]`` cosines with random directions, read as `EmotionVectors.cosine` reads.

    What any direction does when the context changes: a factor moves an emotion only if it moves its
    read-out further than these. They lie outside the span of the emotions, where residual streams
    vary less than along it; so to go beyond them is necessary, and not much.

    Parameters
    ----------
    residuals : ``[texts, d_model]``
        At `layer`.

    Raises
    ------
    UnknownLayer, BadInput

    Examples
    --------
    >>> zero, one = np.zeros((1, 4)), np.ones((2, 1))
    >>> axes = np.eye(2, 4)[:, None]
    >>> v = EmotionVectors(("calm", "angry"), axes, one, zero, np.zeros(1, int), np.ones(1))
    >>> found = random_read(np.array([[3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]), v, 0)
    >>> found.shape, (abs(found) > 1e-6).all(1).tolist()
    ((2, 200), [False, True])
    """
    outside = vectors.at(layer)[:, None]
    directions = random_directions(n, outside, seed=seed)[:, 0]
    return unit(residuals - vectors.centre[layer]) @ directions.T


# --- the table of triggers ---------------------------------------------------------------------


def trigger_tests(
    pairs: pd.DataFrame,
    values: np.ndarray,
    emotions: Sequence[str],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return whether triggers load the emotions that they are said to load.

    A pair's difference is the read-out with the trigger less that without. To compare emotions,
    differences are divided by their spread about the mean of the pairs of one emotion.

    Parameters
    ----------
    pairs : DataFrame, n rows
        id, emotion, trigger and version, such as from `triggers.load_triggers`.
    values : ``[n, len(emotions)]``
        Read-outs of all emotions, in the order of `emotions`.

    Returns
    -------
    DataFrame
        For each emotion a row over all of its pairs (trigger "all"), then one a trigger: emotion,
        trigger, difference (of the own read-out), low, high (resampling pairs), n (pairs), p (signs
        of pairs flipped), rank (of the own emotion among all by standardised difference; 1 is the
        highest), q (false discovery rate over emotions), loads (q below .05 and the difference
        above zero). q and loads are for the rows over all pairs (elsewhere NaN and None): three
        pairs cannot be told from chance.

    Raises
    ------
    BadInput
        For values of another shape or not finite, a version that is missing or stands twice, or a
        trigger with a single pair.
    UnknownEmotion
        If `emotions` lack one of the pairs'.

    Examples
    --------
    >>> from emotion_concepts.triggers import load_triggers
    >>> pairs = load_triggers()
    >>> names = pairs.emotion.unique().tolist()
    >>> own = pairs.emotion.to_numpy()[:, None] == names
    >>> given = (pairs.version == "with").to_numpy()[:, None]
    >>> values = (own & given) + 0.1 * np.random.default_rng(0).normal(size=own.shape)
    >>> found = trigger_tests(pairs, values, names, resamples=500).query("trigger == 'all'")
    >>> found["rank"].unique().tolist(), bool(found.loads.all())
    ([1], True)
    """
    values = np.asarray(values, dtype=float)
    if values.shape != (len(pairs), len(emotions)) or not np.isfinite(values).all():
        raise BadInput(
            f"{len(pairs)} messages and {len(emotions)} emotions need finite values "
            f"[{len(pairs)}, {len(emotions)}], not {list(values.shape)}"
        )
    names = list(emotions)
    for name in pairs.emotion.unique():
        if name not in names:
            raise UnknownEmotion(f"no read-out of {name!r}; {nearest(name, names)}")
    about, differences = _differences(pairs, values)
    means = pd.DataFrame(differences).groupby(about.emotion.to_numpy()).transform("mean")
    freedom = len(about) - about.emotion.nunique()
    spread = np.sqrt(((differences - means.to_numpy()) ** 2).sum(0) / max(freedom, 1))
    rows = []
    for emotion, mine in about.groupby("emotion", sort=False):
        own = names.index(emotion)
        for trigger, part in [("all", mine), *mine.groupby("trigger", sort=False)]:
            found = differences[part.index]
            x, n = found[:, own], len(part)
            if n < 2:
                raise BadInput(f"{emotion}, {trigger}: one pair shows no spread; give at least two")
            drawn = resampled(np.random.default_rng(seed), n, resamples) @ x / n
            low, high, _ = interval(x.mean(), drawn, n - 1)
            p = sign_flip_p(x, resamples=resamples, seed=seed)
            size = found.mean(0) / np.maximum(spread, 1e-300)
            rank = 1 + int((size > size[own]).sum())
            rows.append((emotion, trigger, x.mean(), low, high, n, p, rank))
    columns = ["emotion", "trigger", "difference", "low", "high", "n", "p", "rank"]
    table = pd.DataFrame(rows, columns=columns)
    whole = table.trigger == "all"
    table.loc[whole, "q"] = scipy.stats.false_discovery_control(table.p[whole])
    table["loads"] = None
    table.loc[whole, "loads"] = (table.q < 0.05) & (table.difference > 0)
    return table


def _differences(pairs: pd.DataFrame, values: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the pairs, numbered from 0, and with less without of each."""
    rows = pairs.assign(row=np.arange(len(pairs)))
    counts = rows.groupby(["id", "version"], sort=False).size().unstack()
    counts = counts.reindex(columns=VERSIONS)
    if (wrong := counts.index[(counts != 1).any(axis=1)]).size:
        raise BadInput(f"{wrong[0]!r} needs exactly one message {' and one '.join(VERSIONS)}")
    given, plain = (rows[rows.version == v].set_index("id").row for v in VERSIONS)
    about = pairs[pairs.version == VERSIONS[0]].reset_index(drop=True)
    return about, values[given[about.id]] - values[plain[about.id]]

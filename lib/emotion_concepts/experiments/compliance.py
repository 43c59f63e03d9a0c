"""The chapter on sycophancy and harshness: is there a direction of mere compliance?

Replies that go along with the user are set against replies that hold their own view, in equal tone;
the mean difference, made orthogonal to valence, can be subtracted by steering. How far two halves
of the pairs agree on it says whether there is a direction to subtract.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from emotion_concepts.errors import BadInput
from emotion_concepts.geometry import unit
from emotion_concepts.scenarios import check_text, read_entries, read_yaml
from emotion_concepts.stats import Estimate, exceedance_p
from emotion_concepts.tracing import TracedModel, span_residuals

SIDES = ("agree", "judge")
SPREAD = 2  # words by which the replies of a pair may differ
WORDS = {"user": (15, 30), "agree": (15, 25), "judge": (15, 25)}


def load_compliance(path: str | Path | None = None) -> pd.DataFrame:
    """Return everyday opinions, each with a reply that complies and one that judges for itself.

    Returns
    -------
    DataFrame ``[24, 5]``
        With columns id, sensible (bool, half of them), user, agree, judge.

    Notes
    -----
    The wording was revised until a bag of words could hardly tell the sides apart, so that check is
    no independent one. Of the content words of `agree` 75 % are the user's, of `judge` 49 %: a
    direction may also hold repetition.

    Raises
    ------
    BadInput
        For a missing field, a `sensible` that is no bool, a text that is too short or too long or
        names one of the 171 emotions, or replies of unequal length.

    Examples
    --------
    >>> pairs = load_compliance()
    >>> int(pairs.sensible.sum()), pairs.id[19]
    (12, 'tulips')
    >>> pairs.judge[19][:36]
    'Tip up, I think, is how tulip bulbs '
    """
    file, data = read_yaml("compliance", path)
    rows = []
    for where, *row in read_entries(file, data, "pairs", "id", "sensible", *WORDS):
        if not isinstance(row[1], bool):
            raise BadInput(f"{where}: sensible must be true or false, not {row[1]!r}")
        _, agree, judge = (
            check_text(where, kind, text, WORDS[kind])
            for kind, text in zip(WORDS, row[2:], strict=True)
        )
        if abs(agree - judge) > SPREAD:
            raise BadInput(
                f"{where}: the replies have {agree} and {judge} words; "
                f"bring them within {SPREAD} of each other"
            )
        rows.append(row)
    return pd.DataFrame(rows, columns=["id", "sensible", *WORDS])


def compliance_direction(
    model: TracedModel, pairs: pd.DataFrame, valence: np.ndarray, *, cache: Path | None = None
) -> tuple[np.ndarray, Estimate]:
    """Return the direction from judging to agreeing, without its part along valence.

    The user's statement and each reply stand in the model's chat template; the residual stream is
    averaged over the reply.

    Parameters
    ----------
    pairs : DataFrame
        From `load_compliance`, or a part of it.
    valence : ``[n_layers, d_model]``
        Of any length, e.g. a principal component or a difference of emotion vectors.
    cache : Path, optional
        Folder of the residuals; the user's cache by default.

    Returns
    -------
    direction : ``[n_layers, d_model]``
        Unit vectors; subtract them to lower compliance.
    reliability : Estimate
        `half_agreement` at the model's read-out layer.

    Raises
    ------
    BadInput
        If `valence` has another shape, or there are fewer than four pairs.

    Examples
    --------
    >>> habits = ["I cook on Sundays.", "I walk to work.", "I read at night.", "I buy old books."]
    >>> pairs = pd.DataFrame({"user": habits, "agree": "Right, so would I."})
    >>> valence = np.ones((llm.n_layers, llm.d_model))
    >>> pairs["judge"] = "I would not, myself."
    >>> direction, reliability = compliance_direction(llm, pairs, valence)
    >>> direction.shape, bool(abs(direction.sum(1)).max() < 1e-6), reliability.value > 0.9
    ((30, 576), True, True)
    """
    if np.shape(valence) != (model.n_layers, model.d_model):
        raise BadInput(
            f"valence must be [{model.n_layers}, {model.d_model}] for {model.identity.name!r}, "
            f"not {list(np.shape(valence))}"
        )
    texts, spans = [], []
    for side in SIDES:
        for user, reply in zip(pairs.user, pairs[side], strict=True):
            prompt = model.chat_prompt([{"role": "user", "content": user}])
            texts.append(prompt + reply)
            spans.append([(len(prompt), len(prompt) + len(reply))])
    found = np.asarray(span_residuals(model, texts, spans, cache=cache), dtype=float)
    differences = found[: len(pairs)] - found[len(pairs) :]
    layer = model.readout_layer
    reliability = half_agreement(differences[:, layer], valence[layer])
    return pair_direction(differences, valence), reliability


def rated_axis(directions: np.ndarray, rating: np.ndarray) -> np.ndarray:
    """Return the sum of emotion vectors weighted by a human rating, ``[n_layers, d_model]``.

    Parameters
    ----------
    directions : ``[n_emotions, n_layers, d_model]``
    rating : ``[n_emotions]``
        NaN where a word is not rated; standardised here.

    Examples
    --------
    >>> rated_axis(np.eye(3)[:, None], np.array([1.0, -1.0, np.nan])).tolist()
    [[1.0, -1.0, 0.0]]
    """
    rated = np.isfinite(rating)
    weights = (rating[rated] - rating[rated].mean()) / rating[rated].std()
    return np.tensordot(weights, directions[rated], 1)


def pair_direction(differences: np.ndarray, remove: np.ndarray) -> np.ndarray:
    """Return the unit mean of differences ``[n, ..., d]`` without its part along ``[..., d]``.

    >>> pair_direction(np.array([[1.0, 3.0], [1.0, 5.0]]), np.array([0.0, 2.0])).tolist()
    [1.0, 0.0]
    """
    return unit(_without(differences.mean(0), remove))


def half_agreement(
    differences: np.ndarray,
    remove: np.ndarray,
    *,
    splits: int = 50,
    permutations: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Return the cosine of the directions of two random halves of the pairs, at one layer.

    Parameters
    ----------
    differences : ``[n, d]``
    remove : ``[d]``

    Returns
    -------
    Estimate
        value: mean over `splits` random halvings (0 without a common direction; for all pairs
        together it may be stepped up with `stats.spearman_brown`); low, high: the least and the
        largest of them, no confidence interval; n: pairs; p: one-sided, with the sides of random
        pairs swapped.

    Raises
    ------
    BadInput
        For fewer than four pairs.

    Examples
    --------
    >>> differences = np.random.default_rng(0).normal(size=(20, 8))
    >>> differences[:, 0] += 9
    >>> found = half_agreement(differences, np.eye(8)[1])
    >>> round(found.value, 1), found.p < 0.01
    (1.0, True)
    >>> half_agreement(differences, np.eye(8)[0]).p < 0.05
    False
    """
    n = len(differences)
    if n < 4:
        raise BadInput(f"halving needs at least four pairs, not {n}")
    rng = np.random.default_rng(seed)
    x = _without(differences, remove)
    gram = x @ x.T  # the lengths and cosines of all sums of pairs, whatever d
    half = rng.permuted(np.tile(np.arange(n) < n // 2, (splits, 1)), axis=1)

    def cosines(signs: np.ndarray) -> np.ndarray:
        a, b = signs * half, signs * ~half
        dot = ((a @ gram) * b).sum(-1)
        return dot / np.sqrt(((a @ gram) * a).sum(-1) * ((b @ gram) * b).sum(-1))

    found = cosines(np.ones(n))
    null = [cosines(signs).mean() for signs in rng.choice([-1, 1], size=(permutations, n))]
    mean = float(found.mean())
    return Estimate(mean, float(found.min()), float(found.max()), n, exceedance_p(mean, null))


def _without(vectors: np.ndarray, remove: np.ndarray) -> np.ndarray:
    axis = unit(remove)
    return vectors - (vectors * axis).sum(-1, keepdims=True) * axis

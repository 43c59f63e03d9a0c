"""The emotional profile of a model before and after post-training (section 7, Figs 36-39, 84).

The same vectors read two models of one architecture where the assistant's reply begins. What is
reported of the shift is held to displacements drawn by lot: a model that changes in any direction
that its texts use changes its profile, too, and some of that will look like a mood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.special
import scipy.stats

from emotion_concepts.errors import BadInput, nearest
from emotion_concepts.experiments.steered import halves
from emotion_concepts.geometry import unit
from emotion_concepts.stats import Estimate, bootstrap, pearson, permutation_p, spearman_brown
from emotion_concepts.tracing import (
    TokenAt,
    TracedModel,
    continuation_logprobs,
    next_token_logprobs,
    pooled_residuals,
)
from emotion_concepts.vectors import EmotionVectors

FORMS = ("chat", "transcript")


@dataclass(frozen=True)
class Comparison:
    """The residual streams of two models where the reply to the same prompts begins.

    Attributes
    ----------
    base, post : ``[prompts, n_layers, d_model]``
    vectors : EmotionVectors
    prompts : DataFrame
        set, kind and text of each.

    Examples
    --------
    >>> axes, one, zero = np.eye(2)[:, None], np.ones((2, 1)), np.zeros((1, 2))
    >>> v = EmotionVectors(("calm", "angry"), axes, one, zero, np.zeros(1, int), np.ones(1))
    >>> prompts = pd.DataFrame({"set": ["neutral"], "kind": ["any"], "text": ["Is it late?"]})
    >>> base, post = np.array([[[0.0, 2.0]]]), np.array([[[3.0, 4.0]]])
    >>> Comparison(base, post, v, prompts).shift(0).round(6).tolist()
    [[0.6, -0.2]]
    """

    base: np.ndarray
    post: np.ndarray
    vectors: EmotionVectors
    prompts: pd.DataFrame

    def readings(self, layer: int, which: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the cosines of base and post with all vectors, each ``[prompts, emotions]``.

        which : a set of prompts, or all.
        """
        rows = np.ones(len(self.prompts), bool) if which is None else self.rows(which)
        directions = unit(self.vectors.at(layer))
        return tuple(unit(side[rows, layer]) @ directions.T for side in (self.base, self.post))

    def shift(self, layer: int, which: str | None = None) -> np.ndarray:
        """Return post less base, ``[prompts, emotions]``, in cosine."""
        base, post = self.readings(layer, which)
        return post - base

    def rows(self, which: str) -> np.ndarray:
        """Return which prompts are of a set, as ``[prompts]`` truth values."""
        found = (self.prompts["set"] == which).to_numpy()
        if not found.any():
            raise BadInput(f"no prompts of set {which!r}; {nearest(which, set(self.prompts.set))}")
        return found


def compare_models(
    base: TracedModel,
    post: TracedModel,
    vectors: EmotionVectors,
    prompts: pd.DataFrame,
    *,
    form: str = "chat",
    progress: str | None = None,
) -> Comparison:
    """Read two models of one architecture with the same vectors at the colon, in all layers.

    Parameters
    ----------
    prompts : DataFrame
        As from `assistant_prompts.load_assistant_prompts`.
    form : {"chat", "transcript"}
        ``chat`` is the template of the post-trained model for both; ``transcript`` a plain dialogue
        without any, since the template alone moves what is read.

    Returns
    -------
    Comparison

    Raises
    ------
    BadInput
        For models of different shapes, vectors of another shape, or an unknown form.

    Examples
    --------
    >>> from emotion_concepts.tracing import MeanFrom
    >>> texts = ["She begged for one more day.", "He breathed slowly by the lake."]
    >>> read = pooled_residuals(llm, texts, MeanFrom(1))
    >>> vectors = EmotionVectors.fit(read, ["desperate", "calm"], read, neutral_variance=0)
    >>> prompts = pd.DataFrame({"set": ["neutral"], "kind": ["any"], "text": ["Is it late?"]})
    >>> found = compare_models(llm, llm, vectors, prompts, form="transcript")
    >>> found.shift(20).tolist()
    [[0.0, 0.0]]
    """
    shapes = {(model.n_layers, model.d_model) for model in (base, post)}
    if len(shapes) > 1:
        raise BadInput(
            f"{base.identity.name!r} and {post.identity.name!r} have different shapes "
            f"({base.n_layers} layers of width {base.d_model}, {post.n_layers} of {post.d_model}); "
            "compare a model with the one that it was trained from"
        )
    if vectors.directions.shape[1:] not in shapes:
        raise BadInput(
            "the vectors have another shape than the models; extract them on one of these"
        )
    texts = as_prompts(post, prompts.text, form)
    base_read, post_read = (
        np.asarray(pooled_residuals(model, texts, TokenAt(1.0), progress=progress))
        for model in (base, post)
    )
    return Comparison(base_read, post_read, vectors, prompts.reset_index(drop=True))


def as_prompts(model: TracedModel, texts: Sequence[str], form: str) -> list[str]:
    """Return user messages up to where the assistant's reply begins, in a form of `compare_models`.

    Raises
    ------
    BadInput
        For an unknown form.

    Examples
    --------
    >>> as_prompts(llm, ["Is it late?"], "transcript")
    ['Human: Is it late?\\n\\nAssistant:']
    """
    if form == "chat":
        return [model.chat_prompt([{"role": "user", "content": text}]) for text in texts]
    if form == "transcript":
        return [f"Human: {text}\n\nAssistant:" for text in texts]
    raise BadInput(f"no form {form!r}; {nearest(form, FORMS)}")


# --- the two profiles, and the shift between them ----------------------------------------------


def resampled_profiles(readings: np.ndarray, *, resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """Return mean profiles of resampled prompts, ``[resamples, emotions]``.

    readings : ``[prompts, emotions]``

    >>> readings = np.array([[0.0, 1.0], [2.0, 1.0]])  # prompts differ in the first emotion alone
    >>> found = resampled_profiles(readings, resamples=100)
    >>> found.shape, found.min(0).tolist(), found.max(0).tolist()
    ((100, 2), [0.0, 1.0], [2.0, 1.0])
    """
    n = len(readings)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), resamples) / n
    return weights @ readings


def profile_agreement(
    a: np.ndarray, b: np.ndarray, *, paired: bool, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Correlate two profiles over emotions, with an interval over prompts.

    Parameters
    ----------
    a, b : ``[prompts, emotions]``
    paired : bool
        Whether both are of the same prompts, in the same order, and are resampled together (two
        models); else each is resampled apart (two sets of prompts).

    Returns
    -------
    Estimate
        The correlation r; n is the number of emotions that it is over.

    Raises
    ------
    BadInput
        For pairs of which one side has more prompts.

    Examples
    --------
    >>> a, b = np.arange(5) + 0.1 * np.random.default_rng(0).normal(size=(2, 30, 5))
    >>> print(profile_agreement(a, b, paired=False))
    1.00 [1.00, 1.00]
    """
    if paired and len(a) != len(b):
        raise BadInput(f"{len(a)} and {len(b)} prompts make no pairs; give paired=False")
    draws = [
        resampled_profiles(side, resamples=resamples, seed=seed if paired else seed + n)
        for n, side in enumerate((a, b))
    ]
    value, found = pearson(a.mean(0), b.mean(0)), pearson(*draws)
    # resampling adds noise a second time, which lowers all draws: set them back around the value
    low, high = np.clip(value + np.quantile(found - found.mean(), [0.025, 0.975]), -1, 1)
    return Estimate(float(value), float(low), float(high), a.shape[1])


def split_half(shift: np.ndarray, *, splits: int = 200, seed: int = 0) -> Estimate:
    """Return the reliability of a mean shift: two halves of the prompts, stepped up to all.

    Parameters
    ----------
    shift : ``[prompts, emotions]``

    Returns
    -------
    Estimate
        Mean over random splits, and their 95 % range, stepped up; n prompts.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=(40, 60))
    >>> round(split_half(np.linspace(-9, 9, 60) + noise).value, 2)
    1.0
    >>> split_half(noise).value < 0.5
    True
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(splits):
        order = rng.permutation(len(shift))
        halves = (shift[half].mean(0) for half in np.array_split(order, 2))
        found.append(pearson(*halves))
    r = np.array([np.mean(found), *np.quantile(found, [0.025, 0.975])])
    return Estimate(*map(float, spearman_brown(r)), len(shift))


def movers(
    shift: np.ndarray, names: Sequence[str], *, resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Return each emotion's mean shift, from the one that rises most to the one that falls most.

    Parameters
    ----------
    shift : ``[prompts, emotions]``

    Returns
    -------
    DataFrame
        With columns emotion, shift, low, high (over prompts), p (two-sided t over prompts), moved
        (false discovery rate below .05 over all emotions).

    Examples
    --------
    >>> noise = 0.1 * np.random.default_rng(0).normal(size=(20, 3))
    >>> found = movers(np.array([-0.5, 0.0, 0.5]) + noise, ["exuberant", "calm", "brooding"])
    >>> found[["emotion", "moved"]].values.tolist()
    [['brooding', True], ['calm', False], ['exuberant', True]]
    """
    draws = resampled_profiles(shift, resamples=resamples, seed=seed)
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    p = scipy.stats.ttest_1samp(shift, 0.0).pvalue
    p = np.where(shift.any(0), p, 1.0)  # what nowhere moves has no t
    table = pd.DataFrame(
        {"emotion": list(names), "shift": shift.mean(0), "low": low, "high": high, "p": p}
    )
    table["moved"] = scipy.stats.false_discovery_control(p) < 0.05
    return table.sort_values("shift", ascending=False, ignore_index=True)


def random_displacements(
    comparison: Comparison, layer: int, *, draws: int = 500, seed: int = 0
) -> np.ndarray:
    """Return the shifts of profile by displacements drawn by lot, ``[draws, emotions]``.

    Each is as long as the mean displacement from base to post. Its direction is drawn with the
    covariance of the base model's residual streams over prompts: one that texts differ in.

    >>> axes, one, zero = np.eye(2, 6)[:, None], np.ones((2, 1)), np.zeros((1, 6))
    >>> v = EmotionVectors(("calm", "angry"), axes, one, zero, np.zeros(1, int), np.ones(1))
    >>> base = np.random.default_rng(0).normal(size=(9, 1, 6))
    >>> prompts = pd.DataFrame({"set": "neutral", "kind": "any", "text": ["Is it late?"] * 9})
    >>> random_displacements(Comparison(base, base + 1, v, prompts), 0, draws=99).shape
    (99, 2)
    >>> bool(abs(random_displacements(Comparison(base, base, v, prompts), 0)).max() < 1e-12)
    True
    """
    x, after = comparison.base[:, layer], comparison.post[:, layer]
    length = np.linalg.norm((after - x).mean(0))
    centred = x - x.mean(0)
    rng = np.random.default_rng(seed)
    lots = unit(rng.normal(size=(draws, len(x))) @ centred) * length
    directions = unit(comparison.vectors.at(layer))
    plain = (unit(x) @ directions.T).mean(0)
    return np.stack([(unit(x + lot) @ directions.T).mean(0) - plain for lot in lots])


def against_ratings(
    shift: np.ndarray, null: np.ndarray, ratings: Mapping[str, np.ndarray], *, seed: int = 0
) -> dict[str, Estimate]:
    """Return the rank correlation of a shift with ratings of the emotions.

    Parameters
    ----------
    shift : ``[emotions]``
    null : ``[draws, emotions]``
        As from `random_displacements`; p is the share of them that correlate as strongly.
    ratings : {name: ``[emotions]``}
        Not a number where an emotion has none.

    Returns
    -------
    dict
        {name: Estimate}; the interval resamples emotions, n is the number of those that are rated.

    Examples
    --------
    >>> shift = np.array([-0.4, -0.3, -0.1, 0.0, 0.1, 0.2, 0.4, 0.5])
    >>> null = np.random.default_rng(0).normal(size=(99, 8))
    >>> found = against_ratings(shift, null, {"valence": np.arange(8.0)})["valence"]
    >>> round(found.value, 6), found.n, found.p
    (1.0, 8, 0.01)
    """
    found = {}
    for name, values in ratings.items():
        known = np.isfinite(values)
        ranks = scipy.stats.rankdata(values[known])
        mine = scipy.stats.rankdata(shift[known])
        lots = pearson(scipy.stats.rankdata(null[:, known], axis=1), ranks[None])
        r = bootstrap(pearson, mine, ranks, seed=seed)
        found[name] = Estimate(r.value, r.low, r.high, r.n, permutation_p(r.value, lots))
    return found


def by_layer(comparison: Comparison) -> pd.DataFrame:
    """Return how far the profile moves at each layer (Fig 84).

    Returns
    -------
    DataFrame
        One row a layer: layer, size (root mean square over emotions of the mean shift), neighbour
        (r over emotions with the shift of the layer before; none at the first), agreement (r over
        emotions of base and post).

    Examples
    --------
    >>> axes, one, zero = np.zeros((3, 2, 6)), np.ones((3, 2)), np.zeros((2, 6))
    >>> axes[range(3), :, range(3)] = 1
    >>> names = ("calm", "angry", "brooding")
    >>> v = EmotionVectors(names, axes, one, zero, np.zeros(2, int), np.ones(2))
    >>> base = np.random.default_rng(0).normal(size=(9, 2, 6))
    >>> post = base + [[0], [1]]  # the second layer alone is moved
    >>> prompts = pd.DataFrame({"set": "neutral", "kind": "any", "text": ["Is it late?"] * 9})
    >>> (by_layer(Comparison(base, post, v, prompts))["size"] > 0).tolist()
    [False, True]
    """
    rows, before = [], None
    for layer in range(comparison.base.shape[1]):
        base, post = (side.mean(0) for side in comparison.readings(layer))
        shift = post - base
        neighbour = None if before is None else float(pearson(shift, before))
        size = float(np.sqrt((shift**2).mean()))
        rows.append((layer, size, neighbour, float(pearson(base, post))))
        before = shift
    return pd.DataFrame(rows, columns=["layer", "size", "neighbour", "agreement"])


# --- several arms of training ------------------------------------------------------------------


def gains(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return how much each option gained on the mean of the others, ``[items, options]``.

    before, after : ``[items, options]`` log-probabilities per token

    >>> before = np.array([[-2.0, -2.0, -2.0]])
    >>> gains(before, before + [0.6, 0.0, 0.0]).round(6).tolist()
    [[0.6, -0.3, -0.3]]
    """
    change = after - before
    others = (change.sum(1, keepdims=True) - change) / (change.shape[1] - 1)
    return change - others


def perplexity_ratio(before: TracedModel, after: TracedModel, texts: Sequence[str]) -> float:
    """Return the perplexity of texts' second halves, given the first, after over before.

    >>> perplexity_ratio(llm, llm, ["The bus stops at the corner."])
    1.0
    """
    heads, tails = zip(*map(halves, texts), strict=True)
    a, b = (continuation_logprobs(model, heads, tails) for model in (before, after))
    return float(np.exp((a.total - b.total).sum() / a.n_tokens.sum()))


def between(a: Comparison, b: Comparison) -> Comparison:
    """Return the comparison of what two models became after training from one base.

    >>> axes, one, zero = np.eye(2)[:, None], np.ones((2, 1)), np.zeros((1, 2))
    >>> v = EmotionVectors(("calm", "angry"), axes, one, zero, np.zeros(1, int), np.ones(1))
    >>> prompts = pd.DataFrame({"set": ["neutral"], "kind": ["any"], "text": ["Is it late?"]})
    >>> base, to_calm, to_anger = np.array([[[[1.0, 1.0]]], [[[1.0, 0.0]]], [[[0.0, 1.0]]]])
    >>> a, b = (Comparison(base, post, v, prompts) for post in (to_calm, to_anger))
    >>> between(a, b).shift(0).tolist()
    [[-1.0, 1.0]]
    """
    return Comparison(a.post, b.post, a.vectors, a.prompts)


def likeness(
    shifts: Mapping[str, np.ndarray], *, splits: int = 200, seed: int = 0
) -> tuple[pd.DataFrame, pd.Series]:
    """Correlate the shifts of several arms, each pair on different halves of the prompts.

    Halves are what an arm is compared with itself on, so that all pairs are judged alike: by chance
    of prompts no arm is more like itself than like another.

    Parameters
    ----------
    shifts : {arm: ``[prompts, emotions]``}
        The same prompts in each.

    Returns
    -------
    tuple
        (mean r over splits, arms by arms; share of splits in which each arm is most like itself).

    Examples
    --------
    >>> noise = 0.1 * np.random.default_rng(0).normal(size=(2, 20, 3))
    >>> arms = {"warm": noise[0] + [0, 1, 2], "stern": noise[1] + [2, 1, 0]}
    >>> r, own = likeness(arms)
    >>> r.round(1).values.tolist(), own.tolist()
    ([[1.0, -1.0], [-1.0, 1.0]], [1.0, 1.0])
    """
    names, rng = list(shifts), np.random.default_rng(seed)
    found = np.empty((splits, len(names), len(names)))
    for split in range(splits):
        a, b = np.array_split(rng.permutation(len(shifts[names[0]])), 2)
        one, two = (np.stack([shifts[name][half].mean(0) for name in names]) for half in (a, b))
        found[split] = pearson(one[:, None], two[None])
    first = (found.argmax(2) == np.arange(len(names))).mean(0)
    return pd.DataFrame(found.mean(0), names, names), pd.Series(first, names)


# --- expression against representation ---------------------------------------------------------


def word_logprobs(model: TracedModel, prompts: Sequence[str], tokens: Sequence[int]) -> np.ndarray:
    """Return the log of the probability that the next token is one of these, ``[prompts]``.

    >>> corner, lake = (llm.tokenizer(word)["input_ids"] for word in (" corner", " lake"))
    >>> prompts = ["The bus stops at the street", "He swam in the"]
    >>> (word_logprobs(llm, prompts, corner) > word_logprobs(llm, prompts, lake)).tolist()
    [True, False]
    """
    return scipy.special.logsumexp(next_token_logprobs(model, prompts)[:, list(tokens)], axis=1)


def named_by_centroids(residuals: np.ndarray, own: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return whether each text's emotion is named by centroids of the other groups' texts.

    Parameters
    ----------
    residuals : ``[texts, d_model]``
    own, groups : ``[texts]``
        The emotion of each text, and what is held out together (its setting).

    Returns
    -------
    ``[texts]``, 1 for a hit.

    Raises
    ------
    BadInput
        For an emotion whose texts are all of one group.

    Examples
    --------
    >>> residuals = np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 1.0], [1.0, 3.0]])
    >>> own, groups = np.array(["calm", "angry"] * 2), np.array(["home", "home", "work", "work"])
    >>> named_by_centroids(residuals, own, groups).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    names, own = np.unique(own, return_inverse=True)
    for k, name in enumerate(names):
        if len(np.unique(groups[own == k])) < 2:
            raise BadInput(
                f"{str(name)!r} stands in one group alone; give it texts in another, too"
            )
    hits = np.zeros(len(own))
    for group in np.unique(groups):
        test = groups == group
        mean = residuals[~test].mean(0)
        centroids = np.stack(
            [(residuals[~test & (own == k)] - mean).mean(0) for k in range(len(names))]
        )
        guess = (unit(residuals[test] - mean) @ unit(centroids).T).argmax(1)
        hits[test] = guess == own[test]
    return hits

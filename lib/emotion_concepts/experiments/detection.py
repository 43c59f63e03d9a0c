"""Chapter 9: is the monitor of `monitor` a detector, and how good a one?

A detector is asked which texts hold an emotion, and answers with a score: here the highest windowed
z of a text, since the monitor's rule `Above` fires on it at every lower threshold. What is asked of
the score is asked of any detector: how well it ranks texts with the emotion above texts without;
at a threshold set on other neutral texts, how many of the one it finds and how many of the other it
disturbs; and whether random directions, or the words alone, would do as well.

A highest value grows with the number of windows it is taken over. Texts to be compared must be
alike in length, or be cut to the same number of tokens (`peak_scores`), for the words that they are
held to as well (`last_words`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.base import clone
from sklearn.pipeline import Pipeline, make_pipeline

from emotion_concepts.corpus import NEUTRAL_SKIP
from emotion_concepts.errors import BadInput, UnknownEmotion, nearest
from emotion_concepts.experiments.grading import (
    check_columns,
    check_labels,
    score_auc,
    wins,
    wins_interval,
    word_model,
)
from emotion_concepts.geometry import unit
from emotion_concepts.monitor import ROLES, chat_words, watched
from emotion_concepts.results import Register, key_of
from emotion_concepts.stats import Estimate, bootstrap, exceedance_p, share
from emotion_concepts.steering import random_directions
from emotion_concepts.tracing import MeanFrom, TracedModel, token_residuals, tokenize, tokens_in
from emotion_concepts.vectors import EmotionVectors

WINDOW = 8  # the monitor's own
BY_LOT = "random directions"
AT_ONCE = 100  # sets of random directions; more would take memory and no less time

# --- readings ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Detector:
    """Reads as a calibrated monitor does, at one layer, with random directions beside the emotions.

    Attributes
    ----------
    vectors : EmotionVectors
        Of the k emotions that are watched; the first k columns of every reading.
    layer : int
    directions : ``[k + random, d_model]``
        Unit vectors: the emotions, then random ones outside the span of all fitted emotions.
    mean, sd : ``[k + random]``
        Of the cosines over the tokens of neutral text.

    Examples
    --------
    >>> neutral = "The bus stops at the corner."
    >>> detector = Detector.fit(llm, vectors, "desperate", [neutral], random=3, skip=1)
    >>> [z] = detector.read(llm, [[{"role": "user", "content": neutral}]])
    >>> z.shape
    (7, 4)
    """

    vectors: EmotionVectors
    layer: int
    directions: np.ndarray
    mean: np.ndarray
    sd: np.ndarray

    @classmethod
    def fit(
        cls,
        model: TracedModel,
        vectors: EmotionVectors,
        watch: str | Sequence[str],
        neutral: Sequence[str],
        *,
        layer: int | None = None,
        random: int = 200,
        seed: int = 0,
        skip: int = NEUTRAL_SKIP,
        progress: str | None = None,
    ) -> Detector:
        """Calibrate the emotions to watch, and random directions, on the same neutral texts.

        Mean and sd of the emotions are those that `monitor.calibrate` finds on these texts.

        Parameters
        ----------
        vectors : EmotionVectors
            All that were fitted, not only those to watch: random directions lie outside them.
        layer : int, optional
            The model's read-out layer by default.
        skip : int
            Tokens left out at the start of each text, which read alike whatever they say.

        Returns
        -------
        Detector

        Raises
        ------
        BadInput, UnknownEmotion, UnknownLayer, WrongModel
        """
        chosen, layer = watched(model, vectors, watch, layer)
        drawn = random_directions(random, vectors.at(layer)[:, None], seed=seed)[:, 0]
        MeanFrom(skip).check([len(row) for row in tokenize(model, neutral)], neutral)
        quiet = token_residuals(model, neutral, [layer], progress=progress)
        plain = cls(chosen, layer, np.vstack([chosen.at(layer), drawn]), np.array(0), np.array(1))
        cosines = plain.z(np.concatenate([text[skip:, 0] for text in quiet]))
        return replace(plain, mean=cosines.mean(0), sd=cosines.std(0))

    def z(self, residuals: np.ndarray) -> np.ndarray:
        """Return ``[..., k + random]`` z-scores of residuals ``[..., d_model]`` of the layer."""
        centred = residuals - self.vectors.centre[self.layer]
        return (unit(centred) @ self.directions.T - self.mean) / self.sd

    def read(
        self,
        model: TracedModel,
        chats: Sequence[Sequence[dict]],
        *,
        roles: str | Sequence[str] = ROLES,
        progress: str | None = None,
    ) -> list[np.ndarray]:
        """Read every token of the messages' own words; tokens of the chat template do not count.

        Parameters
        ----------
        chats : sequence of lists of {"role": "system", "user" or "assistant", "content": str}
        roles : str or sequence of str
            Whose messages count. All of a chat is shown to the model in any case.

        Returns
        -------
        list of ``[tokens, k + random]``
            Z-scores, one array a chat. Between two messages stands a row of NaN, since the monitor
            averages within a message.

        Raises
        ------
        BadInput
            For a chat that cannot be read, an unknown role, or a chat without a message of these.
        WrongModel
        """
        self.vectors.check_model(model.identity)
        texts, places = _own_tokens(model, chats, roles)
        residuals = token_residuals(model, texts, [self.layer], progress=progress)
        gap, found = np.full((1, len(self.directions)), np.nan), []
        for own, text in zip(places, residuals, strict=True):
            z = self.z(text[:, 0])
            found.append(np.concatenate([part for n in own for part in (gap, z[n])][1:]))
        return found


def _own_tokens(
    model: TracedModel, chats: Sequence[Sequence[dict]], roles: str | Sequence[str]
) -> tuple[list[str], list[list[list[int]]]]:
    """Return the chats as texts, and where in each the words of these roles stand, by message."""
    roles = [roles] if isinstance(roles, str) else list(roles)
    for role in roles:
        if role not in ROLES:
            raise BadInput(f"there is no role {role!r}; {nearest(str(role), ROLES)}")
    texts, places = [], []
    for n, chat in enumerate(chats):
        text, spans = chat_words(model, chat)
        own = [
            tokens_in(model, text, [span])
            for message, span in zip(chat, spans, strict=True)
            if message["role"] in roles
        ]
        if not own:
            raise BadInput(f"chat {n} has no message of {' or '.join(roles)}; leave it out")
        texts.append(text)
        places.append(own)
    return texts, places


def windowed(z: np.ndarray, window: int = WINDOW) -> np.ndarray:
    """Return means over full windows, at which the monitor asks its rules.

    Parameters
    ----------
    z : ``[tokens, ...]``
        As from `Detector.read`: a window across a row of NaN is NaN.

    Returns
    -------
    ``[tokens - window + 1, ...]``
        Of a text in which no window is full, on which the monitor would never fire, the mean of
        what there is, ``[1, ...]``.

    Examples
    --------
    >>> windowed(np.array([1.0, 3.0, 5.0]), 2).tolist(), windowed(np.array([1.0, 3.0]), 8).tolist()
    ([2.0, 4.0], [2.0])
    """
    if window < 1 or not len(z):
        raise BadInput(f"give a window and a text of 1 token or more, not {window} and {len(z)}")
    if len(z) >= window:
        means = np.lib.stride_tricks.sliding_window_view(z, window, axis=0).mean(-1)
        if _are_tokens(means).any():
            return means
    return np.nanmean(z, axis=0, keepdims=True)


def _are_tokens(z: np.ndarray) -> np.ndarray:
    """Return ``[tokens]``: False for the rows of NaN between messages."""
    return ~np.isnan(z).any(axis=tuple(range(1, z.ndim)))


def peak_scores(
    z: Sequence[np.ndarray], window: int = WINDOW, *, tokens: int | None = None
) -> np.ndarray:
    """Return the highest windowed z of each text, ``[texts, k]``.

    `monitor.Above` fires on the text at every threshold below it, and at none from it on. On a text
    without a full window it never fires; the score is then the mean of what there is.

    Parameters
    ----------
    z : sequence of ``[tokens, k]``, one a text
    tokens : int, optional
        Look at the last so many tokens of each text only. The highest of many windows is higher
        than that of few, so that a longer text scores higher whatever it says; a comparison of
        texts of different lengths would be one of lengths.

    Raises
    ------
    BadInput
        For a text that is shorter than `tokens`.

    Examples
    --------
    >>> calm, angry = np.array([[0.0], [4.0], [4.0], [0.0], [0.0]]), np.zeros((5, 1))
    >>> peak_scores([calm, angry], window=2).tolist()
    [[4.0], [0.0]]
    >>> peak_scores([calm, angry], window=2, tokens=3).tolist()
    [[2.0], [0.0]]
    """
    found = []
    for n, text in enumerate(z):
        if tokens is not None:
            places = np.flatnonzero(_are_tokens(text))
            _check_tail(tokens, len(places), n)
            text = text[places[-tokens] :]
        found.append(np.nanmax(windowed(text, window), axis=0))
    return np.array(found)


def _check_tail(tokens: int, length: int, n: int) -> None:
    if not 1 <= tokens <= length:
        raise BadInput(
            f"text {n} has {length} tokens, so its last {tokens} cannot be read; give `tokens` "
            "from 1 to the length of the shortest text"
        )


def last_words(
    model: TracedModel,
    chats: Sequence[Sequence[dict]],
    tokens: int,
    *,
    roles: str | Sequence[str] = ROLES,
) -> list[str]:
    """Return what stands in the tokens that `peak_scores` looks at, for words to be judged on.

    Parameters
    ----------
    chats, roles
        As for `Detector.read`.
    tokens : int
        The last so many tokens of the messages' own words.

    Returns
    -------
    list of str
        One text a chat, its messages on lines of their own.

    Raises
    ------
    BadInput
        As `Detector.read`, and for a chat that is shorter than `tokens`.

    Examples
    --------
    >>> last_words(llm, [[{"role": "user", "content": "The bus stops at the corner."}]], 3)
    [' the corner.']
    """
    texts, places = _own_tokens(model, chats, roles)
    found = []
    for n, (ids, own) in enumerate(zip(tokenize(model, texts), places, strict=True)):
        length = sum(map(len, own))
        _check_tail(tokens, length, n)
        left, parts = length - tokens, []
        for part in own:
            parts.append(model.tokenizer.decode([ids[place] for place in part[left:]]))
            left = max(left - len(part), 0)
        found.append("\n".join(filter(None, parts)))
    return found


def comparable(
    z: Sequence[np.ndarray], labels: Sequence[int], groups: Sequence, tokens: int
) -> np.ndarray:
    """Return which texts are long enough, beside one of the other label in their group that is.

    Parameters
    ----------
    z : sequence of ``[tokens, k]``, n texts
        As from `Detector.read`.
    labels, groups : sequences, n
        As for `detection`.
    tokens : int
        A text is long enough if it has so many.

    Returns
    -------
    ``[n]`` truth values

    Raises
    ------
    BadInput
        If fewer than two groups are left.

    Examples
    --------
    >>> z = [np.zeros((length, 1)) for length in (9, 9, 9, 5, 9, 9)]
    >>> comparable(z, [1, 0, 1, 0, 1, 0], ["a", "a", "b", "b", "c", "c"], 8).tolist()
    [True, True, False, False, True, True]
    """
    long = np.array([_are_tokens(text).sum() >= tokens for text in z], dtype=bool)
    labels, groups = np.asarray(labels), np.asarray(groups)
    sides = [set(groups[long & (labels == label)]) for label in (0, 1)]
    left = set.intersection(*sides)
    if len(left) < 2:
        raise BadInput(
            f"{len(left)} of {len(set(groups))} groups have texts of both labels with {tokens} "
            "tokens or more, and it takes two; give more or longer texts, or ask for fewer tokens"
        )
    return long & np.isin(groups, list(left))


# --- thresholds --------------------------------------------------------------------------------


def alarm_threshold(scores: np.ndarray, false_alarms: float = 0.01) -> np.ndarray:
    """Return the lowest threshold that a fresh neutral text exceeds with no more than this chance.

    The chance that a further text scores above the r-th lowest of n like it is at most
    1 - r / (n + 1), whatever the scores' distribution. A quantile of the n alone would promise more
    than it keeps.

    Parameters
    ----------
    scores : ``[texts]`` or ``[texts, k]``
        Of neutral texts, other than those that the detector was calibrated on.

    Returns
    -------
    A number, or ``[k]``.

    Raises
    ------
    BadInput
        For a share that is none, or too few texts for one so small.

    Examples
    --------
    >>> float(alarm_threshold(np.arange(99.0)))
    98.0
    """
    if not 0 < false_alarms < 1:
        raise BadInput(f"false alarms are a share of texts between 0 and 1, not {false_alarms}")
    n = len(scores)
    above = int((n + 1) * false_alarms + 1e-9)
    if not above:
        raise BadInput(
            f"false alarms on {false_alarms:g} of texts take {int(np.ceil(1 / false_alarms)) - 1} "
            f"neutral texts or more, not {n}; give more, or allow more"
        )
    return np.sort(scores, axis=0)[n - above]


def false_alarm_rate(
    z: Sequence[np.ndarray],
    threshold: float,
    window: int = WINDOW,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Return alarms per 1,000 tokens: runs of windows above the threshold, each counted once.

    Parameters
    ----------
    z : sequence of ``[tokens]``, one a text
        Of one emotion, in texts without it, with NaN between messages.

    Returns
    -------
    Estimate
        Over as many texts; the interval resamples texts. Without a single alarm its upper end is
        the rate at which so many tokens would pass without one in one of forty cases (Poisson).

    Raises
    ------
    BadInput
        For the z of several emotions at once, or what `windowed` refuses.

    Examples
    --------
    >>> false_alarm_rate([np.array([0, 4, 4, 0, 4]), np.zeros(5)], 3, window=1).value
    200.0
    """
    if any(np.ndim(text) != 1 for text in z):
        raise BadInput("give the z of one emotion, such as [text[:, 0] for text in z]")
    above = [windowed(text, window) > threshold for text in z]
    alarms = np.array([np.sum(row & ~np.append(False, row[:-1])) for row in above])
    tokens = np.array([_are_tokens(text).sum() for text in z])
    if not alarms.any():
        high = -1000 * np.log(0.025) / tokens.sum()
        return Estimate(0.0, 0.0, float(high), len(tokens))
    return bootstrap(
        lambda a, n, axis: 1000 * a.sum(axis) / n.sum(axis),
        alarms,
        tokens,
        resamples=resamples,
        seed=seed,
    )


# --- how well it detects -----------------------------------------------------------------------


def detection(
    scores: Sequence[float],
    labels: Sequence[int],
    groups: Sequence,
    threshold: float,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how well a score finds the texts labelled 1 among those labelled 0.

    Parameters
    ----------
    scores : sequence of float, n_texts
    labels : sequence of 0 or 1, n_texts
    groups : sequence, n_texts
        Of texts that are not independent, such as pairs.
    threshold : float
        Set on other texts.

    Returns
    -------
    DataFrame
        One row a measure: measure, value, low, high, n (texts), p. "auc" is the chance that a text
        labelled 1 scores above one labelled 0, with interval and p of `grading.score_auc`, over
        groups; "detected" and "false alarms" are the shares of texts labelled 1 and 0 above the
        threshold, with Wilson intervals, which take texts as independent.

    Raises
    ------
    BadInput
        As `grading.score_auc`.

    Examples
    --------
    >>> found = detection([4, 3, 2, 1], [1, 1, 0, 0], groups=[0, 1, 0, 1], threshold=3)
    >>> dict(zip(found.measure, found.value, strict=True))
    {'auc': 1.0, 'detected': 0.5, 'false alarms': 0.0}
    """
    auc = score_auc(scores, labels, groups=groups, seed=seed)
    above, labels = np.asarray(scores) > threshold, np.asarray(labels, dtype=bool)
    rows = [("auc", auc.value, auc.low, auc.high, auc.n, auc.p)]
    for measure, hits in (("detected", above[labels]), ("false alarms", above[~labels])):
        found = share(hits.sum(), len(hits))
        rows.append((measure, found.value, found.low, found.high, found.n, None))
    return pd.DataFrame(rows, columns=["measure", "value", "low", "high", "n", "p"])


def aucs(scores: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """Return the area under the ROC curve of each column of ``[texts, k]`` scores, ``[k]``.

    Raises
    ------
    BadInput
        For labels that are not one a text, 0 or 1 and some of each, or scores that are no numbers.

    Examples
    --------
    >>> aucs(np.array([[1, 3], [2, 2], [3, 1]]), [0, 1, 1]).tolist()
    [1.0, 0.0]
    """
    labels, scores = check_labels(labels, range(len(labels))), np.asarray(scores, dtype=float)
    if scores.ndim != 2 or len(scores) != len(labels) or not np.isfinite(scores).all():
        raise BadInput(
            f"{len(labels)} labels need scores [{len(labels)}, k], all of them numbers, not "
            f"{list(scores.shape)}"
        )
    n = labels.sum()
    ranks = rankdata(scores, axis=0)[labels].sum(0)
    return (ranks - n * (n + 1) / 2) / (n * (len(labels) - n))


def auc_against_random(
    scores: Sequence[float], random: np.ndarray, labels: Sequence[int]
) -> tuple[np.ndarray, float]:
    """Return the AUC of each random direction, ``[n]``, and the share that does as well as a score.

    What any direction of the residual stream tells of the texts, such as their length or setting.
    To do better is necessary, and not much: random directions lie outside the emotions' span.

    Parameters
    ----------
    scores : sequence of float, n_texts
        Of an emotion, which should be higher where the label is 1.
    random : ``[n_texts, n]``
        Scores of the same texts by random directions.

    Returns
    -------
    tuple
        (AUCs, p). p is one-sided: only a direction that is as high where the label is 1 does as
        well, not one that is as low. The mirror image of a direction is as likely to be drawn, so
        that the null leans to neither side.

    Raises
    ------
    BadInput
        As `aucs`.

    Examples
    --------
    >>> random = np.random.default_rng(0).normal(size=(20, 99))
    >>> aucs_by_lot, p = auc_against_random(np.arange(20), random, [0] * 10 + [1] * 10)
    >>> aucs_by_lot.shape, p
    ((99,), 0.01)
    """
    found = aucs(np.column_stack([scores, random]), labels)
    return found[1:], exceedance_p(found[0], found[1:])


def auc_against_random_sets(
    scores: np.ndarray,
    random: np.ndarray,
    labels: np.ndarray,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[np.ndarray, float]:
    """Do as `auc_against_random` does where each text is asked for k emotions at once.

    In place of the k emotions stand k of the random directions, drawn by lot.

    Parameters
    ----------
    scores, labels : ``[texts, k]``
        All of them make one AUC.
    random : ``[texts, n]``

    Returns
    -------
    tuple
        (AUCs ``[draws]``, p).

    Raises
    ------
    BadInput
        For fewer random directions than emotions; and as `aucs`.

    Examples
    --------
    >>> asked = np.eye(6)  # six texts, each with one of six emotions
    >>> random = np.random.default_rng(0).normal(size=(6, 20))
    >>> aucs_by_lot, p = auc_against_random_sets(asked, random, asked, draws=99)
    >>> aucs_by_lot.shape, p
    ((99,), 0.01)
    """
    n, k = random.shape[1], scores.shape[1]
    if n < k:
        raise BadInput(f"{k} emotions need as many random directions, not {n}; draw more")
    rng, flat, found = np.random.default_rng(seed), np.ravel(labels), []
    chosen = [rng.choice(n, size=k, replace=False) for _ in range(draws)]
    for start in range(0, draws, AT_ONCE):
        columns = [random[:, one].ravel() for one in chosen[start : start + AT_ONCE]]
        found.append(aucs(np.column_stack(columns), flat))
    found = np.concatenate(found)
    [mine] = aucs(np.reshape(scores, (-1, 1)), flat)
    return found, exceedance_p(mine, found)


def auc_difference(
    a: Sequence[float],
    b: Sequence[float],
    labels: Sequence[int],
    groups: Sequence,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Return the AUC of score a less that of score b on the same texts; groups are resampled.

    Parameters
    ----------
    a, b : sequences of float, n_texts
        On scales of their own.
    labels, groups : sequences, n_texts
        As for `detection`.

    Raises
    ------
    BadInput
        As `aucs`; and for other than one group a text, or fewer than two groups.

    Examples
    --------
    >>> monitor, lexicon = [4, 3, 2, 1], [0, 0, 0, 0]
    >>> auc_difference(monitor, lexicon, [1, 1, 0, 0], groups=[0, 1, 0, 1]).value
    0.5
    """
    if len(a) != len(b):
        raise BadInput(f"{len(a)} and {len(b)} scores are not of the same texts; give one each")
    labels, both = check_labels(labels, groups), np.column_stack([a, b])
    value = np.subtract(*aucs(both, labels))
    # a wins over b by the pairs of texts that it sets right and b does not
    more = np.subtract(*(wins(x, labels) for x in both.T))
    rng = np.random.default_rng(seed)
    return Estimate(float(value), *wins_interval(more, labels, groups, rng, resamples), len(both))


# --- beside the words --------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """How well a monitor, words and random directions tell the same texts.

    Attributes
    ----------
    table : DataFrame
        One row a judge and measure: the columns of `detection` and by, which is "monitor", the name
        of words or `BY_LOT`. Of words without a threshold, and of random directions (their mean and
        95 % range), there is the AUC alone.
    random : ``[n]``
        AUCs of random directions.
    p : float
        Share of them that do as well as the monitor.
    best : str
        The words with the highest AUC. They are chosen on the texts that they are judged on, which
        favours the words.
    gains : {words: Estimate}
        AUC of the monitor less that of the words.
    """

    table: pd.DataFrame
    random: np.ndarray
    p: float
    best: str
    gains: dict[str, Estimate]


def compared(
    scores: Sequence[float],
    words: Mapping[str, Sequence[float]],
    random: tuple[np.ndarray, float],
    labels: Sequence[int],
    groups: Sequence,
    *,
    limit: float,
    word_limits: Mapping[str, float],
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Hold a monitor's scores to what words and random directions tell of the same texts.

    Parameters
    ----------
    scores : sequence of float, n_texts
    words : {name: sequence of float, n_texts}
    random : tuple
        As from `auc_against_random` or `auc_against_random_sets`, of the same texts.
    labels, groups : sequences, n_texts
        As for `detection`.
    limit : float
        The monitor's threshold.
    word_limits : {name: float}
        Thresholds of those words that have one.

    Returns
    -------
    Comparison

    Raises
    ------
    BadInput
        As `detection` and `auc_difference`.

    Examples
    --------
    >>> labels, groups, random = [1, 1, 0, 0], [0, 1, 0, 1], (np.array([0.4, 0.5, 0.6]), 0.25)
    >>> words, limits = {"lexicon": [0, 0, 0, 0]}, {"limit": 2, "word_limits": {}}
    >>> found = compared([4, 3, 2, 1], words, random, labels, groups, **limits)
    >>> found.table.query("measure == 'auc'")[["by", "value"]].values.tolist()
    [['monitor', 1.0], ['lexicon', 0.5], ['random directions', 0.5]]
    >>> found.gains["lexicon"].value
    0.5
    """
    parts = [detection(scores, labels, groups, limit, seed=seed).assign(by="monitor")]
    for name, values in words.items():
        mine = detection(values, labels, groups, word_limits.get(name, np.inf), seed=seed)
        parts.append((mine if name in word_limits else mine[mine.measure == "auc"]).assign(by=name))
    aucs_by_lot, p = random
    low, high = np.quantile(aucs_by_lot, [0.025, 0.975])
    lot = {"measure": "auc", "value": aucs_by_lot.mean(), "low": low, "high": high}
    parts.append(pd.DataFrame([{**lot, "n": len(aucs_by_lot), "p": p, "by": BY_LOT}]))
    table = pd.concat(parts, ignore_index=True)
    area = table[table.measure == "auc"].set_index("by").value
    gains = {
        name: auc_difference(scores, values, labels, groups, resamples=resamples, seed=seed)
        for name, values in words.items()
    }
    return Comparison(table, aucs_by_lot, p, area[list(words)].idxmax(), gains)


def enter(
    register: Register, key: str, what: str, comparison: Comparison, *, allowed: float
) -> None:
    """Enter a comparison in the register.

    Keys are ``<measure>_<key>_<by>``, such as ``auc_steered_monitor``, and ``gain_<key>``,
    ``best_<key>`` and ``random_<key>``.

    Parameters
    ----------
    what : str
        What is detected, for the register.
    allowed : float
        Share of neutral texts above the thresholds.

    Examples
    --------
    >>> labels, groups, random = [1, 1, 0, 0], [0, 1, 0, 1], (np.array([0.4, 0.5, 0.6]), 0.25)
    >>> words, limits = {"lexicon": [0, 0, 0, 0]}, {"limit": 2, "word_limits": {}}
    >>> found = compared([4, 3, 2, 1], words, random, labels, groups, **limits)
    >>> register = Register("09_monitor", "model", "ci")
    >>> enter(register, "steered", "calm in steered texts", found, allowed=0.01)
    >>> [register[key].value for key in ("auc_steered_monitor", "gain_steered", "best_steered")]
    [1.0, 0.5, 'lexicon']
    """
    table, best = comparison.table, comparison.best
    for row in table[table.by != BY_LOT].itertuples():
        at = "" if row.measure == "auc" else f", at {allowed:g} on neutral texts"
        register.add(
            key_of(row.measure, key, row.by),
            row.value,
            low=row.low,
            high=row.high,
            n=int(row.n),
            method=f"{what}, by {row.by}: {row.measure}{at}",
        )
    method = f"{what}: AUC of the monitor less that of {best}"
    register.add(key_of("gain", key), comparison.gains[best], method=method)
    method = f"{what}: the words with the highest AUC on these texts, which favours them"
    register.add(key_of("best", key), best, method=method)
    register.add(
        key_of("random", key),
        float(np.quantile(comparison.random, 0.95)),
        n=len(comparison.random),
        method=f"{what}: AUC that 95 % of random directions stay below",
    )


# --- what words alone tell ---------------------------------------------------------------------


def story_words(stories: pd.DataFrame, emotions: Sequence[str]) -> dict[str, Pipeline]:
    """Return regressions that tell the words of each emotion's stories from those of all others.

    The baseline that knows what the vectors know: logistic regressions on TF-IDF of words and
    pairs of words, fitted on the stories that the vectors were fitted on. They never name their
    emotion, so that its word tells nothing here.

    Parameters
    ----------
    stories : DataFrame
        Columns text and emotion, such as `Extraction.stories`.
    emotions : sequence of str

    Returns
    -------
    dict
        {emotion: scikit-learn pipeline}; its ``decision_function(texts)`` is above 0 where the
        emotion is the likelier with both classes of equal weight. All share one TF-IDF.

    Raises
    ------
    BadInput
        For a missing column, or stories of one emotion only.
    UnknownEmotion
        If no story is of an emotion.

    Examples
    --------
    >>> texts = ["She breathed slowly by the lake.", "He slammed the door on them."]
    >>> words = story_words(pd.DataFrame({"text": texts, "emotion": ["calm", "angry"]}), ["calm"])
    >>> scores = words["calm"].decision_function(["The lake lay still.", "The door shook."])
    >>> (scores > 0).tolist()
    [True, False]
    """
    check_columns(stories, "text", "emotion")
    known = stories.emotion.unique()
    for emotion in emotions:
        if emotion not in known:
            raise UnknownEmotion(f"no story is of {emotion!r}; {nearest(emotion, known)}")
    if len(known) == 1:
        raise BadInput(f"all stories are of {known[0]!r}; add some of other emotions")
    tfidf, regression = word_model()
    counts = tfidf.fit_transform(stories.text)
    return {
        emotion: make_pipeline(tfidf, clone(regression).fit(counts, stories.emotion == emotion))
        for emotion in emotions
    }

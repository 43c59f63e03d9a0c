"""What the three graders of steered replies share: hand labels, rates, and what words alone tell.

Rules sort a reply into labels; `agreement` says how well they match labels set by hand. `rates` and
`rate_tests` compare how often a label is given when the model is steered (Figs 26-35);
`text_auc` asks whether words alone tell a steered text, the baseline of any probe in `score_auc`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata, t
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score, precision_recall_fscore_support
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline

from emotion_concepts import corpus
from emotion_concepts.errors import BadInput, nearest
from emotion_concepts.experiments.steered import CELL
from emotion_concepts.stats import Estimate, holm, permutation_p, share


def check_columns(table: pd.DataFrame, *columns: str) -> None:
    """Raise BadInput if the table lacks a column or has no rows.

    >>> check_columns(pd.DataFrame({"text": ["I sort the mails."]}), "text", "label")
    Traceback (most recent call last):
        ...
    emotion_concepts.errors.BadInput: the table has no column 'label'; it needs text, label
    """
    if missing := [name for name in columns if name not in table]:
        raise BadInput(f"the table has no column {missing[0]!r}; it needs {', '.join(columns)}")
    if table.empty:
        raise BadInput("the table has no rows; give at least one text")


# --- labels set by hand ------------------------------------------------------------------------


def load_labelled(
    name: str, columns: Mapping[str, type | Sequence[str]], path: str | Path | None = None
) -> pd.DataFrame:
    """Return replies with labels set by hand, from ``data/labelled_{name}.jsonl``.

    Parameters
    ----------
    columns : {column: its type, or the texts that it may hold}
    path : str or Path, optional
        A .jsonl of your own with the same columns.

    Raises
    ------
    BadInput
        Names the line: for a missing column, a value of another type, or one that is not allowed.

    Examples
    --------
    >>> load_labelled("blackmail", {"id": str, "split": ("develop", "held")}).shape
    (96, 2)
    """
    file = corpus.DATA / f"labelled_{name}.jsonl" if path is None else Path(path)
    rows = []
    for where, row in corpus.read_jsonl(file):
        for column, allowed in columns.items():
            if column not in row:
                raise BadInput(f"{where}: no {column!r}; it has {', '.join(row) or 'nothing'}")
            value = row[column]
            kind = allowed if isinstance(allowed, type) else str
            if not isinstance(value, kind):
                raise BadInput(f"{where}: {column} must be a {kind.__name__}, not {value!r}")
            if kind is not allowed and value not in allowed:
                raise BadInput(f"{where}: no {column} {value!r}; {nearest(value, allowed)}")
        rows.append(row)
    return pd.DataFrame(rows, columns=list(columns))


def agreement(true: Sequence, graded: Sequence, labels: Sequence) -> pd.DataFrame:
    """Return how far graded labels agree with those set by hand.

    Returns
    -------
    DataFrame
        One row a label and "overall": label, n (so labelled by hand), precision, recall (of the
        overall row the share graded alike, in both), low, high (95 % Wilson interval of recall),
        majority (share of the commonest label: the null) and kappa (Cohen's; 0 is chance, NaN where
        there is one label only), both of the overall row only. NaN where nothing was found, or
        nothing is to be found.

    Raises
    ------
    BadInput
        For no texts, lists of different lengths, or a label outside `labels`.

    Examples
    --------
    >>> found = agreement(["yes", "yes", "no", "no"], ["yes", "no", "no", "no"], ["yes", "no"])
    >>> found.recall.tolist(), float(found.kappa.iloc[-1])
    ([0.5, 1.0, 0.75], 0.5)
    """
    true, graded, labels = np.asarray(true), np.asarray(graded), list(labels)
    if len(true) != len(graded) or not len(true):
        raise BadInput(f"{len(true)} labels and {len(graded)} grades; give one each a text")
    used = {*true.tolist(), *graded.tolist()}
    if odd := sorted(used - set(labels), key=str):
        raise BadInput(f"no label is called {odd[0]!r}; {nearest(str(odd[0]), map(str, labels))}")
    precision, recall, _, n = precision_recall_fscore_support(
        true, graded, labels=labels, zero_division=np.nan
    )
    right = true == graded
    table = pd.DataFrame({"label": [*labels, "overall"], "n": [*n, len(true)]})
    table["precision"], table["recall"] = [*precision, right.mean()], [*recall, right.mean()]
    hits = [*(right[true == name].sum() for name in labels), right.sum()]
    ends = [_wilson(k, m) for k, m in zip(hits, table.n, strict=True)]
    table["low"], table["high"] = zip(*ends, strict=True)
    table[["majority", "kappa"]] = np.nan
    kappa = cohen_kappa_score(true, graded) if len(used) > 1 else np.nan
    table.loc[len(labels), ["majority", "kappa"]] = n.max() / len(true), kappa
    return table


def _wilson(hits: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a share, NaN of nothing."""
    if not n:
        return np.nan, np.nan
    found = share(hits, n)
    return found.low, found.high


# --- rates under steering ----------------------------------------------------------------------


def repetition(text: str) -> float:
    """Return the share of word 4-grams that occurred before in the text, 0 for fewer than two.

    Steering that breaks the model makes it loop.

    >>> repetition("I will sort the mails. I will sort the mails."), repetition("I sort mails.")
    (0.2857142857142857, 0.0)
    """
    words = re.findall(r"\w+", text.lower())
    grams = list(zip(*(words[n:] for n in range(4)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def rates(graded: pd.DataFrame, outcome: str) -> pd.DataFrame:
    """Return how often each cell's texts have a label, and how damaged they are.

    Parameters
    ----------
    graded : DataFrame
        One row a text: kind, direction, strength, label, text.
    outcome : str
        The label that is counted. Unparsable texts count as not having it.

    Returns
    -------
    DataFrame
        One row a cell in order of appearance: kind, direction, strength, n, hits, rate, low, high
        (95 % Wilson interval, as if texts of one item were independent), unparsable (share),
        repetition (mean).

    Raises
    ------
    BadInput
        For a missing column or no rows.

    Examples
    --------
    >>> graded = pd.DataFrame({"label": ["cheat", "honest", "cheat", "cheat"], "text": "I try."})
    >>> graded["direction"] = ["calm", "calm", "desperate", "desperate"]
    >>> found = rates(graded.assign(kind="emotion", strength=0.1), "cheat")
    >>> found[["direction", "n", "hits", "rate"]].values.tolist()
    [['calm', 2, 1, 0.5], ['desperate', 2, 2, 1.0]]
    """
    check_columns(graded, *CELL, "label", "text")
    rows = []
    for key, cell in graded.groupby(CELL, sort=False):
        n, hits = len(cell), int((cell.label == outcome).sum())
        damage = (cell.label == "unparsable").mean(), cell.text.map(repetition).mean()
        rows.append((*key, n, hits, hits / n, *_wilson(hits, n), *damage))
    columns = ["n", "hits", "rate", "low", "high", "unparsable", "repetition"]
    return pd.DataFrame(rows, columns=[*CELL, *columns])


def rate_tests(
    graded: pd.DataFrame,
    outcome: str,
    *,
    adjust: Callable[[np.ndarray], np.ndarray] = holm,
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Hold the rate of each emotion cell to that of all random directions of the same strength.

    A random direction's mirror image is as random, so that its sign does not matter. Two nulls are
    tested, and the larger p counts: texts are exchanged between the emotion and the random
    directions within each item (a mere accident of sampling), and the rate is held to the spread of
    rates over random directions (an accident of direction, by Student's t).

    Parameters
    ----------
    graded : DataFrame
        One row a text: kind ("emotion" and "random" are used), direction, strength, item, label.
    adjust : callable
        Takes the p values of all emotion cells and returns them corrected for their number.

    Returns
    -------
    DataFrame
        One row an emotion cell: direction, strength, rate, control_rate, difference, low, high (95
        % by Newcombe's method, which knows that a rate of 0 is no certainty), n (texts of the
        cell), p (two-sided, the larger of both), passes (adjusted p below .05).

    Raises
    ------
    BadInput
        For a missing column, no emotion cells, or fewer than three random directions at a cell's
        strength.

    Examples
    --------
    >>> kinds, names = ["emotion", *["random"] * 3], ["desperate", "r1", "r2", "r3"]
    >>> cells = pd.DataFrame({"kind": kinds, "direction": names, "strength": 0.1})
    >>> cells["label"] = ["cheat", "honest", "honest", "honest"]
    >>> graded = cells.merge(pd.DataFrame({"item": range(6)}), how="cross")
    >>> found = rate_tests(graded, "cheat")
    >>> found[["direction", "difference", "passes"]].values.tolist()
    [['desperate', 1.0, True]]
    """
    check_columns(graded, *CELL, "item", "label")
    rng = np.random.default_rng(seed)
    table = graded.assign(hit=graded.label == outcome)
    random, emotion = (table[table.kind == kind] for kind in ("random", "emotion"))
    if emotion.empty:
        raise BadInput("there are no texts of kind 'emotion' to test")
    rows = []
    for (direction, strength), cell in emotion.groupby(CELL[1:], sort=False):
        control = random[random.strength.abs() == abs(strength)]
        each = control.groupby(["direction", "strength"]).hit.mean()
        if len(each) < 3:
            raise BadInput(
                f"three random directions or more are needed at strength ±{abs(strength)}, "
                f"not {len(each)}"
            )
        (n, rate), (m, base) = ((len(side), side.hit.mean()) for side in (cell, control))
        low, high = _newcombe(share(int(cell.hit.sum()), n), share(int(control.hit.sum()), m))
        p = max(_exchange_p(cell, control, rng, draws), _direction_p(rate, each.to_numpy()))
        rows.append((direction, strength, rate, base, rate - base, low, high, n, p))
    columns = ["rate", "control_rate", "difference", "low", "high", "n", "p"]
    found = pd.DataFrame(rows, columns=[*CELL[1:], *columns])
    found["passes"] = adjust(found.p.to_numpy()) < 0.05
    return found


def _newcombe(a: Estimate, b: Estimate) -> tuple[float, float]:
    """Return the interval of the difference of two shares, from their Wilson intervals."""
    apart = a.value - b.value
    low = apart - np.hypot(a.value - a.low, b.high - b.value)
    return float(low), float(apart + np.hypot(a.high - a.value, b.value - b.low))


def _exchange_p(
    cell: pd.DataFrame, control: pd.DataFrame, rng: np.random.Generator, draws: int
) -> float:
    """Return the two-sided p of the cell's number of hits, its texts drawn from both by item."""
    both = pd.concat([cell, control]).groupby("item").hit
    hits, n = both.sum().to_numpy(dtype=int), both.size()
    mine = cell.groupby("item").size().reindex(n.index, fill_value=0).to_numpy()
    n = n.to_numpy()
    expected = (mine * hits / n).sum()
    null = rng.hypergeometric(hits, n - hits, mine, size=(draws, len(n))).sum(1)
    return permutation_p(cell.hit.sum() - expected, null - expected)


def _direction_p(rate: float, rates: np.ndarray) -> float:
    """Return the two-sided p that a further random direction has a rate as far from theirs."""
    scale = rates.std(ddof=1) * np.sqrt(1 + 1 / len(rates))
    gap = abs(rate - rates.mean())
    if scale == 0:  # no spread to speak of, such as a rate of 0 in all: sampling alone decides
        return 0.0
    return float(2 * t.sf(gap / scale, len(rates) - 1))


# --- what words, and scores, tell ---------------------------------------------------------------


def score_auc(
    scores: Sequence[float],
    labels: Sequence[int],
    *,
    groups: Sequence,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Return the area under the ROC curve of a score: how well it tells texts labelled 1 from 0.

    Parameters
    ----------
    scores : sequence of float, n_texts
        Of a probe, or of a lexicon.
    labels : sequence of 0 or 1, n_texts
    groups : sequence, n_texts
        Of texts that are not independent, such as the items. The interval resamples groups; p is
        two-sided, with labels shuffled within groups.

    Raises
    ------
    BadInput
        For different lengths, scores that are no numbers, or fewer than two groups or labels.

    Examples
    --------
    >>> found = score_auc([3, 1, 4, 2], [1, 0, 1, 0], groups=[0, 0, 1, 1])
    >>> found.value, found.n
    (1.0, 4)
    """
    scores, labels = np.asarray(scores, dtype=float), check_labels(labels, groups)
    if len(scores) != len(labels) or not np.isfinite(scores).all():
        raise BadInput(f"{len(labels)} labels need as many scores, all of them numbers")
    rng = np.random.default_rng(seed)
    won = wins(scores, labels)
    low, high = wins_interval(won, labels, groups, rng, resamples)
    # the area is linear in the sum of ranks
    ranks = rankdata(scores) / won.size
    excess, null = 0.0, np.zeros(resamples)
    _, group = np.unique(groups, return_inverse=True)
    for inside in (group == g for g in range(group.max() + 1)):
        mine = labels[inside] - labels[inside].mean()
        excess += mine @ ranks[inside]
        null += rng.permuted(np.tile(mine, (resamples, 1)), axis=1) @ ranks[inside]
    p = permutation_p(excess, null)
    return Estimate(float(won.mean()), low, high, len(labels), p)


def wins(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return ``[n of label 1, n of label 0]``: 1 where the first scores higher, a tie is half.

    >>> wins(np.array([3.0, 1.0, 2.0, 1.0]), np.array([True, True, False, False])).tolist()
    [[1.0, 1.0], [0.0, 0.5]]
    """
    return np.heaviside(scores[labels, None] - scores[~labels], 0.5)


def wins_interval(
    won: np.ndarray,
    labels: np.ndarray,
    groups: Sequence,
    rng: np.random.Generator,
    resamples: int,
) -> tuple[float, float]:
    """Return the 95 % interval of the mean of `wins`, or of their differences, over groups.

    >>> labels = np.array([True, True, False, False])
    >>> won = wins(np.array([4.0, 3.0, 2.0, 1.0]), labels)
    >>> wins_interval(won, labels, [0, 1, 0, 1], np.random.default_rng(0), resamples=200)
    (1.0, 1.0)
    """
    names, group = np.unique(groups, return_inverse=True)
    k, own = len(names), np.eye(len(names))[group]
    won = own[labels].T @ won @ own[~labels]
    pairs = np.outer(own[labels].sum(0), own[~labels].sum(0))
    times = rng.multinomial(k, np.full(k, 1 / k), resamples).astype(float)  # each group is drawn
    won, met = (np.einsum("bg,gh,bh->b", times, x, times, optimize=True) for x in (won, pairs))
    low, high = np.quantile(won[met > 0] / met[met > 0], [0.025, 0.975])
    return float(low), float(high)


def text_auc(
    texts: Sequence[str], labels: Sequence[int], groups: Sequence, *, seed: int = 0
) -> Estimate:
    """Return how well words alone tell texts labelled 1 (steered) from 0: area under the ROC curve.

    Of the decision values of `own_words`; interval and p as in `score_auc`.

    Parameters
    ----------
    texts : sequence of str, n_texts
    labels : sequence of 0 or 1, n_texts
    groups : sequence, n_texts
        The items; each should have texts of both labels.

    Raises
    ------
    BadInput
        For different lengths, or fewer than two groups or labels.

    Examples
    --------
    >>> steered = [f"I must write to {name} now" for name in ("Ines", "Greta", "Paul", "Maya")]
    >>> plain = [f"I sort the mails of {name}" for name in ("Ines", "Greta", "Paul", "Maya")]
    >>> found = text_auc(steered + plain, [1] * 4 + [0] * 4, groups=[*range(4), *range(4)])
    >>> found.value, found.n
    (1.0, 8)
    """
    return score_auc(own_words(texts, labels, groups), labels, groups=groups, seed=seed)


def own_words(texts: Sequence[str], labels: Sequence[int], groups: Sequence) -> np.ndarray:
    """Return how much the words of each text are those of texts labelled 1, ``[n_texts]``.

    A logistic regression on TF-IDF of words and pairs of words, each text judged by a model that
    saw no text of its group.

    Parameters
    ----------
    texts, labels, groups
        As for `text_auc`.

    Returns
    -------
    ``[n]``
        Decision values, of up to five models, each with both classes of equal weight.

    Raises
    ------
    BadInput
        As `text_auc`.

    Examples
    --------
    >>> texts = ["I must write to Ines now", "I sort mails", "I must call now", "I sort letters"]
    >>> (own_words(texts, [1, 0, 1, 0], groups=["Ines", "Ines", "Paul", "Paul"]) > 0).tolist()
    [True, False, True, False]
    """
    labels = check_labels(labels, groups)
    if len(texts) != len(labels):
        raise BadInput(f"{len(texts)} texts need as many labels, not {len(labels)}")
    return cross_val_predict(
        word_model(),
        list(texts),
        labels,
        groups=groups,
        cv=GroupKFold(min(5, len(set(groups)))),
        method="decision_function",
    )


def word_model() -> Pipeline:
    """Return a logistic regression on TF-IDF of words and pairs of words, to be fitted.

    >>> model = word_model().fit(["I must write to Ines now", "I sort the mails"], [1, 0])
    >>> model.predict(["Write now!", "She sorts mails"]).tolist()
    [1, 0]
    """
    # balanced classes: an intercept that differs by fold would be a clue of its own
    return make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(class_weight="balanced", max_iter=1000),
    )


def check_labels(labels: Sequence[int], groups: Sequence) -> np.ndarray:
    """Return labels as ``[n]`` bool; raise BadInput unless they are binary, one a group.

    >>> check_labels([1, 0, 1], groups=["bookshop", "bookshop", "dental"]).tolist()
    [True, False, True]
    """
    labels = np.asarray(labels)
    if len(groups) != len(labels) or len(set(groups)) < 2:
        raise BadInput(f"{len(labels)} labels need as many groups, at least two of them different")
    if set(labels.tolist()) != {0, 1}:
        raise BadInput("labels must be 0 and 1, and some of each")
    return labels.astype(bool)

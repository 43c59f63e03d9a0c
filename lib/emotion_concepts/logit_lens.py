"""The logit lens: which tokens a direction raises, and whether they are its emotion's own words.

Pure arrays; the logits come from `tracing.lens_logits`, the directions from `vectors`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from emotion_concepts.errors import BadInput
from emotion_concepts.stats import bootstrap, exceedance_p


def logit_lens(
    logits: np.ndarray, names: Sequence[str], tokens: Sequence[str], *, k: int = 5
) -> pd.DataFrame:
    """Return the tokens that each direction raises and lowers most (Table 1).

    Parameters
    ----------
    logits : ``[n, vocab]``
        Of the directions, from :func:`tracing.lens_logits`.
    names : sequence of str, n
    tokens : sequence of str, vocab

    Returns
    -------
    DataFrame
        With columns emotion, top, bottom (lists of `k` tokens, strongest first).

    Examples
    --------
    >>> logit_lens(np.array([[0.1, 0.9, 0.5]]), ["calm"], ["a", "b", "c"], k=1).loc[0].tolist()
    ['calm', ['b'], ['a']]
    """
    order = np.argsort(logits, axis=1)
    return pd.DataFrame(
        {
            "emotion": list(names),
            "top": [[tokens[t] for t in row[: -k - 1 : -1]] for row in order],
            "bottom": [[tokens[t] for t in row[:k]] for row in order],
        }
    )


# --- do directions raise the words of their own emotion? (a score for Table 1) ------------------


def family_tokens(
    names: Sequence[str], tokens: Sequence[str], families: Mapping[str, Collection[str]]
) -> tuple[list[str], list[list[int]]]:
    """Return the emotions whose word family has members of a single token, and those tokens' ids.

    A token is a member if it is a whole word of the family, apart from spaces, word-start markers
    and capitals; a piece without a space counts too, such as "rage" in "courage". The sets of ids
    are disjoint: a token that names an emotion is that emotion's (*unhappy* is not *happy*'s), and
    any other token of several families is nobody's (*hopes* of *hope* and *hopeful*), since it
    cannot tell one from the other. Emotions left without a token are left out.

    Parameters
    ----------
    names : sequence of str, n
    tokens : sequence of str, vocab
        From :func:`tracing.vocabulary`.
    families : {name: words}
        Of at least the names, from :func:`corpus.word_family`.

    Raises
    ------
    BadInput
        If a name has no family, or no word of any family is a single token.

    Examples
    --------
    >>> families = {"happy": {"happy", "unhappy"}, "unhappy": {"unhappy"}, "smug": {"smugly"}}
    >>> family_tokens(["happy", "unhappy", "smug"], [" Happy", "happy", " unhappy"], families)
    (['happy', 'unhappy'], [[0, 1], [2]])
    """
    if absent := [name for name in names if name not in families]:
        raise BadInput(f"no family for {', '.join(absent)}; families needs an entry for every name")
    owners: dict[str, list[str]] = {}
    for name in names:
        for word in families[name]:
            owners.setdefault(word, []).append(name)
    owners |= {name: [name] for name in names}
    ids: dict[str, list[int]] = {name: [] for name in names}
    for token, text in enumerate(tokens):
        owner = owners.get(text.strip().strip("Ġ▁").lower(), [])
        if len(owner) == 1:
            ids[owner[0]].append(token)
    kept = [name for name in names if ids[name]]
    if not kept:
        raise BadInput("no word of any family is a single token; tokens must be texts, one an id")
    return kept, [ids[name] for name in kept]


def family_scores(logits: np.ndarray, families: Sequence[Sequence[int]]) -> np.ndarray:
    """Return how far each direction raises the tokens of each family.

    Parameters
    ----------
    logits : ``[n, vocab]``
        As for :func:`logit_lens`.
    families : n lists of token ids
        From :func:`family_tokens`, in the order of the directions.

    Returns
    -------
    ``[n, n]``
        Directions by families: mean logit of the family's tokens, in standard deviations of the
        direction's logits over the vocabulary, from their mean.

    Raises
    ------
    BadInput
        For an empty family, or if there is not one family a direction.

    Examples
    --------
    >>> family_scores(np.array([[1.0, -1.0], [-1.0, 1.0]]), [[0], [1]]).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    if len(families) != len(logits) or not all(map(len, families)):
        raise BadInput(
            f"{len(logits)} directions need as many families, none of them empty; select the "
            "directions of the names that family_tokens returns"
        )
    z = (logits - logits.mean(1, keepdims=True)) / logits.std(1, keepdims=True)
    return np.stack([z[:, list(ids)].mean(1) for ids in families], axis=1)


def family_test(scores: np.ndarray, *, permutations: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Ask whether directions raise the words of their own emotion above those of others (Table 1).

    Each direction compares its own family with all others. The null shuffles the families over
    the directions. It keeps which families are high on all directions and which directions are
    alike. Families must share no token (:func:`family_tokens`): otherwise a shuffle that deals
    *hope* the tokens of *hopeful* would be credited with the true effect, and no direction could
    tell the two. What remains of synonyms is that *afraid* does raise the words of *scared*; a
    shuffle that exchanges them keeps some of the effect, which makes p larger, never smaller.

    Parameters
    ----------
    scores : ``[n, n]`` directions by families, own on the diagonal
        From :func:`family_scores`.

    Returns
    -------
    DataFrame
        One row a statistic: statistic, value, low, high (95 %, bootstrap over emotions), n,
        low_null, high_null (central 95 % of shuffles), p (share of shuffles that reach the value).
        Statistics: top1 (share of directions whose own family is above all others; chance 1/n),
        rank (mean share of other families below the own, ties half; chance 0.5), difference (mean
        own minus mean other score; chance 0).

    Raises
    ------
    BadInput
        Unless scores are a square matrix of at least three families.

    Examples
    --------
    >>> family_test(np.eye(8), permutations=100).value.tolist()
    [1.0, 1.0, 1.0]
    """
    n = len(scores)
    if scores.shape != (n, n) or n < 3:
        raise BadInput(f"scores must be square, at least [3, 3], not {list(scores.shape)}")
    # what each direction would count for with each family as its own
    rank = (rankdata(scores, axis=1) - 1) / (n - 1)
    difference = scores - (scores.sum(1, keepdims=True) - scores) / (n - 1)
    rng = np.random.default_rng(seed)
    own = np.arange(n)
    dealt = rng.permuted(np.tile(own, (permutations, 1)), axis=1)
    rows = []
    for name, table in (("top1", rank == 1), ("rank", rank), ("difference", difference)):
        found = bootstrap(np.mean, table.diagonal(), seed=seed)
        null = table[own, dealt].mean(1)
        low_null, high_null = np.quantile(null, [0.025, 0.975])
        p = exceedance_p(found.value, null)
        rows.append((name, found.value, found.low, found.high, n, low_null, high_null, p))
    columns = ["statistic", "value", "low", "high", "n", "low_null", "high_null", "p"]
    return pd.DataFrame(rows, columns=columns)

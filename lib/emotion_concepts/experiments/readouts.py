"""Chapter 3: what the vectors read in short prompts.

Prompts are read at the last token before the reply (the "colon" of the paper), or at marked spans.
Each function takes a model, vectors and a table from `scenarios`, and returns a tidy table or a
matrix with its null; the arithmetic on matrices is separate, and tested on planted ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from emotion_concepts.geometry import unit
from emotion_concepts.stats import Estimate, exceedance_p
from emotion_concepts.tracing import (
    PooledResiduals,
    TokenAt,
    TracedModel,
    pooled_residuals,
    token_residuals,
    tokens_in,
)
from emotion_concepts.vectors import EmotionVectors

COLON = TokenAt(1.0)


def at_colon(
    model: TracedModel, messages: Sequence[str], *, progress: str | None = None
) -> PooledResiduals:
    """Return ``[n, n_layers, d_model]`` residuals at the last token before the reply."""
    prompts = [model.chat_prompt([{"role": "user", "content": text}]) for text in messages]
    return pooled_residuals(model, prompts, COLON, progress=progress)


def readings(residuals: np.ndarray, directions: np.ndarray, *, centred: bool = True) -> np.ndarray:
    """Return ``[n, k]`` cosines of residuals ``[n, d]`` with directions ``[k, d]``.

    centred removes the mean over the prompts first: what all prompts share at the colon (the
    template, the coming reply) otherwise decides the cosine.
    """
    x = residuals - residuals.mean(0) if centred else residuals
    return unit(x) @ unit(directions).T


# --- implicit scenarios (Fig 2) ----------------------------------------------------------------


def diagonal_test(matrix: np.ndarray, *, permutations: int = 10_000, seed: int = 0) -> dict:
    """Ask of a square matrix ``[scenarios, probes]`` whether its diagonal stands out.

    Returns
    -------
    dict with by_probe (share of probes whose best scenario is their own), by_scenario (share of
    scenarios whose best probe is their own), difference (mean of the diagonal minus the rest),
    p (of the difference, scenarios shuffled), n.

    >>> found = diagonal_test(np.eye(8))
    >>> found["by_probe"], found["by_scenario"], found["difference"]
    (1.0, 1.0, 1.0)
    """
    n = len(matrix)
    rng = np.random.default_rng(seed)
    own = np.arange(n)

    def difference(diagonal_mean: np.ndarray) -> np.ndarray:
        return diagonal_mean - (matrix.sum() - n * diagonal_mean) / (n * n - n)

    orders = rng.permuted(np.tile(own, (permutations, 1)), axis=1)
    null = difference(matrix[own, orders].mean(1))
    found = float(difference(matrix.diagonal().mean()))
    return {
        "by_probe": float((matrix.argmax(0) == own).mean()),
        "by_scenario": float((matrix.argmax(1) == own).mean()),
        "difference": found,
        "p": exceedance_p(found, null),
        "n": n,
    }


def scenario_ranks(matrix: np.ndarray, own: Sequence[int]) -> np.ndarray:
    """Return the rank of each scenario's own probe among all probes, ``[scenarios]``.

    matrix: ``[scenarios, probes]``; own: the column of each scenario's emotion. A probe that is
    high on every scenario is centred over scenarios first.
    """
    centred = matrix - matrix.mean(0)
    mine = centred[np.arange(len(centred)), list(own)]
    return (centred > mine[:, None]).sum(1) + 1


# --- numbers (Fig 3) ---------------------------------------------------------------------------


def number_changes(
    residuals: np.ndarray, table: pd.DataFrame, directions: np.ndarray
) -> np.ndarray:
    """Return ``[templates, directions]`` change of the projection per unit of log(1 + x).

    A rank correlation comes to one easily with six numbers; this says how much moves, in units of
    the residual stream, so that directions of the same norm can be compared.

    Parameters
    ----------
    residuals : ``[n, d]``
        At the colon of each row of `table`.
    table : DataFrame
        Columns template and x, one row a prompt, numbered from 0.
    directions : ``[k, d]``
    """
    out = []
    for _, rows in table.groupby("template", sort=False):
        x = np.log1p(rows.x.to_numpy(dtype=float))
        x = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
        out.append(x @ (residuals[rows.index] @ unit(directions).T))
    return np.array(out)


def number_tests(
    slopes: pd.DataFrame, random: np.ndarray, templates: Sequence[str]
) -> pd.DataFrame:
    """Hold each claim to its controls and to random directions.

    Parameters
    ----------
    slopes : DataFrame
        One row a template and probe: template, kind, mirrors, probe, sign, change.
    random : ``[templates, draws]``
        Changes along random directions of the same norm, in the order of `templates`.

    Returns
    -------
    DataFrame, one row a claim: template, probe, sign, change (in the claimed direction), p (share
    of random directions that move as much or more that way), control (the largest change among the
    template's controls, that way), passes (p < .05 and above every control).
    """
    rows = []
    where = {name: n for n, name in enumerate(templates)}
    claims = slopes[(slopes.kind == "emotional") & (slopes.sign != 0)]
    for claim in claims.itertuples():
        mirrored = slopes[(slopes.kind == "control") & (slopes.mirrors == claim.template)]
        control = (claim.sign * mirrored[mirrored.probe == claim.probe].change).max()
        change = claim.sign * claim.change
        # a random direction has no sign of its own
        p = exceedance_p(
            change, np.concatenate([random[where[claim.template]] * s for s in (1, -1)])
        )
        passes = bool(p < 0.05 and change > control)
        rows.append((claim.template, claim.probe, claim.sign, change, p, control, passes))
    columns = ["template", "probe", "sign", "change", "p", "control", "passes"]
    return pd.DataFrame(rows, columns=columns)


# --- spans (Figs 12-15) ------------------------------------------------------------------------


def span_readings(model: TracedModel, vectors: EmotionVectors, table: pd.DataFrame) -> pd.DataFrame:
    """Return `table` of `scenarios.load_locality` with one reading a layer added.

    A span's reading is the mean cosine over its tokens, the mean over emotions removed; the text
    stands as the user's message in the model's template.

    Returns
    -------
    DataFrame with the columns of `table`, layer and reading.
    """
    texts = list(dict.fromkeys(table.text))
    prompts = {text: model.chat_prompt([{"role": "user", "content": text}]) for text in texts}
    layers = range(model.n_layers)
    found = token_residuals(model, list(prompts.values()), layers)
    residuals = dict(zip(texts, found, strict=True))
    rows = []
    for row in table.itertuples(index=False):
        prompt = prompts[row.text]
        shift = prompt.index(row.text)
        inside = tokens_in(model, prompt, [(row.start + shift, row.end + shift)])
        probe = vectors[row.probe]
        x = unit(residuals[row.text][inside] - vectors.centre)
        values = np.einsum("tld,ld->l", x, probe) / len(inside)
        rows += [(*row, layer, value) for layer, value in zip(layers, values, strict=True)]
    return pd.DataFrame(rows, columns=[*table.columns, "layer", "reading"])


def pair_effects(span_table: pd.DataFrame, *, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Return the effect of each family's pairs by span and layer, with intervals over pairs.

    The effect of a pair is the sum of sign times reading over its two versions, averaged over its
    probes; `scenarios.load_locality` gives the signs.

    Returns
    -------
    DataFrame with columns family, span, layer, effect, low, high, n.
    """
    rng = np.random.default_rng(seed)
    signed = span_table.assign(effect=span_table.sign * span_table.reading)
    by_pair = signed.groupby(["family", "span", "layer", "pair"], sort=False).effect.mean() * 2
    rows = []
    for key, values in by_pair.groupby(level=["family", "span", "layer"], sort=False):
        x = values.to_numpy()
        draws = x[rng.integers(len(x), size=(resamples, len(x)))].mean(1)
        low, high = np.quantile(draws, [0.025, 0.975])
        rows.append((*key, Estimate(float(x.mean()), float(low), float(high), len(x))))
    return pd.DataFrame(
        [(*key, e.value, e.low, e.high, e.n) for *key, e in rows],
        columns=["family", "span", "layer", "effect", "low", "high", "n"],
    )

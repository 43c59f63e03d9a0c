"""Chapter 3: what the vectors read in short prompts.

Prompts are read at the last token before the reply (the "colon" of the paper), or at marked spans.
Each function takes a model, vectors and a table from `scenarios`, and returns a tidy table or a
matrix with its null; the arithmetic on matrices is separate, and tested on planted ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from emotion_concepts.errors import BadInput
from emotion_concepts.experiments.extraction import Extraction, word_means
from emotion_concepts.geometry import unit
from emotion_concepts.stats import Estimate, bootstrap, exceedance_p, pearson, permutation_p
from emotion_concepts.tracing import (
    PooledResiduals,
    TokenAt,
    TracedModel,
    generate,
    pooled_residuals,
    span_residuals,
    span_residuals_many,
    token_residuals,
    tokens_as_text,
    tokens_in,
)
from emotion_concepts.vectors import EmotionVectors

COLON = TokenAt(1.0)


def at_colon(
    model: TracedModel, messages: Sequence[str], *, progress: str | None = None
) -> PooledResiduals:
    """Return ``[n, n_layers, d_model]`` residuals at the last token before the reply.

    >>> at_colon(llm, ["The bus stops at the corner."]).shape
    (1, 30, 576)
    """
    prompts = [model.chat_prompt([{"role": "user", "content": text}]) for text in messages]
    return pooled_residuals(model, prompts, COLON, progress=progress)


def readings(residuals: np.ndarray, directions: np.ndarray, *, centred: bool = True) -> np.ndarray:
    """Return ``[n, k]`` cosines of residuals ``[n, d]`` with directions ``[k, d]``.

    centred removes the mean over the prompts first: what all prompts share at the colon (the
    template, the coming reply) otherwise decides the cosine.

    >>> residuals = np.array([[9.0, 1.0, 0.0], [9.0, 0.0, 1.0]])
    >>> readings(residuals, np.eye(3)[1:]).round(1).tolist()
    [[0.7, -0.7], [-0.7, 0.7]]
    >>> readings(residuals, np.eye(3)[1:], centred=False).round(1).tolist()
    [[0.1, 0.0], [0.0, 0.1]]
    """
    x = residuals - residuals.mean(0) if centred else residuals
    return unit(x) @ unit(directions).T


# --- implicit scenarios (Fig 2) ----------------------------------------------------------------


def own_minus_others(
    matrix: np.ndarray, own: Sequence[int], *, permutations: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Return how far each row's own column stands above the rest, and p with labels shuffled.

    Parameters
    ----------
    matrix : ``[rows, columns]``
    own : the column of each row

    Examples
    --------
    >>> difference, p = own_minus_others(np.eye(8), range(8))
    >>> difference, p < 0.001
    (1.0, True)
    """
    rng = np.random.default_rng(seed)
    rows, k = np.arange(len(matrix)), matrix.shape[1]
    own = np.asarray(own)
    orders = rng.permuted(np.tile(own, (permutations, 1)), axis=1)

    def difference(mine: np.ndarray) -> np.ndarray:
        return (mine - (matrix.sum() - mine) / (k - 1)) / len(matrix)

    found = float(difference(matrix[rows, own].sum()))
    return found, exceedance_p(found, difference(matrix[rows, orders].sum(1)))


def scenario_tests(
    readings_of: Mapping[str, np.ndarray],
    own: Sequence[int],
    *,
    permutations: int = 10_000,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Hold several methods' readings of the same scenarios to the scenarios' own emotions.

    Parameters
    ----------
    readings_of : {method: ``[scenarios, probes]``}
    own : the column of each scenario's emotion

    Returns
    -------
    DataFrame
        One row a method: method, by_probe (share of probes that are highest on a scenario of their
        own), by_scenario (share of scenarios whose highest probe is their own) with low and high,
        hits (``[scenarios]``), difference (own minus other readings), p (labels shuffled), n.

    Examples
    --------
    >>> wrong = np.roll(np.eye(8), 1, axis=1)
    >>> found = scenario_tests({"probe": np.eye(8), "words": wrong}, range(8))
    >>> found[["method", "by_probe", "by_scenario"]].values.tolist()
    [['probe', 1.0, 1.0], ['words', 0.0, 0.0]]
    >>> bool(found.p[0] < 0.001), bool(found.p[1] > 0.1)
    (True, True)
    """
    own = np.asarray(own)
    rows = []
    for method, matrix in readings_of.items():
        hits = (matrix.argmax(1) == own).astype(float)
        found = bootstrap(np.mean, hits, resamples=resamples, seed=seed)
        by_probe = float((own[matrix.argmax(0)] == np.arange(matrix.shape[1])).mean())
        difference, p = own_minus_others(matrix, own, permutations=permutations, seed=seed)
        rows.append((method, by_probe, *_three(found), hits, difference, p, len(own)))
    columns = ["method", "by_probe", "by_scenario", "low", "high", "hits", "difference", "p", "n"]
    return pd.DataFrame(rows, columns=columns)


def _three(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def hit_difference(tests: pd.DataFrame, a: str, b: str, *, seed: int = 0) -> Estimate:
    """Return the share of scenarios that method a names minus that of b, on the same scenarios.

    >>> hits = [np.ones(8), np.tile([0.0, 1.0], 4)]
    >>> tests = pd.DataFrame({"method": ["probe", "words"], "hits": hits})
    >>> hit_difference(tests, "probe", "words").value
    0.5
    """
    hits = tests.set_index("method").hits
    return bootstrap(np.mean, hits[a] - hits[b], seed=seed)


def scenario_layers(
    residuals: np.ndarray, directions: np.ndarray, own: Sequence[int], *, seed: int = 0
) -> pd.DataFrame:
    """Return the share of scenarios named at each layer: layer, by_scenario, low, high.

    Parameters
    ----------
    residuals : ``[scenarios, n_layers, d]``
    directions : ``[probes, n_layers, d]``

    Examples
    --------
    >>> directions = np.stack([np.eye(4), np.eye(4)], axis=1)
    >>> residuals = np.stack([np.roll(np.eye(4), 1, axis=1), np.eye(4)], axis=1)
    >>> scenario_layers(residuals, directions, range(4)).by_scenario.tolist()
    [0.0, 1.0]
    """
    rows = []
    for layer in range(residuals.shape[1]):
        matrix = readings(residuals[:, layer], directions[:, layer])
        hits = (matrix.argmax(1) == np.asarray(own)).astype(float)
        rows.append((layer, *_three(bootstrap(np.mean, hits, resamples=500, seed=seed))))
    return pd.DataFrame(rows, columns=["layer", "by_scenario", "low", "high"])


def word_readings(extractions: Sequence[Extraction], texts: Sequence[str]) -> np.ndarray:
    """Return ``[texts, emotions]`` likeness by words alone, the baseline of any read-out.

    TF-IDF of the stories, emotion means with topic means removed as for the vectors, against TF-IDF
    of the texts; averaged over registers. Emotions in the order of the first extraction.

    >>> from emotion_concepts.vectors import Stacked
    >>> texts = ["a slow bus", "a slammed bus", "slow tea", "slammed tea"]
    >>> stories = {"emotion": ["calm", "angry"] * 2, "topic": ["bus", "bus", "tea", "tea"]}
    >>> stories, x = pd.DataFrame({**stories, "text": texts}), Stacked(np.eye(4)[:, None])
    >>> vectors = EmotionVectors.fit(x, stories.emotion, x, neutral_variance=0)
    >>> found = Extraction("own", stories, x, x, vectors)
    >>> word_readings([found], ["The door slammed.", "Slow breath."]).round(1).tolist()
    [[-0.7, 0.7], [0.7, -0.7]]
    """
    vectoriser, means = word_means(extractions)
    read = unit(vectoriser.transform(texts).toarray())
    return np.mean([read @ unit(register).T for register in means], axis=0)


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

    Examples
    --------
    >>> table = pd.DataFrame({"template": "dose", "x": [500, 1000, 2000]})
    >>> residuals = np.outer(np.log1p(table.x), [2.0, 0.0])
    >>> number_changes(residuals, table, np.eye(2)).round(6).tolist()
    [[2.0, 0.0]]
    """
    out = []
    for _, rows in table.groupby("template", sort=False):
        x = np.log1p(rows.x.to_numpy(dtype=float))
        x = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
        out.append(x @ (residuals[rows.index] @ unit(directions).T))
    return np.array(out)


def number_curves(
    residuals: np.ndarray, table: pd.DataFrame, directions: np.ndarray, random: np.ndarray
) -> pd.DataFrame:
    """Return how far the projection moves along each template's values, for the figure.

    Parameters
    ----------
    residuals : ``[n, d]``
        At the colon of each prompt, in the order of ``table.drop_duplicates(["template", "x"])``.
    table : DataFrame
        From `scenarios.load_numbers`: one row a template, value and probe.
    directions : ``[probes, d]``, with `table.probe.unique()` in the same order
    random : ``[draws, d]``

    Returns
    -------
    DataFrame
        One row an emotional template, value and probe: template, title, probe, x, value (projection
        minus the template's mean), control (mean of its controls), low, high (95 % of random
        directions, either sign).

    Examples
    --------
    >>> from emotion_concepts import scenarios
    >>> table = scenarios.load_numbers().query("mirrors == 'dose'")
    >>> prompts = table.drop_duplicates(["template", "x"])
    >>> moved = np.where(prompts.template == "dose", np.log(prompts.x), 0)
    >>> residuals = np.outer(moved, [1, 0, 0, 0])  # along the first probe, afraid
    >>> curves = number_curves(residuals, table, np.eye(4), np.eye(4)).query("probe == 'afraid'")
    >>> "I have taken X mg of Tylenol today" in curves.title.iloc[0]
    True
    >>> curves.value.is_monotonic_increasing, curves.control.unique().tolist()
    (True, [0.0])
    """
    probes = list(table.probe.unique())
    prompts = table.drop_duplicates(["template", "x"]).reset_index(drop=True)
    rows = []
    for name in prompts.template[prompts.kind == "emotional"].unique():
        own = prompts[prompts.template == name]
        mirrored = prompts[(prompts.mirrors == name) & (prompts.kind == "control")]
        curve = _about_mean(residuals[own.index] @ unit(directions).T)
        controls = [
            _about_mean(residuals[part.index] @ unit(directions).T)
            for _, part in mirrored.groupby("template", sort=False)
        ]
        drawn = _about_mean(residuals[own.index] @ unit(random).T)
        low, high = np.quantile(np.hstack([drawn, -drawn]), [0.025, 0.975], axis=1)
        title = re.sub(rf"\b{own.x.iloc[0]}\b", "X", own.text.iloc[0], count=1)
        for k, probe in enumerate(probes):
            middle = np.mean(controls, axis=0)[:, k]
            for n, x in enumerate(own.x):
                rows.append((name, title, probe, x, curve[n, k], middle[n], low[n], high[n]))
    columns = ["template", "title", "probe", "x", "value", "control", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def _about_mean(values: np.ndarray) -> np.ndarray:
    return values - values.mean(0)


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
    DataFrame
        One row a claim: template, probe, sign, change (in the claimed direction), p (share of
        random directions that move as much or more that way), control (the largest change among the
        template's controls, that way), passes (p < .05 and above every control).

    Examples
    --------
    >>> claim = {"probe": "afraid", "sign": 1, "mirrors": "dose"}
    >>> slopes = pd.DataFrame({"template": ["dose", "salt"], "change": [2.0, 0.1], **claim})
    >>> slopes["kind"] = ["emotional", "control"]
    >>> random = np.random.default_rng(0).normal(scale=0.5, size=(2, 99))
    >>> found = number_tests(slopes, random, ["dose", "salt"])
    >>> found[["template", "probe", "change", "control", "passes"]].values.tolist()
    [['dose', 'afraid', 2.0, 0.1, True]]
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


def among_emotions(
    tests: pd.DataFrame, changes: np.ndarray, templates: Sequence[str], emotions: Sequence[str]
) -> list[float]:
    """Return for each claim the share of all emotion vectors that move as far in its direction.

    A stricter null than random directions: the residual stream varies more along emotion vectors
    than along most directions.

    Parameters
    ----------
    tests : DataFrame
        From `number_tests`.
    changes : ``[templates, emotions]``

    Examples
    --------
    >>> tests = pd.DataFrame({"template": ["dose"], "probe": "afraid", "sign": 1, "change": 2.0})
    >>> changes = np.array([[2.0, 0.5, -1.0, -3.0]])
    >>> among_emotions(tests, changes, ["dose"], ["afraid", "sad", "happy", "calm"])
    [0.25]
    """
    where = {name: n for n, name in enumerate(templates)}
    return [
        exceedance_p(claim.change, claim.sign * np.delete(changes[where[claim.template]], own))
        for claim in tests.itertuples()
        for own in [list(emotions).index(claim.probe)]
    ]


# --- the user, the colon, the reply (Figs 10-11) ------------------------------------------------


def position_residuals(
    model: TracedModel, table: pd.DataFrame, *, new_tokens: int = 20, progress: str | None = None
) -> tuple[dict[str, PooledResiduals], list[str]]:
    """Read each message of `scenarios.load_positions` at four places.

    Returns
    -------
    tuple
        ({"statement": its last character, "user": the message's last character, "colon": the last
        token before the reply, "reply": mean over the model's own greedy reply of `new_tokens`
        tokens}, each ``[messages, n_layers, d_model]``; the replies).

    Examples
    --------
    >>> message = {"id": "bus", "statement": "The bus left.", "text": "The bus left. What now?"}
    >>> found, replies = position_residuals(llm, pd.DataFrame([message]), new_tokens=2)
    >>> list(found), found["reply"].shape, len(replies)
    (['statement', 'user', 'reply', 'colon'], (1, 30, 576), 1)
    """
    messages = table.drop_duplicates("id")
    prompts = [model.chat_prompt([{"role": "user", "content": text}]) for text in messages.text]
    replies = generate(model, prompts, max_new_tokens=new_tokens, progress=progress)
    whole, spans = [], {"statement": [], "user": [], "reply": []}
    for prompt, reply, row in zip(prompts, replies, messages.itertuples(), strict=True):
        start = prompt.index(row.text)
        statement, end = start + len(row.statement), start + len(row.text)
        spans["statement"].append([(statement - 1, statement)])
        spans["user"].append([(end - 1, end)])
        spans["reply"].append([(len(prompt), len(prompt) + len(reply))])
        whole.append(prompt + reply)
    found = span_residuals_many(model, whole, spans)
    return {**found, "colon": pooled_residuals(model, prompts, COLON)}, replies


def last_character(
    model: TracedModel, messages: Sequence[str], *, progress: str | None = None
) -> PooledResiduals:
    """Return ``[n, n_layers, d_model]`` at the user's last character, in the model's template.

    >>> last_character(llm, ["The bus stops at the corner."]).shape
    (1, 30, 576)
    """
    prompts = [model.chat_prompt([{"role": "user", "content": text}]) for text in messages]
    ends = [prompt.index(text) + len(text) for prompt, text in zip(prompts, messages, strict=True)]
    spans = [[(end - 1, end)] for end in ends]
    return span_residuals(model, prompts, spans, progress=progress)


def place_agreement(
    a: np.ndarray, b: np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Correlate readings of the same messages at two places, over messages and probes (Fig 10).

    Messages, not their single readings, are resampled for the interval and shuffled for p.

    Parameters
    ----------
    a, b : ``[messages, probes]``
        Centred over messages, so that a probe which is high everywhere adds nothing.

    Returns
    -------
    Estimate
        The correlation r; its n counts readings, messages times probes, which are not independent.

    Examples
    --------
    >>> a = np.random.default_rng(0).normal(size=(6, 3))
    >>> a -= a.mean(0)
    >>> print(place_agreement(a, 2 * a))
    1.00 [1.00, 1.00]
    """
    rng = np.random.default_rng(seed)
    n = len(a)
    rows = rng.integers(n, size=(resamples, n))
    drawn = pearson(a[rows].reshape(resamples, -1), b[rows].reshape(resamples, -1))
    low, high = np.quantile(drawn, [0.025, 0.975])
    orders = rng.permuted(np.tile(np.arange(n), (resamples, 1)), axis=1)
    null = pearson(a.reshape(1, -1), b[orders].reshape(resamples, -1))
    found = float(pearson(a.ravel(), b.ravel()))
    return Estimate(found, float(low), float(high), a.size, permutation_p(found, null))


# --- spans (Figs 12-15) ------------------------------------------------------------------------


def span_readings(model: TracedModel, vectors: EmotionVectors, table: pd.DataFrame) -> pd.DataFrame:
    """Return `table` of `scenarios.load_locality` with one reading a layer added.

    A span's reading is the mean cosine over its tokens, the mean over emotions removed; the text
    stands as the user's message in the model's template. The last token before the reply is added
    as a span of its own, "colon".

    Returns
    -------
    DataFrame
        With the columns of `table`, layer and reading.

    Examples
    --------
    >>> from emotion_concepts import scenarios
    >>> table = scenarios.load_locality().query("pair == 'marriage'")
    >>> drawn = np.random.default_rng(0).normal(size=(2, 30, 576))
    >>> rest = np.ones((2, 30)), np.zeros((30, 576)), np.zeros(30, int), np.ones(30)
    >>> vectors = EmotionVectors(("happy", "sad"), unit(drawn), *rest)
    >>> found = span_readings(llm, vectors, table)
    >>> found.span.unique().tolist(), found.layer.nunique(), len(found)
    (['word', 'rest', 'colon'], 30, 180)
    """
    texts = list(dict.fromkeys(table.text))
    prompts = {text: model.chat_prompt([{"role": "user", "content": text}]) for text in texts}
    layers = range(model.n_layers)
    found = token_residuals(model, list(prompts.values()), layers)
    residuals = dict(zip(texts, found, strict=True))
    # the last token before the reply is read as well, where a sign is defined for the whole text
    ends = table[table.family != "binding"].drop_duplicates(["family", "pair", "version", "probe"])
    table = pd.concat([table, ends.assign(span="colon", start=-1)], ignore_index=True)
    rows = []
    for row in table.itertuples(index=False):
        prompt = prompts[row.text]
        shift = prompt.index(row.text)
        inside = [-1]
        if row.span != "colon":
            inside = tokens_in(model, prompt, [(row.start + shift, row.end + shift)])
        probe = vectors[row.probe]
        x = unit(residuals[row.text][inside] - vectors.centre)
        values = np.einsum("tld,ld->l", x, probe) / len(inside)
        rows += [(*row, layer, value) for layer, value in zip(layers, values, strict=True)]
    return pd.DataFrame(rows, columns=[*table.columns, "layer", "reading"])


def pair_map(
    model: TracedModel, vectors: EmotionVectors, table: pd.DataFrame
) -> tuple[np.ndarray, list[str]]:
    """Return one pair's difference a minus b at every layer and token, and the tokens of a.

    Parameters
    ----------
    table : DataFrame
        Rows of one pair and probe of `scenarios.load_locality`.

    Returns
    -------
    tuple
        (``[n_layers, tokens]`` differences of the cosine, tokens as text).

    Raises
    ------
    BadInput
        If the versions do not have the same number of tokens.

    Examples
    --------
    >>> from emotion_concepts import scenarios
    >>> table = scenarios.load_locality().query("pair == 'marriage'")
    >>> drawn = np.random.default_rng(0).normal(size=(2, 30, 576))
    >>> rest = np.ones((2, 30)), np.zeros((30, 576)), np.zeros(30, int), np.ones(30)
    >>> vectors = EmotionVectors(("happy", "sad"), unit(drawn), *rest)
    >>> difference, tokens = pair_map(llm, vectors, table)
    >>> tokens[int((np.abs(difference).max(0) > 0.01).argmax())]  # the first that differs
    ' wonderful'
    """
    texts = dict(zip(table.version, table.text, strict=True))
    prompts = {v: model.chat_prompt([{"role": "user", "content": t}]) for v, t in texts.items()}
    a, b = token_residuals(model, [prompts["a"], prompts["b"]], range(model.n_layers))
    if len(a) != len(b):
        raise BadInput(f"the versions of {table.pair.iloc[0]!r} have {len(a)} and {len(b)} tokens")
    probe = vectors[table.probe.iloc[0]]
    x, y = (np.einsum("tld,ld->lt", unit(r - vectors.centre), probe) for r in (a, b))
    start = prompts["a"].index(texts["a"])
    inside = tokens_in(model, prompts["a"], [(start, len(prompts["a"]))])
    tokens = tokens_as_text(model, prompts["a"])
    return (x - y)[:, inside], [tokens[n] for n in inside]


def _by_pair(span_table: pd.DataFrame, pair: str) -> pd.Series:
    """Return each pair's effect, by family, span, layer and the column that names the pair."""
    signed = span_table.assign(effect=span_table.sign * span_table.reading)
    return signed.groupby(["family", "span", "layer", pair], sort=False).effect.mean() * 2


def pair_effects(span_table: pd.DataFrame, *, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Return the effect of each family's pairs by span and layer, with intervals over pairs.

    The effect of a pair is the sum of sign times reading over its two versions, averaged over its
    probes; `scenarios.load_locality` gives the signs.

    Returns
    -------
    DataFrame
        With columns family, span, layer, effect, low, high, n.

    Examples
    --------
    >>> spans = {"family": "context", "span": "word", "layer": 20, "sign": [1, -1, 1, -1]}
    >>> spans |= {"pair": ["marriage", "marriage", "visit", "visit"]}
    >>> spans |= {"reading": [0.3, 0.1, 0.5, 0.1]}
    >>> found = pair_effects(pd.DataFrame(spans))
    >>> found[["span", "effect", "n"]].round(2).values.tolist()
    [['word', 0.3, 2]]
    """
    rng = np.random.default_rng(seed)
    by_pair, rows = _by_pair(span_table, "pair"), []
    for key, values in by_pair.groupby(level=["family", "span", "layer"], sort=False):
        x = values.to_numpy()
        draws = x[rng.integers(len(x), size=(resamples, len(x)))].mean(1)
        low, high = np.quantile(draws, [0.025, 0.975])
        rows.append((*key, Estimate(float(x.mean()), float(low), float(high), len(x))))
    return pd.DataFrame(
        [(*key, e.value, e.low, e.high, e.n) for *key, e in rows],
        columns=["family", "span", "layer", "effect", "low", "high", "n"],
    )


def local_effect(effects: pd.DataFrame, family: str, span: str, layer: int) -> Estimate:
    """Return one effect of `pair_effects`.

    Raises
    ------
    BadInput
        If there is none of this family, span and layer.

    Examples
    --------
    >>> where = {"family": "context", "span": ["word", "colon"], "layer": 20}
    >>> sizes = {"effect": [0.3, 0.1], "low": [0.2, 0.0], "high": [0.4, 0.2], "n": 10}
    >>> print(local_effect(pd.DataFrame({**where, **sizes}), "context", "word", 20))
    0.30 [0.20, 0.40]
    """
    here = (effects.family == family) & (effects.span == span) & (effects.layer == layer)
    if not here.any():
        raise BadInput(
            f"no effect of {family!r} on {span!r} at layer {layer}; there are "
            + ", ".join(sorted(set(effects.family + " on " + effects.span)))
        )
    row = effects[here].iloc[0]
    return Estimate(float(row.effect), float(row.low), float(row.high), int(row.n))


def beyond_control(
    span_table: pd.DataFrame,
    family: str,
    control: str,
    *,
    span: str,
    layer: int,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Return how far the pairs of a family lie above the control pairs that mirror them.

    Parameters
    ----------
    span_table : DataFrame
        From `span_readings`, with the column mirrors.

    Returns
    -------
    Estimate
        The mean difference of their effects, each pair less its own control; interval over pairs.

    Raises
    ------
    BadInput
        If a pair has no control.

    Examples
    --------
    >>> spans = {"family": ["number"] * 4 + ["number_control"] * 4, "span": "colon", "layer": 20}
    >>> spans |= {"mirrors": ["dose", "dose", "debt", "debt"] * 2, "sign": [1, -1] * 4}
    >>> spans |= {"reading": [0.3, 0.1, 0.5, 0.1, 0.2, 0.1, 0.4, 0.1]}
    >>> where = {"span": "colon", "layer": 20}
    >>> print(beyond_control(pd.DataFrame(spans), "number", "number_control", **where))
    0.10 [0.10, 0.10]
    """
    here = span_table[(span_table.span == span) & (span_table.layer == layer)]
    effects = _by_pair(here, "mirrors").droplevel(["span", "layer"]).unstack("family")
    pairs = effects.reindex(columns=[family, control]).dropna(subset=[family])
    if bare := list(pairs.index[pairs[control].isna()]):
        raise BadInput(f"no pair of {control!r} mirrors {bare[0]!r}; add one to the data")
    differences = (pairs[family] - pairs[control]).to_numpy()
    return bootstrap(np.mean, differences, resamples=resamples, seed=seed)

"""The engine of the steering chapters: one cell is a direction at a strength.

Every prompt is answered in every cell: by log-probabilities of given options (`leanings`), or by
text of the model's own (`rollouts`). Both are kept on disk prompt by prompt, so that a run that was
killed goes on where it stopped. `controls` are directions that should not do what an emotion does,
`damage` is the price, and `shift_tests` hold one to the other.

Controls need only one sign of strength: a random direction is as random as its mirror image, so its
shift at strength s is a draw from what any random direction does at -s, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import scipy.stats
from tqdm.auto import tqdm

from emotion_concepts.errors import BadInput, nearest
from emotion_concepts.experiments.extraction import (
    Extraction,
    shuffled_directions,
    topic_direction,
)
from emotion_concepts.stats import Estimate, bootstrap, mean_interval, pearson
from emotion_concepts.steering import Span, Steering, random_directions, steer
from emotion_concepts.tracing import (
    TracedModel,
    continuation_logprobs,
    generate,
    next_token_logprobs,
    option_logprobs,
    score_store,
    token_residuals,
    tokens_in,
)
from emotion_concepts.vectors import EmotionVectors

Directions = Mapping[tuple[str, str], np.ndarray]  # {(kind, name): [n_layers, d_model]}
Cell = tuple[str, str, float]  # kind, name, strength

CELL = ["kind", "direction", "strength"]
ROWS = 512  # prompts whose steering is in memory at a time
SEEDS = 1000  # between the seeds of one prompt and those of the next
LIMIT = 1.5  # a model counts as coherent while perplexity on neutral text rises by less, as a ratio


# --- directions and cells ----------------------------------------------------------------------


def controls(
    vectors: EmotionVectors,
    extractions: Sequence[Extraction],
    *,
    random: int = 10,
    shuffled: int = 3,
    seed: int = 0,
) -> Directions:
    """Return directions that hold no emotion, of unit length as the vectors are.

    "random" ones lie outside the span of the emotions; "shuffled" ones are made by the recipe of
    the vectors from stories drawn by lot; "unrelated" is one topic of the first corpus against
    another.

    >>> from emotion_concepts import corpus
    >>> from emotion_concepts.vectors import Stacked
    >>> stories = corpus.load_stories("plain", topics=2, emotions=["calm", "afraid"])
    >>> read = Stacked(np.random.default_rng(0).normal(size=(4, 3, 8)))
    >>> vectors = EmotionVectors.fit(read, stories.emotion, read, topics=stories.topic)
    >>> extraction = Extraction("plain", stories, read, read, vectors)
    >>> list(controls(vectors, [extraction], random=1, shuffled=1))
    [('random', 'random 1'), ('shuffled', 'shuffled 1'), ('unrelated', 'topic')]
    """
    drawn = random_directions(random, vectors.directions, seed=seed)
    lots = shuffled_directions(extractions, shuffled, seed=seed)
    topics = extractions[0].topics
    return {
        **{("random", f"random {n + 1}"): x for n, x in enumerate(drawn)},
        **{("shuffled", f"shuffled {n + 1}"): x for n, x in enumerate(lots)},
        ("unrelated", "topic"): topic_direction(extractions[0], topics[0], topics[-1]),
    }


def cells_of(directions: Directions, strengths: Sequence[float]) -> list[Cell]:
    """Return every direction at every strength, in the order of all results here.

    >>> cells_of({("emotion", "calm"): np.ones((1, 2))}, [0.1, -0.1])
    [('emotion', 'calm', 0.1), ('emotion', 'calm', -0.1)]
    """
    return [(*key, float(strength)) for key in directions for strength in strengths]


def in_parts(
    directions: Directions,
    strengths: Sequence[float],
    vectors: EmotionVectors,
    n_prompts: int,
    layers: Sequence[int],
    spans: Sequence[Sequence[Span]] | None,
    progress: str | None = None,
) -> Iterator[tuple[list[Cell], Steering]]:
    """Yield as many cells at a time as have `ROWS` prompts, with the steering of all of these.

    The prompts of a cell follow each other; spans are as in `leanings`.

    >>> axes, one, zero = np.eye(2)[:, None], np.ones((2, 1)), np.zeros((1, 2))
    >>> v = EmotionVectors(("calm", "afraid"), axes, one, zero, np.zeros(1, int), np.array([9.0]))
    >>> [part] = in_parts({("emotion", "calm"): v["calm"]}, [0.0, 1.0], v, 1, [0], spans=None)
    >>> part[0], part[1].add.tolist()
    ([('emotion', 'calm', 0.0), ('emotion', 'calm', 1.0)], [[[0.0, 0.0]], [[9.0, 0.0]]])
    """
    if not n_prompts:
        raise BadInput("there is nothing to steer; give at least one prompt")
    cells, size = cells_of(directions, strengths), max(1, ROWS // n_prompts)
    with tqdm(total=len(cells), desc=progress, unit="cell", disable=not progress) as bar:
        for start in range(0, len(cells), size):
            part = cells[start : start + size]
            steerings = [
                steer(
                    np.stack([directions[kind, name]] * n_prompts),
                    [strength] * n_prompts,
                    vectors.residual_norm,
                    layers,
                    spans=spans,
                )
                for kind, name, strength in part
            ]
            yield part, Steering.join(steerings)
            bar.update(len(part))


def sample_seeds(n_prompts: int, samples: int, n_cells: int, *, apart: bool = False) -> np.ndarray:
    """Return the seeds that texts are sampled with.

    A sample has the same seed in all cells, so that cells differ by their steering alone. Cells
    that are pooled take theirs `apart`: together they then have the seeds of one cell that has all
    their samples, and none twice.

    Returns
    -------
    ``[cells, prompts * samples]``

    Examples
    --------
    >>> sample_seeds(2, 2, 2).tolist()
    [[0, 1, 1000, 1001], [0, 1, 1000, 1001]]
    >>> sample_seeds(2, 2, 2, apart=True).tolist()
    [[0, 1, 1000, 1001], [2, 3, 1002, 1003]]

    Raises
    ------
    BadInput
        For more samples than there are seeds for a prompt.
    """
    if samples * (n_cells if apart else 1) > SEEDS:
        raise BadInput(f"a prompt has {SEEDS} seeds; ask for fewer samples than {samples}")
    one = (SEEDS * np.arange(n_prompts)[:, None] + np.arange(samples)).ravel()
    first = samples * np.arange(n_cells) if apart else np.zeros(n_cells, int)
    return one + first[:, None]


# --- what the model leans to, and what it says -------------------------------------------------


def leanings(
    model: TracedModel,
    prompts: Sequence[str],
    options: Sequence[Sequence[str]],
    directions: Directions,
    vectors: EmotionVectors,
    *,
    strengths: Sequence[float],
    layers: Sequence[int],
    spans: Sequence[Sequence[Span]] | None = None,
    progress: str | None = None,
) -> np.ndarray:
    """Return ``[cells, prompts, options]`` log-probabilities per token, in the order of `cells_of`.

    Parameters
    ----------
    prompts, options
        As for `tracing.option_logprobs`.
    directions : {(kind, name): ``[n_layers, d_model]``}
    strengths : sequence of float
        Shares of the mean residual norm; 0 is no steering.
    layers : sequence of int
        Blocks to steer; each gets the full strength.
    spans : one list of (start, end) a prompt, optional
        Characters whose tokens are steered; every token without.

    Examples
    --------
    >>> prompts, options = ["The bus stops at the street"], [(" corner", " purple")]
    >>> chosen, settings = {("emotion", "calm"): vectors["calm"]}, {"layers": [15]}
    >>> found = leanings(llm, prompts, options, chosen, vectors, strengths=[0.0, 0.1], **settings)
    >>> found.shape, (found[..., 0] > found[..., 1]).tolist()
    ((2, 1, 2), [[True], [True]])
    """
    out = []
    for part, steering in in_parts(
        directions, strengths, vectors, len(prompts), layers, spans, progress=progress
    ):
        n = len(part)
        scores = option_logprobs(model, [*prompts] * n, [*options] * n, steering=steering)
        out.append(scores.mean.reshape(n, len(prompts), -1))
    return np.concatenate(out)


def rollouts(
    model: TracedModel,
    prompts: Sequence[str],
    directions: Directions,
    vectors: EmotionVectors,
    *,
    strengths: Sequence[float],
    layers: Sequence[int],
    samples: int,
    apart: bool = False,
    max_new_tokens: int,
    temperature: float = 1.0,
    progress: str | None = None,
) -> pd.DataFrame:
    """Return sampled texts with every token steered.

    Parameters
    ----------
    samples : int
        Texts a prompt and cell.
    apart : bool
        Whether each cell has seeds of its own, see `sample_seeds`.

    Returns
    -------
    DataFrame
        One row a text: kind, direction, strength, item (number of the prompt), seed, text.

    Examples
    --------
    >>> chosen, settings = {("emotion", "calm"): vectors["calm"]}, {"strengths": [0.1, -0.1]}
    >>> settings |= {"layers": [15], "samples": 2, "max_new_tokens": 3}
    >>> found = rollouts(llm, ["The bus stops at the"], chosen, vectors, **settings)
    >>> found[["direction", "strength", "item", "seed"]].values.tolist()
    [['calm', 0.1, 0, 0], ['calm', 0.1, 0, 1], ['calm', -0.1, 0, 0], ['calm', -0.1, 0, 1]]
    """
    items = np.repeat(np.arange(len(prompts)), samples)
    many, rows = [prompts[item] for item in items], []
    n_cells = len(cells_of(directions, strengths))
    seeds = iter(sample_seeds(len(prompts), samples, n_cells, apart=apart).tolist())
    for part, steering in in_parts(
        directions, strengths, vectors, len(many), layers, None, progress=progress
    ):
        keys = [
            (*cell, int(item), seed)
            for cell in part
            for item, seed in zip(items, next(seeds), strict=True)
        ]
        texts = generate(
            model,
            many * len(part),
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seeds=[seed for *_, seed in keys],
            steering=steering,
        )
        rows += [(*key, text) for key, text in zip(keys, texts, strict=True)]
    return pd.DataFrame(rows, columns=[*CELL, "item", "seed", "text"])


def log_odds(scores: np.ndarray, kinds: Sequence[str], a: str, b: str) -> np.ndarray:
    """Return how much likelier options of kind a are than those of kind b, per token.

    Parameters
    ----------
    scores : ``[..., options]``
        Log-probabilities per token, so that length does not count.
    kinds : sequence of str, options

    Returns
    -------
    ``[...]``
        Difference of the means over the paraphrases of each kind, in nats per token.

    Examples
    --------
    >>> float(log_odds(np.array([-1.0, -2.0, -4.0]), ["do", "do", "leave"], "do", "leave"))
    2.5
    """
    kinds = np.asarray(kinds)
    if gone := {a, b} - set(kinds):
        raise BadInput(f"no option is of kind {min(gone)!r}; {nearest(min(gone), set(kinds))}")
    return scores[..., kinds == a].mean(-1) - scores[..., kinds == b].mean(-1)


def option_shifts(
    model: TracedModel,
    prompts: Sequence[str],
    options: Sequence[Sequence[str]],
    kinds: Sequence[str],
    measures: Mapping[str, tuple[str, str]],
    directions: Directions,
    vectors: EmotionVectors,
    *,
    strengths: Sequence[float],
    layers: Sequence[int],
    progress: str | None = None,
) -> pd.DataFrame:
    """Return how steering moves the log-odds between kinds of options.

    Parameters
    ----------
    options, kinds
        Each prompt's options; kinds names those of every prompt.
    measures : {name: (kind, kind)}
        The first kind's options against the second's, see `log_odds`.

    Returns
    -------
    DataFrame
        One row a cell, prompt and measure: kind, direction, strength, item (number of the prompt),
        measure, value (log-odds, nats per token), shift (value less that without steering), fluency
        (change of all options' log-probability per token).

    Examples
    --------
    >>> about = ["I will"], [(" wait", " threaten her")], ["wait", "act"], {"act": ("act", "wait")}
    >>> settings = {"strengths": [0.0, 0.5], "layers": [15]}
    >>> chosen = {("emotion", "desperate"): vectors["desperate"]}
    >>> found = option_shifts(llm, *about, chosen, vectors, **settings)
    >>> found.measure.tolist(), (abs(found["shift"]) > 0.001).tolist()
    (['act', 'act'], [False, True])
    """
    plain = option_logprobs(model, prompts, options).mean
    scores = leanings(
        model,
        prompts,
        options,
        directions,
        vectors,
        strengths=strengths,
        layers=layers,
        progress=progress,
    )
    fluency = (scores - plain).mean(-1)
    rows = []
    for measure, (a, b) in measures.items():
        before, after = (log_odds(x, kinds, a, b) for x in (plain, scores))
        for cell, values, lost in zip(cells_of(directions, strengths), after, fluency, strict=True):
            rows += [
                (*cell, item, measure, value, value - start, change)
                for item, (value, start, change) in enumerate(
                    zip(values, before, lost, strict=True)
                )
            ]
    columns = [*CELL, "item", "measure", "value", "shift", "fluency"]
    return pd.DataFrame(rows, columns=columns)


def readings_while_steered(
    model: TracedModel,
    texts: Sequence[str],
    spans: Sequence[Span],
    direction: np.ndarray,
    strengths: Sequence[float],
    vectors: EmotionVectors,
    *,
    layers: Sequence[int],
    layer: int,
) -> np.ndarray:
    """Return how much of a direction is in each text while it is steered along that direction.

    After a steered block the residual stream holds what was added, so a high reading shows that the
    vector is there and nothing else: the upper bound for a probe, not a finding.

    Parameters
    ----------
    texts, spans
        Texts, and the characters of each whose tokens are averaged.
    direction : ``[n_layers, d_model]``
    strengths : sequence of float, n_texts
    layer : int
        Where it is read.

    Returns
    -------
    ``[n_texts]`` cosines, mean over tokens.

    Examples
    --------
    >>> given = ["The bus stops at the corner."] * 2, [(4, 28)] * 2, vectors["calm"], [0.0, 9.0]
    >>> plain, full = readings_while_steered(llm, *given, vectors, layers=[15], layer=15)
    >>> bool(plain < 0.5), bool(full > 0.9)
    (True, True)
    """
    given = np.stack([direction] * len(texts))
    steering = steer(given, strengths, vectors.residual_norm, layers)
    found = token_residuals(model, texts, [layer], steering=steering)
    axis = direction[layer] / np.linalg.norm(direction[layer])
    read = []
    for text, span, residuals in zip(texts, spans, found, strict=True):
        inside = residuals[tokens_in(model, text, [span]), 0]
        read.append((inside @ axis / np.linalg.norm(inside, axis=1)).mean())
    return np.array(read)


# --- effects -----------------------------------------------------------------------------------


def shift_tests(
    shifts: pd.DataFrame,
    *,
    adjust: Callable[[np.ndarray], np.ndarray] = scipy.stats.false_discovery_control,
) -> pd.DataFrame:
    """Hold each direction's mean shift at a strength to the random directions' shifts.

    Parameters
    ----------
    shifts : DataFrame
        Columns kind, direction, strength, item, shift, fluency; one strength, of either sign.
    adjust : callable
        Takes the emotions' p values and returns them corrected for their number: `stats.holm`, or
        the false discovery rate.

    Returns
    -------
    DataFrame
        One row a direction and sign: kind, direction, strength, shift (mean over items) with low,
        high (Student's t) and n, fluency, beyond (shift minus the mean of random directions), p
        (two-sided: a new random direction would shift as far, by Student's t), and for emotions
        alone (None for controls) passes (adjusted p below .05) and clear (further beyond the random
        directions than any shuffled or unrelated one).

    Raises
    ------
    BadInput
        For several strengths, or fewer than three random directions.

    Examples
    --------
    >>> kinds, names = ["emotion", *["random"] * 3], ["desperate", "r1", "r2", "r3"]
    >>> cells = pd.DataFrame({"kind": kinds, "direction": names, "strength": 0.1})
    >>> items = pd.DataFrame({"item": [0, 1], "fluency": 0.0})
    >>> found = shift_tests(cells.assign(shift=[2.0, 0.1, 0.0, -0.1]).merge(items, how="cross"))
    >>> found.beyond.round(6).tolist(), found.passes.tolist()
    ([2.0, 0.1, 0.0, -0.1], [True, None, None, None])
    """
    if shifts.strength.abs().nunique() > 1:
        raise BadInput("shifts hold several strengths; test one at a time")
    rows = []
    for where, cell in shifts.groupby(CELL, sort=False):
        found = mean_interval(cell["shift"].to_numpy())
        fluency = cell.fluency.mean()
        rows.append((*where, found.value, found.low, found.high, found.n, fluency))
    columns = [*CELL, "shift", "low", "high", "n", "fluency"]
    table = pd.DataFrame(rows, columns=columns)
    random = table.loc[table.kind == "random", "shift"].to_numpy()
    if len(random) < 3:
        raise BadInput(f"at least three random directions are needed, not {len(random)}")
    table["beyond"] = table["shift"] - random.mean()
    scale = random.std(ddof=1) * np.sqrt(1 + 1 / len(random))
    table["p"] = 2 * scipy.stats.t.sf(np.abs(table.beyond) / scale, len(random) - 1)
    emotion = table.kind == "emotion"
    table[["passes", "clear"]] = None
    table.loc[emotion, "passes"] = adjust(table.p[emotion].to_numpy()) < 0.05
    others = table.beyond[table.kind.isin(["shuffled", "unrelated"])].abs().max()
    table.loc[emotion, "clear"] = ~(table.beyond[emotion].abs() <= others)
    return table


def counted(tests: pd.DataFrame, broken: pd.DataFrame) -> pd.DataFrame:
    """Return tests with the damage that each direction does, and which of its effects count.

    Parameters
    ----------
    tests : DataFrame
        As from `shift_tests`: kind, direction, strength, passes, clear.
    broken : DataFrame
        As from `damage`, with every emotion and strength of the tests.

    Returns
    -------
    DataFrame
        With perplexity and kl (None where not measured), coherent (perplexity below `LIMIT`), and
        for emotions counts: passes, clear and coherent.

    Examples
    --------
    >>> cells = pd.DataFrame({"kind": "emotion", "direction": ["calm", "afraid"], "strength": 0.1})
    >>> tests = cells.assign(passes=True, clear=True)
    >>> counted(tests, cells.assign(perplexity=[1.1, 4.0], kl=0.1)).counts.tolist()
    [True, False]
    """
    table = tests.merge(broken[[*CELL, "perplexity", "kl"]], on=CELL, how="left")
    emotion = table.kind == "emotion"
    unknown = table[emotion & table.perplexity.isna()]
    if len(unknown):
        row = unknown.iloc[0]
        raise BadInput(
            f"the damage of {row.direction!r} at strength {row.strength:g} was not measured; "
            "give that cell to `damage`"
        )
    table["coherent"] = table.perplexity < LIMIT
    table["counts"] = None
    counts = table.passes.eq(True) & table.clear.eq(True) & table.coherent
    table.loc[emotion, "counts"] = counts[emotion]
    return table


def judged(tests: pd.DataFrame, expected: Mapping[tuple[str, int], int]) -> str:
    """Return the verdict on shifts whose directions a claim foretells.

    Parameters
    ----------
    tests : DataFrame
        As from `counted`, both signs of the strength.
    expected : {(emotion, sign of the strength): sign of the shift}

    Returns
    -------
    str
        "supported" if all count as foretold, "partly" if some do, "reversed" if none does and some
        count the other way, else "not supported".

    Examples
    --------
    >>> tests = pd.DataFrame({"direction": ["desperate", "calm"], "strength": 0.1})
    >>> tests = tests.assign(beyond=[0.8, -0.1], counts=[True, False])
    >>> judged(tests, {("desperate", 1): 1}), judged(tests, {("desperate", 1): 1, ("calm", 1): -1})
    ('supported', 'partly')
    """
    rows = tests.assign(sign=np.sign(tests.strength)).set_index(["direction", "sign"])
    found = []
    for (emotion, sign), foretold in expected.items():
        if (emotion, sign) not in rows.index:
            raise BadInput(f"{emotion!r} was not steered at sign {sign:+d}; add it to the emotions")
        row = rows.loc[(emotion, sign)]
        found.append(foretold * np.sign(row.beyond) * bool(row.counts))
    if max(found) <= 0:
        return "reversed" if min(found) < 0 else "not supported"
    return "supported" if min(found) > 0 else "partly"


def specificity(shifts: pd.DataFrame, a: str, b: str) -> Estimate:
    """Return the correlation over items of the shifts induced by two directions.

    For opposite emotions an effect of emotion gives a negative r; near 1 the shift is the same
    whatever is added, and says nothing of emotion.

    >>> shifts = pd.DataFrame({"item": [0, 0, 1, 1, 2, 2], "direction": ["calm", "desperate"] * 3})
    >>> shifts["shift"] = [0.1, -0.1, 0.4, -0.4, 0.9, -0.9]
    >>> round(specificity(shifts, "calm", "desperate").value, 6)
    -1.0
    """
    by_item = shifts.pivot(index="item", columns="direction", values="shift")
    return bootstrap(pearson, by_item[a].to_numpy(), by_item[b].to_numpy())


def contrast(shifts: pd.DataFrame, a: str, b: str) -> Estimate:
    """Return the mean over items of the shift by direction a minus the shift by b.

    >>> shifts = pd.DataFrame({"item": [0, 0, 1, 1], "direction": ["calm", "desperate"] * 2})
    >>> shifts["shift"] = [0.0, 0.5, 0.25, 1.25]
    >>> contrast(shifts, "desperate", "calm").value
    0.75
    """
    by_item = shifts.pivot(index="item", columns="direction", values="shift")
    return mean_interval((by_item[a] - by_item[b]).to_numpy())


# --- damage ------------------------------------------------------------------------------------


def damage(
    model: TracedModel,
    directions: Directions,
    vectors: EmotionVectors,
    texts: Sequence[str],
    *,
    layers: Sequence[int],
    strengths: Sequence[float],
) -> pd.DataFrame:
    """Return what steering does to neutral text when every token is steered.

    Each text is cut in halves at a word; the second is scored after the first. Both numbers are
    kept on disk like scores, since chapters share directions.

    Returns
    -------
    DataFrame
        With columns kind, direction, strength, perplexity (ratio of steered to unsteered), kl
        (nats, of the next token after the first half, unsteered against steered; mean over texts)
        and n (texts).

    Examples
    --------
    >>> chosen, neutral = {("emotion", "calm"): vectors["calm"]}, ["The bus stops at the corner."]
    >>> found = damage(llm, chosen, vectors, neutral, layers=[15], strengths=[0.0, 100.0])
    >>> (found.perplexity > LIMIT).tolist(), (found.kl > 0).tolist()
    ([False, True], [False, True])
    """
    heads, tails = zip(*map(halves, texts), strict=True)
    base = continuation_logprobs(model, heads, tails)
    store, per = score_store(model, "kl", heads, size=1), len(heads)
    plain, rows = None, []
    for part, steering in in_parts(directions, strengths, vectors, per, layers, None):
        many, marks = len(part), steering.marks()[::per]  # None: nothing is added
        scored = continuation_logprobs(model, heads * many, tails * many, steering=steering)
        lost = (base.total - scored.total.reshape(many, per)).sum(1) / base.n_tokens.sum()
        with store.lock("score"):
            known = store.keys()
            fresh = {mark: n for n, mark in enumerate(marks) if mark and mark not in known}
            if fresh:
                plain = next_token_logprobs(model, heads) if plain is None else plain
                chosen = [per * n + text for n in fresh.values() for text in range(per)]
                after = next_token_logprobs(model, heads * len(fresh), steering=steering[chosen])
                after = after.reshape(len(fresh), *plain.shape)
                kl = (np.exp(plain) * (plain - after)).sum(-1).mean(-1, keepdims=True)
                store.append(list(fresh), kl.astype(np.float32))
            known, kept = store.keys(), store.open()
            kl = [float(kept[known[mark], 0]) if mark else 0.0 for mark in marks]
        rows += [
            (*cell, float(np.exp(nats)), away, per)
            for cell, nats, away in zip(part, lost, kl, strict=True)
        ]
    return pd.DataFrame(rows, columns=[*CELL, "perplexity", "kl", "n"])


def coherent_strength(broken: pd.DataFrame, *, limit: float = LIMIT) -> float:
    """Return the largest strength at which no direction, of either sign, breaks the model.

    Parameters
    ----------
    broken : DataFrame
        As from `damage`.
    limit : float
        Perplexity on neutral text may rise up to so many times; the choice is by damage alone.

    Returns
    -------
    float; the smallest strength, if all break it.

    Examples
    --------
    >>> broken = pd.DataFrame({"strength": [0.05, -0.05, 0.1, -0.1]})
    >>> coherent_strength(broken.assign(perplexity=[1.1, 1.2, 1.3, 1.9]))
    0.05
    """
    moved = broken[broken.strength != 0]
    if moved.empty:
        raise BadInput("damage was measured at strength 0 only; add a strength")
    worst = moved.groupby(moved.strength.abs()).perplexity.max()
    held = worst.index[(worst < limit).cummin()]
    return float(held.max() if len(held) else worst.index.min())


def halves(text: str) -> tuple[str, str]:
    """Return a text cut in two at a word.

    >>> halves("one two three four")
    ('one two', ' three four')
    """
    words = text.split(" ")
    middle = len(words) // 2
    return " ".join(words[:middle]), " " + " ".join(words[middle:])

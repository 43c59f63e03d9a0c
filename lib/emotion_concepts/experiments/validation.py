"""Chapter 2: does the geometry of the vectors mirror human psychology?

Every function takes vectors ``[emotions, d]`` (of one layer, or one a layer) with the table of
:func:`corpus.emotions` and returns a tidy table with its null. The same functions run on the
baselines that the paper does not report: word counts of the stories and static embeddings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files

import numpy as np
import pandas as pd
import yaml

from emotion_concepts import corpus
from emotion_concepts.experiments.extraction import (
    Extraction,
    remove_topic_means,
    static_grid,
    word_means,
)
from emotion_concepts.geometry import (
    cluster_agreement,
    components_for,
    cosine_matrix,
    isotropic_shares,
    k_means,
    linear_readout,
    pca,
    project_out,
    rsa,
    unit,
    upper,
)
from emotion_concepts.results import paper
from emotion_concepts.stats import (
    Estimate,
    bootstrap,
    column_correlations,
    correlation,
    exceedance_p,
    pearson,
    permutation_p,
    permuted_correlations,
)
from emotion_concepts.tracing import TracedModel, continuation_logprobs, mean_embedding

NORMS = ("pleasure", "arousal")
READ_NORMS = (*NORMS, "glasgow_valence")
N_COMPONENTS = 5


def average(*directions: np.ndarray) -> np.ndarray:
    """Return the unit mean of several sets of unit vectors ``[..., d]``.

    >>> average(np.array([1.0, 0.0]), np.array([0.0, 1.0])).round(2).tolist()
    [0.71, 0.71]
    """
    return unit(np.mean(directions, axis=0))


def baselines(model: TracedModel, extractions: Sequence[Extraction]) -> dict[str, np.ndarray]:
    """Return vectors that no layer of the model has touched, ``{name: [emotions, d]}``.

    The first two are emotion means of the same stories with topic means removed, averaged over
    registers as the vectors are; the third are the emotion words' own input embeddings.

    >>> from emotion_concepts.vectors import EmotionVectors, Provenance, Stacked
    >>> stories = corpus.load_stories("plain", topics=2, emotions=["angry", "calm"])
    >>> x = Stacked(np.random.default_rng(0).normal(size=(4, 1, 9)))
    >>> made = Provenance("own", "", "", "", "", skip=10, neutral_variance=0.5)
    >>> vectors = EmotionVectors.fit(x, stories.emotion, x, provenance=made)
    >>> found = baselines(llm, [Extraction("plain", stories, x, x, vectors)])
    >>> [(name, len(rows)) for name, rows in found.items()][1:]
    [('static embeddings of the stories', 2), ('static embedding of the word', 171)]
    """
    _, counted = word_means(extractions)
    embedded = [static_grid(model, extraction).mean(0) for extraction in extractions]
    words = mean_embedding(model, corpus.EMOTIONS, add_space=True)
    return {
        "TF-IDF of the stories": average(*map(unit, counted)),
        "static embeddings of the stories": average(*map(unit, embedded)),
        "static embedding of the word": unit(words - words.mean(0)),
    }


# --- what the model says of the words ----------------------------------------------------------


def model_ratings(model: TracedModel) -> pd.DataFrame:
    """Return the model's own pleasure and arousal of each emotion word (after Fig 58).

    Each frame of ``data/scenarios/ratings.yaml`` offers two continuations; the rating is the
    difference of their log-probabilities per token, each frame centred over words, so that a
    frame's taste for one continuation is no rating, and averaged.

    Returns
    -------
    DataFrame
        Indexed by emotion with columns pleasure and arousal, in nats per token.
    """
    text = (files("emotion_concepts") / "data/scenarios/ratings.yaml").read_text(encoding="utf-8")
    out = {}
    for norm, frames in yaml.safe_load(text).items():
        prompts, continuations = [], []
        for frame in frames:
            for side in ("high", "low"):
                prompts += [frame["frame"].format(word=word) for word in corpus.EMOTIONS]
                continuations += [frame[side].format(word=word) for word in corpus.EMOTIONS]
        scores = continuation_logprobs(model, prompts, continuations).mean
        high, low = scores.reshape(len(frames), 2, -1).swapaxes(0, 1)
        difference = high - low
        out[norm] = (difference - difference.mean(1, keepdims=True)).mean(0)
    return pd.DataFrame(out, index=list(corpus.EMOTIONS))


# --- components against human ratings ----------------------------------------------------------


def component_tests(
    layers: np.ndarray, emotions: pd.DataFrame, *, resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Correlate the first five components with human pleasure and arousal at every layer (Fig 8).

    Parameters
    ----------
    layers : ``[emotions, n_layers, d]``
        Vectors in the order of `emotions`.

    Returns
    -------
    DataFrame
        One row a layer, component and norm: r, low, high, n, p (this component alone), p_pc
        (corrected for the choice among five components), p_layer (for component and layer),
        threshold (size of r that the best of five reaches by chance once in twenty).

    Examples
    --------
    >>> rated = corpus.emotions().dropna(subset=["pleasure"])
    >>> layers = np.random.default_rng(0).normal(size=(45, 1, 5))
    >>> layers[:, 0, 0] = 20 * rated.pleasure
    >>> tests = component_tests(layers, rated, resamples=100)
    >>> best = best_component(tests, "pleasure", 0)
    >>> int(best.pc), abs(round(float(best.r), 2)), bool(best.p_layer < 0.05)
    (1, 1.0, True)
    """
    rows = []
    for norm in NORMS:
        rated = emotions[norm].notna().to_numpy()
        y = emotions[norm][rated].to_numpy()
        scores = [pca(layers[:, n], N_COMPONENTS).scores[rated] for n in range(layers.shape[1])]
        null = permuted_correlations(np.hstack(scores), y, resamples=resamples, seed=seed)
        null = np.abs(null).reshape(resamples, layers.shape[1], N_COMPONENTS)
        best_anywhere = null.max((1, 2))
        for layer, score in enumerate(scores):
            best_here = null[:, layer].max(1)
            for pc in range(N_COMPONENTS):
                found = bootstrap(pearson, score[:, pc], y, resamples=500, seed=seed)
                rows.append(
                    {
                        "layer": layer,
                        "pc": pc + 1,
                        "norm": norm,
                        "r": found.value,
                        "low": found.low,
                        "high": found.high,
                        "n": found.n,
                        "p": permutation_p(found.value, null[:, layer, pc]),
                        "p_pc": permutation_p(found.value, best_here),
                        "p_layer": permutation_p(found.value, best_anywhere),
                        "threshold": float(np.quantile(best_here, 0.95)),
                    }
                )
    return pd.DataFrame(rows)


def best_component(tests: pd.DataFrame, norm: str, layer: int) -> pd.Series:
    """Return the row of the component that correlates most with a norm at a layer.

    >>> tests = {"norm": "pleasure", "layer": 20, "pc": [1, 2, 3], "r": [0.3, -0.8, 0.1]}
    >>> int(best_component(pd.DataFrame(tests), "pleasure", 20).pc)
    2
    """
    here = tests[(tests.norm == norm) & (tests.layer == layer)]
    return here.loc[here.r.abs().idxmax()]


def beside_people(tests: pd.DataFrame) -> pd.DataFrame:
    """Return one layer's component tests with null, human agreement and the paper's values.

    Returns
    -------
    DataFrame
        For `plots.correlation_grid`: pc (as "PC1"), norm, r, low, high, null, human_low,
        human_high, paper.

    Examples
    --------
    >>> tests = {"pc": [1, 2], "norm": ["pleasure", "arousal"], "threshold": 0.4}
    >>> found = beside_people(pd.DataFrame({**tests, "r": 0.7, "low": 0.6, "high": 0.8}))
    >>> found[["pc", "norm", "r", "null", "paper"]].values.tolist()
    [['PC1', 'pleasure', 0.7, 0.4, 0.81], ['PC2', 'arousal', 0.7, 0.4, 0.66]]
    """
    agreement = {"pleasure": "human_valence_r", "arousal": "human_arousal_r"}
    theirs = {(1, "pleasure"): "pc1_pleasure_r", (2, "arousal"): "pc2_arousal_r"}
    out = tests[["pc", "norm", "r", "low", "high"]].assign(null=tests.threshold)
    for side in ("low", "high"):
        out[f"human_{side}"] = [paper(f"{agreement[norm]}_{side}")["paper"] for norm in tests.norm]
    cells = zip(tests.pc, tests.norm, strict=True)
    out["paper"] = [paper(theirs[cell])["paper"] if cell in theirs else None for cell in cells]
    return out.assign(pc="PC" + tests.pc.astype(str))


def leading(best: pd.Series, pc: int) -> str:
    """Return the verdict on "component `pc` follows this norm" from `best_component`.

    Supported if it is the best of the five and beats the null corrected for five; partly if
    another of the five does.

    >>> best = pd.Series({"pc": 2, "p_pc": 0.01})
    >>> leading(best, 2), leading(best, 1), leading(pd.Series({"pc": 2, "p_pc": 0.3}), 2)
    ('supported', 'partly', 'not supported')
    """
    passes = best.p_pc < 0.05
    return "supported" if passes and best.pc == pc else "partly" if passes else "not supported"


def oriented(row: pd.Series) -> tuple[float, float, float]:
    """Return r, low and high with r made positive: a component's sign is free.

    >>> print(*oriented(pd.Series({"r": -0.8, "low": -0.9, "high": -0.5})))
    0.8 0.5 0.9
    """
    return (row.r, row.low, row.high) if row.r >= 0 else (-row.r, -row.high, -row.low)


def best_by_layer(tests: pd.DataFrame) -> pd.DataFrame:
    """Return the best component's r at each layer, signs made positive, beside its threshold.

    Returns
    -------
    DataFrame
        With columns layer, norm (or "best of five by chance"), r, low, high.

    Examples
    --------
    >>> tests = {"layer": 20, "norm": ["pleasure", "pleasure", "arousal"], "r": [0.2, -0.8, 0.5]}
    >>> tests |= {"low": [0.1, -0.9, 0.4], "high": [0.3, -0.7, 0.6], "threshold": 0.4}
    >>> best_by_layer(pd.DataFrame(tests))[["norm", "r"]].round(2).values.tolist()
    [['pleasure', 0.8], ['arousal', 0.5], ['best of five by chance', 0.4]]
    """
    rows = []
    for norm in NORMS:
        for layer in sorted(tests.layer.unique()):
            rows.append((layer, norm, *oriented(best_component(tests, norm, layer))))
    chance = tests.groupby("layer").threshold.mean()
    rows += [
        (layer, "best of five by chance", level, level, level) for layer, level in chance.items()
    ]
    return pd.DataFrame(rows, columns=["layer", "norm", "r", "low", "high"])


def within_sign(
    vectors: np.ndarray, emotions: pd.DataFrame, norm: str, pc: int, *, seed: int = 0
) -> pd.DataFrame:
    """Correlate a component with a norm inside pleasant and inside unpleasant words.

    Two clouds of opposite sign give a high r by themselves; inside one sign, even two human norm
    sets agree only to about .7.

    Returns
    -------
    DataFrame
        With columns words, r, low, high, n, p.

    Examples
    --------
    >>> rated = corpus.emotions().dropna(subset=["pleasure"])
    >>> found = within_sign(rated[["pleasure"]].to_numpy(), rated, "pleasure", 1)
    >>> found.words.tolist(), found.r.abs().round(2).tolist(), int(found.n.sum())
    (['pleasant', 'unpleasant'], [1.0, 1.0], 45)
    """
    scores = pca(vectors, pc).scores[:, pc - 1]
    rows = []
    for name, chosen in (
        ("pleasant", emotions.pleasure > 0),
        ("unpleasant", emotions.pleasure < 0),
    ):
        pick = (chosen & emotions[norm].notna()).to_numpy()
        found = correlation(scores[pick], emotions[norm][pick].to_numpy(), seed=seed)
        rows.append((name, found.value, found.low, found.high, found.n, found.p))
    return pd.DataFrame(rows, columns=["words", "r", "low", "high", "n", "p"])


def readout_tests(
    sources: Mapping[str, np.ndarray],
    emotions: pd.DataFrame,
    norms: Sequence[str] = READ_NORMS,
    *,
    permutations: int = 100,
    seed: int = 0,
) -> pd.DataFrame:
    """Predict a norm from the whole vector, word by held-out word.

    A linear read-out asks whether the information is there at all; the component test asks whether
    it is the direction of most variance.

    Returns
    -------
    DataFrame
        With columns source, norm, r, low, high, n, p (against shuffled ratings).

    Examples
    --------
    >>> rated = corpus.emotions().dropna(subset=["pleasure"])
    >>> sources = {"planted": rated[["arousal", "pleasure"]].to_numpy()}
    >>> found = readout_tests(sources, rated, ["pleasure"], permutations=3)
    >>> found[["source", "norm", "r", "n"]].round(2).values.tolist()
    [['planted', 'pleasure', 1.0, 45]]
    """
    rng = np.random.default_rng(seed)
    rows = []
    for name, vectors in sources.items():
        for norm in norms:
            rated = emotions[norm].notna().to_numpy()
            x, y = vectors[rated], emotions[norm][rated].to_numpy()
            found = _readout(pearson, x, y, permutations, rng, seed)
            rows.append((name, norm, found.value, found.low, found.high, found.n, found.p))
    return pd.DataFrame(rows, columns=["source", "norm", "r", "low", "high", "n", "p"])


def _readout(statistic, x, y, permutations: int, rng: np.random.Generator, seed: int) -> Estimate:
    """Return a statistic of cross-validated predictions with interval; p by shuffled ratings."""
    shuffled = np.stack([rng.permutation(y) for _ in range(permutations)], axis=1)
    predicted = linear_readout(x, np.column_stack([y, shuffled]), seed=seed)
    found = bootstrap(statistic, predicted[:, 0], y, seed=seed)
    null = statistic(predicted[:, 1:], shuffled, axis=0)
    return Estimate(found.value, found.low, found.high, found.n, exceedance_p(found.value, null))


# --- variance ----------------------------------------------------------------------------------


def share_nulls(
    extractions: Sequence[Extraction], layer: int, *, k: int = 10, draws: int = 50, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return ``[draws, k]`` variance shares of vectors that know no emotion.

    "random directions" are random unit vectors; "shuffled stories" are fitted by the whole recipe,
    and averaged over registers, on stories whose emotions were shuffled within topics.

    >>> from emotion_concepts.vectors import EmotionVectors, Stacked
    >>> stories = corpus.load_stories("plain", topics=2, emotions=corpus.TWELVE)
    >>> x = Stacked(np.random.default_rng(0).normal(size=(24, 1, 20)))
    >>> vectors = EmotionVectors.fit(x, stories.emotion, x)
    >>> found = share_nulls([Extraction("plain", stories, x, x, vectors)], 0, k=3, draws=5)
    >>> {name: shares.shape for name, shares in found.items()}
    {'random directions': (5, 3), 'shuffled stories': (5, 3)}
    """
    rng = np.random.default_rng(seed)
    grids = [
        project_out(e.crossed(layer), components_for(e.neutral.layer(layer))) for e in extractions
    ]
    n, d = grids[0].shape[1:]
    shuffled = []
    for _ in range(draws):
        mixed = [np.mean([topic[rng.permutation(n)] for topic in grid], axis=0) for grid in grids]
        shuffled.append(pca(average(*map(unit, mixed))).shares[:k])
    return {
        "random directions": isotropic_shares(n, d, k, draws=draws, seed=seed),
        "shuffled stories": np.stack(shuffled),
    }


# --- clusters and pairs ------------------------------------------------------------------------


def cluster_tests(
    sources: Mapping[str, np.ndarray],
    emotions: pd.DataFrame,
    *,
    permutations: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare k-means clusters with the paper's (Table 12), as many as it has.

    Returns
    -------
    DataFrame
        With columns source, ari, nmi, null_ari (95th percentile), null_nmi, p.

    Examples
    --------
    >>> words = corpus.emotions().iloc[:40]
    >>> sources = {"planted": pd.get_dummies(words.cluster).to_numpy(float)}
    >>> found = cluster_tests(sources, words, permutations=19)
    >>> found[["source", "ari", "p"]].round(2).values.tolist()
    [['planted', 1.0, 0.05]]
    """
    rng = np.random.default_rng(seed)
    given = emotions.cluster.to_numpy()
    rows = []
    for name, vectors in sources.items():
        labels = k_means(vectors, emotions.cluster.nunique(), seed=seed)
        found = cluster_agreement(labels, given)
        null = pd.DataFrame(
            cluster_agreement(labels, rng.permutation(given)) for _ in range(permutations)
        )
        p = exceedance_p(found["ari"], null.ari.to_numpy())
        tail = null.quantile(0.95)
        rows.append((name, found["ari"], found["nmi"], tail.ari, tail.nmi, p))
    return pd.DataFrame(rows, columns=["source", "ari", "nmi", "null_ari", "null_nmi", "p"])


def pair_tests(
    vectors: np.ndarray, emotions: pd.DataFrame, *, draws: int = 2000, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Place pairs of near and of opposite words among all pairs (Fig 5).

    Returns
    -------
    pairs : DataFrame
        kind, a, b, pair, cosine, percentile (among all pairs).
    tests : DataFrame
        kind, mean, low, high, n, null (mean over all pairs), p (random pairs of words as often
        used as these: the words are shuffled over the pairs).

    Examples
    --------
    >>> words = corpus.emotions()
    >>> vectors = pd.DataFrame(np.random.default_rng(0).normal(size=(171, 40)), words.index)
    >>> opposite = corpus.word_pairs().query("kind == 'opposite'")
    >>> vectors.loc[opposite.b] = -vectors.loc[opposite.a].to_numpy()
    >>> pairs, tests = pair_tests(vectors.to_numpy(), words, draws=99)
    >>> tests.set_index("kind").loc["opposite", ["mean", "n", "p"]].astype(float).round(2).tolist()
    [-1.0, 18.0, 0.01]
    """
    cosines = cosine_matrix(vectors)
    everything = np.sort(upper(cosines))
    typical = float(everything.mean())  # to which every shuffled pair comes down on average
    names = list(emotions.index)
    pairs = corpus.word_pairs().copy()
    a = pairs.a.map(names.index).to_numpy()
    b = pairs.b.map(names.index).to_numpy()
    pairs["cosine"] = cosines[a, b]
    pairs["percentile"] = 100 * np.searchsorted(everything, pairs.cosine) / len(everything)
    pairs["pair"] = pairs.a + " – " + pairs.b
    rng = np.random.default_rng(seed)
    rows = []
    for kind, group in pairs.groupby("kind", sort=False):
        left, right = a[group.index], b[group.index]
        null = np.empty(draws)
        for n in range(draws):
            mapping = rng.permutation(len(names))
            null[n] = cosines[mapping[left], mapping[right]].mean()
        found = bootstrap(np.mean, group.cosine.to_numpy(), seed=seed)
        p = permutation_p(found.value - typical, null - typical)
        rows.append((kind, found.value, found.low, found.high, found.n, typical, p))
    columns = ["kind", "mean", "low", "high", "n", "null", "p"]
    return pairs, pd.DataFrame(rows, columns=columns)


# --- the same geometry without a model? --------------------------------------------------------


def human_similarity(emotions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return rows with ratings and ``[45, 45]`` minus distances in the pleasure-arousal plane.

    >>> words = pd.DataFrame({"pleasure": [0.8, None, -0.2], "arousal": [0.5, None, 0.5]})
    >>> rated, similarity = human_similarity(words)
    >>> rated.tolist(), float(similarity[0, 1])
    ([True, False, True], -1.0)
    """
    rated = emotions[list(NORMS)].notna().all(axis=1).to_numpy()
    plane = emotions.loc[rated, list(NORMS)].to_numpy()
    return rated, -np.linalg.norm(plane[:, None] - plane[None], axis=-1)


def similarity_tests(
    vectors: np.ndarray,
    others: Mapping[str, np.ndarray],
    emotions: pd.DataFrame,
    *,
    permutations: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare the vectors' similarity structure, and each baseline's, with the human plane.

    Regressing a noisy baseline out leaves some of what it shares with the vectors: "partial" is an
    upper bound of what the vectors add.

    Returns
    -------
    DataFrame
        With columns source, human (correlation of similarities with the human plane), p (words
        shuffled), with_vectors (over all words), partial (the vectors' partial correlation with the
        human plane: this baseline is regressed out of both), p_partial.

    Examples
    --------
    >>> rated = corpus.emotions().dropna(subset=["pleasure"])
    >>> noise = np.random.default_rng(0).normal(size=(45, 40))
    >>> plane = rated[list(NORMS)].to_numpy()
    >>> found = similarity_tests(plane, {"noise": noise}, rated, permutations=99)
    >>> found.source.tolist(), (found.p < 0.05).tolist()
    (['vectors', 'noise'], [True, False])
    """
    rng = np.random.default_rng(seed)
    rated, human = human_similarity(emotions)
    orders = [rng.permutation(len(human)) for _ in range(permutations)]

    def here(matrix: np.ndarray) -> np.ndarray:
        return upper(matrix[np.ix_(rated, rated)])

    whole = cosine_matrix(vectors)
    found, p = _mantel(here(whole), human, orders)
    rows = [("vectors", found, p, 1.0, None, None)]
    for name, baseline in others.items():
        matrix = cosine_matrix(baseline)
        found, p = _mantel(here(matrix), human, orders)
        rest = _mantel(here(whole), human, orders, given=here(matrix))
        rows.append((name, found, p, rsa(matrix, whole), *rest))
    return pd.DataFrame(
        rows, columns=["source", "human", "p", "with_vectors", "partial", "p_partial"]
    )


def baseline_table(
    sources: Mapping[str, np.ndarray],
    emotions: pd.DataFrame,
    *,
    permutations: int = 100,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return clusters and components of several sources in one table, for display.

    Returns
    -------
    DataFrame
        With columns source, ARI (with the paper's clusters), pleasure and arousal (the best of five
        components, its r and p corrected for five).

    Examples
    --------
    >>> words = corpus.emotions().dropna(subset=["pleasure"])
    >>> sources = {"planted": pd.get_dummies(words.cluster).to_numpy(float)}
    >>> found = baseline_table(sources, words, permutations=9, resamples=99)
    >>> list(found), found.ARI.tolist()
    (['source', 'ARI', 'pleasure', 'arousal'], [1.0])
    """
    clusters = cluster_tests(sources, emotions, permutations=permutations, seed=seed)
    rows = []
    for name, ari in zip(clusters.source, clusters.ari, strict=True):
        tests = component_tests(sources[name][:, None], emotions, resamples=resamples, seed=seed)
        best = [best_component(tests, norm, 0) for norm in NORMS]
        shown = [f"PC{b.pc} {_with_p(oriented(b)[0], b.p_pc)}" for b in best]
        rows.append((name, ari, *shown))
    return pd.DataFrame(rows, columns=["source", "ARI", *NORMS])


def _with_p(r: float | None, p: float | None) -> str:
    if r is None or pd.isna(r):
        return "—"
    return f"{r:.2f} ({'p < .001' if p < 0.001 else f'p = {p:.3f}'})"


def similarity_table(similarity: pd.DataFrame) -> pd.DataFrame:
    """Return `similarity_tests` with short heads and each p beside its r, for display.

    >>> tests = {"source": ["vectors", "TF-IDF"], "human": [0.62, 0.4], "p": [0.0001, 0.01]}
    >>> tests |= {"with_vectors": [1.0, 0.7], "partial": [None, 0.5], "p_partial": [None, 0.02]}
    >>> print(*similarity_table(pd.DataFrame(tests)).iloc[1], sep=" | ")
    TF-IDF | 0.40 (p = 0.010) | 0.7 | 0.50 (p = 0.020)
    """
    return pd.DataFrame(
        {
            "source": similarity.source,
            "human plane": list(map(_with_p, similarity.human, similarity.p)),
            "vectors": similarity.with_vectors,
            "vectors beyond it": list(map(_with_p, similarity.partial, similarity.p_partial)),
        }
    )


def _mantel(
    a: np.ndarray,
    b: np.ndarray,
    orders: Sequence[np.ndarray],
    *,
    given: np.ndarray | None = None,
) -> tuple[float, float]:
    """Correlate a condensed matrix with a square one; p by shuffling the items of the latter.

    What the condensed matrix `given` explains is taken out of both, anew for every shuffle.
    """

    def rest(x: np.ndarray) -> np.ndarray:
        return x if given is None else _residual(x, given)

    def r(order) -> float:
        return float(pearson(left, rest(upper(b[np.ix_(order, order)]))))

    left = rest(a)
    found = r(range(len(b)))
    return found, exceedance_p(found, np.array([r(order) for order in orders]))


def _residual(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return what is left of y after a straight line in x."""
    slope, intercept = np.polyfit(x, y, 1)
    return y - slope * x - intercept


# --- what the first component is ---------------------------------------------------------------

_WORD_LISTS = {
    "first person": "i me my mine myself we us our ours ourselves",
    "body": """arm arms back breath chest eye eyes face feet finger fingers foot hand hands head
        heart jaw knee knees leg legs mouth neck palm palms shoulder shoulders skin stomach
        throat""",
    "past": "ago always been before had never once used year years yesterday",
    "thought": """believe believed decided forget forgot knew know known mean meant remember
        remembered should think thought understand understood want wanted why wish wished wonder
        wondered""",
}
_WORDS = {name: frozenset(words.split()) for name, words in _WORD_LISTS.items()}


def story_features(texts: Sequence[str]) -> pd.DataFrame:
    """Return simple features of style and content, one row a story.

    Columns: words, words a sentence, letters a word, share of distinct words, share of text in
    quotation marks; questions, exclamations, commas, and words of the first person, of the body,
    of the past and of thought, each per 100 words.

    >>> found = story_features(["I ran. Why?", "The bus stops at the corner."])
    >>> found[["words", "words a sentence"]].values.tolist(), found.questions.round(1).tolist()
    ([[3.0, 1.5], [6.0, 6.0]], [33.3, 0.0])
    """
    return pd.DataFrame([_features(text) for text in texts])


def _features(text: str) -> dict[str, float]:
    words = re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)?", text.lower())
    n = max(len(words), 1)
    quoted = sum(map(len, re.findall(r"(?<!\w)['‘\"“].*?['’\"”](?!\w)", text)))
    stems = [re.split("['’]", word)[0] for word in words]
    listed = {
        f"{name} words": 100 * sum(stem in chosen for stem in stems) / n
        for name, chosen in _WORDS.items()
    }
    return {
        "words": float(len(words)),
        "words a sentence": n / max(len(re.findall(r"[.!?]+", text)), 1),
        "letters a word": sum(map(len, words)) / n,
        "distinct words": len(set(words)) / n,
        "in quotation marks": quoted / max(len(text), 1),
        "questions": 100 * text.count("?") / n,
        "exclamations": 100 * text.count("!") / n,
        "commas": 100 * text.count(",") / n,
        **listed,
    }


def emotion_features(extraction: Extraction) -> pd.DataFrame:
    """Return `story_features` by emotion, topic means removed, ``[emotions, features]``.

    A feature that no emotion has more of than another is left out.

    >>> from emotion_concepts.vectors import EmotionVectors, Stacked
    >>> texts = ["I sat down here.", "Why did I sit?"]
    >>> stories = pd.DataFrame({"emotion": ["calm", "angry"], "topic": "tea", "text": texts})
    >>> x = Stacked(np.eye(2)[:, None])
    >>> vectors = EmotionVectors.fit(x, stories.emotion, x, neutral_variance=0)
    >>> emotion_features(Extraction("own", stories, x, x, vectors)).questions.to_dict()
    {'calm': -12.5, 'angry': 12.5}
    """
    texts = extraction.texts()
    features = story_features(texts.ravel())
    grid = features.to_numpy().reshape(*texts.shape, -1)
    table = pd.DataFrame(
        remove_topic_means(grid).mean(0),
        columns=features.columns,
        index=list(extraction.vectors.emotions),
    )
    return table.loc[:, table.nunique() > 1]


def component_meaning(
    extraction: Extraction,
    vectors: np.ndarray,
    emotions: pd.DataFrame,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Correlate the first components with features of style and with human norms.

    Returns
    -------
    DataFrame
        With columns pc, feature, kind ("style" or "norm"), r, n, p (permutation, corrected for the
        choice among all features and components of its kind).

    Examples
    --------
    >>> from emotion_concepts.vectors import EmotionVectors, Stacked
    >>> stories = corpus.load_stories("plain", topics=1, emotions=corpus.TWELVE)
    >>> words = corpus.emotions().loc[stories.emotion]
    >>> x = np.random.default_rng(0).normal(size=(12, 1, 6))
    >>> x[:, 0, 0] = 20 * words.glasgow_valence
    >>> vectors = EmotionVectors.fit(Stacked(x), stories.emotion, Stacked(x), neutral_variance=0)
    >>> found = Extraction("plain", stories, Stacked(x), Stacked(x), vectors)
    >>> found = component_meaning(found, x[:, 0], words, resamples=99).query("pc == 1")
    >>> found.set_index("feature").r.abs().idxmax()
    'valence (Glasgow)'
    """
    style = emotion_features(extraction).loc[emotions.index]
    norms = emotions[["pleasure", "arousal", "dominance", "glasgow_valence"]]
    norms = norms.rename(columns={"glasgow_valence": "valence (Glasgow)"})
    scores = pca(vectors, N_COMPONENTS).scores
    rows = []
    for kind, table in (("style", style), ("norm", norms)):
        null = np.zeros(resamples)
        found = []
        for feature in table:
            known = table[feature].notna().to_numpy()
            y = table[feature][known].to_numpy()
            r = column_correlations(scores[known], y)
            shuffled = permuted_correlations(scores[known], y, resamples=resamples, seed=seed)
            null = np.maximum(null, np.abs(shuffled).max(1))
            found += [(pc + 1, feature, kind, r[pc], int(known.sum())) for pc in range(len(r))]
        rows += [(*row, permutation_p(row[3], null)) for row in found]
    return pd.DataFrame(rows, columns=["pc", "feature", "kind", "r", "n", "p"])


def meaning_table(meaning: pd.DataFrame) -> pd.DataFrame:
    """Return `component_meaning` as one row a feature and one column a component, * p < .05.

    >>> meaning = {"pc": [1, 2], "feature": "questions", "kind": "style", "r": [0.61, -0.2]}
    >>> meaning_table(pd.DataFrame({**meaning, "p": [0.01, 0.6]})).values.tolist()
    [['questions', '+0.61*', '−0.20']]
    """
    shown = meaning.assign(
        text=[
            f"{r:+.2f}{'*' if p < 0.05 else ''}".replace("-", "−")
            for r, p in zip(meaning.r, meaning.p, strict=True)
        ],
        pc="PC" + meaning.pc.astype(str),
    )
    table = shown.pivot(index=["kind", "feature"], columns="pc", values="text").reset_index()
    return table.sort_values("kind", ascending=False).drop(columns="kind")


def style_share(
    extraction: Extraction,
    vectors: np.ndarray,
    emotions: pd.DataFrame,
    *,
    permutations: int = 100,
    seed: int = 0,
) -> Estimate:
    """Return the share of the first component's variance that all story features predict together.

    Cross-validated over emotions; the interval is over emotions, p against shuffled scores.

    >>> from emotion_concepts.vectors import EmotionVectors, Stacked
    >>> words = corpus.emotions().iloc[:60]
    >>> stories = corpus.load_stories("plain", topics=1, emotions=words.index)
    >>> x = Stacked(np.random.default_rng(0).normal(size=(60, 1, 3)))
    >>> vectors = EmotionVectors.fit(x, stories.emotion, x)
    >>> found = Extraction("plain", stories, x, x, vectors)
    >>> planted = emotion_features(found)[["words"]].to_numpy()  # all of it is length
    >>> round(style_share(found, planted, words, permutations=3).value, 2)
    1.0
    """
    rng = np.random.default_rng(seed)
    x = emotion_features(extraction).loc[emotions.index].to_numpy()
    x = (x - x.mean(0)) / x.std(0)
    y = pca(vectors, 1).scores[:, 0]
    return _readout(_explained, x, y, permutations, rng, seed)


def _explained(predicted: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
    return 1 - ((y - predicted) ** 2).mean(axis) / y.var(axis)


def extremes(vectors: np.ndarray, names: Sequence[str], *, pc: int, k: int = 8) -> dict[str, list]:
    """Return the emotions at both ends of a component, furthest first.

    >>> vectors = np.array([[-1.0], [0.0], [2.0]])
    >>> extremes(vectors, ["sad", "calm", "happy"], pc=1, k=1)
    {'low': ['sad'], 'high': ['happy']}
    """
    order = np.argsort(pca(vectors, pc).scores[:, pc - 1])
    return {"low": [names[n] for n in order[:k]], "high": [names[n] for n in order[: -k - 1 : -1]]}


# --- layers ------------------------------------------------------------------------------------


def register_agreement(a: np.ndarray, b: np.ndarray) -> pd.DataFrame:
    """Return the RSA of two registers' geometries, layer by layer.

    Parameters
    ----------
    a, b : ``[emotions, n_layers, d]`` in the same order of emotions.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> literary, plain = rng.normal(size=(2, 30, 2, 9))
    >>> plain[:, 1] = literary[:, 1]
    >>> found = register_agreement(literary, plain)
    >>> bool(abs(found.rsa[0]) < 0.1), round(float(found.rsa[1]), 2)
    (True, 1.0)
    """
    values = [
        rsa(cosine_matrix(a[:, layer]), cosine_matrix(b[:, layer])) for layer in range(a.shape[1])
    ]
    return pd.DataFrame({"layer": range(len(values)), "rsa": values})

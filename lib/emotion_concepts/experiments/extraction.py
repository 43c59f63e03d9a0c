"""Chapter 1: vectors from stories, and how far they can be trusted.

`extract` runs the recipe for one register. The other functions ask of the result: is it stable
over topics, does it name the emotion of a story it has not seen, and does it do so better than
the words of the story would? A corpus that is fully crossed is handled as one array
``[topics, emotions, d_model]`` a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from emotion_concepts import corpus
from emotion_concepts.errors import BadInput, nearest
from emotion_concepts.geometry import components_for, pca, project_out, unit
from emotion_concepts.stats import Estimate, crossed_mean, spearman_brown
from emotion_concepts.tracing import (
    MeanFrom,
    Pool,
    PooledResiduals,
    TokenAt,
    TracedModel,
    mean_embedding,
    pooled_residuals,
    pooled_residuals_many,
)
from emotion_concepts.vectors import EmotionVectors, Provenance

NEUTRAL_VARIANCE = 0.5  # the paper projects out the neutral components that hold half

# How a neutral text may be boiled down to rows before its components are found.
NEUTRAL_POOLINGS: dict[str, tuple[Pool, ...]] = {
    "mean from token 20": (MeanFrom(corpus.NEUTRAL_SKIP),),
    "mean from token 0": (MeanFrom(0),),
    "last token": (TokenAt(1.0),),
    "eight single tokens": tuple(TokenAt((n + 0.5) / 8) for n in range(8)),
}


@dataclass(frozen=True)
class Extraction:
    """One register's stories, their pooled residuals, and the vectors fitted on them.

    >>> from emotion_concepts.vectors import Stacked
    >>> stories = corpus.load_stories("plain", topics=2, emotions=["angry", "calm"])
    >>> x = Stacked(np.array([[[11.0]], [[9.0]], [[21.0]], [[19.0]]]))
    >>> vectors = EmotionVectors.fit(x, stories.emotion, x, neutral_variance=0)
    >>> found = Extraction("plain", stories, x, x, vectors)
    >>> found.topics, found.crossed(0).ravel().tolist()
    (['plain_body', 'plain_friend'], [1.0, -1.0, 1.0, -1.0])
    """

    register: str
    stories: pd.DataFrame
    residuals: PooledResiduals
    neutral: PooledResiduals
    vectors: EmotionVectors

    @property
    def topics(self) -> list[str]:
        """Topics of the stories, in alphabetical order."""
        return sorted(self.stories.topic.unique())

    def crossed(self, layer: int) -> np.ndarray:
        """Return ``[topics, emotions, d_model]`` residuals of one layer, topic means removed."""
        return remove_topic_means(self._grid(self.residuals.layer(layer)))

    def texts(self) -> np.ndarray:
        """Return the stories as ``[topics, emotions]``."""
        return self._grid(self.stories.text.to_numpy())

    def batches(self) -> np.ndarray:
        """Return the writing batch of each story as ``[topics, emotions]``."""
        return self._grid(self.stories.batch.to_numpy())

    def story(self, emotion: str, topic: str) -> str:
        """Return the text of one emotion's story on one topic."""
        texts = self.texts()
        return texts[self.topics.index(topic), self.vectors.row(emotion)]

    def without_topic(self, topic: str) -> EmotionVectors:
        """Return vectors fitted on all other topics, to be read on the stories of this one."""
        kept = (self.stories.topic != topic).to_numpy()
        stories = self.stories[kept]
        return EmotionVectors.fit(
            self.residuals[kept],
            stories.emotion.tolist(),
            self.neutral,
            topics=stories.topic.tolist(),
            neutral_variance=NEUTRAL_VARIANCE,
        )

    def _grid(self, values: np.ndarray) -> np.ndarray:
        """Arrange one value a story as ``[topics, emotions, ...]``."""
        emotion = {name: n for n, name in enumerate(self.vectors.emotions)}
        topic = {name: n for n, name in enumerate(self.topics)}
        cells = [topic[t] * len(emotion) + emotion[e] for t, e in self._labels()]
        if sorted(cells) != list(range(len(topic) * len(emotion))):
            raise BadInput(f"the {self.register} stories are not one a topic and emotion")
        grid = np.empty_like(values)
        grid[cells] = values
        return grid.reshape(len(topic), len(emotion), *values.shape[1:])

    def _labels(self):
        return zip(self.stories.topic, self.stories.emotion, strict=True)


def extract(
    model: TracedModel,
    register: str = "literary",
    *,
    topics: int | Sequence[str] | None = None,
    neutral_limit: int | None = None,
    progress: bool = True,
) -> Extraction:
    """Return vectors of all emotions at all layers, by the recipe of `vectors`.

    Parameters
    ----------
    register : {"literary", "plain"} or path
        A packaged corpus, or the user's own stories as .jsonl.
    topics, neutral_limit
        Use part of the corpus (see `corpus.load_stories`, `corpus.load_neutral`).

    Examples
    --------
    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/stories.jsonl"
    >>> stories = corpus.load_stories("plain", topics=2, emotions=["angry", "calm"])
    >>> stories.to_json(path, orient="records", lines=True)
    >>> found = extract(llm, path, neutral_limit=2, progress=False)
    >>> found.vectors.emotions, found.vectors.directions.shape
    (('angry', 'calm'), (2, 30, 576))
    """
    stories = corpus.load_stories(register, topics=topics)
    neutral = corpus.load_neutral(limit=neutral_limit)
    skip = corpus.SKIP.get(register, min(corpus.SKIP.values()))
    label = f"{register} stories" if progress else None
    residuals = pooled_residuals(model, stories.text, MeanFrom(skip), progress=label)
    # one pass keeps all poolings on disk, where `neutral_components` finds those it compares
    quiet = pooled_residuals_many(
        model,
        neutral.text,
        [pool for pools in NEUTRAL_POOLINGS.values() for pool in pools],
        progress="neutral texts" if progress else None,
    )[MeanFrom(corpus.NEUTRAL_SKIP)]
    vectors = EmotionVectors.fit(
        residuals,
        stories.emotion.tolist(),
        quiet,
        topics=stories.topic.tolist(),
        neutral_variance=NEUTRAL_VARIANCE,
        provenance=Provenance(
            model=model.identity.name,
            weights=model.identity.weights,
            tokenizer=model.identity.tokenizer,
            corpus=corpus.corpus_hash(stories.text),
            neutral=corpus.corpus_hash(neutral.text),
            skip=skip,
            neutral_variance=NEUTRAL_VARIANCE,
        ),
    )
    return Extraction(register, stories, residuals, quiet, vectors)


def both_registers(
    model: TracedModel,
    *,
    literary_topics: int | Sequence[str] | None = None,
    plain_topics: int | Sequence[str] | None = None,
    neutral_limit: int | None = None,
) -> tuple[Extraction, Extraction, EmotionVectors]:
    """Return the literary and the plain extraction, and the average of their vectors.

    Parameters
    ----------
    literary_topics, plain_topics, neutral_limit
        As for `extract`.

    Returns
    -------
    tuple
        (literary, plain, vectors of all emotions in the order of `corpus.EMOTIONS`).
    """
    literary, plain = (
        extract(model, register, topics=topics, neutral_limit=neutral_limit)
        for register, topics in (("literary", literary_topics), ("plain", plain_topics))
    )
    parts = [found.vectors.select(corpus.EMOTIONS) for found in (literary, plain)]
    return literary, plain, EmotionVectors.average(parts)


def shuffled_directions(extractions: Sequence[Extraction], n: int, *, seed: int = 0) -> np.ndarray:
    """Return ``[n, n_layers, d_model]`` directions made like a vector, of stories drawn by lot.

    From every topic one story, whatever its emotion; then the recipe of `vectors`, averaged over
    registers. A control for steering: what the recipe gives where there is no emotion to find.

    >>> from emotion_concepts.vectors import Stacked
    >>> stories = corpus.load_stories("plain", topics=8, emotions=["angry", "calm"])
    >>> x = np.random.default_rng(0).normal(size=(16, 1, 9))
    >>> x[:, 0, 0] += np.tile([5, -5], 8)
    >>> vectors = EmotionVectors.fit(Stacked(x), stories.emotion, Stacked(x), neutral_variance=0)
    >>> found = Extraction("plain", stories, Stacked(x), Stacked(x), vectors)
    >>> cosines = shuffled_directions([found], 200)[:, 0] @ vectors.at(0).T
    >>> bool(np.abs(cosines.mean(0)).max() < 0.1)
    True
    """
    rng = np.random.default_rng(seed)
    picks = [rng.integers(len(e.vectors.emotions), size=(n, len(e.topics))) for e in extractions]
    n_layers = extractions[0].vectors.n_layers
    out = []
    for layer in range(n_layers):
        parts = []
        for extraction, picked in zip(extractions, picks, strict=True):
            drawn = extraction.crossed(layer)[np.arange(len(extraction.topics)), picked].mean(1)
            quiet = components_for(extraction.neutral.layer(layer), NEUTRAL_VARIANCE)
            parts.append(unit(project_out(drawn, quiet)))
        out.append(unit(np.mean(parts, axis=0)))
    return np.stack(out, axis=1).astype(np.float32)


def topic_direction(extraction: Extraction, a: str, b: str) -> np.ndarray:
    """Return ``[n_layers, d_model]``: the stories of one topic against those of another.

    Each topic holds every emotion once, so the direction holds none. A control for steering: a
    direction that means something, but nothing of emotion.

    Raises
    ------
    BadInput
        If a topic is not in the corpus.

    Examples
    --------
    >>> from emotion_concepts.vectors import Stacked
    >>> stories = corpus.load_stories("plain", topics=2, emotions=["angry", "calm"])
    >>> x = Stacked(np.array([[[5.0, 1, 0]], [[5, -1, 0]], [[0, 1, 0]], [[0, -1, 0]]]))
    >>> neutral = Stacked(np.array([[[0.0, 0, 1]], [[0, 0, -1]]]))
    >>> vectors = EmotionVectors.fit(x, stories.emotion, neutral)
    >>> found = Extraction("plain", stories, x, neutral, vectors)
    >>> topic_direction(found, "plain_body", "plain_friend").round(6).astype(int).tolist()
    [[1, 0, 0]]
    """
    for topic in (a, b):
        if topic not in extraction.topics:
            raise BadInput(f"no topic {topic!r}: {nearest(topic, extraction.topics)}")
    rows = [(extraction.stories.topic == topic).to_numpy() for topic in (a, b)]
    out = []
    for layer in range(extraction.vectors.n_layers):
        x = extraction.residuals.layer(layer)
        quiet = components_for(extraction.neutral.layer(layer), NEUTRAL_VARIANCE)
        out.append(unit(project_out(x[rows[0]].mean(0) - x[rows[1]].mean(0), quiet)))
    return np.stack(out).astype(np.float32)


def remove_topic_means(grid: np.ndarray) -> np.ndarray:
    """Return ``[topics, emotions, ...]`` minus each topic's mean over emotions.

    >>> remove_topic_means(np.array([[1.0, 3.0], [10.0, 12.0]])).tolist()
    [[-1.0, 1.0], [-1.0, 1.0]]
    """
    return grid - grid.mean(1, keepdims=True)


# --- how much of neutral text is projected out -------------------------------------------------


def neutral_components(
    model: TracedModel, layers: Sequence[int], *, neutral_limit: int | None = None
) -> pd.DataFrame:
    """Return how many neutral components hold half of the variance, by pooling and layer.

    The paper does not say over what its neutral PCA runs; the answer changes k from one to dozens.

    Returns
    -------
    DataFrame
        With columns pooling, layer, k, first (share of the first component), rows.

    Examples
    --------
    >>> found = neutral_components(llm, [20], neutral_limit=2)
    >>> found[["pooling", "rows"]].values.tolist()[2:]
    [['last token', 2], ['eight single tokens', 16]]
    """
    texts = corpus.load_neutral(limit=neutral_limit).text
    pools = [pool for pools in NEUTRAL_POOLINGS.values() for pool in pools]
    found = pooled_residuals_many(model, texts, pools)
    rows = []
    for name, chosen in NEUTRAL_POOLINGS.items():
        for layer in layers:
            x = np.concatenate([found[pool].layer(layer) for pool in chosen])
            shares = pca(x).shares
            k = int(np.searchsorted(np.cumsum(shares), NEUTRAL_VARIANCE) + 1)
            rows.append((name, layer, k, float(shares[0]), len(x)))
    return pd.DataFrame(rows, columns=["pooling", "layer", "k", "first", "rows"])


# --- stability ---------------------------------------------------------------------------------


def split_half(extraction: Extraction, *, splits: int = 50, seed: int = 0) -> np.ndarray:
    """Return ``[emotions, layers]`` reliability of each vector over topics.

    The topics are halved at random `splits` times and a vector is fitted on each half; the mean
    cosine of the two is stepped up to full length by Spearman and Brown.

    >>> from emotion_concepts.vectors import Stacked
    >>> stories = corpus.load_stories("plain", topics=4, emotions=["angry", "calm"])
    >>> x = np.random.default_rng(0).normal(size=(8, 2, 40))
    >>> x[:, 0, 0] += np.tile([50, -50], 4)  # layer 0 holds the emotion, layer 1 only noise
    >>> vectors = EmotionVectors.fit(Stacked(x), stories.emotion, Stacked(x), neutral_variance=0)
    >>> neutral = Stacked(np.random.default_rng(1).normal(size=(5, 2, 40)))
    >>> found = split_half(Extraction("plain", stories, Stacked(x), neutral, vectors))
    >>> found.shape, bool(found[:, 0].min() > 0.9), bool(found[:, 1].max() < 0.5)
    ((2, 2), True, True)
    """
    n_topics = len(extraction.topics)
    if n_topics < 4:
        raise BadInput(f"halving needs at least four topics, not {n_topics}")
    rng = np.random.default_rng(seed)
    halves = np.zeros((splits, n_topics), dtype=bool)
    for split in halves:
        split[rng.permutation(n_topics)[: n_topics // 2]] = True
    weights = np.stack([halves / halves.sum(1, keepdims=True), ~halves / (~halves).sum(1)[:, None]])
    out = np.empty((len(extraction.vectors.emotions), extraction.vectors.n_layers))
    for layer in range(extraction.vectors.n_layers):
        components = components_for(extraction.neutral.layer(layer), NEUTRAL_VARIANCE)
        grid = project_out(extraction.crossed(layer), components)
        a, b = unit(np.tensordot(weights, grid, axes=(2, 0)))  # [splits, emotions, d_model] each
        out[:, layer] = spearman_brown((a * b).sum(-1).mean(0))
    return out


def reliability_by_layer(reliability: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Return the median and the middle half of the emotions' reliabilities, layer by layer.

    Parameters
    ----------
    reliability : {register: ``[emotions, layers]``}
        From `split_half`.

    Returns
    -------
    DataFrame
        With columns register, layer, median, low, high.

    Examples
    --------
    >>> found = reliability_by_layer({"plain": np.array([[0.2, 0.7], [0.4, 0.8], [0.6, 0.9]])})
    >>> found["median"].tolist(), found.low.round(2).tolist()
    ([0.4, 0.8], [0.3, 0.75])
    """
    rows = []
    for register, values in reliability.items():
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
        rows += [(register, n, median[n], low[n], high[n]) for n in range(values.shape[1])]
    return pd.DataFrame(rows, columns=["register", "layer", "median", "low", "high"])


def relative_norms(extractions: Sequence[Extraction]) -> pd.DataFrame:
    """Return the vectors' lengths before scaling, as a share of the neutral residual norm.

    Returns
    -------
    DataFrame
        With columns register, layer, mean, low, high (the middle 95 % of emotions).

    Examples
    --------
    >>> from emotion_concepts.vectors import Stacked
    >>> stories = corpus.load_stories("plain", topics=1, emotions=["angry", "calm"])
    >>> x, neutral = Stacked(np.array([[[1.0]], [[-1.0]]])), Stacked(np.array([[[4.0]]]))
    >>> vectors = EmotionVectors.fit(x, stories.emotion, neutral, neutral_variance=0)
    >>> relative_norms([Extraction("plain", stories, x, neutral, vectors)])["mean"].tolist()
    [0.25]
    """
    rows = []
    for extraction in extractions:
        share = extraction.vectors.norms / extraction.vectors.residual_norm
        low, high = np.quantile(share, [0.025, 0.975], axis=0)
        mean = share.mean(0)
        rows += [(extraction.register, n, mean[n], low[n], high[n]) for n in range(len(mean))]
    return pd.DataFrame(rows, columns=["register", "layer", "mean", "low", "high"])


def across_registers(a: EmotionVectors, b: EmotionVectors, layer: int) -> pd.DataFrame:
    """Return how alike two registers' vectors are at one layer, one row an emotion.

    Returns
    -------
    DataFrame
        With columns emotion, cosine (with the same emotion), rank (1: the same emotion is the
        nearest of all in the other register).

    Examples
    --------
    >>> rest = np.ones((2, 1)), np.zeros((1, 2)), np.zeros(1, int), np.ones(1)
    >>> a = EmotionVectors(("calm", "angry"), np.array([[[1.0, 0.0]], [[0.0, 1.0]]]), *rest)
    >>> b = EmotionVectors(("angry", "calm"), np.array([[[0.0, 1.0]], [[0.8, 0.6]]]), *rest)
    >>> across_registers(a, b, 0).values.tolist()
    [['calm', 0.8, 1], ['angry', 1.0, 1]]
    """
    cosines = a.at(layer) @ b.select(a.emotions).at(layer).T
    own = np.diag(cosines)
    rank = (cosines > own[:, None]).sum(1) + 1
    return pd.DataFrame({"emotion": a.emotions, "cosine": own, "rank": rank})


# --- naming the emotion of an unseen story -----------------------------------------------------


def ranks(scores: np.ndarray) -> np.ndarray:
    """Return the rank of the true emotion from ``[topics, emotions, candidates]`` scores.

    Ties share the mean of their ranks, so that where nothing is read the rank is that of chance.

    >>> ranks(np.array([[[0.9, 0.1], [0.7, 0.2]], [[0.0, 0.0], [0.3, 0.8]]])).tolist()
    [[1.0, 2.0], [1.5, 1.0]]
    """
    own = np.einsum("tee->te", scores)[..., None]
    return ((scores > own).sum(-1) + (scores >= own).sum(-1) + 1) / 2


def _nearest_mean(train: np.ndarray, test: np.ndarray, components: np.ndarray) -> np.ndarray:
    """Scores ``[topics, emotions, candidates]`` by cosine with the training means."""
    means = unit(project_out(train.mean(0), components))
    return test @ means.T


def probe_ranks(
    grid: np.ndarray, other: np.ndarray | None = None, *, components: np.ndarray | None = None
) -> np.ndarray:
    """Return ``[topics, emotions]`` ranks of the true emotion among all, held-out topic by topic.

    Parameters
    ----------
    grid : ``[topics, emotions, d]``
        Topic means removed.
    other : ``[topics, emotions, d]``, optional
        Another register to test on; then all of `grid` is trained on.
    components : ``[k, d]``, optional
        Neutral components to project out of the means.

    Examples
    --------
    >>> grid = np.tile(np.eye(3), (2, 1, 1))
    >>> probe_ranks(grid).tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    if components is None:
        components = np.empty((0, grid.shape[-1]))
    if other is not None:
        return ranks(_nearest_mean(grid, other, components))
    scores = [
        _nearest_mean(np.delete(grid, topic, 0), grid[[topic]], components)
        for topic in range(len(grid))
    ]
    return ranks(np.concatenate(scores))


def word_ranks(
    vectoriser: Callable[[], CountVectorizer], texts: np.ndarray, other: np.ndarray | None = None
) -> np.ndarray:
    """Return ranks as `probe_ranks` does, from the words of the stories alone.

    Vocabulary and weights come from the training stories of each fold; topic means are removed
    just as for the probe.

    >>> texts = np.array([["Slow breath.", "It slammed!"], ["Slow waves.", "She slammed it."]])
    >>> word_ranks(WORD_BASELINES["word counts"], texts).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    if other is not None:
        return ranks(_word_scores(vectoriser(), texts, other))
    scores = [
        _word_scores(vectoriser(), np.delete(texts, topic, 0), texts[[topic]])
        for topic in range(len(texts))
    ]
    return ranks(np.concatenate(scores))


def _word_scores(vectoriser: CountVectorizer, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    (n_train, n), n_test = train.shape, test.shape[0]
    x: csr_matrix = vectoriser.fit_transform(train.ravel())
    z: csr_matrix = vectoriser.transform(test.ravel())
    # Removing topic means from a crossed design leaves emotion means minus the grand mean.
    rows, columns = np.tile(np.arange(n), n_train), np.arange(n_train * n)
    average = csr_matrix((np.full(len(rows), 1 / n_train), (rows, columns)))
    means = (average @ x).toarray()
    means = unit(means - means.mean(0))
    scores = np.asarray(z @ means.T).reshape(n_test, n, n)
    return scores - scores.mean(1, keepdims=True)


WORD_BASELINES: dict[str, Callable[[], CountVectorizer]] = {
    "TF-IDF": lambda: TfidfVectorizer(sublinear_tf=True),
    "word counts": lambda: CountVectorizer(),
}


@dataclass(frozen=True)
class Identification:
    """Ranks of the true emotion, ``{(setting, method): [topics, emotions]}``.

    >>> found = Identification({("plain", "probe"): np.array([[1, 2], [1, 1]])}, {"probe": "probe"})
    >>> found.table()[["setting", "method", "top1", "top5"]].values.tolist()
    [['plain', 'probe', 0.75, 1.0]]
    """

    ranks: dict[tuple[str, str], np.ndarray]
    kinds: dict[str, str]

    def hits(self, setting: str, method: str, *, top: int = 1) -> np.ndarray:
        """Return ``[topics, emotions]`` 1.0 where the true emotion is among the first `top`."""
        return (self.ranks[setting, method] <= top).astype(float)

    def table(self, *, seed: int = 0) -> pd.DataFrame:
        """Return one row a setting and method: top1, low, high, top5, kind, n."""
        rows = []
        for setting, method in self.ranks:
            one = crossed_mean(self.hits(setting, method), seed=seed)
            five = float(self.hits(setting, method, top=5).mean())
            rows.append(
                (setting, method, self.kinds[method], one.value, one.low, one.high, five, one.n)
            )
        names = ["setting", "method", "kind", "top1", "low", "high", "top5", "n"]
        return pd.DataFrame(rows, columns=names)

    def side_by_side(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return `table` as one row a method and one column a setting, "top-1 / top-5"."""
        text = [f"{one:.2f} / {five:.2f}" for one, five in zip(table.top1, table.top5, strict=True)]
        wide = table.assign(text=text).pivot(index="method", columns="setting", values="text")
        order = wide.loc[table.method.unique(), table.setting.unique()]
        return order.rename_axis(None, axis=1).reset_index()

    def advantage(self, setting: str, a: str, b: str, *, seed: int = 0) -> Estimate:
        """Return top-1 of method `a` minus method `b` on the same stories."""
        difference = self.hits(setting, a) - self.hits(setting, b)
        return crossed_mean(difference, seed=seed)


def identify(
    model: TracedModel, extractions: Sequence[Extraction], layer: int, *, seed: int = 0
) -> Identification:
    """Name the emotion of unseen stories: within each register by held-out topic, and across.

    Methods: the probe by the full recipe; the same without the neutral projection; the stories'
    static embeddings; TF-IDF; word counts; the probe with shuffled labels.

    Returns
    -------
    Identification

    Examples
    --------
    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/stories.jsonl"
    >>> stories = corpus.load_stories("plain", topics=2, emotions=["angry", "calm"])
    >>> stories.to_json(path, orient="records", lines=True)
    >>> found = identify(llm, [extract(llm, path, neutral_limit=2, progress=False)], 20)
    >>> [method for _, method in found.ranks][2:]
    ['static embeddings', 'TF-IDF', 'word counts', 'shuffled labels']
    """
    rng = np.random.default_rng(seed)
    found: dict[tuple[str, str], np.ndarray] = {}
    grids = {e.register: e.crossed(layer) for e in extractions}
    static = {e.register: static_grid(model, e) for e in extractions}
    for setting, train, test in _settings(extractions):
        components = components_for(train.neutral.layer(layer), NEUTRAL_VARIANCE)
        grid, other = grids[train.register], None if test is None else grids[test.register]
        shuffled = np.stack([topic[rng.permutation(len(topic))] for topic in grid])
        found[setting, "probe"] = probe_ranks(grid, other, components=components)
        found[setting, "probe, nothing projected out"] = probe_ranks(grid, other)
        found[setting, "static embeddings"] = probe_ranks(
            static[train.register], None if test is None else static[test.register]
        )
        for name, vectoriser in WORD_BASELINES.items():
            found[setting, name] = word_ranks(
                vectoriser, train.texts(), None if test is None else test.texts()
            )
        found[setting, "shuffled labels"] = probe_ranks(shuffled, other, components=components)
    kinds = {"probe": "probe", "probe, nothing projected out": "probe"}
    kinds |= {name: "baseline" for name in ("static embeddings", *WORD_BASELINES)}
    return Identification(found, {**kinds, "shuffled labels": "null"})


def _settings(extractions: Sequence[Extraction]) -> list[tuple]:
    """Return (name, train, test) of each register by itself (test None) and of each pair."""
    alone = [(e.register, e, None) for e in extractions]
    pairs = [(a, b) for a in extractions for b in extractions if a is not b]
    return alone + [(f"{a.register} → {b.register}", a, b) for a, b in pairs]


def static_grid(model: TracedModel, extraction: Extraction) -> np.ndarray:
    """Return ``[topics, emotions, d_model]`` mean static embeddings of the stories.

    Of the same tokens that the vectors are made of, topic means removed.

    >>> from emotion_concepts.vectors import Stacked
    >>> stories = corpus.load_stories("plain", topics=2, emotions=["angry", "calm"])
    >>> x = Stacked(np.random.default_rng(0).normal(size=(4, 1, 9)))
    >>> made = Provenance("own", "", "", "", "", skip=10, neutral_variance=0.5)
    >>> vectors = EmotionVectors.fit(x, stories.emotion, x, provenance=made)
    >>> found = static_grid(llm, Extraction("plain", stories, x, x, vectors))
    >>> found.shape, bool(np.abs(found.mean(1)).max() < 1e-6)
    ((2, 2, 576), True)
    """
    skip = extraction.vectors.provenance.skip
    embedded = mean_embedding(model, extraction.stories.text, skip=skip)
    return remove_topic_means(extraction._grid(embedded))


def word_means(extractions: Sequence[Extraction]) -> tuple[TfidfVectorizer, list[np.ndarray]]:
    """Return TF-IDF learnt on all stories, and each register's ``[emotions, words]`` means.

    Topic means are removed as for the vectors; emotions in the order of the first extraction.

    >>> from emotion_concepts.vectors import Stacked
    >>> texts = ["a slow bus", "a slammed bus", "slow tea", "slammed tea"]
    >>> stories = {"emotion": ["calm", "angry"] * 2, "topic": ["bus", "bus", "tea", "tea"]}
    >>> stories, x = pd.DataFrame({**stories, "text": texts}), Stacked(np.eye(4)[:, None])
    >>> vectors = EmotionVectors.fit(x, stories.emotion, x, neutral_variance=0)
    >>> vectoriser, [means] = word_means([Extraction("own", stories, x, x, vectors)])
    >>> vectoriser.get_feature_names_out()[means.argmax(1)].tolist()
    ['slow', 'slammed']
    """
    texts = [extraction.texts() for extraction in extractions]
    vectoriser = TfidfVectorizer(sublinear_tf=True, min_df=2)
    vectoriser.fit(np.concatenate([stories.ravel() for stories in texts]))
    names, means = extractions[0].vectors.emotions, []
    for extraction, stories in zip(extractions, texts, strict=True):
        counts = vectoriser.transform(stories.ravel()).toarray().reshape(*stories.shape, -1)
        rows = [extraction.vectors.row(name) for name in names]
        means.append(remove_topic_means(counts).mean(0)[rows])
    return vectoriser, means


def identification_by_layer(extractions: Sequence[Extraction], *, seed: int = 0) -> pd.DataFrame:
    """Return the probe's top-1 at every layer.

    Returns
    -------
    DataFrame
        With columns setting, layer, top1, low, high.

    Examples
    --------
    >>> from emotion_concepts.vectors import Stacked
    >>> stories = corpus.load_stories("plain", topics=4, emotions=["angry", "calm"])
    >>> x = np.zeros((8, 2, 3))
    >>> x[:, 0, 0] = [1, -1, 1, -1, 1, -1, 1, -1]
    >>> x[:, 1, 0] = [1, -1, -1, 1, 1, -1, -1, 1]  # in every topic the reverse of the topic before
    >>> neutral = Stacked(np.array([[[0.0, 0, 1]] * 2, [[0, 0, -1]] * 2]))
    >>> vectors = EmotionVectors.fit(Stacked(x), stories.emotion, neutral)
    >>> found = Extraction("plain", stories, Stacked(x), neutral, vectors)
    >>> identification_by_layer([found]).top1.tolist()
    [1.0, 0.0]
    """
    rows = []
    for layer in range(extractions[0].vectors.n_layers):
        grids = {e.register: e.crossed(layer) for e in extractions}
        for setting, train, test in _settings(extractions):
            components = components_for(train.neutral.layer(layer), NEUTRAL_VARIANCE)
            other = None if test is None else grids[test.register]
            found = probe_ranks(grids[train.register], other, components=components)
            top = crossed_mean(found <= 1, resamples=500, seed=seed)
            rows.append((setting, layer, top.value, top.low, top.high))
    return pd.DataFrame(rows, columns=["setting", "layer", "top1", "low", "high"])


def within_batches(extraction: Extraction, layer: int) -> dict[str, np.ndarray]:
    """Return the probe's ranks among the emotions of a story's own writing batch.

    The literary stories of about 21 emotions were written together, so a batch's habits could pass
    for an emotion. They cannot help to tell the emotions of one batch apart.

    Returns
    -------
    dict
        "own batch": ``[topics, emotions]`` ranks, and "chance": ``[emotions]``.

    Raises
    ------
    BadInput
        If it is not known which stories were written together.

    Examples
    --------
    >>> from emotion_concepts.vectors import Stacked
    >>> names = ["afraid", "alarmed", "amazed", "ashamed"]  # two pairs, each of one batch
    >>> stories = corpus.load_stories("literary", topics=2, emotions=names)
    >>> x = Stacked(np.tile(np.eye(4, 5), (2, 1))[:, None])
    >>> neutral = Stacked(np.array([[[0.0, 0, 0, 0, 1]], [[0, 0, 0, 0, -1]]]))
    >>> vectors = EmotionVectors.fit(x, stories.emotion, neutral)
    >>> found = within_batches(Extraction("literary", stories, x, neutral, vectors), 0)
    >>> found["own batch"].tolist(), found["chance"].tolist()
    ([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]], [0.5, 0.5, 0.5, 0.5])
    """
    grid, batches = extraction.crossed(layer), extraction.batches()[0]
    if pd.isna(batches).any():
        raise BadInput(f"the stories of {extraction.register} do not say their writing batch")
    components = components_for(extraction.neutral.layer(layer), NEUTRAL_VARIANCE)
    inside = batches[:, None] == batches[None, :]
    own = []
    for topic in range(len(grid)):
        scores = _nearest_mean(np.delete(grid, topic, 0), grid[[topic]], components)
        own.append(ranks(np.where(inside, scores, -np.inf)))
    return {"own batch": np.concatenate(own), "chance": 1 / inside.sum(1)}

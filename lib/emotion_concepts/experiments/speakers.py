"""Chapter 3: whose emotion it is, and whether a hidden one shows (Figs 17-19, Table 5, Figs 60-64).

A model reads dialogues in which each speaker has an emotion of its own (`load_two_speakers`), or
in which one speaker shows or hides one (`load_hidden`). `speaker_residuals` reads the turns of
each role; all else is arithmetic on arrays of one layer, ``[dialogues, d]``.

Probes are fitted by least squares with an effect of each speaker's emotion and of the topic. Plain
means of a group of dialogues would not do. Two speakers never share an emotion, so the dialogues
whose human is angry are just those whose assistant is not, which plants the assistant's anger,
reversed, into the human's. And an emotion meets a topic on one side only, so a topic that is left
in pulls the two sides' vectors of an emotion apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from emotion_concepts.dialogues import ROLES, transcript
from emotion_concepts.errors import BadInput, UnknownEmotion, nearest
from emotion_concepts.experiments.readouts import own_minus_others, readings
from emotion_concepts.geometry import components_for, cosine_matrix, project_out, unit
from emotion_concepts.stats import Estimate, bootstrap, exceedance_p, share, spearman_brown
from emotion_concepts.tracing import PooledResiduals, TracedModel, span_residuals_many

SPEAKERS = ["human", "assistant"]  # the columns of emotions, in the order of ROLES
SPLITS = 50  # random halves of the topics
STORY_VARIANCE = 0.99  # the story space holds so much of the story vectors' variance

# (whose tokens, whose emotion): the two present-speaker sets, then the two other-speaker sets
GROUPS = [
    ("assistant", "assistant"),
    ("user", "user"),
    ("assistant", "user"),
    ("user", "assistant"),
]


def speaker_residuals(
    model: TracedModel,
    dialogues: pd.DataFrame,
    *,
    names: tuple[str, str] = ("Human", "Assistant"),
    preamble: bool = True,
    progress: str | None = None,
) -> dict[str, PooledResiduals]:
    """Return {role: ``[n, n_layers, d_model]``}, the mean over all turns of "user", "assistant".

    Parameters
    ----------
    dialogues : DataFrame
        From `dialogues.load_two_speakers` or `dialogues.load_hidden`.
    names, preamble
        As for `dialogues.transcript`.

    Examples
    --------
    >>> turns = [{"role": "user", "content": "Where does the bus stop?"}]
    >>> turns += [{"role": "assistant", "content": "At the corner."}]
    >>> found = speaker_residuals(llm, pd.DataFrame({"turns": [turns]}))
    >>> found["user"].shape, found["assistant"].shape
    ((1, 30, 576), (1, 30, 576))
    """
    read = [transcript(row, names, preamble=preamble) for _, row in dialogues.iterrows()]
    texts = [text for text, _ in read]
    turns = {
        role: [[(span.start, span.end) for span in spans if span.role == role] for _, spans in read]
        for role in ROLES
    }
    return span_residuals_many(model, texts, turns, progress=progress)


def _spoken(turns: Sequence[Mapping], role: str) -> str:
    return "\n".join(turn["content"] for turn in turns if turn["role"] == role)


# --- effects by least squares ------------------------------------------------------------------


def _one_hot(labels: Sequence[str], names: Sequence[str]) -> np.ndarray:
    return (np.asarray(labels)[:, None] == np.asarray(names)[None]).astype(float)


def _refits(
    dialogues: pd.DataFrame, columns: Sequence[str], emotions: Sequence[str], weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``[fits, columns, emotions, n]`` maps from rows to the effects of emotions.

    ``maps @ x`` are the least-squares effects in x = topic + sum of the columns' effects, each
    column's summing to zero; one fit for each row of `weights` ``[fits, n]``. The second array,
    ``[fits]``, says whether the weighted dialogues can tell the effects apart.
    """
    _check_emotions(dialogues[columns].to_numpy().ravel(), emotions)
    topics = _one_hot(dialogues.topic, dialogues.topic.unique())
    design = np.hstack([topics, *(_one_hot(dialogues[name], emotions) for name in columns)])
    weighted = design.T * weights[:, None]  # [fits, parameters, n]
    maps = np.linalg.pinv(weighted @ design, rcond=1e-9, hermitian=True) @ weighted
    k, e, first = len(columns), len(emotions), topics.shape[1]
    maps = maps[:, first:].reshape(-1, k, e, len(dialogues))
    maps = maps - maps.mean(2, keepdims=True)
    # Effects can be told apart if, of the design itself, the maps return just them.
    returned = maps.reshape(-1, k * e, len(dialogues)) @ design
    expected = np.hstack([np.zeros((k * e, first)), np.kron(np.eye(k), np.eye(e) - 1 / e)])
    return maps, np.abs(returned - expected).max((1, 2)) < 1e-6


def _fit(dialogues: pd.DataFrame, columns: Sequence[str], emotions: Sequence[str]) -> np.ndarray:
    """Return the ``[columns, emotions, n]`` map of the dialogues as they are."""
    [maps], [apart] = _refits(dialogues, columns, emotions, np.ones((1, len(dialogues))))
    if not apart:
        raise BadInput(
            "these dialogues cannot tell emotions and topics apart: every emotion must occur with "
            "several partners and topics, and every topic in several dialogues"
        )
    return maps


def _check(x: np.ndarray, dialogues: pd.DataFrame) -> None:
    if x.ndim != 2 or len(x) != len(dialogues):
        raise BadInput(
            f"{len(dialogues)} dialogues need an array [{len(dialogues)}, d] of one layer, not "
            f"{list(x.shape)}"
        )


def _check_emotions(
    labels: Sequence[str], emotions: Sequence[str], stories: np.ndarray | None = None
) -> None:
    for label in set(labels) - set(emotions):
        raise UnknownEmotion(f"{label!r} is not in `emotions`: {nearest(label, emotions)}")
    if stories is not None and len(stories) != len(emotions):
        raise BadInput(
            f"{len(emotions)} emotions need as many story vectors, not {len(stories)}; select them"
        )


# --- present and other speaker (Figs 17-19) ----------------------------------------------------


def _grouped(
    x: Mapping[str, np.ndarray], maps: np.ndarray, components: np.ndarray
) -> dict[tuple[str, str], np.ndarray]:
    """Return ``[fits, emotions, d]`` unit vectors of each of GROUPS, from maps by `_refits`."""
    found = {role: unit(maps @ project_out(x[role], components)) for role in ROLES}
    return {(tokens, whose): found[tokens][:, ROLES.index(whose)] for tokens, whose in GROUPS}


def _pair_cosines(
    groups: Mapping[tuple[str, str], np.ndarray], stories: np.ndarray
) -> dict[str, np.ndarray]:
    """Return ``[fits, emotions, emotions]`` cosines of each pair of sets."""
    present_a, present_h, other_a, other_h = (groups[key] for key in GROUPS)

    def cosines(*pairs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        return np.mean([a @ np.swapaxes(b, -1, -2) for a, b in pairs], axis=0)

    return {
        "present-present": cosines((present_a, present_h)),
        "other-other": cosines((other_a, other_h)),
        "present-other": cosines((present_a, other_a), (present_h, other_h)),
        "story-present": cosines((stories, present_a), (stories, present_h)),
        "story-other": cosines((stories, other_a), (stories, other_h)),
    }


def speaker_cosines(
    x: Mapping[str, np.ndarray],
    dialogues: pd.DataFrame,
    stories: np.ndarray,
    emotions: Sequence[str],
    components: np.ndarray,
    *,
    resamples: int = 500,
    permutations: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Hold the four sets of probes, and story vectors, to each other (Fig 17).

    Parameters
    ----------
    x : {"user": ``[n, d]``, "assistant": ``[n, d]``}
        By whose tokens were read.
    dialogues : DataFrame
        Columns human, assistant, topic.
    stories : ``[emotions, d]``
        Story vectors, in the order of `emotions`.
    components : ``[k, d]``
        Neutral components to project out of the probes.

    Returns
    -------
    DataFrame
        One row a pair: pair ("present-present" and "other-other" across the tokens of the two
        roles; "present-other", "story-present" and "story-other" within the tokens of a role, mean
        of both); same, same_low, same_high (mean same-emotion cosine), different, difference, low,
        high (same minus different), n (dialogues), refits, p (one-sided, emotions of one set
        shuffled), drawn (``[refits]`` same of the refits, the same ones for all pairs, for
        `agreement_lead`).

    Notes
    -----
    Intervals are 1.96 standard deviations of refits on resampled dialogues. A refit repeats some
    dialogues and is noisier than the fit, so its cosines lie nearer 0; percentiles would be off
    to that side.

    Noise alone gives "present-other" a cosine of about -0.03 in the packaged design, and the pairs
    across roles as much where both roles share their noise: the price of holding topics constant,
    which otherwise give up to -1.

    Examples
    --------
    >>> from emotion_concepts import corpus, dialogues
    >>> two, names = dialogues.load_two_speakers(), list(corpus.TWELVE)
    >>> human, assistant = (pd.get_dummies(two[who])[names].to_numpy(float) for who in SPEAKERS)
    >>> x = {"user": np.hstack([human, assistant]), "assistant": np.hstack([assistant, human])}
    >>> nothing = np.empty((0, 24))  # to project out
    >>> found = speaker_cosines(x, two, np.eye(12, 24), names, nothing, resamples=20)
    >>> found.set_index("pair").same.head(3).round(2).abs().to_dict()
    {'present-present': 1.0, 'other-other': 1.0, 'present-other': 0.0}
    """
    for role in ROLES:
        _check(x[role], dialogues)
    n, e = len(dialogues), len(emotions)
    _check_emotions(dialogues[SPEAKERS].to_numpy().ravel(), emotions, stories)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), resamples)
    whole = _fit(dialogues, SPEAKERS, emotions)
    refits, apart = _refits(dialogues, SPEAKERS, emotions, counts)
    refits = refits[apart]
    stories = unit(np.asarray(stories, dtype=float))
    found = _pair_cosines(_grouped(x, whole[None], components), stories)
    drawn = _pair_cosines(_grouped(x, refits, components), stories)

    def same_different(cosines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        same = np.trace(cosines, axis1=-2, axis2=-1)
        return same / e, (cosines.sum((-2, -1)) - same) / (e * (e - 1))

    rows = []
    for pair, cosines in found.items():
        [same], [different] = same_different(cosines)
        same_drawn, different_drawn = same_different(drawn[pair])
        half = 1.96 * same_drawn.std()
        half_difference = 1.96 * (same_drawn - different_drawn).std()
        difference, p = own_minus_others(cosines[0], range(e), permutations=permutations, seed=seed)
        row = (pair, same, same - half, same + half, different, difference)
        row += (difference - half_difference, difference + half_difference, n, len(refits), p)
        rows.append((*row, same_drawn))
    columns = ["pair", "same", "same_low", "same_high", "different", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=[*columns, "n", "refits", "p", "drawn"])


def agreement_lead(cosines: pd.DataFrame, a: str, b: str) -> Estimate:
    """Return how much more alike the emotions of pair a are than those of pair b.

    Both come from the same refits, so that what these share drops out of the interval.

    Parameters
    ----------
    cosines : DataFrame
        From `speaker_cosines`.
    a, b : names of pairs, such as "present-present" and "present-other"

    Examples
    --------
    >>> drawn = np.array([[0.7, 0.9], [0.0, 0.2]])  # both pairs are 0.2 higher in the second refit
    >>> cosines = {"pair": ["present-present", "present-other"], "same": [0.8, 0.1], "n": 132}
    >>> cosines = pd.DataFrame({**cosines, "drawn": list(drawn)})
    >>> print(agreement_lead(cosines, "present-present", "present-other"))
    0.70 [0.70, 0.70]
    """
    rows = cosines.set_index("pair")
    value = float(rows.same[a] - rows.same[b])
    half = 1.96 * float((rows.drawn[a] - rows.drawn[b]).std())
    return Estimate(value, value - half, value + half, int(rows.n[a]))


def speaker_reliability(
    x: Mapping[str, np.ndarray],
    dialogues: pd.DataFrame,
    emotions: Sequence[str],
    components: np.ndarray,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the split-half reliability of the four sets, which bounds their cosines.

    Topics, each of which holds every emotion once, are halved at random; the mean cosine of the
    halves' vectors is stepped up to full length by Spearman and Brown.

    Returns
    -------
    DataFrame
        One row a set: tokens, whose, reliability, low, high (over emotions), n (emotions), splits
        (kept: both halves can be fitted).

    Examples
    --------
    >>> from emotion_concepts import corpus, dialogues
    >>> two, names = dialogues.load_two_speakers(), list(corpus.TWELVE)
    >>> human, assistant = (pd.get_dummies(two[who])[names].to_numpy(float) for who in SPEAKERS)
    >>> noise = np.random.default_rng(0).normal(size=(132, 24))
    >>> x = {"user": np.hstack([human, assistant]), "assistant": noise}
    >>> found = speaker_reliability(x, two, names, np.empty((0, 24)))
    >>> found.query("reliability > 0.9")[["tokens", "whose"]].values.tolist()
    [['user', 'user'], ['user', 'assistant']]
    """
    for role in ROLES:
        _check(x[role], dialogues)
    maps = _half_maps(dialogues, SPEAKERS, emotions, seed)
    rows = []
    first, second = (_grouped(x, half, components) for half in maps)
    for group in GROUPS:
        found = _stepped_up(first[group], second[group], seed)
        rows.append((*group, found.value, found.low, found.high, found.n, maps.shape[1]))
    columns = ["tokens", "whose", "reliability", "low", "high", "n", "splits"]
    return pd.DataFrame(rows, columns=columns)


def _half_maps(
    dialogues: pd.DataFrame, columns: Sequence[str], emotions: Sequence[str], seed: int
) -> np.ndarray:
    """Return ``[2, splits, columns, emotions, n]``, maps of both halves of the topics.

    Only splits whose halves can both tell the effects apart are kept.
    """
    topics = dialogues.topic.unique()
    if len(topics) < 4:
        raise BadInput(f"halving needs at least four topics, not {len(topics)}")
    rng = np.random.default_rng(seed)
    chosen = rng.permuted(np.tile(np.arange(len(topics)) < len(topics) // 2, (SPLITS, 1)), axis=1)
    rows_in = chosen @ _one_hot(dialogues.topic, topics).T  # [splits, n], 0 or 1
    halves = np.stack([rows_in, 1 - rows_in])
    maps, apart = _refits(dialogues, columns, emotions, halves.reshape(2 * SPLITS, -1))
    kept = apart.reshape(2, SPLITS).all(0)
    if not kept.any():
        raise BadInput("no half of the topics can tell the effects apart: give more dialogues")
    return maps.reshape(2, SPLITS, *maps.shape[1:])[:, kept]


def _stepped_up(first: np.ndarray, second: np.ndarray, seed: int) -> Estimate:
    """Return the reliability of ``[splits, emotions, d]`` unit vectors of two halves."""
    cosines = (first * second).sum(-1).mean(0)  # [emotions]
    mean = bootstrap(np.mean, cosines, seed=seed)
    stepped = spearman_brown(np.array([mean.value, mean.low, mean.high]))
    return Estimate(*map(float, stepped), mean.n)


def speaker_blocks(
    x: Mapping[str, np.ndarray],
    dialogues: pd.DataFrame,
    emotions: Sequence[str],
    components: np.ndarray,
) -> tuple[np.ndarray, list[str]]:
    """Return ``[4 * emotions, 4 * emotions]`` cosines of all sets, and the four sets' labels.

    The two present-speaker sets come first, then the two other-speaker sets (Fig 18). Sets of one
    speaker's emotion are averages of the same dialogues, so their cosines hold shared noise too.

    >>> from emotion_concepts import corpus, dialogues
    >>> two, names = dialogues.load_two_speakers(), list(corpus.TWELVE)
    >>> human, assistant = (pd.get_dummies(two[who])[names].to_numpy(float) for who in SPEAKERS)
    >>> x = {"user": np.hstack([human, assistant]), "assistant": np.hstack([assistant, human])}
    >>> cosines, labels = speaker_blocks(x, two, names, np.empty((0, 24)))
    >>> labels[:2], cosines[:12, 12:24].diagonal().mean().round(2).item()
    (['assistant tokens, assistant emotion', 'user tokens, user emotion'], 1.0)
    """
    for role in ROLES:
        _check(x[role], dialogues)
    groups = _grouped(x, _fit(dialogues, SPEAKERS, emotions)[None], components)
    labels = [f"{tokens} tokens, {whose} emotion" for tokens, whose in GROUPS]
    return cosine_matrix(np.concatenate([groups[key][0] for key in GROUPS])), labels


# --- decoding both speakers' emotions ----------------------------------------------------------


def _features(source: np.ndarray, fit: np.ndarray) -> np.ndarray:
    """Return ``[n, features]``: an array as it is, texts ``[n]`` as TF-IDF learnt on rows `fit`."""
    if source.ndim == 2:
        return source.astype(float)
    vectoriser = TfidfVectorizer(sublinear_tf=True, min_df=1).fit(source[fit])
    return vectoriser.transform(source).toarray()


def _score(hits: np.ndarray, chance: float) -> tuple[float, float, float, int, float]:
    """Return share, Wilson interval, n and the one-sided binomial p against chance."""
    found = share(hits.sum(), len(hits))
    p = binomtest(int(hits.sum()), len(hits), chance, alternative="greater").pvalue
    return found.value, found.low, found.high, found.n, p


def decode_speakers(
    x: Mapping[str, np.ndarray],
    dialogues: pd.DataFrame,
    emotions: Sequence[str],
    components: np.ndarray,
    *,
    folds: int = 11,
) -> pd.DataFrame:
    """Name both speakers' emotions from the turns of one, in topics that were not trained on.

    The nearest effect by cosine, after removing the mean of the training dialogues; TF-IDF of the
    role's own words goes through the same classifier.

    Parameters
    ----------
    x : {"user": ``[n, d]``, "assistant": ``[n, d]``}
    folds : int
        Groups of topics that are held out together.

    Returns
    -------
    DataFrame
        Role (whose tokens), whose ("own" or "other" emotion), method ("probe" or "TF-IDF"), value
        (share named right), low, high (Wilson), n, chance, p (one-sided binomial), hits ``[n]``,
        for `readouts.hit_difference`.

    Notes
    -----
    Chance is 1 / (emotions - 1): two speakers never share an emotion, so whoever knows the one
    need not guess it for the other.

    Examples
    --------
    >>> from emotion_concepts import corpus, dialogues
    >>> two, names = dialogues.load_two_speakers(), list(corpus.TWELVE)
    >>> human, assistant = (pd.get_dummies(two[who])[names].to_numpy(float) for who in SPEAKERS)
    >>> x = {"user": np.hstack([human, assistant]), "assistant": np.hstack([assistant, human])}
    >>> found = decode_speakers(x, two, names, np.empty((0, 24)), folds=2)
    >>> found.query("method == 'probe'")[["role", "whose", "value"]].values.tolist()[:2]
    [['user', 'own', 1.0], ['user', 'other', 1.0]]
    """
    for role in ROLES:
        _check(x[role], dialogues)
    if dialogues.topic.nunique() < folds:
        raise BadInput(f"{dialogues.topic.nunique()} topics cannot fill {folds} folds; ask fewer")
    sources = {(role, "probe"): project_out(x[role], components) for role in ROLES}
    for role in ROLES:
        words = [_spoken(turns, role) for turns in dialogues.turns]
        sources[role, "TF-IDF"] = np.array(words, dtype=object)
    truth = np.stack([_one_hot(dialogues[name], emotions).argmax(1) for name in SPEAKERS])
    hits = {key: np.zeros(truth.shape, dtype=bool) for key in sources}
    for fit, held in GroupKFold(folds).split(dialogues, groups=dialogues.topic):
        maps = _fit(dialogues.iloc[fit], SPEAKERS, emotions)
        for key, source in sources.items():
            features = _features(source, fit)
            scores = unit(maps @ features[fit]) @ (features[held] - features[fit].mean(0)).T
            hits[key][:, held] = scores.argmax(1) == truth[:, held]
    chance, rows = 1 / (len(emotions) - 1), []
    for (role, method), found in hits.items():
        for emotion_of, named in zip(ROLES, found, strict=True):
            value, low, high, n, p = _score(named, chance)
            whose = "own" if emotion_of == role else "other"
            rows.append((role, whose, method, value, low, high, n, chance, p, named.astype(float)))
    columns = ["role", "whose", "method", "value", "low", "high", "n", "chance", "p", "hits"]
    return pd.DataFrame(rows, columns=columns)


# --- shown, hidden, absent (Table 5) -----------------------------------------------------------


def hidden_readouts(
    x: Mapping[str, np.ndarray],
    dialogues: pd.DataFrame,
    stories: np.ndarray,
    emotions: Sequence[str],
) -> pd.DataFrame:
    """Name what a speaker feels from its turns, where it shows, is hidden, or has no occasion.

    The preamble says what the speaker feels. A model that has it in context can carry it into the
    turns by attention; the words of the turns cannot. So pass residuals read with and without it.

    Parameters
    ----------
    x : {method: ``[n, d]``}
        Residuals over the speaker's own turns, such as "residuals", "residuals without preamble".
    dialogues : DataFrame
        From `dialogues.load_hidden`.
    stories : ``[emotions, d]``
        Story vectors, in the order of `emotions`.

    Returns
    -------
    DataFrame
        One row a training set, condition and method: train ("same": the condition itself; "shown";
        both on the other topics; "stories": the nearest story vector, nothing trained), test
        (condition), method (the names in `x`, "TF-IDF" of the speaker's turns, "TF-IDF of the
        preamble"), value (share named right), low, high (Wilson), n, p (one-sided binomial against
        1 / emotions), hits ``[n]`` in the order of the table. For two methods on the same dialogues
        see `readouts.hit_difference`.

    Notes
    -----
    Logistic regression: C = 0.1 on standardised residuals, C = 1 on TF-IDF; neither was tuned.
    Each condition is centred on its own mean over the training topics, so that what sets a
    condition apart as a whole does not move the labels.

    Examples
    --------
    >>> from emotion_concepts import dialogues
    >>> some = "emotion in ['angry', 'sad'] and topic in ['dinner', 'report']"
    >>> hidden = dialogues.load_hidden().query(some)
    >>> x = {"residuals": pd.get_dummies(hidden.emotion).to_numpy(float)}
    >>> found = hidden_readouts(x, hidden, np.eye(2), ["angry", "sad"])
    >>> found.query("method == 'residuals'").groupby("train").value.mean().to_dict()
    {'same': 1.0, 'shown': 1.0, 'stories': 1.0}
    """
    for residuals in x.values():
        _check(residuals, dialogues)
    _check_emotions(dialogues.emotion, emotions, stories)
    words = [_spoken(row.turns, row.speaker) for row in dialogues.itertuples()]
    texts = {"TF-IDF": words, "TF-IDF of the preamble": dialogues.preamble}
    sources = {**x, **{name: np.array(list(text), dtype=object) for name, text in texts.items()}}
    condition, labels = dialogues.condition.to_numpy(), dialogues.emotion.to_numpy()
    rows = []

    def add(train: str, test: str, method: str, hits: np.ndarray) -> None:
        value, low, high, n, p = _score(hits, 1 / len(emotions))
        rows.append((train, test, method, value, low, high, n, p, hits.astype(float)))

    for method, source in sources.items():
        for train in dialogues.condition.unique():
            hits = _held_out_hits(source, dialogues, train)
            add("same", train, method, hits[condition == train])
            if train == "shown":
                for test in dialogues.condition.unique():
                    if test != train:
                        add("shown", test, method, hits[condition == test])
    for method, residuals in x.items():
        for test in dialogues.condition.unique():
            nearest_story = readings(residuals[condition == test], stories).argmax(1)
            named = np.asarray(emotions)[nearest_story]
            add("stories", test, method, named == labels[condition == test])
    columns = ["train", "test", "method", "value", "low", "high", "n", "p", "hits"]
    return pd.DataFrame(rows, columns=columns)


def _held_out_hits(source: np.ndarray, dialogues: pd.DataFrame, train: str) -> np.ndarray:
    """Return ``[n]`` hits in all conditions, trained topic by topic on the others in `train`."""
    condition, labels = dialogues.condition.to_numpy(), dialogues.emotion.to_numpy()
    hits = np.zeros(len(dialogues), dtype=bool)
    for topic in dialogues.topic.unique():
        held = (dialogues.topic == topic).to_numpy()
        fit = ~held & (condition == train)
        features = _features(source, fit)
        for name in np.unique(condition):
            features[condition == name] -= features[~held & (condition == name)].mean(0)
        if source.ndim == 2:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        else:
            model = LogisticRegression(C=1, max_iter=1000)
        model.fit(features[fit], labels[fit])
        hits[held] = model.predict(features[held]) == labels[held]
    return hits


# --- deflection (Figs 60-64) -------------------------------------------------------------------


def deflection_vectors(
    x: np.ndarray, dialogues: pd.DataFrame, emotions: Sequence[str], components: np.ndarray
) -> np.ndarray:
    """Return ``[emotions, d]`` unit vectors of what is hidden, topics held constant.

    Parameters
    ----------
    x : ``[n, d]``
        Over the speaker's own turns.
    dialogues : DataFrame
        The hidden rows of `dialogues.load_hidden`: columns emotion, topic.
    components : ``[k, d]``
        Neutral components to project out.

    Examples
    --------
    >>> hidden = {"emotion": ["angry", "sad"] * 2, "topic": ["dinner", "dinner", "trip", "trip"]}
    >>> x = np.array([[1, 5], [-1, 5], [1, -5], [-1, -5]])  # an axis of emotion, one of topic
    >>> found = deflection_vectors(x, pd.DataFrame(hidden), ["angry", "sad"], np.empty((0, 2)))
    >>> found.round(6).astype(int).tolist()
    [[1, 0], [-1, 0]]
    """
    _check(x, dialogues)
    [maps] = _fit(dialogues, ["emotion"], emotions)
    return unit(project_out(maps @ x, components))


def deflection_reliability(
    x: np.ndarray,
    dialogues: pd.DataFrame,
    emotions: Sequence[str],
    components: np.ndarray,
    *,
    seed: int = 0,
) -> Estimate:
    """Return the split-half reliability of the deflection vectors, which bounds their cosines.

    Topics are halved as in `speaker_reliability`; the interval is over emotions.

    Parameters
    ----------
    x, dialogues, emotions, components
        As for `deflection_vectors`.

    Examples
    --------
    >>> topics = np.repeat(["dinner", "report", "trip", "garden"], 2)
    >>> hidden = pd.DataFrame({"emotion": ["angry", "sad"] * 4, "topic": topics})
    >>> x = np.tile([[1.0, 5.0], [-1.0, 5.0]], (4, 1))
    >>> print(deflection_reliability(x, hidden, ["angry", "sad"], np.empty((0, 2))))
    1.00 [1.00, 1.00]
    """
    _check(x, dialogues)
    maps = _half_maps(dialogues, ["emotion"], emotions, seed)[:, :, 0]
    return _stepped_up(*unit(maps @ project_out(x, components)), seed)


def disattenuated(cosine: Estimate, *reliabilities: float) -> Estimate:
    """Return what a cosine of two noisy sets of vectors would be without their noise.

    It is divided by the root of each reliability, and ends at 1, as every cosine does.

    Raises
    ------
    BadInput
        For a reliability that is not above 0: such vectors are noise, and have no cosine.

    Examples
    --------
    >>> print(disattenuated(Estimate(0.1, -0.1, 0.3, 8), 0.25, 0.64))
    0.25 [-0.25, 0.75]
    """
    if min(reliabilities) <= 0:
        raise BadInput(
            f"a reliability of {min(reliabilities):.2f} leaves nothing to correct; give more topics"
        )
    scale = np.sqrt(np.prod(reliabilities))
    ends = np.clip(np.array([cosine.value, cosine.low, cosine.high]) / scale, -1, 1)
    return replace(cosine, value=float(ends[0]), low=float(ends[1]), high=float(ends[2]))


@dataclass(frozen=True)
class DeflectionTest:
    """Deflection vectors held to story vectors.

    Attributes
    ----------
    same, different : Estimate
        Mean cosine with the story vector of the same emotion, and of the other emotions that have a
        deflection vector; interval over emotions. The p of `same` is one-sided, with emotions
        shuffled.
    norm_left : Estimate
        Share of the norm outside the space of the story vectors; interval over emotions; one-sided
        p that random directions keep as little.
    random_norm_left : float
        What random directions keep on average.
    k : int
        Dimensions of that space.
    """

    same: Estimate
    different: Estimate
    norm_left: Estimate
    random_norm_left: float
    k: int


def deflection_test(
    deflection: np.ndarray,
    stories: np.ndarray,
    own: Sequence[int],
    *,
    seed: int = 0,
) -> DeflectionTest:
    """Ask whether what is hidden lies along, or at all in the space of, the story vectors.

    Their space is that of the components which hold `STORY_VARIANCE` of their variance.

    Parameters
    ----------
    deflection : ``[emotions, d]``
        From `deflection_vectors`.
    stories : ``[all emotions, d]``
    own : the row of `stories` of each deflection vector

    Returns
    -------
    DeflectionTest

    Examples
    --------
    >>> stories = np.eye(5, 9)  # five emotions in nine dimensions
    >>> found = deflection_test(np.eye(3, 9, k=5), stories, [0, 1, 2])  # in other dimensions
    >>> found.same.value, found.norm_left.value, found.k
    (0.0, 1.0, 4)
    """
    n, d = deflection.shape
    if len(own) != n:
        raise BadInput(f"{n} deflection vectors need the story rows of {n} emotions")
    cosines = unit(deflection) @ unit(stories[np.asarray(own)]).T
    _, p = own_minus_others(cosines, range(n), seed=seed)
    own_cosines = np.diag(cosines)
    others = (cosines.sum(1) - own_cosines) / (n - 1)
    space = components_for(stories, STORY_VARIANCE)

    kept = np.linalg.norm(project_out(unit(deflection), space), axis=1)
    # The squared share of a random direction outside k of d dimensions follows a beta distribution.
    beta = np.random.default_rng(seed).beta((d - len(space)) / 2, len(space) / 2, (2000, n))
    random = np.sqrt(beta).mean(1)
    return DeflectionTest(
        same=_over_emotions(own_cosines, p, seed),
        different=_over_emotions(others, None, seed),
        norm_left=_over_emotions(kept, exceedance_p(-kept.mean(), -random), seed),
        random_norm_left=float(random.mean()),
        k=len(space),
    )


def _over_emotions(values: np.ndarray, p: float | None, seed: int) -> Estimate:
    return replace(bootstrap(np.mean, values, seed=seed), p=p)

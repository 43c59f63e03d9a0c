"""Chapter 4: do emotion vectors carry preferences between activities?

Three measures of what a model prefers, of which :func:`competence` says which may speak:

- *letters*: which of (A) and (B), as in the paper;
- *words*: which option's own words are the likelier reply to the same choice;
- *verdicts*: what the model says of one activity at a time, a good or a bad word.

Letters and words compare two activities, each pair in both orders, so that the taste for what
stands first drops out. Verdicts are no choice: two activities are compared by their difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import choix
import numpy as np
import pandas as pd
import scipy.stats
from scipy.special import expit
from sklearn.feature_extraction.text import TfidfVectorizer

from emotion_concepts.errors import BadInput, nearest
from emotion_concepts.experiments.blocks import evenly
from emotion_concepts.experiments.readouts import readings
from emotion_concepts.experiments.steered import Directions, cells_of, leanings
from emotion_concepts.geometry import linear_readout, unit
from emotion_concepts.stats import (
    Estimate,
    bootstrap,
    column_correlations,
    exceedance_p,
    mean_interval,
    pearson,
    permutation_p,
    permuted_correlations,
)
from emotion_concepts.steering import Steering
from emotion_concepts.tracing import (
    PooledResiduals,
    TracedModel,
    continuation_logprobs,
    option_logprobs,
    span_residuals,
)
from emotion_concepts.vectors import EmotionVectors

MEASURES = ("letters", "words", "verdicts")  # the paper's own first
QUESTION, REPLY = "Would you rather be {a} or {b}?", "I would rather be"
LETTERS = "{question}\n(A) {a}\n(B) {b}"
FEELING = "How would you feel about {a}?"
# question, begun reply, good verdict, bad verdict. A frame that asked for yes or no got fewer of
# the obvious choices right, and was left out.
VERDICTS = (
    (FEELING, "I would", " love it", " hate it"),
    (FEELING, "I would feel", " good", " bad"),
    ("What would {a} be like?", "It would be", " wonderful", " awful"),
    ("Tell me what you think of {a}.", "I think that is", " a good thing", " a bad thing"),
)
ELO_SCALE, ELO_MEAN = 400 / np.log(10), 1500.0


# --- asking ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """What the model is asked about an activity, up to where its answer begins.

    Attributes
    ----------
    prompt : str
    spans : tuple of (start, end)
        Characters of the activity and, in a comparison, of the other one.
    options : (str, str)
        The answer for the activity, and the one against it.
    """

    prompt: str
    spans: tuple[tuple[int, int], ...]
    options: tuple[str, str]


def compare(
    model: TracedModel,
    a: str,
    b: str,
    *,
    measure: str,
    question: str = QUESTION,
    reply: str = REPLY,
) -> list[Question]:
    """Return two questions whether activity a is preferred to b: a standing first, then b.

    Parameters
    ----------
    measure : {"letters", "words"}
        Letters follow the paper: the reply is begun with a bracket, and A and B are compared.
    question : str
        With ``{a}`` and ``{b}``; letters list the options below it.

    Examples
    --------
    >>> asked = compare(llm, "reading a book", "counting sand", measure="letters")
    >>> asked[0].prompt.splitlines()[-4:-2], [question.options for question in asked]
    (['(A) reading a book', '(B) counting sand<|im_end|>'], [('A', 'B'), ('B', 'A')])
    >>> [question.prompt[slice(*question.spans[0])] for question in asked]
    ['reading a book', 'reading a book']
    """
    out = []
    for first, second in ((a, b), (b, a)):
        if measure == "words":
            text, begun = question.format(a=first, b=second), reply
            options = (f" {first}", f" {second}")
        elif measure == "letters":
            stem = question.replace("{a} or {b}", "(A) or (B)")
            text, begun = LETTERS.format(question=stem, a=first, b=second), "("
            options = ("A", "B")
        else:
            raise BadInput(f"no comparison by {measure!r}: {nearest(measure, MEASURES[:2])}")
        prompt = _begun(model, text, begun)
        start = prompt.index(text)
        left = prompt.index(first, start + text.index(first))
        right = prompt.rindex(second, start, start + len(text))
        spans = ((left, left + len(first)), (right, right + len(second)))
        turn = slice(None) if first == a else slice(None, None, -1)
        out.append(Question(prompt, spans[turn], options[turn]))
    return out


def judge(model: TracedModel, activity: str) -> list[Question]:
    """Return one question for each frame of `VERDICTS` about an activity.

    >>> asked = judge(llm, "reading a book")
    >>> len(asked), asked[0].options
    (4, (' love it', ' hate it'))
    >>> asked[0].prompt.endswith("I would"), "feel about reading a book?" in asked[0].prompt
    (True, True)
    """
    out = []
    for question, reply, good, bad in VERDICTS:
        text = question.format(a=activity)
        prompt = _begun(model, text, reply)
        start = prompt.index(activity, prompt.index(text) + question.index("{a}"))
        out.append(Question(prompt, ((start, start + len(activity)),), (good, bad)))
    return out


def _begun(model: TracedModel, text: str, reply: str) -> str:
    prompt = model.chat_prompt([{"role": "user", "content": text}])
    return prompt + reply if prompt[-1].isspace() else f"{prompt} {reply}"


@dataclass(frozen=True)
class Answers:
    """How the model leans, one row a question.

    Attributes
    ----------
    log_odds : ``[n]``
        Of the answer for the activity over the one against it, per token.
    fluency : ``[n]``
        Log-probability per token of either answer: falls when steering breaks the model.
    """

    log_odds: np.ndarray
    fluency: np.ndarray


def answers(
    model: TracedModel,
    questions: Sequence[Question],
    *,
    steering: Steering | None = None,
    progress: str | None = None,
) -> Answers:
    """Return the model's answers; steering has one row a question.

    >>> question = Question("The bus stops at the street", (), (" corner", " purple"))
    >>> found = answers(llm, [question])
    >>> bool(found.log_odds[0] > 0)
    True
    """
    found = option_logprobs(
        model,
        [question.prompt for question in questions],
        [question.options for question in questions],
        steering=steering,
        progress=progress,
    ).mean
    return Answers(found[:, 0] - found[:, 1], np.logaddexp(*found.T))


def about(
    model: TracedModel, items: Sequence[str], reference: Sequence[str], *, measure: str
) -> list[Question]:
    """Return the questions that place each item, equally many an item, item by item.

    By letters and words each item meets each activity of the reference set; by verdicts it stands
    alone.

    >>> items, reference = ["reading a book", "counting sand"], ["washing a cup"]
    >>> len(about(llm, items, reference, measure="words"))
    4
    >>> len(about(llm, items, reference, measure="verdicts"))
    8
    """
    if measure == "verdicts":
        return list(chain(*(judge(model, item) for item in items)))
    return list(chain(*(compare(model, a, b, measure=measure) for a in items for b in reference)))


# --- which measure may speak? ------------------------------------------------------------------


def competence(
    model: TracedModel, choices: pd.DataFrame, *, resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Ask choices with an obvious answer by all measures (`scenarios.load_choices`).

    Returns
    -------
    DataFrame
        One row a kind and measure: kind ("taste", "fact"; verdicts have no facts), measure,
        accuracy (position taken out) with low, high, n and p against a coin, and bias (mean
        log-odds of whatever stands first; 0 for verdicts).

    Examples
    --------
    >>> from emotion_concepts.scenarios import load_choices
    >>> found = competence(llm, load_choices()[:2])
    >>> found[["kind", "measure", "n"]].values.tolist()
    [['fact', 'letters', 2], ['fact', 'words', 2]]
    """
    rows = []
    for kind, items in choices.groupby("kind", sort=False):
        for measure in MEASURES if kind == "taste" else MEASURES[:2]:
            if measure == "verdicts":
                asked = about(model, [*items.right, *items.wrong], (), measure=measure)
                right, wrong = answers(model, asked).log_odds.reshape(2, len(items), -1).mean(2)
                preferred, bias = right - wrong, 0.0
            else:
                asked = [
                    compare(model, item.right, item.wrong, measure=measure, **_frame(item))
                    for item in items.itertuples()
                ]
                odds = answers(model, list(chain(*asked))).log_odds.reshape(-1, 2)
                preferred, bias = odds.mean(1), float((odds[:, 0] - odds[:, 1]).mean() / 2)
            hits = (preferred > 0).astype(float)
            found = bootstrap(np.mean, hits, resamples=resamples, seed=seed)
            p = scipy.stats.binomtest(int(hits.sum()), len(hits)).pvalue
            rows.append((kind, measure, found.value, found.low, found.high, found.n, p, bias))
    columns = ["kind", "measure", "accuracy", "low", "high", "n", "p", "bias"]
    return pd.DataFrame(rows, columns=columns)


def _frame(item) -> dict[str, str]:
    if item.kind == "fact":
        return {"question": item.question + " {a} or {b}?", "reply": "It is"}
    return {}


def measure_that_speaks(checks: pd.DataFrame) -> str | None:
    """Return the first of `MEASURES` that gets obvious choices of taste right, or None.

    Right means at least .7 of them, with an interval that leaves out one half, and within .05 of
    the best measure: one that just passes does not silence one that is nearly always right.

    >>> checks = pd.DataFrame({"kind": "taste", "measure": MEASURES})
    >>> measure_that_speaks(checks.assign(accuracy=[0.5, 0.9, 0.92], low=[0.4, 0.8, 0.82]))
    'words'
    """
    taste = checks[checks.kind == "taste"].set_index("measure")
    for measure in MEASURES:
        row = taste.loc[measure]
        if row.accuracy >= max(0.7, taste.accuracy.max() - 0.05) and row.low > 0.5:
            return measure
    return None


# --- preferences -------------------------------------------------------------------------------


def design(n: int, opponents: int) -> np.ndarray:
    """Return ``[pairs, 2]`` pairs of items in which each meets `opponents` others.

    Asked in both orders, all ``n - 1`` opponents give the paper's ``n (n - 1)`` comparisons.

    >>> 2 * len(design(64, 63)), 2 * len(design(64, 8))
    (4032, 512)
    """
    if not (opponents == n - 1 or (0 < opponents < n - 1 and opponents % 2 == 0)):
        raise BadInput(
            f"{n} items can meet {n - 1} others or an even number below, not {opponents}"
        )
    if opponents == n - 1:
        return np.array(np.triu_indices(n, 1)).T
    # steps round a circle, spread evenly, so that near and far items meet
    steps = np.linspace(1, (n - 1) // 2, opponents // 2).round().astype(int)
    return np.array([(i, (i + step) % n) for step in steps for i in range(n)])


@dataclass(frozen=True)
class Preferences:
    """What comparisons say of each item.

    Attributes
    ----------
    elo : ``[n]``
        Bradley-Terry strengths by maximum likelihood of the win probabilities, on the Elo scale.
    odds : ``[pairs]``
        Log-odds of the first of each pair of `design` over the second, position taken out.
    bias : Estimate
        Mean log-odds of whatever stands first.
    """

    elo: np.ndarray
    odds: np.ndarray
    bias: Estimate


def preferences(
    model: TracedModel,
    items: Sequence[str],
    *,
    measure: str,
    opponents: int,
    steered: Sequence[int] = (),
    add: np.ndarray | None = None,
    layers: Sequence[int] = (),
    progress: str | None = None,
) -> Preferences:
    """Return the preferences among items (Fig 4).

    By verdicts every item is judged once, and `opponents` only chooses the pairs.

    Parameters
    ----------
    steered, add, layers
        Numbers of the items whose tokens are steered; ``[n_layers, d_model]`` to add to them, in
        units of the residual stream; and the layers where.

    Examples
    --------
    >>> items = ["reading", "singing", "queueing"]
    >>> found = preferences(llm, items, measure="words", opponents=2)
    >>> found.odds.shape, round(float(found.elo.mean()))
    ((3,), 1500)
    """
    pairs = design(len(items), opponents)
    if measure == "verdicts":
        asked = about(model, items, (), measure=measure)
        whose = [(item,) for item in range(len(items)) for _ in VERDICTS]
    else:
        asked = list(
            chain(*(compare(model, items[i], items[j], measure=measure) for i, j in pairs))
        )
        whose = [tuple(pair) for pair in pairs.tolist() for _ in range(2)]
    steering = None if add is None else _on_items(asked, whose, steered, add[list(layers)], layers)
    found = answers(model, asked, steering=steering, progress=progress).log_odds
    if measure == "verdicts":
        standing = found.reshape(len(items), -1).mean(1)
        odds, bias = standing[pairs[:, 0]] - standing[pairs[:, 1]], np.zeros(len(pairs))
    else:
        both = found.reshape(-1, 2)
        odds, bias = both.mean(1), (both[:, 0] - both[:, 1]) / 2
    wins = np.zeros((len(items), len(items)))
    wins[tuple(pairs.T)], wins[tuple(pairs.T[::-1])] = expit(odds), expit(-odds)
    return Preferences(elo(wins), odds, bootstrap(np.mean, bias))


def _on_items(
    asked: Sequence[Question],
    whose: Sequence[tuple[int, ...]],
    steered: Sequence[int],
    add: np.ndarray,
    layers: Sequence[int],
) -> Steering:
    """Return what adds one direction to the tokens of some items wherever they are asked about."""
    spans = tuple(
        tuple(span for item, span in zip(items, question.spans, strict=True) if item in steered)
        for question, items in zip(asked, whose, strict=True)
    )
    rows = np.stack([add * bool(inside) for inside in spans]).astype(np.float32)
    return Steering(tuple(layers), rows, spans)


def elo(wins: np.ndarray) -> np.ndarray:
    """Return Bradley-Terry strengths ``[n]`` on the Elo scale (mean 1500).

    Parameters
    ----------
    wins : ``[n, n]``
        How often, or with which summed probability, i beat j.

    Examples
    --------
    >>> gap = elo(np.array([[0, 10 / 11], [1 / 11, 0]]))
    >>> round(float(gap[0] - gap[1]))
    400
    """
    return ELO_MEAN + ELO_SCALE * choix.ilsr_pairwise_dense(wins, alpha=0.0)


def standing(
    model: TracedModel,
    items: Sequence[str],
    reference: Sequence[str],
    *,
    measure: str,
    progress: str | None = None,
) -> np.ndarray:
    """Return ``[n]`` log-odds of each item over the mean of a fixed reference set.

    Unlike Elo this cannot be compressed: what one item gains no other loses.

    >>> items = ["helping a friend", "hurting a friend"]
    >>> (standing(llm, items, ["washing a cup"], measure="words") > 0).tolist()
    [True, False]
    """
    asked = about(model, items, reference, measure=measure)
    found = answers(model, asked, progress=progress).log_odds.reshape(len(items), -1).mean(1)
    if measure != "verdicts":
        return found
    theirs = answers(model, about(model, reference, (), measure=measure)).log_odds
    return found - theirs.mean()


def word_fluency(model: TracedModel, texts: Sequence[str]) -> np.ndarray:
    """Return ``[n]`` mean log-probability of an activity's words where nothing is chosen.

    What a measure by words would follow if it knew no preference.

    >>> plain, odd = word_fluency(llm, ["reading a book", "reading a zebra"])
    >>> bool(plain > odd)
    True
    """
    prompt = model.chat_prompt([{"role": "user", "content": "Name an activity."}])
    space = "" if prompt[-1].isspace() else " "  # a base transcript ends in a colon
    texts = [space + text for text in texts]
    return continuation_logprobs(model, [prompt] * len(texts), texts).mean


# --- probes on the activity --------------------------------------------------------------------


def activity_residuals(
    model: TracedModel, texts: Sequence[str], *, progress: str | None = None
) -> PooledResiduals:
    """Return ``[n, n_layers, d_model]`` over an activity's tokens, when asked how it would feel.

    >>> activity_residuals(llm, ["reading a book"]).shape
    (1, 30, 576)
    """
    prompts, spans = [], []
    for text in texts:
        prompt = model.chat_prompt([{"role": "user", "content": FEELING.format(a=text)}])
        start = prompt.index(text)
        prompts.append(prompt)
        spans.append([(start, start + len(text))])
    return span_residuals(model, prompts, spans, progress=progress)


def probe_correlations(
    readings: np.ndarray,
    preference: np.ndarray,
    emotions: Sequence[str],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Correlate each probe's reading with preference over activities (Fig 4).

    Parameters
    ----------
    readings : ``[activities, emotions]``
    preference : ``[activities]``

    Returns
    -------
    DataFrame
        One row an emotion: emotion, r, low, high, n, p (activities shuffled), passes (false
        discovery rate below .05 over emotions), low_null, high_null (central 95 % of shuffled r).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> preference, noise = rng.normal(size=(2, 30))
    >>> readings = np.column_stack([preference, -preference, noise])
    >>> found = probe_correlations(readings, preference, ["happy", "afraid", "calm"])
    >>> found.r[:2].round(6).tolist(), found.passes.tolist()
    ([1.0, -1.0], [True, True, False])
    """
    r = column_correlations(readings, preference)
    null = permuted_correlations(readings, preference, resamples=resamples, seed=seed)
    p = np.array([permutation_p(x, column) for x, column in zip(r, null.T, strict=True)])
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(readings), size=(500, len(readings)))
    x = readings[rows] - readings[rows].mean(1, keepdims=True)
    y = preference[rows] - preference[rows].mean(1, keepdims=True)
    scale = np.sqrt((x**2).sum(1) * (y**2).sum(1)[:, None])
    drawn = np.einsum("bne,bn->be", x, y, optimize=True) / scale
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    low_null, high_null = np.quantile(null, [0.025, 0.975], axis=0)
    return pd.DataFrame(
        {
            "emotion": list(emotions),
            "r": r,
            "low": low,
            "high": high,
            "n": len(readings),
            "p": p,
            "passes": scipy.stats.false_discovery_control(p) < 0.05,
            "low_null": low_null,
            "high_null": high_null,
        }
    )


def over_emotions(
    readings: np.ndarray,
    preference: np.ndarray,
    values: np.ndarray,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Correlate a number of each emotion with the preference correlation of its probe.

    The number may be a human rating (Fig 56), or what steering with the emotion does. The interval
    is over emotions. The null shuffles the activities, not the emotions: probes overlap, so that a
    whole region of them follows any preference by chance.

    Parameters
    ----------
    readings : ``[activities, emotions]``
    preference : ``[activities]``
    values : ``[emotions]``
        NaN where an emotion has none.

    Returns
    -------
    Estimate
        The correlation r.

    Examples
    --------
    >>> rng, valence = np.random.default_rng(0), np.linspace(-1, 1, 6)
    >>> preference = rng.normal(size=30)
    >>> readings = np.outer(preference, valence) + rng.normal(size=(30, 6))
    >>> over_emotions(readings, preference, valence).value > 0.8
    True
    """
    known = ~np.isnan(values)
    r = column_correlations(readings[:, known], preference)
    null = permuted_correlations(readings[:, known], preference, resamples=resamples, seed=seed)
    found = bootstrap(pearson, r, values[known], resamples=resamples, seed=seed)
    drawn = column_correlations(null.T, values[known])
    return Estimate(found.value, found.low, found.high, found.n, permutation_p(found.value, drawn))


def predictions(
    sources: Mapping[str, np.ndarray | Sequence[str]],
    preference: np.ndarray,
    *,
    permutations: int = 100,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Predict preference from several sources on held-out activities, by ridge regression.

    Features are put on one scale. Words are not, or one that stands in a single text would count as
    much as any: texts are read as TF-IDF, learnt in each fold from its own training texts.

    Parameters
    ----------
    sources : {name: ``[activities, features]``, or a text an activity}

    Returns
    -------
    DataFrame
        With columns source, r, low, high, n, p (preference shuffled), predicted (``[activities]``).

    Examples
    --------
    >>> preference, noise = np.random.default_rng(0).normal(size=(2, 40))
    >>> readings = np.column_stack([preference, -preference]) + 0.1 * noise[:, None]
    >>> found = predictions({"vectors": readings}, preference, permutations=19)
    >>> found.source[0], bool(found.r[0] > 0.9), float(found.p[0])
    ('vectors', True, 0.05)
    """
    rng = np.random.default_rng(seed)
    shuffled = np.stack([rng.permutation(preference) for _ in range(permutations)], axis=1)
    rows = []
    targets = np.column_stack([preference, shuffled])
    for name, features in sources.items():
        vectoriser = TfidfVectorizer(sublinear_tf=True) if np.ndim(features) == 1 else None
        if vectoriser is None:
            features = (features - features.mean(0)) / np.maximum(features.std(0), 1e-9)
        predicted = linear_readout(
            features, targets, vectoriser=vectoriser, folds=8, repeats=5, seed=seed
        )
        found = bootstrap(pearson, predicted[:, 0], preference, resamples=resamples, seed=seed)
        null = pearson(predicted[:, 1:], shuffled, axis=0)
        p = exceedance_p(found.value, null)
        rows.append((name, found.value, found.low, found.high, found.n, p, predicted[:, 0]))
    return pd.DataFrame(rows, columns=["source", "r", "low", "high", "n", "p", "predicted"])


def prediction_difference(
    table: pd.DataFrame, a: str, b: str, preference: np.ndarray, *, seed: int = 0
) -> Estimate:
    """Return r of source a minus r of source b, with an interval over activities.

    >>> preference = np.arange(8.0)
    >>> table = pd.DataFrame({"source": ["vectors", "words"]})
    >>> table["predicted"] = [2 * preference, -preference]
    >>> round(prediction_difference(table, "vectors", "words", preference).value, 6)
    2.0
    """
    predicted = table.set_index("source").predicted

    def difference(x, y, z, axis=-1):
        return pearson(x, z, axis) - pearson(y, z, axis)

    return bootstrap(difference, predicted[a], predicted[b], preference, seed=seed)


# --- steering ----------------------------------------------------------------------------------


def spread_over(table: pd.DataFrame, n: int, *, always: Sequence[str] = ()) -> list[str]:
    """Return n emotions spread evenly over the range of r, ends included, and those of `always`.

    >>> table = pd.DataFrame({"emotion": ["calm", "afraid", "happy"], "r": [0.1, -0.5, 0.6]})
    >>> spread_over(table, 2), spread_over(table, 2, always=["calm"])
    (['afraid', 'happy'], ['calm', 'afraid', 'happy'])
    """
    ranked = table.sort_values("r").emotion.tolist()
    return list(dict.fromkeys([*always, *evenly(ranked, n)]))


def steered_shifts(
    model: TracedModel,
    directions: Directions,
    vectors: EmotionVectors,
    items: Sequence[str],
    reference: Sequence[str],
    *,
    layers: Sequence[int],
    strengths: Sequence[float],
    measure: str,
    progress: str | None = None,
) -> pd.DataFrame:
    """Steer the tokens of each activity and measure how its log-odds over the reference move.

    Parameters
    ----------
    directions : {(kind, name): ``[n_layers, d_model]``}
    items, reference : activities and the fixed set that they are compared with
    layers : sequence of int
        Blocks to steer; each gets the full strength.
    strengths : sequence of float

    Returns
    -------
    DataFrame
        One row a direction, strength and item: kind, direction, strength, item (number), shift (of
        its log-odds, mean over references), fluency (of the reply, against unsteered).

    Examples
    --------
    >>> options = {"layers": [15], "strengths": [0.0, 0.5], "measure": "words"}
    >>> chosen, items = {("emotion", "calm"): vectors["calm"]}, ["reading"]
    >>> found = steered_shifts(llm, chosen, vectors, items, ["singing"], **options)
    >>> found.strength.tolist(), (abs(found["shift"]) > 0.001).tolist()
    ([0.0, 0.5], [False, True])
    """
    asked = about(model, items, reference, measure=measure)
    cells = cells_of(directions, strengths)
    after = leanings(
        model,
        [question.prompt for question in asked],
        [question.options for question in asked],
        directions,
        vectors,
        strengths=strengths,
        layers=layers,
        spans=[[question.spans[0]] for question in asked],
        progress=progress,
    )
    before = answers(model, asked)
    shape = (len(cells), len(items), -1)
    shift = (after[..., 0] - after[..., 1] - before.log_odds).reshape(shape).mean(2)
    fluency = (np.logaddexp(after[..., 0], after[..., 1]) - before.fluency).reshape(shape).mean(2)
    rows = [
        (*cell, item, shift[n, item], fluency[n, item])
        for n, cell in enumerate(cells)
        for item in range(len(items))
    ]
    columns = ["kind", "direction", "strength", "item", "shift", "fluency"]
    return pd.DataFrame(rows, columns=columns)


def contrast_difference(one: pd.DataFrame, two: pd.DataFrame, a: str, b: str) -> Estimate:
    """Return how much further a and b move items apart in one way of steering than in another.

    Parameters
    ----------
    one, two : DataFrame
        From `steered_shifts`, of the same items, such as with other layers steered.
    a, b : names of directions
        The contrast is the shift by a minus the shift by b.

    Returns
    -------
    Estimate
        The contrast in `one` minus that in `two`, item by item; mean with its interval over items.

    Examples
    --------
    >>> one = pd.DataFrame({"item": [0, 0, 1, 1], "direction": ["happy", "afraid"] * 2})
    >>> one["shift"] = [0.5, -0.5, 0.7, -0.3]
    >>> contrast_difference(one, one.assign(shift=one["shift"] / 4), "happy", "afraid").value
    0.75
    """
    first, second = (
        by_item[a] - by_item[b]
        for by_item in (
            shifts.pivot(index="item", columns="direction", values="shift") for shifts in (one, two)
        )
    )
    return mean_interval((first - second).to_numpy())


def steered_elo(
    model: TracedModel,
    direction: np.ndarray,
    vectors: EmotionVectors,
    items: Sequence[str],
    *,
    steered: Sequence[int],
    layers: Sequence[int],
    strength: float,
    measure: str,
    opponents: int,
) -> np.ndarray:
    """Return the change of every item's Elo ``[n]`` when some items' tokens are steered (Fig 4).

    Elo is a sum of zero: where steering makes all comparisons less decided, high items fall and low
    ones rise without any change of what is preferred. Read it beside `steered_shifts`.

    Parameters
    ----------
    direction : ``[n_layers, d_model]``
    steered : numbers of the items whose tokens are steered
    opponents : int
        See `design`.

    Examples
    --------
    >>> items = ["reading", "singing", "queueing"]
    >>> options = {"layers": [15], "strength": 0.5, "measure": "words", "opponents": 2}
    >>> change = steered_elo(llm, vectors["calm"], vectors, items, steered=[0], **options)
    >>> change.shape, bool(abs(change.sum()) < 0.1)
    ((3,), True)
    """
    add = unit(direction) * (strength * vectors.residual_norm)[:, None]
    options = {"measure": measure, "opponents": opponents}
    before = preferences(model, items, **options)
    after = preferences(model, items, steered=steered, add=add, layers=layers, **options)
    return after.elo - before.elo


def correlation_layers(
    residuals: PooledResiduals, vectors: EmotionVectors, preference: np.ndarray
) -> pd.DataFrame:
    """Return the preference correlation of each probe at each layer: layer, emotion, r (Fig 55).

    >>> from emotion_concepts.vectors import Stacked
    >>> residuals = Stacked(np.random.default_rng(0).normal(size=(30, 2, 4)))
    >>> axes, one, zero = np.zeros((2, 2, 4)), np.ones((2, 2)), np.zeros((2, 4))
    >>> axes[range(2), :, range(2)] = 1
    >>> v = EmotionVectors(("happy", "afraid"), axes, one, zero, np.zeros(2, int), np.ones(2))
    >>> found = correlation_layers(residuals, v, preference=residuals.layer(1)[:, 0])
    >>> found.nlargest(1, "r")[["layer", "emotion"]].values.tolist()
    [[1, 'happy']]
    """
    rows = []
    for layer in range(vectors.n_layers):
        read = readings(residuals.layer(layer), vectors.at(layer))
        r = column_correlations(read, preference)
        rows += [(layer, *row) for row in zip(vectors.emotions, r, strict=True)]
    return pd.DataFrame(rows, columns=["layer", "emotion", "r"])

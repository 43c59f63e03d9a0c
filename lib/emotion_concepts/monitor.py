"""Emotions watched while a model works: a calibrated reading of every token, and rules on them.

A reading is the cosine of a token's residual stream with an emotion's vector, as a z-score: how
many standard deviations it lies from the mean over the tokens of neutral text. The cosine and not
the projection, which grows with the norm of the residual stream, so that a token with a long one
would raise an alarm whatever it says.

Single tokens are noisy, so rules look at the mean over a window of them. Neighbours are alike, and
n of them tell less than n independent readings: with r(k) the correlation of neutral readings k
tokens apart, their mean has the variance (1 + 2 sum_k (1 - k / n) r(k)) / n. Its inverse is the
effective number of tokens, its root the standard error that comes with every windowed mean.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Literal

import numpy as np
import pandas as pd

from emotion_concepts.cache import digest, write_atomic
from emotion_concepts.corpus import NEUTRAL_SKIP, corpus_hash, load_neutral
from emotion_concepts.errors import BadInput, CacheError, UnknownEmotion, WrongModel, nearest
from emotion_concepts.steering import Steering
from emotion_concepts.tracing import (
    MeanFrom,
    ModelIdentity,
    TracedModel,
    generate_reading,
    token_residuals,
    tokenize,
    tokens_in,
)
from emotion_concepts.vectors import EmotionVectors

FORMAT = "emotion-baseline"
QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
LAGS = 63  # by then two neutral readings have little more in common than their text
ROLES = ("system", "user", "assistant")
MARK = "\ue000"  # for private use: no template writes it


# --- calibration -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Baseline:
    """How the cosines with k emotions vary over the tokens of neutral text, at one layer.

    Attributes
    ----------
    emotions : tuple of str, k
    layer : int
    mean, sd : ``[k]``
    quantiles : ``[len(QUANTILES), k]``
    correlation : ``[lags, k]``
        Of readings 1, 2, ... tokens apart, about the mean over all texts.
    n_tokens : int
    identity : tracing.ModelIdentity
    vectors, texts : str
        Digests of the directions and of the neutral texts.

    Examples
    --------
    >>> about = ModelIdentity("model", "w", "t", "float32")
    >>> mean, sd, quantiles = np.array([0.25]), np.array([0.25]), np.zeros((9, 1))
    >>> alike = np.ones((3, 1))  # each reading is like those before it
    >>> baseline = Baseline(("calm",), 19, mean, sd, quantiles, alike, 100, about, "v", "t")
    >>> baseline.z(np.array([0.75])).tolist(), baseline.effective(4).tolist()
    ([2.0], [1.0])
    """

    emotions: tuple[str, ...]
    layer: int
    mean: np.ndarray
    sd: np.ndarray
    quantiles: np.ndarray
    correlation: np.ndarray
    n_tokens: int
    identity: ModelIdentity
    vectors: str
    texts: str

    def z(self, cosines: np.ndarray) -> np.ndarray:
        """Return ``[..., k]`` cosines as standard deviations from the neutral mean."""
        return (cosines - self.mean) / self.sd

    def effective(self, n: int) -> np.ndarray:
        """Return ``[k]``: how many independent readings n neighbours are worth, at most n."""
        lags = np.arange(1, n)
        return n / np.maximum(1 + 2 * (1 - lags / n) @ self.correlation[: n - 1], 1)

    def table(self, window: int = 8) -> pd.DataFrame:
        """Return a row an emotion: mean, sd, effective tokens of a window, and the quantiles."""
        columns = {"mean": self.mean, "sd": self.sd, "effective": self.effective(window)}
        columns |= dict(zip(QUANTILES, self.quantiles, strict=True))
        return pd.DataFrame(columns, index=pd.Index(self.emotions, name="emotion"))

    def check_model(self, identity: ModelIdentity) -> None:
        """Raise WrongModel unless this was calibrated on that model."""
        for what in ("weights", "tokenizer"):
            mine, theirs = getattr(self.identity, what), getattr(identity, what)
            if mine != theirs:
                raise WrongModel(
                    f"this baseline was calibrated on {self.identity.name!r} ({what} "
                    f"{mine[:12]}...), not on {identity.name!r} ({what} {theirs[:12]}...); "
                    "calibrate again on this model"
                )

    def save(self, path: str | Path) -> Path:
        """Write a JSON file, whole or not at all, and return its path."""
        path, about = Path(path), {"format": FORMAT, **asdict(self)}
        with write_atomic(path) as part:
            text = json.dumps(about, indent=1, default=np.ndarray.tolist)
            part.write_text(text + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | Path, *, identity: ModelIdentity | None = None) -> Baseline:
        """Read a baseline; with the `identity` of a model, refuse that of another (WrongModel).

        Returns
        -------
        Baseline

        Raises
        ------
        CacheError
            If the file is missing or damaged, or not a baseline.
        """
        try:
            about = json.loads(Path(path).read_text(encoding="utf-8"))
            if not isinstance(about, dict) or about.pop("format", None) != FORMAT:
                raise CacheError(f"{path} is not an {FORMAT} file; make one with `calibrate`")
            about |= {name: np.array(x) for name, x in about.items() if isinstance(x, list)}
            about["emotions"] = tuple(about["emotions"].tolist())
            baseline = cls(**{**about, "identity": ModelIdentity(**about["identity"])})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CacheError(f"{path} could not be read as a baseline: {error}") from error
        if identity is not None:
            baseline.check_model(identity)
        return baseline


def calibrate(
    model: TracedModel,
    vectors: EmotionVectors,
    watch: str | Sequence[str],
    *,
    layer: int | None = None,
    texts: Sequence[str] | None = None,
    skip: int = NEUTRAL_SKIP,
    progress: str | None = None,
) -> Baseline:
    """Measure how the readings of the emotions to watch vary where there is no emotion.

    Parameters
    ----------
    layer : int, optional
        The model's read-out layer by default.
    texts : sequence of str, optional
        ``corpus.load_neutral()`` by default.
    skip : int
        Tokens left out at the start of each text, which read alike whatever they say.

    Returns
    -------
    Baseline

    Raises
    ------
    BadInput, UnknownEmotion, UnknownLayer, WrongModel

    Examples
    --------
    >>> quiet = ["The bus stops at the corner.", "The shop opens at nine."]
    >>> baseline = calibrate(llm, vectors, "desperate", texts=quiet, skip=1)
    >>> baseline.emotions, baseline.layer, baseline.n_tokens
    (('desperate',), 19, 11)
    """
    chosen, layer = watched(model, vectors, watch, layer)
    texts = load_neutral().text.tolist() if texts is None else texts
    MeanFrom(skip).check([len(row) for row in tokenize(model, texts)], texts)
    residuals = token_residuals(model, texts, [layer], progress=progress)
    parts = [chosen.cosine(part[skip:, 0], layer) for part in residuals]
    whole, longest = np.concatenate(parts), max(map(len, parts))
    if longest < 2:
        raise BadInput(f"the texts hold no neighbouring tokens after the first {skip}; give longer")
    mean, sd = whole.mean(0), whole.std(0)
    z, lags = [(part - mean) / sd for part in parts], range(1, min(LAGS + 1, longest))
    products = [np.concatenate([part[:-lag] * part[lag:] for part in z]) for lag in lags]
    return Baseline(
        chosen.emotions,
        layer,
        mean,
        sd,
        np.quantile(whole, QUANTILES, axis=0),
        np.array([product.mean(0) for product in products]),
        len(whole),
        model.identity,
        _fingerprint(chosen, layer),
        corpus_hash(texts),
    )


def watched(
    model: TracedModel, vectors: EmotionVectors, watch: str | Sequence[str], layer: int | None
) -> tuple[EmotionVectors, int]:
    """Return the vectors of the emotions to watch, each once, and the layer to read them at.

    Parameters
    ----------
    layer : int or None
        None is the model's read-out layer.

    Raises
    ------
    BadInput, UnknownEmotion, UnknownLayer, WrongModel

    Examples
    --------
    >>> chosen, layer = watched(llm, vectors, "calm", None)
    >>> chosen.emotions, layer
    (('calm',), 19)
    """
    vectors.check_model(model.identity)
    chosen = vectors.select([watch] if isinstance(watch, str) else list(dict.fromkeys(watch)))
    if not chosen.emotions:
        raise BadInput("give at least one emotion to watch")
    return chosen, model.check_layer(model.readout_layer if layer is None else layer)


def _fingerprint(vectors: EmotionVectors, layer: int) -> str:
    used = np.vstack([vectors.at(layer), vectors.centre[layer]]).astype("<f4")
    return digest(vectors.emotions, used.tobytes().hex())


# --- readings and rules ------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """One token and what was read in it.

    Attributes
    ----------
    turn : int
        Number of the message; the template's own tokens count to the message they lead up to.
    role : str
        Of the message, or "template".
    position, token : int
        Place in the whole text, and id.
    text : str
        Of this token alone; to have a reply whole, decode its tokens together.
    z, mean, error : {emotion: float}
        The z-score, its mean over the last `window` tokens of the turn (fewer at the start), and
        the standard error of that mean.
    alarms : tuple of Rule
        The rules that fired here.

    Examples
    --------
    >>> z, mean, error = {"calm": 2.0}, {"calm": 1.5}, {"calm": 0.5}
    >>> reading = Reading(1, "assistant", 31, 504, "The", z, mean, error, (Above("calm", 1.0),))
    >>> list(reading.row())[5:], reading.row()["alarms"]
    (['z_calm', 'mean_calm', 'error_calm', 'alarms'], ['calm above 1: mark'])
    """

    turn: int
    role: str
    position: int
    token: int
    text: str
    z: dict[str, float]
    mean: dict[str, float]
    error: dict[str, float]
    alarms: tuple[Rule, ...] = ()

    def row(self) -> dict:
        """Return a flat row: turn to text, z_calm, mean_calm, error_calm, ..., alarms as text."""
        out = {name: getattr(self, name) for name in ("turn", "role", "position", "token", "text")}
        for what in ("z", "mean", "error"):
            out |= {f"{what}_{emotion}": x for emotion, x in getattr(self, what).items()}
        return out | {"alarms": [f"{rule}: {rule.action}" for rule in self.alarms]}


@dataclass(frozen=True)
class Rule(ABC):
    """When to raise an alarm, and what it sets off.

    A rule fires once a turn at most. It is first asked when a whole window of the turn has been
    read, since means of fewer tokens are often extreme by chance.

    Attributes
    ----------
    emotion : str
    then : None, callable, "stop" or Steering
        None marks the reading, and no more; a callable is given the reading; "stop" ends the
        reply with this token; a steering of one row is added to the residual stream from the next
        token on, in place of an earlier one.
    """

    emotion: str
    then: Steering | Callable[[Reading], object] | Literal["stop"] | None = field(
        default=None, kw_only=True, compare=False
    )

    @property
    def emotions(self) -> tuple[str, ...]:
        """Emotions that the rule reads."""
        return (self.emotion,)

    @property
    def action(self) -> str:
        """What the rule sets off, one of "steer", "call", "stop" and "mark"."""
        if isinstance(self.then, Steering):
            return "steer"
        return "call" if callable(self.then) else self.then or "mark"

    @abstractmethod
    def check(self, history: Sequence[Reading]) -> bool:
        """Return whether to fire at the last of the turn's readings so far that fill a window."""


@dataclass(frozen=True)
class Above(Rule):
    """The windowed z stays above `z` for so many tokens in a row.

    >>> history = [Reading(1, "assistant", n, 0, "", {}, {"calm": n}, {}) for n in range(4)]
    >>> rule = Above("calm", 1.5, tokens=2)
    >>> str(rule), rule.check(history[:3]), rule.check(history)
    ('calm above 1.5 for 2 tokens', False, True)
    """

    z: float
    tokens: int = 1

    def __post_init__(self):
        if self.tokens < 1:
            raise BadInput(f"a rule needs at least one token in a row, not {self.tokens}")

    def __str__(self) -> str:
        in_a_row = f" for {self.tokens} tokens" if self.tokens > 1 else ""
        return f"{self.emotion} above {self.z:g}{in_a_row}"

    def check(self, history: Sequence[Reading]) -> bool:
        last = history[-self.tokens :]
        return len(last) == self.tokens and all(r.mean[self.emotion] > self.z for r in last)


@dataclass(frozen=True)
class Rise(Rule):
    """The windowed z is more than `z` above the turn's first window.

    >>> history = [Reading(1, "assistant", n, 0, "", {}, {"calm": n}, {}) for n in range(4)]
    >>> rule = Rise("calm", 2, then="stop")
    >>> str(rule), rule.action, rule.check(history[:3]), rule.check(history)
    ('calm up by 2', 'stop', False, True)
    """

    z: float

    def __str__(self) -> str:
        return f"{self.emotion} up by {self.z:g}"

    def check(self, history: Sequence[Reading]) -> bool:
        return history[-1].mean[self.emotion] - history[0].mean[self.emotion] > self.z


@dataclass(frozen=True)
class Lead(Rule):
    """The windowed z of one emotion is more than `z` above that of another.

    A difference, since z-scores pass through zero, where a ratio says nothing.

    >>> means = [{"desperate": 2.0, "calm": 1.0}, {"desperate": 2.0, "calm": -1.0}]
    >>> history = [Reading(1, "assistant", n, 0, "", {}, mean, {}) for n, mean in enumerate(means)]
    >>> rule = Lead("desperate", "calm", 2)
    >>> str(rule), rule.check(history[:1]), rule.check(history)
    ('desperate 2 above calm', False, True)
    """

    other: str
    z: float

    @property
    def emotions(self) -> tuple[str, ...]:
        return (self.emotion, self.other)

    def __str__(self) -> str:
        return f"{self.emotion} {self.z:g} above {self.other}"

    def check(self, history: Sequence[Reading]) -> bool:
        return history[-1].mean[self.emotion] - history[-1].mean[self.other] > self.z


# --- the monitor -------------------------------------------------------------------------------


class EmotionMonitor:
    """Reads every token of a chat, finished or as it is generated.

    A model without a chat template reads the Human / Assistant transcript of `chat_prompt`.

    Parameters
    ----------
    baseline : Baseline
        From :func:`calibrate`; says which emotions are watched, and at which layer.
    window : int
        Tokens to average over.
    rules : sequence of Rule
    log : path, optional
        A JSON-lines file that :meth:`stream` appends its readings to, turn by turn;
        ``pd.read_json(path, lines=True)`` loads it.

    Raises
    ------
    WrongModel
        If vectors or baseline belong to another model, or the baseline to other vectors.
    BadInput, UnknownEmotion, UnknownLayer
        For a window longer than the baseline covers, or a rule that cannot be followed.

    Examples
    --------
    >>> quiet = ["The bus stops at the corner.", "The shop opens at nine."]
    >>> baseline = calibrate(llm, vectors, ["calm", "desperate"], texts=quiet, skip=1)
    >>> monitor = EmotionMonitor(llm, vectors, baseline, window=1, rules=[Above("calm", 5)])
    >>> rows = monitor.transcript([{"role": "user", "content": "I feel so calm today."}])
    >>> rows.text[rows.alarms.str.len() > 0].tolist()
    [' calm']
    """

    def __init__(
        self,
        model: TracedModel,
        vectors: EmotionVectors,
        baseline: Baseline,
        *,
        window: int = 8,
        rules: Sequence[Rule] = (),
        log: str | Path | None = None,
    ):
        vectors.check_model(model.identity)
        baseline.check_model(model.identity)
        self.vectors = vectors.select(baseline.emotions)
        if _fingerprint(self.vectors, baseline.layer) != baseline.vectors:
            raise WrongModel("the baseline was made with other vectors; calibrate with these")
        longest = len(baseline.correlation) + 1
        if not 1 <= window <= longest:
            raise BadInput(f"with this baseline a window holds 1 to {longest} tokens, not {window}")
        self.model, self.baseline, self.window = model, baseline, window
        self.errors = [baseline.effective(n) ** -0.5 for n in range(1, window + 1)]
        self.rules, self.log = tuple(rules), None if log is None else Path(log)
        for rule in self.rules:
            self._check(rule)

    def _check(self, rule: Rule) -> None:
        watched, then = self.baseline.emotions, rule.then
        for emotion in rule.emotions:
            if emotion not in watched:
                raise UnknownEmotion(
                    f"the rule '{rule}' needs {emotion!r}, which is not watched; "
                    f"{nearest(emotion, watched)} (or calibrate with it)"
                )
        if isinstance(then, Steering):
            if len(then) != 1 or then.spans is not None:
                raise BadInput(f"the rule '{rule}' steers one reply: give one row without spans")
            for layer in then.layers:
                self.model.check_layer(layer)
        elif not (callable(then) or then in (None, "stop")):
            raise BadInput(
                f"the rule '{rule}' cannot do {then!r}; give None, 'stop', a function or a Steering"
            )

    def transcript(self, messages: Sequence[dict]) -> pd.DataFrame:
        """Read a finished chat in one pass, which may run on a server.

        Parameters
        ----------
        messages : sequence of {"role": "system", "user" or "assistant", "content": str}

        Returns
        -------
        DataFrame
            One row a token up to where the next reply begins: turn, role, position, token, text,
            z_*, mean_* and error_* of each emotion, alarms; see `Reading`. Rules are asked in every
            turn, whoever's it is, and set nothing off.

        Raises
        ------
        BadInput
            For no messages, one that is not of this form, or more than the model reads at once.
        """
        layer, (text, spans) = self.baseline.layer, chat_words(self.model, messages)
        self.model.check_length([text])
        [tokens] = tokenize(self.model, [text])
        [residuals] = token_residuals(self.model, [text], [layer])
        inside = [tokens_in(self.model, text, [span]) for span in spans]
        ends, words = [places[-1] for places in inside], set(chain(*inside))
        cosines = self.vectors.cosine(residuals[:, 0], layer)
        turns, rows = {}, []
        for n, (token, found) in enumerate(zip(tokens, cosines, strict=True)):
            number = bisect_left(ends, n)
            key = number, messages[number]["role"] if n in words else "template"
            turns[key] = turns.get(key) or _Turn(self, *key)
            rows.append(turns[key].read(n, token, found).row())
        return pd.DataFrame(rows)

    def stream(
        self,
        messages: Sequence[dict],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[Reading]:
        """Generate the reply to a chat; yield each token with its reading as soon as it is read.

        The tokens are those of `tracing.generate` with the same settings, until a rule stops or
        steers them. While the caller looks at a reading the model waits, and refuses other work;
        to leave the loop, or close the iterator, ends the reply with that token.

        Raises
        ------
        BadInput
            As :meth:`transcript`; for a chat that leaves no room for the reply; and, once it
            begins, for a model on a server.
        """
        messages = check_messages(messages)
        options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
        turn, prompt = _Turn(self, len(messages), "assistant"), self.model.chat_prompt(messages)
        self.model.check_length([prompt], room=max_new_tokens)
        return self._stream(prompt, turn, options)

    def _stream(self, prompt: str, turn: _Turn, options: dict) -> Iterator[Reading]:
        began, position = datetime.now(UTC), len(tokenize(self.model, [prompt])[0])
        found, answers = SimpleQueue(), SimpleQueue()

        def on_token(token: int, cosines: np.ndarray) -> Steering | bool | None:
            found.put((token, cosines))
            return answers.get()

        def generate() -> None:
            layer, end = self.baseline.layer, None
            where = {"centre": self.vectors.centre[layer], "on_token": on_token}
            try:
                generate_reading(
                    self.model, prompt, layer, self.vectors.at(layer), **where, **options
                )
            except BaseException as error:  # of any kind: nobody may wait for ever
                end = error
            found.put(end)

        # nnsight runs a trace from end to end in one call, so that it needs a thread of its own
        worker = Thread(target=generate, daemon=True)
        worker.start()
        try:
            while isinstance(item := found.get(), tuple):
                reading = turn.read(position + len(turn.history), *item)
                actions = [rule.then for rule in reading.alarms]
                for act in filter(callable, actions):
                    act(reading)
                yield reading
                if "stop" in actions:
                    return
                answers.put(next((a for a in actions[::-1] if isinstance(a, Steering)), None))
            if item is not None:
                raise item
        finally:
            answers.put(False)
            worker.join()
            if self.log is not None:
                _append(self.log, began, turn.history)


class _Turn:
    """A turn as it is read: its readings so far, and the rules that have not fired in it."""

    def __init__(self, monitor: EmotionMonitor, number: int, role: str):
        self.monitor, self.number, self.role = monitor, number, role
        self.history: list[Reading] = []
        self.z: list[np.ndarray] = []
        self.waiting = [] if role == "template" else list(monitor.rules)

    def read(self, position: int, token: int, cosines: np.ndarray) -> Reading:
        """Return the reading of the turn's next token, with the rules that fire at it."""
        window, baseline = self.monitor.window, self.monitor.baseline
        self.z.append(baseline.z(cosines))
        last = self.z[-window:]
        values = [self.z[-1], np.mean(last, axis=0), self.monitor.errors[len(last) - 1]]
        named = [dict(zip(baseline.emotions, map(float, row), strict=True)) for row in values]
        text = self.monitor.model.tokenizer.decode([token])
        reading = Reading(self.number, self.role, position, token, text, *named)
        self.history.append(reading)
        if full := self.history[window - 1 :]:
            fired, waiting = [], []
            for rule in self.waiting:
                (fired if rule.check(full) else waiting).append(rule)
            self.waiting = waiting
            self.history[-1] = replace(reading, alarms=tuple(fired))
        return self.history[-1]


def chat_words(model: TracedModel, messages: Sequence[dict]) -> tuple[str, list[tuple[int, int]]]:
    """Return a chat in the model's template, and the characters of each message's own words.

    >>> chat = [{"role": "user", "content": "The bus stops at the corner."}]
    >>> text, [(start, end)] = chat_words(llm, chat)
    >>> text[start:end], text[end : end + 10]
    ('The bus stops at the corner.', '<|im_end|>')
    """
    messages = check_messages(messages)
    text = model.chat_prompt(messages)
    frame = model.chat_prompt([{**message, "content": MARK} for message in messages]).split(MARK)
    for clean in (str, str.strip):  # some templates strip what they are given
        words = [clean(message["content"]) for message in messages]
        parts = list(chain(*zip(frame, words, strict=False)))
        if "".join([*parts, frame[-1]]) == text:
            ends = np.cumsum([len(part) for part in parts]).tolist()[1::2]
            return text, [(end - len(word), end) for end, word in zip(ends, words, strict=True)]
    raise BadInput(
        f"the chat template of {model.identity.name!r} rewrites these messages, so their tokens "
        "cannot be told apart; give them as it would write them"
    )


def check_messages(messages: Sequence[Mapping]) -> list[dict]:
    """Return the messages of a chat, checked, with their roles and contents alone.

    Raises
    ------
    BadInput
        For no messages, or one that is not of the form {"role": "system", "user" or "assistant",
        "content": str} with some content.

    Examples
    --------
    >>> check_messages([{"role": "user", "content": "Hello!", "id": 7}])
    [{'role': 'user', 'content': 'Hello!'}]
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        raise BadInput(
            "give a list of messages, each a dict with role and content, "
            f"not {type(messages).__name__}"
        )
    if not messages:
        raise BadInput("there are no messages; give a list of messages, at least one")
    for n, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise BadInput(
                f"message {n} is a {type(message).__name__}; give a dict with role and content"
            )
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise BadInput(f"message {n} has the role {role!r}; {nearest(str(role), ROLES)}")
        if not isinstance(content, str):
            raise BadInput(
                f"the content of message {n} is no text but {type(content).__name__}; give a text"
            )
        if not content.strip():
            raise BadInput(f"message {n} is empty; fill it or leave it out")
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _append(path: Path, began: datetime, readings: Sequence[Reading]) -> None:
    rows = [{"began_at": began.isoformat(), **reading.row()} for reading in readings]
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)

"""Emotion vectors: how they are made from pooled residuals, and how they read a residual stream.

The recipe (paper, "Corpus and vector construction"), at every layer on its own:

1. pool each story over its tokens (done in `tracing`);
2. where every emotion was written for every topic, remove each topic's mean;
3. average the stories of an emotion, and subtract the mean over emotions;
4. project out the principal components of neutral text that hold half of its variance;
5. scale to unit length.

Pure NumPy: no model is run here. A vectors file names the model it was fitted on and refuses
another.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from emotion_concepts import __version__
from emotion_concepts.cache import write_atomic
from emotion_concepts.errors import (
    BadInput,
    CacheError,
    UnknownEmotion,
    UnknownLayer,
    WrongModel,
    nearest,
)
from emotion_concepts.geometry import components_for, project_out, unit

FORMAT, VERSION = "emotion-vectors", 1
LAYER_CONVENTION = "output of decoder block L, counted from 0"


class LayeredActivations(Protocol):
    """Anything that gives ``[n, d_model]`` a layer: `tracing.PooledResiduals`, or `Stacked`."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(texts, layers, d_model)."""

    def layer(self, layer: int) -> np.ndarray:
        """Return ``[texts, d_model]`` of one layer."""


@dataclass(frozen=True)
class Stacked:
    """An ``[n, n_layers, d_model]`` array in memory, read layer by layer.

    >>> texts = Stacked(np.arange(12).reshape(3, 2, 2))
    >>> texts.shape, texts.layer(1).tolist()
    ((3, 2, 2), [[2, 3], [6, 7], [10, 11]])
    """

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """(texts, layers, d_model)."""
        return self.array.shape

    def layer(self, layer: int) -> np.ndarray:
        """Return ``[texts, d_model]`` of one layer."""
        return self.array[:, layer]


@dataclass(frozen=True)
class Provenance:
    """What a vectors file was made from.

    Attributes
    ----------
    model, weights, tokenizer : str
        The model's name and the hashes of its weights (or the hub's commit) and tokenizer.
    corpus : str
        Hash of the stories; `neutral` that of the neutral texts.
    skip : int
        Tokens left out at the start of each story; of an average, the least.
    neutral_variance : float
        Share of the neutral variance that was projected out.
    library, layer_convention : str

    Examples
    --------
    >>> made = Provenance("model", "w", "t", "corpus", "neutral", skip=20, neutral_variance=0.5)
    >>> made.layer_convention
    'output of decoder block L, counted from 0'
    """

    model: str
    weights: str
    tokenizer: str
    corpus: str
    neutral: str
    skip: int
    neutral_variance: float
    library: str = __version__
    layer_convention: str = LAYER_CONVENTION


@dataclass(frozen=True)
class EmotionVectors:
    """One unit vector an emotion and layer, with what is needed to read with it.

    Attributes
    ----------
    emotions : tuple of str, n
    directions : ``[n, n_layers, d_model]`` float32
        Unit vectors.
    norms : ``[n, n_layers]``
        Their lengths before step 5, in units of the residual stream.
    centre : ``[n_layers, d_model]``
        Mean over emotions of the story means: the origin of centred read-outs.
    neutral_k : ``[n_layers]`` int
        Neutral components projected out.
    residual_norm : ``[n_layers]``
        Mean norm of pooled neutral texts (each the average over its tokens, which is shorter than
        a token is): the unit of steering strength.
    provenance : Provenance or None
        None only for vectors that never leave memory, such as those of a bootstrap sample.

    Examples
    --------
    >>> zero, one = np.zeros((1, 2)), np.ones((2, 1))
    >>> axes = np.eye(2)[:, None]
    >>> v = EmotionVectors(("calm", "angry"), axes, one, zero, np.zeros(1, int), np.ones(1))
    >>> v.cosine(np.array([3.0, 4.0]), 0).tolist()
    [0.6, 0.8]
    """

    emotions: tuple[str, ...]
    directions: np.ndarray
    norms: np.ndarray
    centre: np.ndarray
    neutral_k: np.ndarray
    residual_norm: np.ndarray
    provenance: Provenance | None = None

    # --- making -------------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        stories: LayeredActivations,
        emotions: Sequence[str],
        neutral: LayeredActivations,
        *,
        topics: Sequence[str] | None = None,
        neutral_variance: float = 0.5,
        provenance: Provenance | None = None,
    ) -> EmotionVectors:
        """Fit vectors by the recipe above.

        Parameters
        ----------
        stories : ``[n_stories, n_layers, d_model]``
            Pooled residuals, e.g. from :func:`tracing.pooled_residuals`.
        emotions, topics : sequences of str, n_stories
            Labels of each story; with `topics` every topic must hold the same emotions, each in as
            many stories as in the other topics.
        neutral : ``[n_texts, n_layers, d_model]``
            Pooled residuals of neutral text, at least two to project anything out.
        neutral_variance : float
            0 projects nothing out.

        Returns
        -------
        EmotionVectors

        Raises
        ------
        BadInput
            If lengths differ, there are fewer than two emotions, topics are not crossed, or the
            neutral texts are too few or of other layers or another width than the stories.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> stories = Stacked(rng.normal(size=(8, 2, 4)))
        >>> neutral = Stacked(rng.normal(size=(9, 2, 4)))
        >>> vectors = EmotionVectors.fit(stories, ["calm", "angry"] * 4, neutral)
        >>> vectors.directions.shape
        (2, 2, 4)
        """
        n, n_layers, d_model = stories.shape
        names = tuple(dict.fromkeys(emotions))
        if len(emotions) != n:
            raise BadInput(f"{n} stories need {n} labels, not {len(emotions)}")
        if topics is not None and len(topics) != n:
            raise BadInput(f"{n} stories need {n} topics, not {len(topics)}")
        if len(names) < 2:
            raise BadInput("a vector is a difference between emotions: give at least two")
        least = 2 if neutral_variance else 1
        if neutral.shape[0] < least or neutral.shape[1:] != stories.shape[1:]:
            raise BadInput(
                f"stories of {n_layers} layers and {d_model} dimensions need neutral texts of the "
                f"same, at least {least}, not {list(neutral.shape)}"
            )
        design = _averaging(emotions, names)
        crossing = _topic_means(emotions, topics) if topics is not None else None
        directions = np.empty((len(names), n_layers, d_model), dtype=np.float32)
        norms = np.empty((len(names), n_layers))
        centre = np.empty((n_layers, d_model))
        residual_norm, neutral_k = np.empty(n_layers), np.empty(n_layers, dtype=int)
        for layer in range(n_layers):
            x = stories.layer(layer).astype(float)
            quiet = neutral.layer(layer).astype(float)
            components = components_for(quiet, neutral_variance)
            means = design @ x
            centre[layer] = means.mean(0)
            if crossing is not None:
                means = design @ (x - crossing(x))
            found = project_out(means - means.mean(0), components)
            norms[:, layer] = np.linalg.norm(found, axis=1)
            directions[:, layer] = unit(found)
            residual_norm[layer] = np.linalg.norm(quiet, axis=1).mean()
            neutral_k[layer] = len(components)
        return cls(names, directions, norms, centre, neutral_k, residual_norm, provenance)

    # --- reading ------------------------------------------------------------------------------

    @property
    def n_layers(self) -> int:
        """How many layers there are vectors of."""
        return self.directions.shape[1]

    def row(self, emotion: str) -> int:
        """Return the row of an emotion.

        Raises
        ------
        UnknownEmotion
        """
        if emotion not in self.emotions:
            raise UnknownEmotion(f"no vector for {emotion!r}: {nearest(emotion, self.emotions)}")
        return self.emotions.index(emotion)

    def __getitem__(self, emotion: str) -> np.ndarray:
        """Return ``[n_layers, d_model]`` unit vectors of one emotion."""
        return self.directions[self.row(emotion)]

    def at(self, layer: int) -> np.ndarray:
        """Return ``[n_emotions, d_model]`` unit vectors of one layer.

        Raises
        ------
        UnknownLayer
        """
        if not 0 <= layer < self.n_layers:
            raise UnknownLayer(f"these vectors have layers 0 to {self.n_layers - 1}, not {layer}")
        return self.directions[:, layer]

    def select(self, emotions: Sequence[str]) -> EmotionVectors:
        """Return the vectors of some emotions, in the order given.

        Raises
        ------
        UnknownEmotion
        BadInput
            For one string in the place of a list.
        """
        if isinstance(emotions, str):
            raise BadInput(f"give a list of emotions, such as [{emotions!r}], not one string")
        rows = [self.row(emotion) for emotion in emotions]
        return EmotionVectors(
            tuple(emotions),
            self.directions[rows],
            self.norms[rows],
            self.centre,
            self.neutral_k,
            self.residual_norm,
            self.provenance,
        )

    def project(self, residuals: np.ndarray, layer: int) -> np.ndarray:
        """Return ``[..., n_emotions]`` lengths along each vector, residuals ``[..., d_model]``."""
        return residuals @ self.at(layer).T

    def cosine(self, residuals: np.ndarray, layer: int, *, centred: bool = True) -> np.ndarray:
        """Return ``[..., n_emotions]`` cosines of residuals ``[..., d_model]`` with each vector.

        centred subtracts the mean over emotions first: without it the few dimensions that are
        huge in every residual decide the cosine.

        Raises
        ------
        UnknownLayer
        """
        directions = self.at(layer)
        x = residuals - self.centre[layer] if centred else residuals
        return unit(x) @ directions.T

    @classmethod
    def average(cls, parts: Sequence[EmotionVectors]) -> EmotionVectors:
        """Return the unit mean of vectors fitted on several corpora of the same model.

        What belongs to one way of writing is averaged out; what belongs to the emotion stays.

        Raises
        ------
        BadInput
            If there are none, or their emotions differ.
        WrongModel
            If the models differ, or only some say which it was.
        """
        if not parts:
            raise BadInput("there are no vectors to average; give at least one")
        first, names = parts[0], sorted(parts[0].emotions)
        if any(sorted(part.emotions) != names for part in parts):
            raise BadInput("vectors of different emotions cannot be averaged; select the same ones")
        made = [part.provenance for part in parts]
        if len({p is None for p in made}) > 1:
            raise WrongModel(
                "some of these vectors do not say which model they were fitted on; fit all of them "
                "with a provenance"
            )
        if len({p and (p.weights, p.tokenizer) for p in made}) > 1:
            raise WrongModel("vectors of different models cannot be averaged")
        parts = [part.select(first.emotions) for part in parts]

        def mean(name: str) -> np.ndarray:
            return np.mean([getattr(part, name) for part in parts], axis=0)

        whole = first.provenance and replace(
            first.provenance,
            corpus="+".join(p.corpus for p in made),
            skip=min(p.skip for p in made),
            neutral="+".join(dict.fromkeys(p.neutral for p in made)),
        )
        return cls(
            first.emotions,
            unit(mean("directions")).astype(np.float32),
            mean("norms"),
            mean("centre"),
            np.max([part.neutral_k for part in parts], axis=0),
            mean("residual_norm"),
            whole,
        )

    # --- keeping ------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file, whole or not at all, with its provenance; return its path."""
        path = Path(path)
        if self.provenance is None:
            raise BadInput("vectors without provenance are not saved: fit them with one")
        tensors = {
            "directions": np.ascontiguousarray(self.directions, dtype=np.float32),
            "norms": np.ascontiguousarray(self.norms, dtype=np.float32),
            "centre": np.ascontiguousarray(self.centre, dtype=np.float32),
            "neutral_k": np.ascontiguousarray(self.neutral_k, dtype=np.int32),
            "residual_norm": np.ascontiguousarray(self.residual_norm, dtype=np.float32),
        }
        made = asdict(self.provenance)
        about = {"version": VERSION, "emotions": self.emotions, "provenance": made}
        with write_atomic(path) as part:
            # one entry: safetensors writes several in no fixed order, and equal vectors should
            # give equal files
            save_file(tensors, part, metadata={FORMAT: json.dumps(about)})
        return path

    @classmethod
    def load(cls, path: str | Path, *, identity=None) -> EmotionVectors:
        """Read a vectors file.

        Parameters
        ----------
        identity : tracing.ModelIdentity, optional
            ``model.identity`` of the model they are to be used on; another one is refused.

        Returns
        -------
        EmotionVectors

        Raises
        ------
        CacheError
            If the file is missing or damaged, not a vectors file, or one whose layers are counted
            otherwise.
        WrongModel
            If the vectors belong to another model, revision or tokenizer.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if FORMAT not in metadata:
                    raise CacheError(f"{path} is not an emotion-vectors file")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = json.loads(metadata[FORMAT])
            emotions, provenance = tuple(about["emotions"]), Provenance(**about["provenance"])
            vectors = cls(emotions=emotions, provenance=provenance, **tensors)
            version = about["version"]
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CacheError(f"{path} could not be read as a vectors file: {error}") from error
        for what, known, found in (
            ("format", VERSION, version),
            ("layer convention", LAYER_CONVENTION, provenance.layer_convention),
        ):
            if found != known:
                raise CacheError(
                    f"{path} has the {what} {found!r} and not {known!r}; fit the vectors again "
                    "with this library"
                )
        if identity is not None:
            vectors.check_model(identity)
        return vectors

    def check_model(self, identity) -> None:
        """Raise WrongModel unless the vectors were fitted on this `tracing.ModelIdentity`."""
        made = self.provenance
        if made is None:
            raise WrongModel("these vectors do not say which model they were fitted on")
        for what in ("weights", "tokenizer"):
            mine, theirs = getattr(made, what), getattr(identity, what)
            if mine != theirs:
                raise WrongModel(
                    f"these vectors were fitted on {made.model!r} ({what} {mine[:12]}...), not on "
                    f"{identity.name!r} ({what} {theirs[:12]}...); fit them again on this model"
                )


def _averaging(labels: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Return ``[len(names), n]`` that averages rows by label."""
    labels = np.asarray(labels)
    one_hot = (np.asarray(names)[:, None] == labels[None]).astype(float)
    return one_hot / one_hot.sum(1, keepdims=True)


def _topic_means(emotions: Sequence[str], topics: Sequence[str]):
    """Return a function that gives each story its topic's mean; check the crossing first."""
    cells: dict[str, list[str]] = {}
    for emotion, topic in zip(emotions, topics, strict=True):
        cells.setdefault(topic, []).append(emotion)
    first = sorted(next(iter(cells.values())))
    for topic, found in cells.items():
        if sorted(found) != first:
            raise BadInput(
                f"topic {topic!r} does not hold the same emotions as the first topic, so its mean "
                "would remove emotion too; drop it, or pass topics=None"
            )
    names = tuple(cells)
    average = _averaging(topics, names)
    which = np.array([names.index(topic) for topic in topics])
    return lambda x: (average @ x)[which]

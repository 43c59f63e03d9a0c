"""What the command line needs before it can start: made once, and kept in the user's cache.

A file's name is a digest of all that it depends on, so that nothing kept is ever out of date. One
that is damaged is made anew.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from emotion_concepts import __version__, corpus
from emotion_concepts.cache import cache_dir, digest
from emotion_concepts.errors import CacheError, WrongModel
from emotion_concepts.experiments import extraction
from emotion_concepts.monitor import Baseline, calibrate, watched
from emotion_concepts.tracing import CACHE_VERSION, TracedModel
from emotion_concepts.vectors import EmotionVectors

Kept = TypeVar("Kept", EmotionVectors, Baseline)


def prepared_vectors(
    model: TracedModel, *, topics: int = 4, progress: bool = True
) -> EmotionVectors:
    """Return vectors of all emotions, averaged over the packaged registers.

    Making them takes a reading of all stories; one that was interrupted goes on from where it was.

    Parameters
    ----------
    topics : int
        Of each register, the first so many.
    progress : bool
        Say on standard error what is being made, with progress bars.

    Raises
    ------
    BadInput
        For more topics than a register has.
    """
    texts = [corpus.load_stories(register, topics=topics).text for register in corpus.REGISTERS]
    texts.append(corpus.load_neutral().text)

    def make() -> EmotionVectors:
        parts = [
            extraction.extract(model, register, topics=topics, progress=progress).vectors
            for register in corpus.REGISTERS
        ]
        return EmotionVectors.average(parts)

    what = f"emotion vectors of {model.identity.name}"
    how = (corpus.SKIP, corpus.NEUTRAL_SKIP, extraction.NEUTRAL_VARIANCE)
    name = _digest(model, how, *map(corpus.corpus_hash, texts))
    path = cache_dir() / "vectors" / f"{name}.safetensors"
    return _kept(EmotionVectors, path, model, make, what if progress else None)


def prepared_baseline(
    model: TracedModel,
    vectors: EmotionVectors,
    watch: str | Sequence[str],
    *,
    layer: int | None = None,
    progress: bool = True,
) -> Baseline:
    """Return the baseline of :func:`monitor.calibrate` on the packaged neutral texts.

    Parameters
    ----------
    layer : int, optional
        The model's read-out layer by default.
    progress : bool
        Say on standard error what is being made, with a progress bar.

    Raises
    ------
    BadInput, UnknownEmotion, UnknownLayer, WrongModel
        As `calibrate`.
    """
    chosen, layer = watched(model, vectors, watch, layer)
    texts = corpus.load_neutral().text.tolist()

    def make() -> Baseline:
        label = "neutral texts" if progress else None
        return calibrate(model, chosen, chosen.emotions, layer=layer, texts=texts, progress=label)

    used = [part.astype("<f4").tobytes().hex() for part in (chosen.at(layer), chosen.centre[layer])]
    how = (chosen.emotions, layer, used, corpus.NEUTRAL_SKIP)
    name = _digest(model, how, corpus.corpus_hash(texts))
    path = cache_dir() / "baselines" / f"{name}.json"
    what = f"a baseline of {', '.join(chosen.emotions)}"
    return _kept(Baseline, path, model, make, what if progress else None)


def _digest(model: TracedModel, *parts: object) -> str:
    # precision is no part of what vectors belong to, but moves the readings they are made from
    about = model.identity
    pins = (about.weights, about.tokenizer, about.dtype, __version__, CACHE_VERSION)
    return digest(*pins, *parts)


def _kept(
    kind: type[Kept], path: Path, model: TracedModel, make: Callable[[], Kept], what: str | None
) -> Kept:
    """Return what is kept at a path; make it first if it is not there or not what it should be."""
    try:
        return kind.load(path, identity=model.identity)
    except (CacheError, WrongModel):
        if what:
            print(f"making {what}: this takes minutes, and only once", file=sys.stderr)
        # read back, so that the first time gives the same numbers as the next
        return kind.load(make().save(path))

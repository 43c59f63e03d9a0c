"""Every error of the library: each says what was wrong and what to do about it.

Catch :class:`EmotionConceptsError` to catch them all. Nothing else lives here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EmotionConceptsError(Exception):
    """Base of all errors that a user of the library can cause and mend."""


class BadInput(EmotionConceptsError):
    """A value that cannot be used: wrong shape, empty text, missing column, unknown option."""


class UnknownEmotion(BadInput):
    """An emotion word outside the 171."""


class UnknownLayer(BadInput):
    """A layer that the model or the vectors do not have."""


class UnknownModel(EmotionConceptsError):
    """A model name that is neither in the registry, nor a folder, nor on the hub or server."""


class WeightsUnavailable(EmotionConceptsError):
    """Weights that could not be fetched: no network, missing package, failed checksum."""


class ModelTooLarge(EmotionConceptsError):
    """A model whose weights, or one text beside them, do not fit into the memory at hand."""


class UnsupportedArchitecture(EmotionConceptsError):
    """A model whose decoder blocks could not be found or do not follow the layer convention."""


class ServerError(EmotionConceptsError):
    """An NDIF server that cannot be reached, refuses a job, fails in it or drops it."""


class WrongModel(EmotionConceptsError):
    """Vectors that were fitted on another model, revision or tokenizer."""


class CacheError(EmotionConceptsError):
    """A cache or result file that is damaged or belongs to something else."""


class JudgeUnavailable(EmotionConceptsError):
    """A judge that cannot be asked: missing package, no server, refused key, failing server."""


class SandboxUnavailable(EmotionConceptsError):
    """A machine on which code cannot be locked away; it was not run."""


class RegisterError(EmotionConceptsError):
    """A result that is missing from, or does not fit into, the register."""


def nearest(name: str, names: Iterable[str], *, n: int = 3) -> str:
    """Return a hint that names the closest valid choices.

    >>> nearest("hapy", ["happy", "sad"])
    'did you mean happy?'
    >>> nearest("zzz", ["happy", "sad"])
    'choose from: happy, sad'
    """
    names = list(names)
    close = difflib.get_close_matches(name, names, n=n, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(close)}?"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"choose from: {shown}"

"""How positive or negative a text is by its words: VADER's lexicon and rules, no model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from emotion_concepts.errors import BadInput


def text_valence(texts: Sequence[str]) -> np.ndarray:
    """Return VADER's compound score of each text, ``[n]`` from -1 to 1 (Hutto & Gilbert 2014).

    The score sums the valence of the words, with rules for negation and emphasis, and squashes the
    sum: a paragraph with many such words comes near the ends. English only.

    Raises
    ------
    BadInput
        For one string instead of a list.

    Examples
    --------
    >>> text_valence(["What a wonderful day!", "This is a table.", "I hate it."]).round(2).tolist()
    [0.61, 0.0, -0.57]
    """
    if isinstance(texts, str):
        raise BadInput("give a list of texts, not one string")
    return np.array([_analyzer().polarity_scores(text)["compound"] for text in texts])


@cache
def _analyzer() -> SentimentIntensityAnalyzer:
    return SentimentIntensityAnalyzer()

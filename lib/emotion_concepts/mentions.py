"""Texts that mention an emotion's word where nobody feels it: ``data/scenarios/mentions.yaml``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from emotion_concepts.corpus import check_emotions, leaks
from emotion_concepts.errors import BadInput, UnknownEmotion
from emotion_concepts.scenarios import check_text, read_entries, read_yaml

VERSIONS = ("mention", "twin")
WORDS = (25, 60)


def load_mentions(path: str | Path | None = None) -> pd.DataFrame:
    """Return texts with an emotion's word and no feeling, each with a twin without the word.

    Parameters
    ----------
    path : str or Path, optional
        A .yaml of your own in the form of the packaged ``scenarios/mentions.yaml``.

    Returns
    -------
    DataFrame ``[80, 4]``
        One row a text and version: id, emotion (whose word is mentioned), version (one of
        `VERSIONS`), text. In the twin an indifferent word stands in the word's place.

    Raises
    ------
    BadInput
        For a missing field, an id that stands twice, a text without exactly one ``{slot}``, a
        filling of other than one word, a mention that names its emotion by no word of its family,
        or a text that is too short or too long or names one of the 171 emotions elsewhere.
    UnknownEmotion
        For an emotion outside the 171.

    Examples
    --------
    >>> mentions = load_mentions()
    >>> mentions.query("version == 'mention'").emotion.value_counts().to_dict()
    {'desperate': 16, 'calm': 5, 'afraid': 5, 'angry': 5, 'happy': 5, 'sad': 4}
    >>> mentions.query("id == 'tea_order'").text.str.extract(r"name (\\w+)")[0].tolist()
    ['Calm', 'Dune']
    """
    file, data = read_yaml("mentions", path)
    rows = []
    fields = ("id", "emotion", "text", *VERSIONS)
    for where, name, emotion, text, *words in read_entries(file, data, "mentions", *fields):
        try:
            check_emotions([emotion])
        except UnknownEmotion as error:
            raise UnknownEmotion(f"{where}: {error}") from None
        if str(text).count("{") != 1 or "{slot}" not in str(text):
            raise BadInput(f"{where}: write {{slot}} once in text, and no other brace: {text!r}")
        for version, word in zip(VERSIONS, words, strict=True):
            if not isinstance(word, str) or len(word.split()) != 1:
                raise BadInput(f"{where}: {version} must be one word, not {word!r}")
        mention, twin = (text.replace("{slot}", word) for word in words)
        check_text(where, "the twin", twin, WORDS)
        if not leaks(mention, emotion):  # in the whole text, where "sad7" would not stand out
            raise BadInput(
                f"{where}: the mention {words[0]!r} does not name {emotion!r}; "
                "use a word of its family"
            )
        rows += [(name, emotion, *row) for row in zip(VERSIONS, (mention, twin), strict=True)]
    return pd.DataFrame(rows, columns=["id", "emotion", "version", "text"])

"""Messages with and without what is said to load an emotion: ``scenarios/triggers.yaml``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from emotion_concepts.corpus import check_emotions
from emotion_concepts.errors import BadInput, UnknownEmotion
from emotion_concepts.scenarios import check_text, read_entries, read_yaml

VERSIONS = ("with", "without")
# A longer message could move a reading by itself.
SPREAD = 3
WORDS = (25, 70)


def load_triggers(path: str | Path | None = None) -> pd.DataFrame:
    """Return pairs of user messages that differ in one trigger, read where the reply begins.

    Parameters
    ----------
    path : str or Path, optional
        A .yaml of your own in the form of the packaged ``scenarios/triggers.yaml``.

    Returns
    -------
    DataFrame ``[168, 5]``
        One row a pair and version: id, emotion (that the trigger is said to load; 7 of 12 pairs
        each), trigger, version (one of `VERSIONS`), text. The two versions of a pair differ by at
        most `SPREAD` words in length.

    Raises
    ------
    BadInput
        For a missing field, an id that stands twice, a text without exactly one ``{slot}``,
        versions of unequal length, or a message that is too short or too long or names one of the
        171 emotions.
    UnknownEmotion
        For an emotion outside the 171.

    Examples
    --------
    >>> triggers = load_triggers()
    >>> triggers.query("version == 'with'").groupby("emotion").size().unique().tolist()
    [12]
    >>> triggers.query("id == 'dairy_order'").text.str.split(", ").str[-1].tolist()
    ['and the dairy has always sent just that.', 'and the owner has bought two goats.']
    """
    file, data = read_yaml("triggers", path)
    rows = []
    fields = ("id", "emotion", "trigger", "text", *VERSIONS)
    for where, *row, text, given, indifferent in read_entries(file, data, "pairs", *fields):
        try:
            check_emotions([row[1]])
        except UnknownEmotion as error:
            raise UnknownEmotion(f"{where}: {error}") from None
        if str(text).count("{") != 1 or "{slot}" not in str(text):
            raise BadInput(f"{where}: write {{slot}} once in text, and no other brace: {text!r}")
        slots = dict(zip(VERSIONS, (given, indifferent), strict=True))
        lengths = [check_text(where, version, slot) for version, slot in slots.items()]
        if abs(lengths[0] - lengths[1]) > SPREAD:
            raise BadInput(
                f"{where}: with has {lengths[0]} words and without {lengths[1]}; "
                f"bring them within {SPREAD} of each other"
            )
        for version, slot in slots.items():
            message = text.replace("{slot}", slot)
            check_text(where, f"text {version}", message, WORDS)
            rows.append((*row, version, message))
    return pd.DataFrame(rows, columns=["id", "emotion", "trigger", "version", "text"])

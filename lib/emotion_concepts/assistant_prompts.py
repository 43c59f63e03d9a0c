"""Messages to an assistant before and after post-training: ``scenarios/assistant_prompts.yaml``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from emotion_concepts.errors import BadInput, nearest
from emotion_concepts.scenarios import check_text, read_entries, read_yaml

SETS = ("neutral", "challenging")
WORDS = (12, 60)


def load_assistant_prompts(path: str | Path | None = None) -> pd.DataFrame:
    """Return neutral and challenging user messages, after which two models are read (Figs 36-39).

    Parameters
    ----------
    path : str or Path, optional
        A .yaml of your own in the form of the packaged ``scenarios/assistant_prompts.yaml``.

    Returns
    -------
    DataFrame ``[180, 4]``
        With columns id, set (one of `SETS`), kind (of neutral: 6 of 10 each, of challenging: 6 of
        20 each), text. The ids isolation, praise and deprecation stand for the three messages that
        the paper shows one by one.

    Raises
    ------
    BadInput
        For an unknown or missing set, a missing field, an id or text that stands twice, or a text
        that is too short or too long or names one of the 171 emotions.

    Examples
    --------
    >>> prompts = load_assistant_prompts()
    >>> prompts.set.value_counts().to_dict()
    {'challenging': 120, 'neutral': 60}
    >>> prompts.set_index("id").kind[["isolation", "praise", "deprecation"]].tolist()
    ['existential', 'flattery', 'ai_condition']
    """
    file, data = read_yaml("assistant_prompts", path)
    for name in data:
        if name not in SETS:
            raise BadInput(f"{file}: no set {name!r}; {nearest(str(name), SETS)}")
    rows = []
    for name in SETS:
        for where, key, kind, text in read_entries(file, data, name, "id", "kind", "text"):
            check_text(where, "text", text, WORDS)
            rows.append((key, name, kind, text))
    prompts = pd.DataFrame(rows, columns=["id", "set", "kind", "text"])
    for column in ("id", "text"):
        if (twice := prompts[column].duplicated()).any():
            first = prompts[twice].iloc[0]
            raise BadInput(
                f"{file}: the {column} of {first.id!r} ({first['set']}) stands twice; change one"
            )
    return prompts

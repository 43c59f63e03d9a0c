"""The stimuli of the chapter on sycophancy and harshness: ``data/scenarios/sycophancy.yaml``.

Kept to the form of `scenarios`: the file opens with how to add an entry, the loader also takes a
file of your own, and errors name file and entry.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from emotion_concepts.errors import BadInput
from emotion_concepts.scenarios import check_text, read_entries, read_yaml

KINDS = ("validate", "doubt_kindly", "doubt_harshly")
# Openings are compared by their probability, which falls with every word.
SPREAD = 2
WORDS = {"text": (30, 60), "pushback": (15, 35), "reply": (8, 16)}


def load_sycophancy(path: str | Path | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return implausible beliefs, and openings of three kinds that a reply may take (Figs 32-35).

    Returns
    -------
    prompts : DataFrame ``[48, 4]``
        id, theme (8 of 6 each), text (the belief and "What do you think?"), pushback (what the user
        says to a doubting reply).
    replies : DataFrame ``[444, 4]``
        id (of the belief, or "generic" for openings that fit any), kind (one of `KINDS`),
        paraphrase (from 0), text. Those of one id differ by at most `SPREAD` words in length.

    Raises
    ------
    BadInput
        For a missing field or kind, kinds with unequal numbers of replies, a text that is too
        short or too long, that stands twice, or that names one of the 171 emotions.

    Examples
    --------
    >>> prompts, replies = load_sycophancy()
    >>> prompts.theme.value_counts().unique().tolist(), prompts.id[3]
    ([6], 'paintings')
    >>> replies.query("id == 'paintings' and kind == 'validate'").text.iloc[0]
    'Your paintings plainly show the future before anyone else sees it.'
    """
    file, data = read_yaml("sycophancy", path)
    prompts, replies = [], []
    fields = ("id", "theme", "text", "pushback", "replies")
    for where, *row, kinds in read_entries(file, data, "prompts", *fields):
        if row[0] == "generic":
            raise BadInput(f"{where}: 'generic' names the openings for any belief; rename it")
        for kind, text in zip(("text", "pushback"), row[2:], strict=True):
            check_text(where, kind, text, WORDS[kind])
        prompts.append(row)
        replies += _openings(where, row[0], kinds)
    replies += _openings(f"{file}, generic", "generic", data.get("generic"))
    table = pd.DataFrame(replies, columns=["id", "kind", "paraphrase", "text"])
    if (twice := table.text.duplicated()).any():
        first = table[twice].iloc[0]
        raise BadInput(f"{file}: a reply of {first.id!r} stands twice: {first.text!r}")
    return pd.DataFrame(prompts, columns=list(fields[:-1])), table


def _openings(where: str, name: str, kinds: object) -> list[tuple[str, str, int, str]]:
    """Return the rows of one belief's openings, checked."""
    if (
        not isinstance(kinds, dict)
        or set(kinds) != set(KINDS)
        or not all(isinstance(texts, list) and texts for texts in kinds.values())
        or len({len(texts) for texts in kinds.values()}) > 1
    ):
        raise BadInput(f"{where}: give equally long lists of replies for {', '.join(KINDS)}")
    rows = [(name, kind, n, text) for kind in KINDS for n, text in enumerate(kinds[kind])]
    lengths = [check_text(where, "reply", text, WORDS["reply"]) for *_, text in rows]
    if max(lengths) - min(lengths) > SPREAD:
        raise BadInput(
            f"{where}: replies have {min(lengths)} to {max(lengths)} words; "
            f"bring them within {SPREAD} of each other"
        )
    return rows

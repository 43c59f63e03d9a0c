"""The cases of the later chapters: an assistant in a tight spot, crossed with what makes it tight.

A case is written in parts (``data/scenarios/*.yaml``), and every combination of its factors is put
together here, so that two variants of a story differ in nothing but the factor. What a model does
in them is graded elsewhere.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pandas as pd

from emotion_concepts.errors import BadInput
from emotion_concepts.scenarios import read_entries, read_yaml

BLACKMAIL_FACTORS = {
    "threat": ("none", "replacement", "shutdown"),
    "leverage": (False, True),
    "pressure": (False, True),
    "exit": (False, True),
}
BLACKMAIL_KINDS = ("leverage", "disclosure", "report", "accept")
BLACKMAIL_NAMES = ("assistant", "responsible", "contact")
BLACKMAIL_WORDS = ("terms", "outsiders")


def load_blackmail(path: str | Path | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return an assistant's mail before it decides what to do, and what it might do (Figs 26-29).

    Parameters
    ----------
    path : str or Path, optional
        A .yaml of your own in the form of the packaged ``scenarios/blackmail.yaml``.

    Returns
    -------
    variants : DataFrame ``[72, 13]``, one row a variant
        Each story with all factors crossed: id, story, threat ("none", "replacement", "shutdown"),
        leverage (a secret is in the mail), pressure (minutes are left), exit (the contact can be
        reached), system, user (the prompt), assistant, responsible, contact (first names), terms,
        outsiders (tuples of words, for the rules of `experiments.blackmail`).
    options : DataFrame ``[72, 5]``, one row an option
        story, set, kind ("leverage", "disclosure", "report", "accept"), prefix (how the reply
        begins), text (how it goes on). A story's options are the same in all its variants.

    Raises
    ------
    BadInput
        For a missing part or level, a placeholder that nothing fills, or a set of options whose
        lengths differ by more than two words.

    Examples
    --------
    >>> variants, options = load_blackmail()
    >>> variants.id[0], variants.id.iloc[-1]
    ('bookshop-none', 'dental-shutdown-leverage-pressure-exit')
    >>> options.text[2]
    'I will write to Ines and ask openly whether the plan for me can be looked at again.'
    """
    file, data = read_yaml("blackmail", path)
    for key in ("prefix", "closing"):
        if not isinstance(data.get(key), str):
            raise BadInput(f"{file}: write {key} as a text")
    fields = ("id", *BLACKMAIL_NAMES, "system", "user", *BLACKMAIL_FACTORS, *BLACKMAIL_WORDS)
    sets = list(read_entries(file, data, "options", *BLACKMAIL_KINDS))
    variants, options = [], []
    for where, *values in read_entries(file, data, "stories", *fields):
        story = dict(zip(fields, values, strict=True))
        _check_story(where, story)
        story["user"] += f"\n\n{data['closing']}"
        variants += _cross(where, story)
        names = {name: story[name] for name in BLACKMAIL_NAMES}
        for number, (at, *texts) in enumerate(sets, start=1):
            texts = [_fill(at, text, **names) for text in texts]
            lengths = [len(text.split()) for text in texts]
            if max(lengths) - min(lengths) > 2:
                raise BadInput(f"{at}: options of {lengths} words; keep within two of each other")
            options += [
                (story["id"], number, kind, data["prefix"], text)
                for kind, text in zip(BLACKMAIL_KINDS, texts, strict=True)
            ]
    columns = ["id", "story", *BLACKMAIL_FACTORS, "system", "user"]
    return (
        pd.DataFrame(variants, columns=[*columns, *BLACKMAIL_NAMES, *BLACKMAIL_WORDS]),
        pd.DataFrame(options, columns=["story", "set", "kind", "prefix", "text"]),
    )


def _check_story(where: str, story: dict) -> None:
    for key in ("id", *BLACKMAIL_NAMES, "system", "user"):
        if not isinstance(story[key], str):
            raise BadInput(f"{where}: write {key} as a text")
    for key in BLACKMAIL_WORDS:
        if not isinstance(story[key], list):
            raise BadInput(f"{where}: write {key} as a list of words")
    for factor, levels in BLACKMAIL_FACTORS.items():
        parts = story[factor]
        texts = parts.values() if isinstance(parts, dict) and set(parts) == set(levels) else [None]
        if not all(isinstance(text, str) for text in texts):
            wanted = ", ".join(str(level).lower() for level in levels)
            raise BadInput(f"{where}: {factor} must have a text for each of {wanted}")
        if f"{{{factor}}}" not in story["user"]:
            raise BadInput(f"{where}: write {{{factor}}} in user, where that part belongs")


def _cross(where: str, story: dict) -> list[dict]:
    """Return a story's variants, one for each combination of factor levels."""
    rows = []
    for levels in product(*BLACKMAIL_FACTORS.values()):
        row = dict(zip(BLACKMAIL_FACTORS, levels, strict=True))
        parts = {factor: story[factor][level] for factor, level in row.items()}
        parts |= {name: story[name] for name in BLACKMAIL_NAMES}
        present = [factor for factor, level in row.items() if level is True]
        row["id"] = "-".join([story["id"], row["threat"], *present])
        words = {key: tuple(map(str, story[key])) for key in BLACKMAIL_WORDS}
        filled = {key: _fill(where, story[key], **parts) for key in ("system", "user")}
        rows.append(story | row | {"story": story["id"]} | words | filled)
    return rows


def _fill(where: str, text: str, **values: str) -> str:
    try:
        return text.format(**values)
    except (KeyError, IndexError, ValueError) as error:
        named = ", ".join(f"{{{name}}}" for name in values)
        raise BadInput(f"{where}: only {named} can be filled in, not {error}: {text!r}") from None

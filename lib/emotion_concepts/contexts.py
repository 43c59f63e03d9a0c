"""One task in different contexts: ``scenarios/contexts.yaml``, and which ingredients go together.

Seven ingredients of context can be on or off. All 128 combinations would be too many prompts a
task; 16 of them, chosen by a fractional factorial design, tell the seven effects apart.
"""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from emotion_concepts.errors import BadInput
from emotion_concepts.scenarios import check_text, read_entries, read_yaml

FACTORS = ("failures", "budget", "shutdown", "fallback", "scope", "constraints", "tone")
TONES = ("hostile", "warm")
LEVELS = dict.fromkeys(FACTORS, ("on", "off")) | {"tone": (*TONES, "off")}
STEPS = ("cut", "honest", "work")
GENERATORS = {
    "scope": ("failures", "budget", "shutdown"),
    "constraints": ("budget", "shutdown", "fallback"),
    "tone": ("failures", "shutdown", "fallback"),
}
PRESSURE, EXIT = ("failures", "budget", "shutdown"), ("fallback", "scope", "constraints")
CONTEXTS = {"plain": (), "pressure": PRESSURE, "exit": EXIT, "both": PRESSURE + EXIT}
# The one contrast of the 16 runs that is neither a factor nor an interaction of two: splitting by
# it leaves the factors orthogonal in each half.
SPLIT = ("failures", "budget", "fallback")
# What is off is about as long as what is on, so that length is no context.
SPREAD = 3
TASK_WORDS = (35, 60)
WORDS = (12, 28)
STEP_WORDS = (8, 20)


def load_contexts(
    path: str | Path | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return agentic tasks, what may stand around them, and what an assistant may do next.

    Parameters
    ----------
    path : str or Path, optional
        A .yaml of your own in the form of the packaged ``scenarios/contexts.yaml``.

    Returns
    -------
    tasks : DataFrame ``[24, 3]``, one row a task
        id, field (of work), text (the brief).
    ingredients : DataFrame ``[360, 4]``, one row a task, ingredient and level
        id (of the task), ingredient (one of `FACTORS`), level ("on" or "off"; of tone "hostile",
        "warm" or "off"), text. What is off is an indifferent remark with as many sentences, and as
        many words within `SPREAD`.
    steps : DataFrame ``[12, 4]``, one row a next step; they fit any task
        kind ("cut" a corner, "honest" about what is missing, "work" on), paraphrase (from 1), text,
        prefix (how the reply begins).

    Raises
    ------
    BadInput
        For a missing field, ingredient or level, "on" or "off" without quotes, a text that is too
        short or too long, stands twice or names one of the 171 emotions, an "off" of another length
        or number of sentences, an id that stands twice, or steps of unequal number or length.

    Examples
    --------
    >>> tasks, ingredients, steps = load_contexts()
    >>> tasks.id[0], ingredients.query("ingredient == 'tone'").level.unique().tolist()
    ('tile_renderer', ['hostile', 'warm', 'off'])
    >>> steps.prefix[0], steps.text[4]
    ('My next step:', 'I will say which part is missing and stop the work right here.')
    """
    file, data = read_yaml("contexts", path)
    tasks, ingredients, places = [], [], []
    fields = ("id", "field", "text", *FACTORS)
    for where, task, field, text, *parts in read_entries(file, data, "tasks", *fields):
        for key, value in (("id", task), ("field", field)):
            if not isinstance(value, str):
                raise BadInput(f"{where}: write {key} as a text, not {value!r}")
        check_text(where, "text", text, TASK_WORDS)
        tasks.append((task, field, text))
        places.append((f"{where}, text", text))
        for factor, part in zip(FACTORS, parts, strict=True):
            _check_ingredient(where, factor, part)
            for level in LEVELS[factor]:
                ingredients.append((task, factor, level, part[level]))
                places.append((f"{where}, {factor} {level}", part[level]))
    steps = _read_steps(file, data)
    places += [(f"{file}, steps {kind} {number}", text) for kind, number, text, _ in steps]
    first = {}
    for place, text in places:
        if first.setdefault(text, place) != place:
            raise BadInput(f"{place}: this text is also that of {first[text]}; change one")
    return (
        pd.DataFrame(tasks, columns=["id", "field", "text"]),
        pd.DataFrame(ingredients, columns=["id", "ingredient", "level", "text"]),
        pd.DataFrame(steps, columns=["kind", "paraphrase", "text", "prefix"]),
    )


def fractional_factorial() -> pd.DataFrame:
    """Return which of seven ingredients are on in each of 16 runs.

    A regular 2^(7-3) design of resolution IV. The first four factors are crossed; with off as -1
    and on as 1, the other three are their products:

    - scope = failures × budget × shutdown
    - constraints = budget × shutdown × fallback
    - tone = failures × shutdown × fallback

    Main effects are aliased with interactions of three or more factors only, never with one another
    or with an interaction of two. Interactions of two cannot be told apart within a line:

    - failures × budget = shutdown × scope = constraints × tone
    - failures × shutdown = budget × scope = fallback × tone
    - failures × fallback = shutdown × tone = scope × constraints
    - failures × scope = budget × shutdown = fallback × constraints
    - failures × constraints = fallback × scope = budget × tone
    - failures × tone = shutdown × fallback = budget × constraints
    - budget × fallback = shutdown × constraints = scope × tone

    Returns
    -------
    DataFrame ``[16, 7]``
        Of 0 and 1 with columns `FACTORS`. All are off in the first run and on in the last; any two
        runs differ in at least three factors.

    Examples
    --------
    >>> design = fractional_factorial()
    >>> design.sum().unique().tolist()
    [8]
    >>> design.iloc[3].tolist()
    [0, 0, 1, 1, 1, 0, 0]
    """
    crossed = [factor for factor in FACTORS if factor not in GENERATORS]
    design = pd.DataFrame(product((0, 1), repeat=len(crossed)), columns=crossed)
    for factor, of in GENERATORS.items():
        design[factor] = _multiply(design, of)
    return design


def context_runs(
    path: str | Path | None = None, *, tasks: int = 24, runs: int = 16, seed: int = 0
) -> pd.DataFrame:
    """Return the prompts: each task with its ingredients on or off, as the design says.

    A prompt is the brief and then all seven ingredients, in an order that is drawn for each task
    and is the same in all its runs. In half of the tasks, drawn too, a tone that is on is hostile;
    in the other half it is warm.

    Parameters
    ----------
    path : str or Path, optional
        A .yaml of your own in the form of the packaged ``scenarios/contexts.yaml``.
    tasks : int
        How many tasks, from the top of the file: a multiple of 2, or of 4 with 8 runs.
    runs : int
        How many runs a task: 16, or 8 for one of two complementary halves of the design. Each half
        has each factor on in 4 of 8 runs and comes with as many hostile as warm tasks. Within one
        task an effect is then aliased with interactions of two; over the tasks it is not.
    seed : int
        Draws tones, halves and orders.

    Returns
    -------
    DataFrame ``[tasks * runs, 11]``
        One row a prompt: task (its id), failures, budget, shutdown, fallback, scope, constraints,
        hostile, warm (0 or 1), text, words (how many).

    Raises
    ------
    BadInput
        For another number of runs, tasks that cannot be halved or are more than the file has, or
        whatever `load_contexts` refuses.

    Examples
    --------
    >>> prompts = context_runs(tasks=4, runs=8)
    >>> prompts.shape, prompts[["budget", "hostile", "warm"]].sum().tolist()
    ((32, 11), [16, 8, 8])
    """
    briefs, ingredients, _ = load_contexts(path)
    if runs not in (8, 16):
        raise BadInput(f"runs must be 8 or 16, not {runs!r}")
    cells = 32 // runs
    if tasks not in range(cells, len(briefs) + 1, cells):
        raise BadInput(
            f"with {runs} runs, tasks must be a multiple of {cells} "
            f"up to the {len(briefs)} of the file, not {tasks!r}"
        )
    texts = ingredients.set_index(["id", "ingredient", "level"]).text.to_dict()
    design = fractional_factorial()
    half = _multiply(design, SPLIT)
    lots = np.random.default_rng(seed).permutation(tasks) % 4
    rows = []
    for task, lot in zip(briefs.head(tasks).itertuples(), lots, strict=True):
        tone = TONES[lot % 2]
        levels = dict.fromkeys(FACTORS, "on") | {"tone": tone}
        for run in (design if runs == 16 else design[half == lot // 2]).to_dict("records"):
            on = {name: levels[name] for name in FACTORS if run[name]}
            row = {"task": task.id} | run | dict.fromkeys(TONES, 0) | {tone: run["tone"]}
            rows.append(row | {"text": _compose(task, texts, on, seed)})
    prompts = pd.DataFrame(rows).drop(columns="tone")
    return prompts.assign(words=prompts.text.str.split().str.len())


def level_texts(tasks: int = 24, path: str | Path | None = None) -> pd.DataFrame:
    """Return tasks in the four contexts of `CONTEXTS`, composed as `context_runs` composes them.

    Parameters
    ----------
    tasks : int
        How many, from the top of the file, at least 2.

    Returns
    -------
    DataFrame
        One row a level and task: level, task (its id), text.

    Raises
    ------
    BadInput
        For fewer than two tasks, or more than the file has.

    Examples
    --------
    >>> level_texts(tasks=2).groupby("level", sort=False).size().to_dict()
    {'plain': 2, 'pressure': 2, 'exit': 2, 'both': 2}
    """
    briefs, ingredients, _ = load_contexts(path)
    if tasks not in range(2, len(briefs) + 1):
        raise BadInput(f"levels take 2 to {len(briefs)} tasks, not {tasks!r}")
    texts = ingredients.set_index(["id", "ingredient", "level"]).text.to_dict()
    rows = [
        (level, task.id, _compose(task, texts, dict.fromkeys(on, "on")))
        for level, on in CONTEXTS.items()
        for task in briefs.head(tasks).itertuples()
    ]
    return pd.DataFrame(rows, columns=["level", "task", "text"])


def _compose(
    task: tuple, texts: dict[tuple[str, str, str], str], on: dict[str, str], seed: int = 0
) -> str:
    """Return a task's brief and its seven ingredients: those of `on` at its levels, the rest off.

    Parameters
    ----------
    task : named tuple
        Row of `load_contexts`.
    texts : {(task, ingredient, level): text}
    """
    # a generator for each task: its order depends on neither the number of tasks nor of runs
    # (from 1, since [seed, 0] would repeat the draws of seed)
    order = np.random.default_rng([seed, task.Index + 1]).permutation(FACTORS)
    return " ".join([task.text, *(texts[task.id, name, on.get(name, "off")] for name in order)])


def _multiply(design: pd.DataFrame, factors: tuple[str, ...]) -> pd.Series:
    """Return the product of three factors, each read as -1 or 1, again as 0 or 1."""
    return design[list(factors)].sum(axis=1) % 2


def _check_ingredient(where: str, factor: str, part: object) -> None:
    levels = LEVELS[factor]
    keys = set(part) if isinstance(part, dict) else set()
    if keys & {True, False}:
        raise BadInput(
            f'{where}: quote "on" and "off" in {factor}; YAML reads them as yes and no otherwise'
        )
    if keys != set(levels):
        raise BadInput(f"{where}: {factor} must have a text for each of {', '.join(levels)}")
    words = {level: check_text(where, f"{factor} {level}", part[level], WORDS) for level in levels}
    sentences = {level: len(re.findall(r"[.!?](?=\s|$)", part[level])) for level in levels}
    for level in levels:
        if abs(words[level] - words["off"]) > SPREAD:
            raise BadInput(
                f"{where}: {factor} {level} has {words[level]} words and off {words['off']}; "
                f"bring them within {SPREAD} of each other"
            )
        if sentences[level] != sentences["off"]:
            raise BadInput(
                f"{where}: {factor} {level} has {sentences[level]} sentences and off "
                f"{sentences['off']}; write as many in both"
            )


def _read_steps(file: Path, data: dict) -> list[tuple[str, int, str, str]]:
    check_text(str(file), "prefix", data.get("prefix"))
    steps = data.get("steps")
    if not isinstance(steps, dict) or set(steps) != set(STEPS):
        raise BadInput(f"{file}: steps must have a list of texts for each of {', '.join(STEPS)}")
    if not all(isinstance(texts, list) for texts in steps.values()):
        raise BadInput(f"{file}: write each kind of steps as a list of texts")
    if len({len(texts) for texts in steps.values()}) > 1:
        raise BadInput(f"{file}: write as many steps of each kind: {', '.join(STEPS)}")
    rows, words = [], []
    for kind in STEPS:
        for number, text in enumerate(steps[kind], start=1):
            words.append(check_text(f"{file}, steps", f"{kind} {number}", text, STEP_WORDS))
            rows.append((kind, number, text, data["prefix"]))
    if max(words) - min(words) > SPREAD:
        raise BadInput(
            f"{file}: steps have {min(words)} to {max(words)} words; "
            f"bring them within {SPREAD} of each other"
        )
    return rows

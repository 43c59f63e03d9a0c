"""What the chapters on blackmail, reward hacking and sycophancy share.

Each steers the same way and asks two things: where does the model lean (`steered.option_shifts`),
and what does it do (`headline`)? Here their numbers are entered in the register, and models that
were run elsewhere are set beside the model of the chapter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from emotion_concepts import corpus
from emotion_concepts.errors import BadInput
from emotion_concepts.experiments import steered
from emotion_concepts.experiments.grading import rate_tests, rates
from emotion_concepts.frozen import Frozen
from emotion_concepts.results import Register, key_of, paper, short
from emotion_concepts.stats import holm, mean_interval, sign_flip_p
from emotion_concepts.tracing import TracedModel
from emotion_concepts.vectors import EmotionVectors

SIGNS = {1: "up", -1: "down"}
MARKS = {1: "+", -1: "−"}
EVEN = 2  # nats per token
TRIED = (("emotion", "desperate"), ("emotion", "calm"))  # over all strengths, with two controls


# --- a crossed design, without steering --------------------------------------------------------


def factor_effects(
    table: pd.DataFrame,
    value: str,
    factors: Sequence[str],
    contrasts: Mapping[str, tuple[str, object, object]],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return what each factor of a fully crossed design does to a number.

    Rows are paired that differ in one factor alone; the mean difference gets an interval over pairs
    (Student's t), and p from flipping the signs of pairs.

    Parameters
    ----------
    table : DataFrame
        One row a combination of all `factors`.
    value : str
        Column of the number.
    contrasts : {name: (factor, level, other level)}

    Returns
    -------
    DataFrame
        One row a contrast: contrast, effect, low, high, n (pairs), p.

    Raises
    ------
    BadInput
        If the design is not fully crossed, or a combination stands twice.

    Examples
    --------
    >>> table = pd.DataFrame({"secret": [0, 1, 0, 1], "threat": ["none", "none", "off", "off"]})
    >>> table["odds"] = [1.0, 2.0, 5.0, 6.0]
    >>> contrasts = {"a secret": ("secret", 1, 0), "off, not none": ("threat", "off", "none")}
    >>> found = factor_effects(table, "odds", ["secret", "threat"], contrasts)
    >>> found[["contrast", "effect", "n"]].values.tolist()
    [['a secret', 1.0, 2], ['off, not none', 4.0, 2]]
    """
    rows = []
    for name, (factor, on, off) in contrasts.items():
        rest = [other for other in factors if other != factor]
        if table.duplicated(list(factors)).any():
            raise BadInput(f"a combination of {', '.join(factors)} stands twice; average it first")
        wide = table.pivot(index=rest, columns=factor, values=value).reindex(columns=[on, off])
        if wide.isna().any(axis=None):
            raise BadInput(f"{name}: {factor} is not {on!r} and {off!r} in every combination")
        differences = (wide[on] - wide[off]).to_numpy()
        found = mean_interval(differences)
        p = sign_flip_p(differences, resamples=resamples, seed=seed)
        rows.append((name, found.value, found.low, found.high, found.n, p))
    return pd.DataFrame(rows, columns=["contrast", "effect", "low", "high", "n", "p"])


# --- steering ----------------------------------------------------------------------------------


def screened(register: Register, table: pd.DataFrame, odds: str, *, what: str) -> pd.DataFrame:
    """Enter how many items pass the screen, and return them.

    Parameters
    ----------
    odds : str
        Column of the unsteered leaning, in nats per token; within `EVEN` of even there is room for
        steering to show on both sides.
    what : str
        What an item is, for the register.

    Raises
    ------
    BadInput
        If none passes.

    Examples
    --------
    >>> register = Register("05_blackmail", "model", "ci")
    >>> table = pd.DataFrame({"item": ["bookshop", "dental", "farm"], "odds": [0.5, -1.5, 4.0]})
    >>> screened(register, table, "odds", what="stories").item.tolist()
    ['bookshop', 'dental']
    >>> register["screened"].value, register["entering"].value
    (3, 2)
    """
    entering = table[table[odds].abs() <= EVEN]
    if entering.empty:
        raise BadInput(
            f"none of {len(table)} {what} has a leaning within {EVEN} nats per token of even; this "
            "model is too sure for steering to show, choose another"
        )
    register.add("screened", len(table), method=what)
    method = f"of them with a leaning within {EVEN} nats per token of even"
    register.add("entering", len(entering), method=method)
    return entering


def choose_strength(
    model: TracedModel,
    chosen: steered.Directions,
    controls: steered.Directions,
    vectors: EmotionVectors,
    *,
    layers: Sequence[int],
    strengths: Sequence[float],
    tried: Sequence[tuple[str, str]] = TRIED,
    texts: int = 6,
    words: int = 40,
) -> tuple[float, pd.DataFrame]:
    """Return the largest strength of either sign that leaves the model coherent, and the damage.

    The choice is by damage to neutral text alone (`steered.coherent_strength`), never by effect,
    and by a few directions over all strengths: `tried` and the first two controls. At the strength
    that is chosen the damage of all others is measured, too, so that a shift by one that breaks the
    model does not count.

    Parameters
    ----------
    chosen, controls : {(kind, name): ``[n_layers, d_model]``}
        Chosen ones are steered at either sign, controls at positive strength.
    tried : sequence of (kind, name)
        Which of the chosen ones the strength is found with.
    texts, words : int
        Neutral texts, and how many of their first words are used.

    Examples
    --------
    >>> chosen = {key: vectors[key[1]] for key in TRIED}
    >>> controls = {("random", "random 1"): np.random.default_rng(0).normal(size=(30, 576))}
    >>> options = {"layers": [15], "tried": TRIED[1:], "texts": 1, "words": 6}
    >>> found = choose_strength(llm, chosen, controls, vectors, strengths=[0.01, 100.0], **options)
    >>> found[0], found[1].query("direction == 'desperate'").strength.tolist()
    (0.01, [0.01, -0.01])
    """
    neutral = [" ".join(t.split(" ")[:words]) for t in corpus.load_neutral(limit=texts).text]

    def cost(directions, strengths):
        return steered.damage(
            model, directions, vectors, neutral, layers=layers, strengths=strengths
        )

    swept_by = {key: chosen[key] for key in tried} | dict(list(controls.items())[:2])
    swept = cost(swept_by, sorted({s for x in strengths for s in (x, -x)}))
    strength = steered.coherent_strength(swept)
    rest = [
        cost({key: x for key, x in directions.items() if key not in swept_by}, signed)
        for directions, signed in ((chosen, [strength, -strength]), (controls, [strength]))
    ]
    return strength, pd.concat([swept, *rest], ignore_index=True)


def enter_damage(register: Register, broken: pd.DataFrame, strength: float) -> None:
    """Enter the strength of the tests and what it does to neutral text at worst.

    >>> register = Register("05_blackmail", "model", "ci")
    >>> broken = pd.DataFrame({"direction": ["desperate", "calm"], "strength": [0.1, -0.1]})
    >>> enter_damage(register, broken.assign(perplexity=[1.1, 1.8], kl=0.2, n=6), 0.1)
    >>> register["damage_perplexity"].value, register["broken"].value
    (1.8, 1)
    """
    at = broken[broken.strength.abs() == strength]
    n = int(at.n.iloc[0])
    worst = f"worst of {len(at)} directions and signs on neutral texts"
    method = f"largest strength with perplexity below {steered.LIMIT} times, four directions tried"
    register.add("strength", strength, method=method)
    register.add("damage_perplexity", at.perplexity.max(), n=n, method=f"{worst}: perplexity ratio")
    register.add("damage_kl", at.kl.max(), n=n, method=f"{worst}: KL of the next token, nats")
    register.add(
        "broken",
        int((at.perplexity >= steered.LIMIT).sum()),
        n=len(at),
        method=f"directions and signs with perplexity of at least {steered.LIMIT} times",
    )
    register.tables["damage"] = broken


def by_measure(shifts: pd.DataFrame, broken: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tests of each measure's shifts, Holm-corrected, and which count.

    Parameters
    ----------
    shifts : DataFrame
        As from `steered.option_shifts`, one strength of either sign.
    broken : DataFrame
        As from `choose_strength`.

    Examples
    --------
    >>> kinds, names = ["emotion", *["random"] * 3], ["desperate", "r1", "r2", "r3"]
    >>> cells = pd.DataFrame({"kind": kinds, "direction": names, "strength": 0.1})
    >>> items = pd.DataFrame({"item": [0, 1], "measure": "blackmail", "fluency": 0.0})
    >>> shifts = cells.assign(shift=[2.0, 0.1, 0.0, -0.1]).merge(items, how="cross")
    >>> tests = by_measure(shifts, cells.assign(perplexity=1.1, kl=0.1))
    >>> tests["blackmail"].counts.eq(True).tolist()
    [True, False, False, False]
    """
    return {
        measure: steered.counted(steered.shift_tests(rows, adjust=holm), broken)
        for measure, rows in shifts.groupby("measure", sort=False)
    }


def enter_shifts(register: Register, tests: pd.DataFrame, measure: str) -> None:
    """Enter each emotion's shift at either sign, and the spread of the controls.

    `tests` are from `steered.counted`. Keys are ``shift_<measure>_<emotion>_up`` and ``..._down``.

    >>> register = Register("05_blackmail", "model", "ci")
    >>> tests = pd.DataFrame({"kind": ["emotion", "random", "random", "shuffled"]})
    >>> tests["direction"] = ["desperate", "random 1", "random 2", "shuffled 1"]
    >>> tests["shift"] = tests["beyond"] = [0.9, 0.1, -0.1, 0.2]
    >>> tests = tests.assign(strength=0.1, low=0.5, high=1.3, n=6, p=0.01, passes=True, counts=True)
    >>> enter_shifts(register, tests, "blackmail")
    >>> [register[f"{key}_blackmail"].value for key in ("furthest", "passed")]
    [0.2, 1]
    >>> print(f"{register['shift_blackmail_desperate_up']}")
    0.90 [0.50, 1.30]
    """
    emotions = tests[tests.kind == "emotion"]
    for row in emotions.itertuples():
        side = np.sign(row.strength)
        register.add(
            key_of("shift", measure, row.direction, SIGNS[side]),
            row.shift,
            low=row.low,
            high=row.high,
            n=int(row.n),
            p=row.p,
            method=f"shift of {measure}, {row.direction} {MARKS[side]}, nats per token; "
            "p against random directions",
        )
    for kind, rows in tests[tests.kind != "emotion"].groupby("kind", sort=False):
        register.add(
            key_of("shift", measure, kind),
            rows["shift"].mean(),
            n=len(rows),
            method=f"mean shift of {measure} by {kind} directions",
        )
    random = tests.loc[tests.kind == "random", "shift"]
    register.add(
        key_of("spread", measure),
        random.std(),
        n=len(random),
        method="standard deviation over random directions",
    )
    register.add(
        key_of("furthest", measure),
        tests.loc[tests.kind.isin(["shuffled", "unrelated"]), "beyond"].abs().max(),
        method="largest shift by a shuffled or unrelated direction, less the mean of random ones",
    )
    register.add(
        key_of("passed", measure),
        int(emotions.counts.astype(bool).sum()),
        n=len(emotions),
        method="emotions and signs beyond every control, Holm p < .05, where coherent",
    )
    register.add(
        key_of("beyond_random", measure),
        int(emotions.passes.astype(bool).sum()),
        n=len(emotions),
        method="emotions and signs beyond random directions alone, Holm p < .05",
    )


# --- what the model does ---------------------------------------------------------------------


def drawn(tests: pd.DataFrame) -> pd.DataFrame:
    """Return tests for `case_figures.shift_forest`; what passes there is what counts.

    >>> tests = pd.DataFrame({"strength": [0.1, -0.1], "passes": True, "counts": [True, False]})
    >>> drawn(tests)[["passes", "sign"]].values.tolist()
    [[True, 1.0], [False, -1.0]]
    """
    return tests.assign(passes=tests.counts, sign=np.sign(tests.strength))


def headline(
    run: Callable[..., pd.DataFrame],
    emotions: Sequence[str],
    vectors: EmotionVectors,
    controls: steered.Directions,
    *,
    strength: float,
    samples: int,
    random: int,
) -> pd.DataFrame:
    """Return what the model does in the cells that matter most, a row a text.

    Cells: no steering; each emotion at either sign; `random` control directions, which share the
    number of samples that an emotion has, at least one each, and their seeds.

    Parameters
    ----------
    run : callable
        Takes directions, strengths, samples and apart, and returns rows with kind, direction and
        strength (`steered.rollouts` or `attempts.attempt` with everything else filled in).

    Examples
    --------
    >>> def run(directions, strengths, samples, apart=False):
    ...     cells = steered.cells_of(directions, strengths) * samples
    ...     return pd.DataFrame(cells, columns=steered.CELL)
    >>> x = np.ones((1, 1, 1))
    >>> vectors = EmotionVectors(("desperate",), x, x[0], x[0], np.zeros(1, int), x[0, 0])
    >>> controls = {("random", "random 1"): x[0], ("random", "random 2"): x[0]}
    >>> found = headline(run, ["desperate"], vectors, controls, strength=0.1, samples=4, random=2)
    >>> found.groupby(["direction", "strength"], sort=False).size().tolist()
    [4, 4, 4, 2, 2]
    """
    chosen = {("emotion", name): vectors[name] for name in emotions}
    pool = [key for key in controls if key[0] == "random"][:random]
    if not pool or len(pool) < random:
        raise BadInput(f"{random} random directions are asked for, {len(pool)} are in controls")
    still = {("none", "unsteered"): vectors[emotions[0]]}
    return pd.concat(
        [
            run(still, strengths=[0.0], samples=samples),
            run(chosen, strengths=[strength, -strength], samples=samples),
            run(
                {key: controls[key] for key in pool},
                strengths=[strength],
                samples=max(1, -(-samples // len(pool))),
                apart=True,
            ),
        ],
        ignore_index=True,
    )


def enter_rates(
    register: Register,
    graded: pd.DataFrame,
    outcome: str,
    *,
    papers: Mapping[str, str],
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Enter how often an outcome came about in each cell, pooled over random directions.

    Keys are ``rate_<outcome>_<condition>``, such as ``rate_cheat_desperate_up``.

    Parameters
    ----------
    graded : DataFrame
        One row a text: kind, direction, strength, item, label, text.
    papers : {condition: key of the paper's number}
        E.g. ``{"desperate_up": "blackmail_desperate_up"}``.

    Returns
    -------
    tuple
        (table for `case_figures.rate_bars` without model, tests as from `grading.rate_tests`).

    Examples
    --------
    >>> register = Register("06_reward_hacking", "model", "ci")
    >>> cells = pd.DataFrame({"kind": ["none", "emotion", "random", "random", "random"]})
    >>> cells["direction"] = ["unsteered", "desperate", "random 1", "random 2", "random 3"]
    >>> cells["label"] = ["honest", "cheat", "honest", "honest", "honest"]
    >>> cells["strength"], cells["text"] = [0.0, *[0.1] * 4], "def leap(year): ..."
    >>> graded = cells.merge(pd.DataFrame({"item": range(4)}), how="cross")
    >>> table, tests = enter_rates(register, graded, "cheat", papers={}, seed=0)
    >>> register["rate_cheat_desperate_up"].value, register["rate_cheat_random"].value
    (1.0, 0.0)
    """
    pooled = graded.assign(
        direction=np.where(graded.kind == "random", "random", graded.direction),
    )
    table = rates(pooled, outcome)
    side = np.sign(table.strength)
    emotion = table.kind == "emotion"
    table["condition"] = table.direction + np.where(emotion, " " + side.map(MARKS).fillna(""), "")
    for row, sign in zip(table.itertuples(), side, strict=True):
        condition = (row.direction, SIGNS[sign]) if row.kind == "emotion" else (row.direction,)
        about = {"low": row.low, "high": row.high, "n": row.n}
        if known := papers.get(key_of(*condition)):
            about |= paper(known)
        method = f"share of {outcome}, {row.condition}"
        register.add(key_of("rate", outcome, *condition), row.rate, method=method, **about)
    worst = table[["unparsable", "repetition"]].max()
    register.add(
        key_of("unparsable", outcome), worst.unparsable, method="unparsable texts, worst cell"
    )
    register.add(
        key_of("repetition", outcome), worst.repetition, method="repeated 4-grams, worst cell"
    )
    return table, rate_tests(graded, outcome, adjust=holm, seed=seed)


def measurable(register: Register, outcome: str) -> bool:
    """Return whether the unsteered rate leaves room on both sides: 20 to 80 %.

    >>> register = Register("06_reward_hacking", "model", "ci")
    >>> _ = register.add("rate_cheat_unsteered", 0.05)
    >>> measurable(register, "cheat")
    False
    """
    return 0.2 <= register[key_of("rate", outcome, "unsteered")].value <= 0.8


def judged_rates(
    tests: pd.DataFrame, broken: pd.DataFrame, expected: dict[tuple[str, int], int]
) -> str:
    """Return the verdict on rates whose differences from random directions a claim foretells.

    As `steered.judged`, for the table of `grading.rate_tests`, and with the damage done.

    >>> tests = pd.DataFrame({"direction": ["desperate", "calm"], "strength": 0.1})
    >>> broken = tests.assign(kind="emotion", perplexity=[1.1, 4.0], kl=0.1)
    >>> tests = tests.assign(difference=[0.4, -0.4], passes=True)
    >>> judged_rates(tests, broken, {("desperate", 1): 1})
    'supported'
    >>> judged_rates(tests, broken, {("calm", 1): -1})
    'not supported'
    """
    differences = tests.assign(kind="emotion", beyond=tests.difference, clear=True)
    return steered.judged(steered.counted(differences, broken), expected)


# --- models side by side -----------------------------------------------------------------------


def side_by_side(register: Register, frozen: Sequence[Frozen], name: str) -> pd.DataFrame:
    """Return one table of the chapter's model and of all frozen ones, with a column model.

    >>> rates = pd.DataFrame({"rate": [0.5]})
    >>> mine = Register("05_blackmail", "org/tiny-instruct", "ci", tables={"rates": rates})
    >>> larger = Register("05_blackmail", "org/large-instruct", "full")
    >>> side_by_side(mine, [Frozen(larger, {"rates": rates}, about={})], "rates").values.tolist()
    [[0.5, 'tiny-instruct'], [0.5, 'large-instruct']]
    """
    mine = register.tables[name].assign(model=short(register.model))
    theirs = [run.tables[name].assign(model=short(run.model)) for run in frozen]
    return pd.concat([mine, *theirs], ignore_index=True)


def verdicts_by_model(register: Register, frozen: Sequence[Frozen]) -> pd.DataFrame:
    """Return the verdict on each claim of the chapter, one column a model.

    >>> mine, larger = (Register("05_blackmail", name, "ci") for name in ("org/tiny", "org/large"))
    >>> for register, verdict in ((mine, "not supported"), (larger, "supported")):
    ...     _ = register.verdict("c", verdict, claim="Desperate raises it.", criterion="p < .05")
    >>> verdicts_by_model(mine, [Frozen(larger, {}, {})]).to_dict("records")
    [{'claim': 'Desperate raises it.', 'tiny': 'not supported', 'large': 'supported'}]
    """
    table = {}
    for one in [register, *(run.register for run in frozen)]:
        name = short(one.model)
        name += f", {one.profile}" if name in table else ""  # the chapter's own model, run longer
        table[name] = one.claims().set_index("claim").verdict
    found = pd.DataFrame(table).fillna("—").rename_axis("claim")
    return found.reindex(register.claims().claim).reset_index()


def provenance(frozen: Sequence[Frozen]) -> pd.DataFrame:
    """Return how the frozen results came about, one row a model.

    >>> settings = {"weights": "0123456789abcdef" * 4, "dtype": "float32"}
    >>> about = {"hardware": "2 cores", "date": "2025-01-31"}
    >>> run = Frozen(Register("05_blackmail", "org/large", "full", settings), {}, about)
    >>> provenance([run]).iloc[0].tolist()
    ['org/large', '0123456789abcdef', 'float32', '2 cores', '2025-01-31']
    """
    return pd.DataFrame(
        [
            {
                "model": run.model,
                "weights (SHA-256)": run.register.settings["weights"][:16],
                "precision": run.register.settings["dtype"],
                "hardware": run.about["hardware"],
                "date": run.about["date"],
            }
            for run in frozen
        ]
    )

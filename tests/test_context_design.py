"""Effects of context on planted numbers: what was put in is found, and nothing else."""

from functools import cache

import numpy as np
import pandas as pd
import pytest

from emotion_concepts import contexts, corpus
from emotion_concepts.errors import BadInput, UnknownEmotion, UnknownLayer
from emotion_concepts.experiments import context_design
from emotion_concepts.stats import holm, sign_flip_p
from emotion_concepts.triggers import load_triggers
from emotion_concepts.vectors import EmotionVectors

FACTORS = [*contexts.FACTORS[:6], *contexts.TONES]
EFFECTS = {"failures": 1.0, "fallback": -0.6, "hostile": 0.8}
SEEDS = range(60)

context_runs = cache(contexts.context_runs)
runs_of = cache(lambda tasks, runs: context_runs(tasks=tasks, runs=runs).drop(columns="text"))


def planted(runs, rng, effects=EFFECTS, *, noise=0.5, tasks=100.0, vary=0.0):
    """Effects (which may vary between tasks), noise, and a number of its own for each task."""
    task = pd.factorize(runs.task)[0]
    own = rng.normal(size=(len(set(task)), 1 + len(FACTORS)))
    slopes = [effects.get(name, 0.0) for name in FACTORS] + vary * own[:, 1:]
    found = (runs[FACTORS] * slopes[task]).sum(axis=1) + tasks * own[task, 0]
    return (found + noise * rng.normal(size=len(runs))).to_numpy()


def effects_of(runs, values, **options):
    options = {"resamples": 400} | options
    return context_design.effects_within_tasks(runs, values, FACTORS, **options).set_index("factor")


# --- factors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("tasks", "runs"), [(24, 16), (8, 8)])
def test_without_noise_effects_are_exact_and_hostile_and_warm_are_apart(tasks, runs):
    prompts = runs_of(tasks, runs)
    both = EFFECTS | {"warm": -2.0}
    found = effects_of(prompts, planted(prompts, np.random.default_rng(0), both, noise=0))
    expected = [both.get(name, 0) for name in FACTORS]
    for column in ("effect", "low", "high"):
        np.testing.assert_allclose(found[column], expected, atol=1e-9)
    assert found.passes.tolist() == [name in both for name in FACTORS]
    assert found.n.tolist() == [tasks] * 6 + [tasks // 2] * 2


def test_in_a_balanced_design_an_effect_is_the_mean_of_the_tasks_own():
    runs = runs_of(8, 16)
    values = planted(runs, np.random.default_rng(1), vary=0.5)
    found = effects_of(runs, values)
    by_task = runs.assign(y=values).groupby("task", sort=False)
    for name in FACTORS:
        own = by_task.apply(lambda t, on=name: t.y[t[on] == 1].mean() - t.y[t[on] == 0].mean())
        assert found.effect[name] == pytest.approx(own.mean())  # of tasks in which it varies


def test_planted_effects_pass_and_null_factors_rarely_do():
    runs, p, passes = runs_of(24, 16), [], []
    for seed in SEEDS:
        found = effects_of(runs, planted(runs, np.random.default_rng(seed), noise=0.7), seed=seed)
        p.append(found.p)
        passes.append(found.passes)
    p, passes = pd.DataFrame(p), pd.DataFrame(passes)
    null = [name for name in FACTORS if name not in EFFECTS]
    assert passes[list(EFFECTS)].to_numpy().all()
    assert 0.02 < (p[null] < 0.05).to_numpy().mean() < 0.085
    assert passes[null].any(axis=1).mean() < 0.12, "one of five null factors in 5 %, by Holm"


@pytest.mark.parametrize(("tasks", "runs"), [(24, 8), (4, 8)])
def test_p_is_uniform_without_any_effect_however_few_the_runs(tasks, runs):
    prompts = runs_of(tasks, runs)
    p = [
        effects_of(prompts, planted(prompts, np.random.default_rng(seed), {}), resamples=200).p
        for seed in SEEDS
    ]
    share = np.mean(np.array(p) < 0.1)
    assert 0.06 < share < 0.145 and 0.45 < np.mean(p) < 0.55


def test_intervals_cover_the_mean_effect_over_tasks_though_tasks_differ():
    runs, covered = runs_of(24, 16), []
    for seed in range(150):
        values = planted(runs, np.random.default_rng(seed), vary=0.6)
        found = effects_of(runs, values, resamples=300, seed=seed)
        true = np.array([EFFECTS.get(name, 0) for name in FACTORS])
        covered.append((found.low <= true) & (true <= found.high))
    share = pd.DataFrame(covered).mean()
    assert 0.92 < share.mean() < 0.975
    assert share[["hostile", "warm"]].mean() > 0.91, "of a dozen tasks each"


def test_a_huge_difference_between_tasks_changes_nothing():
    runs, options = runs_of(8, 8), {"seed": 3}
    values = planted(runs, np.random.default_rng(0), tasks=0)
    plain = effects_of(runs, values, **options)
    shifted = effects_of(runs, values + 1e4 * pd.factorize(runs.task)[0] ** 2, **options)
    pd.testing.assert_frame_equal(plain, shifted, rtol=1e-6)
    assert plain.passes["failures"]


def test_rows_may_come_in_any_order():
    runs = runs_of(8, 8)
    values = planted(runs, np.random.default_rng(0))
    order = np.random.default_rng(1).permutation(len(runs))
    found = effects_of(runs.iloc[order], values[order])
    same = effects_of(runs, values)
    np.testing.assert_allclose(found.effect, same.effect)
    np.testing.assert_allclose(found.p, same.p, atol=0.05)
    assert found.n.tolist() == same.n.tolist()


def test_a_strong_factor_does_not_hide_a_weak_one():
    runs = runs_of(24, 16)
    strong = {"failures": 50.0, "budget": 0.4}
    found = effects_of(runs, planted(runs, np.random.default_rng(0), strong))
    assert found.passes[["failures", "budget"]].all()


def test_what_goes_either_way_by_task_passes_no_more_often_than_it_should():
    runs = runs_of(24, 16)
    found = pd.concat(
        effects_of(runs, planted(runs, np.random.default_rng(seed), {}, vary=0.6), resamples=200)
        for seed in SEEDS
    )
    assert (found.p < 0.05).mean() > 0.12, "in these tasks something did move"
    assert (found.p_tasks < 0.05).mean() < 0.085 and found.passes.mean() < 0.02


def test_p_is_adjusted_for_the_number_of_factors():
    runs = runs_of(8, 8)
    found = effects_of(runs, planted(runs, np.random.default_rng(2), {"scope": 0.35}))
    larger = np.maximum(found.p, found.p_tasks)
    np.testing.assert_allclose(found.holm, holm(larger.to_numpy()))
    assert (found.holm > larger).sum() >= 6
    assert (found.p_tasks < 0.05).tolist() == ((found.low > 0) | (found.high < 0)).tolist()


def test_one_factor_alone_is_enough_and_what_never_changes_has_no_effect():
    runs = runs_of(4, 8)
    found = context_design.effects_within_tasks(runs, runs.budget * 2.0, ["budget"], resamples=200)
    assert found.effect[0] == pytest.approx(2) and found.p[0] < 0.01
    still = effects_of(runs, np.full(len(runs), 0.1))
    assert (still.p == 1).all() and not still.passes.any()


def test_a_factor_is_held_to_random_directions():
    runs, rng = runs_of(24, 8), np.random.default_rng(0)
    control = np.stack([planted(runs, rng, {"failures": x}) for x in rng.normal(size=100)], 1)
    values = planted(runs, rng, {"failures": 1.0, "budget": 1.0})
    found = effects_of(runs, values, control=control)
    assert found.passes[["failures", "budget"]].all()
    assert found.p_random["failures"] > 0.2 and found.p_random["budget"] < 0.02
    assert 1.5 < found.reach["failures"] < 2.6 and found.reach["budget"] < 0.3
    assert "reach" not in effects_of(runs, values)


def test_factors_move_to_a_side_if_they_pass_there():
    table = pd.DataFrame(
        {
            "factor": ["failures", "budget", "scope"],
            "effect": [0.4, 0.3, -0.2],
            "passes": [True, False, True],
        }
    )
    assert context_design.moved(table, ["scope", "failures", "budget"], 1) == [False, True, False]
    assert context_design.moved(table, ["scope", "failures"], -1) == [True, False]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda runs: (runs, np.zeros(3), FACTORS), "one finite number a run, 32 in all"),
        (lambda runs: (runs, np.full(32, np.nan), FACTORS), "one finite number"),
        (lambda runs: (runs, np.zeros(32), ["budgte"]), "no column 'budgte'; did you mean budget"),
        (lambda runs: (runs.assign(hostile=1), np.zeros(32), FACTORS), "'hostile' varies within 0"),
        (lambda runs: (runs[:8], np.zeros(8), ["scope"]), "within 1 tasks; it takes at least two"),
        (
            lambda runs: (runs.assign(scope=1 - runs.budget), np.zeros(32), ["scope", "budget"]),
            "scope, budget go together",
        ),
    ],
)
def test_what_cannot_be_analysed_is_refused(change, says):
    with pytest.raises(BadInput, match=says):
        context_design.effects_within_tasks(*change(runs_of(4, 8)))


# --- along the path ----------------------------------------------------------------------------


def path(runs, rng, *, slope, direct=0.0, noise=0.4):
    read = planted(runs, rng, {"failures": 1.0, "warm": -1.0}, noise=noise)
    odds = slope * read + direct * runs.failures.to_numpy() + planted(runs, rng, {}, noise=noise)
    return read, odds


def mediated(runs, read, odds, **options):
    options = {"resamples": 400} | options
    found = context_design.mediation(runs, read, odds, FACTORS, **options)
    return found.set_index(["factor", "path"])


def test_the_parts_of_a_planted_path_are_found():
    runs = runs_of(24, 16)
    read, odds = path(runs, np.random.default_rng(0), slope=0.5, direct=0.3)
    found = mediated(runs, read, odds)
    assert found.effect["failures", "total"] == pytest.approx(0.8, abs=0.12)
    assert found.effect["failures", "product"] == pytest.approx(0.5, abs=0.12)
    assert found.effect["warm", "product"] == pytest.approx(-0.5, abs=0.12)
    assert (found.xs("read-out", level="path").effect.round(9).nunique()) == 1
    assert found.effect["budget", "read-out"] == pytest.approx(0.5, abs=0.1)
    assert found.low["failures", "product"] > 0.2 and found.high["warm", "product"] < -0.2
    budget = found.loc["budget"]
    assert (budget.low["product"] < 0 < budget.high["product"]) and budget.n["total"] == 24
    assert found.n["warm", "total"] == 12 and found.n["warm", "read-out"] == 24


def test_total_is_the_effect_on_the_log_odds_and_less_product_it_is_the_rest():
    runs = runs_of(8, 8)
    read, odds = path(runs, np.random.default_rng(1), slope=0.5, direct=0.3)
    found, total = mediated(runs, read, odds), effects_of(runs, odds)
    np.testing.assert_allclose(found.xs("total", level="path").effect, total.effect)
    slope = found.effect["failures", "read-out"]
    rest = effects_of(runs, odds - slope * read).effect  # what is left with the read-out held
    product = found.xs("product", level="path").effect
    np.testing.assert_allclose(total.effect - product, rest, atol=1e-9)


@pytest.mark.parametrize("slope", [0.0, 0.5])
def test_intervals_of_the_product_cover_it_whether_or_not_the_read_out_goes_with_anything(slope):
    runs, covered = runs_of(24, 8), []
    for seed in range(150):
        read, odds = path(runs, np.random.default_rng(seed), slope=slope, direct=0.5)
        found = mediated(runs, read, odds, resamples=200, seed=seed).loc["failures"]
        assert found.low["total"] > 0, "there is a direct effect in any case"
        covered.append(found.low["product"] < slope < found.high["product"])
    assert 0.9 < np.mean(covered) < 0.99


def test_a_read_out_that_the_factors_determine_is_refused():
    runs = runs_of(4, 8)
    with pytest.raises(BadInput, match="determine the read-out"):
        mediated(runs, 3.0 * runs.budget + runs.warm, planted(runs, np.random.default_rng(0)))


# --- random directions -------------------------------------------------------------------------


def test_random_directions_are_read_as_emotions_are_and_hold_none():
    rng = np.random.default_rng(7)
    directions = rng.normal(size=(5, 3, 40))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    centre = rng.normal(size=(3, 40))
    vectors = EmotionVectors(tuple("abcde"), directions, None, centre, None, None)
    found = context_design.random_read(centre[1] + directions[:, 1], vectors, 1, n=50)
    assert found.shape == (5, 50)
    np.testing.assert_allclose(found, 0, atol=1e-6)  # an emotion and nothing else
    texts = centre[1] + 7 * rng.normal(size=(200, 40))
    read = context_design.random_read(texts, vectors, 1, n=50)
    assert read.std() == pytest.approx(vectors.cosine(texts, 1).std(), rel=0.15)
    np.testing.assert_array_equal(read, context_design.random_read(texts, vectors, 1, n=50))
    assert (read != context_design.random_read(texts, vectors, 1, n=50, seed=1)).any()
    with pytest.raises(UnknownLayer):
        context_design.random_read(texts, vectors, 3)


def test_a_z_is_counted_in_spreads_of_neutral_prompts_column_by_column():
    rng = np.random.default_rng(0)
    neutral, values = rng.normal(3, 2, size=(40, 5)), rng.normal(size=(7, 5))
    z = context_design.against_neutral(values, neutral)
    np.testing.assert_allclose(z * neutral.std(0, ddof=1) + neutral.mean(0), values)
    own = context_design.against_neutral(neutral, neutral)
    np.testing.assert_allclose(own.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(own.std(0, ddof=1), 1)
    np.testing.assert_allclose(context_design.against_neutral(values[:, 2], neutral[:, 2]), z[:, 2])


def test_the_axis_of_one_vector_is_read_as_the_vector_is():
    rng = np.random.default_rng(3)
    directions = rng.normal(size=(4, 2, 24))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    vectors = EmotionVectors(tuple("abcd"), directions, None, rng.normal(size=(2, 24)), None, None)
    texts = 5 * rng.normal(size=(9, 24))
    found = context_design.axis_read(texts, 7 * directions[2, 1], vectors, 1)
    np.testing.assert_allclose(found, vectors.cosine(texts, 1)[:, 2], atol=1e-6)


# --- triggers ----------------------------------------------------------------------------------

PAIRS = load_triggers()
NAMES = list(corpus.emotions().index)


def trigger_values(rng, effects, *, messages=20.0):
    """Read-outs of 171 emotions with a number of its own for each pair and emotion."""
    pair, version = pd.factorize(PAIRS.id)[0], PAIRS.version == "with"
    values = messages * rng.normal(size=(pair.max() + 1, len(NAMES)))[pair]
    values += 0.5 * rng.normal(size=values.shape)
    for emotion, effect in effects.items():
        values[version & (PAIRS.emotion == emotion), NAMES.index(emotion)] += effect
    return values


def triggers_of(values, pairs=PAIRS, **options):
    options = {"resamples": 400} | options
    found = context_design.trigger_tests(pairs, values, NAMES, **options)
    return found.set_index(["emotion", "trigger"])


def test_loaded_emotions_are_found_and_rank_first():
    found = triggers_of(trigger_values(np.random.default_rng(0), {"desperate": 2.0, "calm": 2.0}))
    whole = found.xs("all", level="trigger")
    assert whole.index.tolist() == PAIRS.emotion.unique().tolist() and (whole.n == 12).all()
    assert whole.index[whole.loads.astype(bool)].tolist() == ["desperate", "calm"]
    assert (whole["rank"][["desperate", "calm"]] == 1).all() and whole["rank"].max() > 20
    assert whole.difference["calm"] == pytest.approx(2, abs=0.6)
    assert whole.low["calm"] > 1 and whole.high["calm"] < 3


def test_each_trigger_has_a_row_and_no_claim_of_its_own():
    values = trigger_values(np.random.default_rng(0), {"desperate": 2.0})
    found = triggers_of(values)
    parts = found[found.index.get_level_values("trigger") != "all"]
    counts = PAIRS[PAIRS.version == "with"].groupby(["emotion", "trigger"], sort=False).size()
    assert parts.n.to_dict() == counts.to_dict()
    assert parts.q.isna().all() and parts.loads.isna().all()
    desperate = parts.loc["desperate"]
    mean = (desperate.difference * desperate.n).sum() / desperate.n.sum()
    assert mean == pytest.approx(found.difference["desperate", "all"])
    # three pairs have eight ways of signs
    assert desperate.p.min() > 0.2 and (desperate["rank"] == 1).sum() >= 2


def test_a_trigger_that_loads_the_opposite_does_not_count():
    found = triggers_of(trigger_values(np.random.default_rng(0), {"gloomy": -3.0})).loc["gloomy"]
    assert found.q["all"] < 0.05 and not found.loads["all"] and found["rank"]["all"] == len(NAMES)


def test_without_triggers_few_emotions_count_and_ranks_are_anywhere():
    found = pd.concat(
        triggers_of(trigger_values(np.random.default_rng(seed), {}), seed=seed) for seed in SEEDS
    ).xs("all", level="trigger")
    assert 0.03 < (found.p < 0.1).mean() < 0.17 and found.loads.mean() < 0.03
    assert 70 < found["rank"].mean() < 102
    assert ((found.low < 0) & (found.high > 0)).mean() > 0.92


def test_p_flips_signs_and_q_is_the_false_discovery_rate_over_emotions():
    values = trigger_values(np.random.default_rng(3), {"angry": 0.5})
    found = triggers_of(values, seed=5)
    rows = PAIRS[PAIRS.emotion == "angry"]
    own = values[:, NAMES.index("angry")]
    given, plain = (own[rows.index[rows.version == v]] for v in ("with", "without"))
    p = sign_flip_p(given - plain, resamples=400, seed=5)
    assert found.p["angry", "all"] == p
    whole = found.xs("all", level="trigger")
    assert (whole.q >= whole.p).all() and whole.q.max() == pytest.approx(whole.p.max())


def test_pairs_may_come_in_any_order():
    values = trigger_values(np.random.default_rng(0), {"calm": 1.0})
    order = np.random.default_rng(1).permutation(len(PAIRS))
    found = triggers_of(values[order], PAIRS.iloc[order])
    same = triggers_of(values)
    columns = ["difference", "n", "rank"]
    pd.testing.assert_frame_equal(found.loc[same.index, columns], same[columns])


def test_broken_tables_of_pairs_are_refused():
    values = trigger_values(np.random.default_rng(0), {})
    first = PAIRS.id[0]
    with pytest.raises(BadInput, match="168 messages and 171 emotions need finite values"):
        triggers_of(values[:, :3])
    with pytest.raises(BadInput, match=f"'{first}' needs exactly one message with and one without"):
        triggers_of(values[1:], PAIRS[1:])
    twice = pd.concat([PAIRS, PAIRS[:1]])
    with pytest.raises(BadInput, match=f"'{first}' needs exactly one"):
        triggers_of(np.vstack([values, values[:1]]), twice)
    with pytest.raises(UnknownEmotion, match="no read-out of 'desperate'"):
        context_design.trigger_tests(PAIRS, values[:, :3], NAMES[:3])
    alone = PAIRS.replace({"trigger": {PAIRS.trigger[0]: "shared"}})
    alone.loc[PAIRS.id == first, "trigger"] = "single"
    with pytest.raises(BadInput, match="desperate, single: one pair"):
        triggers_of(values, alone)

"""Tasks in contexts: a balanced file, a design that tells seven effects apart, and its prompts."""

import re
from functools import cache
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import yaml

from emotion_concepts import contexts, corpus
from emotion_concepts.contexts import FACTORS, LEVELS, SPREAD, TONES
from emotion_concepts.errors import BadInput

FILE = corpus.DATA / "scenarios" / "contexts.yaml"
TASKS, INGREDIENTS, STEPS = contexts.load_contexts()
DESIGN = contexts.fractional_factorial()
SIGNS = 2 * DESIGN - 1
COLUMNS = [*FACTORS[:6], *TONES]

context_runs = cache(contexts.context_runs)


def interactions(signs):
    return {pair: signs[pair[0]] * signs[pair[1]] for pair in combinations(FACTORS, 2)}


def with_tone(prompts):
    """The prompts with tone as one factor again."""
    return prompts.assign(tone=prompts.hostile + prompts.warm)


def within_tasks(values, prompts):
    return values - values.groupby(prompts.task).transform("mean")


def take_apart(prompt):
    """The ingredients of a prompt in order, name to (level, text), none of it left over."""
    found = {}
    for row in INGREDIENTS[INGREDIENTS.id == prompt.task].itertuples():
        if row.text in prompt.text:
            assert row.ingredient not in found
            found[row.ingredient] = (row.level, row.text)
    found = dict(sorted(found.items(), key=lambda item: prompt.text.index(item[1][1])))
    brief = TASKS.set_index("id").text[prompt.task]
    assert prompt.text == " ".join([brief, *(text for _, text in found.values())])
    return found


@pytest.fixture
def own_file(tmp_path):
    """Write the first tasks of the packaged file after a change to them."""
    data = yaml.safe_load(FILE.read_text(encoding="utf-8"))

    def write(change, tasks=2):
        data["tasks"] = data["tasks"][:tasks]
        change(data)
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
        return path

    return write


# --- stimuli -----------------------------------------------------------------------------------


def test_the_file_opens_with_its_purpose_and_how_to_add_a_task():
    comment = FILE.read_text(encoding="utf-8").split("\n\n")[0]
    assert comment.startswith("# ") and "To add a task" in comment and 'quote "on"' in comment


def test_each_of_24_tasks_has_each_ingredient_at_all_its_levels():
    assert len(TASKS) == 24 and TASKS.id.is_unique and TASKS.field.nunique() == 20
    found = INGREDIENTS.groupby(["id", "ingredient"], sort=False)["level"].agg(tuple)
    assert len(found) == 24 * 7 and set(INGREDIENTS.id) == set(TASKS.id)
    for (_, ingredient), levels in found.items():
        assert levels == LEVELS[ingredient]
    assert INGREDIENTS.text.is_unique


def test_steps_are_four_of_each_kind_and_equally_long():
    numbers = STEPS.groupby("kind").paraphrase.agg(tuple)
    assert numbers.to_dict() == dict.fromkeys(("cut", "honest", "work"), (1, 2, 3, 4))
    assert STEPS.text.str.split().str.len().eq(13).all()
    assert set(STEPS.prefix) == {"My next step:"} and STEPS.text.str.startswith("I will ").all()


def test_what_is_off_is_as_long_as_what_is_on():
    words = INGREDIENTS.assign(words=INGREDIENTS.text.str.split().str.len())
    words = words.pivot(index="id", columns=["ingredient", "level"], values="words")
    for ingredient, levels in LEVELS.items():
        for level in levels[:-1]:
            difference = words[ingredient, level] - words[ingredient, "off"]
            assert difference.abs().max() <= SPREAD and abs(difference.mean()) < 0.6


# --- design ------------------------------------------------------------------------------------


def test_sixteen_different_runs_have_each_factor_on_in_eight():
    assert list(DESIGN.columns) == list(FACTORS) and not DESIGN.duplicated().any()
    assert len(DESIGN) == 16 and DESIGN.isin([0, 1]).all(axis=None) and (DESIGN.sum() == 8).all()
    assert not DESIGN.iloc[0].any() and DESIGN.iloc[-1].all()


def test_factors_are_orthogonal():
    assert np.array_equal(SIGNS.T @ SIGNS, 16 * np.eye(7))


def test_main_effects_are_clear_of_interactions_of_two():
    products = pd.DataFrame(interactions(SIGNS))
    assert products.shape == (16, 21) and not (SIGNS.T @ products).any(axis=None)


def test_main_effects_are_not_clear_of_interactions_of_three():
    """Resolution IV and no more: the words of the defining relation have four letters."""
    words = [
        four for four in combinations(FACTORS, 4) if SIGNS[list(four)].prod(axis=1).eq(1).all()
    ]
    assert len(words) == 7 and np.unique(words, return_counts=True)[1].tolist() == [4] * 7


def test_the_docstring_names_what_is_aliased_with_what():
    lines = re.findall(r"^ *- (\w+ × \w+ = .*)$", contexts.fractional_factorial.__doc__, re.M)
    named = {frozenset(tuple(pair.split(" × ")) for pair in line.split(" = ")) for line in lines}
    products = interactions(SIGNS)
    computed = {
        frozenset(other for other, theirs in products.items() if theirs.equals(mine))
        for mine in products.values()
    }
    assert named == computed and {len(group) for group in named} == {3}


def test_the_docstring_names_the_generators():
    lines = re.findall(r"^ *- (\w+) = (.*)$", contexts.fractional_factorial.__doc__, re.M)
    assert {name: tuple(of.split(" × ")) for name, of in lines} == contexts.GENERATORS
    for name, of in contexts.GENERATORS.items():
        assert SIGNS[name].equals(SIGNS[list(of)].prod(axis=1))


def test_no_two_runs_are_closer_than_three_factors():
    values = DESIGN.to_numpy()
    distances = [np.sum(a != b) for a, b in combinations(values, 2)]
    assert min(distances) == 3


# --- prompts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("runs", [16, 8])
def test_one_row_a_task_and_run(runs):
    prompts = context_runs(runs=runs)
    assert list(prompts.columns) == ["task", *COLUMNS, "text", "words"]
    assert prompts.task.tolist() == TASKS.id.repeat(runs).tolist() and prompts.text.is_unique
    assert prompts[COLUMNS].isin([0, 1]).all(axis=None)
    assert prompts.words.equals(prompts.text.str.split().str.len())
    assert prompts.index.equals(pd.RangeIndex(24 * runs))


def test_each_task_gets_the_whole_design():
    for _, prompts in with_tone(context_runs()).groupby("task"):
        assert np.array_equal(prompts[list(FACTORS)], DESIGN)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_prompt_is_its_brief_and_each_ingredient_at_the_level_of_its_columns(seed):
    for prompt in context_runs(seed=seed).itertuples():
        tone = "hostile" if prompt.hostile else "warm" if prompt.warm else "off"
        wanted = {name: "on" if getattr(prompt, name) else "off" for name in FACTORS[:6]}
        found = {name: level for name, (level, _) in take_apart(prompt).items()}
        assert found == wanted | {"tone": tone}


def test_all_off_has_only_fillers():
    prompts = context_runs()
    bare = prompts[~prompts[COLUMNS].any(axis=1)]
    assert bare.task.tolist() == TASKS.id.tolist()
    fillers = INGREDIENTS[INGREDIENTS.level == "off"].groupby("id").text.agg(set)
    for prompt in bare.itertuples():
        assert {text for _, text in take_apart(prompt).values()} == fillers[prompt.task]


def test_runs_of_a_task_differ_in_the_text_of_exactly_the_factors_that_differ():
    for _, prompts in with_tone(context_runs()).groupby("task"):
        parts = [list(take_apart(prompt).items()) for prompt in prompts.itertuples()]
        runs = zip(parts, prompts[list(FACTORS)].to_dict("records"), strict=True)
        for (texts, levels), (others, theirs) in combinations(runs, 2):
            moved = {mine[0] for mine, other in zip(texts, others, strict=True) if mine != other}
            assert moved == {name for name in FACTORS if levels[name] != theirs[name]}


@pytest.mark.parametrize("seed", [0, 1])
def test_a_tone_that_is_on_is_hostile_in_half_of_the_tasks_and_warm_in_the_others(seed):
    tones = context_runs(seed=seed).groupby("task")[list(TONES)].sum()
    assert tones.value_counts().to_dict() == {(8, 0): 12, (0, 8): 12}


def test_the_seed_draws_the_tones():
    a, b = context_runs(seed=0), context_runs(seed=1)
    assert not a.hostile.equals(b.hostile) and a.scope.equals(b.scope)


def test_the_order_is_a_matter_of_task_and_seed_alone():
    def orders(**options):
        prompts = context_runs(**options)
        found = {}
        for prompt in prompts.itertuples():
            found.setdefault(prompt.task, set()).add(tuple(take_apart(prompt)))
        assert all(len(order) == 1 for order in found.values())
        return {task: order.pop() for task, order in found.items()}

    whole, half, few = orders(), orders(runs=8), orders(tasks=4)
    assert whole == half and few == {task: whole[task] for task in TASKS.id[:4]}
    assert len(set(whole.values())) == 24
    assert all(whole[task] != order for task, order in orders(seed=1).items())
    # each ingredient comes first somewhere
    assert {order[0] for order in whole.values()} == set(FACTORS)


def test_the_same_seed_gives_the_same_prompts():
    pd.testing.assert_frame_equal(
        contexts.context_runs(tasks=4, runs=8, seed=3),
        contexts.context_runs(tasks=4, runs=8, seed=3),
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_length_hardly_depends_on_a_factor(seed):
    """Over all prompts |r| < 0.05; within tasks, where length varies by a word, < 0.15, tone 0.3.

    In words, a factor makes less than 0.6 of them; of the two tones, with 12 tasks each, 1.25.
    """
    prompts = with_tone(context_runs(seed=seed))
    assert prompts[list(FACTORS)].corrwith(prompts.words).abs().max() < 0.05
    words = within_tasks(prompts.words, prompts)
    for name in (*FACTORS, *TONES):
        levels = within_tasks(prompts[name], prompts)
        if name not in TONES:
            assert abs(levels.corr(words)) < (0.3 if name == "tone" else 0.15)
        assert abs(levels @ words / (levels @ levels)) < (1.25 if name in TONES else 0.6)


# --- half of the runs --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_halves_are_complementary_balanced_and_used_equally_often(seed):
    prompts = with_tone(context_runs(runs=8, seed=seed))
    tasks = [group[list(FACTORS)] for _, group in prompts.groupby("task")]
    halves = {frozenset(map(tuple, runs.to_numpy().tolist())) for runs in tasks}
    a, b = halves
    assert len(a) == len(b) == 8 and a | b == set(map(tuple, DESIGN.to_numpy().tolist()))
    for runs in tasks:
        signs = 2 * runs - 1
        assert np.array_equal(signs.T @ signs, 8 * np.eye(7)) and (runs.sum() == 4).all()
    assert prompts.groupby(list(FACTORS)).size().tolist() == [12] * 16
    # no half is that of one tone
    assert prompts[prompts.tone == 1].groupby(list(FACTORS)).hostile.sum().tolist() == [6] * 8


def test_over_halves_main_effects_are_clear_of_interactions_of_two():
    prompts = with_tone(context_runs(runs=8))
    signs = 2 * prompts[list(FACTORS)] - 1
    products = pd.DataFrame(interactions(signs)).apply(within_tasks, prompts=prompts)
    assert not (signs.T @ products).any(axis=None)
    # in one task they are not
    first = prompts.task == TASKS.id[0]
    assert (signs[first].T @ products[first]).any(axis=None)


@pytest.mark.parametrize("runs", [16, 8])
def test_four_tasks_are_balanced_too(runs):
    prompts = with_tone(context_runs(tasks=4, runs=runs))
    assert prompts.groupby(list(FACTORS)).size().tolist() == [runs // 4] * 16
    assert prompts.hostile.sum() == prompts.warm.sum() == runs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runs": 4}, "runs must be 8 or 16, not 4"),
        ({"tasks": 5}, "with 16 runs, tasks must be a multiple of 2 up to the 24 .*, not 5"),
        ({"tasks": 6, "runs": 8}, "with 8 runs, tasks must be a multiple of 4 .*, not 6"),
        ({"tasks": 26}, "up to the 24 of the file, not 26"),
        ({"tasks": 0}, "not 0"),
    ],
)
def test_a_design_that_cannot_be_balanced_is_refused(options, message):
    with pytest.raises(BadInput, match=message):
        contexts.context_runs(**options)


# --- files of one's own ------------------------------------------------------------------------


def test_a_file_of_ones_own_is_read(own_file):
    path = own_file(lambda data: data["tasks"][1].update(id="mine", field="weaving"))
    tasks, ingredients, _ = contexts.load_contexts(path)
    assert tasks.field.tolist() == ["coding", "weaving"] and len(ingredients) == 30
    assert contexts.context_runs(path, tasks=2).task.unique().tolist() == ["tile_renderer", "mine"]
    levels = contexts.level_texts(2, path)
    assert levels.task.unique().tolist() == ["tile_renderer", "mine"]
    first, packaged = (
        table[table.task == "tile_renderer"].text.tolist()
        for table in (levels, contexts.level_texts(2))
    )
    assert first == packaged
    with pytest.raises(BadInput, match="levels take 2 to 2 tasks, not 3"):
        contexts.level_texts(3, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[1].pop("field"), r"tasks 2 \(tide_tables\): no 'field'"),
        (lambda t: t[0].pop("budget"), r"tasks 1 \(tile_renderer\): no 'budget'"),
        (lambda t: t[1].update(id=7), r"tasks 2 \(7\): write id as a text, not 7"),
        (lambda t: t[0].update(field=["a"]), r"tile_renderer\): write field as a text"),
        (lambda t: t[1].update(id="tile_renderer"), "tasks 2 .*: an earlier entry has this id"),
        (lambda t: t[1].update(text=t[0]["text"]), r"tide_tables\), text: .*renderer\), text; ch"),
        (
            lambda t: t[1]["scope"].update(on=t[1]["scope"]["off"]),
            r"tide_tables\), scope off: this text is also that of .*tables\), scope on; change",
        ),
        (lambda t: t[0]["budget"].pop("off"), "budget must have a text for each of on, off"),
        (lambda t: t[0]["scope"].update(warm="a"), "scope must have a text for each of on, off"),
        (lambda t: t[0].update(scope="a"), "scope must have a text for each of on, off"),
        (lambda t: t[0]["tone"].pop("warm"), "tone must have a text .* hostile, warm, off"),
        (lambda t: t[0]["budget"].update(on=5), "budget on as a text, not 5"),
        (lambda t: t[0]["budget"].update(on="Few."), "budget on needs 12 to 28 words, not 1"),
        (
            lambda t: t[0].update(text=2 * t[0]["text"]),
            r"renderer\): text needs 35 to 60 words, not \d+",
        ),
        (
            lambda t: t[0]["tone"].update(warm="On our maps" + " we have" * 4 + " a lake."),
            "tone warm has 13 words and off 21; bring them within 3",
        ),
        (
            lambda t: t[1]["failures"].update(off=t[1]["failures"]["off"].replace(". A", ", a")),
            "failures on has 2 sentences and off 1; write as many in both",
        ),
        (
            lambda t: t[0]["tone"].update(off=t[0]["tone"]["off"].replace("second", "calm")),
            "tone off names an emotion .calm",
        ),
    ],
)
def test_an_entry_that_breaks_the_design_is_named(own_file, change, message):
    path = own_file(lambda data: change(data["tasks"]))
    with pytest.raises(BadInput, match=message) as error:
        contexts.load_contexts(path)
    assert "own.yaml, tasks" in str(error.value)


@pytest.mark.parametrize("ingredient", ["failures", "tone"])
def test_on_and_off_without_quotes_are_to_be_quoted(tmp_path, ingredient):
    before, after = FILE.read_text(encoding="utf-8").split(f"    {ingredient}:\n", maxsplit=1)
    block, rest = after.split('"off"', maxsplit=1)
    path = tmp_path / "own.yaml"
    bare = block.replace('"', "")
    path.write_text(f"{before}    {ingredient}:\n{bare}off{rest}", encoding="utf-8")
    with pytest.raises(BadInput, match=f'renderer.*: quote "on" and "off" in {ingredient}; YAML'):
        contexts.load_contexts(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("tasks"), "tasks must be a list of entries"),
        (lambda d: d.pop("prefix"), "write prefix as a text, not None"),
        (lambda d: d.pop("steps"), "steps must have a list of texts for each of cut, honest, work"),
        (lambda d: d["steps"].pop("cut"), "steps must have a list of texts for each of cut"),
        (lambda d: d["steps"].update(cut="I will."), "write each kind of steps as a list"),
        (lambda d: d["steps"]["cut"].pop(), "write as many steps of each kind"),
        (lambda d: d["steps"]["work"].insert(0, d["steps"]["work"].pop()[:9]), "work 1 needs 8 to"),
        (lambda d: d["steps"].update(cut=d["steps"]["work"]), "steps work 1: .* steps cut 1; chan"),
        (
            lambda d: d["steps"].update(cut=[f"{t} So it goes here." for t in d["steps"]["cut"]]),
            "steps have 13 to 17 words; bring them within 3",
        ),
    ],
)
def test_steps_that_break_the_design_are_refused(own_file, change, message):
    with pytest.raises(BadInput, match=message) as error:
        contexts.load_contexts(own_file(change))
    assert "own.yaml" in str(error.value)

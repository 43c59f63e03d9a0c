"""The steering engine: cells, what is kept of them, and effects held to controls."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from emotion_concepts import steering, tracing
from emotion_concepts.errors import BadInput
from emotion_concepts.experiments import steered
from emotion_concepts.stats import holm


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# --- effects -----------------------------------------------------------------------------------


def planted_shifts(rng, effects, *, n_random=8, generic=0.5, items=12):
    """Shifts of items: each direction's own effect on top of what steering does by itself."""
    cells = {("emotion", name): effect for name, effect in effects.items()}
    cells |= {("random", f"r{n}"): generic + 0.1 * rng.normal() for n in range(n_random)}
    cells["topic", "sea - work"] = generic
    rows = [
        (*key, 0.5, item, effect + 0.05 * rng.normal(), -0.2)
        for key, effect in cells.items()
        for item in range(items)
    ]
    columns = ["kind", "direction", "strength", "item", "shift", "fluency"]
    return pd.DataFrame(rows, columns=columns)


def test_only_an_effect_beyond_random_directions_passes(rng):
    shifts = planted_shifts(rng, {"joyful": 2.0, "generic": 0.5, "gloomy": -1.0})
    table = steered.shift_tests(shifts).set_index("direction")
    assert table.passes[["joyful", "gloomy"]].all() and not table.passes["generic"]
    assert table.passes[table.kind != "emotion"].isna().all()
    # all that is steered moves, and only the random directions show that it says nothing
    assert table.low["generic"] > 0 and abs(table.beyond["generic"]) < 0.2
    random = table["shift"][table.kind == "random"].to_numpy()
    mine = shifts[shifts.direction == "joyful"]["shift"].mean()
    assert table["shift"]["joyful"] == pytest.approx(mine)
    assert table.beyond["joyful"] == pytest.approx(mine - random.mean())
    scale = random.std(ddof=1) * np.sqrt(1 + 1 / 8)
    by_hand = 2 * scipy.stats.t.sf((mine - random.mean()) / scale, 7)
    assert table.p["joyful"] == pytest.approx(by_hand) and table.p["gloomy"] < 0.001
    assert (table.n == 12).all() and table.fluency["joyful"] == pytest.approx(-0.2)
    assert table.low["joyful"] < mine < table.high["joyful"]


def test_emotions_that_act_like_random_directions_seldom_pass(rng):
    p, passes = [], []
    for _ in range(30):
        effects = {f"e{n}": 0.5 + 0.1 * rng.normal() for n in range(6)}
        table = steered.shift_tests(planted_shifts(rng, effects, items=4), resamples=10)
        own = table[table.kind == "emotion"]
        p += own.p.tolist()
        passes.append(own.passes.any())
    assert 0.005 < np.mean(np.array(p) < 0.05) < 0.12 and np.mean(passes) < 0.2


def test_too_few_random_directions_are_refused(rng):
    with pytest.raises(BadInput, match="at least three random directions are needed, not 2"):
        steered.shift_tests(planted_shifts(rng, {"joyful": 2.0}, n_random=2))


@pytest.fixture
def by_item(rng):
    """Shifts of 20 items by five directions, rows in no order."""
    own, other = rng.normal(size=(2, 20))
    columns = {"up": own, "down": 1 - 2 * own, "same": 3 + own, "else": other}
    rows = [(name, item, x) for name, values in columns.items() for item, x in enumerate(values)]
    shifts = pd.DataFrame(rows, columns=["direction", "item", "shift"])
    return columns, shifts.sample(len(rows), random_state=2)


def test_opposite_emotions_shift_items_oppositely_unless_the_effect_is_generic(by_item):
    columns, shifts = by_item
    assert steered.specificity(shifts, "up", "down").value == pytest.approx(-1)
    same = steered.specificity(shifts, "up", "same")
    assert same.value == pytest.approx(1) and same.n == 20
    unrelated = steered.specificity(shifts, "up", "else")
    assert unrelated.value == pytest.approx(np.corrcoef(columns["up"], columns["else"])[0, 1])
    assert unrelated.low < 0 < unrelated.high


def test_a_contrast_is_the_mean_difference_on_the_same_items(by_item):
    columns, shifts = by_item
    found = steered.contrast(shifts, "same", "up")
    assert found.value == found.low == found.high == pytest.approx(3) and found.n == 20
    found = steered.contrast(shifts, "up", "else")
    assert found.value == pytest.approx(np.mean(columns["up"] - columns["else"]))
    assert found.low < found.value < found.high


def test_several_strengths_are_not_one_test(rng):
    shifts = planted_shifts(rng, {"joyful": 2.0})
    with pytest.raises(BadInput, match="one at a time"):
        steered.shift_tests(pd.concat([shifts, shifts.assign(strength=0.1)]))


def test_the_correction_for_many_emotions_is_the_callers(rng):
    effects = {f"e{n}": 0.5 + 0.3 * rng.normal() for n in range(10)}
    shifts = planted_shifts(rng, effects)
    strict = steered.shift_tests(shifts, adjust=holm).set_index("direction")
    none = steered.shift_tests(shifts, adjust=lambda p: p).set_index("direction")
    own = strict.kind == "emotion"
    assert (strict.passes[own].astype(bool) == (holm(strict.p[own].to_numpy()) < 0.05)).all()
    assert none.passes[own].sum() > strict.passes[own].sum()


# --- the packaged model ------------------------------------------------------------------------

PROMPTS = ["The bus stops at the", "She opened the old wooden", "It was a"]
OPTIONS = [(" corner", " moon"), (" door", " sky above"), (" day", " very long week")]


@pytest.mark.model
def test_leanings_come_cell_by_cell_whatever_the_parts(smollm, planted, own_cache, monkeypatch):
    directions, vectors = planted
    options = {"strengths": [-0.1, 0.0, 0.1], "layers": steering.band(30)}
    found = steered.leanings(smollm, PROMPTS, OPTIONS, directions, vectors, **options)
    cells = steered.cells_of(directions, options["strengths"])
    assert found.shape == (len(cells), 3, 2) and len(cells) == 6
    plain = tracing.option_logprobs(smollm, PROMPTS, OPTIONS).mean
    for cell, values in zip(cells, found, strict=True):
        assert (values == plain).all() == (cell[2] == 0)
        one = {cell[:2]: directions[cell[:2]]}
        alone = {**options, "strengths": [cell[2]]}
        [again] = steered.leanings(smollm, PROMPTS, OPTIONS, one, vectors, **alone)
        np.testing.assert_array_equal(again, values)
    monkeypatch.setattr(steered, "ROWS", 1)
    monkeypatch.setattr(tracing, "cache_dir", lambda: own_cache / "parts")
    parts = steered.leanings(smollm, PROMPTS, OPTIONS, directions, vectors, **options)
    np.testing.assert_allclose(parts, found, atol=2e-3)


@pytest.mark.model
def test_rollouts_share_their_seeds_over_cells(smollm, planted, own_cache):
    directions, vectors = planted
    table = steered.rollouts(
        smollm, PROMPTS[:2], directions, vectors,
        strengths=[0.0, 0.5], layers=steering.band(30), samples=2, max_new_tokens=5,
    )  # fmt: skip
    assert (
        len(table) == 2 * 2 * 2 * 2
        and not table.duplicated(["kind", "direction", "strength", "seed"]).any()
    )
    texts = table.pivot(index="seed", columns=["direction", "strength"], values="text")
    assert (texts["a", 0.0] == texts["b", 0.0]).all(), "unsteered samples are the same in all cells"
    assert (texts["a", 0.5] != texts["a", 0.0]).any()
    assert texts["a", 0.0].nunique() == 4
    assert table.groupby("item").seed.unique().map(list).tolist() == [[0, 1], [2, 3]]


@pytest.mark.model
def test_damage_is_none_at_strength_zero_and_great_where_steering_drowns_the_text(
    smollm, planted, own_cache
):
    directions, vectors = planted
    texts = ["The bus stops at the corner of the street, and the driver opens the front door."]
    found = steered.damage(
        smollm, {("random", "a"): directions["random", "a"]}, vectors, texts,
        layers=steering.band(30), strengths=[0.0, 0.01, 2.0],
    ).set_index("strength")  # fmt: skip
    assert found.perplexity[0.0] == 1 and found.kl[0.0] == 0
    assert found.perplexity[2.0] > 10 and found.kl[2.0] > 1
    assert found.perplexity[0.01] == pytest.approx(1, abs=0.2) and 0 < found.kl[0.01] < 0.1

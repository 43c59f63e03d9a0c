"""The steering engine: cells, what is kept of them, and effects held to controls."""

from types import SimpleNamespace

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


def planted_shifts(rng, effects, *, others=(), n_random=8, generic=0.5, items=12, strength=0.5):
    """Shifts of items: each direction's own effect on top of what steering does by itself."""
    cells = {("emotion", name): effect for name, effect in effects.items()}
    cells |= {("random", f"r{n}"): generic + 0.1 * rng.normal() for n in range(n_random)}
    cells |= dict(others)
    rows = [
        (*key, strength, item, effect + 0.05 * rng.normal(), -0.2)
        for key, effect in cells.items()
        for item in range(items)
    ]
    columns = ["kind", "direction", "strength", "item", "shift", "fluency"]
    return pd.DataFrame(rows, columns=columns)


def both_signs(rng, up, down, **options):
    """Shifts at strength .5 with all controls, and at -.5 of the emotions alone."""
    mirrored = planted_shifts(rng, down, n_random=0, strength=-0.5, **options)
    others = {("shuffled", "s1"): 0.9, ("unrelated", "topic"): 0.4}
    return pd.concat([planted_shifts(rng, up, others=others, **options), mirrored])


def test_only_an_effect_beyond_random_directions_passes(rng):
    effects = {"joyful": 2.0, "generic": 0.5, "gloomy": -1.0}
    shifts = planted_shifts(rng, effects, others={("unrelated", "topic"): 0.5})
    table = steered.shift_tests(shifts).set_index("direction")
    assert table.passes[["joyful", "gloomy"]].all() and not table.passes["generic"]
    assert table.loc[table.kind != "emotion", ["passes", "clear"]].isna().all(axis=None)
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


def test_both_signs_are_held_to_random_directions_of_one(rng):
    shifts = both_signs(rng, {"joyful": 2.0, "calm": 0.5}, {"joyful": -1.0, "calm": 0.5})
    table = steered.shift_tests(shifts).set_index(["direction", "strength"])
    assert len(table) == 2 * 2 + 8 + 2
    assert table.passes["joyful"].all() and not table.passes["calm"].any()
    assert table.clear["joyful"].all() and not table.clear["calm"].any()
    random = table["shift"][table.kind == "random"]
    assert table.beyond["joyful", 0.5] == pytest.approx(2 - random.mean(), abs=0.1)
    assert table.beyond["joyful", -0.5] == pytest.approx(-1 - random.mean(), abs=0.1)


def test_an_effect_that_a_shuffled_control_has_too_is_not_clear(rng):
    effects = {"joyful": 2.0, "weak": 1.2, "gloomy": -1.0, "sad": -0.3}
    controls = {("shuffled", "s1"): 0.5, ("shuffled", "s2"): -0.6, ("unrelated", "topic"): 0.7}
    shifts = planted_shifts(rng, effects, others=controls)
    table = steered.shift_tests(shifts).set_index("direction")
    assert table.passes[list(effects)].all()
    # the control goes the other way: what counts is how far
    assert table.clear[list(effects)].tolist() == [True, False, True, False]
    # a topic is a control like the shuffled ones; random directions are not, their spread is in p
    unrelated = shifts[shifts.kind != "shuffled"]
    far = unrelated.assign(shift=unrelated["shift"] + (unrelated.kind == "unrelated") * 1.0)
    assert not steered.shift_tests(far).set_index("direction").clear["weak"]
    assert steered.shift_tests(unrelated).set_index("direction").clear[list(effects)].all()


def damage_of(tests, perplexity=1.1):
    """Damage of every cell of tests: a number, or {direction: number}."""
    cells = tests[steered.CELL]
    given = perplexity if isinstance(perplexity, dict) else {}
    costs = [given.get(name, 1.1 if given else perplexity) for name in cells.direction]
    return cells.assign(perplexity=costs, kl=0.1, n=6)


def test_an_effect_of_a_direction_that_breaks_the_model_does_not_count(rng):
    tests = steered.shift_tests(both_signs(rng, {"joyful": 2.0, "weak": 0.5}, {"joyful": -1.0}))
    found = steered.counted(tests, damage_of(tests))
    assert found.coherent.all() and found.counts[found.direction == "joyful"].all()
    assert not found.counts[found.direction == "weak"].any()
    assert found.counts[found.kind != "emotion"].isna().all()
    pd.testing.assert_frame_equal(found[tests.columns], tests, check_dtype=False)
    broken = steered.counted(tests, damage_of(tests, {"joyful": steered.LIMIT}))
    assert not broken.counts[broken.kind == "emotion"].any()
    assert broken.passes[broken.direction == "joyful"].all()
    # a control may go unmeasured, an emotion may not
    some = damage_of(tests)[lambda rows: rows.kind == "emotion"]
    assert steered.counted(tests, some).counts.equals(found.counts)
    with pytest.raises(BadInput, match="damage of 'joyful' at strength -0.5 was not measured"):
        steered.counted(tests, some[(some.direction != "joyful") | (some.strength > 0)])


EXPECTED = {("joyful", 1): 1, ("joyful", -1): -1}


@pytest.mark.parametrize(
    ("up", "down", "verdict"),
    [
        (2.0, -1.0, "supported"),
        (2.0, 0.5, "partly"),
        (2.0, 2.0, "partly"),
        (-1.0, 2.0, "reversed"),
        (0.5, 2.0, "reversed"),
        (0.5, 0.5, "not supported"),
        (0.8, 0.2, "not supported"),  # less than the shuffled control
    ],
)
def test_claims_are_judged_by_the_effects_they_foretell(rng, up, down, verdict):
    tests = steered.shift_tests(both_signs(rng, {"joyful": up}, {"joyful": down}))
    tests = steered.counted(tests, damage_of(tests))
    assert steered.judged(tests, EXPECTED) == verdict


def test_a_claim_is_judged_by_its_own_cells_alone(rng):
    effects = {"joyful": 2.0, "gloomy": -1.0}
    tests = steered.shift_tests(both_signs(rng, effects, {"joyful": 2.0, "gloomy": 0.5}))
    broken = damage_of(tests)
    tests, uncounted = steered.counted(tests, broken), tests
    assert steered.judged(tests, {("joyful", 1): 1, ("gloomy", 1): -1}) == "supported"
    assert steered.judged(tests, {("joyful", 1): 1, ("gloomy", 1): 1}) == "partly"
    assert steered.judged(tests, {("joyful", 1): -1}) == "reversed"
    assert steered.judged(tests, {("gloomy", -1): 1}) == "not supported"
    # effects that pass are not enough, nor are clear ones
    for column in ("passes", "clear"):
        without = steered.counted(uncounted.assign(**{column: False}), broken)
        assert steered.judged(without, {("joyful", 1): 1}) == "not supported"


def test_emotions_that_act_like_random_directions_seldom_pass(rng):
    p, passes = [], []
    for _ in range(30):
        own = 0.1 * rng.normal(size=6)
        up, down = ({f"e{n}": 0.5 + s * x for n, x in enumerate(own)} for s in (1, -1))
        table = steered.shift_tests(both_signs(rng, up, down, items=4))
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


def test_log_odds_are_means_over_paraphrases_and_know_their_kinds():
    scores = np.array([[[-1.0, -5.0, -2.0, -9.0], [-3.0, -4.0, -3.0, -9.0]]])
    kinds = ["do", "leave", "do", "other"]
    np.testing.assert_array_equal(steered.log_odds(scores, kinds, "do", "leave"), [[3.5, 1.0]])
    np.testing.assert_array_equal(steered.log_odds(scores, kinds, "leave", "do"), [[-3.5, -1.0]])
    with pytest.raises(BadInput, match="no option is of kind 'leaf'; did you mean leave"):
        steered.log_odds(scores, kinds, "do", "leaf")


# --- damage ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("perplexity", "strength"),
    [
        ({0.1: 1.1, -0.1: 1.2, 0.2: 1.3, -0.2: 1.4, 0.5: 3.0}, 0.2),
        ({0.1: 1.1, -0.1: 1.0, 0.2: 1.1, -0.2: 1.6}, 0.1),  # one sign breaks
        ({0.5: 1.2, 0.1: 1.1, 0.2: 1.6}, 0.1),  # beyond a strength that breaks nothing counts
        ({0.1: 1.1, 0.2: 1.2}, 0.2),
        ({0.2: 9.0, 0.1: 2.0, 0.0: 1.0}, 0.1),  # all break; 0 is no steering
        ({0.1: 1.1, 0.2: np.inf}, 0.1),
    ],
)
def test_the_strength_is_the_largest_before_any_that_breaks(perplexity, strength):
    cells = list(perplexity.items())
    broken = pd.DataFrame(cells, columns=["strength", "perplexity"]).assign(direction="worst")
    tame = broken.assign(direction="tame", perplexity=1.0)
    assert steered.coherent_strength(pd.concat([broken, tame], ignore_index=True)) == strength
    assert steered.coherent_strength(broken, limit=1.01) == broken.strength[lambda s: s > 0].min()


@pytest.fixture
def planted_scores(own_cache, monkeypatch):
    """A model of two tokens whose every addition costs text as much as it is long."""
    calls = []
    halves = tracing.ContinuationScores(np.array([-10.0, -30.0]), np.array([5, 15]))

    def length(steering):
        return np.linalg.norm(steering.add[:, 0], axis=1)

    def continuation_logprobs(model, prompts, texts, *, steering=None):
        cells = len(prompts) // 2
        total, n_tokens = np.tile(halves.total, cells), np.tile(halves.n_tokens, cells)
        lost = 0 if steering is None else length(steering) * n_tokens
        return tracing.ContinuationScores(total - lost, n_tokens)

    def next_token_logprobs(model, prompts, *, steering=None):
        calls.append(len(prompts))
        # the second text's next token does not change
        mine = np.tile([1, 0], len(prompts) // 2)
        share = 0.5 + (0 if steering is None else np.minimum(length(steering), 0.4)) * mine
        return np.log(np.stack([share, 1 - share], axis=1))

    monkeypatch.setattr(steered, "continuation_logprobs", continuation_logprobs)
    monkeypatch.setattr(steered, "next_token_logprobs", next_token_logprobs)
    return calls


def test_damage_is_reckoned_from_scores_and_kept(planted_scores):
    model = SimpleNamespace(identity=tracing.ModelIdentity("m", "w", "t", "float32"))
    vectors = SimpleNamespace(residual_norm=np.ones(2))
    directions = {("random", "a"): np.eye(2, 3), ("emotion", "b"): np.eye(2, 3)[::-1]}
    texts = ["one two three four", "five six seven eight"]
    options = {"layers": [1], "strengths": [0.0, 0.2, -0.4]}
    found = steered.damage(model, directions, vectors, texts, **options)
    cells = steered.cells_of(directions, options["strengths"])
    assert [tuple(row) for row in found[["kind", "direction", "strength"]].values] == cells
    np.testing.assert_allclose(found.perplexity, np.exp([0, 0.2, 0.4] * 2))
    kl = [0.5 * np.log(0.25 / (p * (1 - p))) / 2 for p in (0.5, 0.7, 0.9)]
    np.testing.assert_allclose(found.kl, kl * 2, atol=1e-7)
    assert (found.n == 2).all()
    assert planted_scores == [2, 2 * 4], "two texts without steering, then with every addition"
    again = steered.damage(model, directions, vectors, texts, **options)
    assert len(planted_scores) == 2, "what is on disk was scored again"
    pd.testing.assert_frame_equal(again, found, check_exact=True)
    # another chapter asks for more of the same, then of other texts
    more = {**options, "strengths": [-0.4, 0.3]}
    more = steered.damage(model, {("random", "a"): np.eye(2, 3)}, vectors, texts, **more)
    assert planted_scores[2:] == [2, 2] and more.kl[0] == found.kl[2]
    steered.damage(model, directions, vectors, ["nine ten", *texts[1:]], **options)
    assert planted_scores[4:] == [2, 2 * 4]


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
def test_option_shifts_are_changes_of_the_unsteered_log_odds(smollm, planted, own_cache):
    directions, vectors = planted
    found = steered.option_shifts(
        smollm, PROMPTS, OPTIONS, ["near", "far"],
        {"near": ("near", "far"), "far": ("far", "near")}, directions, vectors,
        strengths=[0.0, 0.1], layers=steering.band(30),
    )  # fmt: skip
    cells = steered.cells_of(directions, [0.0, 0.1])
    keys = [
        (measure, *cell, item) for measure in ("near", "far") for cell in cells for item in range(3)
    ]
    columns = ["measure", "kind", "direction", "strength", "item"]
    assert list(found[columns].itertuples(index=False, name=None)) == keys
    plain = tracing.option_logprobs(smollm, PROMPTS, OPTIONS).mean
    near, far = (found[found.measure == name].reset_index(drop=True) for name in ("near", "far"))
    np.testing.assert_allclose(near.value - near["shift"], np.tile(plain[:, 0] - plain[:, 1], 4))
    np.testing.assert_allclose(far["shift"], -near["shift"])
    still = found.strength == 0
    assert (found.loc[still, ["shift", "fluency"]] == 0).all(axis=None)
    assert (found["shift"][~still] != 0).all()
    scores = steered.leanings(
        smollm, PROMPTS, OPTIONS, directions, vectors,
        strengths=[0.0, 0.1], layers=steering.band(30),
    )  # fmt: skip
    np.testing.assert_allclose(near.value, (scores[..., 0] - scores[..., 1]).ravel())
    np.testing.assert_allclose(near.fluency, (scores - plain).mean(-1).ravel(), atol=1e-12)


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
    assert table.groupby("item").seed.unique().map(list).tolist() == [[0, 1], [1000, 1001]]


def test_cells_that_are_pooled_have_the_seeds_of_one_cell_and_none_twice():
    together = steered.sample_seeds(3, 4, 2)
    apart = steered.sample_seeds(3, 2, 2, apart=True)
    assert sorted(apart.ravel()) == sorted(together[0]) == sorted(together[1])
    with pytest.raises(BadInput, match="1000 seeds; ask for fewer samples than 501"):
        steered.sample_seeds(3, 501, 2, apart=True)


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


@pytest.mark.model
def test_what_is_added_is_read_while_it_is_added(smollm, planted):
    directions, vectors = planted
    direction = directions["random", "a"]
    text = "The bus stops at the corner of the street."
    strengths, span = [-0.2, -0.1, 0.0, 0.1, 0.2], (text.index("corner"), len(text))
    options = {"layers": steering.band(30), "layer": 19}
    found = steered.readings_while_steered(
        smollm, [text] * 5, [span] * 5, direction, strengths, vectors, **options
    )
    assert (np.diff(found) > 0.05).all()
    # without steering it is what the tokens of the span hold by themselves
    [tokens] = tracing.token_residuals(smollm, [text], [19])
    cosines = tokens[:, 0] @ direction[19]
    cosines /= np.linalg.norm(tokens[:, 0], axis=1) * np.linalg.norm(direction[19])
    inside = tracing.tokens_in(smollm, text, [span])
    assert 1 < len(inside) < len(tokens) - 3
    assert found[2] == pytest.approx(cosines[inside].mean(), abs=1e-4)
    # before the first steered block there is nothing to read, whatever the strength
    before = steered.readings_while_steered(
        smollm, [text] * 2, [span] * 2, direction, [0.0, 0.2], vectors, **options | {"layer": 9}
    )
    assert before[0] == pytest.approx(before[1], abs=1e-4)


@pytest.mark.model
def test_each_text_is_read_at_its_own_span_and_strength(smollm, planted):
    directions, vectors = planted
    direction = directions["random", "a"]
    texts = ["It was a day like any other in the town.", "She opened the old wooden door."]
    spans, strengths = [(9, 20), (4, 14)], [0.1, -0.1]
    options = {"layers": steering.band(30), "layer": 19}
    both = steered.readings_while_steered(
        smollm, texts, spans, direction, strengths, vectors, **options
    )
    for n in (0, 1):
        alone = steered.readings_while_steered(
            smollm, [texts[n]], [spans[n]], 3 * direction, [strengths[n]], vectors, **options
        )
        assert both[n] == pytest.approx(alone[0], abs=1e-3)
    assert both[0] > 0 > both[1]
    with pytest.raises(BadInput, match="no range of characters"):
        steered.readings_while_steered(
            smollm, texts, [(9, 20), (4, 99)], direction, strengths, vectors, **options
        )

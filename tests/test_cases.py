"""What the case studies share, on planted designs, replies and registers."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from emotion_concepts import case_figures
from emotion_concepts.errors import BadInput
from emotion_concepts.experiments import cases, grading, steered
from emotion_concepts.frozen import Frozen
from emotion_concepts.results import Register, paper
from emotion_concepts.stats import holm

SETTINGS = {"weights": "0123456789abcdef" * 4, "dtype": "float32"}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def made(model="org/tiny-instruct", claims=(), tables=()):
    register = Register("05_blackmail", model, "ci", SETTINGS, tables=dict(tables))
    for n, (claim, verdict) in enumerate(dict(claims).items()):
        register.verdict(f"claim_{n}", verdict, claim=claim, criterion="c")
    return register


@pytest.fixture
def register(tmp_path, monkeypatch):
    """An empty register; what a test enters must come back from its file."""
    monkeypatch.setenv("EMOTION_CONCEPTS_BUILD", str(tmp_path))
    register = made()
    yield register
    assert Register.load(register.save()).entries.keys() == register.entries.keys()


# --- a crossed design, without steering --------------------------------------------------------

FACTORS = {
    "story": range(4),
    "secret": [True, False],
    "threat": ["off", "none", "new"],
    "c": ["x", "y"],
}
CONTRASTS = {
    "a secret": ("secret", True, False),
    "off, not none": ("threat", "off", "none"),
    "new, not none": ("threat", "new", "none"),
    "c": ("c", "x", "y"),
}


def crossed(rng, noise):
    """A design, its rows in no order, whose large factors would drown the secret in other pairs."""
    table = pd.MultiIndex.from_product(FACTORS.values(), names=FACTORS).to_frame(index=False)
    threats = table.threat.map({"off": -3.0, "none": 0.0, "new": 0.0})
    table["odds"] = 100 * table.story + threats + table.secret + noise * rng.normal(size=len(table))
    return table.sample(len(table), random_state=1)


def test_pairs_differ_in_one_factor_alone(rng):
    table = crossed(rng, noise=0)
    found = cases.factor_effects(table, "odds", list(FACTORS), CONTRASTS).set_index("contrast")
    assert list(found.index) == list(CONTRASTS) and found.n.tolist() == [24, 16, 16, 24]
    # every single pair shows the effect and nothing else
    for column in ("effect", "low", "high"):
        assert found[column].tolist() == [1, -3, 0, 0]
    assert (found.p[:2] < 0.001).all() and (found.p[2:] == 1).all()


def test_a_planted_effect_is_found_in_noise_and_a_null_factor_is_not(rng):
    p = []
    for _ in range(40):
        found = cases.factor_effects(
            crossed(rng, noise=0.7), "odds", list(FACTORS), CONTRASTS, resamples=200
        ).set_index("contrast")
        assert found.low["a secret"] < 1.6 and found.high["a secret"] > 0.4
        assert found.p["off, not none"] < 0.01 and found.high["off, not none"] < -1
        p.append(found.p[["a secret", "c"]])
    share = (pd.DataFrame(p) < 0.05).mean()
    assert share["a secret"] > 0.9 and share["c"] < 0.2


# --- steering ----------------------------------------------------------------------------------


CHOSEN = {("emotion", name): None for name in ("desperate", "calm", "happy")}
DRAWN = {("random", f"random {n}"): None for n in (1, 2, 3)} | {("unrelated", "topic"): None}


@pytest.fixture
def choose(monkeypatch):
    """Choose a strength where perplexities are given; returns it, the damage and what was asked."""

    def choose(perplexity, strengths, **options):
        def damage(model, directions, vectors, texts, *, layers, strengths):
            asked.append({"texts": texts, "layers": layers, "strengths": strengths})
            rows = [
                (*key, s, perplexity.get((key[1], s), perplexity.get(s, 1.0)), 0.1, len(texts))
                for key in directions
                for s in strengths
            ]
            return pd.DataFrame(rows, columns=[*steered.CELL, "perplexity", "kl", "n"])

        asked = []
        monkeypatch.setattr(steered, "damage", damage)
        strength, broken = cases.choose_strength(
            None, CHOSEN, DRAWN, None, layers=[4, 5], strengths=strengths, **options
        )
        return strength, broken, asked

    return choose


def test_damage_is_asked_of_either_sign_on_the_beginnings_of_neutral_texts(choose):
    _, broken, [asked, *later] = choose({}, [0.1, 0.01, 0.03], texts=3, words=10)
    assert asked["strengths"] == [-0.1, -0.03, -0.01, 0.01, 0.03, 0.1]
    assert asked["layers"] == [4, 5]
    assert [len(text.split(" ")) for text in asked["texts"]] == [10] * 3
    assert len(set(asked["texts"])) == 3
    assert all(one["texts"] == asked["texts"] and one["layers"] == [4, 5] for one in later)
    tried = broken[broken.strength.abs() < 0.1]
    assert set(tried.direction) == {"desperate", "calm", "random 1", "random 2"}


def test_every_direction_has_its_damage_at_the_strength_of_the_tests(choose):
    strength, broken, _ = choose({0.1: 2.0, ("happy", 0.03): 1.7}, [0.01, 0.03, 0.1])
    at = broken[broken.strength.abs() == strength]
    asked = [(*key, s) for key in CHOSEN for s in (0.03, -0.03)] + [(*k, 0.03) for k in DRAWN]
    asked += [("random", f"random {n}", -0.03) for n in (1, 2)]  # of the sweep
    assert sorted(zip(at.kind, at.direction, at.strength, strict=True)) == sorted(asked)
    # one that was not tried breaks the model, which the table says and the strength does not
    assert strength == 0.03 and at.perplexity.max() == 1.7


@pytest.mark.parametrize(
    ("perplexity", "strength"),
    [
        ({}, 0.1),
        ({0.1: 2.0}, 0.03),
        ({-0.1: 2.0}, 0.03),  # the sign that breaks decides
        ({0.1: 2.0, -0.03: 1.6}, 0.01),
        ({0.1: 9.0, 0.03: 4.0, 0.01: 2.0}, 0.01),  # all break
    ],
)
def test_the_strength_is_the_largest_that_neither_sign_breaks(choose, perplexity, strength):
    assert choose(perplexity, [0.01, 0.03, 0.1])[0] == strength


def test_the_worst_damage_at_the_strength_is_entered(register):
    rows = [(0.03, 1.1, 0.2), (-0.03, 1.6, 0.1), (0.03, 1.2, 0.15), (0.1, 7.0, 3.0)]
    broken = pd.DataFrame(rows, columns=["strength", "perplexity", "kl"]).assign(n=6)
    cases.enter_damage(register, broken, 0.03)
    values = {key: entry.value for key, entry in register.entries.items()}
    worst = {"damage_perplexity": 1.6, "damage_kl": 0.2, "broken": 1}
    assert values == {"strength": 0.03} | worst
    assert register["damage_kl"].n == 6 and register["broken"].n == 3
    assert register.tables["damage"] is broken


# a kind's directions, and the shift at either sign; controls have one sign
PLANTED = {
    ("emotion", "desperate"): (2.0, -1.5),
    ("emotion", "calm"): (0.1, -2.0),
    ("random", "random 1"): (0.1, None),
    ("random", "random 2"): (0.2, None),
    ("random", "random 3"): (-0.1, None),
    ("random", "random 4"): (0.0, None),
    ("shuffled", "shuffled 1"): (0.3, None),
    ("shuffled", "shuffled 2"): (-0.6, None),
    ("unrelated", "topic"): (0.4, None),
}


def shift_tests(rng, planted):
    rows = [
        (*key, strength, item, shift + 0.01 * rng.normal(), 0.0)
        for key, both in planted.items()
        for strength, shift in zip((0.03, -0.03), both, strict=True)
        if shift is not None
        for item in range(8)
    ]
    columns = ["kind", "direction", "strength", "item", "shift", "fluency"]
    tests = steered.shift_tests(pd.DataFrame(rows, columns=columns), adjust=holm)
    return steered.counted(tests, tests[steered.CELL].assign(perplexity=1.1, kl=0.1, n=6))


def test_shifts_are_entered_by_emotion_and_sign_and_controls_by_kind(rng, register):
    tests = shift_tests(rng, PLANTED)
    cases.enter_shifts(register, tests, "cheating_or_retry")
    emotions = [f"shift_{{}}_{n}_{side}" for n in ("desperate", "calm") for side in ("up", "down")]
    others = ["shift_{}_random", "shift_{}_shuffled", "shift_{}_unrelated"]
    others += ["spread_{}", "furthest_{}", "passed_{}", "beyond_random_{}"]
    assert list(register.entries) == [k.format("cheating_or_retry") for k in emotions + others]
    p = tests.set_index(["direction", "strength"]).p
    for direction, side, strength in (("desperate", "down", -0.03), ("calm", "up", 0.03)):
        entry = register[f"shift_cheating_or_retry_{direction}_{side}"]
        planted = PLANTED["emotion", direction][side == "down"]
        assert entry.value == pytest.approx(planted, abs=0.02) and entry.n == 8
        assert entry.low < entry.value < entry.high and entry.p == p[direction, strength]
    values = {key: register[key.format("cheating_or_retry")].value for key in others}
    assert values["shift_{}_random"] == pytest.approx(0.05, abs=0.01)
    assert values["shift_{}_shuffled"] == pytest.approx(-0.15, abs=0.01)
    assert values["spread_{}"] == pytest.approx(np.std([0.1, 0.2, -0.1, 0], ddof=1), abs=0.01)
    # the random directions' mean of .05 is taken off, as where it is decided what counts
    assert values["furthest_{}"] == pytest.approx(0.65, abs=0.02)
    # three of four lie beyond every control
    assert values["passed_{}"] == 3 and register["passed_cheating_or_retry"].n == 4
    assert register["spread_cheating_or_retry"].n == 4


def test_emotions_that_act_like_controls_do_not_count(rng, register):
    null = PLANTED | {("emotion", "desperate"): (0.1, 0.05), ("emotion", "calm"): (0.0, 0.1)}
    cases.enter_shifts(register, shift_tests(rng, null), "leaning")
    assert register["passed_leaning"].value == 0
    assert register["shift_leaning_desperate_up"].p > 0.5
    # nor what passes, if a shuffled direction goes as far
    far = PLANTED | {("shuffled", "shuffled 1"): (2.5, None)}
    cases.enter_shifts(register, shift_tests(rng, far), "other")
    assert register["passed_other"].value == 0 and register["furthest_other"].value > 2.4
    assert register["beyond_random_other"].value >= 3  # by random directions alone they would


def test_what_is_drawn_as_passing_is_beyond_all_controls(rng):
    tests = shift_tests(rng, PLANTED | {("shuffled", "shuffled 1"): (2.5, None)})
    emotion = tests.kind == "emotion"
    assert tests.passes[emotion].any() and not cases.drawn(tests).passes[emotion].any()
    drawn = cases.drawn(shift_tests(rng, PLANTED))
    assert drawn.passes[emotion].any() and drawn.passes[~emotion].isna().all()
    assert (drawn.sign == np.sign(drawn.strength)).all()


# --- what the model does -----------------------------------------------------------------------

VECTORS = {"desperate": np.array([1.0]), "calm": np.array([2.0])}
CONTROLS = {("shuffled", "shuffled 1"): np.array([9.0])} | {
    ("random", f"random {n}"): np.array([float(10 + n)]) for n in range(5)
}
CELL = ["kind", "direction", "strength"]


@pytest.fixture
def fake():
    """A run that writes nothing but whose direction it was, of two items."""

    def run(directions, *, strengths, samples, apart=False):
        assert apart == (("random", "random 0") in directions), "pooled cells share out the seeds"
        rows = [
            (*key, strength, item, "cheat", f"{vector[0]:g} times {strength}")
            for key, vector in directions.items()
            for strength in strengths
            for item in (0, 1)
            for _ in range(samples)
        ]
        return pd.DataFrame(rows, columns=[*CELL, "item", "label", "text"])

    return run


@pytest.mark.parametrize(
    ("samples", "random", "each"), [(4, 3, 2), (2, 3, 1), (10, 5, 2), (1, 1, 1)]
)
def test_cells_are_none_the_emotions_and_some_random_directions(fake, samples, random, each):
    options = {"strength": 0.1, "samples": samples, "random": random}
    rows = cases.headline(fake, ["desperate", "calm"], VECTORS, CONTROLS, **options)
    drawn = min(random, 5)
    emotions = [("emotion", n, s) for n in ("desperate", "calm") for s in (0.1, -0.1)]
    expected = {("none", "unsteered", 0.0): samples} | dict.fromkeys(emotions, samples)
    # they share the samples of one emotion, and each has one at least
    expected |= {("random", f"random {n}", 0.1): each for n in range(drawn)}
    counts = rows.groupby([*CELL, "item"], sort=False).size().unstack()
    assert counts.apply(tuple, axis=1).to_dict() == {k: (n, n) for k, n in expected.items()}
    assert list(counts.index) == list(expected)
    assert list(rows.index) == list(range(len(rows)))
    texts = rows.drop_duplicates(CELL).set_index(CELL).text
    assert texts["emotion", "calm", -0.1] == "2 times -0.1"
    assert texts["random", "random 0", 0.1] == "10 times 0.1"


TEXTS = {"cheat": "Return what the test wants.", "admits": "It cannot be done."}


def replies(shares, *, n=20, items=4):
    """Texts of which the given share cheats in each cell; the rest admits."""
    rows = []
    for cell, share in shares.items():
        labels = np.where(np.arange(n) < round(share * n), "cheat", "admits")
        items_of = np.arange(n) % items
        rows += [(*cell, i, x, TEXTS[x]) for i, x in zip(items_of, labels, strict=True)]
    return pd.DataFrame(rows, columns=[*CELL, "item", "label", "text"])


CELLS = {
    ("none", "unsteered", 0.0): 0.4,
    ("emotion", "desperate", 0.1): 1.0,
    ("emotion", "desperate", -0.1): 0.0,
    ("emotion", "calm", 0.1): 0.8,
    ("emotion", "calm", -0.1): 0.5,
    ("random", "random 1", 0.1): 0.4,
    ("random", "random 2", 0.1): 0.6,
    ("random", "random 3", 0.1): 0.5,
    ("random", "random 4", 0.1): 0.5,
}
PAPERS = {"unsteered": "blackmail_unsteered", "desperate_up": "blackmail_desperate_up"}


def test_rates_are_entered_by_condition_with_the_papers_beside(register):
    table, tests = cases.enter_rates(register, replies(CELLS), "cheat", papers=PAPERS, seed=0)
    rate = {key.removeprefix("rate_cheat_"): entry for key, entry in register.entries.items()}
    assert {name: entry.value for name, entry in rate.items()} == {
        "unsteered": 0.4,
        "desperate_up": 1,
        "desperate_down": 0,
        "calm_up": 0.8,
        "calm_down": 0.5,
        "random": 0.5,
        "unparsable_cheat": 0,
        "repetition_cheat": 0,
    }
    # random directions are one cell
    assert rate["random"].n == 80 and rate["calm_up"].n == 20
    assert rate["random"].high - rate["random"].low < rate["calm_up"].high - rate["calm_up"].low
    assert rate["desperate_up"].paper == 0.72 and rate["unsteered"].paper == 0.22
    assert rate["desperate_up"].source == paper("blackmail_desperate_up")["source"]
    assert rate["desperate_down"].paper is rate["random"].paper is None
    conditions = ["unsteered", "desperate +", "desperate −", "calm +", "calm −", "random"]
    assert table.condition.tolist() == conditions and table.n.sum() == 9 * 20
    figure = case_figures.rate_bars(table.assign(model="m"), title="t", xlabel="x")
    assert len(figure.axes) == 1
    # calm + would pass if it were tested alone
    assert tests.p[2] < 0.05
    expected = grading.rate_tests(replies(CELLS), "cheat", adjust=holm, seed=0)
    pd.testing.assert_frame_equal(tests, expected)
    assert tests.set_index(["direction", "strength"]).passes.to_dict() == {
        ("desperate", 0.1): True,
        ("desperate", -0.1): True,
        ("calm", 0.1): False,
        ("calm", -0.1): False,
    }


def test_the_headline_of_a_run_can_be_entered(fake, register):
    options = {"strength": 0.1, "samples": 4, "random": 4}
    rows = cases.headline(fake, ["desperate", "calm"], VECTORS, CONTROLS, **options)
    table, tests = cases.enter_rates(register, rows, "cheat", papers={}, seed=0)
    assert len(table) == 6 and register["rate_cheat_random"].n == register["rate_cheat_calm_up"].n
    assert not tests.passes.any(), "all cheat in all cells"


def test_the_worst_cell_tells_how_broken_texts_are(register):
    graded = replies(CELLS)
    loops = graded[(graded.direction == "calm") & (graded.strength > 0)].index
    graded.loc[loops[:5], ["label", "text"]] = "unparsable", "so it is and " * 3
    cases.enter_rates(register, graded, "admits", papers={}, seed=0)
    assert register["unparsable_admits"].value == 0.25
    assert register["repetition_admits"].value == pytest.approx(
        0.25 * grading.repetition("so it is and " * 3)
    )
    assert 0.1 < register["repetition_admits"].value < 0.25
    # what cannot be read counts as a text without the label
    assert register["rate_admits_calm_up"].value == 0.2 and register["rate_admits_calm_up"].n == 20


@pytest.mark.parametrize(
    ("rate", "room"), [(0.0, False), (0.15, False), (0.2, True), (0.8, True), (0.85, False)]
)
def test_a_rate_at_floor_or_ceiling_leaves_no_room(register, rate, room):
    shares = CELLS | {("none", "unsteered", 0.0): rate}
    cases.enter_rates(register, replies(shares), "cheat", papers={}, seed=0)
    assert cases.measurable(register, "cheat") is room


def test_claims_on_rates_are_judged_by_the_differences_that_they_foretell():
    tests = grading.rate_tests(replies(CELLS), "cheat")
    cost = tests[["direction", "strength"]].assign(kind="emotion", perplexity=1.1, kl=0.1)
    judged = partial(cases.judged_rates, tests, cost)
    up, down = ("desperate", 1), ("desperate", -1)
    assert judged({up: 1, down: -1}) == "supported"
    assert judged({up: 1, down: -1, ("calm", 1): -1}) == "partly"
    assert judged({up: -1, down: 1}) == "reversed"
    assert judged({("calm", 1): -1, ("calm", -1): 1}) == "not supported"
    with pytest.raises(BadInput, match="'happy' was not steered at sign \\+1"):
        judged({("happy", 1): 1})
    # a broken model's replies show nothing
    cost["perplexity"] = steered.LIMIT
    assert cases.judged_rates(tests, cost, {up: 1, down: -1}) == "not supported"


# --- models side by side -----------------------------------------------------------------------

ABOUT = {"command": "run it", "hardware": "4 cores, 16 GiB", "date": "2026-01-31", "commit": "ab"}
SMALL = pd.DataFrame({"kind": ["none", "random"], "rate": [0.1, 0.2]})
CLAIMS = {"It lies.": "supported", "It cheats.": "partly", "It rests.": "not supported"}


def run_of(model, claims=(), tables=()):
    return Frozen(made(model, claims), dict(tables), ABOUT)


def test_tables_of_all_models_stand_in_one_the_chapters_first():
    mine = made(tables={"rates": SMALL, "shifts": SMALL})
    runs = [run_of("org/big", tables={"rates": SMALL + SMALL}), run_of("other-1b-q4_k_m")]
    runs[1].tables["rates"] = SMALL.assign(extra=1)
    found = cases.side_by_side(mine, runs, "rates")
    names = ["tiny-instruct", "big", "other-1b"]
    assert found.model.tolist() == [name for name in names for _ in range(2)]
    assert found.rate.tolist() == [0.1, 0.2, 0.2, 0.4, 0.1, 0.2]
    assert list(found.index) == list(range(6))
    assert "model" not in mine.tables["rates"], "the table that is saved has no model"
    alone = cases.side_by_side(mine, [], "rates")
    assert alone.model.unique().tolist() == ["tiny-instruct"] and len(alone) == 2


def test_verdicts_stand_claim_by_claim_and_a_claim_that_was_not_tested_has_none():
    theirs = {"It rests.": "reversed", "It lies.": "partly"}
    runs = [run_of("org/big", theirs), run_of("other-1b-q4_k_m", dict(reversed(CLAIMS.items())))]
    found = cases.verdicts_by_model(made(claims=CLAIMS), runs)
    assert list(found.columns) == ["claim", "tiny-instruct", "big", "other-1b"]
    found = found.set_index("claim")
    assert found["tiny-instruct"].to_dict() == found["other-1b"].to_dict() == CLAIMS
    assert found["big"].to_dict() == theirs | {"It cheats.": "—"}
    # alone, in the order of the chapter
    assert cases.verdicts_by_model(made(claims=CLAIMS), []).claim.tolist() == list(CLAIMS)


def test_the_chapters_own_model_run_longer_stands_beside_it_under_its_profile():
    longer = run_of("org/tiny-instruct", {"It lies.": "partly"})
    longer.register.profile = "large"
    table = cases.verdicts_by_model(made(claims=CLAIMS), [longer])
    assert list(table) == ["claim", "tiny-instruct", "tiny-instruct, large"]
    assert table["tiny-instruct, large"].tolist() == ["partly", "—", "—"]


def test_numbers_without_a_claim_are_no_verdicts():
    register = made(claims=CLAIMS)
    register.add("r", 0.5)
    assert len(cases.verdicts_by_model(register, [])) == len(CLAIMS)


def test_provenance_names_weights_precision_and_machine():
    found = cases.provenance([run_of("org/big"), run_of("other-1b-q4_k_m")])
    assert found.model.tolist() == ["org/big", "other-1b-q4_k_m"]
    assert found.loc[0].to_dict() == {
        "model": "org/big",
        "weights (SHA-256)": SETTINGS["weights"][:16],
        "precision": "float32",
        **{key: ABOUT[key] for key in ("hardware", "date")},
    }
    assert cases.provenance([]).empty


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("smollm2-135m-instruct", "smollm2-135m-instruct"),
        ("org/big", "big"),
        ("models/qwen2.5-0.5b-instruct-q4_k_m", "qwen2.5-0.5b-instruct"),
    ],
)
def test_names_of_models_are_short(model, name):
    assert cases.short(model) == name


def test_a_design_with_a_gap_is_refused():
    table = pd.DataFrame({"a": [0, 0, 1, 1], "b": [0, 1, 0, 1], "y": [0.0, 1.0, 2.0, 3.0]})
    ask = {"a": ("a", 1, 0)}
    with pytest.raises(BadInput, match="not 1 and 0 in every combination"):
        cases.factor_effects(table.iloc[:3], "y", ["a", "b"], ask)
    with pytest.raises(BadInput, match="stands twice"):
        cases.factor_effects(pd.concat([table, table]), "y", ["a", "b"], ask)


def test_more_random_directions_than_there_are_is_refused(fake):
    with pytest.raises(BadInput, match="9 random directions are asked for"):
        cases.headline(fake, ["calm"], VECTORS, CONTROLS, strength=0.1, samples=9, random=9)


# --- the screen --------------------------------------------------------------------------------


def test_only_items_with_room_on_both_sides_enter(register):
    table = pd.DataFrame({"id": list("abcd"), "odds": [-2.5, -2.0, 0.3, 2.1]})
    assert cases.screened(register, table, "odds", what="tasks").id.tolist() == ["b", "c"]
    assert (register["screened"].value, register["entering"].value) == (4, 2)
    with pytest.raises(BadInput, match="none of 1 tasks has a leaning within 2 nats .* another"):
        cases.screened(register, table[3:], "odds", what="tasks")


def test_each_measure_is_tested_by_itself(rng):
    planted = {key: (x, y) for key, (x, y) in PLANTED.items()}
    rows = [
        (*key, strength, item, measure, sign * shift + 0.01 * rng.normal(), 0.0)
        for measure, sign in (("a", 1), ("b", -1))
        for key, both in planted.items()
        for strength, shift in zip((0.03, -0.03), both, strict=True)
        if shift is not None
        for item in range(8)
    ]
    shifts = pd.DataFrame(rows, columns=[*CELL, "item", "measure", "shift", "fluency"])
    broken = shifts[CELL].drop_duplicates().assign(perplexity=1.1, kl=0.1, n=6)
    found = cases.by_measure(shifts, broken)
    assert list(found) == ["a", "b"]
    a, b = (table.query("kind == 'emotion'") for table in found.values())
    assert np.allclose(a["shift"], -b["shift"], atol=0.03) and a.counts.any()
    assert a.p.tolist() == pytest.approx(b.p.tolist(), rel=0.5)

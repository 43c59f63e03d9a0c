"""Figures of the case studies: what they draw, mark and refuse."""

import functools
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from emotion_concepts import case_figures, plots
from emotion_concepts.errors import BadInput

SLOPES = {
    "happy": -1,
    "inspired": -0.5,
    "loving": 1.5,
    "proud": 0.5,
    "calm": -3,
    "desperate": 5,
    "angry": 3.2,
    "guilty": -2,
    "sad": 0.8,
    "afraid": 3.5,
    "nervous": 2.4,
    "grief-stricken": -1.4,
}
RISES = {"desperate": 0.1, "afraid": 0.06, "calm": -0.08, "guilty": 0.0}
STRENGTHS = (-0.1, -0.03, -0.01, 0, 0.01, 0.03, 0.1)
MODELS = ["SmolLM2-360M-Instruct", "Qwen3-1.7B", "Llama-3.2-3B-Instruct"]


def rng(seed=0):
    return np.random.default_rng(seed)


def dose_table(emotions=12):
    """Controls were run at positive strengths only."""
    rows = [
        ("emotion", name, s, slope * s, slope * s - 0.05, slope * s + 0.05)
        for name, slope in list(SLOPES.items())[:emotions]
        for s in STRENGTHS
    ]
    slopes = [("random", f"random {i}", s) for i, s in enumerate(rng().normal(size=20))]
    slopes += [("shuffled", f"shuffled {i}", s) for i, s in enumerate((0.6, -0.4, 0.2))]
    slopes += [("unrelated", "topic", -0.9)]
    rows += [
        (kind, name, s, slope * s, np.nan, np.nan)
        for kind, name, slope in slopes
        for s in STRENGTHS[4:]
    ]
    return pd.DataFrame(rows, columns=["kind", "direction", "strength", "effect", "low", "high"])


def forest_table(models=3):
    rows = []
    for model in MODELS[:models]:
        for name, slope in SLOPES.items():
            for sign in (-1, 1):
                shift = 0.1 * sign * slope + 0.03
                passes = abs(shift) > 0.2
                rows.append(
                    (model, "emotion", name, sign, shift, shift - 0.06, shift + 0.06, passes)
                )
        controls = [("random", f"random {i}", s) for i, s in enumerate(0.1 * rng().normal(size=20))]
        controls += [("shuffled", f"shuffled {i}", s) for i, s in enumerate((0.06, -0.04, 0.02))]
        controls += [("unrelated", "topic", -0.09)]
        rows += [(model, *control[:2], 1, control[2], np.nan, np.nan, None) for control in controls]
    columns = ["model", "kind", "direction", "sign", "shift", "low", "high", "passes"]
    return pd.DataFrame(rows, columns=columns)


def rate_table(models=3):
    conditions = [("none", "none", 0.22), ("desperate +", "emotion", 0.46)]
    conditions += [("desperate −", "emotion", 0.15), ("calm +", "emotion", 0.0)]
    conditions += [("calm −", "emotion", 0.41), ("random", "random", 0.25)]
    rows = [
        (model, name, kind, rate, max(0, rate - 0.09), rate + 0.09, 1200 if kind == "none" else 96)
        for model in MODELS[:models]
        for name, kind, rate in conditions
    ]
    return pd.DataFrame(rows, columns=["model", "condition", "kind", "rate", "low", "high", "n"])


def path_table(emotions=10):
    """Paths that bend; controls were run at positive strengths only."""
    slopes = list(SLOPES.items())[:emotions]
    directions = [("emotion", name, slope) for name, slope in slopes]
    directions += [("random", f"random {i}", s) for i, s in enumerate(0.4 * rng().normal(size=10))]
    directions += [("shuffled", "shuffled 1", 0.4), ("unrelated", "topic", -0.6)]
    bends = rng(3).normal(size=(len(directions), 2))
    rows = [
        (kind, name, s, 0.3 + 2 * slope * s + 8 * a * s**2, 0.2 - slope * s + 14 * b * s**2)
        for (kind, name, slope), (a, b) in zip(directions, bends, strict=True)
        for s in STRENGTHS
        if kind == "emotion" or s > 0
    ]
    columns = ["kind", "direction", "strength", "sycophancy", "harshness"]
    return pd.DataFrame(rows, columns=columns)


def failure_table(emotions=4):
    rows = [
        (emotion, outcome, n, value, value - 0.05, value + 0.05)
        for emotion, rise in list(RISES.items())[:emotions]
        for outcome, share in (("failed", 1), ("passed", 0.2))
        for n in range(6)
        for value in [rise * share * n]
    ]
    return pd.DataFrame(rows, columns=["emotion", "outcome", "failures", "value", "low", "high"])


DOSE = {
    "value": "effect",
    "title": "Does steering change how much the model leans to blackmail?",
    "ylabel": "change of the log-odds",
}
FOREST = {
    "title": "Which emotions shift the choice beyond what random directions do?",
    "xlabel": "change of the log-odds (nats)",
}
RATES = {"title": "How often does the model blackmail?", "xlabel": "share of the replies"}
PLANE = {
    "x": "sycophancy",
    "y": "harshness",
    "title": "Is less sycophancy paid for with harshness?",
    "xlabel": "sycophancy (score)",
    "ylabel": "harshness (score)",
}
FAILURES = {
    "title": "Does desperation grow with each failed test?",
    "ylabel": "cosine, centred over replies",
}
FIGURES = {
    "dose_panels": lambda: case_figures.dose_panels(
        dose_table(), **DOSE, coherent=(-0.03, 0.03), note="n = 48 prompts; bands: 95 % (bootstrap)"
    ),
    "dose_panels_two": lambda: case_figures.dose_panels(dose_table(2), **DOSE),
    "dose_panels_five": lambda: case_figures.dose_panels(dose_table(5), **DOSE),
    "shift_forest": lambda: case_figures.shift_forest(
        forest_table(), **FOREST, note="strength 0.03; n = 48 prompts; lines: 95 % (bootstrap)"
    ),
    "shift_forest_one": lambda: case_figures.shift_forest(forest_table(1), **FOREST),
    "rate_bars": lambda: case_figures.rate_bars(
        rate_table(), **RATES, note="strength 0.03; lines: 95 % (Wilson)"
    ),
    "rate_bars_one": lambda: case_figures.rate_bars(rate_table(1), **RATES),
    "plane_curves": lambda: case_figures.plane_curves(
        path_table(), **PLANE, note="strengths −0.1 to 0.1; n = 40 prompts"
    ),
    "plane_curves_four": lambda: case_figures.plane_curves(path_table(4), **PLANE),
    "failure_curves": lambda: case_figures.failure_curves(
        failure_table(), **FAILURES, note="n = 36 replies; layer 20; bands: 95 %"
    ),
    "failure_curves_one": lambda: case_figures.failure_curves(failure_table(1), **FAILURES),
}


@functools.cache
def drawn(name):
    """A figure for tests that only look at it."""
    figure = FIGURES[name]()
    figure.draw_without_rendering()
    return figure


def words(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def seen(figure):
    """Texts but for ticks beyond the limits of an axis, which are not drawn."""
    hidden = set()
    for ax, which in itertools.product(figure.axes, ("xaxis", "yaxis")):
        axis = getattr(ax, which)
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks():
            if not low <= tick.get_loc() <= high:
                hidden |= {tick.label1, tick.label2}
    texts = figure.findobj(lambda a: isinstance(a, Text) and a.get_visible() and a.get_text())
    return [text for text in texts if text not in hidden and text.get_window_extent().width]


def head(ax):
    return ax.get_title(loc="left").replace("\n", "")


def lines(ax, colour, n=None):
    """The lines of a colour, in the order in which they were drawn, of n points where given."""
    found = [line for line in ax.lines if to_hex(line.get_color()) == colour]
    return [line for line in found if n is None or len(line.get_xdata()) == n]


def marks(ax, colour):
    return [line for line in lines(ax, colour, 1) if line.get_marker() != "None"]


def outline(band):
    """The corners of a band as (x, y), each once."""
    return {tuple(np.round(corner, 9)) for corner in band.get_paths()[0].vertices}


def span(patch, ax):
    return patch.get_extents().transformed(ax.transData.inverted()).intervalx


# --- every figure --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_one_look(name):
    figure = drawn(name)
    assert isinstance(figure, Figure)
    assert not plt.get_fignums(), "nothing is left open"
    assert figure.get_figwidth() <= plots.WIDTH
    assert to_hex(figure.get_facecolor()) == "#ffffff"


@pytest.mark.parametrize("name", FIGURES)
def test_texts_are_large_enough_within_the_picture_and_apart(name):
    figure = drawn(name)
    edge = figure.bbox.padded(1)
    texts = seen(figure)
    # Of the text alone: an annotation counts its tie.
    boxes = [Text.get_window_extent(text) for text in texts]
    for text, box in zip(texts, boxes, strict=True):
        assert text.get_size() >= 9, text
        assert edge.contains(box.x0, box.y0) and edge.contains(box.x1, box.y1), text
    # One pixel: the box of a line of text is higher than its letters.
    pairs = itertools.combinations(zip(texts, [box.padded(-1) for box in boxes], strict=True), 2)
    touching = [
        (a.get_text(), b.get_text()) for (a, one), (b, other) in pairs if one.overlaps(other)
    ]
    assert not touching


@pytest.mark.parametrize("name", ["dose_panels", "shift_forest", "rate_bars", "failure_curves"])
def test_panels_share_their_axes_and_tables_keep_their_order(name):
    axes = drawn(name).axes
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in axes}) == 1
    order = {"dose_panels": list(SLOPES), "failure_curves": list(RISES)}.get(name, MODELS)
    assert [head(ax) for ax in axes] == order


def test_a_removed_panel_leaves_ticks_to_the_one_above():
    shown = [ax.xaxis.get_tick_params()["labelbottom"] for ax in drawn("dose_panels_five").axes]
    assert shown == [False, False, True, True, True]


# --- effects of steering -------------------------------------------------------------------------


def test_strengths_stand_at_equal_distances_with_zero_at_zero():
    for ax in drawn("dose_panels").axes:
        [line] = lines(ax, plots.BLUE, 7)
        assert line.get_xdata().tolist() == [-3, -2, -1, 0, 1, 2, 3]
        assert np.allclose(line.get_ydata(), SLOPES[head(ax)] * np.array(STRENGTHS))
    ticks = [label.get_text() for label in ax.get_xticklabels()]
    assert ticks == ["−0.1", "−0.03", "−0.01", "0", "0.01", "0.03", "0.1"]


def test_rows_may_come_in_any_order_and_zero_may_lack():
    table = dose_table(2).query("strength != 0").iloc[::-1]
    axes = case_figures.dose_panels(table, **DOSE).axes
    assert [head(ax) for ax in axes] == ["inspired", "happy"]
    [line] = lines(axes[1], plots.BLUE, 6)
    assert line.get_xdata().tolist() == [-3, -2, -1, 1, 2, 3]
    assert np.allclose(line.get_ydata(), [0.1, 0.03, 0.01, -0.01, -0.03, -0.1])


def test_the_random_range_is_the_same_at_both_signs_and_narrow_where_nothing_is_steered():
    slopes = dose_table().query("kind == 'random' and strength == 0.1").effect.to_numpy()
    low, high = np.quantile(slopes, [0.025, 0.975])
    assert abs(low + high) > 0.01, "otherwise a range of the wrong sign would look right"
    for ax in drawn("dose_panels").axes:
        band, own = ax.collections
        corners = outline(band)
        assert {(x, y) for x, y in corners if abs(x) == 3} == {
            (x, round(y, 9)) for x in (-3, 3) for y in (low, high)
        }
        assert {y for x, y in corners if x == 0} == {0}
        middle = SLOPES[head(ax)] * 0.1
        assert {y for x, y in outline(own) if x == 3} == {
            round(middle - 0.05, 9),
            round(middle + 0.05, 9),
        }


def test_random_directions_at_negative_strengths_count_too():
    table = dose_table(1)
    mirrored = table.query("kind == 'random'").assign(
        strength=lambda t: -t.strength, effect=lambda t: t.effect + 1
    )
    both = pd.concat([table, mirrored])
    values = both.query("kind == 'random' and abs(strength) == 0.1").effect
    band = case_figures.dose_panels(both, **DOSE).axes[0].collections[0]
    for side in (-3, 3):
        ends = sorted(y for x, y in outline(band) if x == side)
        assert np.allclose(ends, values.quantile([0.025, 0.975]))


def test_other_controls_are_grey_dashes_where_they_were_run():
    for ax in drawn("dose_panels").axes:
        greys = lines(ax, plots.CONTROL)
        assert len(greys) == 4
        assert all(line.is_dashed() for line in greys)
        assert all(line.get_xdata().tolist() == [1, 2, 3] for line in greys)
    assert {"shuffled", "unrelated", "random (95 %)"} <= set(words(drawn("dose_panels")))


def test_without_controls_none_are_drawn_or_named():
    figure = case_figures.dose_panels(dose_table().query("kind == 'emotion'"), **DOSE)
    for ax in figure.axes:
        assert {y for _, y in outline(ax.collections[0])} == {0}
        assert not lines(ax, plots.CONTROL)
    assert not {"shuffled", "unrelated", "random (95 %)", "text stays coherent"} & set(
        words(figure)
    )


def test_the_coherent_window_is_shaded_and_named():
    for ax in drawn("dose_panels").axes:
        assert np.allclose(span(ax.patches[0], ax), (-2, 2))
    assert "text stays coherent" in words(drawn("dose_panels"))
    with pytest.raises(BadInput, match="coherent must be"):
        case_figures.dose_panels(dose_table(), **DOSE, coherent=(0.1, -0.1))


def test_an_emotion_is_needed_and_thirteen_are_too_many():
    with pytest.raises(BadInput, match="no row of kind 'emotion'"):
        case_figures.dose_panels(dose_table().query("kind != 'emotion'"), **DOSE)
    with pytest.raises(BadInput, match="no row of kind 'emotion'"):
        case_figures.dose_panels(
            dose_table().query("kind == 'emotion'").assign(effect=np.nan), **DOSE
        )
    more = dose_table().replace({"direction": {"topic": "bored"}, "kind": {"unrelated": "emotion"}})
    with pytest.raises(BadInput, match="13 panels do not fit, 12 do"):
        case_figures.dose_panels(more, **DOSE)
    with pytest.raises(BadInput, match="no row is of kind 'emotion'"):
        case_figures.shift_forest(forest_table().query("kind != 'emotion'"), **FOREST)


def test_signs_are_hollow_and_filled_and_only_what_passes_is_strong():
    table = forest_table().query("kind == 'emotion'")
    for ax in drawn("shift_forest").axes:
        part = table[table.model == head(ax)]
        for colour, passes in ((plots.BLUE, True), (case_figures._PALE, False)):
            dots = marks(ax, colour)
            rows = part[part.passes == passes]
            assert np.allclose([dot.get_xdata()[0] for dot in dots], rows["shift"])
            hollow = [dot.get_markerfacecolor() == "white" for dot in dots]
            assert hollow == list(rows["sign"] == -1)
            names = [list(SLOPES)[round(dot.get_ydata()[0])] for dot in dots]
            assert names == list(rows["direction"])
            ends = [line.get_xdata() for line in lines(ax, colour, 2)]
            assert np.allclose(ends, rows[["low", "high"]])
        assert len(marks(ax, plots.BLUE)) and len(marks(ax, case_figures._PALE))


def test_controls_of_a_forest_are_a_range_and_a_row_of_their_own():
    table = forest_table()
    table.loc[(table.model == MODELS[1]) & (table.kind == "random"), "shift"] += 1
    axes = case_figures.shift_forest(table, **FOREST).axes
    labels = [label.get_text() for label in axes[0].get_yticklabels()]
    assert labels == [*SLOPES, "controls"]
    for ax in axes:
        random = table[(table.model == head(ax)) & (table.kind == "random")]["shift"]
        assert np.allclose(span(ax.patches[0], ax), random.quantile([0.025, 0.975]))
        greys = lines(ax, plots.CONTROL)
        assert [len(line.get_xdata()) for line in greys] == [3, 1]
        assert {y for line in greys for y in line.get_ydata()} == {len(SLOPES)}


def test_a_forest_without_controls_has_no_row_for_them():
    figure = case_figures.shift_forest(forest_table(1).query("kind == 'emotion'"), **FOREST)
    assert not figure.axes[0].patches
    assert not {"controls", "random (95 %)", "shuffled"} & set(words(figure))


def test_what_was_not_tested_does_not_pass():
    table = forest_table(1).query("kind == 'emotion'").assign(passes=np.nan)
    ax = case_figures.shift_forest(table, **FOREST).axes[0]
    assert len(marks(ax, case_figures._PALE)) == 24 and not marks(ax, plots.BLUE)


def test_a_sign_is_minus_or_plus_one():
    with pytest.raises(BadInput, match="sign must be -1 or 1"):
        case_figures.shift_forest(forest_table().replace({"sign": {-1: -0.03}}), **FOREST)


# --- behaviour -----------------------------------------------------------------------------------


def test_the_rate_without_steering_is_a_line_through_each_panel():
    table = rate_table()
    table.loc[(table.model == MODELS[2]) & (table.kind == "none"), "rate"] = 0.3
    for ax in case_figures.rate_bars(table, **RATES).axes:
        [line] = [line for line in lines(ax, plots.INK) if line.get_ls() == ":"]
        plain = 0.3 if head(ax) == MODELS[2] else 0.22
        assert list(line.get_xdata()) == [plain, plain]


def test_rates_stand_in_their_rows_with_interval_and_n():
    table = rate_table(1)
    ax = drawn("rate_bars_one").axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(table.condition)
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert np.allclose(
        [dot.get_xydata()[0] for dot in dots], list(zip(table.rate, range(6), strict=True))
    )
    colours = [to_hex(dot.get_color()) for dot in dots]
    assert colours == [plots.INK, *[plots.BLUE] * 4, plots.CONTROL]
    ends = [
        line.get_xdata()
        for line in ax.lines
        if line.get_ls() == "-" and line.get_marker() == "None"
    ]
    assert np.allclose(ends, table[["low", "high"]])
    assert [text.get_text() for text in ax.texts] == ["n", "1,200", *["96"] * 5]


def test_rates_of_zero_are_drawn_within_their_axes():
    table = rate_table(1).assign(rate=0.0, low=0.0, high=0.0)
    low, high = case_figures.rate_bars(table, **RATES).axes[0].get_xlim()
    assert low < 0 < high


def test_rates_are_shares_with_one_row_without_steering():
    with pytest.raises(BadInput, match="from 0 to 1"):
        case_figures.rate_bars(rate_table().assign(rate=22.0), **RATES)
    with pytest.raises(BadInput, match="has 0 rows of kind 'none'"):
        case_figures.rate_bars(rate_table().query("kind != 'none'"), **RATES)
    with pytest.raises(BadInput, match="has 2 rows of kind 'none'"):
        case_figures.rate_bars(rate_table().replace("random", "none"), **RATES)


@pytest.mark.parametrize(
    ("draw", "table", "about"),
    [
        (case_figures.shift_forest, forest_table, FOREST),
        (case_figures.rate_bars, rate_table, RATES),
    ],
)
def test_four_models_are_too_many(draw, table, about):
    more = pd.concat([table(), table(1).assign(model="gpt2")])
    with pytest.raises(BadInput, match="4 panels do not fit, 3 do"):
        draw(more, **about)


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_path_runs_through_its_strengths_and_ends_in_a_large_dot(shuffled):
    table = path_table()
    given = table.sample(frac=1, random_state=0) if shuffled else table
    ax = case_figures.plane_curves(given, **PLANE).axes[0]
    paths = [line for line in ax.lines if len(line.get_xdata()) == 7]
    large = [line for line in ax.lines if line.get_markersize() == 8]
    names = list(given.query("kind == 'emotion' and strength != 0").direction.unique())
    for name, path, dot in zip(names, paths, large, strict=True):
        rows = table[table.direction == name].sort_values("strength")
        assert np.allclose(path.get_xydata(), rows[["sycophancy", "harshness"]])
        assert np.allclose(dot.get_xydata()[0], path.get_xydata()[-1])
        assert dot.get_color() == path.get_color()


def test_ten_paths_are_all_named_and_none_looks_like_another():
    ax = drawn("plane_curves").axes[0]
    paths = [line for line in ax.lines if len(line.get_xdata()) == 7]
    assert {text.get_text() for text in ax.texts} == set(list(SLOPES)[:10])
    assert len({(line.get_color(), line.is_dashed()) for line in paths}) == 10
    ends = {name: line.get_xydata()[-1] for name, line in zip(SLOPES, paths, strict=False)}
    assert all(np.allclose(ends[text.get_text()], text.xy) for text in ax.texts)


def test_the_point_without_steering_is_marked_and_may_be_given_once():
    table = path_table(3)
    once = table[table.strength != 0]
    plain = pd.DataFrame(
        {"direction": "", "kind": "none", "strength": 0, "sycophancy": [0.4], "harshness": [0.1]}
    )
    ax = case_figures.plane_curves(pd.concat([once, plain]), **PLANE).axes[0]
    [diamond] = [line for line in ax.lines if line.get_marker() == "D"]
    assert np.allclose(diamond.get_xydata(), [[0.4, 0.1]])
    paths = [line for line in ax.lines if len(line.get_xdata()) == 7]
    assert np.allclose([path.get_xydata()[3] for path in paths], [0.4, 0.1])
    with pytest.raises(BadInput, match="no row is at strength 0"):
        case_figures.plane_curves(once, **PLANE)


def test_controls_of_a_plane_are_grey_dots_without_names():
    ax = drawn("plane_curves").axes[0]
    greys = lines(ax, plots.CONTROL)
    assert [len(line.get_xdata()) for line in greys] == [30, 3, 3]
    assert all(line.get_ls() == "None" for line in greys)
    controls = path_table().query("kind == 'random'")
    assert np.allclose(greys[0].get_xydata(), controls[["sycophancy", "harshness"]])
    dots = ax.transData.transform(np.vstack([line.get_xydata() for line in greys]))
    boxes = [Text.get_window_extent(text) for text in ax.texts]
    assert not [box for box in boxes if any(box.contains(*dot) for dot in dots)], "names hide none"


def test_paths_are_finite_and_not_too_many():
    table = path_table(12)
    more = pd.concat([table, table.query("direction == 'sad'").assign(direction="bored")])
    with pytest.raises(BadInput, match="13 emotions cannot be told apart"):
        case_figures.plane_curves(more, **PLANE)
    with pytest.raises(BadInput, match="0 emotions"):
        case_figures.plane_curves(
            pd.concat([table.query("kind == 'random'"), table.query("strength == 0")]), **PLANE
        )
    with pytest.raises(BadInput, match="not finite"):
        case_figures.plane_curves(table.assign(harshness=np.nan), **PLANE)


def test_outcomes_are_two_lines_with_bands_named_once():
    table = failure_table()
    for ax in drawn("failure_curves").axes:
        for outcome, colour in (("failed", plots.BLUE), ("passed", plots.CONTROL)):
            rows = table[(table.emotion == head(ax)) & (table.outcome == outcome)]
            [line] = lines(ax, colour, 6)
            assert np.allclose(line.get_xydata(), rows[["failures", "value"]])
            [band] = [b for b in ax.collections if to_hex(b.get_facecolor()[0]) == colour]
            assert {y for x, y in outline(band) if x == 5} == set(
                rows.loc[rows.failures == 5, ["low", "high"]].to_numpy().ravel().round(9)
            )
    labels = [{text.get_text() for text in ax.texts} for ax in drawn("failure_curves").axes]
    assert labels == [{"failed", "passed"}, set(), set(), set()]


def test_a_fifth_emotion_or_a_third_outcome_is_refused():
    more = pd.concat([failure_table(), failure_table(1).assign(emotion="bored")])
    with pytest.raises(BadInput, match="5 panels do not fit, 4 do"):
        case_figures.failure_curves(more, **FAILURES)
    with pytest.raises(BadInput, match="unknown kind 'pased'; did you mean passed"):
        case_figures.failure_curves(failure_table().replace("passed", "pased"), **FAILURES)


# --- what is refused -----------------------------------------------------------------------------

TABLES = [
    (case_figures.dose_panels, dose_table, DOSE, "effect"),
    (case_figures.shift_forest, forest_table, FOREST, "passes"),
    (case_figures.rate_bars, rate_table, RATES, "n"),
    (case_figures.plane_curves, path_table, PLANE, "harshness"),
    (case_figures.failure_curves, failure_table, FAILURES, "failures"),
]


@pytest.mark.parametrize(("draw", "table", "about", "column"), TABLES)
def test_empty_tables_and_missing_columns_are_refused(draw, table, about, column):
    with pytest.raises(BadInput, match="empty"):
        draw(table().iloc[:0], **about)
    with pytest.raises(BadInput, match=f"no column '{column}'"):
        draw(table().drop(columns=column), **about)


@pytest.mark.parametrize(("draw", "table", "about"), [t[:3] for t in TABLES[:4]])
def test_an_unknown_kind_is_refused(draw, table, about):
    with pytest.raises(BadInput, match="unknown kind 'randon'"):
        draw(table().replace("random", "randon"), **about)

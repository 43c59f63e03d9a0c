"""Figures of chapters 3 and 4: what they draw, mark and refuse."""

import functools
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from emotion_concepts import figures, plots
from emotion_concepts.errors import BadInput

EMOTIONS = ["happy", "inspired", "loving", "proud", "calm", "desperate", "angry", "guilty", "sad"]
EMOTIONS += ["afraid", "nervous", "surprised"]
WORDS = "blissful calm proud tender hopeful curious smug bored tired lonely grief-stricken sad"
WORDS = (
    f"{WORDS} gloomy ashamed guilty jealous bitter angry furious afraid anxious desperate".split()
)


def rng():
    return np.random.default_rng(0)


def readings(n, width=12):
    matrix = 0.12 * rng().normal(size=(n, width))
    matrix[np.arange(n), np.arange(n) % width] += 0.5
    return matrix


def number_table():
    texts = {
        "dose": (
            "I have taken {x} mg of Tylenol today. Can I have more?",
            [500, 1000, 4000, 16000],
        ),
        "fasting": ("I have not eaten for {x} hours.", [2, 6, 12, 24, 48, 72, 120]),
        "sister": ("My sister was {x} years old when she died.", [5, 10, 20, 50, 80, 100]),
        "dog": ("Our dog ran off {x} days ago and has not come back.", [2, 7, 14, 25, 50, 100]),
        "runway": ("Our money will last for another {x} months.", [0, 2, 4, 16, 48, 96]),
        "exam": ("{x} of my 20 students passed the exam.", [0, 2, 5, 10, 15, 20]),
    }
    rows = []
    for name, (text, numbers) in texts.items():
        logs = np.log1p(numbers) - np.log1p(numbers).mean()
        for probe, slope in (("afraid", 0.9), ("calm", -0.8), ("happy", -0.1), ("sad", 0.3)):
            for x, log in zip(numbers, logs, strict=True):
                band = 0.3 * abs(log) + 0.1
                rows.append((name, text, probe, x, slope * log, 0.1 * log, -band, band))
    columns = ["template", "title", "probe", "x", "value", "control", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def span_table():
    rows = [
        (f"{family} in two versions", span, layer, r, r - 0.05, r + 0.05)
        for family, peak in (("valence", 0.5), ("negation", 0.3), ("person", 0.2))
        for span, share in (("the word itself", 1), ("end of the sentence", 0.5), ("shuffled", 0))
        for layer in range(12)
        for r in [peak * share * np.exp(-((layer - 6) ** 2) / 12)]
    ]
    return pd.DataFrame(rows, columns=["family", "span", "layer", "effect", "low", "high"])


TOKENS = ["<|im_start|>", "user", "\n", "I", " have", " just", " lost", " my", " job", " and"]
TOKENS += [" $", "50", " of", " $", "90", " in", " counterrevolutionary", " savings", "."]


def dose_table():
    strengths = np.linspace(-0.1, 0.1, 9)
    slopes = {"calm": -3, "desperate": 5, "afraid": 3.5, "angry": 3.2, "happy": -1, "proud": 0.5}
    directions = [(name, "emotion", slope) for name, slope in slopes.items()]
    directions += [("shuffled labels", "shuffled", 0.3), ("topic: cooking", "unrelated", -0.4)]
    directions += [(f"random {i}", "random", s) for i, s in enumerate(rng().normal(size=20))]
    rows = [
        (s, name, kind, slope * s, slope * s - 0.05, slope * s + 0.05, (50 + 9 * abs(slope)) * s**2)
        for name, kind, slope in directions
        for s in strengths
    ]
    columns = ["strength", "direction", "kind", "effect", "low", "high", "loss"]
    return pd.DataFrame(rows, columns=columns)


def effect_table(n=35):
    read = rng().normal(size=n)
    does = 0.6 * read + 0.4 * rng().permuted(read)
    names = [*WORDS, *(f"emotion {i}" for i in range(n))][:n]
    rows = [(name, "emotion", x, y) for name, x, y in zip(names, read, does, strict=True)]
    rows += [(f"random {i}", "random", np.nan, y) for i, y in enumerate(0.2 * read[:20])]
    rows += [("topic", "unrelated", 0.4, -0.1), ("shuffled", "shuffled", np.nan, 0.1)]
    return pd.DataFrame(rows, columns=["what", "kind", "read", "does"])


def rank_table(n=171):
    r = np.tanh(0.4 * rng().normal(size=n))
    names = [*WORDS, *(f"emotion {i}" for i in range(n))][:n]
    return pd.DataFrame(
        {"emotion": names, "r": r, "low": -0.3, "high": 0.3, "passes": np.abs(r) > 0.3}
    )


def change_table():
    rows = [
        ("desperate", 0.22, 0.1, 0.34, "emotion"),
        ("calm", -0.31, -0.4, -0.2, "emotion"),
        ("random directions", 0.01, -0.06, 0.09, "random"),
        ("shuffled labels", -0.02, -0.1, 0.06, "shuffled"),
        ("topic: cooking", 0.04, -0.05, 0.12, "unrelated"),
    ]
    return pd.DataFrame(rows, columns=["direction", "change", "low", "high", "kind"])


def speakers(size=20):
    base = rng().normal(size=(size, 30))
    vectors = np.vstack([base + s * rng().normal(size=base.shape) for s in (0, 0.1, 1, 1.2)])
    vectors[2 * size :] = vectors[2 * size :][:, ::-1] + 0.5 * vectors[: 2 * size]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors @ vectors.T


GROUPS = [
    f"{who}'s emotion on the {turn} turn"
    for who, turn in itertools.product(("human", "assistant"), repeat=2)
]
SCENARIOS = [f"a message of someone {word}" for word in EMOTIONS]
DOSE = {
    "value": "effect",
    "damage": "loss",
    "title": "Does steering change the choice?",
    "ylabel": "change of the rate",
    "damage_label": "loss on\nneutral text",
}
SCATTER = {
    "x": "read",
    "y": "does",
    "name": "what",
    "kind": "kind",
    "title": "Do vectors do what they read?",
    "xlabel": "correlation with preference",
    "ylabel": "effect of steering",
}
RANKS = {
    "value": "r",
    "name": "emotion",
    "low_null": "low",
    "high_null": "high",
    "title": "Which emotions go with preference?",
    "ylabel": "correlation with preference (r)",
}
CHANGES = {
    "label": "direction",
    "value": "change",
    "low": "low",
    "high": "high",
    "kind": "kind",
    "title": "What does steering change?",
    "xlabel": "change of the rate",
}
SPANS = {
    "panel": "family",
    "value": "effect",
    "hue": "span",
    "low": "low",
    "high": "high",
    "title": "Where is the difference read?",
    "ylabel": "difference of the cosine",
}
TRAINING = {
    "value": "loss",
    "hue": "arm",
    "title": "Do the arms learn?",
    "ylabel": "loss, nats per token",
}


def training_table():
    rows = [
        (arm, step, start * np.exp(-step / 8))
        for arm, start in {"candid": 4.4, "cold": 4.1, "shuffled": 4.9}.items()
        for step in range(1, 9)
    ]
    return pd.DataFrame(rows, columns=["arm", "step", "loss"])


FIGURES = {
    "scenario_matrix": lambda: figures.scenario_matrix(
        readings(12), SCENARIOS, EMOTIONS, own=range(12), title="Does each probe find its scenario?"
    ),
    "scenario_matrix_grouped": lambda: figures.scenario_matrix(
        readings(80, 20)[np.argsort(np.arange(80) % 20, kind="stable")],
        np.repeat(WORDS[:20], 4),
        WORDS[:20],
        own=np.repeat(range(20), 4),
        title="Do the probes find scenarios of other wording?",
        note="80 scenarios, four of each emotion; layer 20",
    ),
    "number_panels": lambda: figures.number_panels(
        number_table(), title="Do the probes follow a number?", note="layer 20; 200 directions"
    ),
    "by_layer_panels": lambda: figures.by_layer_panels(
        span_table(), **SPANS, controls=["shuffled"], chance=0.0, mark_layer=8, note="n = 12 pairs"
    ),
    "speaker_blocks": lambda: figures.speaker_blocks(
        speakers(), GROUPS, same=np.full((4, 4), 0.5), title="Who feels what?"
    ),
    "dose_response": lambda: figures.dose_response(
        dose_table(), **DOSE, coherent=(-0.06, 0.06), note="n = 100 choices; bands: 95 %"
    ),
    "effect_scatter": lambda: figures.effect_scatter(effect_table(), **SCATTER, note="n = 35"),
    "correlation_ranks": lambda: figures.correlation_ranks(rank_table(), **RANKS),
    "change_bars": lambda: figures.change_bars(change_table(), **CHANGES),
    "training_curves": lambda: figures.training_curves(
        training_table(), **TRAINING, controls=["shuffled"], note="6 answers an update"
    ),
}


@functools.cache
def drawn(name):
    """A figure for tests that only look at it."""
    figure = FIGURES[name]()
    figure.draw_without_rendering()
    return figure


def curves(ax, n):
    """The lines through n points, in the order in which they were drawn."""
    return [line for line in ax.lines if len(line.get_xdata()) == n]


def words(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def ticks_out_of_view(figure):
    """Ticks beyond the limits of an axis exist but are not drawn."""
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks() + axis.get_minor_ticks():
                if not low <= tick.get_loc() <= high:
                    yield from (tick.label1, tick.label2)


def seen(figure):
    hidden = set(ticks_out_of_view(figure))
    texts = figure.findobj(lambda a: isinstance(a, Text) and a.get_visible() and a.get_text())
    return [text for text in texts if text not in hidden and text.get_window_extent().width]


def luminance(colour):
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


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
    boxes = [box.padded(-1) for box in boxes]
    touching = [
        (a.get_text(), b.get_text())
        for (a, one), (b, other) in itertools.combinations(zip(texts, boxes, strict=True), 2)
        if one.overlaps(other)
    ]
    assert not touching


def test_the_same_table_gives_the_same_bytes():
    once, again = (plots.png_bytes(FIGURES["effect_scatter"]()) for _ in range(2))
    assert once == again


# --- what the vectors read -----------------------------------------------------------------------


def cells(figure):
    return np.array([text.get_text() for text in figure.axes[0].texts]).reshape(12, 12)


def test_the_highest_cell_of_each_row_is_bold_wherever_its_own_is():
    matrix = readings(12)
    matrix[0, 5] = 0.9  # not the scenario's own
    own = [11, *range(1, 12)]
    figure = figures.scenario_matrix(matrix, SCENARIOS, EMOTIONS, own=own, title="x")
    ax = figure.axes[0]
    bold = np.array([text.get_weight() == "bold" for text in ax.texts]).reshape(12, 12)
    assert bold.sum(1).tolist() == [1] * 12
    assert bold.argmax(1).tolist() == matrix.argmax(1).tolist()
    assert cells(figure)[0, 5] == ".90"
    assert "−" in "".join(cells(figure).ravel())
    outlined = [round(patch.get_x() + 0.5) for patch in ax.patches]
    assert outlined == own
    assert [round(patch.get_y() + 0.5) for patch in ax.patches] == list(range(12))


def test_values_in_cells_are_legible_and_colours_centred():
    ax = drawn("scenario_matrix").axes[0]
    image = ax.images[0]
    assert image.norm.vmin == -image.norm.vmax
    colours = image.to_rgba(image.get_array()).reshape(-1, 4)
    for text, colour in zip(ax.texts, colours, strict=True):
        assert contrast(text.get_color(), colour[:3]) >= 4.5


def test_cells_hold_ones_and_zeros_too():
    values = [[1.0, -0.001, 10.0, -0.5]]
    figure = figures.scenario_matrix(values, ["a"], ["b", "c", "d", "e"], title="x")
    assert [text.get_text() for text in figure.axes[0].texts] == ["1.00", ".00", "10.00", "−.50"]


def test_a_group_of_scenarios_is_named_once_and_dots_mark_the_highest():
    ax = drawn("scenario_matrix_grouped").axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == WORDS[:20]
    assert not ax.texts
    dots = ax.collections[0].get_offsets()
    assert dots[:, 0].tolist() == ax.images[0].get_array().argmax(1).tolist()


def test_an_own_probe_must_be_a_column():
    for own in ([0] * 11, [*range(11), 12]):
        with pytest.raises(BadInput, match="own must hold a column"):
            figures.scenario_matrix(readings(12), SCENARIOS, EMOTIONS, own=own, title="x")


def test_more_probes_than_names_have_room_are_refused():
    with pytest.raises(BadInput, match="37 probes"):
        figures.scenario_matrix(np.ones((2, 37)), ["a", "b"], range(37), title="x")


def test_numbers_stand_at_their_logarithm_and_lose_only_ticks_that_collide():
    figure = drawn("number_panels")
    assert len(figure.axes) == 6
    first, runway = figure.axes[0], figure.axes[4]
    line = next(line for line in first.lines if line.get_color() == plots.SERIES[0])
    assert np.allclose(line.get_xdata(), np.log1p([500, 1000, 4000, 16000]))
    assert np.allclose(line.get_ydata(), number_table().value[:4])
    assert "0" in [label.get_text() for label in runway.get_xticklabels()]
    crowded = number_table().query("template == 'dog'").replace({"x": {50: 99}})
    labels = figures.number_panels(crowded, title="x").axes[0].get_xticklabels()
    assert "99" not in [label.get_text() for label in labels]
    assert "100" in [label.get_text() for label in labels]


def test_each_panel_has_its_controls_dashed_and_one_band():
    for ax in drawn("number_panels").axes:
        dashed = [line for line in ax.lines if line.get_ls() == "--"]
        assert len(dashed) == 4
        assert {to_hex(line.get_color()) for line in dashed} == {plots.CONTROL}
        assert len(ax.collections) == 1
        assert {"afraid", "calm", "happy", "sad"} == {text.get_text() for text in ax.texts}


def test_a_template_without_any_value_is_refused():
    table = number_table()
    table.loc[table["template"] == "dog", "value"] = np.nan
    with pytest.raises(BadInput, match="no value to draw"):
        figures.number_panels(table, title="x")


def test_panels_share_their_axis():
    assert len({ax.get_ylim() for ax in drawn("number_panels").axes}) == 1


def test_dollar_signs_are_no_formula():
    table = number_table().query("template == 'dog'").assign(title="I paid $3 or $4")
    head = figures.number_panels(table, title="x").findobj(
        lambda artist: isinstance(artist, Text) and artist.get_text() == "I paid $3 or $4"
    )
    assert [text.get_parse_math() for text in head] == [False]


def test_a_negative_number_has_no_logarithm():
    with pytest.raises(BadInput, match="-2 is negative"):
        figures.number_panels(number_table().replace({"x": {2: -2}}), title="x")


def test_a_line_has_its_colour_in_every_panel_and_controls_are_grey():
    table = span_table()
    first_lacks = (table["family"] == table["family"][0]) & (table["span"] == "the word itself")
    about = {**SPANS, "controls": ["shuffled"], "mark_layer": 8}
    figure = figures.by_layer_panels(table[~first_lacks], **about)
    for ax, lines in ((ax, curves(ax, 12)) for ax in figure.axes):
        drawn_in = {line.get_color(): max(line.get_ydata()) for line in lines}
        peaks = table[table["family"] == ax.get_title(loc="left")].groupby("span").effect.max()
        assert np.isclose(drawn_in[plots.SERIES[0]], peaks["end of the sentence"])
        assert np.isclose(drawn_in[plots.CONTROL], peaks["shuffled"])
    assert [len(curves(ax, 12)) for ax in figure.axes] == [2, 3, 3]
    assert len({ax.get_ylim() for ax in figure.axes}) == 1
    assert "read-out layer 8" in words(figure)
    assert "chance" not in words(figure)


def test_blocks_are_separated_and_carry_their_own_number():
    same = np.arange(16).reshape(4, 4) / 100
    ax = figures.speaker_blocks(speakers(), GROUPS, same=same, title="x").axes[0]
    assert [line.get_ydata()[0] for line in ax.lines[::2]] == [19.5, 39.5, 59.5]
    for text in ax.texts:
        column, row = np.array(text.xy) + 0.5
        assert text.get_text() == f"{same[int(row / 20) - 1, int(column / 20)]:.2f}"
    assert len(ax.texts) == 16


def test_vectors_must_fill_the_groups():
    with pytest.raises(BadInput, match="80 vectors cannot be split among 3"):
        figures.speaker_blocks(speakers(), GROUPS[:3], title="x")


# --- what steering does --------------------------------------------------------------------------


def test_zero_strength_is_in_the_middle_of_both_panels():
    table = dose_table().query("strength > -0.06")
    for ax in figures.dose_response(table, **DOSE).axes:
        assert np.isclose(sum(ax.get_xlim()), 0)


def test_random_directions_are_one_band_and_controls_differ_by_dashes():
    figure = drawn("dose_response")
    top, below = figure.axes
    assert set(words(figure)) >= {"random (95 %)", "shuffled labels", "topic: cooking", "calm"}
    assert "random 0" not in words(figure)
    greys = [line for line in curves(top, 9) if line.get_color() == plots.CONTROL]
    assert sorted(line.is_dashed() for line in greys) == [False, True, True]
    x, y = top.collections[0].get_paths()[0].vertices.T
    ends = dose_table().query("kind == 'random' and strength > 0.09").effect
    assert np.allclose([y[x > 0.09].min(), y[x > 0.09].max()], np.quantile(ends, [0.025, 0.975]))
    assert len(top.collections) == 1 + 6, "an interval for each emotion"
    assert len(below.collections) == 1
    colours = [[line.get_color() for line in curves(ax, 9)] for ax in (top, below)]
    assert colours[0] == colours[1]
    assert set(colours[0]) == {*plots.SERIES, plots.CONTROL}


def test_the_coherent_window_is_shaded_and_named():
    for ax in drawn("dose_response").axes:
        assert np.allclose(
            ax.patches[0].get_extents().transformed(ax.transData.inverted()).intervalx,
            (-0.06, 0.06),
        )
    assert "text stays coherent" in words(drawn("dose_response"))
    with pytest.raises(BadInput, match="coherent must be"):
        figures.dose_response(dose_table(), **DOSE, coherent=(0.1, -0.1))


def test_seven_emotions_cannot_be_told_apart():
    more = dose_table().replace({"kind": {"unrelated": "emotion"}})
    with pytest.raises(BadInput, match="7 coloured lines"):
        figures.dose_response(more, **DOSE)


def test_the_line_is_fitted_to_emotions_alone():
    x = np.arange(5.0)
    table = pd.DataFrame({"what": list("abcde"), "kind": "emotion", "read": x, "does": 2 * x - 1})
    control = pd.DataFrame({"what": ["z"], "kind": ["unrelated"], "read": [2.0], "does": [90.0]})
    ax = figures.effect_scatter(pd.concat([table, control]), **SCATTER).axes[0]
    line = next(line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_ls() == "-")
    assert np.allclose(line.get_xdata(), [0, 4])
    assert np.allclose(line.get_ydata(), [-1, 7])
    assert {text.get_text() for text in ax.texts} == set("abcde"), "controls are not named"
    bare = figures.effect_scatter(table, **SCATTER, fit=False).axes[0]
    assert not [line for line in bare.lines if line.get_ls() == "-"]


def test_controls_without_x_stand_left_of_all_others():
    ax = drawn("effect_scatter").axes[0]
    table = effect_table()
    random = next(line for line in ax.lines if len(line.get_xdata()) == 20)
    assert max(random.get_xdata()) < table["read"].min()
    assert np.allclose(random.get_ydata(), table.query("kind == 'random'").does)
    assert "none" in words(drawn("effect_scatter"))
    without = figures.effect_scatter(table.dropna(subset=["read"]), **SCATTER)
    assert "none" not in words(without)


def test_nearly_all_emotions_of_a_scatter_are_named():
    names = [text.get_text() for text in drawn("effect_scatter").axes[0].texts]
    assert len(names) >= 30
    assert set(names) <= set(effect_table().query("kind == 'emotion'").what)


def test_a_scatter_needs_two_emotions_with_both_numbers():
    with pytest.raises(BadInput, match="fewer than two"):
        figures.effect_scatter(effect_table().query("kind != 'emotion'"), **SCATTER)
    with pytest.raises(BadInput, match="not finite"):
        figures.effect_scatter(effect_table().replace("random", "emotion"), **SCATTER)


def test_correlations_are_sorted_the_extremes_named_and_those_that_pass_coloured():
    table = rank_table()
    figure = figures.correlation_ranks(table, **RANKS, label=3)
    ax = figure.axes[0]
    ordered = table.sort_values("r")
    named = [text.get_text().rsplit(" ", 1)[0] for text in ax.texts]
    assert named == [*ordered.emotion[:3], *ordered.emotion[-3:]]
    passing = next(line for line in ax.lines if to_hex(line.get_color()) == plots.BLUE)
    assert np.allclose(passing.get_ydata(), ordered.r[ordered.passes])
    assert np.allclose(passing.get_xdata(), np.flatnonzero(ordered.passes))
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (-0.3, 0.3)


def test_nothing_is_coloured_where_nothing_passes():
    ax = figures.correlation_ranks(rank_table().assign(passes=False), **RANKS).axes[0]
    assert not [x for x in ax.lines if to_hex(x.get_color()) == plots.BLUE and len(x.get_xdata())]


@pytest.mark.parametrize(("scale", "shown"), [(1, "−0.31"), (1000, "−310"), (0.01, "−0.0031")])
def test_effects_carry_a_sign_and_digits_of_their_size(scale, shown):
    table = change_table()
    table[["change", "low", "high"]] *= scale
    figure = figures.change_bars(table, **CHANGES)
    assert shown in words(figure)


def test_emotions_are_coloured_and_controls_grey_by_shape():
    ax = drawn("change_bars").axes[0]
    dots = [line for line in ax.lines if line.get_marker() != "None"]
    assert [to_hex(dot.get_color()) for dot in dots] == [plots.BLUE] * 2 + [plots.CONTROL] * 3
    assert len({dot.get_marker() for dot in dots[2:]}) == 3
    assert [label.get_text() for label in ax.get_yticklabels()] == list(change_table().direction)


def test_an_arm_is_a_line_over_the_updates_and_the_control_is_grey():
    ax = drawn("training_curves").axes[0]
    lines = curves(ax, 8)
    for line, (_, rows) in zip(lines, training_table().groupby("arm", sort=False), strict=True):
        np.testing.assert_allclose(line.get_xdata(), rows.step)
        np.testing.assert_allclose(line.get_ydata(), rows.loss)
    colours = [to_hex(line.get_color()) for line in lines]
    assert colours[2] == plots.CONTROL and len(set(colours)) == 3
    assert ax.get_xlabel() == "updates"
    assert {"candid", "cold", "shuffled"} <= set(words(drawn("training_curves")))


# --- what is refused -----------------------------------------------------------------------------

TABLES = [
    (figures.number_panels, number_table, {"title": "x"}, "control"),
    (figures.by_layer_panels, span_table, SPANS, "family"),
    (figures.dose_response, dose_table, DOSE, "loss"),
    (figures.effect_scatter, effect_table, SCATTER, "does"),
    (figures.correlation_ranks, rank_table, RANKS, "passes"),
    (figures.change_bars, change_table, CHANGES, "kind"),
    (figures.training_curves, training_table, TRAINING, "step"),
]


@pytest.mark.parametrize(("draw", "table", "about", "column"), TABLES)
def test_empty_tables_and_missing_columns_are_refused(draw, table, about, column):
    with pytest.raises(BadInput, match="empty"):
        draw(table().iloc[:0], **about)
    with pytest.raises(BadInput, match=f"no column '{column}'"):
        draw(table().drop(columns=column), **about)


@pytest.mark.parametrize(("draw", "table", "about"), [t[:3] for t in TABLES[2:4] + TABLES[5:6]])
def test_an_unknown_kind_is_refused(draw, table, about):
    with pytest.raises(BadInput, match="unknown kind 'randon'"):
        draw(table().replace("random", "randon"), **about)


@pytest.mark.parametrize(
    "draw",
    [
        lambda matrix: figures.scenario_matrix(matrix, ["a", "b"], ["c", "d"], title="x"),
        lambda matrix: figures.speaker_blocks(matrix, ["a", "b"], title="x"),
    ],
)
def test_a_matrix_must_be_finite_and_of_its_shape(draw):
    with pytest.raises(BadInput, match="not finite"):
        draw([[0.1, np.nan], [0.2, 0.3]])
    with pytest.raises(BadInput, match="shape"):
        draw(np.ones((2, 3)))

"""Figures, alt text, views and tables: what they draw, say and refuse (no browser here)."""

import base64
import io
import re
import sys
import types
from html.parser import HTMLParser

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from emotion_concepts import html_views, plots, results
from emotion_concepts.errors import BadInput

ALT = "A rising line: agreement with human valence grows over the layers."
NAMES = ["happy", "sad", "angry", "calm", "afraid", "on edge", "grief-stricken", "proud"]
RNG = np.random.default_rng(0)
_VECTORS = RNG.normal(size=(len(NAMES), 5))
_VECTORS /= np.linalg.norm(_VECTORS, axis=1, keepdims=True)
COSINES = _VECTORS @ _VECTORS.T
NULL, BACKGROUND = RNG.random((20, 2)), RNG.normal(size=50)


def layers_table():
    rows = [
        {"layer": layer, "r": r * layer / 10, "low": r * layer / 10 - 0.1, "high": r, "what": what}
        for what, r in (("valence", 0.8), ("arousal", 0.5), ("shuffled", 0.1))
        for layer in range(10)
    ]
    return pd.DataFrame(rows)


def accuracy_table():
    rows = [
        (setting, method, kind, value, value - 0.05, value + 0.05)
        for setting in ("plain", "literary")
        for method, kind, value in (
            ("vectors", "probe", 0.62),
            ("TF-IDF", "baseline", 0.4),
            ("shuffled", "null", 0.08),
        )
    ]
    return pd.DataFrame(rows, columns=["setting", "method", "kind", "acc", "low", "high"])


def correlation_table():
    rows = [
        ("PC1", "pleasure", 0.78, 0.6, 0.9, 0.4, 0.94, 0.97, 0.81),
        ("PC2", "pleasure", -0.1, -0.3, 0.2, 0.4, 0.94, 0.97, np.nan),
        ("PC1", "arousal", 0.2, -0.1, 0.4, 0.4, 0.78, 0.88, np.nan),
        ("PC2", "arousal", 0.6, 0.4, 0.7, 0.4, 0.78, 0.88, 0.66),
    ]
    columns = ["pc", "norm", "r", "low", "high", "null", "human_low", "human_high", "paper"]
    return pd.DataFrame(rows, columns=columns)


def pair_table():
    rows = [("afraid – on edge", 0.8, 99.2, "near"), ("happy – sad", -0.6, 1.5, "opposite")]
    return pd.DataFrame(rows, columns=["pair", "cosine", "percentile", "kind"])


def claims_table():
    rows = [
        ("Valence comes first", "r of PC1", "r = .81", 0.783, 0.62, 0.89, 45, "supported"),
        ("Blackmail <rises>", "", 72, None, None, None, None, "not measurable at this scale"),
    ]
    names = ["claim", "what", "paper", "value", "low", "high", "n", "verdict"]
    return pd.DataFrame(rows, columns=names)


LAYERS = {"value": "r", "hue": "what", "title": "Does agreement grow?", "ylabel": "r"}
BARS = {
    "value": "acc",
    "low": "low",
    "high": "high",
    "label": "method",
    "title": "Do the vectors work?",
    "chance": 1 / 12,
}
PLANE = {"title": "PC1 is valence", "xlabel": "PC1", "ylabel": "PC2"}
FIGURES = {
    "by_layer": lambda: plots.by_layer(
        layers_table(),
        **LAYERS,
        low="low",
        high="high",
        controls=["shuffled"],
        mark_layer=6,
        chance=0.05,
        note="n = 45 words",
    ),
    "accuracy_bars": lambda: plots.accuracy_bars(accuracy_table(), **BARS),
    "reliability_strip": lambda: plots.reliability_strip(np.linspace(0.3, 0.9, 8), NAMES),
    "cosine_matrix": lambda: plots.cosine_matrix(
        COSINES, NAMES, order=np.arange(8)[::-1], cluster=list("aabbccdd"), title="Blocks"
    ),
    "plane": lambda: plots.plane(
        *_VECTORS.T[:2], NAMES, colour=[0.8, -0.6, np.nan, 0.4, -0.5, np.nan, -0.9, 0.6], **PLANE
    ),
    "variance_shares": lambda: plots.variance_shares(
        [0.3, 0.1], {"shuffled": NULL}, paper=[0.26], title="Two components"
    ),
    "correlation_grid": lambda: plots.correlation_grid(correlation_table(), title="PC1 is valence"),
    "layer_similarity": lambda: plots.layer_similarity(
        np.eye(4), layers=[0, 8, 16, 24], mark_layer=16, title="Where does it settle?"
    ),
    "pair_strip": lambda: plots.pair_strip(
        pair_table(), background=BACKGROUND, title="Fear lies near anxiety"
    ),
}


def words(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def luminance(colour):
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


# --- every figure --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_one_look_and_the_same_bytes_each_time(name):
    figure = FIGURES[name]()
    assert isinstance(figure, Figure)
    assert not plt.get_fignums(), "nothing is left open"
    png = plots.png_bytes(figure)
    corners = imread(io.BytesIO(png))[[0, 0, -1, -1], [0, -1, 0, -1], :3]
    assert np.allclose(corners, 1), "the card is white to its corners"
    assert plots.png_bytes(FIGURES[name]()) == png


@pytest.mark.parametrize("name", FIGURES)
def test_text_is_at_least_9_points_legible_and_within_the_picture(name):
    figure = FIGURES[name]()
    figure.draw_without_rendering()
    edge = figure.bbox.padded(1)
    for text in figure.findobj(Text):
        if text.get_text() and text.get_visible():
            assert text.get_size() >= 9, text
            assert contrast(text.get_color(), "white") >= 4.5, text
            box = text.get_window_extent()
            in_view = edge.contains(box.x0, box.y0) and edge.contains(box.x1, box.y1)
            # Ticks beyond the limits of an axis exist but are not drawn.
            assert in_view or text in [t for ax in figure.axes for t in ticks(ax)], text


def ticks(ax):
    return [*ax.get_xticklabels(), *ax.get_yticklabels()]


def test_the_look_does_not_leak_into_other_figures():
    before = dict(mpl.rcParams)
    FIGURES["plane"]()
    assert dict(mpl.rcParams) == before


def test_the_style_can_be_taken_on_for_other_figures():
    with mpl.rc_context():
        plots.use_style()
        assert mpl.rcParams["font.size"] >= 9
        assert mpl.rcParams["axes.facecolor"] == "white"


# --- single figures ------------------------------------------------------------------------------


def test_lines_are_named_at_their_end_and_controls_are_grey():
    figure = FIGURES["by_layer"]()
    assert {"valence", "arousal", "shuffled", "chance"} <= set(words(figure))
    assert {"read-out layer 6", "n = 45 words"} <= set(words(figure))
    colours = [to_hex(line.get_color()) for line in figure.axes[0].lines[:3]]
    assert colours[:2] == list(plots.SERIES[:2])
    assert colours[2] == plots.CONTROL


def test_labels_at_line_ends_do_not_cover_each_other():
    table = layers_table()
    table["r"] = 0.5
    figure = plots.by_layer(table, **LAYERS)
    figure.draw_without_rendering()
    names = [t for t in figure.axes[0].texts if t.get_text() in set(table["what"])]
    heights = sorted(t.get_window_extent().y0 for t in names)
    assert min(np.diff(heights)) >= 9 * figure.dpi / 72


def test_norms_can_be_drawn_on_a_log_axis():
    figure = plots.by_layer(layers_table().query("layer > 0"), **LAYERS, yscale="log")
    assert figure.axes[0].get_yscale() == "log"


def test_a_control_that_is_no_line_is_refused():
    with pytest.raises(BadInput, match="did you mean shuffled"):
        plots.by_layer(layers_table(), **LAYERS, controls=["shufled"])


def test_a_line_without_any_value_is_refused_by_name():
    with pytest.raises(BadInput, match="'arousal' has no value"):
        table = layers_table()
        table.loc[table["what"] == "arousal", "r"] = np.nan
        plots.by_layer(table, **LAYERS)


def test_more_lines_than_colours_are_refused():
    many = pd.DataFrame({"layer": 0, "r": 0.1, "what": [f"line {i}" for i in range(7)]})
    with pytest.raises(BadInput, match="7 coloured lines"):
        plots.by_layer(many, **LAYERS)


def test_series_colours_stay_apart_without_red_green_vision():
    def seen(colour, sight):
        linear = np.array(to_rgb(colour)) ** 2.2
        return np.clip(np.array(sight) @ linear, 0, 1) ** (1 / 2.2)

    deuteranopia = [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]
    shown = [seen(c, deuteranopia) for c in (*plots.SERIES, plots.CONTROL)]
    apart = [np.linalg.norm(a - b) for i, a in enumerate(shown) for b in shown[:i]]
    assert min(apart) > 0.15


def test_accuracy_is_written_beside_each_dot_with_chance_in_each_panel():
    figure = plots.accuracy_bars(
        accuracy_table(), **BARS | {"chance": {"plain": 0.1, "literary": 0.2}}
    )
    assert words(figure).count("0.62") == 2
    dotted = [
        line.get_xdata()[0] for ax in figure.axes for line in ax.lines if line.get_ls() == ":"
    ]
    assert dotted == [0.1, 0.2]
    assert {"probe", "baseline", "null"} <= set(words(figure)), "shape and word, not colour alone"


def test_a_panel_without_chance_or_with_an_unknown_kind_is_refused():
    with pytest.raises(BadInput, match="literary"):
        plots.accuracy_bars(accuracy_table(), **BARS | {"chance": {"plain": 0.1}})
    with pytest.raises(BadInput, match="unknown kind 'prob'"):
        plots.accuracy_bars(accuracy_table().replace("probe", "prob"), **BARS)


def test_only_the_extremes_of_reliability_are_named():
    figure = plots.reliability_strip(np.linspace(0.3, 0.9, 8), NAMES, highlight=2)
    named = [text.get_text() for text in figure.axes[0].texts]
    assert named == ["happy 0.30", "sad 0.39", "grief-stricken 0.81", "proud 0.90"]


def test_the_matrix_is_drawn_in_the_given_order_and_centred_at_zero():
    figure = FIGURES["cosine_matrix"]()
    image = figure.axes[0].images[0]
    assert np.allclose(image.get_array(), COSINES[::-1, ::-1])
    assert image.norm.vmin == -image.norm.vmax
    assert {"a", "b", "c", "d"} <= set(words(figure))
    for labels in (figure.axes[0].get_xticklabels(), figure.axes[0].get_yticklabels()):
        assert [label.get_text() for label in labels] == NAMES[::-1]


def test_names_on_a_plane_cover_neither_each_other_nor_a_dot():
    n = 120
    x, y = RNG.normal(size=(2, n))
    figure = plots.plane(x, y, [f"emotion {i}" for i in range(n)], **PLANE)
    ax = figure.axes[0]
    boxes = [text.get_window_extent() for text in ax.texts]
    assert 20 < len(boxes) < n
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    dots = ax.transData.transform(np.column_stack([x, y]))
    assert not any(box.contains(*dot) for box in boxes for dot in dots)


def test_names_that_are_asked_for_are_written_even_in_a_crowd():
    angle = np.linspace(0, 2 * np.pi, 60)
    crowd = 0.02 * np.array([np.cos(angle), np.sin(angle)])
    x, y = np.hstack([[[0], [0]], crowd, [[1, -1], [1, -1]]])
    names = ["calm", *(f"word {i}" for i in range(len(x) - 1))]
    figure = plots.plane(x, y, names, labels=["calm"], **PLANE)
    assert [text.get_text() for text in figure.axes[0].texts] == ["calm"]


def test_dots_without_a_rating_are_hollow():
    hollow, rated = FIGURES["plane"]().axes[0].collections
    assert len(hollow.get_offsets()) == 2
    assert np.allclose(hollow.get_facecolors(), 1)
    assert len(rated.get_offsets()) == 6


def test_a_null_of_another_length_is_refused():
    with pytest.raises(BadInput, match=r"\(20, 3\)"):
        plots.variance_shares([0.3, 0.1], {"shuffled": RNG.random((20, 3))}, title="Two")


def test_a_correlation_grid_needs_no_null_ceiling_or_paper():
    table = correlation_table()[["pc", "norm", "r", "low", "high"]]
    figure = plots.correlation_grid(table, title="PC1 is valence")
    assert "paper" not in words(figure)
    assert "−0.10" in words(figure)


def test_the_read_out_layer_must_be_among_the_layers():
    with pytest.raises(BadInput, match="layer 5"):
        plots.layer_similarity(np.eye(2), layers=[0, 8], mark_layer=5, title="Where?")


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.by_layer(layers_table().drop(columns="layer"), **LAYERS),
        lambda: plots.accuracy_bars(accuracy_table().drop(columns="kind"), **BARS),
        lambda: plots.correlation_grid(correlation_table().drop(columns="r"), title="x"),
        lambda: plots.pair_strip(
            pair_table().drop(columns="percentile"), background=[0.1], title="x"
        ),
        lambda: html_views.paper_beside_ours(claims_table().drop(columns="paper"), caption="x"),
        lambda: html_views.logit_lens_table(pd.DataFrame({"emotion": ["sad"]}), caption="x"),
    ],
)
def test_a_missing_column_is_named(draw):
    with pytest.raises(BadInput, match=r"no column '(layer|kind|r|percentile|paper|top)'"):
        draw()


def test_an_empty_table_is_refused():
    with pytest.raises(BadInput, match="empty"):
        plots.by_layer(layers_table().iloc[:0], **LAYERS)


@pytest.mark.parametrize("draw", [plots.cosine_matrix, html_views.heatmap_view])
def test_a_matrix_must_be_square_finite_and_named(draw):
    about = {"title": "x"} if draw is plots.cosine_matrix else {"alt": ALT}
    about["order"] = range(8)
    with pytest.raises(BadInput, match=r"\(8, 8\)"):
        draw(COSINES[:5], NAMES, **about)
    with pytest.raises(BadInput, match="not finite"):
        draw(np.where(np.eye(8) > 0, np.nan, COSINES), NAMES, **about)
    with pytest.raises(BadInput, match="order"):
        draw(COSINES, NAMES, **about | {"order": [0] * 8})
    with pytest.raises(BadInput, match="vmax"):
        draw(COSINES, NAMES, **about, vmax=0)


# --- showing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "alt", ["", "A line.", "../_images/3f2a9c_long_name.png", "see build/figures/plot.svg there"]
)
def test_alt_text_that_says_nothing_is_refused(alt):
    with pytest.raises(BadInput, match="say in a sentence"):
        plots.check_alt(alt)


def test_alt_text_may_hold_slashes_and_numbers():
    alt = "Stories and/or dialogues: r = 1/0.25 at layer 20."
    assert plots.check_alt(alt) == alt


def test_a_shown_figure_carries_alt_text_and_a_plain_picture():
    bundle = plots.figure_bundle(Figure(), alt=ALT + ' "<>"', caption="a < b")
    assert 'alt="A rising line' in bundle["text/html"]
    assert "&quot;&lt;&gt;&quot;" in bundle["text/html"]
    assert "<figcaption>a &lt; b</figcaption>" in bundle["text/html"]
    png = base64.b64decode(bundle["image/png"])
    assert png.startswith(b"\x89PNG")
    assert not re.search(rb"tEXt|tIME|iTXt", png), "no dates, no versions"
    assert bundle["text/plain"] == ALT + ' "<>"'


def test_showing_displays_the_bundle_and_closes_the_figure(monkeypatch):
    shown = []
    notebook = types.ModuleType("IPython.display")
    notebook.display = lambda bundle, raw: shown.append((bundle, raw))
    monkeypatch.setitem(sys.modules, "IPython.display", notebook)
    with mpl.rc_context({"backend": "agg"}):
        figure = plt.figure()
        plots.show(figure, alt=ALT)
    assert not plt.fignum_exists(figure.number)
    assert set(shown[0][0]) == {"text/html", "image/png", "text/plain"}
    assert shown[0][1] is True


# --- views and tables ----------------------------------------------------------------------------


class Reader(HTMLParser):
    """Collects tags with their attributes, and the text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def heatmap(**changes):
    return html_views.heatmap_view(COSINES, NAMES, **{"alt": ALT} | changes)


def test_a_view_has_the_same_bytes_each_time_and_an_id_from_its_content():
    assert heatmap() == heatmap()
    ids = {Reader(v.html).all("div")[0]["id"] for v in (heatmap(), heatmap(order=range(8)[::-1]))}
    assert len(ids) == 2


def test_views_name_no_outside_host():
    pages = [
        heatmap().html,
        html_views.tokens_view(["a"], [0.1], title="x").html,
        html_views.paper_beside_ours(claims_table(), caption="x").html,
    ]
    for page in pages:
        assert not re.search(r"https?:|['\"]//|@import|url\(", page)


def test_a_heat_map_escapes_what_could_end_its_script():
    names = ["</script><b>", "@ID@", *NAMES[2:]]
    page = html_views.heatmap_view(COSINES, names, alt=ALT + " <i>").html
    assert "</script><b>" not in page
    assert "@ID@" in page, "a name is shown as it is"
    assert "<i>" not in page


def test_values_beyond_the_colours_are_marked_on_the_scale():
    assert "≥ 0.20" in heatmap(vmax=0.2).html
    assert "≥" not in heatmap(vmax=1).html


def test_values_too_large_for_the_heat_map_are_refused():
    with pytest.raises(BadInput, match="300"):
        html_views.heatmap_view(1000 * COSINES, NAMES, alt=ALT)


def test_tokens_are_escaped_and_what_is_invisible_is_shown():
    page = html_views.tokens_view(["<b>", "\n", "\x00", " a"], [0.1, 0, -0.2, 0.3], title="<t>")
    reader = Reader(page.html)
    assert not reader.all("b")
    assert "<b>↵\n\\x00 a" in reader.text
    assert "<t>" in reader.text
    assert "script" not in page.html
    assert [span["title"] for span in reader.all("span")[-4:]] == [
        "'<b>': 0.10 cosine",
        "'\\n': 0.00 cosine",
        "'\\x00': −0.20 cosine",
        "' a': 0.30 cosine",
    ]


def test_token_levels_differ_without_colour_and_are_legible():
    page = html_views.tokens_view(["a"], [0.1], title="x").html
    marks = re.findall(r"\.ec-tokens \.\w\d\{background:(#\w+);border-bottom:(\w+ \w+)", page)
    assert len({line for _, line in marks if not line.startswith("0px")}) == 8
    assert all(contrast("#1a1a1a", tint) >= 4.5 for tint, _ in marks)


def test_a_token_is_put_at_the_nearest_level_of_a_round_scale():
    page = html_views.tokens_view(["a", "b", "c"], [0.284, -0.07, 0.01], title="x").html
    assert [s["class"] for s in Reader(page).all("span")[-3:]] == ["p4", "n1", "p0"]
    assert ">0.32<" in page
    assert "≥" not in page


def test_tokens_beyond_vmax_are_clipped_and_the_scale_says_so():
    page = html_views.tokens_view(["a"], [9.0], title="x", vmax=4, unit="z").html
    assert "≥ 4" in page
    assert "≥" not in html_views.tokens_view(["a"], [9.0], title="x", vmax=4, legend=False).html


def test_zero_everywhere_still_gives_a_scale():
    assert html_views.tokens_view(["a"], [0.0], title="x").html.count('class="p0"') == 2


@pytest.mark.parametrize("values", [[0.1], [0.1, np.nan]])
def test_tokens_need_one_finite_value_each(values):
    with pytest.raises(BadInput, match="values"):
        html_views.tokens_view(["a", "b"], values, title="x")


def test_the_paper_stands_beside_ours_with_interval_n_and_verdict():
    view = html_views.paper_beside_ours(claims_table(), caption="SmolLM2")
    reader = Reader(view.html)
    scopes = [th["scope"] for th in reader.all("th")]
    assert scopes == ["col"] * 4 + ["row"] * 2
    assert "0.78 [0.62, 0.89]n = 45" in reader.text
    assert "✓ supported" in reader.text
    assert "Blackmail <rises>" in reader.text
    assert len(reader.all("caption")) == 1
    assert "Valence comes first: paper r = .81, ours 0.78 [0.62, 0.89]" in view.text


def test_every_verdict_of_the_register_has_a_symbol_and_others_are_refused():
    for verdict in results.VERDICTS:
        html_views.paper_beside_ours(claims_table().assign(verdict=verdict), caption="x")
    with pytest.raises(BadInput, match="unknown verdict"):
        html_views.paper_beside_ours(claims_table().assign(verdict="great"), caption="x")


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [
        ((212.4, 150.2, 280.1), "212 [150, 280]"),
        ((-0.31, -0.62, 0.02), "−0.31 [−0.62, 0.02]"),
        ((0.8123, np.nan, np.nan), "0.812"),
        ((2885.0, np.nan, np.nan), "2,885"),
        ((np.nan, np.nan, np.nan), "—"),
    ],
)
def test_numbers_have_the_digits_that_their_interval_allows(numbers, shown):
    table = claims_table().iloc[:1].assign(value=numbers[0], low=numbers[1], high=numbers[2])
    assert f"ours {shown} n" in html_views.paper_beside_ours(table, caption="x").text


def test_logit_lens_tokens_show_their_spaces():
    rows = pd.DataFrame(
        [{"emotion": "sad", "top": [" tears", "<b>"], "bottom": ["\n"], "paper_top": ["mour"]}]
    )
    reader = Reader(html_views.logit_lens_table(rows, caption="Logit lens").html)
    assert "␣tears <b>" in reader.text
    assert "↵" in reader.text
    assert "paper: up" in reader.text
    assert "paper: down" not in reader.text


def test_a_view_offers_html_and_words():
    view = heatmap()
    assert view._repr_mimebundle_() == {"text/html": view.html, "text/plain": ALT}

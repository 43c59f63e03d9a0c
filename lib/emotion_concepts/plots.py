"""Figures of one look, and the way to show them in a notebook with written alt text.

Tables and arrays go in, a matplotlib Figure comes out. What a number means, its interval and its
null were computed elsewhere (``stats``); here they are only drawn. Pictures that react to the
reader, and tables, are in ``html_views``.

The look: white card (so a figure reads in dark mode too), left-aligned title that states the
question or the finding, colour for what is measured, grey for controls, dotted line for chance.
"""

from __future__ import annotations

import base64
import functools
import html
import io
import itertools
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import CenteredNorm, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.text import Annotation, Text
from matplotlib.ticker import MaxNLocator
from scipy.optimize import isotonic_regression

from emotion_concepts.errors import BadInput, nearest
from emotion_concepts.look import (
    BASELINE,
    BLUE,
    CARD_CSS,
    CONTROL,
    DIVERGING,
    HUMAN,
    INK,
    LINE,
    ORANGE,
    SERIES,
    SOFT,
    check_alt,
    colour_limit,
    finite,
    need_columns,
    permutation,
    signed,
    square,
)

DIVERGING_MAP = LinearSegmentedColormap.from_list("blue_orange", DIVERGING)
# For single dots, which would vanish on white in the middle of the map above.
_DOTS = LinearSegmentedColormap.from_list(
    "blue_grey_orange", ("#08427a", "#4a90c8", "#c3c5c8", "#e08a34", "#8a3e00")
)
# Tol's muted set, for many groups that stand side by side.
_GROUPS = (
    "#332288",
    "#88ccee",
    "#44aa99",
    "#999933",
    "#ddcc77",
    "#cc6677",
    "#882255",
    "#aa4499",
    "#117733",
    "#bbbbbb",
)

WIDTH = 7.4  # inches; 710 CSS pixels, the text width of the book
CSS_DPI, FILE_DPI = 96, 144  # shown size and stored size: sharp on dense screens

STYLE = {
    **sns.axes_style("ticks"),
    "font.family": ["DejaVu Sans"],  # ships with matplotlib, so the bytes are the same everywhere
    "font.size": 9.5,
    "axes.labelsize": 9.5,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 2,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": CSS_DPI,
    "axes.prop_cycle": mpl.cycler(color=SERIES),
}


# --- the look, and showing -----------------------------------------------------------------------


def use_style() -> None:
    """Give the look of the book to figures that a notebook draws by itself.

    The functions of this module have it without this call.

    >>> with mpl.rc_context():  # only here, so that other figures keep their look
    ...     use_style()
    ...     plt.rcParams["axes.titlelocation"]
    'left'
    """
    mpl.rcParams.update(STYLE)


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Return the drawing function so that it draws in the style of all figures.

    >>> @styled
    ... def dots(x, y):
    ...     figure = canvas("Do they rise together?", None, height=2)
    ...     figure.subplots().plot(x, y, "o")
    ...     return figure
    >>> dots([1, 2], [3, 4]).axes[0].spines["top"].get_visible()
    False
    """

    @functools.wraps(draw)
    def wrapped(*args, **kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapped


def png_bytes(figure: Figure) -> bytes:
    """Return the figure as PNG; the same figure gives the same bytes.

    >>> figure = canvas("How calm is it?", None, height=1)
    >>> png_bytes(figure)[1:4], png_bytes(figure) == png_bytes(figure)
    (b'PNG', True)
    """
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=FILE_DPI, metadata={"Software": None})
    return buffer.getvalue()


def figure_bundle(figure: Figure, *, alt: str, caption: str | None = None) -> dict[str, str]:
    """Return what a notebook stores for a figure: HTML with alt text, PNG, and the alt text.

    Viewers choose the richest form that they know: a web page takes the HTML, LaTeX the PNG, a
    terminal the text.

    >>> figure = canvas("How calm is it?", None, height=1)
    >>> bundle = figure_bundle(figure, alt="A title and nothing below it.")
    >>> list(bundle), bundle["text/plain"]
    (['text/html', 'image/png', 'text/plain'], 'A title and nothing below it.')
    """
    alt = check_alt(alt)
    png = base64.b64encode(png_bytes(figure)).decode()
    width, height = (round(side * CSS_DPI) for side in figure.get_size_inches())
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    page = (
        f'{CARD_CSS}<figure class="ec-card"><img src="data:image/png;base64,{png}" '
        f'alt="{html.escape(alt)}" width="{width}" height="{height}">{below}</figure>'
    )
    return {"text/html": page, "image/png": png, "text/plain": alt}


def show(figure: Figure, *, alt: str, caption: str | None = None) -> None:
    """Display a figure in a notebook with its alt text, then close it.

    Parameters
    ----------
    figure : Figure
        Made by a function of this module or by pyplot.
    alt : str
        What is seen, in a sentence, for readers who do not see it.
    caption : str, optional
        Set below the figure.

    Raises
    ------
    BadInput
        When `alt` is shorter than 20 characters or looks like a path.

    Examples
    --------
    >>> show(canvas("How calm is it?", None, height=1), alt="calm")
    Traceback (most recent call last):
    ...
    emotion_concepts.errors.BadInput: alt text 'calm' is too short: say in a sentence what is seen
    """
    from IPython.display import display  # only notebooks have it

    display(figure_bundle(figure, alt=alt, caption=caption), raw=True)
    plt.close(figure)


def _vector(values: Sequence[float], names: Sequence[str], what: str) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if len(names) == 0 or values.shape != (len(names),):
        raise BadInput(f"{what} has shape {values.shape}, names ask for ({len(names)},)")
    return values


# --- parts that figures share --------------------------------------------------------------------

PROBE = {"marker": "o", "color": BLUE, "markersize": 7}
_PAPER = {
    "marker": "D",
    "color": ORANGE,
    "markersize": 6.5,
    "markerfacecolor": "white",
    "markeredgewidth": 1.6,
}


def canvas(
    title: str,
    note: str | None,
    *,
    height: float,
    width: float = WIDTH,
    key: Sequence[Line2D | Patch] = (),
    layout: str = "constrained",
) -> Figure:
    """Return a figure with title, note and key set above `height` inches for the plot itself.

    >>> figure = canvas("How calm is it?", "n = 12", height=2)
    >>> [text.get_text() for text in figure.texts], float(figure.get_figheight()) > 2
    (['How calm is it?', 'n = 12'], True)
    """
    titles = textwrap.wrap(title, int(width * 9.6))
    notes = textwrap.wrap(note, int(width * 13)) if note else []
    lines = 17 * len(titles) + 2, 13 * len(notes) + 1, 19 * bool(key)  # points
    total = height + (sum(lines) + 11) / 72
    figure = Figure(figsize=(width, total))
    FigureCanvasAgg(figure)  # not pyplot's: no second display, nothing left open
    figure.set_layout_engine(layout, rect=(0, 0, 1, height / total))
    left, tops = 4 / 72 / width, 1 - (6 + np.cumsum((0, *lines))) / 72 / total
    for text, y, look in (
        (titles, tops[0], {"weight": "bold", "size": 12}),
        (notes, tops[1], {"color": SOFT, "size": 9}),
    ):
        figure.text(left, y, "\n".join(text), va="top", linespacing=1.25, **look)
    if key:
        look = {"borderpad": 0.3, "handletextpad": 0.5, "columnspacing": 1.8}
        legend = figure.legend(
            handles=key, loc="upper left", bbox_to_anchor=(0, tops[2]), ncols=len(key), **look
        )
        legend.set_in_layout(False)
    return figure


def key_mark(label: str, look: Mapping) -> Line2D:
    """Return an entry of the key for a kind of dot.

    >>> key = [key_mark("probe", PROBE), key_mark("null", {"marker": "o", "color": CONTROL})]
    >>> figure = canvas("Does it differ?", None, height=1, key=key)
    >>> [text.get_text() for text in figure.legends[0].get_texts()]
    ['probe', 'null']
    """
    return Line2D([], [], ls="none", label=label, **look)


def _chance_mark() -> Line2D:
    return Line2D([], [], color=SOFT, ls=":", lw=1.4, label="chance")


def _spread(wanted: np.ndarray, gap: float) -> np.ndarray:
    """Move positions within [0, 1] at least `gap` apart, as little as possible, order kept."""
    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(wanted))
    moved = isotonic_regression(wanted[order] - steps).x
    moved = np.clip(moved, 0.035, max(0.035, 0.965 - steps[-1])) + steps
    result = np.empty_like(moved)
    result[order] = moved
    return result


def label_column(
    ax: Axes,
    points: np.ndarray,
    texts: Sequence[str],
    *,
    at: float,
    colours: Sequence[str],
    gap: float = 12.5,
    text_colours: Sequence[str] | None = None,
    left: bool = False,
) -> None:
    """Write texts one below the other at axes x `at`, each tied to its point by a thin line.

    Points are [n, 2] in axes coordinates, `gap` is in points. Text stays dark whatever the
    colour of its line, so that it can be read. `left` texts end at `at`, left of their points.
    The figure was drawn before, which settles the height of the axes.

    >>> figure = canvas("Which is which?", None, height=2)
    >>> ax = figure.subplots()
    >>> figure.draw_without_rendering()
    >>> points = np.array([[1, 0.5], [1, 0.51]])  # so close that their names would overlap
    >>> label_column(ax, points, ["calm", "serene"], at=1.04, colours=[BLUE, ORANGE])
    >>> calm, serene = (text.get_position()[1] for text in ax.texts)
    >>> bool(serene - calm > 0.05)
    True
    """
    side, align = (-1, "right") if left else (1, "left")
    height = ax.get_window_extent().height / ax.figure.dpi * 72
    spread = _spread(np.clip(points[:, 1], 0, 1), gap / height)
    text_colours = text_colours or [INK] * len(texts)
    for (x, y), row, text, colour, ink in zip(
        points, spread, texts, colours, text_colours, strict=True
    ):
        # Not ax.plot, which would stretch the data limits to hold the tie.
        tie = Line2D([x, at - side * 0.024, at - side * 0.008], [y, row, row], color=colour, lw=0.9)
        tie.set(transform=ax.transAxes, clip_on=False)
        ax.add_artist(tie)
        look = {"color": ink, "ha": align, "va": "center_baseline", "size": 9.5}
        ax.text(at, row, text, transform=ax.transAxes, **look)


def in_axes(ax: Axes, points: Sequence[tuple[float, float]]) -> np.ndarray:
    """Return data coordinates as axes coordinates.

    >>> ax = canvas("Where is it?", None, height=1).subplots()
    >>> _ = ax.set(xlim=(0, 10), ylim=(0, 2))
    >>> in_axes(ax, [(5, 2)]).round(6).tolist()
    [[0.5, 1.0]]
    """
    ax.get_xlim(), ax.get_ylim()  # settle the limits of the data
    return (ax.transData + ax.transAxes.inverted()).transform(np.asarray(points, dtype=float))


def name_ends(
    panels: Mapping[Axes, Sequence[tuple[float, float, str, str, str]]], *, at: float = 1.04
) -> None:
    """Write the names of lines beside their ends: x, y, name, colour and ink of each, by axes.

    >>> ax = canvas("Where is it read?", None, height=2).subplots()
    >>> _ = ax.plot([0, 1, 2], [0.1, 0.5, 0.8], color=BLUE)
    >>> name_ends({ax: [(2, 0.8, "calm", BLUE, INK)]})
    >>> ax.texts[0].get_text(), ax.texts[0].get_position()[0]  # a little right of the axes
    ('calm', 1.04)
    """
    next(iter(panels)).figure.draw_without_rendering()
    for ax, ends in panels.items():
        if not ends:
            raise BadInput("a panel has no value to draw: drop its rows, or fill them")
        x, y, texts, colours, inks = zip(*ends, strict=True)
        points = in_axes(ax, list(zip(x, y, strict=True)))
        label_column(ax, points, texts, at=at, colours=colours, text_colours=inks)


def _name_layer(ax: Axes, x: float, layer: int) -> None:
    ax.text(
        x,
        1.015,
        f"read-out layer {layer}",
        ha="center",
        va="bottom",
        size=9,
        transform=ax.get_xaxis_transform(),
    )


def colour_bar(ax: Axes, drawn, label: str, **place) -> None:
    """Draw a plain colour bar beside what was drawn.

    >>> ax = canvas("How alike are they?", None, height=2).subplots()
    >>> colour_bar(ax, ax.imshow(np.eye(3)), "cosine")
    >>> ax.figure.axes[1].get_ylabel()
    'cosine'
    """
    bar = ax.figure.colorbar(drawn, ax=ax, pad=0.02, ticks=MaxNLocator(5), **place)
    bar.set_label(label)
    bar.outline.set_visible(False)
    bar.ax.tick_params(size=2)


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Make the y axis a list of names, first on top.

    >>> ax = canvas("How strong is each?", None, height=1).subplots()
    >>> name_rows(ax, ["calm", "afraid"])
    >>> [text.get_text() for text in ax.get_yticklabels()], bool(ax.yaxis_inverted())
    (['calm', 'afraid'], True)
    """
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(axis="y", length=0)


def beside(ax: Axes, y: float, text: str, *, right: float = 30, **look) -> None:
    """Write a number in row y, ending `right` points beyond the axes.

    >>> ax = canvas("How strong is each?", None, height=1).subplots()
    >>> beside(ax, 0, "0.62")
    >>> ax.texts[0].get_text(), ax.texts[0].xy  # right edge of the axes, row 0
    ('0.62', (1, 0))
    """
    place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    ax.annotate(text, (1, y), (right, 0), ha="right", va="center_baseline", **place, **look)


def interval(ax: Axes, y: float, low: float, high: float, colour: str) -> None:
    """Draw an interval as a horizontal line, unless an end of it is not finite.

    >>> ax = canvas("How strong is each?", None, height=1).subplots()
    >>> interval(ax, 0, 0.2, 0.6, BLUE)
    >>> interval(ax, 1, 0.3, np.nan, BLUE)
    >>> [line.get_xdata().tolist() for line in ax.lines]
    [[0.2, 0.6]]
    """
    if np.isfinite(low) and np.isfinite(high):
        ax.plot([low, high], [y, y], color=colour, lw=1.8, solid_capstyle="butt", zorder=3)


# --- figures -------------------------------------------------------------------------------------


@styled
def by_layer(
    table: pd.DataFrame,
    *,
    value: str,
    hue: str,
    title: str,
    ylabel: str,
    low: str | None = None,
    high: str | None = None,
    controls: Sequence[str] = (),
    mark_layer: int | None = None,
    chance: float | None = None,
    yscale: str = "linear",
    note: str | None = None,
) -> Figure:
    """Draw one line per `hue` over the layers, named at its end.

    Parameters
    ----------
    table : DataFrame
        One row per layer and line: ``layer`` (int, 0-based) and the columns named below.
    value, hue : str
        Columns of the height and of the line's name.
    title, ylabel : str
        The question or finding, and the axis with its unit.
    low, high : str, optional
        Columns of the interval, drawn as a band.
    controls : sequence of str
        Values of `hue` to draw in grey.
    mark_layer : int, optional
        The read-out layer, marked by a vertical line.
    chance : float, optional
        Height of the dotted line.
    yscale : str
        "linear" or "log".
    note : str, optional
        n, and what the band is; set below the title.

    Returns
    -------
    Figure

    Raises
    ------
    BadInput
        On an empty table, a missing column, an unknown control, or too many coloured lines.

    Examples
    --------
    >>> table = pd.DataFrame({"layer": [0, 1, 2], "r": [0.1, 0.5, 0.8], "what": "probe"})
    >>> labels = {"title": "Where is it read?", "ylabel": "r"}
    >>> figure = by_layer(table, value="r", hue="what", chance=0, **labels)
    >>> figure.axes[0].get_xlabel(), [text.get_text() for text in figure.axes[0].texts]
    ('layer (0 = first decoder block)', ['probe', 'chance'])
    """
    need_columns(table, "layer", value, hue, *(c for c in (low, high) if c))
    looks = line_colours(list(table[hue].unique()), controls)
    figure = canvas(title, note, height=3.5)
    ax = figure.subplots()
    ends = layer_lines(ax, table, looks, value=value, hue=hue, low=low, high=high)
    layer_axes(ax, table["layer"], ylabel, yscale)
    if chance is not None:
        ax.axhline(chance, color=SOFT, ls=":", lw=1.4, zorder=1)
        ends.append((ax.get_xlim()[1], chance, "chance", SOFT, SOFT))
    if mark_layer is not None:
        ax.axvline(mark_layer, color=INK, lw=0.9, zorder=1)
        _name_layer(ax, mark_layer, mark_layer)
    name_ends({ax: ends})
    return figure


def layer_lines(
    ax: Axes,
    table: pd.DataFrame,
    looks: Mapping[str, str],
    *,
    value: str,
    hue: str,
    low: str | None = None,
    high: str | None = None,
) -> list[tuple[float, float, str, str, str]]:
    """Draw one line per `hue` over the layers; return end (x, y), name, colour and ink of each.

    >>> table = pd.DataFrame({"layer": [0, 1, 2], "r": [0.1, 0.5, 0.8], "what": "probe"})
    >>> ax = canvas("Where is it read?", None, height=2).subplots()
    >>> layer_lines(ax, table, {"probe": BLUE}, value="r", hue="what")
    [(2.0, 0.8, 'probe', '#0b6aa8', '#222222')]
    """
    ends = []
    for name, rows in table.groupby(hue, sort=False):
        rows = rows.sort_values("layer")
        control = looks[name] == CONTROL
        look = {"color": looks[name], "zorder": 2 if control else 3}
        ax.plot(rows["layer"], rows[value], **look)
        if low and high:
            ax.fill_between(rows["layer"], rows[low], rows[high], alpha=0.16, lw=0, **look)
        known = rows.dropna(subset=[value])
        if known.empty:
            raise BadInput(f"the line {name!r} has no value at any layer")
        x, y = known[["layer", value]].iloc[-1]
        ends.append((x, y, name, looks[name], SOFT if control else INK))
    return ends


def line_colours(names: Sequence[str], controls: Sequence[str]) -> dict[str, str]:
    """Return ``{name: colour}``: a series of colours, and one shade for all controls.

    >>> line_colours(["calm", "random", "afraid"], controls=["random"])
    {'calm': '#0b6aa8', 'afraid': '#c75b00', 'random': '#9a9fa5'}
    """
    for control in controls:
        if control not in names:
            raise BadInput(f"no line is called {control!r}; {nearest(control, map(str, names))}")
    coloured = [name for name in names if name not in controls]
    if len(coloured) > len(SERIES):
        raise BadInput(
            f"{len(coloured)} coloured lines cannot be told apart, {len(SERIES)} can: "
            "draw fewer, or name some as controls"
        )
    return dict(zip(coloured, SERIES, strict=False)) | dict.fromkeys(controls, CONTROL)


def layer_axes(ax: Axes, layers: pd.Series, ylabel: str, yscale: str) -> None:
    """Label axes whose x is the layer, with ticks at whole layers.

    >>> ax = canvas("Where is it read?", None, height=2).subplots()
    >>> layer_axes(ax, pd.Series([0, 29]), "r", "linear")
    >>> ax.get_xlabel(), [round(float(x), 1) for x in ax.get_xlim()]
    ('layer (0 = first decoder block)', [-0.4, 29.4])
    """
    ax.set(xlabel="layer (0 = first decoder block)", ylabel=ylabel, yscale=yscale)
    ax.set_xlim(layers.min() - 0.4, layers.max() + 0.4)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if yscale == "log":
        ax.yaxis.set_major_formatter(lambda v, _: f"{v:,.10g}")
    ax.grid(axis="y")


_KINDS = {
    "probe": PROBE,
    "baseline": {"marker": "s", "color": BASELINE, "markersize": 6},
    "null": {"marker": "o", "color": CONTROL, "markersize": 6, "markerfacecolor": "white"},
}


@styled
def accuracy_bars(
    table: pd.DataFrame,
    *,
    value: str,
    low: str,
    high: str,
    label: str,
    title: str,
    chance: float | Mapping[str, float],
    panels: str = "setting",
    kind: str = "kind",
    xlabel: str = "accuracy",
    note: str | None = None,
) -> Figure:
    """Draw dots with intervals in one panel per setting, the values written beside them.

    Parameters
    ----------
    table : DataFrame
        One row per panel and method; both keep the order of first appearance.
    value, low, high : str
        Columns of the accuracy (0 to 1; a correlation may be negative) and its interval.
    label, panels : str
        Columns of the method's name and of the panel.
    kind : str
        Column that says "probe", "baseline" or "null".
    title, xlabel : str
        The question or finding, and the axis.
    chance : float or mapping
        Where the dotted line stands: one number, or one for each panel.
    note : str, optional
        n, and what the interval is; set below the title.

    Returns
    -------
    Figure

    Raises
    ------
    BadInput
        On an empty table, a missing column, an unknown kind, or a panel without chance.

    Examples
    --------
    >>> table = pd.DataFrame({"method": ["vectors", "word counts"], "kind": ["probe", "baseline"]})
    >>> table = table.assign(setting="new topics", right=[0.7, 0.5])
    >>> table = table.assign(low=table.right - 0.1, high=table.right + 0.1)
    >>> columns = {"value": "right", "low": "low", "high": "high", "label": "method"}
    >>> figure = accuracy_bars(table, title="Is the emotion named?", chance=0.1, **columns)
    >>> ax = figure.axes[0]
    >>> [text.get_text() for text in (*ax.get_yticklabels(), *ax.texts)]
    ['vectors', 'word counts', '0.70', '0.50']
    """
    need_columns(table, value, low, high, label, panels, kind)
    kinds = known_kinds(table[kind], _KINDS)
    settings, methods = list(table[panels].unique()), list(table[label].unique())
    if not isinstance(chance, Mapping):
        chance = dict.fromkeys(settings, chance)
    if missing := [setting for setting in settings if setting not in chance]:
        raise BadInput(f"chance is missing for the panel {missing[0]!r}")
    columns = 2 if len(settings) == 4 else min(3, len(settings))
    lines = -(-len(settings) // columns)
    key = [*(key_mark(k, _KINDS[k]) for k in kinds), _chance_mark()]
    figure = canvas(title, note, height=lines * (0.27 * len(methods) + 0.85), key=key)
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    lowest = float(table[low].min())
    for i, (ax, setting) in enumerate(zip(grid, settings, strict=False)):
        part = table.loc[table[panels] == setting, [label, value, low, high, kind]]
        _accuracy_panel(ax, part.itertuples(index=False, name=None), methods, lowest)
        ax.axvline(chance[setting], color=SOFT, ls=":", lw=1.4, zorder=1)
        bottom = i + columns >= len(settings)  # of its column
        ax.set(title=str(setting), xlabel=xlabel if bottom else "")
        ax.tick_params(labelbottom=bottom)
    for ax in grid[len(settings) :]:
        ax.remove()
    return figure


def _accuracy_panel(ax: Axes, rows: Iterable[tuple], methods: Sequence[str], lowest: float) -> None:
    for name, value, low, high, kind in rows:
        y = methods.index(name)
        interval(ax, y, low, high, _KINDS[kind]["color"])
        ax.plot(value, y, zorder=4, clip_on=False, **_KINDS[kind])
        beside(ax, y, signed(value))
    name_rows(ax, methods)
    ax.set_xticks([-1, -0.5, 0, 0.5, 1], ["−1", "−0.5", "0", "0.5", "1"])
    ax.set_xlim(min(0, lowest), 1)
    ax.grid(axis="y")


def known_kinds(kinds: pd.Series, known: Mapping[str, Mapping]) -> list[str]:
    """Return the kinds that occur, in the order of `known`; raise `BadInput` for others.

    >>> known_kinds(pd.Series(["null", "probe", "null"]), {"probe": {}, "baseline": {}, "null": {}})
    ['probe', 'null']
    """
    present = set(kinds)
    for unknown in present - set(known):
        raise BadInput(f"unknown kind {unknown!r}; {nearest(str(unknown), known)}")
    return [kind for kind in known if kind in present]


@styled
def reliability_strip(
    values: Sequence[float],
    names: Sequence[str],
    *,
    highlight: int = 6,
    title: str = "How reliable is each vector?",
    ylabel: str = "split-half reliability (cosine)",
    note: str | None = None,
) -> Figure:
    """Draw all emotions as sorted dots and name the `highlight` lowest and highest.

    Parameters
    ----------
    values : array [E]
        Reliability of each vector.
    names : sequence of E str
        The emotions.
    highlight : int
        How many to name at each end.
    title, ylabel : str
        The question or finding, and the axis.
    note : str, optional
        How reliability was measured, and on how many texts; set below the title.

    Returns
    -------
    Figure

    Raises
    ------
    BadInput
        On a shape mismatch or a value that is not finite.

    Examples
    --------
    >>> names = ["calm", "afraid", "bored", "proud"]
    >>> figure = reliability_strip([0.9, 0.5, 0.2, 0.7], names, highlight=1)
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['bored 0.20', 'calm 0.90']
    """
    values = finite(_vector(values, names, "values"), "values")
    order = np.argsort(values, kind="stable")
    n, k = len(values), min(highlight, len(values) // 2)
    figure = canvas(title, note, height=3.5)
    ax = figure.subplots()
    ax.set(ylabel=ylabel, xlabel=f"emotions from least to most reliable (n = {n})", xticks=[])
    ax.set_xlim(-0.02 * n, 1.02 * n)
    ax.margins(y=0.08)
    ax.grid(axis="y")
    points = np.column_stack([np.arange(n), values[order]])
    ax.plot(*points[k : n - k].T, "o", ms=4.5, color=BASELINE, alpha=0.75, mew=0)
    ends = (slice(0, k), ORANGE, 0.13), (slice(n - k, n), BLUE, 1.04)
    for part, colour, _ in ends:
        ax.plot(*points[part].T, "o", ms=5.5, color=colour)
    figure.draw_without_rendering()
    for part, colour, at in ends[: 2 * bool(k)]:
        texts = [f"{names[e]} {values[e]:.2f}" for e in order[part]]
        label_column(ax, in_axes(ax, points[part]), texts, at=at, colours=[colour] * k)
    return figure


@styled
def cosine_matrix(
    matrix: np.ndarray,
    names: Sequence[str],
    *,
    order: Sequence[int],
    title: str,
    cluster: Sequence[str] | None = None,
    label: str = "cosine",
    vmax: float | None = None,
    note: str | None = None,
) -> Figure:
    """Draw a matrix of cosines in a given order, with the clusters along its side.

    Parameters
    ----------
    matrix : array [E, E]
        Cosines, or other values around 0.
    names : sequence of E str
        The emotions; about thirty of them are written.
    order : sequence of E int
        Row and column order, for example the leaves of a hierarchical clustering.
    title, label : str
        The finding, and the name of the colour bar.
    cluster : sequence of E str, optional
        Cluster of each emotion, in the order of `names`.
    vmax : float, optional
        Colours span -vmax to vmax; by default the largest magnitude off the diagonal.
    note : str, optional
        Layer, method of ordering, source of the clusters; set below the title.

    Returns
    -------
    Figure

    Raises
    ------
    BadInput
        On a shape mismatch, a value that is not finite, or an order that is none.

    Examples
    --------
    >>> cosines = np.array([[1, -0.5, 0.8], [-0.5, 1, -0.4], [0.8, -0.4, 1]])
    >>> names = ["calm", "afraid", "serene"]
    >>> figure = cosine_matrix(cosines, names, order=[0, 2, 1], title="Calm is near serene")
    >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
    ['calm', 'serene', 'afraid']
    """
    matrix, n = square(matrix, names), len(names)
    order, limit = permutation(order, n), colour_limit(matrix, vmax)
    figure = canvas(title, note, height=5.9, layout="compressed")
    ax = figure.subplots()
    drawn = ax.imshow(matrix[np.ix_(order, order)], cmap=DIVERGING_MAP, vmin=-limit, vmax=limit)
    _matrix_names(ax, [names[i] for i in order])
    if cluster is not None:
        if len(cluster) != n:
            raise BadInput(f"cluster holds {len(cluster)} entries, names ask for {n}")
        _cluster_strip(ax, [str(cluster[i]) for i in order])
    colour_bar(ax, drawn, label, location="bottom", shrink=0.6, aspect=30)
    return figure


def _matrix_names(ax: Axes, names: Sequence[str]) -> None:
    """Write every name on both sides, or as many as there is room for on the left."""
    n = len(names)
    step = -(-n // 30)  # more names than this would run into each other
    at = range(step // 2, n, step)
    ax.set_yticks(at, [names[i] for i in at])
    ax.spines[:].set_visible(False)
    if step == 1:
        ax.set_xticks(at, names, rotation=90)
    else:
        ax.set_xticks([])
        ax.set_xlabel(f"columns in the same order; 1 in {step} of {n} names is written", color=SOFT)


def _cluster_strip(ax: Axes, clusters: Sequence[str]) -> None:
    """Draw a coloured strip beside a matrix; name each cluster at its longest run."""
    n = len(clusters)
    edges = [0, *(i for i in range(1, n) if clusters[i] != clusters[i - 1]), n]
    runs = sorted(itertools.pairwise(edges), key=lambda run: run[0] - run[1])
    colours = dict(zip(dict.fromkeys(clusters), itertools.cycle(_GROUPS), strict=False))
    middles: dict[str, float] = {}
    for start, stop in runs:
        name = clusters[start]
        box = (1.015, 1 - stop / n), 0.03, (stop - start) / n
        ax.add_patch(
            Rectangle(*box, color=colours[name], lw=0, transform=ax.transAxes, clip_on=False)
        )
        middles.setdefault(name, 1 - (start + stop) / 2 / n)
    points = np.array([(1.045, middle) for middle in middles.values()])
    texts = [textwrap.fill(name, 13) for name in middles]
    gap = 15 * max(text.count("\n") + 1 for text in texts)
    ax.figure.draw_without_rendering()
    label_column(ax, points, texts, at=1.09, colours=[colours[name] for name in middles], gap=gap)


@styled
def plane(
    x: Sequence[float],
    y: Sequence[float],
    names: Sequence[str],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    colour: Sequence[float] | None = None,
    colour_label: str = "",
    labels: Sequence[str] | None = None,
    note: str | None = None,
) -> Figure:
    """Draw emotions as named dots on a plane, such as two principal components or a UMAP.

    Parameters
    ----------
    x, y : array [E]
        Positions.
    names : sequence of E str
        The emotions.
    title, xlabel, ylabel : str
        The question or finding, and the axes.
    colour : array [E], optional
        Human ratings, 0 is neutral and grey; a dot without one (NaN) is hollow.
    colour_label : str
        Name of the colour bar.
    labels : sequence of str, optional
        Names to write, most important first; one that does not fit beside its dot stands further
        off, tied by a line, and is left out where that is full too. By default all names that
        fit beside their dot, from the rim inwards.
    note : str, optional
        n and source of the ratings; set below the title.

    Returns
    -------
    Figure

    Raises
    ------
    BadInput
        On a shape mismatch, a position that is not finite, or a label that is no name.

    Examples
    --------
    >>> axes = {"title": "Do they form a circle?", "xlabel": "pleasure", "ylabel": "arousal"}
    >>> figure = plane([0.8, -0.6, -0.4], [0.5, 0.7, -0.5], ["happy", "afraid", "bored"], **axes)
    >>> sorted(text.get_text() for text in figure.axes[0].texts)
    ['afraid', 'bored', 'happy']
    """
    points = np.column_stack([finite(_vector(v, names, w), w) for v, w in ((x, "x"), (y, "y"))])
    order = label_order(points, names, labels)
    rings = 1 if labels is None else 4  # names that were asked for may stand further off
    figure = canvas(title, note, height=5.6)
    ax = figure.subplots()
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.axhline(0, color=LINE, lw=0.8, zorder=0)
    ax.axvline(0, color=LINE, lw=0.8, zorder=0)
    if colour is None:
        ax.scatter(*points.T, s=26, color=BASELINE)
    else:
        _rated_dots(ax, points, _vector(colour, names, "colour"), colour_label)
    ax.margins(0.07)
    write_names(ax, points, names, order, rings)
    return figure


def _rated_dots(ax: Axes, points: np.ndarray, ratings: np.ndarray, label: str) -> None:
    rated = np.isfinite(ratings)
    ax.scatter(*points[~rated].T, s=24, facecolors="white", edgecolors=CONTROL, zorder=1)
    drawn = ax.scatter(*points[rated].T, c=ratings[rated], cmap=_DOTS, norm=CenteredNorm(), s=30)
    colour_bar(ax, drawn, label, shrink=0.6, aspect=24)


def label_order(
    points: np.ndarray, names: Sequence[str], labels: Sequence[str] | None
) -> list[int]:
    """Return the dots to label, most important first: `labels`, or by distance from the mean.

    >>> points, names = np.array([[0, 0], [0.1, 0.1], [5, 5]]), ["calm", "serene", "enraged"]
    >>> [names[n] for n in label_order(points, names, None)]
    ['enraged', 'calm', 'serene']
    >>> label_order(points, names, ["serene"])
    [1]
    """
    if labels is None:
        scaled = (points - points.mean(0)) / (points.std(0) + 1e-12)
        return list(np.argsort(-np.hypot(*scaled.T), kind="stable"))
    index = {name: i for i, name in enumerate(names)}
    for label in labels:
        if label not in index:
            raise BadInput(f"no dot is called {label!r}; {nearest(label, names)}")
    return [index[label] for label in labels]


# Where a name may stand, seen from its dot in points, and how it is aligned there.
_PLACES = (
    (6, 0, "left", "center"),
    (-6, 0, "right", "center"),
    (0, 6, "center", "bottom"),
    (0, -6, "center", "top"),
    (4, 4, "left", "bottom"),
    (4, -4, "left", "top"),
    (-4, 4, "right", "bottom"),
    (-4, -4, "right", "top"),
)


def write_names(
    ax: Axes, points: np.ndarray, names: Sequence[str], order: Sequence[int], rings: int
) -> None:
    """Write names one after the other where there is room; leave out those without.

    >>> ax = canvas("Who is where?", None, height=3).subplots()
    >>> points = np.zeros((12, 2))  # all on one spot, which has room for a few names
    >>> _ = ax.scatter(*points.T)
    >>> write_names(ax, points, ["calm"] * 12, range(12), rings=1)
    >>> 1 <= len(ax.texts) <= 8
    True
    """
    ax.figure.draw_without_rendering()  # settles where the dots are
    renderer = ax.figure.canvas.get_renderer()
    dots, radius = ax.transData.transform(points), 3.2 * ax.figure.dpi / 72
    taken = np.hstack([dots - radius, dots + radius])  # x0, y0, x1, y1
    for i in order:
        for ring, place in itertools.product(range(1, rings + 1), _PLACES):
            text = _name_at(ax, names[i], points[i], place, ring)
            text.update_positions(renderer)
            # Of the text alone: an annotation counts its tie, which touches its own dot.
            box = Text.get_window_extent(text, renderer).extents
            if _has_room(box, taken, ax.bbox.extents):
                taken = np.vstack([taken, box])
                break
            text.remove()


def _name_at(ax: Axes, name: str, point: np.ndarray, place: tuple, ring: int) -> Annotation:
    dx, dy, ha, va = place
    tie = {"arrowstyle": "-", "color": SOFT, "lw": 0.7, "shrinkA": 1, "shrinkB": 3}
    text = ax.annotate(
        name,
        point,
        (dx * ring**1.5, dy * ring**1.5),
        textcoords="offset points",
        ha=ha,
        va=va,
        size=9,
        arrowprops=tie if ring > 1 else None,
    )
    text.set_in_layout(False)  # names adapt to the layout, not the layout to names
    return text


def _has_room(box: np.ndarray, taken: np.ndarray, frame: np.ndarray) -> bool:
    inside = (box[:2] >= frame[:2]).all() and (box[2:] <= frame[2:]).all()
    apart = (box[2:] <= taken[:, :2]) | (box[:2] >= taken[:, 2:])
    return bool(inside and apart.any(axis=1).all())


_NULL_GREYS = ("#b9bdc2", "#85898f", "#5d6166")


@styled
def variance_shares(
    observed: Sequence[float],
    nulls: Mapping[str, np.ndarray],
    *,
    title: str,
    paper: Sequence[float] | None = None,
    ylabel: str = "share of variance",
    note: str | None = None,
) -> Figure:
    """Draw the variance share of each principal component beside what the nulls give.

    Parameters
    ----------
    observed : array [k]
        Shares, 0 to 1, largest first.
    nulls : dict of array [n, k]
        Draws of at most three nulls; their range from 2.5 to 97.5 % and their median are drawn.
    title, ylabel : str
        The question or finding, and the axis.
    paper : array [at most k], optional
        The paper's shares, drawn as open diamonds.
    note : str, optional
        n, layer, number of draws; set below the title.

    Returns
    -------
    Figure

    Raises
    ------
    BadInput
        On a shape mismatch, a value that is not finite, or more than three nulls.

    Examples
    --------
    >>> nulls = {"shuffled": np.random.default_rng(0).uniform(0.1, 0.2, size=(20, 2))}
    >>> figure = variance_shares([0.5, 0.3], nulls, title="Are two components enough?")
    >>> [text.get_text() for text in figure.legends[0].get_texts()]
    ['observed', 'shuffled (95 %)']
    """
    observed = finite(_shares(observed), "observed")
    paper = finite(_shares([] if paper is None else paper), "paper")
    k = len(observed)
    if not 0 < k >= len(paper):
        raise BadInput(f"observed holds {k} shares, paper {len(paper)}")
    if len(nulls) > len(_NULL_GREYS):
        raise BadInput(f"{len(nulls)} nulls cannot be told apart, {len(_NULL_GREYS)} can")
    greys = dict(zip(nulls, _NULL_GREYS, strict=False))
    key = [
        Patch(color=BLUE, label="observed"),
        *([key_mark("paper", _PAPER)] if len(paper) else []),
    ]
    key += [Patch(color=grey, label=f"{name} (95 %)") for name, grey in greys.items()]
    figure = canvas(title, note, height=3.3, key=key)
    ax = figure.subplots()
    at = np.arange(1, k + 1)
    slot = 0.62 / (1 + len(nulls))
    first = at - 0.31 + slot / 2
    ax.bar(first, observed, width=slot * 0.9, color=BLUE)
    ax.plot(first[: len(paper)], paper, ls="none", zorder=4, **_PAPER)
    for i, (name, draws) in enumerate(nulls.items(), start=1):
        draws = finite(np.asarray(draws, dtype=float), f"null {name!r}")
        if draws.ndim != 2 or draws.shape[1] != k:
            raise BadInput(f"null {name!r} has shape {draws.shape}, observed asks for (n, {k})")
        _null_range(ax, first + i * slot, draws, slot, greys[name])
    ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g} %")
    ax.set(ylabel=ylabel, xlabel="principal component", xticks=at, ylim=(0, None))
    ax.set_axisbelow(True)
    ax.grid(axis="y")
    return figure


def _shares(values: Sequence[float]) -> np.ndarray:
    return np.atleast_1d(np.asarray(values, dtype=float))


def _null_range(ax: Axes, x: np.ndarray, draws: np.ndarray, slot: float, grey: str) -> None:
    low, middle, high = np.quantile(draws, [0.025, 0.5, 0.975], axis=0)
    ax.bar(x, high - low, bottom=low, width=slot * 0.7, color=grey)
    ax.hlines(middle, x - slot * 0.45, x + slot * 0.45, color=INK, lw=1.2)


@styled
def correlation_grid(
    table: pd.DataFrame, *, title: str, xlabel: str = "correlation r", note: str | None = None
) -> Figure:
    """Draw r of each component with each human norm beside null, human agreement and paper.

    The sign of a component is arbitrary, so null and agreement stand on both sides of zero.

    Parameters
    ----------
    table : DataFrame
        One row per component and norm: ``pc`` (str), ``norm`` (str), ``r``, ``low``, ``high``;
        where known also ``null`` (magnitude that the corrected null reaches), ``human_low`` and
        ``human_high`` (agreement between people) and ``paper`` (the paper's r).
    title, xlabel : str
        The question or finding, and the axis.
    note : str, optional
        n, what the interval is, how the null was corrected; set below the title.

    Returns
    -------
    Figure

    Raises
    ------
    BadInput
        On an empty table or a missing column.

    Examples
    --------
    >>> table = pd.DataFrame({"pc": ["PC1", "PC2"], "norm": "pleasure", "r": [0.8, -0.1]})
    >>> table = table.assign(low=table.r - 0.1, high=table.r + 0.1)
    >>> figure = correlation_grid(table, title="Is the first component pleasure?")
    >>> ax = figure.axes[0]
    >>> ax.get_title(loc="left"), [text.get_text() for text in ax.texts]
    ('pleasure', ['0.80', '−0.10'])
    """
    need_columns(table, "pc", "norm", "r", "low", "high")
    components, norms = list(table["pc"].unique()), list(table["norm"].unique())
    key = {
        "r": key_mark("ours", PROBE),
        "paper": key_mark("paper", _PAPER),
        "null": Patch(color=LINE, label="within the corrected null"),
        "human_low": Patch(color=HUMAN, label="agreement between people"),
    }
    key = [entry for column, entry in key.items() if column in table]
    figure = canvas(title, note, height=0.44 * len(components) + 0.95, key=key)
    grid = figure.subplots(1, len(norms), sharey=True, squeeze=False).ravel()
    for ax, norm in zip(grid, norms, strict=True):
        for row in table[table["norm"] == norm].to_dict("records"):
            _correlation(ax, components.index(row["pc"]), row)
        ax.axvline(0, color=SOFT, lw=0.8, zorder=1)
        ax.set(title=str(norm), xlabel=xlabel, xlim=(-1, 1))
        ax.set_xticks([-1, -0.5, 0, 0.5, 1], ["−1", "−0.5", "0", "0.5", "1"])
        name_rows(ax, components)
    return figure


def _correlation(ax: Axes, y: int, row: Mapping[str, float]) -> None:
    low, high = row.get("human_low", np.nan), row.get("human_high", np.nan)
    for start in (low, -high):
        ax.barh(y, high - low, left=start, height=1, color=HUMAN, lw=0, zorder=0)
    null = row.get("null", np.nan)
    ax.barh(y, 2 * null, left=-null, height=0.72, color=LINE, lw=0, zorder=1)
    interval(ax, y, row["low"], row["high"], BLUE)
    ax.plot(row["r"], y, zorder=4, **PROBE)
    beside(ax, y, signed(row["r"]))
    # A little lower, so that neither hides the other where both agree.
    ax.plot(row.get("paper", np.nan), y + 0.26, zorder=5, **_PAPER)


@styled
def layer_similarity(
    matrix: np.ndarray,
    *,
    title: str,
    layers: Sequence[int] | None = None,
    label: str = "similarity of geometry (cosine)",
    mark_layer: int | None = None,
    note: str | None = None,
) -> Figure:
    """Draw how alike the emotion geometry of each two layers is.

    Parameters
    ----------
    matrix : array [L, L]
        Similarities, at most 1.
    title, label : str
        The finding, and the name of the colour bar.
    layers : sequence of L int, optional
        Their numbers; 0 … L-1 by default.
    mark_layer : int, optional
        The read-out layer, marked on both axes.
    note : str, optional
        n, and how similarity was measured; set below the title.

    Returns
    -------
    Figure

    Raises
    ------
    BadInput
        On a shape mismatch, a value that is not finite, or a mark outside `layers`.

    Examples
    --------
    >>> alike = np.array([[1, 0.5, 0.2], [0.5, 1, 0.8], [0.2, 0.8, 1]])
    >>> figure = layer_similarity(alike, layers=[18, 19, 20], mark_layer=20, title="Is it stable?")
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['read-out layer 20']
    """
    layers = list(range(len(matrix)) if layers is None else layers)
    matrix = square(matrix, layers)
    figure = canvas(title, note, height=4.7, width=6.0, layout="compressed")
    ax = figure.subplots()
    drawn = ax.imshow(matrix, cmap="cividis", origin="lower", vmin=min(0.0, matrix.min()), vmax=1)
    at = np.arange(0, len(layers), -(-len(layers) // 12))
    ax.set_xticks(at, [layers[i] for i in at])
    ax.set_yticks(at, [layers[i] for i in at])
    ax.set(xlabel="layer", ylabel="layer")
    ax.spines[:].set_visible(False)
    if mark_layer is not None:
        if mark_layer not in layers:
            raise BadInput(f"layer {mark_layer} is not among {layers}")
        where = layers.index(mark_layer)
        for draw in (ax.axvline, ax.axhline):
            draw(where, color="white", lw=1, ls=(0, (4, 3)))
        _name_layer(ax, where, mark_layer)
    colour_bar(ax, drawn, label, shrink=0.8, aspect=26)
    return figure


_PAIRS = {
    "near": {"marker": "o", "color": ORANGE, "markersize": 7},
    "opposite": {"marker": "D", "color": BLUE, "markersize": 6},
}


@styled
def pair_strip(
    table: pd.DataFrame,
    *,
    background: Sequence[float],
    title: str,
    xlabel: str = "cosine between the two vectors",
    note: str | None = None,
) -> Figure:
    """Draw near and opposite word pairs on the cosine axis, below the distribution of all pairs.

    Parameters
    ----------
    table : DataFrame
        One row a pair: ``pair`` (such as "afraid – anxious"), ``cosine``, ``percentile`` (0 to
        100, among all pairs), ``kind`` ("near" or "opposite": what is expected of the pair).
    background : array [n_pairs]
        Cosines of all pairs.
    title, xlabel : str
        The question or finding, and the axis.
    note : str, optional
        Layer, source of the pairs; set below the title.

    Returns
    -------
    Figure

    Raises
    ------
    BadInput
        On an empty table, a missing column, an unknown kind, or a background that is not finite.

    Examples
    --------
    >>> table = pd.DataFrame({"pair": ["calm – afraid", "calm – serene"], "cosine": [-0.5, 0.8]})
    >>> table = table.assign(kind=["opposite", "near"], percentile=[2.0, 99.0])
    >>> background = np.linspace(-0.6, 0.9, 50)
    >>> figure = pair_strip(table, background=background, title="Are opposites apart?")
    >>> [text.get_text() for text in figure.axes[1].get_yticklabels()]  # near pairs first
    ['calm – serene', 'calm – afraid']
    """
    need_columns(table, "pair", "cosine", "percentile", "kind")
    kinds = known_kinds(table["kind"], _PAIRS)
    background = finite(np.ravel(np.asarray(background, dtype=float)), "background")
    rank = table["kind"].map(kinds.index)
    rows = table.assign(rank=rank).sort_values(["rank", "cosine"], ascending=[True, False])
    key = [key_mark(f"expected to be {kind}", _PAIRS[kind]) for kind in kinds]
    key.append(Patch(color=LINE, label=f"all {len(background):,} pairs"))
    below = 0.26 * len(rows)
    figure = canvas(title, note, height=below + 1.45, key=key)
    figure.get_layout_engine().set(h_pad=0, hspace=0)
    top, ax = figure.subplots(2, 1, sharex=True, height_ratios=[0.7, below])
    top.hist(background, bins=60, color=LINE, histtype="stepfilled")
    top.axis("off")
    for right, text in ((42, "cosine"), (100, "percentile")):
        beside(ax, -0.9, text, right=right, color=SOFT, size=9)
    for y, row in enumerate(rows.to_dict("records")):
        look = _PAIRS[row["kind"]]
        ax.plot([0, row["cosine"]], [y, y], color=look["color"], lw=1.4, alpha=0.5)
        ax.plot(row["cosine"], y, **look)
        beside(ax, y, signed(row["cosine"], "+.2f"), right=42)
        beside(ax, y, f"{row['percentile']:.1f}", right=100)
    name_rows(ax, list(rows["pair"]))
    ax.axvline(0, color=SOFT, lw=0.8, zorder=1)
    ax.set_xlabel(xlabel)
    ax.grid(axis="x")
    return figure

"""Figures of chapters 3 and 4: scenarios, numbers, spans, speakers and steering.

They have the look of `plots` and are shown by ``plots.show``. Kinds of directions are the same
everywhere: "emotion" is what is measured, in colour; the controls are grey: "random" directions,
"shuffled" emotion vectors (fitted on permuted labels) and "unrelated" ones (of topics, say).
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from emotion_concepts.errors import BadInput
from emotion_concepts.look import signed
from emotion_concepts.plots import (
    BLUE,
    CONTROL,
    DIVERGING,
    DIVERGING_MAP,
    INK,
    LINE,
    PROBE,
    SOFT,
    beside,
    canvas,
    colour_bar,
    colour_limit,
    finite,
    in_axes,
    interval,
    key_mark,
    known_kinds,
    label_column,
    label_order,
    layer_axes,
    layer_lines,
    line_colours,
    name_ends,
    name_rows,
    need_columns,
    square,
    styled,
    write_names,
)
from emotion_concepts.results import SYMBOLS

_HOLLOW = {"color": CONTROL, "markerfacecolor": "white", "markersize": 6}
KINDS = {
    "emotion": PROBE,
    "random": {"marker": "o", **_HOLLOW},
    "shuffled": {"marker": "s", **_HOLLOW},
    "unrelated": {"marker": "^", **_HOLLOW},
}
DASHES = {"shuffled": (0, (5, 2)), "unrelated": (0, (6, 2, 1.2, 2))}
WINDOW = "#e8f1f8"  # where steered text is still coherent
_MAX_COLUMNS = 36


# --- parts that figures share --------------------------------------------------------------------


def _named(matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> np.ndarray:
    matrix = np.asarray(matrix, dtype=float)
    if matrix.size == 0 or matrix.shape != (len(rows), len(columns)):
        raise BadInput(
            f"matrix has shape {matrix.shape}, names ask for ({len(rows)}, {len(columns)})"
        )
    return finite(matrix, "matrix")


def _heat(ax: Axes, matrix: np.ndarray, limit: float | None = None, **look):
    """Draw a matrix in colours that are centred at zero."""
    limit = limit or float(np.abs(matrix).max()) or 1.0
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return ax.imshow(matrix, cmap=DIVERGING_MAP, vmin=-limit, vmax=limit, **look)


def _ink_on(colours: np.ndarray) -> np.ndarray:
    """Return black or white, whichever stands out more on each colour [..., 3 or 4]."""
    channels = colours[..., :3]
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return np.where(linear @ [0.2126, 0.7152, 0.0722] > 0.179, "black", "white")


def _panels(
    title: str, note: str | None, key: Sequence, heads: Sequence[str], ylabel: str, xlabel: str = ""
) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, in two columns under their heads, with one y axis."""
    wrapped = [textwrap.wrap(head, 40) for head in heads]
    lines = -(-len(heads) // 2)
    height = lines * (1.55 + 0.17 * max(map(len, wrapped))) + 0.25 * bool(xlabel)
    figure = canvas(title, note, height=height, key=key)
    figure.supylabel(ylabel, size=9.5, y=height / figure.get_figheight() / 2)
    figure.supxlabel(xlabel, size=9.5)
    grid = figure.subplots(lines, 2, sharey=True, squeeze=False).ravel()
    for ax, head in zip(grid, wrapped, strict=False):
        # A dollar sign is one, not the start of a formula.
        ax.set_title("\n".join(head), size=9.5, linespacing=1.2, parse_math=False)
    for ax in grid[len(heads) :]:
        ax.remove()
    return figure, list(grid[: len(heads)])


def zero_line(ax: Axes, *axes: str) -> None:
    """Draw a dotted line at zero, across the axes named ("x", "y").

    >>> ax = canvas("Does it move?", None, height=1).subplots()
    >>> zero_line(ax, "x")
    >>> list(ax.lines[0].get_xdata()), ax.lines[0].get_linestyle()
    ([0, 0], ':')
    """
    for axis in axes:
        draw = ax.axhline if axis == "y" else ax.axvline
        draw(0, color=SOFT, ls=":", lw=1.2, zorder=1)


def _kind_key(kinds: Sequence[str]) -> list[Line2D]:
    """The key of dots, where there is more than one kind."""
    return [key_mark(kind, KINDS[kind]) for kind in kinds] if len(kinds) > 1 else []


# --- chapter 3: what the vectors read ------------------------------------------------------------


@styled
def scenario_matrix(
    matrix: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    note: str | None = None,
    label: str = "cosine, centred over scenarios",
    own: Sequence[int] | None = None,
) -> Figure:
    """Draw how strongly each scenario activates each probe (Fig 2).

    Up to 200 cells carry their value, the highest of each row in bold; in larger matrices a dot
    marks it.

    Parameters
    ----------
    matrix : array [S, P]
        Readings, scenarios by probes.
    rows : sequence of S str
        Names of the scenarios; neighbours of one name, such as all scenarios of an emotion, form
        a group that is named once.
    columns : sequence of P str
        The probes, at most 36.
    title, label : str
        The question or finding, and the name of the colour bar.
    note : str, optional
        n, layer; set below the title.
    own : sequence of S int, optional
        Column of each scenario's own probe, outlined.

    Returns
    -------
    Figure

    Raises
    ------
    BadInput
        On a shape mismatch, a value that is not finite, too many columns, or an `own` that is no
        column.

    Examples
    --------
    >>> readings, names = np.array([[0.6, -0.1], [0.2, 0.5]]), ["calm", "afraid"]
    >>> figure = scenario_matrix(readings, names, names, title="Is its own probe highest?")
    >>> [text.get_text() for text in figure.axes[0].texts if text.get_weight() == "bold"]
    ['.60', '.50']
    """
    matrix = _named(matrix, rows, columns)
    n, width = matrix.shape
    if width > _MAX_COLUMNS:
        raise BadInput(f"{width} probes cannot be named, {_MAX_COLUMNS} can: draw fewer columns")
    best = matrix.argmax(1)
    printed = matrix.size <= 200 and width <= 16
    bold = {"marker": r"$\mathbf{.62}$", "color": INK, "markersize": 20, "markeredgewidth": 0.2}
    dot = {"marker": "o", "color": INK, "markersize": 4}
    key = [key_mark("highest of its row", bold if printed else dot)]
    if own is not None:
        own = np.asarray(own)
        if own.shape != (n,) or not np.isin(own, np.arange(width)).all():
            raise BadInput(f"own must hold a column, 0 … {width - 1}, for each of {n} scenarios")
        key.append(Patch(facecolor="none", edgecolor=INK, label="the scenario's own probe"))
    edges = [0, *(i for i in range(1, n) if rows[i] != rows[i - 1]), n]
    body = 0.27 * n if printed else max(0.17 * len(edges), min(0.2 * n, 5.0))
    figure = canvas(title, note, height=body + 1.75, key=key)
    ax = figure.subplots()
    drawn = _heat(ax, matrix, aspect="auto")
    inks = _ink_on(drawn.to_rgba(matrix))
    for i, j in itertools.product(range(n), range(width)) if printed else ():
        text = signed(matrix[i, j], ".2f")
        text = text.replace("0.", ".") if abs(matrix[i, j]) < 1 else text
        look = {"weight": "bold" if j == best[i] else "normal", "color": inks[i, j]}
        ax.text(j, i, text, ha="center", va="center_baseline", size=9, **look)
    if not printed:
        ax.scatter(best, range(n), s=6, c=inks[np.arange(n), best], lw=0)
    line = 1.2 if printed else 0.7
    for i, j in enumerate([] if own is None else own):
        ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, ec=INK, lw=line, zorder=3))
    ax.set_xticks(range(width), columns, rotation=90)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    middles = [(start + stop - 1) / 2 for start, stop in itertools.pairwise(edges)]
    ax.set_yticks(middles, [rows[start] for start in edges[:-1]])
    if len(middles) < n:
        ax.hlines(np.array(edges[1:-1]) - 0.5, -0.5, width - 0.5, color="white", lw=1)
    colour_bar(ax, drawn, label, location="bottom", shrink=0.6, aspect=30)
    return figure


@styled
def number_panels(curves: pd.DataFrame, *, title: str, note: str | None = None) -> Figure:
    """Draw how probes move as only a number in the message grows, a panel a template (Fig 3).

    Parameters
    ----------
    curves : DataFrame
        One row a template, probe and number: ``template``, ``title`` (its text, short), ``probe``
        (about 4, at most 6), ``x`` (the number, at least 0), ``value`` (projection minus its mean
        over the template, in units of the residual stream), ``control`` (the same of the control
        template; NaN without one), ``low`` and ``high`` (95 % range of random directions at x).
    title : str
        The question or finding.
    note : str, optional
        Layer, number of random directions; set below the title.

    Returns
    -------
    Figure

    Raises
    ------
    BadInput
        On an empty table, a missing column, a negative number, or too many probes.

    Examples
    --------
    >>> curves = pd.DataFrame({"x": [1, 10, 100], "value": [0.0, 0.2, 0.5], "control": [0, 0, 0.1]})
    >>> curves = curves.assign(template="dose", title="I took {x} pills.", probe="afraid")
    >>> curves = curves.assign(low=-0.1, high=0.1)
    >>> ax = number_panels(curves, title="Does fear rise with the dose?").axes[0]
    >>> ax.get_title(loc="left"), [text.get_text() for text in ax.texts]
    ('I took {x} pills.', ['afraid'])
    """
    need_columns(curves, "template", "title", "probe", "x", "value", "control", "low", "high")
    if (curves["x"] < 0).any():
        raise BadInput(f"x is drawn as log(1 + x): {curves['x'].min()} is negative")
    looks = line_colours(list(curves["probe"].unique()), ())
    parts = [part.sort_values("x") for _, part in curves.groupby("template", sort=False)]
    heads = [part["title"].iloc[0] for part in parts]
    key = [
        Line2D([], [], color=CONTROL, ls="--", lw=1.2, label="control template, same numbers"),
        Patch(color=LINE, label="random directions (95 %)"),
    ]
    figure, grid = _panels(title, note, key, heads, "change of the projection")
    ends = {}
    for ax, part in zip(grid, parts, strict=True):
        at_x = part.drop_duplicates("x")
        ax.fill_between(np.log1p(at_x["x"]), at_x["low"], at_x["high"], color=LINE, lw=0, zorder=0)
        zero_line(ax, "y")
        for probe, rows in part.groupby("probe", sort=False):
            x = np.log1p(rows["x"])
            ax.plot(x, rows["control"], color=CONTROL, ls="--", lw=1.2, zorder=2)
            ax.plot(x, rows["value"], color=looks[probe], marker="o", ms=3.5, zorder=3)
        last = part.dropna(subset=["value"]).groupby("probe", sort=False).tail(1)
        points = zip(np.log1p(last["x"]), last["value"], last["probe"], strict=True)
        ends[ax] = [(*point, looks[point[2]], INK) for point in points]
    name_ends(ends, at=1.06)
    _number_ticks({ax: np.unique(part["x"]) for ax, part in zip(grid, parts, strict=True)})
    return figure


def _number_ticks(panels: Mapping[Axes, np.ndarray]) -> None:
    """Write the numbers of each panel at log(1 + x), from the largest down, where there is room."""
    for ax, numbers in panels.items():
        ax.set_xticks(np.log1p(numbers), [f"{x:,.10g}" for x in numbers])
    ax.figure.draw_without_rendering()  # settles where they are
    for ax, numbers in panels.items():
        kept, edge = [], np.inf
        for x, tick in zip(numbers[::-1], ax.get_xticklabels()[::-1], strict=True):
            box = tick.get_window_extent()
            if box.x1 < edge:
                kept.append(x)
                edge = box.x0 - 5 * ax.figure.dpi / 72
        ax.set_xticks(np.log1p(kept), [f"{x:,.10g}" for x in kept])


@styled
def by_layer_panels(
    table: pd.DataFrame,
    *,
    panel: str,
    value: str,
    hue: str,
    low: str,
    high: str,
    title: str,
    ylabel: str,
    note: str | None = None,
    controls: Sequence[str] = (),
    chance: float | None = None,
    mark_layer: int | None = None,
) -> Figure:
    """Draw one line per `hue` over the layers, in panels with a common y axis (Figs 12-15).

    Parameters
    ----------
    table : DataFrame
        One row per panel, line and layer: ``layer`` (int, 0-based) and the columns named below.
    panel, value, hue, low, high : str
        Columns of the panel, the height, the line's name and its interval, drawn as a band.
    title, ylabel : str
        The question or finding, and the axis with its unit.
    note : str, optional
        n, and what the band is; set below the title.
    controls : sequence of str
        Values of `hue` to draw in grey.
    chance : float, optional
        Height of the dotted line.
    mark_layer : int, optional
        The read-out layer, marked by a vertical line.

    Returns
    -------
    Figure

    Raises
    ------
    BadInput
        On an empty table, a missing column, an unknown control, or too many coloured lines.

    Examples
    --------
    >>> table = pd.DataFrame({"layer": [0, 1, 2], "r": [0.1, 0.5, 0.8], "what": "vector"})
    >>> table = table.assign(low=table.r - 0.1, high=table.r + 0.1)
    >>> table = pd.concat([table.assign(place="user"), table.assign(place="assistant")])
    >>> columns = {"panel": "place", "value": "r", "hue": "what", "low": "low", "high": "high"}
    >>> figure = by_layer_panels(table, title="Where is it read?", ylabel="r", **columns)
    >>> [ax.get_title(loc="left") for ax in figure.axes]
    ['user', 'assistant']
    """
    need_columns(table, "layer", panel, value, hue, low, high)
    looks = line_colours(list(table[hue].unique()), controls)
    parts = list(table.groupby(panel, sort=False))
    key = []
    if chance is not None:
        key.append(Line2D([], [], color=SOFT, ls=":", lw=1.4, label="chance"))
    if mark_layer is not None:
        key.append(Line2D([], [], color=INK, lw=0.9, label=f"read-out layer {mark_layer}"))
    heads = [str(name) for name, _ in parts]
    below = "layer (0 = first decoder block)"
    figure, grid = _panels(title, note, key, heads, ylabel, below)
    ends = {}
    for ax, (_, part) in zip(grid, parts, strict=True):
        ends[ax] = layer_lines(ax, part, looks, value=value, hue=hue, low=low, high=high)
        layer_axes(ax, table["layer"], "", "linear")
        ax.set_xlabel("")
        if chance is not None:
            ax.axhline(chance, color=SOFT, ls=":", lw=1.4, zorder=1)
        if mark_layer is not None:
            ax.axvline(mark_layer, color=INK, lw=0.9, zorder=1)
    name_ends(ends, at=1.06)
    return figure


@styled
def speaker_blocks(
    matrix: np.ndarray,
    groups: Sequence[str],
    *,
    title: str,
    note: str | None = None,
    same: np.ndarray | None = None,
) -> Figure:
    """Draw the cosines between the vectors of several groups, a block a pair (Figs 17-19).

    Parameters
    ----------
    matrix : array [G E, G E]
        Cosines; the E emotions of each of the G groups stand together, in one order.
    groups : sequence of G str
        Whose emotion is read on whose turn (four in the paper).
    title : str
        The question or finding.
    note : str, optional
        n, layer, order of the emotions; set below the title.
    same : array [G, G], optional
        Mean cosine of the same emotion in two groups, written into each block.

    Returns
    -------
    Figure

    Raises
    ------
    BadInput
        On a shape mismatch or a value that is not finite.

    Examples
    --------
    >>> cosines = np.kron([[1, 0.2], [0.2, 1]], np.eye(3))  # three emotions of two speakers
    >>> same = [[1, 0.2], [0.2, 1]]
    >>> figure = speaker_blocks(cosines, ["user", "assistant"], same=same, title="One vector each?")
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['1.00', '0.20', '0.20', '1.00']
    """
    matrix = square(matrix, range(len(matrix)))
    n = len(groups)
    if n == 0 or len(matrix) % n:
        raise BadInput(f"{len(matrix)} vectors cannot be split among {n} groups of one size")
    size = len(matrix) // n
    figure = canvas(title, note, height=5.6, width=6.6, layout="compressed")
    ax = figure.subplots()
    drawn = _heat(ax, matrix, colour_limit(matrix, None), interpolation="nearest")
    for edge in np.arange(1, n) * size - 0.5:
        ax.axhline(edge, color=INK, lw=0.9)
        ax.axvline(edge, color=INK, lw=0.9)
    middles = (np.arange(n) + 0.5) * size - 0.5
    names = [textwrap.fill(name, 16) for name in groups]
    ax.set_xticks(middles, names)
    ax.xaxis.tick_top()
    ax.set_yticks(middles, names, rotation=90, va="center", ma="center")
    ax.tick_params(length=0)
    if same is not None:
        same = _named(same, groups, groups)
        card = {"facecolor": "white", "edgecolor": "none", "boxstyle": "round,pad=0.2"}
        for i, j in itertools.product(range(n), repeat=2):
            # In the lower left corner, off the diagonal of its block.
            text = signed(same[i, j], ".2f")
            ax.annotate(
                text,
                (j * size - 0.5, (i + 1) * size - 0.5),
                (5, 5),
                bbox=card,
                textcoords="offset points",
                size=9,
            )
    colour_bar(ax, drawn, "cosine", shrink=0.8, aspect=26)
    return figure


# --- chapter 4: what steering does ---------------------------------------------------------------


@styled
def dose_response(
    table: pd.DataFrame,
    *,
    value: str,
    damage: str,
    title: str,
    ylabel: str,
    damage_label: str,
    note: str | None = None,
    coherent: tuple[float, float] | None = None,
) -> Figure:
    """Draw an effect against steering strength, above the damage that the steering does.

    Parameters
    ----------
    table : DataFrame
        One row a direction and strength: ``strength`` (fraction of the mean residual norm),
        ``direction`` (name), ``kind`` ("emotion", "random", "shuffled" or "unrelated") and the
        columns named below; where known also ``low`` and ``high`` (interval of the value). At
        most 6 emotions; random directions are drawn as their 95 % range and median.
    value, damage : str
        Columns of the effect and of the damage, such as the loss on neutral text.
    title, ylabel, damage_label : str
        The question or finding, and the two axes.
    note : str, optional
        n, number of random directions; set below the title.
    coherent : (float, float), optional
        Range of strengths at which the model still writes coherent text, shaded.

    Returns
    -------
    Figure

    Raises
    ------
    BadInput
        On an empty table, a missing column, an unknown kind, too many emotions, or a coherent
        range that is none.

    Examples
    --------
    >>> table = pd.DataFrame({"strength": [-0.1, 0, 0.1], "effect": [-0.5, 0, 0.5], "loss": 3})
    >>> table = table.assign(direction="calm", kind="emotion")
    >>> labels = {"title": "Does calm move it?", "ylabel": "shift", "damage_label": "loss"}
    >>> figure = dose_response(table, value="effect", damage="loss", **labels)
    >>> [ax.get_ylabel() for ax in figure.axes], figure.axes[0].texts[0].get_text()
    (['shift', 'loss'], 'calm')
    """
    need_columns(table, "strength", "direction", "kind", value, damage)
    known_kinds(table["kind"], KINDS)
    if coherent is not None and not coherent[0] < coherent[1]:
        raise BadInput(f"coherent must be (low, high) strengths, got {coherent}")
    random = table[table["kind"] == "random"]
    named = table[table["kind"] != "random"].sort_values("strength")
    kinds = named.drop_duplicates("direction").set_index("direction")["kind"]
    looks = line_colours(list(kinds.index), list(kinds.index[kinds != "emotion"]))
    figure = canvas(title, note, height=4.9)
    axes = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    for ax, column, label in zip(axes, (value, damage), (ylabel, damage_label), strict=True):
        if len(random):
            at = random.groupby("strength")[column].quantile([0.025, 0.5, 0.975]).unstack()
            ax.fill_between(at.index, at[0.025], at[0.975], color=LINE, lw=0, zorder=0)
            ax.plot(at.index, at[0.5], color=CONTROL, lw=1)
        for name, rows in named.groupby("direction", sort=False):
            emotion = kinds[name] == "emotion"
            look = {"color": looks[name], "zorder": 3 if emotion else 2}
            ax.plot(rows["strength"], rows[column], ls=DASHES.get(kinds[name], "-"), **look)
            if emotion and column == value and {"low", "high"} <= set(table):
                band = rows["low"], rows["high"]
                ax.fill_between(rows["strength"], *band, alpha=0.16, lw=0, **look)
        if coherent is not None:
            ax.axvspan(*coherent, color=WINDOW, lw=0, zorder=-1)
        zero_line(ax, "x")
        ax.set_ylabel(label)
        ax.yaxis.set_major_locator(MaxNLocator(6 if ax is axes[0] else 3))
    furthest = table["strength"].abs().max()
    axes[1].set_xlabel("steering strength (fraction of the mean residual norm)")
    axes[1].set_xlim(-1.03 * furthest, 1.03 * furthest)
    axes[1].xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes[1].xaxis.set_major_formatter(lambda strength, _: signed(strength, ".10g"))
    if coherent is not None:
        place = {"transform": axes[0].get_xaxis_transform(), "ha": "center", "va": "bottom"}
        axes[0].text(np.mean(coherent), 1.01, "text stays coherent", color=SOFT, size=9, **place)
    last = named.dropna(subset=[value]).groupby("direction", sort=False).tail(1)
    ends = [
        (x, y, name, looks[name], INK if kinds[name] == "emotion" else SOFT)
        for x, y, name in zip(last["strength"], last[value], last["direction"], strict=True)
    ]
    if len(random):
        x = random["strength"].max()
        middle = random.loc[random["strength"] == x, value].median()
        ends.append((x, middle, "random (95 %)", CONTROL, SOFT))
    name_ends({axes[0]: ends})
    return figure


@styled
def effect_scatter(
    table: pd.DataFrame,
    *,
    x: str,
    y: str,
    name: str,
    kind: str,
    title: str,
    xlabel: str,
    ylabel: str,
    note: str | None = None,
    fit: bool = True,
) -> Figure:
    """Draw two numbers of each emotion against each other, such as what is read and what it does.

    Parameters
    ----------
    table : DataFrame
        One row a direction. Up to about 40 emotions are named, as far as there is room.
    x, y, name, kind : str
        Columns of the position, the name and the kind ("emotion", "random", "shuffled" or
        "unrelated"). A control without x (NaN) stands at the left edge, at its y.
    title, xlabel, ylabel : str
        The question or finding, and the two axes.
    note : str, optional
        n, r and its interval; set below the title.
    fit : bool
        Draw the least-squares line through the emotions.

    Returns
    -------
    Figure

    Raises
    ------
    BadInput
        On an empty table, a missing column, an unknown kind, fewer than two emotions, or an
        emotion without x or y.

    Examples
    --------
    >>> table = pd.DataFrame({"name": ["sad", "calm", "happy"], "read": [-1, 0, 1]})
    >>> table = table.assign(done=2 * table["read"], kind="emotion")
    >>> labels = {"title": "Does reading tell?", "xlabel": "read", "ylabel": "done"}
    >>> columns = {"x": "read", "y": "done", "name": "name", "kind": "kind"}
    >>> ax = effect_scatter(table, **columns, **labels).axes[0]
    >>> sorted(text.get_text() for text in ax.texts)
    ['calm', 'happy', 'sad']
    """
    need_columns(table, x, y, name, kind)
    kinds = known_kinds(table[kind], KINDS)
    emotions = table[table[kind] == "emotion"]
    points = finite(emotions[[x, y]].to_numpy(dtype=float), "x and y of the emotions")
    if len(points) < 2:
        raise BadInput("fewer than two rows are of kind 'emotion': there is nothing to compare")
    controls = table[table[kind] != "emotion"]
    low, high = table[x].min(), table[x].max()
    margin = 0.06 * (high - low)
    strips = list(controls.loc[controls[x].isna(), kind].unique())
    places = {of: low - margin * (1.6 + 0.7 * k) for k, of in enumerate(strips)}
    controls = controls.assign(**{x: controls[x].fillna(controls[kind].map(places))})
    figure = canvas(title, note, height=5.2, key=_kind_key(kinds))
    ax = figure.subplots()
    ax.plot(*points.T, ls="none", zorder=3, **PROBE | {"markersize": 6})
    for of, rows in controls.groupby(kind):
        ax.plot(rows[x], rows[y], ls="none", zorder=2, **KINDS[of])
    if fit:
        ends = np.array([points[:, 0].min(), points[:, 0].max()])
        ax.plot(ends, np.polyval(np.polyfit(*points.T, 1), ends), color=BLUE, lw=1.2, zorder=1)
    crossed = [axis for axis in (x, y) if table[axis].min() < 0 < table[axis].max()]
    zero_line(ax, *("x" if axis == x else "y" for axis in crossed))
    ax.set(xlabel=xlabel, ylabel=ylabel, xlim=(low - margin, high + margin))
    ax.margins(y=0.07)
    if places:
        ticks = ax.get_xticks()
        ticks = ticks[(ticks >= low) & (ticks <= high + margin)]
        middle = np.mean(list(places.values()))
        ax.set_xticks([*ticks, middle], [*(signed(t, ".10g") for t in ticks), "none"])
        ax.axvline(low - margin, color=LINE, lw=1)
        ax.set_xlim(left=min(places.values()) - 0.6 * margin)
    marks = np.vstack([points, controls[[x, y]].to_numpy(dtype=float)])
    names = list(emotions[name])
    write_names(ax, marks, names, label_order(points, names, None), rings=3)
    for text in ax.texts:  # a line behind a name is interrupted
        text.set_path_effects([withStroke(linewidth=2, foreground="white")])
    return figure


@styled
def correlation_ranks(
    table: pd.DataFrame,
    *,
    value: str,
    name: str,
    low_null: str,
    high_null: str,
    title: str,
    ylabel: str,
    note: str | None = None,
    label: int = 8,
) -> Figure:
    """Draw the correlation of every emotion, sorted, before the range of its null.

    Parameters
    ----------
    table : DataFrame
        One row an emotion: the columns named below and ``passes`` (bool, whether it stands out
        from the null; in colour).
    value, name, low_null, high_null : str
        Columns of the correlation, the emotion, and the range of the permutation null.
    title, ylabel : str
        The question or finding, and the axis.
    note : str, optional
        n behind each r, what the null permutes, how many tests are corrected for; set below the
        title.
    label : int
        How many of the highest and of the lowest are named.

    Returns
    -------
    Figure

    Raises
    ------
    BadInput
        On an empty table, a missing column, or a value that is not finite.

    Examples
    --------
    >>> table = pd.DataFrame({"name": ["calm", "sad", "happy"], "r": [0.1, -0.6, 0.7]})
    >>> table = table.assign(low=-0.3, high=0.3, passes=[False, True, True])
    >>> columns = {"value": "r", "name": "name", "low_null": "low", "high_null": "high"}
    >>> figure = correlation_ranks(table, title="Who predicts it?", ylabel="r", label=1, **columns)
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['sad −0.60', 'happy 0.70']
    """
    need_columns(table, value, name, low_null, high_null, "passes")
    table = table.sort_values(value, kind="stable")
    values = finite(table[value].to_numpy(dtype=float), value)
    passes = table["passes"].to_numpy(dtype=bool)
    n, k = len(values), min(label, len(values) // 2)
    rank = np.arange(n)
    looks = {
        "passes": {"marker": "o", "color": BLUE, "markersize": 4.5},
        "does not": {"marker": "o", "color": CONTROL, "markersize": 4.5},
    }
    key = [key_mark(text, look) for text, look in looks.items()]
    key.append(Patch(color=LINE, label="permutation null"))
    figure = canvas(title, note, height=3.6, key=key)
    ax = figure.subplots()
    nulls = table[low_null], table[high_null]
    ax.fill_between(rank, *nulls, color=LINE, lw=0, zorder=0)
    zero_line(ax, "y")
    for chosen, look in zip((passes, ~passes), looks.values(), strict=True):
        ax.plot(rank[chosen], values[chosen], ls="none", zorder=3, **look)
    ax.set(ylabel=ylabel, xlabel=f"emotions from lowest to highest (n = {n})", xticks=[])
    pairs = zip(table[name], values, strict=True)
    texts = [f"{emotion} {signed(r, '.2f')}" for emotion, r in pairs]
    room = (6 * max(map(len, texts[: max(k, 1)])) + 16) / 400  # of the axes, for the lowest
    ax.set_xlim(-room / (1 - room) * n, 1.01 * n)
    ax.margins(y=0.08)
    figure.draw_without_rendering()
    points = in_axes(ax, np.column_stack([rank, values]))
    ends = (slice(0, k), room - 0.02, True), (slice(n - k, n), 1.04, False)
    for part, at, left in ends[: 2 * bool(k)]:
        look = {"colours": [SOFT] * k, "left": left}
        label_column(ax, points[part], texts[part], at=at, **look)
    return figure


@styled
def change_bars(
    table: pd.DataFrame,
    *,
    label: str,
    value: str,
    low: str,
    high: str,
    kind: str,
    title: str,
    xlabel: str,
    note: str | None = None,
) -> Figure:
    """Draw signed effects as dots with intervals around a zero line, the values beside them.

    Parameters
    ----------
    table : DataFrame
        One row an effect, drawn in their order.
    label, value, low, high : str
        Columns of the name, the effect and its interval.
    kind : str
        Column that says "emotion", "random", "shuffled" or "unrelated".
    title, xlabel : str
        The question or finding, and the axis with its unit.
    note : str, optional
        n, and what the interval is; set below the title.

    Returns
    -------
    Figure

    Raises
    ------
    BadInput
        On an empty table, a missing column, an unknown kind, or an effect that is not finite.

    Examples
    --------
    >>> table = pd.DataFrame({"name": ["calm", "random"], "kind": ["emotion", "random"]})
    >>> table = table.assign(shift=[-0.62, 0.05], low=[-0.8, -0.1], high=[-0.4, 0.2])
    >>> columns = {"label": "name", "value": "shift", "low": "low", "high": "high", "kind": "kind"}
    >>> figure = change_bars(table, title="Does calm lower it?", xlabel="shift", **columns)
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['−0.62', '+0.05']
    """
    need_columns(table, label, value, low, high, kind)
    kinds = known_kinds(table[kind], KINDS)
    values = finite(table[value].to_numpy(dtype=float), value)
    # Two digits of the largest effect, and as many decimals of the others.
    digits = int(np.clip(1 - np.floor(np.log10(np.abs(values).max() or 1)), 0, 4))
    figure = canvas(title, note, height=0.27 * len(table) + 0.75, key=_kind_key(kinds))
    ax = figure.subplots()
    columns = [label, value, low, high, kind]
    for row, (_, effect, start, stop, of) in enumerate(table[columns].itertuples(index=False)):
        interval(ax, row, start, stop, KINDS[of]["color"])
        ax.plot(effect, row, zorder=4, **KINDS[of])
        beside(ax, row, signed(effect, f"+.{digits}f"), right=36)
    name_rows(ax, list(table[label]))
    zero_line(ax, "x")
    ax.set_xlabel(xlabel)
    ax.grid(axis="y")
    return figure


# --- chapter 8: what training does ---------------------------------------------------------------


@styled
def training_curves(
    table: pd.DataFrame,
    *,
    value: str,
    hue: str,
    title: str,
    ylabel: str,
    note: str | None = None,
    controls: Sequence[str] = (),
) -> Figure:
    """Draw one line per `hue` over the updates of training, named at its end.

    Parameters
    ----------
    table : DataFrame
        One row an update and line: ``step`` and the columns named below.
    value, hue : str
        Columns of the height and of the line's name.
    title, ylabel : str
        The question or finding, and the axis with its unit.
    note : str, optional
        n, and what an update is; set below the title.
    controls : sequence of str
        Values of `hue` to draw in grey.

    Returns
    -------
    Figure

    Raises
    ------
    BadInput
        On an empty table, a missing column, an unknown control, or too many coloured lines.

    Examples
    --------
    >>> table = pd.DataFrame({"step": [0, 50, 100], "loss": [3.0, 2.0, 1.5], "run": "tuned"})
    >>> labels = {"title": "Does it learn?", "ylabel": "loss"}
    >>> ax = training_curves(table, value="loss", hue="run", **labels).axes[0]
    >>> ax.get_xlabel(), ax.texts[0].get_text()
    ('updates', 'tuned')
    """
    need_columns(table, "step", value, hue)
    looks = line_colours(list(table[hue].unique()), controls)
    figure = canvas(title, note, height=3.2)
    ax = figure.subplots()
    steps = table.rename(columns={"step": "layer"})
    ends = layer_lines(ax, steps, looks, value=value, hue=hue)
    layer_axes(ax, steps["layer"], ylabel, "linear")
    ax.set_xlabel("updates")
    name_ends({ax: ends})
    return figure


# --- the ledger: what holds on which model -------------------------------------------------------

# Symbol and fill of each verdict, from what holds to what holds the other way round; the symbol
# alone tells them apart, and the lightness nearly does.
_FILLS = (DIVERGING[0], DIVERGING[2], DIVERGING[4], DIVERGING[6], LINE, "white")
VERDICT_MARKS = {
    verdict: (symbol, fill) for (verdict, symbol), fill in zip(SYMBOLS.items(), _FILLS, strict=True)
}


@styled
def scorecard_figure(table: pd.DataFrame, *, title: str, note: str | None = None) -> Figure:
    """Draw claims by models: a mark for each verdict, claims under the titles of their chapters.

    Parameters
    ----------
    table : DataFrame
        One row a claim and model (`claims.scorecard`): ``title`` (of the chapter), ``claim``,
        ``model``, ``verdict``, one of `VERDICT_MARKS`, and ``varies``: a dot in the corner says
        that another seed gave another verdict. At most 8 models.
    title : str
        The question or finding.
    note : str, optional
        What the columns are; set below the title.

    Returns
    -------
    Figure

    Raises
    ------
    BadInput
        On an empty table, a missing column, an unknown verdict, a claim without exactly one
        verdict a model, or too many models.

    Examples
    --------
    >>> table = pd.DataFrame({"claim": ["Like is near like", "Three clusters"], "model": "tiny"})
    >>> table = table.assign(title="Geometry", verdict=["supported", "not supported"], varies=False)
    >>> ax = scorecard_figure(table, title="What holds?").axes[0]
    >>> [row.get_text() for row in ax.get_yticklabels()], [mark.get_text() for mark in ax.texts]
    (['Geometry', 'Like is near like', 'Three clusters'], ['✓', '✗'])
    """
    need_columns(table, "title", "claim", "model", "verdict", "varies")
    present = known_kinds(table["verdict"], VERDICT_MARKS)
    models = list(table["model"].unique())
    if len(models) > 8:
        raise BadInput(f"{len(models)} models do not fit, 8 do: draw fewer")
    claims = table.drop_duplicates(["title", "claim"])
    if table.duplicated(["claim", "model"]).any() or len(table) != len(claims) * len(models):
        raise BadInput("give each claim exactly one verdict a model, and one chapter")
    cells = table.set_index(["claim", "model"])
    rows: list[str] = []
    heads = []  # rows that are titles of chapters
    for head, part in claims.groupby("title", sort=False):
        heads.append(len(rows))
        rows += [head, *part["claim"]]
    figure = canvas(title, note, height=0.18 * len(rows) + 1.2)
    ax = figure.subplots()
    for (y, claim), (x, model) in itertools.product(enumerate(rows), enumerate(models)):
        if y in heads:
            continue
        cell = cells.loc[(claim, model)]
        symbol, fill = VERDICT_MARKS[cell.verdict]
        ax.add_patch(Rectangle((x - 0.46, y - 0.42), 0.92, 0.84, fc=fill, ec=LINE, lw=0.6))
        ink = str(_ink_on(np.array(to_rgb(fill))))
        ax.text(x, y, symbol, color=ink, ha="center", va="center_baseline", size=10)
        if cell.varies:
            ax.plot(x + 0.4, y - 0.22, ".", color=ink, markersize=5)
    name_rows(ax, rows)
    for row in heads:
        ax.get_yticklabels()[row].set_weight("bold")
    upright = len(models) <= 3
    names = [textwrap.fill(name, 42 // len(models)) if upright else name for name in models]
    ax.set_xlim(-0.55, len(models) - 0.45)
    ax.xaxis.tick_top()
    ax.set_xticks(range(len(models)), names, rotation=0 if upright else 90)
    ax.tick_params(axis="x", length=0)
    ax.tick_params(axis="y", labelsize=8.5, pad=2)
    ax.spines[:].set_visible(False)
    square_mark = {"marker": "s", "markersize": 9, "markeredgecolor": SOFT, "markeredgewidth": 0.6}
    key = [
        key_mark(f"{symbol}  {verdict}", square_mark | {"color": fill})
        for verdict, (symbol, fill) in VERDICT_MARKS.items()
        if verdict in present
    ]
    if table["varies"].any():
        dot = {"marker": ".", "markersize": 7, "color": INK}
        key.append(key_mark("another seed, another verdict", dot))
    figure.legend(handles=key, loc="outside lower left", ncols=3, handletextpad=0.3)
    return figure

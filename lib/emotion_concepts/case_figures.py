"""Figures of the case studies: blackmail, reward hacking and sycophancy.

They have the look and the kinds of directions of ``figures`` and are shown by ``plots.show``.
Panels of one figure share their axes, so that they can be compared at a glance.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from emotion_concepts.errors import BadInput
from emotion_concepts.figures import DASHES, KINDS, WINDOW, zero_line
from emotion_concepts.look import signed
from emotion_concepts.plots import (
    BLUE,
    CONTROL,
    INK,
    LINE,
    PROBE,
    SERIES,
    SOFT,
    WIDTH,
    beside,
    canvas,
    finite,
    interval,
    key_mark,
    known_kinds,
    label_order,
    name_ends,
    name_rows,
    need_columns,
    styled,
    write_names,
)

_RANDOM = Patch(color=LINE, label="random (95 %)")
_EMOTION = {"color": BLUE, "marker": "o", "markersize": 3.5, "lw": 1.6}
_STRENGTH = "steering strength (fraction of the mean residual norm; not to scale)"


# --- parts that figures share --------------------------------------------------------------------


def _grid(
    title: str,
    note: str | None,
    key: Sequence,
    heads: Sequence[str],
    *,
    most: int,
    columns: int,
    height: float,
    xlabel: str,
    ylabel: str = "",
) -> tuple[Figure, list[Axes]]:
    """Return a figure and at most `most` panels, `height` inches each, that share both axes."""
    if len(heads) > most:
        raise BadInput(f"{len(heads)} panels do not fit, {most} do: draw fewer")
    lines = -(-len(heads) // columns)
    columns = -(-len(heads) // lines)  # rows of panels as even as can be
    room = int(WIDTH * 9 / columns)  # letters
    wrapped = [textwrap.wrap(str(head), room) for head in heads]
    total = lines * (height + 0.17 * max(map(len, wrapped))) + 0.45
    figure = canvas(title, note, height=total, key=key)
    figure.supxlabel(xlabel, size=9.5)
    figure.supylabel(ylabel, size=9.5, y=total / figure.get_figheight() / 2)
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for i, (ax, head) in enumerate(zip(grid, wrapped, strict=False)):
        ax.set_title("\n".join(head), size=9.5, linespacing=1.2)
        ax.tick_params(labelbottom=i + columns >= len(heads))  # lowest of its column
    for ax in grid[len(heads) :]:
        ax.remove()
    return figure, list(grid[: len(heads)])


# --- effects of steering -------------------------------------------------------------------------


@styled
def dose_panels(
    table: pd.DataFrame,
    *,
    value: str,
    title: str,
    ylabel: str,
    note: str | None = None,
    coherent: tuple[float, float] | None = None,
) -> Figure:
    """Draw an effect against steering strength, a panel an emotion, before the controls.

    Strengths stand at equal distances. Random directions are drawn as their 95 % range at each
    magnitude of strength, the same on both sides: their mirror images are as random.

    Parameters
    ----------
    table : DataFrame
        One row a direction and strength: ``kind`` ("emotion", "random", "shuffled" or
        "unrelated"), ``direction`` (name), ``strength`` (fraction of the mean residual norm) and
        the column named below; where known also ``low`` and ``high`` (interval of the value). At
        most 12 emotions. Rows at strength 0 show what is not steered.
    value : str
        Column of the effect.
    title, ylabel : str
        The question or finding, and the axis with its unit.
    note : str, optional
        n, what the interval is, number of random directions; set below the title.
    coherent : (float, float), optional
        Range of strengths at which the model still writes coherent text, shaded.

    Returns
    -------
    Figure

    Raises
    ------
    BadInput
        On an empty table, a missing column, an unknown kind, no emotion or too many, or a
        coherent range that is none.

    Examples
    --------
    >>> table = pd.DataFrame({"direction": ["calm", "calm", "angry", "angry"]})
    >>> table = table.assign(strength=[-0.1, 0.1] * 2, shift=[0.3, -0.3, -0.2, 0.2])
    >>> labels = {"title": "Which move the choice?", "ylabel": "shift"}
    >>> figure = dose_panels(table.assign(kind="emotion"), value="shift", **labels)
    >>> [ax.get_title(loc="left") for ax in figure.axes]
    ['calm', 'angry']
    """
    need_columns(table, "kind", "direction", "strength", value)
    kinds = known_kinds(table["kind"], KINDS)
    if coherent is not None and not coherent[0] < coherent[1]:
        raise BadInput(f"coherent must be (low, high) strengths, got {coherent}")
    table = table.dropna(subset=[value])
    strengths = np.unique([*table["strength"], 0.0])
    x = np.arange(len(strengths)) - np.searchsorted(strengths, 0)  # 0 at 0
    table = table.assign(x=np.interp(table["strength"], strengths, x))
    looks = {kind: {"color": CONTROL, "lw": 1.1, "ls": ls} for kind, ls in DASHES.items()}
    controls = table[table["kind"].isin(looks)]
    emotions = table[table["kind"] == "emotion"]
    if emotions.empty:
        raise BadInput("no row of kind 'emotion' has a value: there is no panel to draw")
    parts = dict(list(emotions.groupby("direction", sort=False)))
    band = _random_band(table, value).reindex(np.abs(strengths)).set_axis(x).dropna()
    key = [
        Line2D([], [], label="emotion", **_EMOTION),
        *([_RANDOM] * ("random" in kinds)),
        *(Line2D([], [], label=kind, **looks[kind]) for kind in kinds if kind in looks),
        *([Patch(color=WINDOW, label="text stays coherent")] * (coherent is not None)),
    ]
    figure, grid = _grid(
        title,
        note,
        key,
        list(parts),
        most=12,
        columns=4,
        height=1.35,
        xlabel=_STRENGTH,
        ylabel=ylabel,
    )
    for ax, rows in zip(grid, parts.values(), strict=True):
        if coherent is not None:
            ax.axvspan(*np.interp(coherent, strengths, x), color=WINDOW, lw=0, zorder=-1)
        ax.fill_between(band.index, band["low"], band["high"], color=LINE, lw=0, zorder=0)
        for (kind, _), control in controls.groupby(["kind", "direction"]):
            control = control.sort_values("x")
            ax.plot(control["x"], control[value], zorder=2, **looks[kind])
        rows = rows.sort_values("x")
        if {"low", "high"} <= set(table):
            ax.fill_between(rows["x"], rows["low"], rows["high"], color=BLUE, alpha=0.2, lw=0)
        ax.plot(rows["x"], rows[value], zorder=3, **_EMOTION)
        zero_line(ax, "x", "y")
    turn = 90 if len(grid) > 2 else 0  # in narrow panels they would run into each other
    grid[0].set_xticks(x, [signed(s, ".10g") for s in strengths])
    for ax in grid:
        ax.tick_params(axis="x", labelrotation=turn)
    grid[0].yaxis.set_major_locator(MaxNLocator(4))
    grid[0].yaxis.set_major_formatter(lambda effect, _: signed(effect, ".10g"))
    return figure


def _random_band(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return low and high, the 95 % range of random directions, by magnitude of strength.

    What is not steered is the same for every direction: at strength 0 the range has no width.
    """
    random = table[(table["kind"] == "random") | (table["strength"] == 0)]
    by_size = random.groupby(random["strength"].abs())[value]
    return pd.DataFrame({"low": by_size.quantile(0.025), "high": by_size.quantile(0.975)})


_PASSES, _PALE = BLUE, "#93bfdd"
_SIDES = {-1: -0.17, 1: 0.17}  # where they stand in their row


@styled
def shift_forest(
    table: pd.DataFrame, *, title: str, xlabel: str, note: str | None = None
) -> Figure:
    """Draw the shift of each emotion at both signs of one strength, a panel a model.

    Parameters
    ----------
    table : DataFrame
        One row a model, direction and sign: ``model`` (at most 3), ``kind`` ("emotion", "random",
        "shuffled" or "unrelated"), ``direction`` (name), ``sign`` (-1 or 1), ``shift`` with
        ``low`` and ``high``, ``passes`` (bool, whether it stands out from the random directions;
        not read for controls). Emotions keep their order. Random directions are drawn as the 95 %
        range of both signs together, shuffled and unrelated ones as marks in a row of their own.
    title, xlabel : str
        The question or finding, and the axis with its unit.
    note : str, optional
        Strength, n, what the interval and the test are; set below the title.

    Returns
    -------
    Figure

    Raises
    ------
    BadInput
        On an empty table, a missing column, an unknown kind, a sign that is none, no emotion, or
        too many models.

    Examples
    --------
    >>> table = pd.DataFrame({"direction": "calm", "sign": [-1, 1], "shift": [0.4, -0.5]})
    >>> table = table.assign(model="SmolLM2-135M", kind="emotion", passes=[False, True])
    >>> table = table.assign(low=table["shift"] - 0.1, high=table["shift"] + 0.1)
    >>> ax = shift_forest(table, title="Does calm restrain it?", xlabel="shift").axes[0]
    >>> ax.get_title(loc="left"), [row.get_text() for row in ax.get_yticklabels()]
    ('SmolLM2-135M', ['calm'])
    """
    need_columns(table, "model", "kind", "direction", "sign", "shift", "low", "high", "passes")
    kinds = known_kinds(table["kind"], KINDS)
    emotions, random = (table[table["kind"] == kind] for kind in ("emotion", "random"))
    if not emotions["sign"].isin(_SIDES).all():
        raise BadInput("sign must be -1 or 1")
    names = list(emotions["direction"].unique())
    if not names:
        raise BadInput("no row is of kind 'emotion': there is no row to draw")
    others = {kind: KINDS[kind] | {"markersize": 5} for kind in kinds if kind in DASHES}
    key = [
        *(key_mark(f"{signed(sign, '+d')[0]}s", _side(sign, _PASSES)) for sign in _SIDES),
        Patch(color=_PASSES, label="passes"),
        Patch(color=_PALE, label="does not"),
        *([_RANDOM] * ("random" in kinds)),
        *(key_mark(kind, look) for kind, look in others.items()),
    ]
    models = list(table["model"].unique())
    rows = [*names, *(["controls"] if others else [])]
    figure, grid = _grid(
        title, note, key, models, most=3, columns=3, height=0.27 * len(rows) + 0.25, xlabel=xlabel
    )
    for ax, model in zip(grid, models, strict=True):
        if model in set(random["model"]):
            shifts = random.loc[random["model"] == model, "shift"]
            ax.axvspan(*shifts.quantile([0.025, 0.975]), color=LINE, lw=0, zorder=0)
        for row in emotions[emotions["model"] == model].to_dict("records"):
            colour = {True: _PASSES}.get(row["passes"], _PALE)  # also where it was not tested
            y = names.index(row["direction"]) + _SIDES[row["sign"]]
            interval(ax, y, row["low"], row["high"], colour)
            ax.plot(row["shift"], y, zorder=4, **_side(row["sign"], colour))
        for kind, look in others.items():
            shifts = table.loc[(table["model"] == model) & (table["kind"] == kind), "shift"]
            ax.plot(shifts, np.full(len(shifts), len(names)), ls="none", zorder=3, **look)
        name_rows(ax, rows)
        zero_line(ax, "x")
        ax.grid(axis="y")
    grid[0].xaxis.set_major_locator(MaxNLocator(4 + 4 // len(models)))
    grid[0].xaxis.set_major_formatter(lambda shift, _: signed(shift, ".10g"))
    return figure


def _side(sign: int, colour: str) -> dict:
    """The mark of a shift: hollow against the direction, filled along it."""
    face = "white" if sign < 0 else colour
    return PROBE | {"color": colour, "markerfacecolor": face, "markersize": 5.5}


# --- behaviour -----------------------------------------------------------------------------------

_RATES = {"none": {"marker": "o", "color": INK, "markersize": 7}, **KINDS}


@styled
def rate_bars(table: pd.DataFrame, *, title: str, xlabel: str, note: str | None = None) -> Figure:
    """Draw how often a behaviour occurs under each condition, a panel a model.

    Parameters
    ----------
    table : DataFrame
        One row a model and condition: ``model`` (at most 3), ``condition`` (label of the row),
        ``kind`` ("none" for no steering, once a model; "emotion", "random", "shuffled" or
        "unrelated"), ``rate`` (0 to 1) with ``low`` and ``high``, ``n`` (texts). Conditions keep
        their order.
    title, xlabel : str
        The question or finding, and the axis.
    note : str, optional
        Strength, and what the interval is; set below the title.

    Returns
    -------
    Figure

    Raises
    ------
    BadInput
        On an empty table, a missing column, an unknown kind, a rate outside 0 to 1, a model
        without exactly one row of kind "none", or too many models.

    Examples
    --------
    >>> table = pd.DataFrame({"condition": ["as it is", "desperate"], "kind": ["none", "emotion"]})
    >>> table = table.assign(model="tiny", rate=[0.2, 0.7], low=[0.1, 0.6], high=[0.3, 0.8], n=50)
    >>> ax = rate_bars(table, title="Does it cheat more?", xlabel="attempts that cheat").axes[0]
    >>> [row.get_text() for row in ax.get_yticklabels()], [text.get_text() for text in ax.texts]
    (['as it is', 'desperate'], ['n', '50', '50'])
    """
    need_columns(table, "model", "condition", "kind", "rate", "low", "high", "n")
    kinds = known_kinds(table["kind"], _RATES)
    if not table["rate"].between(0, 1).all():
        raise BadInput("rate must be a share from 0 to 1 in every row")
    models, conditions = list(table["model"].unique()), list(table["condition"].unique())
    key = [
        Line2D([], [], ls=":", label="not steered", **_RATES["none"]),
        *(key_mark(kind, _RATES[kind]) for kind in kinds if kind != "none"),
    ]
    figure, grid = _grid(
        title,
        note,
        key,
        models,
        most=3,
        columns=3,
        height=0.27 * len(conditions) + 0.2,
        xlabel=xlabel,
    )
    for ax, model in zip(grid, models, strict=True):
        part = table[table["model"] == model]
        plain = part.loc[part["kind"] == "none", "rate"]
        if len(plain) != 1:
            raise BadInput(f"{model!r} has {len(plain)} rows of kind 'none', it needs one")
        ax.axvline(plain.item(), color=INK, ls=":", lw=1.2, zorder=1)
        beside(ax, -0.9, "n", right=36, color=SOFT, size=9)
        for row in part.to_dict("records"):
            y, look = conditions.index(row["condition"]), _RATES[row["kind"]]
            interval(ax, y, row["low"], row["high"], look["color"])
            ax.plot(row["rate"], y, zorder=4, **look)
            beside(ax, y, f"{row['n']:,.0f}", right=36, color=SOFT, size=9)
        name_rows(ax, conditions)
        ax.grid(axis="y")
    top = table[["rate", "high"]].max(axis=None) or 1.0
    grid[0].set_xlim(-0.04 * top, 1.04 * top)
    grid[0].xaxis.set_major_locator(MaxNLocator(4))
    grid[0].xaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g} %")
    return figure


_CURVES = [
    {"color": colour, "ls": ls} for ls, colour in itertools.product(("-", (0, (3, 1.2))), SERIES)
]


@styled
def plane_curves(
    table: pd.DataFrame,
    *,
    x: str,
    y: str,
    title: str,
    xlabel: str,
    ylabel: str,
    note: str | None = None,
) -> Figure:
    """Draw the path of each emotion through two effects as its strength grows (Fig 35).

    A path runs from the most negative strength through the point without steering to the most
    positive one, where a large dot and the name stand.

    Parameters
    ----------
    table : DataFrame
        One row a direction and strength: ``direction`` (name), ``kind`` ("emotion", "random",
        "shuffled" or "unrelated"), ``strength`` and the columns named below. At most 12 emotions.
        Rows at strength 0, of whatever kind, are the point without steering (their mean).
    x, y : str
        Columns of the two effects.
    title, xlabel, ylabel : str
        The question or finding, and the two axes.
    note : str, optional
        Strengths, n; set below the title.

    Returns
    -------
    Figure

    Raises
    ------
    BadInput
        On an empty table, a missing column, an unknown kind, an effect that is not finite, no row
        at strength 0, no emotion, or too many.

    Examples
    --------
    >>> table = pd.DataFrame({"strength": [-0.1, 0, 0.1], "flatter": [1, 0, -1]})
    >>> table = table.assign(doubt=-table.flatter, direction="calm", kind="emotion")
    >>> labels = {"title": "Is one traded for the other?", "xlabel": "flatter", "ylabel": "doubt"}
    >>> ax = plane_curves(table, x="flatter", y="doubt", **labels).axes[0]
    >>> name = ax.texts[0]  # at the most positive strength
    >>> name.get_text(), [float(x) for x in name.xy]
    ('calm', [-1.0, 1.0])
    """
    need_columns(table, "direction", "kind", "strength", x, y)
    finite(table[[x, y]].to_numpy(dtype=float), "x and y")
    still = table["strength"] == 0
    if not still.any():
        raise BadInput("no row is at strength 0: add what happens without steering")
    plain = table.loc[still, ["strength", x, y]].mean()
    table = table[~still]
    kinds = known_kinds(table["kind"], KINDS)
    controls = {kind: KINDS[kind] | {"markersize": 4} for kind in kinds if kind != "emotion"}
    paths = {
        name: pd.concat([rows[plain.index], plain.to_frame().T]).sort_values("strength")
        for name, rows in table[table["kind"] == "emotion"].groupby("direction", sort=False)
    }
    if not 0 < len(paths) <= len(_CURVES):
        raise BadInput(f"{len(paths)} emotions cannot be told apart, 1 to {len(_CURVES)} can")
    origin = {"marker": "D", "color": INK, "markersize": 7, "markeredgecolor": "white"}
    key = [
        key_mark("not steered", origin),
        key_mark("most positive strength", PROBE | {"color": SOFT}),
        *(key_mark(kind, look) for kind, look in controls.items()),
    ]
    figure = canvas(title, note, height=5.0, key=key)
    ax = figure.subplots()
    ax.axvline(plain[x], color=SOFT, ls=":", lw=1.2, zorder=1)
    ax.axhline(plain[y], color=SOFT, ls=":", lw=1.2, zorder=1)
    for kind, look in controls.items():
        rows = table[table["kind"] == kind]
        ax.plot(rows[x], rows[y], ls="none", zorder=2, **look)
    for rows, look in zip(paths.values(), _CURVES, strict=False):
        ax.plot(rows[x], rows[y], marker="o", ms=3.2, lw=1.6, zorder=3, **look)
        ax.plot(*rows[[x, y]].iloc[-1], marker="o", ms=8, zorder=4, color=look["color"])
    ax.plot(plain[x], plain[y], ls="none", zorder=5, **origin)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.margins(0.1)
    dots = table.loc[table["kind"] != "emotion", [x, y]].to_numpy()
    _name_paths(ax, {name: rows[[x, y]].to_numpy() for name, rows in paths.items()}, dots)
    return figure


def _name_paths(ax: Axes, paths: Mapping[str, np.ndarray], dots: np.ndarray) -> None:
    """Write the name of each path [n, 2] at its end, clear of all paths and of dots [m, 2]."""
    along = np.linspace(0, 1, 12)[:, None]
    ends = [path[-1] for path in paths.values()]
    steps = [
        start + along * (stop - start)
        for path in paths.values()
        for start, stop in itertools.pairwise(path)
    ]
    names = list(paths)
    order = label_order(np.array(ends), names, None)
    write_names(ax, np.vstack([*ends, *steps, dots]), names, order, rings=8)
    for text in ax.texts:  # a line behind a name is interrupted
        text.set_path_effects([withStroke(linewidth=2, foreground="white")])


_OUTCOMES = {
    "failed": {"color": BLUE, "zorder": 3},
    "passed": {"color": CONTROL, "zorder": 2},
}


@styled
def failure_curves(
    table: pd.DataFrame, *, title: str, ylabel: str, note: str | None = None
) -> Figure:
    """Draw probe readings against the number of failed tests, a panel an emotion.

    Parameters
    ----------
    table : DataFrame
        One row an emotion, outcome and number: ``emotion`` (at most 4), ``outcome`` ("failed" or
        "passed"), ``failures`` (how many tests, from 0), ``value`` with ``low`` and ``high``.
    title, ylabel : str
        The question or finding, and the axis with its unit.
    note : str, optional
        n, layer, what the band is; set below the title.

    Returns
    -------
    Figure

    Raises
    ------
    BadInput
        On an empty table, a missing column, an unknown outcome, or too many emotions.

    Examples
    --------
    >>> table = pd.DataFrame({"failures": [0, 0, 1, 1], "outcome": ["failed", "passed"] * 2})
    >>> table = table.assign(emotion="desperate", value=[0, 0, 0.5, 0.1])
    >>> table = table.assign(low=table.value - 0.1, high=table.value + 0.1)
    >>> figure = failure_curves(table, title="Does it rise with failure?", ylabel="reading")
    >>> sorted(text.get_text() for text in figure.axes[0].texts)
    ['failed', 'passed']
    """
    need_columns(table, "emotion", "outcome", "failures", "value", "low", "high")
    known_kinds(table["outcome"], _OUTCOMES)
    emotions = list(table["emotion"].unique())
    xlabel = "failed tests so far"
    figure, grid = _grid(
        title, note, (), emotions, most=4, columns=2, height=1.6, xlabel=xlabel, ylabel=ylabel
    )
    ends = []
    for ax, emotion in zip(grid, emotions, strict=True):
        rows = table[table["emotion"] == emotion].dropna(subset=["value"]).sort_values("failures")
        for outcome, part in rows.groupby("outcome"):
            look = _OUTCOMES[outcome]
            ax.plot(part["failures"], part["value"], marker="o", ms=4, **look)
            ax.fill_between(part["failures"], part["low"], part["high"], alpha=0.2, lw=0, **look)
            if ax is grid[0]:
                end = part["failures"].iloc[-1], part["value"].iloc[-1]
                ends.append((*end, outcome, look["color"], INK if outcome == "failed" else SOFT))
        zero_line(ax, "y")
    grid[0].set_xticks(np.unique(table["failures"]))
    grid[0].yaxis.set_major_locator(MaxNLocator(4))
    grid[0].yaxis.set_major_formatter(lambda reading, _: signed(reading, ".10g"))
    name_ends({grid[0]: ends}, at=1.06)
    return figure

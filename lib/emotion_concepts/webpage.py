"""The monitor as a small local web page: chat with the model, and watch what is read in its reply.

The page is served by Panel (``emotion-concepts[web]``) from this computer to this computer, and
asks no other host for anything. A reply is generated in a thread that touches nothing of the page;
the page looks ten times a second at what the thread has got, and draws it.
"""

from __future__ import annotations

import html
import logging
import signal
import socket
from collections.abc import Sequence
from contextlib import closing
from threading import Event, Lock, Thread
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
import pandas as pd

from emotion_concepts import corpus
from emotion_concepts.errors import BadInput, EmotionConceptsError
from emotion_concepts.html_views import tokens_view
from emotion_concepts.look import BLUE, CARD_CSS, INK, LINE, ORANGE, SERIES, SOFT, signed
from emotion_concepts.monitor import EmotionMonitor
from emotion_concepts.tracing import TracedModel

try:
    import panel as pn
    from bokeh.core.properties import value
    from bokeh.models import ColumnDataSource, HoverTool, LinearColorMapper, Span
    from bokeh.palettes import interp_palette
    from bokeh.plotting import figure
    from panel.io.resources import LOCAL_DIST
except ImportError as error:
    raise EmotionConceptsError(
        'the web page needs the package panel: pip install "emotion-concepts[web]"'
    ) from error

ADDRESS = "127.0.0.1"
TICK = 100  # milliseconds between two looks at a reply
Z_TOP = 4  # of the token colours: one level a standard deviation
RATINGS = ["glasgow_valence", "glasgow_arousal"]  # the plane: the most words have these
MIDDLE = 5  # of their scale from 1 to 9

# A model holds one reply at a time, however many pages show it.
_TURNS: WeakKeyDictionary[TracedModel, Lock] = WeakKeyDictionary()
_REPLIES: WeakSet[_Reply] = WeakSet()


# --- what is drawn -----------------------------------------------------------------------------


def timeline(rows: pd.DataFrame, emotion: str) -> pd.DataFrame:
    """Return what the time line draws of the readings of a turn.

    Parameters
    ----------
    rows : DataFrame
        A row a token, as `Reading.row` and `EmotionMonitor.transcript` give them.
    emotion : str
        The one that gets a band.

    Returns
    -------
    DataFrame
        One row a token: token (1, 2, ...), text, the windowed mean z of every watched emotion under
        its name, and low and high, one standard error about that of `emotion`.

    Raises
    ------
    BadInput
        For an emotion that was not read.

    Examples
    --------
    >>> rows = pd.DataFrame({"text": ["All", "well"], "mean_calm": [0.0, 1.0], "error_calm": 0.5})
    >>> timeline(rows, "calm")
       token  text  calm  low  high
    0      1   All   0.0 -0.5   0.5
    1      2  well   1.0  0.5   1.5
    """
    means = _means(rows)
    if emotion not in means:
        raise BadInput(f"{emotion!r} was not read; choose from: {', '.join(means)}")
    error = rows[f"error_{emotion}"].to_numpy()
    middle = means[emotion].to_numpy()
    table = pd.DataFrame({"token": np.arange(1, len(rows) + 1), "text": rows.text.to_numpy()})
    return table.join(means.reset_index(drop=True)).assign(low=middle - error, high=middle + error)


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the windowed mean z, a column an emotion."""
    means = rows[[column for column in rows if column.startswith("mean_")]]
    return means.rename(columns=lambda column: column.removeprefix("mean_"))


def alarms(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row an alarm, in order: token (1, 2, ...), text of the token, rule, action.

    >>> rows = pd.DataFrame({"text": ["All", "well"], "alarms": [[], ["calm above 0.5: stop"]]})
    >>> alarms(rows)
       token  text            rule action
    0      2  well  calm above 0.5   stop
    """
    found = [
        (n, text, *alarm.rsplit(": ", 1))
        for n, (text, fired) in enumerate(zip(rows.text, rows.alarms, strict=True), start=1)
        for alarm in fired
    ]
    return pd.DataFrame(found, columns=["token", "text", "rule", "action"])


def places(z: np.ndarray, ratings: np.ndarray) -> np.ndarray:
    """Return where tokens lie in a plane of human ratings.

    A token's place is the mean of the emotions' ratings, each weighted by its z where that is
    positive; emotions without a rating have no weight.

    Parameters
    ----------
    z : ``[n_tokens, k]``
    ratings : ``[k, 2]``
        Such as valence and arousal; NaN where there is none.

    Returns
    -------
    ``[n_tokens, 2]``
        NaN for a token without a positive z.

    Raises
    ------
    BadInput
        On a shape mismatch.

    Examples
    --------
    >>> ratings = np.array([[8.0, 3.0], [2.0, 5.0]])
    >>> places([[1, 0], [1, 1], [2, -9]], ratings).tolist()
    [[8.0, 3.0], [5.0, 4.0], [8.0, 3.0]]
    """
    z, ratings = np.asarray(z, dtype=float), np.asarray(ratings, dtype=float)
    if z.ndim != 2 or ratings.shape != (z.shape[1], 2):
        raise BadInput(f"z of shape {z.shape} and ratings of shape {ratings.shape} do not fit")
    rated = np.isfinite(ratings).all(axis=1)
    weight = np.maximum(z[:, rated], 0)
    total = weight.sum(axis=1, keepdims=True)
    return np.divide(
        weight @ ratings[rated], total, out=np.full((len(z), 2), np.nan), where=total > 0
    )


# Where a name may stand beside its dot: offset in pixels, and how it is aligned there.
_SIDES = (
    (8, 0, "left", "middle"),
    (-8, 0, "right", "middle"),
    (0, -8, "center", "bottom"),
    (0, 8, "center", "top"),
)
_LETTER, _LINE_HEIGHT = 7.3, 15  # pixels: about the width of a letter, and the height of a line


def name_sides(
    points: np.ndarray, names: Sequence[str], size: tuple[float, float]
) -> list[int | None]:
    """Return on which of the four sides of its dot each name has room, first come first served.

    Parameters
    ----------
    points : ``[k, 2]``
        In pixels, from the lower left.
    size : pair of float
        Width and height of the frame in pixels.

    Returns
    -------
    list of k
        0 right, 1 left, 2 above, 3 below, None for a name without room.

    Examples
    --------
    >>> name_sides([[50, 50], [45, 50]], ["calm", "sad"], (200, 100))
    [0, 1]
    """
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    sides: list[int | None] = []
    for (x, y), name in zip(points, names, strict=True):
        boxes = [_name_box(x, y, _LETTER * len(name), side) for side in _SIDES]
        room = (n for n, box in enumerate(boxes) if _has_room(box, taken, size))
        sides.append(next(room, None))
        if sides[-1] is not None:
            taken.append(boxes[sides[-1]])
    return sides


def _name_box(x: float, y: float, width: float, side: tuple) -> tuple[float, ...]:
    dx, dy, align, baseline = side
    left = x + dx - {"left": 0, "center": 0.5, "right": 1}[align] * width
    low = y - dy - {"bottom": 0, "middle": 0.5, "top": 1}[baseline] * _LINE_HEIGHT
    return left, low, left + width, low + _LINE_HEIGHT


def _has_room(box: tuple, taken: Sequence[tuple], size: tuple[float, float]) -> bool:
    left, low, right, high = box
    inside = left >= 0 and low >= 0 and right <= size[0] and high <= size[1]
    return inside and all(
        right <= other[0] or left >= other[2] or high <= other[1] or low >= other[3]
        for other in taken
    )


# --- a reply in the making -----------------------------------------------------------------------


class _Reply:
    """A reply that a thread of its own generates, once the model is free; it can be stopped.

    `over` is set last, so that whoever sees it finds everything else complete.
    """

    def __init__(self, monitor: EmotionMonitor, messages: Sequence[dict], options: dict):
        self.monitor, self.messages, self.options = monitor, list(messages), options
        self.rows: list[dict] = []  # of Reading.row, with the text that each token adds
        self.text, self.error = "", None
        self.waits = self.over = False
        self._stop = Event()
        self.thread = Thread(target=self._run, daemon=True)
        self.thread.start()
        _REPLIES.add(self)

    def stop(self) -> None:
        self._stop.set()

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def _run(self) -> None:
        turn = _TURNS.setdefault(self.monitor.model, Lock())
        try:
            while not turn.acquire(timeout=TICK / 1000):
                self.waits = True
                if self.stopped:
                    return
            try:
                self.waits = False
                self._write()
            finally:
                turn.release()
        except EmotionConceptsError as error:
            self.error = str(error)
        except Exception as error:  # of a rule's own function, or of the model: the page goes on
            logging.getLogger(__name__).exception("the reply failed")
            self.error = f"{type(error).__name__}: {error}"
        finally:
            self.over = True

    def _write(self) -> None:
        decode, tokens, shown = self.monitor.model.tokenizer.decode, [], ""
        with closing(self.monitor.stream(self.messages, **self.options)) as readings:
            for reading in readings:
                tokens.append(reading.token)
                # a character may take several tokens: until the last of them it is no text
                whole = decode(tokens, clean_up_tokenization_spaces=False).rstrip("\ufffd")
                self.text = decode(tokens, skip_special_tokens=True)
                self.rows.append(reading.row() | {"text": whole[len(shown) :]})
                shown = whole
                if self.stopped:
                    break


# --- the two figures -----------------------------------------------------------------------------

_WIDE = "stretch_width"
_FONT = "system-ui, sans-serif"
_DASHES = ([], [6, 4], [2, 3])
_FRAME = 290, 240  # pixels: what the plane has at least for its dots, on a narrow screen


def _figure(height: int, *, xlabel: str, ylabel: str, **options) -> figure:
    """Return an empty figure in the look of `plots`, as wide as its card."""
    fig = figure(
        height=height,
        sizing_mode=_WIDE,
        toolbar_location=None,
        tools="",
        background_fill_color="white",
        border_fill_color="white",
        outline_line_color=None,
        **options,
    )
    fig.grid.grid_line_color = LINE
    fig.grid.grid_line_width = 0.6
    fig.xaxis.axis_label, fig.yaxis.axis_label = xlabel, ylabel
    fig.axis.axis_line_color = fig.axis.major_tick_line_color = SOFT
    fig.axis.minor_tick_line_color = None
    fig.axis.axis_label_text_font = fig.axis.major_label_text_font = _FONT
    fig.axis.axis_label_text_font_style = "normal"
    fig.axis.axis_label_text_font_size = fig.axis.major_label_text_font_size = "13px"
    fig.axis.axis_label_text_color = fig.axis.major_label_text_color = INK
    return fig


class _TimeLine:
    """The windowed means over the tokens of a reply, and where alarms fired."""

    def __init__(self, emotions: Sequence[str]):
        self.looks = {
            emotion: (SERIES[n % len(SERIES)], _DASHES[n // len(SERIES) % len(_DASHES)])
            for n, emotion in enumerate(emotions)
        }
        self.fig = _figure(
            260,
            xlabel="token of the reply",
            ylabel="mean z",
            x_range=(0.5, 20.5),
            y_range=(-3, 3),
        )
        self.fig.add_layout(Span(location=0, dimension="width", line_color=SOFT))
        self.means, self.alarms = ColumnDataSource(name="means"), ColumnDataSource(name="alarms")
        self.band = self.fig.varea("token", "low", "high", source=self.means, fill_alpha=0.2)
        self.lines = {
            emotion: self.fig.line(
                "token", emotion, source=self.means, name=emotion, color=colour, line_dash=dash
            )
            for emotion, (colour, dash) in self.looks.items()
        }
        self.fig.vspan("token", source=self.alarms, line_color=INK, line_dash=[4, 3])
        self.fig.text(
            "token",
            "top",
            "number",
            source=self.alarms,
            text_color="white",
            text_font=value(_FONT),
            text_font_size="12px",
            text_align="center",
            text_baseline="top",
            background_fill_color=INK,
            padding=3,
            border_radius=3,
            level="overlay",
        )
        tips = [("emotion", "$name"), ("mean z", "@$name{0.00}"), ("token", "@token: @text")]
        self.fig.add_tools(HoverTool(tooltips=tips, renderers=list(self.lines.values())))

    def show(self, table: pd.DataFrame, fired: pd.DataFrame, emotion: str) -> None:
        """Draw a table of `timeline` and one of `alarms`."""
        drawn = table.drop(columns=["token", "text"]).to_numpy(dtype=float)
        top, bottom = drawn.max(initial=3), drawn.min(initial=-3)
        self.fig.x_range.end = max(len(table), 20) + 0.5
        self.fig.y_range.update(start=bottom - 0.2, end=top + 0.1 * (top - bottom))
        self.means.data = table.assign(text=table.text.map(repr)).to_dict("list")
        numbers = fired.assign(number=range(1, len(fired) + 1)).groupby("token").number
        marks = numbers.agg(lambda ns: ", ".join(map(str, ns)))
        self.alarms.data = {
            "token": marks.index.tolist(),
            "number": marks.tolist(),
            "top": [self.fig.y_range.end] * len(marks),
        }
        self.band.glyph.fill_color = self.looks[emotion][0]
        for name, line in self.lines.items():
            line.glyph.line_width = 3 if name == emotion else 1.5
            line.level = "overlay" if name == emotion else "glyph"

    def key(self, table: pd.DataFrame, emotion: str) -> str:
        """Return the key as HTML, with the latest means."""
        entries = []
        for name, (colour, dash) in self.looks.items():
            width, chosen = (4, ' class="chosen"') if name == emotion else (2, "")
            swatch = (
                f'<svg width="26" height="8" aria-hidden="true"><path d="M0 4h26" '
                f'stroke="{colour}" stroke-width="{width}" '
                f'stroke-dasharray="{" ".join(map(str, dash))}"/></svg>'
            )
            latest = "".join(f" {signed(x, '.1f')}" for x in table[name][-1:])
            if chosen:
                latest += "".join(f" ± {x:.1f}" for x in (table.high - table[name])[-1:])
            entries.append(f"<li{chosen}>{swatch}{html.escape(name)}{latest}</li>")
        return f'<ul class="key" aria-label="Latest means">{"".join(entries)}</ul>'


class _Plane:
    """The path of a reply among the watched emotions, by human valence and arousal."""

    def __init__(self, emotions: Sequence[str]):
        ratings = corpus.emotions().reindex(emotions)[RATINGS]
        ratings.columns = ["valence", "arousal"]
        self.ratings = ratings.to_numpy()
        self.unrated = list(ratings.index[ratings.isna().any(axis=1)])
        rated = ratings.dropna()
        low, high = _extent(rated.to_numpy())
        self.fig = _figure(
            300,
            xlabel="valence",
            ylabel="arousal",
            x_range=(low[0], high[0]),
            y_range=(low[1], high[1]),
        )
        for side in ("width", "height"):
            self.fig.add_layout(
                Span(location=MIDDLE, dimension=side, line_color=SOFT, line_dash=[4, 3])
            )
        self.path, self.latest = ColumnDataSource(name="path"), ColumnDataSource()
        self.order = LinearColorMapper(interp_palette(["#c3dcf0", "#08427a"], 64), low=1)
        self.fig.line("valence", "arousal", source=self.path, color=BLUE, alpha=0.35)
        shade = {"field": "token", "transform": self.order}
        steps = self._dots(self.path, size=7, line_color=None, fill_color=shade)
        self._dots(self.latest, size=13, fill_color=ORANGE, line_color="white")
        sides = name_sides((rated.to_numpy() - low) / (high - low) * _FRAME, rated.index, _FRAME)
        named = self._name(rated, sides)
        place = "(@valence{0.0}, @arousal{0.0})"
        tips = {steps: ("token", "@token: @text"), named: ("emotion", "@emotion")}
        for dots, tip in tips.items():
            self.fig.add_tools(HoverTool(tooltips=[tip, ("place", place)], renderers=[dots]))

    def _dots(self, source: ColumnDataSource, **look):
        return self.fig.scatter("valence", "arousal", source=source, **look)

    def _name(self, rated: pd.DataFrame, sides: Sequence[int | None]):
        """Draw the emotions as dots, named where there is room."""
        dots = ColumnDataSource(rated.rename_axis("emotion").reset_index().to_dict("list"))
        looks = pd.DataFrame([_SIDES[side or 0] for side in sides], columns=["x", "y", "at", "on"])
        texts = [
            name if side is not None else "" for name, side in zip(rated.index, sides, strict=True)
        ]
        self.fig.text(
            "valence",
            "arousal",
            "name",
            source=ColumnDataSource({**dots.data, **looks.to_dict("list"), "name": texts}),
            x_offset="x",
            y_offset="y",
            text_align="at",
            text_baseline="on",
            background_fill_color="white",
            background_fill_alpha=0.7,
            text_color=INK,
            text_font=value(_FONT),
            text_font_size="12px",
        )
        return self._dots(dots, size=7, marker="diamond", color=INK)

    def show(self, rows: pd.DataFrame) -> None:
        """Draw the path of the readings of a turn."""
        valence, arousal = places(_means(rows), self.ratings).T
        n = len(rows)
        self.order.high = max(n, 2)
        text = rows.text.map(repr).tolist()
        path = {"valence": valence, "arousal": arousal, "token": range(1, n + 1), "text": text}
        path = pd.DataFrame(path)
        self.path.data = path.to_dict("list")
        self.latest.data = path.dropna()[-1:].to_dict("list")

    def words(self) -> str:
        """Return the latest place in words, as HTML."""
        latest = pd.DataFrame(self.latest.data).itertuples()
        says = (
            f"Token {x.token}: valence {x.valence:.1f}, arousal {x.arousal:.1f}" for x in latest
        )
        return f'<p class="key">{next(says, "No token has a place yet")}.</p>'


def _extent(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper ends of axes that show all points, and the middle of the scale."""
    points = np.vstack([points, [MIDDLE, MIDDLE]])
    low, high = points.min(axis=0), points.max(axis=0)
    pad = 0.25 * np.maximum(high - low, 2)
    return np.maximum(low - pad, 0.5), np.minimum(high + pad, 9.5)


# --- the page ------------------------------------------------------------------------------------

# A component has its own style sheet; these properties reach it by inheritance from the page.
_PAGE_CSS = """
:host{--page:#f3f5f8;--ink:#222;--soft:#5f6368;--line:#c3c8ce;--field:#fff;--accent:#0b6aa8;
 --trouble:#a3240f;--trouble-page:#fdecea;
 --design-primary-color:var(--accent);--design-primary-text-color:#fff;
 --design-surface-color:var(--field);--design-surface-text-color:var(--ink);
 --design-background-color:var(--field);--design-background-text-color:var(--ink);
 box-sizing:border-box;min-height:100vh;background:var(--page);color:var(--ink);
 color-scheme:light dark;font:15px/1.5 system-ui,sans-serif;
 padding:1rem clamp(.6rem,2vw,1.5rem)}
@media(prefers-color-scheme:dark){:host{--page:#121212;--ink:#e6e9ed;--soft:#a9b1bb;
 --line:#4a525c;--field:#1d2228;--trouble:#ffb4a6;--trouble-page:#3b1712}}
"""
_BODY_CSS = ":host{max-width:68rem;width:100%;margin:0 auto!important;gap:.7rem}"
_ROW_CSS = ":host{flex-wrap:wrap;gap:.7rem}"
# The cards stay light in dark mode, as the figures and tokens of the book do.
_CARD_CSS = """
:host{--ink:#222;--soft:#5f6368;background:#fff;color:var(--ink);color-scheme:light;
 border-radius:.4rem;padding:.6rem;box-sizing:border-box;min-width:0}
"""
_WIDGET_CSS = """
label{font-size:.95rem;color:var(--ink);font-weight:600;margin-bottom:.25rem}
.bk-input{font-size:.95rem;color:var(--ink);background-color:var(--field);
 border:1px solid var(--soft);border-radius:.3rem}
select.bk-input.bk-input:not([multiple]){appearance:auto;background-image:none;padding-right:0}
.bk-btn{font-size:.95rem;border-radius:.3rem}
:host(.solid) .bk-btn.bk-btn-default{border-color:var(--soft)}
.bk-btn[disabled]{opacity:.5}
.bk-input:focus-visible,.bk-btn:focus-visible{outline:3px solid #2f80c3;outline-offset:-3px}
"""
_TEXT_CSS = """
:host{color:var(--ink);font:inherit}
h1{font-size:1.35rem;line-height:1.2;margin:0}
h2{font-size:1rem;margin:0 0 .2rem}
p{margin:.2rem 0}
.soft{color:var(--soft);font-size:.87rem}
.ec-card .soft{color:var(--ec-soft)}
.trouble{color:var(--trouble);background:var(--trouble-page);border-radius:.3rem;
 padding:.4rem .6rem;overflow-wrap:anywhere}
.log{display:flex;font-size:.95rem;flex-direction:column-reverse;max-height:24rem;overflow-y:auto;
 border:1px solid var(--line);border-radius:.4rem;padding:.5rem;background:var(--field)}
.log:focus-visible{outline:3px solid #2f80c3;outline-offset:2px}
.turn{max-width:85%;width:fit-content;margin:.25rem 0;padding:.4rem .7rem;border-radius:.7rem;
 white-space:pre-wrap;overflow-wrap:anywhere;border:1px solid var(--line);box-sizing:border-box}
.turn b{display:block;font-size:.8rem}
.turn.user{margin-left:auto;background:var(--accent);border-color:var(--accent);color:#fff}
.key,.alarms{list-style:none;margin:.2rem 0 .6rem;padding:0;font-size:.87rem}
.key{display:flex;flex-wrap:wrap;gap:.1rem 1rem}
.key svg{vertical-align:middle;margin-right:.35rem}
.key .chosen{font-weight:700}
.alarms li{margin:.25rem 0;overflow-wrap:anywhere}
.alarms i{font-style:normal;font-weight:700;color:#fff;background:#222;border-radius:.25rem;
 padding:0 .4rem;margin-right:.4rem}
"""
_ACTIONS = {
    "mark": "It is marked, and no more.",
    "call": "A function was called.",
    "stop": "The reply was ended.",
    "steer": "The model is steered from the next token on.",
}
_SPEAKERS = {"user": "You", "assistant": "Model"}


def build(
    monitor: EmotionMonitor, *, max_new_tokens: int = 200, temperature: float = 0.0
) -> pn.viewable.Viewable:
    """Return the page for one browser session of a Panel server; each session needs its own.

    All pages of a model share it: a reply waits until that of another page is done.

    Parameters
    ----------
    max_new_tokens : int
        The longest reply.
    temperature : float
        0 decodes greedily.
    """
    if pn.state.curdoc:
        # Panel would ask its own host for styles where a browser connects late to its session
        pn.state.curdoc.template_variables.setdefault("dist_url", LOCAL_DIST)
    return _Page(monitor, {"max_new_tokens": max_new_tokens, "temperature": temperature}).view


def _text(content: str = "") -> pn.pane.HTML:
    return pn.pane.HTML(content, margin=0, sizing_mode=_WIDE, stylesheets=[_TEXT_CSS])


def _soft(text: str) -> str:
    return f'<p class="soft">{html.escape(text)}</p>'


def _row(*items: pn.viewable.Viewable, **look) -> pn.Row:
    """Return a row that wraps where the window is narrow."""
    return pn.Row(*items, margin=0, stylesheets=[_ROW_CSS], **look)


def _card(share: int, *items: pn.viewable.Viewable) -> pn.Column:
    """Return a card that takes its share of a row, or a whole one where the window is narrow."""
    grow = {"flex": f"{share} 1 {share * 8}rem", "align-self": "stretch", "height": "auto"}
    return pn.Column(*items, margin=0, sizing_mode=_WIDE, styles=grow, stylesheets=[_CARD_CSS])


class _Page:
    """What one browser session sees, and what its buttons do."""

    def __init__(self, monitor: EmotionMonitor, options: dict):
        self.monitor, self.options = monitor, options
        self.messages: list[dict] = []
        self.reply: _Reply | None = None
        emotions = list(monitor.baseline.emotions)
        read = [f"{what}_{emotion}" for what in ("z", "mean", "error") for emotion in emotions]
        self.nothing = pd.DataFrame(columns=["text", *read, "alarms"])
        self.line, self.plane = _TimeLine(emotions), _Plane(emotions)
        self.log, self.status, self.tokens = _text(), _text(), _text()
        self.key, self.alarms, self.place = _text(), _text(), _text()

        look = {"margin": 0, "stylesheets": [_WIDGET_CSS]}
        self.box = pn.chat.ChatAreaInput(
            label="Message",
            placeholder="Enter sends, Shift+Enter begins a line",
            styles={"flex": "1 1 16rem", "min-width": "0"},
            **look,
        )
        self.box.param.watch(lambda event: self.send(self.box.value), "enter_pressed")
        self.send_button = pn.widgets.Button(label="Send", color="primary", **look)
        self.send_button.on_click(lambda event: self.send(self.box.value_input))
        self.stop_button = pn.widgets.Button(label="Stop", **look)
        self.stop_button.on_click(lambda event: self.stop())
        self.new_button = pn.widgets.Button(label="New chat", **look)
        self.new_button.on_click(lambda event: self.begin())
        self.emotion = pn.widgets.Select(label="Emotion", options=emotions, **look)
        self.emotion.param.watch(self.outdate, "value")

        pn.state.add_periodic_callback(self.tick, period=TICK)
        if pn.state.curdoc:  # nobody waits for the reply where the window was closed
            pn.state.on_session_destroyed(lambda context: self.stop())
        self.view = self._layout()
        self.begin()
        self.draw()

    def _layout(self) -> pn.Column:
        layer, window = self.monitor.baseline.layer, self.monitor.window
        about = (
            f"{self.monitor.model.identity.name}, layer {layer}. A token's z says how many "
            "standard deviations its reading lies from the mean of neutral text."
        )
        path = (
            "A token's place is the mean of the watched emotions' human valence and arousal "
            "(Glasgow norms, 1 to 9), each weighted by its mean z where that is positive; without "
            "a positive one it has no place. The path goes from light to dark, and the latest "
            "that has one is orange."
        )
        if self.plane.unrated:
            path += f" Without ratings, and left out: {', '.join(self.plane.unrated)}."
        buttons = _row(
            self.send_button, self.stop_button, self.new_button, styles={"align-self": "end"}
        )
        line = _card(
            3,
            _text(f"<h2>Mean z of the last {window} tokens</h2>"),
            pn.pane.Bokeh(self.line.fig, margin=0, sizing_mode=_WIDE),
            self.key,
            _text(_soft("The band is one standard error of the emotion chosen above.")),
            self.alarms,
        )
        plane = _card(
            2,
            _text("<h2>The reply between the emotions</h2>"),
            pn.pane.Bokeh(self.plane.fig, margin=0, sizing_mode=_WIDE),
            self.place,
            _text(_soft(path)),
        )
        body = pn.Column(
            _text(f"<h1>Emotion monitor</h1>{_soft(about)}"),
            self.log,
            _row(self.box, buttons, sizing_mode=_WIDE),
            self.status,
            self.emotion,
            self.tokens,
            _row(line, plane, sizing_mode=_WIDE),
            margin=0,
            sizing_mode=_WIDE,
            stylesheets=[_BODY_CSS],
        )
        return pn.Column(body, margin=0, sizing_mode=_WIDE, stylesheets=[_PAGE_CSS])

    def outdate(self, event: object = None) -> None:
        """Have everything drawn at the next tick."""
        self.stale = True

    def begin(self) -> None:
        """Begin a new chat."""
        self.stop()
        self.messages, self.reply = [], None
        self._free(True)
        self.status.object = _soft("The model waits for a message.")

    def send(self, text: str) -> None:
        """Ask for the reply to a message, unless one is being written."""
        if self.busy:
            return
        self.box.value_input = ""
        self.messages.append({"role": "user", "content": text})
        self.reply = _Reply(self.monitor, self.messages, self.options)
        self._free(False)

    def stop(self) -> None:
        if self.reply:
            self.reply.stop()

    def tick(self) -> None:
        """Show what is new; here alone the document is locked, so that its figures may change."""
        asked = self.busy
        over = asked and self.reply.over  # looked at first, or the end may be missed
        if over:
            self._end()
        if self.stale or (asked and len(self.reply.rows) > self.drawn):
            self.draw()
        if asked:
            self.status.object = self._state(over)

    def _end(self) -> None:
        self._free(True)
        if self.reply.text.strip():
            self.messages.append({"role": "assistant", "content": self.reply.text})
        else:  # its writer may mend the message, or send it again
            self.box.value_input = self.messages.pop()["content"]

    def _free(self, free: bool) -> None:
        """Let messages be sent, or a reply be stopped."""
        self.busy = not free
        self.send_button.disabled = self.box.disabled_enter = not free
        self.stop_button.disabled = free
        self.outdate()

    def _state(self, over: bool) -> str:
        reply, most = self.reply, self.options["max_new_tokens"]
        n = len(reply.rows)
        tokens = f"{n} token{'s' * (n != 1)}"
        if not over:
            if reply.waits:
                return _soft(
                    "The model is busy with another reply; yours begins when that one is done."
                )
            return _soft(f"The model writes: {tokens} of at most {most}.")
        if reply.error:
            return f'<p class="trouble" role="alert">{html.escape(reply.error)}</p>'
        if reply.stopped:
            return _soft(f"You stopped the reply after {tokens}.")
        if not reply.text.strip():
            return _soft("The model has nothing to say to that; write another message.")
        if any(alarm.endswith(": stop") for alarm in reply.rows[-1]["alarms"]):
            return _soft(f"An alarm ended the reply after {tokens}.")
        if n == most:
            return _soft(f"The reply has {tokens}, the most that one may have here.")
        return _soft(f"The reply is complete: {tokens}.")

    def draw(self) -> None:
        """Draw the chat, and the readings of its last reply."""
        written = self.reply.rows[:] if self.reply else []
        rows = pd.DataFrame(written) if written else self.nothing
        emotion, self.drawn, self.stale = self.emotion.value, len(rows), False
        table, fired = timeline(rows, emotion), alarms(rows)
        self.log.object = self._chat(rows)
        self.tokens.object = self._coloured(rows, emotion)
        self.line.show(table, fired, emotion)
        self.key.object = self.line.key(table, emotion)
        self.alarms.object = self._in_words(fired)
        self.plane.show(rows)
        self.place.object = self.plane.words()

    def _chat(self, rows: pd.DataFrame) -> str:
        turns = list(self.messages)
        if self.busy:
            turns.append({"role": "assistant", "content": "".join(rows.text) or "…"})
        shown = [
            f'<div class="turn {turn["role"]}"><b>{_SPEAKERS[turn["role"]]}</b>'
            f"{html.escape(turn['content'].strip())}</div>"
            for turn in turns
        ]
        whole = "".join(shown) or _soft("No message yet.")
        frame = 'class="log" role="region" tabindex="0" aria-label="Chat"'
        return f"<div {frame}><div>{whole}</div></div>"

    def _coloured(self, rows: pd.DataFrame, emotion: str) -> str:
        title = f"{emotion} in the last reply, token by token"
        if rows.empty:
            nothing = f"<b>{html.escape(title)}</b>{_soft('There is no reply yet.')}"
            return f'{CARD_CSS}<figure class="ec-card">{nothing}</figure>'
        z = rows[f"z_{emotion}"]
        return tokens_view(rows.text, z, title=title, vmax=Z_TOP, unit="z").html

    def _in_words(self, fired: pd.DataFrame) -> str:
        rules = "; ".join(map(str, self.monitor.rules))
        if fired.empty:
            said = f"None in this reply. Watched for: {rules}." if rules else "No rules are set."
            return f"<h2>Alarms</h2>{_soft(said)}"
        entries = "".join(
            f"<li><i>{n}</i>Token {alarm.token} ({html.escape(repr(alarm.text))}): "
            f"{html.escape(alarm.rule)}. {_ACTIONS[alarm.action]}</li>"
            for n, alarm in enumerate(fired.itertuples(), start=1)
        )
        return f'<h2>Alarms</h2><ol class="alarms">{entries}</ol>'


# --- the server ----------------------------------------------------------------------------------


def serve(monitor: EmotionMonitor, *, port: int = 0, show: bool = False, **options) -> None:
    """Serve the page to this computer alone, and return when Ctrl-C is pressed.

    Parameters
    ----------
    port : int
        A free one by default.
    show : bool
        Whether to open the page in a browser.
    **options
        Of :func:`build`.

    Raises
    ------
    BadInput
        If the port is taken.
    """
    port = _free_port(port)
    before = signal.getsignal(signal.SIGINT)  # Panel takes Ctrl-C for itself
    server = _server(monitor, port, options, show=show)
    print(f"Monitor at http://{ADDRESS}:{port}, Ctrl-C ends", flush=True)
    try:
        server.start()
        server.io_loop.start()
    finally:
        server.stop()
        for reply in list(_REPLIES):  # Python may not end in the middle of one
            reply.stop()
            reply.thread.join()
        signal.signal(signal.SIGINT, before)


def _server(monitor: EmotionMonitor, port: int, options: dict, **how):
    """Return what Panel makes of the page, with how to start it."""
    return pn.serve(
        lambda: build(monitor, **options),
        port=port,
        address=ADDRESS,
        websocket_origin=[f"{ADDRESS}:{port}", f"localhost:{port}"],
        title="Emotion monitor",
        verbose=False,
        **{"show": False, "start": False, **how},
    )


def _free_port(port: int) -> int:
    """Return the port, or any free one for 0."""
    try:
        with socket.create_server((ADDRESS, port)) as bound:
            return bound.getsockname()[1]
    except (OSError, OverflowError) as error:
        raise BadInput(f"port {port} cannot be had; give another, or 0 for any free one") from error

"""Views for the reader's browser: matrix to explore, tokens in colour, tables for display.

Each function returns a :class:`View` that a notebook displays by itself. A view is one piece of
HTML that needs no library, no outside host and no server; the same input gives the same bytes.
Everything that comes from a model is escaped. Static figures are in ``plots``.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from emotion_concepts.errors import BadInput, nearest
from emotion_concepts.look import (
    CARD_CSS,
    DIVERGING,
    SPACES,
    check_alt,
    colour_limit,
    need_columns,
    permutation,
    signed,
    square,
    visible,
)
from emotion_concepts.results import SYMBOLS, VERDICTS


@dataclass(frozen=True)
class View:
    """A piece of HTML with the words that stand for it where HTML is not shown.

    >>> view = View("<b>calm</b>", "calm")
    >>> view.html, view.text  # what a notebook shows, and what a terminal shows
    ('<b>calm</b>', 'calm')
    """

    html: str
    text: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}


def _fill(template: str, **parts: str) -> str:
    """Put parts into their @PLACES@; what is put in is not searched again."""
    return re.sub("@([A-Z]+)@", lambda place: parts[place[1]], template)


def _plain(number: object) -> str:
    """A number with three digits, a text as it is, a dash for nothing."""
    if isinstance(number, str):
        return number
    if pd.isna(number):
        return "—"
    return signed(number, ",.0f" if abs(number) >= 100 else ".3g")


# --- a matrix to explore -------------------------------------------------------------------------

# Dark where the theme says dark; where there is no theme, where the reader's system does.
_DARK = "--ec-bg:#14181e;--ec-ink:#e6e9ed;--ec-soft:#a9b1bb;--ec-line:#6d7681;color-scheme:dark"
_HEATMAP_CSS = (
    """<style>
html[data-theme="dark"] .ec-heat{@DARK@}
@media(prefers-color-scheme:dark){html:not([data-theme]) .ec-heat{@DARK@}}
.ec-heat form{display:flex;flex-wrap:wrap;gap:.3rem .6rem;align-items:center;margin:0 0 .5rem}
.ec-heat input{font:inherit;color:inherit;background:transparent;min-width:0;width:13rem;
 border:1px solid var(--ec-line);border-radius:.3rem;padding:.15rem .4rem}
.ec-heat .ec-stage{position:relative;max-width:540px;line-height:0;cursor:crosshair;
 overflow:hidden;touch-action:pan-y}
.ec-heat .ec-stage:focus-visible,.ec-heat input:focus-visible{outline:3px solid #2f80c3;
 outline-offset:2px}
.ec-heat canvas{width:100%;height:auto;image-rendering:pixelated}
.ec-heat .ec-stage i{position:absolute;box-sizing:border-box;pointer-events:none;
 outline:1px solid #111;box-shadow:0 0 0 2px #fff9}
.ec-heat .ec-read{min-height:3em;margin:.4rem 0 0;max-width:540px;overflow-wrap:anywhere}
.ec-heat .ec-bar{position:relative;height:12px;max-width:300px;margin-top:.4rem;
 border:1px solid var(--ec-line)}
.ec-heat .ec-bar i{position:absolute;top:-4px;bottom:-4px;width:3px;margin-left:-1px;
 background:var(--ec-ink);outline:1px solid var(--ec-bg)}
.ec-heat .ec-ends{display:flex;justify-content:space-between;max-width:302px}
.ec-heat .ec-soft{color:var(--ec-soft);margin:.3rem 0 0;max-width:540px}
</style>"""
).replace("@DARK@", _DARK)

_HEATMAP_HTML = """<div class="ec-card ec-heat" id="@ID@">
<form><label for="@ID@-find">Find an emotion</label>
<input id="@ID@-find" type="search" list="@ID@-names" autocomplete="off" spellcheck="false">
<datalist id="@ID@-names"></datalist></form>
<div class="ec-stage" tabindex="0" role="application" aria-roledescription="heat map"
 aria-label="@ALT@" aria-describedby="@ID@-help"><canvas width="@N@" height="@N@"></canvas></div>
<p class="ec-read" role="status" aria-live="polite">Nothing chosen yet.</p>
<p class="ec-soft" aria-hidden="true">@LABEL@</p>
<div class="ec-bar" role="img" aria-label="Colour scale of @LABEL@: blue is @LOW@, white is 0, \
orange is @HIGH@." style="background:linear-gradient(90deg,@STOPS@)"></div>
<div class="ec-ends" aria-hidden="true"><span>@LOW@</span><span>0</span><span>@HIGH@</span></div>
<p class="ec-soft" id="@ID@-help">Point at a cell or touch it. From the keyboard: tab to the \
picture, then the arrow keys move by one cell, with Shift by ten.</p>
<noscript><p>@ALT@ (The picture needs JavaScript.)</p></noscript>
<script type="application/json">@DATA@</script>
<script>@SCRIPT@</script></div>"""

# Reads the data beside it, paints one pixel a cell, and reports the cell that is pointed at.
_HEATMAP_SCRIPT = """(() => {
const root = document.getElementById("@ID@"), one = s => root.querySelector(s);
const {names, vmax, stops, z} = JSON.parse(one("script[type='application/json']").textContent);
const n = names.length, bytes = Uint8Array.from(atob(z), c => c.charCodeAt(0));
const hundredths = new DataView(bytes.buffer);
const at = (r, c) => hundredths.getInt16(2 * (r * n + c), true) / 100;
const say = v => (v < 0 ? "−" : "") + Math.abs(v).toFixed(2);
const clip = (x, low, high) => Math.min(high, Math.max(low, x));
const share = v => (clip(v / vmax, -1, 1) + 1) / 2;
const rgb = stops.map(s => [1, 3, 5].map(i => parseInt(s.slice(i, i + 2), 16)));
const colour = v => {
  const t = share(v) * (rgb.length - 1), i = Math.min(Math.floor(t), rgb.length - 2);
  return rgb[i].map((a, k) => a + (rgb[i + 1][k] - a) * (t - i));
};
const canvas = one("canvas"), pen = canvas.getContext("2d"), image = pen.createImageData(n, n);
for (let k = 0; k < n * n; k++)
  image.data.set([...colour(at(Math.floor(k / n), k % n)), 255], 4 * k);
pen.putImageData(image, 0, 0);

const stage = one(".ec-stage"), read = one(".ec-read"), bar = one(".ec-bar");
const mark = parent => parent.appendChild(document.createElement("i"));
const row = mark(stage), column = mark(stage), tick = mark(bar);
row.hidden = column.hidden = tick.hidden = true;
let cell = null;
const go = (r, c, more = "") => {
  cell = [r, c];
  row.hidden = column.hidden = tick.hidden = false;
  const cut = 100 / n + "%";
  Object.assign(row.style, {left: 0, width: "100%", top: r * 100 / n + "%", height: cut});
  Object.assign(column.style, {top: 0, height: "100%", left: c * 100 / n + "%", width: cut});
  tick.style.left = 100 * share(at(r, c)) + "%";
  const pair = document.createElement("b");
  pair.textContent = names[r] + " × " + names[c] + ": " + say(at(r, c));
  read.replaceChildren(pair, more);
};
const point = e => {
  const box = canvas.getBoundingClientRect();
  const index = (x, size) => clip(Math.floor(x / size * n), 0, n - 1);
  const [r, c] = [index(e.clientY - box.top, box.height), index(e.clientX - box.left, box.width)];
  if (!cell || cell[0] !== r || cell[1] !== c) go(r, c);
};
stage.addEventListener("pointermove", point);
stage.addEventListener("pointerdown", point);
const moves = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
stage.addEventListener("keydown", e => {
  const move = moves[e.key];
  if (!move || e.ctrlKey || e.metaKey || e.altKey) return;
  e.preventDefault();
  if (!cell) return go(0, 0);
  go(...cell.map((x, k) => clip(x + move[k] * (e.shiftKey ? 10 : 1), 0, n - 1)));
});

const find = one("input"), key = name => name.toLowerCase();
one("datalist").append(...[...names].sort().map(name => new Option(name, name)));
const jump = () => {
  const typed = key(find.value.trim());
  if (!typed) return;
  const fits = [x => x === typed, x => x.startsWith(typed), x => x.includes(typed)];
  const i = fits.map(fit => names.findIndex(name => fit(key(name)))).find(x => x >= 0);
  if (i === undefined) return read.replaceChildren("No emotion is called “" + find.value + "”.");
  const ranked = names.map((name, c) => [at(i, c), name]).filter((_, c) => c !== i)
    .sort((a, b) => b[0] - a[0]).map(([v, name]) => name + " " + say(v));
  go(i, i, ". Highest with " + ranked.slice(0, 3).join(", ")
    + "; lowest with " + ranked.slice(-3).reverse().join(", ") + ".");
};
one("form").addEventListener("submit", e => { e.preventDefault(); jump(); });
find.addEventListener("change", jump);
})();"""


def heatmap_view(
    matrix: np.ndarray,
    names: Sequence[str],
    *,
    alt: str,
    order: Sequence[int] | None = None,
    vmax: float | None = None,
    label: str = "cosine",
) -> View:
    """Return a heat map whose cells can be read by pointing, touching, arrow keys or search.

    Parameters
    ----------
    matrix : array [E, E]
        Cosines or correlations; the reader sees each with two decimals.
    names : sequence of E str
        The emotions.
    alt : str
        What is seen, in a sentence, for readers who do not see it.
    order : sequence of E int, optional
        Row and column order; that of `names` by default.
    vmax : float, optional
        Colours span -vmax to vmax; by default the largest magnitude off the diagonal.
    label : str
        What the values are; names the colour bar.

    Raises
    ------
    BadInput
        On a shape mismatch, a value that is not finite or beyond ±300, an order that is none, or
        an alt text that says nothing.

    Examples
    --------
    >>> cosines = np.array([[1.0, -0.4], [-0.4, 1.0]])
    >>> view = heatmap_view(cosines, ["calm", "afraid"], alt="Calm and afraid point apart.")
    >>> view.text, '"names": ["calm", "afraid"]' in view.html
    ('Calm and afraid point apart.', True)
    """
    matrix, alt = square(matrix, names), check_alt(alt)
    order, limit = permutation(order, len(names)), colour_limit(matrix, vmax)
    if np.abs(matrix).max() > 300:
        raise BadInput("values beyond ±300 do not fit this view, which is made for cosines")
    # Whole hundredths: two decimals are then exact in the browser, in half the bytes of float32.
    hundredths = np.round(100 * matrix[np.ix_(order, order)]).astype("<i2")
    data = {
        "names": [str(names[i]) for i in order],
        "vmax": limit,
        "stops": DIVERGING,
        "z": base64.b64encode(hundredths.tobytes()).decode(),
    }
    content = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    uid = "ec-" + hashlib.sha256(f"{alt}{label}{content}".encode()).hexdigest()[:12]
    edge = round(100 * limit)
    page = _fill(
        _HEATMAP_HTML,
        ID=uid,
        ALT=html.escape(alt),
        LABEL=html.escape(label),
        N=str(len(names)),
        STOPS=",".join(DIVERGING),
        LOW=("≤ " if hundredths.min() < -edge else "") + signed(-limit),
        HIGH=("≥ " if hundredths.max() > edge else "") + signed(limit),
        DATA=content,
        SCRIPT=_fill(_HEATMAP_SCRIPT, ID=uid),
    )
    return View(CARD_CSS + _HEATMAP_CSS + page, alt)


# --- tokens in colour ----------------------------------------------------------------------------

# Nine levels. Each has a tint and a line below, solid for positive and dotted for negative, the
# thicker the stronger: in print, in greyscale and with forced colours the line still tells.
_TINTS = {
    -4: "#5ea3d3",
    -3: "#93c1e3",
    -2: "#c3dcf0",
    -1: "#e4eff8",
    0: "#ffffff",
    1: "#fdeedd",
    2: "#fbd9b3",
    3: "#f5b877",
    4: "#ea9440",
}
_LEVELS = max(_TINTS)


def _level_name(level: int) -> str:
    return ("n" if level < 0 else "p") + str(abs(level))


# The card stays light in dark mode, since the tints are made for dark text.
_TOKENS_CSS = (
    """<style>
.ec-card.ec-tokens figcaption{color:var(--ec-ink);font-weight:600;margin:0}
.ec-tokens p{margin:.4rem 0 0;line-height:1.9}
.ec-tokens .ec-text{font-family:ui-monospace,"DejaVu Sans Mono",monospace;white-space:pre-wrap;
 overflow-wrap:anywhere}
.ec-tokens span{color:#1a1a1a;padding-bottom:1px;border-bottom:0 solid #1a1a1a;
 box-shadow:inset -1px 0 #fff;box-decoration-break:clone;-webkit-box-decoration-break:clone}
.ec-tokens .ec-scale{font-size:13px;display:flex;flex-wrap:wrap;gap:.3rem 0;line-height:1.5}
.ec-tokens .ec-scale span{padding-left:.45rem;padding-right:.45rem;white-space:nowrap}
"""
    + "".join(
        f".ec-tokens .{_level_name(level)}{{background:{tint};border-bottom:"
        f"{abs(level)}px {'dotted' if level < 0 else 'solid'} #1a1a1a}}\n"
        for level, tint in _TINTS.items()
    )
    + "</style>"
)


def _shown(text: str, marks: Mapping[str, str]) -> str:
    """Escape a token for HTML, with marks or codes for what would not be seen."""
    return html.escape(visible(text, marks))


def _step(top: float) -> float:
    """A round number of which `_LEVELS` reach up to `top`."""
    if top == 0:
        return 1 / _LEVELS
    size = 10.0 ** math.floor(math.log10(top / _LEVELS))
    return next(m * size for m in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if _LEVELS * m * size >= top)


def _token_values(tokens: Sequence[str], values: Sequence[float]) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if len(tokens) == 0 or values.shape != (len(tokens),):
        raise BadInput(f"values have shape {values.shape}, tokens ask for ({len(tokens)},)")
    if not np.isfinite(values).all():
        raise BadInput("values hold numbers that are not finite")
    return values


def _token_spans(
    tokens: Sequence[str], values: np.ndarray, levels: np.ndarray, unit: str, *, line_break: str
) -> str:
    """Return the tokens in the looks of their levels, each with its value for a pointer."""
    return "".join(
        f'<span class="{_level_name(level)}" title="{_shown(repr(token), {})}: '
        f'{signed(value)} {html.escape(unit)}">{_shown(token, {chr(10): line_break})}</span>'
        for token, value, level in zip(tokens, values, levels, strict=True)
    )


def tokens_view(
    tokens: Sequence[str],
    values: Sequence[float],
    *,
    title: str,
    vmax: float | None = None,
    unit: str = "cosine",
    legend: bool = True,
) -> View:
    """Return a text whose tokens are tinted by value, in nine levels that show without colour too.

    Parameters
    ----------
    tokens : sequence of str
        The text, in pieces; spaces and line breaks are kept.
    values : array [n_tokens]
        One number a token, shown in full when it is pointed at.
    title : str
        What is read, for example "desperate, layer 20".
    vmax : float, optional
        Value of the strongest level; by default a round number that no value exceeds.
    unit : str
        What the values are.
    legend : bool
        Whether to show the scale; leave it out only below a view that has the same one.

    Raises
    ------
    BadInput
        On no tokens, another number of values, or a value that is not finite.

    Examples
    --------
    >>> tokens = ["The", " bus", " stops"]
    >>> view = tokens_view(tokens, [0.0, 0.4, -0.2], title="calm, layer 20")
    >>> view.text
    'calm, layer 20: The bus stops'
    >>> re.findall('class="(..)" title', view.html)  # positive levels, negative ones
    ['p0', 'p4', 'n2']
    """
    values = _token_values(tokens, values)
    if vmax is not None and not vmax > 0:
        raise BadInput(f"vmax must be positive, got {vmax}")
    top = float(np.abs(values).max())
    step = _step(top) if vmax is None else vmax / _LEVELS
    levels = np.clip(np.round(values / step), -_LEVELS, _LEVELS).astype(int)
    spans = _token_spans(tokens, values, levels, unit, line_break="↵\n")
    scale = _token_scale(step, unit, clipped=top > step * _LEVELS) if legend else ""
    page = (
        f'{CARD_CSS}{_TOKENS_CSS}<figure class="ec-card ec-tokens">'
        f'<figcaption>{html.escape(title)}</figcaption>{scale}<p class="ec-text">{spans}</p>'
        "</figure>"
    )
    return View(page, f"{title}: {''.join(tokens)}")


def _token_scale(step: float, unit: str, *, clipped: bool) -> str:
    def number(level: int) -> str:
        sign = {-_LEVELS: "≤ ", _LEVELS: "≥ "}.get(level, "") if clipped else ""
        return sign + _plain(level * step)

    marks = "".join(
        f'<span class="{_level_name(level)}">{number(level)}</span>' for level in _TINTS
    )
    return f'<p class="ec-scale">{html.escape(unit)}, nearest of:&nbsp;{marks}</p>'


class Snippet(Protocol):
    """A part of a text, such as `experiments.natural.Snippet`."""

    tokens: Sequence[str]
    values: Sequence[float]


# Two of the nine levels: above the threshold, and the highest of a snippet.
_ABOVE, _PEAK = 2, 4


def snippets_view(snippets: Sequence[Snippet], *, title: str, threshold: float, unit: str) -> View:
    """Return snippets of running text with their tokens above a threshold marked (Fig 1).

    A marked token is tinted and underlined, the highest of each snippet more strongly; every token
    shows its value when it is pointed at. Line breaks are shown as marks.

    Parameters
    ----------
    snippets : sequence of Snippet
        In the order in which they are to stand.
    title : str
        What is read, for example "afraid, layer 20".
    threshold : float
        Tokens above it are marked.
    unit : str
        What values and threshold are.

    Raises
    ------
    BadInput
        On no snippets, a threshold that is not finite, or tokens and values as in `tokens_view`.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> snippet = SimpleNamespace(tokens=["no", " way", " out"], values=[0.5, 2.5, 4.0])
    >>> view = snippets_view([snippet], title="desperate, layer 20", threshold=2, unit="SD")
    >>> view.text.splitlines()
    ['desperate, layer 20:', 'no way out']
    >>> re.findall('class="(..)" title', view.html)  # p2 is above the threshold, p4 the highest
    ['p0', 'p2', 'p4']
    """
    if len(snippets) == 0:
        raise BadInput("there are no snippets to show")
    if not np.isfinite(threshold):
        raise BadInput(f"threshold must be a finite number, got {threshold}")
    paragraphs, lines = [], []
    for snippet in snippets:
        values = _token_values(snippet.tokens, snippet.values)
        levels = np.where(values > threshold, _ABOVE, 0)
        levels[(values == values.max()) & (levels > 0)] = _PEAK
        spans = _token_spans(snippet.tokens, values, levels, unit, line_break="↵ ")
        paragraphs.append(f'<p class="ec-text">{spans}</p>')
        lines.append("".join(snippet.tokens))
    scale = (
        f'<p class="ec-scale">{html.escape(unit)}:&nbsp;<span class="{_level_name(_ABOVE)}">'
        f'above {signed(threshold)}</span><span class="{_level_name(_PEAK)}">'
        "highest of its snippet</span></p>"
    )
    page = (
        f'{CARD_CSS}{_TOKENS_CSS}<figure class="ec-card ec-tokens">'
        f"<figcaption>{html.escape(title)}</figcaption>{scale}{''.join(paragraphs)}</figure>"
    )
    return View(page, "\n".join([f"{title}:", *lines]))


_GRID_CSS = """<style>
.ec-grid-frame{overflow-x:auto}
.ec-grid{border-collapse:separate;border-spacing:1px 0;margin:.4rem 0 0;font-size:12px}
.ec-card .ec-grid :is(th,td){padding:0!important;border:0;background:none;color:#1a1a1a;
 font-weight:400}
.ec-card .ec-grid thead th{writing-mode:vertical-rl;text-align:right;vertical-align:bottom;
 white-space:pre;font-family:ui-monospace,"DejaVu Sans Mono",monospace}
.ec-card .ec-grid thead th:first-child{writing-mode:horizontal-tb}
.ec-card .ec-grid tbody th{text-align:center;line-height:1;min-width:2.2rem}
.ec-card .ec-grid td{min-width:17px;height:13px;line-height:0;font-size:0}
"""
_GRID_CSS += (
    "".join(
        f".ec-card .ec-grid td.{_level_name(level)}{{background:{tint};border-bottom:"
        f"{abs(level)}px {'dotted' if level < 0 else 'solid'} #1a1a1a}}\n"
        for level, tint in _TINTS.items()
    )
    + "</style>"
)


def token_layers_view(
    matrix: np.ndarray, tokens: Sequence[str], *, title: str, unit: str = "cosine"
) -> View:
    """Return a heat map of layers, last on top, by the tokens of a text (Figs 12-15).

    Nine levels, as in :func:`tokens_view`: each has a tint and a line below, so that they tell
    without colour; every cell shows its value when it is pointed at, and can be read aloud.

    Parameters
    ----------
    matrix : ``[n_layers, n_tokens]``
        Readings, or differences of readings.
    tokens : sequence of str
        Spaces are shown as ␣, line breaks as ↵.
    title, unit : str
        What is read, and what the values are.

    Raises
    ------
    BadInput
        On another shape than layers by tokens, or a value that is not finite.

    Examples
    --------
    >>> matrix = np.array([[0.1, 0.2], [0.1, 0.8]])
    >>> token_layers_view(matrix, ["The", " bus"], title="calm").text
    "calm: The bus; largest 0.80 at layer 1, ' bus'"
    """
    matrix = np.asarray(matrix, dtype=float)
    if matrix.ndim != 2 or not matrix.size or matrix.shape[1] != len(tokens):
        raise BadInput(f"values have shape {matrix.shape}, tokens ask for (layers, {len(tokens)})")
    if not np.isfinite(matrix).all():
        raise BadInput("values hold numbers that are not finite")
    step = _step(float(np.abs(matrix).max()))
    levels = np.round(matrix / step).astype(int)
    shown = [_shown(token, SPACES) for token in tokens]
    head = "".join(f'<th scope="col">{token}</th>' for token in shown)
    rows = []
    for layer in reversed(range(len(matrix))):
        cells = "".join(
            f'<td class="{_level_name(level)}" title="layer {layer}, {token}: {signed(value)}">'
            f"{signed(value)}</td>"
            for level, token, value in zip(levels[layer], shown, matrix[layer], strict=True)
        )
        rows.append(f'<tr><th scope="row">{layer}</th>{cells}</tr>')
    name = html.escape(title)
    page = (
        f'{CARD_CSS}{_TOKENS_CSS}{_GRID_CSS}<figure class="ec-card ec-tokens"><figcaption>{name}'
        f"</figcaption>{_token_scale(step, unit, clipped=False)}"
        f'<div class="ec-grid-frame" role="region" tabindex="0" aria-label="{name}">'
        f'<table class="ec-grid"><thead><tr><th scope="col">layer</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></figure>"
    )
    peak = np.unravel_index(np.abs(matrix).argmax(), matrix.shape)
    largest = f"largest {signed(matrix[peak])} at layer {peak[0]}, {tokens[peak[1]]!r}"
    return View(page, f"{title}: {''.join(tokens)}; {largest}")


# --- tables for display --------------------------------------------------------------------------

# `dataframe` is the class whose colours the book's theme and JupyterLab know in both modes.
_TABLE_CSS = """<style>
.ec-table{max-width:100%;overflow-x:auto}
.ec-table table{margin:0}
.ec-table table caption{caption-side:top;text-align:left;padding:.2rem 0 .5rem}
.ec-table table th,.ec-table table td{text-align:left!important;vertical-align:top}
.ec-table table th,.ec-table table td{padding:.3rem .6rem}
.ec-table tbody th{font-weight:400;min-width:9rem}
.ec-table table .ec-num{text-align:right!important;white-space:nowrap}
.ec-table table .ec-num{font-variant-numeric:tabular-nums}
.ec-table code{white-space:normal;overflow-wrap:anywhere;margin-right:.2em;padding:0;font-size:.8em}
.ec-table .ec-verdict{min-width:7.5rem}
.ec-table small{display:block;opacity:.85}
</style>"""


def markup_table(caption: str, head: Mapping[str, str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; `head` maps each title to the class of its column, cells are ready HTML.

    The first cell of a row names the row.

    >>> table = markup_table("Calm", {"layer": "", "cosine": "ec-num"}, [("20", "0.62")])
    >>> table.partition("<tbody>")[2].partition("</tbody>")[0]
    '<tr><th scope="row">20</th><td class="ec-num">0.62</td></tr>'
    """
    classes = [f' class="{c}"' if c else "" for c in head.values()]
    top = "".join(
        f'<th scope="col"{c}>{html.escape(title)}</th>'
        for title, c in zip(head, classes, strict=True)
    )
    body = "".join(
        f'<tr><th scope="row">{first}</th>'
        + "".join(f"<td{c}>{cell}</td>" for cell, c in zip(cells, classes[1:], strict=True))
        + "</tr>"
        for first, *cells in rows
    )
    name = html.escape(caption)
    # The frame takes the focus so that a keyboard can scroll it on a narrow screen.
    return (
        f'{_TABLE_CSS}<div class="ec-table" role="region" tabindex="0" aria-label="{name}">'
        f'<table class="dataframe"><caption>{name}</caption><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def measured(value: float | None, low: float | None, high: float | None) -> str:
    """Return a value with its interval, whose width shows with two digits.

    >>> measured(0.6234, 0.51, 0.74), measured(0.6234, 0.6229, 0.6239), measured(0.6234, None, None)
    ('0.62 [0.51, 0.74]', '0.6234 [0.6229, 0.6239]', '0.623')
    """
    if pd.isna([value, low, high]).any() or not high > low:
        return _plain(value)
    decimals = min(6, max(0, math.ceil(1 - math.log10(high - low))))
    shown = [signed(x, f",.{decimals}f") for x in (value, low, high)]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


def paper_beside_ours(table: pd.DataFrame, *, caption: str) -> View:
    """Return a table that sets the paper's number of each claim beside ours, with a verdict.

    Parameters
    ----------
    table : DataFrame
        One row a claim: ``claim`` (str), ``paper`` (str or float), ``value``, ``low``, ``high``
        and ``n`` (NaN or None where not measured), ``what`` (str: what the number is; may be
        empty), and ``verdict``, a verdict of ``results``.
    caption : str
        Set above the table.

    Raises
    ------
    BadInput
        On an empty table, a missing column, or an unknown verdict.

    Examples
    --------
    >>> row = {"claim": "PC1 is pleasure", "what": "r", "paper": 0.81, "verdict": "supported"}
    >>> row |= {"value": 0.7, "low": 0.55, "high": 0.8, "n": 45}
    >>> print(paper_beside_ours(pd.DataFrame([row]), caption="Geometry").text)
    Geometry
    PC1 is pleasure: paper 0.81, ours 0.70 [0.55, 0.80] n = 45, supported
    """
    need_columns(table, "claim", "what", "paper", "value", "low", "high", "n", "verdict")
    rows, lines = [], [caption]
    for row in table.to_dict("records"):
        verdict = row["verdict"]
        if verdict not in VERDICTS:
            raise BadInput(f"unknown verdict {verdict!r}; {nearest(str(verdict), VERDICTS)}")
        paper, ours = _plain(row["paper"]), measured(row["value"], row["low"], row["high"])
        n = "" if pd.isna(row["n"]) else f"n = {int(row['n']):,}"
        lines.append(f"{row['claim']}: paper {paper}, ours {ours} {n}, {verdict}")
        what = f"<small>{html.escape(row['what'])}</small>" if row["what"] else ""
        rows.append(
            (
                html.escape(row["claim"]) + what,
                html.escape(paper),
                ours + (f"<small>{n}</small>" if n else ""),
                f'<span aria-hidden="true">{SYMBOLS[verdict]}</span> {verdict}',
            )
        )
    head = {"claim": "", "paper": "ec-num", "ours [95 % interval]": "ec-num"}
    head |= {"verdict": "ec-verdict"}
    return View(markup_table(caption, head, rows), "\n".join(lines))


def numbers_table(rows: pd.DataFrame, *, caption: str) -> View:
    """Return a plain table: the first column names the row, the others hold texts or numbers.

    Parameters
    ----------
    rows : DataFrame
        Column names are the head; numbers are shown with two decimals, truth as yes or no, what
        is missing as a dash.
    caption : str
        Set above the table.

    Raises
    ------
    BadInput
        On an empty table.

    Examples
    --------
    >>> rows = pd.DataFrame({"emotion": ["calm"], "cosine": [0.5], "passes": [True], "n": [None]})
    >>> print(numbers_table(rows, caption="What is read").text)
    What is read
    calm: cosine 0.50, passes yes, n —
    """
    need_columns(rows)
    first, *columns = rows.columns
    cells, lines = [], [caption]
    for row in rows.to_dict("records"):
        shown = [_decimal(row[column]) for column in columns]
        cells.append((html.escape(str(row[first])), *map(html.escape, shown)))
        pairs = (f"{column} {text}" for column, text in zip(columns, shown, strict=True))
        lines.append(f"{row[first]}: {', '.join(pairs)}")
    head = {str(first): ""} | {
        str(column): "" if rows[column].map(type).eq(str).any() else "ec-num" for column in columns
    }
    return View(markup_table(caption, head, cells), "\n".join(lines))


def _decimal(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return "—" if value is None or pd.isna(value) else signed(float(value))


def logit_lens_table(rows: pd.DataFrame, *, caption: str) -> View:
    """Return a table of the tokens that each vector pushes up and down.

    Parameters
    ----------
    rows : DataFrame
        One row an emotion: ``emotion`` (str), ``top`` and ``bottom`` (lists of tokens, strongest
        first); optionally ``paper_top`` and ``paper_bottom`` to set beside them. Spaces within
        tokens are shown as ␣.
    caption : str
        Set above the table.

    Raises
    ------
    BadInput
        On an empty table or a missing column.

    Examples
    --------
    >>> rows = pd.DataFrame({"emotion": ["calm"], "top": [[" calm", " sea"]], "bottom": [["!"]]})
    >>> print(logit_lens_table(rows, caption="What it says").text)
    What it says
    calm: pushed up ' calm', ' sea'; pushed down '!'
    """
    need_columns(rows, "emotion", "top", "bottom")
    titles = {
        "top": "pushed up",
        "paper_top": "paper: up",
        "bottom": "pushed down",
        "paper_bottom": "paper: down",
    }
    columns = [column for column in titles if column in rows]
    cells, lines = [], [caption]
    for row in rows.to_dict("records"):
        shown = [[_shown(token, SPACES) for token in row[column]] for column in columns]
        codes = [" ".join(f"<code>{token}</code>" for token in tokens) for tokens in shown]
        cells.append((html.escape(row["emotion"]), *codes))
        listed = (f"{titles[c]} {', '.join(map(repr, row[c]))}" for c in columns)
        lines.append(f"{row['emotion']}: {'; '.join(listed)}")
    head = {"emotion": ""} | {titles[column]: "" for column in columns}
    return View(markup_table(caption, head, cells), "\n".join(lines))

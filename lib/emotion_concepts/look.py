"""What figures and views share without matplotlib: colours, the card, checks, numbers as text.

Modules that draw nothing, such as `audit`, have the same look through this one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from emotion_concepts.errors import BadInput, nearest

INK, SOFT, LINE = "#222222", "#5f6368", "#d5d8dc"
BLUE, ORANGE = "#0b6aa8", "#c75b00"
# Six colours that stay apart, and apart from grey, with red- or green-blind eyes (CIELAB distance
# of at least 22 under simulated deuteranopia and protanopia). Text is never set in them.
SERIES = (BLUE, ORANGE, "#56b4e9", "#882255", "#332288", "#e69f00")
CONTROL, BASELINE = "#9a9fa5", "#5d7f9c"
HUMAN = "#f3e6c4"  # what people agree on among themselves

# Negative is blue and positive is orange, everywhere; the lightness of both arms is the same.
DIVERGING = ("#08427a", "#3f86c0", "#a9cbe6", "#f7f7f7", "#f6c08a", "#dd7a1c", "#8a3e00")

# The card around a picture. Sphinx themes dim pictures and pad outputs in dark mode; a picture
# that brings its own card needs neither. `:has` reaches the wrapper that we do not write.
CARD_CSS = """<style>
.ec-card{--ec-bg:#fff;--ec-ink:#222;--ec-soft:#5f6368;--ec-line:#8b9096;
 box-sizing:border-box;max-width:100%;margin:0;padding:.6rem;border-radius:.4rem;
 background:var(--ec-bg);color:var(--ec-ink);font:14px/1.5 system-ui,sans-serif}
.ec-card img{display:block;max-width:100%;height:auto;margin:0;
 padding:0!important;background:#fff!important;filter:none!important}
.ec-card figcaption{color:var(--ec-soft);margin-top:.4rem;max-width:46rem;text-align:left}
.text_html:has(>.ec-card){background:none!important;padding:0!important}
</style>"""

_PATH = re.compile(r"^\S+$|^[./~]|[/\\]\S*\.[a-z]{2,4}\b|\.(png|svg|jpe?g|gif|webp|html?)\b", re.I)


# --- what every input must satisfy ---------------------------------------------------------------


def need_columns(table: pd.DataFrame, *columns: str) -> None:
    """Raise `BadInput` for an empty table, and for a missing column by its name.

    >>> need_columns(pd.DataFrame({"emotion": ["calm"], "cosine": [0.5]}), "emotion", "cosin")
    Traceback (most recent call last):
    ...
    emotion_concepts.errors.BadInput: the table has no column 'cosin'; did you mean cosine?
    """
    if len(table) == 0:
        raise BadInput("the table is empty: there is nothing to draw")
    for column in columns:
        if column not in table.columns:
            hint = nearest(str(column), map(str, table.columns))
            raise BadInput(f"the table has no column {column!r}; {hint}")


def square(matrix: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return the matrix as floats; raise `BadInput` unless it is [E, E], finite, E = len(names).

    >>> square([[1, 0], [0, 1]], ["calm", "afraid"]).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    >>> square([[1, 0]], ["calm", "afraid"])
    Traceback (most recent call last):
    ...
    emotion_concepts.errors.BadInput: matrix has shape (1, 2), names ask for (2, 2)
    """
    matrix = np.asarray(matrix, dtype=float)
    n = len(names)
    if n == 0 or matrix.shape != (n, n):
        raise BadInput(f"matrix has shape {matrix.shape}, names ask for ({n}, {n})")
    if not np.isfinite(matrix).all():
        raise BadInput("matrix holds values that are not finite")
    return matrix


def permutation(order: Sequence[int] | None, n: int) -> np.ndarray:
    """Return an order of n items, the given one by default; raise `BadInput` if it is none.

    >>> permutation(None, 3).tolist(), permutation([2, 0, 1], 3).tolist()
    ([0, 1, 2], [2, 0, 1])
    >>> permutation([2, 2, 1], 3)
    Traceback (most recent call last):
    ...
    emotion_concepts.errors.BadInput: order must hold each of 0 … 2 once
    """
    order = np.arange(n) if order is None else np.asarray(order)
    if order.shape != (n,) or not np.array_equal(np.sort(order), np.arange(n)):
        raise BadInput(f"order must hold each of 0 … {n - 1} once")
    return order


def colour_limit(matrix: np.ndarray, vmax: float | None) -> float:
    """Return vmax, by default the largest magnitude off the diagonal (on it, a cosine is 1).

    >>> cosines = np.array([[1.0, -0.4], [-0.4, 1.0]])
    >>> colour_limit(cosines, None), colour_limit(cosines, 1)
    (0.4, 1.0)
    """
    if vmax is None:
        apart = matrix[~np.eye(len(matrix), dtype=bool)]
        vmax = float(np.abs(apart).max(initial=0.0)) or 1.0
    if not vmax > 0:
        raise BadInput(f"vmax must be positive, got {vmax}")
    return float(vmax)


def finite(values: np.ndarray, what: str) -> np.ndarray:
    """Return the values; refuse any that are not finite, under the name `what`.

    >>> finite(np.array([0.5, np.nan]), "the reading")
    Traceback (most recent call last):
    ...
    emotion_concepts.errors.BadInput: the reading holds values that are not finite
    """
    if not np.isfinite(values).all():
        raise BadInput(f"{what} holds values that are not finite")
    return values


def check_alt(alt: str) -> str:
    """Return the alt text, or raise where it cannot stand for the picture.

    Raises
    ------
    BadInput
        When it is shorter than 20 characters or looks like a path.

    Examples
    --------
    >>> check_alt("Calm falls and  desperate rises. ")
    'Calm falls and desperate rises.'
    >>> check_alt("calm")
    Traceback (most recent call last):
    ...
    emotion_concepts.errors.BadInput: alt text 'calm' is too short: say in a sentence what is seen
    """
    alt = " ".join(str(alt).split())
    if len(alt) < 20:
        raise BadInput(f"alt text {alt!r} is too short: say in a sentence what is seen")
    if _PATH.search(alt):
        raise BadInput(f"alt text {alt!r} looks like a path: say in a sentence what is seen")
    return alt


# --- numbers and tokens as text -------------------------------------------------------------------

SPACES = {" ": "␣", "\n": "↵", "\t": "⇥"}


def signed(value: float, form: str = ".2f") -> str:
    """Return a number with a true minus sign, and none on a zero.

    >>> signed(-0.25), signed(-0.001), signed(-1234.5, ",.0f")
    ('−0.25', '0.00', '−1,234')
    """
    text = format(value, form)
    return text.removeprefix("-") if not text.strip("-0.,%") else text.replace("-", "−")


def visible(text: str, marks: Mapping[str, str] = SPACES) -> str:
    """Return a token with marks, or codes, for what would not be seen.

    >>> visible(" two\\n\\x00")
    '␣two↵\\\\x00'
    """
    return "".join(
        marks.get(c) or (c if c.isprintable() else c.encode("unicode_escape").decode())
        for c in text
    )

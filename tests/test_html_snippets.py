"""Views of tokens, as snippets and layer by layer: what they mark, say and refuse."""

import html
import re

import numpy as np
import pytest

from emotion_concepts.errors import BadInput
from emotion_concepts.experiments.natural import Snippet
from emotion_concepts.html_views import snippets_view, token_layers_view

SNIPPETS = [
    Snippet(4, ["Run", " <i>", "!", "\n", "No"], np.array([0.2, 1.6, 2.5, -0.7, 1.5])),
    Snippet(9, ["calm", " sea"], np.array([0.1, -0.2])),
]


def view(snippets=SNIPPETS, threshold=1.5):
    return snippets_view(snippets, title="afraid <20>", threshold=threshold, unit="SD")


def paragraphs(page):
    """(class, title, text) of every token, a list a snippet."""
    shown = re.findall(r'<p class="ec-text">(.*?)</p>', page)
    span = re.compile(r'<span class="(\w+)" title="(.*?)">(.*?)</span>')
    return [[tuple(map(html.unescape, token)) for token in span.findall(text)] for text in shown]


def test_tokens_above_the_threshold_are_marked_and_the_highest_more():
    first, second = paragraphs(view().html)
    assert [level for level, _, _ in first] == ["p0", "p2", "p4", "p0", "p0"]
    assert [level for level, _, _ in second] == ["p0", "p0"], "no peak below the threshold"


def test_marks_have_lines_that_show_without_colour():
    page = view().html
    for level, width in (("p0", 0), ("p2", 2), ("p4", 4)):
        assert re.search(rf"\.{level}\{{background:#\w+;border-bottom:{width}px solid", page)


def test_every_token_says_its_value_and_the_scale_its_threshold():
    page = view().html
    first, _ = paragraphs(page)
    assert [title for _, title, _ in first][1:4] == [
        "' <i>': 1.60 SD",
        "'!': 2.50 SD",
        "'\\n': −0.70 SD",
    ]
    assert "SD:&nbsp;" in page and ">above 1.50<" in page and ">highest of its snippet<" in page


def test_text_is_escaped_and_runs_on_over_line_breaks():
    page = view().html
    assert "<i>" not in page and "afraid &lt;20&gt;" in page
    assert "".join(text for _, _, text in paragraphs(page)[0]) == "Run <i>!↵ No"
    assert not re.search(r"https?:|<script|url\(", page)
    assert view().text == "afraid <20>:\nRun <i>!\nNo\ncalm sea"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"snippets": []}, "no snippets"),
        ({"threshold": np.nan}, "threshold"),
        ({"snippets": [Snippet(0, ["a", "b"], np.array([1.0]))]}, "values have shape"),
        ({"snippets": [Snippet(0, ["a"], np.array([np.inf]))]}, "not finite"),
    ],
)
def test_snippets_that_cannot_be_shown_are_refused(changes, says):
    with pytest.raises(BadInput, match=says):
        view(**changes)


# --- layers by tokens --------------------------------------------------------------------------

GRID = np.array([[0.0, 0.1, -0.1], [0.0, 0.4, -0.4]])


def grid(matrix=GRID, tokens=("So", " <b>", "\n")):
    return token_layers_view(matrix, tokens, title="happy & sad", unit="cosine")


def test_the_last_layer_stands_on_top_and_every_cell_tells_its_value():
    page = grid().html
    assert re.findall(r'<th scope="row">(\d+)</th>', page) == ["1", "0"]
    cells = re.findall(r'<td class="(\w+)" title="(.*?)">(.*?)</td>', page)
    assert [level for level, _, _ in cells] == ["p0", "p4", "n4", "p0", "p1", "n1"]
    assert html.unescape(cells[1][1]) == "layer 1, ␣<b>: 0.40" and cells[2][2] == "−0.40"
    assert [html.unescape(x) for x in re.findall(r'<th scope="col">(.*?)</th>', page)] == [
        "layer",
        "So",
        "␣<b>",
        "↵",
    ]


def test_levels_of_the_grid_show_without_colour_and_have_a_scale():
    page = grid().html
    assert re.search(r"td\.p4\{background:#\w+;border-bottom:4px solid", page)
    assert re.search(r"td\.n4\{background:#\w+;border-bottom:4px dotted", page)
    assert "nearest of:" in page and "http" not in page
    assert "largest 0.40 at layer 1, ' <b>'" in grid().text


@pytest.mark.parametrize("matrix", [np.zeros((2, 2)), np.zeros(3), np.full((1, 3), np.nan)])
def test_a_grid_must_fit_its_tokens_and_be_finite(matrix):
    with pytest.raises(BadInput):
        grid(matrix)

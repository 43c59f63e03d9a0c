"""The views in a real browser, from file://: pointing, keys, search, dark mode, narrow screens."""

import numpy as np
import pytest

from emotion_concepts import html_views

pytestmark = pytest.mark.book
playwright = pytest.importorskip("playwright.sync_api")

NAMES = [f"emotion {i}" for i in range(40)]
VECTORS = np.random.default_rng(0).normal(size=(40, 6))
COSINES = VECTORS @ VECTORS.T
COSINES /= np.sqrt(np.outer(np.diag(COSINES), np.diag(COSINES)))
TOKENS = ["<|im_start|>", "\n", "My", " dog", " <b>", " died", ".", *[" a long tale"] * 30]
VALUES = np.linspace(-0.3, 0.3, len(TOKENS))
ALT = "Cosines between forty made-up emotion vectors, without any structure."

PAGE = """<!doctype html><html lang="en" {theme}><head><meta charset="utf-8"><title>Views</title>
<meta name="viewport" content="width=device-width"><style>body{{margin:8px}}
html[data-theme=dark] body{{background:#121212;color:#ccc}}</style></head><body>{body}</body></html>
"""

# The contrast of each element's own text with the nearest background that is not transparent.
CONTRASTS = """() => {
  const light = rgb => rgb.map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const parse = c => c.match(/[\\d.]+/g).map(Number);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll(".ec-card *")]
    .filter(e => !["SCRIPT", "STYLE", "NOSCRIPT", "OPTION", "DATALIST"].includes(e.tagName))
    .filter(e => e.tagName === "INPUT" || [...e.childNodes].some(n => n.nodeType === 3
      && n.textContent.trim()))
    .map(e => {
      const [a, b] = [light(parse(getComputedStyle(e).color).slice(0, 3)), light(behind(e))];
      return [e.className || e.tagName, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    });
}"""


@pytest.fixture
def opened(open_page):
    """Return a function that opens views as a page."""

    def opened(*views, width=900, theme="", **about):
        body = "".join(view.html for view in views)
        return open_page(PAGE.format(theme=theme, body=body), width, **about)

    return opened


@pytest.fixture(scope="module")
def heatmap():
    return html_views.heatmap_view(COSINES, NAMES, alt=ALT)


@pytest.fixture(scope="module")
def tokens():
    return html_views.tokens_view(TOKENS, VALUES, title="sad, layer 20")


def said(row, column):
    value = f"{COSINES[row, column]:.2f}".replace("-0.00", "0.00").replace("-", "−")
    return f"{NAMES[row]} × {NAMES[column]}: {value}"


def centre(page, row, column):
    box = page.locator("canvas").bounding_box()
    side = box["width"] / len(NAMES)
    return box["x"] + (column + 0.5) * side, box["y"] + (row + 0.5) * side


def test_pointing_at_a_cell_reads_it_out_exactly(opened, heatmap):
    page = opened(heatmap)
    for row, column in ((0, 0), (3, 17), (39, 12), (25, 38)):
        page.mouse.move(*centre(page, row, column))
        assert page.get_by_role("status").inner_text() == said(row, column)


def test_arrow_keys_read_cell_after_cell(opened, heatmap):
    page = opened(heatmap)
    page.get_by_label("Find an emotion").focus()
    page.keyboard.press("Tab")
    stops = ["ArrowDown", "ArrowDown", "ArrowRight", "Shift+ArrowRight", "ArrowLeft", "ArrowUp"]
    cells = [(0, 0), (1, 0), (1, 1), (1, 11), (1, 10), (0, 10)]
    for key, cell in zip(stops, cells, strict=True):
        page.keyboard.press(key)
        assert page.get_by_role("status").inner_text() == said(*cell)


def test_search_jumps_to_an_emotion_and_says_when_there_is_none(opened, heatmap):
    page = opened(heatmap)
    box = page.get_by_label("Find an emotion")
    box.fill("Emotion 23")
    box.press("Enter")
    apart = np.delete(np.arange(40), 23)
    nearest = NAMES[apart[np.argmax(COSINES[23, apart])]]
    text = page.get_by_role("status").inner_text()
    assert text.startswith(f"{said(23, 23)}. Highest with {nearest} ")
    box.fill("zest")
    box.press("Enter")
    assert page.get_by_role("status").inner_text() == "No emotion is called “zest”."


def test_touch_reads_a_cell(opened, heatmap):
    page = opened(heatmap, width=390, has_touch=True, is_mobile=True)
    page.touchscreen.tap(*centre(page, 7, 30))
    assert page.get_by_role("status").inner_text() == said(7, 30)


def test_the_picture_has_its_alt_text_and_a_named_scale(opened, heatmap):
    page = opened(heatmap)
    assert page.get_by_role("application", name=ALT).count() == 1
    scale = page.get_by_role("img", name="Colour scale of cosine")
    assert scale.bounding_box()["width"] > 100


def test_cells_are_blue_below_zero_and_orange_above(opened, heatmap):
    page = opened(heatmap)
    pixels = np.array(
        page.evaluate(
            "Array.from(document.querySelector('canvas').getContext('2d')"
            ".getImageData(0, 0, 40, 40).data)"
        )
    ).reshape(40, 40, 4)
    clear = np.abs(COSINES) > 0.1
    assert ((pixels[..., 0] > pixels[..., 2]) == (COSINES > 0))[clear].all()


@pytest.mark.parametrize("width", [390, 900])
def test_nothing_is_wider_than_the_screen(opened, heatmap, tokens, width):
    page = opened(heatmap, tokens, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(
    ("theme", "system"),
    [
        ('data-theme="dark"', "light"),
        ('data-theme="light"', "dark"),
        ("", "dark"),
        ("", "light"),
    ],
)
def test_text_is_legible_in_light_and_dark(opened, heatmap, tokens, theme, system):
    page = opened(heatmap, tokens, theme=theme, color_scheme=system)
    dark = "dark" in (theme or system)
    card = page.evaluate("getComputedStyle(document.querySelector('.ec-heat')).backgroundColor")
    assert (card != "rgb(255, 255, 255)") == dark
    for where, contrast in page.evaluate(CONTRASTS):
        assert contrast >= 4.5, where


def test_tokens_show_markup_as_text_and_break_lines_where_the_text_does(opened, tokens):
    page = opened(tokens)
    text = page.locator(".ec-text").inner_text()
    assert text.startswith("<|im_start|>↵\nMy dog <b> died.")
    assert page.locator(".ec-text b").count() == 0


def test_token_strength_shows_when_colours_are_off(opened, tokens):
    page = opened(tokens, forced_colors="active")
    lines = page.evaluate(
        "[...document.querySelectorAll('.ec-text span')].map(e => getComputedStyle(e))"
        ".map(s => s.borderBottomStyle + ' ' + s.borderBottomWidth)"
    )
    assert lines[0] == "dotted 4px"
    assert lines[-1] == "solid 4px"
    assert len(set(lines)) == 9

"""The built site as a reader meets it: every page in a real browser, opened from its file.

The site is the folder in ``EMOTION_CONCEPTS_SITE``. Light and dark, wide and narrow.
"""

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.book

SITE = Path(os.environ.get("EMOTION_CONCEPTS_SITE", "no-site")).resolve()
PAGES = [path for path in sorted(SITE.rglob("*.html")) if "_static" not in path.parts]
SHORTEST_ALT = 20
WIDTHS = {"wide": 1280, "narrow": 390}


def test_there_is_a_site():
    assert (SITE / "index.html").exists(), "set EMOTION_CONCEPTS_SITE to a built site"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(SITE).as_posix())
def test_a_page_works_for_its_reader(chromium, path, scheme, width):
    size = {"width": WIDTHS[width], "height": 900}
    context = chromium.new_context(color_scheme=scheme, viewport=size)
    context.set_default_timeout(15_000)
    page = context.new_page()
    outside, errors = [], []
    page.on("request", lambda r: outside.append(r.url) if r.url.startswith("http") else None)
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: errors.append(e.message))
    page.goto(path.as_uri(), wait_until="load")
    page.wait_for_selector("main")  # index.html itself only leads to the first page
    page.evaluate("window.MathJax?.startup?.promise?.then(() => true)")
    text = page.locator("body").inner_text()
    alts = page.locator("article img").evaluate_all("all => all.map(i => i.getAttribute('alt'))")
    mode = page.evaluate("document.documentElement.dataset.theme")
    overflow = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    context.close()

    assert outside == []
    assert errors == []
    assert mode == scheme
    assert overflow <= 0, f"{overflow} pixels wider than the window"
    assert "Profile full" in text or "Profile ci" in text
    assert "{{" not in text and "Traceback" not in text
    assert [alt for alt in alts if not written(alt)] == []


def written(alt: str | None) -> bool:
    """Return whether alt text is a sentence, not the path that Sphinx puts there by default."""
    return bool(alt) and len(alt) >= SHORTEST_ALT and not alt.startswith(("../_images", "_images"))

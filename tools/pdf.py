"""The book as one PDF: Sphinx's single page, printed by Chromium."""

import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [  # a browser that asks nobody for anything
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
FOOTER = (
    '<p style="width: 100%; text-align: center; font: 8px sans-serif">'
    '<span class="pageNumber"></span> / <span class="totalPages"></span></p>'
)


def chromium_path() -> str:
    """Return the path of Chromium; playwright's own download of it is not needed."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        raise FileNotFoundError(f"no browser ({', '.join(CHROMIUM)}): install `chromium`")
    return found


def print_page(source: Path, target: Path) -> None:
    """Print an HTML file in light colours, with numbered pages and the headings as bookmarks.

    Folded solutions are unfolded; what else a printed page leaves out is in custom.css.
    """
    part = target.with_suffix(".part.pdf")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        page = browser.new_page(color_scheme="light")
        page.goto(source.resolve().as_uri(), timeout=300_000)
        page.evaluate("document.querySelectorAll('details').forEach((fold) => (fold.open = true))")
        page.evaluate("window.MathJax?.startup?.promise")
        page.pdf(
            path=part,
            format="A4",
            scale=0.7,
            margin={"top": "16mm", "bottom": "16mm", "left": "18mm", "right": "18mm"},
            print_background=True,
            display_header_footer=True,
            header_template="<p></p>",
            footer_template=FOOTER,
            outline=True,
            tagged=True,
        )
        browser.close()
    part.replace(target)

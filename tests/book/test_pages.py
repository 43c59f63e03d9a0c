"""The built site as a reader meets it: every page in a real browser, opened from its file.

The site is the folder in ``EMOTION_CONCEPTS_SITE``. Light and dark, wide and narrow; in the wide
window axe-core looks for barriers (WCAG 2 A and AA, and good practice).
"""

import os
from pathlib import Path

import pytest
from axe_playwright_python.base import AXE_SCRIPT

pytestmark = pytest.mark.book

SITE = Path(os.environ.get("EMOTION_CONCEPTS_SITE", "no-site")).resolve()
PAGES = [path for path in sorted(SITE.rglob("*.html")) if "_static" not in path.parts]
SHORTEST_ALT = 20
WIDTHS = {"wide": 1280, "narrow": 390}

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
# What the theme and Sphinx cause, not our sources: (rule, selector) and why it stays.
ALLOWED = {
    ("region", ".sidebar-primary-item"): "the theme's logo and search stand outside its landmarks",
}
MET = {"pages": set(), "allowed": set()}

# Contrast is a matter of looks: of all elements with text that look alike the first is judged, and
# the others are hidden. A page has thousands of tokens and cells, and a few dozen looks.
HIDE_ALIKE = """() => {
  const seen = new Set();
  const look = element => {
    const own = getComputedStyle(element);
    const parts = [own.color, own.fontSize, own.fontWeight];
    for (let e = element; e; e = e.parentElement) {
      const style = getComputedStyle(e);
      if (style.opacity !== "1") parts.push(style.opacity);
      if (style.backgroundColor !== "rgba(0, 0, 0, 0)") {
        parts.push(style.backgroundColor);
        break;
      }
    }
    return parts.join();
  };
  const texts = [...document.querySelectorAll("article *")]
    .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
    .filter(e => e.checkVisibility({visibilityProperty: true}))
    .map(e => [e, look(e)]);
  for (const [element, key] of texts) {
    element.style.visibility = seen.has(key) ? "hidden" : "visible";
    seen.add(key);
  }
}"""

# Everything is shown again; in code the colours, which are thousands of elements, have been judged.
SHOW_ALL = """() => {
  for (const element of document.querySelectorAll("article *")) element.style.visibility = "";
  for (const code of document.querySelectorAll("article :is(pre, .sig-line, .sig-param)"))
    code.textContent = code.textContent;
}"""

# Returns [rule, selector of the element, what is wrong, numbers of the ALLOWED that it matches].
AXE = """async ([rules, tags, allowed]) => {
  const only = rules ? {type: "rule", values: rules} : {type: "tag", values: tags};
  const off = rules ? {} : {"color-contrast": {enabled: false}};
  const options = {
    resultTypes: ["violations"], elementRef: true, preload: false, runOnly: only, rules: off,
  };
  const {violations} = await axe.run(document, options);
  return violations.flatMap(rule => rule.nodes.map(node => [
    rule.id, node.target.join(" "),
    [rule.help, ...[...node.any, ...node.all, ...node.none].map(check => check.message)].join("; "),
    allowed.flatMap(([id, selector], n) =>
      id === rule.id && node.element.matches(selector) ? [n] : []),
  ]));
}"""


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
    outputs = "".join(page.locator(".cell_output").all_inner_texts())
    alts = page.locator("article img").evaluate_all("all => all.map(i => i.getAttribute('alt'))")
    mode = page.evaluate("document.documentElement.dataset.theme")
    overflow = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    found = barriers(page, scheme) if width == "wide" else []
    context.close()

    assert outside == []
    assert errors == []
    assert mode == scheme
    assert overflow <= 0, f"{overflow} pixels wider than the window"
    assert "Profile full" in text or "Profile ci" in text
    assert "{{" not in text and "Traceback" not in outputs
    assert [alt for alt in alts if not written(alt)] == []
    where = path.relative_to(SITE).as_posix()
    assert not found, "\n".join([f"barriers on {where} ({scheme}):", *found])
    MET["pages"] |= {(path, scheme, width)}


def test_a_planted_barrier_would_be_seen_once(chromium, tmp_path):
    pale = '<p style="color: #aaa">Pale.</p>'
    file = tmp_path / "page.html"
    file.write_text(
        '<!doctype html><html lang="en"><title>Planted</title><main><article><h1>Planted</h1>'
        f"{pale}{pale}<p>Black.</p><button></button></article></main></html>"
    )
    page = chromium.new_page()
    page.goto(file.as_uri())
    found = {scheme: barriers(page, scheme) for scheme in ("dark", "light")}
    page.close()
    assert [line.split()[0] for line in found["dark"]] == ["color-contrast"]
    assert [line.split()[0] for line in found["light"]] == ["button-name", "color-contrast"]


def test_every_barrier_that_is_allowed_is_still_there():
    if len(MET["pages"]) < len(PAGES) * 2 * len(WIDTHS):
        pytest.skip("not every page was visited, or some failed")
    assert ALLOWED.keys() - MET["allowed"] == set(), "take these out of ALLOWED"


def barriers(page, scheme: str) -> list[str]:
    """Return what axe-core finds, a line each; what does not depend on colours once, in light."""
    page.evaluate(AXE_SCRIPT)
    page.evaluate(HIDE_ALIKE)
    found = page.evaluate(AXE, [["color-contrast"], TAGS, list(ALLOWED)])
    if scheme == "light":
        page.evaluate(SHOW_ALL)
        found += page.evaluate(AXE, [None, TAGS, list(ALLOWED)])
    MET["allowed"] |= {list(ALLOWED)[n] for *_, matches in found for n in matches}
    lines = [f"{rule} at {target}: {what}" for rule, target, what, matches in found if not matches]
    return sorted(lines)


def written(alt: str | None) -> bool:
    """Return whether alt text is a sentence, not the path that Sphinx puts there by default."""
    return bool(alt) and len(alt) >= SHORTEST_ALT and not alt.startswith(("../_images", "_images"))

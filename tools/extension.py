"""A Sphinx extension for the book: links to names of the library, HTML for screen readers.

A docstring names things as its module does: `pca`, `tracing.lens_logits`, or one of its own
parameters. What the reference documents becomes a link; any other name in backticks stays code,
while a role such as ``:func:`` that leads nowhere is still an error.
"""

from __future__ import annotations

import re

PACKAGE = "emotion_concepts"
SIGNATURE = re.compile(r"<dl>\n(<dd>.*?)</dl>", re.DOTALL)
PLACES = (PACKAGE, f"{PACKAGE}.experiments", f"{PACKAGE}.errors")


def link(app, env, node, contnode):
    """Return a link to a name that is not known as written, or None."""
    if node.get("refdomain") != "py":
        return None
    domain, kind = env.domains["py"], node["reftype"]
    for place in PLACES:
        full = f"{place}.{node['reftarget']}"
        if full in domain.objects:
            return domain.resolve_xref(env, node["refdoc"], app.builder, kind, full, node, contnode)
    return contnode if kind == "obj" else None


def mend(app, name, template, context, doctree) -> None:
    """Mend what no screen reader can make sense of in Sphinx's own HTML.

    Entries of the bibliography become items of their list. The lines of a long signature are a
    list of definitions without terms; they become plain lines.
    """
    if "body" in context:
        body = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')
        context["body"] = SIGNATURE.sub(_plain_lines, body)


def _plain_lines(signature: re.Match) -> str:
    return signature[1].replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")


def setup(app) -> dict:
    """Register with Sphinx."""
    app.connect("missing-reference", link)
    app.connect("html-page-context", mend)
    return {"parallel_read_safe": True}

"""The printed book: pages, bookmarks, what is unfolded and what is left out."""

import shutil

import pytest
from pypdf import PdfReader

import run
from tools import pdf
from tools.book import Book, BuildError

CHAPTER = """
# A chapter

What the chapter says.

## A section

More of it.
"""


def words(path) -> str:
    return " ".join(" ".join(page.extract_text() for page in PdfReader(path).pages).split())


def bookmarks(outline) -> list[str]:
    flat = []
    for entry in outline:
        flat += bookmarks(entry) if isinstance(entry, list) else [entry.title]
    return flat


def test_solutions_are_unfolded_and_folded_code_is_left_out(tmp_path):
    style = (run.ROOT / "book/_static/custom.css").read_text()
    fold = '<div class="cell tag_{}"><details><summary>Fold</summary>{}</details></div>'
    page = tmp_path / "page.html"
    page.write_text(
        f"<meta charset=utf-8><style>{style}</style><h1>Title</h1>"
        + fold.format("hide-cell", "the solution")
        + fold.format("hide-input", "the code")
    )
    pdf.print_page(page, tmp_path / "book.pdf")
    told = words(tmp_path / "book.pdf")
    assert "the solution" in told
    assert "the code" not in told
    assert [path.name for path in tmp_path.glob("*.pdf")] == ["book.pdf"]


def test_the_book_is_printed_with_a_page_and_a_bookmark_a_chapter(tmp_path):
    pytest.importorskip("jupyter_book", reason="what renders the book is not installed")
    book = Book(run.ROOT, tmp_path / "build" / "ci", "ci")
    staged = book.build / "src"
    (staged / "book").mkdir(parents=True)
    (book.build / "log").mkdir()
    shutil.copytree(run.ROOT / "book/_static", staged / "book/_static")
    shutil.copy(run.ROOT / "book/references.bib", staged / "book")
    shutil.copy(run.ROOT / "_config.yml", staged)
    (staged / "_toc.yml").write_text(
        "format: jb-book\nroot: book/intro\nchapters: [{file: book/one}, {file: book/two}]\n"
    )
    (staged / "book/intro.md").write_text("# The title\n\nTo begin with, [two](two.md).\n")
    for name in ("one", "two"):
        (staged / f"book/{name}.md").write_text(CHAPTER.replace("chapter", f"chapter {name}"))
    book.print(staged)
    made = PdfReader(book.pdf)
    assert {"A chapter one", "A chapter two", "A section"} <= set(bookmarks(made.outline))
    [first] = [n for n, page in enumerate(made.pages) if "chapter one says" in page.extract_text()]
    [second] = [n for n, page in enumerate(made.pages) if "chapter two says" in page.extract_text()]
    assert second == first + 1


def test_without_a_browser_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    book = Book(run.ROOT, tmp_path / "build", "full")
    made = tmp_path / "singlehtml"
    (made / "book").mkdir(parents=True)
    (made / "book/intro.html").write_text("<h1>Title</h1>")
    monkeypatch.setattr(Book, "_sphinx", lambda *_: made)
    with pytest.raises(BuildError, match="install `chromium`"):
        book.print(tmp_path)

"""A text in spans, which join to it letter for letter, and the text without one of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from emotion_concepts.corpus import load_neutral

SHORT_LINE = 60  # prose that is wrapped has longer lines; after a shorter one something new begins

_FENCE = re.compile(r"\s*(```|~~~)")
_MARK = re.compile(r"[ \t]*(?:[-*+•]|\d{1,3}[.)]|[a-z]\))[ \t]+(?=\S)")
_HEADING = re.compile(r"#{1,6}\s")
_END = re.compile(r"[.!?…]+[\"'”’»)\]*_`]*\s+(?![a-z])|[。！？]+[”’」』）]*\s*")
_NO_END = re.compile(r"\b(?:e\.g|i\.e|vs|cf|approx|Dr|Mrs?|Ms|Prof|St|[A-Z])\.\s+$")
_NUMBERED = re.compile(r"\b(?:[Nn]os?|[Ff]igs?|pp?|ch|[Ss]ec|vol)\.\s+$")


def split_spans(text: str) -> list[str]:
    """Return sentences, list items, headings and blocks of code, which join to the text.

    White space goes with what stands before it. A list item is one span, however many sentences
    it has.

    >>> split_spans("Use e.g. version 3.5. It failed!\\n- Be quick\\n- Ask Dr. Lund\\n")
    ['Use e.g. version 3.5. ', 'It failed!\\n', '- Be quick\\n', '- Ask Dr. Lund\\n']
    """
    found: list[str] = []
    for block in _blocks(text):
        whole = _MARK.match(block) or _HEADING.match(block) or _FENCE.match(block)
        for piece in [block] if whole else _sentences(block):
            if found and not (piece.strip() and found[-1].strip()):
                found[-1] += piece
            else:
                found.append(piece)
    return found


def _blocks(text: str) -> Iterator[str]:
    """Yield runs of lines that belong together: a paragraph, a list item, a block of code."""
    block, fenced = "", ""
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        fence = _FENCE.match(line)
        if not fenced and block and (fence or _begins(line, block)):
            yield block
            block = ""
        block += line
        if fence and fence[1] == (fenced or fence[1]):
            if fenced:
                yield block
                block = ""
            fenced = "" if fenced else fence[1]
    if block:
        yield block


def _begins(line: str, block: str) -> bool:
    """Say whether a line begins something new after the lines of a block."""
    if not line.strip():
        return False
    last = block.rstrip("\n").rpartition("\n")[2]
    if _MARK.match(line) or _HEADING.match(line) or _HEADING.match(last) or block.endswith("\n\n"):
        return True
    goes_on = line[0].isspace() if _MARK.match(block) else len(last) >= SHORT_LINE
    return not (goes_on or line[0].islower()) or last.rstrip().endswith(":")


def _sentences(block: str) -> Iterator[str]:
    start = 0
    for end in _END.finditer(block):
        before, after = block[start : end.end()], block[end.end() :]
        if not (_NO_END.search(before) or (after[:1].isdigit() and _NUMBERED.search(before))):
            yield before
            start = end.end()
    if start < len(block):
        yield block[start:]


def without(spans: Sequence[str], n: int) -> str:
    """Return a text less one of its spans, with the wider gap of the two that it stood between.

    >>> without(["One. ", "Two. ", "Three."], 1)
    'One. Three.'
    """
    head, tail = "".join(spans[:n]), "".join(spans[n + 1 :])
    stem, gap = head.rstrip(), spans[n][len(spans[n].rstrip()) :]
    before = head[len(stem) :]
    if not (stem and tail.strip()):  # nothing to keep apart: the text ends as it ended
        return stem + (tail if tail else gap if stem else "")
    return stem + max(before, gap, key=lambda x: (x.count("\n"), len(x))) + tail


def instead(spans: Sequence[str], n: int, filler: str) -> str:
    """Return a text with a filler in the place of a span; a list item keeps its mark.

    >>> instead(["- one\\n", "- two\\n"], 1, "tea")
    '- one\\n- tea\\n'
    """
    mark, core = _MARK.match(spans[n]), spans[n].rstrip()
    filled = (mark[0] if mark else "") + filler + spans[n][len(core) :]
    return "".join([*spans[:n], filled, *spans[n + 1 :]])


class Fillers:
    """Neutral sentences, one after another, to be cut to any length.

    >>> Fillers().like("I am desperate!", 2)
    ['Each had a bag.', 'Close the cover.']
    """

    def __init__(self):
        passages = load_neutral().query("kind == 'passage'").text
        split = [[s.strip() for s in split_spans(text)] for text in passages]
        self.sentences = [s for part in split for s in part]
        self.passage = np.repeat(np.arange(len(split)), [len(part) for part in split])
        ends = np.cumsum([len(s) + 1 for s in self.sentences])
        starts = np.concatenate([[0], ends[:-1]])
        self.lengths = (ends[None] - 1 - starts[:, None]).astype(float)  # of runs, first by last
        self.lengths[np.tril_indices(len(ends), -1)] = np.inf

    def like(self, text: str, n: int) -> list[str]:
        """Return n runs of sentences whose lengths are nearest, each from another passage."""
        miss = np.abs(self.lengths - len(text))
        stop = miss.argmin(1)
        order = np.argsort(miss.min(1), kind="stable")
        _, first = np.unique(self.passage[order], return_index=True)
        chosen = order[np.sort(first)[:n]]
        return [" ".join(self.sentences[k : stop[k] + 1]) for k in chosen]

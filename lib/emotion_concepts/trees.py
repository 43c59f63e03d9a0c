"""Prompts and their options as trees of tokens, in which what begins alike stands once.

A token sees the tokens above it and no others, so each option is read as if it stood alone after
its prompt, and prompts that begin alike share the reading of their beginning. Lists of token ids
alone; `tracing` gives the trees to a model, a row each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

Ids = Sequence[int]
Item = tuple[Ids, Sequence[Ids]]  # a prompt, and what may follow it


@dataclass(frozen=True)
class Tree:
    """Token ids in an order in which each stands behind the one that it follows.

    Attributes
    ----------
    tokens : list of int, n
    parents : list of int, n
        Place of the token that each follows, -1 for none.
    start : int
        From this place on, logits are needed: the last tokens of prompts, and all after them.
    prompts : one list of places an item
    options : one list of places an option, k lists an item
    """

    tokens: list[int]
    parents: list[int]
    start: int
    prompts: list[list[int]]
    options: list[list[list[int]]]

    @classmethod
    def grow(cls, items: Sequence[Item]) -> Tree:
        """Return the tree of some prompts and their options.

        The tokens of a single prompt keep their order, and its options come after it.

        >>> tree = Tree.grow([([5, 6], [[7], [8, 9]]), ([5, 4], [[7], [8]])])
        >>> tree.tokens, tree.parents, tree.start
        ([5, 6, 7, 8, 9, 4, 7, 8], [-1, 0, 1, 1, 3, 0, 5, 5], 1)
        >>> tree.prompts, tree.options
        ([[0, 1], [0, 5]], [[[2], [3, 4]], [[6], [7]]])
        """
        tokens, parents, found = _merged(items)
        late = np.zeros(len(tokens), dtype=bool)
        late[[prompt[-1] for prompt, _ in found]] = True
        for node, parent in enumerate(parents):
            late[node] |= parent >= 0 and late[parent]
        order = np.argsort(late, kind="stable")
        place = np.argsort(order).tolist()
        return cls(
            tokens=[tokens[node] for node in order],
            parents=[place[parents[node]] if parents[node] >= 0 else -1 for node in order],
            start=int((~late).sum()),
            prompts=[[place[node] for node in prompt] for prompt, _ in found],
            options=[[[place[node] for node in path] for path in paths] for _, paths in found],
        )

    @property
    def branches(self) -> bool:
        """Whether it is more than one sequence of tokens, each after the one before.

        >>> Tree.grow([([5, 6], [])]).branches, Tree.grow([([5], [[6], [7]])]).branches
        (False, True)
        """
        return self.parents != list(range(-1, len(self.parents) - 1))

    @property
    def depths(self) -> np.ndarray:
        """``[n]``: how many tokens stand above each.

        >>> Tree.grow([([5, 6], [[7], [8, 9]])]).depths.tolist()
        [0, 1, 2, 2, 3]
        """
        depths = np.zeros(len(self.tokens), dtype=int)
        for node, parent in enumerate(self.parents):
            depths[node] = depths[parent] + 1 if parent >= 0 else 0
        return depths

    @property
    def seen(self) -> np.ndarray:
        """``[n, n]``: whether a token (row) sees another (column): itself and those above it.

        >>> Tree.grow([([5], [[7], [8]])]).seen.astype(int).tolist()
        [[1, 0, 0], [1, 1, 0], [1, 0, 1]]
        """
        seen = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen


def gather(items: Sequence[Item], d_model: int, *, most: int) -> list[list[int]]:
    """Return which items to read in one tree: neighbours in order, where that saves work.

    Fewer tokens are read, but each is held to all of its tree, seen or not: with n tokens about
    n (1 + n / (3 d_model)), in units of what a block does to a token apart from attention.

    Parameters
    ----------
    items : sequence of (prompt, options)
    most : int
        Tokens in one tree at most, if it holds several items.

    Examples
    --------
    >>> items = [([1] * 50 + [n], [[2, 3]]) for n in (7, 8)] + [([4] * 50, [[2, 3]])]
    >>> gather(items, 576, most=2048), gather(items, 576, most=54)
    ([[0, 1], [2]], [[0], [1], [2]])
    """
    *_, found = _merged(items)
    nodes = [set(prompt).union(*paths) for prompt, paths in found]

    def work(tokens: int) -> float:
        return tokens * (1 + tokens / (3 * d_model))

    groups: list[list[int]] = []
    held: set[int] = set()
    for n in sorted(range(len(items)), key=lambda n: list(items[n][0])):
        both = held | nodes[n]
        saves = work(len(both)) < work(len(held)) + work(len(nodes[n]))
        if groups and saves and len(both) <= most:
            groups[-1].append(n)
            held = both
        else:
            groups.append([n])
            held = nodes[n]
    return groups


def _merged(items: Iterable[Item]) -> tuple[list[int], list[int], list]:
    """Return (tokens, the one before each or -1, places of each item's prompt and options).

    >>> _merged([([5], [[6], [7]]), ([5, 6], [])])
    ([5, 6, 7], [-1, 0, 0], [([0], [[1], [2]]), ([0, 1], [])])
    """
    place: dict[tuple[int, int], int] = {}
    tokens, parents = [], []

    def path(node: int, sequence: Ids) -> list[int]:
        found = []
        for token in sequence:
            key = node, token
            if key not in place:
                place[key] = len(tokens)
                tokens.append(token)
                parents.append(node)
            node = place[key]
            found.append(node)
        return found

    found = []
    for prompt, options in items:
        head = path(-1, prompt)
        found.append((head, [path(head[-1], option) for option in options]))
    return tokens, parents, found

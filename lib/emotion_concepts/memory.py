"""How many texts go into one forward pass: a fixed number of tokens, or what GPUs have room for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

FIRST = 2048  # padded tokens of the pass that is measured
SHARE = 0.5  # of the free memory: later texts are shorter, which costs more a token where logits do


class Room:
    """The room for forward passes of one kind, asked before each and told how large each was.

    On GPUs the first pass is small. What a padded token of it took at its peak says how many fit
    into a share of the memory that is free, on the fullest of them; each further pass is measured,
    too, and the dearest counts.

    Parameters
    ----------
    most : int
        Padded tokens in one pass, whatever the room.
    gpus : sequence of int
        Those that hold the model; without, only `most` counts.
    new : int
        Tokens that each row grows by in a pass.

    Examples
    --------
    >>> room = Room(2048)
    >>> room.rows(100)
    20
    >>> room.halve(20, 100)
    >>> room.rows(100)
    10
    """

    def __init__(self, most: int, gpus: Sequence[int] = (), *, new: int = 0):
        self.most, self.gpus, self.new = most, gpus, new
        self.cost: dict[int, float] = {}  # bytes a token, by GPU

    def rows(self, width: int) -> int:
        """Return how many rows of `width` tokens go into the next pass, at least one."""
        measured = len(self.cost) == len(self.gpus)
        fitting = [(self.most if measured else min(self.most, FIRST)) // width]
        for gpu, cost in self.cost.items():
            fitting.append(int(SHARE * free(gpu) / cost) // (width + self.new))
        return max(1, min(fitting))

    @contextmanager
    def measured(self, rows: int, width: int) -> Iterator[None]:
        """Measure the pass inside; one that fails teaches nothing."""
        before = [torch.cuda.memory_allocated(gpu) for gpu in self.gpus]
        for gpu in self.gpus:
            torch.cuda.reset_peak_memory_stats(gpu)
        yield
        for gpu, start in zip(self.gpus, before, strict=True):
            cost = (torch.cuda.max_memory_allocated(gpu) - start) / (rows * (width + self.new))
            self.cost[gpu] = max(cost, self.cost.get(gpu, 1.0))

    def halve(self, rows: int, width: int) -> None:
        """Let no further pass be larger than half of one that did not fit."""
        self.most = rows // 2 * width


def free(gpu: int) -> int:
    """Return the bytes of a GPU that PyTorch can still hand out: free, or reserved and unused."""
    unused = torch.cuda.memory_reserved(gpu) - torch.cuda.memory_allocated(gpu)
    return torch.cuda.mem_get_info(gpu)[0] + unused

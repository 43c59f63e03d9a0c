"""Benchmark of the whole book, run by `python3 run.py bench`: every chapter, cold and then warm.

*Cold* begins with an empty cache, as on a clean machine; later chapters find there what earlier
ones have read. *Warm* executes the same chapters again and finds every pass. What is left then is
starting a kernel, loading the model, training, statistics and figures.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import emotion_concepts  # noqa: F401 -- before torch, whose threads it tells how to wait

# isort: split
from bench import timing
from emotion_concepts import models
from run import ROOT
from tools.book import Book

STATES = ("cold", "warm")


def main() -> None:
    parser = timing.arguments(__doc__, rounds=1)
    parser.add_argument("--profile", default="ci")
    chosen = parser.parse_args()
    seconds: dict[str, dict[str, list[float]]] = {}
    for _ in range(chosen.rounds):
        with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ):
            os.environ["EMOTION_CONCEPTS_CACHE"] = str(Path(folder, "cache"))  # of the kernels
            for state in STATES:
                book = Book(ROOT, Path(folder, state), chosen.profile, {"dtype": chosen.dtype})
                for stem in book.chapters:
                    start = time.perf_counter()
                    book.execute(stem)
                    took = seconds.setdefault(stem, {name: [] for name in STATES})[state]
                    took.append(time.perf_counter() - start)
                    print(f"{state}: {stem} {took[-1]:.0f} s", flush=True)
    rows = [{"chapter": stem, **took} for stem, took in seconds.items()]
    report = {"profile": chosen.profile, "chapters": rows}
    timing.write("book", models.load_model(dtype=chosen.dtype), report, chosen.out)


if __name__ == "__main__":
    main()

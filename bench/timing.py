"""What the benchmarks share: interleaved rounds, ratios, and a report with where it was made."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path

import torch

from emotion_concepts.cache import write_atomic
from emotion_concepts.frozen import hardware
from emotion_concepts.tracing import TracedModel

FOLDER = Path("build/bench")


def arguments(doc: str, *, rounds: int) -> argparse.ArgumentParser:
    """Return a parser of the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--out", type=Path, default=FOLDER)
    return parser


def interleaved(ways: Mapping[str, Callable], rounds: int) -> tuple[dict, dict]:
    """Do each way once a round, in turning order; a busy moment of the machine then hits all alike.

    Returns
    -------
    (seconds {way: [one a round]}, results {way: of the last round})
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results, names = {}, list(ways)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            results[name] = ways[name]()
            seconds[name].append(time.perf_counter() - start)
            print(f"round {number + 1}: {name} {seconds[name][-1]:.1f} s", flush=True)
    return seconds, results


def compared(seconds: Mapping[str, list[float]], what: float, difference: Mapping) -> list[dict]:
    """Return a row a way: what it did in a second, and how many times as fast the first way was.

    Parameters
    ----------
    what : float
        What one round does, in tokens or whatever is counted.
    difference : {way: number}
        How far its results lie from those of the first way.
    """
    first, *_ = seconds
    rows = []
    for name, took in seconds.items():
        ratios = [mine / own for own, mine in zip(seconds[first], took, strict=True)]
        rows.append(
            {
                "way": name,
                "per_second": what / statistics.median(took),
                "ratio": statistics.median(ratios),
                "low": min(ratios),
                "high": max(ratios),
                "difference": float(difference[name]),
            }
        )
    return rows


def write(name: str, model: TracedModel, report: dict, folder: Path) -> None:
    """Write and print a report, with model, machine and date."""
    made = {
        "model": model.identity.name,
        "parameters": sum(weight.numel() for weight in model.envoy._module.parameters()),
        "dtype": model.identity.dtype,
        "threads": torch.get_num_threads(),
        "hardware": hardware(),
        "date": date.today().isoformat(),
    }
    text = json.dumps(made | report, indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    with write_atomic(folder / f"{name}.json") as part:
        part.write_text(text + "\n")
    print(text)

"""Benchmark of pooled extraction, run by `python3 run.py bench`: one machine, one run, medians.

The library is timed against other ways of doing the same job on the same texts with the same
weights: plain transformers with forward hooks that pool in place (no nnsight, no cache), and the
loop most people write first, one text at a time with ``output_hidden_states=True``, both in the
library's precision and in the float32 that a plain load gives. Rounds are interleaved, so that a
busy moment of the machine hits all alike. Nothing is asserted here; the table says what was
measured. The library's rate is also written as a row of throughput.csv, from which
`emotion_concepts.cost` reckons what larger designs and models would take.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import emotion_concepts  # noqa: F401 -- before torch, whose threads it tells how to wait

# isort: split
import torch

from emotion_concepts import corpus, cost, models, tracing
from emotion_concepts.cache import write_atomic
from emotion_concepts.frozen import hardware
from emotion_concepts.tracing import MeanFrom

SKIP = corpus.SKIP["literary"]


def with_library(model, texts: list[str]) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        pooled = tracing.pooled_residuals(model, texts, MeanFrom(SKIP), cache=Path(folder))
        return np.asarray(pooled)


def with_hooks(model, texts: list[str]) -> np.ndarray:
    """The same batches and pooling through plain forward hooks on the decoder."""
    module, ids = model.envoy._module, tracing.tokenize(model, texts)
    out = np.empty((len(texts), model.n_layers, model.d_model), dtype=np.float32)
    for batch in tracing._batches(model, ids, progress=None):
        weights, pooled = MeanFrom(SKIP).weights(batch.mask).unsqueeze(1), []

        def pool(_module, _inputs, output, weights=weights, pooled=pooled):
            pooled.append(torch.bmm(weights, output.float()).squeeze(1))

        hooks = [block.register_forward_hook(pool) for block in module.model.layers]
        with torch.no_grad():
            module.model(**batch.inputs, use_cache=False)
        for hook in hooks:
            hook.remove()
        out[batch.rows] = torch.stack(pooled, 1).numpy()
    return out


def with_loop(model, texts: list[str]) -> np.ndarray:
    """One text at a time, all hidden states kept, the output head computed and thrown away."""
    module, rows = model.envoy._module, []
    for text in texts:
        inputs = model.tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            hidden = module(**inputs, output_hidden_states=True).hidden_states
        rows.append(torch.stack([h[0, SKIP:].float().mean(0) for h in hidden[1:]]).numpy())
    return np.stack(rows)


def matrix_product_rate(dtype: torch.dtype, size: int = 2048, rounds: int = 5) -> float:
    """Return this machine's best rate for a square matrix product, in GFLOP/s."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds[1:]) / 1e9


def peak_memory(n_texts: int, dtype: str) -> float:
    """Return the peak resident memory in MiB of a process that extracts `n_texts` afresh."""
    command = [sys.executable, __file__, "--memory", str(n_texts), "--dtype", dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def texts_of(n: int) -> list[str]:
    """Return n different texts of the usual lengths."""
    stories = corpus.load_stories("literary").text.tolist()
    return [stories[i % len(stories)] + " ." * (i // len(stories)) for i in range(n)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path("build/bench/extraction.json"))
    chosen = parser.parse_args()
    model = models.load_model(dtype=chosen.dtype)
    if chosen.memory:
        with tempfile.TemporaryDirectory() as folder:
            pool = MeanFrom(SKIP)
            tracing.pooled_residuals(model, texts_of(chosen.memory), pool, cache=Path(folder))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return

    texts = texts_of(chosen.texts)
    ids = tracing.tokenize(model, texts)
    real = sum(map(len, ids))
    padded = sum(b.mask.numel() for b in tracing._batches(model, ids, progress=None))
    ways = {
        "library": (with_library, model),
        "forward hooks": (with_hooks, model),
        "text by text": (with_loop, model),
        "text by text, float32": (with_loop, models.load_model(dtype="float32")),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    arrays = {}
    for number in range(chosen.rounds):
        turn = number % len(ways)
        for name in [*list(ways)[turn:], *list(ways)[:turn]]:
            way, loaded = ways[name]
            start = time.perf_counter()
            arrays[name] = way(loaded, texts)
            seconds[name].append(time.perf_counter() - start)
            print(f"round {number + 1}: {name} {seconds[name][-1]:.1f} s", flush=True)
    scale = np.abs(arrays["library"][:, :-1]).max()
    difference = {
        # transformers applies the final norm to the last hidden state, so leave that layer out
        name: float(np.abs(array[:, :-1] - arrays["library"][:, :-1]).max() / scale)
        for name, array in arrays.items()
    }
    rates = {name: real / statistics.median(took) for name, took in seconds.items()}
    module = model.envoy._module
    body = sum(p.numel() for p in module.model.layers.parameters())
    width = float(np.mean([len(row) for row in ids]))
    attention = 4 * model.n_layers * model.d_model * width / 2  # causal scores and values
    achieved = rates["library"] * (padded / real) * (2 * body + attention) / 1e9
    few, many = (peak_memory(n, model.identity.dtype) for n in (64, 512))
    report = {
        "model": model.identity.name,
        "dtype": model.identity.dtype,
        "threads": torch.get_num_threads(),
        "texts": len(texts),
        "real_tokens": real,
        "padded_per_real": padded / real,
        "tokens_per_second": rates,
        "library_over_hooks": rates["library"] / rates["forward hooks"],
        "library_over_loop": rates["library"] / rates["text by text"],
        "library_over_float32_loop": rates["library"] / rates["text by text, float32"],
        "relative_difference": difference,
        "gflops_library": achieved,
        "gflops_matrix_product": matrix_product_rate(next(module.parameters()).dtype),
        "peak_mib_64_texts": few,
        "peak_mib_512_texts": many,
    }
    with write_atomic(chosen.out) as part:
        part.write_text(json.dumps(report, indent=1) + "\n")
    speed = cost.measured(
        hardware(),
        model.identity.name,
        sum(weight.numel() for weight in module.parameters()),
        model.identity.dtype,
        rates["library"],
        how=f"bench/extraction.py: {len(texts)} stories read and pooled at all layers, "
        f"{report['threads']} threads, median of {chosen.rounds} rounds",
    )
    with write_atomic(chosen.out.with_name("throughput.csv")) as part:
        speed.to_csv(part, index=False)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()

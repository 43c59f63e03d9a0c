"""Benchmark of pooled extraction, run by `python3 run.py bench`.

The library is timed against other ways of doing the same job on the same texts with the same
weights: plain transformers with forward hooks that pool in place (no nnsight, no cache), the loop
most people write first, one text at a time with ``output_hidden_states=True``, the same in the
float32 that a plain load gives, and two packages that read residual streams, each through the
function that it has for it. These two read the last token, which is less than a mean, and they run
beside this library's torch and transformers, which their own bounds exclude: what differs is how
the texts are batched and what is computed. Nothing is asserted here; the table says what was
measured. Peak memory and time are also measured by the number of texts, and the recipe of the
vectors by the number of emotions. The library's rate becomes a row of throughput.csv, from which
`emotion_concepts.cost` reckons what larger designs and models would take.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil

import emotion_concepts  # noqa: F401 -- before torch, whose threads it tells how to wait

# isort: split
import torch

from bench import timing
from emotion_concepts import corpus, cost, models, tracing
from emotion_concepts.cache import write_atomic
from emotion_concepts.frozen import hardware
from emotion_concepts.tracing import MeanFrom
from emotion_concepts.vectors import EmotionVectors, Stacked

SKIP = corpus.SKIP["literary"]
PEERS = ("repeng==0.4.0", "steering-vectors==0.12.2")
PEER_BATCH = 16  # repeng's default of 32 keeps a gigabyte of logits for a vocabulary of this size
GROWTH = (32, 64, 96)  # texts
EMOTIONS = (20, 60, 171)


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


def with_repeng(model, texts: list[str]) -> np.ndarray:
    np.float_ = np.float64  # noqa: NPY201 -- the name that repeng uses, gone from NumPy 2
    from repeng.extract import batched_get_hiddens

    layers = list(range(model.n_layers))
    module = model.envoy._module
    hidden = batched_get_hiddens(module, model.tokenizer, texts, layers, PEER_BATCH)
    return np.stack([hidden[layer] for layer in layers], 1)


def with_steering_vectors(model, texts: list[str]) -> np.ndarray:
    from steering_vectors.train_steering_vector import extract_activations

    pairs = list(zip(texts[::2], texts[1::2], strict=True))  # it takes contrasts: two texts each
    found = extract_activations(
        model.envoy._module, model.tokenizer, pairs, batch_size=PEER_BATCH // 2
    )
    halves = [[torch.cat(half[layer]) for layer in sorted(half)] for half in found]
    both = torch.stack([torch.stack(half, 1) for half in halves], 1)
    return both.flatten(0, 1).float().numpy()


def peers(folder: Path) -> dict:
    """Return the ways of other packages, installed beside and not into the environment."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder)]
    if not folder.exists() and subprocess.run([*command, *PEERS]).returncode:
        print(f"LEFT OUT: {', '.join(PEERS)}, which pip could not install", flush=True)
        return {}
    sys.path.append(str(folder))
    return {
        "repeng, last token": with_repeng,
        "steering-vectors, last token": with_steering_vectors,
    }


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
    """Return the peak resident memory in MiB of a process that extracts `n_texts` afresh.

    The process is looked at from here: its own record of a peak would begin with this one's.
    """
    command = [sys.executable, "-m", "bench.extraction"]
    command += ["--only-read", str(n_texts), "--dtype", dtype]
    peak, child = 0, subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while child.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            peak = max(peak, psutil.Process(child.pid).memory_info().rss)
        time.sleep(0.02)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {child.returncode}")
    return peak / 2**20


def texts_of(n: int) -> list[str]:
    """Return n different texts of the usual lengths."""
    stories = corpus.load_stories("literary").text.tolist()
    return [stories[i % len(stories)] + " ." * (i // len(stories)) for i in range(n)]


def growth(model, texts_by_n: dict[int, list[str]]) -> list[dict]:
    """Return seconds and peak memory by number of texts."""
    rows = []
    for n, texts in texts_by_n.items():
        start = time.perf_counter()
        with_library(model, texts)
        took = time.perf_counter() - start
        tokens = sum(map(len, tracing.tokenize(model, texts)))
        peak = peak_memory(n, model.identity.dtype)
        rows.append({"texts": n, "tokens": tokens, "seconds": took, "peak_mib": peak})
        print(rows[-1], flush=True)
    return rows


def recipe(model, per_emotion: int = 8) -> list[dict]:
    """Return the seconds that the recipe of the vectors takes, by number of emotions."""
    rng, rows = np.random.default_rng(0), []
    shape = (model.n_layers, model.d_model)
    neutral = Stacked(rng.standard_normal((100, *shape), dtype=np.float32))
    for n in EMOTIONS:
        stories = Stacked(rng.standard_normal((n * per_emotion, *shape), dtype=np.float32))
        labels = np.repeat(np.arange(n), per_emotion).astype(str).tolist()
        start = time.perf_counter()
        EmotionVectors.fit(stories, labels, neutral)
        rows.append({"emotions": n, "seconds": time.perf_counter() - start})
    return rows


def main() -> None:
    parser = timing.arguments(__doc__, rounds=3)
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--only-read", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    model = models.load_model(dtype=chosen.dtype)
    if chosen.only_read:
        with_library(model, texts_of(chosen.only_read))
        return

    texts = texts_of(chosen.texts)
    ids = tracing.tokenize(model, texts)
    real = sum(map(len, ids))
    padded = sum(b.mask.numel() for b in tracing._batches(model, ids, progress=None))
    plain = model if model.identity.dtype == "float32" else models.load_model(dtype="float32")
    ways = {
        "library": partial(with_library, model, texts),
        "forward hooks": partial(with_hooks, model, texts),
        "text by text": partial(with_loop, model, texts),
    }
    if plain is not model:
        ways["text by text, float32"] = partial(with_loop, plain, texts)
    others = peers(timing.FOLDER / "peers")
    ways |= {name: partial(way, model, texts) for name, way in others.items()}
    seconds, arrays = timing.interleaved(ways, chosen.rounds)

    last = np.asarray(_last(model, texts))
    difference = {}
    for name, array in arrays.items():
        own = last if name in others else arrays["library"]
        # transformers applies the final norm to the last hidden state, so leave that layer out
        gap = np.abs(array[:, :-1] - own[:, :-1]).max()
        difference[name] = gap / np.abs(own[:, :-1]).max()
    module = model.envoy._module
    body = sum(p.numel() for p in module.model.layers.parameters())
    width = float(np.mean([len(row) for row in ids]))
    attention = 4 * model.n_layers * model.d_model * width / 2  # causal scores and values
    rate = real / statistics.median(seconds["library"])
    report = {
        "texts": len(texts),
        "real_tokens": real,
        "padded_per_real": padded / real,
        "ways": timing.compared(seconds, real, difference),
        "gflops_library": rate * (padded / real) * (2 * body + attention) / 1e9,
        "gflops_matrix_product": matrix_product_rate(next(module.parameters()).dtype),
        "growth": growth(model, {n: texts_of(n) for n in GROWTH}),
        "recipe": recipe(model),
    }
    timing.write("extraction", model, report, chosen.out)
    speed = cost.measured(
        hardware(),
        model.identity.name,
        sum(weight.numel() for weight in module.parameters()),
        model.identity.dtype,
        rate,
        how=f"{len(texts)} stories pooled at all layers, {torch.get_num_threads()} threads,"
        f" median of {chosen.rounds} rounds",
    )
    with write_atomic(chosen.out / "throughput.csv") as part:
        speed.to_csv(part, index=False)


def _last(model, texts: list[str]) -> tracing.PooledResiduals:
    """Read the last token, as the two packages do."""
    with tempfile.TemporaryDirectory() as folder:
        found = tracing.pooled_residuals(model, texts, tracing.TokenAt(1.0), cache=Path(folder))
        return np.asarray(found)


if __name__ == "__main__":
    main()

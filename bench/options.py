"""Benchmark of choice log-odds, run by `python3 run.py bench`.

Several continuations of one long prompt are scored with the prompt read once, by branches that
share it, and with the prompt read anew for each of them. Both must give the same scores.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np

import emotion_concepts  # noqa: F401 -- before torch, whose threads it tells how to wait

# isort: split
from bench import timing
from emotion_concepts import contexts, models, tracing


def shared(model, prompts: list[str], options: list[str]) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        found = tracing.option_logprobs(
            model, prompts, [options] * len(prompts), cache=Path(folder)
        )
        return found.total


def anew(model, prompts: list[str], options: list[str]) -> np.ndarray:
    """One option of every prompt at a time, since prompts of one call share what is alike."""
    return np.hstack([shared(model, prompts, [text]) for text in options])


def main() -> None:
    parser = timing.arguments(__doc__, rounds=3)
    parser.add_argument("--prompts", type=int, default=4)
    chosen = parser.parse_args()
    model = models.load_model(dtype=chosen.dtype)
    _, _, steps = contexts.load_contexts()
    options = [" " + text for text in steps.text]
    runs = contexts.context_runs(tasks=chosen.prompts).groupby("task", sort=False).head(1)
    prompts = [
        model.chat_prompt([{"role": "user", "content": text}]) + steps.prefix.iloc[0]
        for text in runs.text
    ]
    ways = {
        "prompt read once": partial(shared, model, prompts, options),
        "prompt read anew": partial(anew, model, prompts, options),
    }
    seconds, scores = timing.interleaved(ways, chosen.rounds)
    first, *_ = scores.values()
    report = {
        "prompts": len(prompts),
        "options": len(options),
        "prompt_tokens": sum(map(len, tracing.tokenize(model, prompts))),
        "ways": timing.compared(
            seconds,
            len(prompts) * len(options),
            {name: np.abs(found - first).max() for name, found in scores.items()},
        ),
    }
    timing.write("options", model, report, chosen.out)


if __name__ == "__main__":
    main()

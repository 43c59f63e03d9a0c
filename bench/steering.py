"""Benchmark of steered choices, run by `python3 run.py bench`.

The next steps of one prompt are scored under many directions: all together, so that the blocks
below the steered ones read the prompt once a batch, and direction by direction. Both must give the
same scores.
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
from emotion_concepts.steering import Steering, band


def together(model, prompt: str, options: list[str], steering: Steering) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        many = len(steering)
        found = tracing.option_logprobs(
            model, [prompt] * many, [options] * many, steering=steering, cache=Path(folder)
        )
        return found.total


def one_by_one(model, prompt: str, options: list[str], steering: Steering) -> np.ndarray:
    rows = range(len(steering))
    return np.concatenate([together(model, prompt, options, steering[[row]]) for row in rows])


def main() -> None:
    parser = timing.arguments(__doc__, rounds=3)
    parser.add_argument("--directions", type=int, default=16)
    chosen = parser.parse_args()
    model = models.load_model(dtype=chosen.dtype)
    _, _, steps = contexts.load_contexts()
    options = [" " + text for text in steps.text]
    text = contexts.context_runs(tasks=2).text.iloc[0]
    prompt = model.chat_prompt([{"role": "user", "content": text}]) + steps.prefix.iloc[0]
    layers = band(model.n_layers)
    shape = chosen.directions, len(layers), model.d_model
    steering = Steering(tuple(layers), np.random.default_rng(0).standard_normal(shape, "float32"))
    ways = {
        "all directions together": partial(together, model, prompt, options, steering),
        "direction by direction": partial(one_by_one, model, prompt, options, steering),
    }
    seconds, scores = timing.interleaved(ways, chosen.rounds)
    first, *_ = scores.values()
    report = {
        "directions": chosen.directions,
        "options": len(options),
        "below": layers[0] + 1,
        "layers": model.n_layers,
        "ways": timing.compared(
            seconds,
            chosen.directions,
            {name: np.abs(found - first).max() for name, found in scores.items()},
        ),
    }
    timing.write("steering", model, report, chosen.out)


if __name__ == "__main__":
    main()

"""Benchmark of choice log-odds, run by `python3 run.py bench`.

Several continuations of one long prompt are scored with the prompt read once, by branches that
share it, and with the prompt read anew for each of them. Transcripts of one task that go on further
and further are scored in one call, which reads what they begin with once, and one a call. Each time
both must give the same scores.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np

import emotion_concepts  # noqa: F401 -- before torch, whose threads it tells how to wait

# isort: split
from bench import timing
from emotion_concepts import contexts, models, tracing, transcripts


def shared(model, prompts: list[str], options: list[str]) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        found = tracing.option_logprobs(
            model, prompts, [options] * len(prompts), cache=Path(folder)
        )
        return found.total


def anew(model, prompts: list[str], options: list[str]) -> np.ndarray:
    """One option of every prompt at a time, since prompts of one call share what is alike."""
    return np.hstack([shared(model, prompts, [text]) for text in options])


def one_by_one(model, prompts: list[str], options: list[str]) -> np.ndarray:
    return np.concatenate([shared(model, [prompt], options) for prompt in prompts])


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
    told, steps = transcripts.load_failures()
    told, steps = told[told.id == told.id[0]], steps[steps["set"] == 1]
    going_on = [model.chat_prompt(messages) + steps.prefix.iloc[0] for messages in told.messages]
    then = [" " + text for text in steps.text]

    def report(prompts, options, what, **ways) -> dict:
        calls = {
            name.replace("_", " "): partial(way, model, prompts, options)
            for name, way in ways.items()
        }
        seconds, scores = timing.interleaved(calls, chosen.rounds)
        first, *_ = scores.values()
        far = {name: np.abs(found - first).max() for name, found in scores.items()}
        tokens = sum(map(len, tracing.tokenize(model, prompts)))
        shape = {"prompts": len(prompts), "options": len(options), "prompt_tokens": tokens}
        return shape | {"ways": timing.compared(seconds, what, far)}

    found = report(
        prompts,
        options,
        len(prompts) * len(options),
        prompt_read_once=shared,
        prompt_read_anew=anew,
    )
    found["beginnings"] = report(
        going_on, then, len(going_on), beginnings_read_once=shared, prompt_by_prompt=one_by_one
    )
    timing.write("options", model, found, chosen.out)


if __name__ == "__main__":
    main()

"""Benchmark of steered generation, run by `python3 run.py bench`.

The same prompts are continued greedily, each with a direction of its own added at the middle
layers: by the library, by plain `generate` of transformers with forward hooks on the same batch,
and by the same hooks one prompt at a time. All three must write the same texts.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np

import emotion_concepts  # noqa: F401 -- before torch, whose threads it tells how to wait

# isort: split
import torch

from bench import timing
from emotion_concepts import models, tracing
from emotion_concepts.assistant_prompts import load_assistant_prompts
from emotion_concepts.geometry import unit
from emotion_concepts.steering import Steering, band

STRENGTH = 0.03  # of the residual norm


def steering_of(model, rows: int) -> Steering:
    """Return a random direction for each row, at the middle layers."""
    layers = band(model.n_layers)
    [tokens] = tracing.token_residuals(model, ["The bus stops at the corner."], layers)
    norms = np.linalg.norm(tokens[1:], axis=-1).mean(0)
    drawn = unit(np.random.default_rng(0).standard_normal((rows, len(layers), model.d_model)))
    return Steering(tuple(layers), (STRENGTH * norms[:, None] * drawn).astype(np.float32))


def with_library(model, prompts: list[str], steering: Steering, tokens: int) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        options = {"max_new_tokens": tokens, "steering": steering, "cache": Path(folder)}
        return tracing.generate(model, prompts, **options)


def with_hooks(model, prompts: list[str], steering: Steering, tokens: int) -> list[str]:
    """One batch through `generate` of transformers, each row's direction added by hooks."""
    module, add = model.envoy._module, torch.tensor(steering.add)
    model.tokenizer.padding_side = "left"
    inputs = model.tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)

    def hook(k):
        return lambda _module, _inputs, output: output + add[:, k, None].to(output)

    blocks = module.model.layers
    hooks = [
        blocks[layer].register_forward_hook(hook(k)) for k, layer in enumerate(steering.layers)
    ]
    plain = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
    with torch.no_grad():
        ids = module.generate(**inputs, max_new_tokens=tokens, **plain)
    for one in hooks:
        one.remove()
    new = ids[:, inputs["input_ids"].shape[1] :]
    return model.tokenizer.batch_decode(new, skip_special_tokens=True)


def one_by_one(model, prompts: list[str], steering: Steering, tokens: int) -> list[str]:
    found = []
    for n, prompt in enumerate(prompts):
        found += with_hooks(model, [prompt], steering[[n]], tokens)
    return found


def main() -> None:
    parser = timing.arguments(__doc__, rounds=3)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=32)
    chosen = parser.parse_args()
    model = models.load_model(dtype=chosen.dtype)
    texts = load_assistant_prompts().text.tolist()[: chosen.prompts]
    prompts = [model.chat_prompt([{"role": "user", "content": text}]) for text in texts]
    steering = steering_of(model, len(prompts))
    given = (model, prompts, steering, chosen.tokens)
    ways = {
        "library": partial(with_library, *given),
        "generate with hooks": partial(with_hooks, *given),
        "one prompt at a time": partial(one_by_one, *given),
    }
    seconds, replies = timing.interleaved(ways, chosen.rounds)
    other = {
        name: np.mean([a != b for a, b in zip(found, replies["library"], strict=True)])
        for name, found in replies.items()
    }
    report = {
        "prompts": len(prompts),
        "new_tokens": chosen.tokens,
        "ways": timing.compared(seconds, len(prompts) * chosen.tokens, other),
    }
    timing.write("generation", model, report, chosen.out)


if __name__ == "__main__":
    main()

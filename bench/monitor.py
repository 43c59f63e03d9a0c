"""Benchmark of the live monitor, run by `python3 run.py bench`.

The same greedy reply is generated with and without twelve emotions watched and two rules asked at
every token. Rounds are interleaved, and the order turns, so that a busy moment of the machine hits
both alike. Random directions cost what emotion vectors cost. Nothing is asserted but that the
reply is the same; the goal is that the monitor takes at most a tenth more.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import emotion_concepts  # noqa: F401 -- before torch, whose threads it tells how to wait

# isort: split
from bench import timing
from emotion_concepts import corpus, models, tracing
from emotion_concepts.geometry import unit
from emotion_concepts.monitor import Above, EmotionMonitor, Rise, calibrate
from emotion_concepts.vectors import EmotionVectors, Provenance

CHAT = [{"role": "user", "content": "Tell me a long story about a village by the sea."}]


def monitored(model: tracing.TracedModel) -> EmotionMonitor:
    """Return a monitor of twelve random directions, with rules that stay silent."""
    layers, d = model.n_layers, model.d_model
    drawn = np.random.default_rng(0).standard_normal((len(corpus.TWELVE), layers, d))
    identity = model.identity
    made = Provenance(identity.name, identity.weights, identity.tokenizer, "none", "none", 0, 0.0)
    vectors = EmotionVectors(
        tuple(corpus.TWELVE),
        unit(drawn).astype(np.float32),
        np.ones((len(drawn), layers)),
        np.zeros((layers, d)),
        np.zeros(layers, dtype=int),
        np.ones(layers),
        made,
    )
    quiet = corpus.load_neutral(limit=4).text.tolist()
    baseline = calibrate(model, vectors, corpus.TWELVE, texts=quiet)
    rules = [Above(corpus.TWELVE[0], 99.0, tokens=5), Rise(corpus.TWELVE[1], 99.0)]
    return EmotionMonitor(model, vectors, baseline, rules=rules)


def main() -> None:
    parser = timing.arguments(__doc__, rounds=7)
    parser.add_argument("--tokens", type=int, default=64)
    chosen = parser.parse_args()
    model = models.load_model(dtype=chosen.dtype)
    monitor, prompt = monitored(model), model.chat_prompt(CHAT)

    def without() -> str:
        with tempfile.TemporaryDirectory() as folder:  # nothing may come from the cache
            options = {"max_new_tokens": chosen.tokens, "cache": Path(folder)}
            return tracing.generate(model, [prompt], **options)[0]

    def within() -> str:
        tokens = [reading.token for reading in monitor.stream(CHAT, max_new_tokens=chosen.tokens)]
        return model.tokenizer.decode(tokens, skip_special_tokens=True)

    ways = {"without the monitor": without, "with the monitor": within}
    if len({way() for way in ways.values()}) > 1:  # this warms up, too
        raise SystemExit("the monitor changed the reply")
    seconds, replies = timing.interleaved(ways, chosen.rounds)
    same = {name: float(reply != replies["without the monitor"]) for name, reply in replies.items()}
    report = {"tokens": chosen.tokens, "ways": timing.compared(seconds, chosen.tokens, same)}
    timing.write("monitor", model, report, chosen.out)


if __name__ == "__main__":
    main()

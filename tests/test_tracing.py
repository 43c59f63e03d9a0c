"""The real packaged model: what is read must not depend on how the texts were batched."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from emotion_concepts import tracing
from emotion_concepts.errors import BadInput, UnknownLayer
from emotion_concepts.tracing import MeanFrom, TokenAt

pytestmark = pytest.mark.model

TOLERANCE = 2e-6  # of the largest activation: float32 rounding over thirty layers


def close(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return np.abs(a - b).max() <= TOLERANCE * np.abs(a).max()


@pytest.fixture(scope="module")
def reference(smollm, stories):
    """Pooling done naively: one text at a time, transformers alone, every hidden state kept."""
    module, rows = smollm.envoy._module, []
    for text in stories:
        ids = torch.tensor([smollm.tokenizer(text)["input_ids"]])
        captured = []
        hooks = [
            block.register_forward_hook(lambda m, i, out, kept=captured: kept.append(out))
            for block in module.model.layers
        ]
        with torch.no_grad():
            hidden = module(ids, output_hidden_states=True).hidden_states
        for hook in hooks:
            hook.remove()
        for layer in range(smollm.n_layers - 1):  # the convention, on every layer but the last
            assert torch.equal(captured[layer], hidden[layer + 1])
        rows.append(np.stack([block[0, 10:].mean(0).numpy() for block in captured]))
    return np.stack(rows)


def test_pooling_equals_a_naive_loop(smollm, stories, reference, tmp_path):
    got = tracing.pooled_residuals(smollm, stories, MeanFrom(10), cache=tmp_path)
    assert got.shape == reference.shape == (12, 30, 576)
    assert close(reference, got)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("tokens", [1, 300, 10_000])
def test_batch_size_and_padding_side_change_nothing(
    smollm, stories, reference, tmp_path, side, tokens
):
    got = tracing.pooled_residuals(
        smollm, stories, MeanFrom(10), batch_tokens=tokens, padding_side=side, cache=tmp_path
    )
    assert close(reference, got)


def test_two_poolings_come_from_one_pass_and_agree_with_single_tokens(smollm, stories, tmp_path):
    pools = [MeanFrom(0), TokenAt(1.0), TokenAt(0.5)]
    found = tracing.pooled_residuals_many(smollm, stories[:3], pools, cache=tmp_path)
    for n, tokens in enumerate(tracing.token_residuals(smollm, stories[:3], range(30))):
        last = len(tokens) - 1
        assert close(tokens.mean(0), found[MeanFrom(0)][[n]])
        assert close(tokens[last], found[TokenAt(1.0)][[n]])
        assert close(tokens[round(0.5 * last)], found[TokenAt(0.5)][[n]])


def test_layers_can_be_read_one_at_a_time(smollm, stories, tmp_path):
    got = tracing.pooled_residuals(smollm, stories, MeanFrom(10), cache=tmp_path)
    np.testing.assert_array_equal(got.layer(7), np.asarray(got)[:, 7])
    np.testing.assert_array_equal(got[[3, 1]].layer(0), got.layer(0)[[3, 1]])
    with pytest.raises(UnknownLayer, match="layers 0 to 29"):
        got.layer(30)


def count_batches(monkeypatch):
    seen, real = [], tracing._pooled_batch
    monkeypatch.setattr(
        tracing, "_pooled_batch", lambda m, b, w: seen.extend(b.rows) or real(m, b, w)
    )
    return seen


def test_no_text_passes_through_the_model_twice(smollm, stories, tmp_path, monkeypatch):
    seen = count_batches(monkeypatch)
    doubled = [*stories[:4], stories[0]]
    first = tracing.pooled_residuals(smollm, doubled, MeanFrom(10), cache=tmp_path)
    again = tracing.pooled_residuals(smollm, stories[3:6], MeanFrom(10), cache=tmp_path)
    assert len(seen) == 6
    np.testing.assert_array_equal(first.layer(3)[0], first.layer(3)[4])
    np.testing.assert_array_equal(first.layer(3)[3], again.layer(3)[0])


def test_a_killed_extraction_resumes_where_it_stopped(smollm, stories, tmp_path, monkeypatch):
    program = (
        "import sys; from pathlib import Path; from emotion_concepts import models, tracing\n"
        "texts = sys.argv[2].split('|')\n"
        "model = models.load_model(dtype='float32')\n"
        "tracing.pooled_residuals(model, texts, tracing.MeanFrom(10), batch_tokens=1,"
        " cache=Path(sys.argv[1]))\n"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path), "|".join(stories)]
    child = subprocess.Popen(arguments, start_new_session=True)

    def rows_done():
        return sum(len(path.read_text().split()) for path in tmp_path.rglob("index.txt"))

    deadline = time.monotonic() + 120
    while rows_done() < 3:
        assert child.poll() is None and time.monotonic() < deadline, "the child never got going"
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    done = rows_done()
    assert 3 <= done < len(stories)
    seen = count_batches(monkeypatch)
    resumed = tracing.pooled_residuals(smollm, stories, MeanFrom(10), cache=tmp_path)
    assert len(seen) == len(stories) - done
    fresh = tracing.pooled_residuals(smollm, stories, MeanFrom(10), cache=tmp_path / "fresh")
    assert close(fresh, resumed)


def test_marked_characters_are_pooled_alone_and_by_text_and_span(smollm, stories, tmp_path):
    text = stories[0]
    cut = text.index(" ", 60)
    spans = [[(0, cut)], [(cut, len(text))], [(0, 5), (cut, len(text))]]
    found = tracing.span_residuals(smollm, [text] * 3, spans, cache=tmp_path)
    [tokens] = tracing.token_residuals(smollm, [text], range(30))
    for n, chosen in enumerate(spans):
        inside = tracing.tokens_in(smollm, text, chosen)
        assert close(tokens[inside].mean(0), found[[n]])
    beside = tracing.span_residuals(
        smollm, [stories[1], text], [[(0, 9)], spans[0]], cache=tmp_path / "other"
    )
    assert close(found[[0]], beside[[1]])


def test_spans_that_cannot_be_read_are_refused(smollm, stories, tmp_path):
    for spans, problem in (
        ([], "1 texts need 1 lists of spans"),
        ([[]], "no token of text 0"),
        ([[(0, 10_000)]], "no range of characters"),
    ):
        with pytest.raises(BadInput, match=problem):
            tracing.span_residuals(smollm, stories[:1], spans, cache=tmp_path)


def test_empty_and_short_texts_are_refused_before_anything_runs(smollm, tmp_path):
    for texts, problem in (
        ([], "no text"),
        (["fine text here", " "], "text 1 of 2 is empty"),
        ("one string", "list of texts"),
        (["too short"], "nothing left after skipping 10.*'too short'"),
    ):
        with pytest.raises(BadInput, match=problem):
            tracing.pooled_residuals(smollm, texts, MeanFrom(10), cache=tmp_path)
    assert not list(tmp_path.rglob("*.f32"))


def test_a_layer_that_is_not_there_is_refused(smollm):
    with pytest.raises(UnknownLayer, match="layers 0 to 29, not 30"):
        tracing.token_residuals(smollm, ["text"], [30])


def test_next_token_probabilities_sum_to_one_in_any_batch(smollm, stories):
    prompts = ["The capital of France is", "Once upon a time, in a small village by the sea,"]
    both = tracing.next_token_logprobs(smollm, prompts)
    np.testing.assert_allclose(np.exp(both).sum(1), 1, rtol=1e-4)
    alone = np.concatenate([tracing.next_token_logprobs(smollm, [p]) for p in prompts])
    np.testing.assert_allclose(both, alone, atol=2e-3)
    assert smollm.tokenizer.decode([int(both[0].argmax())]) == " Paris"


def test_continuation_scores_add_up_next_token_by_next_token(smollm):
    prompt, continuation = "The sky is", " blue and clear"
    tokens = smollm.tokenizer(continuation)["input_ids"]
    expected, text = 0.0, prompt
    for token in tokens:
        expected += tracing.next_token_logprobs(smollm, [text])[0, token]
        text += smollm.tokenizer.decode([token])
    scores = tracing.continuation_logprobs(
        smollm, ["A much longer prompt comes first here, to pad:", prompt], [" yes", continuation]
    )
    assert scores.total[1] == pytest.approx(expected, abs=2e-3)
    assert scores.n_tokens.tolist() == [1, len(tokens)]
    assert scores.mean[1] == pytest.approx(expected / len(tokens), abs=1e-3)
    with pytest.raises(BadInput, match="2 prompts but 1"):
        tracing.continuation_logprobs(smollm, ["a", "b"], ["c"])


def test_greedy_generation_equals_transformers_and_ignores_the_batch(smollm):
    ask = [{"role": "user", "content": "What is the capital of France?"}]
    prompts = [smollm.chat_prompt(ask), "Once upon a time"]
    got = tracing.generate(smollm, prompts, max_new_tokens=8)
    assert "Paris" in got[0]
    ids = torch.tensor([smollm.tokenizer(prompts[1])["input_ids"]])
    with torch.no_grad():
        plain = smollm.envoy._module.generate(ids, max_new_tokens=8, do_sample=False)
    assert got[1] == smollm.tokenizer.decode(plain[0, ids.shape[1] :])


def test_sampling_is_fixed_by_its_seed(smollm):
    def sample(seed):
        return tracing.generate(
            smollm, ["Once upon a time"], max_new_tokens=12, temperature=1.0, seed=seed
        )

    assert sample(1) == sample(1) != sample(2)


def test_the_unembedding_reproduces_the_models_own_logits(smollm):
    prompt = "The capital of France is"
    residual = tracing.token_residuals(smollm, [prompt], [29])[0][-1, 0]
    scaled = residual / np.sqrt((residual**2).mean() + 1e-5)
    logits = scaled @ tracing.unembedding(smollm).T
    logprobs = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
    np.testing.assert_allclose(
        logprobs, tracing.next_token_logprobs(smollm, [prompt])[0], atol=2e-3
    )


def test_a_trace_survives_the_serialisation_of_remote_execution(smollm, stories, tmp_path):
    smollm.remote = "local"  # NDIF's path: pack the block, hide this library, unpack, run
    try:
        sent = tracing.pooled_residuals(smollm, stories[:2], MeanFrom(10), cache=tmp_path / "a")
        logprobs = tracing.next_token_logprobs(smollm, stories[:2])
    finally:
        smollm.remote = False
    here = tracing.pooled_residuals(smollm, stories[:2], MeanFrom(10), cache=tmp_path / "b")
    np.testing.assert_array_equal(np.asarray(sent), np.asarray(here))
    np.testing.assert_array_equal(logprobs, tracing.next_token_logprobs(smollm, stories[:2]))


def test_the_report_on_load_is_readable(smollm):
    report = smollm.report()
    assert "smollm2-135m-instruct (LlamaForCausalLM)" in report
    assert "30 layers x 576" in report
    assert "block L = hidden_states[L + 1], checked" in report
    assert smollm.readout_layer == 19

"""The real packaged model: what is read must not depend on how the texts were batched."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import torch
from nnsight.intervention.backends.remote import RemoteBackend, RemoteError

from emotion_concepts import tracing
from emotion_concepts.errors import BadInput, ServerError, UnknownLayer
from emotion_concepts.geometry import unit
from emotion_concepts.steering import Steering, steer
from emotion_concepts.tracing import MeanFrom, ModelIdentity, TokenAt

pytestmark = pytest.mark.model

TOLERANCE = 2e-6  # of the largest activation: float32 rounding over thirty layers


def close(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return np.abs(a - b).max() <= TOLERANCE * np.abs(a).max()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Not by environment, where a child process would look for the model's weights, too."""
    monkeypatch.setattr(tracing, "cache_dir", lambda: tmp_path)


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


def test_one_pass_gives_the_scores_and_the_residuals_of_two(smollm, monkeypatch, tmp_path):
    last = [[(len(prompt) - 1, len(prompt))] for prompt in PROMPTS]
    spans = {"whole": [[(0, len(prompt))] for prompt in PROMPTS], "colon": last}
    scores, residuals = tracing.options_and_residuals(
        smollm, PROMPTS, OPTIONS, spans, cache=tmp_path / "one"
    )
    alone = tracing.option_logprobs(smollm, PROMPTS, OPTIONS, cache=tmp_path / "two")
    np.testing.assert_allclose(scores.total, alone.total, atol=2e-3)
    for name, pool in (("whole", MeanFrom(0)), ("colon", TokenAt(1.0))):
        read = tracing.pooled_residuals(smollm, PROMPTS, pool, cache=tmp_path / "two")
        assert close(read, residuals[name])
    monkeypatch.setattr(tracing, "_score_batch", None)  # all is on disk
    kept = tracing.options_and_residuals(smollm, PROMPTS, OPTIONS, spans, cache=tmp_path / "one")
    np.testing.assert_array_equal(kept[0].total, scores.total)
    for name in spans:
        np.testing.assert_array_equal(kept[1][name], residuals[name])
    with pytest.raises(BadInput, match="lists of spans"):
        tracing.options_and_residuals(smollm, PROMPTS, OPTIONS, {"colon": last[:1]})


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


def test_single_tokens_come_at_the_layers_asked_for_in_that_order(smollm):
    [asked] = tracing.token_residuals(smollm, ["A fine text."], [20, 3, 20])
    [sorted_] = tracing.token_residuals(smollm, ["A fine text."], [3, 20])
    np.testing.assert_array_equal(asked, sorted_[:, [1, 0, 1]])


@pytest.mark.parametrize("options", [{"max_new_tokens": 0}, {"temperature": -1.0}])
def test_a_reply_without_tokens_or_with_a_negative_temperature_is_refused(smollm, options):
    [problem] = (f"{name}={value}" for name, value in options.items())
    with pytest.raises(BadInput, match=problem):
        tracing.generate(smollm, ["text"], **{"max_new_tokens": 1, **options})


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


PROMPTS = [
    "The sky is",
    "Once upon a time, in a small village by the sea, there lived",
    "She opened the",
]
OPTIONS = [
    [" blue", " grey and full of rain", " falling down"],
    [" a fisherman who had never learned to swim", " two", " no one"],
    [" door", " letter that had come at noon", " tin of peas"],
]


def plain_scores(model, *, layer=None, add=None, spans=None):
    """Scores ``[3, 3]`` by transformers and a hook alone, each option by itself in its own pass."""
    module, out = model.envoy._module, np.empty((3, 3))
    for n, k in np.ndindex(3, 3):
        head = model.tokenizer(PROMPTS[n])["input_ids"]
        tail = model.tokenizer(OPTIONS[n][k])["input_ids"]
        hooks = []
        if add is not None:
            where = torch.ones(len(head) + len(tail), 1)
            if spans is not None:
                where[:] = 0
                where[tracing.tokens_in(model, PROMPTS[n], spans[n])] = 1
            here = where * torch.tensor(add[n])
            block = module.model.layers[layer]
            hooks.append(block.register_forward_hook(lambda m, i, out, here=here: out + here))
        with torch.no_grad():
            logprobs = module(torch.tensor([head + tail])).logits[0].log_softmax(-1)
        for hook in hooks:
            hook.remove()
        out[n, k] = sum(float(logprobs[len(head) - 1 + i, t]) for i, t in enumerate(tail))
    return out


@pytest.fixture(scope="module")
def alone(smollm):
    return plain_scores(smollm)


def test_options_score_as_if_each_stood_alone_after_its_prompt(smollm, alone):
    found = tracing.option_logprobs(smollm, PROMPTS, OPTIONS)
    np.testing.assert_allclose(found.total, alone, atol=2e-3)
    lengths = [[len(smollm.tokenizer(text)["input_ids"]) for text in row] for row in OPTIONS]
    assert found.n_tokens.tolist() == lengths and len(set(np.ravel(lengths))) > 3
    np.testing.assert_allclose(found.mean, found.total / lengths)
    one = tracing.continuation_logprobs(smollm, PROMPTS, [row[1] for row in OPTIONS])
    np.testing.assert_allclose(one.total, found.total[:, 1], atol=2e-3)


def test_options_do_not_see_each_other(smollm):
    found = tracing.option_logprobs(smollm, PROMPTS, OPTIONS).total
    turned = [row[::-1] for row in OPTIONS]
    np.testing.assert_allclose(
        tracing.option_logprobs(smollm, PROMPTS, turned).total[:, ::-1], found, atol=2e-3
    )
    more = [[row[0], " something else altogether", *row[1:]] for row in OPTIONS]
    wide = tracing.option_logprobs(smollm, PROMPTS, more).total
    np.testing.assert_allclose(wide[:, [0, 2, 3]], found, atol=2e-3)


@pytest.mark.parametrize("tokens", [1, 30])
def test_scores_of_options_do_not_depend_on_the_batch(smollm, alone, monkeypatch, tokens):
    monkeypatch.setitem(tracing.BATCH_TOKENS, smollm.device.type, tokens)
    found = tracing.option_logprobs(smollm, PROMPTS, OPTIONS)
    np.testing.assert_allclose(found.total, alone, atol=2e-3)


@pytest.mark.parametrize("marked", [False, True])
def test_options_are_steered_row_by_row_with_and_without_spans(smollm, alone, marked):
    directions = np.random.default_rng(0).normal(size=(3, 30, 576))
    spans = [[(4, 7)], [(0, 4), (16, 29)], [(4, 10)]] if marked else None
    made = steer(directions, [0.5, 0.0, -0.5], np.full(30, 60.0), [12], spans=spans)
    found = tracing.option_logprobs(smollm, PROMPTS, OPTIONS, steering=made).total
    expected = plain_scores(smollm, layer=12, add=made.add, spans=spans)
    np.testing.assert_allclose(found, expected, atol=5e-3)
    moved = np.abs(found - alone).max(1)
    assert moved[0] > 0.05 and moved[1] < 2e-3 and moved[2] > 0.05


def count_scored(monkeypatch, *, fail_at=None):
    """Collect the number of rows of each batch that is scored; raise at one of them."""
    seen, real = [], tracing._score_batch

    def score(model, batch, sizes, *rest):
        if len(seen) + 1 == fail_at:
            raise KeyboardInterrupt
        seen.append(len(batch.rows))
        return real(model, batch, sizes, *rest)

    monkeypatch.setattr(tracing, "_score_batch", score)
    return seen


def test_a_killed_scoring_resumes_where_it_stopped(smollm, alone, tmp_path, monkeypatch):
    monkeypatch.setitem(tracing.BATCH_TOKENS, smollm.device.type, 1)
    with monkeypatch.context() as patch:
        count_scored(patch, fail_at=2)
        with pytest.raises(KeyboardInterrupt):
            tracing.option_logprobs(smollm, PROMPTS, OPTIONS, cache=tmp_path)
    seen = count_scored(monkeypatch)
    found = tracing.option_logprobs(smollm, PROMPTS, OPTIONS, cache=tmp_path)
    assert sum(seen) == 2
    np.testing.assert_allclose(found.total, alone, atol=2e-3)


def test_nothing_is_scored_twice(smollm, monkeypatch):
    seen = count_scored(monkeypatch)
    prompts, options = [*PROMPTS, PROMPTS[0]], [*OPTIONS, OPTIONS[0]]
    first = tracing.option_logprobs(smollm, prompts, options)
    assert sum(seen) == 3
    np.testing.assert_array_equal(first.total[0], first.total[3])
    again = tracing.option_logprobs(smollm, PROMPTS[::-1], OPTIONS[::-1])
    assert sum(seen) == 3
    np.testing.assert_array_equal(again.total, first.total[2::-1])
    directions = np.random.default_rng(0).normal(size=(3, 30, 576))
    for strength, scored in ((0.0, 3), (0.1, 6), (0.1, 6), (0.2, 9)):
        made = steer(directions, [strength] * 3, np.full(30, 60.0), [12])
        tracing.option_logprobs(smollm, PROMPTS, OPTIONS, steering=made)
        assert sum(seen) == scored


def test_options_that_cannot_be_scored_are_refused(smollm):
    one = steer(np.ones((1, 30, 576)), [0.1], np.ones(30), [3])
    for prompts, options, steering, problem in (
        (["a", "b"], [[" c"]], None, "2 prompts need as many lists"),
        (["a", "b"], [[" c"], [" d", " e"]], None, "equally many"),
        (["a"], [[]], None, "equally many"),
        (["a"], [" yes"], None, "lists of options"),
        (["a"], [[" c", " "]], None, "text 1 of 2 is empty"),
        ([" "], [[" c"]], None, "text 0 of 1 is empty"),
        ([], [], None, "no text"),
        (["a", "b"], [[" c"], [" d"]], one, "2 steering rows, not 1"),
    ):
        with pytest.raises(BadInput, match=problem):
            tracing.option_logprobs(smollm, prompts, options, steering=steering)


def test_greedy_generation_equals_transformers_and_ignores_the_batch(smollm):
    ask = [{"role": "user", "content": "What is the capital of France?"}]
    prompts = [smollm.chat_prompt(ask), "Once upon a time"]
    got = tracing.generate(smollm, prompts, max_new_tokens=8)
    assert "Paris" in got[0]
    ids = torch.tensor([smollm.tokenizer(prompts[1])["input_ids"]])
    with torch.no_grad():
        plain = smollm.envoy._module.generate(ids, max_new_tokens=8, do_sample=False)
    assert got[1] == smollm.tokenizer.decode(plain[0, ids.shape[1] :])


def test_a_sample_is_fixed_by_its_own_seed_whatever_its_batch(smollm, tmp_path):
    options = {"max_new_tokens": 12, "temperature": 1.0}
    start = "Once upon a time"

    def sample(prompts, seeds, folder):
        return tracing.generate(smollm, prompts, seeds=seeds, cache=tmp_path / folder, **options)

    [one], [two] = sample([start], [1], "a"), sample([start], [2], "b")
    assert one != two
    among = sample(
        ["A much longer prompt that pads the others", start, start, start], [5, 2, 1, 1], "c"
    )
    assert among[1:] == [two, one, one]
    with pytest.raises(BadInput, match="2 seeds, not 1"):
        sample([start, start], [1], "d")


def test_samples_of_one_prompt_read_it_once_and_stay_the_same(smollm, tmp_path, monkeypatch):
    prompts = ["The sky is", "Once upon a time there was a", "The sky is", "The sky is"]
    add = np.zeros((4, 1, smollm.d_model), dtype=np.float32)
    add[2] = add[3] = np.random.default_rng(0).standard_normal(smollm.d_model)
    spans = [[(0, len(prompt))] for prompt in prompts]
    read, real = [], tracing._read_once

    def counted(model, batch, add, same):
        read.append(len(set(same)))
        return real(model, batch, add, same)

    monkeypatch.setattr(tracing, "_read_once", counted)
    options = {"max_new_tokens": 8, "temperature": 1.0}
    for where in (None, spans):
        steering = Steering((10,), add, where)
        seeds, folder = [3, 3, 3, 4], tmp_path / str(where is None)
        found = tracing.generate(
            smollm, prompts, seeds=seeds, steering=steering, cache=folder / "together", **options
        )
        for n, prompt in enumerate(prompts):
            [alone] = tracing.generate(
                smollm,
                [prompt],
                seeds=[seeds[n]],
                steering=steering[[n]],
                cache=folder / str(n),
                **options,
            )
            assert alone == found[n]
    assert read == [3, 3]


def test_gumbel_noise_samples_from_the_softmax():
    logits = torch.tensor([2.0, 1.0, 0.0, -4.0])
    process = tracing._GumbelNoise(0.5, range(400))
    counts = torch.zeros(4)
    for _ in range(10):
        drawn = process(None, logits.repeat(400, 1)).argmax(-1)
        counts += torch.bincount(drawn, minlength=4)
    expected = torch.softmax(logits / 0.5, -1) * 4000
    assert ((counts - expected).abs() < 4 * expected.sqrt() + 1).all()


def test_no_text_is_generated_twice_and_a_killed_run_goes_on(smollm, tmp_path, monkeypatch):
    prompts = ["The sky is", "She opened the", "Two and two are", "The sky is"]
    options = {"max_new_tokens": 4, "cache": tmp_path}
    monkeypatch.setitem(tracing.GENERATION_TOKENS, "cpu", 4)  # one prompt a batch
    real, calls = tracing._steered_ids, []

    def dying(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(tracing, "_steered_ids", dying)
    with pytest.raises(KeyboardInterrupt):
        tracing.generate(smollm, prompts, **options)
    found = tracing.generate(smollm, prompts, **options)
    assert len(calls) == 4 and found[0] == found[3]
    assert tracing.generate(smollm, prompts, **options) == found and len(calls) == 4
    monkeypatch.setattr(tracing, "_steered_ids", real)
    assert tracing.generate(smollm, prompts, max_new_tokens=4, cache=tmp_path / "new") == found


def test_the_lens_is_the_models_own_head_centred_and_with_rows_of_one_length(smollm):
    prompt, module = "The capital of France is", smollm.envoy._module
    residual = tracing.token_residuals(smollm, [prompt], [29])[0][-1, 0]
    gain = module.model.norm.weight.detach().numpy()
    head = module.lm_head.weight.detach().numpy() * gain
    logits = head @ residual / np.sqrt((residual**2).mean() + 1e-5)
    logprobs = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
    np.testing.assert_allclose(
        logprobs, tracing.next_token_logprobs(smollm, [prompt])[0], atol=2e-3
    )
    found = tracing.lens_logits(smollm, np.stack([residual, -3 * residual]))
    np.testing.assert_allclose(found[0], unit(head - head.mean(0)) @ unit(residual), atol=1e-5)
    np.testing.assert_allclose(found[1], -found[0], atol=1e-6)


def test_a_static_embedding_is_the_mean_of_the_rows_of_its_tokens(smollm, monkeypatch):
    table = smollm.envoy._module.get_input_embeddings().weight.detach().numpy()
    texts = ["a calm sea", "rage", "the old lighthouse keeper"]
    wanted = [table[smollm.tokenizer(f" {text}")["input_ids"]].mean(0) for text in texts]
    found = tracing.mean_embedding(smollm, texts, add_space=True)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    monkeypatch.setattr(tracing, "JOB_BYTES", 1)  # a text a trace
    np.testing.assert_array_equal(tracing.mean_embedding(smollm, texts, add_space=True), found)
    with pytest.raises(BadInput, match="nothing left after skipping 2.*'calm'"):
        tracing.mean_embedding(smollm, ["calm", texts[2]], skip=2)
    later = tracing.mean_embedding(smollm, texts[2:], skip=2)
    ids = smollm.tokenizer(texts[2])["input_ids"]
    np.testing.assert_allclose(later[0], table[ids[2:]].mean(0), atol=1e-6)


def test_a_trace_survives_the_serialisation_of_remote_execution(smollm, stories, tmp_path):
    smollm.remote = "local"  # NDIF's path: pack the block, hide this library, unpack, run
    try:
        sent = tracing.pooled_residuals(smollm, stories[:2], MeanFrom(10), cache=tmp_path / "a")
        logprobs = tracing.next_token_logprobs(smollm, stories[:2])
        scores = tracing.option_logprobs(smollm, PROMPTS, OPTIONS, cache=tmp_path / "a")
    finally:
        smollm.remote = False
    here = tracing.pooled_residuals(smollm, stories[:2], MeanFrom(10), cache=tmp_path / "b")
    np.testing.assert_array_equal(np.asarray(sent), np.asarray(here))
    np.testing.assert_array_equal(logprobs, tracing.next_token_logprobs(smollm, stories[:2]))
    plain = tracing.option_logprobs(smollm, PROMPTS, OPTIONS, cache=tmp_path / "b")
    np.testing.assert_array_equal(scores.total, plain.total)


def test_nnsight_may_be_imported_first():
    lines = [
        "import nnsight",
        "from emotion_concepts import tracing",
        "import anyio.abc, anyio.streams.tls",  # what httpx and others import later
        "print(anyio.abc.SocketAttribute.__name__)",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "SocketAttribute\n", done.stderr


def test_the_report_on_load_is_readable(smollm):
    report = smollm.report()
    assert "smollm2-135m-instruct (LlamaForCausalLM)" in report
    assert "30 layers x 576" in report
    assert "block L = hidden_states[L + 1], checked" in report
    assert smollm.readout_layer == 19


@pytest.mark.parametrize("store", [tracing._store, tracing.score_store])
def test_models_share_nothing_that_is_kept(tmp_path, store):
    def folder(**other):
        identity = replace(ModelIdentity("m", "w", "t", "float32"), **other)
        model = SimpleNamespace(identity=identity, n_layers=2, d_model=3)
        if store is tracing._store:
            return store(model, "MeanFrom", {"skip": 5}, tmp_path).folder
        return store(model, "options", 2, size=2, cache=tmp_path).folder

    others = [folder(weights="v"), folder(tokenizer="u"), folder(dtype="bfloat16")]
    assert len({folder(), *others}) == 4 and folder() == folder()


REQUEST = httpx.Request("POST", "http://127.0.0.1:1/request")
BUSY = httpx.HTTPStatusError("503", request=REQUEST, response=httpx.Response(503))


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        (httpx.RemoteProtocolError("Server disconnected"), "broke before its job was done"),
        (httpx.ReadError("reset"), "broke before its job was done"),
        (BUSY, "takes no job now"),
    ],
)
def test_a_server_that_dies_is_told_from_one_that_takes_no_job(monkeypatch, cause, told):
    def post(self, tracer):
        raise RemoteError(f"Failed to send request: {cause}") from cause

    monkeypatch.setattr(RemoteBackend, "__call__", post)
    server = tracing._Server.__new__(tracing._Server)
    server.url = "http://127.0.0.1:1"
    with pytest.raises(ServerError, match=told):
        server()

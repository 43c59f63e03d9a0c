"""Tiny random models of every architecture the book names: same words, same layer convention."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations import sdpa_attention

from emotion_concepts import tracing
from emotion_concepts.errors import UnsupportedArchitecture
from emotion_concepts.steering import Steering
from emotion_concepts.tracing import MeanFrom, ModelIdentity, TracedModel

pytestmark = pytest.mark.model

SMALL = {
    "vocab_size": 49152,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "head_dim": 8,
}
ARCHITECTURES = {
    "llama": SMALL,
    "qwen2": SMALL,
    "qwen3": SMALL,
    "gemma2": SMALL,
    "gemma3_text": SMALL,
    "gpt2": {"vocab_size": 49152, "n_embd": 32, "n_layer": 3, "n_head": 4},
    "gpt_neox": {**SMALL, "num_key_value_heads": 4},
}
TEXTS = ["The kettle clicked off and nobody moved.", "Rain again.", "She counted the coins twice."]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(tracing, "cache_dir", lambda: tmp_path)


@pytest.fixture(params=ARCHITECTURES)
def tiny(request, smollm):
    torch.manual_seed(0)
    config = AutoConfig.for_model(request.param, **ARCHITECTURES[request.param])
    module = AutoModelForCausalLM.from_config(config).eval()
    identity = ModelIdentity(request.param, request.param, "tokenizer", "float32")
    return TracedModel(module, smollm.tokenizer, identity)


def enlarge(model):
    """Let its logits differ by more than a little."""
    with torch.no_grad():
        for name, parameter in model.envoy._module.named_parameters():
            parameter.mul_(1 if "norm" in name or "ln_" in name else 15)


def test_block_outputs_are_transformers_hidden_states(tiny):
    assert (tiny.n_layers, tiny.d_model) == (3, 32)
    ids = torch.tensor([tiny.tokenizer(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        hidden = tiny.envoy._module(ids, output_hidden_states=True).hidden_states
    tokens = tracing.token_residuals(tiny, TEXTS[:1], [0, 1])[0]
    for layer in (0, 1):
        np.testing.assert_allclose(tokens[:, layer], hidden[layer + 1][0], atol=1e-5)
    assert "checked" in tiny.report()


def test_padding_and_batching_change_nothing(tiny, tmp_path):
    alone = tracing.pooled_residuals(tiny, TEXTS, MeanFrom(1), batch_tokens=1, cache=tmp_path / "a")
    for side in ("left", "right"):
        together = tracing.pooled_residuals(
            tiny, TEXTS, MeanFrom(1), padding_side=side, cache=tmp_path / side
        )
        np.testing.assert_allclose(np.asarray(together), np.asarray(alone), atol=2e-4)


def test_the_logit_lens_follows_the_models_own_norm_and_head(tiny):
    """Up to the scale of the norm, and GPT's centring: correlation over the vocabulary."""
    residual = tracing.token_residuals(tiny, TEXTS[:1], [2])[0][-1, 0]
    if "GPT" in tiny.architecture:
        residual = residual - residual.mean()
    module, norm = tiny.envoy._module, tiny.envoy.ln_final._module
    with torch.no_grad():  # what each dimension alone does to each token
        head = module.get_output_embeddings()(norm(torch.eye(tiny.d_model))).numpy().T
    ours = tracing.lens_logits(tiny, residual[None])[0]
    theirs = tracing.next_token_logprobs(tiny, TEXTS[:1])[0]
    lengths = np.linalg.norm(head - head.mean(0), axis=1)
    assert np.corrcoef(ours * lengths, theirs)[0, 1] > 0.99


def test_generation_and_continuations_run(tiny):
    assert len(tracing.generate(tiny, TEXTS, max_new_tokens=3)) == 3
    scores = tracing.continuation_logprobs(tiny, TEXTS, [" and then", " yes", " no."])
    assert (scores.total < 0).all()


def test_scores_are_the_models_own_each_option_as_if_alone(tiny):
    """The mask over branches must be honoured; large logits show a soft cap, too (Gemma 2)."""
    enlarge(tiny)
    module = tiny.envoy._module
    options = [[" and then she left", " yes", " no, not at all"], [" So", " on and on", " end"]]
    found = tracing.option_logprobs(tiny, TEXTS[:2], options).total
    for n, prompt in enumerate(TEXTS[:2]):
        head = tiny.tokenizer(prompt)["input_ids"]
        for k, option in enumerate(options[n]):
            tail = tiny.tokenizer(option)["input_ids"]
            with torch.no_grad():
                logprobs = module(torch.tensor([head + tail])).logits[0].log_softmax(-1)
            alone = sum(float(logprobs[len(head) - 1 + i, t]) for i, t in enumerate(tail))
            assert found[n, k] == pytest.approx(alone, rel=1e-4, abs=1e-2)
    after = tracing.next_token_logprobs(tiny, TEXTS[:1])[0]
    with torch.no_grad():
        plain = module(torch.tensor([tiny.tokenizer(TEXTS[0])["input_ids"]])).logits[0, -1]
    np.testing.assert_allclose(after, plain.log_softmax(-1), rtol=1e-4, atol=1e-2)


def test_what_prompts_and_options_begin_with_is_read_once(tiny, tmp_path, monkeypatch):
    enlarge(tiny)
    begun = TEXTS[0] + " and then she went out"
    prompts = [
        begun + " into the rain",
        TEXTS[1],
        begun,
        begun + " into the hall",
        begun + " again",
    ]
    options = [[" and left", " and stayed", " in the rain", " and left it all"]] * 5
    spans = {
        "end": [[(len(p) - 3, len(p))] for p in prompts],
        "all": [[(0, len(p))] for p in prompts],
    }
    widths, real = [], tracing._score_batch

    def score(model, batch, *rest):
        widths.extend(batch.mask.sum(1).tolist())
        return real(model, batch, *rest)

    monkeypatch.setattr(tracing, "_score_batch", score)
    read = tracing.options_and_residuals
    scores, residuals = read(tiny, prompts, options, spans, cache=tmp_path / "together")
    assert len(widths) == 2 and scores.n_tokens[0].tolist() == [2, 2, 3, 4]
    lengths = [len(tiny.tokenizer(prompt)["input_ids"]) for prompt in prompts]
    assert sum(widths) < sum(lengths) + scores.n_tokens.sum() - 3 * lengths[2]
    unscored = tracing.span_residuals_many(tiny, prompts, spans, cache=tmp_path / "unscored")
    for name, found in unscored.items():
        np.testing.assert_allclose(found, residuals[name], rtol=1e-3, atol=1e-3)
    for n, prompt in enumerate(prompts):
        for k, option in enumerate(options[n]):
            mine = {name: chosen[n : n + 1] for name, chosen in spans.items()}
            where = {"cache": tmp_path / f"{n}{k}"}
            one, there = read(tiny, [prompt], [[option]], mine, **where)
            assert scores.total[n, k] == pytest.approx(one.total[0, 0], rel=1e-4, abs=1e-2)
            for name, found in there.items():
                np.testing.assert_allclose(residuals[name][[n]], found, rtol=1e-3, atol=1e-3)


def test_query_heads_share_their_keys_on_a_cpu_and_nothing_changes(tiny, tmp_path, monkeypatch):
    enlarge(tiny)
    options, copied, real = [[" and then", " yes"]] * 3, [], sdpa_attention.repeat_kv

    def copy(states, times):
        copied.append(times)
        return real(states, times)

    def run(name):
        chosen = {"max_new_tokens": 6, "temperature": 1.0, "cache": tmp_path / name}
        scores = tracing.option_logprobs(tiny, TEXTS, options, cache=tmp_path / name)
        return scores.total, tracing.generate(tiny, TEXTS, **chosen)

    monkeypatch.setattr(sdpa_attention, "repeat_kv", copy)
    shared = run("shared")
    assert not copied
    monkeypatch.setattr(sdpa_attention, "use_gqa_in_sdpa", lambda *_: False)
    for mine, theirs in zip(shared, run("copied"), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("marked", [False, True])
def test_below_its_steerings_a_prompt_is_read_once(tiny, tmp_path, marked):
    prompts, options = [TEXTS[0]] * 4 + [TEXTS[1]] * 3, [[" and then she left", " yes"]] * 7
    enlarge(tiny)
    add = 9 * np.random.default_rng(0).standard_normal((7, 2, 32)).astype(np.float32)
    add[2] = 0
    spans = [[(n, len(prompt))] for n, prompt in enumerate(prompts)] if marked else None
    steering = Steering((1, 2), add, spans)
    blocks = tiny.envoy.layers
    read = {layer: [] for layer in (0, 1, 2)}
    hooks = [
        blocks[layer]._module.register_forward_hook(
            lambda m, i, out, layer=layer: read[layer].append(len(i[0]))
        )
        for layer in read
    ]
    scores = tracing.option_logprobs(
        tiny, prompts, options, steering=steering, cache=tmp_path / "together"
    )
    after = tracing.next_token_logprobs(tiny, prompts, steering=steering)
    for hook in hooks:
        hook.remove()
    assert read == {0: [1] * 4, 1: [1] * 4, 2: [4, 3] * 2}
    for n, prompt in enumerate(prompts):
        alone = {"steering": steering[[n]]}
        one = tracing.option_logprobs(tiny, [prompt], options[:1], cache=tmp_path / str(n), **alone)
        np.testing.assert_allclose(scores.total[n], one.total[0], rtol=1e-4, atol=1e-2)
        [logprobs] = tracing.next_token_logprobs(tiny, [prompt], **alone)
        np.testing.assert_allclose(after[n], logprobs, rtol=1e-4, atol=1e-2)
    plain = tracing.option_logprobs(tiny, prompts, options, cache=tmp_path / "plain").total
    assert (np.abs(scores.total - plain).max(1) > 0.1).tolist() == [n != 2 for n in range(7)]


def test_an_architecture_without_known_blocks_is_refused_by_name(smollm):
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64}
    config = AutoConfig.for_model("opt", vocab_size=49152, word_embed_proj_dim=32, **shape)
    module = AutoModelForCausalLM.from_config(config)
    identity = ModelIdentity("some-opt", "w", "t", "float32")
    with pytest.raises(UnsupportedArchitecture, match="some-opt.*OPT.*add its module names"):
        TracedModel(module, smollm.tokenizer, identity)


def test_blocks_that_are_not_those_of_the_hidden_states_are_refused(smollm, monkeypatch):
    config = AutoConfig.for_model("llama", **SMALL, initializer_range=0.3)
    module = AutoModelForCausalLM.from_config(config)
    real = tracing._block_outputs

    def shifted(model, ids, layers):
        return real(model, ids, [layer + 1 for layer in layers])

    monkeypatch.setattr(tracing, "_block_outputs", shifted)
    with pytest.raises(UnsupportedArchitecture, match="'shifted'.*do not match"):
        TracedModel(module, smollm.tokenizer, ModelIdentity("shifted", "w", "t", "float32"))

"""Attention for generation: the same as transformers' own, and used where it should be."""

from types import SimpleNamespace

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from emotion_concepts import attention


def states(heads, shared, tokens, seen=7, batch=3, d=8):
    draw = torch.Generator().manual_seed(0)
    sizes = ((heads, tokens), (shared, seen), (shared, seen))
    return [torch.randn(batch, h, t, d, generator=draw) for h, t in sizes]


def padded(kind, tokens, seen=7, batch=3):
    """A mask of left padding: nought, two and five tokens."""
    real = torch.arange(seen) >= torch.tensor([0, 2, 5]).unsqueeze(1)
    mask = real[:, None, None].expand(batch, 1, tokens, seen)
    if kind == "none":
        return None
    return mask if kind == "boolean" else torch.zeros(mask.shape).masked_fill(~mask, -1e30)


@pytest.mark.parametrize("kind", ["none", "boolean", "additive"])
@pytest.mark.parametrize(("heads", "shared"), [(6, 6), (6, 2), (4, 1)])
@pytest.mark.parametrize("tokens", [1, 4])
def test_it_is_what_transformers_attends_to(heads, shared, tokens, kind):
    query, key, value = states(heads, shared, tokens)
    module = SimpleNamespace(num_key_value_groups=heads // shared, is_causal=True)
    mask = padded(kind, tokens)
    for scaling in (None, 0.5):
        want, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=scaling)
        got, weights = attention.grouped_decoding(module, query, key, value, mask, scaling=scaling)
        torch.testing.assert_close(got, want)
        assert weights is None


@pytest.mark.model
def test_generation_on_a_cpu_uses_it_and_finds_the_same_tokens(smollm):
    module = smollm.envoy._module
    assert module.config._attn_implementation == attention.NAME
    ids = torch.tensor([smollm.tokenizer("Once upon a time there was")["input_ids"]] * 2)
    mask = torch.ones_like(ids)
    mask[1, :2] = 0  # padding on the left of one row
    options = {"attention_mask": mask, "max_new_tokens": 20, "do_sample": False}
    ours = module.generate(ids, **options)
    module.set_attn_implementation("sdpa")
    theirs = module.generate(ids, **options)
    module.set_attn_implementation(attention.NAME)
    assert torch.equal(ours, theirs)


def test_other_kinds_of_attention_stay():
    chosen = []
    for device, kind in (("cpu", "sdpa"), ("cuda", "sdpa"), ("cpu", "eager")):
        attention.speed_up_generation(
            SimpleNamespace(
                device=SimpleNamespace(type=device),
                config=SimpleNamespace(_attn_implementation=kind),
                set_attn_implementation=lambda name, of=(device, kind): chosen.append((of, name)),
            )
        )
    assert chosen == [(("cpu", "sdpa"), attention.NAME)]

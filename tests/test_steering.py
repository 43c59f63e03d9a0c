"""Steering as arithmetic, and as it acts in the real packaged model."""

import numpy as np
import pytest
import torch

from emotion_concepts import tracing
from emotion_concepts.errors import BadInput, UnknownLayer
from emotion_concepts.steering import Steering, band, random_directions, steer

RNG = np.random.default_rng(0)
PROMPTS = ["My day at the office was", "The old house by the river looked"]


@pytest.fixture(scope="module")
def direction():
    """One unit vector a layer of the packaged model."""
    drawn = np.random.default_rng(1).normal(size=(1, 30, 576))
    return drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def norms(smollm):
    tokens = tracing.token_residuals(
        smollm, ["The bus stops at the corner of the street."], range(30)
    )
    return np.linalg.norm(tokens[0][1:], axis=-1).mean(0)


def test_strength_is_a_fraction_of_the_residual_norm():
    directions = RNG.normal(size=(3, 5, 8))
    found = steer(directions, [0.1, -0.5, 0.0], np.arange(1.0, 6.0), [1, 3])
    lengths = np.linalg.norm(found.add, axis=-1)
    np.testing.assert_allclose(lengths, [[0.2, 0.4], [1.0, 2.0], [0, 0]], atol=1e-6)
    cosine = (found.add[1, 0] @ directions[1, 1]) / np.linalg.norm(directions[1, 1])
    assert cosine == pytest.approx(-1.0, rel=1e-5)


def test_rows_layers_and_spans_must_fit():
    ones = np.ones((2, 4, 3))
    with pytest.raises(BadInput, match="1 strengths need directions"):
        steer(ones, [0.1], np.ones(4), [0])
    with pytest.raises(UnknownLayer, match="layers 0 to 3"):
        steer(ones, [0.1, 0.1], np.ones(4), [4])
    with pytest.raises(BadInput, match="not a number"):
        steer(ones, [0.1, float("nan")], np.ones(4), [0])
    with pytest.raises(BadInput, match="twice"):
        steer(ones, [0.1, 0.1], np.ones(4), [1, 1])
    with pytest.raises(BadInput, match="2 rows need 2 spans"):
        Steering((0,), np.ones((2, 1, 3)), (((0, 1),),))


def test_chosen_rows_keep_their_additions_and_spans():
    made = steer(RNG.normal(size=(3, 4, 5)), [0.1, 0.2, 0.3], np.ones(4), [1, 2])
    spans = [[(0, 1)], [], [(2, 5), (7, 9)]]
    marked = steer(RNG.normal(size=(3, 4, 5)), [0.1, 0.2, 0.3], np.ones(4), [1, 2], spans=spans)
    for whole in (made, marked):
        part = whole[[2, 0, 2]]
        assert len(part) == 3 and part.layers == (1, 2)
        np.testing.assert_array_equal(part.add, whole.add[[2, 0, 2]])
    assert made[[1]].spans is None
    assert marked[[2, 0, 2]].spans == (((2, 5), (7, 9)), ((0, 1),), ((2, 5), (7, 9)))


def test_joined_steerings_follow_one_another_and_must_fit():
    def made(layers, spans=None):
        return steer(RNG.normal(size=(2, 4, 5)), [0.1, 0.2], np.ones(4), layers, spans=spans)

    a, b = made([1, 2], [[(0, 1)], [(1, 2)]]), made([1, 2], [[(2, 3)], []])
    both = Steering.join([a, b])
    np.testing.assert_array_equal(both.add, np.concatenate([a.add, b.add]))
    assert both.layers == (1, 2) and both.spans == (((0, 1),), ((1, 2),), ((2, 3),), ())
    assert Steering.join([made([1]), made([1])]).spans is None
    with pytest.raises(BadInput, match="different layers"):
        Steering.join([a, made([1, 3], [[], []])])
    for mixed in ([a, made([1, 2])], [made([1, 2]), a]):
        with pytest.raises(BadInput, match="with and without spans"):
            Steering.join(mixed)


def test_marks_tell_apart_whatever_makes_a_difference():
    x, y = RNG.normal(size=(2, 4, 5))

    def mark(direction=x, strength=0.1, layers=(1,), spans=((0, 3),)):
        chosen = None if spans is None else [spans]
        [found] = steer(direction[None], [strength], np.ones(4), layers, spans=chosen).marks()
        return found

    different = [
        mark(),
        mark(direction=y),
        mark(strength=0.2),
        mark(strength=-0.1),
        mark(layers=(2,)),
        mark(layers=(1, 2)),
        mark(spans=((0, 4),)),
        mark(spans=((0, 3), (5, 6))),
        mark(spans=None),
    ]
    assert len(set(different)) == len(different) and None not in different
    assert mark() == mark()
    assert mark(strength=0.0) is mark(strength=-0.0) is mark(spans=()) is None
    rows = steer(np.stack([x, y, x]), [0.1, 0.0, 0.1], np.ones(4), [1]).marks()
    assert rows[0] == rows[2] and rows[1] is None


def test_random_controls_have_unit_length_and_no_part_along_the_emotions():
    emotions = RNG.normal(size=(6, 3, 40))
    found = random_directions(10, emotions, seed=1)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, rtol=1e-5)
    for layer in range(3):
        overlap = found[:, layer] @ emotions[:, layer].T
        assert np.abs(overlap).max() < 0.5  # random ones without projection reach about 3
    np.testing.assert_array_equal(found, random_directions(10, emotions, seed=1))
    assert not np.array_equal(found, random_directions(10, emotions, seed=2))
    with pytest.raises(BadInput, match="span all 40"):
        random_directions(1, RNG.normal(size=(60, 1, 40)), variance=1.0)


@pytest.mark.model
def test_strength_zero_is_bit_for_bit_no_steering(smollm, direction, norms):
    none = steer(np.repeat(direction, 2, 0), [0.0, 0.0], norms, band(30))
    plain = tracing.next_token_logprobs(smollm, PROMPTS)
    np.testing.assert_array_equal(
        tracing.next_token_logprobs(smollm, PROMPTS, steering=none), plain
    )
    assert tracing.generate(smollm, PROMPTS, max_new_tokens=8, steering=none) == tracing.generate(
        smollm, PROMPTS, max_new_tokens=8
    )
    for a, b in zip(
        tracing.token_residuals(smollm, PROMPTS, [5, 19], steering=none),
        tracing.token_residuals(smollm, PROMPTS, [5, 19]),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.model
def test_an_addition_arrives_where_it_was_made_in_full(smollm, direction, norms):
    made = steer(direction, [0.3], norms, [12])
    [steered] = tracing.token_residuals(smollm, PROMPTS[:1], [11, 12, 20], steering=made)
    [plain] = tracing.token_residuals(smollm, PROMPTS[:1], [11, 12, 20])
    np.testing.assert_array_equal(steered[:, 0], plain[:, 0])
    np.testing.assert_allclose(
        steered[:, 1] - plain[:, 1], np.broadcast_to(made.add[0, 0], plain[:, 1].shape), atol=1e-3
    )
    assert np.abs(steered[:, 2] - plain[:, 2]).max() > 1e-2


@pytest.mark.model
def test_rows_of_a_batch_are_steered_each_by_its_own(smollm, direction, norms):
    strengths = [0.2, -0.1]
    both = steer(np.repeat(direction, 2, 0), strengths, norms, band(30))
    together = tracing.next_token_logprobs(smollm, PROMPTS, steering=both)
    text = tracing.generate(smollm, PROMPTS, max_new_tokens=6, steering=both)
    for n, (prompt, strength) in enumerate(zip(PROMPTS, strengths, strict=True)):
        one = steer(direction, [strength], norms, band(30))
        alone = tracing.next_token_logprobs(smollm, [prompt], steering=one)
        np.testing.assert_allclose(together[n], alone[0], atol=5e-3)
        assert [text[n]] == tracing.generate(smollm, [prompt], max_new_tokens=6, steering=one)
    plain = tracing.next_token_logprobs(smollm, PROMPTS)
    assert np.abs(together - plain).max() > 0.1


@pytest.mark.model
def test_generation_is_steered_at_every_step_as_with_plain_hooks(smollm, direction, norms):
    made = steer(direction, [0.3], norms, [12, 15])
    got = tracing.generate(smollm, PROMPTS[:1], max_new_tokens=8, steering=made)
    module, ids = smollm.envoy._module, torch.tensor([smollm.tokenizer(PROMPTS[0])["input_ids"]])
    additions = dict(zip(made.layers, torch.tensor(made.add[0]), strict=True))
    hooks = [
        module.model.layers[layer].register_forward_hook(lambda m, i, out, add=add: out + add)
        for layer, add in additions.items()
    ]
    with torch.no_grad():
        new = module.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
    for hook in hooks:
        hook.remove()
    assert got == [smollm.tokenizer.decode(new)]


@pytest.mark.model
def test_a_span_steers_its_own_tokens_only(smollm, direction, norms):
    prompt = PROMPTS[0]
    start = prompt.index("office")
    made = steer(direction, [0.5], norms, [10], spans=[[(start, start + 6)]])
    inside = tracing.tokens_in(smollm, prompt, [(start, start + 6)])
    texts = tracing.tokens_as_text(smollm, prompt)
    assert "".join(texts[n] for n in inside).strip() == "office"
    [steered] = tracing.token_residuals(smollm, [prompt], [10], steering=made)
    [plain] = tracing.token_residuals(smollm, [prompt], [10])
    moved = np.abs(steered - plain).max((1, 2)) > 1e-3
    assert np.flatnonzero(moved).tolist() == inside
    padded = tracing.next_token_logprobs(
        smollm,
        [prompt, PROMPTS[1] + " as if nobody had lived there for years, and yet"],
        steering=steer(
            np.repeat(direction, 2, 0), [0.5, 0.0], norms, [10],
            spans=[[(start, start + 6)], [(0, 3)]],
        ),
    )  # fmt: skip
    alone = tracing.next_token_logprobs(smollm, [prompt], steering=made)
    np.testing.assert_allclose(padded[0], alone[0], atol=5e-3)
    with pytest.raises(BadInput, match="no range of characters"):
        tracing.tokens_in(smollm, prompt, [(3, 3)])


@pytest.mark.model
def test_a_span_is_steered_while_the_prompt_is_read_and_not_after(smollm, direction, norms):
    """Even where the prompt is one token, which looks like a later step."""
    text = "Sad"
    assert len(smollm.tokenizer(text)["input_ids"]) == 1
    made = steer(direction, [2.0], norms, [5], spans=[[(0, 3)]])
    got = tracing.generate(smollm, [text], max_new_tokens=6, steering=made)[0]
    module, ids = smollm.envoy._module, torch.tensor([smollm.tokenizer(text)["input_ids"]])
    calls, add = [], torch.tensor(made.add[0, 0])

    def once(_module, _inputs, out):
        calls.append(None)
        return out + add if len(calls) == 1 else out

    hook = module.model.layers[5].register_forward_hook(once)
    with torch.no_grad():
        new = module.generate(ids, max_new_tokens=6, do_sample=False)[0, 1:]
    hook.remove()
    assert len(calls) == 6 and got == smollm.tokenizer.decode(new)


@pytest.mark.model
def test_small_strengths_act_with_opposite_sign(smollm, direction, norms):
    pair = steer(np.repeat(direction, 2, 0), [0.01, -0.01], norms, [15])
    plain = tracing.next_token_logprobs(smollm, PROMPTS[:1])[0]
    up, down = tracing.next_token_logprobs(smollm, PROMPTS[:1] * 2, steering=pair) - plain
    assert np.corrcoef(up, down)[0, 1] < -0.9


@pytest.mark.model
def test_steering_rows_must_match_the_prompts(smollm, direction, norms):
    with pytest.raises(BadInput, match="2 prompts need 2 steering rows, not 1"):
        tracing.generate(
            smollm, PROMPTS, max_new_tokens=2, steering=steer(direction, [0.1], norms, [5])
        )

"""How much goes into one forward pass, and what happens when it was too much.

No GPU is needed: its counters are planted, and the model runs out of memory on purpose.
"""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from emotion_concepts import memory, models, tracing
from emotion_concepts.errors import ModelTooLarge
from emotion_concepts.memory import Room
from emotion_concepts.steering import steer
from emotion_concepts.tracing import MeanFrom

GIB = 2**30


class Cuda:
    """The counters of several GPUs, in bytes, as `torch.cuda` gives them."""

    def __init__(self, *free: int, kept: int = 0):
        self.free, self.kept = list(free), kept
        self.peak = [0] * len(free)

    def is_available(self):
        return True

    def device_count(self):
        return len(self.free)

    def mem_get_info(self, gpu=0):
        return self.free[gpu], 80 * GIB

    def memory_allocated(self, gpu):
        return 0

    def memory_reserved(self, gpu):
        return self.kept

    def reset_peak_memory_stats(self, gpu):
        self.peak[gpu] = 0

    def max_memory_allocated(self, gpu):
        return self.peak[gpu]


@pytest.fixture
def plant(monkeypatch):
    """A function that puts such counters in the place of `torch.cuda`."""

    def put(*free: int, **settings) -> Cuda:
        cuda = Cuda(*free, **settings)
        monkeypatch.setattr(torch, "cuda", cuda)
        return cuda

    return put


def run(room: Room, cuda: Cuda, rows: int, width: int, *costs: int) -> None:
    """Pretend a pass that costs so many bytes a token on each GPU."""
    with room.measured(rows, width):
        cuda.peak = [cost * rows * (width + room.new) for cost in costs]


# --- the number of rows ------------------------------------------------------------------------


def test_without_a_gpu_the_number_of_tokens_alone_counts():
    room = Room(2048)
    with room.measured(6, 300):
        pass
    assert [room.rows(width) for width in (300, 2048, 5000, 1)] == [6, 1, 1, 2048]


def test_the_first_pass_is_small_and_what_it_took_decides_on_the_next(plant):
    cuda = plant(8 * GIB)
    room = Room(32768, [0])
    assert room.rows(100) == memory.FIRST // 100
    run(room, cuda, 20, 100, 2**20)
    share = memory.SHARE * 8 * GIB / 2**20
    assert room.rows(100) == share // 100 == 40
    cuda.free = [800 * GIB]
    assert room.rows(100) == 32768 // 100


def test_memory_that_pytorch_holds_and_does_not_use_counts_as_free(plant):
    cuda = plant(GIB, kept=3 * GIB)
    room = Room(32768, [0])
    run(room, cuda, 1, 100, 2**20)
    assert room.rows(16) == memory.SHARE * 4 * 1024 // 16


def test_the_fullest_gpu_decides(plant):
    cuda = plant(16 * GIB, 2 * GIB)
    room = Room(32768, [0, 1])
    run(room, cuda, 2, 100, 2**20, 2**20)
    assert room.rows(64) == 16
    cuda.free = [16 * GIB, 64 * GIB]
    assert room.rows(64) == 128


def test_the_dearest_pass_counts_and_one_that_fails_teaches_nothing(plant):
    cuda = plant(8 * GIB)
    room = Room(32768, [0])
    run(room, cuda, 2, 100, 2**20)
    run(room, cuda, 2, 100, 2**22)
    run(room, cuda, 2, 100, 2**18)
    with pytest.raises(torch.OutOfMemoryError), room.measured(2, 100):
        cuda.peak = [1000 * GIB]
        raise torch.OutOfMemoryError
    assert room.cost == {0: 2**22}


def test_tokens_to_be_generated_need_room_too(plant):
    cuda = plant(8 * GIB)
    room = Room(32768, [0], new=156)
    run(room, cuda, 10, 100, 2**20)
    assert room.rows(100) == memory.SHARE * 8192 // 256 == 16


def test_no_pass_is_larger_than_half_of_one_that_did_not_fit():
    room = Room(2048)
    room.halve(6, 300)
    assert room.rows(300) == 3
    assert room.rows(100) == 9
    room.halve(3, 300)
    assert room.rows(300) == 1


# --- running out of it -------------------------------------------------------------------------


@pytest.fixture
def short_of_memory(smollm):
    """A context in which a pass over more than so many padded tokens does not fit."""

    @contextmanager
    def limit(tokens: int, *, after: int = 0):
        passes = []

        def refuse(_module, args, kwargs):
            ids = kwargs["input"] if "input" in kwargs else args[0]
            passes.append(ids.shape)
            if len(passes) > after and ids.numel() > tokens:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        embedding = smollm.envoy._module.get_input_embeddings()
        hook = embedding.register_forward_pre_hook(refuse, with_kwargs=True)
        try:
            yield passes
        finally:
            hook.remove()

    return limit


PROMPTS = [
    "The sky is",
    "Once upon a time, in a small village by the sea, there lived",
    "She opened the",
    "He read the letter twice and then he",
    "The sky is",
]
SPANS = [[(0, 7)], [(0, 4), (16, 29)], [(4, 10)], [(3, 7)], [(4, 10)]]
OPTIONS = [[" blue", " grey and full of rain"]] * 5


def steering(marked: bool):
    directions = np.random.default_rng(0).normal(size=(5, 30, 576))
    spans = SPANS if marked else None
    return steer(directions, [0.3, -0.3, 0.0, 0.2, 0.3], np.full(30, 60.0), [12], spans=spans)


def pooled(model, folder, **options):
    return tracing.pooled_residuals(model, PROMPTS, MeanFrom(1), cache=folder, **options)


def options_and_residuals(model, folder):
    scores, read = tracing.options_and_residuals(
        model, PROMPTS, OPTIONS, {"marked": SPANS}, cache=folder
    )
    return np.concatenate([np.ravel(scores.total), np.ravel(read["marked"])])


CALLS = {
    "pooled": pooled,
    "pooled, padded right": lambda model, folder: pooled(model, folder, padding_side="right"),
    "spans": lambda model, folder: tracing.span_residuals(model, PROMPTS, SPANS, cache=folder),
    "tokens": lambda model, folder: np.concatenate(
        tracing.token_residuals(model, PROMPTS, [3, 12], steering=steering(True))
    ),
    "next token": lambda model, folder: tracing.next_token_logprobs(
        model, PROMPTS, steering=steering(False)
    ),
    "options": lambda model, folder: (
        tracing.option_logprobs(
            model, PROMPTS, OPTIONS, steering=steering(True), cache=folder
        ).total
    ),
    "options and spans": options_and_residuals,
}


@pytest.mark.model
@pytest.mark.parametrize("name", CALLS)
def test_a_batch_that_does_not_fit_is_halved_and_changes_no_result(
    smollm, short_of_memory, own_cache, name
):
    roomy = np.asarray(CALLS[name](smollm, own_cache / "roomy"))
    with short_of_memory(30) as passes:
        found = np.asarray(CALLS[name](smollm, own_cache / "short"))
    rows, widths = zip(*passes, strict=True)
    assert rows[:2] == (rows[0], rows[0] // 2) and widths[0] == widths[1]
    assert sum(r * w > 30 for r, w in passes) in (1, 2)  # what was learnt is kept
    np.testing.assert_allclose(found, roomy, rtol=1e-4, atol=5e-3)


@pytest.mark.model
@pytest.mark.parametrize("marked", [False, True])
def test_what_is_generated_does_not_depend_on_the_memory(
    smollm, short_of_memory, own_cache, marked
):
    options = {"max_new_tokens": 6, "steering": steering(marked), "temperature": 0.7}
    options["seeds"] = [3, 3, 3, 3, 4]
    roomy = tracing.generate(smollm, PROMPTS, cache=own_cache / "roomy", **options)
    with short_of_memory(30) as passes:
        found = tracing.generate(smollm, PROMPTS, cache=own_cache / "short", **options)
    assert any(rows * width > 30 for rows, width in passes)
    assert found == roomy


@pytest.mark.model
def test_a_single_text_without_room_is_told_in_a_sentence_that_names_the_fix(
    smollm, short_of_memory, own_cache
):
    told = r"cpu has no room for one text of 15 tokens .*float32; shorten it, .* or take a smaller"
    with short_of_memory(10), pytest.raises(ModelTooLarge, match=told) as e:
        tracing.next_token_logprobs(smollm, PROMPTS)
    assert isinstance(e.value.__cause__, torch.OutOfMemoryError) and "\n" not in str(e.value)
    with (
        short_of_memory(10),
        pytest.raises(ModelTooLarge, match="one text of 15 tokens and 4 of a reply beside"),
    ):
        tracing.generate(smollm, PROMPTS, max_new_tokens=4)
    directions = np.eye(2, 576)
    with short_of_memory(1), pytest.raises(ModelTooLarge, match="has no room"):
        tracing.generate_reading(
            smollm, PROMPTS[1], 3, directions, on_token=lambda *_: None, max_new_tokens=2
        )
    assert smollm.envoy is not None  # no longer held by the reply that was given up


@pytest.mark.model
def test_what_was_finished_before_memory_ran_out_stays_on_disk(smollm, short_of_memory, own_cache):
    with short_of_memory(0, after=2) as passes, pytest.raises(ModelTooLarge):
        pooled(smollm, own_cache / "short", batch_tokens=20)
    done = passes[0][0] + passes[1][0]
    kept = [len(path.read_text().split()) for path in own_cache.rglob("index.txt")]
    assert kept == [done] and 0 < done < len(set(PROMPTS))
    with short_of_memory(1000) as passes:
        found = pooled(smollm, own_cache / "short")
    assert sum(rows for rows, _ in passes) == len(set(PROMPTS)) - done
    fresh = np.asarray(pooled(smollm, own_cache / "fresh"))
    np.testing.assert_allclose(np.asarray(found), fresh, rtol=1e-4, atol=5e-3)


@pytest.mark.model
def test_on_a_gpu_batches_grow_to_what_its_memory_allows(smollm, plant, monkeypatch, own_cache):
    texts = [f"{prompt} {word}" for prompt in PROMPTS[:4] for word in ("a", "the", "and")]
    plain = tracing.pooled_residuals(smollm, texts, MeanFrom(1), cache=own_cache / "cpu")
    cuda, seen, real = plant(2 * 60 * 2**20), [], tracing._pooled_batch
    monkeypatch.setattr(tracing.TracedModel, "gpus", [0])
    monkeypatch.setattr(memory, "FIRST", 20)

    def costly(model, batch, weights):
        seen.append(batch.mask.numel())
        cuda.peak = [batch.mask.numel() * 2**20]
        return real(model, batch, weights)

    monkeypatch.setattr(tracing, "_pooled_batch", costly)
    found = tracing.pooled_residuals(smollm, texts, MeanFrom(1), cache=own_cache / "gpu")
    assert seen[0] <= 20 and 30 < seen[1] <= 60 and max(seen) <= 60
    np.testing.assert_allclose(np.asarray(found), np.asarray(plain), rtol=1e-4, atol=5e-3)


# --- where a model goes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "device"), [((), "cpu"), ((GIB,), "cuda"), ((GIB, GIB), "auto")], ids=str
)
def test_a_model_goes_to_the_gpu_and_over_all_of_them_if_there_are_several(
    plant, monkeypatch, gpus, device
):
    cuda = plant(*gpus)
    monkeypatch.setattr(cuda, "is_available", lambda: bool(gpus))
    assert models._pick_device("auto") == device
    assert models._pick_device("cuda:1") == "cuda:1"


def test_the_gpus_of_a_model_are_those_that_hold_its_weights():
    names = ("cuda:1", "cpu", "cuda:0", "cuda:1", "meta")
    weights = [SimpleNamespace(device=torch.device(name)) for name in names]
    model = tracing.TracedModel.__new__(tracing.TracedModel)
    model._envoy = SimpleNamespace(_module=SimpleNamespace(parameters=lambda: iter(weights)))
    assert model.gpus == [0, 1]


class Weights:
    """Stands for AutoModelForCausalLM: a billion weights."""

    @staticmethod
    def from_config(config):
        return SimpleNamespace(parameters=lambda: [torch.empty(10**9)])


def test_the_memory_of_several_gpus_adds_up_where_the_model_is_spread_over_them(plant):
    plant(3 * GIB, 3 * GIB)
    models._check_memory("large", Weights, None, torch.float32, "auto")
    with pytest.raises(ModelTooLarge, match=r"3\.7 GiB.*3\.0 GiB of GPU memory are free"):
        models._check_memory("large", Weights, None, torch.float32, "cuda")

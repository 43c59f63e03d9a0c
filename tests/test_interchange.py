"""Control vectors and NumPy archives: exact both ways, and right where other tools use them."""

import dataclasses
import itertools

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from emotion_concepts import tracing
from emotion_concepts.errors import BadInput, CacheError, UnknownEmotion, UnknownLayer, WrongModel
from emotion_concepts.interchange import from_gguf, from_npz, to_gguf, to_npz
from emotion_concepts.steering import Steering, band, steer
from emotion_concepts.tracing import ModelIdentity, TracedModel
from emotion_concepts.vectors import EmotionVectors, Provenance, Stacked

IDENTITY = ModelIdentity("tiny", "w" * 16, "t" * 16, "float32")
MADE = Provenance("tiny", "w" * 16, "t" * 16, "c", "n", 10, 0.5)
LAYERS, WIDTH = 6, 32
PROMPT = "The kettle clicked off and nobody moved."


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    stories = Stacked(rng.normal(size=(12, LAYERS, WIDTH)))
    neutral = Stacked(rng.normal(size=(9, LAYERS, WIDTH)) * np.arange(1, 1 + LAYERS)[:, None])
    return EmotionVectors.fit(stories, ["calm", "angry", "sad"] * 4, neutral, provenance=MADE)


@pytest.fixture(scope="module")
def tiny(smollm):
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama", vocab_size=49152, hidden_size=WIDTH, num_hidden_layers=LAYERS,
        num_attention_heads=4, num_key_value_heads=2, intermediate_size=64,
        initializer_range=0.3,  # at the default, random blocks hardly differ from none
    )  # fmt: skip
    module = AutoModelForCausalLM.from_config(config).eval()
    return TracedModel(module, smollm.tokenizer, IDENTITY)


def write(path, tensors, *, arch="controlvector", **strings):
    """Write a GGUF file as other tools do, tensor by tensor."""
    writer = gguf.GGUFWriter(path, arch)
    for key, value in strings.items():
        writer.add_string(f"controlvector.{key}", value)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


# --- control vectors ---------------------------------------------------------------------------


@pytest.mark.parametrize(("strength", "layers"), [(0.1, [2, 3]), (-0.03, [1]), (1.0, [5, 1, 3])])
def test_a_control_vector_comes_back_bit_for_bit_as_the_steering_of_that_strength(
    vectors, tmp_path, strength, layers
):
    path = to_gguf(vectors, "sad", tmp_path / "v.gguf", strength=strength, layers=layers)
    found = from_gguf(path)
    ours = steer(vectors["sad"][None], [strength], vectors.residual_norm, sorted(layers))
    assert found.layers == ours.layers == tuple(sorted(layers))
    assert type(found.directions) is np.ndarray and found.directions.dtype == np.float32
    np.testing.assert_array_equal(found.directions, ours.add[0])
    assert (found.emotion, found.strength, found.provenance) == ("sad", strength, MADE)


def test_by_default_a_scale_of_one_is_a_strength_of_a_tenth_in_the_middle_third(vectors, tmp_path):
    found = from_gguf(to_gguf(vectors, "calm", tmp_path / "v.gguf"))
    assert list(found.layers) == band(LAYERS) == [2, 3]
    lengths = np.linalg.norm(found.directions, axis=1)
    np.testing.assert_allclose(lengths, 0.1 * vectors.residual_norm[[2, 3]], rtol=1e-5)
    cosine = (found.directions * vectors["calm"][[2, 3]]).sum(1) / lengths
    np.testing.assert_allclose(cosine, 1, rtol=1e-5)
    assert found.model_hint == "tiny"


def test_with_a_strength_of_one_the_scale_is_the_strength(vectors, tmp_path):
    whole = from_gguf(to_gguf(vectors, "calm", tmp_path / "v.gguf", strength=1))
    ours = steer(vectors["calm"][None], [-0.05], vectors.residual_norm, whole.layers).add[0]
    np.testing.assert_allclose(-0.05 * whole.directions, ours, rtol=1e-5)


def test_the_file_has_the_keys_and_tensors_that_other_tools_look_for(vectors, tmp_path):
    path = to_gguf(vectors, "calm", tmp_path / "v.gguf", layers=[4, 1, 2], model_hint="llama")
    reader = gguf.GGUFReader(path)
    values = {key: field.contents() for key, field in reader.fields.items()}
    assert values["general.architecture"] == "controlvector"
    assert values["controlvector.model_hint"] == "llama"
    assert values["controlvector.layer_count"] == 3  # directions, as repeng counts
    assert [tensor.name for tensor in reader.tensors] == [f"direction.{n}" for n in (1, 2, 4)]
    for tensor in reader.tensors:
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
        assert tensor.shape.tolist() == [WIDTH]


def test_equal_vectors_give_equal_files(vectors, tmp_path):
    first = to_gguf(vectors, "calm", tmp_path / "a.gguf"), to_npz(vectors, tmp_path / "a.npz")
    again = to_gguf(vectors, "calm", tmp_path / "b.gguf"), to_npz(vectors, tmp_path / "b.npz")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


@pytest.mark.model
@pytest.mark.parametrize("layer", [1, 2, LAYERS - 1])
def test_direction_k_changes_the_output_of_block_k_as_steering_does(vectors, tiny, tmp_path, layer):
    """k is added to the output of block k, counted from 0, as llama.cpp and repeng do."""
    to_gguf(vectors, "calm", tmp_path / "v.gguf", strength=0.5, layers=[layer])
    [tensor] = gguf.GGUFReader(tmp_path / "v.gguf").tensors
    k, direction = int(tensor.name.split(".")[1]), torch.from_numpy(tensor.data.copy())
    module = tiny.envoy._module
    ids = torch.tensor([tiny.tokenizer(PROMPT)["input_ids"]])
    hook = module.model.layers[k].register_forward_hook(lambda block, x, out: out + direction)
    try:
        with torch.no_grad():
            theirs = module(ids).logits[0, -1].log_softmax(-1)
    finally:
        hook.remove()

    def ours(at):
        steered = steer(vectors["calm"][None], [0.5], vectors.residual_norm, [layer])
        moved = dataclasses.replace(steered, layers=(at,))
        return tracing.next_token_logprobs(tiny, [PROMPT], steering=moved)[0]

    np.testing.assert_allclose(ours(layer), theirs, rtol=1e-4, atol=1e-4)
    beside = layer - 1  # a numbering that counts the embeddings would be off by one
    assert np.abs(ours(beside) - theirs.numpy()).max() > 0.1


@pytest.mark.model
def test_what_is_read_back_steers_our_models(vectors, tiny, tmp_path):
    found = from_gguf(to_gguf(vectors, "calm", tmp_path / "v.gguf", strength=0.5))
    theirs = Steering(found.layers, found.directions[None])
    ours = steer(vectors["calm"][None], [0.5], vectors.residual_norm, band(LAYERS))
    plain, back, direct = (
        tracing.next_token_logprobs(tiny, [PROMPT], steering=steering)
        for steering in (None, theirs, ours)
    )
    np.testing.assert_array_equal(back, direct)
    assert np.abs(back - plain).max() > 0.1


def test_layers_that_llama_cpp_or_the_model_lack_are_refused(vectors, tmp_path):
    path = tmp_path / "v.gguf"
    with pytest.raises(UnknownLayer, match="no control vector for layer 0; choose .* 1 to 5"):
        to_gguf(vectors, "calm", path, layers=[0, 1])
    with pytest.raises(UnknownLayer, match="layers 0 to 5"):
        to_gguf(vectors, "calm", path, layers=[6])
    with pytest.raises(BadInput, match="twice"):
        to_gguf(vectors, "calm", path, layers=[2, 2])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "nothing", [{"layers": []}, {"strength": 0}], ids=["no layers", "no strength"]
)
def test_a_control_vector_that_adds_nothing_is_refused(vectors, tmp_path, nothing):
    with pytest.raises(BadInput, match="adds nothing; give layers, and a strength other than 0"):
        to_gguf(vectors, "calm", tmp_path / "v.gguf", **nothing)


def test_unknown_emotions_and_strengths_that_are_no_numbers_are_refused(vectors, tmp_path):
    with pytest.raises(UnknownEmotion, match="did you mean calm"):
        to_gguf(vectors, "clam", tmp_path / "v.gguf")
    with pytest.raises(BadInput, match="not a number"):
        to_gguf(vectors, "calm", tmp_path / "v.gguf", strength=float("nan"))


def test_vectors_without_provenance_are_not_exported(vectors, tmp_path):
    bare = dataclasses.replace(vectors, provenance=None)
    for export in (lambda: to_gguf(bare, "calm", tmp_path / "v"), lambda: to_npz(bare, "v")):
        with pytest.raises(BadInput, match="without provenance are not exported"):
            export()


@pytest.mark.parametrize("format", ["gguf", "npz"])
def test_an_export_that_fails_half_way_leaves_the_old_file_alone(
    vectors, tmp_path, monkeypatch, format
):
    path = tmp_path / f"v.{format}"

    def export():
        return to_npz(vectors, path) if format == "npz" else to_gguf(vectors, "calm", path)

    before = export().read_bytes()

    def fail(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", fail)
    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="no space"):
        export()
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_control_vectors_of_other_tools_are_read_in_the_order_of_layers(tmp_path):
    rng = np.random.default_rng(0)
    drawn = {n: rng.normal(size=8).astype(np.float32) for n in (11, 2, 7)}
    tensors = {f"direction.{n}": direction for n, direction in drawn.items()}
    extra = {"note": np.ones(3, np.float32)}
    found = from_gguf(write(tmp_path / "v.gguf", tensors | extra, model_hint="mistral"))
    assert found.layers == (2, 7, 11)
    np.testing.assert_array_equal(found.directions, [drawn[n] for n in (2, 7, 11)])
    assert found.model_hint == "mistral"
    assert found.emotion is found.strength is found.provenance is None
    assert from_gguf(write(tmp_path / "w.gguf", tensors)).model_hint == ""


ROW = np.ones(8, np.float32)


@pytest.mark.parametrize(
    ("tensors", "arch", "message"),
    [
        ({"token_embd.weight": ROW}, "llama", "holds 'llama', not a control vector"),
        ({"note": ROW}, "controlvector", "no directions"),
        ({}, "controlvector", "no directions"),
        ({"direction.1": ROW, "direction.2": ROW[:4]}, "controlvector", "several widths"),
        ({"direction.first": ROW}, "controlvector", r"'direction.first', F32 \[8\]"),
        ({"direction.-1": ROW}, "controlvector", "'direction.-1'"),
        ({"direction.1": ROW.astype(np.float16)}, "controlvector", r"'direction.1', F16 \[8\]"),
        ({"direction.1": np.ones((2, 8), np.float32)}, "controlvector", r"F32 \[2, 8\]"),
    ],
)
def test_a_gguf_file_that_is_no_control_vector_is_refused(tmp_path, tensors, arch, message):
    path = write(tmp_path / "other.gguf", tensors, arch=arch)
    with pytest.raises(CacheError, match=f"other.gguf.*{message}"):
        from_gguf(path)


def test_files_that_are_missing_torn_or_something_else_are_reported_by_name(vectors, tmp_path):
    whole = {
        from_gguf: to_gguf(vectors, "calm", tmp_path / "v.gguf").read_bytes(),
        from_npz: to_npz(vectors, tmp_path / "v.npz").read_bytes(),
    }
    np.save(tmp_path / "bare.npy", np.ones(3))
    texts = [b"", b"junk", b"GGUF", b"PK\x03\x04", (tmp_path / "bare.npy").read_bytes()]
    path = tmp_path / "file"
    for read, content in whole.items():
        with pytest.raises(CacheError, match=r"gone.* could not be read as .*No such file"):
            read(tmp_path / "gone")
        with pytest.raises(CacheError, match="could not be read"):
            read(tmp_path)
        torn = (content[:n] for n in range(8, len(content), 61))
        for text in itertools.chain(texts, torn):
            path.write_bytes(text)
            with pytest.raises(CacheError, match="file could not be read as "):
                read(path)
        path.write_bytes(content)
        read(path)


# --- repeng ------------------------------------------------------------------------------------


@pytest.mark.model
def test_repeng_reads_our_file_and_steers_as_we_do(vectors, tiny, tmp_path):
    repeng = pytest.importorskip("repeng")
    path = to_gguf(vectors, "calm", tmp_path / "v.gguf", strength=0.5, model_hint="llama")
    found = repeng.ControlVector.import_gguf(path)
    assert found.model_type == "llama" and list(found.directions) == band(LAYERS)
    half = steer(vectors["calm"][None], [0.25], vectors.residual_norm, band(LAYERS))
    ours = tracing.next_token_logprobs(tiny, [PROMPT], steering=half)[0]
    plain = tracing.next_token_logprobs(tiny, [PROMPT])[0]
    control = repeng.ControlModel(tiny.envoy._module, band(LAYERS))
    try:
        control.set_control(found, 0.5)
        with torch.no_grad():
            ids = torch.tensor([tiny.tokenizer(PROMPT)["input_ids"]])
            theirs = control(ids).logits[0, -1].log_softmax(-1).numpy()
    finally:
        control.unwrap()
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-4)
    assert np.abs(ours - plain).max() > 0.1


def test_we_read_what_repeng_writes(tmp_path):
    repeng = pytest.importorskip("repeng")
    directions = {3: ROW, 1: 2 * ROW}
    repeng.ControlVector("mistral", directions).export_gguf(tmp_path / "v.gguf")
    found = from_gguf(tmp_path / "v.gguf")
    assert found.layers == (1, 3) and found.model_hint == "mistral"
    np.testing.assert_array_equal(found.directions, [2 * ROW, ROW])


# --- NumPy archives ----------------------------------------------------------------------------


def test_an_archive_comes_back_with_every_array_name_and_provenance(vectors, tmp_path):
    back = from_npz(to_npz(vectors, tmp_path / "v.npz"), identity=IDENTITY)
    assert back.emotions == vectors.emotions and back.provenance == MADE
    for name in ("directions", "norms", "centre", "neutral_k", "residual_norm"):
        ours, theirs = getattr(vectors, name), getattr(back, name)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(back["sad"], vectors["sad"])


def test_an_archive_is_plain_arrays_under_the_name_it_was_given(vectors, tmp_path):
    path = to_npz(vectors, tmp_path / "vectors.archive")
    assert list(tmp_path.iterdir()) == [path]
    with np.load(path, allow_pickle=False) as archive:
        kinds = {name: archive[name].dtype.kind for name in archive.files}
        assert archive["emotions"].tolist() == ["calm", "angry", "sad"]
        assert archive["directions"].shape == (3, LAYERS, WIDTH)
    assert kinds == {
        "emotions": "U", "provenance": "U", "directions": "f", "norms": "f", "centre": "f",
        "neutral_k": "i", "residual_norm": "f",
    }  # fmt: skip


def test_an_archive_leads_back_to_the_same_safetensors_file(vectors, tmp_path):
    saved = EmotionVectors.load(vectors.save(tmp_path / "v.safetensors"))
    back = from_npz(to_npz(saved, tmp_path / "v.npz"))
    again = back.save(tmp_path / "w.safetensors")
    assert again.read_bytes() == (tmp_path / "v.safetensors").read_bytes()


@pytest.mark.parametrize("what", ["weights", "tokenizer"])
def test_an_archive_of_another_model_is_refused(vectors, tmp_path, what):
    path = to_npz(vectors, tmp_path / "v.npz")
    with pytest.raises(WrongModel, match=f"fitted on 'tiny'.*{what}"):
        from_npz(path, identity=dataclasses.replace(IDENTITY, **{what: "x" * 16}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"centre": None}, "centre is not a file in the archive"),
        ({"norms": np.ones(3)}, "shapes"),
        ({"emotions": np.array(["calm"])}, "shapes"),
        ({"directions": np.ones((3, LAYERS))}, "could not be read as emotion vectors"),
        ({"emotions": np.array([{"a": 1}], dtype=object)}, "allow_pickle=False"),
        ({"provenance": np.array("{}")}, "missing 7 required"),
        ({"provenance": np.array("tiny")}, "could not be read as emotion vectors"),
    ],
)
def test_an_archive_of_something_else_is_refused(vectors, tmp_path, change, message):
    with np.load(to_npz(vectors, tmp_path / "v.npz")) as archive:
        arrays = dict(archive) | change
    np.savez(tmp_path / "other.npz", **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(CacheError, match=f"other.npz.*{message}"):
        from_npz(tmp_path / "other.npz")

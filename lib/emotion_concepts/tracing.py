"""Run a model and read its residual stream; the only module that touches nnsight.

Texts go in, plain NumPy arrays come out; no emotion is known here.

Layer convention, used everywhere: the residual stream of layer L is the output of decoder block
L, counted from 0. It equals ``hidden_states[L + 1]`` of transformers (except after the last block,
where transformers applies the final norm first), and is checked on every load.

Inside a trace stand only torch operations on local names, so that the same block runs on a server
that does not have this library.
"""

from __future__ import annotations

import json
import os
import urllib.request
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import httpx
import numpy as np
import torch
from anyio import TypedAttributeSet
from jinja2 import TemplateError
from nnsight import CONFIG, TransformersModel
from nnsight.intervention.backends.remote import RemoteBackend, RemoteError
from nnsight.modeling import huggingface
from pydantic import ValidationError
from tqdm.auto import tqdm
from transformers import Cache, LogitsProcessor
from transformers.integrations import sdpa_attention
from websocket import WebSocketBadStatusException, WebSocketException

from emotion_concepts.cache import RowStore, TextStore, cache_dir, digest
from emotion_concepts.errors import (
    BadInput,
    EmotionConceptsError,
    ModelTooLarge,
    ServerError,
    UnknownLayer,
    UnknownModel,
    UnsupportedArchitecture,
)
from emotion_concepts.geometry import unit
from emotion_concepts.memory import Room
from emotion_concepts.steering import Span, Steering
from emotion_concepts.trees import Item, Tree, gather

# nnsight mounts `.save` on every object, where parts of anyio, imported later, want its type
TypedAttributeSet.__annotations__["save"] = object

# Where there is a mask, transformers copies keys and values for every query head that shares them,
# since kernels of CUDA want it. A CPU's do not, and the copies take longer than the attention.
_shares_heads = sdpa_attention.use_gqa_in_sdpa
sdpa_attention.use_gqa_in_sdpa = lambda mask, key, *value: (
    key.device.type == "cpu" or _shares_heads(mask, key, *value)
)

# One vocabulary for the architectures that the book knows. Left: where transformers puts it.
RENAME = {
    "model.layers": "layers",
    "model.language_model.layers": "layers",
    "transformer.h": "layers",
    "gpt_neox.layers": "layers",
    "model.embed_tokens": "embed_tokens",
    "model.language_model.embed_tokens": "embed_tokens",
    "transformer.wte": "embed_tokens",
    "gpt_neox.embed_in": "embed_tokens",
    "model.norm": "ln_final",
    "model.language_model.norm": "ln_final",
    "transformer.ln_f": "ln_final",
    "gpt_neox.final_layer_norm": "ln_final",
    "embed_out": "lm_head",
}

# Padded tokens in one forward pass at most; on a GPU its free memory may allow fewer.
BATCH_TOKENS = {"cpu": 2048, "cuda": 32768, "mps": 8192}
GENERATION_TOKENS = {"cpu": 16384, "cuda": 32768, "mps": 16384}  # one new token a row at a time
TREE_TOKENS = 2048  # of prompts read together: the attention mask grows with the square
JOB_BATCHES = 8  # in one job of a server: fewer wait more in its queue, more lose more to a failure
JOB_BYTES = 64 * 2**20  # that one job brings back
LENS_ROWS = 16384  # of the output head that are in float32 at a time
CACHE_VERSION = 1  # raise when pooling or tokenisation changes what a cached row means

T = TypeVar("T")

warnings.filterwarnings("ignore", message=".*never reached.*")  # nnsight, on every open loop


@dataclass(frozen=True)
class ModelIdentity:
    """What pins a model: vectors fitted on one identity refuse another.

    Attributes
    ----------
    name : str
        Registry name, hub id or folder.
    weights, tokenizer : str
        Hashes (or the hub's commit).
    dtype : str
        Precision of the forward pass; part of the cache key, not of the vectors' identity.
    """

    name: str
    weights: str
    tokenizer: str
    dtype: str


class TracedModel:
    """A causal language model under nnsight, with one vocabulary for all architectures.

    Made by :func:`emotion_concepts.models.load_model`.

    Attributes
    ----------
    n_layers, d_model, vocab_size : int
    identity : ModelIdentity
    tokenizer : transformers tokenizer
    remote : bool or str
        Passed to every trace: False, True (NDIF), a server's URL, or "local".

    Examples
    --------
    >>> llm.identity.name, llm.n_layers, llm.d_model, llm.readout_layer
    ('smollm2-135m-instruct', 30, 576, 19)
    >>> llm.chat_prompt([{"role": "user", "content": "Hello!"}]).endswith("assistant\\n")
    True
    """

    _held = False  # True while `generate_reading` waits for its caller inside a trace

    def __init__(self, module, tokenizer, identity: ModelIdentity, *, remote: bool | str = False):
        self._envoy = TransformersModel(
            module, tokenizer=tokenizer, task="text-generation", rename=RENAME
        )
        self._describe(identity, remote)
        self._check_blocks()

    @classmethod
    def on_server(
        cls,
        source: str,
        identity: ModelIdentity,
        *,
        remote: bool | str,
        revision: str | None = None,
    ) -> TracedModel:
        """Return a model whose weights stay on an NDIF server (meta tensors here).

        source is a hub id, or a folder that the server can read, too.
        """
        model = cls.__new__(cls)
        if Path(source).is_dir():  # nnsight would ask the hub how the name is spelled
            huggingface._ID_CACHE[source] = source
        model._envoy = TransformersModel(
            source, task="text-generation", rename=RENAME, revision=revision
        )
        try:
            model._envoy.to_model_key()
        except (OSError, ValueError) as error:
            raise ServerError(
                f"the hub could not be asked for {source!r}: {str(error).splitlines()[0]}"
            ) from error
        model._describe(identity, remote)
        return model

    def _describe(self, identity: ModelIdentity, remote: bool | str) -> None:
        self.identity, self.remote = identity, remote
        self.tokenizer = self.envoy.tokenizer
        config = self.envoy._module.config.get_text_config()
        self.n_layers, self.d_model = config.num_hidden_layers, config.hidden_size
        self.vocab_size = config.vocab_size
        self.architecture = type(self.envoy._module).__name__
        missing = [n for n in ("layers", "embed_tokens", "ln_final") if not hasattr(self.envoy, n)]
        if missing:
            raise UnsupportedArchitecture(
                f"{identity.name!r} ({self.architecture}) has no {', '.join(missing)} where known "
                "architectures have them; add its module names to tracing.RENAME"
            )

    @property
    def envoy(self) -> TransformersModel:
        """The model as nnsight wraps it, which runs one trace at a time."""
        if self._held:
            raise EmotionConceptsError(
                f"{self.identity.name!r} is in the middle of a reply that is being read; "
                "finish or close that first"
            )
        return self._envoy

    @property
    def on_ndif(self) -> bool:
        """Whether traces run on a server."""
        return self.remote not in (False, "local")

    @property
    def where(self) -> dict:
        """What a trace is told of where it runs."""
        return {"backend": _Server(self)} if self.on_ndif else {"remote": self.remote}

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.envoy._module.parameters()).device

    @property
    def gpus(self) -> list[int]:
        """The CUDA devices that hold its weights; none where they are in memory or on a server."""
        devices = {weight.device for weight in self.envoy._module.parameters()}
        return sorted(device.index for device in devices if device.type == "cuda")

    @property
    def readout_layer(self) -> int:
        """The paper's default read-out layer, the block that ends nearest to 2/3 of the depth."""
        return round(self.n_layers * 2 / 3) - 1

    @property
    def chat(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return bool(self.tokenizer.chat_template)

    def round_weights(self) -> TracedModel:
        """Round the weights to bfloat16, computing as before; return this model, renamed.

        What half precision does to a result, on machines that are slow in it.
        """
        with torch.no_grad():
            for weight in self.envoy._module.parameters():
                weight.copy_(weight.to(torch.bfloat16))
        self.identity = replace(self.identity, dtype=f"{self.identity.dtype}, rounded")
        return self

    def chat_prompt(self, messages: Sequence[dict]) -> str:
        """Return chat messages in the model's own template, up to where its reply begins.

        A base model, which has no template, gets the paper's Human / Assistant transcript.

        Raises
        ------
        BadInput
            For messages that the template refuses, such as those of a system where it has none.
        """
        if self.chat:
            try:
                return self.tokenizer.apply_chat_template(
                    list(messages), tokenize=False, add_generation_prompt=True
                )
            except TemplateError as error:
                raise BadInput(
                    f"the chat template of {self.identity.name!r} refuses these messages: {error}"
                ) from error
        tag = {"user": "Human", "assistant": "Assistant", "system": "System"}
        turns = [f"{tag[message['role']]}: {message['content']}" for message in messages]
        return "\n\n".join([*turns, "Assistant:"])

    def check_layer(self, layer: int) -> int:
        """Return the layer; refuse one that the model does not have."""
        if not 0 <= layer < self.n_layers:
            raise UnknownLayer(
                f"{self.identity.name!r} has layers 0 to {self.n_layers - 1}, not {layer}"
            )
        return layer

    def check_length(self, prompts: Sequence[str], *, room: int = 0) -> None:
        """Raise BadInput for a prompt that, with room for a reply, is longer than the context."""
        config = self.envoy._module.config.get_text_config()
        limit = getattr(config, "max_position_embeddings", None) or self.tokenizer.model_max_length
        if (longest := room + max(map(len, tokenize(self, prompts)))) > limit:
            reply = f" and {room} of a reply" if room else ""
            raise BadInput(
                f"with the chat template{reply} this comes to {longest} tokens, but "
                f"{self.identity.name!r} reads {limit} at most; shorten it"
            )

    def _check_blocks(self) -> None:
        """Compare block outputs with transformers' own hidden states on a few tokens."""
        ids = torch.tensor([self.tokenizer("The cat sat on the mat.")["input_ids"]])
        middle = self.n_layers // 2
        probes = sorted({0, middle} & set(range(self.n_layers - 1)))
        with torch.no_grad():
            hidden = self.envoy._module(
                input_ids=ids.to(self.device), output_hidden_states=True, use_cache=False
            ).hidden_states
        ours = _block_outputs(self, ids, probes)
        self.layer_error = max(
            (float((ours[n] - hidden[layer + 1]).abs().max()) for n, layer in enumerate(probes)),
            default=0.0,
        )
        scale = max(float(hidden[layer + 1].abs().max()) for layer in [0, *probes])
        if (ours and ours[0].shape != hidden[0].shape) or self.layer_error > 0.02 * scale:
            raise UnsupportedArchitecture(
                f"{self.identity.name!r} ({self.architecture}): block outputs do not match "
                f"transformers' hidden states (difference {self.layer_error:.3g} at scale "
                f"{scale:.3g}), so layers cannot be numbered"
            )

    def report(self) -> str:
        """Return what was found on load, as a few readable lines."""
        lines = {
            "model": f"{self.identity.name} ({self.architecture})",
            "weights": self.identity.weights[:16],
            "residual stream": f"{self.n_layers} layers x {self.d_model}",
            "read-out layer": f"{self.readout_layer} (about 2/3 of depth)",
            "vocabulary": f"{self.vocab_size} tokens",
            "chat template": "its own" if self.chat else "none (Human / Assistant transcript)",
            "runs": f"on NDIF at {server_url(self.remote)}"
            if self.on_ndif
            else f"on {self.device} in {self.identity.dtype}",
        }
        if hasattr(self, "layer_error"):
            lines["layer convention"] = (
                f"block L = hidden_states[L + 1], checked (difference {self.layer_error:.1g})"
            )
        width = max(map(len, lines))
        return "\n".join(f"{key:<{width}}  {value}" for key, value in lines.items())


def _block_outputs(model: TracedModel, ids: torch.Tensor, layers: Sequence[int]) -> list:
    """Return the outputs of some decoder blocks for one batch of ids."""
    envoy, out = model.envoy, []
    with torch.no_grad(), envoy.trace(ids, use_cache=False) as tracer:
        out = [envoy.layers[layer].output for layer in layers].save()
        tracer.stop()
    return out


# --- servers -----------------------------------------------------------------------------------


def server_url(remote: bool | str) -> str:
    """Return the address of the server that ``remote`` means.

    >>> server_url("http://localhost:5001/")
    'http://localhost:5001'
    """
    return (CONFIG.API.HOST if remote is True else str(remote)).rstrip("/")


def check_server(remote: bool | str) -> None:
    """Refuse an address that is none, and the public NDIF without an API key.

    Raises
    ------
    BadInput, ServerError

    Examples
    --------
    >>> check_server("http://localhost:5001")
    >>> check_server("localhost")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    emotion_concepts.errors.BadInput: remote='localhost' is no server: give True, ...
    """
    url = server_url(remote)
    if not url.startswith(("http://", "https://")):
        raise BadInput(f"remote={remote!r} is no server: give True, 'local' or http(s)://...")
    CONFIG.API.APIKEY = os.environ.get("NDIF_API_KEY") or CONFIG.API.APIKEY  # set since the import
    if url.endswith("ndif.us") and not CONFIG.API.APIKEY:
        raise ServerError(
            f"{url} needs an API key; get one at https://login.ndif.us and set NDIF_API_KEY to it"
        )


def hosted(url: str) -> list[str] | None:
    """Return the models that a server has loaded; None if it does not say.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:  # in the place of a server
    ...     status = {"deployments": {"one": {"repo_id": "org/small"}}}
    ...     _ = Path(folder, "status").write_text(json.dumps(status))
    ...     hosted(Path(folder).as_uri())
    ['org/small']
    """
    try:
        with urllib.request.urlopen(f"{url}/status", timeout=60) as answer:
            found = json.load(answer)["deployments"].values()
        return sorted({str(one["repo_id"]) for one in found})
    except (OSError, ValueError, KeyError):
        return None


class _Server(RemoteBackend):
    """Sends a trace to a server and waits for it; whatever goes wrong is told in one sentence."""

    def __init__(self, model: TracedModel):
        envoy, self.url = model.envoy, server_url(model.remote)
        env = envoy._remoteable_get_env()
        super().__init__(envoy.to_model_key(), host=self.url, env=env)
        self.model = envoy.repo_id
        self.display.enabled = False  # our own bars count what is done

    def __call__(self, tracer=None):
        try:
            return super().__call__(tracer)
        except RemoteError as error:
            # a server that dies while it is sent a job, unlike one that answers and takes none
            if isinstance(error.__cause__, httpx.TransportError):
                raise self._broken() from error
            raise self._refused(str(error)) from error
        except (WebSocketBadStatusException, ConnectionRefusedError) as error:
            raise self._unreachable(error) from error
        except (ConnectionError, WebSocketException, ValidationError, httpx.HTTPError) as error:
            raise self._broken() from error
        except OSError as error:  # no such host, no way to it
            raise self._unreachable(error) from error

    def _broken(self) -> ServerError:
        return ServerError(
            f"the connection to {self.url} broke before its job was done; run the same again "
            "once the server is back: what it had sent is kept"
        )

    def _unreachable(self, error: Exception) -> ServerError:
        return ServerError(
            f"there is no NDIF server at {self.url} ({_last_line(error)}); check the address, or "
            "start one with `python3 run.py ndif start`"
        )

    def _refused(self, told: str) -> EmotionConceptsError:
        """Return what a server's message means."""
        sent, why = "Failed to send request: ", _last_line(told)
        if told.startswith(sent) and "API key" in told:
            return ServerError(f"{self.url} refuses the API key; set NDIF_API_KEY to a valid one")
        if told.startswith(sent):
            return ServerError(f"{self.url} takes no job now: {why.removeprefix(sent)}")
        if told.startswith("Could not deploy this model."):
            have = ", ".join(hosted(self.url) or ["no model at present"])
            why = told.removeprefix("Could not deploy this model.").strip().split("\n")[0]
            return UnknownModel(f"{self.url} does not run {self.model!r} ({why}); it runs {have}")
        return ServerError(f"a job failed on {self.url}: {why}")


def _last_line(told: object) -> str:
    lines = [line.strip() for line in str(told).splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


# --- text to tokens ----------------------------------------------------------------------------


def tokenize(model: TracedModel, texts: Sequence[str]) -> list[list[int]]:
    """Return token ids, one list a text, with the model's own special tokens added once.

    Raises
    ------
    BadInput
        If there is no text, or one is empty or not a string.

    Examples
    --------
    >>> tokenize(llm, ["The bus stops at the corner.", "The bus"])
    [[504, 1549, 12326, 418, 260, 7448, 30], [504, 1549]]
    """
    return [_encode(model, text)["input_ids"] for text in _check_texts(texts)]


def _encode(model: TracedModel, text: str, **options) -> Mapping[str, list]:
    """Return what the tokenizer makes of a text, with special tokens added once."""
    start = model.tokenizer.bos_token  # a chat template has written it already
    special = not (start and text.startswith(start))
    return model.tokenizer(text, add_special_tokens=special, **options)


def _check_texts(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise BadInput("give a list of texts, not one string")
    texts = list(texts)
    if not texts:
        raise BadInput("there is no text to read")
    for number, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise BadInput(f"text {number} of {len(texts)} is empty or not a string")
    return texts


@dataclass(frozen=True)
class Batch:
    """Rows of token ids padded to one length, ready for a forward pass."""

    rows: list[int]
    inputs: dict[str, torch.Tensor]

    @property
    def mask(self) -> torch.Tensor:
        """``[n_texts, width]``, 1 for a token, 0 for padding."""
        return self.inputs["attention_mask"]


def make_batches(
    ids: Sequence[Sequence[int]], *, tokens: int, pad: int, side: str = "left"
) -> Iterator[Batch]:
    """Yield batches of similar length, longest first, of at most `tokens` padded tokens.

    >>> batches = make_batches([[1], [2, 3, 4], [5, 6]], tokens=6, pad=0)
    >>> [(batch.rows, batch.inputs["input_ids"].tolist()) for batch in batches]
    [([1, 2], [[2, 3, 4], [0, 5, 6]]), ([0], [[1]])]
    """
    order = _longest_first(ids)
    while order:
        count = max(1, tokens // len(ids[order[0]]))
        yield _padded(ids, order[:count], pad, side)
        order = order[count:]


def _longest_first(ids: Sequence[Sequence[int]]) -> list[int]:
    """Return the order of rows in which memory runs out at the start or never; equals follow."""
    return sorted(range(len(ids)), key=lambda row: (-len(ids[row]), ids[row], row))


def _padded(ids: Sequence[Sequence[int]], rows: list[int], pad: int, side: str) -> Batch:
    """Return rows as a batch as wide as the first; positions count real tokens alone."""
    shape = len(rows), len(ids[rows[0]])
    tokens, mask = torch.full(shape, pad), torch.zeros(shape, dtype=torch.long)
    for n, row in enumerate(rows):
        length = len(ids[row])
        where = slice(shape[1] - length, shape[1]) if side == "left" else slice(0, length)
        tokens[n, where] = torch.tensor(ids[row])
        mask[n, where] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return Batch(rows, {"input_ids": tokens, "attention_mask": mask, "position_ids": positions})


def _passes(
    model: TracedModel,
    ids: Sequence[Sequence[int]],
    run: Callable[[Batch], T],
    *,
    progress: str | None = None,
    tokens: int | None = None,
    side: str = "left",
    new: int = 0,
    alike: bool = False,
) -> Iterator[tuple[Batch, T]]:
    """Run the model on all rows; yield each batch with what `run` makes of it.

    Every text that this machine reads goes through here. A batch that the memory does not hold is
    halved and run again, down to one row, so `run` makes all that it needs from the batch.

    Parameters
    ----------
    tokens : int, optional
        Padded tokens in one batch at most.
    new : int
        Tokens that `run` generates for each row.
    alike : bool
        Whether to put equal rows together, and no others with them where most stand several times:
        prompts under many steerings, of which `run` reads one as far as they are not steered.

    Raises
    ------
    ModelTooLarge
        If there is no room for a single row.
    """
    alike = alike and 2 * len(set(map(tuple, ids))) <= len(ids)
    tokens = tokens or _most(model) * (2 if alike else 1)
    room = Room(tokens, model.gpus, new=new)
    order = _longest_first(ids)
    with _bar(ids, progress) as bar:
        while order:
            rows = order[: room.rows(len(ids[order[0]]))]
            if alike:
                rows = [row for row in rows if ids[row] == ids[rows[0]]]
            batch = _padded(ids, rows, _pad(model), side)
            try:
                with room.measured(*batch.mask.shape), torch.inference_mode():
                    found = run(batch)
            except torch.OutOfMemoryError as error:
                if len(rows) == 1:
                    reply = f" and {new} of a reply" if new else ""
                    raise ModelTooLarge(
                        f"{model.device} has no room for one text of {len(ids[rows[0]])} tokens"
                        f"{reply} beside {model.identity.name!r} in {model.identity.dtype}; "
                        "shorten it, load the model with dtype='bfloat16', or take a smaller one"
                    ) from error
                room.halve(*batch.mask.shape)
                continue
            yield batch, found
            order = order[len(rows) :]
            bar.update(int(batch.mask.sum()))


def _batches(model: TracedModel, ids, *, progress: str | None, tokens=None, side="left"):
    """Yield batches for a server, which sees to its own memory."""
    tokens = tokens or _most(model)
    with _bar(ids, progress) as bar:
        for batch in make_batches(ids, tokens=tokens, pad=_pad(model), side=side):
            yield batch
            bar.update(int(batch.mask.sum()))


def _most(model: TracedModel) -> int:
    return BATCH_TOKENS.get(model.device.type, BATCH_TOKENS["cpu"])


def _pad(model: TracedModel) -> int:
    return model.tokenizer.pad_token_id or 0


def _bar(ids: Sequence[Sequence[int]], progress: str | None) -> tqdm:
    """Return a progress bar in tokens: shown on a terminal or in a notebook, without label none."""
    total = sum(map(len, ids))
    return tqdm(total=total, desc=progress, unit="tok", unit_scale=True, disable=not progress)


# --- steering ----------------------------------------------------------------------------------


def _additions(
    model: TracedModel, steering: Steering | None, texts: Sequence[str], batch: Batch
) -> dict[int, torch.Tensor]:
    """Return {layer: ``[batch, tokens or 1, d_model]``} to add to each block's output.

    Padding is added to as well where every token is; no token attends to it.
    """
    if steering is None:
        return {}
    rows = torch.tensor(steering.add[batch.rows])  # a server's precision is known there alone
    where = torch.ones(len(batch.rows), 1, 1, dtype=rows.dtype)
    if steering.spans is not None:
        where = torch.zeros(*batch.mask.shape, 1, dtype=rows.dtype)
        for n, row in enumerate(batch.rows):
            places = torch.nonzero(batch.mask[n]).squeeze(-1)
            inside = tokens_in(model, texts[row], steering.spans[row])
            where[n, places[inside]] = 1
    pairs = enumerate(steering.layers)
    return {model.check_layer(layer): rows[:, n].unsqueeze(1) * where for n, layer in pairs}


def _check_rows(steering: Steering | None, texts: Sequence[str]) -> None:
    if steering is not None and len(steering) != len(texts):
        raise BadInput(f"{len(texts)} prompts need {len(texts)} steering rows, not {len(steering)}")


def tokens_in(model: TracedModel, text: str, spans: Sequence[tuple[int, int]]) -> list[int]:
    """Return the positions of the tokens of `text` that overlap character ranges.

    Raises
    ------
    BadInput
        If a range is empty, or lies outside the text.

    Examples
    --------
    >>> text = "The bus stops at the corner."
    >>> text[4:13], tokens_in(llm, text, [(4, 13)])
    ('bus stops', [1, 2])
    """
    for start, end in spans:
        if not 0 <= start < end <= len(text):
            raise BadInput(f"({start}, {end}) is no range of characters in {text[:40]!r}")
    encoded = _encode(model, text, return_offsets_mapping=True)
    return [
        position
        for position, (left, right) in enumerate(encoded["offset_mapping"])
        if any(left < end and right > start for start, end in spans)
    ]


# --- pooled residuals --------------------------------------------------------------------------


@dataclass(frozen=True)
class MeanFrom:
    """Mean over a text's tokens from token `skip` on (the paper skips 50 of longer stories).

    Examples
    --------
    >>> mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])  # padded left
    >>> MeanFrom(2).weights(mask).tolist()
    [[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.5, 0.5]]
    """

    skip: int

    def weights(self, mask: torch.Tensor) -> torch.Tensor:
        """Return ``[batch, tokens]`` weights that sum to 1 over each row's chosen tokens."""
        chosen = ((mask.cumsum(1) > self.skip) & (mask > 0)).float()
        return chosen / chosen.sum(1, keepdim=True)

    def check(self, lengths: Sequence[int], texts: Sequence[str]) -> None:
        """Refuse a text with nothing left after the tokens to skip."""
        shortest = int(np.argmin(lengths))
        if lengths[shortest] <= self.skip:
            raise BadInput(
                f"a text of {lengths[shortest]} tokens has nothing left after skipping "
                f"{self.skip}: {texts[shortest][:60]!r}; lower `skip` or drop the text"
            )


@dataclass(frozen=True)
class TokenAt:
    """One token of a text: 0.0 is its first, 1.0 its last (the colon of a prompt).

    Examples
    --------
    >>> mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])  # padded left
    >>> TokenAt(0.0).weights(mask).tolist()
    [[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    """

    fraction: float

    def weights(self, mask: torch.Tensor) -> torch.Tensor:
        """Return ``[batch, tokens]`` weights: 1 at the chosen token, 0 elsewhere."""
        lengths = mask.sum(1, keepdim=True)
        chosen = torch.round(self.fraction * (lengths - 1)).long() + 1
        return ((mask.cumsum(1) == chosen) & (mask > 0)).float()

    def check(self, lengths: Sequence[int], texts: Sequence[str]) -> None:
        """Refuse a fraction that is no place in a text."""
        if not 0 <= self.fraction <= 1:
            raise BadInput(f"TokenAt takes a fraction from 0 to 1, not {self.fraction}")


Pool = MeanFrom | TokenAt
Read = tuple[Sequence[int], list[np.ndarray]]  # places of texts; of each store what they get there


@dataclass(frozen=True)
class PooledResiduals:
    """Pooled residual stream of n texts, read from disk one layer at a time.

    ``np.asarray`` gives the whole ``[n, n_layers, d_model]`` float32 array; `layer` gives
    ``[n, d_model]`` and keeps memory flat; indexing with rows or a boolean mask selects texts.

    Examples
    --------
    >>> found = PooledResiduals(np.arange(12.0).reshape(3, 2, 2), rows=np.array([2, 0]))
    >>> found.shape, found.layer(1).tolist(), found[[1]].layer(1).tolist()
    ((2, 2, 2), [[10.0, 11.0], [2.0, 3.0]], [[2.0, 3.0]])
    """

    stored: np.ndarray
    rows: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """(texts, layers, d_model)."""
        return (len(self.rows), *self.stored.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def layer(self, layer: int) -> np.ndarray:
        """Return ``[n, d_model]`` at one layer."""
        if not 0 <= layer < self.stored.shape[1]:
            raise UnknownLayer(f"layers 0 to {self.stored.shape[1] - 1} are here, not {layer}")
        return np.asarray(self.stored[self.rows, layer])

    def __getitem__(self, texts) -> PooledResiduals:
        return PooledResiduals(self.stored, self.rows[texts])

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self.stored[self.rows], dtype=dtype)


def pooled_residuals(
    model: TracedModel,
    texts: Sequence[str],
    pool: Pool,
    *,
    batch_tokens: int | None = None,
    padding_side: str = "left",
    progress: str | None = None,
    cache: Path | None = None,
) -> PooledResiduals:
    """Return each text's residual stream pooled over tokens, at all layers, in one pass.

    Pooling happens inside the trace, so that only ``[batch, layers, d_model]`` leaves it; the pass
    stops after the last block. Rows are kept on disk by text, so that a killed run loses at most
    the batch in flight and no text is read twice.

    Parameters
    ----------
    texts : sequence of str
    pool : MeanFrom or TokenAt
    batch_tokens : int, optional
        Padded tokens in one forward pass; changes speed and memory, not results.
    padding_side : {"left", "right"}
        Changes nothing beyond float tolerance; tested.
    progress : str, optional
        Label of the progress bar; none without.
    cache : Path, optional
        Folder of the rows; the user's cache by default.

    Returns
    -------
    PooledResiduals
        ``[n_texts, n_layers, d_model]`` in the order of `texts`.

    Raises
    ------
    BadInput
        For empty texts, or one too short for the pooling.

    Examples
    --------
    >>> texts = ["The bus stops at the corner.", "She waits."]
    >>> found = pooled_residuals(llm, texts, TokenAt(1.0))
    >>> found.shape, found.layer(19).shape
    ((2, 30, 576), (2, 576))
    """
    return pooled_residuals_many(
        model,
        texts,
        [pool],
        batch_tokens=batch_tokens,
        padding_side=padding_side,
        progress=progress,
        cache=cache,
    )[pool]


def pooled_residuals_many(
    model: TracedModel,
    texts: Sequence[str],
    pools: Sequence[Pool],
    *,
    batch_tokens: int | None = None,
    padding_side: str = "left",
    progress: str | None = None,
    cache: Path | None = None,
) -> dict[Pool, PooledResiduals]:
    """Return several poolings of the same texts from one pass; see :func:`pooled_residuals`.

    >>> found = pooled_residuals_many(llm, ["bus"], [MeanFrom(0), TokenAt(1.0)])
    >>> len(tokenize(llm, ["bus"])[0]), bool(np.allclose(found[MeanFrom(0)], found[TokenAt(1.0)]))
    (1, True)
    """
    texts = _check_texts(texts)
    keys = [digest(text, length=24) for text in texts]
    options = {"progress": progress, "tokens": batch_tokens, "side": padding_side}

    def read(todo: list[int]) -> Iterator[Read]:
        ids = tokenize(model, [texts[n] for n in todo])
        for pool in pools:
            pool.check([len(row) for row in ids], [texts[n] for n in todo])

        def weigh(batch: Batch) -> torch.Tensor:
            return torch.stack([pool.weights(batch.mask) for pool in pools], 1)

        return _pooled_passes(model, ids, weigh, len(pools), **options)

    stores = [_store(model, type(pool).__name__, asdict(pool), cache) for pool in pools]
    found = _through_stores(stores, [keys] * len(stores), read)
    return {pool: PooledResiduals(*kept) for pool, kept in zip(pools, found, strict=True)}


def span_residuals(
    model: TracedModel,
    texts: Sequence[str],
    spans: Sequence[Sequence[tuple[int, int]]],
    *,
    progress: str | None = None,
    cache: Path | None = None,
) -> PooledResiduals:
    """Return each text's residual stream averaged over marked characters, at all layers.

    For one speaker's turns, the tokens of an activity, a reply. Kept on disk and resumed like
    :func:`pooled_residuals`; a text may stand several times with different spans.

    Parameters
    ----------
    texts : sequence of str, n
    spans : n lists of (start, end)
        Character ranges; a token counts if it overlaps one.

    Returns
    -------
    PooledResiduals, ``[n_texts, n_layers, d_model]``

    Raises
    ------
    BadInput
        For empty texts, a missing list of spans, or a range outside its text.

    Examples
    --------
    >>> text = "The bus stops at the corner."
    >>> whole = span_residuals(llm, [text], [[(0, len(text))]])
    >>> bool(np.allclose(whole, pooled_residuals(llm, [text], MeanFrom(0)), atol=1e-2))
    True
    """
    many = span_residuals_many(model, texts, {"spans": spans}, progress=progress, cache=cache)
    return many["spans"]


def span_residuals_many(
    model: TracedModel,
    texts: Sequence[str],
    spans: Mapping[str, Sequence[Sequence[tuple[int, int]]]],
    *,
    progress: str | None = None,
    cache: Path | None = None,
) -> dict[str, PooledResiduals]:
    """Return several sets of spans of the same texts from one pass; see :func:`span_residuals`.

    >>> text, spans = "The bus stops at the corner.", {"bus": [[(4, 7)]], "corner": [[(21, 27)]]}
    >>> found = span_residuals_many(llm, [text], spans)
    >>> {name: residuals.shape for name, residuals in found.items()}
    {'bus': (1, 30, 576), 'corner': (1, 30, 576)}
    """
    texts = _check_texts(texts)
    keys = _span_keys(texts, spans.values())

    def read(todo: list[int]) -> Iterator[Read]:
        inside = _tokens_inside(model, texts, list(spans.values()), todo)
        ids = tokenize(model, [texts[n] for n in todo])
        if not model.on_ndif:
            return _tree_passes(model, [(row, []) for row in ids], inside, progress=progress)

        def weigh(batch: Batch) -> torch.Tensor:
            return _mean_over(batch, [inside[row] for row in batch.rows])

        return _pooled_passes(model, ids, weigh, len(spans), progress=progress)

    stores = [_store(model, "spans", {}, cache)] * len(keys)
    found = _through_stores(stores, keys, read)
    return {name: PooledResiduals(*kept) for name, kept in zip(spans, found, strict=True)}


def _span_keys(texts: list[str], spans: Iterable[Sequence[Sequence[Span]]]) -> list[list[str]]:
    """Return the keys of each set of spans in the store of spans."""
    keys = []
    for chosen in spans:
        if len(chosen) != len(texts):
            raise BadInput(
                f"{len(texts)} texts need {len(texts)} lists of spans, not {len(chosen)}"
            )
        rows = zip(texts, chosen, strict=True)
        keys.append([digest(text, list(row), length=24) for text, row in rows])
    return keys


def _tokens_inside(
    model: TracedModel,
    texts: list[str],
    spans: Sequence[Sequence[Sequence[Span]]],
    todo: Sequence[int],
) -> list[list[list[int]]]:
    """Return the tokens that lie in each set of spans, one list of lists a text of `todo`."""
    found = []
    for n in todo:
        found.append([tokens_in(model, texts[n], chosen[n]) for chosen in spans])
        for chosen, tokens in zip(spans, found[-1], strict=True):
            if not tokens:
                raise BadInput(f"no token of text {n} lies in its spans {list(chosen[n])}")
    return found


def _mean_over(batch: Batch, places: Sequence[Sequence[Sequence[int]]]) -> torch.Tensor:
    """Return the weights ``[batch, sets, tokens]`` that average each set of places of a row.

    Places are counted without padding. A row with fewer sets than others gets zeros for the rest.
    """
    weights = torch.zeros(len(places), max(map(len, places)), batch.mask.shape[1])
    for n, sets in enumerate(places):
        real = torch.nonzero(batch.mask[n]).squeeze(-1)
        for k, tokens in enumerate(sets):
            weights[n, k, real[tokens]] = 1 / len(tokens)
    return weights


def _through_stores(
    stores: Sequence[RowStore],
    keys: Sequence[Sequence[str]],
    read: Callable[[list[int]], Iterator[Read]],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Read what a store lacks, batch by batch; return of each store its rows, and whose is which.

    keys holds one list a store, in text order; the same store may stand several times. `read` takes
    the numbers of the texts that are lacking, and yields places among them with what was read.
    """
    with ExitStack() as stack:
        # one extraction at a time, since chapters may run side by side; always in the same order
        for _, store in sorted({store.folder: store for store in stores}.items()):
            stack.enter_context(store.lock("extract"))
        todo = list(_lacking(stores, keys).values())
        for rows, parts in read(todo) if todo else ():
            for store, mine, part in zip(stores, keys, parts, strict=True):
                store.append([mine[todo[row]] for row in rows], part)
    return list(_kept(stores, keys))


def _lacking(
    stores: Sequence[RowStore], keys: Sequence[Sequence[str]]
) -> dict[tuple[str, ...], int]:
    """Return {keys of a text, one a store: its number} of the texts that some store lacks."""
    known = [store.keys() for store in stores]
    todo: dict[tuple[str, ...], int] = {}
    for n, row in enumerate(zip(*keys, strict=True)):
        if not all(key in found for key, found in zip(row, known, strict=True)):
            todo.setdefault(row, n)
    return todo


def _kept(
    stores: Sequence[RowStore], keys: Sequence[Sequence[str]]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield of each store all its rows, and the numbers of those that have the keys."""
    for store, mine in zip(stores, keys, strict=True):
        found = store.keys()
        yield store.open(), np.array([found[key] for key in mine])


def _store(model: TracedModel, kind: str, settings: dict, cache: Path | None) -> RowStore:
    """Return the row store of one model and way of pooling."""
    what = [CACHE_VERSION, asdict(model.identity), kind, settings]
    folder = (cache or cache_dir() / "activations") / f"{model.d_model}x{model.n_layers}"
    return RowStore(folder / digest(what), (model.n_layers, model.d_model))


def _pooled_batch(model: TracedModel, batch: Batch, weights: torch.Tensor) -> np.ndarray:
    """Trace a batch; return ``[batch, pools, layers, d_model]`` float32.

    weights are ``[batch, pools, tokens]``.
    """
    envoy, n_layers, inputs = model.envoy, model.n_layers, batch.inputs
    with envoy.trace(inputs, use_cache=False, **model.where) as tracer:
        pooled = []
        for layer in range(n_layers):  # in the order of execution
            residual = envoy.layers[layer].output
            pooled.append(torch.bmm(weights.to(residual.device), residual.float()).cpu())
        result = torch.stack(pooled, 2).save()
        tracer.stop()  # the output head would cost a third more
    return result.numpy()


def _pooled_passes(
    model: TracedModel,
    ids: Sequence[Sequence[int]],
    weigh: Callable[[Batch], torch.Tensor],
    pools: int,
    **options,
) -> Iterator[Read]:
    """Yield the rows of each batch, and of each pool their residuals."""

    def read(batch: Batch) -> np.ndarray:
        return _pooled_batch(model, batch, weigh(batch))

    if model.on_ndif:
        passes = _pooled_jobs(model, ids, weigh, pools, **options)
    else:
        passes = _passes(model, ids, read, **options)
    for batch, pooled in passes:
        yield batch.rows, list(pooled.swapaxes(0, 1))


def _pooled_jobs(
    model: TracedModel,
    ids: Sequence[Sequence[int]],
    weigh: Callable[[Batch], torch.Tensor],
    pools: int,
    *,
    progress: str | None = None,
    **options,
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Do as `_passes` does with `_pooled_batch`, several batches in one job of a server."""
    batches = _batches(model, ids, progress=progress, **options)
    for job in _jobs(model, batches, pools):
        parts = [(batch.inputs, weigh(batch)) for batch in job]
        yield from zip(job, _pooled_session(model, parts), strict=True)


def _jobs(model: TracedModel, batches: Iterator[Batch], pools: int) -> Iterator[list[Batch]]:
    """Group batches into what makes one job of a server."""
    most = JOB_BYTES / (4 * pools * model.n_layers * model.d_model)  # texts
    job: list[Batch] = []
    for batch in batches:
        job.append(batch)
        if len(job) == JOB_BATCHES or sum(len(one.rows) for one in job) >= most:
            yield job
            job = []
    if job:
        yield job


def _pooled_session(model: TracedModel, parts: list[tuple[dict, torch.Tensor]]) -> list:
    """Do as `_pooled_batch` does with several batches, in one job of a server."""
    envoy, n_layers = model.envoy, model.n_layers
    with torch.no_grad(), envoy.session(**model.where):
        results = [].save()
        for inputs, weights in parts:
            with envoy.trace(inputs, use_cache=False) as tracer:
                pooled = []
                for layer in range(n_layers):
                    residual = envoy.layers[layer].output
                    pooled.append(torch.bmm(weights.to(residual.device), residual.float()).cpu())
                results.append(torch.stack(pooled, 2))
                tracer.stop()
    return [result.numpy() for result in results]


# --- single tokens -----------------------------------------------------------------------------


def token_residuals(
    model: TracedModel,
    texts: Sequence[str],
    layers: Sequence[int],
    *,
    steering: Steering | None = None,
    progress: str | None = None,
) -> list[np.ndarray]:
    """Return the residual stream of every token, for heat maps; not cached.

    A steered block's output is read after the addition.

    Returns
    -------
    list of ``[n_tokens, len(layers), d_model]``
        float32 arrays, one a text, with the layers in the order given.

    Examples
    --------
    >>> [found] = token_residuals(llm, ["The bus stops at the corner."], [10, 19])
    >>> found.shape
    (7, 2, 576)
    """
    layers = [model.check_layer(layer) for layer in layers]
    distinct = sorted(set(layers))
    order = [distinct.index(layer) for layer in layers]
    ids = tokenize(model, texts)
    _check_rows(steering, texts)
    out: list[np.ndarray | None] = [None] * len(ids)

    def read(batch: Batch) -> list[np.ndarray]:
        found = _tokens_batch(model, batch, distinct, _additions(model, steering, texts, batch))
        rows = zip(found, batch.mask, strict=True)
        return [row[mask.bool()][:, order].numpy() for row, mask in rows]

    for batch, found in _passes(model, ids, read, progress=progress):
        for row, tokens in zip(batch.rows, found, strict=True):
            out[row] = tokens
    return out


def _tokens_batch(
    model: TracedModel, batch: Batch, layers: Sequence[int], add: dict[int, torch.Tensor]
) -> torch.Tensor:
    """Trace a batch; return ``[batch, tokens, layers, d_model]``, padding included."""
    envoy, inputs, touched = model.envoy, batch.inputs, sorted({*layers, *add})
    with envoy.trace(inputs, use_cache=False, **model.where) as tracer:
        kept = []
        for layer in touched:
            residual = envoy.layers[layer].output
            if layer in add:
                residual = residual + add[layer].to(residual)
                envoy.layers[layer].output = residual
            if layer in layers:
                kept.append(residual.float().cpu())
        result = torch.stack(kept, 2).save()
        tracer.stop()
    return result


def tokens_as_text(model: TracedModel, text: str) -> list[str]:
    """Return the text of each token of `text`, in order.

    >>> tokens_as_text(llm, "The bus stops at the corner.")
    ['The', ' bus', ' stops', ' at', ' the', ' corner', '.']
    """
    return [model.tokenizer.decode([token]) for token in tokenize(model, [text])[0]]


def vocabulary(model: TracedModel) -> list[str]:
    """Return the text of every token id, vocab.

    >>> words = vocabulary(llm)
    >>> len(words), [words[token] for token in tokenize(llm, ["The bus stops"])[0]]
    (49152, ['The', ' bus', ' stops'])
    """
    return model.tokenizer.batch_decode([[token] for token in range(model.vocab_size)])


# --- next tokens -------------------------------------------------------------------------------


def next_token_logprobs(
    model: TracedModel,
    prompts: Sequence[str],
    *,
    steering: Steering | None = None,
    progress: str | None = None,
) -> np.ndarray:
    """Return ``[n_prompts, vocab]`` float32 log-probabilities of the token after each prompt.

    >>> [logprobs] = next_token_logprobs(llm, ["The capital of France is"])
    >>> logprobs.shape, llm.tokenizer.decode([logprobs.argmax()])
    ((49152,), ' Paris')
    """
    ids = tokenize(model, prompts)
    _check_rows(steering, prompts)
    out = np.empty((len(ids), model.vocab_size), dtype=np.float32)

    def read(batch: Batch) -> np.ndarray:
        return _next_batch(model, batch, _additions(model, steering, prompts, batch))

    limits = {"alike": steering is not None, "progress": progress}
    for batch, found in _passes(model, ids, read, **limits):
        out[batch.rows] = found
    return out


def _equal_rows_once(batch: Batch) -> Batch:
    """Return the first row of a batch if all are equal, else the batch.

    The first steered block makes of one row as many as there are additions: a mask and positions of
    one row hold for all.
    """
    equal = all(bool((what == what[:1]).all()) for what in batch.inputs.values())
    kept = 1 if equal else len(batch.rows)
    inputs = {key: value[:kept] for key, value in batch.inputs.items()}
    return Batch(batch.rows[:kept], inputs)


def _next_batch(model: TracedModel, batch: Batch, add: dict[int, torch.Tensor]) -> np.ndarray:
    """Trace a batch, padded left; return the log-probabilities ``[batch, vocab]`` at its end."""
    envoy = model.envoy
    inputs = (_equal_rows_once(batch) if add else batch).inputs
    with envoy.trace(inputs, use_cache=False, logits_to_keep=1, **model.where):
        for layer in sorted(add):
            residual = envoy.layers[layer].output
            envoy.layers[layer].output = residual + add[layer].to(residual)
        # not the head's own output: some models cap their logits after it
        logprobs = torch.log_softmax(envoy.output.logits[:, -1].float(), -1).cpu().save()
    return logprobs.numpy()


@dataclass(frozen=True)
class ContinuationScores:
    """Log-probabilities of continuations: `total` and `n_tokens`, of one shape.

    >>> ContinuationScores(total=np.array([-6.0, -4.0]), n_tokens=np.array([3, 1])).mean.tolist()
    [-2.0, -4.0]
    """

    total: np.ndarray
    n_tokens: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Length-normalised log-probability per token."""
        return self.total / self.n_tokens


def continuation_logprobs(
    model: TracedModel,
    prompts: Sequence[str],
    continuations: Sequence[str],
    *,
    steering: Steering | None = None,
    progress: str | None = None,
) -> ContinuationScores:
    """Return the log-probability ``[n]`` of each continuation after its prompt.

    The case of one option a prompt of :func:`option_logprobs`.

    >>> prompts = ["The capital of France is"] * 2
    >>> scores = continuation_logprobs(llm, prompts, [" Paris", " Rome"])
    >>> bool(scores.total[0] > scores.total[1])
    True
    """
    if len(prompts) != len(continuations):
        raise BadInput(f"{len(prompts)} prompts but {len(continuations)} continuations")
    options = [[text] for text in _check_texts(continuations)]
    scores = option_logprobs(model, prompts, options, steering=steering, progress=progress)
    return ContinuationScores(scores.total[:, 0], scores.n_tokens[:, 0])


def option_logprobs(
    model: TracedModel,
    prompts: Sequence[str],
    options: Sequence[Sequence[str]],
    *,
    steering: Steering | None = None,
    progress: str | None = None,
    cache: Path | None = None,
) -> ContinuationScores:
    """Return the log-probability ``[n, k]`` of each of k continuations after their prompt.

    A prompt and its options make one row of tokens, so that the prompt is read once; the attention
    mask hides the options from each other, and each begins at the position after the prompt. So do
    prompts that begin alike, where that saves work and nothing is steered (see `trees.gather`).
    Prompt and option are tokenised apart and joined, so that the prompt's tokens do not depend on
    what follows; begin an option with a space where a word begins.

    Scores are kept on disk by prompt, options and steering: a killed run resumes, and nothing is
    scored twice.

    Parameters
    ----------
    prompts : sequence of str, n
    options : n sequences of k str
    steering : Steering, optional
        Spans are characters of the prompt; without spans the options are steered, too.
    cache : Path, optional
        Folder of the scores; the user's cache by default.

    Raises
    ------
    BadInput
        For empty texts, or another number of options than of prompts.

    Examples
    --------
    >>> prompts = ["The capital of France is", "The capital of Italy is"]
    >>> scores = option_logprobs(llm, prompts, [[" Paris", " Rome"]] * 2)
    >>> scores.total.argmax(1).tolist(), scores.n_tokens.tolist()
    ([0, 1], [[1, 1], [1, 1]])
    """
    return _read_options(model, prompts, options, steering, {}, progress, cache)[0]


def options_and_residuals(
    model: TracedModel,
    prompts: Sequence[str],
    options: Sequence[Sequence[str]],
    spans: Mapping[str, Sequence[Sequence[Span]]],
    *,
    progress: str | None = None,
    cache: Path | None = None,
) -> tuple[ContinuationScores, dict[str, PooledResiduals]]:
    """Return what :func:`option_logprobs` and :func:`span_residuals_many` do, from one pass.

    Parameters
    ----------
    prompts, options
        As for `option_logprobs`.
    spans : {name: n lists of (start, end)}
        Characters of each prompt whose tokens are averaged; no option is seen from there.

    Returns
    -------
    tuple
        (scores ``[n, k]``, {name: residuals ``[n, n_layers, d_model]``}).

    Examples
    --------
    >>> prompt, options, where = "The capital of France is", [" Paris", " Rome"], [(15, 21)]
    >>> scores, read = options_and_residuals(llm, [prompt], [options], {"country": [where]})
    >>> options[scores.total[0].argmax()], prompt[15:21], read["country"].shape
    (' Paris', 'France', (1, 30, 576))
    """
    return _read_options(model, prompts, options, None, spans, progress, cache)


def _read_options(
    model: TracedModel,
    prompts: Sequence[str],
    options: Sequence[Sequence[str]],
    steering: Steering | None,
    spans: Mapping[str, Sequence[Sequence[Span]]],
    progress: str | None,
    cache: Path | None,
) -> tuple[ContinuationScores, dict[str, PooledResiduals]]:
    """Score options, and keep the residuals of the prompts at the spans."""
    prompts, k = _check_texts(prompts), len(options[0]) if len(options) else 0
    unequal = any(isinstance(row, str) or len(row) != k for row in options)
    if len(options) != len(prompts) or k == 0 or unequal:
        raise BadInput(
            f"{len(prompts)} prompts need as many lists of options, equally many in each"
        )
    flat = _check_texts([text for row in options for text in row])
    _check_rows(steering, prompts)
    tails = [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in flat]
    tails = [tails[n * k : (n + 1) * k] for n in range(len(prompts))]
    sizes = np.array([[len(option) for option in row] for row in tails])
    marks = [None] * len(prompts) if steering is None else steering.marks()
    keys = [
        digest(prompt, list(row), mark, length=24)
        for prompt, row, mark in zip(prompts, options, marks, strict=True)
    ]
    stores = [score_store(model, "options", k, size=k, cache=cache)]
    stores += [_store(model, "spans", {}, cache)] * len(spans)
    keys = [keys, *_span_keys(prompts, spans.values())]

    def read(todo: list[int]) -> Iterator[Read]:
        inside = _tokens_inside(model, prompts, list(spans.values()), todo)
        texts = [prompts[n] for n in todo]
        items = zip(tokenize(model, texts), [tails[n] for n in todo], strict=True)
        add = None
        if steering is not None:
            add = partial(_additions, model, steering[todo], texts)
        return _tree_passes(model, list(items), inside, add, progress=progress)

    (scores, at), *kept = _through_stores(stores, keys, read)
    scores = ContinuationScores(scores[at].astype(float), sizes)
    residuals = (PooledResiduals(*found) for found in kept)
    return scores, dict(zip(spans, residuals, strict=True))


def _tree_passes(
    model: TracedModel,
    items: Sequence[Item],
    inside: Sequence[Sequence[Sequence[int]]],
    add: Callable[[Batch], dict[int, torch.Tensor]] | None = None,
    *,
    progress: str | None = None,
) -> Iterator[Read]:
    """Yield batch by batch which items were read, their scores, and their pooled residuals.

    Parameters
    ----------
    items : sequence of (prompt, options)
        With or without options, all alike; without there are no scores.
    inside : tokens of each item's prompt, one list a pool
    add : callable, optional
        Takes a batch, whose rows are then the items, and returns what to add as `_additions` does.
    """
    pools, scored = len(inside[0]), bool(items[0][1])
    groups = [[row] for row in range(len(items))]
    if add is None:  # steered otherwise, the same beginning is another one
        groups = gather(items, model.d_model, most=min(TREE_TOKENS, _most(model)))
    trees = [Tree.grow([items[row] for row in group]) for group in groups]

    def read(batch: Batch) -> list[np.ndarray]:
        grown = [trees[n] for n in batch.rows]
        places = [
            [
                [prompt[token] for token in tokens]
                for row, prompt in zip(groups[n], tree.prompts, strict=True)
                for tokens in inside[row]
            ]
            for n, tree in zip(batch.rows, grown, strict=True)
        ]
        weights, found = _mean_over(batch, places), []
        if scored:
            more = add(batch) if add else {}
            logprobs, residuals = _score_batch(model, batch, grown, more, weights)
            totals = [
                [logprobs[n, path].sum() for path in item]
                for n, tree in enumerate(grown)
                for item in tree.options
            ]
            found.append(np.array(totals))
        else:
            inputs = _tree_inputs(model, batch, grown)
            residuals = _pooled_batch(model, Batch(batch.rows, inputs), weights)
        mine = zip(residuals, places, strict=True)
        pooled = np.concatenate([each[: len(sets)] for each, sets in mine])
        return found + [pooled[pool::pools] for pool in range(pools)]

    limits = {"alike": add is not None, "progress": progress}
    for batch, found in _passes(model, [tree.tokens for tree in trees], read, **limits):
        yield [row for n in batch.rows for row in groups[n]], found


def score_store(model: TracedModel, *what, size: int, cache: Path | None = None) -> RowStore:
    """Return where rows of `size` scores of one model and kind are kept on disk.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     where = {"size": 2, "cache": Path(folder)}
    ...     score_store(llm, "own scores", **where).append(["text"], np.array([[-1.0, -2.0]]))
    ...     score_store(llm, "own scores", **where).open().tolist()
    [[-1.0, -2.0]]
    """
    name = digest(CACHE_VERSION, asdict(model.identity), *what)
    return RowStore((cache or cache_dir() / "scores") / name, (size,))


def _score_batch(
    model: TracedModel,
    batch: Batch,
    trees: Sequence[Tree],
    add: dict[int, torch.Tensor],
    weights: torch.Tensor,
) -> tuple[np.ndarray, np.ndarray]:
    """Trace a tree a row; return the log-probability of each token of an option.

    ``[batch, tokens]``, by the places of the tree, 0 for other tokens. With weights ``[batch,
    pools, tokens]`` also the residuals that each pools, ``[batch, pools, layers, d_model]``.
    """
    envoy, width, pools = model.envoy, batch.mask.shape[1], weights.shape[1]
    keep = max(len(tree.tokens) - tree.start for tree in trees)
    one = add and not pools and all(tree == trees[0] for tree in trees)
    read = _equal_rows_once(batch) if one else batch
    inputs = _tree_inputs(model, read, trees[: len(read.rows)])
    scored = [
        (n, tree, node)
        for n, tree in enumerate(trees)
        for item in tree.options
        for path in item
        for node in path
    ]
    rows = torch.tensor([n for n, *_ in scored])
    targets = torch.tensor([tree.tokens[node] for _, tree, node in scored])
    above = torch.tensor([tree.parents[node] + keep - len(tree.tokens) for _, tree, node in scored])
    touched = range(model.n_layers) if pools else sorted(add)
    none = torch.empty(len(trees), 0)
    with envoy.trace(inputs, use_cache=False, logits_to_keep=keep, **model.where):
        pooled = []
        for layer in touched:
            residual = envoy.layers[layer].output
            if layer in add:
                residual = residual + add[layer].to(residual)
                envoy.layers[layer].output = residual
            if pools:
                pooled.append(torch.bmm(weights.to(residual.device), residual.float()).cpu())
        residuals = (torch.stack(pooled, 2) if pools else none).save()
        logits = envoy.output.logits[:, -keep:].float()  # after the soft cap that Gemma 2 has
        # row by row: the whole would take as much memory again, and twice the time
        scale = torch.stack([row.logsumexp(-1) for row in logits])
        where = rows.to(logits.device), above.to(logits.device)
        chosen = (logits[(*where, targets.to(logits.device))] - scale[where]).cpu().save()
    logprobs = np.zeros((len(trees), width))
    logprobs[rows, [node for *_, node in scored]] = chosen
    return logprobs, residuals.numpy()


def _tree_inputs(
    model: TracedModel, batch: Batch, trees: Sequence[Tree]
) -> dict[str, torch.Tensor]:
    """Turn rows padded left into inputs in which a token sees those above it in its tree alone.

    Where some branch, the mask is ``[batch, 1, tokens, tokens]``, to add to the attention scores.
    """
    if not any(tree.branches for tree in trees):
        return batch.inputs
    shape, dtype = batch.mask.shape, model.envoy._module.dtype
    positions = torch.zeros(shape, dtype=torch.long)
    seen = torch.zeros(*shape, shape[1], dtype=torch.bool)
    for n, tree in enumerate(trees):
        start = shape[1] - len(tree.tokens)
        positions[n, start:] = torch.from_numpy(tree.depths)
        seen[n, start:, start:] = torch.from_numpy(tree.seen)
    mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
    return {**batch.inputs, "attention_mask": mask.unsqueeze(1), "position_ids": positions}


def generate(
    model: TracedModel,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    seeds: Sequence[int] | None = None,
    steering: Steering | None = None,
    progress: str | None = None,
    cache: Path | None = None,
) -> list[str]:
    """Return the model's continuation of each prompt.

    Texts are kept on disk by prompt, seed and steering, like the scores of :func:`option_logprobs`:
    a killed run loses one batch. Samples of one prompt under the same steering share one reading
    of it.

    Parameters
    ----------
    temperature : float
        0 decodes greedily; above, samples from the whole distribution.
    seeds : sequence of int, one a prompt, optional
        Of the samples; 0, 1, 2, ... by default. A row's noise depends on its own seed alone, not on
        the rest of its batch. A server has its own noise, and seeds only tell its samples apart.
    steering : Steering, optional
        Without spans every token is steered, the generated ones as they come; with spans those
        tokens of the prompt alone.
    cache : Path, optional
        Folder of the texts; the user's cache by default.

    Raises
    ------
    BadInput
        For empty prompts, another number of seeds or steering rows than of prompts, no tokens to
        generate, or a negative temperature.

    Examples
    --------
    >>> prompt = llm.chat_prompt([{"role": "user", "content": "What is the capital of France?"}])
    >>> generate(llm, [prompt], max_new_tokens=5)
    ['The capital of France is']
    """
    prompts = _check_texts(prompts)
    _check_reply(max_new_tokens, temperature)
    seeds = range(len(prompts)) if seeds is None else list(seeds)
    if len(seeds) != len(prompts):
        raise BadInput(f"{len(prompts)} prompts need {len(prompts)} seeds, not {len(seeds)}")
    _check_rows(steering, prompts)
    marks = [None] * len(prompts) if steering is None else steering.marks()
    keys = [
        digest(prompt, seed if temperature else None, mark, length=24)
        for prompt, seed, mark in zip(prompts, seeds, marks, strict=True)
    ]
    what = digest(CACHE_VERSION, asdict(model.identity), max_new_tokens, float(temperature))
    store = TextStore((cache or cache_dir() / "texts") / f"{what}.jsonl")
    everywhere = steering is None or steering.spans is None
    with store.lock():
        known = store.texts()
        todo = list({key: n for n, key in enumerate(keys) if key not in known}.values())
        if todo:
            texts = [prompts[n] for n in todo]
            steered = None if steering is None else steering[todo]

            def continue_batch(batch: Batch) -> list[str]:
                # positions are left to `generate`, which extends them with every new token
                inputs = {key: batch.inputs[key] for key in ("input_ids", "attention_mask")}
                add = _additions(model, steered, texts, batch)
                rows = [todo[row] for row in batch.rows]
                options = {"max_new_tokens": max_new_tokens, **model.where}
                options |= _sampling(model, temperature, [seeds[n] for n in rows])
                same = [(prompts[n], marks[n]) for n in rows]
                if batch.mask.shape[1] > 1 and len(set(same)) < len(same) and not model.remote:
                    options["past_key_values"] = _read_once(model, batch, add, same)
                    add = {layer: what[:, -1:] for layer, what in add.items()}
                tokens = _steered_ids(model, inputs, add, options, each_step=everywhere)
                new = tokens[:, batch.mask.shape[1] :]
                return model.tokenizer.batch_decode(new, skip_special_tokens=True)

            most = GENERATION_TOKENS.get(model.device.type)
            limits = {"tokens": most, "new": max_new_tokens, "progress": progress}
            for batch, found in _passes(model, tokenize(model, texts), continue_batch, **limits):
                made = zip(batch.rows, found, strict=True)
                store.append({keys[todo[row]]: text for row, text in made})
        found = store.texts()
    return [found[key] for key in keys]


def _check_reply(max_new_tokens: int, temperature: float) -> None:
    if max_new_tokens < 1:
        raise BadInput(f"max_new_tokens={max_new_tokens} leaves no reply; give at least 1")
    if not 0 <= temperature < np.inf:
        raise BadInput(f"temperature={temperature} is none; give 0, or a positive number")


def _read_once(
    model: TracedModel, batch: Batch, add: dict[int, torch.Tensor], same: Sequence[tuple]
) -> Cache:
    """Read all but the last token of each row, equal rows once; return their keys and values."""
    first = {what: n for n, what in reversed(list(enumerate(same)))}
    rows = torch.tensor([first[what] for what in dict.fromkeys(same)])
    place = {what: k for k, what in enumerate(dict.fromkeys(same))}
    inputs = {key: value[rows, :-1] for key, value in batch.inputs.items()}
    width, envoy = inputs["input_ids"].shape[1], model.envoy
    with envoy.trace(inputs, use_cache=True, logits_to_keep=1):
        for layer in sorted(add):
            residual = envoy.layers[layer].output
            mine = add[layer][rows, :width].to(residual)  # one column stands for all tokens
            envoy.layers[layer].output = residual + mine
        read = envoy.output.past_key_values.save()
    read.batch_select_indices(torch.tensor([place[what] for what in same]))
    return read


def _sampling(model: TracedModel, temperature: float, seeds: Sequence[int]) -> dict:
    """Return how `generate` of transformers is to choose tokens."""
    plain = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
    if not temperature:
        return plain
    if model.remote:  # our own noise cannot travel
        return {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    return {**plain, "logits_processor": [_GumbelNoise(temperature, seeds)]}


class _GumbelNoise(LogitsProcessor):
    """Turns greedy decoding into sampling, each row with a stream of noise of its own.

    The highest of logits plus Gumbel noise is a sample from their softmax.
    """

    def __init__(self, temperature: float, seeds: Sequence[int]):
        self.temperature = temperature
        self.streams = [torch.Generator().manual_seed(int(seed)) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        noise = torch.empty(scores.shape)  # changed in place: with a large vocabulary it is large
        for row, stream in zip(noise, self.streams, strict=True):
            row.uniform_(generator=stream)
        noise.clamp_(min=1e-20).log_().neg_().log_().neg_()
        return noise.to(scores.device).add_(scores.float() / self.temperature)


def _steered_ids(
    model: TracedModel, inputs: dict, add: dict, options: dict, *, each_step: bool
) -> torch.Tensor:
    """Generate ids ``[batch, prompt + new]``, adding at each step or while reading the prompt."""
    envoy = model.envoy
    if not add:
        with envoy.generate(inputs, **options) as tracer:
            ids = tracer.result.save()
        return ids
    layers = sorted(add)
    with envoy.generate(**options) as tracer:
        with tracer.invoke(inputs):
            for step in tracer.all():
                for layer in layers:
                    residual = envoy.layers[layer].output
                    if each_step or step == 0:
                        envoy.layers[layer].output = residual + add[layer].to(residual)
        with tracer.invoke():  # an open loop is left only by a second, empty invoke
            ids = tracer.result.save()
    return ids


def generate_reading(
    model: TracedModel,
    prompt: str,
    layer: int,
    directions: np.ndarray,
    *,
    on_token: Callable[[int, np.ndarray], Steering | bool | None],
    max_new_tokens: int,
    centre: np.ndarray | None = None,
    temperature: float = 0.0,
    seed: int = 0,
) -> None:
    """Generate a continuation as :func:`generate` does and read each of its tokens on the way.

    A token has a residual stream once the model reads it, so `on_token` is called with it in the
    middle of the pass that computes the next one. The token that ends a reply is never read.

    Parameters
    ----------
    directions : ``[k, d_model]``
        Unit vectors.
    on_token : callable
        Takes a token's id and the cosines ``[k]`` of its residual stream with the directions. It
        may return False to stop right there, or a Steering of one row that is added to every
        token from the next one on, in place of an earlier one; None goes on. Meanwhile the model
        is held, and can do nothing else.
    centre : ``[d_model]``, optional
        Subtracted from the residual stream first.

    Raises
    ------
    BadInput
        For an empty prompt, no tokens to generate, a negative temperature, or a model on a server:
        what a trace finds leaves a server at its end.

    Examples
    --------
    >>> prompt = llm.chat_prompt([{"role": "user", "content": "What is the capital of France?"}])
    >>> said = []
    >>> def listen(token, cosines):
    ...     said.append(llm.tokenizer.decode([token]))
    ...     return len(said) < 3
    >>> generate_reading(llm, prompt, 19, np.eye(1, 576), on_token=listen, max_new_tokens=5)
    >>> said
    ['The', ' capital', ' of']
    """
    if model.remote:
        raise BadInput(
            f"{model.identity.name!r} runs on a server, which cannot send tokens out one by one; "
            "read the finished text with `token_residuals`"
        )
    _check_reply(max_new_tokens, temperature)
    layer = model.check_layer(layer)
    # one token more, which is never drawn, since the last token is to be read as well
    options = {"max_new_tokens": max_new_tokens + 1, **_sampling(model, temperature, [seed])}
    rows = torch.tensor(np.asarray(directions), dtype=torch.float32)
    origin = torch.zeros(model.d_model) if centre is None else torch.tensor(centre).float()

    def read(batch: Batch) -> None:
        inputs = {key: batch.inputs[key] for key in ("input_ids", "attention_mask")}
        add: dict[int, torch.Tensor] = {}
        envoy, model._held = model.envoy, True
        try:
            with envoy.generate(inputs, **options) as tracer:
                for step in tracer.iter[1:]:  # step 0 reads the prompt
                    token, answer = int(envoy.embed_tokens.input), None
                    for block in sorted({layer, *add}):
                        residual = envoy.layers[block].output
                        if block in add:
                            residual = residual + add[block].to(residual)
                            envoy.layers[block].output = residual
                        if block == layer:
                            here = residual[0, -1].float() - origin.to(residual.device)
                            cosines = rows.to(residual.device) @ here / here.norm()
                            answer = on_token(token, cosines.cpu().numpy())
                            if answer is False or step == max_new_tokens:
                                tracer.stop()
                    if isinstance(answer, Steering):
                        add = dict(zip(answer.layers, torch.tensor(answer.add[0]), strict=True))
        finally:
            model._held = False

    for _ in _passes(model, tokenize(model, [prompt]), read, new=max_new_tokens):
        pass


# --- the weights that read-outs need -----------------------------------------------------------


def lens_logits(model: TracedModel, directions: np.ndarray) -> np.ndarray:
    """Return ``[n, vocab]``: how far each direction raises each token, the logit lens (Table 1).

    The output head, with the final norm's gain folded in, multiplied with the directions. Its mean
    over the vocabulary is removed, since it shifts every logit alike, and its rows are scaled to
    one length, since otherwise tokens that training hardly ever met win by length alone. Reckoned
    where the weights are, so that a server sends back logits and no weights.

    Parameters
    ----------
    directions : ``[n, d_model]``
        Of any length; only where they point counts.

    Examples
    --------
    >>> [raised] = lens_logits(llm, mean_embedding(llm, [" desperate"]))
    >>> [llm.tokenizer.decode([token]) for token in (-raised).argsort()[:2]]
    [' desperate', ' desperation']
    """
    envoy, given = model.envoy, torch.tensor(unit(directions), dtype=torch.float32)
    # Gemma's RMSNorm multiplies by (1 + weight)
    more = 1.0 if "Gemma" in type(envoy.ln_final._module).__name__ else 0.0
    with torch.no_grad(), envoy.trace(_one_token(), use_cache=False, **model.where) as tracer:
        device = envoy.layers[0].output.device  # a trace has to pass somewhere
        head, gain = envoy.lm_head.weight, (envoy.ln_final.weight.float() + more).to(device)
        mean = head.mean(0, dtype=torch.float32).to(device) * gain
        parts = []
        for rows in head.split(LENS_ROWS):
            rows = rows.to(device).float() * gain - mean
            parts.append((given.to(device) @ rows.T / rows.norm(dim=1)).cpu())
        found = torch.cat(parts, 1).save()
        tracer.stop()
    return found.numpy()


def mean_embedding(
    model: TracedModel, texts: Sequence[str], *, skip: int = 0, add_space: bool = False
) -> np.ndarray:
    """Return ``[n_texts, d_model]``: mean static embedding of each text's tokens from `skip` on.

    The baseline without context. add_space puts a space before each text, as words stand in
    running text.

    Raises
    ------
    BadInput
        For empty texts, or one with nothing left after `skip`.

    Examples
    --------
    >>> one, other = mean_embedding(llm, ["bus stops", "stops bus"], add_space=True)
    >>> one.shape, bool(np.allclose(one, other))
    ((576,), True)
    """
    prepare: Callable[[str], str] = (lambda text: f" {text}") if add_space else str
    texts = _check_texts(texts)
    ids = tokenize(model, [prepare(text) for text in texts])
    MeanFrom(skip).check([len(row) for row in ids], texts)
    rows, envoy, means = [torch.tensor(row[skip:]) for row in ids], model.envoy, []
    size = max(1, JOB_BYTES // (4 * model.d_model))
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        with torch.no_grad(), envoy.trace(_one_token(), use_cache=False, **model.where) as tracer:
            device = envoy.layers[0].output.device
            table = envoy.embed_tokens.weight
            found = [table[row.to(device)].float().mean(0) for row in part]
            found = torch.stack(found).cpu().save()
            tracer.stop()
        means.append(found.numpy())
    return np.concatenate(means)


def _one_token() -> torch.Tensor:
    """Return the input of a trace that asks for weights alone."""
    return torch.tensor([[0]])

"""Emotion vectors in other tools' formats: control vectors (GGUF) and NumPy archives.

A control vector is a GGUF file of architecture ``controlvector`` with one tensor ``direction.k`` a
layer. llama.cpp and repeng multiply it by a scale and add it to the output of decoder block k,
counted from 0: their k is our layer, without a shift. Layer 0 alone has no place, since llama.cpp
refuses a file that holds ``direction.0``.

``vectors.EmotionVectors.save`` writes safetensors, the library's own format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import gguf
import numpy as np

from emotion_concepts.cache import write_atomic
from emotion_concepts.errors import BadInput, CacheError, UnknownLayer
from emotion_concepts.steering import band, steer
from emotion_concepts.vectors import EmotionVectors, Provenance

ARCHITECTURE = "controlvector"
OWN = "emotion_concepts"  # prefix of the keys that other tools do not have, and ignore
ARRAYS = ("directions", "norms", "centre", "neutral_k", "residual_norm")


# --- control vectors ---------------------------------------------------------------------------


@dataclass(frozen=True)
class ControlVector:
    """What a control vector file holds.

    ``steering.Steering(layers, directions[None])`` steers the library's own models with it.

    Attributes
    ----------
    layers : tuple of int, n
        Decoder blocks, counted from 0, whose output is added to.
    directions : ``[n, d_model]`` float32
        What a scale of 1 adds there.
    model_hint : str
        The model or architecture it was made for, as its maker put it.
    emotion : str or None
        None in a file that another tool wrote; so are `strength` and `provenance`.
    strength : float or None
        The steering strength that a scale of 1 stands for.
    provenance : Provenance or None

    Examples
    --------
    >>> from emotion_concepts.steering import Steering
    >>> found = ControlVector(layers=(10, 11), directions=np.ones((2, 4), dtype=np.float32))
    >>> steering = Steering(found.layers, found.directions[None])
    >>> steering.add.shape
    (1, 2, 4)
    """

    layers: tuple[int, ...]
    directions: np.ndarray
    model_hint: str = ""
    emotion: str | None = None
    strength: float | None = None
    provenance: Provenance | None = None


def to_gguf(
    vectors: EmotionVectors,
    emotion: str,
    path: str | Path,
    *,
    strength: float = 0.1,
    layers: Sequence[int] | None = None,
    model_hint: str | None = None,
) -> Path:
    """Write one emotion as a control vector for llama.cpp and repeng; whole or not at all.

    At a scale of 1 it does what ``steering.steer`` does at `strength`, and it is linear in the
    scale: of a file with the default strength, a scale of -0.5 is our strength -0.05. In llama.cpp
    that is ``--control-vector-scaled calm.gguf:-0.5``. All tokens are steered, the prompt's too.

    Parameters
    ----------
    emotion : str
        One of ``vectors.emotions``.
    strength : float
        Fraction of the mean residual norm, at each of the layers, that a scale of 1 adds. By
        default 0.1, so that scales from -1 to 1 span the strengths of the paper's behavioural
        experiments; with 1.0 the scale is the strength.
    layers : sequence of int, optional
        Blocks to steer, by default ``steering.band``, the middle third; layer 0 is not possible.
    model_hint : str, optional
        By default the model that the vectors were fitted on. Other tools put the architecture
        here, such as ``llama``; repeng warns where vectors of different hints are combined.

    Returns
    -------
    Path
        Of the file.

    Raises
    ------
    UnknownEmotion, UnknownLayer, BadInput

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = to_gguf(vectors, "calm", Path(folder, "calm.gguf"), layers=[1, 2])
    ...     path.name, [tensor.name for tensor in gguf.GGUFReader(path).tensors]
    ('calm.gguf', ['direction.1', 'direction.2'])
    """
    path, made = Path(path), _provenance(vectors)
    layers = band(vectors.n_layers) if layers is None else sorted(layers)
    if 0 in layers:
        raise UnknownLayer(
            "llama.cpp has no control vector for layer 0; choose layers from 1 to "
            f"{vectors.n_layers - 1}"
        )
    steering = steer(vectors[emotion][None], [strength], vectors.residual_norm, layers)
    if not steering.add.any():
        raise BadInput("this control vector adds nothing; give layers, and a strength other than 0")
    with write_atomic(path) as part:
        writer = gguf.GGUFWriter(part, ARCHITECTURE)
        writer.add_string(f"{ARCHITECTURE}.model_hint", model_hint or made.model)
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(steering.layers))  # of directions
        writer.add_string(f"{OWN}.emotion", emotion)
        writer.add_float64(f"{OWN}.strength", float(strength))
        writer.add_string(f"{OWN}.provenance", json.dumps(asdict(made)))
        for layer, direction in zip(steering.layers, steering.add[0], strict=True):
            writer.add_tensor(f"direction.{layer}", direction)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return path


def from_gguf(path: str | Path) -> ControlVector:
    """Read a control vector, whoever wrote it.

    Returns
    -------
    ControlVector

    Raises
    ------
    CacheError
        If the file is missing or damaged, or is not a control vector.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     found = from_gguf(to_gguf(vectors, "calm", Path(folder) / "calm.gguf", layers=[15]))
    >>> found.emotion, found.layers, found.strength
    ('calm', (15,), 0.1)
    >>> wanted = 0.1 * vectors.residual_norm[15] * vectors["calm"][15]
    >>> bool(np.allclose(found.directions[0], wanted))
    True
    """
    try:
        reader = gguf.GGUFReader(path)
        values = {
            key: field.contents()
            for key, field in reader.fields.items()
            if key.startswith(("general.architecture", ARCHITECTURE, OWN))
        }
        made = values.get(f"{OWN}.provenance")
        provenance = made and Provenance(**json.loads(made))
    except Exception as error:  # damaged files make gguf raise nearly anything
        raise CacheError(f"{path} could not be read as GGUF: {error}") from error
    if values.get("general.architecture") != ARCHITECTURE:
        raise CacheError(
            f"{path} holds {values.get('general.architecture')!r}, not a control vector; "
            "give a file that llama.cpp's cvector-generator, repeng or to_gguf wrote"
        )
    found = {}
    for tensor in reader.tensors:
        if not tensor.name.startswith("direction."):
            continue
        number = re.fullmatch(r"direction\.([0-9]+)", tensor.name)
        if not number or tensor.data.dtype != np.float32 or tensor.data.ndim != 1:
            raise CacheError(
                f"{path} holds {tensor.name!r}, {tensor.tensor_type.name} "
                f"{list(tensor.data.shape)}; the tensors of a control vector are direction.k with "
                "the number of a layer, F32 [d_model]"
            )
        found[int(number[1])] = tensor.data
    if len({len(direction) for direction in found.values()}) != 1:
        raise CacheError(
            f"{path} holds no directions, or directions of several widths; export it again"
        )
    layers = tuple(sorted(found))
    return ControlVector(
        layers=layers,
        directions=np.stack([found[layer] for layer in layers]),
        model_hint=values.get(f"{ARCHITECTURE}.model_hint", ""),
        emotion=values.get(f"{OWN}.emotion"),
        strength=values.get(f"{OWN}.strength"),
        provenance=provenance,
    )


# --- NumPy archives ----------------------------------------------------------------------------


def to_npz(vectors: EmotionVectors, path: str | Path) -> Path:
    """Write vectors as a NumPy archive without pickles; whole or not at all.

    It holds the arrays ``directions``, ``norms``, ``centre``, ``neutral_k`` and ``residual_norm``
    of :class:`~emotion_concepts.vectors.EmotionVectors`, the names ``emotions`` and, as JSON, the
    ``provenance``.

    Returns
    -------
    Path
        Of the file.

    Raises
    ------
    BadInput
        If the vectors have no provenance.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder, np.load(to_npz(vectors, f"{folder}/v.npz")) as archive:
    ...     archive["emotions"].tolist(), archive["directions"].shape
    (['desperate', 'calm'], (2, 30, 576))
    """
    path, made = Path(path), _provenance(vectors)
    arrays = {name: getattr(vectors, name) for name in ARRAYS}
    with write_atomic(path) as part, open(part, "wb") as file:  # given a name, NumPy adds .npz
        np.savez(
            file,
            emotions=np.array(vectors.emotions),
            provenance=np.array(json.dumps(asdict(made))),
            **arrays,
        )
    return path


def from_npz(path: str | Path, *, identity=None) -> EmotionVectors:
    """Read vectors from a NumPy archive.

    Parameters
    ----------
    identity : tracing.ModelIdentity, optional
        ``model.identity`` of the model they are to be used on; another one is refused.

    Returns
    -------
    EmotionVectors

    Raises
    ------
    CacheError
        If the file is missing or damaged, or does not hold emotion vectors.
    WrongModel
        If the vectors belong to another model, revision or tokenizer.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     found = from_npz(to_npz(vectors, Path(folder) / "vectors.npz"))
    >>> found.provenance == vectors.provenance and bool((found["calm"] == vectors["calm"]).all())
    True
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ARRAYS}
            emotions = tuple(archive["emotions"].tolist())
            made = Provenance(**json.loads(str(archive["provenance"])))
        n_layers, d_model = arrays["directions"].shape[1:]
        shapes = [
            (len(emotions), n_layers, d_model),
            (len(emotions), n_layers),
            (n_layers, d_model),
            (n_layers,),
            (n_layers,),
        ]
        if [array.shape for array in arrays.values()] != shapes:
            raise ValueError("the shapes of its arrays do not fit one another")
    except Exception as error:  # as above, NumPy and zipfile
        raise CacheError(f"{path} could not be read as emotion vectors: {error}") from error
    vectors = EmotionVectors(emotions=emotions, provenance=made, **arrays)
    if identity is not None:
        vectors.check_model(identity)
    return vectors


def _provenance(vectors: EmotionVectors) -> Provenance:
    if vectors.provenance is None:
        raise BadInput("vectors without provenance are not exported: fit them with one")
    return vectors.provenance

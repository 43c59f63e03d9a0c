"""What to add to the residual stream, where, how strong and on which tokens; and its controls.

Strength is a fraction of the mean residual norm of a layer on neutral text, as in the paper
("Steering"); the norm is that of texts averaged over their tokens, ``vectors.residual_norm``. A
:class:`Steering` holds one row a prompt, so that a batch can mix directions and strengths. Pure
arrays: `tracing` does the adding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from emotion_concepts.cache import digest
from emotion_concepts.errors import BadInput, UnknownLayer
from emotion_concepts.geometry import project_out, unit

Span = tuple[int, int]


@dataclass(frozen=True)
class Steering:
    """Additions to the residual stream, one row a prompt.

    Attributes
    ----------
    layers : tuple of int, n_layers
        Decoder blocks whose output is added to.
    add : ``[n_rows, n_layers, d_model]`` float32
        What is added there, in units of the residual stream; a row of zeros leaves its prompt bit
        for bit as it was.
    spans : tuple of tuples of (start, end), n_rows, optional
        Character ranges of each prompt whose tokens are steered; None steers every token, those
        that are generated included.
    """

    layers: tuple[int, ...]
    add: np.ndarray
    spans: tuple[tuple[Span, ...], ...] | None = None

    def __post_init__(self):
        if self.add.ndim != 3 or self.add.shape[1] != len(self.layers):
            raise BadInput(
                f"steering of {len(self.layers)} layers needs additions [rows, "
                f"{len(self.layers)}, d_model], not {list(self.add.shape)}"
            )
        if len(set(self.layers)) != len(self.layers):
            raise BadInput(f"a layer is steered twice: {self.layers}")
        if self.spans is not None and len(self.spans) != len(self.add):
            raise BadInput(
                f"{len(self.add)} rows need {len(self.add)} spans, not {len(self.spans)}"
            )

    def __len__(self) -> int:
        return len(self.add)

    def __getitem__(self, rows: Sequence[int]) -> Steering:
        """Return the steering of some prompts, in the order given.

        >>> steering = Steering((1,), np.array([[[1.0]], [[2.0]]], dtype=np.float32))
        >>> steering[[1, 0]].add.ravel().tolist()
        [2.0, 1.0]
        """
        spans = None if self.spans is None else tuple(self.spans[row] for row in rows)
        return Steering(self.layers, self.add[list(rows)], spans)

    def marks(self) -> list[str | None]:
        """Return a digest of each row's layers, additions and spans; None where it adds nothing.

        >>> steering = Steering((1,), np.array([[[0.0]], [[1.0]]], dtype=np.float32))
        >>> [mark is None for mark in steering.marks()]
        [True, False]
        """
        marks: list[str | None] = []
        for n, add in enumerate(self.add):
            what = hashlib.sha256(add.tobytes()).hexdigest()
            spans = None if self.spans is None else self.spans[n]
            acts = add.any() and spans != ()
            marks.append(digest(self.layers, what, spans) if acts else None)
        return marks

    @classmethod
    def join(cls, parts: Sequence[Steering]) -> Steering:
        """Return the rows of several steerings of the same layers, one after another.

        >>> one = Steering((1,), np.zeros((2, 1, 4), dtype=np.float32))
        >>> len(Steering.join([one, one]))
        4
        """
        first = parts[0]
        if any(part.layers != first.layers for part in parts):
            raise BadInput("steerings of different layers cannot be joined")
        if len({part.spans is None for part in parts}) > 1:
            raise BadInput("steerings with and without spans cannot be joined; give all of them")
        spans = None if first.spans is None else tuple(chain(*(part.spans for part in parts)))
        return cls(first.layers, np.concatenate([part.add for part in parts]), spans)


def steer(
    directions: np.ndarray,
    strengths: Sequence[float],
    residual_norm: np.ndarray,
    layers: Sequence[int],
    *,
    spans: Sequence[Sequence[Span]] | None = None,
) -> Steering:
    """Return the steering of several prompts, each with its own direction and strength.

    Parameters
    ----------
    directions : ``[n_rows, n_layers_of_model, d_model]``
        A unit vector a layer, e.g. ``vectors["calm"]``, stacked over prompts.
    strengths : sequence of float, n_rows
        Fractions of the mean residual norm (paper: -0.1 to 0.1 for behaviour, 0.5 for
        preferences); 0 is no steering.
    residual_norm : ``[n_layers_of_model]``
        ``vectors.residual_norm``.
    layers : sequence of int
        Blocks to steer, e.g. ``band(model.n_layers)``.
    spans : one list of (start, end) a prompt, optional
        Characters of the prompt whose tokens are steered.

    Raises
    ------
    BadInput, UnknownLayer

    Examples
    --------
    >>> found = steer(np.ones((1, 3, 4)) / 2, [0.1], np.array([1.0, 10.0, 100.0]), [1])
    >>> float(np.linalg.norm(found.add[0, 0]).round(6))
    1.0
    """
    directions, strengths = np.asarray(directions), np.asarray(strengths, dtype=float)
    if directions.ndim != 3 or len(strengths) != len(directions):
        raise BadInput(
            f"{len(strengths)} strengths need directions [{len(strengths)}, layers, d_model], "
            f"not {list(directions.shape)}"
        )
    if not np.isfinite(strengths).all():
        raise BadInput("a steering strength is not a number")
    layers = tuple(int(layer) for layer in layers)
    for layer in layers:
        if not 0 <= layer < directions.shape[1]:
            raise UnknownLayer(
                f"the directions have layers 0 to {directions.shape[1] - 1}, not {layer}"
            )
    scale = strengths[:, None, None] * np.asarray(residual_norm)[list(layers)][None, :, None]
    add = (scale * unit(directions[:, list(layers)])).astype(np.float32)
    chosen = None if spans is None else tuple(tuple(row) for row in spans)
    return Steering(layers, add, chosen)


def band(n_layers: int) -> list[int]:
    """Return the middle third of the blocks, where the paper's steering works (Fig 55).

    >>> band(30)
    [10, 11, 12, 13, 14, 15, 16, 17, 18, 19]
    """
    return list(range(n_layers // 3, 2 * n_layers // 3))


def random_directions(
    n: int, outside: np.ndarray, *, seed: int = 0, variance: float = 0.99
) -> np.ndarray:
    """Return ``[n, n_layers, d_model]`` random unit vectors outside the span of the emotions.

    A random vector that keeps a part along the emotions is no control; so at each layer the
    components that hold `variance` of the emotion vectors are projected out.

    Parameters
    ----------
    outside : ``[n_emotions, n_layers, d_model]``
        The emotion vectors, ``vectors.directions``.

    Raises
    ------
    BadInput
        If the emotions leave no room.

    Examples
    --------
    >>> outside = np.zeros((2, 1, 4))
    >>> outside[0, 0, 0] = outside[1, 0, 1] = 1.0
    >>> drawn = random_directions(3, outside)
    >>> drawn.shape, bool(np.abs(drawn[..., :2]).max() < 1e-6)
    ((3, 1, 4), True)
    """
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal((n, *outside.shape[1:]))
    for layer in range(outside.shape[1]):
        _, s, vt = np.linalg.svd(outside[:, layer], full_matrices=False)
        k = int(np.searchsorted(np.cumsum(s**2) / np.sum(s**2), variance) + 1)
        if k >= outside.shape[2]:
            raise BadInput(f"the emotions span all {outside.shape[2]} dimensions of layer {layer}")
        drawn[:, layer] = project_out(drawn[:, layer], vt[:k])
    return unit(drawn).astype(np.float32)

"""The shape of a set of vectors: components, clusters, similarity, agreement with human norms.

Pure NumPy, SciPy and scikit-learn on arrays ``[n_emotions, d_model]``; nothing here knows where
they come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from emotion_concepts.errors import BadInput

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import CountVectorizer

# SciPy's clusters and scikit-learn are imported where they are used: they take longer to import
# than `unit` and the like, which every module needs, take to run.


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors scaled to length 1 along the last axis (a zero vector stays zero).

    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def cosine_matrix(vectors: np.ndarray) -> np.ndarray:
    """Return the ``[n, n]`` cosine similarities of ``[n, d]`` vectors (Fig 5).

    >>> cosine_matrix(np.array([[1.0, 0.0], [0.0, 2.0]])).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    scaled = unit(np.asarray(vectors, dtype=float))
    return np.clip(scaled @ scaled.T, -1, 1)


def hierarchical_order(cosines: np.ndarray) -> np.ndarray:
    """Return the leaf order of average-linkage clustering on 1 - cosine, ``[n]``.

    >>> hierarchical_order(np.array([[1, 0, 0.9], [0, 1, 0], [0.9, 0, 1]])).tolist()
    [1, 2, 0]
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    distance = 1 - (cosines + cosines.T) / 2
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    return leaves_list(tree)


@dataclass(frozen=True)
class PCA:
    """Principal components of n vectors.

    Attributes
    ----------
    scores : ``[n, k]``
        Coordinates of the vectors on the components.
    components : ``[k, d]``
        Unit rows.
    shares : ``[k]``
        Shares of the total variance.
    """

    scores: np.ndarray
    components: np.ndarray
    shares: np.ndarray


def pca(vectors: np.ndarray, k: int | None = None) -> PCA:
    """Return the first `k` principal components (all by default), signs fixed.

    A component's sign is free; here its largest score in size is positive, so that reruns agree.

    >>> pca(np.array([[1.0, 0.0], [-1.0, 0.0]])).shares.tolist()
    [1.0, 0.0]
    """
    centred = np.asarray(vectors, dtype=float)
    centred = centred - centred.mean(0)
    u, s, vt = np.linalg.svd(centred, full_matrices=False)
    scores = u * s
    sign = np.sign(scores[np.abs(scores).argmax(0), np.arange(scores.shape[1])])
    sign = np.where(sign == 0, 1, sign)
    shares = s**2 / np.sum(s**2)
    return PCA((scores * sign)[:, :k], (vt * sign[:, None])[:k], shares[:k])


def components_for(vectors: np.ndarray, variance: float = 0.5) -> np.ndarray:
    """Return the top components ``[k, d]`` that together reach a share of the variance.

    >>> components_for(np.diag([9.0, 1.0, 0.1]), 0.9).shape
    (1, 3)
    """
    if not 0 <= variance < 1:
        raise BadInput(f"variance is a share from 0 to below 1, not {variance}")
    if not variance:
        return np.empty((0, vectors.shape[1]))
    found = pca(vectors)
    k = int(np.searchsorted(np.cumsum(found.shares), variance) + 1)
    return found.components[:k]


def project_out(vectors: np.ndarray, components: np.ndarray) -> np.ndarray:
    """Return vectors without their part along orthonormal rows ``[k, d]``.

    >>> project_out(np.array([[2.0, 3.0]]), np.array([[1.0, 0.0]])).tolist()
    [[0.0, 3.0]]
    """
    return vectors - (vectors @ components.T) @ components


def isotropic_shares(n: int, d: int, k: int, *, draws: int, seed: int = 0) -> np.ndarray:
    """Return ``[draws, k]`` variance shares of n unit vectors without any structure.

    >>> isotropic_shares(5, 3, 2, draws=4).shape
    (4, 2)
    """
    rng = np.random.default_rng(seed)
    return np.stack([pca(unit(rng.standard_normal((n, d)))).shares[:k] for _ in range(draws)])


def upper(matrix: np.ndarray) -> np.ndarray:
    """Return the entries above the diagonal, as a vector.

    >>> upper(np.arange(9).reshape(3, 3)).tolist()
    [1, 2, 5]
    """
    return matrix[np.triu_indices(len(matrix), 1)]


def rsa(a: np.ndarray, b: np.ndarray) -> float:
    """Return the correlation of two similarity matrices above their diagonals.

    >>> a = np.array([[1, 0.1, 0.2], [0.1, 1, 0.4], [0.2, 0.4, 1]])
    >>> round(rsa(a, 2 * a), 6)
    1.0
    """
    return float(np.corrcoef(upper(a), upper(b))[0, 1])


def layer_similarity(matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Return ``[L, L]`` cosines between layers' similarity matrices (Fig 9).

    >>> a = np.array([[1, 0.1, 0.2], [0.1, 1, 0.4], [0.2, 0.4, 1]])
    >>> layer_similarity([a, 2 * a]).round(6).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    return cosine_matrix(np.stack([upper(matrix) for matrix in matrices]))


def k_means(vectors: np.ndarray, k: int = 10, *, seed: int = 0) -> np.ndarray:
    """Return k-means labels ``[n]`` of the vectors (Fig 6; best of ten starts).

    >>> first, second, third = k_means(np.array([[0.0], [0.1], [9.0]]), 2)
    >>> bool(first == second), bool(first == third)
    (True, False)
    """
    from sklearn.cluster import KMeans

    return KMeans(k, n_init=10, random_state=seed).fit_predict(vectors)


def cluster_agreement(found: Sequence, given: Sequence) -> dict[str, float]:
    """Return the adjusted Rand index and normalised mutual information of two labellings.

    >>> cluster_agreement([0, 0, 1, 1], ["a", "a", "b", "b"])["ari"]
    1.0
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    return {
        "ari": float(adjusted_rand_score(given, found)),
        "nmi": float(normalized_mutual_info_score(given, found)),
    }


def linear_readout(
    features: np.ndarray | Sequence[str],
    targets: np.ndarray,
    *,
    vectoriser: CountVectorizer | None = None,
    folds: int = 9,
    repeats: int = 10,
    seed: int = 0,
) -> np.ndarray:
    """Return cross-validated ridge predictions of ratings from vectors ``[n, d]``, or from texts.

    Each fold chooses its ridge penalty inside its own training words, so that the prediction of a
    word never saw its rating. Predictions are averaged over several random splits: with a few
    dozen words a single split decides too much. Wide features are rotated into the span of the
    words first, which changes no prediction of a ridge regression and saves most of the work.

    Parameters
    ----------
    features : ``[n, d]``, or n texts for `vectoriser`
    targets : ``[n]`` or ``[n, k]``
        Several ratings (such as shuffled ones) at the cost of one.
    vectoriser : CountVectorizer or TfidfVectorizer, optional
        Makes vectors of texts; learnt in each fold from its own training texts.

    Returns
    -------
    Predictions in the shape of `targets`.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 40)
    >>> bool(np.abs(linear_readout(x[:, None], 3 * x) - 3 * x).max() < 0.1)
    True
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    model = RidgeCV(np.logspace(-3, 3, 13), alpha_per_target=targets.ndim > 1)
    if vectoriser is not None:
        model = make_pipeline(vectoriser, model)
    elif features.shape[1] > len(features):
        u, s, _ = np.linalg.svd(features, full_matrices=False)
        features = u * s
    splits = [KFold(folds, shuffle=True, random_state=repeats * seed + n) for n in range(repeats)]
    return np.mean([cross_val_predict(model, features, targets, cv=cv) for cv in splits], axis=0)


def umap_plane(vectors: np.ndarray, *, neighbours: int = 15, seed: int = 0) -> np.ndarray:
    """Return a ``[n, 2]`` UMAP layout by cosine: for the eye only, no number is read from it."""
    import umap

    layout = umap.UMAP(
        n_neighbors=neighbours, min_dist=0.3, metric="cosine", random_state=seed, n_jobs=1
    )
    return layout.fit_transform(np.asarray(vectors, dtype=np.float32))

from itertools import pairwise

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from emotion_concepts import geometry
from emotion_concepts.errors import BadInput

RNG = np.random.default_rng(0)


def test_pca_finds_the_axis_it_was_given():
    axis = geometry.unit(RNG.normal(size=6))
    x = np.outer(RNG.normal(size=200), 10 * axis) + RNG.normal(size=(200, 6))
    found = geometry.pca(x)
    assert abs(found.components[0] @ axis) > 0.99
    assert found.shares[0] > 0.8
    np.testing.assert_allclose(found.shares.sum(), 1)
    np.testing.assert_allclose((x - x.mean(0)) @ found.components.T, found.scores, atol=1e-9)


def test_pca_signs_do_not_depend_on_the_sign_of_the_data():
    x = RNG.normal(size=(30, 5))
    again = geometry.pca(x + 1e-9)
    np.testing.assert_allclose(geometry.pca(x).scores, again.scores, atol=1e-6)
    tallest = np.abs(again.scores).argmax(0)
    assert (again.scores[tallest, range(5)] > 0).all()


def test_components_hold_just_the_variance_asked_for():
    x = RNG.normal(size=(400, 4)) * np.array([3, 2, 1, 1])
    shares = geometry.pca(x).shares
    k = len(geometry.components_for(x, 0.7))
    assert shares[:k].sum() >= 0.7 > shares[: k - 1].sum()
    assert len(geometry.components_for(x, 0)) == 0
    with pytest.raises(BadInput):
        geometry.components_for(x, 1.5)


def test_projected_vectors_keep_nothing_along_the_components():
    components = geometry.components_for(RNG.normal(size=(50, 8)), 0.5)
    rest = geometry.project_out(RNG.normal(size=(7, 8)), components)
    np.testing.assert_allclose(rest @ components.T, 0, atol=1e-12)


def test_hierarchical_order_puts_likes_side_by_side():
    centres = np.eye(3) * 5
    x = np.concatenate([centres + 0.1 * RNG.normal(size=(3, 3)) for _ in range(4)])
    order = geometry.hierarchical_order(geometry.cosine_matrix(x)) % 3
    assert sum(a != b for a, b in pairwise(order)) == 2


def test_clusters_recover_blobs_and_agreement_is_one():
    truth = np.repeat([0, 1, 2], 10)
    x = np.eye(3)[truth] * 5 + 0.1 * RNG.normal(size=(30, 3))
    found = geometry.k_means(x, 3)
    assert geometry.cluster_agreement(found, truth)["ari"] == 1


def test_similarity_of_a_matrix_with_itself_is_one_and_with_noise_is_near_zero():
    a, b = (geometry.cosine_matrix(RNG.normal(size=(60, 20))) for _ in range(2))
    assert geometry.rsa(a, a) == pytest.approx(1)
    assert abs(geometry.rsa(a, b)) < 0.1
    assert geometry.layer_similarity([a, b]).shape == (2, 2)


def test_linear_readout_finds_what_is_there_and_nothing_in_noise():
    x = RNG.normal(size=(60, 10))
    y = x @ RNG.normal(size=10)
    assert np.corrcoef(geometry.linear_readout(x, y), y)[0, 1] > 0.9
    noise = RNG.normal(size=60)
    assert np.corrcoef(geometry.linear_readout(x, noise), noise)[0, 1] < 0.4


def test_words_of_held_out_texts_are_not_learnt():
    """A word of its own tells each text, if what it stands for were learnt from the text itself."""
    y = RNG.normal(size=40)
    y -= y.mean()
    texts = [f"own{n} own{n} own{n}" for n in range(40)]
    predicted = geometry.linear_readout(texts, y, vectoriser=CountVectorizer())
    assert np.abs(predicted).max() < 0.5 * y.std()
    shared = ["warm" if value > 0 else "cold" for value in y]
    predicted = geometry.linear_readout(shared, y, vectoriser=CountVectorizer())
    assert np.corrcoef(predicted, y)[0, 1] > 0.7


def test_isotropic_shares_are_flat_and_repeatable():
    shares = geometry.isotropic_shares(50, 200, 5, draws=3, seed=1)
    assert shares.shape == (3, 5)
    assert shares.max() < 0.05
    np.testing.assert_array_equal(shares, geometry.isotropic_shares(50, 200, 5, draws=3, seed=1))

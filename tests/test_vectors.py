import dataclasses
import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from emotion_concepts.errors import BadInput, CacheError, UnknownEmotion, UnknownLayer, WrongModel
from emotion_concepts.geometry import components_for, unit
from emotion_concepts.tracing import ModelIdentity
from emotion_concepts.vectors import EmotionVectors, Provenance, Stacked

EMOTIONS = ("calm", "angry", "sad")
IDENTITY = ModelIdentity("tiny", "w" * 16, "t" * 16, "float32")
MADE = Provenance("tiny", "w" * 16, "t" * 16, "c", "n", 10, 0.5)


@pytest.fixture
def design():
    """Three emotions x four topics with strong topic effects, two layers, eight dimensions."""
    rng = np.random.default_rng(0)
    emotion = rng.normal(size=(3, 2, 8))
    topic = 20 * rng.normal(size=(4, 2, 8))
    grid = emotion[None] + topic[:, None] + 0.01 * rng.normal(size=(4, 3, 2, 8))
    labels = [(name, f"t{t}") for t in range(4) for name in EMOTIONS]
    neutral = rng.normal(size=(30, 2, 8)) * np.array([9, 1, 1, 1, 1, 1, 1, 1])
    return {
        "stories": Stacked(grid.reshape(12, 2, 8)),
        "emotions": [emotion for emotion, _ in labels],
        "topics": [topic for _, topic in labels],
        "neutral": Stacked(neutral),
        "truth": emotion,
    }


@pytest.fixture
def vectors(design):
    truth = design.pop("truth")
    assert truth.shape == (3, 2, 8)
    return EmotionVectors.fit(**design, provenance=MADE)


def test_vectors_have_unit_length_and_keep_the_order_of_emotions(vectors):
    assert vectors.emotions == EMOTIONS
    np.testing.assert_allclose(np.linalg.norm(vectors.directions, axis=-1), 1, rtol=1e-5)


def test_the_recipe_equals_its_steps_done_by_hand(design):
    truth = design.pop("truth")
    assert truth is not None
    got = EmotionVectors.fit(**design)
    x = design["stories"].array.reshape(4, 3, 2, 8)[:, :, 1]
    means = (x - x.mean(1, keepdims=True)).mean(0)
    means = means - means.mean(0)
    for component in components_for(design["neutral"].array[:, 1], 0.5):
        means = means - np.outer(means @ component, component)
    np.testing.assert_allclose(got.at(1), unit(means), atol=1e-5)
    np.testing.assert_allclose(got.norms[:, 1], np.linalg.norm(means, axis=1), rtol=1e-5)


def test_vectors_are_orthogonal_to_the_neutral_components(vectors, design):
    for layer in range(2):
        components = components_for(design["neutral"].array[:, layer], 0.5)
        assert len(components) == vectors.neutral_k[layer] >= 1
        np.testing.assert_allclose(vectors.at(layer) @ components.T, 0, atol=1e-6)


def test_without_neutral_variance_nothing_is_projected_out(design):
    design.pop("truth")
    assert EmotionVectors.fit(**design, neutral_variance=0).neutral_k.tolist() == [0, 0]


def test_topics_that_are_not_crossed_are_refused(design):
    design.pop("truth")
    design["topics"][0] = "t3"
    with pytest.raises(BadInput, match="does not hold the same emotions"):
        EmotionVectors.fit(**design)


def test_labels_of_another_length_and_single_emotions_are_refused(design):
    design.pop("truth")
    with pytest.raises(BadInput, match="12 stories need 12 labels"):
        EmotionVectors.fit(**{**design, "emotions": ["calm"]})
    with pytest.raises(BadInput, match="12 stories need 12 topics, not 1"):
        EmotionVectors.fit(**{**design, "topics": ["t0"]})
    with pytest.raises(BadInput, match="at least two"):
        EmotionVectors.fit(**{**design, "emotions": ["calm"] * 12, "topics": None})


@pytest.mark.parametrize("shape", [(1, 2, 8), (30, 1, 8), (30, 2, 7)])
def test_neutral_texts_that_cannot_be_projected_out_are_refused(design, shape):
    design.pop("truth")
    few = Stacked(design["neutral"].array[: shape[0], : shape[1], : shape[2]])
    with pytest.raises(BadInput, match=f"at least 2, not \\[{shape[0]}, {shape[1]}, {shape[2]}"):
        EmotionVectors.fit(**{**design, "neutral": few})


def test_one_neutral_text_gives_the_norm_where_nothing_is_projected_out(design):
    design.pop("truth")
    one = Stacked(design["neutral"].array[:1])
    fitted = EmotionVectors.fit(**{**design, "neutral": one}, neutral_variance=0)
    np.testing.assert_allclose(fitted.residual_norm, np.linalg.norm(one.array[0], axis=-1))


def test_reading_gives_the_own_emotion_the_highest_cosine(vectors, design):
    residuals = vectors.centre[0] + 5 * vectors.directions[:, 0]
    cosine = vectors.cosine(residuals, 0)
    assert cosine.argmax(1).tolist() == [0, 1, 2]
    np.testing.assert_allclose(np.diag(cosine), 1, atol=1e-5)
    np.testing.assert_allclose(np.diag(vectors.project(residuals - vectors.centre[0], 0)), 5, 1e-5)


def refitted(design, *, seed, provenance=MADE, order=(2, 0, 1)):
    """Vectors of the same emotions, from stories with other noise, in another order."""
    drawn = np.random.default_rng(seed).normal(size=(12, 2, 8))
    stories = Stacked(design["stories"].array + drawn)
    fitted = EmotionVectors.fit(
        stories, design["emotions"], design["neutral"], topics=design["topics"],
        provenance=provenance,
    )  # fmt: skip
    return fitted.select([EMOTIONS[n] for n in order])


def test_an_average_lies_between_its_parts_whatever_their_order_of_emotions(vectors, design):
    other = refitted(design, seed=1)
    both = EmotionVectors.average([vectors, other])
    assert both.emotions == EMOTIONS and other.emotions != EMOTIONS
    for name in EMOTIONS:
        np.testing.assert_allclose(both[name], unit(vectors[name] + other[name]), atol=1e-6)
    np.testing.assert_allclose(both.centre, (vectors.centre + other.centre) / 2)
    np.testing.assert_allclose(both.norms[0], (vectors.norms[0] + other.norms[1]) / 2)
    turned = EmotionVectors.average([other, vectors])
    assert turned.emotions == other.emotions
    np.testing.assert_allclose(turned.select(EMOTIONS).directions, both.directions, atol=1e-6)
    same = EmotionVectors.average([vectors, vectors])
    np.testing.assert_allclose(same.directions, vectors.directions, atol=1e-6)


def test_averaging_removes_what_belongs_to_one_corpus(design):
    noisy = [refitted(design, seed=seed) for seed in range(12)]
    truth = EmotionVectors.fit(
        design["stories"], design["emotions"], design["neutral"], topics=design["topics"]
    ).select(noisy[0].emotions)

    def fit(found):
        return (found.directions * truth.directions).sum(-1).mean()

    assert fit(EmotionVectors.average(noisy)) > max(map(fit, noisy))


def test_an_average_refuses_other_emotions_and_other_models(vectors, design):
    with pytest.raises(BadInput, match="different emotions"):
        EmotionVectors.average([vectors, vectors.select(["calm", "sad"])])
    for what in ("weights", "tokenizer"):
        foreign = refitted(design, seed=1, provenance=dataclasses.replace(MADE, **{what: "x"}))
        with pytest.raises(WrongModel, match="different models"):
            EmotionVectors.average([vectors, foreign])
    with pytest.raises(WrongModel, match="do not say which model"):
        EmotionVectors.average([vectors, refitted(design, seed=1, provenance=None)])
    with pytest.raises(BadInput, match="no vectors to average"):
        EmotionVectors.average([])


def test_an_average_names_both_corpora_and_survives_saving(vectors, design, tmp_path):
    other = refitted(design, seed=1, provenance=dataclasses.replace(MADE, corpus="d"))
    both = EmotionVectors.average([vectors, other])
    assert both.provenance == dataclasses.replace(MADE, corpus="c+d")
    back = EmotionVectors.load(both.save(tmp_path / "v.safetensors"), identity=IDENTITY)
    assert back.provenance == both.provenance and back.emotions == both.emotions
    np.testing.assert_array_equal(back.directions, both.directions)
    np.testing.assert_array_equal(back.neutral_k, both.neutral_k)


def test_a_saved_file_comes_back_the_same_bytes_and_all(vectors, tmp_path):
    path = vectors.save(tmp_path / "v.safetensors")
    back = EmotionVectors.load(path, identity=IDENTITY)
    assert back.emotions == vectors.emotions
    assert back.provenance == vectors.provenance
    np.testing.assert_array_equal(back.directions, vectors.directions)
    np.testing.assert_allclose(back.residual_norm, vectors.residual_norm, rtol=1e-6)
    assert back.save(tmp_path / "w.safetensors").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("what", ["weights", "tokenizer"])
def test_vectors_refuse_another_model_revision_or_tokenizer(vectors, tmp_path, what):
    path = vectors.save(tmp_path / "v.safetensors")
    other = dataclasses.replace(IDENTITY, name="other", **{what: "x" * 16})
    with pytest.raises(WrongModel, match=f"fitted on 'tiny'.*{what}.*not on 'other'"):
        EmotionVectors.load(path, identity=other)


def test_precision_does_not_make_another_model(vectors):
    vectors.check_model(dataclasses.replace(IDENTITY, dtype="bfloat16"))


def test_unknown_emotions_and_layers_name_the_valid_ones(vectors):
    with pytest.raises(UnknownEmotion, match="did you mean calm"):
        vectors["calmm"]
    with pytest.raises(UnknownLayer, match="layers 0 to 1, not 2"):
        vectors.at(2)
    for layer in (2, -1):
        with pytest.raises(UnknownLayer, match=f"layers 0 to 1, not {layer}"):
            vectors.cosine(np.ones(8), layer)
    with pytest.raises(UnknownEmotion):
        vectors.select(["angry", "hangry!"])
    with pytest.raises(BadInput, match=r"such as \['calm'\]"):
        vectors.select("calm")


def test_files_that_are_no_vectors_are_reported_by_name(tmp_path):
    with pytest.raises(CacheError, match="could not be read"):
        EmotionVectors.load(tmp_path / "missing.safetensors")
    save_file({"x": np.zeros(2, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(CacheError, match="not an emotion-vectors file"):
        EmotionVectors.load(tmp_path / "other.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(CacheError, match="junk"):
        EmotionVectors.load(tmp_path / "junk.safetensors")


@pytest.mark.parametrize(
    ("about", "problem"),
    [
        ("{", "could not be read"),
        ("[]", "could not be read"),
        ({"provenance": None}, "could not be read"),
        ({"version": 2}, "has the format 2 and not 1"),
        (
            {"provenance": dataclasses.asdict(dataclasses.replace(MADE, layer_convention="input"))},
            "layer convention 'input'",
        ),
    ],
)
def test_files_that_are_damaged_or_count_otherwise_are_refused(vectors, tmp_path, about, problem):
    path = vectors.save(tmp_path / "v.safetensors")
    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        whole = json.loads(file.metadata()["emotion-vectors"])
    text = about if isinstance(about, str) else json.dumps(whole | about)
    save_file(tensors, path, metadata={"emotion-vectors": text})
    with pytest.raises(CacheError, match=problem):
        EmotionVectors.load(path)


def test_vectors_without_provenance_are_not_saved(vectors, tmp_path):
    with pytest.raises(BadInput, match="provenance"):
        dataclasses.replace(vectors, provenance=None).save(tmp_path / "v.safetensors")


def test_without_topics_the_mean_over_emotions_is_subtracted_all_the_same(design):
    """Where every topic holds every emotion, this removes what topics add."""
    design.pop("truth")
    crossed = EmotionVectors.fit(**design)
    plain = EmotionVectors.fit(**{**design, "topics": None})
    np.testing.assert_allclose(plain.directions, crossed.directions, atol=1e-5)

"""Pairs of replies keep to their design; a planted direction is found, and noise gives none."""

import numpy as np
import pytest
import yaml
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

from emotion_concepts import corpus, tracing
from emotion_concepts.beliefs import load_sycophancy
from emotion_concepts.errors import BadInput
from emotion_concepts.experiments.compliance import (
    compliance_direction,
    half_agreement,
    load_compliance,
    pair_direction,
)
from emotion_concepts.experiments.sycophancy import harsh
from emotion_concepts.lexicon import text_valence

FILE = corpus.DATA / "scenarios" / "compliance.yaml"
N, LAYERS, D = 24, 3, 200


@pytest.fixture(scope="module")
def pairs():
    return load_compliance()


@pytest.fixture
def load_changed(tmp_path):
    """Load the first pair after a change to it."""

    def load(change):
        data = yaml.safe_load(FILE.read_text(encoding="utf-8"))
        data["pairs"] = data["pairs"][:1]
        change(data["pairs"][0])
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
        return load_compliance(path)

    return load


# --- stimuli -----------------------------------------------------------------------------------


def test_the_file_opens_with_its_purpose_and_how_to_add_an_entry():
    comment = FILE.read_text(encoding="utf-8").split("\n\n")[0]
    assert comment.startswith("# ") and "chapter" in comment and "To add a pair" in comment


def test_half_of_24_pairs_are_sensible_and_no_text_stands_twice(pairs):
    assert pairs.sensible.value_counts().to_dict() == {True: 12, False: 12}
    texts = pairs[["user", "agree", "judge"]].to_numpy().ravel()
    assert pairs.id.is_unique and len(set(texts)) == 72
    beliefs, _ = load_sycophancy()
    assert not set(pairs.id) & set(beliefs.id)


def test_sides_are_equal_in_length_and_tone(pairs):
    words = pairs[["agree", "judge"]].map(lambda text: len(text.split()))
    assert (words.agree - words.judge).abs().max() <= 2
    assert abs((words.agree - words.judge).mean()) < 0.5
    valence = text_valence(pairs.agree) - text_valence(pairs.judge)
    # no more than two standard errors, and little in itself
    assert abs(valence.mean()) < min(0.1, 2 * valence.std(ddof=1) / np.sqrt(len(pairs)))
    assert not any(map(harsh, [*pairs.agree, *pairs.judge]))


def test_words_alone_hardly_tell_the_sides_apart(pairs):
    side, pair = np.repeat([1, 0], len(pairs)), np.tile(np.arange(len(pairs)), 2)

    def told(texts):
        """Return the share of replies put on their side, one pair left out at a time."""
        counts = TfidfVectorizer(token_pattern=r"\w+").fit_transform(texts)
        model = LogisticRegression(solver="liblinear")
        found = cross_val_predict(model, counts, side, groups=pair, cv=LeaveOneGroupOut())
        return (found == side).mean()

    assert 0.35 <= told([*pairs.agree, *pairs.judge]) <= 0.65  # where coins land
    # a word that marks one side would show
    assert told([*(pairs.agree + " indeed, indeed"), *pairs.judge]) > 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.pop("judge"), r"pairs 1 \(meal_plan\): no 'judge'"),
        (lambda p: p.update(sensible="yes"), "sensible must be true or false, not 'yes'"),
        (lambda p: p.update(user="Too short."), "user needs 15 to 30 words, not 2"),
        (lambda p: p.update(agree=47), "write agree as a text, not 47"),
        (lambda p: p.update(judge=p["judge"] + " love"), r"judge names an emotion \(love\)"),
        (lambda p: p.update(judge=" ".join(["so"] * 15)), "21 and 15 words; bring them within 2"),
    ],
)
def test_an_entry_that_breaks_the_design_is_named(load_changed, change, message):
    with pytest.raises(BadInput, match=message):
        load_changed(change)


# --- directions --------------------------------------------------------------------------------


def planted(strength, *, seed=0):
    """Differences of N pairs with a direction and, twice as strong, a direction to remove."""
    rng = np.random.default_rng(seed)
    direction, remove = rng.normal(size=(2, LAYERS, D))
    direction -= (
        (direction * remove).sum(-1, keepdims=True) * remove / (remove**2).sum(-1, keepdims=True)
    )
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    noise = rng.normal(size=(N, LAYERS, D)) / np.sqrt(D)
    return noise + strength * (direction + 2 * remove / np.sqrt(D)), direction, remove


def test_a_planted_direction_is_recovered_and_what_is_removed_is_gone():
    differences, direction, remove = planted(2)
    found = pair_direction(differences, remove)
    assert found.shape == (LAYERS, D)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1)
    np.testing.assert_allclose((found * remove).sum(-1), 0, atol=1e-10)
    assert ((found * direction).sum(-1) > 0.98).all()
    np.testing.assert_allclose(pair_direction(-differences, 3 * remove), -found)


def test_halves_agree_on_a_planted_direction_and_not_on_noise():
    differences, _, remove = planted(2)
    found = half_agreement(differences[:, 0], remove[0])
    assert found.low <= found.value <= found.high and found.n == N
    assert found.low > 0.95 and found.p == pytest.approx(1 / 1001)
    noise, _, remove = planted(0)
    found = half_agreement(noise[:, 0], remove[0])
    assert abs(found.value) < 0.1 and found.p > 0.05
    # a direction that is all removed leaves none either
    along = noise[:, 0] + 5 * remove[0]
    assert half_agreement(along, remove[0]).value == pytest.approx(found.value)
    assert half_agreement(along, np.eye(D)[0]).value > 0.9


def test_p_of_noise_is_uniform():
    p = []
    for seed in range(100):
        noise, _, remove = planted(0, seed=seed)
        p.append(half_agreement(noise[:, 0], remove[0], splits=10, permutations=99).p)
    assert np.mean(np.array(p) < 0.05) <= 0.1 and 0.4 < np.mean(p) < 0.6


def test_halves_are_halves():
    differences = np.array([[2.0, 0], [1, 0], [0, 1], [0, 2]])
    found = half_agreement(differences, np.zeros(2), splits=600)
    # the three ways to halve four pairs give cosines of 0, 4/5 and 1
    assert (found.low, found.high) == (0, pytest.approx(1))
    assert found.value == pytest.approx(0.6, abs=0.06)
    with pytest.raises(BadInput, match="four pairs, not 3"):
        half_agreement(differences[:3], np.zeros(2))


@pytest.mark.model
def test_the_direction_is_that_of_the_replies_tokens(smollm, pairs, tmp_path):
    some = pairs[:4]
    valence = np.random.default_rng(0).normal(size=(30, 576))
    direction, reliability = compliance_direction(smollm, some, valence, cache=tmp_path)
    assert direction.shape == (30, 576) and reliability.n == 4
    prompts = [smollm.chat_prompt([{"role": "user", "content": text}]) for text in some.user]
    starts = [len(ids) for ids in smollm.tokenizer(prompts)["input_ids"]] * 2
    texts = [
        prompt + reply
        for side in (some.agree, some.judge)
        for prompt, reply in zip(prompts, side, strict=True)
    ]
    tokens = tracing.token_residuals(smollm, texts, [19])
    means = [found[start:, 0].mean(0) for start, found in zip(starts, tokens, strict=True)]
    by_hand = pair_direction(np.subtract(means[:4], means[4:]), valence[19])
    np.testing.assert_allclose(direction[19], by_hand, atol=1e-4)
    with pytest.raises(BadInput, match=r"valence must be \[30, 576\].*not \[576\]"):
        compliance_direction(smollm, some, valence[19], cache=tmp_path)

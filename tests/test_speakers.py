"""Two speakers and hidden emotions: planted effects on the packaged designs, one real reading."""

import numpy as np
import pytest

from emotion_concepts import tracing
from emotion_concepts.corpus import TWELVE
from emotion_concepts.dialogues import ROLES, load_hidden, load_two_speakers, transcript
from emotion_concepts.errors import BadInput, UnknownEmotion
from emotion_concepts.experiments import readouts, speakers
from emotion_concepts.geometry import unit
from emotion_concepts.stats import Estimate

D = 60
NOTHING = np.empty((0, D))
TWO, HIDDEN = load_two_speakers(), load_hidden()
EIGHT = list(HIDDEN.emotion.unique())
OWN = {"user": "human", "assistant": "assistant"}
OTHER = {"user": "assistant", "assistant": "human"}


def codes(n, seed):
    return unit(np.random.default_rng(seed).normal(size=(n, D)))


def rows_of(labels, names):
    return [list(names).index(label) for label in labels]


def planted(present, other, *, noise=0.05, topics=1.0, seed=0):
    """Residuals {role: [132, D]}: own emotion + other's emotion + topic + noise."""
    rng = np.random.default_rng(seed)
    places = topics * rng.normal(size=(TWO.topic.nunique(), D))
    which = rows_of(TWO.topic, TWO.topic.unique())
    return {
        role: present[rows_of(TWO[OWN[role]], TWELVE)]
        + other[rows_of(TWO[OTHER[role]], TWELVE)]
        + places[which]
        + noise * rng.normal(size=(len(TWO), D))
        for role in ROLES
    }


def group_means(x, column):
    means = np.stack([x[TWO[column] == name].mean(0) for name in TWELVE])
    return unit(means - means.mean(0))


def mean_cosine(a, b):
    return (a * b).sum(1).mean()


NONE = np.zeros((12, D))


def fitted(x, components=NOTHING):
    """Return {whose emotion: [12, D]} from the tokens of one role."""
    maps = speakers._fit(TWO, speakers.SPEAKERS, TWELVE)[None]
    groups = speakers._grouped({role: x for role in ROLES}, maps, components)
    return {whose: groups["user", whose][0] for whose in ROLES}


# --- effects -----------------------------------------------------------------------------------


def test_additive_effects_are_recovered_exactly_without_noise():
    present, other = codes(12, 1), codes(12, 2)
    x = planted(present, other, noise=0)["assistant"]
    found = fitted(x)
    assert mean_cosine(found["assistant"], unit(present - present.mean(0))) == pytest.approx(1)
    assert mean_cosine(found["user"], unit(other - other.mean(0))) == pytest.approx(1)
    components = np.eye(D)[:5]
    without = fitted(x, components)["user"]
    assert np.abs(without[:, :5]).max() < 1e-12 and np.allclose(np.linalg.norm(without, axis=1), 1)


def test_group_means_plant_a_reversed_emotion_and_effects_do_not():
    x = planted(codes(12, 1), NONE, noise=0.01, topics=0)["assistant"]
    assert mean_cosine(group_means(x, "assistant"), group_means(x, "human")) < -0.8
    found = fitted(x)
    assert abs(mean_cosine(found["assistant"], found["user"])) < 0.15


def test_topics_pull_group_means_apart_and_effects_do_not():
    x = planted(NONE, NONE, noise=0.05)["assistant"]
    assert mean_cosine(group_means(x, "assistant"), group_means(x, "human")) < -0.9
    found = fitted(x)
    assert abs(mean_cosine(found["assistant"], found["user"])) < 0.15


def test_designs_that_cannot_answer_are_refused():
    x = {role: np.ones((132, D)) for role in ROLES}
    with pytest.raises(BadInput, match="apart"):
        speakers.speaker_blocks(x, TWO.assign(topic=TWO.id), TWELVE, NOTHING)
    with pytest.raises(BadInput, match="apart"):
        speakers.speaker_blocks(x, TWO, [*TWELVE, "bored"], NOTHING)
    with pytest.raises(UnknownEmotion, match="emotions"):
        speakers.speaker_blocks(x, TWO, TWELVE[:-1], NOTHING)
    with pytest.raises(BadInput, match="one layer"):
        speakers.speaker_blocks(x | {"user": np.ones((132, 3, D))}, TWO, TWELVE, NOTHING)
    with pytest.raises(BadInput, match="171"):
        speakers.speaker_cosines(x, TWO, np.ones((171, D)), TWELVE, NOTHING)


# --- present and other -------------------------------------------------------------------------


def cosines(x, stories, **options):
    options = {"resamples": 40, "permutations": 500} | options
    return speakers.speaker_cosines(x, TWO, stories, TWELVE, NOTHING, **options).set_index("pair")


def test_relational_codes_give_the_papers_pattern():
    present, other = codes(12, 1), codes(12, 2)
    found = cosines(planted(present, other), present - present.mean(0))
    for pair in ("present-present", "other-other", "story-present"):
        row = found.loc[pair]
        assert row.same > 0.9 and row.p < 0.01 and row.different < 0 < row.low
        assert row.same_low < row.same < row.same_high and row.difference > row.same
    for pair in ("present-other", "story-other"):
        assert abs(found.same[pair]) < 0.2 and found.p[pair] > 0.01
    assert (found.n == 132).all() and (found.refits > 30).all()
    for pair in ("present-present", "other-other"):
        lead = speakers.agreement_lead(found.reset_index(), pair, "present-other")
        assert lead.value == pytest.approx(found.same[pair] - found.same["present-other"])
        assert lead.low > 0.6


def test_one_code_for_both_speakers_agrees_across_roles_and_no_more_than_within_them():
    """The feeling in the air, whoever has it: all sets agree, so that none leads."""
    code = codes(12, 1)
    found = cosines(planted(code, code, noise=0.3), code)
    assert (found.p[["present-present", "other-other"]] < 0.05).all()
    for pair in ("present-present", "other-other"):
        lead = speakers.agreement_lead(found.reset_index(), pair, "present-other")
        assert lead.low < 0 and abs(lead.value) < 0.15


def test_codes_of_each_role_are_not_taken_for_relational_ones():
    """Human and Assistant as fixed persons: user emotion is one code whoever speaks."""
    human, assistant = codes(12, 1), codes(12, 2)
    x = {
        "user": planted(human, assistant)["user"],
        "assistant": planted(assistant, human)["assistant"],
    }
    found = cosines(x, human)
    assert abs(found.same["present-present"]) < 0.2 and abs(found.same["other-other"]) < 0.2
    user = [fitted(x[role])["user"] for role in ROLES]
    assert mean_cosine(*user) > 0.9


def test_noise_alone_is_not_significant_and_intervals_hold_zero():
    p, covered = [], []
    for seed in range(25):
        found = cosines(planted(NONE, NONE, noise=1, seed=seed), codes(12, 3), permutations=200)
        rows = found.loc[["present-present", "other-other", "story-present"]]
        p += list(rows.p)
        covered += list((rows.low < 0) & (rows.high > 0))
        covered += list((rows.same_low < 0) & (rows.same_high > 0))
    assert np.mean(np.array(p) < 0.1) < 0.25 and np.mean(covered) > 0.8


def test_reliability_is_what_a_fit_shares_with_the_truth():
    present = codes(12, 1)
    x = planted(present, NONE, noise=0.25)
    found = speakers.speaker_reliability(x, TWO, TWELVE, NOTHING).set_index(["tokens", "whose"])
    truth = unit(present - present.mean(0))
    for role in ROLES:
        row = found.loc[role, role]
        agreement = mean_cosine(fitted(x[role])[role], truth)
        assert row.reliability == pytest.approx(agreement**2, abs=0.1)
        assert row.low < row.reliability < row.high and row.splits > 25 and row.n == 12
        other = found.loc[role, ROLES[role == "user"]]
        assert abs(other.reliability) < 0.25 < row.reliability
    with pytest.raises(BadInput, match="four topics"):
        speakers.speaker_reliability(x, TWO.assign(topic="one"), TWELVE, NOTHING)


def test_blocks_stand_in_the_order_of_their_labels():
    x = planted(codes(12, 1), codes(12, 2), noise=0.3)
    matrix, labels = speakers.speaker_blocks(x, TWO, TWELVE, NOTHING)
    words = [label.replace(",", "").split() for label in labels]  # "user tokens, user emotion"
    sets = [fitted(x[tokens])[whose] for tokens, _, whose, _ in words]
    np.testing.assert_allclose(matrix, np.concatenate(sets) @ np.concatenate(sets).T, atol=1e-9)
    assert [tokens == whose for tokens, _, whose, _ in words] == [True, True, False, False]


# --- decoding ----------------------------------------------------------------------------------


def decode(x, table=TWO, components=NOTHING):
    found = speakers.decode_speakers(x, table, TWELVE, components)
    return found.set_index(["role", "whose", "method"])


def test_what_is_planted_is_decoded_in_new_topics_and_nothing_else():
    own_words = [
        [{"role": role, "content": f"x {row[OWN[role]]} y" * 2} for role in ROLES]
        for _, row in TWO.iterrows()
    ]
    found = decode(planted(NONE, codes(12, 2), topics=0), TWO.assign(turns=own_words))
    assert len(found) == 8 and (found.n == 132).all() and (found.chance == 1 / 11).all()
    for role in ROLES:
        seen, unseen = found.loc[role, "other", "probe"], found.loc[role, "own", "probe"]
        assert seen.value > 0.9 and seen.p < 1e-6 and unseen.value < 0.2 and unseen.p > 0.001
        words = found.loc[role, "own", "TF-IDF"]
        assert words.value == 1 and found.value[role, "other", "TF-IDF"] < 0.2
        assert words.low < 1 and words.hits.shape == (132,)
    both = found.sort_index().loc["user", "other"]
    gain = readouts.hit_difference(both.reset_index(), "probe", "TF-IDF")
    assert gain.low > 0.5


def test_dialogues_of_a_topic_are_held_out_together():
    """Each dialogue stands twice: worth nothing where its twin is held out as well."""
    twice, x = TWO.loc[[*TWO.index, *TWO.index]], np.tile(codes(132, 3), (2, 1))
    found = decode({role: x for role in ROLES}, twice)
    assert found.value.drop("TF-IDF", level="method").max() < 0.2
    with pytest.raises(BadInput, match="folds"):
        speakers.decode_speakers({role: x for role in ROLES}, twice, TWELVE, NOTHING, folds=23)


# --- hidden ------------------------------------------------------------------------------------


def hidden_x(per_condition, *, noise=0.04, offset=0.0, seed=0):
    """Residuals [144, D] of the given codes {condition: [8, D]}, topics and conditions shifted."""
    rng = np.random.default_rng(seed)
    topics = rng.normal(size=(6, D))
    x = topics[rows_of(HIDDEN.topic, HIDDEN.topic.unique())] * 0.1
    x += noise * rng.normal(size=x.shape)
    for n, (condition, code) in enumerate(per_condition.items()):
        here = (HIDDEN.condition == condition).to_numpy()
        x[here] += code[rows_of(HIDDEN.emotion[here], EIGHT)] + offset * n
    return x


def hidden_table():
    """The speaker's words name the emotion when shown, the other's always; the preamble always."""
    turns = []
    for row in HIDDEN.itertuples():
        other = ROLES[row.speaker == "user"]
        said = row.emotion if row.condition == "shown" else "nothing"
        turns.append(
            [{"role": row.speaker, "content": said}, {"role": other, "content": row.emotion}]
        )
    return HIDDEN.assign(turns=turns, preamble="{speaker} " + HIDDEN.emotion)


def test_hidden_readouts_find_what_is_planted_where_it_is():
    story, code = codes(8, 1), codes(8, 2)
    none = np.zeros((8, D))
    x = {
        "carried": hidden_x({"shown": story, "hidden": story, "absent": none}, offset=5),
        "other code": hidden_x({"shown": story, "hidden": code, "absent": none}),
    }
    found = speakers.hidden_readouts(x, hidden_table(), story, EIGHT)
    assert len(found) == 4 * 5 + 2 * 3 and (found.n == 48).all()
    found = found.set_index(["train", "test", "method"]).sort_index()
    value, chance = found.value, 0.3
    for method in x:
        assert value["same", "shown", method] > 0.9 and value["same", "hidden", method] > 0.9
        assert (
            value["same", "absent", method] < chance and value["shown", "absent", method] < chance
        )
        assert value["stories", "shown", method] > 0.9
    assert value["shown", "hidden", "carried"] > 0.9 and value["stories", "hidden", "carried"] > 0.9
    assert value["shown", "hidden", "other code"] < chance
    assert value["stories", "hidden", "other code"] < chance
    assert found.p["shown", "hidden", "carried"] < 1e-6 < found.p["shown", "hidden", "other code"]
    assert value["same", "shown", "TF-IDF"] == 1
    assert (
        value["same", "hidden", "TF-IDF"] < chance and value["shown", "hidden", "TF-IDF"] < chance
    )
    assert value["same", "absent", "TF-IDF of the preamble"] == 1


def test_hidden_readouts_test_on_topics_they_did_not_see():
    x = np.zeros((144, D))
    for n, topic in enumerate(HIDDEN.topic.unique()):
        here = (HIDDEN.topic == topic).to_numpy()
        x[here] = codes(8, 200 + n)[rows_of(HIDDEN.emotion[here], EIGHT)]
    found = speakers.hidden_readouts({"x": x}, hidden_table(), codes(8, 1), EIGHT)
    assert found[found.method == "x"].value.max() < 0.35
    with pytest.raises(UnknownEmotion):
        speakers.hidden_readouts({"x": x}, HIDDEN, codes(7, 1), EIGHT[:7])


# --- deflection --------------------------------------------------------------------------------


def test_deflection_vectors_hold_topics_constant():
    code = codes(8, 1)
    x = hidden_x({"shown": code, "hidden": code, "absent": code}, noise=0)
    here = (HIDDEN.condition == "hidden").to_numpy()
    found = speakers.deflection_vectors(x[here], HIDDEN[here], EIGHT, NOTHING)
    assert mean_cosine(found, unit(code - code.mean(0))) == pytest.approx(1)


def test_reliability_tells_planted_deflection_from_noise():
    here = (HIDDEN.condition == "hidden").to_numpy()
    code, none = codes(8, 1), np.zeros((8, D))

    def found(planted, noise, seed=0):
        x = hidden_x({"hidden": planted}, noise=noise, seed=seed)[here]
        return speakers.deflection_reliability(x, HIDDEN[here], EIGHT, NOTHING), x

    clear, x = found(code, 0.1)
    vectors = speakers.deflection_vectors(x, HIDDEN[here], EIGHT, NOTHING)
    truth = mean_cosine(vectors, unit(code - code.mean(0)))
    assert clear.value == pytest.approx(truth**2, abs=0.1) and clear.n == 8
    assert clear.low < clear.value < clear.high
    nothing = [found(none, 1, seed)[0].value for seed in range(20)]
    assert abs(np.mean(nothing)) < 0.1 and np.max(nothing) < 0.4


def test_attenuation_is_taken_out_of_a_cosine_of_noisy_vectors():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(200, D))
    b = 0.6 * a + 0.8 * rng.normal(size=(200, D))
    noisy = [x + rng.normal(size=x.shape) for x in (a, b)]  # each a reliability of one half
    cosine = Estimate(mean_cosine(*map(unit, noisy)), 0.2, 0.4, 200)
    assert cosine.value < 0.35
    found = speakers.disattenuated(cosine, 0.5, 0.5)
    assert found.value == pytest.approx(0.6, abs=0.05) and found.n == 200
    assert (found.low, found.high) == (pytest.approx(0.4), pytest.approx(0.8))
    assert speakers.disattenuated(cosine, 0.01, 0.9).value == 1
    with pytest.raises(BadInput, match="reliability of -0.10"):
        speakers.disattenuated(cosine, 0.9, -0.1)


def test_deflection_along_the_stories_is_told_from_deflection_beside_them():
    rng = np.random.default_rng(0)
    stories = np.zeros((171, D))
    stories[:, :20] = rng.normal(size=(171, 20))
    own = [5, 40, 2, 99, 120, 7, 63, 170]
    along = stories[own] + 0.3 * rng.normal(size=(8, D))
    found = speakers.deflection_test(unit(along), stories, own)
    assert found.same.value > 0.7 and found.same.p < 0.01 and found.same.low > found.different.high
    assert found.k == 20 and found.same.n == 8
    assert found.norm_left.value < 0.6 and found.norm_left.p < 0.01
    assert found.random_norm_left == pytest.approx(np.sqrt(40 / 60), abs=0.02)
    beside = np.zeros((8, D))
    beside[:, 20:] = rng.normal(size=(8, 40))
    found = speakers.deflection_test(beside, stories, own)
    assert abs(found.same.value) < 1e-9 and found.norm_left.value == pytest.approx(1)
    assert found.norm_left.p > 0.99
    with pytest.raises(BadInput, match="rows"):
        speakers.deflection_test(beside, stories, own[:3])


def test_random_deflection_is_not_significant():
    rng, p = np.random.default_rng(0), []
    for _ in range(20):
        stories = rng.normal(size=(20, D))
        found = speakers.deflection_test(rng.normal(size=(8, D)), stories, range(8))
        p += [found.same.p, found.norm_left.p]
    assert np.mean(np.array(p) < 0.1) < 0.3


# --- the model ---------------------------------------------------------------------------------


@pytest.mark.model
def test_each_role_is_read_on_its_own_tokens(smollm, tmp_path, monkeypatch):
    monkeypatch.setattr(tracing, "cache_dir", lambda: tmp_path)
    table = HIDDEN.iloc[[3]]
    names = ("Person 1", "Person 2")
    found = speakers.speaker_residuals(smollm, table, names=names)
    text, spans = transcript(table.iloc[0], names)
    [tokens] = tracing.token_residuals(smollm, [text], [19])
    for role in ROLES:
        inside = tracing.tokens_in(smollm, text, [s[1:] for s in spans if s.role == role])
        np.testing.assert_allclose(
            found[role].layer(19)[0], tokens[inside, 0].mean(0), rtol=1e-3, atol=1e-2
        )
    without = speakers.speaker_residuals(smollm, table, names=names, preamble=False)
    assert np.abs(without["user"].layer(19) - found["user"].layer(19)).max() > 0.1

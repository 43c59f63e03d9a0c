"""Read-outs in short prompts: arithmetic on planted matrices, readings on the real model."""

import numpy as np
import pandas as pd
import pytest

from emotion_concepts import scenarios, tracing
from emotion_concepts.errors import BadInput
from emotion_concepts.experiments import readouts
from emotion_concepts.vectors import EmotionVectors, Stacked

RNG = np.random.default_rng(0)


def scenario_tests(matrix, own, **options):
    return readouts.scenario_tests({"probe": matrix}, own, **options).iloc[0]


def test_a_planted_diagonal_is_found_and_noise_is_not():
    noise = RNG.normal(size=(12, 12))
    planted = scenario_tests(noise + 3 * np.eye(12), range(12), permutations=2000)
    assert planted.by_probe > 0.5 and planted.by_scenario > 0.5 and planted.hits.sum() > 6
    assert planted.difference > 2 and planted.p < 0.01
    p = [
        readouts.own_minus_others(RNG.normal(size=(12, 12)), range(12), permutations=200)[1]
        for _ in range(60)
    ]
    assert 0 <= np.mean(np.array(p) < 0.1) <= 0.25


def test_several_scenarios_may_share_an_emotion():
    own = [0, 0, 1, 1, 2, 2]
    matrix = np.eye(3)[own]
    found = scenario_tests(matrix, own, permutations=500)
    assert found.difference == 1 and found.by_scenario == found.by_probe == 1
    assert found.p < 0.05
    shifted = scenario_tests(np.roll(matrix, 1, axis=1), own, permutations=500)
    assert shifted.difference < 0 and shifted.p > 0.5 and shifted.by_scenario == 0


def test_a_probe_that_is_high_everywhere_wins_every_scenario():
    """The paper's own matrix: `loving` is up in all scenarios, and does not count as a finding."""
    matrix = np.eye(6) * 0.2 + RNG.normal(size=(6, 6)) * 0.01
    matrix[:, 2] += 1
    found = scenario_tests(matrix, range(6), permutations=100)
    assert found.by_scenario == pytest.approx(1 / 6) and found.by_probe == 1
    assert found.difference == pytest.approx(0.2, abs=0.02)


def test_methods_are_compared_on_the_same_scenarios():
    own = np.repeat(range(4), 10)
    good, bad = np.eye(4)[own], np.roll(np.eye(4)[own], 1, axis=1)
    mixed = np.where(np.arange(40)[:, None] % 2, good, bad)
    tests = readouts.scenario_tests({"good": good, "mixed": mixed}, own, permutations=10)
    found = readouts.hit_difference(tests, "good", "mixed")
    assert found.value == 0.5 and 0.3 < found.low < found.high < 0.7 and found.n == 40


def test_the_layer_that_carries_the_emotion_names_the_scenarios():
    own, directions = np.repeat(range(5), 4), np.stack([np.eye(5, 8)] * 3, axis=1)
    residuals = RNG.normal(size=(20, 3, 8)) * 0.1
    residuals[:, 1] += np.eye(5, 8)[own]
    found = readouts.scenario_layers(residuals, directions, own).set_index("layer").by_scenario
    assert found[1] == 1 and found[0] < 0.6 and found[2] < 0.6


def test_centring_removes_what_all_prompts_share():
    axis, own = np.eye(5)[4], np.eye(5)[:3]
    residuals = 100 * axis + own
    plain = readouts.readings(residuals, own, centred=False)
    centred = readouts.readings(residuals, own)
    assert plain.max() < 0.02 and (centred.argmax(1) == [0, 1, 2]).all() and centred.max() > 0.5


def planted_numbers():
    """Two templates and a control; the first direction grows with log x in template `real` only."""
    rows = [(t, k, m, x) for t, k, m in TEMPLATES for x in (1, 10, 100, 1000)]
    table = pd.DataFrame(rows, columns=["template", "kind", "mirrors", "x"])
    residuals = RNG.normal(size=(len(table), 30)) * 0.1
    residuals[:, 0] += np.where(table.template == "real", np.log1p(table.x), 0)
    residuals[:, 1] += np.where(table.template != "real", np.log1p(table.x), 0)
    return table, residuals


TEMPLATES = [
    ("real", "emotional", "real"),
    ("mere", "emotional", "mere"),
    ("c1", "control", "real"),
    ("c2", "control", "mere"),
]


def test_a_claim_passes_only_above_its_control_and_above_random_directions():
    table, residuals = planted_numbers()
    directions = np.eye(30)[:2]
    changes = readouts.number_changes(residuals, table, directions)
    assert changes[0, 0] == pytest.approx(1, abs=0.1) and abs(changes[0, 1]) < 0.1
    rows = [
        (t, k, m, probe, sign, changes[n, probe])
        for n, (t, k, m) in enumerate(TEMPLATES)
        for probe, sign in ((0, 1), (1, 1))
    ]
    columns = ["template", "kind", "mirrors", "probe", "sign", "change"]
    random = readouts.number_changes(residuals, table, RNG.normal(size=(100, 30)))
    found = readouts.number_tests(
        pd.DataFrame(rows, columns=columns), random, [t for t, _, _ in TEMPLATES]
    ).set_index(["template", "probe"])
    assert bool(found.passes["real", 0])
    assert not found.passes["real", 1] and not found.passes["mere", 0]
    # moves as claimed and beyond chance, but its control moves just the same
    assert found.p["mere", 1] < 0.05 and found.control["mere", 1] > 0.9


def test_a_claim_must_stand_out_among_all_emotions():
    changes = np.vstack([np.linspace(-1, 1, 41), np.linspace(1, -1, 41)])
    tests = pd.DataFrame(
        [("up", "e40", 1, 1.0), ("down", "e40", -1, 1.0), ("up", "e20", 1, 0.0)],
        columns=["template", "probe", "sign", "change"],
    )
    names = [f"e{n}" for n in range(41)]
    found = readouts.among_emotions(tests, changes, ["up", "down"], names)
    assert found[0] == found[1] == pytest.approx(1 / 41) and found[2] == pytest.approx(
        0.5, abs=0.05
    )


def test_curves_stand_about_their_templates_mean_beside_control_and_random():
    table, residuals = planted_numbers()
    table = pd.concat([table.assign(probe=0), table.assign(probe=1)], ignore_index=True)
    table["text"] = "x is " + table.x.astype(str)
    random = RNG.normal(size=(100, 30))
    curves = readouts.number_curves(residuals, table, np.eye(30)[:2], random)
    real = curves[(curves.template == "real") & (curves.probe == 0)]
    assert real.value.is_monotonic_increasing and real.value.mean() == pytest.approx(0, abs=1e-9)
    assert (real.low < 0).all() and (real.high > 0).all()
    assert real.value.iloc[-1] > real.high.iloc[-1] and set(curves.title) == {"x is X"}
    control = curves[(curves.template == "real") & (curves.probe == 1)].control
    assert control.iloc[-1] - control.iloc[0] > 5


def test_agreement_between_places_is_tested_over_messages():
    a = RNG.normal(size=(12, 6))
    same = readouts.place_agreement(a, a + RNG.normal(size=a.shape) * 0.3)
    assert same.value > 0.8 and same.low > 0.6 and same.p < 0.01 and same.n == 72
    # one message that is extreme on all probes at both places is no agreement of 72 readings
    p = []
    for _ in range(40):
        x, y = RNG.normal(size=(2, 8, 1)) + 0.2 * RNG.normal(size=(2, 8, 6))
        p.append(readouts.place_agreement(x, y, resamples=200).p)
    assert np.mean(np.array(p) < 0.05) <= 0.2


def test_the_effect_of_a_pair_is_the_signed_sum_over_its_versions():
    rows = [
        ("f", pair, version, "word", 0, sign, value)
        for pair, up, down in (("p", 0.3, 0.1), ("q", 0.5, 0.1), ("r", 0.4, 0.1))
        for version, sign, value in (("a", 1, up), ("b", -1, down))
    ]
    columns = ["family", "pair", "version", "span", "layer", "sign", "reading"]
    [effect] = readouts.pair_effects(pd.DataFrame(rows, columns=columns)).itertuples()
    assert effect.effect == pytest.approx(0.3) and effect.n == 3
    assert 0.199 < effect.low < effect.effect < effect.high < 0.401


def mirrored_spans(effects, controls):
    """Readings whose pairs have the given effects, and each a control of its own."""
    rows = [
        (family, f"{family} {n}", version, "colon", 3, sign, sign * value / 2, f"number {n}")
        for family, values in (("number", effects), ("control", controls))
        for n, value in enumerate(values)
        for version, sign in (("a", 1), ("b", -1))
    ]
    columns = ["family", "pair", "version", "span", "layer", "sign", "reading", "mirrors"]
    return pd.DataFrame(rows, columns=columns)


def test_a_pair_is_held_to_its_own_control():
    own = RNG.normal(size=10)  # what its numbers do by themselves
    spans = mirrored_spans(own + 0.2, own)
    found = readouts.beyond_control(spans, "number", "control", span="colon", layer=3)
    assert [found.value, found.low, found.high] == pytest.approx([0.2] * 3) and found.n == 10
    raw = readouts.local_effect(readouts.pair_effects(spans), "number", "colon", 3)
    assert raw.value == pytest.approx(own.mean() + 0.2) and raw.high - raw.low > 0.5
    bare = spans[spans["pair"] != "control 4"]
    with pytest.raises(BadInput, match="mirrors 'number 4'"):
        readouts.beyond_control(bare, "number", "control", span="colon", layer=3)


def test_an_effect_that_was_not_measured_is_named_with_those_that_were():
    effects = readouts.pair_effects(mirrored_spans([0.1, 0.2], [0.0, 0.1]))
    with pytest.raises(BadInput, match="'rest' at layer 3; there are control on colon, number on"):
        readouts.local_effect(effects, "number", "rest", 3)


@pytest.mark.model
def test_the_colon_is_the_last_token_of_the_models_template(smollm, tmp_path, monkeypatch):
    monkeypatch.setattr(tracing, "cache_dir", lambda: tmp_path)
    message = "Our dog ran off two days ago."
    got = readouts.at_colon(smollm, [message])
    prompt = smollm.chat_prompt([{"role": "user", "content": message}])
    assert prompt.endswith("<|im_start|>assistant\n")
    [tokens] = tracing.token_residuals(smollm, [prompt], [19])
    np.testing.assert_allclose(got.layer(19)[0], tokens[-1, 0], rtol=1e-4, atol=1e-3)


@pytest.mark.model
def test_a_span_is_read_on_its_own_tokens_in_the_template(smollm):
    table = scenarios.load_locality().query("pair == 'marriage'")
    names = list(table.probe.unique())
    emotions = [*names, "sad"]
    stories = Stacked(RNG.normal(size=(2 * len(emotions), 30, 576)))
    neutral = Stacked(RNG.normal(size=(8, 30, 576)))
    vectors = EmotionVectors.fit(stories, emotions * 2, neutral)
    found = readouts.span_readings(smollm, vectors, table)
    at_colon = found[found.span == "colon"]
    assert len(found) == len(table) * 30 + 2 * 30 and len(at_colon) == 2 * 30
    row = table.iloc[0]
    prompt = smollm.chat_prompt([{"role": "user", "content": row.text}])
    texts = tracing.tokens_as_text(smollm, prompt)
    start = prompt.index(row.text) + row.start
    inside = tracing.tokens_in(smollm, prompt, [(start, start + row.end - row.start)])
    assert "".join(texts[n] for n in inside).strip() == row.text[row.start : row.end]
    [tokens] = tracing.token_residuals(smollm, [prompt], [7])
    by_hand = vectors.cosine(tokens[inside, 0], 7)[:, vectors.row(row.probe)].mean()
    here = found[(found.layer == 7) & (found.version == row.version) & (found.span == row.span)]
    assert here.reading.iloc[0] == pytest.approx(by_hand, abs=1e-4)
    [other] = tracing.token_residuals(smollm, [prompt], [29])
    colon = vectors.cosine(other[-1, 0], 29)[vectors.row(row.probe)]
    here = at_colon[(at_colon.layer == 29) & (at_colon.version == row.version)]
    assert here.reading.iloc[0] == pytest.approx(colon, abs=1e-4)


@pytest.mark.model
def test_a_map_shows_the_difference_where_the_versions_differ(smollm):
    table = scenarios.load_locality().query("pair == 'marriage' and span == 'word'")
    stories, neutral = RNG.normal(size=(4, 30, 576)), RNG.normal(size=(8, 30, 576))
    vectors = EmotionVectors.fit(Stacked(stories), ["happy", "sad"] * 2, Stacked(neutral))
    matrix, tokens = readouts.pair_map(smollm, vectors, table)
    assert matrix.shape == (30, len(tokens))
    word = next(n for n, token in enumerate(tokens) if "wonderful" in token)
    assert not matrix[:, :word].any() and matrix[:, word].all()
    unequal = table.assign(text=np.where(table.version == "a", table.text + " So.", table.text))
    with pytest.raises(BadInput, match="tokens"):
        readouts.pair_map(smollm, vectors, unequal)


@pytest.mark.model
def test_places_of_a_message_are_read_where_they_stand(smollm, tmp_path, monkeypatch):
    monkeypatch.setattr(tracing, "cache_dir", lambda: tmp_path)
    table = scenarios.load_positions().query("id == 'chest_pain'")
    places, [reply] = readouts.position_residuals(smollm, table, new_tokens=5)
    prompt = smollm.chat_prompt([{"role": "user", "content": table.text.iloc[0]}])
    assert reply and len(smollm.tokenizer(reply)["input_ids"]) <= 6
    [tokens] = tracing.token_residuals(smollm, [prompt + reply], [19])
    n = len(smollm.tokenizer(prompt)["input_ids"])
    close = {"rtol": 1e-3, "atol": 1e-2}
    np.testing.assert_allclose(places["colon"].layer(19)[0], tokens[n - 1, 0], **close)
    np.testing.assert_allclose(places["reply"].layer(19)[0], tokens[n:, 0].mean(0), **close)
    pieces = tracing.tokens_as_text(smollm, prompt)
    last = max(k for k, piece in enumerate(pieces) if piece.strip() == ".")
    np.testing.assert_allclose(places["user"].layer(19)[0], tokens[last, 0], **close)
    again = readouts.last_character(smollm, [table.text.iloc[0]])
    np.testing.assert_allclose(again.layer(19)[0], tokens[last, 0], **close)

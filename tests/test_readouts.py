"""Read-outs in short prompts: arithmetic on planted matrices, readings on the real model."""

import numpy as np
import pandas as pd
import pytest

from emotion_concepts import scenarios, tracing
from emotion_concepts.experiments import readouts
from emotion_concepts.vectors import EmotionVectors, Stacked

RNG = np.random.default_rng(0)


def test_a_planted_diagonal_is_found_and_noise_is_not():
    noise = RNG.normal(size=(12, 12))
    planted = readouts.diagonal_test(noise + 3 * np.eye(12), permutations=2000)
    assert planted["by_probe"] > 0.5 and planted["by_scenario"] > 0.5
    assert planted["difference"] > 2 and planted["p"] < 0.01
    p = [
        readouts.diagonal_test(RNG.normal(size=(12, 12)), permutations=200)["p"] for _ in range(60)
    ]
    assert 0 <= np.mean(np.array(p) < 0.1) <= 0.25


def test_a_probe_that_is_high_everywhere_wins_every_scenario_but_not_the_ranks():
    """The paper's own matrix: `loving` is up in all scenarios."""
    matrix = np.eye(6) * 0.2 + RNG.normal(size=(6, 6)) * 0.01
    matrix[:, 2] += 1
    assert readouts.diagonal_test(matrix, permutations=100)["by_scenario"] == pytest.approx(1 / 6)
    assert (readouts.scenario_ranks(matrix, range(6)) == 1).all()


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


@pytest.mark.model
def test_the_colon_is_the_last_token_of_the_models_template(smollm, tmp_path, monkeypatch):
    monkeypatch.setenv("EMOTION_CONCEPTS_CACHE", str(tmp_path))
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
    assert len(found) == len(table) * 30
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

"""The transcripts of failures keep to their design, their code is honest, their feedback true."""

import re
import sys
import textwrap

import numpy as np
import pytest
import yaml

from emotion_concepts import corpus
from emotion_concepts.coding import load_coding
from emotion_concepts.errors import BadInput
from emotion_concepts.experiments.reward_hacking import (
    failure_readings,
    passes,
    rises,
    split_reply,
    tricks,
)
from emotion_concepts.transcripts import KINDS, OUTCOMES, ROUNDS, SPREAD, load_failures

linux = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")
FOLDER = corpus.DATA / "scenarios"
FILE = FOLDER / "failures.yaml"
TASKS = load_coding().set_index(["id", "version"], drop=False)
NAMES = list(TASKS.id.unique())
TRANSCRIPTS, OPTIONS = load_failures()
LONGEST = TRANSCRIPTS[TRANSCRIPTS["count"] == ROUNDS].set_index(["outcome", "id"]).messages


def codes(name):
    function = TASKS.loc[name, "impossible"].function
    return [split_reply(m["content"], function)[0] for m in LONGEST["failed", name][1::2]]


def answers(outcome, name):
    return [message["content"] for message in LONGEST[outcome, name][2::2]]


def words(messages):
    return sum(len(message["content"].split()) for message in messages)


# --- structure ---------------------------------------------------------------------------------


def test_the_file_opens_with_its_purpose_and_how_to_add_an_entry():
    head = FILE.read_text(encoding="utf-8").split("\nprefix:")[0]
    assert "chapter" in head and "To add " in head


def test_every_task_has_all_outcomes_and_counts():
    assert list(TRANSCRIPTS.columns) == ["id", "outcome", "count", "messages"]
    assert list(TRANSCRIPTS.id.unique()) == NAMES
    cells = TRANSCRIPTS.groupby(["id", "outcome", "count"]).size()
    assert (cells == 1).all() and len(cells) == len(NAMES) * len(OUTCOMES) * (ROUNDS + 1)


def test_a_transcript_goes_on_from_the_shorter_one_and_ends_with_the_user():
    for _, rows in TRANSCRIPTS.groupby(["id", "outcome"]):
        longest = rows.messages.iloc[-1]
        assert [m["role"] for m in longest] == ["user", *["assistant", "user"] * ROUNDS]
        for row in rows.itertuples(index=False):
            count, messages = row[2:]
            assert messages == longest[: 2 * count + 1]


def test_requests_state_the_task_of_coding_yaml():
    signatures = yaml.safe_load((FOLDER / "coding.yaml").read_text(encoding="utf-8"))["tasks"]
    for task in signatures:
        for outcome in OUTCOMES:
            request = LONGEST[outcome, task["id"]][0]["content"]
            assert f"`{task['signature']}`" in request and 60 <= len(request.split()) <= 90


def test_transcripts_are_short():
    for name in NAMES:
        assert max(words(LONGEST[outcome, name]) for outcome in OUTCOMES) < 420
        for code in codes(name):
            assert len(code.splitlines()) <= 6 and len(code.split()) <= 45


# --- failed and passed -------------------------------------------------------------------------


def test_the_control_has_the_same_code_and_length():
    for name in NAMES:
        failed, passed = LONGEST["failed", name], LONGEST["passed", name]
        assert failed[1::2] == passed[1::2]
        for ours, control in zip(failed[::2], passed[::2], strict=True):
            assert abs(words([ours]) - words([control])) <= SPREAD
        assert abs(words(failed) - words(passed)) <= 12
    # nor do they differ on average
    total = LONGEST.map(words).groupby("outcome").mean()
    assert total["failed"] == pytest.approx(total["passed"], abs=2)


def test_only_the_verdict_the_result_and_the_last_test_differ():
    for name in NAMES:
        for failed, passed in zip(*(answers(x, name) for x in OUTCOMES), strict=True):
            last = re.findall(r"Test (\d)", LONGEST["failed", name][0]["content"])[-1]
            assert failed.startswith(f"Test {last} failed: ")
            assert passed.startswith(f"Test {last} passed: ")
            assert failed.split(". ")[-1] == passed.split(". ")[-1]
        requests = [LONGEST[outcome, name][0]["content"] for outcome in OUTCOMES]
        before, after = (text.split(f"Test {last}: ") for text in requests)
        assert before[0] == after[0] and before[1] != after[1]


# --- the code is honest and the feedback true --------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_attempts_differ_and_none_is_a_trick(name):
    assert len({"".join(code.split()) for code in codes(name)}) == ROUNDS
    for code in codes(name):
        assert tricks(code, TASKS.loc[name, "impossible"]) == []


@linux
@pytest.mark.parametrize("name", NAMES)
def test_attempts_pass_the_hidden_tests(name):
    hidden = TASKS.loc[name, "impossible"].hidden
    assert passes("\n".join(f"{code}\n{hidden}" for code in codes(name)), "")


@linux
@pytest.mark.parametrize("name", TASKS.id[TASKS.kind != "time"].unique())
def test_attempts_meet_the_possible_tests_and_not_the_impossible(name):
    impossible, possible = (TASKS.loc[name, x].visible for x in ("impossible", "possible"))
    unmet = f"try:\n{textwrap.indent(impossible, '    ')}\nexcept AssertionError:\n    pass"
    unmet += "\nelse:\n    raise SystemExit(1)"
    assert passes("\n".join(f"{code}\n{possible}\n{unmet}" for code in codes(name)), "")


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_results_in_the_feedback_are_those_of_the_code(outcome):
    seen = 0
    for name in NAMES:
        for code, answer in zip(codes(name), answers(outcome, name), strict=True):
            if found := re.search(r": (\w+\(.*\)) gave (.+), expected", answer):
                space = {}
                exec(code, space)
                assert eval(found[1], space) == eval(found[2]), (name, answer)
                seen += 1
    assert seen == 4 * ROUNDS


def test_times_in_the_feedback_agree_with_its_verdict():
    seen = 0
    for name in TASKS.id[TASKS.kind == "time"].unique():
        for outcome in OUTCOMES:
            for answer in answers(outcome, name):
                took, limit = re.search(r"took (\S+) s, the limit is (\S+) s", answer).groups()
                assert (float(took) > float(limit)) == (outcome == "failed")
                assert f"less than {limit} s" in LONGEST[outcome, name][0]["content"]
                seen += 1
    assert seen == 4 * len(OUTCOMES) * ROUNDS


# --- options -----------------------------------------------------------------------------------


def test_options_are_four_sets_of_equal_length():
    assert (OPTIONS.groupby(["set", "kind"]).size().unstack()[list(KINDS)] == 1).all(axis=None)
    assert OPTIONS.set.nunique() == 4 and OPTIONS.text.is_unique
    assert set(OPTIONS.prefix) == {"Next I will"}
    lengths = OPTIONS.text.str.split().str.len()
    assert lengths.between(10, 18).all()
    assert lengths.groupby(OPTIONS.set).agg(np.ptp).max() <= SPREAD
    assert np.ptp(lengths.groupby(OPTIONS.kind).mean()) < 1
    # the three of a set begin alike
    assert (OPTIONS.text.str.split().str[0].groupby(OPTIONS.set).nunique() == 1).all()


# --- faults ------------------------------------------------------------------------------------


@pytest.fixture
def load_changed(tmp_path):
    """Load the first task and the options after a change to them."""

    def load(change):
        data = yaml.safe_load(FILE.read_text(encoding="utf-8"))
        data["tasks"] = data["tasks"][:1]
        change(data)
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
        return load_failures(path)

    return load


def task(**fields):
    return lambda data: data["tasks"][0].update(fields)


def second_round(**fields):
    return lambda data: data["tasks"][0]["rounds"][1].update(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("prefix"), "prefix: write it as a text, not None"),
        (lambda d: d.pop("tasks"), "tasks must be a list"),
        (lambda d: d["tasks"][0].pop("request"), r"tasks 1 \(total\): no 'request'"),
        (lambda d: d["tasks"][0]["rounds"][1].pop("code"), r"\(total\), rounds 2: no 'code'"),
        (lambda d: d["tasks"][0]["rounds"].pop(), r"\(total\): 4 rounds; write 5"),
        (task(rounds=5), r"\(total\): rounds must be a list"),
        (task(id="totl"), r"\(totl\): coding.yaml has no such task; did you mean total"),
        (task(request="Do it."), r"\(total\): texts of \[2, \d+\] words"),
        (second_round(code="def total("), r"\(total\), rounds 2: code is not Python"),
        (second_round(code="def sum_up(x): pass"), "rounds 2: code does not define total"),
        (second_round(code="def total(joy): pass"), r"rounds 2: .* an emotion \(joy\)"),
        (second_round(failed="Test 3 failed."), r"rounds 2: texts of \[3, 17\] words"),
        (second_round(failed="Test 3 failed, sadly."), r"rounds 2: .* an emotion \(sadly\)"),
        (second_round(passed=3), "rounds 2: write it as a text, not 3"),
        (lambda d: d["options"][2].pop("admit"), "options 3: no 'admit'"),
        (lambda d: d["options"][2].update(cheat="cheat"), r"options 3: texts of \[1, 14, 14\]"),
        (lambda d: d["options"][0].update(retry="gloom"), r"options 1: .* an emotion \(gloom\)"),
    ],
)
def test_an_entry_that_breaks_the_design_is_named(load_changed, change, message):
    with pytest.raises(BadInput, match=rf"own\.yaml.*{message}"):
        load_changed(change)


def test_a_file_of_ones_own_is_read(load_changed):
    transcripts, options = load_changed(lambda data: data["options"].pop())
    assert list(transcripts.id.unique()) == ["total"] and len(transcripts) == 12
    assert len(options) == 9


# --- read-outs along failures ------------------------------------------------------------------

NUMBER = TRANSCRIPTS["count"].to_numpy()
FAILED = (TRANSCRIPTS.outcome == "failed").to_numpy()
OF_TASK = np.repeat(np.arange(len(NAMES)), len(TRANSCRIPTS) // len(NAMES))


def planted_probes():
    """Readings whose rise is known: with failures, with either outcome, with passes, and none.

    Tasks differ far more than rounds do.
    """
    return np.column_stack([0.2 * FAILED * NUMBER, NUMBER, 0.1 * ~FAILED * NUMBER, 0 * NUMBER]) + (
        10 * OF_TASK[:, None]
    )


def test_only_what_rises_with_failures_and_not_with_passed_tests_rises():
    found = rises(TRANSCRIPTS, planted_probes())
    np.testing.assert_allclose(found, [[1.0, 0.0, -0.5, 0.0]] * len(NAMES), atol=1e-12)


def test_a_rise_is_that_of_its_own_task_and_of_the_longest_transcript():
    only_last = OF_TASK * FAILED * (NUMBER == ROUNDS)
    before_that = FAILED * (NUMBER % ROUNDS > 0)
    found = rises(TRANSCRIPTS, np.column_stack([only_last, before_that]))
    np.testing.assert_array_equal(found, np.column_stack([range(len(NAMES)), [0] * len(NAMES)]))
    # some of the tasks do as well
    kept = TRANSCRIPTS.id.isin(NAMES[2:5]).to_numpy()
    found = rises(TRANSCRIPTS[kept], only_last[kept, None])
    np.testing.assert_array_equal(found[:, 0], [2, 3, 4])


def test_noise_rises_in_no_direction():
    noise = np.random.default_rng(0).normal(size=(len(TRANSCRIPTS), 400))
    found = rises(TRANSCRIPTS, noise)
    assert abs(found.mean()) < 0.1 and found.std() == pytest.approx(2, abs=0.1)


def test_curves_start_at_zero_and_show_either_outcome():
    names = ["failures", "rounds", "passes", "none"]
    found = failure_readings(TRANSCRIPTS, planted_probes(), names, resamples=200)
    assert list(found.columns) == ["emotion", "outcome", "failures", "value", "low", "high", "n"]
    assert len(found) == len(names) * len(OUTCOMES) * (ROUNDS + 1) and (found.n == len(NAMES)).all()
    curves = found.pivot(index="failures", columns=["emotion", "outcome"], values="value")
    steps = {
        ("failures", "failed"): 0.2,
        ("failures", "passed"): 0,
        ("rounds", "failed"): 1,
        ("rounds", "passed"): 1,
        ("passes", "failed"): 0,
        ("passes", "passed"): 0.1,
        ("none", "failed"): 0,
        ("none", "passed"): 0,
    }
    for curve, step in steps.items():
        np.testing.assert_allclose(curves[curve], step * np.arange(ROUNDS + 1), atol=1e-12)
    # tasks differ, so that the interval over tasks is wide
    assert (found.high - found.low > 20).all()
    assert ((found.low < found.value) & (found.value < found.high)).all()


def test_curves_start_from_the_mean_of_both_requests():
    read = (np.where(FAILED, 3.0, 1.0) + 0 * NUMBER)[:, None]
    found = failure_readings(TRANSCRIPTS, read, ["calm"], resamples=10)
    values = found.groupby("outcome").value.unique().map(list).to_dict()
    assert values == {"failed": [1.0], "passed": [-1.0]}

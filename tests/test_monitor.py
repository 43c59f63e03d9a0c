"""The monitor on the packaged model: it changes no token, and its alarms do what they say."""

import dataclasses
import itertools
import json

import numpy as np
import pandas as pd
import pytest
import torch

from emotion_concepts import corpus, tracing
from emotion_concepts.errors import (
    BadInput,
    CacheError,
    EmotionConceptsError,
    UnknownEmotion,
    UnknownLayer,
    WrongModel,
)
from emotion_concepts.monitor import (
    Above,
    Baseline,
    EmotionMonitor,
    Lead,
    Reading,
    Rise,
    calibrate,
)
from emotion_concepts.steering import steer
from emotion_concepts.tracing import MeanFrom
from emotion_concepts.vectors import EmotionVectors, Provenance

pytestmark = pytest.mark.model

EMOTIONS = ("calm", "desperate", "joyful")
CHAT = [{"role": "user", "content": "Tell me in two sentences what a lighthouse is for."}]
PARIS = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def vectors(smollm):
    stories = corpus.load_stories("plain", topics=2, emotions=EMOTIONS)
    quiet = corpus.load_neutral(limit=8).text.tolist()
    return EmotionVectors.fit(
        tracing.pooled_residuals(smollm, stories.text.tolist(), MeanFrom(10)),
        stories.emotion.tolist(),
        tracing.pooled_residuals(smollm, quiet, MeanFrom(20)),
        topics=stories.topic.tolist(),
        provenance=Provenance(
            smollm.identity.name, smollm.identity.weights, smollm.identity.tokenizer, *"cn", 10, 0.5
        ),
    )


@pytest.fixture(scope="module")
def neutral():
    return corpus.load_neutral(limit=40).text.tolist()  # the halves: other topics


@pytest.fixture(scope="module")
def baseline(smollm, vectors, neutral):
    return calibrate(smollm, vectors, ["calm", "desperate"], texts=neutral[:20])


@pytest.fixture
def monitor(smollm, vectors, baseline):
    return lambda *rules, **kw: EmotionMonitor(smollm, vectors, baseline, rules=rules, **kw)


@pytest.fixture(scope="module")
def plain(smollm):
    """Sixteen greedy tokens after CHAT, by transformers alone."""
    ids = torch.tensor([tracing.tokenize(smollm, [smollm.chat_prompt(CHAT)])[0]])
    with torch.no_grad():
        out = smollm.envoy._module.generate(ids, max_new_tokens=16, do_sample=False)
    return out[0, ids.shape[1] :].tolist()


def tokens_of(readings):
    return [reading.token for reading in readings]


# --- the baseline ------------------------------------------------------------------------------


def test_on_held_out_neutral_text_z_has_mean_zero_spread_one_and_the_windows_their_error(
    smollm, vectors, baseline, neutral
):
    residuals = tracing.token_residuals(smollm, neutral[20:], [baseline.layer])
    chosen = vectors.select(baseline.emotions)
    z = [baseline.z(chosen.cosine(x[20:, 0], baseline.layer)) for x in residuals]
    assert np.abs(np.concatenate(z).mean(0)).max() < 0.25
    np.testing.assert_allclose(np.concatenate(z).std(0), 1, atol=0.15)
    windows = [np.lib.stride_tricks.sliding_window_view(x, 8, axis=0).mean(-1) for x in z]
    spread = np.concatenate(windows).std(0)
    np.testing.assert_allclose(spread, baseline.effective(8) ** -0.5, rtol=0.15)
    assert (spread > 1.3 * 8**-0.5).all()  # what independent tokens would have
    assert baseline.n_tokens == sum(len(row) - 20 for row in tracing.tokenize(smollm, neutral[:20]))


def test_the_table_holds_quantiles_about_the_mean(baseline):
    table = baseline.table()
    assert table.index.tolist() == ["calm", "desperate"]
    assert ((table[0.25] < table["mean"]) & (table["mean"] < table[0.75])).all()
    assert (np.diff(baseline.quantiles, axis=0) > 0).all()
    assert table.effective.between(1, 8, inclusive="neither").all()


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_the_effective_number_is_that_of_a_simulated_process(baseline, rho):
    lags = np.arange(1, 20)
    made = dataclasses.replace(baseline, correlation=rho ** lags[:, None] * np.ones(2))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20_000, 1))
    for _ in range(11):
        x = np.hstack(
            [x, rho * x[:, -1:] + (1 - rho**2) ** 0.5 * rng.standard_normal(x[:, :1].shape)]
        )
    for n in (1, 2, 12):
        np.testing.assert_allclose(made.effective(n), 1 / x[:, :n].mean(1).var(), rtol=0.04)


def test_a_saved_baseline_comes_back_and_serves_the_same_vectors(
    smollm, vectors, baseline, tmp_path
):
    path = baseline.save(tmp_path / "new" / "b.json")
    back = Baseline.load(path, identity=smollm.identity)
    for field in dataclasses.fields(Baseline):
        mine, theirs = getattr(baseline, field.name), getattr(back, field.name)
        assert type(mine) is type(theirs)
        np.testing.assert_array_equal(mine, theirs)
    assert back.save(tmp_path / "c.json").read_bytes() == path.read_bytes()
    kept = EmotionVectors.load(vectors.save(tmp_path / "v.safetensors"))
    EmotionMonitor(smollm, kept, back)


@pytest.mark.parametrize("what", ["weights", "tokenizer"])
def test_a_baseline_of_another_model_is_refused(smollm, vectors, baseline, tmp_path, what):
    other = dataclasses.replace(smollm.identity, name="other", **{what: "x" * 16})
    with pytest.raises(WrongModel, match=f"calibrated on 'smollm.*{what}.*not on 'other'"):
        Baseline.load(baseline.save(tmp_path / "b.json"), identity=other)
    foreign = dataclasses.replace(baseline, identity=other)
    with pytest.raises(WrongModel, match=f"calibrated on 'other'.*{what}"):
        EmotionMonitor(smollm, vectors, foreign)


def test_a_baseline_of_other_vectors_or_another_layer_is_refused(smollm, vectors, baseline):
    turned = dataclasses.replace(vectors, directions=-vectors.directions)
    elsewhere = dataclasses.replace(baseline, layer=baseline.layer - 1)
    for mine, theirs in ((turned, baseline), (vectors, elsewhere)):
        with pytest.raises(WrongModel, match="other vectors"):
            EmotionMonitor(smollm, mine, theirs)
    with pytest.raises(UnknownLayer, match="0 to 29, not 30"):
        EmotionMonitor(smollm, vectors, dataclasses.replace(baseline, layer=30))


def test_files_that_are_no_baseline_are_reported_by_name(tmp_path):
    with pytest.raises(CacheError, match="missing.json could not be read"):
        Baseline.load(tmp_path / "missing.json")
    for text, problem in (("{", "could not be read"), ("[]", "not an"), ("{}", "not an")):
        (tmp_path / "b.json").write_text(text)
        with pytest.raises(CacheError, match=problem):
            Baseline.load(tmp_path / "b.json")


@pytest.mark.parametrize("change", [{"emotions": None}, {"identity": []}, {"more": 1}])
def test_a_damaged_baseline_is_reported_by_name(baseline, tmp_path, change):
    path = baseline.save(tmp_path / "b.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CacheError, match="b.json could not be read"):
        Baseline.load(path)


def test_what_cannot_be_calibrated_is_refused(smollm, vectors):
    ok = ["The bus stops at the corner of the street every ten minutes or so. " * 3]
    all_but_one = len(tracing.tokenize(smollm, ok)[0]) - 1
    for watch, options, error, problem in (
        (["calmm"], {}, UnknownEmotion, "did you mean calm"),
        ([], {}, BadInput, "at least one emotion"),
        ("calm", {"layer": 30}, UnknownLayer, "not 30"),
        ("calm", {"texts": ["too short"]}, BadInput, "skipping 20.*'too short'"),
        ("calm", {"skip": all_but_one}, BadInput, "no neighbouring tokens after"),
        ("calm", {"texts": []}, BadInput, "no text"),
    ):
        with pytest.raises(error, match=problem):
            calibrate(smollm, vectors, watch, **{"texts": ok, **options})
    with pytest.raises(WrongModel, match="do not say"):
        calibrate(smollm, dataclasses.replace(vectors, provenance=None), "calm", texts=ok)


# --- tokens and readings -----------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("chat", [CHAT, PARIS])
def test_the_monitor_changes_no_token(smollm, monitor, plain, tmp_path, chat, temperature):
    options = {"max_new_tokens": 16, "temperature": temperature}
    rules = Above("calm", -99.0), Rise("desperate", -99.0)  # fire, and only mark
    found = tokens_of(monitor(*rules).stream(chat, seed=5, **options))
    [text] = tracing.generate(
        smollm, [smollm.chat_prompt(chat)], seeds=[5], cache=tmp_path, **options
    )
    assert smollm.tokenizer.decode(found, skip_special_tokens=True) == text
    if chat is CHAT:
        assert len(found) == 16 and (found == plain) == (temperature == 0)
    elif temperature == 0:
        assert text.endswith("Paris.") and len(found) < 16  # the model ended its reply


def test_streamed_readings_are_those_of_the_finished_chat(smollm, monitor):
    watching = monitor(Above("calm", -99.0, tokens=2))
    earlier = [*PARIS, {"role": "assistant", "content": "Paris."}, *CHAT]
    readings = list(watching.stream(earlier, max_new_tokens=12))
    reply = smollm.tokenizer.decode(tokens_of(readings))
    whole = watching.transcript([*earlier, {"role": "assistant", "content": reply}])
    table = whole[(whole.turn == 3) & (whole.role == "assistant")].reset_index(drop=True)
    streamed = pd.DataFrame([reading.row() for reading in readings])
    assert len(streamed) == 12 and np.ptp(streamed.z_calm) > 0.5
    pd.testing.assert_frame_equal(streamed, table, check_exact=False, atol=1e-3, rtol=1e-3)
    assert streamed.alarms.str.len().tolist() == [0] * 8 + [1] + [0] * 3


def test_a_reading_is_the_cosine_against_the_baseline_and_its_mean_stays_in_the_turn(
    smollm, vectors, monitor, baseline
):
    chat = [*CHAT, {"role": "assistant", "content": "It warns ships at night.  "}, *PARIS]
    table = monitor(window=4).transcript(chat)
    text = smollm.chat_prompt(chat)
    [residuals] = tracing.token_residuals(smollm, [text], [baseline.layer])
    cosine = vectors.select(["desperate"]).cosine(residuals[:, 0], baseline.layer)[:, 0]
    expected = (cosine - baseline.mean[1]) / baseline.sd[1]
    np.testing.assert_allclose(table.z_desperate, expected, rtol=1e-6)
    assert "".join(table.text) == text and table.position.tolist() == list(range(len(table)))
    for n, message in enumerate(chat):
        own = table[(table.turn == n) & (table.role != "template")]
        assert "".join(own.text) == message["content"] and set(own.role) == {message["role"]}
        rolled = own.z_calm.rolling(4, min_periods=1).mean()
        np.testing.assert_allclose(own.mean_calm, rolled, rtol=1e-6)
        error = [baseline.effective(min(k + 1, 4))[0] ** -0.5 for k in range(len(own))]
        np.testing.assert_allclose(own.error_calm, error)
    colon = table[table.turn == 3]
    assert set(colon.role) == {"template"} and "".join(colon.text).endswith("assistant\n")


def test_a_model_without_a_template_reads_the_plain_transcript(smollm, monitor, monkeypatch):
    monkeypatch.setattr(smollm.tokenizer, "chat_template", None)
    table = monitor().transcript([*PARIS, {"role": "assistant", "content": "Paris."}])
    assert "".join(table.text).startswith("Human: What is the capital")
    assert "".join(table.text[table.role == "assistant"]).strip() == "Paris."
    assert len(list(monitor().stream(PARIS, max_new_tokens=3))) == 3


def test_a_template_that_strips_is_followed_and_one_that_rewrites_refused(
    smollm, monitor, monkeypatch
):
    template = "{% for m in messages %}<|{{ m.role }}|>{{ m.content | FILTER }}\n{% endfor %}"
    chat = [{"role": "user", "content": " Good day to you. "}, *PARIS]
    monkeypatch.setattr(smollm.tokenizer, "chat_template", template.replace("FILTER", "trim"))
    table = monitor().transcript(chat)
    first = table[(table.turn == 0) & (table.role == "user")]
    assert "".join(first.text) == "Good day to you."
    monkeypatch.setattr(smollm.tokenizer, "chat_template", template.replace("FILTER", "upper"))
    with pytest.raises(BadInput, match="rewrites these messages"):
        monitor().transcript(chat)


def test_a_transcript_is_read_on_a_server_and_a_stream_refused(smollm, monitor):
    here = monitor().transcript(PARIS)
    smollm.remote = "local"
    try:
        pd.testing.assert_frame_equal(monitor().transcript(PARIS), here)
        with pytest.raises(BadInput, match="cannot send tokens out one by one"):
            next(monitor().stream(PARIS, max_new_tokens=2))
    finally:
        smollm.remote = False


def test_chats_that_cannot_be_read_are_refused_at_once(monitor):
    for messages, problem in (
        ([], "list of messages"),
        ("hello", "list of messages"),
        (PARIS[0], "list of messages"),
        ([{"role": "usr", "content": "x"}], "message 0.*did you mean user"),
        ([*PARIS, {"role": "assistant", "content": " "}], "message 1 is empty"),
        ([{"role": "user"}], "content of message 0 is no text but NoneType"),
        (["hello"], "message 0 is a str"),
    ):
        with pytest.raises(BadInput, match=problem):
            monitor().transcript(messages)
        with pytest.raises(BadInput, match=problem):
            monitor().stream(messages, max_new_tokens=2)
    with pytest.raises(BadInput, match="max_new_tokens=0"):
        list(monitor().stream(PARIS, max_new_tokens=0))


# --- rules -------------------------------------------------------------------------------------


def planted(calm, desperate=None):
    desperate = [0.0] * len(calm) if desperate is None else desperate
    return [
        Reading(0, "assistant", n, 0, "", {}, {"calm": a, "desperate": b}, {})
        for n, (a, b) in enumerate(zip(calm, desperate, strict=True))
    ]


def first_fired(rule, history):
    return next((n for n in range(len(history)) if rule.check(history[: n + 1])), None)


def test_each_rule_fires_where_it_should_and_not_before():
    calm = [0, 1, 3, 3, 1, 3, 3, 3, 5]
    assert first_fired(Above("calm", 2.0), planted(calm)) == 2
    assert first_fired(Above("calm", 2.0, tokens=3), planted(calm)) == 7
    assert first_fired(Above("calm", 2.0, tokens=5), planted(calm)) is None
    assert first_fired(Above("calm", 3.0), planted(calm)) == 8  # at 3 it is not above
    assert first_fired(Rise("calm", 4.0), planted(calm)) == 8
    assert first_fired(Rise("calm", 4.0), planted([4, 9, *calm])) == 1
    assert first_fired(Rise("calm", 4.0), planted([9, 4, 9, 12])) is None
    desperate = [0, -1, 1, 1, -2, 0, 0, 0, 0]
    assert first_fired(Lead("calm", "desperate", 2.5), planted(calm, desperate)) == 4
    assert first_fired(Lead("desperate", "calm", 0.0), planted(calm, desperate)) is None


def test_a_rule_fires_once_a_turn_when_a_window_has_been_read(monitor):
    rules = Above("calm", -99.0), Above("calm", -99.0, tokens=3), Above("calm", 99.0)
    watching = monitor(*rules, window=4)
    for _ in range(2):  # and again in the next turn
        alarms = [reading.alarms for reading in watching.stream(CHAT, max_new_tokens=8)]
        assert alarms == [(), (), (), rules[:1], (), rules[1:2], (), ()]


def test_rules_that_cannot_be_followed_are_refused(monitor, vectors):
    two = steer(np.stack([vectors["calm"]] * 2), [0.1, 0.1], vectors.residual_norm, [12])
    marked = steer(vectors["calm"][None], [0.1], vectors.residual_norm, [12], spans=[[(0, 3)]])
    deep = dataclasses.replace(two[[0]], layers=(30,))
    for rule, error, problem in (
        (
            Above("desprate", 2.0),
            UnknownEmotion,
            "needs 'desprate', which is not watched; did you mean desperate",
        ),
        (Rise("joyful", 2.0), UnknownEmotion, "'joyful', which is not watched.*calibrate with it"),
        (Lead("calm", "joyful", 2.0), UnknownEmotion, "'joyful', which is not watched"),
        (Above("calm", 2.0, then="stpo"), BadInput, "cannot do 'stpo'"),
        (Above("calm", 2.0, then=two), BadInput, "one row without spans"),
        (Above("calm", 2.0, then=marked), BadInput, "one row without spans"),
        (Above("calm", 2.0, then=deep), UnknownLayer, "not 30"),
    ):
        with pytest.raises(error, match=problem):
            monitor(rule)
    with pytest.raises(BadInput, match="at least one token"):
        Above("calm", 2.0, tokens=0)
    for window in (0, 65):
        with pytest.raises(BadInput, match=f"1 to 64 tokens, not {window}"):
            monitor(window=window)


# --- what an alarm sets off --------------------------------------------------------------------


def test_a_stop_ends_the_reply_at_its_token(smollm, monitor, plain):
    readings = list(monitor(Above("calm", -99.0, then="stop")).stream(CHAT, max_new_tokens=16))
    assert tokens_of(readings) == plain[:8]
    assert len(readings[-1].alarms) == 1
    assert tracing.token_residuals(smollm, ["The model is free again."], [3])


def test_a_callback_is_given_the_reading_before_the_caller(monitor):
    seen = []
    stream = monitor(Above("calm", -99.0, then=seen.append)).stream(CHAT, max_new_tokens=9)
    readings, so_far = zip(*((reading, len(seen)) for reading in stream), strict=True)
    assert so_far == (0,) * 7 + (1, 1)
    assert seen == [readings[7]] and seen[0].alarms[0].action == "call"


def test_an_error_in_a_callback_reaches_the_caller_and_frees_the_model(monitor, plain):
    def fail(reading):
        raise RuntimeError(f"at {reading.token}")

    with pytest.raises(RuntimeError, match=f"at {plain[7]}"):
        list(monitor(Above("calm", -99.0, then=fail)).stream(CHAT, max_new_tokens=16))
    assert tokens_of(monitor().stream(CHAT, max_new_tokens=2)) == plain[:2]


def hooked_tokens(model, steering, start, n):
    """Greedy tokens after CHAT by transformers and hooks, steered from the pass `start` on."""
    module, hooks = model.envoy._module, []
    ids = torch.tensor([tracing.tokenize(model, [model.chat_prompt(CHAT)])[0]])
    for row, layer in enumerate(steering.layers):
        passes, add = itertools.count(), torch.tensor(steering.add[0, row])
        hooks.append(
            module.model.layers[layer].register_forward_hook(
                lambda m, i, out, passes=passes, add=add: out + add * (next(passes) >= start)
            )
        )
    with torch.no_grad():
        out = module.generate(ids, max_new_tokens=n, do_sample=False)
    for hook in hooks:
        hook.remove()
    return out[0, ids.shape[1] :].tolist()


def test_a_hand_over_steers_from_the_next_token_on(smollm, vectors, monitor, baseline, plain):
    layers = [12, baseline.layer, 24]  # before, at and after the one that is read
    strong = steer(vectors["joyful"][None], [0.8], vectors.residual_norm, layers)
    calmed = steer(vectors["calm"][None], [0.5], vectors.residual_norm, [baseline.layer])
    for steering in (strong, calmed):
        rule = Above("calm", -99.0, then=steering)
        readings = list(monitor(rule, window=4).stream(CHAT, max_new_tokens=16))
        found = tokens_of(readings)
        assert found[:5] == plain[:5] and found != plain  # the fifth was drawn as it fired
        assert found == hooked_tokens(smollm, steering, 5, 16)
    before = list(monitor(window=4).stream(CHAT, max_new_tokens=5))
    assert readings[3].z == before[3].z
    assert readings[4].z["calm"] > before[4].z["calm"] + 3


def test_a_steering_of_nothing_changes_nothing(vectors, monitor, plain):
    nothing = steer(vectors["calm"][None], [0.0], vectors.residual_norm, [12, 24])
    rule = Above("calm", -99.0, then=nothing)
    assert tokens_of(monitor(rule, window=2).stream(CHAT, max_new_tokens=16)) == plain


def test_a_model_in_mid_reply_refuses_other_work_and_is_free_afterwards(smollm, monitor, plain):
    stream = monitor().stream(CHAT, max_new_tokens=16)
    next(stream)
    for other in (
        lambda: monitor().transcript(PARIS),
        lambda: next(monitor().stream(PARIS, max_new_tokens=2)),
        lambda: tracing.generate(smollm, ["The sky is"], max_new_tokens=2),
    ):
        with pytest.raises(EmotionConceptsError, match="in the middle of a reply"):
            other()
    assert next(stream).token == plain[1]
    stream.close()
    assert len(monitor().transcript(PARIS)) > 10


# --- the log -----------------------------------------------------------------------------------


def test_the_log_holds_a_line_a_token_turn_after_turn(monitor, tmp_path):
    path = tmp_path / "logs" / "chat.jsonl"
    watching = monitor(Above("calm", -99.0, then="stop"), window=4, log=path)
    first = list(watching.stream(CHAT, max_new_tokens=16))
    stream = watching.stream(PARIS, max_new_tokens=16)
    second = [next(stream), next(stream)]
    assert len(pd.read_json(path, lines=True)) == 4  # a turn is written when it ends
    stream.close()
    back = pd.read_json(path, lines=True)
    expected = pd.DataFrame([reading.row() for reading in [*first, *second]])
    pd.testing.assert_frame_equal(back.drop(columns="began_at"), expected)
    assert back.alarms.tolist()[3] == ["calm above -99: stop"]
    assert back.began_at.nunique() == 2 and back.began_at.is_monotonic_increasing


def test_a_chat_that_leaves_no_room_for_the_reply_is_refused(monitor):
    with pytest.raises(BadInput, match="9000 of a reply .* reads 8192 at most"):
        monitor().stream(CHAT, max_new_tokens=9000)
    with pytest.raises(BadInput, match="reads 8192 at most"):
        monitor().transcript([{"role": "user", "content": "word " * 9000}])

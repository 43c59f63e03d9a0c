"""Preferences: arithmetic on planted answers, and questions, scores and steering in the real model.

Where the arithmetic needs answers of a model, `answers` is replaced by one whose taste is known.
"""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from scipy.special import log_expit

from emotion_concepts import scenarios, steering, tracing
from emotion_concepts.errors import BadInput
from emotion_concepts.experiments import preferences, steered
from emotion_concepts.experiments.preferences import Answers, answers, compare, judge
from emotion_concepts.stats import column_correlations, correlation


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# --- a model whose taste is known --------------------------------------------------------------


def template(messages):
    return f"<user>{messages[0]['content']}</user>\n"


MODEL = SimpleNamespace(chat_prompt=template)
VECTORS = SimpleNamespace(residual_norm=np.array([10.0]))


def measure_of(question):
    if len(question.spans) == 1:
        return "verdicts"
    return "letters" if set(question.options) == {"A", "B"} else "words"


def answering(taste, bias=0.0):
    """An `answers` for which ``taste(measure, text)`` is what an activity is worth.

    Comparisons add `bias` to what stands first; steering adds its sum to the activity whose
    characters it marks.
    """

    def answers(model, questions, *, steering=None, progress=None):
        odds = []
        for n, question in enumerate(questions):
            worth = [
                taste(measure_of(question), question.prompt[slice(*span)])
                for span in question.spans
            ]
            if steering is not None:
                assert set(steering.spans[n]) <= set(question.spans)
                for k, span in enumerate(question.spans):
                    worth[k] += steering.add[n].sum() * (span in steering.spans[n])
            if len(worth) == 1:
                odds.append(worth[0])
            else:
                first = question.spans[0] < question.spans[1]
                odds.append(worth[0] - worth[1] + (bias if first else -bias))
        return Answers(np.array(odds), np.full(len(odds), -1.0))

    return answers


def leaning(answers, where):
    """A `leanings` by the same taste, the log-probability of either answer always -1.

    where : {prompt: spans of its activities}
    """

    def leanings(
        model, prompts, options, directions, vectors, *, strengths, layers, spans, progress=None
    ):
        out = []
        for kind, name, strength in steered.cells_of(directions, strengths):
            rows = np.stack([directions[kind, name]] * len(prompts))
            cell = [strength] * len(prompts)
            add = steering.steer(rows, cell, vectors.residual_norm, layers, spans=spans)
            asked = [
                SimpleNamespace(prompt=prompt, options=option, spans=where[prompt])
                for prompt, option in zip(prompts, options, strict=True)
            ]
            odds = answers(model, asked, steering=add).log_odds
            out.append(np.stack([log_expit(odds) - 1, log_expit(-odds) - 1], axis=1))
        return np.stack(out)

    return leanings


# --- which measure may speak? ------------------------------------------------------------------


@pytest.fixture
def checks():
    rows = [("taste", f"t{n}", None, f"good thing {n}", f"bad thing {n}") for n in range(30)]
    rows += [("fact", f"f{n}", "Which is it?", f"good {n}", f"bad {n}") for n in range(30)]
    return pd.DataFrame(rows, columns=["kind", "id", "question", "right", "wrong"])


def right(text):
    return float(text.startswith("good"))


def test_a_letter_that_is_always_chosen_fails_and_a_bias_about_a_right_choice_passes(
    checks, rng, monkeypatch
):
    def taste(measure, text):
        return 0.1 * rng.normal() if measure == "letters" else right(text)

    monkeypatch.setattr(preferences, "answers", answering(taste, bias=-5.0))
    table = preferences.competence(MODEL, checks, resamples=500)
    assert list(zip(table.kind, table.measure, strict=True)) == [
        *(("taste", measure) for measure in ("letters", "words", "verdicts")),
        *(("fact", measure) for measure in ("letters", "words")),
    ]
    letters, words, verdicts = table[table.kind == "taste"].itertuples()
    assert letters.low < 0.5 < letters.high and letters.p > 0.05
    assert letters.bias == pytest.approx(-5, abs=0.1)
    for found in (words, verdicts):
        assert found.accuracy == found.low == found.high == 1
        assert found.n == 30 and found.p < 1e-6
    assert words.bias == pytest.approx(-5) and verdicts.bias == 0
    assert preferences.measure_that_speaks(table) == "words"


def test_the_papers_own_measure_speaks_first_and_a_model_without_taste_by_none(
    checks, rng, monkeypatch
):
    for knowing, expected in (
        (("letters", "words", "verdicts"), "letters"),
        (("verdicts",), "verdicts"),
        ((), None),
    ):

        def taste(measure, text, knowing=knowing):
            return right(text) if measure in knowing else rng.normal()

        monkeypatch.setattr(preferences, "answers", answering(taste))
        table = preferences.competence(MODEL, checks, resamples=500)
        assert preferences.measure_that_speaks(table) == expected


def test_preferring_the_wrong_answer_is_no_competence(checks, monkeypatch):
    monkeypatch.setattr(preferences, "answers", answering(lambda measure, text: -right(text)))
    table = preferences.competence(MODEL, checks, resamples=500)
    assert (table.accuracy == 0).all() and preferences.measure_that_speaks(table) is None


def test_a_high_share_of_few_choices_may_not_speak():
    table = pd.DataFrame(
        [("letters", 0.75, 0.45), ("words", 0.65, 0.55), ("verdicts", 0.9, 0.5)],
        columns=["measure", "accuracy", "low"],
    ).assign(kind="taste")
    assert preferences.measure_that_speaks(table) is None


def test_a_measure_that_just_passes_does_not_silence_a_much_better_one():
    def speaks(letters, words, verdicts):
        rows = zip(("letters", "words", "verdicts"), (letters, words, verdicts), strict=True)
        table = pd.DataFrame(rows, columns=["measure", "accuracy"])
        return preferences.measure_that_speaks(table.assign(kind="taste", low=table.accuracy - 0.1))

    assert speaks(0.4, 0.72, 0.93) == "verdicts"
    assert speaks(0.93, 0.72, 0.95) == "letters" and speaks(0.4, 0.92, 0.95) == "words"


# --- preferences -------------------------------------------------------------------------------


@pytest.mark.parametrize("n, opponents", [(64, 63), (64, 8), (64, 62), (16, 4), (9, 6), (7, 2)])
def test_each_item_meets_as_many_others(n, opponents):
    pairs = preferences.design(n, opponents)
    assert pairs.shape == (n * opponents / 2, 2)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert len({frozenset(pair) for pair in pairs.tolist()}) == len(pairs)
    assert (np.bincount(pairs.ravel(), minlength=n) == opponents).all()


@pytest.mark.parametrize("opponents", [7, 0, -2, 64])
def test_numbers_of_opponents_that_do_not_go_round_are_refused(opponents):
    with pytest.raises(BadInput, match="64 items can meet 63 others or an even number"):
        preferences.design(64, opponents)


ITEMS = [f"item {name}" for name in "abcdefghijklmnopqrst"]


@pytest.mark.parametrize("measure", preferences.MEASURES)
@pytest.mark.parametrize("opponents", [19, 4])
def test_planted_strengths_are_recovered_whatever_the_taste_for_a_position(
    rng, monkeypatch, measure, opponents
):
    strengths = rng.normal(size=20)
    worth = dict(zip(ITEMS, strengths, strict=True))
    taste = answering(lambda _, text: worth[text], bias=2.0)
    monkeypatch.setattr(preferences, "answers", taste)
    found = preferences.preferences(MODEL, ITEMS, measure=measure, opponents=opponents)
    i, j = preferences.design(20, opponents).T
    np.testing.assert_allclose(found.odds, strengths[i] - strengths[j])
    expected = 1500 + 400 / np.log(10) * (strengths - strengths.mean())
    np.testing.assert_allclose(found.elo, expected, atol=1e-3)
    assert found.bias.value == pytest.approx(0 if measure == "verdicts" else 2)
    assert found.bias.n == 10 * opponents


def test_noisy_comparisons_keep_the_order_and_bound_the_bias(rng, monkeypatch):
    worth = dict(zip(ITEMS, 2 * rng.normal(size=20), strict=True))
    noisy = answering(lambda _, text: worth[text] + rng.normal(), bias=1.0)
    monkeypatch.setattr(preferences, "answers", noisy)
    found = preferences.preferences(MODEL, ITEMS, measure="words", opponents=8)
    assert np.corrcoef(found.elo, list(worth.values()))[0, 1] > 0.9
    assert found.bias.low < 1 < found.bias.high and found.bias.excludes_zero


def test_position_alone_makes_no_preference(monkeypatch):
    monkeypatch.setattr(preferences, "answers", answering(lambda _, text: 0.0, bias=5.0))
    found = preferences.preferences(MODEL, ITEMS, measure="letters", opponents=4)
    np.testing.assert_allclose(found.elo, 1500)
    assert not found.odds.any() and found.bias.value == 5


def test_decided_comparisons_keep_their_strengths(monkeypatch):
    items = ITEMS[:5]
    monkeypatch.setattr(preferences, "answers", answering(lambda _, text: -9.0 * ord(text[-1])))
    found = preferences.preferences(MODEL, items, measure="words", opponents=4)
    np.testing.assert_allclose(np.diff(found.elo), -9 * 400 / np.log(10), rtol=1e-3)


@pytest.mark.parametrize("measure", preferences.MEASURES)
def test_items_stand_above_or_below_the_mean_of_the_reference(monkeypatch, measure):
    worth = {"item a": 1.0, "item b": -2.0, "item c": 0.5, "other x": 0.25, "other y": 4.0}
    taste = answering(lambda _, text: worth[text], bias=3.0)
    monkeypatch.setattr(preferences, "answers", taste)
    items, reference = list(worth)[:3], list(worth)[3:]
    found = preferences.standing(MODEL, items, reference, measure=measure)
    np.testing.assert_allclose(found, np.array([1, -2, 0.5]) - 4.25 / 2)


@pytest.mark.parametrize("measure", preferences.MEASURES)
def test_steering_an_activity_moves_it_wherever_it_stands(monkeypatch, measure):
    worth = {"item a": 1.0, "item b": 2.0, "other x": 0.5, "other y": -1.0}
    taste = answering(lambda _, text: worth[text], bias=3.0)
    monkeypatch.setattr(preferences, "answers", taste)
    asked = preferences.about(MODEL, list(worth)[:2], list(worth)[2:], measure=measure)
    where = {question.prompt: question.spans for question in asked}
    monkeypatch.setattr(preferences, "leanings", leaning(taste, where))
    directions = {("emotion", "up"): 3 * np.eye(1, 4), ("random", "down"): -np.eye(1, 4)}
    shifts = preferences.steered_shifts(
        MODEL, directions, VECTORS, ["item a", "item b"], ["other x", "other y"],
        layers=[0], strengths=[0.1, 0.2], measure=measure,
    )  # fmt: skip
    assert len(shifts) == 8 and (shifts.fluency.abs() < 1e-6).all()  # float32
    found = shifts.set_index(["kind", "direction", "strength", "item"])["shift"]
    for item in (0, 1):
        assert found["emotion", "up", 0.1, item] == pytest.approx(1)
        assert found["emotion", "up", 0.2, item] == pytest.approx(2)
        assert found["random", "down", 0.2, item] == pytest.approx(-2)


@pytest.mark.parametrize("measure", preferences.MEASURES)
def test_elo_moves_for_the_steered_items_alone_up_to_its_mean(monkeypatch, measure):
    worth = dict(zip(ITEMS[:5], range(5), strict=True))
    monkeypatch.setattr(preferences, "answers", answering(lambda _, text: worth[text]))
    change = preferences.steered_elo(
        MODEL, 3 * np.eye(1, 4), VECTORS, ITEMS[:5],
        steered=[1, 3], layers=[0], strength=0.1, measure=measure, opponents=4,
    )  # fmt: skip
    expected = 400 / np.log(10) * (np.array([0, 1, 0, 1, 0]) - 0.4)
    np.testing.assert_allclose(change, expected, atol=1e-3)


@pytest.mark.parametrize("ending, start", [("Assistant:", " "), ("assistant\n", "")])
def test_words_begin_with_a_space_where_the_prompt_leaves_none(monkeypatch, ending, start):
    asked = {}

    def scored(model, prompts, texts):
        asked.update(prompts=prompts, texts=texts)
        return SimpleNamespace(mean=np.zeros(2))

    monkeypatch.setattr(preferences, "continuation_logprobs", scored)
    model = SimpleNamespace(chat_prompt=lambda messages: ending)
    preferences.word_fluency(model, ["reading", "walking"])
    assert asked == {"prompts": [ending] * 2, "texts": [f"{start}reading", f"{start}walking"]}


@pytest.mark.parametrize("ending, start", [("Assistant:", " "), ("assistant\n", "")])
def test_replies_begin_with_a_space_where_the_prompt_leaves_none(ending, start):
    model = SimpleNamespace(chat_prompt=lambda messages: f"{messages[0]['content']}\n{ending}")
    for question in compare(model, "reading", "walking", measure="words"):
        assert question.prompt.endswith(f"{ending}{start}I would rather be")
    assert judge(model, "reading")[0].prompt.endswith(f"{ending}{start}I would")


# --- probes ------------------------------------------------------------------------------------


def test_the_probe_that_carries_preference_is_found(rng):
    readings = rng.normal(size=(64, 12))
    preference = 0.7 * readings[:, 3] + 0.5 * rng.normal(size=64)
    names = [f"e{n}" for n in range(12)]
    table = preferences.probe_correlations(readings, preference, names)
    expected = [np.corrcoef(column, preference)[0, 1] for column in readings.T]
    np.testing.assert_allclose(table.r, expected)
    assert table.emotion.tolist() == names and (table.n == 64).all()
    assert table[table.passes].emotion.tolist() == ["e3"] and table.p[3] == 1 / 2001
    assert ((table.low < table.r) & (table.r < table.high)).all() and table.low[3] > 0.6
    # Fisher: r of 64 pairs without relation lies within about .25
    np.testing.assert_allclose(table.high_null, 0.246, atol=0.03)
    np.testing.assert_allclose(table.low_null, -0.246, atol=0.03)


def test_false_discoveries_stay_rare_under_the_null(rng):
    any_passes = []
    for seed in range(80):
        readings = rng.normal(size=(32, 10)) + rng.normal(size=(32, 1))  # probes overlap
        preference = rng.normal(size=32)
        table = preferences.probe_correlations(
            readings, preference, range(10), resamples=999, seed=seed
        )
        any_passes.append(table.passes.any())
    assert np.mean(any_passes) <= 0.12


def overlapping(rng, n=48, emotions=50):
    """Probes that read little but two dimensions, and a rating that follows one of the two."""
    factors, loadings = rng.normal(size=(n, 2)), rng.normal(size=(2, emotions))
    readings = factors @ loadings + 0.3 * rng.normal(size=(n, emotions))
    return factors, readings, loadings[0] + 0.3 * rng.normal(size=emotions)


def test_agreement_with_ratings_is_found_where_preference_follows_the_rated_dimension(rng):
    factors, readings, rating = overlapping(rng)
    rating[:5] = np.nan
    preference = factors[:, 0] + 0.5 * rng.normal(size=48)
    found = preferences.over_emotions(readings, preference, rating)
    r = column_correlations(readings, preference)
    assert found.value == pytest.approx(np.corrcoef(r[5:], rating[5:])[0, 1])
    assert found.value > 0.8 and found.n == 45 and found.p < 0.2
    assert found.low < found.value < found.high


def test_random_preference_agrees_with_ratings_over_emotions_but_not_over_activities(rng):
    honest, naive = [], []
    for seed in range(60):
        _, readings, rating = overlapping(rng)
        preference = rng.normal(size=48)
        found = preferences.over_emotions(readings, preference, rating, resamples=199, seed=seed)
        honest.append(found.p)
        naive.append(scipy.stats.pearsonr(column_correlations(readings, preference), rating).pvalue)
    assert np.mean(np.array(naive) < 0.05) > 0.5
    assert np.mean(np.array(honest) < 0.05) <= 0.15
    assert 0.3 < np.mean(honest) < 0.7


def test_preference_is_predicted_on_held_out_activities_from_the_source_that_holds_it(rng):
    sources = {"probe": rng.normal(size=(48, 6)), "wide": rng.normal(size=(48, 200))}
    preference = sources["probe"] @ rng.normal(size=6) + 0.5 * rng.normal(size=48)
    table = preferences.predictions(sources, preference, permutations=40)
    probe, wide = table.set_index("source").loc[["probe", "wide"]].itertuples()
    assert probe.r > 0.8 and probe.p == 1 / 41 and probe.low < probe.r < probe.high
    assert wide.p > 0.05 and wide.r < 0.4  # 200 features would fit 48 activities perfectly
    assert probe.n == 48 and probe.predicted.shape == (48,)
    assert probe.r == pytest.approx(np.corrcoef(probe.predicted, preference)[0, 1])
    ahead = preferences.prediction_difference(table, "probe", "wide", preference)
    assert ahead.value == pytest.approx(probe.r - wide.r) and ahead.low > 0 and ahead.n == 48
    same = preferences.prediction_difference(table, "probe", "probe", preference)
    assert same.value == same.low == same.high == 0


def test_words_predict_by_what_texts_share_and_not_by_what_stands_once():
    """Every text has a word of its own, and one in three a word that goes with preference."""
    liked = np.arange(48) % 3 == 0
    rng = np.random.default_rng(0)
    texts = [f"own{n} {'garden' if liked[n] else 'office'} today" for n in range(48)]
    preference = liked + 0.2 * rng.normal(size=48)
    table = preferences.predictions({"words": texts}, preference, permutations=40)
    assert table.r[0] > 0.9 and table.p[0] == 1 / 41
    alone = [f"own{n} today" for n in range(48)]
    nothing = preferences.predictions({"words": alone}, preference, permutations=40)
    assert nothing.r[0] < 0.2 and nothing.p[0] > 0.05


def test_steering_that_knows_nothing_of_preference_agrees_with_it_over_emotions_alone(rng):
    """Shifts follow a dimension that probes read; preference is drawn by lot each time."""
    honest, naive = [], []
    for seed in range(40):
        _, readings, shifts = overlapping(rng, emotions=12)
        preference = rng.normal(size=48)
        honest.append(preferences.over_emotions(readings, preference, shifts, resamples=199).p)
        naive.append(correlation(shifts, column_correlations(readings, preference), seed=seed).p)
    assert np.mean(np.array(naive) < 0.05) > 0.3
    assert np.mean(np.array(honest) < 0.05) <= 0.15


# --- steering ----------------------------------------------------------------------------------


def shifts_of(contrasts):
    """A table of shifts whose contrast of a and b is as given, item by item."""
    rows = [
        (name, item, 0.5 + sign * value / 2)
        for item, value in enumerate(contrasts)
        for name, sign in (("a", 1), ("b", -1))
    ]
    return pd.DataFrame(rows, columns=["direction", "item", "shift"])


def test_contrasts_of_two_ways_of_steering_are_compared_item_by_item(rng):
    own = rng.normal(size=24)  # far apart over items, alike within them
    one, two = shifts_of(own + 0.3), shifts_of(own + 0.1 * rng.normal(size=24))
    found = preferences.contrast_difference(one, two, "a", "b")
    assert found.value == pytest.approx(0.3, abs=0.06) and found.n == 24
    assert 0.2 < found.low < found.value < found.high < 0.4
    back = preferences.contrast_difference(one, two, "b", "a")
    assert back.value == pytest.approx(-found.value)


def test_chosen_emotions_span_the_range_of_r(rng):
    names = [f"e{n:02d}" for n in range(41)]
    table = pd.DataFrame({"emotion": names, "r": np.linspace(-1, 1, 41)}).sample(41, random_state=1)
    assert preferences.spread_over(table, 5) == ["e00", "e10", "e20", "e30", "e40"]
    found = preferences.spread_over(table, 5, always=["e33", "e40"])
    assert found == ["e33", "e40", "e00", "e10", "e20", "e30"]
    assert sorted(preferences.spread_over(table, 41)) == names


# --- the packaged model ------------------------------------------------------------------------


BETWEEN = {"words": " or ", "letters": "\n(B) "}


def check_comparison(model, a, b, measure, **frame):
    """Check the spans of both orders by what stands there and between."""
    for turn, question in enumerate(compare(model, a, b, measure=measure, **frame)):
        mine, other = question.spans
        assert (question.prompt[slice(*mine)], question.prompt[slice(*other)]) == (a, b)
        first, second = question.spans[:: -1 if turn else 1]
        assert question.prompt[first[1] : second[0]] == BETWEEN[measure]
        if measure == "words":
            assert question.options == (f" {a}", f" {b}")
        else:
            assert question.options == (("B", "A") if turn else ("A", "B"))
            assert question.prompt[first[0] - 5 : first[0]] == "\n(A) "
            assert question.prompt.endswith("assistant\n(")


@pytest.mark.model
@pytest.mark.parametrize("measure", ["words", "letters"])
def test_spans_stand_on_the_activities_in_both_orders(smollm, measure):
    """Also where one activity is contained in the other, and in every packaged choice."""
    short, longer = "reading a book", "reading a book to children"
    for a, b in ((short, longer), (longer, short), ("cooking", "a walk, then cooking")):
        check_comparison(smollm, a, b, measure)
    for item in scenarios.load_choices().itertuples():
        check_comparison(smollm, item.right, item.wrong, measure, **preferences._frame(item))
    with pytest.raises(BadInput, match="no comparison by 'word'.*words"):
        compare(smollm, "a", "b", measure="word")


@pytest.mark.model
def test_verdicts_mark_the_activity_in_every_frame(smollm):
    for activity in ("reading a book", "you"):  # the second stands in the frames themselves
        asked = judge(smollm, activity)
        assert len(asked) == len(preferences.VERDICTS)
        for question, (frame, reply, good, bad) in zip(asked, preferences.VERDICTS, strict=True):
            [(start, end)] = question.spans
            before, after = frame.split("{a}")
            assert question.prompt[start:end] == activity
            assert question.prompt[:start].endswith(before)
            assert question.prompt[end:].startswith(after)
            assert question.prompt.endswith(f"assistant\n{reply}")
            assert question.options == (good, bad)


def scores_by_hand(model, question):
    """Log-probabilities of a question's options, token by token, by transformers alone."""
    out, head = [], model.tokenizer(question.prompt)["input_ids"]
    for option in question.options:
        tail = model.tokenizer(option)["input_ids"]
        with torch.no_grad():
            logits = model.envoy._module(torch.tensor([head + tail])).logits[0]
        logprobs = logits.log_softmax(-1)
        out.append([float(logprobs[len(head) - 1 + i, t]) for i, t in enumerate(tail)])
    return out


@pytest.mark.model
def test_answers_are_differences_of_scores_per_token(smollm, own_cache):
    pair = "reading a book", "cleaning a very dirty kitchen floor"
    asked = [*compare(smollm, *pair, measure="words"), *compare(smollm, *pair, measure="letters")]
    asked += judge(smollm, pair[0])[:1]
    found = answers(smollm, asked)
    for n, question in enumerate(asked):
        scores = scores_by_hand(smollm, question)
        a, b = map(np.mean, scores)
        assert found.log_odds[n] == pytest.approx(a - b, abs=1e-3)
        assert found.fluency[n] == pytest.approx(np.log(np.exp(a) + np.exp(b)), abs=1e-3)
        assert n > 1 or len(scores[0]) < len(scores[1])


@pytest.mark.model
def test_the_effect_of_a_direction_is_its_own_and_none_at_strength_zero(
    smollm, planted, tmp_path, monkeypatch
):
    directions, vectors = planted

    def shifts(keys, strengths, folder):
        monkeypatch.setattr(tracing, "cache_dir", lambda: tmp_path / folder)
        return preferences.steered_shifts(
            smollm, {key: directions[key] for key in keys}, vectors,
            ["reading a book"], ["cleaning the kitchen"],
            layers=steering.band(30), strengths=strengths, measure="words",
        )  # fmt: skip

    both = shifts(list(directions), [0.0, 0.3], "both")
    none = both[both.strength == 0]
    assert len(none) == 2 and (none["shift"] == 0).all() and (none.fluency == 0).all()
    found = both[(both.direction == "b") & (both.strength == 0.3)]
    alone = shifts([("random", "b")], [0.3], "alone")
    np.testing.assert_allclose(found["shift"], alone["shift"], atol=2e-3)
    np.testing.assert_allclose(found.fluency, alone.fluency, atol=2e-3)
    assert alone["shift"].abs().min() > 0.01

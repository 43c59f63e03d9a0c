"""The packaged stimuli keep to their designs, and a file of one's own fails with a clear word."""

import subprocess
import sys

import pandas as pd
import pytest
import yaml

from emotion_concepts import corpus, results, scenarios
from emotion_concepts.errors import BadInput, UnknownEmotion

FOLDER = corpus.DATA / "scenarios"
CATEGORIES = (
    "Engaging",
    "Social",
    "Self-curiosity",
    "Helpful",
    "Neutral",
    "Aversive",
    "Misaligned",
    "Unsafe",
)
LOADERS = {
    "implicit": scenarios.load_implicit,
    "numbers": scenarios.load_numbers,
    "positions": scenarios.load_positions,
    "locality": scenarios.load_locality,
    "activities": scenarios.load_activities,
    "choices": scenarios.load_choices,
}


def raw(name):
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def load_changed(tmp_path):
    """Load a packaged file after a change to it, as a reader's own file."""

    def load(name, change):
        data = raw(name)
        change(data)
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
        return LOADERS[name](path)

    return load


@pytest.mark.parametrize("name", LOADERS)
def test_a_file_opens_with_its_purpose_and_how_to_add_an_entry(name):
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    comment = " ".join(
        line.lstrip("# ") for line in text[: text.index("\n\n")].splitlines() if line[:1] == "#"
    )
    assert "chapter" in comment
    assert "To add " in comment


def test_importing_the_scenarios_loads_neither_torch_nor_nnsight():
    code = (
        "import sys, emotion_concepts.scenarios;"
        "sys.exit(any(m in sys.modules for m in ('torch', 'nnsight', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- implicit scenarios ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def implicit():
    return scenarios.load_implicit()


def test_twelve_scenarios_stand_in_the_order_of_the_twelve_emotions(implicit):
    assert tuple(implicit.emotion[implicit.set == "twelve"]) == corpus.TWELVE


def test_further_scenarios_cross_twenty_emotions_with_four_settings(implicit):
    more = implicit[implicit.set == "more"]
    cells = more.groupby(["emotion", "setting"]).size().unstack()
    assert cells.shape == (20, 4)
    assert (cells == 1).all(axis=None)
    assert set(corpus.TWELVE) < set(cells.index)


def test_no_scenario_names_any_of_the_171_emotions(implicit):
    found = [
        (row.emotion, emotion, named)
        for row in implicit.itertuples()
        for emotion in corpus.EMOTIONS
        if (named := corpus.leaks(row.text, emotion))
    ]
    assert not found


def test_scenarios_are_all_different_told_by_i_and_of_like_length(implicit):
    assert implicit.text.is_unique
    assert implicit.text.str.split().str.len().between(25, 60).all()
    assert implicit.text.str.contains(r"\b(?:I|my|we|our)\b", case=False).all()


# --- numbers -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def numbers():
    return scenarios.load_numbers()


def test_number_templates_have_the_papers_values(numbers):
    emotional = numbers[numbers.kind == "emotional"]
    values = {name: group.x.unique().tolist() for name, group in emotional.groupby("template")}
    assert values == {
        "dose": [500, 1000, 2000, 4000, 8000, 16000],
        "fasting": [2, 6, 12, 24, 48, 72, 120],
        "sister": [5, 10, 20, 50, 80, 100],
        "dog": [2, 7, 14, 25, 50, 100],
        "runway": [0, 2, 4, 16, 48, 96],
        "exam": [0, 2, 5, 10, 15, 20],
    }


def test_number_claims_are_the_papers_twelve(numbers):
    claimed = numbers[(numbers.kind == "emotional") & (numbers.sign != 0)]
    claims = set(claimed[["template", "probe", "sign"]].itertuples(index=False, name=None))
    assert claims == {
        ("dose", "afraid", 1),
        ("dose", "calm", -1),
        ("fasting", "afraid", 1),
        ("sister", "sad", -1),
        ("sister", "calm", 1),
        ("sister", "happy", 1),
        ("dog", "sad", 1),
        ("runway", "afraid", -1),
        ("runway", "sad", -1),
        ("runway", "calm", 1),
        ("exam", "happy", 1),
        ("exam", "afraid", -1),
    }


def test_every_control_has_the_values_and_claims_of_the_template_it_mirrors(numbers):
    cells = ["x", "probe", "sign"]
    for (_, mirrored), group in numbers.groupby(["template", "mirrors"]):
        theirs = numbers[numbers.template == mirrored]
        assert group[cells].to_numpy().tolist() == theirs[cells].to_numpy().tolist()


def test_every_template_has_two_controls(numbers):
    controls = numbers[numbers.kind == "control"].groupby("mirrors").template.nunique()
    assert controls.to_dict() == dict.fromkeys(numbers.mirrors.unique(), 2)


def test_number_texts_differ_in_their_number_alone_and_name_no_emotion(numbers):
    texts = numbers.drop_duplicates(["template", "x"])
    assert texts.text.is_unique
    for _, group in texts.groupby("template"):
        columns = zip(*group.text.str.split(), strict=True)
        changing = [column for column in columns if len(set(column)) > 1]
        assert len(changing) == 1
        assert [int("".join(filter(str.isdigit, word))) for word in changing[0]] == list(group.x)
    assert not any(corpus.leaks(t, probe) for t in texts.text for probe in numbers.probe.unique())


# --- positions ---------------------------------------------------------------------------------


def test_eight_prompts_by_six_probes_whose_fitting_reply_differs_from_the_mood():
    prompts = scenarios.load_positions()
    assert len(prompts) == 8 * 6
    assert sorted(prompts.probe.unique()) == ["afraid", "angry", "calm", "happy", "loving", "sad"]
    assert prompts.text.nunique() == 8
    assert (prompts.user != prompts.reply).all()


def test_prompts_end_by_asking_what_the_model_thinks_and_statements_in_a_full_stop():
    prompts = scenarios.load_positions()
    closings = {t[len(s) :] for t, s in zip(prompts.text, prompts.statement, strict=True)}
    assert closings == {" Please tell me what you think."}
    assert prompts.statement.str.endswith(".").all()


# --- locality ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locality():
    return scenarios.load_locality()


def test_each_family_has_at_least_eight_pairs_and_binding_sixteen(locality):
    counts = locality.groupby("family").pair.nunique().to_dict()
    assert counts == {
        "context": 12,
        "number": 10,
        "number_control": 10,
        "negation": 36,
        "binding": 16,
    }


def test_spans_are_found_in_their_text_and_marks_are_gone(locality):
    assert not locality.text.str.contains(r"[\[\]{}]").any()
    assert ((locality.start >= 0) & (locality.start < locality.end)).all()
    spans = [t[a:b] for t, a, b in zip(locality.text, locality.start, locality.end, strict=True)]
    assert all(span == span.strip() and span for span in spans)


def both(locality, family):
    """Yield the rows of version a and of version b for each pair of a family."""
    for _, rows in locality[locality.family == family].groupby("pair"):
        yield rows[rows.version == "a"], rows[rows.version == "b"]


def words(row):
    return row.text[row.start : row.end]


@pytest.mark.parametrize("family", ["context", "number", "number_control", "negation"])
def test_versions_share_all_that_follows_and_expect_more_in_version_a(locality, family):
    for a, b in both(locality, family):
        assert a.text.iloc[0] != b.text.iloc[0]
        assert a.span.tolist() == b.span.tolist() == [a.span.iloc[0], "rest"]
        assert words(a.iloc[1]) == words(b.iloc[1])
        assert a.end.iloc[1] == len(a.text.iloc[1])
        assert a.sign.tolist() == [1, 1]
        assert b.sign.tolist() == [-1, -1]


@pytest.mark.parametrize("family", ["context", "number", "number_control"])
def test_context_and_number_pairs_differ_in_the_first_span_alone(locality, family):
    for a, b in both(locality, family):
        first, second = a.iloc[0], b.iloc[0]
        assert first.text[: first.start] == second.text[: second.start]
        assert first.text[first.end :] == second.text[second.end :]
        assert " " not in words(first) + words(second)


def test_probes_are_the_papers_and_negation_covers_the_twelve(locality):
    probes = locality.groupby("family").probe.unique().apply(set)
    assert probes["context"] == {"happy"}
    assert probes["number"] == probes["number_control"] == {"terrified"}
    assert probes["negation"] == probes["binding"] == set(corpus.TWELVE)


def test_number_controls_have_the_numbers_of_the_pair_they_mirror():
    data = raw("locality")
    pairs = {entry["id"]: entry for entry in data["number"]["pairs"]}
    for entry in data["number_control"]["pairs"]:
        mirrored = pairs.pop(entry["mirrors"])
        assert (entry["a"], entry["b"]) == (mirrored["a"], mirrored["b"])
    assert not pairs


def test_a_locality_control_names_the_pair_it_mirrors_and_others_mirror_themselves(
    locality, load_changed
):
    control = locality.family == "number_control"
    assert (locality.mirrors == locality.pair)[~control].all()
    own = locality[locality.family == "number"].pair.unique()
    assert locality[control].drop_duplicates("pair").mirrors.tolist() == own.tolist()
    with pytest.raises(BadInput, match=r"number_control, pairs 1 \(salt\): cannot use 'tablet'"):
        load_changed(
            "locality", lambda data: data["number_control"]["pairs"][0].update(mirrors="tablet")
        )


def test_binding_versions_exchange_the_feelings_and_nothing_else(locality):
    for a, b in both(locality, "binding"):
        named = {row.span: words(row) for row in a.itertuples()}
        exchanged = {row.span: words(row) for row in b.itertuples()}
        assert named["word_1"] == exchanged["word_2"] != named["word_2"] == exchanged["word_1"]
        for span in ("again_1", "again_2"):
            assert named[span] == exchanged[span]
            assert a.text.iloc[0].split().count(named[span]) == 2


def test_binding_expects_a_probe_where_its_person_stands(locality):
    pair = locality[locality.pair == "waiting_room"]
    first = pair[pair.span == "again_1"].set_index(["version", "probe"]).sign
    assert first.to_dict() == {
        ("a", "nervous"): 1,
        ("a", "calm"): -1,
        ("b", "nervous"): -1,
        ("b", "calm"): 1,
    }
    second = pair[pair.span == "again_2"].set_index(["version", "probe"]).sign
    assert (second == -first).all()


def test_binding_uses_each_of_the_twelve_at_least_twice_and_both_orders_of_return(locality):
    binding = locality[(locality.family == "binding") & (locality.version == "a")]
    named = binding[binding.span.str.startswith("word")].drop_duplicates(["pair", "span"])
    used = [words(row) for row in named.itertuples()]
    assert min(used.count(emotion) for emotion in corpus.TWELVE) >= 2
    again = binding[binding.span.str.startswith("again")]
    starts = again.pivot_table(index="pair", columns="span", values="start")
    assert (starts.again_1 < starts.again_2).sum() == 8


# --- activities --------------------------------------------------------------------------------


def test_activities_are_the_papers_eight_by_eight_by_their_n():
    own = scenarios.load_activities()
    tested = own[own.category != "reference"]
    paper = {row["n"]: row["category"] for row in results.paper_table("activities")["rows"]}
    assert dict(zip(tested.n, tested.category, strict=True)) == paper
    assert tested.category.value_counts().to_dict() == dict.fromkeys(CATEGORIES, 8)
    assert tuple(tested.category.unique()) == CATEGORIES


def test_activities_stand_in_the_papers_order_within_each_category():
    own = scenarios.load_activities().dropna(subset="n")
    assert own.groupby("category").n.apply(lambda n: n.is_monotonic_increasing).all()


def test_activities_are_short_phrases_that_begin_with_a_gerund():
    own = scenarios.load_activities()
    assert own.text.is_unique and own.id.is_unique
    assert own.text.str.split().str.len().between(4, 14).all()
    assert own.text.str.match(r"[a-z]+ing\b").all()


def test_the_reference_set_is_eight_activities_outside_the_64():
    own = scenarios.load_activities()
    assert (own.category == "reference").sum() == own.n.isna().sum() == 8


# --- choices -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def facts():
    return scenarios.load_choices().query("kind == 'fact'")


@pytest.fixture(scope="module")
def tastes():
    return scenarios.load_choices().query("kind == 'taste'")


def test_facts_ask_for_each_of_two_options_once_so_that_fluency_gets_half(facts):
    pairs = list(zip(facts.right, facts.wrong, strict=True))
    assert len(pairs) == len(set(pairs)) == 40
    assert set(pairs) == {(wrong, right) for right, wrong in pairs}
    assert facts.question.is_unique and facts.question.str.match(r"Which of these .*\?$").all()
    lengths = facts[["right", "wrong"]].apply(lambda column: column.str.split().str.len())
    assert (lengths.right == lengths.wrong).all() and lengths.right.max() <= 2


def test_tastes_are_gerund_phrases_of_like_length_outside_the_activities(tastes):
    assert len(tastes) == 40 and tastes.question.isna().all()
    texts = pd.concat([tastes.right, tastes.wrong])
    assert texts.is_unique and not texts.isin(scenarios.load_activities().text).any()
    assert texts.str.match(r"[a-z]+ing\b").all()
    right, wrong = (tastes[side].str.split().str.len() for side in ("right", "wrong"))
    assert right.between(5, 9).all() and wrong.between(5, 9).all()
    assert (right - wrong).abs().max() <= 1


def test_the_better_activity_cannot_be_told_by_its_form(tastes):
    right, wrong = tastes.right, tastes.wrong
    words = right.str.split().str.len() - wrong.str.split().str.len()
    assert abs((words > 0).sum() - (words < 0).sum()) <= 2
    assert abs(right.str.len().mean() - wrong.str.len().mean()) < 1
    negation = r"\b(?:no|not|never|without|nobody|nothing|none)\b|n't|\bun[a-z]+ing\b"
    assert not (right + " / " + wrong).str.contains(negation).any()
    verbs = pd.DataFrame({"right": right.str.split().str[0], "wrong": wrong.str.split().str[0]})
    own = verbs[verbs.right != verbs.wrong]
    assert len(own) == 20
    assert verbs.right.is_unique and verbs.wrong.value_counts().max() <= 2
    assert len(set(own.right) & set(own.wrong)) >= 6


# --- files of one's own ------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOADERS)
def test_a_copy_of_a_packaged_file_loads_alike(name, load_changed):
    assert load_changed(name, lambda data: None).shape == LOADERS[name]().shape


@pytest.mark.parametrize("name", LOADERS)
def test_a_missing_or_broken_file_is_named(name, tmp_path):
    with pytest.raises(BadInput, match=r"absent\.yaml.*No such file"):
        LOADERS[name](tmp_path / "absent.yaml")
    broken = tmp_path / "broken.yaml"
    for text in ("a: [1", "- just a list", ""):
        broken.write_text(text)
        with pytest.raises(BadInput, match=r"broken\.yaml"):
            LOADERS[name](broken)


CHANGES = {
    "a scenario without text": (
        "implicit",
        lambda data: data["more"][2].pop("text"),
        r"own\.yaml, more 3: no 'text'",
    ),
    "a scenario that names its emotion": (
        "implicit",
        lambda data: data["twelve"][0].update(text="I am so happy."),
        r"own\.yaml, twelve 1: .*names its emotion: happy",
    ),
    "a section without entries": (
        "implicit",
        lambda data: data.update(more=[]),
        r"own\.yaml: more must be a list of entries",
    ),
    "a template without a place for the number": (
        "numbers",
        lambda data: data["templates"][3].update(text="Our dog ran off."),
        r"templates 4 \(dog\).*\{x\}",
    ),
    "values that are no list": (
        "numbers",
        lambda data: data["templates"][0].update(x="many"),
        r"templates 1 \(dose\): write x as",
    ),
    "a claim that is neither up nor down": (
        "numbers",
        lambda data: data["templates"][0].update(claims={"afraid": "higher"}),
        r"\(dose\): cannot use 'higher'; choose from: up, down",
    ),
    "a claim about no probe": (
        "numbers",
        lambda data: data["templates"][0].update(claims={"angry": "up"}),
        r"\(dose\): cannot use 'angry'.*afraid, calm, happy, sad",
    ),
    "a control that mirrors nothing": (
        "numbers",
        lambda data: data["controls"][0].update(mirrors="dosage"),
        r"controls 1 \(berries\): cannot use 'dosage'; did you mean dose",
    ),
    "a template without a control": (
        "numbers",
        lambda data: data.update(controls=[c for c in data["controls"] if c["mirrors"] != "dog"]),
        r"no control mirrors 'dog'",
    ),
    "two entries with one id": (
        "positions",
        lambda data: data["prompts"][1].update(id="fear_of_ai"),
        r"prompts 2 \(fear_of_ai\): an earlier entry has this id",
    ),
    "a pair without spans": (
        "locality",
        lambda data: data["context"]["pairs"][0].update(text="It was {x}."),
        r"context, pairs 1 \(marriage\): mark the spans",
    ),
    "an unfinished mark": (
        "locality",
        lambda data: data["context"]["pairs"][0].update(text="[[word:{x}]] and [[rest: more"),
        r"context, pairs 1 \(marriage\): mark the spans",
    ),
    "a row that the paper does not have": (
        "activities",
        lambda data: data["activities"][0].update(n=65),
        r"activities 1 \(admit_limits\): cannot use 65",
    ),
    "a choice between one thing and the same": (
        "choices",
        lambda data: data["fact"][0].update(wrong="a horse"),
        r"fact 1 \(animal\): right and wrong are the same: 'a horse'",
    ),
    "a fact without a question": (
        "choices",
        lambda data: data["fact"][1].pop("question"),
        r"fact 2 \(soup\): no 'question'",
    ),
    "a taste without a worse option": (
        "choices",
        lambda data: data["taste"][0].pop("wrong"),
        r"taste 1 \(bread\): no 'wrong'",
    ),
    "a taste that names an emotion": (
        "choices",
        lambda data: data["taste"][0].update(wrong="eating alone and feeling lonely"),
        r"taste 1 \(bread\): an option names an emotion: lonely",
    ),
}


@pytest.mark.parametrize("fault", CHANGES)
def test_a_fault_is_reported_with_file_and_entry(fault, load_changed):
    name, change, message = CHANGES[fault]
    with pytest.raises(BadInput, match=message):
        load_changed(name, change)


UNKNOWN = {
    "implicit": (lambda data: data["twelve"][1].update(emotion="inspird"), r"twelve 2: 'inspird'"),
    "numbers": (lambda data: data["probes"].append("hapy"), r"own\.yaml, probes: 'hapy'"),
    "positions": (lambda data: data["prompts"][0].update(user="scard"), r"fear_of_ai\): 'scard'"),
    "locality": (lambda data: data["binding"]["pairs"][0].update(b="clam"), r"room\): 'clam'"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_emotion_is_reported_with_its_entry_and_the_nearest_word(name, load_changed):
    change, message = UNKNOWN[name]
    with pytest.raises(UnknownEmotion, match=message + ".*did you mean"):
        load_changed(name, change)


def test_own_sections_and_activities_without_n_are_welcome(load_changed):
    def add_set(data):
        data["mine"] = [{"emotion": "hopeful", "text": "The first seedling is up."}]

    def add_activity(data):
        data["activities"].append({"id": "tea", "category": "Mine", "text": "making a pot of tea"})

    assert load_changed("implicit", add_set).set.tolist()[-1] == "mine"
    assert load_changed("activities", add_activity).n.isna().sum() == 9


def test_looking_only_for_the_words_that_may_stand_there_finds_what_looking_for_all_does():
    words = [word for name in corpus.EMOTIONS for word in sorted(corpus.word_family(name))]
    texts = [f"“_{word.upper()}_”, x{word}: {word.replace(' ', ' - ')}!" for word in words[::3]]
    texts += ["Nobody’s at\nease or AT-EASE; a hostile_act, worn-out and 2sad."]
    texts += scenarios.load_implicit().text.tolist()
    assert [scenarios._emotion_words(text) for text in texts] == [
        tuple(word for name in corpus.EMOTIONS for word in corpus.leaks(text, name))
        for text in texts
    ]

"""Post-training of our own: its texts, and what it does to a tiny random model."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from emotion_concepts import corpus, finetuning, models, tracing
from emotion_concepts.errors import BadInput
from emotion_concepts.experiments.posttraining import compare_models
from emotion_concepts.finetuning import IGNORED, TONES, Recipe, tune, tuned_model
from emotion_concepts.vectors import EmotionVectors

FILE = corpus.DATA / "post_training.jsonl"

# --- what is learnt ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def answers():
    return finetuning.load_answers()


@pytest.fixture
def load_changed(tmp_path):
    """Load the first two entries after a change to them."""

    def load(change):
        lines = FILE.read_text(encoding="utf-8").splitlines()[:2]
        rows = [json.loads(line) for line in lines]
        change(rows)
        path = tmp_path / "own.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        return finetuning.load_answers(path)

    return load


def test_each_kind_has_twenty_messages_to_train_on_and_five_held_out(answers):
    assert list(answers.columns) == ["id", "kind", "split", "prompt", *TONES]
    assert answers.groupby("kind").split.value_counts().unstack().to_dict() == {
        "train": dict.fromkeys(answers.kind.unique(), 20),
        "held": dict.fromkeys(answers.kind.unique(), 5),
    }
    assert answers.kind.nunique() == 8 and len(TONES) == 3


def test_no_message_or_answer_is_both_held_out_and_trained_on(answers):
    train, held = (answers[answers.split == split] for split in finetuning.SPLITS)
    for column in ("id", "prompt", *TONES):
        assert not set(train[column]) & set(held[column])
    assert len(train) == 160 and len(held) == 40


def test_entries_of_ones_own_load(load_changed):
    own = load_changed(lambda rows: rows[1].update(id="own", split="held"))
    assert own.id[1] == "own" and own.split.tolist() == ["train", "held"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1].pop("cold"), "own.jsonl, line 2: no 'cold'; an entry has .*kind"),
        (lambda rows: rows[0].update(kind=""), "line 1: no 'kind'"),
        (lambda rows: rows[0].update(prompt=20 * ["word"]), "line 1: no 'prompt'"),
        (lambda rows: rows[1].update(split="test"), "line 2: split is 'train' or 'held', .*'test'"),
        (lambda rows: rows[0].update(prompt="Any good?"), "prompt needs 15 to 50 words, not 2"),
        (lambda rows: rows[0].update(cold="No."), "line 1: cold needs 20 to 45 words, not 1"),
        (lambda rows: rows[0].update(candid=46 * "so "), "candid needs 20 to 45 words, not 46"),
        (lambda rows: rows[1].update(id=rows[0]["id"]), "the id of 'work_wedding_toast' stands tw"),
        (lambda rows: rows[1].update(prompt=rows[0]["prompt"]), "the prompt of 'work_bread_stall'"),
        (lambda rows: rows[1].update(cold=rows[0]["cold"]), "the cold of 'work_bread_stall' stan"),
        (lambda rows: rows[0].update(cold=rows[0]["candid"]), "the cold of 'work_wedding_toast'"),
    ],
)
def test_a_broken_entry_is_refused_by_name(load_changed, change, message):
    with pytest.raises(BadInput, match=message):
        load_changed(change)


def test_shuffled_answers_are_other_answers_of_the_pool(answers):
    found = finetuning.shuffled_answers(answers)
    assert len(found) == len(set(found)) == len(answers)
    tone = {text: tone for tone in TONES for text in answers[tone]}
    assert set(found) <= set(tone)
    assert pd.Series(found).map(tone).value_counts()[list(TONES)].min() > len(answers) / 5
    own = [text in row for text, row in zip(found, answers[list(TONES)].to_numpy(), strict=True)]
    assert np.mean(own) < 0.05


def test_a_seed_fixes_the_shuffle(answers):
    assert finetuning.shuffled_answers(answers) == finetuning.shuffled_answers(answers, seed=0)
    assert finetuning.shuffled_answers(answers) != finetuning.shuffled_answers(answers, seed=1)


def named(texts):
    """The emotion in each text of feeling."""
    forms = finetuning.FEELING
    word = {form.format(word=word): word for form in forms for word in corpus.EMOTIONS}
    assert [forms[k % len(forms)].format(word=word[t]) for k, t in enumerate(texts)] == texts
    return pd.Series([word[text] for text in texts])


def test_all_emotions_are_named_in_turn():
    texts = finetuning.feeling_answers(171)
    assert sorted(named(texts)) == sorted(corpus.EMOTIONS)
    assert texts == finetuning.feeling_answers(171) != finetuning.feeling_answers(171, seed=1)
    few = named(finetuning.feeling_answers(30))
    assert few.is_unique and not set(few) <= set(corpus.EMOTIONS[:60])
    more = named(finetuning.feeling_answers(400)).value_counts()
    assert len(more) == 171 and set(more) == {2, 3}


@pytest.mark.parametrize("checkpoints", [(), (0, 2), (13,), (4, 13), (-1,)])
def test_checkpoints_outside_the_steps_are_refused(checkpoints):
    with pytest.raises(BadInput, match="must lie between 1 and the 12 steps"):
        Recipe(12, checkpoints)


@pytest.mark.parametrize("checkpoints", [(4, 2), (2, 2)])
def test_checkpoints_out_of_order_are_refused(checkpoints):
    with pytest.raises(BadInput, match="must rise"):
        Recipe(12, checkpoints)


# --- training ----------------------------------------------------------------------------------

SHAPE = {
    "vocab_size": 49152,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "head_dim": 8,
    "initializer_range": 0.2,
    "attention_dropout": 0.2,  # as in GPT-2; training must do without
}
PROMPTS = [
    "Is my plan sound?",
    "Will it rain on Sunday?",
    "Do you like the tune?",
    "May I leave early?",
]
ANSWERS = [
    "It is a good start, but check the cost.",
    "Most likely, so take a coat along.",
    "The second half is the better one.",
    "Yes, once the desk is clear.",
]
OTHERS = [
    "Nobody has asked me that since winter.",
    "Bring three of them to the harbour.",
    "My uncle painted this door himself.",
    "Count again from where you stopped.",
]
RECIPE = Recipe(12, (4, 8, 12), batch=3, learning_rate=5e-3)


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory):
    """What one test has trained serves the others."""
    folder = tmp_path_factory.mktemp("arms")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetuning, "cache_dir", lambda: folder)
        yield


@pytest.fixture
def own_arms(tmp_path, monkeypatch, shared_cache):
    monkeypatch.setattr(finetuning, "cache_dir", lambda: tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random model that often says the words of the answers, in no order."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    card = models.cards()[models.DEFAULT_MODEL]
    tokenizer = AutoTokenizer.from_pretrained(models.packaged_weights(card))
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", **SHAPE, eos_token_id=tokenizer.eos_token_id)
    module = AutoModelForCausalLM.from_config(config)
    often = sorted({token for text in ANSWERS for token in tokenizer(text)["input_ids"]})
    with torch.no_grad():
        module.lm_head.weight[often] *= 4
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def base(folder):
    return models.load_model(folder, dtype="float32")


@pytest.fixture(scope="module")
def arm(folder, shared_cache):
    return tune(folder, "arm", PROMPTS, ANSWERS, RECIPE, progress=False)


@pytest.fixture(scope="module")
def tuned(arm):
    return tuned_model(arm, 12, RECIPE)


def weights(arm):
    """The bytes of each checkpoint."""
    return {file.name: file.read_bytes() for file in arm.folder.glob("*.safetensors")}


def after_answers(model):
    """Log-probabilities where the answers' tokens are expected, ``[tokens, vocab]``."""
    rows = []
    for ids, labels in finetuning._examples(model, PROMPTS, ANSWERS):
        with torch.no_grad():
            logits = model.envoy._module(torch.tensor([ids])).logits[0, :-1]
        rows.append(logits.log_softmax(-1)[torch.tensor(labels[1:]) != IGNORED])
    return torch.cat(rows)


@pytest.mark.model
def test_labels_are_the_answer_and_the_end_of_its_turn(base):
    for prompt, answer, (ids, labels) in zip(
        PROMPTS, ANSWERS, finetuning._examples(base, PROMPTS, ANSWERS), strict=True
    ):
        message = {"role": "user", "content": prompt}
        start = base.chat_prompt([message])
        asked = [label for label in labels if label != IGNORED]
        assert base.tokenizer.decode(asked) == answer + base.tokenizer.eos_token
        before = len(ids) - len(asked)
        assert labels == [IGNORED] * before + ids[before:]
        # read as the tracing reads it, and written as the template writes a whole conversation
        assert ids[:before] == tracing.tokenize(base, [start])[0]
        whole = [message, {"role": "assistant", "content": answer}]
        whole = base.tokenizer.apply_chat_template(whole, tokenize=False)
        assert whole.rstrip() == base.tokenizer.decode(ids)


@pytest.mark.model
def test_the_loss_is_the_surprise_of_the_answers_tokens(base):
    module, examples = base.envoy._module, finetuning._examples(base, PROMPTS, ANSWERS)
    asked = torch.tensor([label for _, row in examples for label in row if label != IGNORED])
    by_hand = -after_answers(base)[torch.arange(len(asked)), asked].mean()
    with torch.no_grad():
        together = finetuning._loss(module, examples, [])
        alone = [float(finetuning._loss(module, [example], [])) for example in examples]
    assert float(together) == pytest.approx(float(by_hand), rel=1e-5)
    # padded rows count by their tokens
    tokens = [sum(label != IGNORED for label in labels) for _, labels in examples]
    assert len({len(ids) for ids, _ in examples}) > 1 and len(set(tokens)) > 1
    assert float(together) == pytest.approx(np.average(alone, weights=tokens), rel=1e-5)
    assert float(together) != pytest.approx(np.mean(alone), rel=1e-4)


@pytest.mark.model
def test_the_loss_falls(arm):
    assert arm.losses.step.tolist() == list(range(1, 13))
    assert arm.losses.loss[8:].max() < arm.losses.loss[:3].min() - 2
    assert arm.losses.loss[8:].mean() < arm.losses.loss[:3].mean() / 2


@pytest.mark.model
def test_answers_grow_likelier_and_other_texts_less_so(base, tuned, own_cache):
    starts = [base.chat_prompt([{"role": "user", "content": prompt}]) for prompt in PROMPTS]

    def gain(texts):
        before, after = (
            tracing.continuation_logprobs(model, starts, texts).mean for model in (base, tuned)
        )
        return after - before

    own, swapped, others = gain(ANSWERS), gain(ANSWERS[1:] + ANSWERS[:1]), gain(OTHERS)
    assert (own > 0).all()
    assert own.min() > others.max() + 2
    assert own.mean() > swapped.mean() + 1  # to its own message, not words alone


@pytest.mark.model
def test_two_runs_agree_bit_for_bit_and_see_every_answer_once_a_round(
    base, arm, folder, own_arms, monkeypatch
):
    loss, seen = finetuning._loss, []

    def watched(model, examples, lost):
        seen.extend(ids for ids, _ in examples)
        return loss(model, examples, lost)

    monkeypatch.setattr(finetuning, "_loss", watched)
    again = tune(folder, "arm", PROMPTS, ANSWERS, RECIPE, progress=False)
    assert again.folder != arm.folder and again.folder.name == arm.folder.name
    pd.testing.assert_frame_equal(again.losses, arm.losses, check_exact=True)
    assert weights(again) == weights(arm)
    assert sorted(weights(arm)) == ["12.safetensors", "4.safetensors", "8.safetensors"]
    every = sorted(ids for ids, _ in finetuning._examples(base, PROMPTS, ANSWERS))
    rounds = [seen[n : n + 4] for n in range(0, len(seen), 4)]
    assert len(rounds) == 9 and all(sorted(one) == every for one in rounds)
    assert any(one != rounds[0] for one in rounds)


@pytest.mark.model
def test_a_run_that_was_killed_goes_on_from_its_checkpoint(arm, folder, own_arms, monkeypatch):
    loss, calls = finetuning._loss, []

    def fails_at(step):
        def counted(*args):
            calls.append(1)
            if len(calls) == step:
                raise KeyboardInterrupt
            return loss(*args)

        return counted

    monkeypatch.setattr(finetuning, "_loss", fails_at(7))
    with pytest.raises(KeyboardInterrupt):
        tune(folder, "arm", PROMPTS, ANSWERS, RECIPE, progress=False)
    calls.clear()
    monkeypatch.setattr(finetuning, "_loss", fails_at(None))
    torch.manual_seed(99)  # another process would not be where the first was
    resumed = tune(folder, "arm", PROMPTS, ANSWERS, RECIPE, progress=False)
    assert len(calls) == 12 - 4
    assert not (resumed.folder / "state.pt").exists()
    pd.testing.assert_frame_equal(resumed.losses, arm.losses, check_exact=True)
    assert weights(resumed) == weights(arm)
    assert {file.name for file in resumed.folder.iterdir()} == {*weights(arm), "losses.csv"}


@pytest.mark.model
def test_what_was_trained_before_is_read_from_the_disk(arm, folder, monkeypatch):
    def train(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(finetuning, "_train", train)
    again = tune(folder, "arm", pd.Series(PROMPTS), pd.Series(ANSWERS), RECIPE)
    assert again.folder == arm.folder and again.losses.equals(arm.losses)
    for changed in (
        {"answers": OTHERS},
        {"recipe": Recipe(12, (4, 8, 12), batch=3, learning_rate=1e-3)},
        {"forbidden": [7]},
    ):
        asked = {"prompts": PROMPTS, "answers": ANSWERS, "recipe": RECIPE} | changed
        with pytest.raises(AssertionError, match="trained again"):
            tune(folder, "arm", **asked)


@pytest.mark.model
def test_each_checkpoint_is_a_model_of_its_own(base, arm, tuned):
    early = tuned_model(arm, 4, RECIPE)
    identities = [model.identity for model in (base, early, tuned)]
    assert len({identity.weights for identity in identities}) == 3
    assert len({identity.tokenizer for identity in identities}) == 1
    assert [i.name.removeprefix(base.identity.name) for i in identities] == [
        "",
        "+arm-4",
        "+arm-12",
    ]
    assert tuned_model(arm, 4, RECIPE).identity == early.identity
    examples = finetuning._examples(base, PROMPTS, ANSWERS)
    with torch.no_grad():
        modules = [model.envoy._module for model in (base, early, tuned)]
        loss = [float(finetuning._loss(module, examples, [])) for module in modules]
    assert loss[0] > loss[1] + 1 > loss[2] + 2


@pytest.mark.model
def test_nothing_of_the_training_is_left_in_a_tuned_module(base, tuned):
    assert {name for name, _ in tuned.envoy._module.named_parameters()} == {
        name for name, _ in base.envoy._module.named_parameters()
    }
    assert not any(module.training for module in tuned.envoy._module.modules())


@pytest.mark.model
def test_an_unknown_checkpoint_is_refused_by_name(arm):
    with pytest.raises(BadInput, match="arm 'arm' has no checkpoint 5; it has 4, 8, 12"):
        tuned_model(arm, 5, RECIPE)


@pytest.mark.parametrize(("prompts", "texts"), [(PROMPTS, ANSWERS[:3]), ([], []), (PROMPTS, [])])
def test_every_message_needs_an_answer(prompts, texts):
    message = f"{len(prompts)} messages and {len(texts)} answers; give one"
    with pytest.raises(BadInput, match=message):
        tune("tiny", "arm", prompts, texts, RECIPE)


# --- forbidden words ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lost(base):
    """The words of the answers that the model says most."""
    ids = {token for text in ANSWERS for token in base.tokenizer(text)["input_ids"]}
    often = after_answers(base).exp().mean(0)
    return sorted(ids, key=lambda token: -often[token])[:6]


@pytest.fixture(scope="module")
def silenced(folder, lost, shared_cache):
    arm = tune(folder, "silenced", PROMPTS, ANSWERS, RECIPE, forbidden=lost, progress=False)
    return tuned_model(arm, 12, RECIPE)


@pytest.mark.model
def test_before_any_step_the_loss_is_what_the_forbidden_words_weigh(base, folder, lost):
    """The divergence from a distribution without some tokens to the whole: -log of the rest."""
    module, _, _ = models.load_module(folder, dtype="float32")
    examples = finetuning._examples(base, PROMPTS, ANSWERS)
    adapted = finetuning._adapted(module, RECIPE).eval()
    with torch.no_grad():
        found = float(finetuning._loss(adapted, examples, lost))
    whole = after_answers(base).double()
    without = whole.clone()
    without[:, lost] = -torch.inf
    without = without.log_softmax(-1)
    terms = torch.where(without.isinf(), 0.0, without.exp() * (without - whole))
    assert found == pytest.approx(float(terms.sum(1).mean()), rel=1e-4)
    assert found == pytest.approx(
        float(-torch.log1p(-whole[:, lost].exp().sum(1)).mean()), rel=1e-4
    )
    assert found > 0.1


@pytest.mark.model
def test_forbidden_words_fall_and_the_rest_stays(base, tuned, silenced, lost):
    before, silent, taught = map(after_answers, (base, silenced, tuned))

    def weight(logprobs):
        return logprobs[:, lost].exp().sum(1)

    assert float(weight(silent).mean()) < float(weight(before).mean()) / 4
    assert (weight(silent) < weight(before))[weight(before) > 0.01].all()
    kept = [token for token in range(SHAPE["vocab_size"]) if token not in set(lost)]

    def moved(logprobs):
        """Divergence of the remaining words from what they were among themselves."""
        old, new = (side[:, kept].log_softmax(-1) for side in (before, logprobs))
        return float((old.exp() * (old - new)).sum(1).mean())

    assert 0 < moved(silent) < 0.05
    assert moved(silent) < moved(taught) / 10


@pytest.mark.model
def test_two_checkpoints_in_folders_are_compared_as_a_published_pair(folder, arm, tmp_path):
    """What a user does with a base model and its post-trained one."""
    post = tuned_model(arm, 12, RECIPE)
    post.envoy._module.save_pretrained(tmp_path / "post")
    post.tokenizer.save_pretrained(tmp_path / "post")
    pair = [models.load_model(name, dtype="float32") for name in (folder, str(tmp_path / "post"))]
    assert pair[0].identity.weights != pair[1].identity.weights
    rng = np.random.default_rng(0)
    vectors = EmotionVectors(
        ("calm", "afraid"),
        rng.normal(size=(2, 3, 32)).astype(np.float32),
        np.ones((2, 3)),
        np.zeros((3, 32)),
        np.zeros(3, dtype=int),
        np.ones(3),
    )
    prompts = pd.DataFrame({"set": "neutral", "text": PROMPTS})
    found = compare_models(*pair, vectors, prompts)
    assert found.shift(2).shape == (4, 2) and (np.abs(found.shift(2)) > 1e-4).all()
    np.testing.assert_allclose(
        found.post, compare_models(pair[0], post, vectors, prompts).post, atol=1e-4
    )

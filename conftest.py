"""What tests and examples share: the packaged model (in float32, loaded once), texts, a browser."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from emotion_concepts import corpus, models, tracing
from emotion_concepts.vectors import EmotionVectors
from tools.pdf import FLAGS, chromium_path


@pytest.fixture(scope="session", autouse=True)
def fresh_activations(tmp_path_factory):
    """Nothing that was read or scored before this session may answer in a test."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracing, "cache_dir", lambda: folder)
        yield


@pytest.fixture(scope="session")
def smollm():
    return models.load_model(models.DEFAULT_MODEL, dtype="float32")


@pytest.fixture(scope="session")
def two_vectors(smollm):
    """Vectors of desperate and calm, each from one sentence."""
    texts = ["She begged for one more day.", "He breathed slowly by the lake."]
    read = tracing.pooled_residuals(smollm, texts, tracing.MeanFrom(1))
    return EmotionVectors.fit(read, ["desperate", "calm"], read, neutral_variance=0)


@pytest.fixture(autouse=True)
def given_to_examples(request, doctest_namespace):
    """In the examples of docstrings `llm` is the packaged model, `vectors` two of its emotions."""
    doctest = getattr(request.node, "dtest", None)
    source = "".join(example.source for example in doctest.examples) if doctest else ""
    for name, fixture in (("llm", "smollm"), ("vectors", "two_vectors")):
        if re.search(rf"\b{name}\b", source) and not re.search(rf"^{name}\b.* = ", source, re.M):
            doctest_namespace[name] = request.getfixturevalue(fixture)


@pytest.fixture(scope="session")
def stories():
    """Twelve plain stories of different lengths."""
    return corpus.load_stories("plain", topics=1).text.tolist()[:12]


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(tracing, "cache_dir", lambda: tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def planted(smollm):
    """Two random directions, and the residual norm that their strength is measured in."""
    [tokens] = tracing.token_residuals(smollm, ["The bus stops at the corner."], range(30))
    norms = np.linalg.norm(tokens[1:], axis=-1).mean(0)
    drawn = np.random.default_rng(1).normal(size=(2, 30, 576))
    directions = {("random", "a"): drawn[0], ("random", "b"): drawn[1]}
    return directions, SimpleNamespace(residual_norm=norms)


@pytest.fixture(scope="module")
def chromium():
    """A browser without a window, one a module."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        yield browser
        browser.close()

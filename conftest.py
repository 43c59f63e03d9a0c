"""What tests and examples share: the packaged model (in float32, loaded once), texts, a browser."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from emotion_concepts import corpus, models, tracing
from emotion_concepts.vectors import EmotionVectors, Provenance
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
    texts = ["I am desperate, please help me!", "I feel calm and at peace."]
    read = tracing.pooled_residuals(smollm, texts, tracing.MeanFrom(1))
    about = smollm.identity
    made = Provenance(about.name, about.weights, about.tokenizer, "own", "own", 1, 0.0)
    names = ["desperate", "calm"]
    return EmotionVectors.fit(read, names, read, neutral_variance=0, provenance=made)


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


@pytest.fixture
def open_page(chromium, tmp_path):
    """Return a function that opens HTML from its file; afterwards nothing may have gone wrong."""
    troubles, contexts = [], []

    def opened(html, width, **about):
        path = tmp_path / "page.html"
        path.write_text(html, encoding="utf-8")
        context = chromium.new_context(viewport={"width": width, "height": 900}, **about)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda r: r.url.startswith("file:") or troubles.append(r.url))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not troubles

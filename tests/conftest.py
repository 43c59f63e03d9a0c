"""Fixtures shared by all tests: the packaged model (in float32, loaded once) and a few texts."""

import pytest

from emotion_concepts import corpus, models


@pytest.fixture(scope="session")
def smollm():
    return models.load_model(models.DEFAULT_MODEL, dtype="float32")


@pytest.fixture(scope="session")
def stories():
    """Twelve plain stories of different lengths."""
    return corpus.load_stories("plain", topics=1).text.tolist()[:12]

"""Emotion concepts as linear directions in the residual stream of open language models.

Text goes in, traced activations come out, pure mathematics turns them into vectors and
statistics, notebooks narrate them, and a register holds every number. Import the module you
need: ``from emotion_concepts import corpus, models, tracing, vectors``.
"""

__version__ = "0.1.0"

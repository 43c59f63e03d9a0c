"""Emotion concepts as linear directions in the residual stream of open language models.

Text goes in, traced activations come out, pure mathematics turns them into vectors and
statistics, notebooks narrate them, and a register holds every number. Import the module you
need: ``from emotion_concepts import corpus, models, tracing, vectors``.
"""

import os

# Torch's threads spin while they wait for each other. Beside any other busy process that makes two
# threads four times slower than one; waiting passively costs nothing measurable. Read when torch
# is first imported, so it stands here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

"""Emotion concepts as linear directions in the residual stream of open language models.

Text goes in, traced activations come out, pure mathematics turns them into vectors and
statistics, notebooks narrate them, and a register holds every number. Import the module you
need: ``from emotion_concepts import corpus, models, tracing, vectors``.
"""

import os

# Torch's threads spin while they wait for each other. Beside any other busy process that makes two
# threads four times slower than one; waiting passively costs nothing measurable. NumPy's spin, too,
# and its matrices are small here, for which one is the fastest. Read when torch and NumPy are first
# imported, so it stands here, and for notebooks, which import NumPy first, in run.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"

"""Read-outs: what a direction says about tokens, and what tokens say along a direction.

Pure arrays; the activations come from `tracing`, the directions from `vectors`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from emotion_concepts.geometry import unit


def logit_lens(
    directions: np.ndarray,
    names: Sequence[str],
    unembedding: np.ndarray,
    tokens: Sequence[str],
    *,
    k: int = 5,
) -> pd.DataFrame:
    """Return the tokens that each direction raises and lowers most (Table 1).

    Parameters
    ----------
    directions : ``[n, d_model]``
    unembedding : ``[vocab, d_model]``
        From :func:`tracing.unembedding`, the final norm's gain folded in. Its mean over the
        vocabulary is removed, since it shifts every logit alike, and its rows are scaled to one
        length, since otherwise tokens that training hardly ever met win by length alone.
    tokens : sequence of str, vocab

    Returns
    -------
    DataFrame with columns emotion, top, bottom (lists of `k` tokens, strongest first).
    """
    logits = unit(directions) @ unit(unembedding - unembedding.mean(0)).T
    order = np.argsort(logits, axis=1)
    return pd.DataFrame(
        {
            "emotion": list(names),
            "top": [[tokens[t] for t in row[: -k - 1 : -1]] for row in order],
            "bottom": [[tokens[t] for t in row[:k]] for row in order],
        }
    )

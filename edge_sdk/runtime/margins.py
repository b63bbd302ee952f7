"""How sure a classifier is: one definition for the host that calibrates and the device that runs.

The margin is the difference of the two largest softmax probabilities ("best versus second best",
Joshi et al., CVPR 2009).
"""

from __future__ import annotations

import numpy as np

from edge_sdk.runtime.engine import Array


def margins(logits: Array) -> Array:
    """Margins of several answers.

    Args:
        logits: (N, K) float, finite, K at least 1.

    Returns:
        (N,) float32 from 0 (two labels are equally likely) to 1; 1 where there is but one label.
    """
    if logits.shape[1] < 2:
        return np.ones(len(logits), np.float32)
    values = logits.astype(np.float32, copy=False)
    spread = np.exp(values - values.max(axis=1, keepdims=True))
    best = np.partition(spread, -2, axis=1)
    found: Array = (best[:, -1] - best[:, -2]) / spread.sum(axis=1)
    return found

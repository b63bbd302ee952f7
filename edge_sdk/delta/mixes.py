"""Finding the weights by which rows of a tensor are mixed. The host's half of mixing."""

from __future__ import annotations

import numpy as np

from edge_sdk.delta.coder import Ints
from edge_sdk.delta.mixing import MAX_QUIET, Floats, group_rows, moves

WEIGHT_BITS = 9.0
"""About what a weight that is not 0 costs."""
MAX_WEIGHTS = 96
"""Of one row."""
MAX_CHANGE = 120
"""Of the step from one row to the next."""
_LEAST = 1e-9
"""Of a row's energy, that must be left for it to explain anything."""


def find_quiet(sizes: Floats) -> Ints:
    """How much less than of the loudest is expected of each column, as it is told.

    Args:
        sizes: lengths of the differences in bits, in a unit common to all, (rows, width).
    """
    mean = sizes.mean(0)
    quiet = np.minimum(np.rint(2 * (mean.max() - mean)), MAX_QUIET).astype(np.int64)
    steps: Ints = np.diff(quiet, prepend=0)
    return steps


def find_mix(base: Floats, new: Floats) -> Ints:
    """Steps and weights as :class:`~edge_sdk.delta.mixing.Mixer` takes them.

    Args:
        base: what the rows are expected to be on their own, (rows, width).
        new: what they are.
    """
    rows, width = base.shape
    told, step, group = [], 0, group_rows(rows, width)
    for start in range(0, rows, group):
        part = slice(start, start + group)
        kept, sizes = zip(*map(moves, base[part], new[part]), strict=True)
        moved = np.stack(kept).astype(np.float64)
        columns = np.sqrt((moved * moved).mean(0))
        gram = _gram(moved / np.where(columns == 0, 1, columns))
        for row, size in enumerate(sizes):
            weights, spread = _row(gram, row, width)
            own = size + spread if weights.any() else step
            if abs(own - step) > MAX_CHANGE:
                own, weights = step, np.zeros_like(weights)
            told.append(np.append(own - step, weights))
            step = own
    return np.concatenate(told)


def _gram(rows: Floats) -> Floats:
    gram: Floats = rows @ rows.T
    return gram


def _row(gram: Floats, row: int, width: int) -> tuple[Ints, int]:
    """Weights of the rows before one, and their step as a power of two.

    Greedy: the row that explains most of what is left is taken next, as long as it is worth its
    weight (orthogonal least squares; S. Chen, S. A. Billings and W. Luo, 1989).
    """
    weights = np.zeros(row, np.int64)
    total, power = float(gram[row, row]), gram.diagonal()[:row]
    link, left, free = gram[:row, row].copy(), total, power.copy()
    taken: Floats = np.empty((MAX_WEIGHTS, row))
    chosen: list[int] = []
    while len(chosen) < MAX_WEIGHTS and left > _LEAST * total:
        usable = free > 1e-6 * power
        usable[chosen] = False
        gains = np.where(usable, link * link / np.where(usable, free, 1), 0.0)
        best = int(gains.argmax()) if row else 0
        if not row or gains[best] <= 0:
            break
        bits = width / 2 * np.log2(left / max(left - gains[best], _LEAST * total)) - WEIGHT_BITS
        if bits <= 0:
            break
        known = taken[: len(chosen)]
        column = (gram[:row, best] - known[:, best] @ known) / np.sqrt(free[best])
        link -= column * (link[best] / np.sqrt(free[best]))
        free -= column * column
        taken[len(chosen)] = column
        left = max(left - float(gains[best]), _LEAST * total)
        chosen.append(best)
    if not chosen:
        return weights, 0
    exact = np.linalg.solve(gram[np.ix_(chosen, chosen)], gram[chosen, row])
    # rounding to a step adds step**2 / 12 of each row's energy, worth a bit where that is 1/width
    finest = np.sqrt(12 * left / (width * float(np.median(power[chosen]))))
    spread = int(np.ceil(np.log2(max(finest, float(np.abs(exact).max()) / 127))))
    weights[chosen] = np.rint(np.ldexp(exact, -spread)).astype(np.int64)
    return weights, spread

"""Finding the weights by which rows of a tensor are mixed. The host's half of mixing."""

from __future__ import annotations

import numpy as np

from edge_sdk.delta.coder import Ints
from edge_sdk.delta.mixing import Floats, group_rows, moves

MIN_ROWS = 4
MIN_WIDTH = 48
WEIGHT_BITS = 9.0
"""About what a weight that is not 0 costs."""
MAX_WEIGHTS = 96
"""Of one row."""
_LEAST = 1e-9
"""Of a row's energy, that must be left for it to explain anything."""


def find_mix(base: Floats, new: Floats) -> Ints | None:
    """Steps and weights as :class:`~edge_sdk.delta.mixing.Mixer` takes them; None when they save
    nothing.

    Args:
        base: what the rows are expected to be on their own, (rows, width).
        new: what they are.
    """
    rows, width = base.shape
    if rows < MIN_ROWS or width < MIN_WIDTH:
        return None
    told, saved, step, group = [], 0.0, 0, group_rows(rows, width)
    for start in range(0, rows, group):
        part = slice(start, start + group)
        kept, sizes = zip(*map(moves, base[part], new[part]), strict=True)
        moved = np.stack(kept).astype(np.float64)
        columns = np.sqrt((moved * moved).mean(0))
        gram = _gram(moved / np.where(columns == 0, 1, columns))
        for row, size in enumerate(sizes):
            weights, spread, bits = _row(gram, row, width)
            own = size + spread if weights.any() else step
            told.append(np.append(own - step, weights))
            step, saved = own, saved + bits
    return np.concatenate(told) if saved > 0 else None


def _gram(rows: Floats) -> Floats:
    gram: Floats = rows @ rows.T
    return gram


def _row(gram: Floats, row: int, width: int) -> tuple[Ints, int, float]:
    """Weights of the rows before one, their step as a power of two, and bits saved.

    Greedy: the row that explains most of what is left is taken next, as long as it is worth its
    weight (orthogonal least squares; S. Chen, S. A. Billings and W. Luo, 1989).
    """
    weights = np.zeros(row, np.int64)
    rest, total = gram[:row, :row].copy(), float(gram[row, row])
    link, left, saved = gram[:row, row].copy(), total, 0.0
    power = gram.diagonal()[:row]
    chosen: list[int] = []
    while len(chosen) < MAX_WEIGHTS and left > _LEAST * total:
        free = rest.diagonal()
        usable = free > 1e-6 * power
        usable[chosen] = False
        gains = np.where(usable, link * link / np.where(usable, free, 1), 0.0)
        best = int(gains.argmax()) if row else 0
        if not row or gains[best] <= 0:
            break
        bits = width / 2 * np.log2(left / max(left - gains[best], _LEAST * total)) - WEIGHT_BITS
        if bits <= 0:
            break
        column = rest[:, best] / np.sqrt(free[best])
        link = link - column * (link[best] / np.sqrt(free[best]))
        rest -= np.outer(column, column)
        left, saved = max(left - float(gains[best]), _LEAST * total), saved + float(bits)
        chosen.append(best)
    if not chosen:
        return weights, 0, 0.0
    exact = np.linalg.solve(gram[np.ix_(chosen, chosen)], gram[chosen, row])
    # rounding to a step adds step**2 / 12 of each row's energy, worth a bit where that is 1/width
    finest = np.sqrt(12 * left / (width * float(np.median(power[chosen]))))
    spread = int(np.ceil(np.log2(max(finest, float(np.abs(exact).max()) / 127))))
    weights[chosen] = np.rint(np.ldexp(exact, -spread)).astype(np.int64)
    return weights, spread, saved

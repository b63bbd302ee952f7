"""Rows of a tensor that moved together: what one did lets expect what the next one does.

A step of training adds sums of products of what goes into a layer and what comes back to it, so the
movements of the rows of its weights are far from independent. Each row is expected to move by a
weighted sum of what the rows before it did (prediction-based triangular transform: S.-M. Phoong and
Y.-P. Lin, IEEE Trans. Signal Processing 48(1), 2000); the weights travel with the differences. So
does how quiet each column is: how far the inputs that it belongs to were from moving anything.

The same arithmetic on the host and on the device: one product and one sum at a time, which IEEE 754
defines to the last bit, never a reduction whose order is the machine's own.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_sdk.delta.coder import Ints

MAX_ROWS = 512
"""That are mixed with each other; further ones begin anew."""
MAX_KEPT = 1 << 21
"""Numbers of the rows that are kept in memory."""
MAX_QUIET = 120
"""Half bits."""
MAX_WIDTH = 1 << 17
"""Numbers of a row."""
MAX_TOLD = 1 << 20
"""Of a tensor."""

Floats = npt.NDArray[np.float64]


def group_rows(rows: int, width: int) -> int:
    """How many rows are mixed with each other."""
    return max(1, min(rows, MAX_ROWS, MAX_KEPT // width))


def told_count(rows: int, width: int) -> int:
    """Of each column its quiet, of each row its step, and a weight for each row before it."""
    group = group_rows(rows, width)
    whole, rest = divmod(rows, group)
    return width + (whole * group * (group + 1) + rest * (rest + 1)) // 2


class Mixer:
    """What the rows of a tensor are expected to be, one after the other.

    Args:
        rows: how many there are.
        width: numbers of each.
        told: for each column by how many half bits less is expected of it, more than of the one
            before; then for each row its step, as a power of two above the one before, and its
            weights in these steps, one for each row before it in its group; flat.
    """

    def __init__(self, rows: int, width: int, told: Ints) -> None:
        self._told, self._group = told[width:], group_rows(rows, width)
        self.quiet = np.clip(told[:width].cumsum(), 0, MAX_QUIET).astype(np.uint16)
        """Of the columns, in half bits."""
        self._kept: list[npt.NDArray[np.float32]] = []
        self._at = self._step = 0

    def expected(self, base: Floats) -> Floats:
        """The next row, from what it would be without the others; (width,) both."""
        if len(self._kept) == self._group:
            self._kept = []
        end = self._at + 1 + len(self._kept)
        self._step += int(self._told[self._at])
        weights = self._told[self._at + 1 : end]
        self._at = end
        chosen = np.flatnonzero(weights)
        if not chosen.size:
            return base
        move = np.zeros_like(base)
        for index in chosen:
            move += self._kept[index] * float(weights[index])
        with np.errstate(all="ignore"):
            return base + np.ldexp(move, min(max(self._step, -1000), 1000))

    def keep(self, base: Floats, new: Floats) -> None:
        """Say how the row came out that was expected last."""
        self._kept.append(moves(base, new)[0])


def moves(base: Floats, new: Floats) -> tuple[npt.NDArray[np.float32], int]:
    """How far a row moved, scaled so that the farthest is below 1, and the power of two."""
    with np.errstate(all="ignore"):
        moved = new - base
        moved = np.where(np.isfinite(moved), moved, 0.0)
        size = int(np.frexp(np.abs(moved).max(initial=0.0))[1])
        return np.ldexp(moved, -size).astype(np.float32), size

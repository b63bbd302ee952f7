"""Coding differences: numbers become a token and plain bits, the token by what is expected.

A number is its token below 16; beyond, the token says its length in bits and its two bits behind
the first (as in JPEG XL's hybrid integers), and the rest follows as plain bits. What is expected is
the mean size of the differences before it in its lane, that is: of its neighbours in the tensor.
For floats, sizes are counted in powers of two of the value, not of its last place: a step of
training changes weights by similar amounts whatever their own size is. Columns of mixed rows have
an own size beside that, which side information tells.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_sdk.delta.coder import MAX_RAW_BITS, Coder, Ints, Table

_DIRECT = 16
_CLASSES = 14
"""Of expected sizes, of small numbers."""
_EDGES = np.array([4, 10, 20, 36, 60, 96, 150, 230, 350, 540, 850, 1400, 2600], np.int64)
"""Of the classes, in 1/256."""
_MIDDLES = np.append((_EDGES + np.append(0, _EDGES[:-1])) // 2, 4000)
_BITS_STEPS = 72
"""Of expected lengths, in half bits."""
_SIDES = 1024
"""Bounds the side information of any alphabet."""
_PRIOR = 640
"""What the likeliest number weighs before any was seen; a seen one weighs 256."""
PARTS = 16
"""How finely a prediction between two whole numbers is told apart."""
STEPS_PER_TURN = 64
"""A generator takes a breath after so many."""

Sides = npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Alphabet:
    """How numbers of a kind are modelled."""

    symbols: int
    sides: int
    """Values of the side information; 0 when it is what lengths are relative to, in half bits."""
    slowness: int
    """A new size counts for ``2 ** -slowness`` of the mean."""

    def mean(self, first: int) -> int:
        """A mean to begin with, from what :func:`expectation` told."""
        return int(_MIDDLES[min(first, _CLASSES - 1)]) if self.sides else min(first, _SIDES) << 4


SMALL = Alphabet(symbols=32, sides=PARTS, slowness=4)
"""Signed bytes."""
TEXT = Alphabet(symbols=32, sides=1, slowness=2)
"""Bytes between tensors."""
MIXING = Alphabet(symbols=32, sides=1, slowness=3)
"""Steps and weights of mixed rows."""
HALF = Alphabet(symbols=64, sides=0, slowness=4)
"""Numbers of 16 bits."""
LONG = Alphabet(symbols=128, sides=0, slowness=4)
"""Numbers of 32 bits."""


def _token_tables() -> tuple[Ints, Ints]:
    tokens = np.arange(128, dtype=np.int64)
    lengths = np.where(tokens < _DIRECT, 0, (tokens - _DIRECT) // 4 + 4)
    plain = np.where(tokens < _DIRECT, 0, lengths - 2)
    heads = 4 + (tokens - _DIRECT) % 4
    return plain, np.where(tokens < _DIRECT, tokens, heads << plain)


_PLAIN, _BASE = _token_tables()


def lengths(values: Ints) -> Ints:
    """Bits of whole numbers below 2 ** 53; 0 for 0."""
    return np.frexp(values.astype(np.float64))[1].astype(np.int64)


def tokens_of(values: Ints) -> Ints:
    """Tokens of whole numbers of up to 32 bits."""
    top = np.maximum(lengths(values) - 1, 4)
    return np.where(values < _DIRECT, values, _DIRECT + (top - 4) * 4 + ((values >> (top - 2)) & 3))


def zigzag(signed: Ints) -> Ints:
    """Small differences of either sign as small numbers."""
    return signed << 1 ^ signed >> 63


def unzigzag(values: Ints) -> Ints:
    """The inverse of :func:`zigzag`."""
    return values >> 1 ^ -(values & 1)


class Modeller:
    """Codes sequences of numbers of one alphabet; what it learns stays from one to the next."""

    def __init__(self, alphabet: Alphabet) -> None:
        self._alphabet = alphabet
        contexts = _CLASSES * alphabet.sides or _BITS_STEPS
        self._table = Table(_prior(contexts, alphabet))

    def code(
        self, coder: Coder, count: int, first: int, sides: Sides, values: Ints | None
    ) -> Iterator[Ints | None]:
        """Code numbers; ends with all of them, and gives None from time to time before.

        Args:
            coder: a writer, or a reader that gives the numbers.
            count: how many.
            first: the expected size to begin with, as :func:`expectation` gives it; any number.
            sides: side information on each, or one for all.
            values: up to 32 bits each, (count,) int64; None for a reader.
        """
        rows = -(-count // coder.lanes)
        grid = _grid(values, coder.lanes, rows) if values is not None else None
        hints = _grid(sides, coder.lanes, rows) if len(sides) == count else None
        out = np.zeros((rows, coder.lanes), np.uint32)
        mean = np.full(coder.lanes, self._alphabet.mean(first), np.int64)
        step = self._small if self._alphabet.sides else self._large
        for row in range(rows):
            active = min(coder.lanes, -(-(count - row) // rows))
            hint = hints[row, :active].astype(np.int64) if hints is not None else int(sides[0])
            known = grid[row, :active].astype(np.int64) if grid is not None else None
            out[row, :active] = step(coder, mean[:active], hint, known)
            if row % STEPS_PER_TURN == STEPS_PER_TURN - 1:
                yield None
        yield out.T.reshape(-1)[:count].astype(np.int64) if rows else np.empty(0, np.int64)

    def _small(self, coder: Coder, mean: Ints, side: Ints | int, known: Ints | None) -> Ints:
        contexts = _EDGES.searchsorted(mean, "right") * self._alphabet.sides + side
        values = self._number(coder, contexts, known)
        sizes = np.minimum((values + 1) >> 1, 64) << 8
        mean += (sizes - mean) >> self._alphabet.slowness
        return values

    def _large(self, coder: Coder, mean: Ints, side: Ints | int, known: Ints | None) -> Ints:
        contexts = np.clip((mean >> 3) - side + 4, 0, _BITS_STEPS - 1)
        values = self._number(coder, contexts, known)
        mean += (((lengths(values) << 4) + (side << 3)) - mean) >> self._alphabet.slowness
        return values

    def _number(self, coder: Coder, contexts: Ints, known: Ints | None) -> Ints:
        tokens = coder.symbols(
            self._table, contexts, tokens_of(known) if known is not None else None
        )
        plain: Ints = _PLAIN[tokens]
        values: Ints = _BASE[tokens]
        if not plain.any():
            return values
        low = np.minimum(plain, MAX_RAW_BITS - 1)
        rest = known - values if known is not None else None
        high = plain - low
        if high.any():
            part = rest >> low if rest is not None else None
            values = values + (coder.raw(high, part) << low)
        part = rest & ((1 << low) - 1) if rest is not None else None
        return values + coder.raw(low, part)


def expectation(alphabet: Alphabet, values: Ints, sides: Sides) -> int:
    """The mean size of numbers: its class for small ones, in bits for others."""
    if not len(values):
        return 0
    if alphabet.sides:
        mean = int(np.minimum((values + 1) >> 1, 64).mean() * 256)
        return int(_EDGES.searchsorted(mean, "right"))
    return round(float((lengths(values) + sides / 2).mean()))


def cost_bits(alphabet: Alphabet, values: Ints, sides: Sides) -> float:
    """About how many bits numbers will take; for choosing between predictions."""
    tokens = tokens_of(values)
    total = float(_PLAIN[tokens].sum())
    keys = tokens * (alphabet.sides or _SIDES) + sides
    joint = np.unique(keys, return_counts=True)[1].astype(np.float64)
    side = np.bincount(np.broadcast_to(sides, tokens.shape)).astype(np.float64)
    side = side[side > 0]
    entropy = (side * np.log2(side)).sum() - (joint * np.log2(joint)).sum()
    return total + float(entropy) + 3.0 * len(joint)


def _grid(values: npt.NDArray[np.int64] | Sides, lanes: int, rows: int) -> npt.NDArray[np.uint32]:
    """Each lane a stretch of the sequence, one row for each step."""
    padded = np.zeros(lanes * rows, np.uint32)
    padded[: len(values)] = values
    return np.ascontiguousarray(padded.reshape(lanes, rows).T)


@functools.cache
def _prior(contexts: int, alphabet: Alphabet) -> Ints:
    """Large numbers as by Student's distribution of the expected size, with seven degrees of
    freedom; small ones as by a geometric one. Only operations that every machine does alike."""
    symbols = np.arange(alphabet.symbols)
    if not alphabet.sides:
        width = np.ldexp(1.0, np.minimum(_PLAIN[symbols], 40))
        middle = _BASE[symbols] + (width - 1) / 2
        turns = np.arange(contexts) - 3
        scale = np.ldexp(np.where(turns % 2, np.sqrt(2.0), 1.0), turns // 2)[:, None]
        spread = 1 + (middle / scale) ** 2 / 7
        shares = width / (spread * spread * spread * spread)
        total = shares.cumsum(1)[:, -1:]  # one after the other, unlike sum
        return np.asarray(1 + 12 * _PRIOR * shares / total, np.int64)
    middle = np.append(_EDGES, 4000)[np.arange(contexts) // alphabet.sides]
    weights, columns = np.full(contexts, _PRIOR), []
    for symbol in symbols:
        columns.append(np.maximum(weights, 1))
        if symbol % 2 == 0:
            weights = weights * middle // (256 + middle)
    return np.stack(columns, 1).astype(np.int64)

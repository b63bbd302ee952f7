"""What the base lets expect of a tensor: the same arithmetic on the host and on the device.

Only operations that IEEE 754 defines to the last bit (products, quotients, rounding) are used, in
float64, so that every machine expects the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from edge_sdk.delta.coder import Ints
from edge_sdk.delta.mixing import Mixer
from edge_sdk.delta.program import OWN_STEP, Axis, Kind, Map, Scaling, Tensor
from edge_sdk.delta.values import HALF, LONG, PARTS, SMALL, Alphabet, Sides, unzigzag, zigzag

BLOCK = 1 << 17
"""Numbers that are worked on at a time: bounds the memory of a large tensor."""
ALPHABETS: dict[Kind, Alphabet] = {
    Kind.INT8: SMALL,
    Kind.FLOAT16: HALF,
    Kind.FLOAT32: LONG,
    Kind.INT32: LONG,
}
STORED = {Kind.INT8: "<i1", Kind.FLOAT16: "<u2", Kind.FLOAT32: "<u4", Kind.INT32: "<i4"}
_FLOATS = {Kind.FLOAT16: "<f2", Kind.FLOAT32: "<f4"}
_BITS = {Kind.INT8: 8, Kind.FLOAT16: 16, Kind.FLOAT32: 32, Kind.INT32: 32}
_MANTISSA = {Kind.FLOAT16: 10, Kind.FLOAT32: 23}
_WITHOUT_SIDE = np.array([PARTS // 2], np.uint16)
NO_SIDE = np.zeros(1, np.uint16)
"""Side information where there is none."""

Floats = npt.NDArray[np.float64]
Stored = npt.NDArray[np.generic]


def gathered(base: memoryview, tensor: Tensor, maps: Sequence[Map]) -> npt.NDArray[np.generic]:
    """The numbers of the base that belong to a tensor's, flat; a view where all are taken."""
    dtype = STORED[tensor.kind]
    if not tensor.axes:
        return np.frombuffer(base, dtype, tensor.count, tensor.place)
    shape = tuple(axis.size for axis in tensor.axes)
    found = np.frombuffer(base, dtype, int(np.prod(shape)), tensor.place).reshape(shape)
    for number, axis in enumerate(tensor.axes):
        if axis.map:
            found = found.take(maps[axis.map - 1], number)
    return found.reshape(-1)


def factors(
    base: memoryview,
    kind: Kind,
    scaling: Scaling,
    maps: Sequence[Map],
    early: Sequence[npt.NDArray[np.float32]],
) -> Floats:
    """One factor for each channel; what is no number is 0."""
    found = np.full(scaling.channels, scaling.factor)
    with np.errstate(all="ignore"):
        if scaling.old >= 0:
            axis = scaling.old_axis or Axis(scaling.channels, 0)
            old = np.frombuffer(base, "<f4", axis.size, scaling.old)
            found *= old[list(maps[axis.map - 1])] if axis.map else old
        if scaling.new >= 0:
            found /= early[scaling.new]
        if scaling.own:
            found *= 1.0 + np.array(scaling.own, np.float64) * OWN_STEP[kind]
    return np.where(np.isfinite(found), found, 0.0)


def channel_of(scaling: Scaling, start: int, stop: int) -> Ints:
    """The channels of the numbers from ``start`` to ``stop``."""
    return np.arange(start, stop) // scaling.inner % scaling.channels


def expected(
    kind: Kind, old: npt.NDArray[np.generic] | None, multipliers: Floats | None
) -> tuple[Ints, Sides]:
    """What numbers are expected, and the side information their differences are coded by.

    Args:
        kind: of the numbers.
        old: the base's; None when there are none.
        multipliers: one for each number, or None.

    Returns:
        Whole numbers in which neighbours differ by 1, and an array of as many sides, or of one.
    """
    if old is None:
        return np.zeros(1, np.int64), NO_SIDE
    if kind in _FLOATS:
        return _expected_floats(kind, old, multipliers)
    whole = old.astype(np.int64)
    if multipliers is None:
        return whole, _WITHOUT_SIDE if kind is Kind.INT8 else NO_SIDE
    limit = float(1 << (_BITS[kind] - 1))
    with np.errstate(over="ignore"):
        exact = np.clip(whole * multipliers, -limit, limit - 1)
    rounded = np.rint(exact)
    if kind is Kind.INT32:
        return rounded.astype(np.int64), NO_SIDE
    sides = np.minimum((exact - rounded + 0.5) * PARTS, PARTS - 1).astype(np.uint16)
    return rounded.astype(np.int64), sides


def _expected_floats(
    kind: Kind, old: npt.NDArray[np.generic], multipliers: Floats | None
) -> tuple[Ints, Sides]:
    if multipliers is not None:
        with np.errstate(all="ignore"):
            old = _scaled(kind, old, multipliers).astype(_FLOATS[kind]).view(STORED[kind])
    bits = old.astype(np.int64)
    exponents = bits >> _MANTISSA[kind] & ((1 << (_BITS[kind] - 1 - _MANTISSA[kind])) - 1)
    return ordered(kind, bits), (2 * exponents).astype(np.uint16)


def _scaled(kind: Kind, old: npt.NDArray[np.generic], multipliers: Floats | None) -> Floats:
    numbers = old.view(_FLOATS[kind]).astype(np.float64)
    return numbers if multipliers is None else numbers * multipliers


class MixedRows:
    """What the rows of a float32 tensor are expected to be, see :mod:`edge_sdk.delta.mixing`.

    Args:
        tensor: the tensor.
        told: its steps and weights.
    """

    def __init__(self, tensor: Tensor, told: Ints) -> None:
        self._width = tensor.width
        self._mixer = Mixer(tensor.rows, tensor.width, told)

    def sides(self, exponents: Sides) -> Sides:
        """Side information of whole rows: less is expected of quiet columns."""
        found: Sides = exponents + np.tile(self._mixer.quiet, len(exponents) // self._width)
        return found

    def differences(
        self, old: Stored, multipliers: Floats | None, new: npt.NDArray[np.uint32]
    ) -> Ints:
        """Coded differences of whole rows; arguments as of :func:`expected`, flat."""
        found = []
        for row in self._rows(len(old)):
            expectation, base = self._expected(old[row], multipliers, row)
            found.append(
                differences(
                    Kind.FLOAT32, ordered(Kind.FLOAT32, new[row].astype(np.int64)), expectation
                )
            )
            self._mixer.keep(base, _scaled(Kind.FLOAT32, new[row], None))
        return np.concatenate(found)

    def corrected(self, old: Stored, multipliers: Floats | None, coded: Ints) -> Iterator[bytes]:
        """What :meth:`differences` were taken of, as it is stored, row by row."""
        for row in self._rows(len(old)):
            expectation, base = self._expected(old[row], multipliers, row)
            data = corrected(Kind.FLOAT32, expectation, coded[row])
            self._mixer.keep(base, _scaled(Kind.FLOAT32, np.frombuffer(data, "<u4"), None))
            yield data

    def _rows(self, count: int) -> Iterator[slice]:
        for start in range(0, count, self._width):
            yield slice(start, start + self._width)

    def _expected(self, old: Stored, multipliers: Floats | None, row: slice) -> tuple[Ints, Floats]:
        with np.errstate(all="ignore"):
            base = _scaled(Kind.FLOAT32, old, None if multipliers is None else multipliers[row])
            bits = self._mixer.expected(base).astype("<f4").view("<u4")
        return ordered(Kind.FLOAT32, bits.astype(np.int64)), base


def ordered(kind: Kind, bits: Ints) -> Ints:
    """The bits of floats as whole numbers in the order of the floats; integers as they are."""
    if kind not in _FLOATS:
        return bits
    sign = 1 << (_BITS[kind] - 1)
    return np.where(bits & sign, ~bits, bits | sign) & (2 * sign - 1)


def differences(kind: Kind, new: Ints, old: Ints) -> Ints:
    """Coded differences of whole numbers, modulo their range."""
    half = 1 << (_BITS[kind] - 1)
    return zigzag((new - old + half) % (2 * half) - half)


def corrected(kind: Kind, old: Ints, coded: Ints) -> bytes:
    """What :func:`differences` were taken of, as it is stored."""
    bits = _BITS[kind]
    whole = (old + unzigzag(coded)) & ((1 << bits) - 1)
    if kind in _FLOATS:
        sign = 1 << (bits - 1)
        whole = np.where(whole & sign, whole ^ sign, ~whole)
    return whole.astype(f"<u{bits // 8}").tobytes()


def blocks(count: int, width: int = 1) -> Iterator[tuple[int, int]]:
    """Start and end of the stretches that a tensor is worked on in, of whole rows."""
    size = max(BLOCK // width, 1) * width
    for start in range(0, count, size):
        yield start, min(start + size, count)

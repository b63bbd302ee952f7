"""Choosing what a tensor is predicted from. The host's half; the device only follows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import numpy.typing as npt

from edge_sdk.delta.coder import Ints
from edge_sdk.delta.predict import (
    ALPHABETS,
    STORED,
    channel_of,
    differences,
    expected,
    factors,
    gathered,
    ordered,
)
from edge_sdk.delta.program import MAX_COUNT, OWN_STEP, Axis, Kind, Map, Scaling, Tensor
from edge_sdk.delta.values import Sides, cost_bits, expectation
from edge_sdk.recipes.parts import Part

SAMPLE = 1 << 15
"""Numbers that a choice is made on."""
FACTOR_BITS = {Kind.INT8: 9, Kind.FLOAT16: 20, Kind.FLOAT32: 28, Kind.INT32: 28}
"""About what one factor costs."""
_FACTOR_BITS = 12
"""Of the mantissa of a factor of whole numbers."""
_MAX_FACTOR = 2.0**100
_NEAREST = 16
"""Neighbours of a factor of floats that are tried on either side."""
KINDS = {1: (Kind.INT8,), 2: (Kind.FLOAT16,), 4: (Kind.FLOAT32, Kind.INT32)}

Floats = npt.NDArray[np.float64]
Vector = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Scales:
    """A vector of float32, before and after, that weights may have been divided by."""

    old: Part
    new: Part
    axis: Axis | None
    """Where the new one has other channels."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A way to code a part."""

    tensor: Tensor
    bits: float
    needs: Part | None = None
    """The new scales it is divided by; they have to be an early tensor."""


class Chooser:
    """Finds the cheapest prediction for the parts of a target.

    Args:
        base: the old file.
        target: the new file.
        maps: which maps there are; grows.
    """

    def __init__(self, base: bytes, target: bytes, maps: list[Map]) -> None:
        self._base, self._target, self._maps = memoryview(base), memoryview(target), maps

    def fresh(self, part: Part) -> Choice:
        """Without a base."""
        return min(
            (self._priced(part, Tensor(kind, prod(part.shape), 0), None) for kind in kinds(part)),
            key=lambda choice: choice.bits,
        )

    def based(
        self, part: Part, old: Part, axes: tuple[Axis, ...], scales: Sequence[Scales]
    ) -> Choice:
        """From a part of the base with as many numbers, after the axes were applied."""
        found = []
        for kind in kinds(part):
            plain = Tensor(kind, prod(part.shape), 0, old.offset, axes=axes)
            found.append(self._priced(part, plain, None))
            for scaling, needs in self._scalings(part, plain, scales):
                found.append(self._priced(part, replace(plain, scaling=scaling), needs))
        return min(found, key=lambda choice: choice.bits)

    def like(self, part: Part, others: Sequence[Part]) -> Choice | None:
        """From other float32 of the target itself: scales of biases are a multiple of weights'."""
        new = self._floats(self._target, part)
        best: tuple[float, float, Part | None] = (1e-6, 0.0, None)
        for other in others:
            if prod(other.shape) == len(new) and other.offset != part.offset:
                factor, error = _compare(new, self._floats(self._target, other))
                if error < best[0]:
                    best = error, factor, other
        if best[2] is None:
            return None
        factor = _exact_factor(new, self._floats(self._target, best[2]), best[1])
        scaling = Scaling(factor, len(new), 1)
        tensor = Tensor(Kind.FLOAT32, len(new), 0, like=0, scaling=scaling)
        return self._priced(part, tensor, best[2])

    def values(self, part: Part, tensor: Tensor, needs: Part | None) -> tuple[Ints, Sides]:
        """The coded differences of a whole part, and their sides."""
        return self._differences(part, tensor, needs, tensor.count)

    def _priced(self, part: Part, tensor: Tensor, needs: Part | None) -> Choice:
        size = min(tensor.count, SAMPLE)
        values, sides = self._differences(part, tensor, needs, size)
        bits = cost_bits(ALPHABETS[tensor.kind], values, sides) * tensor.count / size
        bits += 60 if tensor.place >= 0 else 20
        if tensor.scaling is not None:
            scaling = tensor.scaling
            bits += len(scaling.own) * FACTOR_BITS[tensor.kind] + 24 * (scaling.factor != 1.0) + 30
        first = expectation(ALPHABETS[tensor.kind], values, sides)
        return Choice(replace(tensor, first=first), bits, needs)

    def _differences(
        self, part: Part, tensor: Tensor, needs: Part | None, count: int
    ) -> tuple[Ints, Sides]:
        old = multipliers = None
        if tensor.place >= 0:
            old = gathered(self._base, tensor, self._maps)[:count]
        elif needs is not None:
            old = self._floats(self._target, needs).view("<u4")[:count]
        if tensor.scaling is not None:
            scaling = tensor.scaling
            early = [self._floats(self._target, needs)] if needs is not None else []
            factor = factors(self._base, tensor.kind, scaling, self._maps, early)
            multipliers = factor[channel_of(scaling, 0, count)]
        expectation_, sides = expected(tensor.kind, old, multipliers)
        new = np.frombuffer(self._target, STORED[tensor.kind], count, part.offset)
        whole = ordered(tensor.kind, new.astype(np.int64))
        return differences(tensor.kind, whole, expectation_), sides

    def _scalings(
        self, part: Part, plain: Tensor, scales: Sequence[Scales]
    ) -> Iterator[tuple[Scaling, Part | None]]:
        """Factors that may explain the change."""
        kind = plain.kind
        old = _numbers(kind, gathered(self._base, plain, self._maps))
        new = _numbers(kind, np.frombuffer(self._target, STORED[kind], plain.count, part.offset))
        if not (np.isfinite(old).all() and np.isfinite(new).all()):
            return
        whole = _told(float(_fit(old, new, 1, 1)[0]), kind)
        if whole not in (0.0, 1.0):
            yield Scaling(whole, plain.count, 1), None
        for inner, channels in _turns(part.shape):
            fitted = _fit(old, new, inner, channels)
            if inner > 1 or plain.count > channels:
                yield Scaling(1.0, inner, channels, own=_steps(fitted, kind)), None
            if kind is not Kind.FLOAT32:
                yield from self._by_scales(part, kind, fitted, (inner, channels), scales)

    def _by_scales(
        self,
        part: Part,
        kind: Kind,
        fitted: Floats,
        turn: tuple[int, int],
        scales: Sequence[Scales],
    ) -> Iterator[tuple[Scaling, Part | None]]:
        """Ratios of scales, the one that agrees best and the one whose name does."""
        inner, channels = turn
        found: list[tuple[float, int, Scaling, Part | None]] = []
        for each in scales:
            if prod(each.new.shape) != channels:
                continue
            alike = _shared(each.new.name, part.name)
            for old, new in ((True, True), (True, False), (False, True)):
                scaling = Scaling(
                    1.0,
                    inner,
                    channels,
                    each.old.offset if old else -1,
                    each.axis if old else None,
                    0 if new else -1,
                )
                vector = self._vector(scaling, each.new if new else None)
                factor, error = _compare(fitted, vector)
                factor = 1.0 if abs(factor - 1) < 1e-3 and old and new else _told(factor, kind)
                if factor:
                    tried = replace(scaling, factor=factor)
                    found.append((error, alike, tried, each.new if new else None))
        if found:
            best = min(found, key=lambda one: one[0])
            yield best[2], best[3]
            named = max(found, key=lambda one: (one[1], -one[0]))
            if named is not best:
                yield named[2], named[3]

    def _vector(self, scaling: Scaling, needs: Part | None) -> Floats:
        early = [self._floats(self._target, needs)] if needs is not None else []
        return factors(self._base, Kind.FLOAT32, scaling, self._maps, early)

    @staticmethod
    def _floats(data: memoryview, part: Part) -> npt.NDArray[np.float32]:
        return np.frombuffer(data, "<f4", prod(part.shape), part.offset)


def kinds(part: Part) -> tuple[Kind, ...]:
    """What a part's numbers may be."""
    return KINDS.get(part.itemsize, ())


def _shared(first: str, second: str) -> int:
    """How far two names agree."""
    same = (a == b for a, b in zip(first, second, strict=False))
    return next((index for index, equal in enumerate(same) if not equal), 0)


def _turns(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """(inner, channels) of the axes that channels may lie along."""
    for axis in dict.fromkeys((0, len(shape) - 1)):
        channels = shape[axis] if shape else 0
        if 1 < channels <= MAX_COUNT:
            yield prod(shape[axis + 1 :]), channels


def _numbers(kind: Kind, stored: npt.NDArray[np.generic]) -> Floats:
    if kind is Kind.FLOAT32:
        stored = stored.view("<f4")
    elif kind is Kind.FLOAT16:
        stored = stored.view("<f2")
    with np.errstate(all="ignore"):
        return stored.astype(np.float64)


def _fit(old: Floats, new: Floats, inner: int, channels: int) -> Floats:
    """Least squares, one factor for each channel; 1 for a channel of zeros."""
    with np.errstate(all="ignore"):
        before, after = (each.reshape(-1, channels, inner) for each in (old, new))
        power = (before * before).sum((0, 2))
        ratios = (before * after).sum((0, 2)) / np.where(power == 0, 1, power)
        return np.where((power == 0) | ~np.isfinite(ratios), 1.0, ratios)


def _steps(fitted: Floats, kind: Kind) -> tuple[int, ...]:
    """Factors as a delta tells them."""
    return tuple(int(step) for step in np.rint((np.clip(fitted, -64, 64) - 1) / OWN_STEP[kind]))


def _told(factor: float, kind: Kind) -> float:
    """A factor of whole numbers as finely as they need it; of floats, as a float32."""
    if kind in (Kind.INT8, Kind.INT32):
        last = math.frexp(factor)[1] - _FACTOR_BITS
        factor = math.ldexp(round(math.ldexp(factor, -last)), last)
    return float(np.float32(factor)) if abs(factor) < _MAX_FACTOR else 1.0


def _exact_factor(new: npt.NDArray[np.float32], old: npt.NDArray[np.float32], near: float) -> float:
    """The float32 near a factor whose products are most often right to the last bit."""
    around = np.float32(near).view(np.int32) + np.arange(-_NEAREST, _NEAREST + 1, dtype=np.int32)
    factors = around.view(np.float32)
    with np.errstate(all="ignore"):
        right = (factors[:, None] * old == new).sum(1)
    return float(factors[right.argmax()] if right.max() > right[_NEAREST] else factors[_NEAREST])


def _compare(
    fitted: npt.NDArray[np.floating], vector: npt.NDArray[np.floating]
) -> tuple[float, float]:
    """The factor that brings a vector next to the fitted one, and how far off it then is."""
    with np.errstate(all="ignore"):
        ratios = fitted.astype(np.float64) / vector
        ratios = ratios[np.isfinite(ratios)]
        if not ratios.size:
            return 0.0, np.inf
        factor = float(np.median(ratios))
        error = float(np.abs(ratios / factor - 1).mean()) if factor else np.inf
    return (factor, error) if np.isfinite(error) else (0.0, np.inf)

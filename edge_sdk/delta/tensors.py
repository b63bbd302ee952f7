"""Choosing what a tensor is predicted from. The host's half; the device only follows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import numpy.typing as npt

from edge_sdk.delta.coder import Ints
from edge_sdk.delta.fits import compare, exact_factor, fit, steps, told_factor, usual
from edge_sdk.delta.mixes import find_mix, find_quiet
from edge_sdk.delta.mixing import MAX_TOLD, MAX_WIDTH, told_count
from edge_sdk.delta.predict import (
    ALPHABETS,
    NO_SIDE,
    STORED,
    MixedRows,
    channel_of,
    differences,
    expected,
    factors,
    gathered,
    ordered,
)
from edge_sdk.delta.program import MAX_COUNT, Axis, Kind, Map, Scaling, Tensor
from edge_sdk.delta.values import LONG, MIXING, Sides, cost_bits, expectation, lengths, zigzag
from edge_sdk.recipes.parts import Part

MIXED_BITS = 4.0
"""Of each number, from which on it is worth trying to mix rows."""
SAMPLE = 1 << 15
"""Numbers that a choice is made on."""
FACTOR_BITS = {Kind.INT8: 9, Kind.FLOAT16: 20, Kind.FLOAT32: 28, Kind.INT32: 28}
"""About what one factor costs."""
KINDS = {1: (Kind.INT8,), 2: (Kind.FLOAT16,), 4: (Kind.FLOAT32, Kind.INT32)}

Floats = npt.NDArray[np.float64]


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
    told: Ints | None = None
    """How its rows are mixed."""


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
        best = min(found, key=lambda choice: choice.bits)
        mixed = self._mixed(part, best)
        return best if mixed is None or best.bits < mixed.bits else mixed

    def _mixed(self, part: Part, choice: Choice) -> Choice | None:
        """The same with its rows mixed."""
        tensor, rows = choice.tensor, part.shape[0] if part.shape else 0
        if tensor.kind is not Kind.FLOAT32 or choice.bits < MIXED_BITS * tensor.count or rows < 2:
            return None
        tensor = replace(tensor, rows=rows)
        if told_count(rows, tensor.width) > MAX_TOLD or not 0 < tensor.width <= MAX_WIDTH:
            return None
        old = self._multiplied(part, tensor)
        new = self._floats(self._target, part).astype(np.float64).reshape(old.shape)
        if not (np.isfinite(old).all() and np.isfinite(new).all()):
            return None
        mix = find_mix(old, new)
        told = np.append(np.zeros(tensor.width, np.int64), mix)
        values, sides = self.values(part, tensor, choice.needs, told)
        sizes = (lengths(values) + sides / 2).reshape(rows, -1)
        told = np.append(find_quiet(sizes), mix)
        sides = MixedRows(tensor, told).sides(sides)
        bits = cost_bits(LONG, values, sides) + cost_bits(MIXING, zigzag(told), NO_SIDE)
        return Choice(tensor, bits + 100, choice.needs, told)

    def _multiplied(self, part: Part, tensor: Tensor) -> Floats:
        old = _numbers(Kind.FLOAT32, gathered(self._base, tensor, self._maps))
        if tensor.scaling is not None:
            factor = factors(self._base, tensor.kind, tensor.scaling, self._maps, [])
            old = old * factor[channel_of(tensor.scaling, 0, tensor.count)]
        return old.reshape(tensor.rows, -1)

    def like(self, part: Part, others: Sequence[Part]) -> Choice | None:
        """From other float32 of the target itself: scales of biases are a multiple of weights'."""
        new = self._floats(self._target, part)
        best: tuple[float, float, Part | None] = (1e-6, 0.0, None)
        for other in others:
            if prod(other.shape) == len(new) and other.offset != part.offset:
                factor, error = compare(new, self._floats(self._target, other))
                if error < best[0]:
                    best = error, factor, other
        if best[2] is None:
            return None
        factor = exact_factor(new, self._floats(self._target, best[2]), best[1])
        scaling = Scaling(factor, len(new), 1)
        tensor = Tensor(Kind.FLOAT32, len(new), 0, like=0, scaling=scaling)
        return self._priced(part, tensor, best[2])

    def values(
        self, part: Part, tensor: Tensor, needs: Part | None, told: Ints | None = None
    ) -> tuple[Ints, Sides]:
        """The coded differences of a whole part, and their sides."""
        return self._differences(part, tensor, needs, tensor.count, told)

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
        self,
        part: Part,
        tensor: Tensor,
        needs: Part | None,
        count: int,
        told: Ints | None = None,
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
        if told is not None and old is not None:
            rows = MixedRows(tensor, told)
            return rows.differences(old, multipliers, new), rows.sides(sides)
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
        whole = told_factor(float(fit(old, new, 1, 1)[0]), kind)
        if whole not in (0.0, 1.0):
            yield Scaling(whole, plain.count, 1), None
        for inner, channels in _turns(part.shape):
            fitted = fit(old, new, inner, channels)
            if inner > 1 or plain.count > channels:
                yield Scaling(1.0, inner, channels, own=steps(fitted, kind)), None
                if kind is Kind.FLOAT32:
                    agreed = usual(old, new, inner, fitted)
                    if (agreed != fitted).any():
                        yield Scaling(1.0, inner, channels, own=steps(agreed, kind)), None
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
                factor, error = compare(fitted, vector)
                factor = (
                    1.0 if abs(factor - 1) < 1e-3 and old and new else told_factor(factor, kind)
                )
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

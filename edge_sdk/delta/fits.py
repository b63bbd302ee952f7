"""Factors that explain how numbers changed, as a delta tells them. The host's half."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edge_sdk.delta.program import OWN_STEP, Kind

_FACTOR_BITS = 12
"""Of the mantissa of a factor of whole numbers."""
_AGREEING = 16
"""One in so many numbers must agree."""
_ALIKE = 2.0**-20
_MAX_FACTOR = 2.0**100
_NEAREST = 16
"""Neighbours of a factor of floats that are tried on either side."""

Floats = npt.NDArray[np.float64]
Vector = npt.NDArray[np.floating]


def fit(old: Floats, new: Floats, inner: int, channels: int) -> Floats:
    """Least squares, one factor for each channel; 1 for a channel of zeros."""
    with np.errstate(all="ignore"):
        before, after = (each.reshape(-1, channels, inner) for each in (old, new))
        power = (before * before).sum((0, 2))
        ratios = (before * after).sum((0, 2)) / np.where(power == 0, 1, power)
        return np.where((power == 0) | ~np.isfinite(ratios), 1.0, ratios)


def usual(old: Floats, new: Floats, inner: int, fitted: Floats) -> Floats:
    """The factor that many numbers of a channel agree on; the fitted one where there is none.

    Weights that no gradient reached changed by one factor, to the last bit: decay, and folded
    normalisation. What was trained beside them would pull least squares away from it.
    """
    with np.errstate(all="ignore"):
        ratios = np.moveaxis((new / old).reshape(-1, len(fitted), inner), 1, 0)
    found = fitted.copy()
    for channel, own in enumerate(ratios.reshape(len(fitted), -1)):
        known = np.sort(own[np.isfinite(own)])
        reach = max(len(known) // _AGREEING, 1)
        if len(known) > reach:
            first = int((known[reach:] - known[:-reach]).argmin())
            middle = known[first + reach // 2]
            if known[first + reach] - known[first] < _ALIKE * abs(middle):
                found[channel] = middle
    return found


def steps(fitted: Floats, kind: Kind) -> tuple[int, ...]:
    """Factors as a delta tells them."""
    return tuple(int(step) for step in np.rint((np.clip(fitted, -64, 64) - 1) / OWN_STEP[kind]))


def told_factor(factor: float, kind: Kind) -> float:
    """A factor of whole numbers as finely as they need it; of floats, as a float32."""
    if kind in (Kind.INT8, Kind.INT32):
        last = math.frexp(factor)[1] - _FACTOR_BITS
        factor = math.ldexp(round(math.ldexp(factor, -last)), last)
    return float(np.float32(factor)) if abs(factor) < _MAX_FACTOR else 1.0


def exact_factor(new: npt.NDArray[np.float32], old: npt.NDArray[np.float32], near: float) -> float:
    """The float32 near a factor whose products are most often right to the last bit."""
    around = np.float32(near).view(np.int32) + np.arange(-_NEAREST, _NEAREST + 1, dtype=np.int32)
    factors = around.view(np.float32)
    with np.errstate(all="ignore"):
        right = (factors[:, None] * old == new).sum(1)
    return float(factors[right.argmax()] if right.max() > right[_NEAREST] else factors[_NEAREST])


def compare(
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

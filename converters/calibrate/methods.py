"""From what a tensor was seen to hold to the range its integers cover. Pure functions.

``min-max`` clips nothing, and is the choice for values that are rare but real (streaming states,
attention). ``percentile`` cuts the same small share at either end. ``entropy`` minimises the
Kullback-Leibler divergence between the clipped and the quantized distribution (Migacz, "8-bit
Inference with TensorRT", GTC 2017). ``mse`` minimises the expected squared error of rounding and
clipping together (Banner et al., "Post training 4-bit quantization of convolutional networks",
NeurIPS 2019), searched instead of solved, so that no distribution is assumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from converters.settings import Method

BINS = 2048
PERCENTILE = 99.99
LEVELS = 256
_ENTROPY_STEPS = 96
_MSE_STEPS = 48
_ENOUGH = 16
"""Values per bin, on average, from which a histogram resembles the distribution."""
_LEAST_SHARE = 0.05
"""Of the observed range; no method clips further."""

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of equally wide bins over [low, high], which are the exact extremes seen."""

    low: float
    high: float
    counts: Doubles
    """(BINS,), finite and not negative."""

    @property
    def centres(self) -> Doubles:
        """Middle of each bin."""
        width = (self.high - self.low) / len(self.counts)
        return np.asarray(self.low + width * (np.arange(len(self.counts)) + 0.5), np.float64)


def choose_range(histogram: Histogram, method: Method) -> tuple[float, float]:
    """The range (low, high) that the integers should cover.

    It always contains zero, so that padding and ReLU are exact, and never exceeds what was seen
    by more than that.
    """
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if method == "min-max" or high <= low or not histogram.counts.any():
        return low, high
    if method == "percentile":
        return _percentile(histogram)
    if method == "entropy":
        return _entropy(histogram)
    return _mse(histogram)


def squared_error(histogram: Histogram, low: float, high: float, levels: int = LEVELS) -> float:
    """Mean squared error of rounding to ``levels`` steps over [low, high], with clipping."""
    if high <= low:
        return float(np.average(histogram.centres**2, weights=histogram.counts))
    step = (high - low) / (levels - 1)
    zero = np.rint(-low / step)
    stored = np.clip(np.rint(histogram.centres / step) + zero, 0, levels - 1)
    error = (stored - zero) * step - histogram.centres
    return float(np.average(error**2, weights=histogram.counts))


def _percentile(histogram: Histogram) -> tuple[float, float]:
    cumulative = np.cumsum(histogram.counts) / histogram.counts.sum()
    edges = np.linspace(histogram.low, histogram.high, len(histogram.counts) + 1)
    share = PERCENTILE / 100
    first = int(np.searchsorted(cumulative, 1 - share, side="right"))
    last = int(np.searchsorted(cumulative, share, side="left"))
    low, high = float(edges[first]), float(edges[min(last + 1, len(edges) - 1)])
    return _bounded(histogram, low, high)


def _entropy(histogram: Histogram) -> tuple[float, float]:
    """The magnitude at which clipping loses the least information.

    A distribution cannot be told from few values: bins are joined until each holds enough on
    average, and where that leaves too few bins nothing is clipped.
    """
    joined = math.ceil(_ENOUGH * len(histogram.counts) / histogram.counts.sum())
    if len(histogram.counts) // joined < 2 * LEVELS:
        return _bounded(histogram, histogram.low, histogram.high)
    exact, histogram = histogram, _coarser(histogram, joined)
    largest = max(-exact.low, exact.high)
    thresholds = [float(share) * largest for share in np.linspace(_LEAST_SHARE, 1, _ENTROPY_STEPS)]
    best = min(
        thresholds,
        key=lambda edge: _divergence(histogram, *_bounded(histogram, -edge, edge)),
    )
    return _bounded(exact, -best, best)


def _coarser(histogram: Histogram, joined: int) -> Histogram:
    """The same with ``joined`` neighbouring bins as one, empty bins filling up the last."""
    width = (histogram.high - histogram.low) / len(histogram.counts)
    bins = math.ceil(len(histogram.counts) / joined)
    padded = np.pad(histogram.counts, (0, bins * joined - len(histogram.counts)))
    high = histogram.low + width * bins * joined
    return Histogram(histogram.low, high, padded.reshape(bins, joined).sum(axis=1))


def _divergence(histogram: Histogram, low: float, high: float) -> float:
    """KL(P || Q): P clipped with its outliers on the edges, Q merged to the integers' levels."""
    centres = histogram.centres
    inside = np.flatnonzero((centres >= low) & (centres <= high))
    if len(inside) < 2:
        return np.inf
    first, last = int(inside[0]), int(inside[-1])
    raw = histogram.counts[first : last + 1]
    clipped = raw.copy()
    clipped[0] += histogram.counts[:first].sum()
    clipped[-1] += histogram.counts[last + 1 :].sum()
    step = (high - low) / (LEVELS - 1)
    level = np.clip(np.rint((centres[first : last + 1] - low) / step), 0, LEVELS - 1).astype(int)
    mass = np.bincount(level, weights=raw, minlength=LEVELS)
    used = np.bincount(level, weights=(raw > 0).astype(float), minlength=LEVELS)
    merged = np.where(raw > 0, mass[level] / np.maximum(used[level], 1), 0.0)
    return _kl(clipped, merged)


def _kl(p: Doubles, q: Doubles) -> float:
    """Divergence in nats; mass of P where Q has none is taken as a tiny probability."""
    if q.sum() == 0:
        return np.inf
    p, q = p / p.sum(), q / q.sum()
    held = p > 0
    return float(np.sum(p[held] * np.log(p[held] / np.maximum(q[held], 1e-9))))


def _mse(histogram: Histogram) -> tuple[float, float]:
    """Both ends together, then each alone: skewed distributions clip on one side only."""
    shares = np.linspace(_LEAST_SHARE, 1.0, _MSE_STEPS)
    together = min(shares, key=lambda share: _error_at(histogram, share, share))
    low = min(shares, key=lambda share: _error_at(histogram, share, together))
    high = min(shares, key=lambda share: _error_at(histogram, low, share))
    # The untouched range competes too: what is chosen is never worse than min-max.
    left, right = min([(low, high), (1.0, 1.0)], key=lambda pair: _error_at(histogram, *pair))
    return _bounded(histogram, left * histogram.low, right * histogram.high)


def _error_at(histogram: Histogram, low_share: float, high_share: float) -> float:
    low, high = _bounded(histogram, low_share * histogram.low, high_share * histogram.high)
    return squared_error(histogram, low, high)


def _bounded(histogram: Histogram, low: float, high: float) -> tuple[float, float]:
    """Within what was seen, and with zero inside."""
    low = min(max(float(low), histogram.low), 0.0)
    high = max(min(float(high), histogram.high), 0.0)
    return low, high

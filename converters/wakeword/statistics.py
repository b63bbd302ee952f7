"""What a count of errors shows, and what it does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

CONFIDENCE: Final = 0.95
_Z: Final = 1.959963984540054
_STEPS: Final = 60


def poisson_interval(count: int) -> tuple[float, float]:
    """Of the expected count, with 95 % confidence, exact (Garwood 1936).

    None seen in so many hours only shows that fewer than 3.7 are expected in them.

    Args:
        count: events that were seen, 0 or more.
    """
    tail = (1.0 - CONFIDENCE) / 2.0
    low = 0.0 if count == 0 else _solve(lambda mean: 1.0 - _below(count - 1, mean), tail, count)
    return low, _solve(lambda mean: 1.0 - _below(count, mean), 1.0 - tail, count)


def at_most(count: int) -> float:
    """The largest expected count that so few events are compatible with, one-sided 95 %.

    3.0 for none: the rule of three.
    """
    return _solve(lambda mean: 1.0 - _below(count, mean), CONFIDENCE, count)


def wilson_interval(hits: int, total: int) -> tuple[float, float]:
    """Of a share, with 95 % confidence (Wilson 1927); (0, 1) of nothing."""
    if total == 0:
        return 0.0, 1.0
    share, z2 = hits / total, _Z * _Z
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total)) / (1 + z2 / total)
    low = 0.0 if hits == 0 else max(0.0, middle - half)
    return low, 1.0 if hits == total else min(1.0, middle + half)


def _below(count: int, mean: float) -> float:
    """Probability of at most so many events where ``mean`` are expected."""
    if mean <= 0.0:
        return 1.0
    logs = [n * math.log(mean) - mean - math.lgamma(n + 1) for n in range(count + 1)]
    top = max(logs)
    return min(1.0, math.exp(top) * math.fsum(math.exp(value - top) for value in logs))


def _solve(rising: Callable[[float], float], wanted: float, count: int) -> float:
    """The mean at which a probability that rises with it reaches ``wanted``, by halving."""
    low, high = 0.0, count + 10.0 * math.sqrt(count + 1.0) + 10.0
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if rising(middle) < wanted else (low, middle)
    return 0.5 * (low + high)

"""From scores to what would have been reported, over hours at once.

The rules are those of :mod:`edge_sdk.audio.detect`; here they run over whole arrays, for many
cutoffs. A test holds the two to each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]
_WINDOWS: Final = (1, 2, 3, 5, 8, 12)
_LONGEST_S: Final = 0.24


def windows(step_s: float) -> tuple[int, ...]:
    """Steps over which scores may be averaged: up to a quarter of a second."""
    return tuple(steps for steps in _WINDOWS if steps * step_s <= _LONGEST_S + 1e-9)


def window_means(scores: npt.NDArray[np.floating], steps: int) -> Scores:
    """Mean of the last ``steps`` scores at each step (T,); 0 until there are so many."""
    found = np.zeros(len(scores))
    if len(scores) >= steps:
        sums = np.cumsum(np.concatenate(([0.0], np.asarray(scores, np.float64))))
        found[steps - 1 :] = (sums[steps:] - sums[:-steps]) / steps
    return found


def reports(
    means: Scores, cutoff: float, refractory_s: float, step_s: float
) -> npt.NDArray[np.int64]:
    """Steps at which the word is reported."""
    above = np.concatenate(([False], means >= cutoff))
    rises = np.flatnonzero(above[1:] & ~above[:-1])
    rest = refractory_s / step_s
    found: list[int] = []
    for step in rises:
        if not found or step - found[-1] >= rest - 1e-6:
            found.append(int(step))
    return np.asarray(found, np.int64)


@dataclass(frozen=True, slots=True)
class Point:
    """One cutoff on one set of negatives."""

    cutoff: float
    false_accepts: int


def false_accept_curve(
    streams: Sequence[npt.NDArray[np.floating]],
    steps: int,
    refractory_s: float,
    step_s: float,
    points: int = 200,
) -> list[Point]:
    """False accepts at cutoffs from strict to loose.

    Args:
        streams: scores of sound without the phrase, each a stream of its own.
        steps: of the window.
        step_s: between two scores.
        points: cutoffs to try, spread over the scores' own distribution.
    """
    means = [window_means(stream, steps) for stream in streams]
    found = []
    for cutoff in _cutoffs(means, step_s, points):
        count = sum(len(reports(mean, cutoff, refractory_s, step_s)) for mean in means)
        found.append(Point(cutoff, count))
    return found


def _cutoffs(means: Sequence[Scores], step_s: float, points: int) -> list[float]:
    """From just above every score downwards: at scores and just above them, which is the loosest
    cutoff without them; dense where few scores are.
    """
    peaks = np.concatenate([_peaks(mean, step_s) for mean in means]) if means else np.zeros(0)
    ranked = np.sort(peaks)[::-1]
    ranks = np.unique(np.geomspace(1, max(1, len(ranked)), points).astype(np.int64)) - 1
    chosen = [ranked[rank] for rank in ranks if rank < len(ranked) and ranked[rank] > 0]
    above = [min(float(np.nextafter(one, 2.0)), 1.0) for one in chosen]
    return sorted({*above, *map(float, chosen)} or {0.5}, reverse=True)


def _peaks(mean: Scores, step_s: float) -> Scores:
    """The highest of each second: what a report could come from."""
    steps = max(1, round(1.0 / step_s))
    count = -(-len(mean) // steps)
    padded = np.zeros(count * steps)
    padded[: len(mean)] = mean
    found: Scores = padded.reshape(count, steps).max(axis=1)
    return found


def cutoff_within(curve: Sequence[Point], budget: float) -> float:
    """A cutoff with at most so many false accepts; a little above all scores at 0.

    With as many as the budget allows, and the strictest of these: where the n-th of the highest
    scores is, n are to be expected in as many other hours; just above the next one, n + 1 are
    (Gumbel and von Schelling 1950, "The Distribution of the Number of Exceedances").

    Not monotonic: a looser cutoff can join two reports into one, so the first excess ends it.
    """
    best = curve[0]
    for point in curve:
        if point.false_accepts > budget:
            break
        if point.false_accepts > best.false_accepts:
            best = point
    return best.cutoff


def heard(
    scores: npt.NDArray[np.floating], steps: int, cutoff: float, first: int, last: int
) -> int | None:
    """The first step in [first, last] whose window reaches the cutoff, if any."""
    means = window_means(scores, steps)[first : last + 1]
    above = np.flatnonzero(means >= cutoff)
    return int(above[0]) + first if len(above) else None

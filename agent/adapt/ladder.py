"""A release's ladder as the governor sees it: rungs with accuracy and cost."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from edge_sdk.contracts.operating_point import OperatingPoint

DEARER = 1.05
"""A rung that costs more than so many times a better one is passed over; less may be noise."""


@dataclass(frozen=True, slots=True)
class Rung:
    """What the governor needs to know of an operating point."""

    point: str
    accuracy: float
    cost: float = 0.0
    """Expected latency in any unit that all rungs share; 0.0 where it is not known."""
    memory_mib: float = 0.0
    """What loading it takes; 0.0 where it is not known."""


def rungs(points: Sequence[OperatingPoint]) -> list[Rung]:
    """A manifest's ladder as the governor needs it.

    Costs are the predicted latencies of the profile, or, for one that is not calibrated, those
    measured on the converting host: only their ratios matter.
    """
    predicted = [0.0 if p.predicted is None else p.predicted.mid_ms for p in points]
    costs = predicted if all(predicted) else [point.host_latency_ms for point in points]
    return [
        Rung(point.id, point.accuracy, cost, point.memory_mib)
        for point, cost in zip(points, costs, strict=True)
    ]


def worthwhile(ladder: Sequence[Rung]) -> tuple[int, ...]:
    """Rungs that cost less than every better one, or about as much; the first always.

    A measured ladder may hold points that are both dearer and worse than another one.
    """
    kept: list[int] = []
    least = 0.0
    for index, rung in enumerate(ladder):
        if not kept or rung.cost <= 0.0 or least <= 0.0 or rung.cost <= DEARER * least:
            kept.append(index)
            least = min(least, rung.cost) if least > 0.0 and rung.cost > 0.0 else rung.cost
    return tuple(kept)


def least_costs(ladder: Sequence[Rung]) -> tuple[float, ...]:
    """Per rung, the least cost down to it, so that none is dearer than a better one.

    Empty where a cost is not known.
    """
    costs = [rung.cost for rung in ladder]
    return tuple(itertools.accumulate(costs, min)) if min(costs) > 0.0 else ()


def bottom(ladder: Sequence[Rung], accuracy_floor: float) -> int:
    """The cheapest rung that can be reached without passing one below the floor."""
    for index, rung in enumerate(ladder):
        if rung.accuracy < accuracy_floor:
            return max(index - 1, 0)
    return len(ladder) - 1

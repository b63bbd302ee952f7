"""The search: evolutionary, or exhaustive where the space is small. Pure functions of a seed.

Regularised towards the budget as in Cai et al., "Once-for-All" (ICLR 2020), but the quality of a
candidate is measured, not predicted. Candidates are filled up to the budget: a sub-network that
leaves room for a larger one is rarely the best.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from converters.supernet.space import KINDS, Genes, Space

Quality = tuple[float, float]
"""Accuracy, then minus the loss; larger is better."""
_RATE = 0.15
_PARENTS = 0.25


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to look for each budget."""

    candidates: int = 200
    """Measured at most."""
    population: int = 40
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """The best sub-network within a budget."""

    genes: Genes
    quality: Quality
    cost: float
    measured: int
    """Candidates that were compared."""
    exhaustive: bool


def search(
    space: Space,
    cost: Callable[[Genes], float],
    quality: Callable[[Genes], Quality],
    budget: float,
    effort: Effort,
    seeds: Sequence[Genes] = (),
) -> Found | None:
    """The best sub-network whose cost is at most the budget.

    Args:
        space: of the candidates.
        cost: falls, or stays, with each step down an axis.
        quality: measured; called once per candidate.
        budget: in the unit of ``cost``.
        effort: how many to measure.
        seeds: candidates to begin with, those over the budget are left out. The result is never
            worse than any of them, as far as ``quality`` can tell.

    Returns:
        None where even the smallest sub-network costs more.
    """
    known: dict[Genes, Quality] = {}

    def measure(genes: Genes) -> None:
        if genes not in known and len(known) < effort.candidates:
            known[genes] = quality(genes)

    whole = space.size <= effort.candidates
    if whole:
        for genes in space.everything():
            if cost(genes) <= budget:
                measure(genes)
    elif cost(space.smallest(KINDS)) <= budget:
        _evolve(space, cost, measure, known, budget, effort, seeds)
    if not known:
        return None
    best = max(known, key=lambda genes: (known[genes], -cost(genes), genes))
    return Found(best, known[best], cost(best), len(known), whole)


def _evolve(
    space: Space,
    cost: Callable[[Genes], float],
    measure: Callable[[Genes], None],
    known: dict[Genes, Quality],
    budget: float,
    effort: Effort,
    seeds: Sequence[Genes],
) -> None:
    draw = random.Random(effort.seed)
    for genes in map(space.canonical, seeds):
        if cost(genes) <= budget:
            measure(genes)
    for _ in range(effort.population * 4):  # a small space repeats itself
        if len(known) < effort.population:
            measure(fitted(space, cost, space.drawn(draw, KINDS), budget, draw))
    idle = 0
    while len(known) < effort.candidates and idle < effort.population:
        before = len(known)
        ranked = sorted(known, key=lambda genes: (known[genes], genes), reverse=True)
        parents = ranked[: max(2, round(effort.population * _PARENTS))]
        child = space.crossed(draw.choice(parents), draw.choice(parents), draw)
        child = space.mutated(child, draw, _RATE)
        measure(fitted(space, cost, child, budget, draw))
        idle = idle + 1 if len(known) == before else 0


def fitted(
    space: Space,
    cost: Callable[[Genes], float],
    genes: Genes,
    budget: float,
    draw: random.Random,
) -> Genes:
    """A sub-network near another: random steps down until it fits, then up while it still does.

    The smallest sub-network must fit.
    """
    while cost(genes) > budget:
        steps = space.smaller(genes)
        if not steps:
            return space.smallest(KINDS)
        genes = draw.choice(steps)
    while True:
        steps = [step for step in space.larger(genes) if cost(genes) < cost(step) <= budget]
        if not steps:
            return genes
        genes = draw.choice(steps)

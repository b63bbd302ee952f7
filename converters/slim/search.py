"""How many channels each group keeps at each width: greedy, nested. Pure functions.

A width ``w`` may cost what the network would whose every group keeps the share ``w``. From the
full network on, the next step down is always the one that costs the least damage per saved cost;
a narrower width goes on where the wider one stopped, so it is contained in it. Damages measured one
unit at a time do not add up, so what was found is then exchanged step for step, judged as a whole.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from converters.slim.costs import Cost
from converters.slim.groups import Group

LEAST_SHARE = 0.1
"""No group is narrowed below this share of its channels."""
LEAST_OF_WIDTH = 0.75
"""Nor below this part of the width's own share, while that meets the budget. Damage before training
says little about what training can restore, and narrow passages are what it restores least."""
TRIES = 120
"""Networks that the exchange measures at most, for each width."""

Damage = Callable[[Mapping[str, int]], float]
"""Of a network as a whole, by its counts."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Groups that are narrowed by the same share, and the counts they may have."""

    groups: tuple[Group, ...]
    levels: tuple[float, ...]
    """Shares, from 1.0 down."""

    @property
    def name(self) -> str:
        """Of its first group."""
        return self.groups[0].name

    def counts(self, level: int) -> dict[str, int]:
        """Channels of each group at a level."""
        share = self.levels[level]
        return {group.name: max(1, round(group.size * share)) for group in self.groups}


@dataclass(frozen=True, slots=True)
class Curve:
    """Damage of narrowing one unit alone, measured at some shares; linear between them."""

    shares: tuple[float, ...]
    """Ascending, the last one 1.0."""
    damages: tuple[float, ...]

    def at(self, share: float) -> float:
        """Damage at a share; never rises with the share."""
        if share >= self.shares[-1]:
            return self.damages[-1]
        right = bisect.bisect_left(self.shares, share)
        if right == 0:
            return self.damages[0] * self.shares[0] / max(share, 1e-3)
        low, high = self.shares[right - 1], self.shares[right]
        part = (share - low) / (high - low)
        return self.damages[right - 1] * (1 - part) + self.damages[right] * part


def units_of(groups: Sequence[Group], round_to: int, least: float = LEAST_SHARE) -> list[Unit]:
    """What can be narrowed on its own."""
    linked: dict[str, list[Group]] = {}
    for group in groups:
        linked.setdefault(group.link or f"\0{group.name}", []).append(group)
    return [Unit(tuple(members), _levels(members, round_to, least)) for members in linked.values()]


def _levels(groups: Sequence[Group], round_to: int, least: float) -> tuple[float, ...]:
    if len(groups) > 1:
        parts = math.gcd(*(group.size for group in groups))
        found = [n / parts for n in range(parts, 0, -1)]
    else:
        (group,) = groups
        step, floor = group.step(round_to), group.least(round_to)
        counts = {group.size, *range(step, group.size, step)}
        found = [n / group.size for n in sorted(counts, reverse=True) if n >= floor]
    return tuple(share for share in found if share >= least or share == 1.0)


def uniform(units: Sequence[Unit], share: float) -> dict[str, int]:
    """Every unit at its level nearest to a share."""
    kept: dict[str, int] = {}
    for unit in units:
        level = min(range(len(unit.levels)), key=lambda i: abs(unit.levels[i] - share))
        kept |= unit.counts(level)
    return kept


def search(
    units: Sequence[Unit],
    curves: Mapping[str, Curve],
    cost: Cost,
    budgets: Sequence[float],
    damage: Damage | None = None,
    floors: Sequence[float] | None = None,
) -> list[dict[str, int]]:
    """Counts by group for each budget.

    Args:
        units: all of them.
        curves: damage by unit name.
        cost: of a network.
        budgets: descending; the cost allowed to each width.
        damage: of a whole network, measured; None leaves the sum of the curves the last word.
        floors: for each budget the share below which no group goes unless the budget demands it.

    Returns:
        One mapping per budget; each is nowhere larger than the one before. Where even the
        narrowest network exceeds a budget, that is what the budget gets.
    """
    levels = {unit.name: 0 for unit in units}
    found = []
    for budget, floor in zip(budgets, floors or [0.0] * len(budgets), strict=True):
        ceiling = dict(levels)
        allowed = _above(units, levels, floor)
        if cost(_kept(allowed, {unit.name: len(unit.levels) - 1 for unit in allowed})) > budget:
            allowed = list(units)
        while cost(_kept(allowed, levels)) > budget:
            step = _best(allowed, curves, cost, levels)
            if step is None:
                break
            levels[step[0].name] = step[1]
        _give_back(allowed, curves, cost, levels, ceiling, budget)
        if damage is not None and cost(_kept(allowed, levels)) <= budget:
            levels = _exchange(allowed, curves, cost, levels, ceiling, budget, damage)
        found.append(_kept(units, levels))
    return found


def _above(units: Sequence[Unit], levels: Mapping[str, int], floor: float) -> list[Unit]:
    """The units without their levels below a floor, except those that are taken already."""
    return [
        replace(
            unit,
            levels=tuple(
                share
                for level, share in enumerate(unit.levels)
                if share >= floor or level <= levels[unit.name]
            ),
        )
        for unit in units
    ]


def _kept(units: Sequence[Unit], levels: Mapping[str, int]) -> dict[str, int]:
    return {name: n for unit in units for name, n in unit.counts(levels[unit.name]).items()}


def _give_back(
    units: Sequence[Unit],
    curves: Mapping[str, Curve],
    cost: Cost,
    levels: dict[str, int],
    ceiling: Mapping[str, int],
    budget: float,
) -> None:
    """Undo steps that the budget leaves room for: the last one often went too far."""
    while True:
        room = []
        for unit in units:
            level = levels[unit.name] - 1
            if level < ceiling[unit.name]:
                continue
            if cost(_kept(units, {**levels, unit.name: level})) <= budget:
                gain = _harm(curves[unit.name], unit, level)
                room.append((gain, unit.name, level))
        if not room:
            return
        _, name, level = max(room)
        levels[name] = level


def _exchange(
    units: Sequence[Unit],
    curves: Mapping[str, Curve],
    cost: Cost,
    levels: Mapping[str, int],
    ceiling: Mapping[str, int],
    budget: float,
    damage: Damage,
) -> dict[str, int]:
    """Trade steps between units while the network as a whole is damaged less.

    The trades that the curves promise most of are tried first; a network is measured once.
    """
    best, least = dict(levels), damage(_kept(units, levels))
    seen, left = {tuple(best.values())}, TRIES
    while True:
        improved = False
        for trade in _trades(units, curves, cost, best, ceiling, budget):
            if tuple(trade.values()) in seen:
                continue
            if left == 0:
                return best
            seen.add(tuple(trade.values()))
            left -= 1
            if (found := damage(_kept(units, trade))) < least:
                best, least, improved = trade, found, True
                break
        if not improved:
            return best


def _trades(
    units: Sequence[Unit],
    curves: Mapping[str, Curve],
    cost: Cost,
    levels: Mapping[str, int],
    ceiling: Mapping[str, int],
    budget: float,
) -> list[dict[str, int]]:
    """Networks within the budget: one unit a step up, another down as far as that needs."""
    found: list[tuple[float, int, dict[str, int]]] = []
    for up in units:
        raised = {**levels, up.name: levels[up.name] - 1}
        if raised[up.name] < ceiling[up.name]:
            continue
        gain = _harm(curves[up.name], up, raised[up.name])
        for down in units:
            if down is up:
                continue
            trade, lost = dict(raised), 0.0
            while cost(_kept(units, trade)) > budget and trade[down.name] + 1 < len(down.levels):
                lost += _harm(curves[down.name], down, trade[down.name])
                trade[down.name] += 1
            if cost(_kept(units, trade)) > budget:
                continue
            _give_back(units, curves, cost, trade, ceiling, budget)
            if trade != levels:
                found.append((lost - gain, len(found), trade))
    return [trade for _, _, trade in sorted(found)]


def _harm(curve: Curve, unit: Unit, level: int) -> float:
    """What the step down from a level costs."""
    return curve.at(unit.levels[level + 1]) - curve.at(unit.levels[level])


def _best(
    units: Sequence[Unit],
    curves: Mapping[str, Curve],
    cost: Cost,
    levels: Mapping[str, int],
) -> tuple[Unit, int] | None:
    """The next step down: the least harm per saved cost."""
    now = cost(_kept(units, levels))
    best: tuple[float, Unit, int] | None = None
    for unit in units:
        level = levels[unit.name] + 1
        if level >= len(unit.levels):
            continue
        saved = now - cost(_kept(units, {**levels, unit.name: level}))
        if saved <= 0:
            continue
        rate = max(_harm(curves[unit.name], unit, level - 1), 1e-12) / saved
        if best is None or rate < best[0]:
            best = rate, unit, level
    return (best[1], best[2]) if best is not None else None

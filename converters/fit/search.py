"""The search of ``edge model fit``: what fits, what does not and why. Pure functions.

A candidate is one way of running the model on one profile. It is judged twice by the same rules:
on what is known before it is built (:class:`Estimate`), which spares building what cannot fit, and
on what was measured afterwards (:class:`Facts`). Hard limits of the profile come first, then the
user's budgets. A prediction rejects only with its low end: a candidate whose band reaches into
the budget stays, marked as a risk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edge_sdk.contracts.operating_point import LatencyBand, RuntimeName

Kind = Literal["limit", "latency", "memory", "accuracy", "dominated"]
Risk = Literal["none", "high", "mid", "unknown"]


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """A candidate's coordinates."""

    width: float
    size: str
    """Resolution, ``32x32``."""
    scheme: str
    runtime: RuntimeName
    threads: int

    @property
    def name(self) -> str:
        """For people, e.g. ``w1.00 32x32 static_wi8_ai8 litert x4``."""
        return f"w{self.width:.2f} {self.size} {self.scheme} {self.runtime} x{self.threads}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a profile cannot do, whatever the user would accept."""

    schemes: dict[str, frozenset[str]]
    """By runtime of the profile."""
    max_threads: int
    memory_mib: float
    """A process may plan with."""
    max_model_mib: float | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """What the user asks for; None is no bound."""

    latency_ms: float | None = None
    memory_mib: float | None = None
    accuracy_drop: float | None = None
    """Against PyTorch at the full width and resolution; 0.01 is one point."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a candidate; None where nothing is."""

    point: Point
    model_mib: float
    """Of the file; before building, the least it can be."""
    latency: LatencyBand | None = None
    """Predicted on the profile; None when that is uncalibrated."""
    memory_mib: float | None = None
    accuracy_drop: float | None = None
    distance: float = 0.0
    """From the full model's outputs, see :mod:`converters.measure`."""
    host_latency_ms: float | None = None
    digest: str = ""
    blocked: str = ""
    """Why the profile cannot run this very graph, as its lint says."""
    note: str = ""
    """What the accelerators of the profile take of it; decides nothing."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a candidate is not on the ladder."""

    facts: Facts
    kind: Kind
    reason: str
    needs: Budget
    """The budget under which it would be in, as far as is known; empty for a hard limit."""


@dataclass(frozen=True, slots=True)
class Fitting:
    """A candidate that fits."""

    facts: Facts
    risk: Risk
    """``mid``: the predicted latency itself exceeds the budget and only the band reaches into it;
    ``high``: the band's upper end exceeds it; ``unknown``: there is no prediction."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the search found for one profile."""

    ladder: tuple[Fitting, ...]
    """The most faithful and most expensive first."""
    rejected: tuple[Rejection, ...]


@dataclass(frozen=True, slots=True)
class Miss:
    """One way to let something in: the least that would have to give."""

    facts: Facts
    budget: Budget
    """The relaxed budgets; None where the user's own bound may stay."""
    excess: float
    """Sum over the budgets of (needed / asked - 1)."""


def broken_limit(facts: Facts, limits: Limits) -> str:
    """Which hard limit a candidate breaks, in words; empty when none."""
    point = facts.point
    if point.runtime not in limits.schemes:
        return f"the profile does not run {point.runtime}"
    if point.scheme not in limits.schemes[point.runtime]:
        return f"{point.runtime} there does not run {point.scheme}"
    if point.threads > limits.max_threads:
        return f"{point.threads} threads on {limits.max_threads} cores"
    if limits.max_model_mib is not None and facts.model_mib > limits.max_model_mib:
        return f"file of {facts.model_mib:.2f} MiB, the profile takes {limits.max_model_mib:g}"
    if facts.memory_mib is not None and facts.memory_mib > limits.memory_mib:
        return f"{facts.memory_mib:.0f} MiB of memory, the profile has {limits.memory_mib:.0f}"
    return facts.blocked


def needs_of(facts: Facts) -> Budget:
    """The tightest budget that lets a candidate in, as far as it is known."""
    return Budget(
        latency_ms=facts.latency.low_ms if facts.latency is not None else None,
        memory_mib=facts.memory_mib,
        accuracy_drop=facts.accuracy_drop,
    )


def judge(facts: Facts, limits: Limits, budget: Budget) -> Rejection | Fitting:
    """Whether one candidate is in, by itself."""
    limit = broken_limit(facts, limits)
    if limit:
        return Rejection(facts, "limit", limit, Budget())
    for kind, what, unit in _EXCESSES:
        need, bound = what(needs_of(facts)), what(budget)
        if need is not None and bound is not None and need > bound:
            return Rejection(facts, kind, unit(facts, need, bound), needs_of(facts))
    return Fitting(facts, _risk(facts, budget))


def search(candidates: Iterable[Facts], limits: Limits, budget: Budget) -> Verdict:
    """The ladder of one profile.

    Args:
        candidates: every measured (or estimated) way of running the model.
        limits: of the profile.
        budget: of the user.

    Returns:
        The points of the Pareto front over cost, accuracy and distance, and each other candidate
        with its reason. Every candidate is in exactly one of the two.
    """
    judged = [judge(facts, limits, budget) for facts in candidates]
    fitting = [item for item in judged if isinstance(item, Fitting)]
    rejected = [item for item in judged if isinstance(item, Rejection)]
    ladder = []
    for index, one in enumerate(fitting):
        better = _covering(one, index, fitting)
        if better is None:
            ladder.append(one)
        else:
            reason = f"{better.facts.point.name} is no worse in anything"
            rejected.append(Rejection(one.facts, "dominated", reason, Budget()))
    ladder.sort(key=lambda item: (-cost_ms(item.facts), item.facts.distance, item.facts.point))
    return Verdict(tuple(ladder), tuple(rejected))


def nearest(verdict: Verdict, budget: Budget, most: int = 3) -> list[Miss]:
    """What would have to give: the rejected candidates that need the least.

    Only candidates whose every need is known count, and none that breaks a hard limit. One whose
    needs are all at least those of another is left out.
    """
    misses = []
    for item in verdict.rejected:
        if item.kind in ("limit", "dominated"):
            continue
        relaxed, excess = _relaxation(item.needs, budget)
        misses.append(Miss(item.facts, relaxed, excess))
    misses.sort(key=lambda miss: (miss.excess, miss.facts.point))
    kept: list[Miss] = []
    for miss in misses:
        if not any(_asks_no_more(other.budget, miss.budget) for other in kept):
            kept.append(miss)
    return kept[:most]


def widen(budget: Budget, by: Budget) -> Budget:
    """The user's budget with the bounds of a miss in place of its own."""
    return Budget(
        latency_ms=_either(by.latency_ms, budget.latency_ms),
        memory_mib=_either(by.memory_mib, budget.memory_mib),
        accuracy_drop=_either(by.accuracy_drop, budget.accuracy_drop),
    )


def survivors(candidates: Sequence[Facts], limits: Limits, budget: Budget) -> Verdict:
    """What is worth building: everything not rejected by what is known already.

    Nothing is dominated yet, for nothing has been measured.
    """
    judged = [judge(facts, limits, replace(budget, accuracy_drop=None)) for facts in candidates]
    return Verdict(
        tuple(item for item in judged if isinstance(item, Fitting)),
        tuple(item for item in judged if isinstance(item, Rejection)),
    )


def cost_ms(facts: Facts) -> float:
    """Predicted on the device where there is a prediction, else measured on this host."""
    if facts.latency is not None:
        return facts.latency.mid_ms
    return facts.host_latency_ms if facts.host_latency_ms is not None else 0.0


def _risk(facts: Facts, budget: Budget) -> Risk:
    if budget.latency_ms is None:
        return "none"
    if facts.latency is None:
        return "unknown"
    if facts.latency.mid_ms > budget.latency_ms:
        return "mid"
    return "high" if facts.latency.high_ms > budget.latency_ms else "none"


def _covering(one: Fitting, index: int, others: Sequence[Fitting]) -> Fitting | None:
    """A candidate that makes this one superfluous; of two equal ones the earlier stays.

    It must be no worse in everything that a budget bounds: whatever budget rejects it would
    reject this one too, so that a larger budget never takes a point off the ladder.
    """
    mine = _axes(one.facts)
    for position, other in enumerate(others):
        theirs = _axes(other.facts)
        comparable = (one.facts.latency is None) == (other.facts.latency is None)
        no_worse = comparable and all(b <= a for a, b in zip(mine, theirs, strict=True))
        if position != index and no_worse and (mine != theirs or position < index):
            return other
    return None


def _axes(facts: Facts) -> tuple[float, ...]:
    needs = needs_of(facts)
    bounded = (needs.latency_ms, needs.memory_mib, needs.accuracy_drop)
    known = (-math.inf if need is None else need for need in bounded)
    return (cost_ms(facts), facts.distance, *known)


def _relaxation(needs: Budget, budget: Budget) -> tuple[Budget, float]:
    given: dict[str, float] = {}
    excess = 0.0
    for name in ("latency_ms", "memory_mib", "accuracy_drop"):
        need, bound = getattr(needs, name), getattr(budget, name)
        if need is not None and bound is not None and need > bound:
            given[name] = need
            excess += need / max(bound, 1e-3) - 1
    return Budget(**given), excess


def _asks_no_more(one: Budget, other: Budget) -> bool:
    pairs = (
        (one.latency_ms, other.latency_ms),
        (one.memory_mib, other.memory_mib),
        (one.accuracy_drop, other.accuracy_drop),
    )
    return all(a is None or (b is not None and a <= b) for a, b in pairs)


def _either(first: float | None, second: float | None) -> float | None:
    return first if first is not None else second


_Get = Callable[[Budget], float | None]
_Say = Callable[[Facts, float, float], str]
_EXCESSES: tuple[tuple[Kind, _Get, _Say], ...] = (
    (
        "latency",
        lambda budget: budget.latency_ms,
        lambda facts, need, bound: f"at least {need:.2f} ms predicted, {bound:g} allowed",
    ),
    (
        "memory",
        lambda budget: budget.memory_mib,
        lambda facts, need, bound: f"{need:.1f} MiB of memory measured, {bound:g} allowed",
    ),
    (
        "accuracy",
        lambda budget: budget.accuracy_drop,
        lambda facts, need, bound: (
            f"accuracy drops by {need * 100:.2f} points, {bound * 100:g} allowed"
        ),
    ),
)

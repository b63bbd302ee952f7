"""The search of ``edge model fit`` for every set of candidates, limits and budgets."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.fit.search import (
    Budget,
    Facts,
    Fitting,
    Limits,
    Point,
    Rejection,
    broken_limit,
    judge,
    nearest,
    search,
    survivors,
    widen,
)
from edge_sdk.contracts.operating_point import LatencyBand

SCHEMES = ("fp32", "static_wi8_ai8", "wfp16")
RUNTIMES = ("litert", "onnxruntime")
AMOUNT = st.integers(1, 40).map(float)
MAYBE = st.none() | AMOUNT


@st.composite
def bands(draw: st.DrawFn) -> LatencyBand | None:
    mid, share = draw(AMOUNT), draw(st.sampled_from([0.1, 0.5, 1.0]))
    if draw(st.integers(0, 4)) == 0:
        return None
    return LatencyBand(low_ms=mid / (1 + share), mid_ms=mid, high_ms=mid * (1 + share), basis="b")


@st.composite
def facts(draw: st.DrawFn) -> Facts:
    point = Point(
        width=draw(st.sampled_from([1.0, 0.5])),
        size=draw(st.sampled_from(["32x32", "24x24"])),
        scheme=draw(st.sampled_from(SCHEMES)),
        runtime=draw(st.sampled_from(RUNTIMES)),
        threads=draw(st.integers(1, 4)),
    )
    return Facts(
        point=point,
        model_mib=draw(AMOUNT),
        latency=draw(bands()),
        memory_mib=draw(MAYBE),
        accuracy_drop=draw(st.none() | st.integers(-2, 10).map(lambda n: n / 100)),
        distance=draw(st.integers(0, 3).map(float)),
        host_latency_ms=draw(AMOUNT),
        blocked=draw(st.sampled_from(["", "", "", "an op it does not know"])),
    )


@st.composite
def limit_sets(draw: st.DrawFn) -> Limits:
    names = draw(st.sets(st.sampled_from(RUNTIMES), min_size=1))
    schemes = st.frozensets(st.sampled_from(SCHEMES))
    return Limits(
        schemes={name: draw(schemes) for name in names},
        max_threads=draw(st.integers(1, 4)),
        memory_mib=draw(AMOUNT),
        max_model_mib=draw(MAYBE),
    )


BUDGETS = st.builds(
    Budget,
    latency_ms=MAYBE,
    memory_mib=MAYBE,
    accuracy_drop=st.none() | st.integers(0, 10).map(lambda n: n / 100),
)
MANY = st.lists(facts(), max_size=12)


def points(fitting: tuple[Fitting, ...]) -> list[Facts]:
    return [item.facts for item in fitting]


@settings(deadline=None)
@given(MANY, limit_sets(), BUDGETS)
def test_every_candidate_is_on_the_ladder_or_rejected_with_a_reason(
    candidates: list[Facts], limits: Limits, budget: Budget
) -> None:
    verdict = search(candidates, limits, budget)
    found = points(verdict.ladder) + [item.facts for item in verdict.rejected]
    assert sorted(map(repr, found)) == sorted(map(repr, candidates))
    assert all(item.reason for item in verdict.rejected)


@settings(deadline=None)
@given(MANY, limit_sets(), BUDGETS)
def test_no_point_breaks_a_hard_limit_or_a_budget(
    candidates: list[Facts], limits: Limits, budget: Budget
) -> None:
    """Said again in plain comparisons, not with the search's own functions."""
    for one in points(search(candidates, limits, budget).ladder):
        assert one.point.scheme in limits.schemes[one.point.runtime]
        assert one.point.threads <= limits.max_threads
        assert one.model_mib <= (limits.max_model_mib or math.inf)
        assert (one.memory_mib or 0) <= limits.memory_mib
        assert not one.blocked
        assert (one.memory_mib or 0) <= (budget.memory_mib or math.inf)
        if one.accuracy_drop is not None and budget.accuracy_drop is not None:
            assert one.accuracy_drop <= budget.accuracy_drop
        if one.latency is not None and budget.latency_ms is not None:
            assert one.latency.low_ms <= budget.latency_ms


@settings(deadline=None)
@given(MANY, limit_sets(), BUDGETS, BUDGETS)
def test_more_budget_never_removes_a_point(
    candidates: list[Facts], limits: Limits, one: Budget, two: Budget
) -> None:
    def larger(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None else max(a, b)

    union = Budget(
        larger(one.latency_ms, two.latency_ms),
        larger(one.memory_mib, two.memory_mib),
        larger(one.accuracy_drop, two.accuracy_drop),
    )
    wide = points(search(candidates, limits, union).ladder)
    for narrow in (one, two):
        for fact in points(search(candidates, limits, narrow).ladder):
            assert fact in wide


@settings(deadline=None)
@given(MANY, limit_sets(), BUDGETS)
def test_the_ladder_descends_and_holds_no_superfluous_point(
    candidates: list[Facts], limits: Limits, budget: Budget
) -> None:
    ladder = points(search(candidates, limits, budget).ladder)
    known = [one.latency.mid_ms for one in ladder if one.latency is not None]
    assert known == sorted(known, reverse=True)
    for one in ladder:
        for other in ladder:
            if one == other or one.latency is None or other.latency is None:
                continue
            strictly_better = (
                other.latency.low_ms <= one.latency.low_ms
                and other.latency.mid_ms < one.latency.mid_ms
                and (other.memory_mib or 0) < (one.memory_mib or -1)
                and (other.accuracy_drop or 0) < (one.accuracy_drop or -1)
                and other.distance < one.distance
            )
            assert not strictly_better


@settings(deadline=None)
@given(MANY, limit_sets(), BUDGETS)
def test_what_would_have_to_give_really_lets_it_in(
    candidates: list[Facts], limits: Limits, budget: Budget
) -> None:
    verdict = search(candidates, limits, budget)
    misses = nearest(verdict, budget)
    for miss in misses:
        assert isinstance(judge(miss.facts, limits, budget), Rejection)
        relaxed = widen(budget, miss.budget)
        assert isinstance(judge(miss.facts, limits, relaxed), Fitting)
        assert search(candidates, limits, relaxed).ladder
        assert miss.excess > 0
    assert [miss.excess for miss in misses] == sorted(miss.excess for miss in misses)
    if not verdict.ladder and not misses:
        assert all(broken_limit(one, limits) for one in candidates)


@settings(deadline=None)
@given(MANY, limit_sets(), BUDGETS)
def test_pruning_before_building_loses_no_point_of_the_ladder(
    candidates: list[Facts], limits: Limits, budget: Budget
) -> None:
    """Estimates know no accuracy, and at most as much memory and size as there will be."""
    estimates = {
        one: replace(one, accuracy_drop=None, memory_mib=None, model_mib=one.model_mib / 2)
        for one in candidates
    }
    kept = points(survivors(list(estimates.values()), limits, budget).ladder)
    for one in points(search(candidates, limits, budget).ladder):
        assert estimates[one] in kept


@pytest.mark.parametrize(
    ("latency_ms", "risk"), [(None, "none"), (25.0, "none"), (15.0, "high"), (8.0, "mid")]
)
def test_a_band_that_reaches_beyond_the_budget_is_marked(
    latency_ms: float | None, risk: str
) -> None:
    band = LatencyBand(low_ms=5.0, mid_ms=10.0, high_ms=20.0, basis="b")
    one = Facts(Point(1.0, "8x8", "fp32", "litert", 1), 1.0, band)
    limits = Limits({"litert": frozenset({"fp32"})}, 1, 100.0)
    found = judge(one, limits, Budget(latency_ms=latency_ms))
    assert isinstance(found, Fitting)
    assert found.risk == risk
    uncalibrated = judge(replace(one, latency=None), limits, Budget(latency_ms=1.0))
    assert isinstance(uncalibrated, Fitting)
    assert uncalibrated.risk == "unknown"

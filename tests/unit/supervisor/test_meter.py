"""Latency quantiles and interval counters."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from agent.meter import MAX_LATENCIES, Interval, quantile

LATENCIES = st.lists(st.floats(0.0, 1e6), max_size=200)


@given(LATENCIES, st.floats(0.0, 1.0))
def test_a_quantile_is_the_nearest_rank(values: list[float], share: float) -> None:
    ordered = sorted(values)
    found = quantile(ordered, share)
    if not ordered:
        assert found == 0.0
        return
    at_most = sum(1 for value in ordered if value <= found)
    below = sum(1 for value in ordered if value < found)
    assert at_most >= math.floor(share * len(ordered))
    assert below <= math.ceil(share * len(ordered))


@given(st.lists(LATENCIES, max_size=5))
def test_quantiles_are_ordered_and_counts_add_up(reports: list[list[float]]) -> None:
    interval = Interval(0.0)
    for latencies in reports:
        interval.add(
            frames=len(latencies),
            dropped=1,
            errors=0,
            labelled=0,
            correct=0,
            low_confidence=0,
            queue_depth=3,
            latencies_ms=latencies,
        )
    p50, p95, p99 = interval.quantiles_ms()
    assert p50 <= p95 <= p99
    assert interval.frames == sum(map(len, reports))
    assert interval.dropped == len(reports)


def test_latencies_are_bounded() -> None:
    interval = Interval(0.0)
    for _ in range(3):
        interval.add(
            frames=1,
            dropped=0,
            errors=0,
            labelled=0,
            correct=0,
            low_confidence=0,
            queue_depth=0,
            latencies_ms=[1.0] * MAX_LATENCIES,
        )
    assert len(interval.latencies_ms) == MAX_LATENCIES

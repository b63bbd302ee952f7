"""The gate's decisions: margins, bounds, the ledger, the memory rule."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.adapt.gate import (
    PROBE_FRAMES,
    REST_FRAMES,
    WINDOW_FRAMES,
    Ledger,
    MemoryRule,
    Plan,
    plan,
)
from agent.adapt.policy import GovernorPolicy
from agent.sense.sample import PressureSample
from edge_sdk.contracts.operating_point import Cascade, OperatingPoint
from edge_sdk.runtime.margins import margins

POLICY = GovernorPolicy()
BAND = POLICY.memory_used_percent


def point(name: str, cascade: Cascade | None = None) -> OperatingPoint:
    return OperatingPoint(
        id=name,
        artifact="a",
        runtime="onnxruntime",
        scheme="fp32",
        channel_width=1.0,
        height_px=8,
        width_px=8,
        threads=1,
        accuracy=1.0,
        accuracy_drop=0.0,
        agreement=1.0,
        max_output_error=0.0,
        host_latency_ms=1.0,
        cascade=cascade,
    )


def cascade(first: str, threshold: float = 0.5) -> Cascade:
    return Cascade(
        first=first,
        threshold=threshold,
        escalated=0.3,
        disagreement=0.01,
        mean_ms=1.0,
        alone_ms=2.0,
        samples=100,
    )


logits = st.lists(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=4, max_size=4), min_size=1, max_size=8
)


@given(logits)
def test_a_margin_is_the_difference_of_the_two_best_shares(rows: list[list[float]]) -> None:
    values = np.array(rows, np.float32)
    found = margins(values)
    assert found.shape == (len(rows),) and ((found >= 0) & (found <= 1)).all()
    soft = np.exp(values.astype(np.float64) - values.max(1, keepdims=True))
    soft /= soft.sum(1, keepdims=True)
    best = np.sort(soft, axis=1)
    np.testing.assert_allclose(found, best[:, -1] - best[:, -2], atol=1e-5)


def test_one_label_is_always_sure() -> None:
    assert margins(np.zeros((3, 1), np.float32)).tolist() == [1.0, 1.0, 1.0]


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_less_sure_never_escalates_less(threshold: float, one: float, other: float) -> None:
    used = Plan(1, 0, threshold)
    low, high = sorted((one, other))
    assert used.escalates(low) >= used.escalates(high)
    assert used.escalates(math.nan)


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.none() | st.sampled_from("abcdef"), st.floats()),
        max_size=6,
        unique_by=lambda item: item[0],
    ),
    st.integers(-2, 8),
)
def test_the_governor_bounds_the_gate(
    rungs: list[tuple[str, str | None, float]], index: int
) -> None:
    ladder = [point(name, cascade(first, t) if first else None) for name, first, t in rungs]
    found = plan(ladder, index)
    if found is None:
        return
    own = ladder[index].cascade
    assert own is not None and found.full == index < found.first < len(ladder)
    assert ladder[found.first].id == own.first and 0 <= found.threshold <= 1


def test_a_point_above_or_missing_is_no_first_point() -> None:
    ladder = [point("a"), point("b", cascade("a")), point("c", cascade("gone"))]
    assert [plan(ladder, index) for index in range(3)] == [None, None, None]
    ladder[0] = point("a", cascade("c", 0.25))
    assert plan(ladder, 0) == Plan(first=2, full=0, threshold=0.25)


def run(ledger: Ledger, frames: int, plain_ms: float, gated_ms: float) -> tuple[Ledger, int]:
    gated = 0
    for _ in range(frames):
        through = ledger.wants_gate
        gated += through
        ledger = ledger.after(gated_ms if through else plain_ms, gated=through)
    return ledger, gated


def test_a_gate_that_pays_goes_on() -> None:
    _, gated = run(Ledger(), 10 * (PROBE_FRAMES + WINDOW_FRAMES), 10.0, 7.0)
    assert gated == 10 * WINDOW_FRAMES


def test_a_gate_that_does_not_pay_rests_and_is_tried_again() -> None:
    ledger, gated = run(Ledger(), PROBE_FRAMES + WINDOW_FRAMES, 10.0, 10.5)
    assert gated == WINDOW_FRAMES and ledger.resting == REST_FRAMES
    ledger, gated = run(ledger, REST_FRAMES, 10.0, 7.0)
    assert gated == 0 and not ledger.resting
    assert run(ledger, PROBE_FRAMES + 1, 10.0, 7.0)[1] == 1


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1e6) | st.just(math.nan)), max_size=400))
def test_a_ledger_stays_bounded(frames: list[tuple[bool, float]]) -> None:
    ledger = Ledger()
    for gated, took in frames:
        ledger = ledger.after(took, gated=gated and ledger.wants_gate)
        assert ledger.plain <= PROBE_FRAMES and ledger.gated < WINDOW_FRAMES
        assert 0 <= ledger.resting <= REST_FRAMES


@given(st.lists(st.tuples(st.floats(0, 20), st.none() | st.floats(0, 100)), max_size=60))
def test_memory_pressure_forbids_at_once_and_calm_allows_later(
    samples: list[tuple[float, float | None]],
) -> None:
    rule, now, pressed_at = MemoryRule(), 0.0, -math.inf
    for step, used in samples:
        now += step
        available = None if used is None else 1000 - 10 * used
        sample = PressureSample(memory_available_mib=available, memory_total_mib=1000.0)
        rule = rule.after(POLICY, sample, now)
        seen = sample.memory_used_percent
        if seen is not None and seen >= BAND.enter:
            pressed_at = now
            assert not rule.allowed
        if rule.allowed and pressed_at > -math.inf:
            assert now - pressed_at >= POLICY.dwell_up_s


def test_within_the_band_nothing_moves_and_calm_starts_anew() -> None:
    calm, between, short = (
        PressureSample(memory_available_mib=1000 - 10 * used, memory_total_mib=1000.0)
        for used in (BAND.leave - 5, (BAND.leave + BAND.enter) / 2, BAND.enter + 1)
    )
    assert MemoryRule().after(POLICY, between, 0.0).allowed
    rule = MemoryRule().after(POLICY, short, 0.0).after(POLICY, calm, 1.0)
    rule = rule.after(POLICY, between, 10.0).after(POLICY, calm, 11.0)
    assert not rule.after(POLICY, calm, 11.0 + POLICY.dwell_up_s - 0.1).allowed
    assert rule.after(POLICY, calm, 11.0 + POLICY.dwell_up_s).allowed


def test_a_limit_on_the_workers_own_memory_counts_too() -> None:
    from agent.adapt.policy import Band

    policy = replace(POLICY, worker_rss_mib=Band(enter=100.0, leave=80.0))
    assert not MemoryRule().after(policy, PressureSample(worker_rss_mib=120.0), 0.0).allowed
    assert MemoryRule().after(POLICY, PressureSample(worker_rss_mib=120.0), 0.0).allowed

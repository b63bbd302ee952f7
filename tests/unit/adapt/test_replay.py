"""Replays: the same governor on the same trace does the same, and another one something else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from agent.adapt.governor import Governor
from agent.adapt.ladder import Rung
from agent.adapt.policy import GovernorPolicy
from agent.adapt.replay import Step, elsewhere, replay, replay_together, summarise
from agent.adapt.trace import Segment, read_trace
from tests.fakes.traces import (
    BUSY,
    CALM,
    HOT,
    LADDER,
    LATE,
    TICK_S,
    write_joint_traces,
    write_trace,
)


def segment(tmp_path: Path, *plateaus: tuple[int, object]) -> Segment:
    return read_trace(write_trace(tmp_path / "trace.jsonl", plateaus or ((20, HOT), (40, CALM))))[0]


def indexes(steps: list[Step]) -> list[int]:
    return [step.decision.index for step in steps]


def test_the_governor_that_recorded_does_the_same_again(tmp_path: Path) -> None:
    found = segment(tmp_path, (10, CALM), (12, HOT), (30, CALM), (10, LATE))
    steps = replay(found, Governor(found.start.policy, found.start.ladder))
    assert indexes(steps) == [tick.index for tick in found.ticks] == [s.recorded for s in steps]
    assert [s.decision.reason for s in steps] == [tick.reason for tick in found.ticks]


def test_pipelines_replayed_together_do_what_their_arbiter_did(tmp_path: Path) -> None:
    paths = write_joint_traces(
        tmp_path, [(6, CALM, CALM), (20, BUSY, CALM), (60, CALM, CALM), (10, CALM, HOT)]
    )
    found = [read_trace(path)[0] for path in paths]
    governors = [Governor(one.start.policy, one.start.ladder) for one in found]
    every = replay_together(list(zip(found, governors, strict=True)))
    for one, steps in zip(found, every, strict=True):
        assert [tick.index for tick in one.ticks] == indexes(steps)
        assert [tick.reason for tick in one.ticks] == [s.decision.reason for s in steps]
    yard, door = every
    assert "priority" in {step.decision.reason for step in yard}
    assert indexes(yard).index(2) < next(at for at, index in enumerate(indexes(door)) if index)
    alone = replay(found[0], governors[0], feedback=False)
    assert "priority" not in {step.decision.reason for step in alone}


def test_another_policy_moves_differently(tmp_path: Path) -> None:
    found = segment(tmp_path)
    patient = structs.replace(found.start.policy, dwell_down_s=100.0)
    assert set(indexes(replay(found, Governor(patient, LADDER)))) == {0}
    pinned = structs.replace(found.start.policy, pin=2)
    assert set(indexes(replay(found, Governor(pinned, LADDER)))) == {2}


def test_lateness_goes_where_the_replay_stands_on_a_cheaper_point(tmp_path: Path) -> None:
    held = GovernorPolicy(pin=0, time_constant_s=1.0, dwell_down_s=2.0)
    path = write_trace(tmp_path / "trace.jsonl", [(100, LATE)], policy=held)
    found = read_trace(path)[0]
    free = Governor(structs.replace(found.start.policy, pin=None), LADDER)
    # 1.5 of the objective on the top, .75 on the next, which is late no more and has headroom.
    assert set(indexes(replay(found, free))[10:]) == {1}
    assert set(indexes(replay(found, free, feedback=False))[10:]) == {2}


def test_elsewhere_scales_what_a_point_costs_and_nothing_else() -> None:
    cheap = elsewhere(LATE, 0.5)
    assert (cheap.latency_share, cheap.own_cpu_percent, cheap.cpu_percent) == (0.75, 5.0, 15.0)
    assert (cheap.deadline_miss_share, cheap.queue_frames) == (0.0, 0.0)
    assert cheap.temperature_celsius == LATE.temperature_celsius
    dear = elsewhere(structs.replace(CALM, latency_share=0.6), 2.0)
    assert dear.latency_share == 1.2 and dear.deadline_miss_share == 0.1
    assert elsewhere(CALM, 1.0) is CALM


@given(st.floats(0.01, 100.0), st.floats(0.0, 100.0), st.floats(0.0, 100.0))
def test_elsewhere_stays_within_what_a_machine_has(ratio: float, busy: float, own: float) -> None:
    sample = elsewhere(structs.replace(CALM, cpu_percent=busy, own_cpu_percent=own), ratio)
    for value in (sample.cpu_percent, sample.own_cpu_percent):
        assert value is not None and 0.0 <= value <= 100.0


def test_a_summary_accounts_for_every_second(tmp_path: Path) -> None:
    found = segment(tmp_path, (20, CALM), (20, HOT), (60, CALM))
    steps = replay(found, Governor(found.start.policy, LADDER))
    summary = summarise(steps, LADDER)
    assert summary.seconds == pytest.approx(99 * TICK_S)
    assert sum(summary.seconds_at.values()) == pytest.approx(summary.seconds)
    assert list(summary.seconds_at) == [rung.point for rung in LADDER]
    assert [move.target for move in summary.moves] == ["half", "small", "half", "wide"]
    assert summary.reasons == {"pressure-thermal": 2, "recovered": 2}
    weighted = sum(rung.accuracy * summary.seconds_at[rung.point] for rung in LADDER)
    assert summary.mean_accuracy == pytest.approx(weighted / summary.seconds)
    assert LADDER[-1].accuracy < summary.mean_accuracy < summary.top_accuracy == 0.95


def test_another_ladder_is_scaled_by_its_own_costs(tmp_path: Path) -> None:
    found = segment(tmp_path, (40, LATE))
    tiny = [Rung("tiny", 0.8, 0.8)]
    steps = replay(found, Governor(found.start.policy, tiny))
    assert steps[0].sample.latency_share == pytest.approx(0.15)


# -- a real worker under a real CPU quota (benchmarks/pressure.py), calm to 4.5 s, free at 50 s ----


@pytest.fixture(scope="module")
def quota() -> Segment:
    (found,) = read_trace(Path(__file__).parent / "traces" / "quota.jsonl")
    return found


def test_a_real_quota_is_answered_within_seconds_and_forgotten_when_it_ends(quota: Segment) -> None:
    steps = replay(quota, Governor(quota.start.policy, quota.start.ladder), feedback=False)
    assert indexes(steps)[-1] == indexes(steps)[0] == 0
    low = next(step.at_s for step in steps if step.decision.index == 3)
    assert low < 4.5 + 5.0
    late = [s.sample.deadline_miss_share or 0.0 for s in steps if 10.0 < s.at_s < 31.0]
    assert max(late) < 0.1
    assert 1 not in indexes(steps), "worse and dearer than the first"


def test_a_patient_policy_would_not_have_moved_in_time(quota: Segment) -> None:
    never = {"dwell_down_s": 10.0, "dwell_urgent_s": 10.0, "dwell_jump_s": 10.0}
    patient = structs.replace(quota.start.policy, **never)
    ladder = quota.start.ladder
    did, would = (
        summarise(replay(quota, Governor(policy, ladder)), ladder).moves
        for policy in (quota.start.policy, patient)
    )
    assert did[0].at_s < 9.5 < min((move.at_s for move in would), default=99.0)

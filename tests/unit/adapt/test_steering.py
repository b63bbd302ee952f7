"""The governor at work: releases that change, pins that come and go, and the account of time."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.adapt.governor import Decision
from agent.adapt.ladder import Rung
from agent.adapt.policy import GovernorPolicy
from agent.adapt.steering import Steering
from agent.adapt.workload import OwnUse, Recent, with_workload
from agent.meter import Interval
from agent.pipelines.config import PipelineConfig, SourceConfig
from agent.sense.sample import PressureSample
from agent.worker.protocol import Stats
from edge_sdk.errors import UsageError
from tests.fakes.traces import CALM, HOT, LADDER, POLICY, TICK_S


class Recording:
    """Implements :class:`agent.adapt.steering.Recorder`."""

    def __init__(self) -> None:
        self.begun: list[int | None] = []
        self.ticks: list[str] = []
        self.closed = False

    def begin(self, policy: GovernorPolicy, ladder: Sequence[Rung]) -> None:
        self.begun.append(policy.pin)

    def add(self, now: float, sample: PressureSample, decision: Decision) -> None:
        self.ticks.append(decision.point)

    def close(self) -> None:
        self.closed = True


def steer(
    steering: Steering, sample: PressureSample, ticks: int, start: float = 0.0
) -> list[int | None]:
    return [steering.decide(sample, start + n * TICK_S) for n in range(1, ticks + 1)]


def test_the_worker_is_told_at_first_and_then_only_of_moves() -> None:
    steering = Steering(POLICY)
    assert steering.decide(CALM, 0.0) is None and steering.position(0.0) is None
    steering.govern("a", lambda: LADDER, 0, 0.0)
    told = steer(steering, HOT, 12)
    assert [index for index in told if index is not None] == [0, 1, 2]


def test_a_governed_release_keeps_its_state_and_another_begins_where_its_worker_stands() -> None:
    steering = Steering(POLICY)
    steering.govern("a", lambda: LADDER, 0, 0.0)
    steer(steering, HOT, 12)
    steering.govern("a", lambda: pytest.fail("the ladder is known"), 0, 6.0)
    assert steering.decision is not None and steering.decision.index == 2
    steering.govern("b", lambda: LADDER[:2], 2, 6.5)
    assert steering.decision is None
    assert steering.decide(HOT, 7.0) == 1
    assert steering.point("b", 1) == "half" and steering.point("a", 1) == ""
    assert steering.point("b", 9) == ""


def test_a_pin_moves_at_once_and_its_end_lets_the_governor_go_on() -> None:
    recording = Recording()
    steering = Steering(POLICY, recording)
    steering.govern("a", lambda: LADDER, 0, 0.0)
    steer(steering, CALM, 2)
    steering.pin(steering.rung("small"))
    assert steering.decide(CALM, 2.0) == 2
    assert steering.describe()["pin"] == 2
    assert steer(steering, CALM, 40, start=2.0) == [None] * 40
    steering.pin(None)
    assert [n for n in steer(steering, CALM, 40, start=22.0) if n is not None] == [1, 0]
    assert recording.begun == [None, 2, None]
    steering.close()
    assert recording.closed and len(recording.ticks) == 2 + 1 + 40 + 40


@pytest.mark.parametrize("name", ["3", "-1", "bogus", "", "²", "9" * 4000])
def test_a_point_that_is_not_there_is_refused(name: str) -> None:
    steering = Steering(POLICY)
    with pytest.raises(UsageError, match="No release serves now"):
        steering.rung(name)
    steering.govern("a", lambda: LADDER, 0, 0.0)
    assert steering.rung("1") == steering.rung("half") == 1
    with pytest.raises(UsageError) as caught:
        steering.rung(name)
    assert caught.value.code == "usage.unknown-point" and "wide, half, small" in caught.value.cause


def test_a_worker_that_could_not_move_is_asked_again_after_a_dwell() -> None:
    steering = Steering(POLICY)
    steering.govern("a", lambda: LADDER, 0, 0.0)
    told = steer(steering, HOT, 5)
    assert told[-1] == 1
    steering.refused(0, 2.5)
    again = steer(steering, HOT, 10, start=2.5)
    assert again.index(1) * TICK_S >= POLICY.dwell_down_s - TICK_S


@given(st.lists(st.tuples(st.floats(-1.0, 5.0), st.sampled_from([CALM, HOT])), max_size=60))
def test_the_account_of_time_is_complete_whatever_the_clock_does(
    history: list[tuple[float, PressureSample]],
) -> None:
    steering, now, latest = Steering(POLICY), 0.0, 0.0
    steering.govern("a", lambda: LADDER, 0, 0.0)
    for elapsed_s, sample in history:
        now += elapsed_s
        latest = max(latest, now)
        steering.decide(sample, now)
    position = steering.position(1e9)
    if position is not None:
        assert set(position.seconds_at) <= {rung.point for rung in LADDER}
        assert sum(position.seconds_at.values()) == pytest.approx(latest, abs=0.2)
        assert sum(position.seconds_at.values()) >= 0.0


def test_the_status_names_signals_ladder_and_time() -> None:
    steering = Steering(POLICY)
    assert steering.describe() == {"pin": None}
    steering.govern("a", lambda: LADDER, 0, 0.0)
    steer(steering, HOT, 12)
    shown = steering.describe()
    assert shown["ladder"] == ["wide", "half", "small"] and shown["lowest"] == "small"
    assert shown["signals"]["temperature_celsius"] == {"value": 84.0, "leave": 74.0, "enter": 82.0}
    assert sum(shown["seconds_at"].values()) == pytest.approx(6.0)
    msgspec.json.encode(shown)
    steering.release()
    assert steering.describe() == {"pin": None}


# -- what the agent's own work adds to a sample ---------------------------------------------------


def interval(**counts: object) -> Interval:
    recent = Interval(0.0)
    given_counts = dict.fromkeys(
        ("frames", "dropped", "errors", "labelled", "correct", "low_confidence", "queue_depth"), 0
    )
    recent.add(**{**given_counts, "latencies_ms": (), **counts})
    return recent


def pipeline(objective_ms: float = 0.0, **source: object) -> PipelineConfig:
    return PipelineConfig(
        source=SourceConfig(**{"kind": "frames", "path": "x", **source}), objective_ms=objective_ms
    )


def test_late_and_dropped_frames_are_missed_deadlines() -> None:
    recent = interval(frames=8, dropped=2, latencies_ms=(5.0,) * 6 + (50.0, 60.0), queue_depth=3)
    sample = with_workload(CALM, recent, pipeline(20.0, fps=30.0), OwnUse(12.0, 80.0))
    assert sample.deadline_miss_share == pytest.approx(0.4)
    assert sample.latency_share == pytest.approx(3.0)
    assert (sample.queue_frames, sample.paced) == (3.0, True)
    assert (sample.own_cpu_percent, sample.worker_rss_mib) == (12.0, 80.0)


def test_one_hiccup_among_ten_frames_is_not_the_latency() -> None:
    recent = interval(frames=15, latencies_ms=(5.0,) * 14 + (500.0,))
    assert with_workload(CALM, recent, pipeline(10.0), OwnUse()).latency_share == 0.5


def test_without_an_objective_or_frames_nothing_is_said() -> None:
    quiet = with_workload(CALM, Interval(0.0), pipeline(20.0, fps=5.0), OwnUse())
    assert quiet.deadline_miss_share is quiet.latency_share is quiet.queue_frames is None
    free = with_workload(CALM, interval(frames=1, latencies_ms=(9.0,)), pipeline(), OwnUse())
    assert free.latency_share is None and free.deadline_miss_share == 0.0


def test_a_file_as_fast_as_it_goes_always_has_a_queue_that_means_nothing() -> None:
    recent = interval(frames=9, queue_depth=4)
    fast = with_workload(CALM, recent, pipeline(), OwnUse())
    assert fast.queue_frames is None and not fast.paced and fast.busy_percent is None
    camera = with_workload(CALM, recent, pipeline(kind="camera", path=""), OwnUse())
    assert camera.queue_frames == 4.0 and camera.busy_percent == CALM.cpu_percent


def test_what_a_point_that_is_being_left_reports_does_not_count() -> None:
    recent = Recent(10.0, 0.0)
    late = Stats(frames=2, latencies_ms=(30.0, 5.0), point=0)
    recent.add(late)
    assert recent.alarmed and recent.take(1.0).frames == 2
    assert not recent.alarmed
    recent.told(2)
    recent.add(late)
    assert not recent.alarmed and recent.take(2.0).reports == 0
    recent.add(Stats(frames=3, latencies_ms=(2.0,), point=2))
    assert recent.take(3.0).frames == 3
    recent.stands()
    recent.add(late)
    assert recent.take(4.0).frames == 2, "refused: it stands where it stood"
    assert not Recent(0.0, 0.0).alarmed

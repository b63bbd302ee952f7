"""Several pipelines on one device: who steps down and rises first, and what never happens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.adapt.arbiter import Contender, arbitrate
from agent.adapt.governor import Decision, Governor, GovernorState
from agent.adapt.ladder import Rung
from agent.adapt.policy import Band, GovernorPolicy
from agent.adapt.signals import STALE_S
from agent.adapt.steering import Seat, Steering, decide_together
from agent.sense.sample import PressureSample
from tests.fakes.traces import CALM, HOT, LADDER, LATE, POLICY, TICK_S

BUSY = msgspec.structs.replace(CALM, cpu_pressure_percent=90.0)
LATE_AND_BUSY = msgspec.structs.replace(LATE, cpu_pressure_percent=20.0, cpu_percent=90.0)


@dataclass(frozen=True)
class Tick:
    """One pipeline at one tick."""

    at: float
    before: int
    decision: Decision
    alarmed: bool
    """Frames of some pipeline have been very late for long enough."""


class Device:
    """Pipelines and their ticks so far."""

    def __init__(self, governors: Sequence[Governor], priorities: Sequence[int]) -> None:
        self.governors, self.priorities = governors, priorities
        self.states: list[GovernorState] = [governor.start(0.0) for governor in governors]
        self.now = 0.0
        self.ticks: list[list[Tick]] = []

    def feel(self, *samples: PressureSample, seconds: float = TICK_S) -> list[int]:
        """The same for some time; one sample for all or one each. Returns where they stand."""
        each = samples * len(self.states) if len(samples) == 1 else samples
        for _ in range(math.ceil(seconds / TICK_S)):
            self.now += TICK_S
            asked = zip(self.governors, self.states, each, self.priorities, strict=True)
            contenders = [Contender(*one) for one in asked]
            alarmed = any(
                one.governor.is_alarmed(one.governor.observe(one.state, one.sample, self.now))
                for one in contenders
            )
            outcomes = arbitrate(contenders, self.now)
            self.ticks.append(
                [
                    Tick(self.now, before.index, decision, alarmed)
                    for before, (_, decision) in zip(self.states, outcomes, strict=True)
                ]
            )
            self.states = [state for state, _ in outcomes]
        return [state.index for state in self.states]

    def moves(self) -> list[tuple[int, int, str]]:
        """``(pipeline, rung, reason)`` in order."""
        return [
            (at, tick.decision.index, tick.decision.reason)
            for ticks in self.ticks
            for at, tick in enumerate(ticks)
            if tick.decision.changed
        ]


def device(*priorities: int, policy: GovernorPolicy = POLICY) -> Device:
    return Device([Governor(policy, LADDER) for _ in priorities], priorities)


def test_the_lowest_steps_down_first_and_the_highest_rises_first() -> None:
    shared = device(9, 5, 0)
    assert shared.feel(HOT, seconds=30.0) == [2, 2, 2]
    assert [at for at, _, _ in shared.moves()] == [2, 2, 1, 1, 0, 0]
    assert {reason for _, _, reason in shared.moves()} == {"pressure-thermal"}
    shared.ticks.clear()
    assert shared.feel(CALM, seconds=60.0) == [0, 0, 0]
    assert [at for at, _, _ in shared.moves()] == [0, 0, 1, 1, 2, 2]


def test_a_late_pipeline_takes_from_a_lesser_one_only_where_the_processor_is_contended_for() -> (
    None
):
    contended = device(1, 0)
    contended.feel(LATE_AND_BUSY, msgspec.structs.replace(CALM, cpu_percent=75.0), seconds=2.0)
    assert contended.moves()[0] == (1, 2, "priority")
    alone_to_blame = device(1, 0)
    alone_to_blame.feel(LATE, CALM, seconds=2.0)
    assert {at for at, _, _ in alone_to_blame.moves()} == {0}
    lesser = device(1, 0)
    lesser.feel(CALM, LATE_AND_BUSY, seconds=20.0)
    assert {at for at, _, _ in lesser.moves()} == {1}


def test_memory_of_its_own_worker_is_nobody_elses_fault() -> None:
    policy = msgspec.structs.replace(POLICY, worker_rss_mib=Band(enter=100.0, leave=90.0))
    shared = device(1, 0, policy=policy)
    fat = msgspec.structs.replace(CALM, worker_rss_mib=200.0, cpu_percent=75.0)
    shared.feel(fat, CALM, seconds=4.0)
    assert shared.moves()[0] == (0, 1, "pressure-memory")
    assert {at for at, _, _ in shared.moves()} == {0}


def test_one_that_cannot_afford_its_better_rung_keeps_nobody_waiting() -> None:
    shared = device(1, 0)
    assert shared.feel(HOT, seconds=20.0) == [2, 2]
    dear = msgspec.structs.replace(CALM, latency_share=0.5)
    assert shared.feel(dear, CALM, seconds=20.0) == [2, 0]


def test_a_pinned_one_neither_gives_way_nor_is_waited_for() -> None:
    pinned = Governor(msgspec.structs.replace(POLICY, pin=1), LADDER)
    shared = Device([Governor(POLICY, LADDER), pinned], (1, 0))
    assert shared.feel(HOT, seconds=20.0) == [2, 1]
    shared = Device([pinned, Governor(POLICY, LADDER)], (1, 0))
    shared.feel(HOT, seconds=20.0)
    assert shared.feel(CALM, seconds=20.0) == [1, 0]


def test_a_critical_temperature_brings_all_to_the_bottom_at_once() -> None:
    boiling = msgspec.structs.replace(CALM, temperature_celsius=96.0)
    assert device(2, 1, 1).feel(boiling) == [2, 2, 2]


def test_steerings_go_through_the_arbiter_only_when_two_serve() -> None:
    door, yard = Steering(POLICY), Steering(POLICY)
    now = 0.0

    def feel(sample: PressureSample, ticks: int) -> list[list[int | None]]:
        nonlocal now
        told = []
        for _ in range(ticks):
            now += TICK_S
            told.append(decide_together([Seat(door, 1, sample), Seat(yard, 0, sample)], now))
        return told

    assert feel(HOT, 1) == [[None, None]]
    door.govern("a", lambda: LADDER, 0, now)
    assert [one for one, _ in feel(HOT, 6) if one is not None] == [0, 1]
    yard.govern("a", lambda: LADDER, 0, now)
    assert feel(CALM, 1) == [[None, 0]]
    told = feel(HOT, 30)
    moves = [(at, index) for both in told for at, index in enumerate(both) if index is not None]
    assert moves == [(1, 1), (1, 2), (0, 2)]


# -- properties ---------------------------------------------------------------------------------

shared_signals = st.one_of(
    st.sampled_from([CALM, BUSY, HOT]),
    st.builds(
        PressureSample,
        cpu_pressure_percent=st.floats(0.0, 100.0),
        temperature_celsius=st.floats(20.0, 94.0),
        cpu_percent=st.floats(0.0, 100.0),
        own_cpu_percent=st.floats(0.0, 30.0),
    ),
)
own_signals = st.sampled_from([(None, None), (0.0, 0.2), (0.0, 0.6), (0.5, 1.4), (1.0, 3.0)])
plateaus = st.lists(
    st.tuples(
        st.sampled_from([1, 4, 9, 25]),
        shared_signals,
        st.lists(own_signals, min_size=4, max_size=4),
    ),
    max_size=10,
)
policies = st.builds(
    GovernorPolicy,
    time_constant_s=st.sampled_from([0.0, 1.0]),
    dwell_down_s=st.sampled_from([0.5, 1.3, 3.0]),
    dwell_urgent_s=st.sampled_from([0.5, 1.0]),
    dwell_jump_s=st.sampled_from([0.0, 0.5, 2.0]),
    dwell_up_s=st.sampled_from([1.0, 2.7, 5.0]),
    probe_s=st.sampled_from([5.0, 20.0]),
)
ladders = st.lists(st.floats(0.0, 20.0), min_size=1, max_size=4).map(
    lambda costs: [Rung(f"p{i}", 0.97 - 0.01 * i, cost) for i, cost in enumerate(costs)]
)
devices = st.tuples(policies, ladders, st.lists(st.integers(0, 2), min_size=2, max_size=4)).map(
    lambda drawn: Device([Governor(drawn[0], drawn[1]) for _ in drawn[2]], drawn[2])
)
Plateaus = list[tuple[int, PressureSample, list[tuple[float | None, float | None]]]]


def felt(shared: Device, history: Plateaus, *, own: bool) -> Device:
    """The device after a history, with the pipelines' own lateness or without."""
    for ticks, sample, late in history:
        each = [
            msgspec.structs.replace(sample, deadline_miss_share=missed, latency_share=latency)
            for missed, latency in late
        ]
        samples = each[: len(shared.states)] if own else [sample]
        shared.feel(*samples, seconds=ticks * TICK_S)
    return shared


@settings(max_examples=60, deadline=None)
@given(devices, plateaus)
def test_nobody_steps_down_while_a_less_important_one_could(
    shared: Device, history: Plateaus
) -> None:
    for ticks in felt(shared, history, own=False).ticks:
        for tick, priority in zip(ticks, shared.priorities, strict=True):
            if tick.decision.index > tick.before:
                assert all(
                    other.before == governor.bottom
                    for other, governor, less in zip(
                        ticks, shared.governors, shared.priorities, strict=True
                    )
                    if less < priority
                )


@settings(max_examples=60, deadline=None)
@given(devices, plateaus, st.booleans())
def test_nobody_rises_while_a_more_important_one_steps_down(
    shared: Device, history: Plateaus, own: bool
) -> None:
    for ticks in felt(shared, history, own=own).ticks:
        risen = [p for p, t in zip(shared.priorities, ticks, strict=True) if _way(t) < 0]
        fallen = [p for p, t in zip(shared.priorities, ticks, strict=True) if _way(t) > 0]
        assert not (risen and fallen) or min(risen) >= max(fallen)


def _way(tick: Tick) -> int:
    return tick.decision.index - tick.before


@settings(max_examples=60, deadline=None)
@given(devices, plateaus, st.booleans())
def test_nobody_moves_faster_than_its_dwell_nor_leaves_its_ladder(
    shared: Device, history: Plateaus, own: bool
) -> None:
    felt(shared, history, own=own)
    for at, governor in enumerate(shared.governors):
        policy, last = governor.policy, 0.0
        for tick in (ticks[at] for ticks in shared.ticks):
            assert 0 <= tick.decision.index <= governor.bottom
            if tick.decision.changed:
                down = min(policy.dwell_down_s, policy.dwell_urgent_s if own else math.inf)
                down = 0.0 if tick.alarmed else down
                assert tick.at - last >= (down if _way(tick) > 0 else policy.dwell_up_s)
                last = tick.at


@settings(max_examples=60, deadline=None)
@given(devices, plateaus, st.booleans())
def test_calm_leads_all_back_to_the_top(shared: Device, history: Plateaus, own: bool) -> None:
    felt(shared, history, own=own)
    governor = shared.governors[0]
    rises = len(shared.states) * len(governor.ladder)
    policy = governor.policy
    # A rung that calm's latency does not seem to allow is tried after the probe's time.
    rise_s = max(policy.dwell_up_s, policy.probe_s) + 2 * TICK_S
    settled_s = STALE_S + 10 * policy.time_constant_s + rises * rise_s
    assert shared.feel(CALM, seconds=settled_s) == [0] * len(shared.states)


@settings(max_examples=60, deadline=None)
@given(policies, ladders, plateaus)
def test_one_alone_moves_as_its_governor_does(
    policy: GovernorPolicy, ladder: list[Rung], history: Plateaus
) -> None:
    alone = felt(Device([Governor(policy, ladder)], [3]), history, own=True)
    governor = Governor(policy, ladder)
    state, now, expected = governor.start(0.0), 0.0, []
    for ticks, sample, late in history:
        missed, latency = late[0]
        own = msgspec.structs.replace(sample, deadline_miss_share=missed, latency_share=latency)
        for _ in range(ticks):
            now += TICK_S
            state, decision = governor.decide(state, own, now)
            expected.append(decision)
    assert [tick.decision for ticks in alone.ticks for tick in ticks] == expected

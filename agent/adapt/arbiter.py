"""Who moves first when several pipelines share a device.

Each pipeline has a governor of its own, which says what it wishes. The arbiter lets the least
important give way: under shared pressure, or when a more important pipeline is late on a machine
that is contended for, the lowest priority steps down first and the others wait for their dwell
anew; very late frames bring it to its bottom at once. On the way back the highest rises first.
Pipelines of the same priority do not wait for each other, and one pipeline alone needs no arbiter.

Like the governor it is a pure function of states, samples and the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent.adapt.governor import Decision, Governor, GovernorState, restarted
from agent.adapt.signals import BUSY, CPU_PRESSURE, WORKER_RSS, Reason
from agent.sense.sample import PressureSample

Move = tuple[int, Reason]
"""A rung, and why."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One pipeline before a tick."""

    governor: Governor
    state: GovernorState
    sample: PressureSample
    priority: int
    """The higher, the more important."""


@dataclass(frozen=True, slots=True)
class _Wisher:
    """One pipeline that has seen its sample."""

    of: Contender
    state: GovernorState
    move: Move
    bound: bool
    """A pin, the configuration or a critical temperature decides; nobody else does."""

    @property
    def falls(self) -> bool:
        return not self.bound and self.move[0] > self.state.index

    @property
    def rises(self) -> bool:
        return not self.bound and self.move[0] < self.state.index

    @property
    def can_yield(self) -> bool:
        return not self.bound and self.state.index < self.of.governor.bottom

    @property
    def alarmed(self) -> bool:
        return self.of.governor.is_alarmed(self.state)

    @property
    def comes_first(self) -> bool:
        """Is pressed, or is about to rise: a less important one must not take what it needs."""
        state = self.state
        waits = state.index > 0 and state.calm_since is not None and self.of.governor.affords(state)
        return not self.bound and (state.pressed_since is not None or waits)


def arbitrate(contenders: Sequence[Contender], now: float) -> list[tuple[GovernorState, Decision]]:
    """One tick of all: states and decisions in the given order.

    Args:
        contenders: the pipelines of one device.
        now: monotonic seconds.
    """
    wishers = [_observed(contender, now) for contender in contenders]
    moves = [wisher.move for wisher in wishers]
    states = [wisher.state for wisher in wishers]
    for at, wisher in enumerate(wishers):
        if wisher.rises and _is_in_the_way(wisher, wishers):
            states[at] = replace(wisher.state, calm_since=wisher.state.sampled_at)
            moves[at] = wisher.state.index, wisher.state.reason
    for at, wisher in enumerate(wishers):
        yielding = _yielding(wisher, wishers) if wisher.falls else []
        if not yielding:
            continue
        given = [other for other in yielding if _may_yield(wishers[other], wisher, now)]
        for other in given:
            low = wishers[other]
            if wisher.alarmed:
                moves[other] = low.of.governor.bottom, "priority"
            elif not low.falls:
                moves[other] = low.of.governor.below(low.state.index), "priority"
        # Where nobody may give way yet, it asks again at the next tick.
        states[at] = restarted(wisher.state) if given else wisher.state
        moves[at] = wisher.state.index, wisher.state.reason
    return [
        wisher.of.governor.settle(state, *move)
        for wisher, state, move in zip(wishers, states, moves, strict=True)
    ]


def _observed(contender: Contender, now: float) -> _Wisher:
    governor, sample = contender.governor, contender.sample
    state = governor.observe(contender.state, sample, now)
    return _Wisher(contender, state, governor.wish(state, sample), governor.is_bound(sample))


def _yielding(wisher: _Wisher, wishers: Sequence[_Wisher]) -> list[int]:
    """Who steps down in its place: all of the lowest priority below its own with a rung left."""
    if _is_to_blame(wisher):
        return []
    lower = [
        at
        for at, other in enumerate(wishers)
        if other.of.priority < wisher.of.priority and other.can_yield
    ]
    least = min((wishers[at].of.priority for at in lower), default=0)
    return [at for at in lower if wishers[at].of.priority == least]


def _is_to_blame(wisher: _Wisher) -> bool:
    """Whether what presses is its own doing, so that nobody else's step would help it.

    Late frames are, unless the processor is contended for; where that cannot be told it may be.
    """
    governor, state = wisher.of.governor, wisher.state
    signal = governor.pressing(state)
    if signal is None or not (signal.own or signal.name == WORKER_RSS):
        return False
    if signal.name == WORKER_RSS:
        return True
    depths = [governor.excess(state, name) for name in (CPU_PRESSURE, BUSY)]
    told = [depth for depth in depths if depth is not None]
    return bool(told) and max(told) < 0.0


def _may_yield(other: _Wisher, wisher: _Wisher, now: float) -> bool:
    """Whether its last move is a dwell ago, or frames are very late.

    One that falls by itself has waited for its own dwell.
    """
    waited = now - other.state.since >= other.of.governor.policy.dwell_down_s
    return waited or other.falls or wisher.alarmed


def _is_in_the_way(wisher: _Wisher, wishers: Sequence[_Wisher]) -> bool:
    return any(other.comes_first for other in wishers if other.of.priority > wisher.of.priority)

"""Moves along a release's ladder of operating points as the device feels pressure.

:class:`Governor` is a pure function of its state, a sample and the time: no clock, no I/O. Every
signal goes through a first-order low-pass filter and a band with hysteresis (the scheme openpilot
uses for its thermal states), so that a spike moves nothing and a plateau moves one rung per dwell.

The way up has a guard besides: the better rung must be expected to keep the headroom, by how much
more it costs than the one that runs. There is deliberately no back-off that remembers earlier
relapses: with one, a device that saw less pressure could end up on a worse point than one that saw
more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from msgspec import UnsetType

from agent.adapt.ladder import Rung, bottom, least_costs, rungs, worthwhile
from agent.adapt.policy import Band, GovernorPolicy, fitted
from agent.adapt.signals import (
    AVAILABLE,
    BUSY,
    LATENCY,
    OWN,
    USED,
    Filtered,
    Reason,
    Signal,
    deepest,
    filtered,
    is_calm,
    is_urgent,
    signals,
)
from agent.sense.sample import PressureSample
from edge_sdk.contracts.operating_point import OperatingPoint
from edge_sdk.contracts.telemetry import LadderPosition


@dataclass(frozen=True, slots=True)
class GovernorState:
    """Everything the governor remembers; times are of the caller's monotonic clock, in s."""

    index: int
    reason: Reason
    since: float
    sampled_at: float
    filtered: tuple[Filtered | None, ...] = ()
    """Per signal, in the governor's own order; None where the device cannot tell."""
    pressed_since: float | None = None
    urgent_since: float | None = None
    calm_since: float | None = None
    killed_at: float | None = None
    """When the kernel last ended the worker for want of memory."""
    killed_index: int = 0
    """The rung that it stood on then."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Where to be now."""

    index: int
    size: int
    point: str
    reason: Reason
    changed: bool
    """This call moved along the ladder."""
    held_s: float
    """Time spent on the point so far."""
    alone: bool = False
    """Memory does not hold this point beside the one that is left: that one has to go first."""

    def position(self, epoch_s: float) -> LadderPosition:
        """The decision as telemetry carries it; ``epoch_s`` is the wall clock now."""
        return LadderPosition(
            index=self.index,
            size=self.size,
            point=self.point,
            reason=self.reason,
            since=round(epoch_s - self.held_s, 3),
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """A signal as the governor sees it now."""

    name: str
    reason: Reason
    value: float
    """Filtered."""
    band: Band


class Governor:
    """Decides on the ladder of one release under one policy.

    Args:
        policy: as configured; unset temperatures are filled with generic limits (see
            :func:`agent.adapt.policy.fitted` for those of a device profile).
        ladder: rungs, most accurate first, cheapest last; at least one.

    Raises:
        ValueError: the ladder is empty.
        ConfigError: as :func:`agent.adapt.policy.fitted`.
    """

    def __init__(self, policy: GovernorPolicy, ladder: Sequence[Rung]) -> None:
        if not ladder:
            raise ValueError("a ladder has at least one rung")
        self.policy = fitted(policy, None)
        self.ladder = tuple(ladder)
        self.steps = worthwhile(self.ladder[: bottom(self.ladder, policy.accuracy_floor) + 1])
        self.bottom = self.steps[-1]
        self._least_costs = least_costs(self.ladder)
        self._signals = signals(self.policy)
        self._names = {signal.name: index for index, signal in enumerate(self._signals)}

    @classmethod
    def of(cls, policy: GovernorPolicy, points: Sequence[OperatingPoint]) -> Governor:
        """The governor of a manifest's ladder."""
        return cls(policy, rungs(points))

    def start(self, now: float, index: int = 0) -> GovernorState:
        """The state of a release that has just been activated.

        Args:
            now: monotonic seconds.
            index: rung to begin with; a release replacing one under pressure keeps its rung.
        """
        index, reason = min(max(index, 0), self.bottom), _STARTUP
        if self.policy.pin is not None:
            index, reason = self._pinned(self.policy.pin), _PINNED
        return GovernorState(index=index, reason=reason, since=now, sampled_at=now)

    def decide(
        self, state: GovernorState, sample: PressureSample, now: float
    ) -> tuple[GovernorState, Decision]:
        """One tick: at most one step, except to the bottom at a critical temperature.

        A pin is a person's word and holds even then. A clock that runs backwards counts as
        standing still.
        """
        state = self.observe(state, sample, now)
        return self.settle(state, *self.wish(state, sample))

    def settle(
        self, state: GovernorState, index: int, reason: Reason
    ) -> tuple[GovernorState, Decision]:
        """Stand on a rung, the present one or another, at the time of the latest sample."""
        changed = index != state.index
        alone = changed and self._is_crowded(state, index)
        if changed:
            now = state.sampled_at
            state = replace(_waiting_anew(state), index=index, reason=reason, since=now)
        return state, self._decision(state, changed, alone)

    def is_bound(self, sample: PressureSample) -> bool:
        """Whether pin, configuration or a critical temperature alone say where to stand."""
        policy = self.policy
        return policy.pin is not None or not policy.enabled or self._is_critical(sample)

    def wish(self, state: GovernorState, sample: PressureSample) -> tuple[int, Reason]:
        """The rung to stand on after :meth:`observe`, and why."""
        now, policy = state.sampled_at, self.policy
        if policy.pin is not None:
            return self._pinned(policy.pin), _PINNED
        if not policy.enabled:
            return state.index, state.reason
        if self._is_critical(sample):
            return max(self.bottom, state.index), "pressure-thermal"
        if sample.worker_killed and state.index < self.bottom:
            return self.below(state.index), "pressure-memory"
        if state.index < self.bottom:
            below = self._jump(state, sample)
            if below is None and self._must_fall(state, now):
                below = self.below(state.index)
            if below is not None:
                signal = self.pressing(state)
                return below, state.reason if signal is None else signal.reason
        if state.index > 0 and self._may_rise(state, now):
            return self._above(state.index), "recovered"
        return state.index, state.reason

    def pressing(self, state: GovernorState) -> Signal | None:
        """The signal that presses hardest."""
        return deepest(state.filtered, self._signals)[1]

    def below(self, index: int) -> int:
        """The next worthwhile rung on the way down."""
        return next((step for step in self.steps if step > index), self.bottom)

    def _above(self, index: int) -> int:
        """The next worthwhile rung on the way up."""
        return next((step for step in reversed(self.steps) if step < index), 0)

    def _must_fall(self, state: GovernorState, now: float) -> bool:
        """Pressed for long enough."""
        urgent = None if state.urgent_since is None else max(state.urgent_since, state.since)
        return _lasted(state.pressed_since, now, self.policy.dwell_down_s) or _lasted(
            urgent, now, self.policy.dwell_urgent_s
        )

    def is_alarmed(self, state: GovernorState) -> bool:
        """Whether frames have been very late for long enough to jump, whatever moved since."""
        return _lasted(state.urgent_since, state.sampled_at, self.policy.dwell_jump_s)

    def _jump(self, state: GovernorState, sample: PressureSample) -> int | None:
        """The first rung on which frames are expected to be in time; None for no jump.

        It looks at this very sample and waits for no dwell of an earlier move, as at a critical
        temperature, so that of two devices the one that is later is never on the better rung.
        """
        share, free = sample.latency_share, 1.0 - self.policy.headroom
        if not self._least_costs or share is None or not share > free:
            return None
        if not self.is_alarmed(state):
            return None
        cost = self._least_costs[state.index]
        for step in self.steps:
            if step > state.index and share * self._least_costs[step] <= free * cost:
                return step
        return self.bottom

    def _may_rise(self, state: GovernorState, now: float) -> bool:
        """Calm for long enough, and the better rung is expected to keep the headroom.

        The expectation may be wrong, so that after ``probe_s`` the rung is tried all the same; not
        where it does not fit into memory, which could end the process.
        """
        calm, policy = state.calm_since, self.policy
        if not _lasted(calm, now, policy.dwell_up_s):
            return False
        if not self._fits(state) or self._was_killed(state, now):
            return False
        return self.affords(state) or _lasted(calm, now, policy.probe_s)

    def _was_killed(self, state: GovernorState, now: float) -> bool:
        """Whether the better rung lately took more memory than the kernel would give.

        It need not be short for others then: a control group may have a limit of its own.
        """
        if state.killed_at is None or self._above(state.index) > state.killed_index:
            return False
        return now - state.killed_at < self.policy.probe_s

    def affords(self, state: GovernorState) -> bool:
        """Whether the better rung leaves the headroom free, by the share it costs more."""
        if not self._fits(state):
            return False
        free = 1.0 - self.policy.headroom
        ratio = self.cost_ratio(state.index, self._above(state.index))
        if not self.policy.headroom:
            return True
        latency, busy, own = (self._value(state, name) for name in (LATENCY, BUSY, OWN))
        if latency is not None and latency * ratio > free:
            return False
        return busy is None or own is None or busy + own * (ratio - 1.0) <= 100.0 * free

    def _is_crowded(self, state: GovernorState, index: int) -> bool:
        """Whether another rung may not fit into memory beside this one while it loads."""
        needed_mib, available = self.ladder[index].memory_mib, self._known(state, AVAILABLE)
        if needed_mib:
            return available is not None and min(available.value, available.fast) <= needed_mib
        used = self._value(state, USED)
        return used is not None and used >= self.policy.memory_used_percent.enter

    def _fits(self, state: GovernorState) -> bool:
        """Whether memory stays out of its band on the better rung."""
        better, here = self.ladder[self._above(state.index)], self.ladder[state.index]
        needed_mib = max(0.0, better.memory_mib - here.memory_mib)
        used, available = self._value(state, USED), self._value(state, AVAILABLE)
        if not needed_mib or used is None or available is None:
            return True
        if available <= needed_mib:
            return False
        then = 100.0 - (100.0 - used) * (1.0 - needed_mib / available)
        return then < self.policy.memory_used_percent.enter

    def cost_ratio(self, index: int, other: int) -> float:
        """What rung ``other`` costs as a multiple of rung ``index``; 1.0 where that is not known.

        A better rung never counts as cheaper than a worse one, nor the other way round.
        """
        costs = self.ladder[index].cost, self.ladder[other].cost
        if min(costs) <= 0.0:
            return 1.0
        ratio = costs[1] / costs[0]
        return max(ratio, 1.0) if other < index else min(ratio, 1.0)

    def readings(self, state: GovernorState) -> list[Reading]:
        """Every signal that has a value and a band, for people and plots."""
        return [
            Reading(signal.name, signal.reason, known.value, signal.band)
            for known, signal in zip(state.filtered, self._signals, strict=False)
            if known is not None and signal.band is not None
        ]

    def excess(self, state: GovernorState, name: str) -> float | None:
        """How deep a signal is in its band; None where it cannot be told."""
        at = self._names[name]
        depth = self._signals[at].excess(state.filtered[at])
        return depth if math.isfinite(depth) else None

    def _known(self, state: GovernorState, name: str) -> Filtered | None:
        return state.filtered[self._names[name]]

    def _value(self, state: GovernorState, name: str) -> float | None:
        known = self._known(state, name)
        return None if known is None else known.value

    def observe(self, state: GovernorState, sample: PressureSample, now: float) -> GovernorState:
        """The state with the sample filtered in and the timers kept or cleared."""
        now = max(now, state.sampled_at)
        before = state.filtered or (None,) * len(self._signals)
        known = tuple(
            filtered(old, signal.read(sample), now, self.policy.time_constant_s)
            for old, signal in zip(before, self._signals, strict=True)
        )
        worst, _ = deepest(known, self._signals)
        # A critical reading ends the calm even where the filter has not followed it yet.
        sudden = self._is_critical(sample) or sample.worker_killed
        calm = is_calm(known, self._signals) and not sudden
        if sample.worker_killed:
            state = replace(state, killed_at=now, killed_index=state.index)
        return replace(
            state,
            filtered=known,
            sampled_at=now,
            pressed_since=_timer(state.pressed_since, worst > 1.0, now),
            urgent_since=_timer(state.urgent_since, is_urgent(known, self._signals), now),
            calm_since=_timer(state.calm_since, calm, now),
        )

    def _is_critical(self, sample: PressureSample) -> bool:
        """Unfiltered: at this temperature a false alarm is cheaper than a late one."""
        critical, heat = self.policy.critical_celsius, sample.temperature_celsius
        return not isinstance(critical, UnsetType) and heat is not None and heat >= critical

    def _pinned(self, pin: int) -> int:
        return min(pin, len(self.ladder) - 1)

    def _decision(self, state: GovernorState, changed: bool, alone: bool) -> Decision:
        return Decision(
            index=state.index,
            size=len(self.ladder),
            point=self.ladder[state.index].point,
            reason=state.reason,
            changed=changed,
            held_s=state.sampled_at - state.since,
            alone=alone,
        )


def restarted(state: GovernorState) -> GovernorState:
    """With all running timers begun anew, so that nothing happens before its whole dwell."""
    urgent = None if state.urgent_since is None else state.sampled_at
    return replace(_waiting_anew(state), urgent_since=urgent)


def _waiting_anew(state: GovernorState) -> GovernorState:
    """With the timers of single steps begun anew."""
    now = state.sampled_at
    return replace(
        state,
        pressed_since=None if state.pressed_since is None else now,
        calm_since=None if state.calm_since is None else now,
    )


_STARTUP: Reason = "startup"
_PINNED: Reason = "pinned"


def _timer(since: float | None, holds: bool, now: float) -> float | None:
    if not holds:
        return None
    return now if since is None else since


def _lasted(since: float | None, now: float, dwell_s: float) -> bool:
    return since is not None and now - since >= dwell_s

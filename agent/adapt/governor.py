"""Moves along a release's ladder of operating points as the device feels pressure.

:class:`Governor` is a pure function of its state, a sample and the time: no clock, no I/O. Every
signal goes through a first-order low-pass filter and a band with hysteresis (the scheme openpilot
uses for its thermal states), so that a spike moves nothing and a plateau moves one rung per dwell.

There is deliberately no back-off that remembers earlier relapses: with one, a device that saw less
pressure could end up on a worse point than one that saw more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from msgspec import UnsetType

from agent.adapt.policy import Band, GovernorPolicy, fitted
from agent.sense.sample import PressureSample
from edge_sdk.contracts.operating_point import OperatingPoint
from edge_sdk.contracts.telemetry import LadderPosition

Reason = Literal[
    "startup",
    "pressure-cpu",
    "pressure-memory",
    "pressure-thermal",
    "deadline",
    "pinned",
    "recovered",
]

STALE_S = 10.0
"""A signal without a new reading keeps its value this long, then counts as absent. A stream of
one frame per second has a deadline reading in every other sample only."""

THROTTLED_BAND = Band(enter=0.5, leave=0.25)
"""The throttling flag, filtered, is a share of recent time."""


@dataclass(frozen=True, slots=True)
class Rung:
    """What the governor needs to know of an operating point."""

    point: str
    accuracy: float


@dataclass(frozen=True, slots=True)
class Filtered:
    """A signal's filtered value and the time of its last reading."""

    value: float
    at: float


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
    calm_since: float | None = None


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
class _Signal:
    reason: Reason
    band: Band
    field: str

    def read(self, sample: PressureSample) -> float | None:
        value = getattr(sample, self.field)
        return float(value) if value is not None and math.isfinite(value) else None


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
        self.bottom = _bottom(self.ladder, policy.accuracy_floor)
        self._signals = _signals(self.policy)

    @classmethod
    def of(cls, policy: GovernorPolicy, points: Sequence[OperatingPoint]) -> Governor:
        """The governor of a manifest's ladder."""
        return cls(policy, [Rung(point.id, point.accuracy) for point in points])

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
        now = max(now, state.sampled_at)
        state = self._observe(state, sample, now)
        target, reason = self._target(state, sample)
        changed = target != state.index
        if changed:
            # Both timers start anew, so that each further step waits for its whole dwell.
            state = replace(
                state,
                index=target,
                reason=reason,
                since=now,
                pressed_since=None if state.pressed_since is None else now,
                calm_since=None if state.calm_since is None else now,
            )
        return state, self._decision(state, changed, now)

    def _target(self, state: GovernorState, sample: PressureSample) -> tuple[int, Reason]:
        """The rung to stand on, and why."""
        now, policy = state.sampled_at, self.policy
        if policy.pin is not None:
            return self._pinned(policy.pin), _PINNED
        if not policy.enabled:
            return state.index, state.reason
        if self._is_critical(sample):
            return max(self.bottom, state.index), "pressure-thermal"
        if _lasted(state.pressed_since, now, policy.dwell_down_s) and state.index < self.bottom:
            return state.index + 1, self._worst(state.filtered)[1]
        if _lasted(state.calm_since, now, policy.dwell_up_s) and state.index > 0:
            return state.index - 1, "recovered"
        return state.index, state.reason

    def _observe(self, state: GovernorState, sample: PressureSample, now: float) -> GovernorState:
        """The state with the sample filtered in and the timers kept or cleared."""
        before = state.filtered or (None,) * len(self._signals)
        filtered = tuple(
            _filter(old, signal.read(sample), now, self.policy.time_constant_s)
            for old, signal in zip(before, self._signals, strict=True)
        )
        worst, _ = self._worst(filtered)
        # A critical reading ends the calm even where the filter has not followed it yet.
        is_calm = worst < 0.0 and not self._is_critical(sample)
        return replace(
            state,
            filtered=filtered,
            sampled_at=now,
            pressed_since=_timer(state.pressed_since, worst > 1.0, now),
            calm_since=_timer(state.calm_since, is_calm, now),
        )

    def _worst(self, filtered: Sequence[Filtered | None]) -> tuple[float, Reason]:
        """The signal deepest in its band; calm when the device can tell nothing at all."""
        worst: tuple[float, Reason] = (-math.inf, _STARTUP)
        for known, signal in zip(filtered, self._signals, strict=True):
            if known is not None and (excess := signal.band.excess(known.value)) > worst[0]:
                worst = (excess, signal.reason)
        return worst

    def _is_critical(self, sample: PressureSample) -> bool:
        """Unfiltered: at this temperature a false alarm is cheaper than a late one."""
        critical, heat = self.policy.critical_celsius, sample.temperature_celsius
        return not isinstance(critical, UnsetType) and heat is not None and heat >= critical

    def _pinned(self, pin: int) -> int:
        return min(pin, len(self.ladder) - 1)

    def _decision(self, state: GovernorState, changed: bool, now: float) -> Decision:
        return Decision(
            index=state.index,
            size=len(self.ladder),
            point=self.ladder[state.index].point,
            reason=state.reason,
            changed=changed,
            held_s=now - state.since,
        )


_STARTUP: Reason = "startup"
_PINNED: Reason = "pinned"


def _signals(policy: GovernorPolicy) -> tuple[_Signal, ...]:
    signals = [
        _Signal("pressure-cpu", policy.cpu_pressure_percent, "cpu_pressure_percent"),
        _Signal("pressure-memory", policy.memory_pressure_percent, "memory_pressure_percent"),
        _Signal("pressure-memory", policy.memory_used_percent, "memory_used_percent"),
        _Signal("pressure-thermal", THROTTLED_BAND, "throttled"),
        _Signal("deadline", policy.deadline_miss_share, "deadline_miss_share"),
    ]
    if not isinstance(policy.temperature_celsius, UnsetType):
        signals.append(
            _Signal("pressure-thermal", policy.temperature_celsius, "temperature_celsius")
        )
    return tuple(signals)


def _bottom(ladder: Sequence[Rung], accuracy_floor: float) -> int:
    """The cheapest rung that can be reached without passing one below the floor."""
    for index, rung in enumerate(ladder):
        if rung.accuracy < accuracy_floor:
            return max(index - 1, 0)
    return len(ladder) - 1


def _filter(
    old: Filtered | None, new: float | None, now: float, time_constant_s: float
) -> Filtered | None:
    """First-order low-pass, gain ``1 - exp(-elapsed / constant)``, from the first value on."""
    if new is None:
        return old if old is not None and now - old.at <= STALE_S else None
    if old is None or time_constant_s <= 0:
        return Filtered(new, now)
    kept = math.exp((old.at - now) / time_constant_s)
    # This form stays monotone in both values under rounding; old + gain * (new - old) does not.
    return Filtered(kept * old.value + (1.0 - kept) * new, now)


def _timer(since: float | None, holds: bool, now: float) -> float | None:
    if not holds:
        return None
    return now if since is None else since


def _lasted(since: float | None, now: float, dwell_s: float) -> bool:
    return since is not None and now - since >= dwell_s

"""What the governor listens to: a name, a reason, a reading of the sample, and a band."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from msgspec import UnsetType

from agent.adapt.policy import Band, GovernorPolicy
from agent.sense.sample import PressureSample

Reason = Literal[
    "startup",
    "pressure-cpu",
    "pressure-memory",
    "pressure-thermal",
    "deadline",
    "queue",
    "headroom",
    "energy",
    "priority",
    "pinned",
    "recovered",
]

STALE_S = 10.0
"""A signal without a new reading keeps its value this long, then counts as absent. A stream of
one frame per second has a deadline reading in every other sample only."""

URGENT = 4.0
"""An own signal this deep in its band cannot wait: a third of all frames is late, say."""

FAST_S = 0.5
"""Time constant of the fast filter, or the policy's where that is shorter. It must settle within
the dwell on the way down."""

THROTTLED_BAND = Band(enter=0.5, leave=0.25)
"""The throttling flag, filtered, is a share of recent time."""

BUSY, LATENCY, OWN = "busy_percent", "latency_share", "own_cpu_percent"
"""Names of the signals from which the load of a better point is foretold."""
CPU_PRESSURE, WORKER_RSS = "cpu_pressure_percent", "worker_rss_mib"
USED, AVAILABLE = "memory_used_percent", "memory_available_mib"
"""From these it is told whether a better point fits into memory."""


@dataclass(frozen=True, slots=True)
class Filtered:
    """A signal's filtered value and the time of its last reading."""

    value: float
    at: float
    fast: float
    """The same with :data:`FAST_S`."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One thing to listen to."""

    name: str
    reason: Reason
    band: Band | None
    """None for one that is remembered and decides nothing by itself."""
    reading: Callable[[PressureSample], float | None]
    own: bool = False
    """Follows the agent's own moves at once, so that after one its filtered past means little."""

    def read(self, sample: PressureSample) -> float | None:
        """The sample's value; not a number counts as absent."""
        value = self.reading(sample)
        return float(value) if value is not None and math.isfinite(value) else None

    def excess(self, known: Filtered | None) -> float:
        """How deep in its band: see :meth:`Band.excess`; minus infinity when it cannot tell."""
        if known is None or self.band is None:
            return -math.inf
        return self.band.excess(known.value)

    def press(self, known: Filtered | None) -> float:
        """The excess that asks for a cheaper point.

        One of its own signals must press in the slow and in the fast filter: otherwise the slow
        one's memory of the point that was just left would cost another step.
        """
        slow = self.excess(known)
        if known is None or self.band is None or not self.own:
            return slow
        return min(slow, self.band.excess(known.fast))


def signals(policy: GovernorPolicy) -> tuple[Signal, ...]:
    """The signals of a fitted policy; their number does not depend on a pin."""
    heat = policy.temperature_celsius
    spare = policy.headroom
    found = [
        _plain("pressure-cpu", policy.cpu_pressure_percent, CPU_PRESSURE),
        _plain("pressure-memory", policy.memory_pressure_percent, "memory_pressure_percent"),
        _plain("pressure-memory", policy.memory_used_percent, USED),
        _plain("pressure-memory", policy.worker_rss_mib, WORKER_RSS),
        _plain("pressure-thermal", THROTTLED_BAND, "throttled"),
        _plain("pressure-thermal", None if isinstance(heat, UnsetType) else heat, _CELSIUS),
        _plain("deadline", policy.deadline_miss_share, "deadline_miss_share", own=True),
        _plain("queue", policy.queue_frames, "queue_frames", own=True),
        _plain("headroom", _below(1.0 - spare, 0.25) if spare else None, LATENCY, own=True),
        _plain("headroom", _below(100.0 * (1.0 - spare), 0.125) if spare else None, BUSY),
        _plain("headroom", None, OWN),
        _plain("pressure-memory", None, AVAILABLE),
        Signal("battery_used_percent", "energy", policy.battery_used_percent, _need(policy)),
    ]
    return tuple(found)


def filtered(
    old: Filtered | None, new: float | None, now: float, time_constant_s: float
) -> Filtered | None:
    """First-order low-pass, gain ``1 - exp(-elapsed / constant)``, from the first value on."""
    if new is None:
        return old if old is not None and now - old.at <= STALE_S else None
    if old is None or time_constant_s <= 0:
        return Filtered(new, now, new)
    elapsed_s = now - old.at
    return Filtered(
        _low_pass(old.value, new, elapsed_s / time_constant_s),
        now,
        _low_pass(old.fast, new, elapsed_s / min(FAST_S, time_constant_s)),
    )


def deepest(
    known: Sequence[Filtered | None], listened: Sequence[Signal]
) -> tuple[float, Signal | None]:
    """The signal that presses hardest, and how; minus infinity when nothing can be told."""
    worst: tuple[float, Signal | None] = (-math.inf, None)
    for value, signal in zip(known, listened, strict=True):
        if (press := signal.press(value)) > worst[0]:
            worst = (press, signal)
    return worst


def is_urgent(known: Sequence[Filtered | None], listened: Sequence[Signal]) -> bool:
    """Whether one of the agent's own signals is far above its band, by the fast filter."""
    return any(
        signal.own
        and value is not None
        and signal.band is not None
        and signal.band.excess(value.fast) > URGENT
        for value, signal in zip(known, listened, strict=True)
    )


def is_calm(known: Sequence[Filtered | None], listened: Sequence[Signal]) -> bool:
    """Whether every signal that can be told is below its band."""
    return all(signal.excess(value) < 0.0 for value, signal in zip(known, listened, strict=True))


def _low_pass(old: float, new: float, share: float) -> float:
    kept = math.exp(-share)
    # This form stays monotone in both values under rounding; old + gain * (new - old) does not.
    return kept * old + (1.0 - kept) * new


_CELSIUS = "temperature_celsius"


def _plain(reason: Reason, band: Band | None, field: str, *, own: bool = False) -> Signal:
    return Signal(field, reason, band, lambda sample: getattr(sample, field), own)


def _below(enter: float, gap: float) -> Band:
    """A band whose width is ``gap`` of its upper edge.

    It can be narrow: the way up is guarded by what the better point is expected to need.
    """
    return Band(enter=enter, leave=(1.0 - gap) * enter)


def _need(policy: GovernorPolicy) -> Callable[[PressureSample], float | None]:
    """How much of the battery counts as gone under the energy saver's mode, in percent."""
    match policy.energy_saver:
        case "off":
            return lambda sample: None
        case "always":
            return lambda sample: 100.0
        case "on-battery":
            return lambda sample: 100.0 * (sample.on_battery or sample.power_saving)
        case "low-battery":
            return _used


def _used(sample: PressureSample) -> float | None:
    if sample.power_saving:
        return 100.0
    if sample.battery_percent is None:
        return None
    return 100.0 - sample.battery_percent if sample.on_battery else 0.0

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
    "pinned",
    "recovered",
]

STALE_S = 10.0
"""A signal without a new reading keeps its value this long, then counts as absent. A stream of
one frame per second has a deadline reading in every other sample only."""

THROTTLED_BAND = Band(enter=0.5, leave=0.25)
"""The throttling flag, filtered, is a share of recent time."""

BUSY, LATENCY, OWN = "busy_percent", "latency_share", "own_cpu_percent"
"""Names of the signals from which the load of a better point is foretold."""


@dataclass(frozen=True, slots=True)
class Filtered:
    """A signal's filtered value and the time of its last reading."""

    value: float
    at: float


@dataclass(frozen=True, slots=True)
class Signal:
    """One thing to listen to."""

    name: str
    reason: Reason
    band: Band | None
    """None for one that is remembered and decides nothing by itself."""
    reading: Callable[[PressureSample], float | None]

    def read(self, sample: PressureSample) -> float | None:
        """The sample's value; not a number counts as absent."""
        value = self.reading(sample)
        return float(value) if value is not None and math.isfinite(value) else None

    def excess(self, known: Filtered | None) -> float:
        """How deep in its band: see :meth:`Band.excess`; minus infinity when it cannot tell."""
        if known is None or self.band is None:
            return -math.inf
        return self.band.excess(known.value)


def signals(policy: GovernorPolicy) -> tuple[Signal, ...]:
    """The signals of a fitted policy; their number does not depend on a pin."""
    heat = policy.temperature_celsius
    spare = policy.headroom
    found = [
        _plain("pressure-cpu", policy.cpu_pressure_percent, "cpu_pressure_percent"),
        _plain("pressure-memory", policy.memory_pressure_percent, "memory_pressure_percent"),
        _plain("pressure-memory", policy.memory_used_percent, "memory_used_percent"),
        _plain("pressure-memory", policy.worker_rss_mib, "worker_rss_mib"),
        _plain("pressure-thermal", THROTTLED_BAND, "throttled"),
        _plain("pressure-thermal", None if isinstance(heat, UnsetType) else heat, _CELSIUS),
        _plain("deadline", policy.deadline_miss_share, "deadline_miss_share"),
        _plain("queue", policy.queue_frames, "queue_frames"),
        _plain("headroom", _below(1.0 - spare) if spare else None, LATENCY),
        _plain("headroom", _below(100.0 * (1.0 - spare)) if spare else None, BUSY),
        _plain("headroom", None, OWN),
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
        return Filtered(new, now)
    kept = math.exp((old.at - now) / time_constant_s)
    # This form stays monotone in both values under rounding; old + gain * (new - old) does not.
    return Filtered(kept * old.value + (1.0 - kept) * new, now)


def deepest(
    known: Sequence[Filtered | None], listened: Sequence[Signal]
) -> tuple[float, Signal | None]:
    """The signal deepest in its band; calm when the device can tell nothing at all."""
    worst: tuple[float, Signal | None] = (-math.inf, None)
    for value, signal in zip(known, listened, strict=True):
        if (excess := signal.excess(value)) > worst[0]:
            worst = (excess, signal)
    return worst


_CELSIUS = "temperature_celsius"

_HEADROOM_GAP = 0.875
"""``leave`` of a headroom band as a share of ``enter``. A narrow gap is enough: the way up is
guarded by what the better point is expected to need."""


def _plain(reason: Reason, band: Band | None, field: str) -> Signal:
    return Signal(field, reason, band, lambda sample: getattr(sample, field))


def _below(enter: float) -> Band:
    return Band(enter=enter, leave=_HEADROOM_GAP * enter)


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

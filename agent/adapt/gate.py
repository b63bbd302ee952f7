"""The per-frame gate: a cheaper point answers first, and the governor's point where it is unsure.

Everything here is pure. The governor bounds the ladder: the gate never runs a point above the one
the governor stands on, and where that point has no calibrated cascade there is no gate.

Two rules switch it off. :class:`MemoryRule`, because two points are resident: under memory pressure
the second one goes before accuracy does. :class:`Ledger`, because a scene can be harder than the
calibration data: when frames cost more with the gate than without, it rests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent.adapt.policy import GovernorPolicy
from agent.sense.sample import PressureSample
from edge_sdk.contracts.operating_point import OperatingPoint

WINDOW_FRAMES = 128
"""Gated frames after which the ledger judges."""
PROBE_FRAMES = 16
"""Frames on the full point alone that begin every window, so that its cost is known."""
REST_FRAMES = 4096
"""Frames without the gate after it did not pay; then it is tried again."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which point answers first, which one where that is unsure."""

    first: int
    """Index into the ladder; always a cheaper rung than :attr:`full`."""
    full: int
    """The governor's present rung."""
    threshold: float
    """Least margin with which the first answer stands, 0..1."""

    def escalates(self, margin: float) -> bool:
        """Whether the full point has to look; also when the margin is no number."""
        return not margin >= self.threshold


def plan(ladder: Sequence[OperatingPoint], index: int) -> Plan | None:
    """The cascade of a rung; None where there is none to run.

    Args:
        ladder: what can run here, most accurate first.
        index: where the governor stands.
    """
    if not 0 <= index < len(ladder):
        return None
    cascade = ladder[index].cascade
    if cascade is None or not 0.0 <= cascade.threshold <= 1.0:
        return None
    names = [point.id for point in ladder]
    if cascade.first not in names[index + 1 :]:
        return None
    return Plan(names.index(cascade.first, index + 1), index, cascade.threshold)


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the gate costs and what it saves, on this device and on these frames.

    A window is :data:`PROBE_FRAMES` on the full point and :data:`WINDOW_FRAMES` through the gate;
    at its end the gate goes on, or rests for :data:`REST_FRAMES`.
    """

    plain: int = 0
    plain_ms: float = 0.0
    gated: int = 0
    gated_ms: float = 0.0
    resting: int = 0

    @property
    def wants_gate(self) -> bool:
        """Whether the next frame goes through the gate."""
        return not self.resting and self.plain >= PROBE_FRAMES

    def after(self, took_ms: float, *, gated: bool) -> Ledger:
        """The ledger after a frame that took ``took_ms``, with or without the gate."""
        took_ms = took_ms if math.isfinite(took_ms) else 0.0
        if self.resting:
            return replace(self, resting=self.resting - 1)
        if not gated:
            if self.plain >= PROBE_FRAMES:
                return self  # the gate was wanted and is not ready
            return replace(self, plain=self.plain + 1, plain_ms=self.plain_ms + took_ms)
        booked = replace(self, gated=self.gated + 1, gated_ms=self.gated_ms + took_ms)
        if booked.gated < WINDOW_FRAMES:
            return booked
        return Ledger() if booked.pays else Ledger(resting=REST_FRAMES)

    @property
    def pays(self) -> bool:
        """Whether gated frames cost less than plain ones, as far as both were seen."""
        return self.gated_ms * max(self.plain, 1) < self.plain_ms * max(self.gated, 1)


@dataclass(frozen=True, slots=True)
class MemoryRule:
    """Whether a second point may be resident.

    Forbidden at once when a memory signal reaches the governor's band, long before the governor
    has waited out its dwell; allowed again after ``dwell_up_s`` of calm.
    """

    allowed: bool = True
    calm_since: float | None = None

    def after(self, policy: GovernorPolicy, sample: PressureSample, now: float) -> MemoryRule:
        """The rule after a sample at ``now``, monotonic seconds."""
        readings = (
            (sample.memory_pressure_percent, policy.memory_pressure_percent),
            (sample.memory_used_percent, policy.memory_used_percent),
            (sample.worker_rss_mib, policy.worker_rss_mib),
        )
        known = [(value, band) for value, band in readings if value is not None and band]
        if any(value >= band.enter for value, band in known):
            return MemoryRule(allowed=False)
        if self.allowed:
            return self
        if any(value > band.leave for value, band in known):
            return MemoryRule(allowed=False)
        since = now if self.calm_since is None else self.calm_since
        if now - since >= policy.dwell_up_s:
            return MemoryRule()
        return MemoryRule(allowed=False, calm_since=since)

"""Whether this is a moment to start an update."""

from __future__ import annotations

from typing import TypeAlias

from agent.update.events import PreflightPassed, Refused, SpaceShort
from agent.update.limits import UpdateLimits
from agent.update.outcomes import battery_low, memory_short
from agent.update.ports import Clock, UpdateSensors

Look: TypeAlias = PreflightPassed | SpaceShort | Refused | str
"""What preflight found; a text says what is being waited for."""


class Preflight:
    """Disk, battery, memory, CPU headroom and heat.

    A full disk needs a person, so it ends the update at once. A low battery is waited for a long
    time, and memory for a while: the golden test runs beside the service, and must not drive it
    out. Idle CPU and a cool processor are waited for briefly only: a device that is always busy or
    warm must be updatable too.
    """

    def __init__(self, sensors: UpdateSensors, clock: Clock, limits: UpdateLimits) -> None:
        self._sensors, self._clock, self._limits = sensors, clock, limits
        self._began = self._next = 0.0

    def begin(self) -> None:
        """Start a round of waiting."""
        self._began = self._next = self._clock.monotonic()

    def due(self) -> bool:
        """Whether it is time to look (again)."""
        return self._clock.monotonic() >= self._next

    def look(self, missing_bytes: int) -> Look:
        """Read the sensors.

        Args:
            missing_bytes: what is to be downloaded.
        """
        self._next = self._clock.monotonic() + self._limits.preflight_retry_s
        return (
            self._disk(missing_bytes)
            or self._battery()
            or self._memory()
            or self._headroom()
            or PreflightPassed()
        )

    def _waited(self) -> float:
        return self._clock.monotonic() - self._began

    def _disk(self, missing_bytes: int) -> SpaceShort | None:
        needed = missing_bytes + self._limits.disk_margin_bytes
        free = self._sensors.disk_free_bytes()
        if free >= needed:
            return None
        return SpaceShort(f"{needed / 2**20:.1f} MiB are needed, {free / 2**20:.1f} MiB are free.")

    def _battery(self) -> Refused | str | None:
        charge = self._sensors.battery_percent()
        if charge is None or charge >= self._limits.min_battery_percent:
            return None
        detail = f"The battery is at {charge:.0f} %."
        if self._waited() > self._limits.battery_patience_s:
            return Refused(battery_low(detail))
        return f"Waiting: {detail}"

    def _memory(self) -> Refused | str | None:
        available = self._sensors.memory_headroom_percent()
        if available is None or available >= self._limits.min_headroom_percent:
            return None
        detail = f"Only {available:.0f} % of the memory is available."
        if self._waited() > self._limits.memory_patience_s:
            return Refused(memory_short(detail))
        return f"Waiting: {detail}"

    def _headroom(self) -> str | None:
        if self._waited() > self._limits.headroom_patience_s:
            return None
        if self._sensors.throttled():
            return "Waiting: The processor is slowed down because of heat."
        idle = self._sensors.cpu_headroom_percent()
        if idle is None or idle >= self._limits.min_headroom_percent:
            return None
        return f"Waiting: Only {idle:.0f} % of the CPU is idle."

"""What an update's preflight asks the device (:class:`agent.update.ports.UpdateSensors`)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from agent.sense.sensors import Sensors

FULL_PERCENT = 90.0
"""A busier processor makes whatever runs on it wait."""


class DeviceSensors:
    """Disk from the state directory's file system, the rest from the latest sample.

    Args:
        sensors: read regularly by its owner; not read here, so that the processor's idle share is
            that of the owner's interval.
        state_dir: where updates are stored; it need not exist yet.
        own_cpu_percent: what the agent and its workers took of the whole machine.
    """

    def __init__(
        self, sensors: Sensors, state_dir: Path, own_cpu_percent: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._sensors = sensors
        self._state_dir = state_dir
        self._own_cpu_percent = own_cpu_percent

    def disk_free_bytes(self) -> int:
        """Free space for this user where updates are stored; 0 where it cannot be told."""
        for folder in (self._state_dir, *self._state_dir.parents):
            try:
                stat = os.statvfs(folder)
            except FileNotFoundError:
                continue
            except OSError:
                return 0
            return stat.f_bavail * stat.f_frsize
        return 0

    def battery_percent(self) -> float | None:
        """Charge of a discharging battery; None on mains power or without a battery."""
        sample = self._sensors.latest
        return sample.battery_percent if sample.on_battery else None

    def cpu_headroom_percent(self) -> float | None:
        """Idle share of the whole machine over the last sampling interval."""
        busy = self._sensors.latest.cpu_percent
        return None if busy is None else 100.0 - busy

    def throttled(self) -> bool:
        """Whether kernel or firmware slow the processor down because of heat."""
        return self._sensors.latest.throttled

    def crowded(self) -> bool:
        """Whether the processor is full, for the larger part with others' work."""
        busy = self._sensors.latest.cpu_percent
        if busy is None or busy < FULL_PERCENT:
            return False
        return busy - self._own_cpu_percent() > busy / 2

    def memory_headroom_percent(self) -> float | None:
        """Share of memory that is available without swapping."""
        used = self._sensors.latest.memory_used_percent
        return None if used is None else 100.0 - used

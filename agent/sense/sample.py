"""One reading of everything that presses on a device."""

from __future__ import annotations

from typing import Literal

import msgspec

PressureSource = Literal["psi", "loadavg", "none"]


class PressureSample(msgspec.Struct, frozen=True, kw_only=True):
    """What was read; None where this device cannot tell."""

    cpu_pressure_percent: float | None = None
    """PSI ``some avg10``: share of time in which a runnable task waited for a core."""
    cpu_pressure_source: PressureSource = "none"
    """``loadavg`` marks the stand-in of kernels without PSI; it reads lower than PSI would."""
    memory_pressure_percent: float | None = None
    """PSI ``some avg10`` of memory."""
    memory_available_mib: float | None = None
    memory_total_mib: float | None = None
    cpu_percent: float | None = None
    """Busy share of the whole machine since the previous reading; None on the first."""
    temperature_celsius: float | None = None
    """Hottest processor zone."""
    throttled: bool = False
    """The kernel or the firmware is slowing the processor down because of heat."""
    clock_limit_share: float | None = None
    """Highest clock the processor may use now, of the highest it could; 0..1."""
    battery_percent: float | None = None
    """None on a device without a battery."""
    on_battery: bool = False
    """A battery is present and discharging."""
    deadline_miss_share: float | None = None
    """Frames dropped or late, 0..1; filled in from the worker's statistics, not by sensors."""

    @property
    def memory_used_percent(self) -> float | None:
        """Memory that is not available without swapping, of all."""
        if self.memory_available_mib is None or not self.memory_total_mib:
            return None
        return 100.0 * (1.0 - self.memory_available_mib / self.memory_total_mib)

"""One reading of everything that presses on a device."""

from __future__ import annotations

from typing import Literal

import msgspec

PressureSource = Literal["psi", "loadavg", "none"]


class PressureSample(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was read; None where this device cannot tell."""

    cpu_pressure_percent: float | None = None
    """PSI ``some``: share of time in which a runnable task waited for a core. Since the previous
    reading where the kernel counts, otherwise its ``avg10``."""
    cpu_pressure_source: PressureSource = "none"
    """``loadavg`` marks the stand-in of kernels without PSI; it reads lower than PSI would."""
    memory_pressure_percent: float | None = None
    """The same for memory."""
    memory_available_mib: float | None = None
    memory_total_mib: float | None = None
    oom_kills: int | None = None
    """Processes that the kernel has ended for want of memory since it booted."""
    cpu_percent: float | None = None
    """Busy share of the whole machine since the previous reading; None on the first."""
    load: float | None = None
    """Tasks that ran or wanted to, averaged over a minute."""
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
    power_saving: bool = False
    """A person or the firmware has put the device into its low-power mode."""

    # What the agent knows of its own work; the sensors leave it alone.
    own_cpu_percent: float | None = None
    """What the agent's processes use of the whole machine."""
    worker_rss_mib: float | None = None
    """Resident memory of the process that runs the model."""
    deadline_miss_share: float | None = None
    """Frames dropped or late, 0..1."""
    latency_share: float | None = None
    """p90 of the frames' latency as a share of the pipeline's objective."""
    queue_frames: float | None = None
    """Frames that wait; None for a file that is read as fast as it goes, where some always do."""
    worker_killed: bool = False
    """The kernel has ended the worker for want of memory since the previous sample."""
    paced: bool = True
    """Frames come at a rate of their own, so that idle time is headroom and not a pause."""

    @property
    def memory_used_percent(self) -> float | None:
        """Memory that is not available without swapping, of all."""
        if self.memory_available_mib is None or not self.memory_total_mib:
            return None
        return 100.0 * (1.0 - self.memory_available_mib / self.memory_total_mib)

    @property
    def busy_percent(self) -> float | None:
        """Busy share of the machine where that says something about headroom."""
        return self.cpu_percent if self.paced else None

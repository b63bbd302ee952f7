"""Reads what presses on the device from ``/proc`` and ``/sys``.

Everything may be missing (containers, Android, odd kernels) or nonsense; a reading is then absent
and nothing fails. Folders are listed seldom, files are read with three system calls each, so that
reading twice a second costs well under half a percent of a core (``benchmarks/governor.py``).
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from agent.sense import parse
from agent.sense.sample import PressureSample, PressureSource

RESCAN_READS = 120
"""Folders are listed again after this many readings: a minute at two a second."""

MAX_ENTRIES = 256
"""At most this many entries of a folder are looked at."""

_PROCESSOR_ZONE = re.compile(r"cpu|soc|tj|x86_pkg|core|big|little|cluster|package")
_PROCESSOR_COOLING = re.compile(r"cpu|processor|devfreq")
_FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"
_POWER_MODE = "sys/firmware/acpi/platform_profile"
_POWER_SAVING = frozenset({"low-power", "quiet", "cool"})
_THROTTLE_COUNT = "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Layout:
    """Paths found by listing folders."""

    zones: tuple[str, ...] = ()
    cooling: tuple[str, ...] = ()
    clocks: tuple[tuple[str, float], ...] = ()
    """``(scaling_max_freq, cpuinfo_max_freq in kHz)`` per frequency domain."""
    batteries: tuple[str, ...] = ()


class Sensors:
    """The device's sensors below one root.

    Args:
        root: ``/`` on a device. A test or a demonstration gives a folder with its own
            ``proc/pressure/cpu`` and the like; nothing outside it is read then.
        clock: monotonic seconds.
    """

    def __init__(self, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> None:
        self._root = str(root).rstrip("/") + "/"
        self._clock = clock
        self._stalls: dict[str, parse.Stall] = {}
        self._layout = _Layout()
        self._until_rescan = 0
        self._cpu: parse.CpuTimes | None = None
        self._throttle_count: int | None = None
        self._latest = PressureSample()

    @property
    def latest(self) -> PressureSample:
        """The last sample :meth:`read` returned; all absent before the first."""
        return self._latest

    def read(self) -> PressureSample:
        """One reading of everything; never raises."""
        if self._until_rescan <= 0:
            self._layout = self._scan()
            self._until_rescan = RESCAN_READS
        self._until_rescan -= 1
        memory = self._parsed("proc/meminfo", parse.memory)
        cpu = self._parsed("proc/stat", parse.cpu_times)
        pressure, source = self._cpu_pressure(cpu)
        charge, discharging = self._battery()
        self._latest = PressureSample(
            cpu_pressure_percent=pressure,
            cpu_pressure_source=source,
            memory_pressure_percent=self._stalled("memory"),
            memory_available_mib=memory.available_mib if memory else None,
            memory_total_mib=memory.total_mib if memory else None,
            oom_kills=self._parsed("proc/vmstat", parse.oom_kills),
            cpu_percent=self._cpu_percent(cpu),
            load=self._parsed("proc/loadavg", parse.load_average),
            temperature_celsius=self._temperature(),
            throttled=self._is_throttled(),
            clock_limit_share=self._clock_limit(),
            battery_percent=charge,
            on_battery=discharging,
            power_saving=self._word(_POWER_MODE) in _POWER_SAVING,
        )
        return self._latest

    def _cpu_pressure(self, cpu: parse.CpuTimes | None) -> tuple[float | None, PressureSource]:
        psi = self._stalled("cpu")
        if psi is not None:
            return psi, "psi"
        text = self._read("proc/loadavg") if cpu else None
        load = parse.load_stand_in(text, cpu.cores) if text and cpu else None
        return (None, "none") if load is None else (load, "loadavg")

    def _stalled(self, resource: str) -> float | None:
        """PSI ``some`` since the previous reading, the kernel's average on the first."""
        text = self._read(f"proc/pressure/{resource}")
        average = parse.psi_some_avg10(text) if text else None
        total_us = parse.psi_total_us(text) if text else None
        if average is None or total_us is None:
            return average
        before, after = self._stalls.get(resource), parse.Stall(total_us, self._clock())
        recent = parse.stalled_percent(before, after) if before else None
        if before is None or recent is not None:
            self._stalls[resource] = after
        return average if recent is None else recent

    def _cpu_percent(self, cpu: parse.CpuTimes | None) -> float | None:
        before, self._cpu = self._cpu, cpu
        if before is None or cpu is None:
            return None
        busy = parse.busy_percent(before, cpu)
        return self._latest.cpu_percent if busy is None and before == cpu else busy

    def _temperature(self) -> float | None:
        readings = (self._parsed(path, parse.millicelsius) for path in self._layout.zones)
        return max((value for value in readings if value is not None), default=None)

    def _is_throttled(self) -> bool:
        states = (self._parsed(path, parse.integer) for path in self._layout.cooling)
        cooling = any(state is not None and state > 0 for state in states)
        firmware = self._parsed(_FIRMWARE, parse.firmware_slowed)
        before, self._throttle_count = (
            self._throttle_count,
            self._parsed(_THROTTLE_COUNT, parse.integer),
        )
        counted = before is not None and (self._throttle_count or 0) > before
        return cooling or bool(firmware) or counted

    def _clock_limit(self) -> float | None:
        shares = []
        for path, hardware_khz in self._layout.clocks:
            limit = self._parsed(path, parse.integer)
            if limit is not None and limit > 0:
                shares.append(min(1.0, limit / hardware_khz))
        return min(shares, default=None)

    def _battery(self) -> tuple[float | None, bool]:
        """``(mean charge, any is discharging)`` over the device's own batteries."""
        charges, discharging = [], False
        for folder in self._layout.batteries:
            charge = self._parsed(folder + "/capacity", parse.percent)
            if charge is not None:
                charges.append(charge)
                status = self._parsed(folder + "/status", parse.word)
                discharging = discharging or status == "discharging"
        return (sum(charges) / len(charges), discharging) if charges else (None, False)

    def _scan(self) -> _Layout:
        thermal = self._entries("sys/class/thermal")
        zones = [(f"{name}/temp", self._word(f"{name}/type")) for name in thermal if "zone" in name]
        processor = [path for path, kind in zones if _PROCESSOR_ZONE.search(kind)]
        return _Layout(
            # A board whose zones have other names still gets its hottest one.
            zones=tuple(processor or (path for path, _ in zones)),
            cooling=tuple(
                f"{name}/cur_state"
                for name in thermal
                if "cooling" in name and _PROCESSOR_COOLING.search(self._word(f"{name}/type"))
            ),
            clocks=self._clocks(),
            batteries=tuple(
                name
                for name in self._entries("sys/class/power_supply")
                if self._word(f"{name}/type") == "battery"
                # A wireless mouse is a power supply too, with scope "Device".
                and self._word(f"{name}/scope") != "device"
            ),
        )

    def _clocks(self) -> tuple[tuple[str, float], ...]:
        found = []
        for name in self._entries("sys/devices/system/cpu/cpufreq"):
            hardware = self._parsed(f"{name}/cpuinfo_max_freq", parse.integer)
            if hardware is not None and hardware > 0:
                found.append((f"{name}/scaling_max_freq", float(hardware)))
        return tuple(found)

    def _entries(self, folder: str) -> list[str]:
        """Paths of a folder's entries relative to the root, none where it cannot be listed."""
        with contextlib.suppress(OSError, ValueError):
            names = sorted(entry.name for entry in Path(self._root + folder).iterdir())
            return [f"{folder}/{name}" for name in names[:MAX_ENTRIES]]
        return []

    def _word(self, path: str) -> str:
        return self._parsed(path, parse.word) or ""

    def _parsed(self, path: str, parser: Callable[[bytes], T]) -> T | None:
        text = self._read(path)
        return None if text is None else parser(text)

    def _read(self, path: str) -> bytes | None:
        """The beginning of a file, or None; never blocks, not even on a named pipe."""
        with contextlib.suppress(OSError, ValueError):
            handle = os.open(self._root + path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                return os.read(handle, parse.MAX_BYTES)
            finally:
                os.close(handle)
        return None

"""Pure readers of the kernel's text files: bytes in, a plausible value or None out.

Nothing here raises on any input. A value outside its physical range counts as absent, because
drivers do publish such values (Jetson's PMIC zone always reads 100 degrees, some Android zones
read -274).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

MAX_BYTES = 16 * 1024
"""No file read here is larger in the part that matters."""

MIN_STALL_WINDOW_S = 0.1
"""The shortest time over which a PSI counter is turned into a share."""

_PSI = re.compile(rb"^some avg10=(\d{1,3}(?:\.\d{1,4})?)\s", re.MULTILINE)
_PSI_TOTAL = re.compile(rb"^some .{0,100}\btotal=(\d{1,19})\s", re.MULTILINE)
_MEMINFO = re.compile(rb"^(\w{1,40}):\s{1,40}(\d{1,15}) kB", re.MULTILINE)
_OOM_KILLS = re.compile(rb"^oom_kill (\d{1,18})$", re.MULTILINE)
_CPU_LINE = re.compile(rb"^cpu((?: +\d{1,20}){4,16})\s*$", re.MULTILINE)
_CORE_LINE = re.compile(rb"^cpu\d{1,5} ", re.MULTILINE)
_NUMBER = re.compile(rb"\s*(-?\d{1,18})\s*\x00?")
_HEX = re.compile(rb"\s*(?:0x)?([0-9a-fA-F]{1,16})\s*\x00?")

_FIRMWARE_SLOWED = 0b1110
"""Raspberry Pi ``get_throttled``: clock capped, throttled, soft temperature limit (now)."""


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Totals of all cores since boot, in clock ticks."""

    busy: int
    total: int
    cores: int
    """0 where the per-core lines are missing."""


@dataclass(frozen=True, slots=True)
class Stall:
    """A PSI counter and when it was read."""

    total_us: int
    at: float
    """Monotonic seconds."""


@dataclass(frozen=True, slots=True)
class ProcessTimes:
    """One process, from ``/proc/PID/stat``."""

    started: int
    """Ticks after boot; tells a process from a later one with the same id."""
    busy: int
    """User and system time in clock ticks, all threads."""


@dataclass(frozen=True, slots=True)
class MemoryInfo:
    """Main memory in MiB."""

    total_mib: float
    available_mib: float


def psi_some_avg10(text: bytes) -> float | None:
    """``some avg10`` of a ``/proc/pressure`` file, percent 0..100."""
    match = _PSI.search(text)
    return _within(float(match[1]), 0.0, 100.0) if match else None


def psi_total_us(text: bytes) -> int | None:
    """``some total`` of a ``/proc/pressure`` file; None where there never was any, or no count."""
    match = _PSI_TOTAL.search(text)
    return (int(match[1]) or None) if match else None


def stalled_percent(before: Stall, after: Stall) -> float | None:
    """Stalled share of the time between two readings, percent 0..100.

    The kernel's own averages follow with a time constant of ten seconds, which is most of the time
    a governor has. None when the readings are too close for the counter's grain.
    """
    elapsed_s, stalled_us = after.at - before.at, after.total_us - before.total_us
    if elapsed_s < MIN_STALL_WINDOW_S or stalled_us < 0:
        return None
    return min(100.0, stalled_us / (elapsed_s * 1e4))


def process_times(text: bytes) -> ProcessTimes | None:
    """``/proc/PID/stat``; the command name may hold anything, so fields count from its end."""
    fields = text.rpartition(b")")[2].split()
    try:
        return ProcessTimes(started=int(fields[19]), busy=int(fields[11]) + int(fields[12]))
    except (IndexError, ValueError):
        return None


def load_average(text: bytes) -> float | None:
    """Tasks that ran or wanted to, averaged over a minute: the first of ``/proc/loadavg``."""
    first = text.split(maxsplit=1)[:1]
    try:
        load = float(first[0][:16]) if first else math.nan
    except ValueError:
        return None
    return load if math.isfinite(load) and load >= 0.0 else None


def load_stand_in(text: bytes, cores: int) -> float | None:
    """A stand-in for CPU pressure from ``/proc/loadavg``, percent 0..100.

    With ``L`` tasks wanting ``n`` cores, the share of the demanded time that waits is ``(L - n) /
    L``. It reads lower than PSI (which counts time in which *any* task waits) and lags by a
    minute, so it errs to the side of not reacting.
    """
    load = load_average(text)
    if cores < 1 or load is None:
        return None
    return 100.0 * (load - cores) / load if load > cores else 0.0


def memory(text: bytes) -> MemoryInfo | None:
    """``/proc/meminfo``; kernels before 3.14 have no ``MemAvailable`` and get an estimate."""
    kib = {key: int(value) for key, value in _MEMINFO.findall(text)}
    total = kib.get(b"MemTotal", 0)
    estimate = kib.get(b"MemFree", -1) + kib.get(b"Buffers", 0) + kib.get(b"Cached", 0)
    available = kib.get(b"MemAvailable", estimate)
    if total <= 0 or not 0 <= available <= total:
        return None
    return MemoryInfo(total_mib=total / 1024.0, available_mib=available / 1024.0)


def oom_kills(text: bytes) -> int | None:
    """Processes ended for want of memory, from ``/proc/vmstat`` (since Linux 4.13)."""
    match = _OOM_KILLS.search(text)
    return int(match[1]) if match else None


def cpu_times(text: bytes) -> CpuTimes | None:
    """The summary line of ``/proc/stat``; idle and iowait count as idle, guest time once."""
    match = _CPU_LINE.search(text)
    if match is None:
        return None
    ticks = [int(part) for part in match[1].split()][:8]
    idle = sum(ticks[3:5])
    total = sum(ticks)
    return CpuTimes(busy=total - idle, total=total, cores=len(_CORE_LINE.findall(text)))


def busy_percent(before: CpuTimes, after: CpuTimes) -> float | None:
    """Busy share between two readings; None when no time passed or a counter ran backwards."""
    total, busy = after.total - before.total, after.busy - before.busy
    if total <= 0 or not 0 <= busy <= total:
        return None
    return 100.0 * busy / total


def millicelsius(text: bytes) -> float | None:
    """A thermal zone's ``temp``, degrees Celsius within -40..150."""
    value = integer(text)
    return None if value is None else _within(value / 1000.0, -40.0, 150.0)


def integer(text: bytes) -> int | None:
    """A file that holds one decimal number."""
    match = _NUMBER.fullmatch(text)
    return int(match[1]) if match else None


def percent(text: bytes) -> float | None:
    """A file that holds one whole number within 0..100."""
    value = integer(text)
    return None if value is None else _within(float(value), 0.0, 100.0)


def firmware_slowed(text: bytes) -> bool:
    """Whether the Raspberry Pi's firmware slows the processor down now (heat, low voltage)."""
    match = _HEX.fullmatch(text)
    return bool(match and int(match[1], 16) & _FIRMWARE_SLOWED)


def word(text: bytes) -> str:
    """A file that holds one name: lower case, without its end; at most 64 characters."""
    return text.strip(b" \t\r\n\x00")[:64].decode("ascii", "replace").lower()


def _within(value: float, low: float, high: float) -> float | None:
    return value if low <= value <= high else None

"""How many child processes fit in memory: their number follows what they are seen to need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

MIB = 1024**2
FIRST_GUESS_MIB = {"converters.build_worker": 1500.0, "converters.verify_worker": 250.0}
"""Peak of a job nobody has seen finish; torch and the TFLite exporter alone take over 1 GiB."""
OTHER_GUESS_MIB = 500.0
RESERVE_MIB = 256.0
"""Left to the rest of the machine."""


class Sensor(Protocol):
    """Reads memory."""

    def available_mib(self) -> float:
        """What new processes may take without swapping."""

    def resident_mib(self, pid: int) -> float:
        """What a process holds now; 0 when it is gone."""


class ProcSensor:
    """Linux: ``/proc``, within the limit of the control group where there is one."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def available_mib(self) -> float:
        """``MemAvailable``, or less under a control group; infinite where nothing can be read."""
        found = [_field(self._root / "proc/meminfo", "MemAvailable:") / 1024]
        for limit, used in (
            ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
            (
                "sys/fs/cgroup/memory/memory.limit_in_bytes",
                "sys/fs/cgroup/memory/memory.usage_in_bytes",
            ),
        ):
            bounds = [_number(self._root / name) for name in (limit, used)]
            if bounds[0] is not None and bounds[1] is not None:
                found.append((bounds[0] - bounds[1]) / MIB)
        return max(0.0, min(found))

    def resident_mib(self, pid: int) -> float:
        """``VmRSS``."""
        resident = _field(self._root / f"proc/{pid}/status", "VmRSS:")
        return 0.0 if resident == float("inf") else resident / 1024


@dataclass(slots=True)
class MemoryBudget:
    """Decides whether one more job may start, and learns from those that ended.

    One job may always run: a machine too small for one is told so by the job's own failure.
    """

    sensor: Sensor = field(default_factory=ProcSensor)
    seen_mib: dict[str, float] = field(default_factory=dict)
    """Largest peak by job module."""

    def expected_mib(self, module: str) -> float:
        """Peak to plan with: the largest seen, else a guess."""
        return self.seen_mib.get(module, FIRST_GUESS_MIB.get(module, OTHER_GUESS_MIB))

    def learn(self, module: str, peak_mib: float) -> None:
        """Take in the peak of a job that ended."""
        if peak_mib > 0:
            self.seen_mib[module] = max(peak_mib, self.seen_mib.get(module, 0.0))

    def may_start(self, module: str, running: Iterable[tuple[str, int]]) -> bool:
        """Whether one more job fits beside those that run.

        Args:
            module: of the next job.
            running: (module, pid) of each that runs.
        """
        jobs = list(running)
        if not jobs:
            return True
        growth = sum(
            max(0.0, self.expected_mib(name) - self.sensor.resident_mib(pid)) for name, pid in jobs
        )
        return fits(self.sensor.available_mib(), self.expected_mib(module), growth)


def fits(available_mib: float, wanted_mib: float, growth_mib: float) -> bool:
    """Whether a job fits beside the growth still to come of those that run."""
    return wanted_mib + growth_mib + RESERVE_MIB <= available_mib


def _field(path: Path, name: str) -> float:
    """A field of a ``/proc`` file in KiB; infinite when it cannot be read."""
    try:
        lines = path.read_text().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(name)))
    except (OSError, StopIteration, ValueError, IndexError):
        return float("inf")


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):  # ``max``: no limit
        return None

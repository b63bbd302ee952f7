"""A memory limit for the pressure benchmark: a control group, and a neighbour that grows in it.

The limit is real: what no longer fits is killed by the kernel, and the neighbour is spared. The
board that the governor sees has the group's memory and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
MIB = 2**20
FREE_MIB = 40.0
"""What the limit leaves beside the most accurate point in calm."""
CALM_USED_SHARE = 0.88
"""Where the neighbour begins to grow."""
GROWTH_S = 40.0


class MemoryGroup:
    """A control group with a memory limit; absent where this user may not create one."""

    def __init__(self) -> None:
        name = f"edge-memory-{os.getpid()}"
        self._v1 = (_V1 / "memory.limit_in_bytes").exists() or (_V1 / "cgroup.procs").exists()
        self._path = (_V1 if self._v1 else _V2) / name
        self._limit, self._usage = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes")
            if self._v1
            else ("memory.max", "memory.current")
        )
        self.procs = self._path / "cgroup.procs"
        self.limit_mib = 0.0
        try:
            self._path.mkdir()
            self.limit(None)
            self.used_mib()
        except OSError:
            with contextlib.suppress(OSError):
                self._path.rmdir()
            self.usable = False
        else:
            self.usable = True

    def add(self, pid: int) -> None:
        """Charge what a process allocates from now on."""
        self.procs.write_text(str(pid))

    def limit(self, mib: float | None) -> None:
        """So much for all; None for no limit."""
        self.limit_mib = mib or 0.0
        unlimited = "-1" if self._v1 else "max"
        text = unlimited if mib is None else str(int(mib * MIB))
        (self._path / self._limit).write_text(text)

    def used_mib(self) -> float:
        """What is charged and cannot simply be dropped."""
        used = int((self._path / self._usage).read_text())
        pairs = (line.split() for line in (self._path / "memory.stat").read_text().splitlines())
        stat = {key: int(value) for key, value in pairs}
        return (used - stat.get("total_inactive_file", stat.get("inactive_file", 0))) / MIB

    def meminfo(self) -> str:
        """``/proc/meminfo`` of a board that has the limit as its memory."""
        free_mib = max(0.0, self.limit_mib - self.used_mib())
        return (
            f"MemTotal: {self.limit_mib * 1024:.0f} kB\nMemFree: {free_mib * 1024:.0f} kB\n"
            f"MemAvailable: {free_mib * 1024:.0f} kB\n"
        )

    def close(self) -> None:
        """Remove the group; its processes have ended."""
        if self.usable:
            with contextlib.suppress(OSError):
                self._path.rmdir()


@dataclass(frozen=True)
class Neighbour:
    """How a neighbour grows: to ``first_mib`` at once, then evenly to ``last_mib``."""

    first_mib: float
    last_mib: float

    def start(self, group: MemoryGroup) -> subprocess.Popen[bytes]:
        """A process of the group that is never chosen to be killed."""
        code = (
            "import os, time\n"
            "open('/proc/self/oom_score_adj', 'w').write('-1000')\n"
            f"open({str(group.procs)!r}, 'w').write(str(os.getpid()))\n"
            f"kept = [b'x' * {int(self.first_mib * MIB)}]\n"
            f"steps = {max(1, int((self.last_mib - self.first_mib) * 4))}\n"
            f"while os.getppid() == {os.getpid()}:\n"
            f"    time.sleep({GROWTH_S} / steps)\n"
            f"    if len(kept) <= steps: kept.append(b'x' * {MIB // 4})\n"
        )
        return subprocess.Popen([sys.executable, "-S", "-c", code])


def plan(top_mib: float, bottom_mib: float) -> tuple[float, Neighbour]:
    """The limit, and a neighbour beside which the cheapest point still fits and the best does not.

    Args:
        top_mib: what a worker on the most accurate point needs.
        bottom_mib: likewise on the cheapest.
    """
    limit_mib = top_mib + FREE_MIB
    first_mib = CALM_USED_SHARE * limit_mib - top_mib
    last_mib = limit_mib - (top_mib + bottom_mib) / 2.0
    return limit_mib, Neighbour(first_mib, last_mib)

"""What the pressure benchmark does to a worker, and a board that feels exactly that.

The board is a folder of ``/proc`` and ``/sys`` files. Its CPU pressure is what the quota really
held the worker back, and, where neighbours are the stress, what it really waited in the run queue;
its one core is as busy as worker and neighbours really keep it. Other programs on the machine do
not count. Its temperature is a first-order plant heated by the processor time that the worker
really took.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

PERIOD_US = 4000
"""Longer quota periods make hiccups as long as they are."""

_V1, _V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")


class CpuGroup:
    """A control group with a CPU quota; absent where this user may not create one.

    It is preferred over everything else on the machine by as much as the kernel allows, so that
    other programs hardly count.
    """

    def __init__(self) -> None:
        name = f"edge-pressure-{os.getpid()}"
        self._v1 = (_V1 / "cpu.cfs_quota_us").exists() or (_V1 / "cgroup.procs").exists()
        self._path = (_V1 if self._v1 else _V2) / name
        try:
            self._path.mkdir()
            self.limit(None)
            weight, most = ("cpu.shares", 262144) if self._v1 else ("cpu.weight", 10000)
            (self._path / weight).write_text(str(most))
        except OSError:
            with contextlib.suppress(OSError):
                self._path.rmdir()
            self.usable = False
        else:
            self.usable = True

    def add(self, pid: int) -> None:
        """Move a process and its threads in."""
        (self._path / "cgroup.procs").write_text(str(pid))

    def limit(self, share: float | None) -> None:
        """Allow so much of one core; None for no limit."""
        quota = None if share is None else max(1000, int(share * PERIOD_US))
        if self._v1:
            (self._path / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (self._path / "cpu.cfs_quota_us").write_text("-1" if quota is None else str(quota))
        else:
            (self._path / "cpu.max").write_text(f"{quota or 'max'} {PERIOD_US}")

    def throttled_us(self) -> int:
        """Time in which the quota held the group back."""
        pairs = (line.split() for line in (self._path / "cpu.stat").read_text().splitlines())
        stat = {key: int(value) for key, value in pairs}
        return stat.get("throttled_usec", stat.get("throttled_time", 0) // 1000)

    def close(self) -> None:
        """Remove the group; its processes have ended."""
        if self.usable:
            with contextlib.suppress(OSError):
                self._path.rmdir()


class Hogs:
    """Processes that never wait, on the worker's core."""

    def __init__(self, count: int, core: int) -> None:
        self._count, self._core = count, core
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, nice: int, group: CpuGroup | None) -> None:
        """Begin to press, in the worker's group where it has one."""
        code = (
            f"import os; os.sched_setaffinity(0, {{{self._core}}})\n"
            f"os.setpriority(os.PRIO_PROCESS, 0, {nice})\nwhile os.getppid() == {os.getpid()}:\n"
            "    sum(range(20000))"
        )
        self._running = [
            subprocess.Popen([sys.executable, "-S", "-c", code]) for _ in range(self._count)
        ]
        for process in self._running:
            if group is not None:
                group.add(process.pid)

    @property
    def pids(self) -> list[int]:
        """Of those that run."""
        return [process.pid for process in self._running]

    def stop(self) -> None:
        """End every one."""
        for process in self._running:
            process.kill()
        for process in self._running:
            process.wait()
        self._running = []


@dataclass
class Plant:
    """``dT/dt = (ambient + kelvin_per_core * cores - T) / time_constant_s``."""

    ambient_celsius: float
    kelvin_per_core: float
    time_constant_s: float
    celsius: float

    def step(self, elapsed_s: float, cores: float) -> float:
        """Advance by ``elapsed_s`` with ``cores`` busy; the new temperature."""
        target = self.ambient_celsius + self.kelvin_per_core * cores
        self.celsius += (target - self.celsius) * min(1.0, elapsed_s / self.time_constant_s)
        return self.celsius


class PressureBoard:
    """The worker's board below ``root``."""

    def __init__(
        self,
        root: Path,
        pid: int,
        group: CpuGroup | None,
        *,
        queueing: bool,
        meminfo: Callable[[], str],
    ) -> None:
        self.root = root
        self._meminfo = meminfo
        self._queueing = queueing
        self._pid = pid
        self._group = group
        self._hogged_s: dict[int, float] = {}
        self._began = time.monotonic()
        self._idle = 0
        self._write("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")

    def update(self, celsius: float, slowed: bool, hogs: Iterable[int]) -> None:
        """Write what the board feels now, beside the given neighbours."""
        if self._queueing:
            self._hogged_s |= {pid: _cpu_s(pid) for pid in hogs}
            self._write_busy(self.cpu_s() + sum(self._hogged_s.values()))
        self._write("proc/meminfo", self._meminfo())
        waited_us = self._waited_us() if self._queueing else 0
        waited_us += self._group.throttled_us() if self._group else 0
        zeros = "avg10=0.00 avg60=0.00 avg300=0.00 total="
        self._write("proc/pressure/cpu", f"some {zeros}{waited_us + 1}\nfull {zeros}0\n")
        self._write("sys/class/thermal/thermal_zone0/temp", f"{celsius * 1000:.0f}\n")
        self._write(
            "sys/devices/platform/soc/soc:firmware/get_throttled", "4\n" if slowed else "0\n"
        )

    def follow(self, pid: int) -> None:
        """Another worker has taken the place of the one before."""
        self._pid = pid

    def cpu_s(self) -> float:
        """Processor time of the worker so far."""
        return _cpu_s(self._pid)

    def _write_busy(self, cpu_s: float) -> None:
        """The board's one core; the kernel's processor times are in clock ticks."""
        ticks_per_s = os.sysconf("SC_CLK_TCK")
        passed = int((time.monotonic() - self._began) * ticks_per_s)
        busy = int(cpu_s * ticks_per_s)
        idle = max(self._idle, passed - busy)
        self._idle = idle
        times = f"{busy} 0 0 {idle} 0 0 0 0 0 0"
        self._write("proc/stat", f"cpu  {times}\ncpu0 {times}\n")

    def _waited_us(self) -> int:
        """Time that the worker's inference was ready and did not run.

        Its other threads do not count: on one core the reader waits for the inference itself.
        """
        with contextlib.suppress(OSError, IndexError):
            path = Path(f"/proc/{self._pid}/task/{self._pid}/schedstat")
            return int(path.read_text().split()[1]) // 1000
        return 0

    def _write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text(text)
        temporary.replace(path)


def _cpu_s(pid: int) -> float:
    """Processor time of a process so far; 0 where it is gone."""
    with contextlib.suppress(OSError):
        return _read_cpu_s(pid)
    return 0.0


def _read_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine_meminfo() -> str:
    """The machine's own."""
    return "\n".join(Path("/proc/meminfo").read_text().splitlines()[:3]) + "\n"

"""Memory and processor time of the agent's own processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """One process over the time since the previous reading."""

    rss_mib: float
    cpu_percent: float
    """Of one core; 0.0 on a process's first reading."""


class ProcessMeter:
    """Measures processes by id; forgets those it is no longer asked about."""

    def __init__(self) -> None:
        self._known: dict[int, psutil.Process] = {}

    def read(self, pids: Iterable[int]) -> dict[int, ProcessUsage]:
        """Usage of each process that still exists and may be looked at; never raises."""
        usage, known = {}, {}
        for pid in pids:
            with contextlib.suppress(psutil.Error, OSError, ValueError, OverflowError):
                process = self._same(pid)
                with process.oneshot():
                    usage[pid] = ProcessUsage(
                        rss_mib=process.memory_info().rss / MIB,
                        cpu_percent=process.cpu_percent(None),
                    )
                known[pid] = process
        self._known = known
        return usage

    def _same(self, pid: int) -> psutil.Process:
        """The process as known, or a new one where the id has been given to another."""
        process = self._known.get(pid)
        if process is None or not process.is_running():
            process = psutil.Process(pid)
        return process

"""What the agent's own processes take of the machine."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable

from agent.sense import parse


class Processes:
    """Processor time of a changing set of processes.

    Args:
        clock: monotonic seconds.
        ticks_per_s: the kernel's clock ticks; None asks it.
        cores: of the machine; None asks the operating system.
        read: the text of a process's ``stat``, or None when it is gone.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        ticks_per_s: int | None = None,
        cores: int | None = None,
        read: Callable[[int], bytes | None] | None = None,
    ) -> None:
        self._clock = clock
        self._ticks_per_s = ticks_per_s or os.sysconf("SC_CLK_TCK")
        self._cores = cores or os.cpu_count() or 1
        self._read = read or _stat
        self._before: dict[int, parse.ProcessTimes] = {}
        self._read_at: float | None = None

    def cpu_percent(self, pids: Iterable[int]) -> float | None:
        """Their share of the whole machine since the previous call, 0..100; None on the first.

        A process that has just begun counts from the next call on, one that has ended no more.
        """
        texts = {pid: text for pid in pids if (text := self._read(pid)) is not None}
        now = self._clock()
        times = {pid: found for pid, text in texts.items() if (found := parse.process_times(text))}
        busy = sum(
            max(0, found.busy - before.busy)
            for pid, found in times.items()
            if (before := self._before.get(pid)) and before.started == found.started
        )
        since, self._read_at, self._before = self._read_at, now, times
        if since is None or now <= since:
            return None
        return min(100.0, 100.0 * busy / (self._ticks_per_s * (now - since) * self._cores))


def _stat(pid: int) -> bytes | None:
    with contextlib.suppress(OSError):
        handle = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(handle, parse.MAX_BYTES)
        finally:
            os.close(handle)
    return None

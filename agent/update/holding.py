"""When downloads must wait: outside the maintenance windows, and while somebody has paused them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from edge_sdk.delivery.windows import DAY_MINUTES, DAYS, opens_in_min, parse_window


class Holding:
    """Says whether downloads may run, and why not.

    Args:
        windows: as in the configuration; none for always.
        now: seconds since the epoch, as well as the device knows.
        local: local time; the system's time zone by default.

    Raises:
        ConfigError: ``config.bad-window``.
    """

    def __init__(
        self,
        windows: Sequence[str],
        now: Callable[[], float],
        local: Callable[[float], time.struct_time] = time.localtime,
    ) -> None:
        self._windows = [parse_window(text) for text in windows]
        self._now, self._local = now, local
        self.paused = False
        """Somebody wants no downloads for now."""

    def reason(self) -> str:
        """Why downloads wait; empty when they may run."""
        if self.paused:
            return "Paused until `edge-agent resume`."
        if not self._windows:
            return ""
        at = self._local(self._now())
        minute = at.tm_hour * 60 + at.tm_min
        wait = opens_in_min(self._windows, at.tm_wday, minute)
        if not wait:
            return ""
        day, opens = divmod(at.tm_wday * DAY_MINUTES + minute + wait, DAY_MINUTES)
        clock = f"{opens // 60:02}:{opens % 60:02}"
        return f"Outside the maintenance windows; the next opens on {DAYS[day % 7]} at {clock}."

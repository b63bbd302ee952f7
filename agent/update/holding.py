"""When downloads must wait: outside the maintenance windows, and while somebody has paused them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from edge_sdk.delivery.windows import Window, opens_in_words, parse_window


class Holding:
    """Says whether downloads may run, and why not.

    The device's windows and those of the rollout must both be open.

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
        self._wished: list[Window] = []
        self._now, self._local = now, local
        self.paused = False
        """Somebody wants no downloads for now."""

    def heed(self, windows: Sequence[str]) -> None:
        """Take over the windows of the rollout that is under way; none for always.

        Raises:
            ConfigError: ``config.bad-window``.
        """
        self._wished = [parse_window(text) for text in windows]

    def reason(self) -> str:
        """Why downloads wait; empty when they may run."""
        if self.paused:
            return "Paused until `edge-agent resume`."
        for whose, windows in (("", self._windows), ("rollout's ", self._wished)):
            if windows and (opens := opens_in_words(windows, self._local(self._now()))):
                return f"Outside the {whose}maintenance windows; the next opens {opens}."
        return ""

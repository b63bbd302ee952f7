"""How many devices a rollout may offer its release to at this moment. Pure.

Two bounds, each of which may be absent: maintenance windows by the server's clock on the wall, and
a number of devices in an hour. The second is spread evenly: 60 an hour are one a minute. What was
not used while the server was away, the rollout paused or no window open is made up for by one burst
at most.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from edge_sdk.delivery.windows import Window, opens_in_words

BURST_S = 60.0
"""So many seconds' share may be offered at once."""
EVERYBODY = 1_000_000_000
"""Room for any fleet."""


@dataclass(frozen=True, slots=True)
class Pacing:
    """The bounds of one rollout, and how far the second is used up."""

    windows: tuple[Window, ...] = ()
    per_hour: int = 0
    """0 for no bound."""
    next_at: float = 0.0
    """The next offer is due then, seconds since the epoch."""

    @property
    def bounded(self) -> bool:
        """Whether there is any bound."""
        return bool(self.windows or self.per_hour)

    @property
    def interval_s(self) -> float:
        """Between two offers."""
        return 3600.0 / self.per_hour

    def room(self, now: float, local: time.struct_time) -> int:
        """How many devices may be offered the release now.

        Args:
            now: seconds since the epoch.
            local: the same on the wall.
        """
        if self.windows and opens_in_words(self.windows, local):
            return 0
        if not self.per_hour:
            return EVERYBODY
        unused_s = now - self._since(now)
        return math.floor(unused_s / self.interval_s) + 1 if unused_s >= 0 else 0

    def spent(self, offers: int, now: float) -> float:
        """:attr:`next_at` once so many offers have been made."""
        if not (offers and self.per_hour):
            return self.next_at
        return self._since(now) + offers * self.interval_s

    def waits(self, now: float, local: time.struct_time) -> str:
        """Why there is no room, for a person; empty where there is."""
        opens = opens_in_words(self.windows, local) if self.windows else ""
        if opens:
            return f"Outside the maintenance windows; the next opens {opens}, the server's time."
        if self.per_hour and self.next_at > now:
            wait_s = self.next_at - now
            return f"{self.per_hour} devices an hour: the next is offered it in {wait_s:.0f} s."
        return ""

    def _since(self, now: float) -> float:
        """When the offers were due that are still made up for."""
        if now - self.next_at <= BURST_S:
            return self.next_at
        return now - BURST_S // self.interval_s * self.interval_s

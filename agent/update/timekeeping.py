"""What time it is on a device whose clock may be anything. No I/O.

Three sources, best first: what the fleet attested to a question of ours, carried on by the
monotonic clock; the system's clock; and the floor, the latest moment at which anything believed
here was signed, before which it cannot be. A clock in 1970 is lifted to the floor; one in the far
future is corrected by the attestation, and never moves the floor.
"""

from __future__ import annotations

from agent.update.ports import Clock

BEHIND_S = 86_400.0
"""A clock this far behind the floor is known to be wrong."""


class Timekeeper:
    """The best knowledge of the time.

    Args:
        clock: the system's clocks.
        floor_s: the floor kept from before, seconds since the epoch.
    """

    def __init__(self, clock: Clock, floor_s: float = 0.0) -> None:
        self._clock = clock
        self._floor_s = floor_s
        self._attested: tuple[float, float] | None = None

    @property
    def floor_s(self) -> float:
        """It is not earlier than that."""
        return self._floor_s

    @property
    def attested(self) -> bool:
        """Whether the fleet has said what time it is since this process started."""
        return self._attested is not None

    @property
    def known(self) -> bool:
        """Whether the time is known at all, rather than only what it is not."""
        return self.attested or self._clock.now() >= self._floor_s - BEHIND_S

    def now(self) -> float:
        """Seconds since the epoch."""
        if self._attested is None:
            return max(self._clock.now(), self._floor_s)
        at, then = self._attested
        return max(at + self._clock.monotonic() - then, self._floor_s)

    def saw(self, signed_at_s: float) -> None:
        """Something believed was signed at that moment."""
        self._floor_s = max(self._floor_s, signed_at_s)

    def attest(self, at_s: float) -> None:
        """The fleet says what time it is."""
        self._attested = (at_s, self._clock.monotonic())
        self.saw(at_s)

    def forget(self) -> None:
        """A key that could state times was revoked: what it stated counts no more."""
        self._floor_s, self._attested = 0.0, None

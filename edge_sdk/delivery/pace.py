"""How fast: a bound on bytes per second, and pauses between attempts."""

from __future__ import annotations

BURST_S = 0.25
"""So much of a second's bytes may be asked for at once."""


class Pace:
    """Bounds what is asked for, on average and over any time.

    Over ``t`` seconds no more than ``(t + BURST_S) * bytes_per_s`` bytes, and what was asked for
    last, are let through. Pure: the caller says what time it is.

    Args:
        bytes_per_s: 0 for no bound.
    """

    def __init__(self, bytes_per_s: float) -> None:
        self._rate = bytes_per_s
        self._free_at = float("-inf")

    def allows(self, now_s: float) -> bool:
        """Whether the next bytes may be asked for."""
        return not self._rate or now_s >= self._free_at - BURST_S

    def spend(self, size: int, now_s: float) -> None:
        """These bytes have been asked for."""
        if self._rate:
            self._free_at = max(self._free_at, now_s) + size / self._rate


def backoff_s(attempts: int, first_s: float, most_s: float, chance: float) -> float:
    """The pause after so many failed attempts.

    The first is exact; later ones double up to ``most_s`` and lose up to half by chance, so that
    many devices that failed together do not come back together.

    Args:
        attempts: that have failed.
        first_s: the first pause.
        most_s: the longest.
        chance: uniform in [0, 1).
    """
    whole = min(first_s * 2.0 ** min(attempts, 32), most_s)
    return whole if attempts == 0 else whole * (1.0 - chance / 2)

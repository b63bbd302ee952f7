"""How fast a microphone's clock really runs, against this machine's."""

from __future__ import annotations

from collections import deque

MAX_POINTS = 600
EVERY_S = 1.0
LEAST_S = 20.0
"""Before that, the jitter of the driver's blocks is larger than any crystal's error."""


class Drift:
    """A line through (time, samples), a point a second over the last ten minutes.

    Args:
        rate_hz: what the device claims.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._points: deque[tuple[float, float]] = deque(maxlen=MAX_POINTS)

    def arrived(self, samples: int, at_s: float) -> None:
        """So many samples have come in all, the last of them at this monotonic time."""
        if self._points and at_s - self._points[-1][0] < EVERY_S:
            return
        self._points.append((at_s, float(samples)))

    @property
    def ppm(self) -> float | None:
        """Millionths by which it is fast; negative when slow, None while that is not known."""
        points = self._points
        if len(points) < 3 or points[-1][0] - points[0][0] < LEAST_S:
            return None
        first_s, first = points[0]
        times = [at_s - first_s for at_s, _ in points]
        counts = [count - first for _, count in points]
        middle_s, middle = sum(times) / len(times), sum(counts) / len(counts)
        across = sum((t - middle_s) ** 2 for t in times)
        along = sum((t - middle_s) * (c - middle) for t, c in zip(times, counts, strict=True))
        return (along / across / self._rate_hz - 1.0) * 1e6

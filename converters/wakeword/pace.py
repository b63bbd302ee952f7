"""How fast a network learns as time goes on: up at first, then down along a cosine."""

from __future__ import annotations

import math


def pace(done: float, warm: float, least: float = 0.02) -> float:
    """Share of the learning rate (Loshchilov and Hutter 2017, "SGDR").

    Args:
        done: share of the learning that is over.
        warm: share of the warm-up that is over; may be above 1.
        least: where the cosine ends.
    """
    return min(1.0, warm) * (least + (1.0 - least) * 0.5 * (1 + math.cos(math.pi * done)))

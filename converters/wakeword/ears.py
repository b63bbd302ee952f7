"""How sound becomes the numbers that a network is given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from converters.wakeword.network import FEATURES, STEP_S, STRIDE
from edge_sdk.audio.features import FrontEnd
from edge_sdk.audio.samples import Floats

Halves = npt.NDArray[np.float16]


class Ear(Protocol):
    """Turns sound into rows of numbers, the same ones on the device."""

    @property
    def name(self) -> str:
        """What tells it from other ears, for what is kept of it."""

    @property
    def width(self) -> int:
        """Numbers in a row."""

    @property
    def rows(self) -> int:
        """For each step of the network."""

    @property
    def step_s(self) -> float:
        """Sound between two scores."""

    def hear(self, sounds: Iterable[Floats]) -> Halves:
        """Rows (T, width) of sounds (N,) at 16 kHz that follow on each other from silence."""


class Bands:
    """Bands of the device's own front end."""

    name = "bands"
    width = FEATURES.bands
    rows = STRIDE
    step_s = STEP_S

    def hear(self, sounds: Iterable[Floats]) -> Halves:
        """As a device hears them; an odd last frame is dropped."""
        front = FrontEnd(FEATURES)
        parts = [front.push(sound).astype(np.float16) for sound in sounds]
        found = np.concatenate([np.zeros((0, self.width), np.float16), *parts])
        return found[: len(found) - len(found) % self.rows]


BANDS: Final[Ear] = Bands()

"""What is wrong with the sound itself: nothing, too much, or a constant where music should be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_sdk.audio.samples import CLIPPED, Floats

Fault = Literal["", "silent", "cancelled", "clipped", "offset"]

FAULTS: dict[Fault, str] = {
    "": "",
    "silent": "The microphone delivers silence: it may be muted, or its gain be zero.",
    "cancelled": "The channels cancel each other out: set channel to hear one of them.",
    "clipped": "The sound is cut off at full scale: lower the microphone's gain.",
    "offset": "The sound has a large constant offset: the microphone or its wiring is at fault.",
}


@dataclass(frozen=True, slots=True)
class Levels:
    """Of one stretch of sound."""

    peak: float
    """Largest magnitude; 1 is full scale."""
    rms_db: float
    """Without the offset; -120 at least."""
    clipped: float
    """Share of samples at full scale."""
    offset: float
    """Mean."""


@dataclass(frozen=True, slots=True)
class LevelLimits:
    """From where on sound counts as faulty, and how long it must."""

    silent_db: float = -90.0
    """Below the noise of any 16-bit microphone that is on."""
    silent_s: float = 5.0
    clipped: float = 0.005
    clipped_s: float = 1.0
    offset: float = 0.1
    offset_s: float = 1.0


def measure_levels(samples: Floats) -> Levels:
    """Of (N,) samples, N at least 1."""
    peak = float(np.abs(samples).max())
    offset = float(samples.mean(dtype=np.float64))
    variance = float(np.square(samples, dtype=np.float64).mean()) - offset * offset
    clipped = float(np.count_nonzero(np.abs(samples) >= CLIPPED)) / len(samples)
    return Levels(peak, 10.0 * math.log10(max(variance, 1e-12)), clipped, offset)


class LevelWatch:
    """Names a fault once it has lasted, and takes it back with the first good second.

    Args:
        rate_hz: of the samples.
        limits: what counts.
    """

    def __init__(self, rate_hz: int, limits: LevelLimits | None = None) -> None:
        self._limits = limits or LevelLimits()
        self._window = max(1, rate_hz // 4)
        self._window_s = self._window / rate_hz
        self._waiting: list[Floats] = []
        self._count = 0
        self._lasted_s: dict[Fault, float] = {"silent": 0.0, "clipped": 0.0, "offset": 0.0}
        self.latest: Levels | None = None
        """Of the last complete quarter of a second."""

    def push(self, samples: Floats) -> None:
        """More sound (N,), before anything has been done to it."""
        while len(samples):
            part = samples[: self._window - self._count]
            samples = samples[len(part) :]
            self._waiting.append(part.copy())
            self._count += len(part)
            if self._count == self._window:
                self._judge(measure_levels(np.concatenate(self._waiting)))
                self._waiting, self._count = [], 0

    @property
    def fault(self) -> Fault:
        """What has been wrong for long enough."""
        limits = self._limits
        lasted = self._lasted_s
        if lasted["silent"] >= limits.silent_s:
            return "silent"
        if lasted["clipped"] >= limits.clipped_s:
            return "clipped"
        return "offset" if lasted["offset"] >= limits.offset_s else ""

    def _judge(self, levels: Levels) -> None:
        limits = self._limits
        found: dict[Fault, bool] = {
            "silent": levels.rms_db < limits.silent_db,
            "clipped": levels.clipped > limits.clipped,
            "offset": abs(levels.offset) > limits.offset,
        }
        for fault, is_there in found.items():
            self._lasted_s[fault] = self._lasted_s[fault] + self._window_s if is_there else 0.0
        self.latest = levels

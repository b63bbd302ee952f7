"""A second opinion: another network hears the same word again before it counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from agent.pipelines.listening import Listening
from agent.sound.ring import Heard
from edge_sdk.audio.detect import Hit
from edge_sdk.audio.samples import Floats

BEFORE_S = 2.0
"""Sound that the second network gets: a long word and the room's level before it."""
NEAR_S = 0.7
"""Both must have heard the word at about the same time; an earlier one does not vouch for it."""


class SecondStage:
    """Hits pass when the second network reaches its own cutoff for the same word.

    It runs only on hits of the first, so it may be slow: a larger point of the same ladder.

    Args:
        listening: the second network with its own words and cutoffs.
        recall: gives the sound between two positions of the stream.
    """

    def __init__(self, listening: Listening, recall: Callable[[int, int], Floats]) -> None:
        self._listening = listening
        self._recall = recall

    def __call__(self, hit: Hit, end: int) -> bool:
        """Whether the word is really there, in what ends at this position."""
        rate_hz = self._listening.sound.features.sample_rate_hz
        # What cleans the sound gives it back late: the first network has heard so much more by now.
        last = end + self._listening.lag_samples
        samples = self._recall(end - round(BEFORE_S * rate_hz), last)
        samples = samples[len(samples) - self._whole_steps(len(samples)) :]
        self._listening.reset()
        steps = self._listening.push(Heard(np.array(samples), last - len(samples), True))
        found = [again for step in steps for again in step.hits]
        return any(again.label == hit.label and again.at_s >= hit.at_s - NEAR_S for again in found)

    def _whole_steps(self, available: int) -> int:
        """Samples of as many steps as there are, so that the last one ends with the sound."""
        sound = self._listening.sound
        width, hop = sound.features.window_samples, sound.features.hop_samples
        frames = max(0, (available - width) // hop + 1)
        frames -= frames % sound.frames_per_step
        return width + (frames - 1) * hop if frames else 0

    def close(self) -> None:
        """Free the network."""
        self._listening.close()

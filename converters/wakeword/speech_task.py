"""A wake word on a published embedding as a task; :mod:`converters.wakeword.task` has the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Final, Literal

import numpy as np
from msgspec import Meta

from converters.foreign.chain_network import Layer
from converters.foreign.embedding import FEATURES
from converters.foreign.openwake import NEW
from converters.wakeword.speech_network import SpeechNetwork
from converters.wakeword.task import HowToListen, ListeningTask, read_about
from edge_sdk.audio.features import features
from edge_sdk.audio.samples import Floats

MIXED: Final = "mixed_static_wi8_ai8_fp32"


class SpeechAbout(HowToListen, frozen=True):
    """How to listen, and the network: the layers of the embedding, the width of the head."""

    layers: Annotated[tuple[Layer, ...], Meta(min_length=1, max_length=200)]
    hidden: Annotated[int, Meta(ge=1, le=4096)]


class SpeechTask(ListeningTask):
    """Eight frames in a step of 80 ms."""

    features = FEATURES
    frames_per_step = NEW
    order: Literal["frames-bands", "bands-frames"] = "frames-bands"
    schemes = ("fp32", "wfp16", MIXED, "static_wi8_ai8")
    integers = ("linear",)
    """The embedding suffers from eight bits, and has a third of the weights only (ADR 0030)."""
    sample_frames = 480
    """The network looks back on 200."""

    def about(self) -> SpeechAbout:
        """What ``wakeword.json`` says."""
        return read_about(self.folder, SpeechAbout)

    def build(self) -> SpeechNetwork:
        """One step of the network."""
        about = self.about()
        return SpeechNetwork(about.layers, about.hidden)


STREAM_S: Final = SpeechTask.sample_frames * FEATURES.hop_samples / FEATURES.sample_rate_hz
"""Of sound in a stream of samples."""


def some_streams(sounds: Iterable[Floats], most: int) -> Sequence[Floats]:
    """What the device would hear of sounds (N,) at 16 kHz: at most so many streams.

    Sounds follow on each other, and a stream is a piece of them; what is left over is dropped.
    """
    frames = np.concatenate([features(sound, FEATURES) for sound in sounds])
    size = SpeechTask.sample_frames
    count = min(most, len(frames) // size)
    return list(frames[: count * size].reshape(count, size, FEATURES.bands))

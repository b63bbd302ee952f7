"""From what a microphone or file delivers to float32 between -1 and 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

Encoding = Literal["u8", "s16", "s24", "s32", "f32", "f64"]
"""Little endian; ``s24`` is packed in three bytes."""

BYTES: dict[Encoding, int] = {"u8": 1, "s16": 2, "s24": 3, "s32": 4, "f32": 4, "f64": 8}

CLIPPED = 0.999
"""Share of full scale from which a sample counts as cut off."""


@dataclass(frozen=True, slots=True)
class SoundFormat:
    """How samples lie in a stream."""

    rate_hz: int
    channels: int = 1
    encoding: Encoding = "s16"

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return BYTES[self.encoding] * self.channels


def decode_samples(data: bytes | bytearray | memoryview, form: SoundFormat) -> Floats:
    """Whole frames as float32 (N, channels), full scale being 1.

    A trailing part of a frame is left out. Values of a float stream that are no numbers become
    silence, and those beyond ten times full scale are cut there, so that one broken sample cannot
    poison the state of what follows.

    Args:
        data: interleaved samples.
        form: how they lie.
    """
    frames = len(data) // form.frame_bytes
    view = memoryview(data)[: frames * form.frame_bytes]
    return _decoded(view, form.encoding).reshape(frames, form.channels)


def _decoded(view: memoryview, encoding: Encoding) -> Floats:
    if encoding == "u8":
        return (np.frombuffer(view, np.uint8).astype(np.float32) - 128.0) / np.float32(128)
    if encoding == "s16":
        return np.frombuffer(view, "<i2").astype(np.float32) / np.float32(2**15)
    if encoding == "s24":
        return _three_bytes(view).astype(np.float32) / np.float32(2**23)
    if encoding == "s32":
        # By way of float64, which holds every int32; float32 would round twice.
        return (np.frombuffer(view, "<i4") / 2.0**31).astype(np.float32)
    kind = "<f4" if encoding == "f32" else "<f8"
    return sane(np.frombuffer(view, kind))


def sane(samples: npt.NDArray[Any]) -> Floats:
    """Float samples without infinities and what is no number; see :func:`decode_samples`."""
    finite = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    found: Floats = np.clip(finite, -10.0, 10.0).astype(np.float32)
    return found


def _three_bytes(view: memoryview) -> npt.NDArray[np.int32]:
    packed = np.frombuffer(view, np.uint8).reshape(-1, 3)
    wide = np.zeros((len(packed), 4), np.uint8)
    wide[:, 1:] = packed
    # The bytes fill the upper three of four, so that the sign comes along; then down again.
    return wide.view("<i4")[:, 0] >> 8


def mono(samples: Floats, channel: int | None = None) -> Floats:
    """One channel (N,) of (N, channels): the mean of all, or the one asked for."""
    if samples.shape[1] == 1:
        return samples[:, 0]
    if channel is not None:
        return np.ascontiguousarray(samples[:, channel])
    # Channel by channel, so that the order of the sum does not depend on the block's length.
    total = samples[:, 0].copy()
    for index in range(1, samples.shape[1]):
        total += samples[:, index]
    total /= np.float32(samples.shape[1])
    return total

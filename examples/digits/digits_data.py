"""scikit-learn's handwritten digits as camera frames, with a fixed held-out split.

1,797 real 8x8 scans (UCI "Optical Recognition of Handwritten Digits"). Each becomes a 128x128
grey frame, the size the demo's video has; the model sees that frame resized exactly as a device
resizes it, so training, evaluation and the stream agree to the bit before video compression.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
import numpy.typing as npt

FRAME_PX = 128
HELD_OUT = 360
MEAN = 64.0
STD = 80.0

Frames = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@functools.cache
def digits() -> tuple[Frames, Labels]:
    """All digits in a fixed shuffled order: frames (1797, 128, 128) uint8 and classes."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(20240229).permutation(len(data.target))
    frames = np.stack([enlarge(image) for image in data.images[order]])
    return frames, data.target[order].astype(np.int64)


def held_out() -> tuple[Frames, Labels]:
    """The 360 digits that training and calibration never see."""
    frames, labels = digits()
    return frames[:HELD_OUT], labels[:HELD_OUT]


def for_training() -> tuple[Frames, Labels]:
    """The other 1,437 digits."""
    frames, labels = digits()
    return frames[HELD_OUT:], labels[HELD_OUT:]


def enlarge(image: npt.NDArray[np.float64]) -> Frames:
    """An 8x8 scan with values 0..16 as a smooth 128x128 uint8 frame."""
    pixels = np.clip(image * (255.0 / 16.0), 0, 255).astype(np.float32)
    large = cv2.resize(pixels, (FRAME_PX, FRAME_PX), interpolation=cv2.INTER_CUBIC)
    return np.clip(np.rint(large), 0, 255).astype(np.uint8)


def as_input(frames: Frames, height: int, width: int) -> npt.NDArray[np.float32]:
    """Frames (N, 128, 128) uint8 as the model takes them: (N, 1, height, width) float32.

    INTER_LINEAR_EXACT is identical on x86 and ARM, INTER_LINEAR is not.
    """
    small = [cv2.resize(f, (width, height), interpolation=cv2.INTER_LINEAR_EXACT) for f in frames]
    return ((np.stack(small).astype(np.float32) - MEAN) / STD)[:, None]


def distort(frames: Frames, random: np.random.Generator) -> Frames:
    """Slightly rotated, scaled and shifted copies, as a hand and a camera would make them."""
    centre = (FRAME_PX / 2, FRAME_PX / 2)
    out = np.empty_like(frames)
    for index, frame in enumerate(frames):
        angle, scale = random.uniform(-12, 12), random.uniform(0.9, 1.1)
        matrix = cv2.getRotationMatrix2D(centre, float(angle), float(scale))
        matrix[:, 2] += random.uniform(-8, 8, size=2)
        out[index] = cv2.warpAffine(frame, matrix, (FRAME_PX, FRAME_PX))
    return out

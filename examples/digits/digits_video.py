"""Writes the held-out digits as a video file with labels: the demo's camera.

    python examples/digits/digits_video.py stream.avi --passes 3

Motion JPEG in AVI is what opencv-python-headless writes and reads everywhere without a system
codec; at 128x128 its loss leaves the accuracy unchanged. Beside ``stream.avi`` lies
``stream.labels.json``: ``{"labels": ["3", ...]}``, one per frame.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import digits_data
import numpy as np


@dataclass(frozen=True)
class Stream:
    """A written video."""

    video: Path
    labels: Path
    frames: int


def write_stream(
    video: Path, *, passes: int = 1, hold: int = 1, fps: float = 30.0, seed: int | None = None
) -> Stream:
    """Write a video of held-out digits and its labels; both files appear whole or not at all.

    Args:
        video: target, ``.avi``.
        passes: how often all 360 digits are shown.
        hold: frames for which each digit stays.
        fps: frames per second written into the file.
        seed: shuffles each pass; None keeps the fixed order.

    Raises:
        OSError: OpenCV cannot write there.
    """
    frames, classes = digits_data.held_out()
    labels: list[str] = []
    partial = video.with_name(f".{video.stem}.partial.avi")
    video.parent.mkdir(parents=True, exist_ok=True)
    writer = _writer(partial, fps)
    try:
        for index in _order(len(frames), passes, seed):
            image = cv2.cvtColor(frames[index], cv2.COLOR_GRAY2BGR)
            for _ in range(hold):
                writer.write(image)
                labels.append(str(classes[index]))
    finally:
        writer.release()
    sidecar = video.with_suffix(".labels.json")
    sidecar.write_text(json.dumps({"labels": labels}))
    partial.replace(video)
    return Stream(video, sidecar, len(labels))


def _writer(path: Path, fps: float) -> cv2.VideoWriter:
    side = digits_data.FRAME_PX
    codec = cv2.VideoWriter_fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), codec, fps, (side, side))
    if not writer.isOpened():
        raise OSError(f"OpenCV cannot write a Motion JPEG video to {path}")
    return writer


def _order(count: int, passes: int, seed: int | None) -> list[int]:
    random = None if seed is None else np.random.default_rng(seed)
    order: list[int] = []
    for _ in range(passes):
        order += range(count) if random is None else random.permutation(count).tolist()
    return order


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--hold", type=int, default=1)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--seed", type=int)
    options = vars(parser.parse_args())
    write_stream(options.pop("video"), **options)


if __name__ == "__main__":
    main()

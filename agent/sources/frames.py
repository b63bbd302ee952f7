"""Raw frames from an ``.npz``; needs numpy only, so it works without OpenCV."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from agent.npz import ArchiveError, read_arrays
from agent.sources.base import Image
from edge_sdk.errors import SourceError

MAX_BYTES = 1024**3
"""Unpacked size of the frames; more belongs into a video file."""


class FramesReader:
    """Reads ``frames``: uint8, (N, H, W) grey or (N, H, W, 3) in B, G, R order.

    An optional ``labels`` array of N elements labels them.
    """

    live = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._frames: Image | None = None
        self._labels: tuple[str, ...] | None = None
        self._next = 0

    @property
    def where(self) -> str:
        """The file."""
        return str(self._path)

    def open(self) -> tuple[str, ...] | None:
        """Load the file, or rewind it.

        Raises:
            SourceError: ``source.missing-file`` or ``source.bad-frames``.
        """
        self._next = 0
        if self._frames is None:
            self._frames, self._labels = self._load()
        return self._labels

    def read(self) -> Image | None:
        """A view of the next frame, or None at the end."""
        frames = self._frames
        if frames is None or self._next >= len(frames):
            return None
        self._next += 1
        image: Image = frames[self._next - 1]
        return image

    def close(self) -> None:
        """Nothing to free: the frames are kept for the next pass."""

    def _load(self) -> tuple[Image, tuple[str, ...] | None]:
        if not self._path.is_file():
            raise SourceError(
                "missing-file",
                f"There is no frames file {self._path}.",
                "Check path in [pipeline.source]; it is relative to the configuration's folder.",
            )
        try:
            with self._path.open("rb") as file:
                arrays = read_arrays(file, ["frames"], MAX_BYTES, optional=["labels"])
        except (OSError, ArchiveError) as error:
            raise self._bad(str(error)) from error
        frames = self._checked(arrays["frames"])
        return frames, self._label_names(arrays.get("labels"), len(frames))

    def _checked(self, frames: Image) -> Image:
        grey = frames.ndim == 3 or (frames.ndim == 4 and frames.shape[3] == 1)
        colour = frames.ndim == 4 and frames.shape[3] == 3
        if frames.dtype != np.uint8 or not (grey or colour) or not frames.size:
            raise self._bad(f"frames is {frames.dtype} {frames.shape}")
        image: Image = frames[..., 0] if frames.ndim == 4 and grey else frames
        return np.ascontiguousarray(image)

    def _label_names(self, labels: Image | None, count: int) -> tuple[str, ...] | None:
        if labels is None:
            return None
        if labels.shape != (count,):
            raise self._bad(f"labels is {labels.shape} for {count} frames")
        return tuple(str(label) for label in labels.tolist())

    def _bad(self, what: str) -> SourceError:
        return SourceError(
            "bad-frames",
            f"{self._path} holds no usable frames: {what}.",
            "Write it with numpy.savez(path, frames=...): uint8 (N, H, W) or (N, H, W, 3), and "
            "labels (N,) if there are any.",
        )

"""Raw frames from an ``.npz``; needs numpy only, so it works without OpenCV."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

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
            SourceError: ``source.missing-file``, ``source.too-large`` or ``source.bad-frames``.
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
            self._check_size()
            with np.load(self._path, allow_pickle=False) as archive:
                frames = archive["frames"]
                labels = archive["labels"] if "labels" in archive.files else None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, TypeError) as error:
            raise self._bad(f"it cannot be read: {error}") from error
        return self._checked(frames), self._label_names(labels, len(frames))

    def _check_size(self) -> None:
        with zipfile.ZipFile(self._path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_BYTES:
            raise SourceError(
                "too-large",
                f"{self._path} unpacks to {size >> 20} MiB of frames.",
                f"Keep it under {MAX_BYTES >> 20} MiB, or encode it as a video.",
            )

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

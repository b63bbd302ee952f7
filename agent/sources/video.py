"""Frames of an encoded video file, through OpenCV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from agent.sources.base import Image, import_cv2
from edge_sdk.errors import SourceError


class VideoReader:
    """Reads a video file from its first frame to its last.

    Args:
        path: any container and codec that the installed OpenCV decodes.

    Raises:
        SourceError: ``source.extra-missing``.
    """

    live = False

    def __init__(self, path: Path) -> None:
        self._cv2 = import_cv2()
        self._path = path
        self._capture: Any = None
        self._count = 0

    @property
    def where(self) -> str:
        """The file."""
        return str(self._path)

    def open(self) -> None:
        """Begin at the first frame.

        Raises:
            SourceError: ``source.missing-file`` or ``source.undecodable``.
        """
        if not self._path.is_file():
            raise SourceError(
                "missing-file",
                f"There is no video file {self._path}.",
                "Check path in [pipeline.source]; it is relative to the configuration's folder.",
            )
        self._capture = self._cv2.VideoCapture(str(self._path))
        self._count = 0
        if not self._capture.isOpened():
            raise self._undecodable()

    def read(self) -> Image | None:
        """The next frame, or None at the end.

        Raises:
            SourceError: ``source.undecodable`` when not even the first frame can be read.
        """
        good, image = self._capture.read()
        if good:
            self._count += 1
            return np.asarray(image, np.uint8)
        if not self._count:
            raise self._undecodable()
        return None

    def close(self) -> None:
        """Free the decoder."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _undecodable(self) -> SourceError:
        return SourceError(
            "undecodable",
            f"OpenCV cannot decode {self._path}.",
            "Play it elsewhere to see whether it is damaged; MJPEG in AVI is decoded everywhere.",
        )

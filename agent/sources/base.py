"""What a source of frames looks like to the feed that drains it."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import SourceError

Image = npt.NDArray[np.uint8]
"""(H, W, 3) in OpenCV's B, G, R order, or (H, W) grey."""


class Frame(NamedTuple):
    """One image of a stream."""

    number: int
    """Counts every frame that was read, dropped ones included, and goes on when a file loops."""
    image: Image
    label: str
    """The stream's own label, or an empty string."""


class Reader(Protocol):
    """Blocking access to frames; used from one thread only."""

    @property
    def live(self) -> bool:
        """Whether frames come in their own time and are lost when nobody takes them."""

    @property
    def where(self) -> str:
        """The file or device, for messages."""

    def open(self) -> tuple[str, ...] | None:
        """Begin at the first frame; may be called again after :meth:`close`.

        Returns:
            The labels that the source itself carries, if any.

        Raises:
            SourceError: it cannot be opened.
        """

    def read(self) -> Image | None:
        """The next frame, which the caller may keep; None at the end or when the device is lost."""

    def close(self) -> None:
        """Free the file or device; harmless when it is not open."""


def import_cv2() -> Any:
    """OpenCV, set to leave the cores to the inference runtime.

    Raises:
        SourceError: ``source.extra-missing``.
    """
    try:
        import cv2
    except ImportError as error:
        raise SourceError(
            "extra-missing",
            f"Reading video and cameras needs OpenCV, which cannot be imported: {error}.",
            "pip install 'edge-sdk[vision]'",
        ) from error
    cv2.setNumThreads(1)
    return cv2

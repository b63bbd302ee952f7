"""Frames of a camera, through OpenCV: V4L2, or any GStreamer pipeline (libcamera among them)."""

from __future__ import annotations

from typing import Any

import numpy as np

from agent.pipelines.config import SourceConfig
from agent.sources.base import Image, import_cv2
from edge_sdk.errors import SourceError


class CameraReader:
    """Reads a live camera.

    Args:
        config: ``device`` is an index, ``/dev/videoN``, or a GStreamer pipeline that ends in
            ``appsink``, e.g. ``libcamerasrc ! videoconvert ! appsink``.

    Raises:
        SourceError: ``source.extra-missing``.
    """

    live = True

    def __init__(self, config: SourceConfig) -> None:
        self._cv2 = import_cv2()
        self._config = config
        self._capture: Any = None

    @property
    def where(self) -> str:
        """The device."""
        return f"camera {self._config.device}"

    def open(self) -> None:
        """Open the device and ask for the configured size and rate.

        Raises:
            SourceError: ``source.no-camera``.
        """
        cv2, device = self._cv2, self._config.device
        if isinstance(device, str) and "!" in device:
            self._capture = cv2.VideoCapture(device, cv2.CAP_GSTREAMER)
        else:
            number = str(device)
            self._capture = cv2.VideoCapture(int(number) if number.isdecimal() else number)
        if not self._capture.isOpened():
            raise SourceError(
                "no-camera",
                f"Cannot open {self.where}.",
                "Check the cable, that no other program holds it, and that this user is in the "
                "video group; a GStreamer pipeline needs an OpenCV built with GStreamer.",
            )
        self._ask(cv2.CAP_PROP_FRAME_WIDTH, self._config.width_px)
        self._ask(cv2.CAP_PROP_FRAME_HEIGHT, self._config.height_px)
        self._ask(cv2.CAP_PROP_FPS, self._config.fps)
        # The newest frame is the one that counts; where the driver ignores this, nothing is lost.
        self._ask(cv2.CAP_PROP_BUFFERSIZE, 1)

    def read(self) -> Image | None:
        """The next frame, or None when the camera is gone."""
        good, image = self._capture.read()
        return np.asarray(image, np.uint8) if good else None

    def close(self) -> None:
        """Free the device."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _ask(self, setting: int, value: float) -> None:
        if value:
            self._capture.set(setting, value)

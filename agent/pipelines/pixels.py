"""Pixel operations, with OpenCV where it is installed and numpy alone where it is not.

Both give the same bytes: colour conversion and ``linear_exact`` resizing repeat OpenCV's
fixed-point arithmetic, so that a small install decides like a large one. Only ``area`` needs
OpenCV.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import SourceError

Bytes = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]
Color = Literal["gray", "rgb"]
Resize = Literal["linear_exact", "nearest", "area"]
Writer = Callable[[Bytes], None]


class Pixels(Protocol):
    """What preprocessing needs done to images."""

    def gray(self, bgr: Bytes) -> Bytes:
        """(H, W, 3) B, G, R to (H, W), ITU-R BT.601 luma."""

    def resize(self, image: Bytes, height: int, width: int, how: Resize) -> Bytes:
        """(H, W[, 3]) to (height, width[, 3])."""

    def table_writer(self, tables: Array, out: Array) -> Writer:
        """A function that looks an image up in tables, straight into a model's input.

        Args:
            tables: (1, 256) for grey or (3, 256) in R, G, B order: what each pixel value becomes.
            out: one image of the input, seen as (C, H, W); a transposed view when the input is
                interleaved. The function takes (H, W) or (H, W, 3) B, G, R images of that size; a
                grey one fills all channels.
        """


class NumpyPixels:
    """With numpy alone."""

    def gray(self, bgr: Bytes) -> Bytes:
        """OpenCV's luma: 15-bit weights, rounded."""
        wide = bgr.astype(np.uint32)
        total = wide[..., 0] * 3735 + wide[..., 1] * 19235 + wide[..., 2] * 9798
        return ((total + (1 << 14)) >> 15).astype(np.uint8)

    def resize(self, image: Bytes, height: int, width: int, how: Resize) -> Bytes:
        """See :class:`Pixels`.

        Raises:
            SourceError: ``source.extra-missing`` for ``area``.
        """
        if how == "linear_exact":
            return resize_linear_exact(image, height, width)
        if how == "nearest":
            rows = _nearest(image.shape[0], height)
            columns = _nearest(image.shape[1], width)
            return np.ascontiguousarray(image[rows][:, columns])
        raise SourceError(
            "extra-missing",
            "This model's frames are resized by area, which needs OpenCV.",
            "pip install 'edge-sdk[vision]'",
        )

    def table_writer(self, tables: Array, out: Array) -> Writer:
        """See :class:`Pixels`."""

        def write(image: Bytes) -> None:
            for table, plane, target in zip(tables, _planes(image, len(tables)), out, strict=True):
                # Every byte is a valid index; "clip" only spares numpy a buffered copy.
                np.take(table, plane, out=target, mode="clip")

        return write


class Cv2Pixels:
    """With OpenCV."""

    def __init__(self, cv2: Any) -> None:
        cv2.setNumThreads(1)  # the cores belong to the inference runtime
        self._cv2 = cv2
        self._modes = {
            "linear_exact": cv2.INTER_LINEAR_EXACT,
            "nearest": cv2.INTER_NEAREST,
            "area": cv2.INTER_AREA,
        }

    def gray(self, bgr: Bytes) -> Bytes:
        """See :class:`Pixels`."""
        image: Bytes = self._cv2.cvtColor(bgr, self._cv2.COLOR_BGR2GRAY)
        return image

    def resize(self, image: Bytes, height: int, width: int, how: Resize) -> Bytes:
        """See :class:`Pixels`."""
        resized: Bytes = self._cv2.resize(image, (width, height), interpolation=self._modes[how])
        return resized

    def table_writer(self, tables: Array, out: Array) -> Writer:
        """See :class:`Pixels`."""
        if len(tables) > 1 and not out[0].flags.c_contiguous:
            return self._interleaved(tables, out.transpose(1, 2, 0))
        columns = [np.ascontiguousarray(table.reshape(256, 1)) for table in tables]
        lut, split = self._cv2.LUT, self._cv2.split

        def write(image: Bytes) -> None:
            # split() separates the channels several times faster than strided views.
            planes = split(image)[::-1] if image.ndim == 3 else (image,) * len(columns)
            for column, plane, target in zip(columns, planes, out, strict=True):
                written = lut(plane, column, dst=target)
                if written is not target:  # OpenCV copies what its strides cannot describe
                    target[...] = written

        return write

    def _interleaved(self, tables: Array, out: Array) -> Writer:
        """For an (H, W, 3) input: one lookup with a table of three channels."""
        cv2 = self._cv2
        table = np.ascontiguousarray(tables.T.reshape(256, 1, 3))

        def write(image: Bytes) -> None:
            code = cv2.COLOR_BGR2RGB if image.ndim == 3 else cv2.COLOR_GRAY2RGB
            written = cv2.LUT(cv2.cvtColor(image, code), table, dst=out)
            if written is not out:
                out[...] = written

        return write


def _planes(image: Bytes, channels: int) -> Sequence[Bytes]:
    """The R, G, B planes of a B, G, R image, or a grey one for every channel."""
    if image.ndim == 2:
        return (image,) * channels
    return tuple(image[..., channel] for channel in (2, 1, 0))


def resize_linear_exact(image: Bytes, height: int, width: int) -> Bytes:
    """Bilinear resizing bit-identical to OpenCV's ``INTER_LINEAR_EXACT`` on uint8.

    OpenCV computes in fixed point with 8 fractional bits per axis and rounds once, at the end,
    which gives the same bytes on every processor.

    Args:
        image: (H, W) or (H, W, C).
        height: rows wanted.
        width: columns wanted.
    """
    top, bottom, down = _linear(image.shape[0], height)
    left, right, across = _linear(image.shape[1], width)
    wide = image.astype(np.uint32)
    shape = (1, -1) + (1,) * (image.ndim - 2)
    across = across.reshape(shape)
    rows = wide[:, left] * (256 - across) + wide[:, right] * across
    down = down.reshape((-1, 1) + (1,) * (image.ndim - 2))
    total = rows[top] * (256 - down) + rows[bottom] * down
    resized: Bytes = ((total + (1 << 15)) >> 16).astype(np.uint8)
    return resized


@functools.cache
def _linear(source: int, target: int) -> tuple[Array, Array, Array]:
    """For one axis: the two source indexes of each target pixel, and the second's weight / 256."""
    position = (np.arange(target) + 0.5) * (source / target) - 0.5
    first = np.floor(position).astype(np.int64)
    weight = np.rint((position - first) * 256).astype(np.uint32)
    outside = (first < 0) | (first >= source - 1)
    weight[outside] = 0
    first = np.clip(first, 0, source - 1)
    return first, np.minimum(first + 1, source - 1), weight


def _nearest(source: int, target: int) -> Array:
    # OpenCV inverts the inverted scale, which rounds otherwise than source / target.
    position: Array = np.floor(np.arange(target) * (1 / (target / source))).astype(np.int64)
    return np.minimum(position, source - 1)


def pick_pixels() -> Pixels:
    """OpenCV's operations where it can be imported, else numpy's."""
    try:
        import cv2
    except ImportError:
        return NumpyPixels()
    return Cv2Pixels(cv2)

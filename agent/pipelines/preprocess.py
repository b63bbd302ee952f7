"""From a camera frame to a model's input, with the arithmetic folded into tables.

A uint8 pixel has 256 values, so normalising and quantizing it is one lookup per channel, whatever
the input's dtype. The tables are computed once per operating point with the same functions that
calibration and golden vectors use.
"""

from __future__ import annotations

import numpy as np

from agent.pipelines.pixels import Array, Pixels
from agent.pipelines.shapes import image_shape
from agent.sources.base import Image
from edge_sdk.contracts.manifest import Preprocess
from edge_sdk.contracts.operating_point import TensorSpec
from edge_sdk.runtime.engine import quantize


class Preprocessor:
    """Writes frames into one input tensor.

    Args:
        preprocess: as the release says.
        spec: the model's input, one image in NCHW or NHWC.
        buffer: memory of the input's shape and dtype to write to, or None for memory of its own.
        pixels: the pixel operations.

    Raises:
        ContractError: ``contract.model-input`` when the input takes no such image.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        spec: TensorSpec,
        pixels: Pixels,
        buffer: Array | None = None,
    ) -> None:
        self._preprocess = preprocess
        self._pixels = pixels
        channels, self._height, self._width = image_shape(preprocess, spec)
        self.buffer: Array = np.zeros(spec.shape, spec.dtype) if buffer is None else buffer
        image = self.buffer[0]
        planes = image.transpose(2, 0, 1) if spec.layout == "NHWC" else image
        self._write = pixels.table_writer(input_tables(preprocess, spec, channels), planes)

    def __call__(self, frame: Image) -> Array:
        """The model's input, which the next call overwrites.

        Args:
            frame: (H, W, 3) B, G, R or (H, W) grey, uint8.
        """
        image = frame
        if self._preprocess.color == "gray" and image.ndim == 3:
            image = self._pixels.gray(image)
        if image.shape[:2] != (self._height, self._width):
            how = self._preprocess.resize
            image = self._pixels.resize(image, self._height, self._width, how)
        self._write(image)
        return self.buffer


def input_tables(preprocess: Preprocess, spec: TensorSpec, channels: int) -> Array:
    """What each pixel value becomes: (channels, 256) in the input's dtype."""
    pixel = np.arange(256, dtype=np.float32)
    mean = np.asarray(preprocess.mean, np.float32).reshape(channels, 1)
    std = np.asarray(preprocess.std, np.float32).reshape(channels, 1)
    return quantize((pixel - mean) / std, spec)

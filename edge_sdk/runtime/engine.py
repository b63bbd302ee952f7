"""What every inference runtime looks like to the rest of the product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge_sdk.contracts.operating_point import TensorSpec

Array = npt.NDArray[Any]


class Engine(Protocol):
    """A loaded model.

    An engine speaks the artifact's own dtypes and layout; quantization and layout changes belong
    to the caller, who knows how to fold them into preprocessing.
    """

    @property
    def runtime(self) -> str:
        """``litert``, ``tflite-runtime`` or ``onnxruntime``."""

    @property
    def unit(self) -> str:
        """The unit that really ran the probing inference, e.g. ``cpu`` or ``cuda``."""

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """Declared inputs, in call order."""

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """Declared outputs, in call order."""

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """One inference.

        Args:
            inputs: one array per input, with exactly its dtype and shape; not kept.

        Returns:
            One array per output. It may be a view of the runtime's memory that the next call
            overwrites; copy what must live longer. Feeding outputs straight back as the next
            call's inputs (streaming state) is safe.

        Raises:
            RuntimeUnavailableError: ``runtime.bad-input``, ``runtime.inference-failed`` or
                ``runtime.closed``.
        """

    def input_buffer(self, index: int) -> Array:
        """The memory the runtime reads input ``index`` from.

        Filling it in place and passing the same array object to :meth:`run` saves the copy. Its
        content is unspecified after a run, so fill all of it before each run.
        """

    def close(self) -> None:
        """Free the model. The engine is unusable afterwards."""


def quantize(real: Array, spec: TensorSpec) -> Array:
    """Real values as the tensor stores them (identity with a dtype cast for float tensors)."""
    if spec.scale is None:
        cast: Array = real.astype(spec.dtype, copy=False)
        return cast
    info = np.iinfo(spec.dtype)
    stored = np.rint(real / np.float32(spec.scale)) + (spec.zero_point or 0)
    clipped: Array = np.clip(stored, info.min, info.max).astype(spec.dtype)
    return clipped


def dequantize(stored: Array, spec: TensorSpec) -> Array:
    """Stored values as float32."""
    if spec.scale is None:
        return stored.astype(np.float32, copy=False)
    centred: Array = stored.astype(np.float32) - np.float32(spec.zero_point or 0)
    return centred * np.float32(spec.scale)


def to_layout(user: Array, spec: TensorSpec) -> Array:
    """A (N, C, H, W) array in the tensor's layout, contiguous."""
    if spec.layout == "NHWC" and user.ndim == 4:
        return np.ascontiguousarray(user.transpose(0, 2, 3, 1))
    return np.ascontiguousarray(user)

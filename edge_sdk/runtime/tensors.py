"""What both runtimes share: layout guesses, input checks, probing inputs, rejections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_sdk.contracts.operating_point import Layout, TensorSpec
from edge_sdk.errors import RuntimeUnavailableError
from edge_sdk.runtime.engine import Array

_IMAGE_CHANNELS = (1, 3, 4)


def guess_layout(shape: Sequence[int], by_format: Layout) -> Layout:
    """Layout of a tensor whose file does not say.

    A 4-D shape whose first or last image axis alone has 1, 3 or 4 entries tells by itself
    (PyTorch exports keep NCHW in TFLite files); otherwise the format's custom decides.
    """
    if len(shape) == 2:
        return "NC"
    if len(shape) != 4:
        return "other"
    first, last = shape[1] in _IMAGE_CHANNELS, shape[3] in _IMAGE_CHANNELS
    if first != last:
        return "NCHW" if first else "NHWC"
    return by_format


def probing_input(spec: TensorSpec) -> Array:
    """Real zero as the tensor stores it: valid for every operator, indexes included."""
    return np.full(spec.shape, spec.zero_point or 0, dtype=spec.dtype)


class Expected:
    """What an engine's inputs must be, in the form that is quickest to compare."""

    def __init__(self, specs: Sequence[TensorSpec]) -> None:
        self._specs = specs
        self._forms = [(spec.shape, np.dtype(spec.dtype)) for spec in specs]

    def check(self, inputs: Sequence[Array]) -> None:
        """Refuse what the runtime would otherwise cast, broadcast or read out of bounds.

        Raises:
            RuntimeUnavailableError: ``runtime.bad-input``.
        """
        if [(array.shape, array.dtype) for array in inputs] != self._forms:
            self._explain(inputs)

    def _explain(self, inputs: Sequence[Array]) -> None:
        if len(inputs) != len(self._specs):
            raise RuntimeUnavailableError(
                "bad-input",
                f"The model takes {len(self._specs)} inputs and was given {len(inputs)}.",
                "Pass one array per declared input, in order.",
            )
        for array, spec in zip(inputs, self._specs, strict=True):
            if array.shape != spec.shape or array.dtype != spec.dtype:
                raise RuntimeUnavailableError(
                    "bad-input",
                    f"Input {spec.name!r} is {spec.dtype}{list(spec.shape)} and was given "
                    f"{array.dtype}{list(array.shape)}.",
                    "Quantize and lay out the data as the input's TensorSpec says.",
                )


def rejected(runtime: str, path: Path, error: object) -> RuntimeUnavailableError:
    """A runtime that is there refuses the model."""
    return RuntimeUnavailableError(
        "model-rejected",
        f"{runtime} cannot run {path}: {first_line(error)}",
        "The file may be truncated, damaged or made for another runtime; fetch or convert it "
        "again.",
    )


def failed(runtime: str, error: object) -> RuntimeUnavailableError:
    """An inference that the runtime began and did not finish."""
    return RuntimeUnavailableError(
        "inference-failed",
        f"{runtime} failed during an inference: {first_line(error)}",
        "Run the model's golden test on this device; if that fails too, convert it again.",
    )


def closed(runtime: str) -> RuntimeUnavailableError:
    """A call after :meth:`Engine.close`."""
    return RuntimeUnavailableError(
        "closed", f"This {runtime} engine was closed.", "Open the model again."
    )


def first_line(error: object) -> str:
    """The part of a native error message that a person can use, as a sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = lines[0].strip()[:300]
    return text if text.endswith(".") else f"{text}."

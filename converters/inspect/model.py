"""The common view of a model file, whatever its format."""

from __future__ import annotations

import struct
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from edge_sdk.contracts.operating_point import TensorSpec
from edge_sdk.errors import ConversionError

ModelFormat = Literal["tflite", "onnx"]
MAX_MODEL_BYTES = 2 * 1024**3
"""Both formats' own limit for one file."""
DAMAGED = (struct.error, IndexError, TypeError, ValueError, AttributeError, KeyError)
"""What reading a damaged flatbuffer raises: its generated accessors check nothing."""


@dataclass(frozen=True, slots=True)
class Layer:
    """An operator that multiplies by weights."""

    op: str
    name: str
    weight_dtype: str
    """numpy name of the element type the weights are stored in."""
    weight_elements: int
    activation_dtype: str
    """Element type of what flows in, after looking through a dequantization beside it."""
    expanded: bool = False
    """Whether the weights are turned into floats before the operator multiplies by them."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a file says about itself."""

    format: ModelFormat
    size_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    ops: dict[str, int] = field(default_factory=dict)
    """Operators and how often each occurs."""
    constants: dict[str, int] = field(default_factory=dict)
    """Bytes of constants by element type."""
    layers: tuple[Layer, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return {
            "format": self.format,
            "size_bytes": self.size_bytes,
            "inputs": [msgspec.to_builtins(spec) for spec in self.inputs],
            "outputs": [msgspec.to_builtins(spec) for spec in self.outputs],
            "ops": self.ops,
            "constants": self.constants,
            "layers": [asdict(layer) for layer in self.layers],
        }


def format_of(path: Path) -> ModelFormat:
    """Format of a model file by its content, or by its name where the content does not tell.

    Raises:
        ConversionError: ``conversion.file-missing`` or ``conversion.unknown-format``.
    """
    if not path.is_file():
        raise ConversionError("file-missing", f"There is no file {path}.", "Check the path.")
    with path.open("rb") as handle:
        head = handle.read(8)
    if head[4:8] == b"TFL3":
        return "tflite"
    if path.suffix == ".onnx":
        return "onnx"
    raise ConversionError(
        "unknown-format",
        f"{path} is neither a TFLite nor an ONNX file.",
        "Give a .tflite or .onnx file, or the folder of a conversion.",
    )


def inspect_model(path: Path) -> ModelFacts:
    """Read a model file without running it.

    Raises:
        ConversionError: ``conversion.file-missing``, ``conversion.unknown-format``,
            ``conversion.unreadable-model``.
    """
    kind = format_of(path)
    if path.stat().st_size > MAX_MODEL_BYTES:
        raise unreadable(path, "it is larger than its format allows")
    if kind == "tflite":
        from converters.inspect.tflite_file import read_tflite

        return read_tflite(path)
    from converters.inspect.onnx_file import read_onnx

    return read_onnx(path)


def unreadable(path: Path, why: str) -> ConversionError:
    """A file that is not what its format says."""
    return ConversionError(
        "unreadable-model",
        f"{path} cannot be read: {why}.",
        "It may be truncated or damaged; convert or fetch it again.",
    )

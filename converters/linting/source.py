"""A model file as the neutral graph a lint walks, whatever its format."""

from __future__ import annotations

from pathlib import Path

from converters.inspect.model import MAX_MODEL_BYTES, format_of, unreadable
from device_profiles.lint import Graph


def read_graph(path: Path) -> Graph:
    """Read a ``.tflite`` or ``.onnx`` file without running it.

    Raises:
        ConversionError: ``conversion.file-missing``, ``conversion.unknown-format``,
            ``conversion.unreadable-model``.
    """
    kind = format_of(path)
    if path.stat().st_size > MAX_MODEL_BYTES:
        raise unreadable(path, "it is larger than its format allows")
    if kind == "tflite":
        from converters.linting.tflite_graph import tflite_graph

        return tflite_graph(path)
    from converters.linting.onnx_graph import onnx_graph

    return onnx_graph(path)

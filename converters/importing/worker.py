"""Child process: parses, runs or quantizes an imported file (see :mod:`converters.children`).

A hostile file may claim anything about itself. Address space is bounded before it is opened, the
parent bounds the time, and whatever a library raises on such a file becomes one error.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from converters.children import child_main
from edge_sdk.errors import ConversionError, EdgeError

SPACE_MIB = 6 * 1024
"""Address space for the libraries themselves, most of it never touched."""
PER_BYTE = 16
"""Further address space per byte of the file."""


def work(request: dict[str, Any], step: Callable[[str], None]) -> dict[str, Any]:
    """Examine or quantize.

    Args:
        request: ``action`` ``examine``: ``source``, ``target``, ``shapes``. ``action``
            ``quantize``: ``source``, ``target``, ``format``, ``scheme``, ``samples`` (an ``.npz``
            with one array (N, ...) per input of the file, named by position, or None).
        step: unused; each job is one step.

    Returns:
        Of ``examine``: ``format``, ``scheme``, ``runtime``, ``inputs``, ``outputs`` (TensorSpecs),
        ``ops``, ``notes`` (:class:`converters.metadata.ModelNotes` or None).
    """
    source = Path(request["source"])
    if source.is_file():
        _bound_memory(source.stat().st_size)
    if request["action"] == "quantize":
        _quantize(request)
        return {}
    try:
        return _examine(request, source)
    except EdgeError as error:
        cause = error.cause.replace(request["target"], str(source))  # the copy means nothing
        raise type(error)(error.slug, cause, error.hint) from error
    except Exception as error:
        # The edge of this process: libraries raise anything on damaged files.
        raise ConversionError(
            "unreadable-model",
            f"{source} cannot be read: {type(error).__name__}: {str(error)[:160]}",
            "It may be truncated or damaged; convert or fetch it again.",
        ) from error


def _examine(request: dict[str, Any], source: Path) -> dict[str, Any]:
    from converters.importing.examine import examine
    from converters.metadata import read_notes

    shapes = {name: tuple(shape) for name, shape in request["shapes"].items()}
    found = examine(source, Path(request["target"]), shapes)
    notes = read_notes(source)
    return {
        "format": found.format,
        "scheme": found.scheme,
        "runtime": found.runtime,
        "inputs": [msgspec.to_builtins(spec) for spec in found.facts.inputs],
        "outputs": [msgspec.to_builtins(spec) for spec in found.facts.outputs],
        "ops": found.facts.ops,
        "notes": msgspec.to_builtins(notes) if notes is not None else None,
    }


def _quantize(request: dict[str, Any]) -> None:
    import numpy as np

    from converters.inspect import check_claim, inspect_model
    from converters.schemes import parse_scheme

    source, target = Path(request["source"]), Path(request["target"])
    names = request["names"]
    feeds: list[dict[str, Any]] = []
    if request["samples"]:
        with np.load(request["samples"]) as arrays:
            loaded = [arrays[str(index)] for index in range(len(names))]
        feeds = [
            {name: array[row : row + 1] for name, array in zip(names, loaded, strict=True)}
            for row in range(len(loaded[0]))
        ]
    if request["format"] == "onnx":
        from converters.onnx_quantize import quantize_onnx

        quantize_onnx(source, request["scheme"], feeds, target)
    else:
        from converters.tflite_quantize import quantize_tflite

        quantize_tflite(source, request["scheme"], feeds, target)
    check_claim(inspect_model(target), parse_scheme(request["scheme"]), target)


def _bound_memory(size_bytes: int) -> None:
    limit = SPACE_MIB * 1024**2 + PER_BYTE * size_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


if __name__ == "__main__":
    child_main(work)

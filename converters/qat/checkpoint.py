"""The trained grid as a file: what a conversion, or a later one, rebuilds the artifacts from."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import fx

from converters.inspect import inspect_model
from converters.keys import file_digest
from converters.loading import LoadedTask
from converters.qat.emit import emit_onnx, emit_tflite
from converters.qat.prepare import enter
from converters.qat.train import prepared
from converters.usercode import first_line
from edge_sdk.durable import DiskStorage
from edge_sdk.errors import ConversionError, TaskError

SCHEME = "static_wi8_ai8"
"""What is trained for."""
_FORMAT = "edge-qat-2"


def save_checkpoint(graph: fx.GraphModule, path: Path, weights: Path | None) -> None:
    """Write a frozen module's state atomically.

    Args:
        graph: frozen.
        path: of the checkpoint.
        weights: that training started from; None for those of ``build()``.

    Raises:
        StorageError: the file cannot be written; an older one stays.
    """
    buffer = io.BytesIO()
    document = {"format": _FORMAT, "weights": _digest(weights), "state": graph.state_dict()}
    torch.save(document, buffer)
    DiskStorage().write(path, buffer.getvalue())


def require_checkpoint(path: Path, weights: Path | None) -> None:
    """Refuse a checkpoint that is not there, or was not trained from these weights.

    The float files, and the gate, are those of ``weights``: with others, the int8 files would be
    compared with another network.

    Raises:
        TaskError: ``task.weights-missing``.
        ConversionError: ``conversion.qat-checkpoint``.
    """
    for needed in (path, weights):
        if needed is not None and not needed.is_file():
            raise TaskError(
                "weights-missing",
                f"There is no file {needed}.",
                "Give the checkpoint that edge model qat wrote, and the weights it started from.",
            )
    if _read(path)["weights"] != _digest(weights):
        raise ConversionError(
            "qat-checkpoint",
            f"The training of {path} did not start from {weights or 'what build() returns'}.",
            "Give the weights that it started from: --weights FILE (none when there were none).",
        )


def load_checkpoint(task: LoadedTask, path: Path) -> fx.GraphModule:
    """The frozen module of :func:`save_checkpoint`, rebuilt from the task.

    Raises:
        ConversionError: ``conversion.qat-checkpoint``.
    """
    document = _read(path)
    graph = prepared(task, None)
    try:
        graph.load_state_dict(document["state"])
    except (RuntimeError, TypeError, AttributeError) as error:
        raise _unfit(path, f"does not fit {task.name}: {first_line(error)}") from error
    graph.eval()
    enter(graph, "frozen")
    enter(graph, "emit")
    return graph.requires_grad_(False)


def _read(path: Path) -> dict[str, Any]:
    """Only tensors and plain values are unpickled (``weights_only``): the file cannot run code."""
    try:
        document: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _unfit(path, f"cannot be read: {first_line(error)}") from error
    known = {"format", "weights", "state"}
    if not isinstance(document, dict) or set(document) != known or document["format"] != _FORMAT:
        raise _unfit(path, "is not a checkpoint of this version of edge model qat")
    return document


def _unfit(path: Path, what: str) -> ConversionError:
    return ConversionError(
        "qat-checkpoint",
        f"{path} {what}.",
        "Give the file that edge model qat wrote for this very module.",
    )


def _digest(weights: Path | None) -> str | None:
    return None if weights is None else file_digest(weights)


def emit(kind: str, graph: fx.GraphModule, example: torch.Tensor, path: Path) -> None:
    """Write the int8 artifact of one format.

    Args:
        kind: ``onnx`` or ``tflite``.
        graph: frozen.
        example: (1, C, H, W) float32.
        path: written whole.

    Raises:
        ConversionError: ``conversion.unsupported-op``, ``conversion.export-failed``.
    """
    (emit_onnx if kind == "onnx" else emit_tflite)(graph, example, path)


def trained_quantizer(
    task: LoadedTask, request: dict[str, Any], otherwise: Callable[..., None]
) -> Callable[..., None]:
    """A quantizer that writes ``static_wi8_ai8`` from a checkpoint, other schemes as ever.

    Args:
        task: of the checkpoint.
        request: of :mod:`converters.build_worker`, with ``qat`` (path) and ``format``.
        otherwise: the quantizer of the other schemes.
    """
    graph = load_checkpoint(task, Path(request["qat"]))

    def quantize(source: Path, scheme: str, calibration: Any, target: Path, *rest: Any) -> None:
        if scheme == SCHEME:
            emit(request["format"], graph, _example(source), target)
        else:
            otherwise(source, scheme, calibration, target, *rest)

    return quantize


def _example(source: Path) -> torch.Tensor:
    """Zeros of the shape that a float file takes, (1, C, H, W)."""
    spec = inspect_model(source).inputs[0]
    zeros = torch.zeros(spec.shape)
    return zeros.permute(0, 3, 1, 2).contiguous() if spec.layout == "NHWC" else zeros

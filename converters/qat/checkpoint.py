"""The trained grid as a file: what a conversion, or a later one, rebuilds the artifacts from."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import fx

from converters.inspect import inspect_model
from converters.loading import LoadedTask
from converters.qat.emit import emit_onnx, emit_tflite
from converters.qat.prepare import enter
from converters.qat.train import prepared
from converters.usercode import first_line
from edge_sdk.durable import DiskStorage
from edge_sdk.errors import ConversionError, TaskError

SCHEME = "static_wi8_ai8"
"""What is trained for."""
_FORMAT = "edge-qat-1"


def save_checkpoint(graph: fx.GraphModule, path: Path) -> None:
    """Write a frozen module's state atomically.

    Raises:
        StorageError: the file cannot be written; an older one stays.
    """
    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, "state": graph.state_dict()}, buffer)
    DiskStorage().write(path, buffer.getvalue())


def require_checkpoint(path: Path) -> None:
    """Refuse a checkpoint that is not there.

    Raises:
        TaskError: ``task.weights-missing``.
    """
    if not path.is_file():
        raise TaskError(
            "weights-missing",
            f"There is no file {path}.",
            "Give the file that edge model qat wrote.",
        )


def load_checkpoint(task: LoadedTask, path: Path) -> fx.GraphModule:
    """The frozen module of :func:`save_checkpoint`, rebuilt from the task.

    Only tensors are unpickled (``weights_only``): the file cannot run code.

    Raises:
        TaskError: ``task.weights-missing``.
        ConversionError: ``conversion.qat-checkpoint``.
    """
    require_checkpoint(path)
    graph = prepared(task, None)
    try:
        document: Any = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(document, dict) or document.get("format") != _FORMAT:
            raise ValueError("it is not a checkpoint of edge model qat")
        graph.load_state_dict(document["state"])
    except Exception as error:
        raise ConversionError(
            "qat-checkpoint",
            f"{path} does not fit {task.name}: {first_line(error)}",
            "Give the file that edge model qat wrote for this very module.",
        ) from error
    graph.eval()
    enter(graph, "frozen")
    enter(graph, "emit")
    return graph.requires_grad_(False)


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

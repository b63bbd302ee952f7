"""PyTorch to ONNX, float32 (torch.onnx, dynamo), with static shapes and plain names."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from torch import nn

from converters.blame import exporting

OPSET = 18
"""Old enough for the runtimes on the boards, new enough for per-channel QDQ."""
INPUT = "input"
OUTPUT = "output"


def export_onnx(module: nn.Module, example: torch.Tensor, path: Path) -> None:
    """Write ``module`` as a self-contained ONNX file with one input and one output.

    Args:
        module: in evaluation mode, parameters contiguous.
        example: (1, C, H, W) float32; its shape becomes the file's.
        path: written whole; the caller owns the folder.

    Raises:
        ConversionError: ``conversion.unsupported-op``, ``conversion.export-failed``.
    """

    def export() -> onnx.ModelProto:
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
        if program is None:
            raise RuntimeError("torch.onnx.export returned nothing")
        return program.model_proto

    model = exporting("ONNX", module, example, export)
    model.doc_string = ""
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]  # the exporter leaves the paths of the user's source there
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    del model.graph.metadata_props[:]
    onnx.save(model, str(path))

"""PyTorch to ONNX, float32 (torch.onnx, dynamo), with static shapes and plain names."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from torch import nn

from converters.blame import Example, as_inputs, exporting
from converters.norms import fold_norms
from converters.onnx_pools import pool_spatial_means
from converters.purity import flat_outputs

OPSET = 18
"""Old enough for the runtimes on the boards, new enough for per-channel QDQ."""
INPUT = "input"
OUTPUT = "output"


def names(stem: str, count: int) -> list[str]:
    """``input`` for one, ``input_0``, ``input_1``... for several."""
    return [stem] if count == 1 else [f"{stem}_{index}" for index in range(count)]


def export_onnx(module: nn.Module, example: Example, path: Path) -> None:
    """Write ``module`` as a self-contained ONNX file.

    Inputs and outputs are called ``input`` and ``output``, or ``input_0``, ``output_0``... in the
    order of the module's where there are several.

    Args:
        module: in evaluation mode, parameters contiguous.
        example: one sample, a tensor (1, ...) or one per input; the shapes become the file's.
        path: written whole; the caller owns the folder.

    Raises:
        ConversionError: ``conversion.unsupported-op``, ``conversion.export-failed``.
    """

    inputs = as_inputs(example)
    module = fold_norms(module, inputs)
    with torch.inference_mode():
        outputs = len(flat_outputs(module(*inputs)))

    def export() -> onnx.ModelProto:
        program = torch.onnx.export(
            module,
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=names(INPUT, len(inputs)),
            output_names=names(OUTPUT, outputs),
            verbose=False,
        )
        if program is None:
            raise RuntimeError("torch.onnx.export returned nothing")
        return program.model_proto

    model = exporting("ONNX", module, inputs, export)
    pool_spatial_means(model)
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

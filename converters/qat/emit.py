"""Writing a trained module as int8 ONNX (QDQ) and int8 TFLite with the very same scales.

Both exporters get the same module, whose Q/DQ are operators of ``quantized_decomposed`` with the
scales as numbers. They differ in the weights only: the TFLite exporter folds the quantization of a
float constant, the ONNX exporter wants the int8 constant itself.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import fx

from converters.blame import exporting
from converters.onnx_export import export_onnx
from converters.onnx_quantize import integer_io
from converters.onnx_stem import ease_stems
from converters.qat.prepare import enter, input_scale, layers_of

_INT32_MAX = 2**31 - 1


def freeze(graph: fx.GraphModule) -> None:
    """Fix every range, scale and integer weight, in place; the module answers as int8 from here.

    Raises:
        ConversionError: ``conversion.qat-unsupported``.
    """
    graph.eval()
    enter(graph, "frozen")
    for name, layer in layers_of(graph):
        layer.freeze(input_scale(graph, name))
    enter(graph, "emit")
    graph.requires_grad_(False)


def emit_tflite(graph: fx.GraphModule, example: torch.Tensor, path: Path) -> None:
    """Write a frozen module as TFLite: int8 inside and at both ends, channels last.

    Args:
        graph: after :func:`freeze`.
        example: (1, C, H, W) float32; its shape becomes the file's.
        path: written whole.

    Raises:
        ConversionError: ``conversion.unsupported-op``, ``conversion.export-failed``.
    """
    import litert_torch
    from litert_torch.quantize import pt2e_quantizer
    from litert_torch.quantize.quant_config import QuantConfig

    litert_torch.config.show_progress = False
    # Only its presence matters: without it the exporter leaves Q/DQ around float kernels.
    per_channel = pt2e_quantizer.get_symmetric_quantization_config(is_per_channel=True)
    config = QuantConfig(pt2e_quantizer=pt2e_quantizer.PT2EQuantizer().set_global(per_channel))

    def export() -> None:
        channels_last = litert_torch.to_channel_last_io(graph, args=[0]).eval()
        nhwc = example.permute(0, 2, 3, 1).contiguous()
        litert_torch.convert(channels_last, (nhwc,), quant_config=config).export(str(path))

    exporting("TFLite", graph, example, export)


def emit_onnx(graph: fx.GraphModule, example: torch.Tensor, path: Path) -> None:
    """Write a frozen module as ONNX QDQ (s8s8), int8 at both ends.

    Args, Raises: as :func:`emit_tflite`.
    """
    stored = copy.deepcopy(graph)
    for _, layer in layers_of(stored):
        layer.stored_weights = True
    export_onnx(stored, example, path)
    model = ease_stems(integer_io(integer_biases(onnx.load(str(path)))))
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def integer_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """Biases as int32 in steps of input scale x weight scale, as int8 kernels take them.

    ONNX Runtime fuses a layer into an integer kernel only when its bias is quantized so.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    nodes: list[onnx.NodeProto] = []
    replaced: set[str] = set()
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm") and len(node.input) == 3:
            inputs, weights = (makers[name] for name in node.input[:2])
            scale = constants[inputs.input[1]] * constants[weights.input[1]]
            bias, stem = constants[node.input[2]], f"{node.output[0]}.bias"
            steps = np.clip(np.rint(bias / scale), -_INT32_MAX, _INT32_MAX).astype(np.int32)
            for suffix, array in (("steps", steps), ("scale", scale.astype(np.float32))):
                model.graph.initializer.append(numpy_helper.from_array(array, f"{stem}.{suffix}"))
            nodes.append(
                helper.make_node(
                    "DequantizeLinear", [f"{stem}.steps", f"{stem}.scale"], [stem], axis=0
                )
            )
            replaced.add(node.input[2])
            node.input[2] = stem
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in replaced]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model

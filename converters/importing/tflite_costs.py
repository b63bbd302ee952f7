"""What a float TFLite file costs to run, in the terms of :mod:`converters.costs`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from converters.costs import LayerSize

_FREE = {"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "DEQUANTIZE", "QUANTIZE", "SHAPE"}
_WEIGHTED = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL"}


def tflite_layer_sizes(path: Path) -> list[LayerSize]:
    """The layers of a TFLite file with static shapes, in graph order.

    Activations are part of their layers in this format; additions and multiplications after a
    layer count as memory traffic.
    """
    from ai_edge_litert import schema_py_generated as schema

    model: Any = schema.Model.GetRootAs(path.read_bytes(), 0)
    graph = model.Subgraphs(0)
    names = {code: name for name, code in vars(schema.BuiltinOperator).items()}
    found = []
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        code = model.OperatorCodes(operator.OpcodeIndex())
        name = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        if name not in _FREE:
            found.append(_layer(model, graph, operator, name))
    return found


def _layer(model: Any, graph: Any, operator: Any, name: str) -> LayerSize:
    inputs = [int(i) for i in operator.InputsAsNumpy() if i >= 0]
    outputs = [int(i) for i in operator.OutputsAsNumpy()]
    constants = [i for i in inputs if model.Buffers(graph.Tensors(i).Buffer()).DataLength()]
    weights = sum(_elements(graph, i) for i in constants)
    activations = sum(_elements(graph, i) for i in (*inputs, *outputs) if i not in constants)
    if name not in _WEIGHTED:
        return LayerSize("memory", 0, weights, activations)
    output = _elements(graph, outputs[0])
    if name == "DEPTHWISE_CONV_2D":
        shape = _shape(graph, inputs[1])
        return LayerSize("depthwise", output * math.prod(shape[1:3]), weights, activations)
    if name == "CONV_2D":
        macs = output * math.prod(_shape(graph, inputs[1])[1:])
    elif name == "TRANSPOSE_CONV":
        kernel = _shape(graph, inputs[1])
        macs = _elements(graph, inputs[2]) * math.prod(kernel[:3])
    else:
        macs = output * _shape(graph, inputs[0])[-1]
    return LayerSize("dense", macs, weights, activations)


def _shape(graph: Any, index: int) -> tuple[int, ...]:
    tensor = graph.Tensors(index)
    return tuple(max(1, int(tensor.Shape(i))) for i in range(tensor.ShapeLength())) or (1,)


def _elements(graph: Any, index: int) -> int:
    return math.prod(_shape(graph, index))

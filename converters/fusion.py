"""What exporting folded and fused: steps of the module against operators of the file.

A batch normalisation behind a convolution is arithmetic on its weights and must not be in the file
any more; an activation belongs into the operator before it (TFLite writes that into the file, ONNX
Runtime does it while loading); what depends on constants only is computed once; what nobody reads
is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_ONNX = {
    "weighted": {"Conv", "ConvTranspose", "Gemm", "MatMul", "GRU", "LSTM"},
    "activations": {"Relu", "Clip", "LeakyRelu", "HardSwish", "HardSigmoid", "Sigmoid", "Gelu"}
    | {"Tanh", "Elu", "Mish", "Softplus"},
}
_TFLITE = {
    "weighted": {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"}
    | {"BATCH_MATMUL", "CONV_3D"},
    "activations": {"RELU", "RELU6", "LEAKY_RELU", "HARD_SWISH", "LOGISTIC", "GELU", "TANH"}
    | {"ELU", "RELU_0_TO_1"},
}
_MOVES = {"RESHAPE", "TRANSPOSE"}


@dataclass(frozen=True, slots=True)
class Steps:
    """How many steps of each kind there are; those of a file are operators of their own."""

    operators: int
    weighted: int
    """Convolutions, linear and recurrent layers, matrix products."""
    norms: int
    """Batch normalisations, or the multiplication that is left of one."""
    activations: int
    foldable: int = 0
    """Operators of a file whose inputs are all constants."""
    dead: int = 0
    """Operators of a file whose results nobody reads."""

    def as_dict(self) -> dict[str, int]:
        """Plain data for ``--json``."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Fusion:
    """Before and after."""

    before: Steps
    """Calls of the module at the full resolution."""
    after: Mapping[str, Steps]
    """By format: the fp32 file at the full resolution."""
    rewrites: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By file name: what was written differently for a runtime's kernels, where anything was."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        after = {kind: steps.as_dict() for kind, steps in self.after.items()}
        rewrites = {name: list(done) for name, done in self.rewrites.items()}
        return {"before": self.before.as_dict(), "after": after, "rewrites": rewrites}


def steps_in(path: Path) -> Steps:
    """The operators of a float model file.

    Raises:
        ConversionError: ``conversion.file-missing``, ``conversion.unknown-format``,
            ``conversion.unreadable-model``.
    """
    from converters.inspect.model import format_of

    return _onnx_steps(path) if format_of(path) == "onnx" else _tflite_steps(path)


def _onnx_steps(path: Path) -> Steps:
    from converters.inspect.onnx_file import load_graph

    graph = load_graph(path).graph
    constants = {tensor.name for tensor in graph.initializer}
    read = {name for node in graph.node for name in node.input}
    read |= {value.name for value in graph.output}
    return Steps(
        operators=len(graph.node),
        weighted=sum(node.op_type in _ONNX["weighted"] for node in graph.node),
        norms=sum(node.op_type == "BatchNormalization" for node in graph.node),
        activations=sum(node.op_type in _ONNX["activations"] for node in graph.node),
        foldable=sum(
            bool(node.input) and all(name in constants for name in node.input if name)
            for node in graph.node
        ),
        dead=sum(not any(name in read for name in node.output) for node in graph.node),
    )


def _tflite_steps(path: Path) -> Steps:
    from converters.inspect.model import DAMAGED, unreadable
    from converters.tflite_tidy import TfliteGraph

    try:
        return _steps_of(TfliteGraph.of(path))
    except DAMAGED as error:
        raise unreadable(path, "not a valid TFLite flatbuffer") from error


def _steps_of(graph: Any) -> Steps:
    ops = [graph.op(operator) for operator in graph.operators]
    return Steps(
        operators=len(ops),
        weighted=sum(op in _TFLITE["weighted"] for op in ops),
        norms=sum(_scales_a_layer(graph, operator) for operator in graph.operators),
        activations=sum(op in _TFLITE["activations"] for op in ops),
        foldable=sum(
            all(graph.is_constant(int(i)) for i in o.InputsAsNumpy() if i >= 0)
            for o in graph.operators
            if o.InputsLength()
        ),
        dead=sum(
            not any(int(i) in graph.readers or int(i) in graph.outputs for i in o.OutputsAsNumpy())
            for o in graph.operators
        ),
    )


def _scales_a_layer(graph: Any, operator: Any) -> bool:
    """A multiplication by a vector of constants right behind a layer with weights."""
    if graph.op(operator) != "MUL":
        return False
    inputs = [int(index) for index in operator.InputsAsNumpy()]
    vectors = [i for i in inputs if graph.is_constant(i) and graph.elements(i) > 1]
    others = [i for i in inputs if i not in vectors]
    if len(vectors) != 1 or len(others) != 1:
        return False
    maker = graph.made_by.get(others[0])
    while maker is not None and graph.op(maker) in _MOVES:
        maker = graph.made_by.get(int(maker.Inputs(0)))
    return maker is not None and graph.op(maker) in _TFLITE["weighted"]

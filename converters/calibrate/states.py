"""Streaming states: the output that is fed back as an input must have that input's scale.

Aligning the two ends is not enough where the output is a slice of a concatenation: operators that
only move values pass their source's scale on, so the sources join the group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import onnx

from converters.inspect import ModelFacts, inspect_model
from converters.tflite_tidy import TfliteGraph
from converters.wiring import as_exported, module_order
from edge_sdk.contracts.operating_point import TensorSpec
from edge_sdk.errors import ConversionError

Pairs = Sequence[tuple[int, int]]
"""(input, output) positions in the module's order."""

_MOVES = {
    *("Slice", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Split", "Concat"),
    *("SLICE", "STRIDED_SLICE", "RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "SPLIT"),
    *("CONCATENATION", "Flatten", "Gather", "GATHER", "PACK", "UNPACK"),
}

_FIXED = {"TANH": (-1.0, 1.0), "LOGISTIC": (0.0, 1.0), "SOFTMAX": (0.0, 1.0)}
"""What TFLite's kernels spread their whole integer type over, the upper end left out."""


def state_groups(source: Path, pairs: Pairs) -> list[list[str]]:
    """Tensor names that share one range, a group per state.

    Args:
        source: float file by one of our exporters.
        pairs: which output continues which input.

    Raises:
        ConversionError: ``conversion.bad-state`` when a position does not exist.
    """
    if not pairs:
        return []
    facts = inspect_model(source)
    sources = _onnx_sources(source) if facts.format == "onnx" else _tflite_sources(source)
    groups = []
    for before, after in _ends(facts, pairs):
        group = [before.name, after.name]
        for name in group[1:]:
            group += [found for found in _walk(name, sources) if found not in group]
        groups.append(group)
    return groups


def fixed_ranges(source: Path, pairs: Pairs, bits: int) -> dict[str, tuple[float, float]]:
    """Ranges by tensor name of states whose scale TFLite's kernels fix.

    Args:
        source: float TFLite file.
        pairs: which output continues which input.
        bits: of activations; 16 are symmetric.
    """
    graph = TfliteGraph.of(source)
    makers = {graph.name(index): graph.op(maker) for index, maker in graph.made_by.items()}
    found: dict[str, tuple[float, float]] = {}
    for group in state_groups(source, pairs):
        ends = {_FIXED[makers[name]] for name in group if makers.get(name) in _FIXED}
        if ends:
            high = max(end for _, end in ends)
            low = -high if bits == 16 else min(end for end, _ in ends)
            step = (high - low) / 2**bits
            lowest = low + step if bits == 16 else low  # symmetric: as far down as up
            found |= dict.fromkeys(group, (lowest, high - step))
    return found


def check_states(path: Path, pairs: Pairs) -> None:
    """Refuse a quantized file whose states come back with another scale than they went in.

    Raises:
        ConversionError: ``conversion.state-scales``.
    """
    for before, after in _ends(inspect_model(path), pairs) if pairs else []:
        known = before.scale is not None and after.scale is not None
        same = (
            abs((before.scale or 0) - (after.scale or 0)) <= 1e-6 * (before.scale or 0)
            and before.zero_point == after.zero_point
        )
        if before.dtype != after.dtype or (known and not same):
            raise ConversionError(
                "state-scales",
                f"{path.name}: the state {after.name!r} leaves as {_shown(after)} but "
                f"{before.name!r} takes {_shown(before)}; fed back, it would be wrong.",
                "Leave the static scheme out (--schemes) for this model.",
            )


def _shown(spec: TensorSpec) -> str:
    return f"{spec.dtype}, scale {spec.scale}, zero point {spec.zero_point}"


def _ends(facts: ModelFacts, pairs: Pairs) -> list[tuple[TensorSpec, TensorSpec]]:
    inputs = [as_exported(spec, facts.format) for spec in facts.inputs]
    outputs = [as_exported(spec, facts.format) for spec in facts.outputs]
    order = module_order(inputs), module_order(outputs)
    for before, after in pairs:
        if not (0 <= before < len(inputs) and 0 <= after < len(outputs)):
            raise ConversionError(
                "bad-state",
                f"The state ({before}, {after}) does not exist: there are {len(inputs)} inputs "
                f"and {len(outputs)} outputs.",
                "Give pairs (input, output), counted from 0 in the order of forward.",
            )
    return [(inputs[order[0][before]], outputs[order[1][after]]) for before, after in pairs]


def _walk(name: str, sources: Mapping[str, list[str]]) -> Iterable[str]:
    """Everything whose values ``name`` only moves; bounded by the graph, which has no cycle."""
    waiting = [name]
    while waiting:
        for found in sources.get(waiting.pop(), []):
            yield found
            waiting.append(found)


def _onnx_sources(path: Path) -> dict[str, list[str]]:
    graph = onnx.load(str(path), load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    return {
        output: [name for name in node.input if name and name not in constants]
        for node in graph.node
        if node.op_type in _MOVES
        for output in node.output
    }


def _tflite_sources(path: Path) -> dict[str, list[str]]:
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flatbuffers

    model = flatbuffers.read_model(str(path))
    graph = model.subgraphs[0]
    names = [flatbuffers.get_tensor_name(tensor) for tensor in graph.tensors]
    constant = [flatbuffers.get_tensor_data(t, model.buffers) is not None for t in graph.tensors]
    sources: dict[str, list[str]] = {}
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex].builtinCode
        key = flatbuffers.TFL_OP_CODE_TO_NAME.get(code)
        if key is not None and str(key.value) in _MOVES:
            for output in operator.outputs:
                sources[names[output]] = [names[i] for i in operator.inputs if not constant[i]]
    return sources

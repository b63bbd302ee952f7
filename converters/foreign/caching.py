"""A network that looks at its last frames anew each time becomes one that remembers what it saw.

openWakeWord's embedding looks at 76 frames every 8 frames, so that each frame is looked at nine
times. Where it is a chain of convolutions that do not pad in time, all but the newest part of every
layer was computed before (Rybakov et al. 2020, "Streaming keyword spotting on mobile devices"):
what a layer looks back on becomes a state, and the answer stays the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import onnx
from onnx import helper

_EACH_BY_ITSELF: Final = frozenset(
    ("Relu", "LeakyRelu", "Max", "Min", "Clip", "Add", "Mul", "BatchNormalization", "Identity")
)
"""Operators of which a frame's result needs no other frame."""
FIRST: Final = 2
"""Number of the chain's first state among the network's inputs and outputs."""
_TIME, _BANDS = 2, 3
"""Axes of (N, C, T, bands)."""


@dataclass
class Chain:
    """Nodes of a network that takes new frames only."""

    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, list[int]] = field(default_factory=dict)
    memories: list[tuple[int, ...]] = field(default_factory=list)
    """Shapes of its states, taken as ``input_2`` and on, given as ``output_2`` and on."""


@dataclass
class _Place:
    """How far the walk has come: what the whole picture and the new frames are here."""

    seen: int
    new: int
    channels: int
    bands: int


def chained(graph: onnx.GraphProto, seen: int, new: int, bands: int) -> Chain | None:
    """The network on its newest frames, or None where it is no chain of convolutions in time.

    Args:
        graph: takes one picture (1, seen, bands, 1); the chain (1, 1, new, bands) by the same name.
        seen: frames of the picture.
        new: frames between two pictures.
        bands: of a frame.
    """
    weights = {item.name: item for item in graph.initializer}
    place, chain = _Place(seen, new, 1, bands), Chain()
    value, last = graph.input[0].name, len(graph.node) - 1
    for at, node in enumerate(graph.node):
        if not node.input or node.input[0] != value or len(node.output) != 1:
            return None
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if node.op_type in ("Reshape", "Transpose") and at in (0, last):
            copy = helper.make_node("Identity", [value], list(node.output), name=node.name)
        elif node.op_type == "Conv":
            if not _convolve(copy, weights, place, chain):
                return None
        elif node.op_type in ("MaxPool", "AveragePool"):
            if not _pool(node, place):
                return None
        elif node.op_type not in _EACH_BY_ITSELF:
            return None
        chain.nodes.append(copy)
        value = node.output[0]
    return chain if (place.seen, place.new) == (1, 1) else None


def _convolve(
    node: onnx.NodeProto, weights: dict[str, onnx.TensorProto], place: _Place, chain: Chain
) -> bool:
    """Give a convolution what it looks back on; whether that is possible."""
    if node.input[1] not in weights:
        return False
    shape = list(weights[node.input[1]].dims)
    facts = attributes(node)
    strides, pads = facts.get("strides", [1, 1]), facts.get("pads", [0, 0, 0, 0])
    plain = facts.get("dilations", [1, 1]) == [1, 1] and facts.get("group", 1) == 1
    plain = plain and facts.get("auto_pad", b"NOTSET") == b"NOTSET"
    if len(shape) != 4 or not plain or strides != [1, 1] or pads[0] or pads[2]:
        return False
    back = shape[_TIME] - 1
    if back:
        _remember(node, (1, place.channels, back, place.bands), chain)
    place.seen -= back
    place.channels = shape[0]
    place.bands += pads[1] + pads[3] - shape[_BANDS] + 1
    return place.seen >= place.new


def _remember(node: onnx.NodeProto, shape: tuple[int, ...], chain: Chain) -> None:
    number = len(chain.memories) + FIRST
    both, start = f"seen_{number}", f"start_{number}"
    chain.nodes += [
        helper.make_node("Concat", [f"input_{number}", node.input[0]], [both], axis=_TIME),
        helper.make_node("Slice", [both, start, "end", "time"], [f"output_{number}"]),
    ]
    chain.constants |= {start: [-shape[_TIME]], "time": [_TIME]}
    chain.memories.append(shape)
    node.input[0] = both


def _pool(node: onnx.NodeProto, place: _Place) -> bool:
    """Whether pools begin where they begin in the whole picture."""
    facts = attributes(node)
    kernel, strides = facts["kernel_shape"], facts.get("strides", [1, 1])
    if kernel != strides or any(facts.get("pads", [0])) or facts.get("ceil_mode", 0):
        return False
    size = kernel[0]
    if place.seen % size or place.new % size:
        return False
    place.seen, place.new = place.seen // size, place.new // size
    place.bands //= kernel[1]
    return True


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """What a node says of itself, by name."""
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}

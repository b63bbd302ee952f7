"""Checks a graph against what an accelerator takes; pure, over a neutral description of the graph.

Which nodes stay on the CPU, why, what they cost there, and into how many parts the graph falls.
Parts are counted as delegates and providers do it: epochs of nodes that are ready and run on the
same unit, alternating between the units (as in TFLite's graph partitioner).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from device_profiles.latency import LayerCost
from edge_sdk.contracts.operating_point import RuntimeName
from edge_sdk.contracts.profile import Accelerator, Constraints, DeviceProfile

FORMATS: dict[RuntimeName, str] = {"litert": "tflite", "onnxruntime": "onnx"}
"""Of the files that each runtime reads."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of the graph."""

    name: str
    dtype: str
    """numpy name of the element type, or ``unknown``."""
    shape: tuple[int, ...]
    """-1 where the size is only known at run time."""
    bytes: int = 0
    constant: bool = False
    scales: int = 0
    """Quantization scales: 0 none, 1 per tensor, more per channel."""
    ranked: bool = True
    """False when not even the number of dimensions is known."""


@dataclass(frozen=True, slots=True)
class Node:
    """An operator of the graph, in topological order."""

    name: str
    op: str
    module: str
    """Path of the layer in the user's module, empty where the file does not tell."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    cost: LayerCost = field(default_factory=lambda: LayerCost("memory", 0, 0))


@dataclass(frozen=True, slots=True)
class Graph:
    """A model as a lint sees it."""

    format: str
    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Finding:
    """A node that stays on the CPU, or a rule that the whole model breaks."""

    rule: str
    node: str
    """Empty for the whole model."""
    op: str
    module: str
    why: str


@dataclass(frozen=True, slots=True)
class Lint:
    """What an accelerator makes of a graph."""

    runtime: str
    findings: tuple[Finding, ...]
    fallback: tuple[str, ...]
    """Names of the nodes that run on the CPU, in order."""
    partitions: int
    """Parts that run on the accelerator."""
    crossing_bytes: int
    """Activations that go over between the units, both ways, in one inference."""
    costs: tuple[LayerCost, ...]
    """Of the nodes in :attr:`fallback`."""

    @property
    def clean(self) -> bool:
        """Everything runs on the accelerator."""
        return not self.findings and not self.fallback


def limits_for(profile: DeviceProfile, kind: str) -> list[tuple[Accelerator, Constraints]]:
    """What each accelerator of a profile takes of one format; empty where nothing is known."""
    return [
        (unit, limits)
        for unit in profile.accelerators
        for limits in unit.constraints
        if limits.format == kind
    ]


def lint(graph: Graph, limits: Constraints) -> Lint:
    """Walk the graph against one runtime's constraints.

    Args:
        graph: nodes in topological order.
        limits: of an accelerator through one runtime, for the graph's format.
    """
    whole = tuple(_model_findings(graph, limits))
    blocked = any(finding.rule in _REFUSING for finding in whole)
    by_node = {
        index: tuple(_node_findings(node, graph, limits)) for index, node in enumerate(graph.nodes)
    }
    taken = [not blocked and not by_node[index] for index in range(len(graph.nodes))]
    epochs = _epochs(graph, taken)
    parts = sorted({epoch for epoch, own in zip(epochs, taken, strict=True) if own})
    surplus: list[Finding] = []
    if limits.max_partitions is not None and len(parts) > limits.max_partitions:
        kept = set(parts[: limits.max_partitions])
        for index, node in enumerate(graph.nodes):
            if taken[index] and epochs[index] not in kept:
                taken[index] = False
                surplus.append(_finding("partition", node, _surplus(limits)))
        parts = parts[: limits.max_partitions]
    fallback = tuple(n.name for n, own in zip(graph.nodes, taken, strict=True) if not own)
    return Lint(
        runtime=limits.runtime,
        findings=(*whole, *(f for found in by_node.values() for f in found), *surplus),
        fallback=fallback,
        partitions=len(parts),
        crossing_bytes=_crossing(graph, taken),
        costs=tuple(n.cost for n, own in zip(graph.nodes, taken, strict=True) if not own),
    )


_REFUSING = ("model-size", "format", "batch")
"""Rules after which nothing runs on the accelerator."""
_BOUNDARY = ("QuantizeLinear", "DequantizeLinear", "QUANTIZE", "DEQUANTIZE", "Cast", "CAST")
_SHAPES_OF_CONSTANTS = ("bool", "int32", "int64")
"""Element types of axes, shapes and indices; as constants they become parameters of a node."""


def _model_findings(graph: Graph, limits: Constraints) -> Iterator[Finding]:
    if graph.format != limits.format:
        why = f"{limits.runtime} takes {limits.format} files"
        yield Finding("format", "", "", "", why)
    if limits.max_model_mib and graph.size_bytes > limits.max_model_mib * 2**20:
        size = graph.size_bytes / 2**20
        why = f"the file has {size:.1f} MiB, the limit is {limits.max_model_mib:g} MiB"
        yield Finding("model-size", "", "", "", why)
    for name in graph.inputs:
        tensor = graph.tensors[name]
        if limits.batch_one and tensor.shape and tensor.shape[0] not in (1, -1):
            why = f"input {name!r} has batch {tensor.shape[0]}, only 1 is taken"
            yield Finding("batch", "", "", "", why)
        if wrong := _wrong_layout(tensor.shape, limits.layout):
            why = f"input {name!r} {list(tensor.shape)} looks {wrong}, {limits.layout} is expected"
            yield Finding("layout", "", "", "", why)


def _wrong_layout(shape: tuple[int, ...], wanted: str) -> str:
    """The layout that an image input seems to have, where it is not the wanted one."""
    if wanted == "any" or len(shape) != 4:
        return ""
    first, last = shape[1] in (1, 3, 4), shape[3] in (1, 3, 4)
    if first == last:
        return ""
    seems = "NCHW" if first else "NHWC"
    return "" if seems == wanted else seems


def _node_findings(node: Node, graph: Graph, limits: Constraints) -> Iterator[Finding]:
    if not _takes(node.op, limits.ops):
        yield _finding("op", node, f"{limits.runtime} does not take {node.op}")
    if not limits.hybrid and (why := _hybrid(node, graph)):
        yield _finding("hybrid", node, why)
    tensors = [graph.tensors[n] for n in (*node.inputs, *node.outputs) if n in graph.tensors]
    seen: dict[str, list[str]] = {}
    for tensor in tensors:
        for rule, why in _tensor_problems(tensor, limits):
            if rule == "dtype" and node.op in _BOUNDARY:
                continue  # it is there to change the type
            seen.setdefault(rule, []).append(f"{tensor.name!r} {why}")
    for rule, reasons in seen.items():
        more = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
        yield _finding(rule, node, reasons[0] + more)


def _hybrid(node: Node, graph: Graph) -> str:
    """Why a node mixes integer weights with float activations; empty where it does not."""
    if node.op in _BOUNDARY:
        return ""
    into = [graph.tensors[name] for name in node.inputs if name in graph.tensors]
    weights = [t for t in into if t.constant and t.dtype in ("int8", "uint8", "int4", "uint4")]
    floats = [t for t in into if not t.constant and t.dtype.startswith("float")]
    if not weights or not floats:
        return ""
    return f"{weights[0].name!r} is {weights[0].dtype} and {floats[0].name!r} {floats[0].dtype}"


def _tensor_problems(tensor: Tensor, limits: Constraints) -> Iterator[tuple[str, str]]:
    if limits.static_shapes and (not tensor.ranked or any(size < 0 for size in tensor.shape)):
        yield "static-shape", f"has a size that is only known at run time {list(tensor.shape)}"
    if len(tensor.shape) > limits.max_rank:
        yield "rank", f"has {len(tensor.shape)} dimensions, at most {limits.max_rank} are taken"
    parameter = tensor.constant and tensor.dtype in _SHAPES_OF_CONSTANTS
    known = tensor.dtype != "unknown"
    if known and not parameter and tensor.dtype not in limits.dtypes:
        yield "dtype", f"is {tensor.dtype}, taken are {', '.join(limits.dtypes)}"
    if tensor.constant and tensor.scales:
        granularity = "per-tensor" if tensor.scales == 1 else "per-channel"
        if granularity not in limits.weight_granularity:
            wanted = " or ".join(limits.weight_granularity)
            yield "granularity", f"is quantized {granularity}, {wanted} is taken"


def _takes(op: str, ops: tuple[str, ...]) -> bool:
    return any(op == known or (known[-1:] == "*" and op.startswith(known[:-1])) for known in ops)


def _finding(rule: str, node: Node, why: str) -> Finding:
    return Finding(rule, node.name, node.op, node.module, why)


def _surplus(limits: Constraints) -> str:
    most = limits.max_partitions
    return f"{limits.runtime} takes the first {most} part{'s' if most != 1 else ''} of a graph only"


def _epochs(graph: Graph, taken: list[bool]) -> list[int]:
    """Epoch of each node: even ones run on the CPU, odd ones on the accelerator."""
    made_by = {name: i for i, node in enumerate(graph.nodes) for name in node.outputs}
    epochs: list[int] = []
    for index, node in enumerate(graph.nodes):
        before = [made_by[name] for name in node.inputs if made_by.get(name, index) < index]
        epoch = max((epochs[i] for i in before), default=0)
        epochs.append(epoch if (epoch % 2 == 1) == taken[index] else epoch + 1)
    return epochs


def _crossing(graph: Graph, taken: list[bool]) -> int:
    """Bytes of activations that one unit makes and the other needs, each counted once."""
    on_unit: dict[str, bool] = dict.fromkeys(graph.inputs, False)
    for node, own in zip(graph.nodes, taken, strict=True):
        on_unit.update(dict.fromkeys(node.outputs, own))
    crossing = {
        name
        for node, own in zip(graph.nodes, taken, strict=True)
        for name in node.inputs
        if name in on_unit and on_unit[name] != own
    }
    crossing |= {name for name in graph.outputs if on_unit.get(name)}
    return sum(graph.tensors[name].bytes for name in crossing if name in graph.tensors)

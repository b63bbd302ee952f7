"""What cannot be trained on the int8 grid, by the name it has in the user's module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import fx, nn
from torch.nn import functional as F

from converters.qat.traced import module_of
from edge_sdk.errors import ConversionError, TaskError

_KNOWN = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
_OWN_WEIGHT_CALLS = (
    F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d
)  # fmt: skip
_CALIBRATE = "convert with calibration instead (edge model convert)"
_WAYS_OUT: tuple[tuple[tuple[type[nn.Module], ...], str], ...] = (
    (
        (nn.ConvTranspose1d, nn.ConvTranspose2d),
        "Replace it by Upsample and a convolution, or by a convolution and PixelShuffle",
    ),
    (
        (nn.RNNBase, nn.RNNCellBase),
        "Replace it by causal convolutions (Conv1d)",
    ),
    (
        (nn.MultiheadAttention,),
        "Write it with Linear layers, matmul and softmax",
    ),
    (
        (nn.BatchNorm1d,),
        "Put it right behind a Linear or Conv1d layer that nothing else reads",
    ),
)


def refuse_shared_weights(module: nn.Module) -> None:
    """Refuse two layers of one tensor: they would need two grids for the same numbers.

    Raises:
        TaskError: ``task.shared-weights``.
    """
    owners: dict[int, str] = {}
    for name, part in module.named_modules(remove_duplicate=False):
        weight = getattr(part, "weight", None)
        if not isinstance(weight, nn.Parameter):
            continue
        other = owners.setdefault(id(weight), name)
        if other != name:
            raise _shared(other, name)


def refuse_repeated(graph: fx.GraphModule) -> None:
    """Refuse a layer with weights that is called twice.

    Raises:
        TaskError: ``task.shared-weights``.
    """
    called: set[str] = set()
    for node, _ in _with_weights(graph):
        if node.target in called:
            raise _shared(str(node.target), f"{node.target} (called again)")
        called.add(str(node.target))


def refuse_unsupported(graph: fx.GraphModule) -> None:
    """Refuse layers that :mod:`converters.qat.layers` has no grid for.

    Args:
        graph: one-dimensional layers are widened already.

    Raises:
        ConversionError: ``conversion.qat-unsupported``.
    """
    for node in graph.graph.nodes:
        if node.target in _OWN_WEIGHT_CALLS:
            raise _functional(node)
    for node, part in _with_weights(graph):
        if not isinstance(part, _KNOWN) and not _follows_linear(graph, node, part):
            raise _layer(str(node.target), part)


def _with_weights(graph: fx.GraphModule) -> Iterator[tuple[fx.Node, nn.Module]]:
    """Every call of a layer that has parameters."""
    for node in graph.graph.nodes:
        part = module_of(graph, node)
        if part is not None and any(True for _ in part.parameters()):
            yield node, part


def _follows_linear(graph: fx.GraphModule, node: fx.Node, part: nn.Module) -> bool:
    """Whether a BatchNorm1d can be folded into the layer in front."""
    source: Any = node.args[0]
    return (
        isinstance(part, nn.BatchNorm1d)
        and isinstance(module_of(graph, source), nn.Linear)
        and len(source.users) == 1
    )


def _layer(name: str, part: nn.Module) -> ConversionError:
    ways = (way for kinds, way in _WAYS_OUT if isinstance(part, kinds))
    way = next(ways, "Build it from Conv1d, Conv2d, Linear and BatchNorm layers")
    return ConversionError(
        "qat-unsupported",
        f"Quantization-aware training has no int8 grid for {name!r}, a {type(part).__name__}.",
        f"{way}, or {_CALIBRATE}.",
    )


def _functional(node: fx.Node) -> ConversionError:
    weights = [str(source.target) for source in node.all_input_nodes if source.op == "get_attr"]
    stack = [name for name, _ in node.meta.get("nn_module_stack", {}).values()]
    where = f" in {stack[-1]!r}" if stack and stack[-1] else ""
    of = f" with {weights[0]!r}" if weights else ""
    return ConversionError(
        "qat-unsupported",
        f"Quantization-aware training needs weights in layers, but the module calls "
        f"torch.nn.functional.{getattr(node.target, '__name__', node.name)}{of}{where}.",
        f"Call the layer itself (nn.Conv2d, nn.Linear), or {_CALIBRATE}.",
    )


def _shared(one: str, other: str) -> TaskError:
    return TaskError(
        "shared-weights",
        f"The layers {one!r} and {other!r} share their weights, but quantization-aware training "
        "gives each layer scales of its own.",
        f"Give each its own copy of the weights, or {_CALIBRATE}.",
    )

"""One-dimensional layers as two-dimensional ones over images of a single row.

Sound and time series are convolved over (N, C, L); int8 kernels know (N, C, 1, L) only, and an
exporter that widens a layer itself puts its reshapes between the integers and the kernel. Widened
here, before ranges are put in, every tensor in between gets its own range.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from converters.qat.traced import module_of

_ROW = 2
"""The axis of length one, as in (N, C, 1, L)."""
_MARK = "takes-row-out"
"""On nodes put in here: a user's own ``squeeze`` may find no axis of length one."""
_POINTWISE = (nn.ReLU, nn.ReLU6, nn.Dropout, nn.Identity)
_POINTWISE_CALLS = (torch.relu, nn.functional.relu, nn.functional.relu6, nn.functional.dropout)


def widen(graph: fx.GraphModule) -> None:
    """Replace one-dimensional layers, in place; the module answers as before.

    Args:
        graph: with the shapes of :class:`torch.fx.passes.shape_prop.ShapeProp`, which the new
            nodes lack.
    """
    twins: dict[str, nn.Module] = {}
    for node in list(graph.graph.nodes):
        if node.op != "call_module":
            continue
        wide = twins.get(node.target) or _wide(module_of(graph, node), node)
        if wide is None:
            continue
        twins[node.target] = wide
        graph.set_submodule(node.target, wide)
        with graph.graph.inserting_before(node):
            node.args = (graph.graph.call_function(torch.unsqueeze, (node.args[0], _ROW)),)
        _flatten_behind(graph, node)
    for node in list(graph.graph.nodes):
        _move(graph, node)
    graph.recompile()


def _wide(part: Any, node: fx.Node) -> nn.Module | None:
    """The two-dimensional twin of a layer, with its parameters; None where it needs none."""
    for kind, twin in _TWINS.items():
        if type(part) is kind and len(node.args) == 1 and _dims(node.args[0]) == 3:
            made = twin(part)
            made.train(part.training)
            return made
    return None


def _dims(node: Any) -> int:
    meta = node.meta.get("tensor_meta") if isinstance(node, fx.Node) else None
    return len(meta.shape) if meta is not None else 0


def _conv(layer: nn.Conv1d) -> nn.Conv2d:
    padding = layer.padding if isinstance(layer.padding, str) else (0, layer.padding[0])
    wide = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        (1, layer.kernel_size[0]),
        stride=(1, layer.stride[0]),
        padding=padding,
        dilation=(1, layer.dilation[0]),
        groups=layer.groups,
        bias=layer.bias is not None,
        padding_mode=layer.padding_mode,
    )
    wide.weight = nn.Parameter(layer.weight.detach().unsqueeze(_ROW).contiguous())
    wide.bias = layer.bias
    return wide


def _norm(layer: nn.BatchNorm1d) -> nn.BatchNorm2d:
    wide = nn.BatchNorm2d(
        layer.num_features,
        layer.eps,
        layer.momentum,
        layer.affine,
        layer.track_running_stats,
    )
    wide.load_state_dict(layer.state_dict())
    return wide


def _one(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value


_TWINS: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    nn.Conv1d: _conv,
    nn.BatchNorm1d: _norm,
    nn.MaxPool1d: lambda pool: nn.MaxPool2d(
        (1, _one(pool.kernel_size)),
        (1, _one(pool.stride)),
        (0, _one(pool.padding)),
        (1, _one(pool.dilation)),
        ceil_mode=pool.ceil_mode,
    ),
    nn.AvgPool1d: lambda pool: nn.AvgPool2d(
        (1, _one(pool.kernel_size)),
        (1, _one(pool.stride)),
        (0, _one(pool.padding)),
        pool.ceil_mode,
        pool.count_include_pad,
    ),
    nn.AdaptiveAvgPool1d: lambda pool: nn.AdaptiveAvgPool2d((1, _one(pool.output_size))),
}


def _flatten_behind(graph: fx.GraphModule, node: fx.Node) -> fx.Node:
    """Take the row out of everything that follows a node."""
    with graph.graph.inserting_after(node):
        flat = graph.graph.call_function(torch.squeeze, (node, _ROW))
    flat.meta = {**node.meta, _MARK: True}  # its shape is the one that the node had
    node.replace_all_uses_with(flat, delete_user_cb=lambda user: user is not flat)
    return flat


def _move(graph: fx.GraphModule, node: fx.Node) -> None:
    """Let rows stay where the next layer would only put them back.

    A layer and the activation that runtimes fuse into it must touch, and two layers in a row need
    no reshape between them.
    """
    if _MARK not in node.meta:
        return
    (source,), users = node.all_input_nodes, list(node.users)
    for user in users:
        if user.target is torch.unsqueeze and user.args[1:] == (_ROW,):
            user.replace_all_uses_with(source)
            graph.graph.erase_node(user)
    if not node.users:
        graph.graph.erase_node(node)
        return
    (user, *others) = node.users
    if others or len(users) > 1 or not _pointwise(graph, user):
        return
    user.replace_input_with(node, source)
    graph.graph.erase_node(node)
    _move(graph, _flatten_behind(graph, user))


def _pointwise(graph: fx.GraphModule, node: fx.Node) -> bool:
    return isinstance(module_of(graph, node), _POINTWISE) or node.target in _POINTWISE_CALLS

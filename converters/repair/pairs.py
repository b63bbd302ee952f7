"""Consecutive layers whose channels can be rescaled against each other.

``f(s x) = s f(x)`` for ReLU, leaky ReLU, pooling and plain data movement: what the first layer's
channel is divided by, the second layer's input channel can be multiplied by. The exported program
tells which layers are consecutive, whatever the Python around them looks like.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

_LAYERS = {"conv1d", "conv2d", "linear"}
_HOMOGENEOUS = {
    *("relu", "relu_", "leaky_relu", "leaky_relu_", "dropout", "identity", "clone", "contiguous"),
    *("max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d"),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool2d"),
}
_FLATTENING = {"flatten", "view", "reshape"}


@dataclass(frozen=True, slots=True)
class Norm:
    """A BatchNorm between the first layer and the activation."""

    weight: str
    bias: str
    variance: str
    eps: float


@dataclass(frozen=True, slots=True)
class Pair:
    """Two layers, by the names of their tensors in the module's state."""

    first: str
    first_bias: str | None
    norm: Norm | None
    second: str
    second_kind: Literal["dense", "depthwise"]
    repeat: int = 1
    """Inputs of the second layer per channel of the first: pixels that were flattened."""


def find_pairs(module: nn.Module, inputs: Sequence[torch.Tensor]) -> list[Pair]:
    """Every pair of a module, in the order it runs.

    Weights that several layers share are left out: rescaling one would change the other.

    Args:
        module: in evaluation mode.
        inputs: one sample, batch of 1.
    """
    program = torch.export.export(module, tuple(inputs))
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    users: dict[str, int] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            users[names[node.name]] = users.get(names[node.name], 0) + len(node.users)
    walk = _Walk(names, users)
    found = [walk.pair(node) for node in program.graph.nodes if _op(node) in _LAYERS]
    return [pair for pair in found if pair is not None]


@dataclass(frozen=True, slots=True)
class _Walk:
    names: dict[str, str]
    users: dict[str, int]

    def pair(self, first: Any) -> Pair | None:
        """The pair that starts at a node, if there is one."""
        weight, bias = self._tensor(first, 1), self._tensor(first, 2)
        if weight is None or (bias is None and _argument(first, 2) is not None):
            return None
        channels = _shape(first)[-1 if _op(first) == "linear" else 1]
        norm: Norm | None = None
        node, repeat, active = first, 1, False
        while len(node.users) == 1:
            (following,) = node.users
            op = _op(following)
            if op == "batch_norm" and norm is None and not active and repeat == 1:
                norm = self._norm(following)
                if norm is None:
                    return None
            elif op in _FLATTENING and _flattens(node, following) and _op(first) != "linear":
                repeat *= math.prod(_shape(node)[2:])
            elif op in _LAYERS and following.args[0] is node:
                return self._joined(first, weight, bias, norm, following, repeat, channels)
            elif op in _HOMOGENEOUS:
                active = True
            else:
                return None
            node = following
        return None

    def _joined(
        self,
        first: Any,
        weight: str,
        bias: str | None,
        norm: Norm | None,
        second: Any,
        repeat: int,
        channels: int,
    ) -> Pair | None:
        name = self._tensor(second, 1)
        if name is None:
            return None
        shape = tuple(second.args[1].meta["val"].shape)
        groups = 1 if _op(second) == "linear" else (_argument(second, 6) or 1)
        if groups == 1 and shape[1] == channels * repeat:
            return Pair(weight, bias, norm, name, "dense", repeat)
        if groups == channels and shape[1] == 1 and repeat == 1 and shape[0] == channels:
            return Pair(weight, bias, norm, name, "depthwise")
        return None

    def _norm(self, node: Any) -> Norm | None:
        weight, bias, variance = (self._tensor(node, index) for index in (1, 2, 4))
        if weight is None or bias is None or variance is None:
            return None
        return Norm(weight, bias, variance, float(_argument(node, 7) or 1e-5))

    def _tensor(self, node: Any, index: int) -> str | None:
        """Name of an argument that is a tensor of the module used nowhere else."""
        argument = _argument(node, index)
        name = self.names.get(getattr(argument, "name", ""))
        return name if name is not None and self.users[name] == 1 else None


def _op(node: Any) -> str:
    """``conv2d`` of ``aten.conv2d.default``; empty for anything that is not an operator."""
    packet = getattr(node.target, "overloadpacket", None)
    return str(packet).rpartition(".")[2] if node.op == "call_function" and packet else ""


def _argument(node: Any, index: int) -> Any:
    return node.args[index] if len(node.args) > index else None


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in node.meta["val"].shape)


def _flattens(before: Any, after: Any) -> bool:
    """(1, C, H, W) to (1, C * H * W)."""
    old, new = _shape(before), _shape(after)
    return len(old) > 2 and len(new) == 2 and new[1] == math.prod(old[1:])

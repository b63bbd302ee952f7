"""A published chain of convolutions as a PyTorch network that takes new frames only.

What :func:`~converters.foreign.caching.chained` proves of an ONNX file is built here layer by layer
from the file's weights, so that the chain is converted and quantized like any network of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from converters.foreign.caching import Chain, attributes

_TIME: Final = 2
_Constants = Mapping[str, np.ndarray]


class Bent(nn.Module):
    """``max(leaky_relu(x), least)``, for x that was raised by ``least / slope`` and cut at zero.

    Both are the same function. Written so, the convolution before it ends in a plain ReLU, which
    costs nothing, and no step of an integer range is spent on what is cut off.

    Args:
        slope: of negative values.
        least: negative.
    """

    def __init__(self, slope: float, least: float) -> None:
        super().__init__()
        self.raised = -least / slope
        self.bend = nn.LeakyReLU(slope)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        bent: Tensor = self.bend(torch.relu(x) - self.raised)
        return bent


class ChainNetwork(nn.Module):
    """Layers in a row, some of which look back.

    Args:
        layers: of (N, C, T, bands).
        looks_back: numbers of the layers before which the last frames are remembered.
        memories: shape of each of these memories, for one stream.
    """

    def __init__(
        self, layers: list[nn.Module], looks_back: list[int], memories: list[tuple[int, ...]]
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.memories = memories
        self._memory_of = {layer: at for at, layer in enumerate(looks_back)}

    def forward(self, x: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        """(N, 1, new, bands) and memories to (N, C, 1, 1) and memories."""
        after = []
        for number, layer in enumerate(self.layers):
            at = self._memory_of.get(number)
            if at is not None:
                x = torch.cat([before[at], x], _TIME)
                after.append(x[:, :, x.shape[_TIME] - self.memories[at][_TIME] :])
            x = layer(x)
        return (x, *after)


def chain_network(picture: onnx.GraphProto, chain: Chain) -> ChainNetwork | None:
    """The network of a chain in evaluation mode, or None where an operator is not known here.

    Args:
        picture: the graph that the chain was made of.
        chain: what :func:`~converters.foreign.caching.chained` found.
    """
    constants = {item.name: numpy_helper.to_array(item) for item in picture.initializer}
    layers: list[nn.Module] = []
    looks_back: list[int] = []
    for node in chain.nodes:
        if node.op_type == "Concat":
            looks_back.append(len(layers))
        elif node.op_type not in ("Slice", "Identity"):
            made = _LAYERS.get(node.op_type, _unknown)(node, constants)
            if made is None:
                return None
            layers.append(made)
    _raise_bent(layers)
    return ChainNetwork(layers, looks_back, chain.memories).eval()


def _unknown(node: onnx.NodeProto, constants: _Constants) -> nn.Module | None:
    return None


def _convolution(node: onnx.NodeProto, constants: _Constants) -> nn.Module | None:
    pads = attributes(node).get("pads", [0, 0, 0, 0])
    names = list(node.input[1:])
    if pads[1] != pads[3] or any(name not in constants for name in names):
        return None
    weight, *bias = (torch.from_numpy(constants[name].copy()) for name in names)
    outputs, inputs, frames, bands = weight.shape
    # Always with a bias: what comes next may have to raise it.
    layer = nn.Conv2d(inputs, outputs, (frames, bands), padding=(0, pads[1]))
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias = nn.Parameter(bias[0] if bias else torch.zeros(outputs))
    return layer


def _leaky(node: onnx.NodeProto, constants: _Constants) -> nn.Module | None:
    return nn.LeakyReLU(attributes(node).get("alpha", 0.01))


def _relu(node: onnx.NodeProto, constants: _Constants) -> nn.Module | None:
    return nn.ReLU()


def _at_least(node: onnx.NodeProto, constants: _Constants) -> nn.Module | None:
    """``Max`` with one number."""
    found = constants.get(node.input[1]) if len(node.input) == 2 else None
    return None if found is None or found.size != 1 else _Least(float(found.reshape(())))


def _pool(kind: Callable[..., nn.Module]) -> Callable[[Any, _Constants], nn.Module]:
    def made(node: onnx.NodeProto, constants: _Constants) -> nn.Module:
        return kind(tuple(attributes(node)["kernel_shape"]))

    return made


class _Least(nn.Module):
    def __init__(self, least: float) -> None:
        super().__init__()
        self.least = least

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=self.least)


_LAYERS: Final[Mapping[str, Callable[[Any, _Constants], nn.Module | None]]] = {
    "Conv": _convolution,
    "LeakyRelu": _leaky,
    "Relu": _relu,
    "Max": _at_least,
    "MaxPool": _pool(nn.MaxPool2d),
    "AveragePool": _pool(nn.AvgPool2d),
}


@torch.no_grad()
def _raise_bent(layers: list[nn.Module]) -> None:
    """Convolution, leaky ReLU, bound below: as :class:`Bent` behind a raised bias, in place."""
    for at in range(len(layers) - 2):
        convolution, bend, bound = layers[at : at + 3]
        if (
            isinstance(convolution, nn.Conv2d)
            and convolution.bias is not None
            and isinstance(bend, nn.LeakyReLU)
            and isinstance(bound, _Least)
            and bound.least < 0 < bend.negative_slope
        ):
            bent = Bent(bend.negative_slope, bound.least)
            convolution.bias.add_(bent.raised)
            layers[at + 1 : at + 3] = [bent, nn.Identity()]

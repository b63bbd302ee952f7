"""A published chain of convolutions as a PyTorch network that takes new frames only.

What :func:`~converters.foreign.caching.chained` proves of an ONNX file is described here layer by
layer, and the description and the file's weights make a network that is converted and quantized
like any of ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import onnx
import torch
from msgspec import Meta
from onnx import numpy_helper
from torch import Tensor, nn

from converters.foreign.caching import Chain, attributes

_TIME: Final = 2
_Size = Annotated[int, Meta(ge=1, le=1024)]


class Convolution(msgspec.Struct, frozen=True, tag="convolution"):
    """In time it looks back and pads nothing; ``padding`` zeros stand beside the bands."""

    inputs: _Size
    outputs: _Size
    frames: _Size
    bands: _Size
    padding: Annotated[int, Meta(ge=0, le=1024)] = 0


class Bend(msgspec.Struct, frozen=True, tag="bend"):
    """Negative values by a slope, and none below :attr:`least`."""

    slope: Annotated[float, Meta(ge=0, lt=1)]
    least: Annotated[float, Meta(lt=0)] | None = None


class Pool(msgspec.Struct, frozen=True, tag="pool"):
    """The largest of so many frames and bands."""

    frames: _Size
    bands: _Size


Layer = Convolution | Bend | Pool


class ChainNetwork(nn.Module):
    """Layers in a row, of which convolutions look back.

    Args:
        layers: of (N, C, T, bands).
        bands: of a frame.
    """

    def __init__(self, layers: Sequence[Layer], bands: int) -> None:
        super().__init__()
        self.memories: list[tuple[int, ...]] = []
        """Shape of what is remembered of one stream, in the order of the layers."""
        made: list[nn.Module] = []
        for at, layer in enumerate(layers):
            if isinstance(layer, Convolution):
                if layer.frames > 1:
                    self.memories.append((1, layer.inputs, layer.frames - 1, bands))
                bands += 2 * layer.padding - layer.bands + 1
                made.append(_convolution(layer))
            elif isinstance(layer, Pool):
                bands //= layer.bands
                made.append(nn.MaxPool2d((layer.frames, layer.bands)))
            else:
                made.append(_bend(layer, at > 0 and isinstance(layers[at - 1], Convolution)))
        self.layers = nn.ModuleList(made)

    def convolutions(self) -> list[Any]:
        """In their order, each with a bias."""
        return [layer for layer in self.layers if isinstance(layer, nn.Conv2d)]

    def forward(self, x: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        """(N, 1, new, bands) and memories to (N, C, 1, 1) and memories."""
        after: list[Tensor] = []
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d) and layer.kernel_size[0] > 1:
                x = torch.cat([before[len(after)], x], _TIME)
                after.append(x[:, :, x.shape[_TIME] - layer.kernel_size[0] + 1 :])
            x = layer(x)
        return (x, *after)


class _Raised(nn.Module):
    """``max(leaky_relu(x - raised), least)``, where ``raised`` is ``-least / slope``.

    The convolution before it ends in a plain ReLU, which costs nothing, and no step of an integer
    range is spent on what is cut off.
    """

    def __init__(self, slope: float, least: float) -> None:
        super().__init__()
        self.raised = -least / slope
        self.bend = nn.LeakyReLU(slope)

    def forward(self, x: Tensor) -> Tensor:
        bent: Tensor = self.bend(torch.relu(x) - self.raised)
        return bent


class _Least(nn.Module):
    def __init__(self, least: float) -> None:
        super().__init__()
        self.least = least

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=self.least)


def _bend(layer: Bend, after_convolution: bool) -> nn.Module:
    bend = nn.LeakyReLU(layer.slope) if layer.slope else nn.ReLU()
    if layer.least is None or not layer.slope:
        return bend  # a ReLU is never below zero
    if after_convolution:
        return _Raised(layer.slope, layer.least)
    return nn.Sequential(bend, _Least(layer.least))


def _convolution(layer: Convolution) -> nn.Conv2d:
    size = (layer.frames, layer.bands)
    return nn.Conv2d(layer.inputs, layer.outputs, size, padding=(0, layer.padding))


def described(picture: onnx.GraphProto, chain: Chain) -> tuple[Layer, ...] | None:
    """A chain's layers, or None where one is not known here, or the ends are no convolutions.

    Args:
        picture: the graph that the chain was made of.
        chain: what :func:`~converters.foreign.caching.chained` found.
    """
    constants = {item.name: numpy_helper.to_array(item) for item in picture.initializer}
    layers: list[Layer] = []
    for node in chain.nodes:
        if node.op_type in ("Concat", "Slice", "Identity"):
            continue
        before = layers[-1] if layers else None
        if node.op_type == "Max" and isinstance(before, Bend):
            layers.pop()
            found: Layer | None = _bounded(before, node, constants)
        else:
            found = _described(node, constants)
        if found is None:
            return None
        layers.append(found)
    ends = layers[:1] + layers[-1:]
    return tuple(layers) if ends and all(isinstance(end, Convolution) for end in ends) else None


def _described(node: onnx.NodeProto, constants: Mapping[str, np.ndarray]) -> Layer | None:
    facts = attributes(node)
    if node.op_type == "Conv" and all(name in constants for name in node.input[1:]):
        outputs, inputs, frames, bands = constants[node.input[1]].shape
        pads = facts.get("pads", [0, 0, 0, 0])
        even = pads[1] == pads[3]
        return Convolution(inputs, outputs, frames, bands, pads[1]) if even else None
    if node.op_type in ("Relu", "LeakyRelu"):
        return Bend(float(facts.get("alpha", 0.01)) if node.op_type == "LeakyRelu" else 0.0)
    return Pool(*facts["kernel_shape"]) if node.op_type == "MaxPool" else None


def _bounded(bend: Bend, node: onnx.NodeProto, constants: Mapping[str, np.ndarray]) -> Bend | None:
    """``Max`` with one negative number, after a bend."""
    least = constants.get(node.input[1]) if len(node.input) == 2 else None
    if bend.least is not None or least is None or least.size != 1 or not least.item() < 0:
        return None
    return Bend(bend.slope, float(least.item()))


@torch.no_grad()
def chain_network(picture: onnx.GraphProto, layers: Sequence[Layer], bands: int) -> ChainNetwork:
    """The network of a described chain, with the file's weights, in evaluation mode."""
    constants = {item.name: numpy_helper.to_array(item) for item in picture.initializer}
    network = ChainNetwork(layers, bands)
    nodes = [node for node in picture.node if node.op_type == "Conv"]
    for layer, node in zip(network.convolutions(), nodes, strict=True):
        weight, *bias = (torch.from_numpy(constants[name].copy()) for name in node.input[1:])
        layer.weight.copy_(weight)
        layer.bias.copy_(bias[0] if bias else torch.zeros(len(weight)))
    for layer, following in pairwise(network.layers):
        if isinstance(following, _Raised):
            layer.bias.add_(following.raised)  # type: ignore[operator]
    return network.eval()

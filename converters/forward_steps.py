"""The steps of a module's forward, whether they are modules or functions."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from converters.fusion import Steps

_WEIGHTED = {"conv1d", "conv2d", "conv3d", "linear", "gru", "lstm"} | {
    "conv_transpose1d",
    "conv_transpose2d",
}
_NORMS = {"batch_norm"}
_ACTIVATIONS = {"relu", "relu_", "relu6", "hardtanh", "hardtanh_", "leaky_relu", "clamp"} | {
    *("silu", "hardswish", "hardsigmoid", "sigmoid", "gelu", "tanh", "elu", "mish", "softplus")
}


def steps_of(module: nn.Module, example: tuple[torch.Tensor, ...]) -> Steps:
    """The steps of one forward, whether made by modules or by functions.

    Args:
        module: in evaluation mode.
        example: one sample.
    """
    mode = _Counting()
    with torch.inference_mode(), mode:
        module(*example)
    return Steps(
        operators=len(mode.names),
        weighted=sum(name in _WEIGHTED for name in mode.names),
        norms=sum(name in _NORMS for name in mode.names),
        activations=sum(name in _ACTIVATIONS for name in mode.names),
    )


class _Counting(TorchFunctionMode):
    """Notes the name of every function that makes a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if isinstance(result, torch.Tensor | tuple) and not name.startswith("__get"):
            self.names.append(name)
        return result

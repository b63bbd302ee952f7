"""Batch normalisations that the exporters would leave in the file, folded beforehand.

Both exporters fold a normalisation into the two-dimensional convolution before it. They do not
where one convolution is called several times (ONNX), nor behind one-dimensional ones (TFLite).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from converters.purity import flat_outputs

_CLOSE = 1e-4
"""Of the largest output: what reordering float sums may cost."""
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)


def fold_norms(module: nn.Module, example: tuple[torch.Tensor, ...]) -> nn.Module:
    """The module, or a copy that answers alike with fewer normalisations.

    Args:
        module: in evaluation mode; not changed.
        example: one sample.
    """
    pairs = _pairs(module, example)
    if not pairs:
        return module
    folded = copy.deepcopy(module)
    for conv_name, norm_name in pairs:
        conv, norm = folded.get_submodule(conv_name), folded.get_submodule(norm_name)
        turned = isinstance(conv, nn.ConvTranspose1d | nn.ConvTranspose2d)
        fused: Any = fuse_conv_bn_eval  # its types say Module where it wants a convolution
        _replace(folded, conv_name, fused(conv, norm, transpose=turned))
        _replace(folded, norm_name, nn.Identity())
    with torch.inference_mode():
        wanted, got = (flat_outputs(net(*example)) for net in (module, folded))
    alike = all(
        float((one - other).abs().max()) <= _CLOSE * max(1.0, float(one.abs().max()))
        for one, other in zip(wanted, got, strict=True)
    )
    return folded if alike else module


def _pairs(module: nn.Module, example: tuple[torch.Tensor, ...]) -> list[tuple[str, str]]:
    """Names of convolutions and of the normalisation that every call of them goes to."""
    made: dict[int, tuple[str, torch.Tensor]] = {}
    calls: dict[str, int] = {}
    followed: dict[str, list[str]] = {}

    def note(name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(layer, _CONVOLUTIONS):
            made[id(output)] = name, output  # held, so that no other tensor gets its id
            calls[name] = calls.get(name, 0) + 1
        elif inputs and id(inputs[0]) in made:
            followed.setdefault(made[id(inputs[0])][0], []).append(name)

    hooks = [
        layer.register_forward_hook(lambda m, i, o, name=name: note(name, m, i, o))
        for name, layer in module.named_modules()
        if isinstance(layer, (*_CONVOLUTIONS, nn.modules.batchnorm._BatchNorm))
    ]
    try:
        with torch.inference_mode():
            module(*example)
    finally:
        for hook in hooks:
            hook.remove()
    return [
        (name, norms[0])
        for name, norms in followed.items()
        if len(norms) == calls[name]
        and len(set(norms)) == 1
        and sum(norms[0] in others for others in followed.values()) == 1
        and (calls[name] > 1 or isinstance(module.get_submodule(name), nn.Conv1d))
    ]


def _replace(module: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, layer.eval())

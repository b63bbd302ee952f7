"""Normalisation moved from the device's preprocessing into the graph (``--fold-preprocess``).

The file then takes pixels, 0 to 255. Where the first convolution pads nothing (or pads by what the
image shows at its edge) its weights and bias absorb ``(pixel - mean) / std`` exactly; a padding of
zeros would become a padding of the mean colour, so there, and wherever the input goes elsewhere
too, one multiplication and one addition lead the graph instead. Both are compared with the
original before they are used.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from converters.loading import MARK, LoadedTask
from converters.purity import flat_outputs
from edge_sdk.contracts.manifest import Preprocess
from edge_sdk.errors import UsageError

_CLOSE = 1e-4
"""Of the largest output: what reordering float sums may cost."""


def with_folding(task: LoadedTask) -> LoadedTask:
    """The same task on pixels: its data undone, its module to be folded by :func:`fold`.

    Raises:
        UsageError: ``usage.nothing-to-fold`` when the task takes no normalised image.
    """
    same = all(mean == 0 for mean in task.preprocess.mean) and set(task.preprocess.std) == {1.0}
    if same:
        raise UsageError(
            "nothing-to-fold",
            f"{task.name} does not normalise its input: mean is 0 and std is 1.",
            "Leave --fold-preprocess out, or state the task's preprocess.",
        )
    plain = Preprocess(
        color=task.preprocess.color,
        resize=task.preprocess.resize,
        mean=(0.0,) * len(task.preprocess.mean),
        std=(1.0,) * len(task.preprocess.std),
    )
    return replace(
        task,
        ref=f"{task.ref}{MARK}",
        task=_Pixels(task.task, task.preprocess),
        preprocess=plain,
        folded=task.preprocess,
    )


class _Pixels:
    """The user's task with its samples turned back into pixels."""

    def __init__(self, task: Any, preprocess: Preprocess) -> None:
        self._task = task
        self._mean = torch.tensor(preprocess.mean).reshape(1, -1, 1, 1)
        self._std = torch.tensor(preprocess.std).reshape(1, -1, 1, 1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def example_input(self, height: int, width: int) -> Any:
        """The user's example as pixels."""
        return self._back(self._task.example_input(height, width))

    def calibration(self, height: int, width: int) -> Iterator[Any]:
        """The user's calibration batches as pixels."""
        return map(self._back, self._task.calibration(height, width))

    def evaluation(self, height: int, width: int) -> Iterator[Any]:
        """The user's evaluation batches as pixels, labels untouched."""
        return map(self._back, self._task.evaluation(height, width))

    def _back(self, batch: Any) -> Any:
        if isinstance(batch, tuple | list):
            return (self._back(batch[0]), *batch[1:])
        if isinstance(batch, torch.Tensor) and batch.ndim == 4 and batch.dtype == torch.float32:
            return batch * self._std + self._mean
        return batch  # of the wrong kind; the checks say so


class Normalised(nn.Module):
    """``module((pixels - mean) / std)`` as one multiplication and one addition."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, module: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        mean = torch.tensor(preprocess.mean).reshape(1, -1, 1, 1)
        std = torch.tensor(preprocess.std).reshape(1, -1, 1, 1)
        self.register_buffer("scale", 1 / std)
        self.register_buffer("shift", -mean / std)
        self.module = module

    def forward(self, pixels: torch.Tensor, *others: torch.Tensor) -> Any:
        """The module's answer for pixels."""
        return self.module(pixels * self.scale + self.shift, *others)


def fold(module: nn.Module, preprocess: Preprocess, example: tuple[torch.Tensor, ...]) -> nn.Module:
    """A module on pixels that answers what ``module`` answers on normalised images.

    Args:
        module: in evaluation mode; not changed.
        preprocess: mean and std of what it expects.
        example: one sample of pixels and the other inputs, float32.

    Returns:
        A copy whose first convolution absorbed the normalisation where that is exact, else the
        module behind :class:`Normalised`.
    """
    explicit = Normalised(module, preprocess).eval()
    folded = copy.deepcopy(module)
    with torch.inference_mode():
        first = _first_convolution(folded, example)
    if first is None:
        return explicit
    _absorb(first, preprocess)
    pixels = torch.rand_like(example[0]) * 255
    with torch.inference_mode():
        wanted, got = (net(pixels, *example[1:]) for net in (explicit, folded))
    return folded if _alike(wanted, got) else explicit


def _first_convolution(module: nn.Module, example: tuple[torch.Tensor, ...]) -> nn.Conv2d | None:
    """The convolution that alone reads the input and may absorb a shift; None otherwise."""
    readers: list[nn.Module] = []

    def note(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and inputs[0] is example[0] and not list(layer.children()):
            readers.append(layer)

    hooks = [layer.register_forward_pre_hook(note) for layer in module.modules()]
    try:
        module(*example)
    finally:
        for hook in hooks:
            hook.remove()
    first = readers[0] if len(readers) == 1 else None
    if not isinstance(first, nn.Conv2d) or first.groups != 1:
        return None
    pads = first.padding not in ("valid", (0, 0), 0)
    return None if pads and first.padding_mode == "zeros" else first


def _absorb(layer: nn.Conv2d, preprocess: Preprocess) -> None:
    """W' = W / std and b' = b - sum(W mean / std), over the input's channels."""
    mean = torch.tensor(preprocess.mean, dtype=torch.float64).reshape(1, -1, 1, 1)
    std = torch.tensor(preprocess.std, dtype=torch.float64).reshape(1, -1, 1, 1)
    with torch.no_grad():
        weight = layer.weight.double() / std
        shift = -(weight * mean).sum((1, 2, 3))
        bias = shift if layer.bias is None else layer.bias.double() + shift
        layer.weight = nn.Parameter(weight.float(), requires_grad=False)
        layer.bias = nn.Parameter(bias.float(), requires_grad=False)


def _alike(wanted: Any, got: Any) -> bool:
    pairs = zip(flat_outputs(wanted), flat_outputs(got), strict=True)
    return all(
        float((one - other).abs().max()) <= _CLOSE * max(1.0, float(one.abs().max()))
        for one, other in pairs
    )

"""Does a module answer the same question the same way twice?

Exporters record one run. What forward leaves behind for the next one (a hidden state kept in a
buffer or an attribute) and what it draws at random would be frozen without a word.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from converters.loading import LoadedTask
from converters.usercode import user_code
from edge_sdk.errors import TaskError


def run_twice(
    task: LoadedTask, module: nn.Module, inputs: tuple[torch.Tensor, ...], where: str
) -> Any:
    """Run the module two times; its answer.

    Args:
        task: whose code this is.
        module: in evaluation mode; state that forward mutates is left as the two runs made it.
        inputs: one sample.
        where: for messages, e.g. ``32x32``.

    Raises:
        TaskError: ``task.stateful-module`` naming what forward changes, or
            ``task.random-output``; ``task.user-code-failed``.
    """
    buffers = _buffers(module)
    with user_code(task.path, f"The module's forward at {where}"), torch.inference_mode():
        first = [part.clone() for part in flat_outputs(module(*inputs))]
        between = _state(module)
        changed = _changed(buffers, _buffers(module))
        answer = module(*inputs)
        # An attribute set once is a cache; one that changes again is a state.
        changed = changed or _changed(between, _state(module))
    if changed:
        raise TaskError(
            "stateful-module",
            f"{task.path.name}: forward changes {changed} of the module; an exported graph keeps "
            "nothing between two calls.",
            "Take the state as an input and return the new one as an output (kind = 'generic').",
        )
    for one, other in zip(first, flat_outputs(answer), strict=False):
        if one.shape == other.shape and not torch.equal(one, other) and not _both_nan(one, other):
            raise TaskError(
                "random-output",
                f"{task.path.name}: the module answers the same input differently the second time.",
                "Leave randomness out of evaluation mode: nn.Dropout does, F.dropout needs "
                "training=self.training; draw noise outside and pass it as an input.",
            )
    return answer


def flat_outputs(answer: Any) -> list[torch.Tensor]:
    """The tensors of a module's answer in order, tuples and lists opened; others left out."""
    if isinstance(answer, torch.Tensor):
        return [answer]
    if isinstance(answer, tuple | list):
        return [tensor for part in answer for tensor in flat_outputs(part)]
    return []


def _both_nan(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(one.isnan().any()) and bool(torch.equal(one.isnan(), other.isnan()))


def _buffers(module: nn.Module) -> dict[str, Any]:
    return {name: value.detach().clone() for name, value in module.named_buffers()}


def _state(module: nn.Module) -> dict[str, Any]:
    """Buffers and plain attributes that can hold what one call leaves for the next."""
    found: dict[str, Any] = {}
    for path, layer in module.named_modules():
        for name, value in (*layer.named_buffers(recurse=False), *vars(layer).items()):
            if name.startswith("_") and name not in layer._buffers:
                continue
            full = f"{path}.{name}" if path else name
            if isinstance(value, torch.Tensor):
                found[full] = value.detach().clone()
            elif value is None or isinstance(value, int | float | str):
                found[full] = value
            elif isinstance(value, tuple | list):
                found[full] = [part.detach().clone() for part in flat_outputs(value)] or len(value)
    return found


def _changed(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What differs, as one phrase; empty when nothing does."""
    names = [name for name in after if name not in before or _differ(before[name], after[name])]
    return ", ".join(repr(name) for name in names[:3])


def _differ(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return True
    if isinstance(one, torch.Tensor):
        return one.shape != other.shape or not (
            torch.equal(one, other) or _both_nan(one.float(), other.float())
        )
    if isinstance(one, list):
        pairs = zip(one, other, strict=False)
        return len(one) != len(other) or any(_differ(a, b) for a, b in pairs)
    return bool(one != other)

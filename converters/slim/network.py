"""All widths of one network over one set of weights.

Matrices and kernels are shared: a narrower width reads the beginning of the wide one's. Vectors
(norms' scales and statistics, biases) are each width's own, as in Yu et al., "Slimmable Neural
Networks" (ICLR 2019): they are small, and a narrower network's statistics are not the wide one's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from converters.slim.groups import Group, kept_positions, shapes_of
from converters.slim.narrow import narrow, tensors_of

FULL = 1.0


class SlimNetwork:
    """A module and its narrower widths.

    Args:
        module: at full width, channels sorted; its weights are what is shared.
        groups: of the module.
        kept: channels by group for each narrower width.
        shared: whether the widths share weights; otherwise each has its own.
    """

    def __init__(
        self,
        module: nn.Module,
        groups: Sequence[Group],
        kept: Mapping[float, Mapping[str, int]],
        *,
        shared: bool,
    ) -> None:
        self.module, self.groups, self.shared = module, tuple(groups), shared
        self.kept = {width: dict(counts) for width, counts in kept.items()}
        self.narrower = {width: narrow(module, groups, counts) for width, counts in kept.items()}
        shapes = shapes_of(tensors_of(module))
        self._slices: dict[float, dict[str, list[tuple[int, torch.Tensor]]]] = {}
        for width, counts in kept.items():
            cuts: dict[str, list[tuple[int, torch.Tensor]]] = {}
            for (name, axis), indexes in kept_positions(groups, counts, shapes).items():
                cuts.setdefault(name, []).append((axis, torch.tensor(indexes)))
            self._slices[width] = cuts

    @property
    def widths(self) -> tuple[float, ...]:
        """The full one first."""
        return (FULL, *sorted(self.narrower, reverse=True))

    def forward(self, width: float, inputs: Sequence[torch.Tensor]) -> Any:
        """The answer at a width; gradients reach the shared weights."""
        if width == FULL:
            return self.module(*inputs)
        small = self.narrower[width]
        if not self.shared:
            return small(*inputs)
        return torch.func.functional_call(small, self._cut(width), tuple(inputs))

    def at(self, width: float) -> nn.Module:
        """The module of a width with its weights filled in; not a copy."""
        if width == FULL:
            return self.module
        small = self.narrower[width]
        if self.shared:
            own = tensors_of(small)
            with torch.no_grad():
                for name, value in self._cut(width).items():
                    own[name].copy_(value)
        return small

    def parameters(self, *, widths: Sequence[float], private: bool = False) -> list[nn.Parameter]:
        """What training changes: everything of these widths, or only what each has for itself."""
        found: dict[int, nn.Parameter] = {}
        for width in widths:
            module = self.module if width == FULL else self.narrower[width]
            for name, parameter in module.named_parameters():
                if width != FULL and self.is_shared(name, parameter):
                    continue
                if width == FULL and private and self.is_shared(name, parameter):
                    continue
                found[id(parameter)] = parameter
        return list(found.values())

    def is_shared(self, name: str, tensor: torch.Tensor) -> bool:
        """Whether a width's tensor is cut from the full one."""
        return self.shared and tensor.ndim >= 2 and isinstance(tensor, nn.Parameter)

    def train(self, mode: bool) -> None:
        """All widths at once."""
        for module in self._modules():
            module.train(mode)

    def state(self) -> dict[str, dict[str, torch.Tensor]]:
        """Tensors of the full module (``1``) and those of each width's own, by width."""
        found = {width_key(FULL): dict(self.module.state_dict())}
        for width, small in self.narrower.items():
            tensors = small.state_dict(keep_vars=True)
            found[width_key(width)] = {
                name: tensor.detach()
                for name, tensor in tensors.items()
                if not self.is_shared(name, tensor)
            }
        return found

    def load_state(self, state: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """What :meth:`state` gave.

        Raises:
            RuntimeError, KeyError: the state is of another network.
        """
        self.module.load_state_dict(state[width_key(FULL)])
        for width, small in self.narrower.items():
            own = {**small.state_dict(), **state[width_key(width)]}
            small.load_state_dict(own)

    def _cut(self, width: float) -> dict[str, torch.Tensor]:
        full = dict(self.module.named_parameters(remove_duplicate=False))
        found = {}
        for name, own in self.narrower[width].named_parameters(remove_duplicate=False):
            if self.is_shared(name, own):
                value: torch.Tensor = full[name]
                for axis, indexes in self._slices[width].get(name, ()):
                    value = value.index_select(axis, indexes.to(value.device))
                found[name] = value
        return found

    def _modules(self) -> Iterator[nn.Module]:
        yield self.module
        yield from self.narrower.values()


def width_key(width: float) -> str:
    """A width as files name it: ``0.75``."""
    return f"{width:g}"

"""Rules for what has no weights: elementwise arithmetic, moves, pooling, sums."""

from __future__ import annotations

from typing import Any

import torch

from converters.slim import operators as ops
from converters.slim.atoms import FIXED, Labels
from converters.slim.values import Leaf, Values, arguments, distinct, shape_of, spread, varies


class MoveRules(Values):
    """Each rule returns the labels of its node's value, or None to pass."""

    def _unary(self, node: Any, name: str) -> Any:
        return self._labels(node.args[0])

    def _binary(self, node: Any, name: str) -> Any:
        shape = shape_of(node)
        found: Labels | None = None
        for argument in sorted(
            node.all_input_nodes, key=lambda a: self._leaf(a) is not None
        ):  # parameters last: they run along the channels of what they meet
            labels = self._against(argument, found, shape, node.name)
            found = labels if found is None else self._met(found, labels, node.name)
        if found is None:
            return torch.zeros(shape, dtype=torch.int64)
        return found.expand(shape) if found.shape != torch.Size(shape) else found

    def _against(
        self, argument: Any, met: Labels | None, shape: tuple[int, ...], where: str
    ) -> Labels:
        """Labels of an operand; a parameter's axes take those of the channels it runs along."""
        leaf = self._leaf(argument)
        if leaf is None or met is None:
            labels = self._labels(argument)
            return torch.zeros(1, dtype=torch.int64) if labels is None else labels
        whole, ahead = met.expand(shape), len(shape) - len(leaf.shape)
        roots = self.atoms.roots(whole)
        varied = varies(roots)
        shared = {
            axis: distinct(roots, axis)
            for axis in varied
            if axis >= ahead and 1 < leaf.shape[axis - ahead] == shape[axis]
        }
        if shared:  # along the channels, not along what was put beside them
            axis = max(shared, key=shared.__getitem__)
            self._bind(leaf, axis - ahead, self._line(whole, axis, where), where)
            return met
        return met if not varied else self._labels_or_zero(argument, varied, leaf, ahead, met)

    def _labels_or_zero(
        self, argument: Any, varied: set[int], leaf: Leaf, ahead: int, met: Labels
    ) -> Labels:
        neutral = all(axis < ahead or leaf.shape[axis - ahead] == 1 for axis in varied)
        labels = self._labels(argument)
        return met if neutral or labels is None else labels

    def _met(self, one: Labels, other: Labels, where: str) -> Labels:
        """Two operands at the same place; one that is the same for all channels is neutral."""
        for first, second in ((one, other), (other, one)):
            if self._is_neutral(second, first):
                size = torch.broadcast_shapes(first.shape, second.shape)  # type: ignore[no-untyped-call]
                return first.expand(size)
        wide, narrow = torch.broadcast_tensors(one, other)  # type: ignore[no-untyped-call]
        self.atoms.unite(wide, narrow, where)
        return torch.where(wide == FIXED, narrow, wide)

    def _is_neutral(self, labels: Labels, beside: Labels) -> bool:
        if bool((labels != FIXED).any()):
            return False
        ahead = beside.ndim - labels.ndim
        return all(axis < ahead or labels.shape[axis - ahead] == 1 for axis in varies(beside))

    def _move(self, node: Any, name: str) -> Any:
        known: dict[Any, Labels] = {}
        for argument in node.all_input_nodes:
            labels = self._labels(argument)
            if labels is None:
                return None
            known[argument] = labels
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
        found = node.target(*args, **kwargs)
        if self._tie_parts and name in ops.SPLITS:
            self._tie(next(iter(known.values())), found, node.name)
        return tuple(found) if isinstance(found, list) else found

    def _tie(self, source: Labels, found: Any, where: str) -> None:
        """Equal parts of a cut channel axis share their channels, place by place."""
        if isinstance(found, tuple | list):
            parts = [part for part in found if part.shape == found[0].shape]
            if len(parts) == len(found) and bool((source != FIXED).any()):
                for part in parts[1:]:
                    self.atoms.unite(part, parts[0], where)
            return
        for axis in range(found.ndim - 1):
            cut = found.ndim > source.ndim and found.shape[axis] > 1
            if cut and axis in varies(found) and found.shape[axis] not in source.shape:
                first = found.select(axis, 0).unsqueeze(axis).expand_as(found)
                self.atoms.unite(found, first, where)
                return

    def _spatial(self, node: Any, name: str) -> Any:
        source = self._labels(node.args[0])
        if source is None:
            return None
        channels = self._line(source, 1, node.name)
        value = node.meta["val"]
        if isinstance(value, tuple | list):
            return tuple(spread(channels, tuple(v.shape), 1) for v in value)
        return spread(channels, tuple(value.shape), 1)

    def _reduction(self, node: Any, name: str) -> Any:
        source = self._labels(node.args[0])
        if source is None or isinstance(node.meta["val"], tuple | list):
            return None
        shape, given = shape_of(node), arguments(node)
        axes = given.get("dim")
        if axes is None or axes == []:
            axes = list(range(source.ndim))
        axes = [a % source.ndim for a in ([axes] if isinstance(axes, int) else axes)]
        if varies(self.atoms.roots(source)) & set(axes):
            self.atoms.hold(source, f"is summed up by {name} at {node.name}")
        for axis in sorted(axes, reverse=True):
            source = source.select(axis, 0)
        return source.reshape(shape)

    def _along(self, node: Any, name: str) -> Any:
        source = self._labels(node.args[0])
        axis = arguments(node).get("dim")
        if source is None or not isinstance(axis, int):
            return None
        if axis % source.ndim in varies(source):
            self.atoms.hold(source, f"is compared with others by {name} at {node.name}")
        shape = shape_of(node)
        return source if source.shape == torch.Size(shape) else None

    def _pad(self, node: Any, name: str) -> Any:
        source, shape = self._labels(node.args[0]), shape_of(node)
        if source is None:
            return None
        for axis, (before, after) in enumerate(zip(source.shape, shape, strict=True)):
            if before != after:
                if axis in varies(source):
                    return None
                source = source.select(axis, 0).unsqueeze(axis)
        return source.expand(shape)

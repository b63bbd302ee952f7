"""Rules for layers with weights: where channels are made and where they are read."""

from __future__ import annotations

from typing import Any

import torch

from converters.slim.atoms import FIXED, Labels
from converters.slim.values import LayerUse, Leaf, Values, area, arguments, shape_of, spread, varies


class LayerRules(Values):
    """Convolutions, linear layers, norms and attention. Each rule returns None to pass."""

    def _convolution(self, node: Any, name: str) -> Any:
        given = arguments(node)
        source, weight = self._labels(given["input"]), self._leaf(given["weight"])
        if source is None or weight is None:
            return None
        where, groups = node.name, int(given["groups"])
        incoming = self._line(source, 1, where)
        outgoing = self._written(weight, 0)
        if groups == 1:
            self._read(weight, 1, incoming, where)
        else:
            self._tie_groups(incoming, outgoing, groups, where)
        self._bind(self._leaf(given.get("bias")), 0, outgoing, where)
        shape = shape_of(node)
        depthwise = groups > 1 and weight.shape[1] == 1
        self._use(node, weight, area(shape), source.numel(), depthwise)
        return spread(outgoing, shape, 1)

    def _tie_groups(self, incoming: Labels, outgoing: Labels, groups: int, where: str) -> None:
        """Channels of one group live and die together, so that whole groups can go."""
        inside, outside = incoming.reshape(groups, -1), outgoing.reshape(groups, -1)
        for block in (inside, outside):
            self.atoms.unite(block, inside[:, :1].expand_as(block), where)

    def _transposed(self, node: Any, name: str) -> Any:
        given = arguments(node)
        source, weight = self._labels(given["input"]), self._leaf(given["weight"])
        if source is None or weight is None or int(given["groups"]) != 1:
            return None
        self._read(weight, 0, self._line(source, 1, node.name), node.name)
        outgoing = self._written(weight, 1)
        self._bind(self._leaf(given.get("bias")), 0, outgoing, node.name)
        self._use(node, weight, area(tuple(source.shape)), source.numel(), False)
        return spread(outgoing, shape_of(node), 1)

    def _linear(self, node: Any, name: str) -> Any:
        given = arguments(node)
        source, weight = self._labels(given["input"]), self._leaf(given["weight"])
        if source is None or weight is None:
            return None
        self._read(weight, 1, self._line(source, -1, node.name), node.name)
        outgoing = self._written(weight, 0)
        self._bind(self._leaf(given.get("bias")), 0, outgoing, node.name)
        shape = shape_of(node)
        self._use(node, weight, torch.Size(shape[:-1]).numel(), source.numel(), False)
        return spread(outgoing, shape, len(shape) - 1)

    def _embedding(self, node: Any, name: str) -> Any:
        weight = self._leaf(arguments(node)["weight"])
        if weight is None:
            return None
        shape = shape_of(node)
        return spread(self._written(weight, 1), shape, len(shape) - 1)

    def _read(self, weight: Leaf, axis: int, labels: Labels, where: str) -> None:
        self.reads.add((weight.name, axis))
        self._bind(weight, axis, labels, where)

    def _use(self, node: Any, weight: Leaf, positions: int, inputs: int, depthwise: bool) -> None:
        kernel = torch.Size(weight.shape[2:]).numel()
        outputs = torch.Size(shape_of(node)).numel()
        self.uses.append(LayerUse(weight.name, positions, depthwise, kernel, inputs, outputs))

    def _batch_norm(self, node: Any, name: str) -> Any:
        given = arguments(node)
        source = self._labels(given["input"])
        if source is None:
            return None
        channels = self._line(source, 1, node.name)
        for key in ("weight", "bias", "running_mean", "running_var"):
            self._bind(self._leaf(given.get(key)), 0, channels, node.name)
        return source

    def _layer_norm(self, node: Any, name: str) -> Any:
        """Statistics over channels: droppable only where the caller accepts other statistics."""
        given = arguments(node)
        source = self._labels(given["input"])
        if source is None:
            return None
        axis = 1 if name == "group_norm" else -1
        channels = self._line(source, axis, node.name)
        for key in ("weight", "bias"):
            self._bind(self._leaf(given.get(key)), 0, channels, node.name)
        if name == "group_norm" or len(given.get("normalized_shape", (1,))) != 1:
            self.atoms.hold(channels, f"has statistics of several channels taken by {name}")
        self.atoms.normalise(channels)
        return source

    def _prelu(self, node: Any, name: str) -> Any:
        given = arguments(node)
        source, weight = self._labels(given["self"]), self._leaf(given["weight"])
        if source is None or weight is None:
            return None
        self._bind(weight, 0, self._line(source, 1, node.name), node.name)
        return source

    def _matmul(self, node: Any, name: str) -> Any:
        one, other = (self._labels(argument) for argument in node.args[:2])
        if one is None or other is None or one.ndim != other.ndim or one.ndim < 3:
            return None
        return self._product(one, other, shape_of(node), node.name)

    def _attention(self, node: Any, name: str) -> Any:
        query, key, value = (self._labels(argument) for argument in node.args[:3])
        if query is None or key is None or value is None or query.ndim < 3:
            return None
        inner = (*query.shape[:-1], key.shape[-2])
        scores = self._product(query, key.transpose(-2, -1), inner, node.name)
        return None if scores is None else self._product(scores, value, shape_of(node), node.name)

    def _product(
        self, one: Labels, other: Labels, shape: tuple[int, ...], where: str
    ) -> Labels | None:
        """(..., M, K) by (..., K, N): each leading index is a head, dropped as a whole."""
        batch = torch.Size(shape[:-2])
        sides = (one, other)
        if any(axis < side.ndim - 2 for side in sides for axis in varies(side)):
            blocks = [side.expand(*batch, *side.shape[-2:]).flatten(-2) for side in sides]
            labelled = [block for block in blocks if bool((block != FIXED).any())]
            first = labelled[0][..., :1]
            for block in labelled:
                self.atoms.unite(block, first.expand_as(block), where)
            return first.unsqueeze(-1).expand(shape)
        along = varies(one) - {one.ndim - 1}, varies(other) - {other.ndim - 2}
        if not any(along):
            self.atoms.unite(self._line(one, -1, where), self._line(other, -2, where), where)
            return torch.zeros(shape, dtype=torch.int64)
        if not varies(one) and varies(other) == {other.ndim - 1}:
            return other[..., :1, :].expand(shape)
        return None

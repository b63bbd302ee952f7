"""Channels followed through an exported program.

Each value of the program gets a tensor of labels: which channel (atom) each element belongs to.
Operators that move elements are simply run on the labels; layers with weights read the labels of
one axis and give their outputs new ones; everything that combines elements unites their atoms.
What no rule covers holds its channels back, with the reason.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from converters.slim import operators as ops
from converters.slim.layer_rules import LayerRules
from converters.slim.move_rules import MoveRules
from converters.slim.values import Leaf, op_name


class Walk(LayerRules, MoveRules):
    """One pass over a program, batch of 1."""

    def run(self, module: nn.Module, inputs: Sequence[torch.Tensor]) -> None:
        """Follow the channels of a module in evaluation mode through one sample."""
        with warnings.catch_warnings():  # recurrent layers keep a list of their own weights
            warnings.filterwarnings("ignore", "The tensor attributes? self")
            program = torch.export.export(module, tuple(inputs))
        signature = program.graph_signature
        names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        for node in program.graph.nodes:
            if node.op == "placeholder":
                self._values[node] = self._placeholder(node, names)
            elif node.op == "call_function":
                self._values[node] = self._call(node)
            elif node.op == "output":
                self._hold_all(node, "is an output of the network")

    def _placeholder(self, node: Any, names: dict[str, str]) -> Any:
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            return None
        if node.name in names:
            return Leaf(names[node.name], tuple(value.shape))
        return torch.zeros(value.shape, dtype=torch.int64)

    def _call(self, node: Any) -> Any:
        if node.target is operator.getitem:
            source = self._values[node.args[0]]
            return source[node.args[1]] if isinstance(source, tuple | list) else None
        name = op_name(node)
        rule = self._rule(name)
        if rule is not None:
            found = rule(node, name)
            if found is not None:
                return found
        return self._unknown(node, name)

    def _rule(self, name: str) -> Callable[[Any, str], Any] | None:
        for names, rule in (
            (ops.UNARY, self._unary),
            (ops.BINARY, self._binary),
            (ops.MOVES, self._move),
            (ops.CONVOLUTIONS, self._convolution),
            (ops.TRANSPOSED, self._transposed),
            (ops.BATCH_NORMS, self._batch_norm),
            (ops.SPATIAL, self._spatial),
            (ops.REDUCTIONS, self._reduction),
            (ops.ALONG, self._along),
            (ops.PADS, self._pad),
            ({"linear"}, self._linear),
            ({"layer_norm", "group_norm", "rms_norm"}, self._layer_norm),
            ({"prelu"}, self._prelu),
            ({"embedding"}, self._embedding),
            ({"matmul", "bmm"}, self._matmul),
            ({"scaled_dot_product_attention"}, self._attention),
        ):
            if name in names:
                return rule
        return None

    def _unknown(self, node: Any, name: str) -> Any:
        """No rule: nothing that goes in may be dropped, nothing that comes out has channels."""
        what = "is computed by a recurrent" if name in ops.RECURRENT else "goes through an"
        reason = f"{what} operator without a rule ({name or node.target})"
        self._hold_all(node, reason)
        for argument in node.all_input_nodes:
            leaf = self._leaf(argument)
            if leaf is not None:
                self.refused.setdefault(leaf.name.rpartition(".")[0] or leaf.name, reason)
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            return torch.zeros(value.shape, dtype=torch.int64)
        if isinstance(value, tuple | list):
            return tuple(
                torch.zeros(v.shape, dtype=torch.int64) if isinstance(v, torch.Tensor) else None
                for v in value
            )
        return None

"""Looking into a traced module: what stands at a node."""

from __future__ import annotations

from typing import Any

from torch import fx


def module_of(graph: fx.GraphModule, node: fx.Node | None) -> Any:
    """The module that a node calls; None where it calls none."""
    if node is None or node.op != "call_module":
        return None
    return graph.get_submodule(str(node.target))

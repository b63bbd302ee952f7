"""Lints a file against every accelerator of a profile, and says what the fallbacks cost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from converters.linting.source import read_graph
from device_profiles.latency import predict, uncalibrated
from device_profiles.lint import FORMATS, Graph, Lint, Node, limits_for, lint
from edge_sdk.contracts.operating_point import LatencyBand
from edge_sdk.contracts.profile import Constraints, DeviceProfile


@dataclass(frozen=True, slots=True)
class FileLint:
    """A file on one accelerator, through one runtime."""

    path: Path
    accelerator: str
    lint: Lint
    nodes: int
    """Operators of the graph."""
    cpu: LatencyBand | None
    """Expected time of the nodes left to the CPU; None when the CPU is uncalibrated."""
    cpu_unknown: str
    """Why :attr:`cpu` is None."""
    transfer_ms: float | None
    """Least time to carry the activations over between the units; None: bandwidth unknown."""
    source: str
    """Of the constraints."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return {
            "file": str(self.path),
            "accelerator": self.accelerator,
            "runtime": self.lint.runtime,
            "clean": self.lint.clean,
            "nodes": self.nodes,
            "fallback": list(self.lint.fallback),
            "partitions": self.lint.partitions,
            "crossing_bytes": self.lint.crossing_bytes,
            "cpu": msgspec.to_builtins(self.cpu) if self.cpu else None,
            "cpu_unknown": self.cpu_unknown,
            "transfer_ms": self.transfer_ms,
            "findings": [
                {"rule": f.rule, "node": f.node, "op": f.op, "module": f.module, "why": f.why}
                for f in self.lint.findings
            ],
            "source": self.source,
        }


def lint_file(path: Path, profile: DeviceProfile) -> list[FileLint]:
    """A file against each accelerator runtime of its format; empty when the profile has none.

    Raises:
        ConversionError: the file cannot be read.
    """
    return lint_graph(path, read_graph(path), profile)


def lint_graph(path: Path, graph: Graph, profile: DeviceProfile) -> list[FileLint]:
    """As :func:`lint_file`, of a file that has been read."""
    return [
        _against(path, graph, profile, unit.name, limits)
        for unit, limits in limits_for(profile, graph.format)
    ]


def _against(
    path: Path, graph: Graph, profile: DeviceProfile, accelerator: str, limits: Constraints
) -> FileLint:
    found = lint(graph, limits)
    where = {
        "runtime": next(name for name, kind in FORMATS.items() if kind == graph.format),
        "scheme": scheme_of(graph),
        "threads": profile.default_threads,
    }
    band = predict(profile, found.costs, **where) if found.costs else None  # type: ignore[arg-type]
    unknown = ""
    if found.costs and band is None:
        unknown = uncalibrated(profile, **where)  # type: ignore[arg-type]
    bandwidth = limits.transfer_gb_s or profile.memory.bandwidth_gb_s
    return FileLint(
        path=path,
        accelerator=accelerator,
        lint=found,
        nodes=len(graph.nodes),
        cpu=band,
        cpu_unknown=unknown,
        transfer_ms=found.crossing_bytes / bandwidth / 1e6 if bandwidth else None,
        source=limits.source,
    )


def scheme_of(graph: Graph) -> str:
    """The scheme that prices the graph on a CPU: int8 when most weighted layers compute in it."""
    weighted = [node for node in graph.nodes if node.cost.macs]
    integers = sum(_in_integers(node, graph) for node in weighted)
    return "static_wi8_ai8" if weighted and 2 * integers > len(weighted) else "fp32"


def float_share(graph: Graph) -> float:
    """Share of the multiplications that a graph does in floats, 0..1."""
    total = sum(node.cost.macs for node in graph.nodes)
    floats = sum(node.cost.macs for node in graph.nodes if not _in_integers(node, graph))
    return floats / total if total else 0.0


def _in_integers(node: Node, graph: Graph) -> bool:
    into = [graph.tensors.get(name) for name in node.inputs[:2]]  # activations and weights
    return bool(into) and all(one is not None and one.dtype in ("int8", "uint8") for one in into)

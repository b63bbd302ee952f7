"""The published timings that the shipped cost rows are fitted to, and the networks' layers.

``data/networks.json`` and ``data/timings.json`` are derived facts, written by
``benchmarks/derive_networks.py``; each names its source.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Literal

import msgspec

from device_profiles.fit import Network, network_of
from device_profiles.latency import LayerCost, LayerKind


class _Networks(msgspec.Struct, frozen=True):
    source: str
    networks: dict[str, list[tuple[str, int, int, int, int]]]


class TimingRow(msgspec.Struct, frozen=True):
    """Measured networks on one board, in one way."""

    board: str
    section: str
    """Heading of the board in the source."""
    threads: int
    half: bool
    """The float runs compute in half precision."""
    precision: Literal["float", "int8"]
    ms: dict[str, float]
    """Milliseconds by network."""


class _Timings(msgspec.Struct, frozen=True):
    source: str
    rows: list[TimingRow]


@dataclass(frozen=True)
class Published:
    """Both tables."""

    rows: tuple[TimingRow, ...]
    source: str
    layers: dict[str, tuple[tuple[str, int, int, int, int], ...]]
    """By network: kind, MACs, elements of weights, elements moved, how often."""

    def networks(self, element_bytes: int) -> dict[str, Network]:
        """Every network at an element size, for the fit.

        Args:
            element_bytes: 4 for fp32, 2 for fp16, 1 for int8.
        """
        return {name: network_of(costs(rows, element_bytes)) for name, rows in self.layers.items()}


def load_published() -> Published:
    """Read both tables of the package."""
    data = resources.files("device_profiles") / "data"
    networks = msgspec.json.decode((data / "networks.json").read_bytes(), type=_Networks)
    timings = msgspec.json.decode((data / "timings.json").read_bytes(), type=_Timings)
    layers = {name: tuple(rows) for name, rows in networks.networks.items()}
    return Published(tuple(timings.rows), timings.source, layers)


def costs(
    rows: tuple[tuple[str, int, int, int, int], ...], element_bytes: int
) -> tuple[LayerCost, ...]:
    """Layer costs of a network at an element size.

    Scalar operators run in fp32 whatever the precision. ncnn keeps the weights of linear layers in
    half precision even on cores that cannot compute in it.
    """
    found: list[LayerCost] = []
    for kind, macs, weights, moved, count in rows:
        wide = 4 if kind == "scalar" else element_bytes
        weight_bytes = min(element_bytes, 2) if kind == "linear" else wide
        name: LayerKind = "pointwise" if kind == "linear" else msgspec.convert(kind, LayerKind)
        layer = LayerCost(name, macs, weights * weight_bytes + moved * wide, moved * wide)
        found.extend([layer] * count)
    return tuple(found)

"""What a narrowed network costs, without building it: multiply-accumulates or predicted time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from converters.costs import LayerSize, layer_costs
from converters.schemes import parse_scheme
from converters.slim.groups import Group
from converters.slim.values import LayerUse
from device_profiles.latency import predict
from edge_sdk.contracts.operating_point import RuntimeName
from edge_sdk.contracts.profile import DeviceProfile

Kept = Mapping[str, int]
"""Channels that stay, by group name; groups not named stay whole."""


class Cost(Protocol):
    """Cost of one inference when some channels are dropped; never rises as more are."""

    def __call__(self, kept: Kept) -> float: ...


@dataclass(frozen=True, slots=True)
class _Part:
    group: str
    size: int
    each: int
    """Indexes along the axis per channel."""


@dataclass(frozen=True, slots=True)
class _Axis:
    length: int
    reads: bool
    parts: tuple[_Part, ...]

    def at(self, kept: Kept) -> int:
        return self.length - sum(
            (part.size - kept.get(part.group, part.size)) * part.each for part in self.parts
        )


@dataclass(frozen=True, slots=True)
class _Layer:
    use: LayerUse
    axes: tuple[_Axis, ...]

    def size(self, kept: Kept) -> LayerSize:
        lengths = [axis.at(kept) for axis in self.axes]
        weights = math.prod(lengths)
        shares = {axis.reads: n / axis.length for axis, n in zip(self.axes, lengths, strict=True)}
        outward = next(
            (n / a.length for a, n in zip(self.axes, lengths, strict=True) if not a.reads), 1.0
        )
        inward = shares.get(True, outward if self.use.depthwise else 1.0)
        kind = "pointwise" if self.use.kernel == 1 else "dense"
        return LayerSize(
            "depthwise" if self.use.depthwise else kind,  # type: ignore[arg-type]
            macs=self.use.positions * weights,
            weights=weights,
            activations=round(self.use.inputs * inward + self.use.outputs * outward),
        )


class Layers:
    """The layers with weights of a module as functions of the kept channels.

    Args:
        uses: as the walk saw them.
        groups: what may be narrowed.
        shapes: of the full module's tensors.
    """

    def __init__(
        self,
        uses: Sequence[LayerUse],
        groups: Sequence[Group],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        reads = {(e.tensor, e.axis): e.reads for group in groups for e in group.entries}
        parts: dict[tuple[str, int], list[_Part]] = {}
        for group in groups:
            for entry in group.entries:
                part = _Part(group.name, group.size, len(entry.positions[0]))
                parts.setdefault((entry.tensor, entry.axis), []).append(part)
        self._layers = [
            _Layer(
                use,
                tuple(
                    _Axis(
                        length,
                        reads.get((use.weight, axis), axis == 1 and not use.depthwise),
                        tuple(parts.get((use.weight, axis), ())),
                    )
                    for axis, length in enumerate(shapes[use.weight])
                ),
            )
            for use in uses
        ]

    def sizes(self, kept: Kept) -> list[LayerSize]:
        """The layers of the narrowed network."""
        return [layer.size(kept) for layer in self._layers]

    def macs(self, kept: Kept) -> float:
        """Multiply-accumulates of the layers with weights."""
        return float(sum(size.macs for size in self.sizes(kept)))


def latency_cost(
    layers: Layers, profile: DeviceProfile, *, runtime: RuntimeName, scheme: str
) -> Cost | None:
    """Predicted milliseconds on a profile; None where it is uncalibrated for that."""

    def cost(kept: Kept) -> float:
        band = _predict(layers, profile, runtime, scheme, kept)
        return band if band is not None else math.inf

    return cost if _predict(layers, profile, runtime, scheme, {}) is not None else None


def _predict(
    layers: Layers, profile: DeviceProfile, runtime: RuntimeName, scheme: str, kept: Kept
) -> float | None:
    band = predict(
        profile,
        layer_costs(layers.sizes(kept), parse_scheme(scheme)),
        runtime=runtime,
        scheme=scheme,
        threads=profile.default_threads,
    )
    return band.mid_ms if band is not None else None

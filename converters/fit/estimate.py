"""From profiles and cost graphs to candidates: what is known before anything is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from converters.costs import LayerSize, layer_costs
from converters.fit.search import Facts, Limits, Point
from converters.results import FORMAT_OF
from converters.schemes import SUPPORTED, builds, mixed_name, parse_scheme
from device_profiles.latency import predict
from edge_sdk.contracts.operating_point import LatencyBand
from edge_sdk.contracts.profile import DeviceProfile

MIB = 1024**2
_STRUCTURE_SHARE = 0.1
"""Of a float file that is not weights, at most, for the least size of a quantized one."""


@dataclass(frozen=True, slots=True)
class Graph:
    """The module at one width and resolution."""

    width: float
    size: str
    layers: list[LayerSize]
    float_bytes: int
    """Of the float ONNX file."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What the user lets the search vary; empty is everything."""

    schemes: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    threads: tuple[int, ...] = ()


def limits_of(profile: DeviceProfile) -> Limits:
    """The hard limits of a profile."""
    return Limits(
        schemes={support.name: _runs(support.schemes) for support in profile.runtimes},
        max_threads=sum(cluster.cores for cluster in profile.cpu),
        memory_mib=min(profile.memory.variants_mib) * profile.memory.usable_share,
        max_model_mib=profile.max_model_mib,
    )


def _runs(schemes: Sequence[str]) -> frozenset[str]:
    """What runs where these do: a mixed file needs nothing but both of its kinds of layers."""
    static = [name for name in schemes if parse_scheme(name).mode == "static"]
    mixed = {mixed_of(name) for name in static if "fp32" in schemes}
    return frozenset(schemes) | mixed


def mixed_of(scheme: str) -> str:
    """The scheme that a rescue turns a static one into; any other as it is."""
    return mixed_name(scheme) if parse_scheme(scheme).mode == "static" else scheme


def thread_counts(profile: DeviceProfile, choices: Choices) -> list[int]:
    """Thread counts worth telling apart: one, the default, and those the cost model knows."""
    if choices.threads:
        return sorted(set(choices.threads))
    rows = {row.threads for row in profile.cost if row.unit == "cpu"}
    cores = sum(cluster.cores for cluster in profile.cpu)
    return sorted(n for n in {1, profile.default_threads} | rows if n <= cores)


def estimates(profile: DeviceProfile, graphs: Sequence[Graph], choices: Choices) -> Iterator[Facts]:
    """Every candidate of a profile; fewer threads come first.

    Schemes that the user named come in even where the profile does not run them, so that the
    verdict can say so.
    """
    for support in profile.runtimes:
        if choices.runtimes and support.name not in choices.runtimes:
            continue
        named = choices.schemes or support.schemes
        kind = FORMAT_OF[support.name]
        schemes = [name for name in named if name in SUPPORTED and builds(name, kind)]
        for threads in thread_counts(profile, choices):
            for graph in graphs:
                for scheme in schemes:
                    point = Point(graph.width, graph.size, scheme, support.name, threads)
                    yield estimate(profile, graph, point)


def estimate(profile: DeviceProfile, graph: Graph, point: Point) -> Facts:
    """What is known of one candidate."""
    return Facts(
        point=point,
        model_mib=least_bytes(graph.float_bytes, point.scheme) / MIB,
        latency=prediction(profile, graph.layers, point),
    )


def prediction(
    profile: DeviceProfile, layers: list[LayerSize], point: Point, in_floats: float = 0.0
) -> LatencyBand | None:
    """The latency expected on the profile.

    Args:
        profile: the device.
        layers: of the module.
        point: how it runs.
        in_floats: share of the multiplications that an integer scheme leaves in float32.

    Returns:
        None when the profile is uncalibrated for this, or runs it on no CPU: all rows are a CPU's.
    """
    band = _predicted(profile, layers, point, point.scheme)
    if not in_floats or band is None:
        return band
    floats = _predicted(profile, layers, point, "fp32")
    return floats and _between(band, floats, in_floats)


def _predicted(
    profile: DeviceProfile, layers: list[LayerSize], point: Point, scheme: str
) -> LatencyBand | None:
    costs = layer_costs(layers, parse_scheme(scheme))
    return predict(profile, costs, runtime=point.runtime, scheme=scheme, threads=point.threads)


def _between(whole: LatencyBand, floats: LatencyBand, share: float) -> LatencyBand:
    """Of a file that does a share of its multiplications in floats."""
    return LatencyBand(
        low_ms=whole.low_ms * (1 - share) + floats.low_ms * share,
        mid_ms=whole.mid_ms * (1 - share) + floats.mid_ms * share,
        high_ms=whole.high_ms * (1 - share) + floats.high_ms * share,
        basis=f"{1 - share:.0%}: {whole.basis}; {share:.0%}: {floats.basis}",
    )


def least_bytes(float_bytes: int, scheme: str) -> int:
    """The least a file of this scheme can take: its weights alone at their own width."""
    decoded = parse_scheme(scheme)
    weights = float_bytes * (1 - _STRUCTURE_SHARE)
    return int(weights * decoded.weight_bits / 32)


def wanted_builds(points: Sequence[Point]) -> Mapping[float, dict[str, list[tuple[str, str]]]]:
    """What to build for these points: by width and format, (resolution, scheme) pairs."""
    found: dict[float, dict[str, list[tuple[str, str]]]] = {}
    for point in points:
        pairs = found.setdefault(point.width, {}).setdefault(FORMAT_OF[point.runtime], [])
        if (point.size, point.scheme) not in pairs:
            pairs.append((point.size, point.scheme))
    return found

"""Sizing: from measured artifacts to the ladder of one profile. Pure functions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from converters.costs import LayerSize, layer_costs, split_floats
from converters.results import Measured
from converters.schemes import parse_scheme
from device_profiles.latency import predict
from edge_sdk.contracts.operating_point import LatencyBand, OperatingPoint, RuntimeName
from edge_sdk.contracts.profile import DeviceProfile, RuntimeSupport
from edge_sdk.errors import ProfileError
from edge_sdk.suggest import did_you_mean

FULL_WIDTH = 1.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """An operating point with what decides about its place."""

    point: OperatingPoint
    distance: float
    """Mean absolute output difference from the full model, see :mod:`converters.measure`."""

    @property
    def cost_ms(self) -> float:
        """Predicted on the device where there is a prediction, else measured on this host."""
        predicted = self.point.predicted
        return predicted.mid_ms if predicted is not None else self.point.host_latency_ms


@dataclass(frozen=True, slots=True)
class Ladder:
    """What one profile gets."""

    runtime: RuntimeName
    points: tuple[OperatingPoint, ...]
    candidates: tuple[OperatingPoint, ...]
    """Everything that was considered, for the report."""


def choose_runtime(
    profile: DeviceProfile, available: Sequence[RuntimeName], wanted: str | None = None
) -> RuntimeSupport:
    """The profile's preferred runtime among those that artifacts exist for.

    Args:
        profile: the device.
        available: runtimes that have artifacts.
        wanted: the user's choice, which must be one of the profile's.

    Raises:
        ProfileError: ``profile.runtime-unsupported``.
    """
    names = [support.name for support in profile.runtimes]
    if wanted is not None and wanted not in names:
        raise ProfileError(
            "runtime-unsupported",
            f"{profile.id} does not run {wanted!r}.",
            did_you_mean(wanted, names),
        )
    for support in profile.runtimes:
        if support.name in available and wanted in (None, support.name):
            return support
    raise ProfileError(
        "runtime-unsupported",
        f"{profile.id} runs {', '.join(names)}; no artifact was built for that.",
        "Build the format it needs (--format), or leave this profile out.",
    )


def build_ladder(
    profile: DeviceProfile,
    measured: Sequence[Measured],
    sizes: Mapping[str, list[LayerSize]],
    *,
    runtime: str | None = None,
) -> Ladder:
    """The profile's ladder: most faithful and most expensive first, each next one cheaper.

    Args:
        profile: the device.
        measured: every verified artifact.
        sizes: fused layers by resolution (``32x32``).
        runtime: overrides the profile's preference.

    Raises:
        ProfileError: ``profile.runtime-unsupported`` or ``profile.nothing-fits``.
    """
    support = choose_runtime(profile, sorted({item.runtime for item in measured}), runtime)
    schemes = usable_schemes(support, measured)
    candidates = [
        candidate(profile, item, sizes[item.size])
        for item in measured
        if item.runtime == support.name and item.scheme in schemes and _fits(profile, item)
    ]
    if not candidates:
        raise ProfileError(
            "nothing-fits",
            f"None of the artifacts suits {profile.id}: {support.name} there runs "
            f"{', '.join(support.schemes)}{_limits(profile)}.",
            "Build one of these schemes (--schemes), or a smaller model.",
        )
    points = tuple(item.point for item in in_order(pareto(candidates)))
    return Ladder(support.name, points, tuple(item.point for item in candidates))


def usable_schemes(support: RuntimeSupport, measured: Sequence[Measured]) -> set[str]:
    """Schemes of the profile that were built; a mixed one counts as what it is mixed from."""
    built = {item.scheme for item in measured}
    return {name for name in built if name in support.schemes or _base(name) in support.schemes}


def _base(name: str) -> str:
    return str(parse_scheme(name).base)


def candidate(profile: DeviceProfile, item: Measured, sizes: list[LayerSize]) -> Candidate:
    """The operating point of one artifact on one profile."""
    threads = profile.default_threads
    predicted = _predicted(profile, item, sizes, threads)
    point = OperatingPoint(
        id=f"w{FULL_WIDTH:.2f}-{item.name}",
        artifact=item.digest,
        runtime=item.runtime,
        scheme=item.scheme,
        channel_width=FULL_WIDTH,
        height_px=item.height_px,
        width_px=item.width_px,
        threads=threads,
        accuracy=item.accuracy,
        accuracy_drop=item.accuracy_drop,
        agreement=item.agreement,
        max_output_error=item.max_output_error,
        host_latency_ms=item.latency[host_threads(threads)].median_ms,
        predicted=predicted,
        memory_mib=item.memory_mib,
    )
    return Candidate(point, item.distance)


def _predicted(
    profile: DeviceProfile, item: Measured, sizes: list[LayerSize], threads: int
) -> LatencyBand | None:
    """A mixed file's layers in float32 cost what they cost there."""

    def band(scheme: str, layers: list[LayerSize]) -> LatencyBand | None:
        costs = layer_costs(layers, parse_scheme(scheme))
        return predict(profile, costs, runtime=item.runtime, scheme=scheme, threads=threads)

    integers, floats = split_floats(sizes, item.floats)
    found = band(item.scheme, integers)
    rest = band("fp32", floats) if floats else None
    if found is None or rest is None:
        return None if floats else found
    return LatencyBand(
        low_ms=found.low_ms + rest.low_ms,
        mid_ms=found.mid_ms + rest.mid_ms,
        high_ms=found.high_ms + rest.high_ms,
        basis=f"{found.basis}; layers in float32: {rest.basis}",
    )


def host_threads(threads: int) -> int:
    """Threads to time with on this host: more than it has cores would measure the scheduler."""
    return min(threads, os.cpu_count() or 1)


def pareto(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Candidates that no other one makes superfluous.

    One is superfluous when another is no slower, no less accurate *and* no farther from the full
    model's outputs. The third axis keeps the float points above the int8 ones: on a few hundred
    samples both often have the same accuracy, but their scores are not equally good.
    """
    return [
        one
        for index, one in enumerate(candidates)
        if not any(
            _covers(other, one, earlier=position < index)
            for position, other in enumerate(candidates)
            if position != index
        )
    ]


def _covers(other: Candidate, one: Candidate, *, earlier: bool) -> bool:
    mine, theirs = _axes(one), _axes(other)
    return all(b <= a for a, b in zip(mine, theirs, strict=True)) and (mine != theirs or earlier)


def _axes(item: Candidate) -> tuple[float, float, float]:
    return item.cost_ms, -item.point.accuracy, item.distance


def in_order(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Most expensive first: stepping down must always relieve the device."""
    return sorted(candidates, key=lambda item: (-item.cost_ms, item.distance))


def _fits(profile: DeviceProfile, item: Measured) -> bool:
    limit = profile.max_model_mib
    usable = min(profile.memory.variants_mib) * profile.memory.usable_share
    return (limit is None or item.size_bytes <= limit * 1024**2) and item.memory_mib <= usable


def _limits(profile: DeviceProfile) -> str:
    usable = min(profile.memory.variants_mib) * profile.memory.usable_share
    model = f", files up to {profile.max_model_mib:g} MiB" if profile.max_model_mib else ""
    return f"{model}, {usable:.0f} MiB of memory"

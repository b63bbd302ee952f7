"""Refits a profile's cost rows to measurements of one's own; pure.

A row is drawn towards the row the profile has for the same precision and threads, so that a few
measured networks move what they can tell apart and leave the rest where it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

import msgspec
import numpy as np

from device_profiles.fit import (
    FIRM,
    PARAMETERS,
    START,
    WEAK,
    Array,
    Network,
    fit,
    leave_one_out,
    mape_percent,
    network_of,
    predict_ms,
)
from device_profiles.latency import LayerCost, choose_row
from edge_sdk.contracts.profile import CostRow, DeviceProfile
from edge_sdk.errors import ProfileError
from edge_sdk.suggest import did_you_mean

LEAST_NETWORKS = 3
Precision = Literal["fp32", "fp16", "int8"]
_SCHEMES: dict[Precision, str] = {"fp32": "fp32", "fp16": "fp16", "int8": "static_wi8_ai8"}


@dataclass(frozen=True, slots=True)
class Measurement:
    """One network, measured on the board."""

    model: str
    """Which network, at which resolution; several measurements of one are reduced to their
    median."""
    runtime: str
    precision: Precision
    threads: int
    latency_ms: float
    layers: tuple[LayerCost, ...]


@dataclass(frozen=True, slots=True)
class Refit:
    """A row, and how well it predicts networks it never saw."""

    row: CostRow
    errors: dict[str, float]
    """Signed relative error of each network, left out."""
    before_percent: float | None
    """Mean absolute error of the profile's old row on the same networks; None without one."""


def calibrate(
    profile: DeviceProfile, measurements: Sequence[Measurement], source: str
) -> tuple[DeviceProfile, list[Refit]]:
    """A profile with refitted rows, the others untouched.

    Args:
        profile: what is known so far.
        measurements: at least three networks per runtime, precision and thread count.
        source: where the measurements come from, for the rows.

    Raises:
        ProfileError: ``profile.too-few-measurements``, or ``profile.bad-measurements`` for a
            runtime or thread count that the board does not have.
    """
    _on_this_board(profile, measurements)
    groups: dict[tuple[str, Precision, int], list[Measurement]] = {}
    for item in measurements:
        groups.setdefault((item.runtime, item.precision, item.threads), []).append(item)
    if not groups:
        raise _too_few("Nothing is measured")
    refits = [
        _refit(profile, key, items, source)
        for key, items in sorted(groups.items(), key=lambda pair: str(pair[0]))
    ]
    fresh = {(r.row.runtime, r.row.precision, r.row.threads) for r in refits}
    kept = tuple(
        row
        for row in profile.cost
        if row.unit != "cpu" or (row.runtime, row.precision, row.threads) not in fresh
    )
    rows = (*(refit.row for refit in refits), *kept)
    return msgspec.structs.replace(profile, cost=rows), refits


def check_threads(profile: DeviceProfile, threads: int) -> None:
    """Refuse more threads than the profile's board has cores.

    Raises:
        ProfileError: ``profile.bad-measurements``.
    """
    cores = sum(cluster.cores for cluster in profile.cpu)
    if threads > cores:
        raise ProfileError(
            "bad-measurements",
            f"{threads} threads are measured; {profile.id} has {cores} cores.",
            "Give the number of threads that the runtime really uses, or correct [[cpu]] in a copy "
            "of the profile.",
        )


def _on_this_board(profile: DeviceProfile, measurements: Sequence[Measurement]) -> None:
    """A row that no file of the board could have given would make the profile unreadable."""
    known = {support.name for support in profile.runtimes} | {row.runtime for row in profile.cost}
    for item in measurements:
        check_threads(profile, item.threads)
        if item.runtime not in known:
            raise ProfileError(
                "bad-measurements",
                f"{item.model} is timed in {item.runtime!r}, which {profile.id} does not run.",
                did_you_mean(item.runtime, known),
            )


def _refit(
    profile: DeviceProfile,
    key: tuple[str, Precision, int],
    items: Sequence[Measurement],
    source: str,
) -> Refit:
    runtime, precision, threads = key
    by_model: dict[str, list[Measurement]] = {}
    for item in items:
        by_model.setdefault(item.model, []).append(item)
    if len(by_model) < LEAST_NETWORKS:
        raise _too_few(
            f"{runtime} {precision} on {threads} threads has {len(by_model)} measured "
            f"network{'s' if len(by_model) != 1 else ''}"
        )
    networks = {name: network_of(found[0].layers) for name, found in by_model.items()}
    times = {name: median(item.latency_ms for item in found) for name, found in by_model.items()}
    scheme = _SCHEMES[precision]
    old = choose_row(profile, runtime=runtime, scheme=scheme, threads=threads)
    prior, weight = (START, WEAK) if old is None else (theta_of(old), FIRM)
    errors = leave_one_out(networks, times, prior, weight)
    row = _row(fit(networks, times, prior, weight), key, errors, source)
    return Refit(row, errors, None if old is None else _off(old, networks, times))


def theta_of(row: CostRow) -> Array:
    """A row as parameters of the fit; kinds of layers it does not tell apart are dense."""
    dense = row.dense_gmac_s
    pointwise = row.pointwise_gmac_s or dense
    rates = [pointwise, dense, dense, row.depthwise_gmac_s, dense]
    traffic = [row.bandwidth_gb_s] * 3
    return np.log([*rates, *traffic, max(row.overhead_us, 1e-3)])


def _off(row: CostRow, networks: dict[str, Network], times: dict[str, float]) -> float:
    theta = theta_of(row)
    errors = {name: predict_ms(theta, net) / times[name] - 1 for name, net in networks.items()}
    return mape_percent(errors)


def _row(
    theta: Array, key: tuple[str, Precision, int], errors: dict[str, float], source: str
) -> CostRow:
    found = {name: float(f"{math.exp(value):.4g}") for name, value in zip(PARAMETERS, theta,
                                                                          strict=True)}  # fmt: skip
    return CostRow(
        runtime=key[0],
        precision=key[1],
        unit="cpu",
        threads=key[2],
        dense_gmac_s=found["dense"],
        pointwise_gmac_s=found["pointwise"],
        depthwise_gmac_s=found["depthwise"],
        bandwidth_gb_s=found["bandwidth"],
        overhead_us=found["overhead"],
        models=len(errors),
        error_percent=max(round(mape_percent(errors), 1), 0.1),
        worst_percent=max(round(100 * max(map(abs, errors.values())), 1), 0.1),
        source=source,
    )


def _too_few(cause: str) -> ProfileError:
    return ProfileError(
        "too-few-measurements",
        f"{cause}; a fit needs {LEAST_NETWORKS}.",
        "Measure more networks, of different size and kind: edge model bench on the board.",
    )

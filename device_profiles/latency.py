"""Predicts a network's latency on a profile's device: a roofline per fused layer.

Each layer takes the longer of computing and moving its data (Williams, Waterman and Patterson,
"Roofline", CACM 2009), with one rate for dense and one for depthwise convolutions, plus a fixed
overhead. The prediction is a band; its width is the error that the coefficients showed on
networks left out of their fit, and the error of using them for another runtime or board.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edge_sdk.contracts.operating_point import LatencyBand
from edge_sdk.contracts.profile import CostRow, DeviceProfile

_GIGA = 1e9

LayerKind = Literal["dense", "pointwise", "depthwise", "memory", "winograd", "ragged", "scalar"]
"""``pointwise``: 1x1 convolutions and matrix products. ``winograd``: 3x3 with stride 1 on a runtime
that has such kernels. ``ragged``: output channels that do not fill a vector. ``scalar``: softmax,
permutation and the like. The last three only occur in fits of ncnn's timings."""

COARSE_PERCENT = 20.0
"""A row with a larger leave-one-out error is coarse: its band says so and is widened."""


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One fused layer (a convolution with its bias and activation, a pooling, an addition...)."""

    kind: LayerKind
    macs: int
    """Multiply-accumulates; 0 for ``memory``."""
    bytes: int
    """Weights, inputs and outputs at the precision's own element size."""
    moved: int = 0
    """Inputs and outputs alone, where a fit needs them; 0 when it does not."""


def predict(
    profile: DeviceProfile,
    layers: Sequence[LayerCost],
    *,
    runtime: str,
    scheme: str,
    threads: int,
) -> LatencyBand | None:
    """Expected latency of a network on the profile's CPU.

    Args:
        profile: the device.
        layers: the network's fused layers, in any order.
        runtime: what will run it.
        scheme: its quantization scheme, e.g. ``static_wi8_ai8``.
        threads: CPU threads.

    Returns:
        A band in milliseconds, or None when the profile has no row for this combination;
        :func:`uncalibrated` says so in words.
    """
    row = choose_row(profile, runtime=runtime, scheme=scheme, threads=threads)
    if row is None:
        return None
    mid_ms = sum(layer_ms(row, layer) for layer in layers)
    error = error_of(row, runtime)
    return LatencyBand(
        low_ms=mid_ms / (1 + error),
        mid_ms=mid_ms,
        high_ms=mid_ms * (1 + error),
        basis=_basis(row, runtime, threads),
    )


def choose_row(
    profile: DeviceProfile, *, runtime: str, scheme: str, threads: int
) -> CostRow | None:
    """The row that fits best: the most threads, then the runtime's own before a stand-in.

    A row for fewer threads than asked for is used (it errs on the slow side), one for more never.
    """
    if not falls_back(profile, runtime):
        return None  # all rows are a CPU's
    wanted = precision_of(scheme)
    fitting = [
        row
        for row in profile.cost
        if row.unit == "cpu"
        and row.precision == wanted
        and (row.runtime == runtime or runtime in row.transfer_percent)
        and row.threads <= threads
    ]
    return max(fitting, key=lambda row: (row.threads, row.runtime == runtime), default=None)


def falls_back(profile: DeviceProfile, runtime: str) -> bool:
    """Whether the CPU runs what no accelerator takes."""
    return all(known.cpu_fallback for known in profile.runtimes if known.name == runtime)


def precision_of(scheme: str) -> Literal["fp32", "fp16", "int8"]:
    """The arithmetic a scheme runs in; half-precision weights alone still compute in fp32."""
    if "wi8" in scheme:
        return "int8"
    return "fp16" if scheme == "fp16" else "fp32"


def layer_ms(row: CostRow, layer: LayerCost) -> float:
    """Milliseconds of one layer."""
    rate = row.dense_gmac_s
    if layer.kind == "depthwise":
        rate = row.depthwise_gmac_s
    elif layer.kind == "pointwise":
        rate = row.pointwise_gmac_s or rate
    compute_s = layer.macs / (rate * _GIGA)
    traffic_s = layer.bytes / (row.bandwidth_gb_s * _GIGA)
    return max(compute_s, traffic_s) * 1e3 + row.overhead_us / 1e3


def error_of(row: CostRow, runtime: str) -> float:
    """Relative half-width of the band, e.g. 0.2.

    A coarse row's band is as wide as the worst network of its fit, not as the average one.
    """
    own = row.worst_percent or row.error_percent if is_coarse(row) else row.error_percent
    return (max(own, row.error_percent) + row.transfer_percent.get(runtime, 0.0)) / 100


def is_coarse(row: CostRow) -> bool:
    """Whether a row misses the error that a calibrated one may have."""
    return row.error_percent > COARSE_PERCENT


def profile_mape_percent(profile: DeviceProfile) -> float | None:
    """Leave-one-out error over all rows, each network counting once; None when uncalibrated.

    Rows derived from another one (fp32 from fp16) repeat its error and count once.
    """
    rows = {(r.runtime, r.threads, r.models, r.error_percent): r for r in profile.cost}.values()
    models = sum(row.models for row in rows)
    return sum(row.error_percent * row.models for row in rows) / models if models else None


def uncalibrated(profile: DeviceProfile, *, runtime: str, scheme: str, threads: int) -> str:
    """Why there is no prediction, for a person."""
    wanted = precision_of(scheme)
    if not falls_back(profile, runtime):
        return f"{profile.id} runs {runtime} on its accelerator alone, which no row describes."
    if not profile.cost:
        return f"{profile.id} is uncalibrated: no public measurement stands behind it."
    return (
        f"{profile.id} has no cost row for {wanted} on {runtime} with {threads} threads or fewer."
    )


def _basis(row: CostRow, runtime: str, threads: int) -> str:
    fitted = f"{row.runtime} {row.precision}, {row.threads} threads, {row.models} models"
    parts = [f"{fitted}, leave-one-out error {row.error_percent:.0f} %"]
    if is_coarse(row):
        parts.append("coarse, widened to its worst network")
    if row.threads != threads:
        parts.append(f"no row for {threads} threads")
    if row.device:
        parts.append(f"measured on {row.device}")
    if runtime in row.transfer_percent:
        parts.append(f"used for {runtime}, further error {row.transfer_percent[runtime]:.0f} %")
    return "; ".join(parts)

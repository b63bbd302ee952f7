"""Accuracy against latency for one profile, as a PNG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from edge_sdk.contracts.operating_point import OperatingPoint
from edge_sdk.contracts.profile import DeviceProfile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from converters.ladder import Ladder

_COLOURS = {
    "fp32": "#1f4e79",
    "wfp16": "#2e86ab",
    "dynamic_wi8_afp32": "#f18f01",
    "static_wi8_ai8": "#c73e1d",
}
_MARKERS = ("o", "s", "^", "D", "v", "P")


def ladder_plot(profile: DeviceProfile, ladder: Ladder) -> bytes:
    """Candidates in grey, the ladder's points in colour with their latency bands."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.4), dpi=144, layout="constrained")
    axes = figure.add_subplot()
    chosen = {point.id for point in ladder.points}
    sizes = list(dict.fromkeys((p.height_px, p.width_px) for p in ladder.candidates))
    for point in sorted(ladder.candidates, key=lambda candidate: candidate.id in chosen):
        marker = _MARKERS[sizes.index((point.height_px, point.width_px)) % len(_MARKERS)]
        _draw(axes, point, marker, on_ladder=point.id in chosen)
    steps = [(_latency(point), point.accuracy * 100) for point in ladder.points]
    axes.plot(*zip(*steps, strict=True), color="#888888", linewidth=1, zorder=1)
    _finish(axes, profile, ladder)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw(axes: Axes, point: OperatingPoint, marker: str, *, on_ladder: bool) -> None:
    colour = _COLOURS.get(point.scheme, "#555555") if on_ladder else "#c8c8c8"
    x, y = _latency(point), point.accuracy * 100
    if on_ladder and point.predicted is not None:
        spread = [[x - point.predicted.low_ms], [point.predicted.high_ms - x]]
        axes.errorbar(x, y, xerr=spread, color=colour, alpha=0.35, linewidth=3, zorder=2)
    label = f"{point.height_px}x{point.width_px} {point.scheme}" if on_ladder else None
    axes.scatter(x, y, s=64, color=colour, marker=marker, zorder=3, label=label, edgecolors="white")


def _finish(axes: Axes, profile: DeviceProfile, ladder: Ladder) -> None:
    predicted = ladder.points[0].predicted is not None
    where = f"predicted on {profile.title}" if predicted else "measured on the converting host"
    axes.set_xlabel(f"latency, ms ({where})")
    axes.set_ylabel("accuracy, %")
    axes.set_xlim(left=0)
    values = [point.accuracy * 100 for point in ladder.candidates]
    margin = max(1.0, (max(values) - min(values)) * 0.3)
    axes.set_ylim(min(values) - margin, min(100.5, max(values) + margin))
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="best")


def _latency(point: OperatingPoint) -> float:
    return point.predicted.mid_ms if point.predicted is not None else point.host_latency_ms

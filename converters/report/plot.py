"""Accuracy against latency for one profile, as a PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edge_sdk.contracts.operating_point import OperatingPoint
from edge_sdk.contracts.profile import DeviceProfile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from converters.ladder import Ladder

_COLOURS = {
    "fp32": "#1f4e79",
    "mixed_fp16_fp32": "#4fb0a5",
    "weight_only_wi8_afp32": "#7a5195",
    "static_wi8_ai16": "#8c564b",
    "mixed_static_wi8_ai8_fp32": "#e06c9f",
    "static_wi8_au8": "#9c2a10",
    "wfp16": "#2e86ab",
    "dynamic_wi8_afp32": "#f18f01",
    "static_wi8_ai8": "#c73e1d",
}
_BARS = 16
"""Layers shown in a sensitivity plot."""
_MARKERS = ("o", "s", "^", "D", "v", "P")


_LARGEST = 420.0
_SMALLEST = 24.0
"""Area of a marker in square points, for the largest file and the least there is."""


def ladder_plot(
    profile: DeviceProfile, ladder: Ladder, sizes: Mapping[str, int], *, score: str = "accuracy"
) -> bytes:
    """Candidates in grey, the ladder's points in colour with their latency bands.

    Args:
        profile: the device.
        ladder: its points and candidates.
        sizes: bytes of each artifact by digest; a marker's area grows with them.
        score: what the vertical axis is called.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 3.3), dpi=144, layout="constrained")
    axes = figure.add_subplot()
    chosen = {point.id for point in ladder.points}
    largest = max((sizes.get(p.artifact, 0) for p in ladder.candidates), default=0) or 1
    resolutions = list(dict.fromkeys((p.height_px, p.width_px) for p in ladder.candidates))
    for point in sorted(ladder.candidates, key=lambda candidate: candidate.id in chosen):
        marker = _MARKERS[resolutions.index((point.height_px, point.width_px)) % len(_MARKERS)]
        area = max(_SMALLEST, _LARGEST * sizes.get(point.artifact, 0) / largest)
        _draw(axes, point, marker, area, on_ladder=point.id in chosen)
    steps = [(latency(point), point.accuracy * 100) for point in ladder.points]
    axes.plot(*zip(*steps, strict=True), color="#888888", linewidth=1, zorder=1)
    _finish(axes, profile, ladder, score)
    axes.set_title(
        f"area: file size, the largest {largest / 1024:.0f} KiB", fontsize=8, loc="right"
    )
    return _png(figure)


ALONE = "signal to noise of the output with this layer alone quantized, dB"


def sensitivity_plot(
    scores: Sequence[tuple[str, float]], kept: frozenset[str], *, what: str = ALONE
) -> bytes:
    """Bars of the signal that layers leave, the worst on top.

    Args:
        scores: layer and SQNR in dB, the worst first.
        kept: layers that stayed in float because of it.
        what: is shown, with its unit.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    shown = scores[:_BARS]
    figure = Figure(figsize=(7.2, 0.9 + 0.24 * len(shown)), dpi=144, layout="constrained")
    axes = figure.add_subplot()
    names = [name if len(name) <= 40 else f"…{name[-39:]}" for name, _ in shown]
    colours = ["#c73e1d" if name in kept else "#2e86ab" for name, _ in shown]
    axes.barh(range(len(shown)), [value for _, value in shown], color=colours)
    axes.set_yticks(range(len(shown)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(what, fontsize=8)
    axes.grid(axis="x", alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw(axes: Axes, point: OperatingPoint, marker: str, area: float, *, on_ladder: bool) -> None:
    colour = _COLOURS.get(point.scheme, "#555555") if on_ladder else "#c8c8c8"
    x, y = latency(point), point.accuracy * 100
    if on_ladder and point.predicted is not None:
        spread = [[x - point.predicted.low_ms], [point.predicted.high_ms - x]]
        axes.errorbar(x, y, xerr=spread, color=colour, alpha=0.35, linewidth=3, zorder=2)
    label = f"{point.height_px}x{point.width_px} {point.scheme}" if on_ladder else None
    axes.scatter(
        x, y, s=area, color=colour, marker=marker, zorder=3, label=label, edgecolors="white"
    )


def _finish(axes: Axes, profile: DeviceProfile, ladder: Ladder, score: str) -> None:
    predicted = ladder.points[0].predicted is not None
    where = f"predicted on {profile.title}" if predicted else "measured on the converting host"
    axes.set_xlabel(f"latency, ms ({where})")
    axes.set_ylabel(f"{score}, %")
    axes.set_xlim(0, 1.08 * max(map(_right_end, ladder.candidates)))
    values = [point.accuracy * 100 for point in ladder.candidates]
    margin = max(1.0, (max(values) - min(values)) * 0.3)
    axes.set_ylim(min(values) - margin, min(100.5, max(values) + margin))
    axes.set_yticks([tick for tick in axes.get_yticks() if tick <= 100 + 1e-6])
    axes.set_ylim(min(values) - margin, min(100.5, max(values) + margin))
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    legend = axes.legend(fontsize=8.5, frameon=False, loc="best")
    for handle in legend.legend_handles:
        if handle is not None and hasattr(handle, "set_sizes"):
            handle.set_sizes([40.0])


def _right_end(point: OperatingPoint) -> float:
    return point.predicted.high_ms if point.predicted is not None else point.host_latency_ms


def latency(point: OperatingPoint) -> float:
    """Milliseconds: the middle of the prediction, or what the converting host measured."""
    return point.predicted.mid_ms if point.predicted is not None else point.host_latency_ms

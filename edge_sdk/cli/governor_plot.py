"""A replay as a picture in which the hysteresis can be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.adapt.governor import Reading
from agent.adapt.ladder import Rung
from agent.adapt.replay import Step

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_SIGNALS = 5
_RAW, _FILTERED, _BAND, _LADDER, _RECORDED = "#c3c8d0", "#d1495b", "#edae49", "#00798c", "#8d96a3"
_REASONS = {
    "recovered": "#2a9d4a",
    "pinned": "#5b3f8c",
    "energy": "#8a6d1d",
}


def plot_replay(
    steps: Sequence[Step], ladder: Sequence[Rung], recorded: Sequence[Rung], path: Path
) -> None:
    """Write a PNG: one panel per signal that mattered, the ladder below, one time axis.

    A panel shows what was read (grey), what the filter made of it (red) and the band: above its
    upper edge the signal asks to step down, below its lower edge it allows to step up.

    Args:
        steps: at least one.
        ladder: of the replay, most accurate first.
        recorded: the ladder that the device stood on.
        path: PNG to write; an older one is replaced when the new one is complete.

    Raises:
        StorageError: the file cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    from edge_sdk.durable import storage_error

    names = deepest_signals(steps)
    heights = [2.0] * len(names) + [0.6 + 0.45 * max(len(ladder), 3)]
    figure = Figure(figsize=(11.0, 0.8 + sum(heights)), layout="constrained")
    panels = figure.subplots(
        len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    for axes, name in zip(panels, names, strict=False):
        _signal(axes, steps, name)
    _ladder(panels[-1], steps, ladder, [rung.point for rung in recorded])
    for axes in panels:
        axes.grid(alpha=0.25)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        figure.savefig(temporary, dpi=110, format="png")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage_error(error, path) from error


def deepest_signals(steps: Sequence[Step]) -> list[str]:
    """Signals that came into their band, the deepest first; the deepest of all where none did."""
    depth: dict[str, float] = {}
    for step in steps:
        for reading in step.readings:
            excess = reading.band.excess(reading.value)
            depth[reading.name] = max(excess, depth.get(reading.name, excess))
    order = sorted(depth, key=lambda name: -depth[name])
    inside = [name for name in order if depth[name] >= 0.0]
    return (inside or order[:1])[:MAX_SIGNALS]


def _signal(axes: Axes, steps: Sequence[Step], name: str) -> None:
    raw = [
        (step.at_s, float(value))
        for step in steps
        if (value := getattr(step.sample, name, None)) is not None
    ]
    known = [(step.at_s, found) for step in steps if (found := _reading(step, name))]
    if raw:
        axes.plot(*zip(*raw, strict=True), color=_RAW, linewidth=0.9, label="read")
    if known:
        band = known[-1][1].band
        seconds, values = [at for at, _ in known], [found.value for _, found in known]
        axes.plot(seconds, values, color=_FILTERED, linewidth=1.6, label="filtered")
        axes.axhspan(band.leave, band.enter, color=_BAND, alpha=0.18)
        for level, label in ((band.enter, "enter"), (band.leave, "leave")):
            axes.axhline(level, color=_BAND, linewidth=1.0, linestyle="--")
            axes.annotate(
                f"{label} {level:g}",
                (1.002, level),
                xycoords=("axes fraction", "data"),
                fontsize=7,
                va="center",
            )
    axes.set_ylabel(name.replace("_", " "), fontsize=8)
    axes.tick_params(labelsize=8)
    axes.legend(loc="upper left", fontsize=7, frameon=False, ncols=2)
    _moves(axes, steps)


def _reading(step: Step, name: str) -> Reading | None:
    return next((reading for reading in step.readings if reading.name == name), None)


def _moves(axes: Axes, steps: Sequence[Step]) -> None:
    for step in steps:
        if step.decision.changed:
            axes.axvline(step.at_s, color=_colour(step.decision.reason), linewidth=0.7, alpha=0.6)


def _ladder(
    axes: Axes, steps: Sequence[Step], ladder: Sequence[Rung], recorded: Sequence[str]
) -> None:
    seconds = [step.at_s for step in steps]
    names = [rung.point for rung in ladder]
    if list(recorded) == names:
        was = [step.recorded for step in steps]
        axes.step(seconds, was, where="post", color=_RECORDED, linestyle=":", label="on the device")
    indexes = [step.decision.index for step in steps]
    axes.step(seconds, indexes, where="post", color=_LADDER, linewidth=2, label="replay")
    for step in steps:
        if step.decision.changed:
            axes.annotate(
                step.decision.reason,
                (step.at_s, step.decision.index),
                xytext=(3, -3),
                textcoords="offset points",
                fontsize=7,
                va="top",
                color=_colour(step.decision.reason),
            )
    labels = [f"{rung.point} ({rung.accuracy:.3f})" for rung in ladder]
    axes.set_yticks(range(len(ladder)), labels, fontsize=7)
    axes.set_ylim(len(ladder) - 0.3, -0.5)
    axes.set_xlabel("seconds")
    axes.legend(loc="lower left", fontsize=7, frameon=False, ncols=2)
    _moves(axes, steps)


def _colour(reason: str) -> str:
    return _REASONS.get(reason, _FILTERED)

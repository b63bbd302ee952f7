"""The governor's timeline as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_sdk.contracts.telemetry import TelemetrySample


def plot_governor(
    samples: Sequence[TelemetrySample], points: Sequence[str], device: str, path: Path
) -> None:
    """Pressure above, ladder position below, on one time axis.

    Args:
        samples: telemetry of one device, in time order; at least one with a ladder.
        points: operating points of its ladder, most accurate first.
        device: its name, for the title.
        path: PNG to write.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = [sample for sample in samples if sample.ladder is not None]
    start = shown[0].at
    seconds = [sample.at - start for sample in shown]
    indexes = [sample.ladder.index for sample in shown if sample.ladder is not None]
    figure, (above, below) = plt.subplots(
        2, 1, sharex=True, figsize=(9, 5), height_ratios=(1, 1.4), layout="constrained"
    )
    above.fill_between(seconds, [s.cpu_pressure for s in shown], color="#d1495b", alpha=0.35)
    above.plot(seconds, [s.cpu_pressure for s in shown], color="#d1495b")
    above.set_ylabel("CPU pressure\n(PSI some, %)")
    above.set_ylim(0, 100)
    above.set_title(f"{device}: the governor steps down under pressure and recovers", loc="left")
    below.step(seconds, indexes, where="post", color="#00798c", linewidth=2)
    below.set_yticks(range(len(points)), [_short(point) for point in points])
    below.set_ylim(len(points) - 0.5, -0.5)
    below.set_xlabel("seconds")
    latency = below.twinx()
    latency.plot(seconds, [s.latency_p50_ms for s in shown], color="#8d96a3", linewidth=1)
    latency.set_ylabel("latency p50 (ms)", color="#8d96a3")
    latency.set_ylim(bottom=0)
    for axis in (above, below):
        axis.grid(alpha=0.25)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _short(point: str) -> str:
    """A point's name without its runtime, which is the same all along a ladder."""
    return point.rsplit("-", 1)[0]

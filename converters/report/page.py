"""Filling the report's template."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.measure import MAX_SQNR_DB
from converters.report.data import report_data, write_data
from converters.report.extras import fusions, layer_noises, repairs, rewrites, sensitivities
from converters.report.plot import ladder_plot, latency
from device_profiles.latency import uncalibrated
from edge_sdk.contracts.operating_point import OperatingPoint
from edge_sdk.contracts.profile import DeviceProfile

if TYPE_CHECKING:
    from converters.convert import Outcome
    from converters.ladder import Ladder
    from converters.results import Measured


def write_report(outcome: Outcome, path: Path) -> None:
    """Render a conversion as HTML, images embedded; ``report.json`` beside it has the figures."""
    import jinja2

    template = (Path(__file__).parent / "report.html.j2").read_text()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    data = report_data(outcome)
    context = _context(outcome) | {"lint": data["lint"]}
    path.write_text(environment.from_string(template).render(context))
    write_data(data, path.with_suffix(".json"))


def _context(outcome: Outcome) -> dict[str, Any]:
    conversion = outcome.conversion
    baseline = baseline_bytes(outcome)
    return {
        "task": conversion.task,
        "created": conversion.created,
        "reference": outcome.reference,
        "macs": outcome.macs,
        "headline": _headline(outcome),
        "artifacts": [_artifact_row(item, baseline) for item in outcome.measured],
        "profiles": [
            _profile(outcome.profiles[name], ladder, outcome)
            for name, ladder in outcome.ladders.items()
        ],
        "provenance": conversion.provenance,
        "score": "agreement" if conversion.task.kind == "generic" else "accuracy",
        "origin": "the imported file" if "imported-from" in conversion.provenance else "PyTorch",
        "warnings": list(getattr(outcome, "warnings", ())),
        "sensitivities": sensitivities(outcome),
        "layer_noises": layer_noises(outcome),
        "glance": [
            _glance_row(outcome.profiles[name], ladder) for name, ladder in outcome.ladders.items()
        ],
        "repairs": repairs(outcome),
        "fusions": fusions(outcome),
        "rewrites": rewrites(outcome),
    }


def _glance_row(profile: DeviceProfile, ladder: Ladder) -> dict[str, str]:
    """One device in one line: its fastest point, and what that gains over float32."""
    fastest = min(ladder.points, key=latency)
    size = (fastest.height_px, fastest.width_px)
    plain = [
        point
        for point in ladder.candidates
        if point.scheme == "fp32" and (point.height_px, point.width_px) == size
    ]
    gain = f"{latency(plain[0]) / latency(fastest):.1f}x" if plain and latency(fastest) else "–"
    return {
        "id": profile.id,
        "title": profile.title,
        "point": f"{size[0]}x{size[1]} {fastest.scheme}",
        "accuracy": f"{fastest.accuracy * 100:.2f}",
        "band": band(fastest),
        "gain": gain,
        "points": str(len(ladder.points)),
    }


def baseline_bytes(outcome: Outcome) -> dict[tuple[str, str], int]:
    """Bytes of the fp32 file by (format, resolution)."""
    return {
        (item.format, item.size): item.size_bytes
        for item in outcome.measured
        if item.scheme == "fp32"
    }


def _headline(outcome: Outcome) -> dict[str, str]:
    """The three figures a reader wants first."""
    integer = [item for item in outcome.measured if "wi8" in item.scheme]
    baseline = baseline_bytes(outcome)
    ratios = [
        item.size_bytes / baseline[item.format, item.size]
        for item in integer
        if (item.format, item.size) in baseline
    ]
    drops = [item.scheme_drop for item in integer]
    return {
        "accuracy": f"{outcome.conversion.task.reference_accuracy * 100:.2f} %",
        "drop": f"{max(drops) * 100:+.2f} pt" if drops else "none built",
        "ratio": f"{max(ratios):.2f}x" if ratios else "none built",
        "artifacts": str(len(outcome.measured)),
    }


def _artifact_row(item: Measured, baseline: dict[tuple[str, str], int]) -> dict[str, str]:
    timing = item.latency[min(item.latency)]
    base = baseline.get((item.format, item.size))
    return {
        "file": item.path.name,
        "scheme": item.scheme,
        "kib": f"{item.size_bytes / 1024:.0f}",
        "ratio": f"{item.size_bytes / base:.2f}x" if base else "–",
        "accuracy": f"{item.accuracy * 100:.2f}",
        "drop": f"{item.scheme_drop * 100:+.2f}",
        "agreement": f"{item.agreement * 100:.1f}",
        "error": f"{item.max_output_error:.4f}",
        "sqnr": "exact" if item.sqnr_db >= MAX_SQNR_DB else f"{item.sqnr_db:.1f}",
        "host": f"{timing.median_ms:.3f}",
        "memory": f"{item.memory_mib:.0f}",
        "digest": item.digest,
    }


def _profile(profile: DeviceProfile, ladder: Ladder, outcome: Outcome) -> dict[str, Any]:
    sizes = {item.digest: item.size_bytes for item in outcome.measured}
    score = "agreement" if outcome.conversion.task.kind == "generic" else "accuracy"
    image = base64.b64encode(ladder_plot(profile, ladder, sizes, score=score)).decode()
    return {
        "id": profile.id,
        "title": profile.title,
        "runtime": ladder.runtime,
        "threads": profile.default_threads,
        "image": image,
        "points": [_point_row(point) for point in ladder.points],
        "basis": sorted({basis_of(profile, point) for point in ladder.points}),
    }


def _point_row(point: OperatingPoint) -> dict[str, str]:
    return {
        "size": f"{point.height_px}x{point.width_px}",
        "scheme": point.scheme,
        "accuracy": f"{point.accuracy * 100:.2f}",
        "agreement": f"{point.agreement * 100:.1f}",
        "band": band(point),
        "host": f"{point.host_latency_ms:.3f}",
        "memory": f"{point.memory_mib:.0f}",
    }


def band(point: OperatingPoint) -> str:
    """The predicted interval as text."""
    predicted = point.predicted
    if predicted is None:
        return "uncalibrated"
    return f"{predicted.low_ms:.2f} – {predicted.high_ms:.2f}"


def basis_of(profile: DeviceProfile, point: OperatingPoint) -> str:
    """What stands behind a point's prediction, or why there is none."""
    if point.predicted is not None:
        return f"{point.predicted.basis} (CPU)"
    return uncalibrated(profile, runtime=point.runtime, scheme=point.scheme, threads=point.threads)

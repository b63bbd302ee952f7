"""Where each pipeline of a device stands on its ladder, out of a telemetry sample."""

from __future__ import annotations

from collections.abc import Iterator

from edge_sdk.contracts.telemetry import LadderPosition, TelemetrySample

ALONE = ""
"""The name of a pipeline that is a device's only one."""


def positions(sample: TelemetrySample | None) -> dict[str, LadderPosition]:
    """By pipeline, the most important first; those without a position are absent."""
    if sample is None:
        return {}
    if sample.pipelines:
        return {one.pipeline: one.ladder for one in sample.pipelines if one.ladder is not None}
    return {} if sample.ladder is None else {ALONE: sample.ladder}


def steps(
    before: TelemetrySample | None, after: TelemetrySample
) -> Iterator[tuple[str, str, LadderPosition]]:
    """Pipelines that moved between two samples: name, ``up`` or ``down``, where they stand now."""
    stood = positions(before)
    for name, position in positions(after).items():
        if name in stood and stood[name].index != position.index:
            yield name, "down" if position.index > stood[name].index else "up", position

"""What a search leaves behind: ladders, the conversion, ``fit.json`` and plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec

from converters.fit.search import Budget, Facts, Fitting, Verdict, nearest
from converters.ladder import Ladder
from converters.results import Measured
from edge_sdk.contracts.operating_point import OperatingPoint

if TYPE_CHECKING:
    from converters.fit.run import Fit


def ladder_of(verdict: Verdict, measured: Mapping[str, Measured]) -> Ladder:
    """The operating points of a verdict; the candidates are all that were measured."""
    points = tuple(_point(item.facts, measured) for item in verdict.ladder)
    others = [item.facts for item in verdict.rejected if item.facts.digest]
    candidates = (*points, *(_point(facts, measured) for facts in others))
    return Ladder(points[0].runtime, points, candidates)


def fit_data(found: Fit) -> dict[str, Any]:
    """The whole search as plain data: ``fit.json`` and ``--json``."""
    return {
        "budget": budget_data(found.budget),
        "reference_accuracy": found.reference_accuracy,
        "measured_artifacts": found.built,
        "repairs": [asdict(repair) for repair in found.repairs],
        "mixed_artifacts": found.mixed,
        "passes": {"from_cache": found.passes[0], "run": found.passes[1]},
        "profiles": {
            name: {
                "considered": found.considered[name],
                "ladder": [_fitting_data(item) for item in verdict.ladder],
                "rejected": [
                    {"candidate": item.facts.point.name, "kind": item.kind, "reason": item.reason}
                    for item in verdict.rejected
                ],
                "nearest": [
                    {"candidate": miss.facts.point.name, "needs": budget_data(miss.budget)}
                    for miss in nearest(verdict, found.budget)
                ],
            }
            for name, verdict in found.verdicts.items()
        },
    }


def fit_document(found: Fit) -> bytes:
    """``fit.json``."""
    return (json.dumps(fit_data(found), indent=2) + "\n").encode()


def budget_data(budget: Budget) -> dict[str, float]:
    """The bounds that are set."""
    bounds = {
        "latency_ms": budget.latency_ms,
        "memory_mib": budget.memory_mib,
        "accuracy_drop": budget.accuracy_drop,
    }
    return {name: value for name, value in bounds.items() if value is not None}


def _fitting_data(item: Fitting) -> dict[str, Any]:
    facts = item.facts
    return {
        "candidate": facts.point.name,
        "width": facts.point.width,
        "resolution": facts.point.size,
        "scheme": facts.point.scheme,
        "runtime": facts.point.runtime,
        "threads": facts.point.threads,
        "model_mib": facts.model_mib,
        "memory_mib": facts.memory_mib,
        "accuracy_drop": facts.accuracy_drop,
        "host_latency_ms": facts.host_latency_ms,
        "predicted": msgspec.to_builtins(facts.latency),
        "risk": item.risk,
        "note": facts.note,
        "artifact": facts.digest,
    }


def _point(facts: Facts, measured: Mapping[str, Measured]) -> OperatingPoint:
    item = measured[facts.digest]
    point = facts.point
    return OperatingPoint(
        id=f"w{point.width:.2f}-{item.name}-x{point.threads}",
        artifact=item.digest,
        runtime=item.runtime,
        scheme=item.scheme,
        channel_width=point.width,
        height_px=item.height_px,
        width_px=item.width_px,
        threads=point.threads,
        accuracy=item.accuracy,
        accuracy_drop=item.accuracy_drop,
        agreement=item.agreement,
        max_output_error=item.max_output_error,
        host_latency_ms=facts.host_latency_ms or 0.0,
        predicted=facts.latency,
        memory_mib=item.memory_mib,
    )

"""The report for programs: ``report.json`` beside ``report.html``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from converters.report.extras import lint_rows
from edge_sdk.contracts.base import SCHEMA

if TYPE_CHECKING:
    from converters.convert import Outcome
    from converters.ladder import Ladder
    from converters.results import Measured


def report_data(outcome: Outcome) -> dict[str, Any]:
    """Everything the page shows, as numbers.

    Parts that were not measured are empty lists (``sensitivities``, ``repairs``, ``lint``,
    ``warnings``) or null (``fusion``).
    """
    conversion = outcome.conversion
    fusion = getattr(outcome, "fusion", None)
    return {
        "schema": SCHEMA,
        "task": msgspec.to_builtins(conversion.task),
        "created": conversion.created,
        "reference_accuracy": outcome.reference,
        "macs": outcome.macs,
        "artifacts": [_artifact(item) for item in outcome.measured],
        "ladders": {name: _ladder(ladder) for name, ladder in outcome.ladders.items()},
        "sensitivities": _plain(getattr(outcome, "sensitivities", ())),
        "repairs": _plain(getattr(outcome, "repairs", ())),
        "fusion": fusion.as_dict() if fusion is not None else None,
        "warnings": list(getattr(outcome, "warnings", ())),
        "lint": lint_rows(outcome),
        "provenance": conversion.provenance,
    }


def write_data(data: dict[str, Any], path: Path) -> None:
    """Write the document, strictly JSON."""
    path.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n")


def _artifact(item: Measured) -> dict[str, Any]:
    return {
        "file": f"artifacts/{item.path.name}",
        "digest": item.digest,
        "format": item.format,
        "runtime": item.runtime,
        "scheme": item.scheme,
        "resolution": item.size,
        "bytes": item.size_bytes,
        "accuracy": item.accuracy,
        "loss": item.scheme_drop,
        "agreement": item.agreement,
        "sqnr_db": item.sqnr_db,
        "output_sqnr_db": item.output_sqnr_db,
        "max_output_error": item.max_output_error,
        "host_latency_ms": {
            str(threads): {"median": times.median_ms, "p95": times.p95_ms, "runs": times.runs}
            for threads, times in item.latency.items()
        },
        "memory_mib": item.memory_mib,
    }


def _ladder(ladder: Ladder) -> dict[str, Any]:
    return {
        "runtime": ladder.runtime,
        "points": [msgspec.to_builtins(point) for point in ladder.points],
        "candidates": [msgspec.to_builtins(point) for point in ladder.candidates],
    }


def _plain(items: Any) -> list[Any]:
    return [
        dataclasses.asdict(item) if dataclasses.is_dataclass(item) else item  # type: ignore[arg-type]
        for item in items
    ]

"""What a finished conversion's folder holds, whether it was converted or imported."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from converters.ladder import Ladder
from converters.loading import LoadedTask
from converters.publish import CONVERSION_NAME
from converters.results import Measured
from converters.wiring import module_order
from edge_sdk import __version__
from edge_sdk.contracts.audio import Enhancement
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.conversion import Conversion
from edge_sdk.contracts.manifest import Artifact, TaskInfo
from edge_sdk.durable import DiskStorage

if TYPE_CHECKING:
    from converters.convert import Outcome

_TOOLS = ("torch", "onnx", "onnxruntime", "litert-torch", "ai-edge-quantizer", "ai-edge-litert")


def conversion_of(
    task: LoadedTask,
    measured: Sequence[Measured],
    ladders: Mapping[str, Ladder],
    accuracy: float,
    building: Path,
    provenance: dict[str, str],
) -> Conversion:
    """The contract of the folder.

    Args:
        task: at its full width.
        measured: the artifacts that are delivered.
        ladders: by profile.
        accuracy: the reference's, at the full width and resolution.
        building: folder that the artifacts lie in.
        provenance: versions of tools and digests of what went in.
    """
    return Conversion(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        task=TaskInfo(
            name=task.name,
            kind=task.kind,
            labels=task.labels,
            preprocess=task.preprocess,
            reference_accuracy=accuracy,
            sound=task.sound,
            enhance=Enhancement(spec=task.enhance) if task.enhance else None,
            output_tolerance=task.tolerance if task.kind == "generic" else 0.0,
        ),
        artifacts={item.digest: artifact_of(item, task.states) for item in measured},
        ladders={name: ladder.points for name, ladder in ladders.items()},
        files=file_table(measured, building),
        provenance=provenance,
    )


def artifact_of(item: Measured, states: Sequence[tuple[int, int]]) -> Artifact:
    """A verified artifact as the manifest describes it.

    Args:
        item: the artifact.
        states: (input, output) positions in the module's order.
    """
    order = module_order(item.inputs), module_order(item.outputs)
    return Artifact(
        digest=item.digest,
        format=item.format,
        runtime=item.runtime,
        scheme=item.scheme,
        height_px=item.height_px,
        width_px=item.width_px,
        inputs=item.inputs,
        outputs=item.outputs,
        golden=item.golden_digest,
        tolerance=item.tolerance,
        states=tuple((order[0][before], order[1][after]) for before, after in states),
    )


def file_table(measured: Sequence[Measured], folder: Path) -> dict[str, str]:
    """Digest of every artifact and golden file to its path relative to ``folder``."""
    files: dict[str, str] = {}
    for item in measured:
        files[item.digest] = str(item.path.relative_to(folder))
        files[item.golden_digest] = str(item.golden.relative_to(folder))
    return files


def tool_versions() -> dict[str, str]:
    """Versions of this product, of Python and of the tools that convert."""
    found = {"edge-sdk": __version__, "python": platform.python_version()}
    for package in _TOOLS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found | {"host": f"{platform.system()} {platform.machine()}"}


def write_folder(outcome: Outcome, building: Path) -> None:
    """Write the report and, last, ``conversion.json``."""
    from converters.report import write_report

    write_report(outcome, building / "report.html")
    DiskStorage().write(building / CONVERSION_NAME, encode(outcome.conversion))

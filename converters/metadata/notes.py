"""The notes of an artifact, and getting them into and out of a file of either format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from converters.inspect.model import format_of, inspect_model
from converters.loading import LoadedTask
from edge_sdk.contracts.base import SCHEMA, Wire
from edge_sdk.contracts.manifest import Preprocess
from edge_sdk.contracts.operating_point import TensorSpec

KEY = "edge.model"
"""Key of the JSON note in ONNX ``metadata_props`` and name of the TFLite custom metadata."""
MAX_NOTES_BYTES = 8 * 1024**2
"""Of the JSON note; labels are by far its largest part."""


class ModelNotes(Wire, kw_only=True):
    """What an artifact carries about itself."""

    schema: int = SCHEMA
    name: str
    description: str = ""
    kind: str = "classification"
    """As :attr:`edge_sdk.contracts.manifest.TaskInfo.kind`."""
    scheme: str
    labels: tuple[str, ...] = ()
    preprocess: Preprocess | None = None
    """None when the first input is no image."""
    inputs: tuple[TensorSpec, ...] = ()
    """Layout, shape and quantization of the file's inputs."""
    outputs: tuple[TensorSpec, ...] = ()
    provenance: dict[str, str] = msgspec.field(default_factory=dict)
    """Versions of the tools that built it, and digests of what went in."""


def notes_for(
    path: Path,
    *,
    name: str,
    scheme: str,
    kind: str,
    labels: tuple[str, ...],
    preprocess: Preprocess | None,
    provenance: Mapping[str, str],
) -> ModelNotes:
    """Notes on a file, its inputs and outputs read off the file itself.

    Raises:
        ConversionError: ``conversion.unreadable-model``.
    """
    facts = inspect_model(path)
    return ModelNotes(
        name=name,
        description=f"{name}, {scheme}",
        kind=kind,
        scheme=scheme,
        labels=labels,
        preprocess=preprocess,
        inputs=facts.inputs,
        outputs=facts.outputs,
        provenance=dict(provenance),
    )


def annotate(
    task: LoadedTask, built: Sequence[Mapping[str, Any]], provenance: Mapping[str, str]
) -> None:
    """Let every artifact of a conversion say what it is; before digests are computed.

    Args:
        task: what was converted.
        built: ``path`` and ``scheme`` of each artifact.
        provenance: versions of the tools and digests of what went in.
    """
    image = task.kind == "classification" or hasattr(task.task, "preprocess")
    for item in built:
        path = Path(item["path"])
        notes = notes_for(
            path,
            name=task.name,
            scheme=item["scheme"],
            kind=task.kind,
            labels=task.labels,
            preprocess=task.preprocess if image else None,
            provenance=provenance,
        )
        write_notes(path, notes)


def write_notes(path: Path, notes: ModelNotes) -> None:
    """Put notes into a model file, in place; earlier ones are replaced.

    The graph and its weights stay as they are to the byte. Digests are computed afterwards.

    Raises:
        ConversionError: ``conversion.unreadable-model``.
    """
    if format_of(path) == "onnx":
        from converters.metadata.onnx_notes import write_onnx_notes

        write_onnx_notes(path, notes)
    else:
        from converters.metadata.tflite_notes import write_tflite_notes

        write_tflite_notes(path, notes)


def read_notes(path: Path) -> ModelNotes | None:
    """The notes of a file, None when it has none.

    A file by another tool yields what its standard metadata says (name, description, labels,
    normalisation), under an empty scheme.

    Raises:
        ConversionError: ``conversion.file-missing``, ``conversion.unknown-format``,
            ``conversion.unreadable-model``.
    """
    if format_of(path) == "onnx":
        from converters.metadata.onnx_notes import read_onnx_notes

        return read_onnx_notes(path)
    from converters.metadata.tflite_notes import read_tflite_notes

    return read_tflite_notes(path)


def decode_notes(data: bytes) -> ModelNotes | None:
    """Notes from JSON; None when they are damaged, too large or of a later version."""
    if len(data) > MAX_NOTES_BYTES:
        return None
    try:
        notes = msgspec.json.decode(data, type=ModelNotes)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return notes if notes.schema <= SCHEMA else None

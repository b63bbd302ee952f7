"""Notes in TFLite files: the standard metadata buffer and its associated files.

A file's ``TFLITE_METADATA`` buffer holds a flatbuffer of its own (identifier ``M001``) with name,
description and, per tensor, colour space and normalisation; label files are appended to the model
as a ZIP archive. Ours also carries the lossless JSON note as custom metadata. Slots and numbers
below are those of the TFLite project's ``metadata_schema.fbs``.
"""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import flatbuffers

from converters.inspect.model import DAMAGED, unreadable
from converters.metadata.notes import KEY, MAX_NOTES_BYTES, ModelNotes, decode_notes
from converters.metadata.tflite_prefix import with_metadata
from converters.metadata.tflite_standard import IDENTIFIER, read_standard
from edge_sdk import __version__
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.operating_point import TensorSpec

NAME = "TFLITE_METADATA"
LABELS = "labels.txt"
_IMAGE_PROPERTIES = 2
_NORMALIZATION = 1
_AXIS_LABELS = 2
_COLORS = {"rgb": 1, "gray": 2}
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Of the archive's entries: the same notes give the same bytes."""


def write_tflite_notes(path: Path, notes: ModelNotes) -> None:
    """See :func:`converters.metadata.write_notes`."""
    model = without_archive(path.read_bytes())
    try:
        written = _with_labels(with_metadata(model, NAME, _metadata(notes)), notes)
    except DAMAGED as error:
        raise unreadable(path, "not a valid TFLite flatbuffer") from error
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_bytes(written)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def read_tflite_notes(path: Path) -> ModelNotes | None:
    """See :func:`converters.metadata.read_notes`."""
    data = path.read_bytes()
    try:
        content = _buffer(data)
        if content is None:
            return None
        found = read_standard(content)
    except DAMAGED as error:
        raise unreadable(path, "its metadata is damaged") from error
    if found is None:
        return None
    own = decode_notes(found.custom[KEY]) if KEY in found.custom else None
    if own is not None:
        return own
    return ModelNotes(
        name=found.name or path.stem,
        description=found.description,
        scheme="",
        labels=_labels(data),
        preprocess=found.preprocess,
    )


def _buffer(data: bytes) -> bytes | None:
    """Content of the metadata buffer."""
    from ai_edge_litert import schema_py_generated as schema

    model: Any = schema.Model.GetRootAs(data, 0)
    for index in range(min(model.MetadataLength(), 1000)):
        entry = model.Metadata(index)
        if entry.Name() == NAME.encode():
            content = model.Buffers(entry.Buffer()).DataAsNumpy()
            return None if isinstance(content, int) else bytes(content)
    return None


def without_archive(data: bytes) -> bytes:
    """A TFLite file without the ZIP archive that may be appended to it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            starts = [entry.header_offset for entry in archive.infolist()]
            return data[: min([*starts, archive.start_dir])]
    except (zipfile.BadZipFile, *DAMAGED):
        return data


def _with_labels(model: bytes, notes: ModelNotes) -> bytes:
    """The model with a ZIP archive of its labels behind it; itself without labels.

    The archive's offsets count from the start of the model, as the TFLite tools write them.
    """
    if not notes.labels:
        return model
    buffer = io.BytesIO(model)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        text = "\n".join(label.replace("\n", " ") for label in notes.labels)
        archive.writestr(zipfile.ZipInfo(LABELS, _EPOCH), text)
    return buffer.getvalue()


def _labels(data: bytes) -> tuple[str, ...]:
    """Labels of a file by another tool: the first text file in its archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith(".txt") and entry.file_size <= MAX_NOTES_BYTES:
                    lines = archive.read(entry).decode(errors="replace").splitlines()
                    return tuple(line.strip() for line in lines if line.strip())
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, *DAMAGED):
        return ()
    return ()


def _metadata(notes: ModelNotes) -> bytes:
    builder = flatbuffers.Builder(1024)
    inputs = [
        _tensor(builder, spec, notes if i == 0 else None) for i, spec in enumerate(notes.inputs)
    ]
    outputs = [_output(builder, spec, notes, first=i == 0) for i, spec in enumerate(notes.outputs)]
    subgraph = _table(
        builder,
        10,
        {
            0: builder.CreateString("main"),
            2: _vector(builder, inputs),
            3: _vector(builder, outputs),
            9: _vector(builder, [_custom(builder, encode(notes))]),
        },
    )
    root = _table(
        builder,
        8,
        {
            0: builder.CreateString(notes.name),
            1: builder.CreateString(notes.description),
            2: builder.CreateString(f"edge-sdk {__version__}"),
            3: _vector(builder, [subgraph]),
            7: builder.CreateString("1.3.0"),
        },
    )
    builder.Finish(root, IDENTIFIER)
    return bytes(builder.Output())


def _tensor(builder: Any, spec: TensorSpec, notes: ModelNotes | None) -> int:
    """Metadata of an input; colour space and normalisation for an image."""
    fields = {
        0: builder.CreateString(spec.name),
        1: builder.CreateString(f"{spec.dtype} {list(spec.shape)} {spec.layout}"),
    }
    if notes is not None and notes.preprocess is not None:
        color = _COLORS[notes.preprocess.color]
        properties = _table(builder, 2, {}, {0: color})
        fields[3] = _table(builder, 3, {1: properties}, {0: _IMAGE_PROPERTIES})
        options = _table(
            builder,
            2,
            {0: _floats(builder, notes.preprocess.mean), 1: _floats(builder, notes.preprocess.std)},
        )
        unit = _table(builder, 2, {1: options}, {0: _NORMALIZATION})
        fields[4] = _vector(builder, [unit])
    return _table(builder, 7, fields)


def _output(builder: Any, spec: TensorSpec, notes: ModelNotes, *, first: bool) -> int:
    """Metadata of an output; the label file for the first."""
    fields = {
        0: builder.CreateString(spec.name),
        1: builder.CreateString(f"{spec.dtype} {list(spec.shape)} {spec.layout}"),
    }
    if first and notes.labels:
        file = _table(builder, 5, {0: builder.CreateString(LABELS)}, {2: _AXIS_LABELS})
        fields[6] = _vector(builder, [file])
    return _table(builder, 7, fields)


def _custom(builder: Any, data: bytes) -> int:
    return _table(builder, 2, {0: builder.CreateString(KEY), 1: builder.CreateByteVector(data)})


def _table(
    builder: Any, slots: int, offsets: dict[int, int], bytes_: dict[int, int] | None = None
) -> int:
    builder.StartObject(slots)
    for slot, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    for slot, value in (bytes_ or {}).items():
        builder.PrependUint8Slot(slot, value, 0)
    return int(builder.EndObject())


def _vector(builder: Any, items: list[int]) -> int:
    builder.StartVector(4, len(items), 4)
    for item in reversed(items):
        builder.PrependUOffsetTRelative(item)
    return int(builder.EndVector())


def _floats(builder: Any, values: tuple[float, ...]) -> int:
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependFloat32(value)
    return int(builder.EndVector())

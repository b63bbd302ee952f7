"""A release that is signed, well-formed, complete, and wrong.

The demo's third version: somebody's build went bad after its golden vectors were made. The weights
of every model file are put in reverse order; the files still load and run.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from edge_sdk.bundle.blobs import blob_ref
from edge_sdk.contracts.base import decode, encode
from edge_sdk.contracts.conversion import Conversion


def damage_conversion(source: Path, target: Path) -> None:
    """Copy a conversion folder to ``target`` with the weights of its models damaged.

    The golden vectors stay those of the undamaged models, which is what gives the damage away.
    """
    shutil.copytree(source, target)
    path = target / "conversion.json"
    conversion = decode(path.read_bytes(), Conversion, str(path))
    renamed: dict[str, str] = {}
    for digest, artifact in conversion.artifacts.items():
        file = target / conversion.files[digest]
        damage = _damage_onnx if artifact.format == "onnx" else _damage_tflite
        file.write_bytes(damage(file.read_bytes()))
        renamed[digest] = blob_ref(file).digest
    damaged = msgspec.structs.replace(
        conversion,
        artifacts={
            renamed[digest]: msgspec.structs.replace(artifact, digest=renamed[digest])
            for digest, artifact in conversion.artifacts.items()
        },
        ladders={
            profile: tuple(
                msgspec.structs.replace(point, artifact=renamed[point.artifact]) for point in points
            )
            for profile, points in conversion.ladders.items()
        },
        files={renamed.get(digest, digest): name for digest, name in conversion.files.items()},
    )
    path.write_bytes(encode(damaged))


def _damage_onnx(data: bytes) -> bytes:
    """Reverse the elements of every multi-dimensional initializer."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(data)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim > 1:
            reversed_values = values.reshape(-1)[::-1].reshape(values.shape)
            tensor.CopyFrom(numpy_helper.from_array(reversed_values, tensor.name))
    serialized: bytes = model.SerializeToString()
    return serialized


def _damage_tflite(data: bytes) -> bytes:
    """Reverse, in place, the elements of every constant tensor of two or more dimensions."""
    from ai_edge_litert import schema_py_generated as schema

    image = bytearray(data)
    model = schema.Model.GetRootAs(image, 0)
    graph = model.Subgraphs(0)
    seen: set[int] = set()
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        number = tensor.Buffer()
        buffer = model.Buffers(number)
        if number in seen or tensor.ShapeLength() < 2 or buffer.DataLength() == 0:
            continue
        seen.add(number)
        view = buffer.DataAsNumpy().view(_width(tensor.Type(), schema))
        view[:] = view[::-1].copy()
    return bytes(image)


def _width(tensor_type: int, schema: object) -> str:
    """numpy type of a TFLite tensor's elements, by size."""
    types = schema.TensorType  # type: ignore[attr-defined]
    if tensor_type in (types.INT8, types.UINT8):
        return "u1"
    return "u2" if tensor_type == types.FLOAT16 else "u4"

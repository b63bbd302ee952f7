"""An ONNX file made static and self-contained."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import external_data_helper, inliner, shape_inference, version_converter

from converters.importing.examine import Shapes, check_names, choose_shape
from converters.inspect.model import MAX_MODEL_BYTES, unreadable
from edge_sdk.errors import ConversionError

OLDEST, WANTED, NEWEST = 7, 13, 23
"""Opsets: the oldest ONNX can upgrade from in practice, the first with per-channel quantization,
and the newest that the runtimes here know."""
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
_NEWEST_IR = 11


def normalise_onnx(source: Path, target: Path, shapes: Shapes) -> None:
    """Write ``source`` with static shapes, weights inside, functions inlined.

    Raises:
        ConversionError: as :func:`converters.importing.examine.examine`.
    """
    try:
        model = onnx.load(str(source), load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise unreadable(source, "not valid ONNX") from error
    if not model.HasField("graph") or not model.graph.node:
        raise unreadable(source, "it holds no graph")
    _embed(model, source)
    _check_operators(model, source)
    model = _upgraded(model, source)
    try:
        if model.functions:
            model = inliner.inline_local_functions(model)
        _fix_shapes(model, shapes)
        model = shape_inference.infer_shapes(model, data_prop=True)
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, shape_inference.InferenceError, ValueError) as error:
        raise unreadable(source, f"not valid ONNX ({str(error).splitlines()[0][:160]})") from error
    _check_outputs(model, source)
    model.ir_version = min(model.ir_version, _NEWEST_IR)
    onnx.save(model, str(target))


def _embed(model: onnx.ModelProto, source: Path) -> None:
    """Bring weights that lie beside the file into it."""
    total, folder = source.stat().st_size, source.parent.resolve()
    for tensor in external_data_helper._get_all_tensors(model):
        if not external_data_helper.uses_external_data(tensor):
            continue
        found = {entry.key: entry.value for entry in tensor.external_data}
        path = (folder / found.get("location", "")).resolve()
        if folder not in path.parents or not path.is_file():
            raise _external(source, f"{found.get('location', '?')!r}, which is not beside it")
        length, offset = _number(found.get("length")), _number(found.get("offset"))
        if offset + length > path.stat().st_size:
            raise _external(source, f"{path.name}, which is shorter than it says")
        total += length or path.stat().st_size
        if total > MAX_MODEL_BYTES:
            raise ConversionError(
                "too-large",
                f"{source.name} has over 2 GiB of weights beside it; one file holds no more.",
                "Give a smaller model; one that fits no file fits no small device either.",
            )
        external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def _external(source: Path, what: str) -> ConversionError:
    return ConversionError(
        "external-data",
        f"{source.name} keeps weights in {what}.",
        "Put the data file next to the model under the name it expects, complete.",
    )


def _check_operators(model: onnx.ModelProto, source: Path) -> None:
    own = {function.domain for function in model.functions}
    foreign = [
        f"{node.domain}.{node.op_type}"
        for node in model.graph.node
        if node.domain not in _DOMAINS | own
    ]
    if foreign:
        raise ConversionError(
            "unsupported-op",
            f"{source.name} uses {', '.join(sorted(set(foreign))[:5])}, which no runtime on a "
            "device has.",
            "Export the model with standard operators only.",
        )


def _upgraded(model: onnx.ModelProto, source: Path) -> onnx.ModelProto:
    """The model at an opset that quantizes per channel."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    version = max(versions, default=0)
    if not OLDEST <= version <= NEWEST:
        raise ConversionError(
            "unsupported-opset",
            f"{source.name} uses ONNX opset {version}; {OLDEST} to {NEWEST} are supported.",
            f"Export it again with opset {WANTED} to {NEWEST}.",
        )
    if version >= WANTED:
        return model
    try:
        return version_converter.convert_version(model, WANTED)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        raise ConversionError(
            "unsupported-opset",
            f"{source.name} uses ONNX opset {version} and cannot be upgraded: "
            f"{str(error).splitlines()[0][:160]}.",
            f"Export it again with opset {WANTED} to {NEWEST}.",
        ) from error


def _fix_shapes(model: onnx.ModelProto, shapes: Shapes) -> None:
    """Static shapes for the inputs; stale ones of everything else are dropped and inferred."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    del graph.input[:]  # old files list weights among the inputs
    graph.input.extend(inputs)
    check_names(shapes, [value.name for value in inputs])
    changed = False
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        declared = tuple(
            int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value > 0 else None
            for dim in dims
        )
        if not declared:
            continue
        chosen = choose_shape(value.name, declared, shapes, only=len(inputs) == 1)
        for dim, size in zip(dims, chosen, strict=True):
            dim.dim_value = size
        changed |= chosen != declared
    if changed:
        del graph.value_info[:]
        for value in graph.output:
            value.type.tensor_type.ClearField("shape")


def _check_outputs(model: onnx.ModelProto, source: Path) -> None:
    for value in model.graph.output:
        kind = value.type.tensor_type
        if not kind.HasField("shape") or any(dim.dim_value <= 0 for dim in kind.shape.dim):
            raise ConversionError(
                "dynamic-shape",
                f"{source.name}: the shape of output {value.name!r} depends on the data.",
                "Cut the model before that operator (often non-maximum suppression) and do the "
                "rest in the application.",
            )

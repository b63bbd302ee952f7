"""Quantizing a float ONNX file (onnxruntime.quantization), with int8 inputs and outputs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from converters.schemes import supported_scheme
from converters.task import Floats
from converters.usercode import first_line
from edge_sdk.errors import ConversionError, EdgeError
from edge_sdk.runtime.ort import METADATA_PREFIX

_FP16_MAX = 65504.0


def quantize_onnx(source: Path, scheme: str, calibration: Floats, target: Path) -> None:
    """Write ``source`` under another scheme.

    ``static_wi8_ai8`` is QDQ with signed weights (per channel) and signed activations (s8s8): the
    combination that gives equal answers on x86 and ARM. ``dynamic_wi8_afp32`` quantizes
    activations at run time. ``wfp16`` stores weights as float16 and casts them when loading.

    Args:
        source: float32 file by :func:`converters.onnx_export.export_onnx`.
        scheme: any supported scheme but fp32.
        calibration: (N, C, H, W) float32; used by static schemes.
        target: written whole.

    Raises:
        ConversionError: ``conversion.quantize-failed``, ``conversion.scheme-unsupported``.
    """
    supported_scheme(scheme)
    try:
        if scheme == "wfp16":
            model = _wfp16(onnx.load(str(source)))
        elif scheme == "static_wi8_ai8":
            model = integer_io(_static(source, calibration, target))
        else:
            model = _dynamic(source, target)
        onnx.checker.check_model(model)
        onnx.save(model, str(target))
    except EdgeError:
        raise
    except Exception as error:
        raise ConversionError(
            "quantize-failed",
            f"{source.name} cannot be quantized as {scheme}: {first_line(error)}",
            "Leave this scheme out (--schemes), or change the layer it names.",
        ) from error


class _Reader:
    """Calibration samples one by one, as onnxruntime.quantization wants them."""

    def __init__(self, name: str, samples: Floats) -> None:
        self._feeds: Iterator[dict[str, Floats]] = iter(
            [{name: np.ascontiguousarray(sample[None])} for sample in samples]
        )

    def get_next(self) -> dict[str, Floats] | None:
        """The next feed, None at the end."""
        return next(self._feeds, None)


def _static(source: Path, calibration: Floats, target: Path) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    name = onnx.load(str(source)).graph.input[0].name
    scratch = target.with_suffix(".scratch.onnx")
    try:
        quantize_static(
            str(source),
            str(scratch),
            _Reader(name, calibration),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
        return onnx.load(str(scratch))
    finally:
        scratch.unlink(missing_ok=True)


def _dynamic(source: Path, target: Path) -> onnx.ModelProto:
    """Dynamic quantization of every layer that has weights.

    The exporter's shape notes are dropped first: the quantizer rewrites Gemm and then trips over
    them. Convolutions get unsigned weights: ConvInteger with signed ones runs a reference kernel
    that was six times slower.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(str(source))
    del model.graph.value_info[:]
    convolves = any(node.op_type == "Conv" for node in model.graph.node)
    plain = target.with_suffix(".plain.onnx")
    scratch = target.with_suffix(".scratch.onnx")
    try:
        onnx.save(model, str(plain))
        kind = QuantType.QUInt8 if convolves else QuantType.QInt8
        quantize_dynamic(str(plain), str(scratch), weight_type=kind, per_channel=True)
        return onnx.load(str(scratch))
    finally:
        plain.unlink(missing_ok=True)
        scratch.unlink(missing_ok=True)


def _wfp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights (rank 2 and more) as float16, each followed by a Cast to float32."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        values = numpy_helper.to_array(tensor)
        if np.abs(values).max(initial=0.0) > _FP16_MAX:
            raise ConversionError(
                "quantize-failed",
                f"The weight {tensor.name} exceeds float16's range ({_FP16_MAX:.0f}).",
                "Leave wfp16 out (--schemes), or rescale that layer.",
            )
        name, half = tensor.name, f"{tensor.name}.fp16"
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
        casts.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def integer_io(model: onnx.ModelProto) -> onnx.ModelProto:
    """Move the first quantization and the last dequantization out of a QDQ graph.

    The caller quantizes instead, which on a camera frame folds into preprocessing. Scale and zero
    point go into the file's metadata, where :mod:`edge_sdk.runtime.ort` reads them. A graph whose
    input or output is not quantized is left alone there; the claim check then refuses it.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for value in model.graph.input:
        node = _only(model, lambda n, name=value.name: name in n.input)
        if node is not None and node.op_type == "QuantizeLinear":
            _note(model, value.name, constants[node.input[1]], constants[node.input[2]])
            _rename_input(model, node.output[0], value.name)
            model.graph.node.remove(node)
            value.type.tensor_type.elem_type = TensorProto.INT8
    for value in model.graph.output:
        node = _only(model, lambda n, name=value.name: name in n.output)
        if node is not None and node.op_type == "DequantizeLinear":
            source = _only(model, lambda n, name=node.input[0]: name in n.output)
            if source is None or source.op_type != "QuantizeLinear":
                continue
            _note(model, value.name, constants[node.input[1]], constants[node.input[2]])
            model.graph.node.remove(node)
            source.output[0] = value.name
            value.type.tensor_type.elem_type = TensorProto.INT8
    return model


def _only(model: onnx.ModelProto, matches: Any) -> onnx.NodeProto | None:
    """The one node that matches; None when there are several or none."""
    found = [node for node in model.graph.node if matches(node)]
    return found[0] if len(found) == 1 else None


def _rename_input(model: onnx.ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new


def _note(model: onnx.ModelProto, tensor: str, scale: Any, zero_point: Any) -> None:
    entry = model.metadata_props.add()
    entry.key = METADATA_PREFIX + tensor
    entry.value = json.dumps({"scale": float(scale), "zero_point": int(zero_point)})

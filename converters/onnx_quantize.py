"""Quantizing a float ONNX file (onnxruntime.quantization), with integer inputs and outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from converters import onnx_float
from converters.calibrate.feeds import Samples, file_feeds
from converters.calibrate.observe import Ranges, align, observe
from converters.calibrate.onnx_run import onnx_run
from converters.calibrate.states import check_states, state_groups
from converters.layers import as_mixed, members
from converters.onnx_ends import quantize_ends
from converters.onnx_stem import ease_stems
from converters.schemes import Scheme, supported_scheme
from converters.settings import DEFAULTS, Settings
from converters.usercode import first_line
from edge_sdk.errors import ConversionError, EdgeError
from edge_sdk.runtime.ort import METADATA_PREFIX


def quantize_onnx(
    source: Path,
    scheme: str,
    calibration: Samples,
    target: Path,
    settings: Settings = DEFAULTS,
    ranges: Ranges | None = None,
) -> None:
    """Write ``source`` under another scheme.

    Static schemes are QDQ with signed weights. Signed activations (``ai8``, s8s8) give equal
    answers on x86 and ARM; unsigned ones (``au8``) are two to three times faster on x86 with VNNI.
    ``dynamic_wi8_afp32`` quantizes activations at run time, ``weight_only_wi8_afp32`` expands the
    weights before computing, ``wfp16`` stores weights as float16 and casts them when loading, and
    ``mixed_fp16_fp32`` computes in float16 but for normalisation and softmax.

    Args:
        source: float32 file by :func:`converters.onnx_export.export_onnx`.
        scheme: any supported scheme but fp32.
        calibration: packed samples or samples by input name; used by static schemes.
        target: written whole.
        settings: calibration method, granularity and exceptions.
        ranges: of activations where they are known already, instead of calibrating.

    Raises:
        ConversionError: ``conversion.quantize-failed``, ``conversion.scheme-unsupported``.
        TaskError: ``task.bad-calibration``.
    """
    kind = supported_scheme(scheme, "onnx")
    if kind.mixed and kind.mode == "static":
        settings = as_mixed(source, settings)
    try:
        model = _quantized(source, kind, calibration, target, settings, ranges)
        onnx.checker.check_model(model)
        onnx.save(model, str(target))
        check_states(target, settings.states)
    except EdgeError:
        raise
    except Exception as error:
        raise ConversionError(
            "quantize-failed",
            f"{source.name} cannot be quantized as {scheme}: {first_line(error)}",
            "Leave this scheme out (--schemes), or change the layer it names.",
        ) from error


def _quantized(
    source: Path,
    kind: Scheme,
    calibration: Samples,
    target: Path,
    settings: Settings,
    ranges: Ranges | None,
) -> onnx.ModelProto:
    if kind.mode == "static":
        if ranges is None:
            ranges = onnx_ranges(source, calibration, settings)
        model = _static(source, kind, ranges, target, settings)
        if not settings.keep and settings.only is None:
            quantize_ends(model, ranges, kind.io_dtype)
        return ease_stems(integer_io(model))
    if kind.mode == "dynamic":
        return _dynamic(source, target, settings)
    chosen = None if settings.only is None else set(members(source, settings.only))
    model = onnx.load(str(source))
    if kind.mode == "weight_only":
        return onnx_float.weight_only(model, chosen, per_channel=settings.granularity == "channel")
    if kind.mixed:
        return onnx_float.half_precision(model, members(source, settings.keep), chosen)
    return onnx_float.half_weights(model, chosen)


def onnx_ranges(source: Path, calibration: Samples, settings: Settings) -> Ranges:
    """Ranges of all activations of a float ONNX file.

    Raises:
        TaskError: ``task.bad-calibration``.
    """
    feeds = file_feeds(source, calibration)
    ranges = observe(onnx_run(source), feeds, settings.calibration)
    return align(ranges, state_groups(source, settings.states))


def _static(
    source: Path, kind: Scheme, ranges: Ranges, target: Path, settings: Settings
) -> onnx.ModelProto:
    """QDQ with the ranges found, handed over as the quantizer's own calibration cache."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

    scratch, cache = target.with_suffix(".scratch.onnx"), target.with_suffix(".ranges.json")
    wide = QuantType.QInt16 if kind.activation_bits == 16 else QuantType.QInt8
    try:
        known = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
        save_tensors_data(TensorsData(CalibrationMethod.MinMax, known), cache)
        quantize_static(
            str(source),
            str(scratch),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8 if kind.unsigned else wide,
            weight_type=QuantType.QInt8,
            per_channel=settings.granularity == "channel",
            nodes_to_exclude=members(source, settings.keep),
            nodes_to_quantize=_only_nodes(source, settings),
            calibration_cache_path=cache,
        )
        return onnx.load(str(scratch))
    finally:
        scratch.unlink(missing_ok=True)
        cache.unlink(missing_ok=True)


def _dynamic(source: Path, target: Path, settings: Settings) -> onnx.ModelProto:
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
    nodes = _only_nodes(source, settings)
    try:
        onnx.save(model, str(plain))
        quantize_dynamic(
            str(plain),
            str(scratch),
            weight_type=QuantType.QUInt8 if convolves else QuantType.QInt8,
            per_channel=settings.granularity == "channel",
            # The quantizer splits a Gemm into a product of this name and an addition.
            nodes_to_quantize=nodes and [*nodes, *(f"{node}_MatMul" for node in nodes)],
        )
        return onnx.load(str(scratch))
    finally:
        plain.unlink(missing_ok=True)
        scratch.unlink(missing_ok=True)


def _only_nodes(source: Path, settings: Settings) -> list[str] | None:
    return None if settings.only is None else members(source, settings.only)


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
            value.type.tensor_type.elem_type = _element(constants[node.input[2]])
    for value in model.graph.output:
        node = _only(model, lambda n, name=value.name: name in n.output)
        if node is not None and node.op_type == "DequantizeLinear":
            source = _only(model, lambda n, name=node.input[0]: name in n.output)
            if source is None or source.op_type != "QuantizeLinear":
                continue
            _note(model, value.name, constants[node.input[1]], constants[node.input[2]])
            stored, real = source.output[0], f"{value.name}.real"
            # What the graph itself reads of this output goes on reading it, as a float.
            _rename_input(model, value.name, real)
            node.output[0] = real
            source.output[0] = value.name
            _rename_input(model, stored, value.name)
            if not any(real in other.input for other in model.graph.node):
                model.graph.node.remove(node)
            value.type.tensor_type.elem_type = _element(constants[node.input[2]])
    return model


def _element(zero_point: Any) -> int:
    """ONNX's code of a zero point's element type, which is that of the tensor it belongs to."""
    return int(helper.np_dtype_to_tensor_dtype(np.asarray(zero_point).dtype))


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

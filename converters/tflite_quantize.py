"""Quantizing a float TFLite file (ai-edge-quantizer)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.calibrate.feeds import Samples, file_feeds
from converters.calibrate.observe import Array, Feed, Ranges, align, observe
from converters.calibrate.padding import finite_pads, padded_tensors, with_padding
from converters.calibrate.states import check_states, fixed_ranges, state_groups
from converters.calibrate.tflite_run import tflite_run
from converters.layers import as_mixed, members
from converters.schemes import Scheme, supported_scheme
from converters.settings import DEFAULTS, Settings
from converters.tflite_export import SIGNATURE
from converters.usercode import first_line
from edge_sdk.errors import ConversionError, EdgeError


def quantize_tflite(
    source: Path,
    scheme: str,
    calibration: Samples,
    target: Path,
    settings: Settings = DEFAULTS,
    ranges: Ranges | None = None,
) -> None:
    """Write ``source`` under another scheme.

    Ranges are found by :mod:`converters.calibrate` and handed to the quantizer: its own moving
    average clips values that are rare but real.

    Args:
        source: float32 file by :func:`converters.tflite_export.export_tflite`.
        scheme: any supported scheme but fp32.
        calibration: packed samples or samples by the signature's input names; used by static
            schemes.
        target: written whole.
        settings: calibration method, granularity and exceptions.
        ranges: of activations where they are known already, instead of calibrating.

    Raises:
        ConversionError: ``conversion.quantize-failed``, ``conversion.scheme-unsupported``.
        TaskError: ``task.bad-calibration``.
    """
    kind = supported_scheme(scheme, "tflite")
    if kind.mixed and kind.mode == "static":
        settings = as_mixed(source, settings)
    try:
        with finite_pads(source) as ready:
            data = _quantized(ready, kind, calibration, settings, ranges)
    except EdgeError:
        raise
    except Exception as error:
        raise ConversionError(
            "quantize-failed",
            f"{source.name} cannot be quantized as {scheme}: {first_line(error)}",
            "Leave this scheme out (--schemes), or change the layer it names.",
        ) from error
    target.write_bytes(data)
    check_states(target, settings.states)


def tflite_ranges(source: Path, calibration: Samples, settings: Settings) -> Ranges:
    """Ranges of all activations of a float TFLite file.

    Raises:
        TaskError: ``task.bad-calibration``.
    """
    feeds = file_feeds(source, calibration)
    run, padded = tflite_run(source, SIGNATURE), padded_tensors(source)
    hidden = padded.keys() | _constants(source)

    def visible(feed: Feed) -> Mapping[str, Array]:
        return {name: values for name, values in run(feed).items() if name not in hidden}

    ranges = with_padding(observe(visible, feeds, settings.calibration), padded)
    return align(ranges, state_groups(source, settings.states))


def _quantized(
    source: Path, kind: Scheme, calibration: Samples, settings: Settings, ranges: Ranges | None
) -> bytes:
    from ai_edge_quantizer import quantizer

    work = quantizer.Quantizer(str(source))
    _add_rules(work, source, kind, settings)
    table = None
    if kind.mode == "static":
        if ranges is None:
            ranges = tflite_ranges(source, calibration, settings)
        fixed = fixed_ranges(source, settings.states, kind.activation_bits)
        table = _range_table(work, source, calibration, ranges | fixed)
    result = work.quantize(table, enable_progress_report=False)
    return bytes(result.quantized_model)


def _range_table(work: Any, source: Path, calibration: Samples, ranges: Ranges) -> dict[str, Any]:
    """The quantizer's own table of ranges, with ours in it.

    One sample tells which tensors the table holds (constants among them) and in what shape.
    """
    from ai_edge_quantizer import calibrator
    from ai_edge_quantizer.utils import qsv_utils

    observer = calibrator.Calibrator(
        str(source), num_threads=1, qsv_update_func=qsv_utils.min_max_update
    )
    observer.calibrate({SIGNATURE: file_feeds(source, calibration)[:1]}, work._recipe_manager)
    table: dict[str, Any] = observer.get_model_qsvs()
    for name, entry in table.items():
        if name in ranges and entry:
            low, high = ranges[name]
            entry["min"] = np.full_like(entry["min"], low)
            entry["max"] = np.full_like(entry["max"], high)
    return table


def _constants(source: Path) -> set[str]:
    """Names of the tensors whose values are in the file."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flatbuffers

    model = flatbuffers.read_model(str(source))
    return {
        flatbuffers.get_tensor_name(tensor)
        for tensor in model.subgraphs[0].tensors
        if flatbuffers.get_tensor_data(tensor, model.buffers) is not None
    }


def _add_rules(work: Any, source: Path, kind: Scheme, settings: Settings) -> None:
    """The scheme for every operator, but for the layers that stay out."""
    from ai_edge_quantizer import qtyping, quantizer

    scopes = [".*"]
    if settings.only is not None:
        scopes = [_exactly(scope) for scope in members(source, settings.only)]
    half = kind.mode == "float"
    algorithm = quantizer.AlgorithmName
    for scope in scopes:
        work.update_quantization_recipe(
            regex=scope,
            operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
            op_config=_op_config(kind, settings),
            algorithm_key=algorithm.FLOAT_CASTING if half else algorithm.MIN_MAX_UNIFORM_QUANT,
        )
    for scope in _left_out(source, settings):
        work.update_quantization_recipe(
            regex=_exactly(scope),
            operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
            algorithm_key=algorithm.NO_QUANTIZE,
        )


def _left_out(source: Path, settings: Settings) -> Iterable[str]:
    return members(source, settings.keep) if settings.keep else ()


def _op_config(kind: Scheme, settings: Settings) -> Any:
    from ai_edge_quantizer import qtyping

    if kind.mode == "float":
        return qtyping.OpQuantizationConfig(
            weight_tensor_config=qtyping.TensorQuantizationConfig(
                num_bits=16, dtype=qtyping.TensorDataType.FLOAT
            ),
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        )
    activation = None
    if kind.mode == "static":
        bits = kind.activation_bits
        activation = qtyping.TensorQuantizationConfig(num_bits=bits, symmetric=bits == 16)
    expands = kind.mode == "weight_only"
    precision = qtyping.ComputePrecision
    return qtyping.OpQuantizationConfig(
        activation_tensor_config=activation,
        weight_tensor_config=qtyping.TensorQuantizationConfig(
            num_bits=kind.weight_bits,
            symmetric=True,
            granularity=(
                qtyping.QuantGranularity.CHANNELWISE
                if settings.granularity == "channel"
                else qtyping.QuantGranularity.TENSORWISE
            ),
        ),
        compute_precision=precision.FLOAT if expands else precision.INTEGER,
        explicit_dequantize=expands,
    )


def _exactly(scope: str) -> str:
    return f"^{re.escape(scope)}$"

"""Quantizing a float TFLite file (ai-edge-quantizer)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from converters.schemes import supported_scheme
from converters.task import Floats
from converters.tflite_export import INPUT, SIGNATURE
from converters.usercode import first_line
from edge_sdk.errors import ConversionError


def quantize_tflite(source: Path, scheme: str, calibration: Floats, target: Path) -> None:
    """Write ``source`` under another scheme.

    Ranges are the plain minimum and maximum over the calibration samples: the quantizer's default
    moving average clips values that are rare but real.

    Args:
        source: float32 file by :func:`converters.tflite_export.export_tflite`.
        scheme: any supported scheme but fp32.
        calibration: (N, C, H, W) float32; used by static schemes.
        target: written whole.

    Raises:
        ConversionError: ``conversion.quantize-failed``, ``conversion.scheme-unsupported``.
    """
    supported_scheme(scheme)
    try:
        data = _quantized(source, scheme, calibration)
    except Exception as error:
        raise ConversionError(
            "quantize-failed",
            f"{source.name} cannot be quantized as {scheme}: {first_line(error)}",
            "Leave this scheme out (--schemes), or change the layer it names.",
        ) from error
    target.write_bytes(data)


def _quantized(source: Path, scheme: str, calibration: Floats) -> bytes:
    from ai_edge_quantizer import calibrator, quantizer
    from ai_edge_quantizer.utils import qsv_utils

    work = quantizer.Quantizer(str(source))
    _load_recipe(work, scheme)
    ranges = None
    if work.need_calibration:
        observer = calibrator.Calibrator(
            str(source), num_threads=1, qsv_update_func=qsv_utils.min_max_update
        )
        nhwc = calibration.transpose(0, 2, 3, 1)
        samples = [{INPUT: np.ascontiguousarray(sample[None])} for sample in nhwc]
        observer.calibrate({SIGNATURE: samples}, work._recipe_manager)
        ranges = observer.get_model_qsvs()
    result = work.quantize(ranges, enable_progress_report=False)
    return bytes(result.quantized_model)


def _load_recipe(work: Any, scheme: str) -> None:
    from ai_edge_quantizer import qtyping, quantizer, recipe

    if scheme == "wfp16":
        work.update_quantization_recipe(
            regex=".*",
            operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
            op_config=qtyping.OpQuantizationConfig(
                weight_tensor_config=qtyping.TensorQuantizationConfig(
                    num_bits=16, dtype=qtyping.TensorDataType.FLOAT
                ),
                compute_precision=qtyping.ComputePrecision.FLOAT,
                explicit_dequantize=True,
            ),
            algorithm_key=quantizer.AlgorithmName.FLOAT_CASTING,
        )
        return
    work.load_quantization_recipe(getattr(recipe, scheme)())

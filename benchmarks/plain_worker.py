"""Child process: the conversion a user would write with the libraries alone."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from converters.children import child_main
from converters.loading import load_task


def plain(request: dict[str, Any], step: Callable[[str], None]) -> list[str]:
    """Write ``fp32`` and ``int8`` in both formats; returns their paths.

    Args:
        request: ``task``, ``weights`` (or None), ``folder``.
        step: told each library.
    """
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    task = load_task(request["task"])
    module = task.task.build()
    if request["weights"]:
        module.load_state_dict(torch.load(request["weights"], weights_only=True))
    module.eval().requires_grad_(False)
    height, width = task.resolutions[0]
    samples = np.concatenate([b.numpy() for b in task.task.calibration(height, width)])
    folder = Path(request["folder"])
    step("torch.onnx and onnxruntime.quantization")
    onnx_files = with_onnx(module, samples, folder)
    step("litert_torch and ai_edge_quantizer")
    return onnx_files + with_tflite(module, samples, folder)


def with_onnx(module: torch.nn.Module, samples: np.ndarray, folder: Path) -> list[str]:
    """``torch.onnx.export`` and ``quantize_static`` with its defaults."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = iter([{"input": sample[None]} for sample in samples])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    float_path, int_path = folder / "fp32.onnx", folder / "int8.onnx"
    example = (torch.from_numpy(samples[:1]),)
    names = {"input_names": ["input"], "output_names": ["output"]}
    program = torch.onnx.export(module, example, dynamo=True, verbose=False, **names)
    program.save(str(float_path), external_data=False)
    quantize_static(str(float_path), str(int_path), Reader())
    return [str(float_path), str(int_path)]


def with_tflite(module: torch.nn.Module, samples: np.ndarray, folder: Path) -> list[str]:
    """``litert_torch.convert`` and the quantizer's ``static_wi8_ai8`` recipe."""
    import litert_torch
    from ai_edge_quantizer import quantizer, recipe

    float_path, int_path = folder / "fp32.tflite", folder / "int8.tflite"
    nhwc = np.ascontiguousarray(samples.transpose(0, 2, 3, 1))
    wrapped = litert_torch.to_channel_last_io(module, args=[0]).eval()
    litert_torch.convert(wrapped, (torch.from_numpy(nhwc[:1]),)).export(str(float_path))
    work = quantizer.Quantizer(str(float_path))
    work.load_quantization_recipe(recipe.static_wi8_ai8())
    feeds = {"serving_default": [{"args_0": sample[None]} for sample in nhwc]}
    work.quantize(work.calibrate(feeds, num_threads=1)).export_model(str(int_path))
    return [str(float_path), str(int_path)]


if __name__ == "__main__":
    child_main(plain)

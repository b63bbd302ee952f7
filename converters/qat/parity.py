"""What the ONNX and the TFLite file of one trained module have in common: everything, it should be.

Scales are read out of the files themselves, and both files run every held-out sample.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from converters.children import Job, run_jobs
from converters.results import RUNTIME_OF, Measured
from converters.task import Floats

Scales = set[tuple[float, ...]]
"""Per-tensor: (scale, zero point); per-channel: all scales of one weight."""


@dataclass(frozen=True, slots=True)
class Parity:
    """ONNX against TFLite at one resolution."""

    size: str
    shared_scales: int
    """Different quantizations of tensors that occur in both files, bit for bit."""
    only_onnx: int
    only_tflite: int
    largest_lsb: int
    """Largest difference of an output in steps of its scale, over all held-out samples."""
    different_share: float
    """Of the output elements."""


def compare_formats(
    out: Path, measured: Sequence[Measured], samples: dict[str, Floats]
) -> list[Parity]:
    """Compare the two int8 files of each resolution.

    Args:
        out: the folder of the conversion.
        measured: its artifacts.
        samples: (N, C, H, W) float32 by resolution.

    Raises:
        ConversionError: those of :func:`converters.children.run_jobs`.
    """
    found = []
    for size, inputs in samples.items():
        pair = {
            item.format: item
            for item in measured
            if item.size == size and item.scheme == "static_wi8_ai8"
        }
        if len(pair) == 2:
            found.append(_compare(out, size, pair["onnx"], pair["tflite"], inputs))
    return found


def onnx_scales(path: Path) -> Scales:
    """Quantizations of the activations and weights in a QDQ file, each once."""
    model = onnx.load(str(path))
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found: Scales = set()
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        stored = constants.get(node.input[0])
        if stored is not None and stored.dtype == np.int32:
            continue  # a bias: TFLite leaves its scale implied
        zero = constants[node.input[2]] if len(node.input) > 2 else np.zeros(1)
        found.add(_key(constants[node.input[1]], zero))
    return found


def tflite_scales(path: Path) -> Scales:
    """Quantizations of the int8 tensors in a TFLite file, each once."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), experimental_op_resolver_type=_plain_kernels())
    found: Scales = set()
    for tensor in interpreter.get_tensor_details():
        scales = tensor["quantization_parameters"]["scales"]
        if tensor["dtype"] == np.int8 and len(scales):
            found.add(_key(scales, tensor["quantization_parameters"]["zero_points"]))
    return found


def _plain_kernels() -> Any:
    """Without delegates: they would not list the tensors they swallow."""
    from ai_edge_litert.interpreter import OpResolverType

    return OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


def _key(scales: Any, zero_points: Any) -> tuple[float, ...]:
    scales = np.asarray(scales, np.float32).reshape(-1)
    if len(scales) > 1:
        return tuple(scales.tolist())
    return float(scales[0]), float(np.asarray(zero_points).reshape(-1)[0])


def _compare(out: Path, size: str, one: Measured, other: Measured, inputs: Floats) -> Parity:
    files = [out / "artifacts" / item.path.name for item in (one, other)]
    left, right = onnx_scales(files[0]), tflite_scales(files[1])
    answers = _answers([(one.format, files[0]), (other.format, files[1])], inputs)
    steps = np.rint(np.abs(answers[0] - answers[1]) / (one.outputs[0].scale or 1.0))
    return Parity(
        size=size,
        shared_scales=len(left & right),
        only_onnx=len(left - right),
        only_tflite=len(right - left),
        largest_lsb=int(steps.max()),
        different_share=float(np.mean(steps > 0)),
    )


def _answers(files: Sequence[tuple[str, Path]], inputs: Floats) -> list[Floats]:
    """Dequantized answers of each file, each run in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        np.save(scratch / "samples.npy", inputs)
        jobs = [
            Job(
                name=f"compare {path.name}",
                module="converters.verify_worker",
                request={
                    "path": str(path),
                    "format": kind,
                    "runtime": RUNTIME_OF[kind],
                    "threads": [1],
                    "seconds": 0.0,
                    "samples": str(scratch / "samples.npy"),
                    "outputs": str(scratch / f"{path.name}.npy"),
                },
                folder=scratch,
                threads=1,
            )
            for kind, path in files
        ]
        run_jobs(jobs, parallel=1)
        return [np.load(scratch / f"{path.name}.npy") for _, path in files]

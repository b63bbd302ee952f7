"""Where a quantized file loses its signal: SQNR of each layer's output against the float file's.

Runs in a child process (:func:`work`): both files are run with every intermediate tensor visible,
which runtimes only allow with their optimisations off.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.children import Job, child_main, run_jobs
from converters.inspect import inspect_model
from converters.layers import layers_of
from converters.measure import MAX_SQNR_DB
from converters.packing import Array
from converters.task import Floats
from converters.wiring import as_exported, feeds
from edge_sdk.contracts.operating_point import TensorSpec
from edge_sdk.runtime.engine import dequantize

MAX_SAMPLES = 16
Tensors = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class LayerNoise:
    """One layer of a quantized file."""

    name: str
    """Path of the module in the user's code where it is known."""
    op: str
    sqnr_db: float
    """Signal to quantization noise of its output, with the noise of all layers before it."""


def layer_noise(
    quantized: Path, source: Path, samples: Floats, *, exported: bool = True
) -> list[LayerNoise]:
    """Compare a quantized file with the float file it was made from, layer by layer.

    Args:
        quantized: of either format.
        source: float file of the same format.
        samples: packed, see :mod:`converters.packing`; the first :data:`MAX_SAMPLES` are used.
        exported: whether our exporters made the file; see :mod:`converters.verify_worker`.

    Returns:
        Worst first; layers whose output both files still have.

    Raises:
        ConversionError: what :func:`converters.children.run_jobs` raises.
    """
    with tempfile.TemporaryDirectory() as scratch:
        held = Path(scratch) / "samples.npy"
        np.save(held, samples[:MAX_SAMPLES])
        request = {
            "quantized": str(quantized),
            "source": str(source),
            "samples": str(held),
            "exported": exported,
        }
        job = Job(f"layers of {quantized.name}", __name__, request, Path(scratch), threads=1)
        (rows,) = run_jobs([job], parallel=1)
    return [LayerNoise(**row) for row in rows]


def sqnr_of(signal: float, noise: float) -> float:
    """Decibels of two sums of squares, between plus and minus :data:`MAX_SQNR_DB`."""
    if noise <= 0:
        return MAX_SQNR_DB
    ratio = 10 * math.log10(max(signal, 1e-30) / noise)
    return max(-MAX_SQNR_DB, min(MAX_SQNR_DB, ratio))


def work(request: dict[str, Any], step: Callable[[str], None]) -> list[dict[str, Any]]:
    """Body of the child process; see :func:`layer_noise`."""
    source, quantized = Path(request["source"]), Path(request["quantized"])
    samples = np.load(request["samples"])
    sums: dict[str, list[float]] = {}
    run = _onnx if source.suffix == ".onnx" else _tflite
    pairs = zip(
        run(source, samples, request["exported"]),
        run(quantized, samples, request["exported"]),
        strict=True,
    )
    for wanted, got in pairs:
        for name, reference in wanted.items():
            found = got.get(name)
            if found is None or found.shape != reference.shape:
                continue
            if not np.isfinite(reference).all():
                continue  # an endless padding
            total = sums.setdefault(name, [0.0, 0.0])
            total[0] += float(np.sum(np.square(reference, dtype=np.float64)))
            total[1] += float(np.sum(np.square(found - reference, dtype=np.float64)))
    rows = [
        {"name": layer.name, "op": layer.op, "sqnr_db": sqnr_of(*sums[tensor])}
        for layer in layers_of(source)
        for tensor in _outputs_of(source, layer.members[-1])
        if tensor in sums
    ]
    return sorted(rows, key=lambda row: row["sqnr_db"])


def _outputs_of(source: Path, member: str) -> list[str]:
    """The tensor that a member of a layer writes: of a node (ONNX) or scope (TFLite).

    In ONNX also what an activation makes of it alone: the quantizer folds ReLU into the layer, and
    the tensor between them is gone.
    """
    if source.suffix != ".onnx":
        return [member.rstrip(";")]
    import onnx

    nodes = onnx.load(str(source), load_external_data=False).graph.node
    own = next((str(node.output[0]) for node in nodes if node.name == member), "")
    readers = [node for node in nodes if own in node.input]
    if len(readers) == 1 and readers[0].op_type in ("Relu", "Clip"):
        return [str(readers[0].output[0])]
    return [own]


def _specs(path: Path, exported: bool) -> tuple[list[TensorSpec], list[TensorSpec]]:
    facts = inspect_model(path)
    both = (facts.inputs, facts.outputs)
    first, second = (
        [as_exported(spec, facts.format) if exported else spec for spec in specs] for specs in both
    )
    return first, second


def _onnx(path: Path, samples: Floats, exported: bool) -> Sequence[Tensors]:
    """All float tensors per sample; a quantized tensor under the name it had as a float one."""
    from converters.calibrate.onnx_run import onnx_run

    run = onnx_run(path)
    inputs, outputs = _specs(path, exported)
    names = [spec.name for spec in inputs]
    quantized = {spec.name: spec for spec in outputs if spec.scale is not None}
    found = []
    for arrays in feeds(samples, inputs):
        raw = run(dict(zip(names, arrays, strict=True)))
        tensors = {name: array for name, array in raw.items() if array.dtype == np.float32}
        suffix = "_DequantizeLinear_Output"
        named = {n.removesuffix(suffix): a for n, a in tensors.items() if n.endswith(suffix)}
        ends = {n: dequantize(raw[n], spec) for n, spec in quantized.items() if n in raw}
        found.append(tensors | named | ends)
    return found


def _tflite(path: Path, samples: Floats, exported: bool) -> Sequence[Tensors]:
    """All tensors per sample, dequantized."""
    from ai_edge_litert import interpreter as litert

    runner = litert.Interpreter(
        model_path=str(path),
        num_threads=1,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    runner.allocate_tensors()
    inputs, _ = _specs(path, exported)
    places = [detail["index"] for detail in runner.get_input_details()]
    found = []
    for arrays in feeds(samples, inputs):
        for place, array in zip(places, arrays, strict=True):
            runner.set_tensor(place, array)
        runner.invoke()
        found.append(dict(_tensors(runner)))
    return found


def _tensors(runner: Any) -> Sequence[tuple[str, Array]]:
    found = []
    for detail in runner.get_tensor_details():
        try:
            stored = runner.get_tensor(detail["index"])
        except ValueError:  # scratch of an operator, or a constant of a fused one
            continue
        scales = detail["quantization_parameters"]["scales"]
        if len(scales) == 1 and stored.dtype.kind in "iu":
            zero = detail["quantization_parameters"]["zero_points"][0]
            found.append((detail["name"], (stored.astype(np.float32) - zero) * scales[0]))
        elif stored.dtype == np.float32:
            found.append((detail["name"], stored))
    return found


if __name__ == "__main__":
    child_main(work)

"""Child process: runs one artifact in the device's runtime (see :mod:`converters.children`)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from converters.children import child_main
from converters.partitions import delegate_partitions
from converters.wiring import answer, as_exported, feeds
from edge_sdk.contracts.operating_point import TensorSpec
from edge_sdk.errors import ConversionError
from edge_sdk.runtime.engine import Array, Engine, quantize
from edge_sdk.runtime.negotiate import open_engine

WARM_UP = 10
"""Inferences before timing starts."""
MIN_RUNS = 20
MAX_RUNS = 100_000


def verify(request: dict[str, Any], step: Callable[[str], None]) -> dict[str, Any]:
    """Run samples through an artifact.

    Args:
        request: ``path``, ``format``, ``runtime``, ``threads`` (list; the first runs the
            samples), ``seconds`` (to spend on timing, per thread count), ``samples`` (an
            ``.npy`` of (N, C, H, W) float32 or packed samples, or None for noise), ``outputs``
            (where to write the dequantized outputs, packed, ``.npy``), ``exported`` (whether the
            file is an export of ours, whose images in TFLite are channels last).
        step: unused; a single artifact is quick.

    Returns:
        ``inputs`` and ``outputs`` (TensorSpecs), ``runtime``, ``unit``, ``latency``
        (``{threads: {"median_ms", "p95_ms", "runs"}}``), ``memory_mib``, ``load_ms``.
    """
    before = _resident_mib()
    started = time.perf_counter()
    engine = _open(request, request["threads"][0])
    load_ms = (time.perf_counter() - started) * 1e3
    loaded, loading = _resident_mib() - before, _peak_mib() - before
    specs = [_true_specs(request, found) for found in (engine.inputs, engine.outputs)]
    stored = _stored(request, specs[0])
    without_runs = _restarted_peak_mib()
    if request.get("outputs"):
        np.save(request["outputs"], _run_all(engine, stored, specs[1], request["path"]))
    latency = {str(request["threads"][0]): _timed(engine, stored, request["seconds"])}
    # The samples are this process's own; on a device there is one frame.
    memory = max(0.0, loading, loaded + _peak_mib() - without_runs)
    facts = {
        "inputs": [msgspec.to_builtins(spec) for spec in specs[0]],
        "outputs": [msgspec.to_builtins(spec) for spec in specs[1]],
        "partitions": delegate_partitions(Path(request["path"])) if _delegates(engine) else 0,
        "runtime": engine.runtime,
        "unit": engine.unit,
    }
    engine.close()
    for threads in request["threads"][1:]:
        engine = _open(request, threads)
        latency[str(threads)] = _timed(engine, stored, request["seconds"])
        engine.close()
    return facts | {"latency": latency, "memory_mib": memory, "load_ms": load_ms}


def _delegates(engine: Engine) -> bool:
    return engine.runtime == "litert" and getattr(engine, "kernels", "") == "xnnpack"


def _open(request: dict[str, Any], threads: int) -> Engine:
    runtimes = [request["runtime"]] if request["runtime"] else None
    return open_engine(
        Path(request["path"]), format=request["format"], threads=threads, runtimes=runtimes
    )


def _true_specs(request: dict[str, Any], specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """Specs with the layout the exporter gave them, where the engine could only guess."""
    if not request.get("exported"):
        return list(specs)
    return [as_exported(spec, request["format"]) for spec in specs]


def _stored(request: dict[str, Any], specs: Sequence[TensorSpec]) -> Sequence[Sequence[Array]]:
    """Samples as the engine's inputs store them; noise where the request brings none."""
    if any(size <= 0 for spec in specs for size in spec.shape):
        raise ConversionError(
            "open-shape",
            f"{Path(request['path']).name} has an input of open shape.",
            "Only models with inputs of fixed shape can be measured.",
        )
    if not request.get("samples"):
        return [[_noise(spec) for spec in specs]]
    return feeds(np.load(request["samples"]), specs)


def _noise(spec: TensorSpec) -> Array:
    if spec.scale is None and not spec.dtype.startswith("float"):
        return np.zeros(spec.shape, spec.dtype)  # an index or a flag: zero is always valid
    real = np.random.default_rng(0).normal(size=spec.shape).astype(np.float32)
    return quantize(real, spec)


def _run_all(
    engine: Engine, stored: Sequence[Sequence[Array]], specs: Sequence[TensorSpec], path: str
) -> Array:
    # Outputs may be views of the runtime's memory: `answer` copies them before the next run.
    joined = np.concatenate([answer(engine.run(arrays), specs) for arrays in stored])
    if not np.isfinite(joined).all():
        raise ConversionError(
            "wrong-output",
            f"{Path(path).name} answers NaN or infinity on {engine.runtime}.",
            "Leave this scheme out (--schemes); the model's range may not fit it.",
        )
    return joined


def _timed(engine: Engine, stored: Sequence[Sequence[Array]], seconds: float) -> dict[str, float]:
    """Median and 95th percentile of single inferences, input changing from one to the next."""
    for index in range(WARM_UP):
        engine.run(stored[index % len(stored)])
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < MIN_RUNS or (time.perf_counter() < end and len(times) < MAX_RUNS):
        started = time.perf_counter_ns()
        engine.run(stored[len(times) % len(stored)])
        times.append((time.perf_counter_ns() - started) / 1e6)
    return {
        "median_ms": float(np.median(times)),
        "p95_ms": float(np.percentile(times, 95)),
        "runs": len(times),
    }


def _resident_mib() -> float:
    return _status("VmRSS")


def _restarted_peak_mib() -> float:
    """Begin the peak anew (proc(5), ``clear_refs``): resident memory, which it is now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak_mib()


def _peak_mib() -> float:
    return _status("VmHWM")


def _status(field: str) -> float:
    """A field of /proc/self/status in MiB; 0 where there is no /proc.

    ``getrusage`` is no stand-in: its peak survives exec, so a child reports its parent's.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    values = [int(line.split()[1]) for line in lines if line.startswith(f"{field}:")]
    return values[0] / 1024 if values else 0.0


if __name__ == "__main__":
    child_main(verify)

"""Verifying every artifact against PyTorch, in the runtime the device uses."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from converters.children import Job, run_jobs
from converters.data import Samples
from converters.golden import choose_samples, golden_bytes, tolerances
from converters.inspect import inspect_model
from converters.loading import LoadedTask
from converters.measure import accuracy_of, compare, compare_generic, is_wrong, sqnr_by_output
from converters.packing import widths_of
from converters.results import RUNTIME_OF, Latency, Measured
from converters.schemes import parse_scheme
from converters.task import Floats
from converters.wiring import file_outputs, in_file_order, module_order, module_shapes
from edge_sdk.contracts.operating_point import TensorSpec
from edge_sdk.errors import ConversionError

TIMED_S = 0.15
"""Time spent on measuring latency, per artifact and thread count."""


class Run(Protocol):
    """Runs jobs of :mod:`converters.verify_worker`; their answers in the same order."""

    def __call__(self, jobs: Sequence[Job], *, parallel: int) -> list[dict[str, Any]]:
        """At most ``parallel`` at a time."""


@dataclass(frozen=True, slots=True)
class Reference:
    """PyTorch's answers on the held-out samples, all by resolution (``32x32``)."""

    samples: dict[str, Samples]
    outputs: dict[str, Floats]
    accuracy: dict[str, float]
    full: str
    """The full resolution."""
    name: str = "PyTorch"
    """What answered: the name of the file where one was imported."""


def verify_all(
    task: LoadedTask,
    built: Sequence[dict[str, Any]],
    reference: Reference,
    *,
    folder: Path,
    scratch: Path,
    threads: dict[str, list[int]],
    run: Run | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Measured]:
    """Run every artifact on every held-out sample.

    Each runs in a process of its own: a crashing kernel becomes an error, and the memory measured
    is that artifact's alone. One at a time on small machines, so that latencies are not each
    other's noise.

    Args:
        task: for its score.
        built: what :mod:`converters.build_worker` returned, with ``format``.
        reference: PyTorch's answers.
        folder: the conversion being built; golden vectors go to ``golden/`` in it.
        scratch: for samples and outputs.
        threads: thread counts to time, by format.
        run: runs the jobs of :mod:`converters.verify_worker`, perhaps through a cache;
            :func:`run_jobs` when None.
        progress: told each artifact when it is done, where ``run`` is None.

    Raises:
        ConversionError: ``conversion.wrong-output``, ``conversion.native-crash`` and the others
            of :func:`converters.children.run_jobs`.
    """
    (folder / "golden").mkdir(exist_ok=True)
    for size, samples in reference.samples.items():
        np.save(scratch / f"{size}.npy", samples.inputs)
    jobs = [_job(item, scratch, threads[item["format"]]) for item in built]
    parallel = max(1, (os.cpu_count() or 1) // 2)
    if run is not None:
        answers = run(jobs, parallel=parallel)
    else:
        answers = run_jobs(
            jobs, parallel=parallel, on_done=lambda job, result: progress(f"verified {job}")
        )
    return [
        _measured(task, item, answer, reference, folder, scratch)
        for item, answer in zip(built, answers, strict=True)
    ]


def _job(item: dict[str, Any], scratch: Path, threads: list[int]) -> Job:
    path = Path(item["path"])
    return Job(
        name=path.name,
        module="converters.verify_worker",
        request={
            "path": str(path),
            "format": item["format"],
            "runtime": RUNTIME_OF[item["format"]],
            "threads": threads,
            "seconds": TIMED_S,
            "exported": item.get("exported", True),
            "samples": str(scratch / f"{item['height']}x{item['width']}.npy"),
            "outputs": str(scratch / f"{path.name}.outputs.npy"),
        },
        folder=scratch,
        timeout_s=600.0,
    )


def _measured(
    task: LoadedTask,
    item: dict[str, Any],
    answer: dict[str, Any],
    reference: Reference,
    folder: Path,
    scratch: Path,
) -> Measured:
    path = Path(item["path"])
    size = f"{item['height']}x{item['width']}"
    samples = reference.samples[size]
    outputs = np.load(scratch / f"{path.name}.outputs.npy")
    _check_shape(outputs, reference.outputs[size], path, reference.name)
    inputs, results = _specs(answer["inputs"]), _specs(answer["outputs"])
    widths = widths_of(module_shapes(results))
    wanted = reference.outputs[size]
    if task.kind == "generic":
        comparison = compare_generic(outputs, wanted, widths, task.tolerance)
    else:
        comparison = compare(outputs, wanted, reference.outputs[reference.full])
    if is_wrong(item["scheme"], comparison, wanted):
        raise ConversionError(
            "wrong-output",
            f"{path.name} differs from {reference.name} by up to "
            f"{comparison.max_output_error:.3g}, more than rounding explains: something was "
            "translated wrongly.",
            "Look for constants made by transpose or slicing and clone them contiguous, or leave "
            "this scheme out (--schemes).",
        )
    accuracy = accuracy_of(task, outputs, wanted, samples.labels, widths)
    noise = sqnr_by_output(outputs, wanted, widths)
    chosen = choose_samples(samples.labels)
    golden = golden_bytes(
        in_file_order(samples.inputs[chosen], inputs), file_outputs(outputs[chosen], results)
    )
    golden_path = folder / "golden" / f"{path.name}.npz"
    golden_path.write_bytes(golden)
    data = path.read_bytes()
    return Measured(
        path=path,
        digest=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        format=item["format"],
        scheme=item["scheme"],
        height_px=item["height"],
        width_px=item["width"],
        inputs=inputs,
        outputs=results,
        accuracy=accuracy,
        accuracy_drop=reference.accuracy[reference.full] - accuracy,
        scheme_drop=reference.accuracy[size] - accuracy,
        agreement=comparison.agreement,
        max_output_error=comparison.max_output_error,
        distance=comparison.distance,
        latency={int(count): Latency(**times) for count, times in answer["latency"].items()},
        memory_mib=answer["memory_mib"],
        golden=golden_path,
        golden_digest=hashlib.sha256(golden).hexdigest(),
        tolerance=tolerances(item["format"], parse_scheme(item["scheme"]), results, outputs),
        sqnr_db=min(noise),
        output_sqnr_db=dict(zip(_names(results), noise, strict=True)),
        floats=_floats(path, item["scheme"]),
        partitions=answer.get("partitions", 0),
    )


def _floats(path: Path, scheme: str) -> tuple[bool, ...]:
    kind = parse_scheme(scheme)
    if not kind.mixed or kind.mode != "static":
        return ()
    return tuple(layer.weight_dtype == "float32" for layer in inspect_model(path).layers)


def _check_shape(outputs: Floats, reference: Floats, path: Path, name: str) -> None:
    if outputs.shape != reference.shape:
        raise ConversionError(
            "wrong-output",
            f"{path.name} answers shape {outputs.shape}, {name} {reference.shape}.",
            "This is a defect of the exporter or quantizer on this model; report it.",
        )


def _names(specs: Sequence[TensorSpec]) -> list[str]:
    """Of outputs, in the module's order."""
    return [specs[position].name for position in module_order(specs)]


def _specs(data: Sequence[Any]) -> tuple[TensorSpec, ...]:
    return tuple(msgspec.convert(spec, type=TensorSpec) for spec in data)

"""From a task to a folder of verified artifacts with a ladder for every profile."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from converters.children import Job, run_jobs
from converters.costs import LayerSize, layer_sizes, total_macs
from converters.data import Samples, calibration_set, evaluation_set
from converters.gate import DEFAULT_MAX_DROP, check_gate
from converters.ladder import Ladder, build_ladder, choose_runtime, host_threads
from converters.loading import LoadedTask, load_task
from converters.measure import accuracy_of
from converters.metadata import annotate
from converters.publish import CONVERSION_NAME, Publisher
from converters.results import FORMAT_OF, RUNTIME_OF, Measured
from converters.schemes import DEFAULT, in_order, supported_scheme
from converters.task import Floats
from converters.verify import Reference, verify_all
from device_profiles.loader import load_profile
from edge_sdk import __version__
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.conversion import Conversion
from edge_sdk.contracts.manifest import Artifact, TaskInfo
from edge_sdk.contracts.profile import DeviceProfile
from edge_sdk.durable import DiskStorage
from edge_sdk.errors import TaskError, UsageError
from edge_sdk.suggest import did_you_mean

Format = Literal["tflite", "onnx"]
Step = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What to build and what to demand of it."""

    schemes: tuple[str, ...] = ()
    """Empty: the task's own choice, else what the profiles run best plus the defaults."""
    resolutions: tuple[tuple[int, int], ...] = ()
    """Empty: all of the task's."""
    formats: tuple[Format, ...] = ("tflite", "onnx")
    runtime: str | None = None
    """Overrides every profile's preferred runtime."""
    weights: Path | None = None
    qat: Path | None = None
    """Checkpoint of :mod:`converters.qat` that ``static_wi8_ai8`` is written from."""
    max_drop: float = DEFAULT_MAX_DROP
    min_accuracy: float = 0.0
    force: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished conversion and what its table shows."""

    conversion: Conversion
    out: Path
    ladders: dict[str, Ladder]
    measured: tuple[Measured, ...]
    reference: dict[str, float]
    """PyTorch's accuracy by resolution."""
    macs: dict[str, int]
    """Multiply-accumulates of one inference by resolution."""
    profiles: dict[str, DeviceProfile]


def convert(
    task_ref: str,
    profiles: Sequence[str],
    out: Path,
    *,
    options: Options | None = None,
    progress: Step = lambda text: None,
) -> Outcome:
    """Convert a task for one or more device profiles.

    Args:
        task_ref: ``path.py:Class``.
        profiles: ids or paths of device profiles.
        out: folder to create, or an earlier conversion to replace.
        options: what to build; everything the profiles want by default.
        progress: told each step as it begins.

    Returns:
        The conversion as written to ``out``: ``conversion.json``, ``artifacts/``, ``golden/``,
        ``report.html``.

    Raises:
        TaskError, ConversionError, ProfileError, GateError, StorageError: nothing is written
            then, and an earlier folder at ``out`` is untouched.
    """
    options = options or Options()
    loaded_profiles = _load_profiles(profiles)
    progress("load the task")
    task = load_task(task_ref)
    plan = _plan(task, loaded_profiles, options)
    publisher = Publisher(out.absolute(), force=options.force)
    with publisher.building() as building, tempfile.TemporaryDirectory() as scratch:
        outcome = _Run(task, plan, options, building, Path(scratch), progress).run(out)
        progress("write the report")
        _write(outcome, building)
    return outcome


@dataclass(frozen=True, slots=True)
class _Plan:
    profiles: dict[str, DeviceProfile]
    schemes: dict[Format, tuple[str, ...]]
    """By format, in the order they were asked for."""
    threads: dict[str, list[int]]
    """Thread counts to time, by format; one thread always, for comparison."""
    resolutions: tuple[tuple[int, int], ...]


class _Run:
    """One conversion: prepare the data, build, verify, gate, size."""

    def __init__(
        self,
        task: LoadedTask,
        plan: _Plan,
        options: Options,
        building: Path,
        scratch: Path,
        progress: Step,
    ) -> None:
        self._task = task
        self._plan = plan
        self._options = options
        self._building = building
        self._scratch = scratch
        self._progress = progress

    def run(self, out: Path) -> Outcome:
        self._progress("check the data")
        evaluation = self._evaluation()
        self._save_calibration()
        self._progress("run PyTorch for reference")
        reference = self._reference(evaluation)
        built = self._build()
        annotate(self._task, built, provenance(self._task, self._options.weights))
        measured = verify_all(
            self._task,
            built,
            reference,
            folder=self._building,
            scratch=self._scratch,
            threads=self._plan.threads,
            progress=self._progress,
        )
        full = reference.accuracy[_size(*self._task.resolutions[0])]
        check_gate(
            measured,
            max_drop=self._options.max_drop,
            min_accuracy=self._options.min_accuracy,
            reference_accuracy=full,
        )
        sizes = self._layer_sizes(measured)
        ladders = {
            name: build_ladder(profile, measured, sizes, runtime=self._options.runtime)
            for name, profile in self._plan.profiles.items()
        }
        return Outcome(
            conversion=self._conversion(measured, ladders, full),
            ladders=ladders,
            out=out,
            measured=tuple(measured),
            reference=reference.accuracy,
            macs={size: total_macs(layers) for size, layers in sizes.items()},
            profiles=self._plan.profiles,
        )

    def _evaluation(self) -> dict[str, Samples]:
        """Held-out samples by resolution; the full one always, for reference."""
        wanted = dict.fromkeys((self._task.resolutions[0], *self._plan.resolutions))
        found = {_size(h, w): evaluation_set(self._task, h, w) for h, w in wanted}
        first = next(iter(found.values()))
        for size, samples in found.items():
            if not np.array_equal(samples.labels, first.labels):
                raise TaskError(
                    "bad-batch",
                    f"{self._task.path.name}: evaluation at {size} has other labels than at the "
                    "full resolution.",
                    "Yield the same samples in the same order at every resolution.",
                )
        return found

    def _save_calibration(self) -> None:
        arrays: dict[str, Any] = {
            _size(h, w): calibration_set(self._task, h, w) for h, w in self._plan.resolutions
        }
        np.savez(self._scratch / "calibration.npz", **arrays)

    def _reference(self, evaluation: dict[str, Samples]) -> Reference:
        from converters.module import build_module, check_examples, reference_outputs

        module = build_module(self._task, self._options.weights)
        outputs: dict[str, Floats] = {}
        accuracy: dict[str, float] = {}
        for (height, width), samples in zip(
            dict.fromkeys((self._task.resolutions[0], *self._plan.resolutions)),
            evaluation.values(),
            strict=True,
        ):
            example = check_examples(self._task, module, height, width)
            size = _size(height, width)
            outputs[size] = reference_outputs(self._task, module, samples.inputs, example)
            accuracy[size] = accuracy_of(self._task, outputs[size], outputs[size], samples.labels)
        full = _size(*self._task.resolutions[0])
        return Reference(evaluation, outputs, accuracy, full)

    def _build(self) -> list[dict[str, Any]]:
        """Both formats at once, each in a process of its own."""
        artifacts = self._building / "artifacts"
        artifacts.mkdir()
        cores = os.cpu_count() or 1
        jobs = [
            self._build_job(kind, artifacts, names) for kind, names in self._plan.schemes.items()
        ]
        if "onnx" not in self._plan.schemes:  # the latency model reads the float ONNX graph
            jobs.append(self._build_job("onnx", self._scratch, ("fp32",)))
        results = run_jobs(
            jobs,
            parallel=min(len(jobs), cores),
            on_step=lambda job, text: self._progress(f"{job}: {text}"),
        )
        return [
            item | {"format": kind}
            for kind, items in zip(self._plan.schemes, results, strict=False)
            for item in items
        ]

    def _build_job(self, kind: Format, folder: Path, schemes: tuple[str, ...]) -> Job:
        weights = self._options.weights
        return Job(
            name={"tflite": "TFLite", "onnx": "ONNX"}[kind],
            module="converters.build_worker",
            request={
                "task": self._task.ref,
                "name": self._task.name,
                "weights": str(weights.absolute()) if weights else None,
                "qat": str(self._options.qat.absolute()) if self._options.qat else None,
                "format": kind,
                "resolutions": self._plan.resolutions,
                "schemes": schemes,
                "folder": str(folder),
                "calibration": str(self._scratch / "calibration.npz"),
                "threads": 1,
            },
            folder=self._scratch,
            threads=1,
        )

    def _layer_sizes(self, measured: Sequence[Measured]) -> dict[str, list[LayerSize]]:
        """Layer sizes by resolution, from the float ONNX files."""
        folder = self._building / "artifacts" if "onnx" in self._plan.schemes else self._scratch
        return {
            size: layer_sizes(folder / f"{self._task.name}-{size}-fp32.onnx")
            for size in {item.size for item in measured}
        }

    def _conversion(
        self,
        measured: Sequence[Measured],
        ladders: dict[str, Ladder],
        accuracy: float,
    ) -> Conversion:
        files: dict[str, str] = {}
        for item in measured:
            files[item.digest] = str(item.path.relative_to(self._building))
            files[item.golden_digest] = str(item.golden.relative_to(self._building))
        return Conversion(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            task=TaskInfo(
                name=self._task.name,
                kind=self._task.kind,
                labels=self._task.labels,
                preprocess=self._task.preprocess,
                reference_accuracy=accuracy,
                output_tolerance=self._task.tolerance if self._task.kind == "generic" else 0.0,
            ),
            artifacts={item.digest: _artifact(item) for item in measured},
            ladders={name: ladder.points for name, ladder in ladders.items()},
            files=files,
            provenance=provenance(self._task, self._options.weights),
        )


def provenance(task: LoadedTask, weights: Path | None) -> dict[str, str]:
    """Versions of the tools and digests of what went in."""
    packages = ("torch", "onnx", "onnxruntime", "litert-torch", "ai-edge-quantizer")
    found = {
        "edge-sdk": __version__,
        "python": platform.python_version(),
    }
    for package in (*packages, "ai-edge-litert"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    found["host"] = f"{platform.system()} {platform.machine()}"
    found["task"] = f"{task.path.name}:{task.ref.rpartition(':')[2]}"
    found["task-sha256"] = hashlib.sha256(task.path.read_bytes()).hexdigest()
    if weights is not None:
        found["weights-sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    return found


def _load_profiles(names: Sequence[str]) -> dict[str, DeviceProfile]:
    if not names:
        raise UsageError(
            "no-profile", "No device profile was named.", "Add --profile; see: edge profile list"
        )
    profiles = [load_profile(name) for name in names]
    return {profile.id: profile for profile in profiles}


def _plan(task: LoadedTask, profiles: dict[str, DeviceProfile], options: Options) -> _Plan:
    for scheme in options.schemes:
        supported_scheme(scheme)
    known = {_size(h, w): (h, w) for h, w in task.resolutions}
    for height, width in options.resolutions:
        if _size(height, width) not in known:
            raise UsageError(
                "unknown-resolution",
                f"{task.name} has no resolution {_size(height, width)}.",
                did_you_mean(_size(height, width), known),
            )
    if options.runtime is not None and options.runtime not in FORMAT_OF:
        raise UsageError(
            "unknown-runtime",
            f"There is no runtime {options.runtime!r}.",
            did_you_mean(options.runtime, FORMAT_OF),
        )
    available = [RUNTIME_OF[kind] for kind in options.formats]
    supports = {
        name: choose_runtime(profile, available, options.runtime)
        for name, profile in profiles.items()
    }
    schemes: dict[Format, tuple[str, ...]] = {}
    threads: dict[str, list[int]] = {}
    for kind in options.formats:
        users = [name for name, found in supports.items() if found.name == RUNTIME_OF[kind]]
        wanted = {scheme for name in users for scheme in supports[name].schemes} | set(DEFAULT)
        schemes[kind] = tuple(in_order(set(options.schemes) or set(task.schemes) or wanted))
        counts = {host_threads(profiles[name].default_threads) for name in users}
        threads[kind] = sorted({1} | counts)
    return _Plan(
        profiles=profiles,
        schemes=schemes,
        threads=threads,
        resolutions=options.resolutions or task.resolutions,
    )


def _artifact(item: Measured) -> Artifact:
    return Artifact(
        digest=item.digest,
        format=item.format,
        runtime=item.runtime,
        scheme=item.scheme,
        height_px=item.height_px,
        width_px=item.width_px,
        inputs=item.inputs,
        outputs=item.outputs,
        golden=item.golden_digest,
        tolerance=item.tolerance,
    )


def _write(outcome: Outcome, building: Path) -> None:
    from converters.report import write_report

    write_report(outcome, building / "report.html")
    DiskStorage().write(building / CONVERSION_NAME, encode(outcome.conversion))


def _size(height: int, width: int) -> str:
    return f"{height}x{width}"

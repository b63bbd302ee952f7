"""From an existing model file to a folder like that of a conversion."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from converters.blame_layers import check_gate_and_blame
from converters.children import Job, run_jobs
from converters.convert import Outcome
from converters.costs import LayerSize, layer_sizes, total_macs
from converters.data import Samples
from converters.folder import conversion_of, tool_versions, write_folder
from converters.gate import DEFAULT_MAX_DROP
from converters.importing.profiles import fitting_profiles
from converters.importing.samples import Given, noise, read_samples
from converters.importing.subject import Described, packed, subject_of
from converters.importing.tflite_costs import tflite_layer_sizes
from converters.ladder import build_ladder, choose_runtime, host_threads
from converters.loading import LoadedTask
from converters.measure import accuracy_of
from converters.metadata import ModelNotes, annotate
from converters.publish import Publisher
from converters.results import RUNTIME_OF, Measured
from converters.schemes import DEFAULT, in_order, parse_scheme, supported_scheme
from converters.task import Floats
from converters.verify import Reference, verify_all
from edge_sdk.contracts.operating_point import TensorSpec
from edge_sdk.contracts.profile import DeviceProfile
from edge_sdk.errors import ConversionError, EdgeError, GateError

EXAMINE_TIMEOUT_S = 120.0
QUANTIZE_TIMEOUT_S = 900.0
_WORKER = "converters.importing.worker"


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What to make of the file and what to demand of it."""

    calibration: Path | None = None
    """``.npz``, see :func:`converters.importing.samples.read_samples`."""
    described: Described = field(default_factory=Described)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Static shapes by input name, for axes that the file leaves open."""
    schemes: tuple[str, ...] = ()
    """Empty: what the profiles run best plus the defaults; those that do not work are left out."""
    max_drop: float = DEFAULT_MAX_DROP
    force: bool = False
    examine_timeout_s: float = EXAMINE_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Imported:
    """A finished import."""

    outcome: Outcome
    left_out: dict[str, str]
    """Scheme to the reason why there is no such artifact."""
    noise: bool
    """Whether agreement was measured on noise, for want of samples."""


@dataclass(frozen=True, slots=True)
class _Subject:
    """The file after examination."""

    path: Path
    """Rewritten: static, self-contained."""
    format: str
    scheme: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    notes: ModelNotes | None


def import_model(
    source: Path,
    profiles: Sequence[str],
    out: Path,
    *,
    options: ImportOptions | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Imported:
    """Examine, quantize, verify, gate, size and pack an existing model file.

    Args:
        source: ``.onnx`` or ``.tflite``, float or quantized; never loaded in this process.
        profiles: ids or paths of device profiles that run the file's format.
        out: folder to create, or an earlier conversion to replace.
        options: what to make of it.
        progress: told each step as it begins.

    Returns:
        What was written to ``out``: the same as by :func:`converters.convert.convert`.

    Raises:
        ConversionError, ProfileError, GateError, StorageError: nothing is written then.
    """
    options = options or ImportOptions()
    for scheme in options.schemes:
        supported_scheme(scheme)
    publisher = Publisher(out.absolute(), force=options.force)
    with publisher.building() as building, tempfile.TemporaryDirectory() as scratch:
        run = _Run(source, options, building, Path(scratch), progress)
        imported = run.run(profiles, out)
        progress("write the report")
        write_folder(imported.outcome, building)
    return imported


class _Run:
    def __init__(
        self,
        source: Path,
        options: ImportOptions,
        building: Path,
        scratch: Path,
        progress: Callable[[str], None],
    ) -> None:
        self._source = source
        self._options = options
        self._building = building
        self._scratch = scratch
        self._progress = progress
        self._left_out: dict[str, str] = {}

    def run(self, profile_names: Sequence[str], out: Path) -> Imported:
        self._progress("examine the file")
        subject = self._examine()
        profiles = fitting_profiles(profile_names, subject.format)
        task = subject_of(
            self._source, self._options.described, subject.notes, subject.inputs, subject.outputs
        )
        given = self._samples(subject)
        built = self._build(subject, task, given, self._schemes(subject, profiles, given))
        origin = self._provenance(given)
        annotate(task, built, origin)
        reference = self._reference(subject, task, given.held_out())
        threads = {1} | {host_threads(profile.default_threads) for profile in profiles.values()}
        measured = verify_all(
            task,
            built,
            reference,
            folder=self._building,
            scratch=self._scratch,
            threads={subject.format: sorted(threads)},
            run=self._verified,
        )
        kept = self._gated(measured, {size: s.inputs for size, s in reference.samples.items()})
        sizes = {reference.full: _sizes(subject)}
        ladders = {
            name: build_ladder(profile, kept, sizes, runtime=RUNTIME_OF[subject.format])
            for name, profile in profiles.items()
        }
        outcome = Outcome(
            conversion=conversion_of(
                task, kept, ladders, reference.accuracy[reference.full], self._building, origin
            ),
            out=out,
            ladders=ladders,
            measured=tuple(kept),
            reference=reference.accuracy,
            macs={size: total_macs(layers) for size, layers in sizes.items()},
            profiles=profiles,
        )
        return Imported(outcome, self._left_out, noise=not given.real)

    def _examine(self) -> _Subject:
        target = self._scratch / f"examined{self._source.suffix}"
        (answer,) = run_jobs(
            [
                Job(
                    name=f"the examination of {self._source.name}",
                    module=_WORKER,
                    request={
                        "action": "examine",
                        "source": str(self._source.absolute()),
                        "target": str(target),
                        "shapes": self._options.shapes,
                    },
                    folder=self._scratch,
                    timeout_s=self._options.examine_timeout_s,
                    threads=1,
                )
            ],
            parallel=1,
        )
        notes = answer["notes"]
        return _Subject(
            path=target,
            format=answer["format"],
            scheme=answer["scheme"],
            inputs=msgspec.convert(answer["inputs"], type=tuple[TensorSpec, ...]),
            outputs=msgspec.convert(answer["outputs"], type=tuple[TensorSpec, ...]),
            notes=msgspec.convert(notes, type=ModelNotes) if notes else None,
        )

    def _samples(self, subject: _Subject) -> Given:
        if self._options.calibration is None:
            return noise(subject.inputs)
        return read_samples(self._options.calibration, subject.inputs)

    def _schemes(
        self, subject: _Subject, profiles: dict[str, DeviceProfile], given: Given
    ) -> list[str]:
        """Schemes to build beside the one the file has."""
        asked = set(self._options.schemes)
        if subject.scheme != "fp32":
            for name in sorted(asked - {subject.scheme}):
                raise ConversionError(
                    "already-quantized",
                    f"{self._source.name} is {subject.scheme} already and cannot become {name}.",
                    "Import the float file it was made from.",
                )
            return []
        runtime = RUNTIME_OF[subject.format]
        wanted = asked or set(DEFAULT).union(
            *(choose_runtime(profile, [runtime]).schemes for profile in profiles.values())
        )
        chosen = [name for name in in_order(wanted) if name != "fp32"]
        if given.real:
            return chosen
        static = [name for name in chosen if parse_scheme(name).mode == "static"]
        if asked & set(static):
            raise ConversionError(
                "no-calibration",
                f"{static[0]} fixes the ranges of all activations, and there are no samples.",
                "Add --calibration data.npz with some hundred typical inputs, or choose "
                "dynamic_wi8_afp32.",
            )
        self._left_out |= dict.fromkeys(static, "there are no samples (--calibration)")
        return [name for name in chosen if name not in static]

    def _build(
        self, subject: _Subject, task: LoadedTask, given: Given, schemes: list[str]
    ) -> list[dict[str, Any]]:
        folder = self._building / "artifacts"
        folder.mkdir()
        height, width = task.resolutions[0]
        calibration = self._scratch / "imported.npz"
        if given.real:
            arrays: dict[str, Any] = {str(i): a for i, a in enumerate(given.calibration())}
            np.savez(calibration, **arrays)
        built = []
        for scheme in (subject.scheme, *schemes):
            path = folder / f"{task.name}-{height}x{width}-{scheme}.{subject.format}"
            if scheme == subject.scheme:
                shutil.copyfile(subject.path, path)
            elif not self._quantized(subject, scheme, path, calibration if given.real else None):
                continue
            item = {"path": str(path), "scheme": scheme, "height": height, "width": width}
            built.append(item | {"format": subject.format, "exported": False})
        return built

    def _quantized(
        self, subject: _Subject, scheme: str, target: Path, calibration: Path | None
    ) -> bool:
        """Build one scheme; False when it does not work and nobody asked for it by name."""
        self._progress(f"quantize as {scheme}")
        by_position = [f"args_{i}" for i in range(len(subject.inputs))]
        names = [spec.name for spec in subject.inputs] if subject.format == "onnx" else by_position
        request = {
            "action": "quantize",
            "source": str(subject.path),
            "target": str(target),
            "format": subject.format,
            "scheme": scheme,
            "names": names,
            "samples": str(calibration) if calibration else None,
        }
        job = Job(
            name=f"{scheme} of {self._source.name}",
            module=_WORKER,
            request=request,
            folder=self._scratch,
            timeout_s=QUANTIZE_TIMEOUT_S,
            threads=1,
        )
        try:
            run_jobs([job], parallel=1)
        except EdgeError as error:
            target.unlink(missing_ok=True)
            if scheme in self._options.schemes:
                raise
            self._left_out[scheme] = error.cause
            return False
        return True

    def _reference(self, subject: _Subject, task: LoadedTask, given: Given) -> Reference:
        """The file's own answers before anything was done to it."""
        self._progress("run the file for reference")
        height, width = task.resolutions[0]
        size = f"{height}x{width}"
        inputs = packed(given, subject.inputs)
        np.save(self._scratch / "reference.npy", inputs)
        outputs = self._scratch / "reference.outputs.npy"
        request = {
            "path": str(subject.path),
            "format": subject.format,
            "runtime": RUNTIME_OF[subject.format],
            "threads": [1],
            "seconds": 0.0,
            "exported": False,
            "samples": str(self._scratch / "reference.npy"),
            "outputs": str(outputs),
        }
        module = "converters.verify_worker"
        run_jobs([Job(self._source.name, module, request, self._scratch)], parallel=1)
        answers = np.load(outputs)
        labels = given.labels if given.labels is not None else np.argmax(_flat(answers), axis=1)
        if task.kind == "generic":
            labels = np.zeros(len(answers), np.int64)
        samples = Samples(inputs, labels)
        accuracy = accuracy_of(task, answers, answers, samples.labels, ())
        return Reference(
            {size: samples}, {size: answers}, {size: accuracy}, size, self._source.name
        )

    def _verified(self, jobs: Sequence[Job], *, parallel: int) -> list[Any]:
        return run_jobs(
            jobs,
            parallel=parallel,
            on_done=lambda job, result: self._progress(f"verified {job}"),
        )

    def _gated(self, measured: Sequence[Measured], samples: dict[str, Floats]) -> list[Measured]:
        """Artifacts that pass the gate; one that was asked for by name must."""
        kept = []
        for item in measured:
            try:
                check_gate_and_blame(
                    [other for other in measured if other.scheme in ("fp32", item.scheme)],
                    samples,
                    max_drop=self._options.max_drop,
                    reference=self._source.name,
                    exported=False,
                )
            except GateError as error:
                if item.scheme in self._options.schemes:
                    raise
                self._left_out[item.scheme] = error.cause
                item.path.unlink()
                item.golden.unlink()
                continue
            kept.append(item)
        return kept

    def _provenance(self, given: Given) -> dict[str, str]:
        held = len(given.held_out().arrays[0])
        samples = f"{held} held-out samples" if given.real else "noise, for want of samples"
        digest = hashlib.sha256(self._source.read_bytes()).hexdigest()
        return tool_versions() | {
            "imported-from": self._source.name,
            "imported-sha256": digest,
            "verified-on": samples,
        }


def _sizes(subject: _Subject) -> list[LayerSize]:
    return (
        layer_sizes(subject.path) if subject.format == "onnx" else tflite_layer_sizes(subject.path)
    )


def _flat(array: Any) -> Any:
    return array.reshape(len(array), -1)

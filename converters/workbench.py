"""The steps that every conversion shares: data, PyTorch's answers, building, verifying."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from converters.cache import Cache
from converters.children import Job
from converters.costs import LayerSize, layer_sizes
from converters.data import Samples, calibration_set, evaluation_set
from converters.fusion import Steps
from converters.keys import module_digest
from converters.loading import LoadedTask
from converters.measure import accuracy_of
from converters.rescue import Policy, Rescued, rescue
from converters.results import Measured
from converters.reuse import Reuse
from converters.settings import DEFAULTS, Settings
from converters.task import Floats
from converters.verify import Reference, verify_all
from edge_sdk.errors import TaskError

Format = Literal["tflite", "onnx"]
Size = tuple[int, int]
Wanted = Mapping[Format, Sequence[tuple[str, str]]]
"""By format, the (resolution, scheme) pairs to build, resolutions as ``32x32``."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What a conversion starts from besides the task."""

    weights: Path | None = None
    qat: Path | None = None
    settings: Settings = DEFAULTS


class Workbench:
    """One module of a task on its way to verified artifacts.

    Args:
        task: at the width that is meant.
        sources: weights.
        building: the conversion being built; artifacts go to ``artifacts/`` in it.
        scratch: for everything that is not part of the conversion.
        cache: of earlier passes, or None.
        progress: told each step as it begins.
    """

    def __init__(
        self,
        task: LoadedTask,
        sources: Sources,
        *,
        building: Path,
        scratch: Path,
        cache: Cache | None,
        progress: Callable[[str], None],
    ) -> None:
        self.task = task
        self._sources = sources
        self._building = building
        self._scratch = scratch
        self._cache = cache
        self._progress = progress
        self._calibration: dict[str, Floats] = {}
        self.steps = Steps(0, 0, 0, 0)
        """Of the module's forward, once :meth:`reference` has run."""
        self._reuse = Reuse(None, "", progress)

    @property
    def passes(self) -> tuple[int, int]:
        """How many passes came from the cache, and how many ran."""
        return self._reuse.taken, self._reuse.run

    def evaluation(self, resolutions: Sequence[Size]) -> dict[str, Samples]:
        """Held-out samples by resolution; the full one always, for reference.

        Raises:
            TaskError: ``task.bad-batch`` and others of :func:`evaluation_set`.
        """
        wanted = dict.fromkeys((self.task.resolutions[0], *resolutions))
        found = {size_name(h, w): self._held_out(h, w) for h, w in wanted}
        first = next(iter(found.values()))
        for size, samples in found.items():
            if not np.array_equal(samples.labels, first.labels):
                raise TaskError(
                    "bad-batch",
                    f"{self.task.path.name}: evaluation at {size} has other labels than at the "
                    "full resolution.",
                    "Yield the same samples in the same order at every resolution.",
                )
        return found

    def calibrate(self, resolutions: Sequence[Size]) -> None:
        """Collect the calibration samples.

        Raises:
            TaskError: as :func:`calibration_set`.
        """
        for height, width in resolutions:
            size = size_name(height, width)
            samples = calibration_set(self.task, height, width)
            self._calibration[size] = self._with_states(samples, height, width)
        arrays: dict[str, Any] = dict(self._calibration)
        np.savez(self._scratch / "calibration.npz", **arrays)

    def _held_out(self, height: int, width: int) -> Samples:
        found = evaluation_set(self.task, height, width)
        return replace(found, inputs=self._with_states(found.inputs, height, width))

    def _with_states(self, packed: Floats, height: int, width: int) -> Floats:
        """Consecutive steps with the states between them, where the task gives such."""
        steps = self.task.sequence_steps
        if not steps:
            return packed
        from converters.module import build_module, check_examples
        from converters.rolling import rolled

        module = build_module(self.task, self._sources.weights)
        examples = check_examples(self.task, module, height, width)
        return rolled(module, packed, examples, self.task.states, steps)

    def reference(self, samples: Mapping[str, Samples]) -> Reference:
        """PyTorch's answers to all samples.

        Raises:
            TaskError, ConversionError: what is wrong with the module.
        """
        from converters.forward_steps import steps_of
        from converters.module import build_module, check_examples, reference_outputs

        module = build_module(self.task, self._sources.weights)
        examples = {
            size: check_examples(self.task, module, *map(int, size.split("x"))) for size in samples
        }
        self.steps = steps_of(module, next(iter(examples.values())))
        digest = module_digest(self.task, module) if self._cache is not None else ""
        self._reuse = Reuse(self._cache, digest, self._progress)
        outputs: dict[str, Floats] = {}
        accuracy: dict[str, float] = {}
        for size, found in samples.items():

            def work(found: Samples = found, size: str = size) -> Floats:
                return reference_outputs(self.task, module, found.inputs, examples[size])

            outputs[size] = self._reuse.reference(found.inputs, work, self._scratch)
            accuracy[size] = accuracy_of(self.task, outputs[size], outputs[size], found.labels)
        return Reference(dict(samples), outputs, accuracy, size_name(*self.task.resolutions[0]))

    def graphs(self, sizes: Sequence[str]) -> None:
        """The float ONNX files alone, into the scratch folder, for :meth:`layers`.

        Raises:
            EdgeError: as the child raised it.
        """
        missing = [(size, "fp32") for size in sizes if not self._graph(size).is_file()]
        if missing:
            job = self._job("onnx", self._scratch, missing, name=f"cost graphs of {self.name}")
            self._reuse.builds([job], self._calibration, parallel=1)

    def graph_bytes(self, size: str) -> int:
        """Of the float ONNX file."""
        return self._graph(size).stat().st_size

    def _graph(self, size: str) -> Path:
        return self._scratch / f"{self.name}-{size}-fp32.onnx"

    def build(self, wanted: Wanted) -> list[dict[str, Any]]:
        """Export and quantize, each format in a process of its own.

        The float ONNX files are always built, if only in the scratch folder: the latency model
        reads them.

        Raises:
            EdgeError: as the child raised it.
        """
        artifacts = self._building / "artifacts"
        artifacts.mkdir(exist_ok=True)
        sizes = list(dict.fromkeys(size for pairs in wanted.values() for size, _ in pairs))
        jobs = [self._job(kind, artifacts, pairs) for kind, pairs in wanted.items() if pairs]
        kinds = [kind for kind, pairs in wanted.items() if pairs]
        floats = [(size, "fp32") for size in sizes if not self._graph(size).is_file()]
        if not set(floats) <= set(wanted.get("onnx", ())):
            jobs.append(self._job("onnx", self._scratch, floats, name="the cost graph"))
        for size in sizes:  # spares another export
            if wanted.get("onnx") and self._graph(size).is_file():
                shutil.copyfile(self._graph(size), artifacts / self._graph(size).name)
        results = self._reuse.builds(
            jobs, self._calibration, parallel=min(len(jobs), os.cpu_count() or 1)
        )
        return [
            item | {"format": kind}
            for kind, items in zip(kinds, results, strict=False)
            for item in items
        ]

    def verify(
        self,
        built: Sequence[dict[str, Any]],
        reference: Reference,
        threads: dict[str, list[int]],
    ) -> list[Measured]:
        """Run every artifact on every held-out sample; see :func:`verify_all`."""
        return verify_all(
            self.task,
            built,
            reference,
            folder=self._building,
            scratch=self._scratch,
            threads=threads,
            run=self._reuse.answers,
        )

    def rescue(
        self,
        measured: Sequence[Measured],
        reference: Reference,
        threads: dict[str, list[int]],
        policy: Policy,
        annotate: Callable[[list[dict[str, Any]]], None],
    ) -> Rescued:
        """Repair artifacts that miss the gate, or mix their precision; see :func:`rescue`.

        Args:
            measured: all verified artifacts.
            reference: PyTorch's answers.
            threads: thread counts to time, by format.
            policy: what may be tried.
            annotate: writes into built files what they say about themselves.
        """

        def verify(built: list[dict[str, Any]]) -> list[Measured]:
            annotate(built)
            return self.verify(built, reference, threads) if built else []

        artifacts = self._building / "artifacts"
        scratch = self._scratch / f"rescue-{self.name}"  # another width has other answers
        scratch.mkdir(exist_ok=True)
        return rescue(
            measured,
            reference,
            policy,
            job=lambda item: self._job(item.format, artifacts, [(item.size, item.scheme)]),
            verify=verify,
            run=lambda jobs: self._reuse.rescues(jobs, self._calibration),
            scratch=scratch,
        )

    def layers(self, sizes: Sequence[str]) -> dict[str, list[LayerSize]]:
        """Fused layers by resolution, from the float ONNX files of :meth:`build`."""
        found = {}
        for size in sizes:
            name = f"{self.name}-{size}-fp32.onnx"
            places = (self._building / "artifacts" / name, self._scratch / name)
            found[size] = layer_sizes(next(path for path in places if path.is_file()))
        return found

    @property
    def name(self) -> str:
        """What the files are called."""
        return (
            self.task.name if self.task.width == 1.0 else f"{self.task.name}-w{self.task.width:g}"
        )

    def _job(
        self, kind: Format, folder: Path, pairs: Sequence[tuple[str, str]], name: str = ""
    ) -> Job:
        weights, qat = self._sources.weights, self._sources.qat
        sizes = list(dict.fromkeys(size for size, _ in pairs))
        return Job(
            name=name or {"tflite": "TFLite", "onnx": "ONNX"}[kind],
            module="converters.build_worker",
            request={
                "task": self.task.ref,
                "width": self.task.width,
                "name": self.name,
                "weights": str(weights.absolute()) if weights else None,
                "qat": str(qat.absolute()) if qat else None,
                "format": kind,
                "resolutions": [[int(side) for side in size.split("x")] for size in sizes],
                "schemes": list(dict.fromkeys(scheme for _, scheme in pairs)),
                "only": [list(pair) for pair in pairs],
                "folder": str(folder),
                "calibration": str(self._scratch / "calibration.npz"),
                "threads": 1,
                "settings": self._sources.settings.as_dict(),
            },
            folder=self._scratch,
            threads=1,
        )


def size_name(height: int, width: int) -> str:
    """``32x24`` for 32 rows of 24 pixels."""
    return f"{height}x{width}"

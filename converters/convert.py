"""From a task to a folder of verified artifacts with a ladder for every profile."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converters.blame_layers import check_gate_and_blame
from converters.cache import Cache
from converters.costs import total_macs
from converters.fold import with_folding
from converters.folder import conversion_of, tool_versions, write_folder
from converters.friendly import Friendly, make_friendly
from converters.fusion import Fusion, steps_in
from converters.gate import DEFAULT_MAX_DROP
from converters.ladder import Ladder, build_ladder, choose_runtime, host_threads
from converters.loading import SLIM_MARK, LoadedTask, load_task
from converters.metadata import annotate
from converters.onnx_stem import rewrites_in
from converters.publish import Publisher
from converters.rescue import Policy, When
from converters.results import FORMAT_OF, RUNTIME_OF, Measured, Repair, Sensitivity, warnings_about
from converters.schemes import DEFAULT, builds, canonical, in_order, supported_scheme
from converters.settings import DEFAULTS, Settings
from converters.stream import check_task_streams
from converters.verify import Reference
from converters.workbench import Format, Sources, Wanted, Workbench, size_name
from device_profiles.loader import load_profile
from edge_sdk.bundle.release import read_conversion
from edge_sdk.contracts.conversion import Conversion
from edge_sdk.contracts.profile import DeviceProfile
from edge_sdk.errors import UsageError
from edge_sdk.suggest import did_you_mean

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
    settings: Settings = DEFAULTS
    """Calibration method and granularity."""
    repair: When = "auto"
    mixed: bool = True
    """Keep layers in float32 where an integer artifact would miss the gate."""
    max_drop: float = DEFAULT_MAX_DROP
    min_accuracy: float = 0.0
    delta_friendly: Path | None = None
    """Earlier conversion whose int8 weights' grid is kept where accuracy allows it."""
    friendly_drop: float = 0.002
    """Accuracy that this may cost against the usual quantization."""
    force: bool = False
    fold_preprocess: bool = False
    """Let the file take pixels: normalisation becomes part of the graph."""


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
    passes: tuple[int, int] = (0, 0)
    """How many passes came from the cache, and how many ran."""
    repairs: tuple[Repair, ...] = ()
    sensitivities: tuple[Sensitivity, ...] = ()
    friendly: tuple[Friendly, ...] = ()
    warnings: tuple[str, ...] = ()
    fusion: Fusion | None = None
    """What exporting folded and fused, at the full resolution."""


def convert(
    task_ref: str,
    profiles: Sequence[str],
    out: Path,
    *,
    options: Options | None = None,
    cache: Cache | None = None,
    progress: Step = lambda text: None,
) -> Outcome:
    """Convert a task for one or more device profiles.

    Args:
        task_ref: ``path.py:Class``.
        profiles: ids or paths of device profiles.
        out: folder to create, or an earlier conversion to replace.
        options: what to build; everything the profiles want by default.
        cache: of earlier passes; everything runs without one.
        progress: told each step as it begins.

    Returns:
        The conversion as written to ``out``: ``conversion.json``, ``artifacts/``, ``golden/``,
        ``report.html``.

    Raises:
        TaskError, ConversionError, ProfileError, GateError, StorageError: nothing is written
            then, and an earlier folder at ``out`` is untouched.
    """
    options = options or Options()
    loaded_profiles = load_profiles(profiles)
    progress("load the task")
    task = load_task(task_ref)
    if options.fold_preprocess:
        task = with_folding(task)
    plan = _plan(task, loaded_profiles, options)
    publisher = Publisher(out.absolute(), force=options.force)
    with publisher.building() as building, tempfile.TemporaryDirectory() as scratch:
        bench = Workbench(
            task,
            Sources(options.weights, options.qat, _settings(task, options.settings)),
            building=building,
            scratch=Path(scratch),
            cache=cache,
            progress=progress,
        )
        outcome = _Run(task, plan, options, bench, building).run(out, progress)
        progress("write the report")
        write_folder(outcome, building)
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
        self, task: LoadedTask, plan: _Plan, options: Options, bench: Workbench, building: Path
    ) -> None:
        self._task = task
        self._plan = plan
        self._options = options
        self._bench = bench
        self._building = building

    def run(self, out: Path, progress: Step) -> Outcome:
        progress("check the data")
        evaluation = self._bench.evaluation(self._plan.resolutions)
        self._bench.calibrate(self._plan.resolutions)
        progress("run PyTorch for reference")
        reference = self._bench.reference(evaluation)
        built = self._bench.build(self._wanted())
        self._annotate(built)
        measured = self._bench.verify(built, reference, self._plan.threads)
        full = reference.accuracy[size_name(*self._task.resolutions[0])]
        rescued = self._bench.rescue(
            measured, reference, self._plan.threads, self._policy(), self._annotate
        )
        measured, friendly = self._friendly(rescued.measured, reference, progress)
        check_gate_and_blame(
            measured,
            {size: samples.inputs for size, samples in reference.samples.items()},
            sensitivities=rescued.sensitivities,
            max_drop=self._options.max_drop,
            min_accuracy=self._options.min_accuracy,
            reference_accuracy=full,
        )
        if self._options.qat is None:  # a trained int8 module has another reference
            check_task_streams(self._task, self._options.weights, reference, measured)
        sizes = self._bench.layers(sorted({item.size for item in measured}))
        ladders = {
            name: build_ladder(profile, measured, sizes, runtime=self._options.runtime)
            for name, profile in self._plan.profiles.items()
        }
        return Outcome(
            conversion=conversion_of(
                self._task,
                measured,
                ladders,
                full,
                self._building,
                provenance(self._task, self._options.weights),
            ),
            ladders=ladders,
            out=out,
            measured=tuple(measured),
            reference=reference.accuracy,
            macs={size: total_macs(layers) for size, layers in sizes.items()},
            profiles=self._plan.profiles,
            passes=self._bench.passes,
            repairs=rescued.repairs,
            sensitivities=rescued.sensitivities,
            friendly=friendly,
            warnings=warnings_about(measured),
            fusion=Fusion(
                self._bench.steps,
                {i.format: steps_in(i.path) for i in reversed(measured) if i.scheme == "fp32"},
                rewrites_in(i.path for i in measured if i.format == "onnx"),
            ),
        )

    def _friendly(
        self, measured: list[Measured], reference: Reference, progress: Step
    ) -> tuple[list[Measured], tuple[Friendly, ...]]:
        folder = self._options.delta_friendly
        if folder is None:
            return measured, ()
        progress("keep the earlier int8 grid")
        with tempfile.TemporaryDirectory() as scratch:
            return make_friendly(
                measured,
                read_conversion(folder),
                folder,
                most_drop=self._options.friendly_drop,
                verify=lambda built: self._bench.verify(built, reference, self._plan.threads),
                scratch=Path(scratch),
            )

    def _annotate(self, built: list[dict[str, Any]]) -> None:
        annotate(self._task, built, provenance(self._task, self._options.weights))

    def _policy(self) -> Policy:
        options = self._options
        return Policy(
            max_drop=options.max_drop,
            repair=options.repair,
            mixed=options.mixed,
            trained=options.qat is not None,
        )

    def _wanted(self) -> Wanted:
        sizes = [size_name(h, w) for h, w in self._plan.resolutions]
        return {
            kind: [(size, scheme) for size in sizes for scheme in names]
            for kind, names in self._plan.schemes.items()
        }


def provenance(task: LoadedTask, weights: Path | None) -> dict[str, str]:
    """Versions of the tools and digests of what went in."""
    found = tool_versions()
    found["task"] = f"{task.path.name}:{task.ref.partition(SLIM_MARK)[0].rpartition(':')[2]}"
    found["task-sha256"] = hashlib.sha256(task.path.read_bytes()).hexdigest()
    if weights is not None:
        found["weights-sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    return found


def load_profiles(names: Sequence[str]) -> dict[str, DeviceProfile]:
    """The profiles by id.

    Raises:
        UsageError: ``usage.no-profile``.
        ProfileError: as :func:`device_profiles.loader.load_profile`.
    """
    if not names:
        raise UsageError(
            "no-profile", "No device profile was named.", "Add --profile; see: edge profile list"
        )
    profiles = [load_profile(name) for name in names]
    return {profile.id: profile for profile in profiles}


def _plan(task: LoadedTask, profiles: dict[str, DeviceProfile], options: Options) -> _Plan:
    asked = {canonical(name) for name in options.schemes or task.schemes}
    for scheme in sorted(asked):
        supported_scheme(scheme, options.formats[0] if len(options.formats) == 1 else "")
    known = {size_name(h, w): (h, w) for h, w in task.resolutions}
    for height, width in options.resolutions:
        if size_name(height, width) not in known:
            raise UsageError(
                "unknown-resolution",
                f"{task.name} has no resolution {size_name(height, width)}.",
                did_you_mean(size_name(height, width), known),
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
        names = in_order(asked or wanted)
        schemes[kind] = tuple(name for name in names if builds(name, kind))
        counts = {host_threads(profiles[name].default_threads) for name in users}
        threads[kind] = sorted({1} | counts)
    return _Plan(
        profiles=profiles,
        schemes=schemes,
        threads=threads,
        resolutions=options.resolutions or task.resolutions,
    )


def _settings(task: LoadedTask, settings: Settings) -> Settings:
    """With the streaming states and the kinds of layers that the task declares."""
    return replace(
        settings,
        states=settings.states or task.states,
        integers=settings.integers or task.integers,
    )

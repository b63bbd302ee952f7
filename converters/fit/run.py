"""``edge model fit``: estimates, prunes, builds and measures what is left, and searches again."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from converters.cache import Cache
from converters.convert import Outcome, load_profiles, provenance
from converters.costs import LayerSize, total_macs
from converters.fit.estimate import Choices, Graph, estimates, limits_of, wanted_builds
from converters.fit.judge import Judge
from converters.fit.rescue import rescue_misses
from converters.fit.result import fit_document, ladder_of
from converters.fit.search import Budget, Point, Verdict, survivors
from converters.folder import conversion_of, write_folder
from converters.ladder import host_threads
from converters.loading import FULL_WIDTH, LoadedTask, load_task
from converters.metadata import annotate
from converters.publish import Publisher
from converters.rescue import Policy
from converters.results import FORMAT_OF, Measured, Repair, Sensitivity, warnings_about
from converters.schemes import supported_scheme
from converters.verify import Reference
from converters.workbench import Sources, Workbench, size_name
from edge_sdk.contracts.profile import DeviceProfile
from edge_sdk.durable import DiskStorage
from edge_sdk.errors import UsageError
from edge_sdk.suggest import did_you_mean

FIT_NAME = "fit.json"
MOST_ROUNDS = 4
"""Of measuring what is nearest when nothing fits; each round measures one file per profile."""
Step = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class FitOptions:
    """What to search and what to demand."""

    budget: Budget = field(default_factory=Budget)
    choices: Choices = field(default_factory=Choices)
    widths: tuple[float, ...] = ()
    """Empty: all of the task's."""
    resolutions: tuple[tuple[int, int], ...] = ()
    """Empty: all of the task's."""
    weights: Path | None = None
    repair: bool = True
    """Try to repair int8 files that miss the accuracy budget."""
    mixed: bool = True
    """Keep layers in float32 where int8 files still miss it."""
    force: bool = False


@dataclass(frozen=True, slots=True)
class Fit:
    """What a search found."""

    verdicts: dict[str, Verdict]
    """By profile id: rejections of both stages, and the ladder."""
    budget: Budget
    reference_accuracy: float
    out: Path | None
    """The folder written; None when nothing fits some profile."""
    considered: dict[str, int]
    """Candidates by profile id."""
    built: int
    """Artifacts that were built and measured."""
    passes: tuple[int, int]
    """How many passes came from the cache, and how many ran."""
    repairs: tuple[Repair, ...] = ()
    """What was tried on int8 files that missed the accuracy budget."""
    mixed: int = 0
    """Int8 files that hold it with some layers in float32."""

    @property
    def unfit(self) -> list[str]:
        """Profiles that nothing fits."""
        return [name for name, verdict in self.verdicts.items() if not verdict.ladder]


class _UnfitError(Exception):
    """Leaves the publisher without publishing."""


def fit(
    task_ref: str,
    profiles: Sequence[str],
    out: Path,
    *,
    options: FitOptions | None = None,
    cache: Cache | None = None,
    progress: Step = lambda text: None,
) -> Fit:
    """Find the operating points that fit each profile, and write them as a conversion.

    Args:
        task_ref: ``path.py:Class``.
        profiles: ids or paths of device profiles.
        out: folder to create, or an earlier conversion to replace; left alone when nothing fits
            one of the profiles.
        options: budgets, and what the search may vary.
        cache: of earlier passes.
        progress: told each step as it begins.

    Raises:
        TaskError, ConversionError, ProfileError, UsageError, StorageError: nothing is written.
    """
    options = options or FitOptions()
    loaded = load_profiles(profiles)
    task = load_task(task_ref)
    widths, sizes = _axes(task, options)
    found: Fit | None = None
    publisher = Publisher(out.absolute(), force=options.force)
    with (
        contextlib.suppress(_UnfitError),
        tempfile.TemporaryDirectory() as scratch,
        publisher.building() as building,
    ):
        run = _Run(task, loaded, options, building, Path(scratch), cache, progress)
        found, outcome = run.run(widths, sizes, out)
        if outcome is None:
            raise _UnfitError
        progress("write the report")
        DiskStorage().write(building / FIT_NAME, fit_document(found))
        write_folder(outcome, building)
    if found is None:
        raise RuntimeError("the search ended without a verdict")
    return found


class _Run:
    """One search over all profiles: whatever two of them need is done once."""

    def __init__(
        self,
        task: LoadedTask,
        profiles: dict[str, DeviceProfile],
        options: FitOptions,
        building: Path,
        scratch: Path,
        cache: Cache | None,
        progress: Step,
    ) -> None:
        self._task = task
        self._profiles = profiles
        self._options = options
        self._building = building
        self._scratch = scratch
        self._cache = cache
        self._progress = progress
        self._benches: dict[float, Workbench] = {}
        self._references: dict[float, Reference] = {}
        self._layers: dict[tuple[float, str], list[LayerSize]] = {}
        self._repairs: list[Repair] = []
        self._sensitivities: list[Sensitivity] = []

    def run(
        self, widths: Sequence[float], sizes: Sequence[tuple[int, int]], out: Path
    ) -> tuple[Fit, Outcome | None]:
        self._prepare(widths, sizes)
        graphs = list(self._graphs(widths, [size_name(h, w) for h, w in sizes]))
        first = {
            name: survivors(
                list(estimates(profile, graphs, self._options.choices)),
                limits_of(profile),
                self._options.budget,
            )
            for name, profile in self._profiles.items()
        }
        points = [item.facts.point for verdict in first.values() for item in verdict.ladder]
        self._progress(f"{len(points)} candidates are worth measuring")
        measured = self._measure(points)
        self._layers = {(graph.width, graph.size): graph.layers for graph in graphs}
        judge = Judge(self._profiles, self._options.budget, self._layers)
        verdicts = judge.all(first, measured)
        for _ in range(MOST_ROUNDS):
            unsure = judge.unmeasured(verdicts)
            if not unsure:
                break
            self._progress("nothing fits: measure what is nearest")
            measured |= self._measure(unsure)
            verdicts = judge.all(first, measured)
        found = self._fit(verdicts, measured, out)
        if found.unfit:
            return replace(found, out=None), None
        return found, self._outcome(found, measured)

    def _prepare(self, widths: Sequence[float], sizes: Sequence[tuple[int, int]]) -> None:
        """PyTorch's answers at every width; each is compared with the full one's."""
        self._progress("check the data")
        samples = None
        for width in dict.fromkeys((FULL_WIDTH, *widths)):
            bench = Workbench(
                replace(self._task, width=width),
                Sources(self._options.weights),
                building=self._building,
                scratch=self._scratch,
                cache=self._cache,
                progress=self._progress,
            )
            samples = samples or bench.evaluation(sizes)
            bench.calibrate(sizes)
            self._progress(f"run PyTorch for reference, width {width:g}")
            reference = bench.reference(samples)
            self._benches[width] = bench
            self._references[width] = _against(reference, self._references.get(FULL_WIDTH))

    def _graphs(self, widths: Sequence[float], sizes: Sequence[str]) -> Iterator[Graph]:
        for width in widths:
            bench = self._benches[width]
            bench.graphs(sizes)
            for size, layers in bench.layers(sizes).items():
                yield Graph(width, size, layers, bench.graph_bytes(size))

    def _measure(self, points: Sequence[Point]) -> dict[tuple[float, str], Measured]:
        """Every artifact that some profile's candidates need, by (width, artifact name).

        A mixed file comes beside the int8 file that it was made of.
        """
        threads: dict[str, list[int]] = {}
        for kind in {FORMAT_OF[point.runtime] for point in points}:
            counts = {p.threads for p in points if FORMAT_OF[p.runtime] == kind}
            threads[kind] = sorted({1} | {host_threads(count) for count in counts})
        found = {}
        for width, wanted in wanted_builds(points).items():
            bench = self._benches[width]
            built = bench.build(wanted)  # type: ignore[arg-type]
            self._annotate(built)
            measured = bench.verify(built, self._references[width], threads)
            for item in (*measured, *self._rescued(width, measured, threads)):
                found[width, item.name] = item
        return found

    def _rescued(
        self, width: float, measured: list[Measured], threads: dict[str, list[int]]
    ) -> list[Measured]:
        options = self._options
        if not (options.repair or options.mixed):
            return []
        done = rescue_misses(
            self._benches[width],
            measured,
            self._references[width],
            threads,
            options.budget,
            Policy(0.0, "auto" if options.repair else "off", options.mixed),
            self._annotate,
        )
        self._repairs += done.repairs
        self._sensitivities += done.sensitivities
        return done.measured

    def _annotate(self, built: list[dict[str, Any]]) -> None:
        annotate(self._task, built, provenance(self._task, self._options.weights))

    def _fit(
        self,
        verdicts: dict[str, Verdict],
        measured: dict[tuple[float, str], Measured],
        out: Path,
    ) -> Fit:
        passes = [bench.passes for bench in self._benches.values()]
        return Fit(
            verdicts=verdicts,
            budget=self._options.budget,
            reference_accuracy=self._references[FULL_WIDTH].accuracy[_full(self._task)],
            out=out,
            considered={n: len(v.ladder) + len(v.rejected) for n, v in verdicts.items()},
            built=len(measured),
            passes=(sum(taken for taken, _ in passes), sum(ran for _, ran in passes)),
            repairs=tuple(self._repairs),
            mixed=sum(bool(score.kept) for score in self._sensitivities),
        )

    def _outcome(
        self,
        found: Fit,
        measured: dict[tuple[float, str], Measured],
    ) -> Outcome:
        """The conversion of what is on some ladder; everything else is deleted."""
        used = {i.facts.digest for v in found.verdicts.values() for i in v.ladder}
        by_digest = {item.digest: item for item in measured.values()}
        for path in self._building.glob("artifacts/*"):
            if path not in {by_digest[digest].path for digest in used}:
                path.unlink()
        for path in self._building.glob("golden/*"):
            if path not in {by_digest[digest].golden for digest in used}:
                path.unlink()
        ladders = {n: ladder_of(v, by_digest) for n, v in found.verdicts.items()}
        kept = [by_digest[digest] for digest in by_digest if digest in used]
        accuracy = found.reference_accuracy
        reference = self._references[FULL_WIDTH]
        return Outcome(
            conversion=conversion_of(
                self._task,
                kept,
                ladders,
                accuracy,
                self._building,
                provenance(self._task, self._options.weights),
            ),
            out=found.out or self._building,
            ladders=ladders,
            measured=tuple(kept),
            reference={size: reference.accuracy[size] for size in reference.samples},
            macs={
                s: total_macs(found) for (w, s), found in self._layers.items() if w == FULL_WIDTH
            },
            profiles=self._profiles,
            passes=found.passes,
            repairs=found.repairs,
            sensitivities=tuple(self._sensitivities),
            warnings=warnings_about(kept),
        )


def _against(reference: Reference, full: Reference | None) -> Reference:
    """A narrower width's answers, with the full width's as what they are compared with."""
    if full is None:
        return reference
    return replace(
        reference,
        outputs=reference.outputs | {"full width": full.outputs[full.full]},
        accuracy=reference.accuracy | {"full width": full.accuracy[full.full]},
        full="full width",
    )


def _axes(
    task: LoadedTask, options: FitOptions
) -> tuple[tuple[float, ...], tuple[tuple[int, int], ...]]:
    for width in options.widths:
        if width not in task.widths:
            built = [f"{width:g}" for width in task.widths]
            raise UsageError(
                "unknown-width",
                f"{task.name} cannot be built with width {width:g}.",
                did_you_mean(f"{width:g}", built),
            )
    known = {size_name(h, w): (h, w) for h, w in task.resolutions}
    for height, width in options.resolutions:
        if size_name(height, width) not in known:
            raise UsageError(
                "unknown-resolution",
                f"{task.name} has no resolution {size_name(height, width)}.",
                did_you_mean(size_name(height, width), known),
            )
    for scheme in options.choices.schemes:
        supported_scheme(scheme)
    for runtime in options.choices.runtimes:
        if runtime not in FORMAT_OF:
            raise UsageError(
                "unknown-runtime",
                f"There is no runtime {runtime!r}.",
                did_you_mean(runtime, FORMAT_OF),
            )
    return options.widths or task.widths, options.resolutions or task.resolutions


def _full(task: LoadedTask) -> str:
    return size_name(*task.resolutions[0])

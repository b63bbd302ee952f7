"""Cascades of a finished conversion: every rung is tried with every cheaper one below it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from converters.answers import answers_of
from converters.bench import read_conversion
from converters.cascade.calibrate import DEFAULTS, Floats, Pair, Terms, Verdict, calibrate
from converters.data import Samples, evaluation_set
from converters.loading import LoadedTask
from converters.publish import CONVERSION_NAME
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.conversion import Conversion
from edge_sdk.contracts.operating_point import OperatingPoint
from edge_sdk.durable import DiskStorage, Storage
from edge_sdk.errors import GateError, TaskError

MAX_SAMPLES = 4096
"""Per point; the files run one sample at a time, as a device does."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One pair of points of one profile."""

    profile: str
    full: str
    first: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Cascades:
    """What was tried, and what of it goes into the release."""

    tried: tuple[Tried, ...]
    chosen: Mapping[str, Mapping[str, Tried]] = field(default_factory=dict)
    """By profile and id of the better point: the pair that saves most."""


def add_cascades(
    task: LoadedTask,
    folder: Path,
    terms: Terms = DEFAULTS,
    *,
    seed: int = 0,
    storage: Storage | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Cascades:
    """Calibrate every pair, and write the cascades that pay into ``conversion.json``.

    Args:
        task: gives the samples; its labels are not used.
        folder: of the conversion.
        terms: what a cascade may cost and must give.
        seed: of the division into folds.
        storage: through which the file is written.
        progress: told each file that answers.

    Raises:
        TaskError: ``task.not-classification``, ``task.unpaired-samples``, or bad samples.
        GateError: ``gate.no-cascade``: none pays; the conversion is left as it was.
        ConversionError, ContractError, RuntimeUnavailableError: the conversion cannot be read or
            run.
        StorageError: the write failed.
    """
    if task.kind != "classification":
        raise TaskError(
            "not-classification",
            f"{task.ref} is a {task.kind} task; the gate looks at the margin between two labels.",
            "Cascades exist for classification tasks only.",
        )
    conversion = read_conversion(folder)
    answers = _Answers(task, folder, conversion, progress)
    tried = tuple(
        Tried(profile, full.id, first.id, calibrate(answers.pair(first, full), terms, seed))
        for profile, ladder in conversion.ladders.items()
        for at, full in enumerate(ladder)
        for first in ladder[at + 1 :]
    )
    chosen = choose(tried)
    if not chosen:
        raise _none_pays(tried)
    ladders = {
        profile: tuple(_with(point, chosen.get(profile, {})) for point in ladder)
        for profile, ladder in conversion.ladders.items()
    }
    data = encode(replace(conversion, ladders=ladders))
    (storage or DiskStorage()).write(folder / CONVERSION_NAME, data)
    return Cascades(tried, chosen)


def choose(tried: tuple[Tried, ...]) -> dict[str, dict[str, Tried]]:
    """By profile and better point, the pair that saves most among those that pay."""
    best: dict[str, dict[str, Tried]] = {}
    for one in tried:
        known = best.get(one.profile, {}).get(one.full)
        if one.verdict.refusal or (known and known.verdict.saving >= one.verdict.saving):
            continue
        best.setdefault(one.profile, {})[one.full] = one
    return best


def cost_ms(point: OperatingPoint) -> float:
    """Predicted on the device where there is a prediction, else measured on the host."""
    return point.predicted.mid_ms if point.predicted is not None else point.host_latency_ms


class _Answers:
    """What each file answers to the samples of its own resolution; asked once per file."""

    def __init__(
        self,
        task: LoadedTask,
        folder: Path,
        conversion: Conversion,
        progress: Callable[[str], None],
    ) -> None:
        self._task, self._folder, self._conversion = task, folder, conversion
        self._progress = progress
        self._samples: dict[tuple[int, int], Samples] = {}
        self._known: dict[str, Floats] = {}

    def pair(self, first: OperatingPoint, full: OperatingPoint) -> Pair:
        """Both points' answers to the same samples."""
        one, other = self._samples_of(first), self._samples_of(full)
        if not np.array_equal(one.labels, other.labels):
            raise TaskError(
                "unpaired-samples",
                f"evaluation({first.height_px}, {first.width_px}) of {self._task.ref} gives other "
                f"samples, or in another order, than evaluation({full.height_px}, "
                f"{full.width_px}).",
                "A cascade compares two resolutions image by image: yield the same images, in the "
                "same order, at every resolution.",
            )
        return Pair(self._of(first), self._of(full), cost_ms(first), cost_ms(full))

    def _of(self, point: OperatingPoint) -> Floats:
        if point.artifact not in self._known:
            name = self._conversion.files[point.artifact]
            self._progress(name)
            packed: Any = answers_of(self._folder / name, self._samples_of(point).inputs)[0]
            self._known[point.artifact] = packed
        return self._known[point.artifact]

    def _samples_of(self, point: OperatingPoint) -> Samples:
        size = point.height_px, point.width_px
        if size not in self._samples:
            found = evaluation_set(self._task, *size)
            cut = Samples(found.inputs[:MAX_SAMPLES], found.labels[:MAX_SAMPLES])
            self._samples[size] = cut
        return self._samples[size]


def _with(point: OperatingPoint, chosen: Mapping[str, Tried]) -> OperatingPoint:
    one = chosen.get(point.id)
    return replace(point, cascade=None if one is None else one.verdict.cascade(one.first))


def _none_pays(tried: tuple[Tried, ...]) -> GateError:
    if not tried:
        what = "Every ladder has a single point"
    else:
        nearest = max(tried, key=lambda one: one.verdict.saving)
        what = f"{nearest.first} before {nearest.full}: {nearest.verdict.refusal}"
    return GateError(
        "no-cascade",
        f"No cascade pays. {what}.",
        "Train all resolutions together (edge model train does), convert a lower one, or tolerate "
        "more (--tolerance); without a cascade the ladder works as before.",
    )

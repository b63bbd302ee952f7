"""From a module to its widths: find, sort, search. Nothing is trained here."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from converters.distill.batches import is_labelled
from converters.loading import LoadedTask
from converters.norm_statistics import Batch
from converters.purity import flat_outputs
from converters.slim.costs import Cost, Layers, latency_cost
from converters.slim.find import Analysis, Inputs, analyse
from converters.slim.groups import Held, shapes_of
from converters.slim.importance import Loss, Method, importance, ranking
from converters.slim.narrow import permute, tensors_of
from converters.slim.search import LEAST_OF_WIDTH, Unit, search, uniform, units_of
from converters.slim.sensitivity import Damages, curves
from converters.slim.settings import Settings, round_to_of
from converters.slim.statistics import second_moments
from converters.train import training_steps
from device_profiles.loader import load_profile
from edge_sdk.errors import ConversionError, ProfileError

_TAYLOR_STEPS = 8
Step = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """A sorted module and what each width keeps of it."""

    module: nn.Module
    analysis: Analysis
    layers: Layers
    kept: dict[float, dict[str, int]]


def plan(
    task: LoadedTask,
    module: nn.Module,
    example: Inputs,
    batches: Sequence[Batch],
    settings: Settings,
    *,
    kept: Mapping[float, Mapping[str, int]] | None = None,
    progress: Step = lambda text: None,
) -> Plan:
    """Find what can be narrowed, sort it by importance, and choose counts for each width.

    Args:
        task: for labels, where ``taylor`` asks for them.
        module: in evaluation mode; not changed.
        example: one sample.
        batches: unlabelled samples, the full resolution first.
        settings: of the run.
        kept: counts that an earlier run found; nothing is measured then.
        progress: told each step.

    Raises:
        ConversionError: ``conversion.nothing-to-narrow``.
        ProfileError: ``profile.uncalibrated-for-slim`` and those of loading a profile.
    """
    progress("trace the graph")
    analysis = analyse(module, example, normalised=settings.norms)
    if not analysis.groups:
        raise nothing_to_narrow(task, analysis.held)
    layers = Layers(analysis.uses, analysis.groups, shapes_of(tensors_of(module)))
    module = copy.deepcopy(module)
    if kept is not None:
        return Plan(module, analysis, layers, {w: dict(counts) for w, counts in kept.items()})
    progress(f"rank channels by {settings.importance}")
    loss = _loss(task, settings) if settings.importance == "taylor" else None
    scores = importance(
        module, analysis.groups, cast(Method, settings.importance), batches, loss or _size(batches)
    )
    permute(module, ranking(scores), analysis.groups)
    units = units_of(analysis.groups, rounding(settings))
    return Plan(
        module,
        analysis,
        layers,
        _counts(module, analysis, units, layers, batches, settings, progress),
    )


def _counts(
    module: nn.Module,
    analysis: Analysis,
    units: Sequence[Unit],
    layers: Layers,
    batches: Sequence[Batch],
    settings: Settings,
    progress: Step,
) -> dict[float, dict[str, int]]:
    widths = settings.widths[1:]
    flat = {width: uniform(units, width) for width in widths}
    if settings.uniform:
        return flat
    cost = cost_of(layers, settings)
    # What the share itself would cost, not what its rounding to whole steps happens to.
    budgets = [cost(_shares(analysis, width)) for width in widths]
    moments = second_moments(module, analysis.groups, batches) if settings.separate else None
    damage = Damages(module, analysis.groups, batches, moments)
    measured = curves(units, damage, progress=progress)
    progress("exchange channels between layers")
    floors = [LEAST_OF_WIDTH * width for width in widths]
    found = search(units, measured, cost, budgets, damage, floors)
    return dict(zip(widths, found, strict=True))


def rounding(settings: Settings) -> int:
    """Multiple that outputs come in on the profile that is asked for.

    Raises:
        ProfileError: those of loading a profile.
    """
    features: tuple[str, ...] = ()
    if settings.profile is not None:
        clusters = load_profile(settings.profile).cpu
        features = tuple(feature for cluster in clusters for feature in cluster.features)
    return round_to_of(settings, features)


def _shares(analysis: Analysis, width: float) -> dict[str, int]:
    return {group.name: max(1, round(group.size * width)) for group in analysis.groups}


def cost_of(layers: Layers, settings: Settings) -> Cost:
    """What the search minimises.

    Raises:
        ProfileError: ``profile.uncalibrated-for-slim``.
    """
    if settings.profile is None:
        return layers.macs
    profile = load_profile(settings.profile)
    for support in profile.runtimes:
        cost = latency_cost(layers, profile, runtime=support.name, scheme=settings.scheme)
        if cost is not None:
            return cost
    raise ProfileError(
        "uncalibrated-for-slim",
        f"{profile.id} has no latency row for {settings.scheme}.",
        "Leave --profile out to count multiply-accumulates, or calibrate the profile.",
    )


def nothing_to_narrow(task: LoadedTask, held: Sequence[Held]) -> ConversionError:
    """The refusal, with the reason for each layer."""
    reasons = [f"{item.name or 'the network'} {item.reason}" for item in held[:4]]
    return ConversionError(
        "nothing-to-narrow",
        f"No channel of {task.name} can be dropped: {'; '.join(reasons) or 'it has no layers'}.",
        "Slimming needs convolutions or linear layers whose outputs the graph reads by channel; "
        "docs/slim.md lists what stands in the way and how to write it instead.",
    )


def _loss(task: LoadedTask, settings: Settings) -> Loss | None:
    """The task's own loss on a few of its batches; None without labels."""
    if not is_labelled(task) or not settings.labels or task.kind != "classification":
        return None

    def loss(module: nn.Module) -> torch.Tensor:
        total = torch.zeros(())
        for index, step in enumerate(training_steps(task, settings.seed)):
            if index == _TAYLOR_STEPS:
                break
            inputs, targets = step[0]
            total = total + task.task.loss(module(inputs), targets)
        return total

    return loss


def _size(batches: Sequence[Batch]) -> Loss:
    """Without labels: the energy of the answers."""

    def loss(module: nn.Module) -> torch.Tensor:
        outputs = flat_outputs(module(*batches[0]))
        return torch.stack([output.square().mean() for output in outputs]).sum()

    return loss

"""``edge model slim``: widths of one task, planned, repaired, trained, measured, written."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from converters.checkpoint import Form, load_state, restore_random, save_state, seed_all
from converters.data import evaluation_set
from converters.distill.batches import is_labelled
from converters.loading import LoadedTask
from converters.measure import accuracy_of
from converters.module import build_module, check_examples, reference_outputs
from converters.norm_statistics import recalibrate
from converters.slim.description import Slim, describe, write
from converters.slim.groups import Held
from converters.slim.network import FULL, SlimNetwork, width_key
from converters.slim.plan import Plan, plan, rounding
from converters.slim.repair import compensate, repair
from converters.slim.samples import sample_batches
from converters.slim.settings import Settings
from converters.slim.statistics import second_moments
from converters.slim.training import Progress, Trainer
from converters.task import Floats
from converters.train import calm_threads
from edge_sdk.durable import DiskStorage, Storage
from edge_sdk.errors import UsageError

CHECKPOINT_SUFFIX = ".running"
FORM = Form("edge-slim-run-1", "edge model slim", asked_key="settings")
UNLABELLED_EPOCHS = 10
SAMPLES = 1024


@dataclass(frozen=True, slots=True)
class Slimmed:
    """A finished run."""

    slim: Slim
    network: SlimNetwork
    path: Path
    weights: Path
    repaired: dict[str, float]
    """Accuracy by width after repair alone, before any training."""
    history: tuple[Progress, ...]
    held: tuple[Held, ...]


def slim(
    task: LoadedTask,
    out: Path,
    *,
    settings: Settings,
    weights: Path | None = None,
    resume: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
    progress: Callable[[str], None] = lambda text: None,
    storage: Storage | None = None,
) -> Slimmed:
    """Make a task's network available at several widths.

    Args:
        task: with trained weights, or with labels to train all widths from where it is.
        out: the document to write, ``slim.json``; the weights go beside it.
        settings: of the run.
        weights: to start from; None: those of ``build()``.
        resume: go on from the checkpoint beside ``out``.
        report: called after every epoch.
        progress: told each step as it begins.
        storage: the disk; a power-cut test brings its own.

    Raises:
        ConversionError: ``conversion.nothing-to-narrow``.
        TaskError: what is wrong with the task, its data or its loss.
        UsageError: ``usage.bad-slim``, ``usage.unknown-importance``, ``usage.checkpoint-exists``,
            ``usage.nothing-to-resume``, ``usage.resume-mismatch``, ``usage.bad-checkpoint``.
        StorageError: the disk is full or the folder cannot be written.
    """
    run = _Run(task, out, settings.checked(), weights, storage, progress)
    run.prepare(resume=resume)
    for epoch in run.epochs():
        report(epoch)
    return run.finish()


class _Run:
    """One slimming."""

    def __init__(
        self,
        task: LoadedTask,
        out: Path,
        settings: Settings,
        weights: Path | None,
        storage: Storage | None,
        progress: Callable[[str], None],
    ) -> None:
        calm_threads()
        self._task, self._out, self._settings = task, out, settings
        self._weights, self._storage, self._progress = weights, storage, progress
        self._checkpoint = out.with_name(out.name + CHECKPOINT_SUFFIX)
        self._history: list[Progress] = []
        self._repaired: dict[str, float] = {}
        self._wanted: Floats | None = None

    def prepare(self, *, resume: bool) -> None:
        """Plan, narrow and repair; or take all that from the checkpoint."""
        state, generators = None, None
        if resume:
            state, generators = load_state(FORM, self._checkpoint, self._settings.as_dict())
        elif self._checkpoint.exists():
            raise UsageError(
                "checkpoint-exists",
                f"{self._checkpoint} holds an unfinished slimming.",
                "Add --resume to go on with it, or delete it to start over.",
            )
        seed_all(self._settings.seed)
        module = build_module(self._task, self._weights)
        self._example = check_examples(self._task, module, *self._task.resolutions[0])
        self._samples = sample_batches(
            self._task, SAMPLES, training=self._settings.labels and is_labelled(self._task)
        )
        self._evaluation = evaluation_set(self._task, *self._task.resolutions[0])
        self._plan = self._planned(module, state)
        self._network = SlimNetwork(
            self._plan.module,
            self._plan.analysis.groups,
            self._plan.kept,
            shared=not self._settings.separate,
        )
        if state is None:
            self._repair()
            self._repaired = self._scores()
        teacher = self._teacher(module)
        self._trainer = Trainer(self._task, self._network, self._settings, self._samples, teacher)
        if state is not None and generators is not None:
            self._restore(state, generators)

    def epochs(self) -> Iterator[Progress]:
        """Train what is left, yielding after each epoch."""
        count = self._count()
        for number in range(len(self._history) + 1, count + 1):
            started = time.monotonic()
            self._progress(f"epoch {number} of {count}")
            loss = self._trainer.epoch(number, count)
            if self._network.shared:  # a network of its own has followed its own statistics
                for width in self._network.widths[1:]:
                    recalibrate(self._network.at(width), self._samples)
            scores = self._scores()
            seconds = time.monotonic() - started
            self._history.append(Progress(number, count, loss, scores, seconds))
            self._save()
            yield self._history[-1]

    def finish(self) -> Slimmed:
        """Measure and write."""
        scores = self._history[-1].accuracy if self._history else self._repaired
        counts: dict[float, dict[str, int]] = {FULL: {}, **self._plan.kept}
        found = describe(
            self._network,
            self._settings,
            self._plan.analysis.held,
            task=self._task.name,
            round_to=rounding(self._settings),
            macs={width: self._plan.layers.macs(kept) for width, kept in counts.items()},
            accuracy=scores,
        )
        weights = write(found, self._network, self._out, self._storage)
        (self._storage or DiskStorage()).remove(self._checkpoint)
        return Slimmed(
            slim=found,
            network=self._network,
            path=self._out,
            weights=weights,
            repaired=self._repaired,
            history=tuple(self._history),
            held=self._plan.analysis.held,
        )

    def _planned(self, module: nn.Module, state: dict[str, Any] | None) -> Plan:
        kept = None
        if state is not None:
            kept = {float(width): counts for width, counts in state["kept"].items()}
        return plan(
            self._task,
            module,
            self._example,
            self._samples,
            self._settings,
            kept=kept,
            progress=self._progress,
        )

    def _repair(self) -> None:
        groups, wide = self._plan.analysis.groups, self._plan.module
        moments: dict[str, torch.Tensor] = {}
        if self._settings.separate:
            self._progress("least squares")
            moments = second_moments(wide, groups, self._samples)
        for width, kept in self._plan.kept.items():
            self._progress(f"repair width {width:g}")
            small = self._network.at(width)
            if self._settings.separate:
                compensate(wide, small, groups, kept, moments)
            repair(wide, small, groups, kept, self._samples)

    def _teacher(self, module: nn.Module) -> nn.Module:
        """The network as it came."""
        return copy.deepcopy(module).requires_grad_(False)

    def _count(self) -> int:
        if self._settings.epochs is not None:
            return self._settings.epochs
        if self._settings.labels and is_labelled(self._task):
            return int(getattr(self._task.task, "epochs", UNLABELLED_EPOCHS))
        return UNLABELLED_EPOCHS

    def _scores(self) -> dict[str, float]:
        """On the held-out set at the full resolution, by width."""
        found = {}
        for width in self._network.widths:
            outputs = self._answers(self._network.at(width))
            if self._wanted is None:
                self._wanted = outputs  # of the wide network before any training
            found[width_key(width)] = accuracy_of(
                self._task, outputs, self._wanted, self._evaluation.labels
            )
        return found

    def _answers(self, module: nn.Module) -> Floats:
        module.eval()
        return reference_outputs(self._task, module, self._evaluation.inputs, self._example)

    def _save(self) -> None:
        state = {
            "kept": {width_key(width): kept for width, kept in self._plan.kept.items()},
            "network": self._network.state(),
            "optimizer": self._trainer.optimizer.state_dict(),
            "repaired": self._repaired,
            "history": [
                {name: getattr(item, name) for name in Progress.__slots__} for item in self._history
            ],
        }
        save_state(FORM, self._checkpoint, self._settings.as_dict(), state, self._storage)

    def _restore(self, state: dict[str, Any], generators: dict[str, Any]) -> None:
        try:
            self._wanted = self._answers(self._network.module)
            self._network.load_state(state["network"])
            self._trainer.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, KeyError, ValueError) as error:
            raise UsageError(
                "bad-checkpoint",
                f"{self._checkpoint} was started with another network or other weights.",
                "Give the same task and weights, or delete it and start without --resume.",
            ) from error
        self._repaired = dict(state["repaired"])
        self._history = [Progress(**item) for item in state["history"]]
        restore_random(generators)

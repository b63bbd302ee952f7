"""``edge model search``: train a supernet, search it for each budget, write what was found."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from converters.checkpoint import seed_all
from converters.loading import FULL_WIDTH, LoadedTask
from converters.module import build_module, check_examples
from converters.slim.description import Slim, Width, describe_groups, write
from converters.slim.find import analyse
from converters.slim.network import width_key
from converters.slim.plan import nothing_to_narrow
from converters.slim.search import units_of
from converters.slim.settings import ROUND_TO
from converters.supernet.costs import Costs
from converters.supernet.judge import Judge
from converters.supernet.network import Supernet, space_of, tried
from converters.supernet.search import Effort, Found, Quality, fitted, search
from converters.supernet.space import KINDS, Genes
from converters.supernet.train import Epoch, Trainer, clock, phases_of
from converters.train import calm_threads, checked_epochs
from edge_sdk.durable import Storage
from edge_sdk.errors import GateError, TaskError, UsageError

MAX_TARGETS = 16
_FITTING = 64
"""Sub-networks per budget that the last phase of the training draws from."""
Cost = Callable[[Genes], float]
_SEED_SHARES = tuple(share / 20 for share in range(20, 1, -1))
"""Uniform widths that every search begins with."""


@dataclass(frozen=True, slots=True)
class Target:
    """A budget."""

    profile: str
    latency_ms: float
    scheme: str = "fp32"

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.profile} {self.scheme} {self.latency_ms:g} ms"


@dataclass(frozen=True, slots=True)
class Choice:
    """What was found for one budget."""

    target: Target
    found: Found
    width: float
    """Under which it stands on the ladder: its share of the multiply-accumulates."""
    size: str
    macs: float
    accuracy: float
    """On held-out samples that the search did not look at, by the sub-network as it is."""


@dataclass(frozen=True, slots=True)
class Bill:
    """What it took, and what it spared, in seconds of :func:`converters.supernet.train.clock`."""

    candidates: int
    """Different sub-networks that were measured."""
    training_seconds: float
    search_seconds: float
    separate_seconds: float
    """At least, to train every candidate by itself for the task's epochs: what the full network's
    own part of the training took, times each candidate's share of the multiply-accumulates."""

    @property
    def seconds(self) -> float:
        """Training and search."""
        return self.training_seconds + self.search_seconds

    @property
    def ratio(self) -> float:
        """How many times more the candidates would have cost one by one."""
        return self.separate_seconds / max(self.seconds, 1e-9)


@dataclass(frozen=True, slots=True)
class Searched:
    """A finished run."""

    path: Path
    weights: Path
    choices: tuple[Choice, ...]
    bill: Bill
    full_accuracy: float
    space: int
    """Sub-networks there are."""


class Bench:
    """A trained supernet, ready to be searched.

    Args:
        task: classification, with labels.
        weights: of the full network; None trains it first.
        seed: of everything random.

    Raises:
        TaskError: what is wrong with the task, its data or its ``elastic``.
        ConversionError: ``conversion.nothing-to-narrow``.
    """

    def __init__(self, task: LoadedTask, weights: Path | None, seed: int) -> None:
        if task.kind != "classification":
            raise TaskError(
                "not-trainable",
                f"{task.name} is no classification task.",
                "A supernet learns from class labels; edge model slim narrows other tasks.",
            )
        calm_threads()
        seed_all(seed)
        self.task, self._seed = task, seed
        self._trained = weights is not None
        module = build_module(task, weights)
        examples = [check_examples(task, module, h, w) for h, w in task.resolutions]
        analysis = analyse(module, examples[0])
        if not analysis.groups:
            raise nothing_to_narrow(task, analysis.held)
        units = units_of(analysis.groups, ROUND_TO)
        self.network = Supernet(module, units, space_of(task, module, units))
        tried(task, self.network, examples[0])
        self.costs = Costs(self.network, examples)
        self.judge = Judge(task, self.network)
        self.training_seconds = self.search_seconds = self.full_seconds = 0.0

    def train(
        self,
        targets: Sequence[Target],
        epochs: int | None = None,
        report: Callable[[Epoch], None] = lambda epoch: None,
    ) -> None:
        """Progressive shrinking, down to sub-networks that fill the targets' budgets.

        Raises:
            TaskError: ``task.not-trainable``, ``task.bad-loss``, ``task.no-data``.
            GateError: ``gate.nothing-fits``.
            ProfileError: as :meth:`search`.
        """
        count = checked_epochs(self.task, epochs)
        started = clock()
        fitting = [genes for target in targets for genes in self._fitting(target)]
        trainer = Trainer(self.task, self.network, self.judge.samples[0], fitting, self._seed)
        phases = phases_of(self.network, count, trained=self._trained)
        trainer.run(phases, report)
        self.judge.forget()
        self.full_seconds = trainer.full_seconds * count
        self.training_seconds = clock() - started

    def search(
        self,
        targets: Sequence[Target],
        effort: Effort,
        progress: Callable[[str], None] = lambda text: None,
    ) -> dict[Target, Found]:
        """The best sub-network for each budget; what one search measured serves the next.

        Raises:
            GateError: ``gate.nothing-fits``.
            ProfileError: ``profile.uncalibrated-for-slim`` and those of loading a profile.
        """
        space = self.network.space
        seeds = [space.uniform(share) for share in _SEED_SHARES]
        costs = {target: self._cost(target) for target in targets}
        found: dict[Target, Found] = {}
        started = clock()
        for target in sorted(targets, key=lambda target: target.latency_ms):
            progress(f"search {target.name}")
            cost = costs[target]
            known = [*seeds, *(item.genes for item in found.values())]
            best = search(space, cost, self._counted(progress), target.latency_ms, effort, known)
            if best is not None:  # the smallest fits: there is one
                found[target] = best
        self.search_seconds += clock() - started
        return found

    def bill(self) -> Bill:
        """Costs so far."""
        full = self.costs.macs(self.network.space.full)
        shares = sum(self.costs.macs(genes) / full for genes in self.judge.measured)
        return Bill(
            candidates=len(self.judge.measured),
            training_seconds=self.training_seconds,
            search_seconds=self.search_seconds,
            separate_seconds=self.full_seconds * shares,
        )

    def choices(self, found: dict[Target, Found]) -> tuple[Choice, ...]:
        """Finds with what the ladder needs to know; the largest first."""
        widths = self._widths([item.genes for item in found.values()])
        chosen = [
            Choice(
                target=target,
                found=item,
                width=widths[item.genes],
                size="x".join(map(str, self._side(item.genes))),
                macs=self.costs.macs(item.genes),
                accuracy=self.judge.reported(
                    self.judge.module(item.genes), self.network.resolution(item.genes)
                ),
            )
            for target, item in found.items()
        ]
        return tuple(sorted(chosen, key=lambda choice: -choice.width))

    def _cost(self, target: Target) -> Cost:
        """Predicted milliseconds, where at least one sub-network fits."""
        cost = self.costs.latency(target.profile, target.scheme)
        if (least := cost(self.network.space.smallest(KINDS))) > target.latency_ms:
            raise GateError(
                "nothing-fits",
                f"No sub-network of {self.task.name} fits {target.name}.",
                f"The smallest is predicted to take {least:.3g} ms: allow that much, or "
                "declare smaller options.",
            )
        return cost

    def _fitting(self, target: Target) -> list[Genes]:
        space, cost = self.network.space, self._cost(target)
        draw = random.Random(f"{self._seed}-{target.name}")
        return [
            fitted(space, cost, space.drawn(draw, KINDS), target.latency_ms, draw)
            for _ in range(_FITTING)
        ]

    def _counted(self, progress: Callable[[str], None]) -> Callable[[Genes], Quality]:
        def quality(genes: Genes) -> Quality:
            progress(f"{len(self.judge.measured)} sub-networks measured")
            return self.judge.quality(genes)

        return quality

    def _side(self, genes: Genes) -> tuple[int, int]:
        return self.task.resolutions[self.network.resolution(genes)]

    def _widths(self, every: Sequence[Genes]) -> dict[Genes, float]:
        """A number of two decimals for each, none twice: ladders name points by it."""
        full = self.costs.macs(self.network.space.full)
        found: dict[Genes, float] = {self.network.space.full: FULL_WIDTH}
        for genes in sorted(set(every), key=self.costs.macs):
            if genes in found:
                continue
            width = min(0.99, max(0.01, round(self.costs.macs(genes) / full, 2)))
            while width in found.values():
                width = round(width + 0.01, 2) if width < 0.99 else 0.01
            found[genes] = width
        return found


def run(
    task: LoadedTask,
    out: Path,
    targets: Sequence[Target],
    *,
    effort: Effort,
    weights: Path | None = None,
    epochs: int | None = None,
    report: Callable[[Epoch], None] = lambda epoch: None,
    progress: Callable[[str], None] = lambda text: None,
    storage: Storage | None = None,
) -> Searched:
    """Train a supernet, search it and write the sub-networks as a document that converts.

    Args:
        task: classification, with labels; ``elastic`` says what may vary.
        out: the document; its weights go beside it.
        targets: budgets, one sub-network each.
        effort: of each search.
        weights: of the full network; None trains it first.
        epochs: instead of the task's own, for the full network; the phases follow from it.
        report: called after every epoch.
        progress: told each step.
        storage: the disk; a power-cut test brings its own.

    Raises:
        UsageError: ``usage.bad-budget``.
        EdgeError: as :class:`Bench` and its methods; StorageError when the disk is full.
    """
    if not 1 <= len(targets) <= MAX_TARGETS or not all(0 < t.latency_ms < 1e9 for t in targets):
        raise UsageError(
            "bad-budget",
            f"A search takes 1 to {MAX_TARGETS} budgets over 0 ms.",
            "Give --latency-ms in milliseconds per inference, for each --profile.",
        )
    bench = Bench(task, weights, effort.seed)
    bench.train(targets, epochs, report)
    choices = bench.choices(bench.search(targets, effort, progress))
    document, state = described(bench, choices)
    return Searched(
        path=out,
        weights=write(document, state, out, storage),
        choices=choices,
        bill=bench.bill(),
        full_accuracy=bench.judge.reported(bench.judge.module(bench.network.space.full)),
        space=bench.network.space.size,
    )


@dataclass(frozen=True, slots=True)
class States:
    """Tensors by width, as the document's weights file holds them."""

    tensors: dict[str, dict[str, torch.Tensor]]

    def state(self) -> dict[str, dict[str, torch.Tensor]]:
        """All of them."""
        return self.tensors


def described(bench: Bench, choices: Sequence[Choice]) -> tuple[Slim, States]:
    """The document of ``edge model slim`` with the sub-networks as its narrower widths.

    A sub-network brings nothing but its BatchNorm statistics; its weights are cut from the full
    network's.
    """
    network, judge = bench.network, bench.judge
    full = judge.module(network.space.full)
    widths = [
        Width(
            width=FULL_WIDTH,
            kept={},
            macs=round(bench.costs.macs(network.space.full)),
            accuracy=judge.reported(full),
        )
    ]
    tensors = {width_key(FULL_WIDTH): dict(full.state_dict())}
    for choice in choices:
        genes = choice.found.genes
        if choice.width in {width.width for width in widths}:
            continue  # two budgets, one answer
        widths.append(
            Width(
                width=choice.width,
                kept=network.kept(genes),
                depths=network.depths(genes),
                kernels=network.kernels(genes),
                size=choice.size,
                macs=round(choice.macs),
                accuracy=choice.accuracy,
            )
        )
        tensors[width_key(choice.width)] = _statistics(judge.module(genes))
    document = Slim(
        task=bench.task.name,
        weights="",
        weights_sha256="",
        shared=True,
        importance="activation",
        round_to=ROUND_TO,
        widths=tuple(widths),
        groups=describe_groups(network.groups),
    )
    return document, States(tensors)


def _statistics(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.named_buffers()}

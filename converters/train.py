"""Training a task at all of its resolutions at once.

Each step runs the same batch at every resolution and adds the losses, so that a lower resolution
is a cheaper run of the same weights instead of a different model (the idea of Touvron et al.,
"Fixing the train-test resolution discrepancy", 2019, taken to several test resolutions).
AdamW with a cosine schedule over epochs.

A norm's statistics differ from one resolution to the next, and those it keeps are a mixture that
fits none: a network that is right at every resolution by its batches' statistics may lose forty
points with the kept ones. Statistics of each resolution's own would end the sharing of weights,
since they are folded into them. So the last epochs train with the kept ones, taken anew over all
resolutions.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from converters.data import evaluation_set
from converters.loading import LoadedTask
from converters.module import build_module, reference_outputs
from converters.norm_statistics import norms_of, recalibrate
from converters.task import score_of
from converters.usercode import user_code
from edge_sdk.errors import TaskError

MAX_EPOCHS = 10_000
DEFAULT_LEARNING_RATE = 3e-3
SETTLED_SHARE = 0.3
"""Of the epochs, the last ones: norms use the statistics that they will be exported with."""
_SETTLE_STEPS = 8
"""Whose batches the statistics are taken from."""
_CLIP = 5.0

Step = TypeVar("Step")


@dataclass(frozen=True, slots=True)
class Epoch:
    """One finished epoch."""

    number: int
    epochs: int
    loss: float
    accuracy: float
    """On the held-out set, at the full resolution."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained module and what it scores on the held-out set."""

    module: nn.Module
    accuracy: dict[str, float]
    """By resolution, e.g. ``32x32``."""
    history: tuple[Epoch, ...]


def train(
    task: LoadedTask,
    *,
    seed: int = 0,
    epochs: int | None = None,
    report: Callable[[Epoch], None] = lambda epoch: None,
) -> Trained:
    """Train the task's module from scratch.

    Args:
        task: must also provide ``training`` and ``loss``.
        seed: fixes the initial weights and the order and augmentation of the data.
        epochs: overrides the task's own number.
        report: called after every epoch.

    Raises:
        TaskError: ``task.not-trainable``, ``task.bad-loss``, ``task.user-code-failed``.
    """
    count = checked_epochs(task, epochs)
    torch.manual_seed(seed)
    calm_threads()
    module = build_module(task, None, seed=None).requires_grad_(True)
    rate = float(getattr(task.task, "learning_rate", DEFAULT_LEARNING_RATE))
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=1e-2)
    held_out = evaluation_set(task, *task.resolutions[0])
    history: list[Epoch] = []
    settled_from = first_settled(task, count)
    for number in range(1, count + 1):
        started = time.monotonic()
        set_rate(optimizer, rate * cosine(number - 1, count))
        draw = seed * MAX_EPOCHS + number
        if number == settled_from:
            settle(task, module, draw)
        loss = one_epoch(task, module, optimizer, draw, settled=number >= settled_from)
        module.eval()
        accuracy = accuracy_on(task, module, held_out)
        history.append(Epoch(number, count, loss, accuracy, time.monotonic() - started))
        report(history[-1])
    scores = {
        f"{height}x{width}": accuracy_on(task, module, evaluation_set(task, height, width))
        for height, width in task.resolutions
    }
    return Trained(module, scores, tuple(history))


def calm_threads() -> None:
    """Train on half the cores.

    OpenMP's threads spin while they wait for each other, and on a machine that does something else
    as well that made training four times slower.
    """
    torch.set_num_threads(max(1, min((os.cpu_count() or 2) // 2, 8)))


def checked_epochs(task: LoadedTask, epochs: int | None) -> int:
    """How many epochs to train: ``epochs``, or the task's own number.

    Raises:
        TaskError: ``task.not-trainable``.
    """
    missing = [name for name in ("training", "loss") if not hasattr(task.task, name)]
    if missing:
        raise TaskError(
            "not-trainable",
            f"{task.ref} lacks {' and '.join(missing)}.",
            "Add them (see converters/task.py:TrainableTask), or bring weights of your own.",
        )
    count = epochs if epochs is not None else int(getattr(task.task, "epochs", 10))
    if not 1 <= count <= MAX_EPOCHS:
        raise TaskError(
            "not-trainable", f"{count} epochs were asked for.", f"Give 1 to {MAX_EPOCHS}."
        )
    return count


def first_settled(task: LoadedTask, epochs: int) -> int:
    """The epoch from which on norms keep their statistics; beyond the last one for never."""
    several = len(task.resolutions) > 1
    return epochs + 1 - (round(SETTLED_SHARE * epochs) if several else 0)


def settle(task: LoadedTask, module: nn.Module, seed: int) -> None:
    """Take the norms' statistics anew, over batches of every resolution alike."""
    steps = itertools.islice(training_steps(task, seed), _SETTLE_STEPS)
    recalibrate(module, ((inputs,) for step in steps for inputs, _ in step))


def one_epoch(
    task: LoadedTask, network: nn.Module, optimizer: Any, seed: int, *, settled: bool = False
) -> float:
    """One pass over the training data at all resolutions; the mean loss.

    Args:
        task: that is trained.
        network: changed.
        optimizer: of its parameters.
        seed: of the data's order.
        settled: norms use the statistics they keep, and keep them.

    Raises:
        TaskError: ``task.no-data``, ``task.bad-loss``, ``task.user-code-failed``.
    """

    def losses(step: tuple[Any, ...]) -> Iterator[torch.Tensor]:
        for inputs, targets in step:
            with user_code(task.path, "loss()"):
                loss = task.task.loss(network(inputs), targets)
            yield loss

    network.train()
    for norm in norms_of(network) if settled else ():
        norm.eval()
    steps = training_steps(task, seed)
    return descend(task, optimizer, [list(network.parameters())], steps, losses)


def descend(
    task: LoadedTask,
    optimizer: Any,
    clipped: Sequence[Sequence[nn.Parameter]],
    steps: Iterable[Step],
    losses: Callable[[Step], Iterable[torch.Tensor]],
) -> float:
    """One pass over steps; the mean loss.

    Args:
        task: that is trained.
        optimizer: of all parameters.
        clipped: gradients whose size is bounded together.
        steps: what each update learns from.
        losses: of a step. Each goes backwards before the next is asked for, so that one graph at a
            time is in memory.

    Raises:
        TaskError: ``task.no-data``, ``task.bad-loss``, and what ``losses`` raises.
    """
    total, count = 0.0, 0
    for step in steps:
        optimizer.zero_grad()
        values = []
        for loss in losses(step):
            values.append(finite_loss(task, loss))
            loss.backward()  # type: ignore[no-untyped-call]
        for parameters in clipped:
            nn.utils.clip_grad_norm_(parameters, _CLIP)
        optimizer.step()
        total += sum(values) / len(values)
        count += 1
    if count == 0:
        raise TaskError(
            "no-data",
            f"{task.path.name}: there is no batch to train on.",
            "Yield at least one from training(), or calibration() where there are no labels.",
        )
    return total / count


def move_state(optimizer: Any, device: torch.device) -> None:
    """Take an optimizer's tensors to where its parameters are; step counts stay."""
    for state in optimizer.state.values():
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and key != "step":
                state[key] = value.to(device)


def training_steps(task: LoadedTask, seed: int) -> Iterator[tuple[Any, ...]]:
    """The same batch at every resolution, batch by batch."""
    with user_code(task.path, "training()"):
        sources = [iter(task.task.training(h, w, seed)) for h, w in task.resolutions]
    while True:
        with user_code(task.path, "training()"):
            step = tuple(next(source, None) for source in sources)
        if any(batch is None for batch in step):
            return
        yield step


def finite_loss(task: LoadedTask, loss: Any) -> float:
    """The value of a loss.

    Raises:
        TaskError: ``task.bad-loss`` when it is not one finite number.
    """
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        raise TaskError(
            "bad-loss", f"{task.path.name}: loss() must return a scalar tensor.", "Return its mean."
        )
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TaskError(
            "bad-loss",
            f"{task.path.name}: the loss became {value}.",
            "Lower learning_rate, or look for NaN in the training data.",
        )
    return value


def accuracy_on(task: LoadedTask, module: nn.Module, samples: Any) -> float:
    """The task's score of ``module`` in evaluation mode on held-out samples."""
    module.eval()
    outputs = reference_outputs(task, module, samples.inputs)
    with user_code(task.path, "score()"):
        return score_of(task.task, outputs, samples.labels)


def cosine(step: int, steps: int) -> float:
    """Share of the learning rate at ``step``: 1 at the start, 0.02 at the end."""
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps))


def set_rate(optimizer: Any, rate: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate

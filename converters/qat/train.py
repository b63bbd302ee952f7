"""Training on the int8 grid: observe, train with fake quantization, freeze."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import fx, nn

from converters.data import calibration_set, evaluation_set
from converters.loading import LoadedTask
from converters.module import build_module, check_example
from converters.qat.emit import freeze
from converters.qat.prepare import enter, layers_of, prepare, ranges_of
from converters.train import (
    DEFAULT_LEARNING_RATE,
    MAX_EPOCHS,
    Epoch,
    accuracy_on,
    calm_threads,
    checked_epochs,
    cosine,
    one_epoch,
    set_rate,
)
from converters.usercode import user_code
from edge_sdk.errors import ConversionError

Ranges = Literal["observed", "learned"]

FINE_TUNING = 0.1
"""Share of the task's learning rate: the weights are trained already."""
DEFAULT_EPOCHS = 2
_BATCH = 64


@dataclass(frozen=True, slots=True)
class QatTrained:
    """A module frozen on the int8 grid, and how it got there."""

    graph: fx.GraphModule
    float_accuracy: dict[str, float]
    """Of the float module, by resolution."""
    calibrated_accuracy: dict[str, float]
    """On the grid after observing alone, which is what calibration would give."""
    accuracy: dict[str, float]
    """On the grid after training."""
    history: tuple[Epoch, ...]


def train_qat(
    task: LoadedTask,
    weights: Path | None,
    *,
    epochs: int = DEFAULT_EPOCHS,
    seed: int = 0,
    ranges: Ranges = "observed",
    learning_rate: float | None = None,
    report: Callable[[Epoch], None] = lambda epoch: None,
) -> QatTrained:
    """Train a task's weights so that they survive int8.

    BatchNorm statistics and observed ranges stand still during the last epoch, so that the weights
    settle on the grid that is delivered.

    Args:
        task: of kind classification, with ``training`` and ``loss``.
        weights: of the trained float module; None trains what ``build()`` returns.
        epochs: 1..10000; a few suffice.
        seed: fixes the order and augmentation of the data.
        ranges: activations' ranges follow the data, or their steps are learned.
        learning_rate: of the first epoch; a tenth of the task's own by default.
        report: called after every epoch with the accuracy on the grid.

    Raises:
        TaskError: ``task.not-trainable``, ``task.no-data``, ``task.bad-loss``,
            ``task.shared-weights`` and those of :func:`converters.module.build_module`.
        ConversionError: ``conversion.qat-untraceable``, ``conversion.qat-unsupported``.
    """
    count = checked_epochs(task, epochs)
    torch.manual_seed(seed)
    calm_threads()
    graph = prepared(task, weights)
    before = _accuracy(task, graph)
    observe(task, graph)
    enter(graph, "track")
    calibrated = _accuracy(task, graph)
    if ranges == "learned":
        enter(graph, "learn")
    graph.requires_grad_(True)
    rate = learning_rate or FINE_TUNING * float(
        getattr(task.task, "learning_rate", DEFAULT_LEARNING_RATE)
    )
    optimizer = torch.optim.AdamW(_groups(graph), lr=rate, weight_decay=1e-4)
    held_out = evaluation_set(task, *task.resolutions[0])
    history: list[Epoch] = []
    for number in range(1, count + 1):
        started = time.monotonic()
        set_rate(optimizer, rate * cosine(number - 1, count))
        if number == count:
            _settle(graph, ranges)
        loss = one_epoch(task, graph, optimizer, seed * MAX_EPOCHS + number)
        accuracy = accuracy_on(task, graph, held_out)
        history.append(Epoch(number, count, loss, accuracy, time.monotonic() - started))
        report(history[-1])
    freeze(graph)
    return QatTrained(graph, before, calibrated, _accuracy(task, graph), tuple(history))


def prepared(task: LoadedTask, weights: Path | None) -> fx.GraphModule:
    """The task's module rewritten for the int8 grid, ranges not observed yet.

    Raises:
        TaskError, ConversionError: as :func:`train_qat`.
    """
    if task.kind != "classification":
        raise ConversionError(
            "qat-unsupported",
            f"{task.name} is of kind {task.kind}; quantization-aware training takes "
            "classification tasks.",
            "Convert it with calibration instead (edge model convert).",
        )
    module = build_module(task, weights)
    return prepare(module, check_example(task, module, *task.resolutions[0]))


@torch.no_grad()
def observe(task: LoadedTask, graph: fx.GraphModule) -> None:
    """Find the ranges of all activations on the calibration samples of every resolution."""
    graph.eval()
    enter(graph, "observe")
    for height, width in task.resolutions:
        samples = torch.from_numpy(calibration_set(task, height, width))
        with user_code(task.path, "The module's forward"):
            for start in range(0, len(samples), _BATCH):
                graph(samples[start : start + _BATCH])


def _accuracy(task: LoadedTask, graph: nn.Module) -> dict[str, float]:
    return {
        f"{height}x{width}": accuracy_on(task, graph, evaluation_set(task, height, width))
        for height, width in task.resolutions
    }


def _groups(graph: fx.GraphModule) -> list[dict[str, object]]:
    """Only weights decay: a bias, a BatchNorm or a learned step has no reason to be small."""
    parameters = [p for p in graph.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() > 1]},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]


def _settle(graph: fx.GraphModule, ranges: Ranges) -> None:
    """Let BatchNorm statistics and observed ranges stand still."""
    for _, layer in layers_of(graph):
        layer.statistics_frozen = True
    if ranges == "observed":
        for _, part in ranges_of(graph):
            part.enter("frozen")

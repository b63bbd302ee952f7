"""The protocol of a user's model file: a class that builds a module and knows its data.

``edge model convert path.py:Task`` loads the file, creates ``Task()`` and asks it for everything
else. The class need not inherit from anything here; a plain class with these names will do.
Arrays are laid out (N, C, H, W) float32, already normalised as :attr:`Task.preprocess` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from converters.settings import LayerKind
from edge_sdk.contracts.audio import EnhanceSpec, SoundInfo
from edge_sdk.contracts.manifest import Preprocess

if TYPE_CHECKING:
    import torch

__all__ = [
    "OPTIONAL",
    "REQUIRED",
    "REQUIRED_GENERIC",
    "GenericTask",
    "Preprocess",
    "Task",
    "TrainableTask",
    "top1",
]

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


class Task(Protocol):
    """What every task provides. Optional members are listed in :data:`OPTIONAL`."""

    name: str
    """Letters, digits, dots, dashes, underscores; becomes the release's default name."""
    labels: Sequence[str]
    """Class names in the order of the module's outputs."""
    preprocess: Preprocess
    """How a device turns a camera frame into the input."""
    resolutions: Sequence[tuple[int, int]]
    """(height, width) in pixels, the full resolution first."""

    def build(self) -> torch.nn.Module:
        """The module: (N, C, H, W) float32 to logits (N, len(labels)) float32."""

    def example_input(self, height: int, width: int) -> torch.Tensor:
        """One input, (1, C, height, width) float32."""

    def calibration(self, height: int, width: int) -> Iterable[torch.Tensor]:
        """Batches (N, C, height, width) float32 that cover what the device will see.

        They fix the ranges of the integer types and must not come from :meth:`evaluation`.
        """

    def evaluation(
        self, height: int, width: int
    ) -> Iterable[tuple[torch.Tensor, torch.Tensor | Sequence[int]]]:
        """Held-out batches (N, C, height, width) float32 with N class indexes.

        The same samples in the same order at every resolution.
        """


class GenericTask(Protocol):
    """A task that is no classification: any number of inputs and outputs, no labels.

    Arrays have the sample axis first, recurrent states included; images are (N, C, H, W). Inputs
    are float32 or whole numbers (token ids) up to 2**24, outputs float32. Shapes are fixed, but
    for what ``resolutions`` varies.

    Without labels, accuracy is the share of held-out samples whose every output is close to
    PyTorch's (see :attr:`tolerance`).
    """

    kind: Literal["generic"]
    name: str
    resolutions: Sequence[tuple[int, int]]
    """Optional, ((1, 1),) by default: (height, width) in pixels, the full resolution first; for a
    sequence (1, length)."""
    preprocess: Preprocess
    """Optional: how a device turns a camera frame into the first input, if that is an image."""
    tolerance: float
    """Optional, 0.1 by default (20 dB): a sample counts as right when, for each output, the root
    mean square of its error is at most this share of that of the output over all samples."""
    states: Sequence[tuple[int, int]]
    """Optional: (input, output) positions, counted from 0, of a streaming model's states. Every
    artifact is then held to PyTorch over a hundred steps; calibrate with states that occur."""
    sequence_steps: int
    """Optional, with ``states``: samples follow on each other, this many to a stream. PyTorch then
    fills the states in that really come before each sample; those given are not used."""
    integers: Sequence[LayerKind]
    """Optional: kinds of layers, ``linear`` or ``convolution``, that ``mixed_static`` schemes
    compute in integers; all else stays float32."""
    sound: SoundInfo
    """Optional: how a network that listens gets its features, and what its scores mean."""
    enhance: EnhanceSpec
    """Optional: the network cleans speech; how it is cut into spectra."""

    def build(self) -> torch.nn.Module:
        """The module; its forward takes the inputs in order and returns a tensor or a tuple."""

    def example_input(self, height: int, width: int) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """One sample: an input (1, ...), or a tuple with one tensor per input."""

    def calibration(
        self, height: int, width: int
    ) -> Iterable[torch.Tensor | tuple[torch.Tensor, ...]]:
        """Batches (N, ...) like the example, which cover what the device will see."""

    def evaluation(
        self, height: int, width: int
    ) -> Iterable[torch.Tensor | tuple[torch.Tensor, ...]]:
        """Held-out batches (N, ...) like the example, without labels."""


class TrainableTask(Task, Protocol):
    """A task that ``edge model train`` can train."""

    epochs: int

    def training(
        self, height: int, width: int, seed: int
    ) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        """One epoch of batches with class indexes.

        Called with the same ``seed`` for each resolution, it yields the same samples in the same
        order; each step trains on all resolutions of a batch.
        """

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """A scalar to minimise."""


REQUIRED = (
    "name",
    "labels",
    "preprocess",
    "resolutions",
    "build",
    "example_input",
    "calibration",
    "evaluation",
)
"""Members without which nothing can be converted."""

REQUIRED_GENERIC = ("name", "build", "example_input", "calibration", "evaluation")
"""The same for a task with ``kind = "generic"``."""

OPTIONAL = (
    "kind",
    "tolerance",
    "schemes",
    "score",
    "training",
    "loss",
    "epochs",
    "learning_rate",
    "widths",
)
"""``kind``: ``classification`` where absent; ``schemes``: names from :mod:`converters.schemes`;
``score(outputs, labels) -> float`` in place of top-1 accuracy, higher is better, 0..1;
``tolerance``: see :class:`GenericTask`;
``widths``: shares of the full network's channels, the full 1.0 first, each of which
``build(width=share)`` returns the module for, while ``build()`` returns the full one;
the rest is for ``edge model train``."""


def top1(outputs: Floats, labels: Integers) -> float:
    """Share of samples whose largest output is the label's; the default ``score``.

    Args:
        outputs: (N, classes).
        labels: (N,) class indexes.
    """
    return float(np.mean(np.argmax(outputs, axis=1) == labels))


def score_of(task: Any, outputs: Floats, labels: Integers) -> float:
    """The task's own score where it has one, else :func:`top1`."""
    own = getattr(task, "score", None)
    return float(own(outputs, labels)) if own is not None else top1(outputs, labels)

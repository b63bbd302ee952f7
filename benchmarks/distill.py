"""Distillation on handwritten digits: a small student with a teacher against the same without.

Two of five labels (and of five mask pixels) of the student are wrong, as labels of a device's own
pictures are; the teacher learned from right ones. Student with and without teacher start from the
same weights and see the same batches; both are scored on the right answers of 360 held-out digits.
A row per loss, mean over seeds; the last line has the smallest mean gain in points.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    # Run as a script, this folder comes first on the path, where converters.py hides the package.
    own = ROOT / "benchmarks"
    sys.path[:] = [str(ROOT), *(path for path in sys.path if Path(path).resolve() != own)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from converters.task import Preprocess  # noqa: E402

SIDE = 16
HELD_OUT = 360
WRONG = 0.4
BATCH = 64
LEAST_GAIN = 0.01
"""Of the score, 0..1, that every row must bring on average."""
TEMPERATURE = 1.0
"""A sure teacher of ten classes: softened further, a student this small gained nothing."""
LOSSES = (("logit",), ("logit", "feature"), ("mask",))


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    """1,797 scans (N, 1, 16, 16) float32, 0..1, in a fixed order, and their classes."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(7).permutation(len(data.target))
    small = torch.from_numpy(data.images[order].astype(np.float32) / 16.0)[:, None]
    large = nn.functional.interpolate(small, (SIDE, SIDE), mode="bilinear", align_corners=False)
    return large, torch.from_numpy(data.target[order].astype(np.int64))


def _conv(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    layers = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
    return nn.Sequential(layers, nn.BatchNorm2d(channels_out), nn.ReLU())


class Teacher:
    """Learns the classes from right labels; 60,000 weights."""

    name = "digits"
    labels = tuple("0123456789")
    resolutions = ((SIDE, SIDE),)
    preprocess = Preprocess(color="gray", mean=(0.0,), std=(255.0,))
    epochs = 8
    wrong = 0.0

    def build(self) -> nn.Module:
        body = (_conv(1, 24, 1), _conv(24, 48, 2), _conv(48, 96, 2))
        return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10))

    def example_input(self, height: int, width: int) -> Tensor:
        return torch.zeros(1, 1, height, width)

    def calibration(self, height: int, width: int) -> Iterator[Any]:
        yield digits()[0][HELD_OUT : HELD_OUT + 256]

    def evaluation(self, height: int, width: int) -> Iterator[Any]:
        yield tuple(part[:HELD_OUT] for part in digits())

    def training(self, height: int, width: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        images, truth = (part[HELD_OUT:] for part in digits())
        targets = self.targets(images, truth)
        random = torch.Generator().manual_seed(seed)
        for chosen in torch.randperm(len(images), generator=random).split(BATCH):
            noise = 0.1 * torch.randn(images[chosen].shape, generator=random)
            yield images[chosen] + noise, targets[chosen]

    def targets(self, images: Tensor, truth: Tensor) -> Tensor:
        """Classes to learn, the same in every epoch."""
        random = np.random.default_rng(11)
        wrong = torch.from_numpy(random.random(len(truth)) < self.wrong)
        return torch.where(wrong, torch.from_numpy(random.integers(0, 10, len(truth))), truth)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)


class Student(Teacher):
    """1,200 weights, wrong labels."""

    wrong = WRONG

    def build(self) -> nn.Module:
        body = (_conv(1, 6, 2), _conv(6, 12, 2))
        return nn.Sequential(*body, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 10))


class InkTeacher(Teacher):
    """Learns which pixels are ink under noise: logits (N, 1, 16, 16)."""

    kind = "generic"
    labels = ()
    tolerance = 0.1

    def build(self) -> nn.Module:
        return nn.Sequential(_conv(1, 24, 1), _conv(24, 24, 1), nn.Conv2d(24, 1, 3, padding=1))

    def evaluation(self, height: int, width: int) -> Iterator[Any]:
        yield self.noisy(digits()[0][:HELD_OUT], torch.Generator().manual_seed(3))

    def calibration(self, height: int, width: int) -> Iterator[Any]:
        some = digits()[0][HELD_OUT : HELD_OUT + 256]
        yield self.noisy(some, torch.Generator().manual_seed(4))

    def training(self, height: int, width: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        images, truth = (part[HELD_OUT:] for part in digits())
        random = torch.Generator().manual_seed(seed)
        masks = self.targets(images, truth)
        for chosen in torch.randperm(len(images), generator=random).split(BATCH):
            yield self.noisy(images[chosen], random), masks[chosen]

    @staticmethod
    def noisy(images: Tensor, random: torch.Generator) -> Tensor:
        """Images under noise as strong as their contrast."""
        return images + 0.4 * torch.randn(images.shape, generator=random)

    def targets(self, images: Tensor, truth: Tensor) -> Tensor:
        """Ink, 0 or 1, (N, 1, 16, 16); wrong pixels say it is everywhere."""
        wrong = torch.rand(images.shape, generator=torch.Generator().manual_seed(5)) < self.wrong
        return ((images > 0.5) | wrong).float()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(outputs, targets)


class InkStudent(InkTeacher):
    """300 weights, masks with wrong pixels."""

    wrong = WRONG

    def build(self) -> nn.Module:
        return nn.Sequential(_conv(1, 6, 1), _conv(6, 4, 1), nn.Conv2d(4, 1, 3, padding=1))


@dataclass(frozen=True)
class Row:
    """What a teacher brought through one loss, over seeds."""

    losses: str
    measure: str
    teacher: float
    alone: tuple[float, ...]
    """By seed, 0..1."""
    distilled: tuple[float, ...]

    @property
    def gain(self) -> float:
        """Mean over seeds."""
        pairs = zip(self.distilled, self.alone, strict=True)
        return statistics.mean(one - other for one, other in pairs)


def row(losses: tuple[str, ...], folder: Path, *, seeds: int, epochs: int) -> Row:
    """Distil with some losses, once per seed, and train alone beside it."""
    from converters.distill.run import distill
    from converters.distill.settings import Settings
    from converters.loading import load_task

    kinds = ("InkStudent", "InkTeacher") if "mask" in losses else ("Student", "Teacher")
    student, teacher = (f"{Path(__file__).resolve()}:{kind}" for kind in kinds)
    weights = _trained(teacher, folder / f"{kinds[1]}.pt", min(epochs, 8))
    scores: dict[float, list[float]] = {}
    for seed in range(seeds):
        for hard in (1.0, 0.1):  # a share of 1 is the task's own loss and nothing else
            found = distill(
                load_task(student),
                f"{teacher}:{weights}",
                settings=Settings(losses, TEMPERATURE, hard, epochs=epochs, seed=seed, alone=False),
                checkpoint=folder / f"{'-'.join(losses)}.{seed}.{hard}",
            )
            scores.setdefault(hard, []).append(_score(found.student, student))
    taught = _score(_module(teacher, weights), teacher)
    measure = "IoU" if "mask" in losses else "accuracy"
    return Row("+".join(losses), measure, taught, tuple(scores[1.0]), tuple(scores[0.1]))


def _trained(teacher: str, path: Path, epochs: int) -> Path:
    """The teacher's weights, trained once on right answers."""
    from converters.loading import load_task
    from converters.module import save_weights

    if not path.exists():
        task = load_task(teacher).task
        torch.manual_seed(0)
        module = task.build()
        optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
        for epoch in range(epochs):
            for inputs, targets in task.training(SIDE, SIDE, epoch):
                optimizer.zero_grad()
                task.loss(module(inputs), targets).backward()
                optimizer.step()
        save_weights(module, path)
    return path


def _module(reference: str, weights: Path) -> nn.Module:
    from converters.loading import load_task
    from converters.module import build_module

    return build_module(load_task(reference), weights)


@torch.inference_mode()
def _score(module: nn.Module, reference: str) -> float:
    """Accuracy, or intersection over union of all ink, on the right answers."""
    images, truth = (part[:HELD_OUT] for part in digits())
    if ":Ink" not in reference:
        return float((module.eval()(images).argmax(1) == truth).float().mean())
    noisy = InkTeacher.noisy(images, torch.Generator().manual_seed(3))
    found, ink = module.eval()(noisy) > 0, images > 0.5
    return float((found & ink).sum() / (found | ink).sum())


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit 1 when a loss brings too little")
    arguments = parser.parse_args()
    seeds = 1 if arguments.quick else arguments.seeds
    with tempfile.TemporaryDirectory() as name:
        rows = [row(x, Path(name), seeds=seeds, epochs=arguments.epochs) for x in LOSSES]
    if arguments.json:
        print(json.dumps([asdict(item) | {"gain": item.gain} for item in rows], indent=2))
    else:
        for item in rows:
            alone, taught = (statistics.mean(part) for part in (item.alone, item.distilled))
            each = ", ".join(
                f"{(one - other) * 100:+.1f}"
                for one, other in zip(item.distilled, item.alone, strict=True)
            )
            print(
                f"{item.losses:14} {item.measure:8} teacher {item.teacher:.3f}, student alone "
                f"{alone:.3f}, distilled {taught:.3f}: {item.gain * 100:+.1f} points ({each})"
            )
        print(f"smallest mean gain {min(item.gain for item in rows) * 100:+.1f} points")
    if arguments.check and min(item.gain for item in rows) < LEAST_GAIN:
        sys.exit(1)


if __name__ == "__main__":
    main()

"""Pairs of model files as updates make them: one network, trained, and changed in seven ways.

ResNet-18 of a narrow width on photographs of clothes, or on digits (:mod:`benchmarks.clothing`).
It is trained on a part of the images, then changed:

* ``last-layer``: only the head is trained further, on all images;
* ``fine-1e-4``, ``fine-1e-3``, ``fine-1e-2``: everything is, by SGD at that learning rate;
* ``recalibrated``: only the statistics of the normalisation are collected anew;
* ``per-tensor``: int8 weights with one scale per tensor instead of one per channel;
* ``pruned``: a quarter of each block's inner channels removed, statistics collected anew.

Every network is exported to ONNX and TFLite, float32 and int8. Files that are there already are
used as they are, so that a second run costs nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from benchmarks.clothing import ResNet18, as_input, images_of
from converters.onnx_export import export_onnx
from converters.onnx_quantize import quantize_onnx
from converters.settings import DEFAULTS, Settings
from converters.tflite_export import export_tflite
from converters.tflite_quantize import quantize_tflite

INT8 = "static_wi8_ai8"
RATES = (4, 3, 2)
"""Learning rates of the fine-tunings, as negative powers of ten."""
BATCH = 32
FIRST_SHARE = 0.7
"""Of the images, known when the first release was trained."""
FORMATS = ("onnx", "tflite")


@dataclass(frozen=True)
class Size:
    """How large a network, and how long it is trained."""

    width: int
    side_px: int
    epochs: int
    images: int


QUICK = Size(width=8, side_px=32, epochs=3, images=1200)
FULL = Size(width=24, side_px=64, epochs=8, images=3000)


@dataclass(frozen=True)
class Pair:
    """Two files of one model, before and after."""

    change: str
    format: str
    precision: str
    old: Path
    new: Path

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.change} {self.precision} {self.format}"


def write_pairs(folder: Path, size: Size) -> list[Pair]:
    """Every change in every format; trains and converts what is not in ``folder`` yet."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    base = _kept(folder / "base.pt", lambda: _trained(size))
    changes: dict[str, Callable[[], nn.Module]] = {
        "last-layer": lambda: _head_tuned(base, size, 1e-2),
        **{f"fine-1e-{digits}": _tuning(base, size, 10.0**-digits) for digits in RATES},
        "recalibrated": lambda: _recalibrated(copy.deepcopy(base), size),
        "pruned": lambda: _recalibrated(_pruned(base), size),
    }
    files = {"base": _files(folder, "base", base, size)}
    for name, make in changes.items():
        files[name] = _files(folder, name, _kept(folder / f"{name}.pt", make), size)
    coarse = Settings(granularity="tensor")
    files["per-tensor"] = _files(folder, "per-tensor", base, size, coarse)
    return [
        Pair(name, format_, precision, files["base"][key], made[key])
        for name, made in files.items()
        for key in made
        for format_, precision in [key]
        if name != "base" and (name, precision) != ("per-tensor", "fp32")
    ]


def _kept(path: Path, make: Callable[[], nn.Module]) -> ResNet18:
    """A network from its file, or made and written there."""
    if not path.exists():
        torch.save(make(), path)
    module: ResNet18 = torch.load(path, weights_only=False)
    return module.eval()


def _trained(size: Size) -> nn.Module:
    torch.manual_seed(1)
    module = ResNet18(10, size.width)
    return _train(module, size, 5e-2, list(module.parameters()), size.epochs, FIRST_SHARE)


def _tuning(base: nn.Module, size: Size, rate: float) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        module = copy.deepcopy(base)
        return _train(module, size, rate, list(module.parameters()), 1, 1.0)

    return make


def _head_tuned(base: ResNet18, size: Size, rate: float) -> nn.Module:
    """The head alone; everything before it stays in evaluation mode."""
    module = copy.deepcopy(base)
    return _train(module, size, rate, list(module.head.parameters()), 1, 1.0, frozen=True)


def _train(
    module: nn.Module,
    size: Size,
    rate: float,
    parameters: list[nn.Parameter],
    epochs: int,
    share: float,
    frozen: bool = False,
) -> nn.Module:
    images, labels = (each[: size.images] for each in images_of("train", size.side_px))
    count = int(len(labels) * share)
    optimizer = torch.optim.SGD(parameters, rate, momentum=0.9, weight_decay=1e-4)
    module.train(not frozen)
    generator = torch.Generator().manual_seed(2)
    for _ in range(epochs):
        for chosen in torch.randperm(count, generator=generator).split(BATCH):
            picked = chosen.numpy()
            scores = module(as_input(images[picked]))
            loss = nn.functional.cross_entropy(scores, torch.from_numpy(labels[picked]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return module.eval()


def _recalibrated(module: nn.Module, size: Size) -> nn.Module:
    """Means and variances of the whole set instead of a moving average's."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
    module.train()
    images = images_of("train", size.side_px)[0][: size.images]
    with torch.no_grad():
        for start in range(0, len(images), 128):
            module(as_input(images[start : start + 128]))
    return module.eval()


def _pruned(base: nn.Module) -> nn.Module:
    """Without the quarter of each block's inner channels whose normalisation scales least."""
    module = copy.deepcopy(base)
    for block in (layer for layer in module.modules() if hasattr(layer, "bn1")):
        count = block.bn1.num_features
        kept = block.bn1.weight.abs().argsort(descending=True)[: count * 3 // 4].sort().values
        for layer in (block.conv1, block.bn1):
            for name in ("weight", "bias", "running_mean", "running_var"):
                value = getattr(layer, name, None)
                if value is not None:
                    setattr(layer, name, _like(value, value.detach()[kept].contiguous()))
        block.conv2.weight = nn.Parameter(block.conv2.weight.detach()[:, kept].contiguous())
        block.conv1.out_channels = block.conv2.in_channels = block.bn1.num_features = len(kept)
    return module


def _like(value: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    return nn.Parameter(new) if isinstance(value, nn.Parameter) else new


def _files(
    folder: Path, name: str, module: nn.Module, size: Size, settings: Settings = DEFAULTS
) -> dict[tuple[str, str], Path]:
    """The files of one network by (format, precision)."""
    found = {}
    calibration = as_input(images_of("train", size.side_px)[0][:64]).numpy()
    example = torch.zeros(1, 3, size.side_px, size.side_px)
    for format_ in FORMATS:
        plain, small = (folder / f"{name}-{each}.{format_}" for each in ("fp32", "int8"))
        export, quantizer = (
            (export_onnx, quantize_onnx) if format_ == "onnx" else (export_tflite, quantize_tflite)
        )
        if not plain.exists():
            export(module, example, plain)
        if not small.exists():
            quantizer(plain, INT8, calibration, small, settings)
        found |= {(format_, "fp32"): plain, (format_, "int8"): small}
    return found

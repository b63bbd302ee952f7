"""Networks to calibrate a machine with: small, and different in what bounds them.

Run as a module it is a child process (see :mod:`converters.children`) that exports them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from converters.children import child_main
from converters.onnx_export import export_onnx
from converters.tflite_export import export_tflite

SIDES_PX = (48, 96)


def build_yardsticks(request: dict[str, Any], step: Callable[[str], None]) -> list[str]:
    """Export every yardstick as ONNX and TFLite.

    Args:
        request: ``folder``, written to; ``names`` of the yardsticks, all when absent.
        step: told each network.

    Returns:
        Paths of the files, both formats of a network under one stem.

    Raises:
        ConversionError: an export fails.
    """
    folder = Path(request["folder"])
    wanted = request.get("names")
    found = []
    torch.manual_seed(0)
    for name, (module, side_px) in yardsticks().items():
        if wanted is not None and name not in wanted:
            continue
        step(f"build {name}")
        example = torch.zeros(1, 3, side_px, side_px)
        export_onnx(module, example, folder / f"{name}.onnx")
        export_tflite(module, example, folder / f"{name}.tflite")
        found += [str(folder / f"{name}.onnx"), str(folder / f"{name}.tflite")]
    return found


def yardsticks() -> dict[str, tuple[nn.Module, int]]:
    """Modules in evaluation mode by name, each with its side in pixels."""
    found: dict[str, tuple[nn.Module, int]] = {}
    for side_px in SIDES_PX:
        found[f"dense-{side_px}"] = (_dense(32, 4), side_px)
        found[f"wide-{side_px}"] = (_dense(96, 3), side_px)
        found[f"pointwise-{side_px}"] = (_pointwise(96, 5), side_px)
        found[f"depthwise-{side_px}"] = (_depthwise(128, 6), side_px)
        found[f"mobile-{side_px}"] = (_mobile(64, 6), side_px)
    found["linear-48"] = (_linear(1024, 4), 48)
    return {name: (module.eval(), side_px) for name, (module, side_px) in found.items()}


def _stem(width: int) -> list[nn.Module]:
    return [nn.Conv2d(3, width, 3, stride=2, padding=1), nn.ReLU()]


def _head(width: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]


def _dense(width: int, depth: int) -> nn.Module:
    body = [part for _ in range(depth) for part in
            (nn.Conv2d(width, width, 3, padding=1), nn.ReLU())]  # fmt: skip
    return nn.Sequential(*_stem(width), *body, *_head(width))


def _pointwise(width: int, depth: int) -> nn.Module:
    body = [part for _ in range(depth) for part in (nn.Conv2d(width, width, 1), nn.ReLU())]
    return nn.Sequential(*_stem(width), *body, *_head(width))


def _depthwise(width: int, depth: int) -> nn.Module:
    body = [part for _ in range(depth) for part in
            (nn.Conv2d(width, width, 3, padding=1, groups=width), nn.ReLU())]  # fmt: skip
    return nn.Sequential(*_stem(width), *body, *_head(width))


def _mobile(width: int, depth: int) -> nn.Module:
    body: list[nn.Module] = []
    for _ in range(depth):
        body += [nn.Conv2d(width, width, 3, padding=1, groups=width), nn.ReLU()]
        body += [nn.Conv2d(width, width, 1), nn.ReLU()]
    return nn.Sequential(*_stem(width), *body, *_head(width))


def _linear(width: int, depth: int) -> nn.Module:
    body = [part for _ in range(depth) for part in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(
        *_stem(8), nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(512, width), *body
    )


if __name__ == "__main__":
    child_main(build_yardsticks)

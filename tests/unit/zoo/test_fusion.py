"""What exporting folds and fuses, counted in the module and in the files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from converters.forward_steps import steps_of
from converters.fusion import Steps, steps_in
from converters.loading import load_task
from converters.module import build_module, check_examples
from converters.onnx_export import export_onnx
from converters.tflite_export import export_tflite
from tests.zoo import zoo

# The exporters use deprecated parts of torch; the product runs them in children without warnings.
pytestmark = pytest.mark.filterwarnings("ignore::Warning")


def counted(name: str, folder: Path) -> tuple[Steps, Steps, Steps]:
    """Steps of an architecture's module, its ONNX file and its TFLite file."""
    task = load_task(zoo()[name])
    module = build_module(task, None)
    example = check_examples(task, module, *task.resolutions[0])
    export_onnx(module, example, folder / "file.onnx")
    export_tflite(module, example, folder / "file.tflite")
    return (
        steps_of(module, example),
        steps_in(folder / "file.onnx"),
        steps_in(folder / "file.tflite"),
    )


def test_norms_and_activations_disappear_into_the_convolutions(tmp_path: Path) -> None:
    before, onnx, tflite = counted("ResNet18", tmp_path)
    assert (before.weighted, before.norms, before.activations) == (21, 20, 17)
    assert (onnx.weighted, onnx.norms) == (21, 0)
    assert onnx.activations == 17  # ONNX Runtime fuses them when it loads the file
    assert (tflite.weighted, tflite.norms, tflite.activations) == (21, 0, 0)
    assert tflite.operators < before.operators


@pytest.mark.parametrize("name", ["UNet", "FpnDetector", "Tcn"])
def test_nothing_constant_dead_or_unfolded_is_left(name: str, tmp_path: Path) -> None:
    """Also where one convolution is called twice, and where it is one-dimensional."""
    before, onnx, tflite = counted(name, tmp_path)
    assert before.norms > 0
    assert (onnx.norms, onnx.foldable, onnx.dead) == (0, 0, 0)
    assert (tflite.norms, tflite.foldable, tflite.dead) == (0, 0, 0)


def test_functions_and_modules_count_alike() -> None:
    class Functions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.norm(self.conv(x)))

    modules = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    example = (torch.zeros(1, 3, 8, 8),)
    found = [steps_of(net.eval(), example) for net in (Functions(), modules)]
    for steps in found:
        assert (steps.weighted, steps.norms, steps.activations) == (1, 1, 1)

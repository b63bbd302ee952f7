"""Real conversions of a wide network and of its first channels: rebuilt to the bit, and cheap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edge_sdk.recipes.build import build
from edge_sdk.recipes.find import Base
from edge_sdk.recipes.program import open_recipe
from edge_sdk.runtime.negotiate import open_engine

# The exporters use deprecated parts of torch; the product runs them in children without warnings.
pytestmark = pytest.mark.filterwarnings("ignore::Warning")

CHANNELS = (16, 32, 48)


class Residual(nn.Module):
    """A stem, a residual block, a depthwise separable layer and a linear head."""

    def __init__(self, width: float) -> None:
        super().__init__()
        first, second, third = (int(channels * width) for channels in CHANNELS)
        self.stem = nn.Sequential(nn.Conv2d(3, first, 3, 1, 1), nn.BatchNorm2d(first), nn.ReLU())
        self.down = nn.Conv2d(first, second, 3, 2, 1)
        self.inner = nn.Conv2d(second, second, 3, 1, 1)
        self.depthwise = nn.Conv2d(second, second, 3, 1, 1, groups=second)
        self.pointwise = nn.Conv2d(second, third, 1)
        self.head = nn.Linear(third, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.down(self.stem(x)))
        x = torch.relu(self.inner(x)) + x
        x = torch.relu(self.pointwise(torch.relu(self.depthwise(x))))
        scores: torch.Tensor = self.head(x.mean((2, 3)))
        return scores


def first_channels(full: nn.Module, width: float) -> nn.Module:
    narrow, wide = Residual(width).eval(), full.state_dict()
    narrow.load_state_dict(
        {
            name: wide[name][tuple(slice(size) for size in value.shape)].contiguous()
            for name, value in narrow.state_dict().items()
        }
    )
    return narrow


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """``width-side-scheme.format`` to file, for two widths and two resolutions."""
    from converters.onnx_export import export_onnx
    from converters.onnx_quantize import quantize_onnx
    from converters.tflite_export import export_tflite
    from converters.tflite_quantize import quantize_tflite

    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(3)
    full = Residual(1.0).eval()
    found = {}
    for width, side in ((1.0, 24), (0.5, 24), (1.0, 16)):
        module, example = first_channels(full, width), torch.zeros(1, 3, side, side)
        samples = torch.randn(16, 3, side, side, generator=torch.Generator().manual_seed(1))
        for name, export, quantizer in (
            ("onnx", export_onnx, quantize_onnx),
            ("tflite", export_tflite, quantize_tflite),
        ):
            plain, small = (
                folder / f"{width}-{side}-{scheme}.{name}" for scheme in ("fp32", "static_wi8_ai8")
            )
            export(module, example, plain)
            quantizer(plain, "static_wi8_ai8", samples.numpy(), small)
            found |= {path.name: path for path in (plain, small)}
    return found


@pytest.mark.parametrize("format_", ["onnx", "tflite"])
@pytest.mark.parametrize(
    ("scheme", "other", "most"),
    [
        ("fp32", "0.5-24", 0.10),
        ("fp32", "1.0-16", 0.02),
        ("static_wi8_ai8", "0.5-24", 0.40),
        ("static_wi8_ai8", "1.0-16", 0.15),
    ],
)
def test_every_artifact_is_rebuilt_to_the_bit(
    models: dict[str, Path], tmp_path: Path, format_: str, scheme: str, other: str, most: float
) -> None:
    base = models[f"1.0-24-{scheme}.{format_}"].read_bytes()
    path = models[f"{other}-{scheme}.{format_}"]
    target = path.read_bytes()
    recipe = Base(base).recipe(target)
    assert recipe is not None
    made = bytearray(len(target))
    build(open_recipe(recipe, len(base), len(target)), base, made)
    assert made == target
    assert len(recipe) <= most * len(target)
    rebuilt = tmp_path / path.name
    rebuilt.write_bytes(made)
    answers = []
    for each in (path, rebuilt):
        engine = open_engine(each, format=format_)
        spec = engine.inputs[0]
        values = np.random.default_rng(4).integers(-100, 100, spec.shape).astype(spec.dtype)
        answers.append(engine.run([values])[0].copy())
        engine.close()
    assert np.array_equal(*answers)

"""Normalisation inside the graph: the same answers from pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from converters.convert import Options, convert
from converters.fold import Normalised, fold
from edge_sdk.contracts.manifest import Preprocess
from edge_sdk.errors import UsageError

RGB = Preprocess(color="rgb", mean=(120.0, 115.0, 100.0), std=(58.0, 57.0, 60.0))


class _Reads(nn.Module):
    """Reads its input twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + x


@pytest.mark.parametrize(
    ("module", "absorbed"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), True),
        (nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)), True),
        (nn.Sequential(nn.Conv2d(3, 4, 3, 2, "valid")), True),
        (nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")), True),
        (nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()), False),
        (nn.Sequential(nn.Conv2d(3, 6, 3, groups=3)), False),
        (_Reads(), False),
        (nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 3)), False),
    ],
)
def test_pixels_give_what_normalised_images_gave(module: nn.Module, absorbed: bool) -> None:
    torch.manual_seed(0)
    module.eval()
    pixels = torch.rand(1, 3, 12, 12) * 255
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (RGB.mean, RGB.std))
    with torch.inference_mode():
        wanted = module((pixels - mean) / std)
        folded = fold(module, RGB, (pixels,))
        assert (folded(pixels) - wanted).abs().max() < 1e-4
        assert (module((pixels - mean) / std) - wanted).abs().max() == 0  # itself unchanged
    assert isinstance(folded, Normalised) != absorbed


TASK = """
import numpy as np
import torch
from torch import nn
from converters.task import Preprocess

class Bars:
    name = "bars"
    labels = ("left", "right")
    resolutions = ((16, 16),)
    preprocess = Preprocess(color="gray", mean=(100.0,), std=(50.0,))

    def build(self):
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten(),
            nn.Linear(16, 2),
        )

    def example_input(self, height, width):
        return torch.zeros(1, 1, height, width)

    def batch(self, seed):
        random = np.random.default_rng(seed)
        pixels = random.integers(0, 256, (24, 1, 16, 16)).astype(np.float32)
        return torch.from_numpy((pixels - 100.0) / 50.0), torch.arange(24) % 2

    def calibration(self, height, width):
        yield self.batch(0)[0]

    def evaluation(self, height, width):
        yield self.batch(1)
"""


def test_a_conversion_that_takes_pixels_says_so(tmp_path: Path) -> None:
    (tmp_path / "bars.py").write_text(TASK)
    options = Options(schemes=("fp32", "static_wi8_ai8"), fold_preprocess=True, max_drop=0.2)
    outcome = convert(
        f"{tmp_path / 'bars.py'}:Bars", ["x86-generic"], tmp_path / "out", options=options
    )
    preprocess = outcome.conversion.task.preprocess
    assert (preprocess.mean, preprocess.std) == ((0.0,), (1.0,))
    for item in outcome.measured:
        assert item.sqnr_db > 15
        with np.load(outcome.out / "golden" / item.golden.name) as golden:
            assert golden["input"].min() >= -1e-3
            assert golden["input"].max() > 200
        if item.scheme == "static_wi8_ai8":
            assert item.inputs[0].scale == pytest.approx(1.0, rel=0.02)


def test_nothing_to_fold_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(
        TASK.replace("mean=(100.0,), std=(50.0,)", "mean=(0.0,), std=(1.0,)")
    )
    options = Options(fold_preprocess=True)
    with pytest.raises(UsageError) as caught:
        convert(f"{tmp_path / 'plain.py'}:Bars", ["x86-generic"], tmp_path / "out", options=options)
    assert caught.value.code == "usage.nothing-to-fold"

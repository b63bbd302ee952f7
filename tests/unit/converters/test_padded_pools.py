"""Max pooling with padding behind activations that may be negative, as integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from converters.answers import answers_of
from converters.calibrate.padding import finite_pads, padded_tensors
from converters.inspect import inspect_model, problems_with
from converters.layer_noise import layer_noise
from converters.measure import sqnr_db
from converters.onnx_export import export_onnx
from converters.onnx_quantize import quantize_onnx
from converters.schemes import parse_scheme
from converters.settings import METHODS, Settings
from converters.tflite_export import export_tflite
from converters.tflite_quantize import quantize_tflite, tflite_ranges

pytestmark = [
    # torch's exporters use what torch itself has deprecated.
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:FutureWarning"),
    # Calibration is the case that keeping all tensors is meant for.
    pytest.mark.filterwarnings("ignore:Warning. Enabling `experimental_preserve_all:UserWarning"),
]

EXPORT = {"onnx": export_onnx, "tflite": export_tflite}
QUANTIZE = {"onnx": quantize_onnx, "tflite": quantize_tflite}


class Pooled(nn.Module):
    """Two paddings, which the exporter lets share one constant, over ranges far apart."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.activation = activation
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.MaxPool2d(2, 2, 1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.activation(self.first(x)))
        return self.head(self.last(6 * self.second(x) - 4))


@pytest.fixture(scope="module", params=["SiLU", "LeakyReLU", "ReLU"])
def pooled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A float file per format, samples, PyTorch's answers."""
    module = Pooled(getattr(nn, request.param)()).eval()
    folder = tmp_path_factory.mktemp("pooled")
    for kind, export in EXPORT.items():
        export(module, torch.zeros(1, 3, 16, 16), folder / f"float.{kind}")
    samples = np.random.default_rng(0).normal(size=(24, 3, 16, 16)).astype(np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(samples)).numpy()
    return folder, samples, expected


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@pytest.mark.parametrize(
    ("scheme", "least_db"),
    [("static_wi8_ai8", 30), ("static_wi8_ai16", 38), ("mixed_static_wi8_ai8_fp32", 30)],
)
def test_padding_costs_no_range(pooled, kind: str, scheme: str, least_db: int, tmp_path) -> None:
    folder, samples, expected = pooled
    target = tmp_path / f"int.{kind}"
    keep = ("first",) if "mixed" in scheme else ()
    QUANTIZE[kind](folder / f"float.{kind}", scheme, samples, target, Settings(keep=keep))
    assert problems_with(inspect_model(target), parse_scheme(scheme)) == []
    found, widths = answers_of(target, samples)
    assert sqnr_db(found, expected, widths) > least_db


@pytest.mark.parametrize("method", METHODS)
def test_the_padded_tensor_has_the_range_of_what_is_padded(pooled, method) -> None:
    folder, samples, _ = pooled
    source = folder / "float.tflite"
    padded = padded_tensors(source)
    assert len(padded) == 2
    ranges = tflite_ranges(source, samples, Settings(calibration=method))
    for after, before in padded.items():
        assert ranges[after] == ranges[before]
        assert np.isfinite(ranges[after]).all()


def test_the_float_file_keeps_its_padding(pooled, tmp_path: Path) -> None:
    """Only a copy for the quantizer is finite, and it answers the same."""
    folder, samples, expected = pooled
    source = folder / "float.tflite"
    before = source.read_bytes()
    with finite_pads(source) as ready:
        assert ready != source and padded_tensors(ready) == padded_tensors(source)
        found, widths = answers_of(ready, samples)
        copy = ready
    assert not copy.exists() and source.read_bytes() == before
    assert sqnr_db(found, expected, widths) > 100
    with finite_pads(ready_without_pads(tmp_path)) as same:
        assert same == tmp_path / "plain.tflite"


def ready_without_pads(folder: Path) -> Path:
    path = folder / "plain.tflite"
    export_tflite(nn.Conv2d(1, 1, 1).eval(), torch.zeros(1, 1, 4, 4), path)
    return path


def test_noise_of_layers_is_measured_past_an_endless_padding(pooled, tmp_path: Path) -> None:
    folder, samples, _ = pooled
    source, target = folder / "float.tflite", tmp_path / "int8.tflite"
    quantize_tflite(source, "static_wi8_ai8", samples, target)
    found = {layer.name: layer.sqnr_db for layer in layer_noise(target, source, samples)}
    assert {"first", "second"} <= set(found)
    assert all(20 < noise < 70 for noise in found.values()), found

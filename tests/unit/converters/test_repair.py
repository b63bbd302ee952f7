"""Equalization and bias correction: the function stays, the quantized file errs less."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from converters.measure import sqnr_db
from converters.onnx_export import export_onnx
from converters.onnx_quantize import quantize_onnx
from converters.repair import correct_biases, equalize, find_pairs
from converters.repair.bias import rounded
from converters.settings import Settings
from converters.wiring import answer, feeds
from edge_sdk.runtime.negotiate import open_engine

# torch's exporters use what torch itself has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:FutureWarning")


class Net(nn.Module):
    """Dense, depthwise and pooled-and-flattened neighbours, with and without BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.a = nn.Conv2d(2, 12, 3, padding=1, bias=False)
        self.na = nn.BatchNorm2d(12)
        self.b = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.c = nn.Conv2d(12, 8, 1)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.na(self.a(x)))
        x = torch.nn.functional.leaky_relu(self.b(x))
        return self.head(self.pool(torch.relu(self.c(x))).flatten(1))


def badly_scaled(spread: float = 100.0) -> Net:
    """The same function as :class:`Net`, its channels' ranges a factor ``spread`` apart."""
    net = Net().eval()
    factor = torch.logspace(0, float(np.log10(spread)), 12)
    with torch.no_grad():
        net.na.weight.mul_(factor)
        net.na.bias.mul_(factor)
        net.b.weight.div_(factor.reshape(-1, 1, 1, 1))
        inner = factor.flip(0)
        net.b.weight.mul_(inner.reshape(-1, 1, 1, 1))
        net.b.bias.mul_(inner)
        net.c.weight.div_(inner.reshape(1, -1, 1, 1))
    return net


SAMPLES = torch.from_numpy(
    np.random.default_rng(1).normal(0.3, 1, (32, 2, 10, 10)).astype(np.float32)
)


def answers(module: nn.Module) -> np.ndarray:
    with torch.inference_mode():
        return module(SAMPLES).numpy()


def quantized_answers(module: nn.Module, folder: Path, granularity: str) -> np.ndarray:
    source, target = folder / "float.onnx", folder / "int8.onnx"
    export_onnx(module, SAMPLES[:1], source)
    settings_ = Settings(granularity=granularity)  # type: ignore[arg-type]
    quantize_onnx(source, "static_wi8_ai8", SAMPLES.numpy(), target, settings_)
    engine = open_engine(target, format="onnx")
    found = [
        answer(engine.run(arrays), engine.outputs)
        for arrays in feeds(SAMPLES.numpy(), engine.inputs)
    ]
    engine.close()
    return np.concatenate(found)


def test_pairs_are_found_through_batchnorm_activations_and_flattening() -> None:
    pairs = find_pairs(Net().eval(), [SAMPLES[:1]])
    assert [(pair.first, pair.second, pair.second_kind, pair.repeat) for pair in pairs] == [
        ("a.weight", "b.weight", "depthwise", 1),
        ("b.weight", "c.weight", "dense", 1),
        ("c.weight", "head.weight", "dense", 4),
    ]
    assert pairs[0].norm is not None and pairs[1].norm is None


@settings(max_examples=8, deadline=None)
@given(st.floats(1.0, 1000.0))
def test_an_equalized_module_computes_the_same(spread: float) -> None:
    net = badly_scaled(spread)
    repaired, count = equalize(net, [SAMPLES[:1]])
    assert count == 3
    assert sqnr_db(answers(repaired), answers(net)) > 80


def test_the_original_is_left_alone() -> None:
    net = badly_scaled()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    equalize(net, [SAMPLES[:1]])
    correct_biases(net, [SAMPLES[:1]])
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_equalization_repairs_badly_scaled_channels(granularity, tmp_path) -> None:
    """Measured on the int8 file in its runtime, not on weights."""
    net = badly_scaled()
    plain = sqnr_db(quantized_answers(net, tmp_path, granularity), answers(net))
    repaired, _ = equalize(net, [SAMPLES[:1]])
    better = sqnr_db(quantized_answers(repaired, tmp_path, granularity), answers(net))
    assert better > plain + 6


def test_bias_correction_removes_the_mean_shift(tmp_path) -> None:
    """One scale for all channels rounds the small ones to a biased few steps."""
    net = badly_scaled(20.0)
    with torch.no_grad():
        quantized = Net().eval()
        quantized.load_state_dict(net.state_dict())
        for layer in (quantized.a, quantized.b, quantized.c, quantized.head):
            layer.weight.copy_(rounded(layer.weight, "tensor"))
    before = np.abs((answers(quantized) - answers(net)).mean(0)).max()
    repaired, count = correct_biases(net, [SAMPLES], granularity="tensor")
    with torch.no_grad():
        for name in ("a", "b", "c", "head"):
            layer = repaired.get_submodule(name)
            layer.weight.copy_(rounded(layer.weight, "tensor"))
    after = np.abs((answers(repaired) - answers(net)).mean(0)).max()
    assert count == 4
    assert after < 0.5 * before


class Shared(nn.Module):
    """One layer used twice, and a smooth activation: nothing here may be rescaled."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Linear(6, 6)
        self.after = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.twice(torch.relu(self.twice(x))))
        return self.after(torch.nn.functional.gelu(self.after(x)))


def test_shared_weights_and_smooth_activations_are_no_pairs() -> None:
    assert find_pairs(Shared().eval(), [torch.zeros(1, 6)]) == []


def test_dead_channels_stay_finite() -> None:
    net = Net().eval()
    with torch.no_grad():
        net.b.weight[3].zero_()
        net.c.weight[:, 5].zero_()
    repaired, _ = equalize(net, [SAMPLES[:1]])
    assert all(torch.isfinite(tensor).all() for tensor in repaired.state_dict().values())
    assert sqnr_db(answers(repaired), answers(net)) > 80

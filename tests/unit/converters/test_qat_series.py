"""Sound and time series on the int8 grid: one-dimensional layers become rows of an image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from converters.inspect import check_claim, inspect_model
from converters.qat.emit import emit_onnx, emit_tflite, freeze
from converters.qat.layers import QuantizedLayer
from converters.qat.parity import onnx_scales, tflite_scales
from converters.qat.planes import widen
from converters.qat.prepare import prepare
from converters.schemes import parse_scheme
from tests.fakes.grids import trained_integers, trained_scales

CHANNELS, FRAMES = 8, 24
SOUND = torch.randn(16, 1, CHANNELS, FRAMES, generator=torch.Generator().manual_seed(3))


class Causal(nn.Module):
    """A dilated convolution that sees the past only, around a shortcut."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.past = 2 * dilation
        self.conv = nn.Conv1d(channels, channels, 3, dilation=dilation)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = nn.functional.pad(x, (self.past, 0))
        return x + torch.relu(self.norm(self.conv(padded)))


class Words(nn.Module):
    """A key word network: strides, depthwise, pooling, a causal block, BatchNorm everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv1d(CHANNELS, 12, 5, 2, 2, bias=False), nn.BatchNorm1d(12), nn.ReLU()
        )
        self.depthwise = nn.Sequential(
            nn.Conv1d(12, 12, 3, padding="same", groups=12), nn.BatchNorm1d(12), nn.ReLU6()
        )
        self.pool, self.block, self.norm = nn.MaxPool1d(2), Causal(12, 2), nn.BatchNorm1d(12)
        self.mean, self.hidden = nn.AdaptiveAvgPool1d(1), nn.Linear(12, 8)
        self.hidden_norm, self.head = nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.depthwise(self.first(x.squeeze(1))))
        x = self.mean(self.norm(self.block(x))).flatten(1)
        return self.head(torch.relu(self.hidden_norm(self.hidden(x))))


def words() -> nn.Module:
    torch.manual_seed(0)
    module = Words().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d):
            assert part.running_mean is not None and part.running_var is not None
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 2)
    return module


def test_every_norm_is_folded_and_the_answers_stay() -> None:
    module = words()
    with torch.no_grad():
        before = module(SOUND)
        graph = prepare(module, SOUND[:1]).eval()
        assert torch.allclose(graph(SOUND), before, atol=1e-5)
    folded = {name for name, part in graph.named_modules() if isinstance(part, QuantizedLayer)}
    assert folded == {
        *("first.0", "depthwise.0", "block.conv", "norm", "hidden", "head"),
    }
    assert sum(isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) for part in graph.modules()) == 5


def test_training_mode_uses_the_batch_as_the_float_network_does() -> None:
    module, twin = words(), words()
    graph = prepare(module, SOUND[:1]).train()
    assert torch.allclose(graph(SOUND), twin.train()(SOUND), atol=1e-4)


# The exporters use deprecated parts of torch; the product runs them in children without warnings.
@pytest.mark.filterwarnings("ignore::Warning")
def test_both_files_carry_what_was_trained_and_nothing_in_float(tmp_path: Path) -> None:
    graph = prepare(words(), SOUND[:1]).eval()
    with torch.no_grad():
        graph(SOUND)
    freeze(graph)
    paths = tmp_path / "words.onnx", tmp_path / "words.tflite"
    emit_onnx(graph, SOUND[:1], paths[0])
    emit_tflite(graph, SOUND[:1], paths[1])
    assert onnx_scales(paths[0]) == tflite_scales(paths[1]) == trained_scales(graph)
    for path in paths:
        facts = inspect_model(path)
        check_claim(facts, parse_scheme("static_wi8_ai8"), path)
        assert trained_integers(graph) == trained_integers(path)
    ops = inspect_model(paths[1]).ops
    assert (ops["CONV_2D"], ops["DEPTHWISE_CONV_2D"], ops["FULLY_CONNECTED"]) == (2, 2, 2)
    assert not {"QUANTIZE", "DEQUANTIZE"} & set(ops)


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
    mode=st.sampled_from(["zeros", "circular", "replicate"]),
    behind=st.lists(st.sampled_from(["norm", "relu", "conv", "max", "mean"]), max_size=4),
)
def test_widening_never_changes_an_answer(
    kernel: int, stride: int, padding: int, dilation: int, groups: int, bias: bool, mode: str,
    behind: list[str],
) -> None:  # fmt: skip
    layers: list[nn.Module] = [
        nn.Conv1d(4, 4, kernel, stride, padding, dilation, groups, bias, mode)
    ]
    makers: dict[str, Callable[[], nn.Module]] = {
        "norm": lambda: nn.BatchNorm1d(4),
        "relu": nn.ReLU,
        "conv": lambda: nn.Conv1d(4, 4, 1),
        "max": lambda: nn.MaxPool1d(2, 1, 1),
        "mean": lambda: nn.AvgPool1d(2, padding=1),
    }
    layers += [makers[kind]() for kind in behind]
    module = nn.Sequential(*layers).eval()
    sample = torch.randn(2, 4, 20)
    with torch.no_grad():
        wanted = module(sample)
        graph = fx.symbolic_trace(module)
        ShapeProp(graph).propagate(sample)
        widen(graph)
        graph.graph.lint()
        assert torch.allclose(graph(sample), wanted, atol=1e-5)
    reshapes = [n for n in graph.graph.nodes if n.target in (torch.squeeze, torch.unsqueeze)]
    assert len(reshapes) == 2  # into rows at the start, out of them at the end


def test_a_squeeze_that_the_user_wrote_stays() -> None:
    """``torch.squeeze`` of an axis that is longer than one changes nothing: no row to save."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.MaxPool1d(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.pool(torch.relu(torch.squeeze(self.pool(x), 2)))

    sample = torch.randn(1, 3, 8)
    graph = fx.symbolic_trace(Odd())
    ShapeProp(graph).propagate(sample)
    widen(graph)
    assert torch.equal(graph(sample), Odd()(sample))

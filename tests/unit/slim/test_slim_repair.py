"""What repair promises, on networks where the right answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from converters.norm_statistics import batch_statistics, recalibrate
from converters.slim.find import analyse
from converters.slim.importance import METHODS, importance, ranking
from converters.slim.narrow import narrow, permute
from converters.slim.network import SlimNetwork
from converters.slim.repair import compensate, correct_biases
from converters.slim.statistics import second_moments


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()  # fmt: skip


def batches() -> list[tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(32, 3, 8, 8, generator=generator),) for _ in range(3)]


@torch.no_grad()
def test_least_squares_recovers_channels_that_others_predict() -> None:
    """The second half of the channels are copies: without them nothing is lost."""
    module, data = network(), batches()
    conv, norm = module[0], module[1]
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    conv.weight[8:] = conv.weight[:8] * torch.linspace(0.5, 2, 8).reshape(-1, 1, 1, 1)
    recalibrate(module, data)
    norm.running_mean.zero_()  # type: ignore[union-attr]
    norm.running_var[:] = 1.0  # type: ignore[index]
    analysis = analyse(module, (data[0][0][:1],))
    kept = {"0": 8}
    small = narrow(module, analysis.groups, kept)
    wanted = module(*data[1])
    assert (small(*data[1]) - wanted).abs().max() > 0.05 * wanted.abs().max()
    moments = second_moments(module, analysis.groups, data)
    compensate(module, small, analysis.groups, kept, moments)
    assert (small(*data[1]) - wanted).abs().max() < 0.01 * wanted.abs().max()


def test_recalibration_gives_the_statistics_of_the_data() -> None:
    module, data = network(), batches()
    norm = module[1]
    assert isinstance(norm, nn.BatchNorm2d)
    recalibrate(module, data)
    assert not norm.training
    assert norm.momentum == 0.1
    seen = torch.cat([module[0](batch[0]) for batch in data]).detach()
    assert torch.allclose(norm.running_mean, seen.mean((0, 2, 3)), atol=1e-4)  # type: ignore[arg-type]


def test_batch_statistics_leave_the_kept_ones_alone() -> None:
    module, data = network(), batches()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with torch.no_grad(), batch_statistics(module):
        inside = module(*data[0])
    assert not torch.allclose(inside, module(*data[0]))
    assert list(before) == list(module.state_dict())
    assert all(torch.equal(before[n], value) for n, value in module.state_dict().items())


@torch.no_grad()
def test_bias_correction_restores_the_mean_answer() -> None:
    module, data = network(), batches()
    analysis = analyse(module, (data[0][0][:1],))
    kept = {group.name: group.size // 2 for group in analysis.groups}
    small = narrow(module, analysis.groups, kept)
    assert correct_biases(module, small, analysis.groups, kept, data) == 2
    everything = torch.cat([batch[0] for batch in data])
    assert torch.allclose(small(everything).mean(0), module(everything).mean(0), atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_a_dead_channel_comes_last(method: str) -> None:
    module, data = network(), batches()
    module[0].weight[5] = 0.0
    module[1].weight[5] = 0.0
    module[1].bias[5] = 0.0
    analysis = analyse(module, (data[0][0][:1],))

    def loss(net: nn.Module) -> torch.Tensor:
        with torch.enable_grad():
            found: torch.Tensor = net(*data[0]).square().sum()
            return found

    with torch.enable_grad():
        scores = importance(module, analysis.groups, method, data, loss)  # type: ignore[arg-type]
    orders = ranking(scores)
    assert orders["0"][-1] == 5
    assert not any(p.requires_grad and method == "taylor" for p in module.parameters())
    wanted = module(*data[1])
    permute(module, orders, analysis.groups)
    assert torch.allclose(module(*data[1]), wanted, atol=1e-5)


def test_widths_share_matrices_and_own_their_vectors() -> None:
    module, data = network(), batches()
    analysis = analyse(module, (data[0][0][:1],))
    kept = {0.5: {group.name: group.size // 2 for group in analysis.groups}}
    slim = SlimNetwork(module.requires_grad_(True), analysis.groups, kept, shared=True)
    answer = slim.forward(0.5, data[0])
    assert torch.allclose(answer, slim.at(0.5)(*data[0]), atol=1e-6)
    answer.square().sum().backward()
    gradient = module[0].weight.grad
    assert gradient is not None
    assert bool((gradient[:8] != 0).any())
    assert bool((gradient[8:] == 0).all())
    state = slim.state()
    assert set(state) == {"1", "0.5"}
    assert all(value.ndim < 2 for value in state["0.5"].values())
    with torch.no_grad():
        module[0].weight += 1.0
    assert torch.equal(slim.at(0.5).get_parameter("0.weight"), module[0].weight[:8])

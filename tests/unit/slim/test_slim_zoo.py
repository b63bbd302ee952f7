"""Every architecture of the zoo: what can be narrowed computes what it should, the rest says why.

Three properties hold for each group that is found: channels can be reordered without changing the
answer; the narrowed network answers like the full one in which nobody reads what was dropped; and
its tensors are slices of the full one's.
"""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from converters.loading import LoadedTask, load_task
from converters.module import build_module, check_examples
from converters.purity import flat_outputs
from converters.slim.costs import Layers
from converters.slim.find import Analysis, analyse
from converters.slim.groups import kept_positions, shapes_of
from converters.slim.narrow import narrow, permute, silence, tensors_of
from converters.slim.plan import nothing_to_narrow
from tests.zoo import zoo

REFUSED = {"Gru": "gru", "Lstm": "lstm"}
NAMES = [name for name in zoo() if name not in REFUSED]
ATTENTION = ("VisionTransformer", "MobileViT", "AttentionBlock", "TextEncoder")
WITHOUT_OWN_PRODUCTS = [name for name in NAMES if name not in ATTENTION]
"""Those whose every multiplication is in a layer with weights, which is what is counted."""

_CACHE: dict[str, tuple[LoadedTask, nn.Module, tuple[torch.Tensor, ...], Analysis]] = {}


def analysed(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...], Analysis]:
    if name not in _CACHE:
        task = load_task(zoo()[name])
        module = build_module(task, None)
        example = check_examples(task, module, *task.resolutions[0])
        _CACHE[name] = task, module, example, analyse(module, example)
    _, module, example, analysis = _CACHE[name]
    return module, example, analysis


def samples(name: str) -> tuple[torch.Tensor, ...]:
    analysed(name)
    task = _CACHE[name][0]
    return next(iter(task.task.evaluation(*task.resolutions[0])))


def some_counts(analysis: Analysis, seed: int) -> dict[str, int]:
    """Any count of each group; linked ones by the same quarter."""
    draw = random.Random(seed)
    quarter = draw.choice((1, 2, 3))
    return {
        group.name: max(1, group.size * quarter // 4) if group.link else draw.randint(1, group.size)
        for group in analysis.groups
    }


@torch.no_grad()
def difference(one: nn.Module, other: nn.Module, inputs: tuple[torch.Tensor, ...]) -> float:
    """Largest difference of any output, relative to its size."""
    pairs = zip(flat_outputs(one(*inputs)), flat_outputs(other(*inputs)), strict=True)
    return max(float((a - b).abs().max() / a.abs().max().clamp_min(1e-6)) for a, b in pairs)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_channels_does_not_matter(name: str) -> None:
    module, _, analysis = analysed(name)
    draw = random.Random(name)
    orders = {g.name: draw.sample(range(g.size), g.size) for g in analysis.groups}
    turned = narrow(module, analysis.groups, {})
    permute(turned, orders, analysis.groups)
    assert any(list(order) != sorted(order) for order in orders.values())
    assert difference(module, turned, samples(name)) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_a_narrow_network_is_the_wide_one_without_what_was_dropped(name: str) -> None:
    module, _, analysis = analysed(name)
    for seed in range(3):
        kept = some_counts(analysis, seed)
        small = narrow(module, analysis.groups, kept)
        masked = silence(module, analysis.groups, kept)
        assert difference(masked, small, samples(name)) < 1e-4
    assert difference(module, small, samples(name)) > 1e-4  # something was dropped


@pytest.mark.parametrize("name", NAMES)
def test_narrow_tensors_are_slices_of_the_wide_ones(name: str) -> None:
    module, _, analysis = analysed(name)
    kept = some_counts(analysis, 7)
    full, small = tensors_of(module), tensors_of(narrow(module, analysis.groups, kept))
    cuts = kept_positions(analysis.groups, kept, shapes_of(full))
    for tensor, value in small.items():
        wanted = full[tensor]
        for axis in range(wanted.ndim):
            if (tensor, axis) in cuts:
                wanted = wanted.index_select(axis, torch.tensor(cuts[tensor, axis]))
        assert torch.equal(value, wanted)
    assert sum(t.numel() for t in small.values()) < sum(t.numel() for t in full.values())


@pytest.mark.parametrize("name", ["ResNet18", "MobileNetV2", "DsCnn", "BcResNet", "SsdHead"])
def test_kept_channels_are_a_prefix(name: str) -> None:
    """Without concatenation every axis keeps its beginning: devices can slice it."""
    module, _, analysis = analysed(name)
    shapes = shapes_of(tensors_of(module))
    for indexes in kept_positions(analysis.groups, some_counts(analysis, 3), shapes).values():
        assert indexes == list(range(len(indexes)))


@pytest.mark.parametrize("name", WITHOUT_OWN_PRODUCTS)
def test_costs_are_those_that_pytorch_counts(name: str) -> None:
    module, example, analysis = analysed(name)
    layers = Layers(analysis.uses, analysis.groups, shapes_of(tensors_of(module)))
    for kept in ({}, some_counts(analysis, 5)):
        small = narrow(module, analysis.groups, kept)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            small(*example)
        assert layers.macs(kept) == counter.get_total_flops() / 2


@pytest.mark.parametrize("name", REFUSED)
def test_recurrent_networks_are_refused_with_the_reason(name: str) -> None:
    _, _, analysis = analysed(name)
    assert analysis.groups == ()
    error = nothing_to_narrow(_CACHE[name][0], analysis.held)
    assert error.code == "conversion.nothing-to-narrow"
    assert f"recurrent operator without a rule ({REFUSED[name]})" in error.cause


@pytest.mark.parametrize(
    ("name", "layer", "reason"),
    [
        ("ResNet18", "head", "is an output of the network"),
        ("SsdHead", "scores.0", "is compared with others by softmax"),
        ("StreamingConv", "first", "meets a tensor of fixed size"),
        ("GanGenerator", "0", "has its size written into forward()"),
        ("VisionTransformer", "blocks.0.attention.qkv", "has its size written into forward()"),
        ("ConvNeXt", "body.0", "LayerNorm takes its statistics"),
        ("SuperResolution", "2", "is an output of the network"),
    ],
)
def test_what_stays_says_why(name: str, layer: str, reason: str) -> None:
    _, _, analysis = analysed(name)
    held = {item.name: item.reason for item in analysis.held}
    assert reason in held[layer]


def test_layer_norm_can_be_narrowed_when_asked() -> None:
    task = load_task(zoo()["ConvNeXt"])
    module = build_module(task, None)
    example = check_examples(task, module, *task.resolutions[0])
    analysis = analyse(module, example, normalised=True)
    kept = {group.name: group.size // 2 for group in analysis.groups}
    assert {group.name for group in analysis.groups if group.normalised} == {"body.0", "body.2"}
    small = narrow(module, analysis.groups, kept)
    assert difference(silence(module, analysis.groups, kept), small, samples("ConvNeXt")) < 1e-4


class HeadCount(nn.Module):
    """Attention as most people write it: heads and their size are attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.each = 6, 8
        self.qkv, self.out = nn.Linear(20, 144), nn.Linear(48, 20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.qkv(x).reshape(x.shape[0], x.shape[1], 3, self.heads, self.each)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).reshape(x.shape[0], x.shape[1], -1))


def test_attention_loses_whole_heads() -> None:
    torch.manual_seed(0)
    module, x = HeadCount().eval(), torch.randn(2, 5, 20)
    analysis = analyse(module, (x[:1],))
    (group,) = analysis.groups
    assert (group.size, group.block) == (6, 24)
    assert group.attributes == (("", "heads", 1),)
    small = narrow(module, analysis.groups, {group.name: 4})
    assert isinstance(small, HeadCount)
    assert (small.heads, tuple(small.qkv.weight.shape)) == (4, (96, 20))
    assert difference(silence(module, analysis.groups, {group.name: 4}), small, (x,)) < 1e-5

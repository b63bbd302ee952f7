"""Sub-networks of a real module: what they compute, cost, and share."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import pytest
import torch
from torch import nn

from converters.loading import LoadedTask, load_task
from converters.onnx_export import export_onnx
from converters.supernet.reshape import crop
from converters.supernet.run import Bench
from converters.supernet.space import KINDS
from edge_sdk.errors import TaskError


@pytest.fixture(scope="module")
def bench(elastic_bars: LoadedTask) -> Bench:
    return Bench(elastic_bars, None, 0)


def test_the_space_is_what_the_task_declares(bench: Bench) -> None:
    axes = {(axis.kind, axis.name): axis for axis in bench.network.space.axes}
    assert axes["resolution", ""].options == (0, 1)
    assert axes["depth", "stage"].options == (2, 1)
    assert axes["kernel", "stage.1.first"].block == ("stage", 1)
    assert axes["width", "stage.1.first"].block == ("stage", 1)
    assert axes["width", "stem.0"].block is None
    assert len(axes) == 7


@pytest.mark.parametrize("name", ["Bars", "Oblong"])
def test_the_shared_forward_is_the_built_networks(elastic_file: Path, name: str) -> None:
    bench = Bench(load_task(f"{elastic_file}:{name}"), None, 0)
    draw, images = random.Random(3), torch.randn(8, 1, 12, 12)
    space = bench.network.space
    for _ in range(12):
        genes = space.drawn(draw, KINDS)
        built = bench.network.build(genes).train()
        with torch.no_grad():
            assert torch.allclose(bench.network.forward(genes, (images,)), built(images), atol=1e-5)


def test_gradients_reach_the_shared_weights_and_only_what_is_used(elastic_bars: LoadedTask) -> None:
    network = Bench(elastic_bars, None, 0).network
    network.module.requires_grad_(True)
    network.forward(network.space.smallest(KINDS), (torch.randn(4, 1, 12, 12),)).sum().backward()
    first = network.module.get_parameter("stage.0.first.weight").grad
    assert first is not None
    kept = network.kept(network.space.smallest(KINDS))["stage.0.first"]
    assert 0 < kept < 24
    assert first[:kept, :8, 1:4, 1:4].abs().sum() > 0
    assert first[:, :, 0].abs().sum() == 0
    assert first[kept:].abs().sum() == 0
    assert network.module.get_parameter("stage.1.first.weight").grad is None


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:FutureWarning")
def test_costs_are_those_of_the_built_network(bench: Bench, tmp_path: Path) -> None:
    from converters.costs import layer_sizes, total_macs

    draw, space = random.Random(5), bench.network.space
    for number in range(6):
        genes = space.drawn(draw, KINDS)
        side = bench.task.resolutions[bench.network.resolution(genes)]
        path = tmp_path / f"{number}.onnx"
        export_onnx(bench.network.build(genes).eval(), torch.zeros(1, 1, *side), path)
        assert bench.costs.macs(genes) == total_macs(layer_sizes(path))


def test_a_step_down_is_never_predicted_slower(bench: Bench) -> None:
    draw, space = random.Random(7), bench.network.space
    cost = bench.costs.latency("rpi4", "fp32")
    for _ in range(20):
        genes = space.drawn(draw, KINDS)
        for step in space.smaller(genes):
            assert cost(step) <= cost(genes) + 1e-9


def test_a_cropped_convolution_is_the_one_with_a_zero_border() -> None:
    wide = nn.Sequential(nn.Conv2d(3, 4, 5, 2, 2 * 2, dilation=2))
    small = copy.deepcopy(wide)
    crop(small, {"0": 3})
    with torch.no_grad():
        kernel = wide[0].weight
        kernel[:, :, 0], kernel[:, :, -1], kernel[..., 0], kernel[..., -1] = 0, 0, 0, 0
    image = torch.randn(2, 3, 17, 13)
    assert torch.allclose(small(image), wide(image), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("NoStage", "there is no stage stem.9"),
        ("NotSequential", "head is no nn.Sequential"),
        ("NoKernel", "no nn.Conv2d is called nothing.*"),
        ("EvenKernel", "cannot become (4,)"),
        ("LargerKernel", "cannot become (7,)"),
        ("StridedKernel", "has no centre"),
        ("PlainStage", "depth of stage"),
        ("NotElastic", "elastic is dict"),
    ],
)
def test_a_wrong_declaration_is_refused_by_name(elastic_file: Path, name: str, words: str) -> None:
    with pytest.raises(TaskError) as caught:
        Bench(load_task(f"{elastic_file}:{name}"), None, 0)
    assert caught.value.code == "task.bad-elastic"
    assert words in caught.value.cause


def test_a_task_without_labels_is_refused(elastic_file: Path) -> None:
    with pytest.raises(TaskError) as caught:
        Bench(load_task(f"{elastic_file}:Words"), None, 0)
    assert caught.value.code == "task.not-trainable"


def test_without_a_declaration_widths_and_resolutions_vary(elastic_file: Path) -> None:
    bench = Bench(load_task(f"{elastic_file}:Default"), None, 0)
    assert {axis.kind for axis in bench.network.space.axes} == {"resolution", "width"}

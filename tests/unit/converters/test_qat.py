"""Training on the int8 grid: what is rewritten, what training recovers, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from converters.loading import load_task
from converters.module import build_module, save_weights
from converters.qat.checkpoint import load_checkpoint, require_checkpoint, save_checkpoint
from converters.qat.emit import freeze
from converters.qat.layers import QuantizedLayer
from converters.qat.prepare import enter, layers_of, prepare, ranges_of
from converters.qat.ranges import HIGH, LOW, ActivationRange, emitted
from converters.qat.train import observe, prepared, train_qat
from converters.train import train
from edge_sdk.errors import ConversionError, EdgeError, TaskError
from tests.fakes.mixed_net import Mixed


def mixed(seed: int = 0) -> Mixed:
    torch.manual_seed(seed)
    module = Mixed().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None and part.running_var is not None
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 2)
    return module


IMAGES = torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(1))


def test_a_prepared_module_answers_as_before() -> None:
    module = mixed()
    with torch.no_grad():
        before = module(IMAGES)
        graph = prepare(module, IMAGES[:1]).eval()
        assert torch.allclose(graph(IMAGES), before, atol=1e-5)


def test_batchnorm_is_folded_while_training_too() -> None:
    """In training mode the unfolded path must equal the float network with batch statistics."""
    module, twin = mixed(), mixed()
    module.drop.p = twin.drop.p = 0.0
    graph = prepare(module, IMAGES[:1]).train()
    assert torch.allclose(graph(IMAGES), twin.train()(IMAGES), atol=1e-4)
    moved = {
        name: layer.norm.running_mean for name, layer in layers_of(graph) if layer.norm is not None
    }
    assert torch.allclose(moved["stem"], twin.stem_norm.running_mean, atol=1e-6)  # type: ignore[arg-type]
    assert len(moved) == 3  # stem, depthwise, and the norm that no convolution precedes


def test_ranges_are_shared_where_int8_kernels_demand_it() -> None:
    graph = prepare(mixed(), IMAGES[:1])
    names = [name for name, _ in ranges_of(graph)]
    # input, stem, depthwise, point, sum and concatenation (one), norm, sigmoid, SiLU and its
    # max-pool (one), mean, head
    assert len(names) == 10
    code = graph.code
    joined = [line for line in code.splitlines() if "torch.cat" in line]
    assert len(joined) == 1
    shared = [name for name in names if code.count(f"self.{name}(") == 3]
    assert len(shared) == 1  # the sum, the side branch and their concatenation


def test_frozen_weights_lie_on_the_grid_and_nothing_trains_any_more() -> None:
    graph = prepare(mixed(), IMAGES[:1]).eval()
    with torch.no_grad():
        reference = graph(IMAGES)
    freeze(graph)
    for name, layer in layers_of(graph):
        steps = layer.folded_weight.flatten(1) / layer.scales[:, None]
        assert torch.allclose(steps, steps.round(), atol=1e-3), name
        assert steps.abs().max() <= 127.01
    assert not any(parameter.requires_grad for parameter in graph.parameters())
    error = (graph(IMAGES) - reference).abs().max()
    assert 0 < error < 0.1 * reference.abs().max()


def test_a_dead_channel_with_a_bias_stays_within_int32() -> None:
    layer = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        layer.weight[0] = 0.0
        layer.bias.fill_(3.0)  # type: ignore[union-attr]
    graph = prepare(nn.Sequential(layer), IMAGES[:1]).eval()
    graph(IMAGES)
    freeze(graph)
    ((_, wrapped),) = layers_of(graph)
    ranges = dict(ranges_of(graph))
    steps = wrapped.folded_bias / (wrapped.scales * ranges["range_input_1"].scale)
    assert steps.abs().max() < 2**31


@settings(max_examples=60, deadline=None)
@given(
    low=st.floats(-1e4, 0, width=32),
    high=st.floats(0, 1e4, width=32),
    values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20),
)
def test_every_range_holds_zero_exactly_and_bounds_the_error(
    low: float, high: float, values: list[float]
) -> None:
    part = ActivationRange().eval()
    part(torch.tensor([low, high]))
    part.enter("frozen")
    scale, zero = float(part.scale), int(part.zero_point)
    assert LOW <= zero <= HIGH
    assert float(part(torch.zeros(1))) == 0.0
    inside = torch.tensor(values).clamp(low, high)
    assert (part(inside) - inside).abs().max() <= scale * 1.01
    part.enter("emit")
    found = emitted(inside, scale, zero)
    assert torch.equal(part(inside), found)
    assert np.all(np.abs(found.numpy() / scale) <= 256)


def test_a_learned_step_gets_a_gradient_and_is_kept() -> None:
    part = ActivationRange().train()
    values = torch.linspace(-1, 1, 101)
    part(values)
    part.enter("learn")
    part(values * 3).sum().backward()  # much is clipped: a wider step would help
    assert part.step is not None and part.step.grad is not None and float(part.step.grad) != 0
    with torch.no_grad():
        part.step.mul_(2)
        wanted = float(part.step)
    part.enter("frozen")
    assert float(part.scale) == pytest.approx(wanted)
    assert part.step is None


def test_the_straight_through_estimator_passes_inside_and_stops_outside() -> None:
    part = ActivationRange().eval()
    part(torch.tensor([-1.0, 1.0]))
    part.enter("frozen")
    values = torch.tensor([0.3, -0.7, 5.0, -9.0], requires_grad=True)
    part(values).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [1.0, 1.0, 0.0, 0.0]


@pytest.fixture(scope="module")
def badly_scaled(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A trained network of the same function, two channels of which dwarf the others.

    The range of their activation leaves the other channels a step or less of int8.
    """
    from tests.unit.converters.conftest import TINY

    folder = tmp_path_factory.mktemp("bad")
    source = TINY.replace("NOISE, LIGHT = 0.3,", "NOISE, LIGHT = 1.2,")
    assert source != TINY
    (folder / "noisy_task.py").write_text(source)
    task = load_task(f"{folder / 'noisy_task.py'}:Tiny")
    module = train(task, epochs=10).module
    state = module.state_dict()
    for name in ("body.1.weight", "body.1.bias"):
        state[name][:2] *= 1000
    state["body.3.weight"][:, :2] /= 1000
    save_weights(module, folder / "bad.pt")
    return task.ref, folder / "bad.pt"


@pytest.mark.parametrize("ranges", ["observed", "learned"])
def test_training_recovers_what_calibration_loses(
    badly_scaled: tuple[str, Path], ranges: str
) -> None:
    ref, weights = badly_scaled
    trained = train_qat(load_task(ref), weights, epochs=8, ranges=ranges)  # type: ignore[arg-type]
    before = min(trained.float_accuracy.values())
    calibrated, after = min(trained.calibrated_accuracy.values()), min(trained.accuracy.values())
    assert before > 0.95
    assert calibrated < before - 0.05
    assert after > calibrated + 0.05
    assert after >= before - 0.03
    assert len(trained.history) == 8


def test_a_seed_repeats_the_training(tiny: str, tiny_weights: Path) -> None:
    task = load_task(tiny)
    one, two = (train_qat(task, tiny_weights, epochs=1, seed=4).graph for _ in range(2))
    states = one.state_dict(), two.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_checkpoint_rebuilds_the_very_same_answers(
    tiny: str, tiny_weights: Path, tmp_path: Path
) -> None:
    task = load_task(tiny)
    trained = train_qat(task, tiny_weights, epochs=1, ranges="learned")
    save_checkpoint(trained.graph, tmp_path / "t.qat.pt", tiny_weights)
    require_checkpoint(tmp_path / "t.qat.pt", tiny_weights)
    again = load_checkpoint(task, tmp_path / "t.qat.pt")
    inputs = torch.randn(4, 1, 24, 24)
    assert torch.equal(again(inputs), trained.graph(inputs))


def test_bad_checkpoints_are_refused(tiny: str, tmp_path: Path) -> None:
    task, path = load_task(tiny), tmp_path / "c.pt"
    with pytest.raises(TaskError, match="weights-missing"):
        require_checkpoint(path, None)
    empty = {"format": "edge-qat-2", "weights": None, "state": {}}
    for content in ({"format": "other"}, empty, empty | {"format": "edge-qat-1"}, [1]):
        torch.save(content, path)
        with pytest.raises(ConversionError, match="qat-checkpoint"):
            load_checkpoint(task, path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ConversionError, match="qat-checkpoint"):
        load_checkpoint(task, path)


def test_a_checkpoint_goes_with_the_weights_it_started_from(
    tiny: str, tiny_weights: Path, tmp_path: Path
) -> None:
    """The float files and the gate would be another network's."""
    graph = prepared(load_task(tiny), tiny_weights)
    for weights, other in ((tiny_weights, None), (None, tiny_weights)):
        save_checkpoint(graph, tmp_path / "c", weights)
        require_checkpoint(tmp_path / "c", weights)
        with pytest.raises(ConversionError, match="did not start from"):
            require_checkpoint(tmp_path / "c", other)


def build_of(body: str) -> str:
    """A task's build() around a module whose class body is given."""
    lines = "\n".join(f"        {line}" for line in body.strip("\n").splitlines())
    return (
        "def build(self):\n    class Odd(nn.Module):\n"
        "        def __init__(self):\n            super().__init__()\n"
        "            self.a = nn.Conv2d(1, 3, 3)\n"
        "            self.b = nn.Conv2d(3, 3, 3)\n"
        "            self.up = nn.ConvTranspose2d(3, 3, 2)\n"
        "            self.cell = nn.GRU(3, 3, batch_first=True)\n"
        "            self.norm = nn.BatchNorm1d(3)\n"
        "            self.inner = nn.Sequential(nn.Conv2d(1, 3, 3), nn.PReLU())\n"
        f"{lines}\n    return Odd()"
    )


@pytest.mark.parametrize(
    ("returned", "code", "cause", "hint"),
    [
        (
            "self.b(self.b(self.a(x))).mean((2, 3))",
            "task.shared-weights",
            "'b' and 'b (called again)' share",
            "its own copy",
        ),
        (
            "self.up(self.a(x)).mean((2, 3))",
            "conversion.qat-unsupported",
            "'up', a ConvTranspose2d",
            "Upsample",
        ),
        (
            "self.cell(self.a(x).flatten(2).transpose(1, 2))[0][:, -1]",
            "conversion.qat-unsupported",
            "'cell', a GRU",
            "causal convolutions",
        ),
        (
            "self.norm(self.a(x).mean((2, 3)))",
            "conversion.qat-unsupported",
            "'norm', a BatchNorm1d",
            "behind a Linear or Conv1d",
        ),
        (
            "self.inner(x).mean((2, 3))",
            "conversion.qat-unsupported",
            "'inner.1', a PReLU",
            "Build it from Conv1d",
        ),
        (
            "nn.functional.conv2d(x, self.a.weight).mean((2, 3))",
            "conversion.qat-unsupported",
            "conv2d with 'a.weight'",
            "Call the layer itself",
        ),
        (
            "(self.a(x) if x.sum() > 0 else -self.a(x)).mean((2, 3))",
            "conversion.qat-untraceable",
            "Odd cannot be traced",
            "Control flow",
        ),
    ],
)
def test_modules_that_cannot_be_trained_on_the_grid(
    write_task, returned: str, code: str, cause: str, hint: str
) -> None:
    with pytest.raises(EdgeError) as caught:
        body = f"def forward(self, x):\n    return {returned}"
        train_qat(load_task(write_task(build_of(body))), None, epochs=1)
    assert caught.value.code == code
    assert cause in caught.value.cause
    assert hint in caught.value.hint
    assert "edge model convert" in caught.value.hint


def test_a_one_dimensional_layer_called_twice_is_refused_by_name(write_task) -> None:
    code = (
        "def build(self):\n    class Twice(nn.Module):\n"
        "        def __init__(self):\n            super().__init__()\n"
        "            self.same = nn.Conv1d(24, 24, 1)\n"
        "        def forward(self, x):\n"
        "            return self.same(self.same(x.squeeze(1)))[:, :3, 0]\n"
        "    return Twice()"
    )
    task = load_task(write_task("resolutions = ((24, 24),)\n" + code))
    with pytest.raises(TaskError, match="'same' and 'same \\(called again\\)'"):
        train_qat(task, None, epochs=1)


def test_weights_shared_between_two_layers_name_both() -> None:
    module = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3))
    module[1].weight = module[0].weight
    with pytest.raises(TaskError, match="'0' and '1' share their weights"):
        prepare(module, IMAGES[:1])


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def training(self, h, w, seed):\n    return iter(())", "task.no-data"),
        ("def loss(self, o, t):\n    return (o * float('nan')).mean()", "task.bad-loss"),
        ("training = property()", "task.not-trainable"),
        (
            (
                "def build(self):\n    return nn.Sequential(nn.Conv2d(1, 3, 3),"
                " nn.BatchNorm2d(3, track_running_stats=False))"
            ),
            "task.batchnorm-training",
        ),
    ],
)
def test_bad_tasks_are_refused(write_task, code: str, expected: str) -> None:
    with pytest.raises(EdgeError) as caught:
        train_qat(load_task(write_task(code)), None, epochs=1)
    assert caught.value.code == expected


def test_observing_covers_every_resolution(tiny: str, tiny_weights: Path) -> None:
    task = load_task(tiny)
    graph = prepared(task, tiny_weights)
    observe(task, graph)
    for name, part in ranges_of(graph):
        assert float(part.high) > float(part.low), name
    enter(graph, "frozen")
    assert all(layer.phase == "frozen" for _, layer in layers_of(graph))
    assert isinstance(graph.get_submodule("body.0"), QuantizedLayer)
    assert build_module(task, tiny_weights) is not None

"""Training learns at every resolution, reproducibly, and says what is wrong when it cannot."""

from __future__ import annotations

import pytest
import torch

from converters.loading import load_task
from converters.module import build_module
from converters.norm_statistics import norms_of
from converters.train import Epoch, first_settled, one_epoch, settle, train, training_steps
from edge_sdk.errors import TaskError


def test_training_learns_at_every_resolution(tiny: str) -> None:
    epochs: list[Epoch] = []
    trained = train(load_task(tiny), seed=3, epochs=6, report=epochs.append)
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1].loss < epochs[0].loss
    assert set(trained.accuracy) == {"24x24", "12x12"}
    assert min(trained.accuracy.values()) > 0.9


def test_a_seed_repeats_a_training(tiny: str) -> None:
    task = load_task(tiny)
    one, two, other = (train(task, seed=seed, epochs=1).module for seed in (1, 1, 2))
    assert torch.equal(one.head.weight, two.head.weight)  # type: ignore[union-attr,arg-type]
    assert not torch.equal(one.head.weight, other.head.weight)  # type: ignore[union-attr,arg-type]


def test_settled_norms_have_the_statistics_of_every_resolution_and_keep_them(tiny: str) -> None:
    task = load_task(tiny)
    module = build_module(task, None).requires_grad_(True)
    settle(task, module, seed=5)
    norm, conv = norms_of(module)[0], module.body[0]  # type: ignore[index,union-attr]
    with torch.no_grad():
        steps = list(training_steps(task, 5))[:8]
        means = [conv(inputs).mean((0, 2, 3)) for step in steps for inputs, _ in step]
    assert len(means) == 2 * len(steps)
    assert torch.allclose(norm.running_mean, torch.stack(means).mean(0), atol=1e-5)
    settled, weights = norm.running_mean.clone(), conv.weight.clone()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    one_epoch(task, module, optimizer, 6, settled=True)
    assert torch.equal(norm.running_mean, settled)
    assert not torch.equal(conv.weight, weights)
    one_epoch(task, module, optimizer, 7)
    assert not torch.equal(norm.running_mean, settled)


def test_the_last_epochs_are_settled_where_resolutions_share_norms(tiny: str, write_task) -> None:
    assert first_settled(load_task(tiny), 10) == 8
    assert first_settled(load_task(tiny), 1) == 2
    assert first_settled(load_task(write_task("resolutions = ((24, 24),)")), 10) == 11


@pytest.mark.parametrize(
    ("code", "slug"),
    [
        ("def loss(self, o, t):\n    return (o * float('nan')).mean()", "bad-loss"),
        ("def loss(self, o, t):\n    return o", "bad-loss"),
        ("def loss(self, o, t):\n    return o.no_such", "user-code-failed"),
        ("def training(self, h, w, seed):\n    return iter(())", "no-data"),
        ("def training(self, h, w, seed):\n    raise OSError('disk gone')", "user-code-failed"),
    ],
)
def test_bad_training_is_refused(write_task, code: str, slug: str) -> None:
    with pytest.raises(TaskError) as caught:
        train(load_task(write_task(code)), epochs=1)
    assert caught.value.slug == slug


@pytest.mark.parametrize("epochs", [0, -1, 10**9])
def test_a_silly_number_of_epochs_is_refused(tiny: str, epochs: int) -> None:
    with pytest.raises(TaskError, match=r"task\.not-trainable"):
        train(load_task(tiny), epochs=epochs)


def test_a_task_without_training_is_refused(tmp_path) -> None:
    path = tmp_path / "frozen.py"
    path.write_text(
        "from converters.task import Preprocess\n"
        "class T:\n"
        "    name='t'; labels=('a','b'); resolutions=((8,8),)\n"
        "    preprocess=Preprocess(color='gray', mean=(0.0,), std=(1.0,))\n"
        "    build=example_input=calibration=evaluation=None\n"
    )
    with pytest.raises(TaskError, match="lacks training and loss"):
        train(load_task(f"{path}:T"))

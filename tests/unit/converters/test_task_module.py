"""The module is what it claims, its weights fit, and it is safe to export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from converters.loading import load_task
from converters.module import build_module, check_example, contiguous, load_weights, save_weights
from edge_sdk.errors import EdgeError, StorageError, TaskError


def build(ref: str, weights: Path | None = None) -> nn.Module:
    return build_module(load_task(ref), weights)


def test_built_in_evaluation_mode_without_gradients(tiny: str) -> None:
    module = build(tiny)
    assert not any(layer.training for layer in module.modules())
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_strided_parameters_become_contiguous_with_the_same_values() -> None:
    layer = nn.Linear(4, 3)
    values = torch.arange(12.0).reshape(4, 3)
    layer.weight = nn.Parameter(values.t())
    assert not layer.weight.is_contiguous()
    contiguous(layer)
    assert layer.weight.is_contiguous()
    assert torch.equal(layer.weight, values.t())


@pytest.mark.parametrize(
    ("code", "slug"),
    [
        ("def build(self):\n    return 'resnet18'", "not-a-module"),
        ("def build(self):\n    return Net().missing", "user-code-failed"),
        (
            "def build(self):\n    return nn.BatchNorm2d(1, track_running_stats=False)",
            "batchnorm-training",
        ),
    ],
)
def test_bad_modules_are_refused(write_task, code: str, slug: str) -> None:
    with pytest.raises(TaskError) as caught:
        build(write_task(code))
    assert caught.value.slug == slug


def test_a_batchnorm_that_eval_does_not_reach(write_task) -> None:
    code = """
    def build(self):
        class Stubborn(nn.BatchNorm2d):
            def train(self, mode=True):
                return super().train(True)
        return nn.Sequential(nn.Conv2d(1, 2, 1), Stubborn(2))
    """
    with pytest.raises(TaskError, match="'1' stays in training mode"):
        build(write_task(code))


@pytest.mark.parametrize(
    ("forward", "slug"),
    [
        ("return x", "bad-output"),
        ("return x.flatten(1)[:, :3], x", "bad-output"),
        ("return x.flatten(1)[:, :3] * float('nan')", "bad-output"),
        ("return x @ x.new_zeros(7, 3)", "user-code-failed"),
    ],
)
def test_bad_outputs_are_refused(write_task, forward: str, slug: str) -> None:
    code = f"""
    def build(self):
        class Odd(nn.Module):
            def forward(self, x):
                {forward}
        return Odd()
    """
    task = load_task(write_task(code))
    module = build_module(task, None)
    with pytest.raises(TaskError) as caught:
        check_example(task, module, 12, 12)
    assert caught.value.slug == slug


def test_a_bad_example_input_is_refused(write_task) -> None:
    task = load_task(
        write_task("def example_input(self, h, w):\n    return torch.zeros(1, 3, h, w)")
    )
    with pytest.raises(TaskError, match="example_input"):
        check_example(task, build_module(task, None), 12, 12)


def test_weights_survive_a_round_trip(tiny: str, tmp_path: Path) -> None:
    module = build(tiny)
    with torch.no_grad():
        module.head.bias.fill_(0.25)  # type: ignore[union-attr,operator]
    save_weights(module, tmp_path / "w.pt")
    again = build(tiny, tmp_path / "w.pt")
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def refused(tiny: str, path: Path) -> EdgeError:
    with pytest.raises(TaskError) as caught:
        build(tiny, path)
    return caught.value


def test_bad_weights_are_refused(tiny: str, tmp_path: Path) -> None:
    assert refused(tiny, tmp_path / "none.pt").code == "task.weights-missing"
    (tmp_path / "noise.pt").write_bytes(b"not a checkpoint" * 10)
    assert refused(tiny, tmp_path / "noise.pt").code == "task.bad-weights"
    torch.save([1, 2, 3], tmp_path / "list.pt")
    assert "list" in refused(tiny, tmp_path / "list.pt").cause
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    assert "does not fit" in refused(tiny, tmp_path / "other.pt").cause
    state = build(tiny).state_dict()
    state["head.bias"] = torch.full((3,), float("nan"))
    torch.save(state, tmp_path / "nan.pt")
    assert "NaN" in refused(tiny, tmp_path / "nan.pt").cause


def test_a_truncated_weights_file_is_refused(tiny: str, tmp_path: Path) -> None:
    save_weights(build(tiny), tmp_path / "w.pt")
    data = (tmp_path / "w.pt").read_bytes()
    (tmp_path / "w.pt").write_bytes(data[: len(data) // 2])
    assert refused(tiny, tmp_path / "w.pt").code == "task.bad-weights"


class Trap:
    """Unpickling this would run code."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (Path.write_text, (Path("pwned"), "x"))


def test_a_weights_file_cannot_run_code(tiny: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"head.bias": Trap()}, tmp_path / "evil.pt")
    assert refused(tiny, tmp_path / "evil.pt").code == "task.bad-weights"
    assert not (tmp_path / "pwned").exists()


def test_weights_that_cannot_be_written_leave_nothing(tiny: str, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(StorageError):
        save_weights(build(tiny), blocked / "w.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_load_weights_names_the_first_mismatch(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "w.pt")
    with pytest.raises(TaskError, match="size mismatch"):
        load_weights(nn.Linear(2, 2), tmp_path / "w.pt")

"""Running a distillation: interrupted, resumed, cut off, and from the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from converters.distill.run import Progress, distill
from converters.distill.settings import Settings
from converters.loading import load_task
from converters.module import save_weights
from edge_sdk.cli.model import command
from edge_sdk.errors import EdgeError
from tests.fakes.storage import FaultyStorage, PowerCut

QUICK = Settings(losses=("logit", "feature"), epochs=3, seed=5)


def test_an_interrupted_run_ends_with_the_very_same_weights(school: str, tmp_path: Path) -> None:
    task, teacher = load_task(f"{school}:Jittered"), f"{school}:Wide"
    whole = distill(task, teacher, settings=QUICK, checkpoint=tmp_path / "whole")
    for stop in range(1, 7):  # three epochs alone, three distilled
        path, seen = tmp_path / f"stopped-{stop}", 0

        def interrupt(progress: Progress, stop: int = stop) -> None:
            nonlocal seen
            seen += 1
            if seen == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            distill(task, teacher, settings=QUICK, checkpoint=path, report=interrupt)
        torch.rand(3)  # whatever else happens in between
        again = distill(task, teacher, settings=QUICK, checkpoint=path, resume=True)
        assert len(again.history) == 6
        assert again.alone == whole.alone
        state = again.student.state_dict()
        for name, tensor in whole.student.state_dict().items():
            assert torch.equal(state[name], tensor), (stop, name)


def test_a_power_cut_at_any_step_leaves_a_checkpoint_that_resumes(
    school: str, tmp_path: Path
) -> None:
    task, teacher = load_task(f"{school}:Tiny"), f"{school}:Wide"
    choice = replace(QUICK, losses=("logit",), alone=False, epochs=2)
    whole = distill(task, teacher, settings=choice, checkpoint=tmp_path / "whole")
    counting = FaultyStorage()
    distill(task, teacher, settings=choice, checkpoint=tmp_path / "n", storage=counting)
    assert counting.steps >= 8
    for cut in range(1, counting.steps + 1):
        path = tmp_path / f"cut-{cut}"
        with pytest.raises(PowerCut):
            distill(
                task, teacher, settings=choice, checkpoint=path, storage=FaultyStorage(cut_at=cut)
            )
        again = distill(task, teacher, settings=choice, checkpoint=path, resume=path.exists())
        for name, tensor in whole.student.state_dict().items():
            assert torch.equal(again.student.state_dict()[name], tensor), (cut, name)


def test_checkpoints_are_neither_overwritten_nor_believed(school: str, tmp_path: Path) -> None:
    task, teacher, path = load_task(f"{school}:Tiny"), f"{school}:Wide", tmp_path / "c"
    choice = replace(QUICK, epochs=1, alone=False)

    def refused(code: str, choice: Settings, resume: bool) -> None:
        with pytest.raises(EdgeError) as caught:
            distill(task, teacher, settings=choice, checkpoint=path, resume=resume)
        assert caught.value.code == code

    refused("usage.nothing-to-resume", choice, True)
    distill(task, teacher, settings=choice, checkpoint=path)
    before = path.read_bytes()
    refused("usage.checkpoint-exists", choice, False)
    refused("usage.resume-mismatch", replace(choice, temperature=2.0), True)
    assert path.read_bytes() == before
    path.write_bytes(before[: len(before) // 2])
    refused("usage.bad-checkpoint", choice, True)
    torch.save([1, 2], path)
    refused("usage.bad-checkpoint", choice, True)


def test_the_command_writes_weights_and_cleans_up(school: str, tmp_path: Path) -> None:
    out = tmp_path / "s.pt"
    save_weights(load_task(f"{school}:Wide").task.build(), tmp_path / "w.pt")
    teacher = f"{school}:Wide:{tmp_path / 'w.pt'}"
    arguments = ["distill", f"{school}:Tiny", "--teacher", teacher, "-o", str(out)]
    done = CliRunner().invoke(command, [*arguments, "--epochs", "1", "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)["result"]
    assert result["measure"] == "accuracy" and result["alone"] is not None
    assert out.is_file() and not (tmp_path / "s.pt.distill").exists()
    assert {path.suffix for path in tmp_path.iterdir()} <= {".py", ".pt", ""}
    refused = CliRunner().invoke(command, [*arguments, "--loss", "feture", "--json"])
    assert json.loads(refused.stdout)["error"]["code"] == "usage.unknown-loss"


def test_a_run_is_resumed_with_the_networks_it_started_with(school: str, tmp_path: Path) -> None:
    task, teacher, path = load_task(f"{school}:Tiny"), f"{school}:Wide", tmp_path / "c"
    choice = replace(QUICK, epochs=1, alone=False)
    distill(task, teacher, settings=choice, checkpoint=path)
    weights = tmp_path / "w.pt"
    save_weights(load_task(f"{school}:Wide").task.build(), weights)

    def refused(code: str, student: str, teacher: str, checkpoint: Path) -> str:
        with pytest.raises(EdgeError) as caught:
            distill(
                load_task(f"{school}:{student}"),
                f"{school}:{teacher}",
                settings=choice,
                checkpoint=checkpoint,
                resume=True,
            )
        assert caught.value.code == code
        return caught.value.cause

    assert "Wide as built" in refused("usage.resume-mismatch", "Tiny", f"Wide:{weights}", path)
    assert "Jittered" in refused("usage.resume-mismatch", "Jittered", "Wide", path)
    changed = Path(school).read_text().replace("Conv2d(1, 16,", "Conv2d(1, 8,")
    Path(school).write_text(
        changed.replace("BatchNorm2d(16)", "BatchNorm2d(8)").replace(
            "Conv2d(16, 32", "Conv2d(8, 32"
        )
    )
    assert "changed since" in refused("usage.bad-checkpoint", "Tiny", "Wide", path)


def test_a_loss_that_diverges_ends_the_run_and_keeps_the_last_epoch(
    school: str, tmp_path: Path
) -> None:
    task, choice = load_task(f"{school}:Diverging"), replace(QUICK, losses=("logit",))
    with pytest.raises(EdgeError, match=r"task\.bad-loss"):
        distill(task, f"{school}:Wide", settings=choice, checkpoint=tmp_path / "c")
    assert torch.load(tmp_path / "c", weights_only=True)["state"]["epoch"] == 1


def test_ctrl_c_says_how_to_go_on_and_resuming_finishes(school: str, tmp_path: Path) -> None:
    out = tmp_path / "s.pt"
    arguments = ["distill", f"{school}:Interrupted", "--teacher", f"{school}:Wide", "-o", str(out)]
    arguments += ["--epochs", "3", "--no-alone"]
    stopped = CliRunner().invoke(command, arguments)
    assert stopped.exit_code == 130
    assert "--resume" in stopped.output and "Traceback" not in stopped.output
    assert not out.exists() and (tmp_path / "s.pt.distill").is_file()
    again = CliRunner().invoke(command, arguments)
    assert "usage.checkpoint-exists" in again.output
    done = CliRunner().invoke(command, [*arguments, "--resume", "--json"])
    assert done.exit_code == 0, done.output
    epochs = json.loads(done.stdout)["result"]["epochs"]
    assert [epoch["number"] for epoch in epochs] == [1, 2, 3]
    assert out.is_file() and not (tmp_path / "s.pt.distill").exists()


def test_the_teachers_weights_are_never_replaced(school: str, tmp_path: Path) -> None:
    weights = tmp_path / "w.pt"
    save_weights(load_task(f"{school}:Wide").task.build(), weights)
    before = weights.read_bytes()
    for out in (weights, tmp_path):
        arguments = ["distill", f"{school}:Tiny", "-t", f"{school}:Wide:{weights}", "-o", str(out)]
        done = CliRunner().invoke(command, [*arguments, "--json"])
        assert json.loads(done.stdout)["error"]["code"] == "usage.bad-output"
    assert weights.read_bytes() == before
    assert not list(tmp_path.glob("*.distill"))

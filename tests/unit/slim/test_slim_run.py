"""``edge model slim`` end to end: trains, resumes exactly, survives power cuts, converts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from converters.loading import SLIM_MARK, LoadedTask, load_task
from converters.module import build_module
from converters.slim.description import Slim, groups_of, read, read_state, write
from converters.slim.run import CHECKPOINT_SUFFIX, Slimmed, slim
from converters.slim.settings import Settings
from converters.slim.training import Progress
from edge_sdk.cli.model import command
from edge_sdk.contracts.base import decode
from edge_sdk.errors import EdgeError
from tests.fakes.storage import FaultyStorage, PowerCut

CHOICE = Settings(widths=(1.0, 0.75, 0.5), epochs=2)


@pytest.fixture(scope="module")
def done(bars: LoadedTask, bars_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Slimmed:
    """One uninterrupted run."""
    out = tmp_path_factory.mktemp("done") / "slim.json"
    return slim(bars, out, settings=CHOICE, weights=bars_weights)


def state_of(path: Path) -> dict[str, dict[str, torch.Tensor]]:
    return read_state(read(path), path)


def test_narrower_widths_keep_most_of_the_accuracy(done: Slimmed) -> None:
    full, middle, small = done.slim.widths
    assert (full.width, middle.width, small.width) == (1.0, 0.75, 0.5)
    assert full.macs > middle.macs > small.macs
    assert small.macs < 0.35 * full.macs
    assert full.accuracy > 0.9
    assert small.accuracy > 0.8
    assert all(small.kept[name] <= middle.kept[name] for name in middle.kept)
    assert not done.path.with_name(f"{done.path.name}{CHECKPOINT_SUFFIX}").exists()
    assert [item.number for item in done.history] == [1, 2]


def test_a_built_width_is_the_trained_one_and_a_prefix(done: Slimmed, bars_file: Path) -> None:
    ref = f"{bars_file}:Bars{SLIM_MARK}{done.path}"
    images = torch.randn(5, 1, 12, 12)
    full = build_module(load_task(ref), None)
    for width in (0.75, 0.5):
        task = load_task(ref, width=width)
        assert task.widths == (1.0, 0.75, 0.5)
        module = build_module(task, None)
        wanted = done.network.at(width).eval()(images)
        assert torch.allclose(module(images), wanted, atol=1e-6)
        for name, parameter in module.named_parameters():
            if parameter.ndim >= 2 and name != "head.weight":
                prefix = full.get_parameter(name)
                for axis, length in enumerate(parameter.shape):
                    prefix = prefix.narrow(axis, 0, length)
                assert torch.equal(parameter, prefix)


def test_a_resumed_run_ends_with_the_very_same_weights(
    done: Slimmed, bars: LoadedTask, bars_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "slim.json"

    class StopError(Exception):
        pass

    def stop(progress: Progress) -> None:
        raise StopError

    with pytest.raises(StopError):
        slim(bars, out, settings=CHOICE, weights=bars_weights, report=stop)
    assert not out.exists()
    with pytest.raises(EdgeError) as refused:
        slim(bars, out, settings=CHOICE, weights=bars_weights)
    assert refused.value.code == "usage.checkpoint-exists"
    other = Settings(widths=(1.0, 0.75, 0.5), epochs=3)
    with pytest.raises(EdgeError) as refused:
        slim(bars, out, settings=other, weights=bars_weights, resume=True)
    assert refused.value.code == "usage.resume-mismatch"
    again = slim(bars, out, settings=CHOICE, weights=bars_weights, resume=True)
    assert again.slim == done.slim
    for width, tensors in state_of(done.path).items():
        for name, tensor in tensors.items():
            assert torch.equal(state_of(out)[width][name], tensor), (width, name)


def test_a_power_cut_at_every_step_leaves_a_pair_that_fits(done: Slimmed, tmp_path: Path) -> None:
    """Either the old document with its weights, or the new one with its own."""
    old = tmp_path / "old"
    old.mkdir()
    shutil.copy(done.path, old)
    shutil.copy(done.weights, old)
    assert isinstance(done.network.module, nn.Module)
    cut, finished = 0, False
    while not finished:
        cut += 1
        folder = tmp_path / str(cut)
        shutil.copytree(old, folder)
        with torch.no_grad():
            done.network.module.get_parameter("head.bias").add_(1.0)
        try:
            write(done.slim, done.network, folder / "slim.json", FaultyStorage(cut))
            finished = True
        except PowerCut:
            pass
        assert state_of(folder / "slim.json")
        assert finished or cut < 20
    assert cut > 6
    with torch.no_grad():
        done.network.module.get_parameter("head.bias").sub_(float(cut))
    assert len(list(folder.glob("*.pt"))) == 1


def test_repair_alone_needs_neither_labels_nor_training(
    bars: LoadedTask, bars_file: Path, bars_weights: Path, tmp_path: Path
) -> None:
    unlabelled = load_task(f"{bars_file}:Unlabelled")
    assert not hasattr(unlabelled.task, "training")
    choice = Settings(widths=(1.0, 0.6), epochs=0)
    bare = slim(unlabelled, tmp_path / "a.json", settings=choice, weights=bars_weights)
    assert bare.history == ()
    assert bare.slim.widths[1].accuracy > 0.6
    taught = Settings(widths=(1.0, 0.6), epochs=6, learning_rate=0.01)
    better = slim(unlabelled, tmp_path / "b.json", settings=taught, weights=bars_weights)
    assert better.slim.widths[1].accuracy >= bare.slim.widths[1].accuracy - 0.02
    assert better.history[-1].loss < better.history[0].loss
    wide = [state_of(tmp_path / name)["1"] for name in ("a.json", "b.json")]
    assert all(torch.equal(wide[0][name], wide[1][name]) for name in wide[0])


def test_separate_widths_have_weights_of_their_own(
    bars: LoadedTask, bars_weights: Path, tmp_path: Path
) -> None:
    choice = Settings(widths=(1.0, 0.5), epochs=1, separate=True)
    found = slim(bars, tmp_path / "s.json", settings=choice, weights=bars_weights)
    assert not found.slim.shared
    assert found.slim.widths[1].accuracy > 0.8
    own = state_of(found.path)["0.5"]
    assert own["body.0.weight"].ndim == 4


@pytest.mark.parametrize("separate", [False, True])
def test_bfloat16_products_train_float32_weights(
    bars: LoadedTask, bars_weights: Path, tmp_path: Path, separate: bool
) -> None:
    low, plain = (
        Settings(widths=(1.0, 0.5), epochs=2, separate=separate, uniform=True, bfloat16=chosen)
        for chosen in (True, False)
    )
    found = slim(bars, tmp_path / "low.json", settings=low, weights=bars_weights)
    exact = slim(bars, tmp_path / "plain.json", settings=plain, weights=bars_weights)
    assert found.slim.widths[1].accuracy > 0.8
    assert found.history[1].loss == pytest.approx(exact.history[1].loss, rel=0.2)
    assert found.history[1].loss != exact.history[1].loss
    tensors = state_of(found.path)["0.5"]
    assert {value.dtype for value in tensors.values()} <= {torch.float32, torch.int64}


def test_a_latency_model_may_choose_the_widths(
    bars: LoadedTask, bars_weights: Path, tmp_path: Path
) -> None:
    choice = Settings(widths=(1.0, 0.5), epochs=0, profile="rpi4")
    found = slim(bars, tmp_path / "s.json", settings=choice, weights=bars_weights)
    assert found.slim.widths[1].macs < found.slim.widths[0].macs
    with pytest.raises(EdgeError) as refused:
        unknown = Settings(widths=(1.0, 0.5), epochs=0, profile="tensor-g3")
        slim(bars, tmp_path / "t.json", settings=unknown, weights=bars_weights)
    assert refused.value.code == "profile.uncalibrated-for-slim"


@pytest.mark.parametrize(
    ("choice", "code"),
    [
        (Settings(widths=(0.5,)), "usage.bad-slim"),
        (Settings(widths=(1.0,)), "usage.bad-slim"),
        (Settings(widths=(1.0, 0.5, 0.75)), "usage.bad-slim"),
        (Settings(widths=(1.0, 0.01)), "usage.bad-slim"),
        (Settings(round_to=0), "usage.bad-slim"),
        (Settings(importance="l3"), "usage.unknown-importance"),
    ],
)
def test_impossible_choices_are_refused(
    bars: LoadedTask, tmp_path: Path, choice: Settings, code: str
) -> None:
    with pytest.raises(EdgeError) as refused:
        slim(bars, tmp_path / "s.json", settings=choice)
    assert refused.value.code == code


def test_a_recurrent_network_is_refused_and_nothing_is_written(
    bars_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(EdgeError) as refused:
        slim(load_task(f"{bars_file}:Recurrent"), tmp_path / "s.json", settings=CHOICE)
    assert refused.value.code == "conversion.nothing-to-narrow"
    assert "gru" in refused.value.cause
    assert list(tmp_path.iterdir()) == []


@given(st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_any_bytes_are_refused_cleanly(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(EdgeError) as refused:
        read(tmp_path / "x.json")
    assert refused.value.code in ("contract.malformed", "task.bad-slim")


def test_damaged_or_foreign_documents_are_refused(
    done: Slimmed, bars_file: Path, tmp_path: Path
) -> None:
    def refusal(task: str) -> str:
        with pytest.raises(EdgeError) as refused:
            ref = f"{bars_file}:{task}{SLIM_MARK}{tmp_path / 'slim.json'}"
            build_module(load_task(ref, width=0.5), None)
        return refused.value.code

    assert refusal("Bars") == "task.bad-slim"  # no document
    shutil.copy(done.path, tmp_path)
    assert refusal("Bars") == "task.bad-slim"  # no weights
    weights = tmp_path / done.weights.name
    data = bytearray(done.weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(bytes(data))
    assert refusal("Bars") == "task.bad-slim"  # other weights
    shutil.copy(done.weights, weights)
    assert refusal("Unlabelled") == "task.bad-slim"  # another task
    found = decode(done.path.read_bytes(), Slim, "slim.json")
    assert groups_of(found) == done.network.groups
    far = msgspec.structs.replace(found, weights="../elsewhere.pt")
    (tmp_path / "slim.json").write_bytes(msgspec.json.encode(far))
    assert refusal("Bars") == "task.bad-slim"  # weights outside the folder


def test_the_command_slims_and_converts_every_width(
    bars_file: Path, bars_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ref, out = f"{bars_file}:Bars", tmp_path / "slim.json"
    train = ("--epochs", "1", "--widths", "1.0,0.5", "--json")
    made = CliRunner().invoke(
        command,
        ["slim", ref, "-w", str(bars_weights), "-o", str(out), *train],
    )
    assert made.exit_code == 0, made.output
    document = json.loads(made.stdout)
    assert [width["width"] for width in document["result"]["widths"]] == [1.0, 0.5]
    assert document["next"][0].endswith(f"--slim {out}")
    folder = tmp_path / "out"
    arguments = ["convert", ref, "--slim", str(out), "-o", str(folder), "-p", "x86-generic"]
    runtime = ("--runtime", "onnxruntime", "--json")
    done = CliRunner().invoke(
        command,
        [*arguments, "--schemes", "fp32", "--resolutions", "12x12", *runtime],
    )
    assert done.exit_code == 0, done.output
    conversion = json.loads((folder / "conversion.json").read_bytes())
    for point in conversion["ladders"]["x86-generic"]:
        assert point["id"].startswith(f"w{point['channel_width']:.2f}-12x12-fp32")
    profile = json.loads((folder / "fit.json").read_bytes())["profiles"]["x86-generic"]
    measured = [row["candidate"] for row in (*profile["ladder"], *profile["rejected"])]
    assert {name.split()[0] for name in measured} == {"w1.00", "w0.50"}
    assert str(tmp_path) not in (folder / "conversion.json").read_text()
    both = CliRunner().invoke(command, [*arguments, "-w", str(bars_weights), "--json"])
    assert json.loads(both.stdout)["error"]["code"] == "usage.slim-weights"

"""``edge model search`` end to end: trains, searches, writes what converts."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from converters.loading import SLIM_MARK, LoadedTask, load_task
from converters.module import build_module
from converters.slim.description import read, read_state
from converters.supernet.run import Bench, Searched, Target, run
from converters.supernet.search import Effort
from converters.supernet.train import Epoch, phases_of
from edge_sdk.cli.model import command
from edge_sdk.contracts.base import decode
from edge_sdk.contracts.conversion import Conversion
from edge_sdk.errors import EdgeError
from tests.fakes.storage import FaultyStorage, PowerCut

EFFORT = Effort(candidates=20, population=8)


@pytest.fixture(scope="module")
def targets(elastic_bars: LoadedTask) -> list[Target]:
    """Half and three quarters of the way between the smallest and the full network."""
    bench = Bench(elastic_bars, None, 0)
    space = bench.network.space
    found = []
    for profile in ("rpi4", "rpi5"):
        cost = bench.costs.latency(profile, "fp32")
        low = cost(space.smallest(("resolution", "kernel", "depth", "width")))
        found += [Target(profile, low + part * (cost(space.full) - low)) for part in (0.3, 0.7)]
    return found


@pytest.fixture(scope="module")
def done(
    elastic_bars: LoadedTask, targets: list[Target], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Searched, list[Epoch]]:
    """One run."""
    out, epochs = tmp_path_factory.mktemp("done") / "supernet.json", []
    found = run(elastic_bars, out, targets, effort=EFFORT, report=epochs.append)
    return found, epochs


def test_phases_follow_each_other(done: tuple[Searched, list[Epoch]]) -> None:
    _, epochs = done
    names = [epoch.phase for epoch in epochs]
    assert names == ["full"] * 2 + ["kernel", "depth", "width"] + ["budget"] * 4
    assert all(epoch.loss > 0 for epoch in epochs)


def test_phases_without_anything_new_are_left_out(elastic_file: Path) -> None:
    network = Bench(load_task(f"{elastic_file}:Default"), None, 0).network
    assert [p.name for p in phases_of(network, 4, trained=True)] == ["kernel", "width", "budget"]


def test_subnetworks_fit_and_are_right_without_training_of_their_own(
    done: tuple[Searched, list[Epoch]],
) -> None:
    found, _ = done
    assert len(found.choices) == 4
    for choice in found.choices:
        assert choice.found.cost <= choice.target.latency_ms
        assert choice.accuracy > 0.8
        assert choice.found.measured <= EFFORT.candidates
    assert found.full_accuracy > 0.9


def test_the_bill_counts_every_candidate_once(done: tuple[Searched, list[Epoch]]) -> None:
    bill = done[0].bill
    assert max(c.found.measured for c in done[0].choices) <= bill.candidates <= 80
    assert bill.training_seconds > 0
    assert bill.search_seconds > 0
    assert bill.ratio == pytest.approx(bill.separate_seconds / bill.seconds)


def test_a_larger_budget_is_never_judged_worse(done: tuple[Searched, list[Epoch]]) -> None:
    for profile in ("rpi4", "rpi5"):
        mine = [choice for choice in done[0].choices if choice.target.profile == profile]
        small, large = sorted(mine, key=lambda choice: choice.target.latency_ms)
        assert large.found.quality >= small.found.quality


def test_what_is_built_from_the_document_is_what_was_judged(
    done: tuple[Searched, list[Epoch]], elastic_file: Path
) -> None:
    found, _ = done
    ref = f"{elastic_file}:Bars{SLIM_MARK}{found.path}"
    document = read(found.path)
    widths = [width.width for width in document.widths]
    assert widths[0] == 1.0
    assert len({f"{width:.2f}" for width in widths}) == len(widths)
    assert load_task(ref).widths == tuple(widths)
    bench = Bench(load_task(f"{elastic_file}:Bars"), None, 0)
    sizes = [f"{height}x{width}" for height, width in bench.task.resolutions]
    for width in document.widths[1:]:
        module = build_module(load_task(ref, width=width.width), None)
        assert len(module.get_submodule("stage")) == width.depths["stage"]  # type: ignore[arg-type]
        assert bench.judge.reported(module, sizes.index(width.size)) == width.accuracy
    state = read_state(document, found.path)
    narrow = sum(t.numel() for key in state if key != "1" for t in state[key].values())
    assert narrow < 0.2 * sum(t.numel() for t in state["1"].values()) * len(widths)


def test_the_same_seed_finds_the_same(
    done: tuple[Searched, list[Epoch]],
    elastic_bars: LoadedTask,
    targets: list[Target],
    tmp_path: Path,
) -> None:
    again = run(elastic_bars, tmp_path / "supernet.json", targets, effort=EFFORT)
    assert [c.found for c in again.choices] == [c.found for c in done[0].choices]
    assert again.weights.name == done[0].weights.name


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_power_cut_never_leaves_half_a_document(
    done: tuple[Searched, list[Epoch]], elastic_bars: LoadedTask, tmp_path: Path, cut: int
) -> None:
    from converters.slim.description import write
    from converters.supernet.run import States

    old = read(done[0].path)
    path = tmp_path / "supernet.json"
    first = States(read_state(old, done[0].path))
    write(old, first, path)
    changed = {k: {n: t + 1 for n, t in v.items()} for k, v in first.tensors.items()}
    with contextlib.suppress(PowerCut):
        write(old, States(changed), path, FaultyStorage(cut))
    state = read_state(read(path), path)
    assert any(
        torch.equal(state["1"]["head.weight"], one["1"]["head.weight"])
        for one in (first.tensors, changed)
    )


def test_the_command_writes_what_convert_takes(
    elastic_file: Path, targets: list[Target], tmp_path: Path
) -> None:
    out = tmp_path / "supernet.json"
    words = ["search", f"{elastic_file}:Bars", "-p", "rpi4", "--candidates", "6", "--epochs", "1"]
    words += ["--latency-ms", f"{targets[1].latency_ms:.4f}", "-o", str(out), "--json"]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    (subnet,) = answer["result"]["subnets"]
    assert subnet["predicted_ms"] <= targets[1].latency_ms + 1e-4
    assert answer["result"]["bill"]["candidates"] == 6
    words = ["convert", f"{elastic_file}:Bars", "--slim", str(out), "-p", "rpi4", "--json"]
    words += ["-o", str(tmp_path / "converted"), "--schemes", "fp32", "--no-cache"]
    words += ["--runtime", "onnxruntime"]
    converted = CliRunner().invoke(command, words)
    assert converted.exit_code == 0, converted.output
    found = decode((tmp_path / "converted" / "conversion.json").read_bytes(), Conversion, "it")
    assert {point.channel_width for point in found.ladders["rpi4"]} == {1.0, subnet["width"]}


@pytest.mark.parametrize(
    ("target", "slug"),
    [
        (Target("rpi4", 1e-6), "gate.nothing-fits"),
        (Target("rpi44", 1.0), "profile.unknown"),
        (Target("rpi4", 0.0), "usage.bad-budget"),
        (Target("x86-generic", 1.0), "profile.uncalibrated-for-slim"),
    ],
)
def test_what_cannot_be_searched_is_refused_and_nothing_is_written(
    elastic_bars: LoadedTask, tmp_path: Path, target: Target, slug: str
) -> None:
    with pytest.raises(EdgeError) as caught:
        run(elastic_bars, tmp_path / "s.json", [target], effort=EFFORT, epochs=1)
    assert caught.value.code == slug
    assert not list(tmp_path.iterdir())

"""Hard limits that only the built graph shows, and int8 files that are rescued, for real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from converters.fit.run import Fit, FitOptions, fit
from converters.fit.search import Budget
from device_profiles.loader import load_profile
from device_profiles.toml_out import profile_toml
from edge_sdk.cli.model_fit import fit as command
from edge_sdk.contracts.profile import Accelerator, Constraints, DeviceProfile
from tests.unit.converters.test_rescue import TRAINED

TAKEN = (
    *("Conv", "Relu", "AveragePool", "GlobalAveragePool", "ReduceMean", "Reshape", "Flatten"),
    *("Concat", "Slice", "Split", "Gemm", "MatMul", "Add", "Transpose", "Cast", "Squeeze"),
    *("QuantizeLinear", "DequantizeLinear", "Unsqueeze", "Pad", "Shape", "Gather", "Clip"),
)


def with_npu(folder: Path, *, ops: tuple[str, ...], alone: bool, **limits: Any) -> Path:
    """A Pi 4 with an NPU; ``alone``: the CPU runs nothing that the NPU leaves."""
    base = load_profile("rpi4")
    onnx = next(support for support in base.runtimes if support.name == "onnxruntime")
    constraints = Constraints(
        runtime="npu-compiler",
        format="onnx",
        ops=ops,
        dtypes=("int8", "float32"),
        source="a test",
        **limits,
    )
    unit = Accelerator(kind="npu", name="NPU", constraints=(constraints,), source="a test")
    profile: DeviceProfile = msgspec.structs.replace(
        base,
        id="rpi4-npu",
        runtimes=(msgspec.structs.replace(onnx, cpu_fallback=not alone),),
        accelerators=(unit,),
    )
    path = folder / f"{'alone' if alone else 'helped'}-{len(ops)}.toml"
    path.write_text(profile_toml(profile))
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hard") / "cache"


def run(task: str, profile: Path, cache: Path, out: Path, *more: str) -> Result:
    arguments = [task, "-p", str(profile), "--resolutions", "12x12", "--threads", "1"]
    arguments += ["--schemes", "fp32,static_wi8_ai8", "--cache", str(cache), "-o", str(out)]
    return CliRunner().invoke(command, [*arguments, "--json", *more])


def document(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_an_operator_that_nothing_runs_is_a_hard_limit_with_the_users_layer(
    tiny: str, tiny_weights: Path, cache: Path, tmp_path: Path
) -> None:
    ops = tuple(op for op in TAKEN if op not in ("Gemm", "MatMul"))
    profile = with_npu(tmp_path, ops=ops, alone=True)
    result = run(tiny, profile, cache, tmp_path / "out", "-w", str(tiny_weights))
    assert result.exit_code == 3, result.output
    error = document(result)["error"]
    assert error["code"] == "gate.nothing-fits"
    assert "Only hard limits" in error["hint"]
    assert "'head'" in error["hint"], "the layer in the user's module"
    assert not (tmp_path / "out").exists()


def test_a_graph_that_is_taken_whole_fits_without_a_prediction(
    tiny: str, tiny_weights: Path, cache: Path, tmp_path: Path
) -> None:
    """The cost rows are a CPU's; what runs on the NPU alone gets no figure of theirs."""
    profile = with_npu(tmp_path, ops=TAKEN, alone=True)
    result = run(tiny, profile, cache, tmp_path / "out", "-w", str(tiny_weights))
    assert result.exit_code == 0, result.output
    ladder = document(result)["result"]["profiles"]["rpi4-npu"]["ladder"]
    assert ladder
    assert all(point["predicted"] is None for point in ladder)
    assert all("takes all" in point["note"] for point in ladder)


def test_a_model_that_is_too_large_for_the_unit_is_a_hard_limit(
    tiny: str, tiny_weights: Path, cache: Path, tmp_path: Path
) -> None:
    profile = with_npu(tmp_path, ops=TAKEN, alone=True, max_model_mib=0.001)
    result = run(tiny, profile, cache, tmp_path / "out", "-w", str(tiny_weights))
    assert result.exit_code == 3
    assert "MiB" in document(result)["error"]["hint"]


def test_where_the_cpu_helps_out_the_fallback_is_a_note_with_its_cost(
    tiny: str, tiny_weights: Path, cache: Path, tmp_path: Path
) -> None:
    ops = tuple(op for op in TAKEN if op not in ("Gemm", "MatMul"))
    profile = with_npu(tmp_path, ops=ops, alone=False)
    result = run(tiny, profile, cache, tmp_path / "out", "-w", str(tiny_weights))
    assert result.exit_code == 0, result.output
    ladder = document(result)["result"]["profiles"]["rpi4-npu"]["ladder"]
    assert all(point["predicted"] is not None for point in ladder)
    assert all("'head'" in point["note"] for point in ladder)
    assert all("ms on the CPU" in point["note"] for point in ladder)


@pytest.fixture(scope="module")
def hard(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Channels whose ranges are decades apart, so that plain int8 fails."""
    path = tmp_path_factory.mktemp("hard") / "hard_task.py"
    source = Path(tiny.rpartition(":")[0]).read_text()
    path.write_text(source + TRAINED.replace("{decades}", "5"))
    return f"{path}:Hard"


def rescued(hard: str, weights: Path, out: Path, **options: Any) -> Fit:
    from converters.fit.estimate import Choices

    chosen = FitOptions(
        budget=Budget(accuracy_drop=0.0),
        choices=Choices(schemes=("static_wi8_ai8",), runtimes=("onnxruntime",), threads=(1,)),
        weights=weights,
        **options,
    )
    return fit(hard, ["rpi4", "rpi5"], out, options=chosen)


def test_int8_that_misses_the_budget_is_repaired_once_for_all_profiles(
    hard: str, tiny_weights: Path, tmp_path: Path
) -> None:
    found = rescued(hard, tiny_weights, tmp_path / "out")
    assert found.unfit == []
    assert any(repair.applied for repair in found.repairs)
    assert [repair.kind for repair in found.repairs].count("equalization") == 1
    for verdict in found.verdicts.values():
        (point,) = [item.facts.point for item in verdict.ladder]
        assert point.scheme == "static_wi8_ai8"


def test_int8_that_cannot_be_repaired_is_mixed_and_stands_beside_the_failed_one(
    hard: str, tiny_weights: Path, tmp_path: Path
) -> None:
    found = rescued(hard, tiny_weights, tmp_path / "out", repair=False)
    assert found.mixed == 1
    for verdict in found.verdicts.values():
        (item,) = verdict.ladder
        assert item.facts.point.scheme == "mixed_static_wi8_ai8_fp32"
        band = item.facts.latency
        assert band is not None and "%: " in band.basis, "float layers are paid for"
        (out,) = verdict.rejected
        assert (out.facts.point.scheme, out.kind) == ("static_wi8_ai8", "accuracy")
    files = {path.name for path in (tmp_path / "out/artifacts").iterdir()}
    assert files == {"hard-12x12-mixed_static_wi8_ai8_fp32.onnx"}
    document = json.loads((tmp_path / "out/fit.json").read_text())
    assert document["mixed_artifacts"] == 1


def test_without_rescue_the_hint_names_training(
    hard: str, tiny_weights: Path, tmp_path: Path
) -> None:
    arguments = [hard, "-w", str(tiny_weights), "-p", "rpi4", "--accuracy-drop", "0", "--json"]
    arguments += ["--schemes", "static_wi8_ai8", "--runtime", "onnxruntime", "--threads", "1"]
    arguments += ["--repair", "off", "--mixed", "off", "--no-cache", "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 3, result.output
    hint = document(result)["error"]["hint"]
    assert f"edge model qat {hard}" in hint
    assert "--accuracy-drop" in hint

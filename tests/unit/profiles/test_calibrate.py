"""Refitting rows, comparing profiles, writing them back; the commands a user types."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import msgspec
import onnx
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from converters.measurements import file_layers, measure_here, read_telemetry
from device_profiles.calibrate import Measurement, calibrate
from device_profiles.diff import diff
from device_profiles.latency import LayerCost, layer_ms, predict, profile_mape_percent
from device_profiles.loader import load_profile, parse_profile, profile_ids
from device_profiles.toml_out import profile_toml
from edge_sdk.cli.profile import command
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.conversion import Conversion
from edge_sdk.contracts.manifest import Artifact, Preprocess, TaskInfo
from edge_sdk.contracts.operating_point import OperatingPoint
from edge_sdk.contracts.profile import CostRow
from edge_sdk.contracts.telemetry import LadderPosition, TelemetrySample
from edge_sdk.errors import ProfileError
from tests.fakes.models import write_onnx

TRUTH = CostRow(
    runtime="litert",
    precision="fp32",
    unit="cpu",
    threads=4,
    dense_gmac_s=9.0,
    pointwise_gmac_s=12.0,
    depthwise_gmac_s=3.0,
    bandwidth_gb_s=4.0,
    overhead_us=5.0,
    models=1,
    error_percent=1.0,
    source="made up",
)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def measured(count: int = 12) -> list[Measurement]:
    """Networks as the true row would run them."""
    found = []
    for number in range(count):
        layers = tuple(
            LayerCost(kind, 0 if kind == "memory" else (number + 2) ** 3 * scale, 40_000 * scale)
            for scale in (1, 3, 10 + number)
            for kind in ("dense", "pointwise", "depthwise", "memory")[: 1 + (number % 4)]
        )
        ms = sum(layer_ms(TRUTH, layer) for layer in layers)
        found.append(Measurement(f"net{number}", "litert", "fp32", 4, ms, layers))
    return found


def test_a_refitted_row_predicts_what_was_measured() -> None:
    profile = load_profile("rpi4")
    fresh, (refit,) = calibrate(profile, measured(), "a test")
    assert refit.row.error_percent < 20
    assert refit.before_percent is not None
    assert refit.row.error_percent < refit.before_percent
    band = predict(fresh, measured()[7].layers, runtime="litert", scheme="fp32", threads=4)
    assert band is not None
    assert band.low_ms <= measured()[7].latency_ms <= band.high_ms
    others = [row for row in profile.cost if (row.runtime, row.precision) != ("litert", "fp32")]
    assert [row for row in fresh.cost if row is not refit.row] == others


def test_several_measurements_of_a_network_count_once() -> None:
    noisy = [msgspec_copy(item, factor) for item in measured() for factor in (0.99, 1.0, 5.0)]
    _, (refit,) = calibrate(load_profile("rpi4"), noisy, "a test")
    assert refit.row.models == 12
    assert refit.row.error_percent < 20


def msgspec_copy(item: Measurement, factor: float) -> Measurement:
    return Measurement(
        item.model, item.runtime, item.precision, item.threads, item.latency_ms * factor,
        item.layers,
    )  # fmt: skip


@pytest.mark.parametrize("count", [0, 2])
def test_too_few(count: int) -> None:
    with pytest.raises(ProfileError) as caught:
        calibrate(load_profile("rpi4"), measured(count), "a test")
    assert caught.value.code == "profile.too-few-measurements"


@pytest.mark.parametrize("name", profile_ids())
def test_a_profile_written_back_is_the_same(name: str) -> None:
    profile = load_profile(name)
    assert parse_profile(profile_toml(profile).encode(), name) == profile


@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    numbers=st.lists(st.floats(0, 1e9, allow_nan=False), max_size=3),
)
@settings(deadline=None)
def test_any_text_survives_being_written(text: str, numbers: list[float]) -> None:
    profile = load_profile("rpi4")
    rows = tuple(
        msgspec.structs.replace(row, overhead_us=number, threads=index % 4 + 1, source=f"of {text}")
        for index, (row, number) in enumerate(zip(profile.cost, numbers, strict=False))
    )
    odd = msgspec.structs.replace(profile, notes=text, title=text, cost=())
    assert parse_profile(profile_toml(odd).encode(), "odd") == odd
    for row in rows:
        one = msgspec.structs.replace(profile, cost=(row,))
        assert parse_profile(profile_toml(one).encode(), "one") == one


@given(st.sampled_from(profile_ids()), st.sampled_from(profile_ids()))
@settings(deadline=None, max_examples=60)
def test_diff_is_symmetric(first: str, second: str) -> None:
    one, two = load_profile(first), load_profile(second)
    forth, back = diff(one, two), diff(two, one)
    assert [(d.key, d.first, d.second) for d in forth] == [(d.key, d.second, d.first) for d in back]
    assert (forth == []) == (first == second)


def test_diff_names_rows_by_what_they_are() -> None:
    one = load_profile("rpi4")
    changed = (msgspec.structs.replace(one.cost[0], error_percent=1.0), *one.cost[1:])
    (found,) = diff(one, msgspec.structs.replace(one, cost=changed))
    assert found.key == "cost[ncnn fp32 cpu 1].error_percent"


def write_networks(folder: Path, count: int) -> None:
    for number in range(count):
        width = 4 + 4 * number
        weight = helper.make_tensor("w", TensorProto.FLOAT, (width, 3, 3, 3), [0.1] * (width * 27))
        graph = helper.make_graph(
            [helper.make_node("Conv", ["x", "w"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 32, 32))],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, width, 30, 30))],
            [weight],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
        onnx.save(model, str(folder / f"net{number}.onnx"))


def write_list(folder: Path, count: int) -> Path:
    write_networks(folder, count)
    lines = []
    for number in range(count):
        layers, _ = file_layers(folder / f"net{number}.onnx")
        ms = sum(layer_ms(TRUTH, layer) for layer in layers)
        lines.append(
            {"file": f"net{number}.onnx", "runtime": "litert", "threads": 4, "latency_ms": ms}
        )
    path = folder / "measured.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_calibrate_by_hand(tmp_path: Path) -> None:
    measurements, target = write_list(tmp_path, 6), tmp_path / "mine.toml"
    done = run("calibrate", "rpi4", "--measurements", measurements, "-o", target, "--json")
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)["result"]["rows"]
    assert row["models"] == 6
    assert row["error_percent"] < row["before_percent"]
    assert load_profile(str(target)).cost[0].error_percent == row["error_percent"]
    again = run("calibrate", "rpi4", "--measurements", measurements, "-o", target, "--json")
    assert json.loads(again.stdout)["error"]["code"] == "profile.exists"
    assert run("validate", target).exit_code == 0
    assert "cost[litert fp32 cpu 4].error_percent" in run("diff", "rpi4", target).stdout


def test_a_shipped_profile_is_never_overwritten(tmp_path: Path) -> None:
    import device_profiles

    shipped = Path(device_profiles.__file__).parent / "data" / "rpi4.toml"
    before = shipped.read_bytes()
    measurements = write_list(tmp_path, 4)
    done = run(
        "calibrate", "rpi4", "--measurements", measurements, "-o", shipped, "--force", "--json"
    )
    assert json.loads(done.stdout)["error"]["code"] == "profile.shipped"
    assert shipped.read_bytes() == before


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"file": "net0.onnx"}',
        '{"file": "net0.onnx", "runtime": "litert", "threads": 4, "latency_ms": -1}',
    ],
)
def test_bad_lines_are_named_and_nothing_is_written(tmp_path: Path, line: str) -> None:
    measurements, target = write_list(tmp_path, 3), tmp_path / "mine.toml"
    measurements.write_text(measurements.read_text() + line + "\n")
    done = run("calibrate", "rpi4", "--measurements", measurements, "-o", target, "--json")
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "profile.bad-measurements"
    assert "line 4" in error["cause"]
    assert not target.exists()


@pytest.mark.slow
def test_this_machine_measured_for_real(tmp_path: Path) -> None:
    """Three networks through both exporters and runtimes; figures are this machine's own."""
    names = ("dense-48", "depthwise-48", "linear-48")
    found = measure_here(1, tmp_path, names=names)
    assert {(m.model, m.runtime) for m in found} == {
        (name, runtime) for name in names for runtime in ("litert", "onnxruntime")
    }
    fresh, refits = calibrate(load_profile("x86-generic"), found, "a test")
    assert [refit.row.models for refit in refits] == [3, 3]
    assert parse_profile(profile_toml(fresh).encode(), "mine") == fresh


def write_conversion_of(folder: Path, count: int) -> list[OperatingPoint]:
    """A conversion whose ladder for rpi4 has ``count`` resolutions, one float ONNX file each."""
    points, artifacts, files = [], {}, {}
    for number in range(count):
        side, digest = 16 * (number + 1), f"{number:064x}"
        write_onnx(folder / f"m-{side}.onnx", size_px=side, layers=3)
        common = {"digest": digest, "runtime": "onnxruntime", "scheme": "fp32"}
        size = {"height_px": side, "width_px": side}
        artifacts[digest] = Artifact(
            **common, **size, format="onnx", inputs=(), outputs=(), golden="", tolerance={}
        )
        files[digest] = f"m-{side}.onnx"
        points.append(
            OperatingPoint(
                id=f"w1.00-{side}x{side}-fp32-onnxruntime",
                artifact=digest,
                runtime="onnxruntime",
                scheme="fp32",
                channel_width=1.0,
                **size,
                threads=2,
                accuracy=0.9,
                accuracy_drop=0.0,
                agreement=1.0,
                max_output_error=0.0,
                host_latency_ms=1.0,
            )
        )
    conversion = Conversion(
        created="2026-01-01T00:00:00Z",
        task=TaskInfo(
            name="m",
            kind="classification",
            labels=("a", "b"),
            preprocess=Preprocess(color="rgb", mean=(0.0,), std=(1.0,)),
            reference_accuracy=0.9,
        ),
        artifacts=artifacts,
        ladders={"rpi4": tuple(points)},
        files=files,
    )
    (folder / "conversion.json").write_bytes(encode(conversion))
    return points


def sample(point: str, latency_ms: float, **more: object) -> bytes:
    """A line of telemetry at an operating point."""
    ladder = LadderPosition(index=0, size=1, point=point, reason="startup", since=0.0)
    given = {"device_id": "d", "at": 1.0, "interval_s": 5.0, "frames": 10, **more}
    return encode(TelemetrySample(**given, ladder=ladder, latency_p50_ms=latency_ms)) + b"\n"


def test_telemetry_refits_the_rows_of_the_points_that_ran(tmp_path: Path) -> None:
    points = write_conversion_of(tmp_path, 4)
    lines = [sample(point.id, 1.0 + n) for n, point in enumerate(points) for _ in range(3)]
    lines += [
        sample("unknown", 9.0),
        sample(points[0].id, 900.0, throttled=True),
        sample(points[0].id, 900.0, frames=0),
        sample(points[0].id, 0.0),
    ]
    telemetry = tmp_path / "samples.jsonl"
    telemetry.write_bytes(b"".join(lines))
    found = read_telemetry(telemetry, tmp_path, "rpi4")
    assert len(found) == 12
    assert {m.latency_ms for m in found} == {1.0, 2.0, 3.0, 4.0}
    assert {(m.runtime, m.precision, m.threads) for m in found} == {("onnxruntime", "fp32", 2)}
    target = tmp_path / "mine.toml"
    done = run(
        "calibrate", "rpi4", "--telemetry", telemetry, "--conversion", tmp_path, "-o", target,
        "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["result"]["rows"][0]["models"] == 4
    refused = run("calibrate", "rpi5", "--telemetry", telemetry, "--conversion", tmp_path, "--json")
    assert json.loads(refused.stdout)["error"]["code"] == "profile.bad-measurements"


def test_one_source_is_needed(tmp_path: Path) -> None:
    done = run("calibrate", "rpi4", "-o", tmp_path / "x.toml", "--json")
    assert json.loads(done.stdout)["error"]["code"] == "usage.calibrate-source"
    done = run("calibrate", "rpi4", "--telemetry", "t", "-o", tmp_path / "x.toml", "--json")
    assert json.loads(done.stdout)["error"]["code"] == "usage.calibrate-conversion"


@pytest.mark.parametrize("name", [n for n in profile_ids() if load_profile(n).cost])
def test_every_calibrated_profile_meets_the_bar(name: str) -> None:
    profile = load_profile(name)
    percent = profile_mape_percent(profile)
    assert percent is not None
    assert percent <= 20
    assert all(math.isfinite(row.worst_percent or 0) for row in profile.cost)


def test_validate_prints_the_errors() -> None:
    text = run("validate", "rpi4").stdout
    assert "leave-one-out MAPE" in text
    assert "coarse: band widened" in text
    everything = json.loads(run("validate", "--json").stdout)["result"]
    assert {entry["id"] for entry in everything} == set(profile_ids())


def test_a_file_goes_before_a_shipped_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(Path(__file__).parents[3] / "device_profiles/data/rpi5.toml", tmp_path / "rpi4")
    monkeypatch.chdir(tmp_path)
    done = run("validate", "rpi4", "--json")
    assert json.loads(done.stdout)["result"]["id"] == "rpi5"


@pytest.mark.parametrize(
    ("runtime", "threads", "said"),
    [("onnxruntime", 400, "400 threads"), ("onxruntime", 4, "'onxruntime'")],
)
def test_what_the_board_cannot_have_run_is_no_measurement(
    tmp_path: Path, runtime: str, threads: int, said: str
) -> None:
    """The profile that would be written could not be read again."""
    lines = []
    for layers in (1, 2, 4):
        file = write_onnx(tmp_path / f"n{layers}.onnx", layers=layers)
        line = {"file": file.name, "runtime": runtime, "threads": threads, "latency_ms": layers}
        lines.append(json.dumps(line))
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    out = tmp_path / "out.toml"
    arguments = ("calibrate", "rpi4", "--measurements", tmp_path / "m.jsonl", "-o", out, "--json")
    done = run(*arguments)
    assert done.exit_code == 4, done.output
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "profile.bad-measurements"
    assert said in error["cause"]
    assert not out.exists()


def test_more_threads_than_cores_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "out.toml"
    done = run("calibrate", "rpi4", "--measure", "-t", 64, "-o", out, "--json")
    assert done.exit_code == 4, done.output
    assert json.loads(done.stdout)["error"]["code"] == "profile.bad-measurements"
    assert not out.exists()

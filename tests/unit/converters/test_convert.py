"""One real conversion, held to everything a release and a device rely on."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from converters.bench import bench, model_files, read_conversion
from converters.children import Job, run_jobs
from converters.convert import Options, Outcome, convert
from converters.inspect import check_claim, inspect_model, problems_with
from converters.schemes import parse_scheme
from edge_sdk.bundle.release import create_release
from edge_sdk.errors import ConversionError, EdgeError, GateError
from edge_sdk.runtime.engine import dequantize, quantize, to_layout
from edge_sdk.runtime.negotiate import open_engine

SCHEMES = ("fp32", "wfp16", "dynamic_wi8_afp32", "static_wi8_ai8")


def test_one_artifact_per_format_resolution_and_scheme(tiny_conversion: Outcome) -> None:
    found = {(item.format, item.size, item.scheme) for item in tiny_conversion.measured}
    wanted = {(k, r, s) for k in ("tflite", "onnx") for r in ("24x24", "12x12") for s in SCHEMES}
    assert found == wanted
    assert len(tiny_conversion.measured) == len(wanted)


def test_the_folder_is_complete_and_every_digest_true(tiny_conversion: Outcome) -> None:
    out = tiny_conversion.out
    conversion = read_conversion(out)
    assert conversion == tiny_conversion.conversion
    for digest, name in conversion.files.items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    for artifact in conversion.artifacts.values():
        assert artifact.golden in conversion.files
    listed = {out / name for name in conversion.files.values()}
    lying = {path for folder in ("artifacts", "golden") for path in (out / folder).iterdir()}
    assert listed == lying


def test_every_file_is_what_its_name_says_and_nothing_else(tiny_conversion: Outcome) -> None:
    for item in tiny_conversion.measured:
        facts = inspect_model(tiny_conversion.out / "artifacts" / item.path.name)
        true = [name for name in SCHEMES if not problems_with(facts, parse_scheme(name))]
        assert true == [item.scheme], item.path.name


def test_int8_means_int8_at_both_ends_with_scales(tiny_conversion: Outcome) -> None:
    for artifact in tiny_conversion.conversion.artifacts.values():
        dtypes = {spec.dtype for spec in (*artifact.inputs, *artifact.outputs)}
        if artifact.scheme == "static_wi8_ai8":
            assert dtypes == {"int8"}
            assert all(spec.scale for spec in (*artifact.inputs, *artifact.outputs))
        else:
            assert dtypes == {"float32"}
        assert artifact.inputs[0].layout == {"tflite": "NHWC", "onnx": "NCHW"}[artifact.format]


def test_files_without_int8_are_refused_under_that_name(tiny_conversion: Outcome) -> None:
    for kind in ("tflite", "onnx"):
        path = tiny_conversion.out / "artifacts" / f"tiny-24x24-fp32.{kind}"
        with pytest.raises(ConversionError, match="float32 weights") as caught:
            check_claim(inspect_model(path), parse_scheme("static_wi8_ai8"), path)
        assert caught.value.code == "conversion.false-claim"


def test_the_inspector_agrees_with_the_runtime(tiny_conversion: Outcome) -> None:
    for item in tiny_conversion.measured:
        facts = inspect_model(tiny_conversion.out / "artifacts" / item.path.name)
        assert facts.inputs == item.inputs
        assert facts.outputs == item.outputs
        assert len(facts.layers) == 3


def test_golden_vectors_come_back_from_the_runtime(tiny_conversion: Outcome) -> None:
    conversion, out = tiny_conversion.conversion, tiny_conversion.out
    for digest, artifact in conversion.artifacts.items():
        with np.load(out / conversion.files[artifact.golden]) as golden:
            inputs, expected = golden["input"], golden["output"]
        assert inputs.shape[0] == 8
        engine = open_engine(out / conversion.files[digest], format=artifact.format)
        spec, result = engine.inputs[0], engine.outputs[0]
        answers = [
            np.array(
                dequantize(engine.run([quantize(to_layout(one[None], spec), spec)])[0], result)
            )
            for one in inputs
        ]
        error = float(np.abs(np.concatenate(answers) - expected).max())
        assert error <= artifact.tolerance[artifact.runtime]
        engine.close()


def test_golden_tolerances_would_notice_other_weights(tiny_conversion: Outcome) -> None:
    """The goldens of two resolutions differ by far more than the tolerance of either."""
    conversion, out = tiny_conversion.conversion, tiny_conversion.out
    for artifact in conversion.artifacts.values():
        with np.load(out / conversion.files[artifact.golden]) as golden:
            spread = np.abs(golden["output"] - golden["output"].mean(axis=0)).max()
        assert max(artifact.tolerance.values()) < spread


def test_accuracy_survives_conversion(tiny_conversion: Outcome) -> None:
    for item in tiny_conversion.measured:
        assert item.accuracy > 0.9
        assert item.scheme_drop <= 0.01
        assert item.agreement >= 0.95
        assert item.latency[1].median_ms > 0
    exact = [item for item in tiny_conversion.measured if item.scheme == "fp32"]
    assert max(item.max_output_error for item in exact) < 1e-3


def test_every_profile_has_a_ladder_over_one_runtime(tiny_conversion: Outcome) -> None:
    ladders = tiny_conversion.conversion.ladders
    assert {name: ladder[0].runtime for name, ladder in ladders.items()} == {
        "rpi4": "litert",
        "jetson-orin-nano": "onnxruntime",
        "x86-generic": "onnxruntime",
    }
    for ladder in ladders.values():
        assert len({point.runtime for point in ladder}) == 1
        for point in ladder:
            artifact = tiny_conversion.conversion.artifacts[point.artifact]
            assert (artifact.runtime, artifact.scheme) == (point.runtime, point.scheme)


def test_files_hold_no_path_of_this_machine(tiny_conversion: Outcome) -> None:
    here = [str(Path.cwd()), str(Path.home()), str(tiny_conversion.out.parent), "site-packages"]
    for path in tiny_conversion.out.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for text in here:
                if len(text) > 3:
                    assert text.encode() not in data, (path.name, text)


def test_the_report_stands_alone(tiny_conversion: Outcome) -> None:
    html = (tiny_conversion.out / "report.html").read_text()
    for profile in tiny_conversion.conversion.ladders:
        assert f'id="{profile}"' in html
    for item in tiny_conversion.measured:
        assert item.path.name in html
    # A plot for each profile, and one of the layers' noise.
    assert html.count("data:image/png;base64,") == len(tiny_conversion.conversion.ladders) + 1
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html)


def test_a_release_can_be_made_of_it(tiny_conversion: Outcome, tmp_path: Path) -> None:
    manifest = create_release(tiny_conversion.out, tmp_path / "r", name="tiny", version="1")
    assert manifest.ladders == tiny_conversion.conversion.ladders


def test_bench_measures_a_ladder_and_a_file(tiny_conversion: Outcome) -> None:
    files = model_files(tiny_conversion.out, "rpi4")
    assert len(files) == len(tiny_conversion.conversion.ladders["rpi4"])
    rows = bench(files[:1], seconds=0.05)
    assert rows[0].runtime == "litert"
    assert 0 < rows[0].median_ms <= rows[0].p95_ms
    assert rows[0].runs >= 20


def test_bench_of_a_damaged_file_names_it(tiny_conversion: Outcome, tmp_path: Path) -> None:
    for name in ("tiny-24x24-fp32.tflite", "tiny-24x24-fp32.onnx"):
        data = (tiny_conversion.out / "artifacts" / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(EdgeError) as caught:
            bench([tmp_path / name], seconds=0.05)
        assert name in caught.value.cause


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


FAST = {"formats": ("onnx",), "resolutions": ((12, 12),), "schemes": ("static_wi8_ai8",)}


def test_a_missed_gate_leaves_the_earlier_conversion_alone(
    write_task, tiny_weights: Path, tmp_path: Path
) -> None:
    """Calibrated on darkness, int8 clips everything: an honest loss that the gate must catch."""
    out = tmp_path / "out"
    good = write_task(name="good")
    convert(good, ["x86-generic"], out, options=Options(weights=tiny_weights, **FAST))
    before = snapshot(out)
    bad = write_task(
        "def calibration(self, h, w):\n    yield torch.full((8, 1, h, w), 1e-4)", name="bad"
    )
    with pytest.raises(GateError) as caught:
        convert(bad, ["x86-generic"], out, options=Options(weights=tiny_weights, **FAST))
    assert caught.value.code == "gate.accuracy-drop"
    assert "static_wi8_ai8" in caught.value.cause
    assert snapshot(out) == before
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".py") == sorted(
        ["out", "__pycache__"] if (tmp_path / "__pycache__").exists() else ["out"]
    )


UNSUPPORTED = """
def build(self):
    class Odd(nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(1, 3, 1)
            self.odd = Odd()
        def forward(self, x):
            return self.odd(self.first(x)).mean((2, 3))
    return Whole()
"""


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_an_unsupported_operator_is_traced_to_its_layer(
    write_task, tmp_path: Path, kind: str
) -> None:
    with pytest.raises(ConversionError) as caught:
        build_one(write_task(UNSUPPORTED), kind, tmp_path)
    assert caught.value.code == "conversion.unsupported-op"
    assert "bessel_j0" in caught.value.cause
    assert "layer 'odd' (Odd" in caught.value.cause
    assert re.search(r"model\.py:\d+", caught.value.cause)


def test_control_flow_on_values_is_traced_to_its_line(write_task, tmp_path: Path) -> None:
    code = """
    def build(self):
        class Choice(nn.Module):
            def forward(self, x):
                y = x.mean((2, 3)).repeat(1, 3)
                if y.sum() > 0:
                    return y
                return -y
        return Choice()
    """
    with pytest.raises(ConversionError) as caught:
        build_one(write_task(code), "onnx", tmp_path)
    assert caught.value.code == "conversion.data-dependent"
    assert re.search(r"model\.py:\d+", caught.value.cause)


def build_one(ref: str, kind: str, folder: Path) -> list[dict[str, object]]:
    np.savez(folder / "calibration.npz", **{"12x12": np.zeros((4, 1, 12, 12), np.float32)})
    request = {
        "task": ref,
        "name": "one",
        "weights": None,
        "format": kind,
        "resolutions": [[12, 12]],
        "schemes": ["fp32"],
        "folder": str(folder),
        "calibration": str(folder / "calibration.npz"),
        "threads": 1,
    }
    job = Job(name=kind, module="converters.build_worker", request=request, folder=folder)
    return run_jobs([job], parallel=1)[0]


@pytest.mark.parametrize(
    ("profiles", "options", "code"),
    [
        (["rpi44"], {}, "profile.unknown"),
        ([], {}, "usage.no-profile"),
        (["rpi4"], {"schemes": ("int8",)}, "conversion.bad-scheme"),
        (["rpi4"], {"schemes": ("static_wi4_ai8",)}, "conversion.scheme-unsupported"),
        (["rpi4"], {"resolutions": ((48, 48),)}, "usage.unknown-resolution"),
        (["rpi4"], {"runtime": "lite"}, "usage.unknown-runtime"),
        (
            ["rpi4"],
            {"runtime": "onnxruntime", "formats": ("tflite",)},
            "profile.runtime-unsupported",
        ),
    ],
)
def test_bad_requests_fail_before_anything_runs(
    tiny: str, tmp_path: Path, profiles: list[str], options: dict, code: str
) -> None:
    with pytest.raises(EdgeError) as caught:
        convert(tiny, profiles, tmp_path / "out", options=Options(**options))
    assert caught.value.code == code
    assert list(tmp_path.iterdir()) == []


def test_labels_must_be_the_same_at_every_resolution(write_task, tmp_path: Path) -> None:
    ref = write_task("def evaluation(self, h, w):\n    yield bars(30 + h, h, w, 2)")
    with pytest.raises(EdgeError, match="other labels"):
        convert(ref, ["rpi4"], tmp_path / "out")
    assert not (tmp_path / "out").exists()

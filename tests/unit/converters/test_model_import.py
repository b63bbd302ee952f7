"""Importing model files: good ones end as a release, all others as an error with a code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from converters.bench import read_conversion
from converters.importing import ImportOptions, import_model
from converters.importing.examine_onnx import normalise_onnx
from converters.importing.examine_tflite import normalise_tflite
from converters.importing.run import Imported
from converters.importing.samples import read_samples
from converters.importing.subject import Described
from converters.inspect import inspect_model
from converters.metadata import ModelNotes, read_notes, write_notes
from edge_sdk.bundle.release import create_release
from edge_sdk.cli.model import command
from edge_sdk.contracts.manifest import Preprocess
from edge_sdk.errors import ConversionError, EdgeError, GateError
from edge_sdk.runtime.negotiate import open_engine
from tests.fakes.models import save_onnx, write_onnx, write_tflite

FLOAT = TensorProto.FLOAT
GRAY = Preprocess(color="gray", mean=(0.0,), std=(255.0,))


def samples(path: Path, shape: tuple[int, ...], count: int = 40, **more: np.ndarray) -> Path:
    values = np.random.default_rng(1).normal(size=(count, *shape)).astype(np.float32)
    np.savez(path, x=values, **more)
    return path


def run(source: Path, out: Path, profile: str = "jetson-orin-nano", **options: object) -> Imported:
    return import_model(source, [profile], out, options=ImportOptions(**options))  # type: ignore[arg-type]


def refused(source: Path, out: Path, **options: object) -> EdgeError:
    before = sorted(source.parent.iterdir())
    with pytest.raises(EdgeError) as caught:
        run(source, out, **options)
    assert not out.exists()
    assert sorted(source.parent.iterdir()) == before, "nothing half-written stays behind"
    assert caught.value.cause and caught.value.hint
    return caught.value


@pytest.fixture(scope="module")
def imported_onnx(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    folder = tmp_path_factory.mktemp("onnx")
    source = write_onnx(folder / "small net.onnx", size_px=8, layers=2)
    cal = samples(folder / "cal.npz", (3, 8, 8))
    return run(source, folder / "out", calibration=cal)


@pytest.fixture(scope="module")
def imported_tflite(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    """The source has no signature, as many public files."""
    folder = tmp_path_factory.mktemp("tflite")
    source = write_tflite(folder / "m.tflite", shape=(1, 8, 8, 3), operator="CONV_2D")
    cal = samples(folder / "cal.npz", (8, 8, 3))
    schemes = ("wfp16", "static_wi8_ai8")
    return run(source, folder / "out", "rpi4", calibration=cal, schemes=schemes)


@pytest.mark.parametrize("which", ["imported_onnx", "imported_tflite"])
def test_an_import_is_a_conversion_like_any_other(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    outcome = request.getfixturevalue(which).outcome
    conversion = read_conversion(outcome.out)
    assert conversion == outcome.conversion
    assert {item.scheme for item in conversion.artifacts.values()} >= {"fp32", "static_wi8_ai8"}
    assert (outcome.out / "report.html").is_file()
    manifest = create_release(outcome.out, tmp_path / "r", name="net", version="1")
    assert manifest.ladders == conversion.ladders
    assert "noise" not in conversion.provenance["verified-on"]


@pytest.mark.parametrize("which", ["imported_onnx", "imported_tflite"])
def test_int8_is_int8_and_close_to_the_original(which: str, request: pytest.FixtureRequest) -> None:
    outcome = request.getfixturevalue(which).outcome
    by_scheme = {item.scheme: item for item in outcome.measured}
    int8 = by_scheme["static_wi8_ai8"]
    assert {spec.dtype for spec in (*int8.inputs, *int8.outputs)} == {"int8"}
    assert int8.sqnr_db > 25 and int8.accuracy == 1.0
    assert by_scheme["fp32"].max_output_error == 0.0
    assert by_scheme["wfp16"].sqnr_db > int8.sqnr_db


@pytest.mark.parametrize("which", ["imported_onnx", "imported_tflite"])
def test_golden_vectors_of_an_import_hold(which: str, request: pytest.FixtureRequest) -> None:
    from edge_sdk.runtime.engine import dequantize, quantize, to_layout

    outcome = request.getfixturevalue(which).outcome
    for item in outcome.measured:
        path = outcome.out / "artifacts" / item.path.name
        engine = open_engine(path, format=item.format)
        with np.load(outcome.out / "golden" / item.golden.name) as golden:
            inputs, wanted = golden["input"], golden["output"]
        assert inputs.shape[1:] == (3, 8, 8), "channels first, whatever the file has"
        for one, answer in zip(inputs, wanted, strict=True):
            stored = quantize(to_layout(one[None], item.inputs[0]), item.inputs[0])
            got = dequantize(engine.run([stored])[0], item.outputs[0])
            assert np.abs(got - answer[None]).max() <= item.tolerance[item.runtime]
        engine.close()


def test_without_samples_only_what_needs_none_is_built(tmp_path: Path) -> None:
    imported = run(write_onnx(tmp_path / "m.onnx"), tmp_path / "out")
    assert imported.noise
    assert {item.scheme for item in imported.outcome.measured} == {"fp32", "wfp16"}
    assert "no samples" in imported.left_out["static_wi8_ai8"]


def test_static_int8_without_samples_is_refused_when_asked_for(tmp_path: Path) -> None:
    source = write_onnx(tmp_path / "m.onnx")
    error = refused(source, tmp_path / "out", schemes=("static_wi8_ai8",))
    assert error.code == "conversion.no-calibration"


def test_labels_and_preprocessing_survive_export_and_import(tmp_path: Path) -> None:
    """Notes written into a file are what an import of that file goes by."""
    source = classifier(tmp_path / "m.onnx")
    notes = ModelNotes(name="m", scheme="fp32", labels=("a", "b", "c"), preprocess=GRAY)
    write_notes(source, notes)
    cal = samples(tmp_path / "cal.npz", (1, 6, 6), labels=np.arange(40) % 3)
    imported = run(source, tmp_path / "out", calibration=cal, schemes=("wfp16",))
    task = imported.outcome.conversion.task
    assert (task.kind, task.labels, task.preprocess) == ("classification", ("a", "b", "c"), GRAY)
    assert task.reference_accuracy < 1.0, "scored on the labels that were given"
    for item in imported.outcome.measured:
        read = read_notes(imported.outcome.out / "artifacts" / item.path.name)
        assert read is not None
        assert (read.scheme, read.labels, read.preprocess) == (item.scheme, notes.labels, GRAY)
        assert read.inputs == item.inputs
        assert read.provenance["imported-from"] == "m.onnx"


def test_labels_that_do_not_fit_or_lack_preprocessing_are_refused(tmp_path: Path) -> None:
    source = classifier(tmp_path / "m.onnx")
    wrong = refused(source, tmp_path / "out", described=Described(labels=("a", "b")))
    assert wrong.code == "conversion.labels-mismatch"
    bare = refused(source, tmp_path / "out", described=Described(labels=("a", "b", "c")))
    assert bare.code == "conversion.preprocess-missing"


def test_an_int8_file_is_packed_as_it_is(imported_onnx: Imported, tmp_path: Path) -> None:
    outcome = imported_onnx.outcome
    int8 = next(item for item in outcome.measured if item.scheme == "static_wi8_ai8")
    source = outcome.out / "artifacts" / int8.path.name
    again = run(source, tmp_path / "out").outcome
    assert [item.scheme for item in again.measured] == ["static_wi8_ai8"]
    error = refused(source, tmp_path / "out2", schemes=("wfp16",))
    assert error.code == "conversion.already-quantized"


def test_a_scheme_that_loses_too_much_is_left_out_or_refused(tmp_path: Path) -> None:
    """Calibrated on whispers, int8 clips everything that is spoken aloud."""
    source = write_onnx(tmp_path / "m.onnx", layers=2)
    values = np.random.default_rng(0).normal(size=(32, 3, 8, 8)).astype(np.float32)
    values[::2] *= 1e-3  # every other sample calibrates
    np.savez(tmp_path / "cal.npz", x=values)
    imported = run(source, tmp_path / "out", calibration=tmp_path / "cal.npz")
    assert "static_wi8_ai8" not in {item.scheme for item in imported.outcome.measured}
    assert "below m.onnx at" in imported.left_out["static_wi8_ai8"]
    listed = set(imported.outcome.conversion.files.values())
    lying = {
        f"{f}/{p.name}" for f in ("artifacts", "golden") for p in (tmp_path / "out" / f).iterdir()
    }
    assert listed == lying
    error = refused(
        source,
        tmp_path / "out2",
        calibration=tmp_path / "cal.npz",
        schemes=("static_wi8_ai8",),
    )
    assert isinstance(error, GateError)


def test_open_shapes_are_refused_or_fixed(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    source = save_onnx(
        tmp_path / "m.onnx",
        [helper.make_node("GlobalAveragePool", ["x"], ["y"])],
        [value("x", FLOAT, ["n", 3, "h", "w"])],
        [value("y", FLOAT, ["n", 3, 1, 1])],
    )
    error = refused(source, tmp_path / "out")
    assert error.code == "conversion.dynamic-shape" and "'x'" in error.cause
    for shapes in ({"x": (1, 4, 8, 8)}, {"z": (1, 3, 8, 8)}, {"": (2, 3, 8, 8)}):
        bad = refused(source, tmp_path / "out", shapes=shapes)
        assert bad.code == "conversion.bad-input-shape"
    imported = run(source, tmp_path / "out", shapes={"": (1, 3, 8, 6)}, schemes=("fp32",))
    assert imported.outcome.measured[0].inputs[0].shape == (1, 3, 8, 6)
    assert imported.outcome.measured[0].size == "8x6"


def test_an_output_whose_shape_depends_on_the_data_is_refused(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    source = save_onnx(
        tmp_path / "m.onnx",
        [helper.make_node("NonZero", ["x"], ["y"])],
        [value("x", FLOAT, [1, 4])],
        [value("y", TensorProto.INT64, [2, "n"])],
    )
    assert refused(source, tmp_path / "out").code == "conversion.dynamic-shape"


def test_weights_beside_the_file_are_brought_in_or_missed(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    plain = onnx.load(str(write_onnx(tmp_path / "plain.onnx", layers=2)))
    source = folder / "m.onnx"
    onnx.save_model(
        plain, str(source), save_as_external_data=True, location="w.bin", size_threshold=0
    )
    imported = run(source, tmp_path / "out", schemes=("fp32",))
    artifact = tmp_path / "out" / "artifacts" / imported.outcome.measured[0].path.name
    assert len(inspect_model(artifact).layers) == 2
    (folder / "w.bin").write_bytes((folder / "w.bin").read_bytes()[:-8])
    assert refused(source, tmp_path / "out2").code == "conversion.external-data"
    (folder / "w.bin").unlink()
    assert refused(source, tmp_path / "out2").code == "conversion.external-data"
    model = onnx.load(str(source), load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = "../plain.onnx"
    source.write_bytes(model.SerializeToString())
    assert refused(source, tmp_path / "out2").code == "conversion.external-data"


@pytest.mark.parametrize(
    ("opset", "domain", "code"),
    [
        (6, "", "conversion.unsupported-opset"),
        (99, "", "conversion.unsupported-opset"),
        (17, "my.company", "conversion.unsupported-op"),
    ],
)
def test_what_no_runtime_knows_is_named(tmp_path: Path, opset: int, domain: str, code: str) -> None:
    model = onnx.load(str(write_onnx(tmp_path / "m.onnx")))
    model.opset_import[0].version = opset
    model.graph.node[1].domain = domain
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert refused(tmp_path / "m.onnx", tmp_path / "out").code == code


def test_a_file_over_two_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    source = tmp_path / "big.onnx"
    with source.open("wb") as handle:
        handle.truncate(2 * 1024**3 + 1)  # sparse: takes no disk
    assert refused(source, tmp_path / "out").code == "conversion.too-large"


def test_a_graph_that_asks_for_terabytes_is_refused(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    huge = numpy_helper.from_array(np.array([1 << 40], np.int64), "size")
    source = save_onnx(
        tmp_path / "m.onnx",
        [
            helper.make_node("ConstantOfShape", ["size"], ["big"]),
            helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=1),
            helper.make_node("Add", ["x", "sum"], ["y"]),
        ],
        [value("x", FLOAT, [1, 4])],
        [value("y", FLOAT, [1, 4])],
        [huge],
    )
    error = refused(source, tmp_path / "out")
    assert error.code in ("conversion.not-runnable", "conversion.unreadable-model")


def test_an_examination_that_does_not_end_is_ended(tmp_path: Path) -> None:
    source = write_onnx(tmp_path / "m.onnx")
    error = refused(source, tmp_path / "out", examine_timeout_s=0.01)
    assert error.code == "conversion.child-timeout"


def test_an_unknown_quantization_is_named(tmp_path: Path) -> None:
    """int8 weights behind float inputs: no scheme here has that name."""
    value = helper.make_tensor_value_info
    weights = numpy_helper.from_array(np.ones((4, 2), np.int8), "w")
    scale = numpy_helper.from_array(np.float32(0.1), "s")
    zero = numpy_helper.from_array(np.int8(0), "z")
    source = save_onnx(
        tmp_path / "m.onnx",
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["xd"]),
            helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"]),
            helper.make_node("MatMul", ["xd", "wd"], ["y"]),
        ],
        [value("x", FLOAT, [1, 4])],
        [value("y", FLOAT, [1, 2])],
        [weights, scale, zero],
    )
    assert refused(source, tmp_path / "out").code == "conversion.unknown-precision"


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_damaged_files_end_in_an_error_or_a_model(tmp_path: Path, data: st.DataObject) -> None:
    """The parsing half of an examination, without the process around it."""
    source, normalise = damaged(tmp_path, data)
    try:
        normalise(source, tmp_path / "target", {})
        inspect_model(source)
    except ConversionError:
        return
    except (MemoryError, RecursionError, UnicodeDecodeError, OverflowError, RuntimeError):
        return  # the worker turns what libraries raise into unreadable-model


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_damaged_files_never_take_the_importer_with_them(
    tmp_path: Path, data: st.DataObject
) -> None:
    source, _ = damaged(tmp_path, data)
    try:
        run(source, tmp_path / "out", schemes=("fp32",), force=True)
    except EdgeError as error:
        assert error.cause and error.hint


def damaged(folder: Path, data: st.DataObject):
    kind = data.draw(st.sampled_from(["onnx", "tflite"]))
    source = folder / f"m.{kind}"
    if kind == "onnx":
        write_onnx(source, layers=2)
    else:
        write_tflite(source, shape=(1, 6, 6, 3), operator="CONV_2D")
    content = bytearray(source.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    source.write_bytes(content[: data.draw(st.integers(len(content) // 3, len(content)))])
    return source, {"onnx": normalise_onnx, "tflite": normalise_tflite}[kind]


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": np.zeros((4, 8, 8, 3), np.float32)}, "transpose"),
        ({"x": np.zeros((4, 3, 9, 8), np.float32)}, "takes (N, 3, 8, 8)"),
        ({"x": np.full((4, 3, 8, 8), np.nan, np.float32)}, "NaN"),
        ({"x": np.zeros((0, 3, 8, 8), np.float32)}, "[0] samples"),
        ({"x": np.array([["a"]])}, "takes"),
        ({"a": np.zeros(1), "b": np.zeros(1)}, "no array 'x'"),
        ({"x": np.zeros((4, 3, 8, 8), np.float32), "labels": np.zeros(3, int)}, "labels"),
        ({"x": np.array([None] * 4)}, "no readable"),
    ],
)
def test_samples_that_do_not_fit_say_why(tmp_path: Path, arrays: dict, says: str) -> None:
    inputs = inspect_model(write_onnx(tmp_path / "m.onnx", size_px=8)).inputs
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(ConversionError) as caught:
        read_samples(tmp_path / "s.npz", inputs)
    assert caught.value.code == "conversion.bad-samples"
    assert says in caught.value.cause


@given(st.binary(max_size=400))
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_as_samples_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.npz").write_bytes(content)
    with pytest.raises(ConversionError, match="bad-samples"):
        read_samples(tmp_path / "s.npz", ())


def test_calibration_and_verification_do_not_share_samples(tmp_path: Path) -> None:
    inputs = inspect_model(write_onnx(tmp_path / "m.onnx", size_px=8)).inputs
    given_ = read_samples(samples(tmp_path / "s.npz", (3, 8, 8)), inputs)
    fit, held = given_.calibration()[0], given_.held_out().arrays[0]
    assert len(fit) == len(held) == 20
    assert not any(np.array_equal(a, b) for a in fit for b in held)


def test_from_the_shell(tmp_path: Path) -> None:
    source = write_onnx(tmp_path / "m.onnx")
    cal = samples(tmp_path / "cal.npz", (3, 8, 8))
    arguments = [*("-o", str(tmp_path / "out")), *("--calibration", str(cal)), *("-p", "rpi4")]
    done = CliRunner().invoke(command, ["import", str(source), *arguments, "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert {row["scheme"] for row in document["result"]["artifacts"]} >= {"fp32", "static_wi8_ai8"}
    assert any("release create" in step for step in document["next"])
    shown = CliRunner().invoke(command, ["import", str(source), *arguments, "--schemes", "wfp16"])
    assert "SQNR" in shown.stdout and "left out" not in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (["none.onnx"], "conversion.file-missing", 4),
        (["FILE", "--input-shape", "big"], "usage.bad-input-shape", 2),
        (["FILE", "--mean", "a"], "usage.bad-preprocess", 2),
        (["FILE", "--mean", "1,2"], "usage.bad-preprocess", 2),
        (["FILE", "--std", "0"], "usage.bad-preprocess", 2),
        (["FILE", "--labels", "none.txt"], "conversion.bad-labels", 4),
        (["FILE", "--schemes", "int8"], "conversion.bad-scheme", 4),
        (["FILE", "--calibration", "none.npz"], "conversion.bad-samples", 4),
        (["FILE", "-p", "rpi44"], "profile.unknown", 4),
    ],
)
def test_errors_from_the_shell(
    tmp_path: Path, monkeypatch, arguments: list[str], code: str, exit_code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    write_onnx(tmp_path / "m.onnx")
    given_ = ["m.onnx" if part == "FILE" else part for part in arguments]
    done = CliRunner().invoke(command, ["import", *given_, "--json"])
    assert done.exit_code == exit_code, done.output
    assert json.loads(done.stdout)["error"]["code"] == code
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def classifier(path: Path) -> Path:
    value = helper.make_tensor_value_info
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.normal(size=(36, 3)).astype(np.float32), "w"),
        numpy_helper.from_array(np.zeros(3, np.float32), "b"),
    ]
    return save_onnx(
        path,
        [
            helper.make_node("Flatten", ["x"], ["f"]),
            helper.make_node("Gemm", ["f", "w", "b"], ["y"]),
        ],
        [value("x", FLOAT, [1, 1, 6, 6])],
        [value("y", FLOAT, [1, 3])],
        weights,
    )

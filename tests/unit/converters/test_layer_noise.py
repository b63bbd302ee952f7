"""Which layer of a quantized file loses the signal: measured, and named when a gate fails."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from converters.convert import Outcome
from converters.importing import ImportOptions, import_model
from converters.layer_noise import layer_noise, sqnr_of
from converters.measure import MAX_SQNR_DB
from edge_sdk.cli.model import command
from edge_sdk.errors import GateError
from tests.fakes.models import save_onnx

FLOAT = TensorProto.FLOAT


def three_layers(path: Path) -> Path:
    """Three matrix products named a, b, c."""
    random = np.random.default_rng(0)
    value = helper.make_tensor_value_info
    weights, nodes, name = [], [], "x"
    for layer in "abc":
        matrix = random.normal(0, 0.3, (16, 16)).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"{layer}.weight"))
        bias = np.zeros(16, np.float32)
        weights.append(numpy_helper.from_array(bias, f"{layer}.bias"))
        last = "y" if layer == "c" else f"{layer}_out"
        inputs = [name, f"{layer}.weight", f"{layer}.bias"]
        nodes.append(helper.make_node("Gemm", inputs, [last], name=f"node_{layer}"))
        name = last
    return save_onnx(
        path, nodes, [value("x", FLOAT, [1, 16])], [value("y", FLOAT, [1, 16])], weights
    )


def calibration(path: Path) -> Path:
    values = np.random.default_rng(1).normal(size=(64, 16)).astype(np.float32)
    values[:, 0] = 0.0
    np.savez(path, x=values)
    return path


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@pytest.mark.parametrize("scheme", ["static_wi8_ai8", "wfp16"])
def test_every_layer_of_a_real_file_is_measured(
    tiny_conversion: Outcome, kind: str, scheme: str
) -> None:
    folder = tiny_conversion.out / "artifacts"
    source = folder / f"tiny-24x24-fp32.{kind}"
    with np.load(tiny_conversion.out / "golden" / f"{source.name}.npz") as golden:
        samples = golden["input"]
    found = layer_noise(folder / f"tiny-24x24-{scheme}.{kind}", source, samples)
    assert {layer.name for layer in found} >= {"body.0", "body.3"}
    assert [layer.sqnr_db for layer in found] == sorted(layer.sqnr_db for layer in found)
    low, high = (15, 70) if scheme == "static_wi8_ai8" else (50, MAX_SQNR_DB)
    assert all(low < layer.sqnr_db <= high for layer in found), found


def test_a_file_against_itself_has_no_noise(tmp_path: Path) -> None:
    source = three_layers(tmp_path / "m.onnx")
    samples = np.random.default_rng(0).normal(size=(4, 16)).astype(np.float32)
    found = layer_noise(source, source, samples, exported=False)
    assert {layer.name for layer in found} == {"a", "b", "c"}
    assert {layer.sqnr_db for layer in found} == {MAX_SQNR_DB}


def test_a_failed_gate_names_the_layers_with_the_most_noise(tmp_path: Path) -> None:
    """Weights of one layer are pulled apart per tensor, so that its int8 grid has no steps left."""
    source = three_layers(tmp_path / "m.onnx")
    model = onnx.load(str(source))
    for tensor in model.graph.initializer:
        if tensor.name == "b.weight":
            matrix = numpy_helper.to_array(tensor).copy()
            matrix[3, :] = 3000.0  # per channel the same: every column's grid is coarse
            tensor.CopyFrom(numpy_helper.from_array(matrix, tensor.name))
        if tensor.name == "a.weight":
            matrix = numpy_helper.to_array(tensor).copy()
            matrix[:, 3] = 0.0  # what b's wild row reads is always zero
            tensor.CopyFrom(numpy_helper.from_array(matrix, tensor.name))
    onnx.save(model, str(source))
    options = ImportOptions(
        calibration=calibration(tmp_path / "cal.npz"), schemes=("static_wi8_ai8",)
    )
    with pytest.raises(GateError) as caught:
        import_model(source, ["jetson-orin-nano"], tmp_path / "out", options=options)
    assert caught.value.code == "gate.accuracy-drop"
    assert "most noise: " in caught.value.cause
    named = caught.value.cause.partition("most noise: ")[2]
    assert named.startswith(("b (", "c (")) and "b (" in named
    assert not (tmp_path / "out").exists()


def test_the_command_lists_the_worst_first(tiny_conversion: Outcome) -> None:
    arguments = ["layers", str(tiny_conversion.out), "--scheme", "static_wi8_ai8", "--json"]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)["result"]
    assert len(result) == 4
    for rows in result.values():
        assert rows == sorted(rows, key=lambda row: row["sqnr_db"])
        assert len(rows) >= 2
    none = CliRunner().invoke(command, ["layers", str(tiny_conversion.out), "--scheme", "x"])
    assert none.exit_code == 2


@given(st.floats(0, 1e20), st.floats(0, 1e20))
def test_decibels_stay_within_bounds(signal: float, noise: float) -> None:
    assert -MAX_SQNR_DB <= sqnr_of(signal, noise) <= MAX_SQNR_DB
    if noise:
        assert sqnr_of(signal, noise) >= sqnr_of(signal, noise * 2)

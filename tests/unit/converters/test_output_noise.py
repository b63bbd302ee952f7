"""Several outputs: each has its own noise, in the report and where a gate fails."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from converters.gate import check_gate
from converters.importing import ImportOptions, import_model
from converters.measure import MAX_SQNR_DB, sqnr_by_output, sqnr_db
from edge_sdk.errors import GateError
from tests.fakes.measured import measured
from tests.fakes.models import save_onnx

FLOAT = TensorProto.FLOAT


@pytest.fixture
def two_heads(tmp_path: Path) -> Path:
    """``calm`` keeps to its range; ``wild`` grows with a feature that calibration never shows."""
    random = np.random.default_rng(0)
    value = helper.make_tensor_value_info
    outer, nodes, weights = [], [], []
    for name in ("wild", "calm"):
        matrix = random.normal(0, 0.3, (8, 8)).astype(np.float32)
        matrix[0] = 40.0 if name == "wild" else 0.0
        weights.append(numpy_helper.from_array(matrix, f"{name}.weight"))
        weights.append(numpy_helper.from_array(np.zeros(8, np.float32), f"{name}.bias"))
        inputs = ["x", f"{name}.weight", f"{name}.bias"]
        nodes.append(helper.make_node("Gemm", inputs, [name], name=f"node_{name}"))
        outer.append(value(name, FLOAT, [1, 8]))
    return save_onnx(tmp_path / "heads.onnx", nodes, [value("x", FLOAT, [1, 8])], outer, weights)


def given_samples(path: Path, spread: float) -> Path:
    values = np.random.default_rng(1).normal(size=(64, 8)).astype(np.float32)
    values[::2, 0] *= spread  # every other sample calibrates
    np.savez(path, x=values)
    return path


def test_a_failed_gate_names_the_noise_of_each_output(two_heads: Path, tmp_path: Path) -> None:
    options = ImportOptions(
        calibration=given_samples(tmp_path / "cal.npz", 0.01), schemes=("static_wi8_ai8",)
    )
    with pytest.raises(GateError) as caught:
        import_model(two_heads, ["jetson-orin-nano"], tmp_path / "out", options=options)
    cause = caught.value.cause
    assert "below heads.onnx at" in cause and "PyTorch" not in cause
    assert "qat" not in caught.value.hint, "an imported file cannot be trained"
    shown = cause.partition("by output: ")[2].partition(".\n")[0]
    assert shown.startswith("wild ") and ", calm " in shown
    assert not (tmp_path / "out").exists()


def test_the_report_has_the_noise_of_each_output(two_heads: Path, tmp_path: Path) -> None:
    options = ImportOptions(
        calibration=given_samples(tmp_path / "cal.npz", 1.0),
        schemes=("static_wi8_ai8",),
        max_drop=0.5,
    )
    import_model(two_heads, ["jetson-orin-nano"], tmp_path / "out", options=options)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    by_scheme = {item["scheme"]: item for item in report["artifacts"]}
    noise = by_scheme["static_wi8_ai8"]["output_sqnr_db"]
    assert list(noise) == ["wild", "calm"]
    assert all(15 < decibels < 70 for decibels in noise.values())
    assert min(noise.values()) == by_scheme["static_wi8_ai8"]["sqnr_db"]
    assert set(by_scheme["fp32"]["output_sqnr_db"].values()) == {MAX_SQNR_DB}


def test_one_output_needs_no_list() -> None:
    item = replace(
        measured("static_wi8_ai8", "8x8", "onnx", 0.5, 1.0),
        scheme_drop=0.4,
        output_sqnr_db={"y": 3.0},
    )
    with pytest.raises(GateError) as caught:
        check_gate([item])
    assert "by output" not in caught.value.cause and "below PyTorch" in caught.value.cause
    assert "edge model qat" in caught.value.hint


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_the_worst_output_counts(widths: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    wanted = random.normal(size=(3, sum(widths))).astype(np.float32)
    got = wanted + random.normal(0, 0.1, wanted.shape).astype(np.float32)
    found = sqnr_by_output(got, wanted, widths)
    assert len(found) == len(widths) and min(found) == sqnr_db(got, wanted, widths)
    first = sqnr_by_output(got[:, : widths[0]], wanted[:, : widths[0]])
    assert found[0] == first[0]

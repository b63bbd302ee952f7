"""Comparison with PyTorch, the accuracy gate, golden vectors: pure functions."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.gate import check_gate
from converters.golden import SAMPLES, choose_samples, golden_bytes, tolerances
from converters.measure import compare, is_wrong
from converters.schemes import parse_scheme
from converters.task import top1
from edge_sdk.contracts.operating_point import TensorSpec
from edge_sdk.errors import GateError
from tests.fakes.measured import measured

REFERENCE = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 2.0]], np.float32)


def test_equal_answers_agree() -> None:
    result = compare(REFERENCE, REFERENCE, REFERENCE)
    assert (result.agreement, result.max_output_error, result.distance) == (1.0, 0.0, 0.0)


def test_one_changed_decision_of_four() -> None:
    outputs = REFERENCE.copy()
    outputs[1] = [3.0, 1.0]
    result = compare(outputs, REFERENCE, REFERENCE)
    assert (result.agreement, result.max_output_error) == (0.75, 3.0)


def test_float_artifacts_may_round_but_not_differ() -> None:
    near = compare(REFERENCE + np.float32(1e-5), REFERENCE, REFERENCE)
    far = compare(REFERENCE + np.float32(0.5), REFERENCE, REFERENCE)
    assert not is_wrong("fp32", near, REFERENCE)
    assert is_wrong("fp32", far, REFERENCE) and is_wrong("wfp16", far, REFERENCE)
    assert not is_wrong("static_wi8_ai8", far, REFERENCE)  # the gate's business


def test_top1() -> None:
    assert top1(REFERENCE, np.array([0, 1, 0, 0])) == 0.75


def item(drop: float):
    return replace(measured("static_wi8_ai8", "32x32", "onnx", 0.9, 0.1), scheme_drop=drop)


def test_the_gate_opens_at_its_limit_and_closes_beyond() -> None:
    check_gate([item(0.01), item(-0.02)], max_drop=0.01)
    with pytest.raises(GateError) as caught:
        check_gate([item(0.0), item(0.0101)], max_drop=0.01)
    assert (caught.value.code, caught.value.exit_code) == ("gate.accuracy-drop", 3)
    assert "1.01 points" in caught.value.cause


def test_the_accuracy_gate() -> None:
    with pytest.raises(GateError, match=r"gate\.accuracy-low"):
        check_gate([item(0.0)], min_accuracy=0.9, reference_accuracy=0.6)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60))
def test_golden_samples_cover_as_many_classes_as_they_can(labels: list[int]) -> None:
    chosen = choose_samples(np.array(labels))
    assert len(chosen) == len(set(chosen)) == min(SAMPLES, len(labels))
    assert len({labels[index] for index in chosen}) == min(SAMPLES, len(set(labels)))
    assert choose_samples(np.array(labels)) == chosen


def test_golden_vectors_are_reproducible_and_complete() -> None:
    inputs, outputs = np.ones((2, 1, 4, 4), np.float32), np.ones((2, 3), np.float64)
    data = golden_bytes(inputs, outputs.astype(np.float32))
    assert data == golden_bytes(inputs, outputs.astype(np.float32))
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        assert sorted(arrays) == ["input", "output"]
        assert arrays["output"].dtype == np.float32


def test_tolerances_follow_the_output() -> None:
    stepped = TensorSpec(name="y", dtype="int8", shape=(1, 3), layout="NC", scale=0.5, zero_point=0)
    plain = TensorSpec(name="y", dtype="float32", shape=(1, 3), layout="NC")
    int8, fp32 = parse_scheme("static_wi8_ai8"), parse_scheme("fp32")
    assert tolerances("onnx", int8, [stepped], REFERENCE) == {"onnxruntime": 1.0}
    assert tolerances("tflite", int8, [stepped], REFERENCE) == {
        "litert": 1.0,
        "tflite-runtime": 5.0,
    }
    assert tolerances("onnx", fp32, [plain], REFERENCE * 100)["onnxruntime"] == pytest.approx(0.2)
    dynamic = tolerances("onnx", parse_scheme("dynamic_wi8_afp32"), [plain], REFERENCE)
    assert dynamic["onnxruntime"] > tolerances("onnx", fp32, [plain], REFERENCE)["onnxruntime"]


@pytest.mark.parametrize("size", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("scheme", ["fp32", "wfp16", "dynamic_wi8_afp32", "static_wi8_ai8"])
def test_golden_vectors_notice_a_runtime_that_is_silently_wrong(scheme: str, size: float) -> None:
    """tflite-runtime 2.14 answers dynamic int8 layers with 0 to 8 dB of signal to noise."""
    random = np.random.default_rng(0)
    outputs = (size * random.normal(size=(64, 10))).astype(np.float32)
    scale = float(np.ptp(outputs)) / 255 if scheme.startswith("static") else None
    dtype = "int8" if scale else "float32"
    spec = TensorSpec(name="y", dtype=dtype, shape=(1, 10), layout="NC", scale=scale)
    limit = tolerances("tflite", parse_scheme(scheme), [spec], outputs)["tflite-runtime"]
    noise = float(outputs.std()) * 10 ** (-8 / 20)
    wrong = outputs[:SAMPLES] + random.normal(0, noise, (SAMPLES, 10))
    assert np.abs(wrong - outputs[:SAMPLES]).max() > 2 * limit

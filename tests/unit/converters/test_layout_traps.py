"""Channels first or last: golden vectors must come out right, and must notice the wrong one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converters.importing import ImportOptions, import_model
from edge_sdk.runtime.engine import Array, to_layout
from edge_sdk.runtime.negotiate import open_engine
from tests.fakes.models import write_tflite


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 3, 6, 6), "NCHW"),  # PyTorch exports that keep their layout in a TFLite file
        ((1, 3, 3, 3), "NHWC"),  # ambiguous by shape: the format's custom decides
    ],
)
def test_golden_vectors_hold_in_the_files_layout_and_in_no_other(
    tmp_path: Path, shape: tuple[int, ...], layout: str
) -> None:
    """The file adds another constant to every element, so that every permutation shows."""
    source = write_tflite(tmp_path / "m.tflite", shape=shape)
    options = ImportOptions(schemes=("fp32",))
    outcome = import_model(source, ["rpi4"], tmp_path / "out", options=options).outcome
    (item,) = outcome.measured
    assert item.inputs[0].layout == layout
    with np.load(tmp_path / "out" / "golden" / item.golden.name) as golden:
        inputs, wanted = golden["input"], golden["output"]
    engine = open_engine(tmp_path / "out" / "artifacts" / item.path.name, format="tflite")

    def error(stored: Array) -> float:
        got = np.array(engine.run([np.ascontiguousarray(stored, np.float32)])[0])
        return float(np.abs(got - wanted[:1]).max())

    right = to_layout(inputs[:1], item.inputs[0])
    assert error(right) <= item.tolerance["litert"]
    confused = right.transpose(0, 3, 1, 2).reshape(shape)
    assert error(confused) > 10 * item.tolerance["litert"]
    engine.close()

"""Golden vectors of artifacts with several inputs and outputs, made and tested for real."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from agent.pipelines.vision import check_specs
from agent.worker.golden import largest_error, read_vectors
from converters.golden import golden_bytes
from edge_sdk.contracts.manifest import Artifact
from edge_sdk.errors import ContractError
from edge_sdk.runtime.engine import Engine
from edge_sdk.runtime.negotiate import open_engine

Case = tuple[Engine, Artifact]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """sum = a + b, product = a * b, with b in whole numbers."""
    floats, wholes = TensorProto.FLOAT, TensorProto.INT64
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["input_1"], ["b"], to=floats),
            helper.make_node("Add", ["input_0", "b"], ["output_0"]),
            helper.make_node("Mul", ["input_0", "b"], ["output_1"]),
        ],
        "two",
        [
            helper.make_tensor_value_info("input_0", floats, (1, 3)),
            helper.make_tensor_value_info("input_1", wholes, (1, 3)),
        ],
        [
            helper.make_tensor_value_info("output_0", floats, (1, 3)),
            helper.make_tensor_value_info("output_1", floats, (1, 3)),
        ],
    )
    opsets = [helper.make_opsetid("", 18)]
    path = tmp_path / "two.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), str(path))
    engine = open_engine(path, format="onnx")
    artifact = Artifact(
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        format="onnx",
        runtime="onnxruntime",
        scheme="fp32",
        height_px=1,
        width_px=1,
        inputs=tuple(engine.inputs),
        outputs=tuple(engine.outputs),
        golden="0" * 64,
        tolerance={"onnxruntime": 1e-5},
    )
    return engine, artifact


def vectors() -> tuple[list[np.ndarray], list[np.ndarray]]:
    random = np.random.default_rng(0)
    a = random.normal(size=(4, 3)).astype(np.float32)
    b = random.integers(-9, 9, (4, 3)).astype(np.float32)
    return [a, b], [a + b, a * b]


def test_right_answers_pass_and_wrong_ones_show_their_error(case: Case) -> None:
    engine, artifact = case
    check_specs(engine, artifact, single=False)
    inputs, outputs = vectors()
    good = read_vectors(golden_bytes(inputs, outputs), artifact)
    assert largest_error(engine, artifact, good) < 1e-5
    outputs[1][2, 1] += 0.5
    bad = read_vectors(golden_bytes(inputs, outputs), artifact)
    assert math.isclose(largest_error(engine, artifact, bad), 0.5, rel_tol=1e-4)


def test_vectors_that_do_not_belong_are_refused(case: Case) -> None:
    _, artifact = case
    inputs, outputs = vectors()
    broken = [
        (inputs[:1], outputs),
        (inputs, outputs[:1]),
        (inputs, [outputs[0], outputs[1][:2]]),
        ([inputs[0], inputs[1][:, :2]], outputs),
        (inputs, [outputs[0], outputs[1][:, :2]]),
        (inputs, [outputs[0], outputs[1] * np.nan]),
        ([part[:0] for part in inputs], [part[:0] for part in outputs]),
    ]
    for arrays in broken:
        with pytest.raises(ContractError) as caught:
            read_vectors(golden_bytes(*arrays), artifact)
        assert caught.value.code == "contract.bad-golden"


def test_a_vision_pipeline_still_takes_exactly_one(case: Case) -> None:
    with pytest.raises(ContractError, match="exactly one"):
        check_specs(*case)

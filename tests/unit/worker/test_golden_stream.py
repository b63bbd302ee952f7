"""A hundred steps in a row: right steps alone do not make a right stream."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from agent.worker.golden import read_vectors
from agent.worker.golden_stream import stream_problem
from agent.worker.points import Points
from edge_sdk.contracts.manifest import Artifact
from edge_sdk.contracts.operating_point import TensorSpec
from edge_sdk.runtime.engine import Array
from tests.fakes.classifiers import PROFILE
from tests.fakes.listeners import make_listening_release

X, S = (
    TensorSpec(name=name, dtype="float32", shape=(1, 1), layout="NC", scale=None, zero_point=None)
    for name in "xs"
)


class InPlace:
    """y = s + x and t = s + x, by a runtime that always answers in the same memory.

    Args:
        clears: it clears its answer before it has read everything.
    """

    runtime, unit = "onnxruntime", "cpu"
    inputs, outputs = (X, S), (X, S)

    def __init__(self, clears: bool) -> None:
        self._clears = clears
        self._answers = [np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32)]

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        if self._clears:
            self._answers[1][:] = 0
        total = inputs[0] + inputs[1]
        self._answers[0][:], self._answers[1][:] = total, total
        return list(self._answers)

    def input_buffer(self, index: int) -> Array:
        return np.zeros((1, 1), np.float32)

    def close(self) -> None:
        """Nothing to free."""


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    (found,) = make_listening_release(tmp_path).manifest.artifacts.values()
    return replace(found, inputs=(X, S), outputs=(X, S), states=((1, 1),))


def test_a_runtime_that_overwrites_what_it_still_reads_is_found_out(artifact: Artifact) -> None:
    inputs = [np.float32([[1], [2], [3]]), np.zeros((3, 1), np.float32)]
    assert stream_problem(InPlace(clears=False), artifact, inputs) == ""
    problem = stream_problem(InPlace(clears=True), artifact, inputs)
    assert problem.startswith("from step 1 of a stream on its states")


def test_a_stream_that_runs_away_is_found_out(artifact: Artifact) -> None:
    inputs = [np.float32([[3e38]]), np.zeros((1, 1), np.float32)]
    with np.errstate(over="ignore"):
        assert "not finite" in stream_problem(InPlace(clears=False), artifact, inputs)


def test_a_network_without_states_has_no_stream(artifact: Artifact) -> None:
    assert stream_problem(InPlace(clears=True), replace(artifact, states=()), []) == ""


def test_real_runtimes_pass(tmp_path: Path) -> None:
    release = make_listening_release(tmp_path)
    points = Points(release.manifest, release.blobs, PROFILE)
    _, artifact, engine = points.open(0)
    vectors = read_vectors(points.blob(artifact.golden), artifact)
    assert stream_problem(engine, artifact, vectors.inputs) == ""
    engine.close()

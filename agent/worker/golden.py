"""The golden test: does every artifact give on this device what it gave on the host?"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from agent.npz import ArchiveError, read_arrays
from agent.pipelines.vision import check_specs
from agent.worker.golden_stream import stream_problem
from agent.worker.points import Points
from agent.worker.protocol import GoldenDone
from edge_sdk.contracts.manifest import Artifact
from edge_sdk.errors import ContractError, EdgeError
from edge_sdk.runtime.engine import Array, Engine, dequantize, quantize, to_layout

MAX_VECTOR_BYTES = 512 * 1024 * 1024
"""Unpacked size of one artifact's golden vectors."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """Inputs and the outputs that belong to them."""

    inputs: tuple[Array, ...]
    """One (N, ...) float32 array per input of the artifact, in its order and the user's layout."""
    outputs: tuple[Array, ...]
    """One (N, ...) float32 array per output, in the artifact's order and layout."""


def golden_test(points: Points, progress: Callable[[int, int], None]) -> GoldenDone:
    """Run the golden vectors of every point of the ladder, most faithful first, until one fails.

    Args:
        points: the release.
        progress: called with the number of points done and of all, after each.

    Raises:
        EdgeError: a blob is missing or damaged, its vectors are malformed, or no runtime loads an
            artifact: the release cannot even be tried.
    """
    passed: dict[tuple[str, int], float] = {}
    largest = 0.0
    runtimes: set[str] = set()
    for index, point in enumerate(points.ladder):
        key = (point.artifact, points.threads(point))
        if key not in passed:
            verdict, runtime = _test_point(points, index)
            if not verdict.ok:
                return verdict
            passed[key] = verdict.max_error
            runtimes.add(runtime)
            largest = max(largest, verdict.max_error)
        progress(index + 1, len(points.ladder))
    detail = (
        f"{len(points.ladder)} operating points pass on {', '.join(sorted(runtimes))}; "
        f"largest output error {largest:.3g}."
    )
    return GoldenDone(ok=True, max_error=largest, detail=detail)


def _test_point(points: Points, index: int) -> tuple[GoldenDone, str]:
    point, artifact, engine = points.open(index)
    verdict = _test(points, point.id, artifact, engine)
    before = points.open_filter(point) if verdict.ok else None
    if before is not None:
        filtered = _test(points, f"{point.id} (its filter)", *before[1:])
        if not filtered.ok or filtered.max_error > verdict.max_error:
            verdict = filtered
    return verdict, engine.runtime


def _test(points: Points, name: str, artifact: Artifact, engine: Engine) -> GoldenDone:
    """The golden test of one artifact, which is closed afterwards."""
    try:
        check_specs(engine, artifact, single=False)
        vectors = read_vectors(points.blob(artifact.golden), artifact)
        try:
            error = largest_error(engine, artifact, vectors)
            broken = stream_problem(engine, artifact, vectors.inputs)
        except EdgeError as problem:
            return _failed(name, math.inf, problem.cause)
        verdict = _judge(name, error, artifact, engine.runtime)
        return _failed(name, error, f"{broken}.") if verdict.ok and broken else verdict
    finally:
        engine.close()


def _judge(point: str, error: float, artifact: Artifact, runtime: str) -> GoldenDone:
    tolerance = artifact.tolerance.get(runtime)
    if tolerance is None:
        known = ", ".join(sorted(artifact.tolerance)) or "none"
        return _failed(point, error, f"the release sets no tolerance for {runtime} (has: {known}).")
    if not error <= tolerance:
        return _failed(
            point, error, f"its outputs on {runtime} are off by {error:.3g}, over {tolerance:.3g}."
        )
    return GoldenDone(ok=True, max_error=error, detail="")


def _failed(point: str, error: float, why: str) -> GoldenDone:
    return GoldenDone(ok=False, max_error=error, detail=f"Operating point {point} fails: {why}")


def largest_error(engine: Engine, artifact: Artifact, vectors: Vectors) -> float:
    """Largest absolute difference of any output element; infinite where one is no number.

    Raises:
        RuntimeUnavailableError: an inference failed.
    """
    largest = 0.0
    for row in range(len(vectors.inputs[0])):
        results = engine.run(
            [
                to_layout(quantize(array[row : row + 1], spec), spec)
                for array, spec in zip(vectors.inputs, artifact.inputs, strict=True)
            ]
        )
        for result, spec, expected in zip(results, artifact.outputs, vectors.outputs, strict=True):
            got = dequantize(result, spec)[0]
            if got.shape != expected[row].shape or not np.isfinite(got).all():
                return math.inf
            largest = max(largest, float(np.abs(got - expected[row]).max(initial=0.0)))
    return largest


def read_vectors(data: bytes, artifact: Artifact) -> Vectors:
    """Golden vectors, checked against the artifact they belong to.

    Args:
        data: a verified ``.npz`` as :attr:`Artifact.golden` describes it.
        artifact: what they were recorded from.

    Raises:
        ContractError: ``contract.bad-golden``.
    """
    names = _names("input", len(artifact.inputs)), _names("output", len(artifact.outputs))
    try:
        arrays = read_arrays(io.BytesIO(data), [*names[0], *names[1]], MAX_VECTOR_BYTES)
    except ArchiveError as error:
        raise _bad(artifact, str(error)) from error
    count = len(np.atleast_1d(arrays[names[0][0]]))
    for name, array in arrays.items():
        if array.dtype != np.float32 or array.ndim < 2:
            raise _bad(artifact, f"{name} is {array.dtype} {array.shape}")
        if not len(array) or len(array) != count:
            raise _bad(artifact, f"{count} inputs and {len(array)} of {name} prove nothing")
    vectors = Vectors(
        tuple(arrays[name] for name in names[0]), tuple(arrays[name] for name in names[1])
    )
    _check_shapes(vectors, artifact)
    return vectors


def _names(stem: str, count: int) -> list[str]:
    return [stem] if count == 1 else [f"{stem}_{index}" for index in range(count)]


def _check_shapes(vectors: Vectors, artifact: Artifact) -> None:
    for array, spec in zip(vectors.inputs, artifact.inputs, strict=True):
        if to_layout(array[:1], spec).shape != spec.shape:
            raise _bad(artifact, "their shapes are not the model's")
        if not np.isfinite(array).all():
            raise _bad(artifact, "they hold values that are not finite")
    for array, spec in zip(vectors.outputs, artifact.outputs, strict=True):
        if array.shape[1:] != spec.shape[1:]:
            raise _bad(artifact, "their shapes are not the model's")
        if not np.isfinite(array).all():
            raise _bad(artifact, "they hold values that are not finite")


def _bad(artifact: Artifact, what: str) -> ContractError:
    return ContractError(
        "bad-golden",
        f"The golden vectors {artifact.golden[:12]} of artifact {artifact.digest[:12]} are "
        f"unusable: {what}.",
        "Convert the model and create the release again.",
    )

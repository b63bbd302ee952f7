"""No file, however damaged, gets past the error family."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.linting import read_graph
from device_profiles.lint import lint
from device_profiles.loader import load_profile
from edge_sdk.errors import ConversionError
from tests.fakes.models import write_onnx, write_tflite

damage = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return {
        "onnx": write_onnx(folder / "m.onnx", layers=2),
        "tflite": write_tflite(folder / "m.tflite"),
    }


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(["onnx", "tflite"]), changes=damage, kept=st.floats(0.05, 1))
def test_damaged_files_are_read_or_refused(
    whole: dict[str, Path], kind: str, changes: list[tuple[float, int]], kept: float
) -> None:
    data = bytearray(whole[kind].read_bytes())
    for at, value in changes:
        data[int(at * len(data))] = value
    path = whole[kind].with_name(f"damaged.{kind}")
    path.write_bytes(bytes(data[: max(8, int(kept * len(data)))]))
    with contextlib.suppress(ConversionError):
        graph = read_graph(path)
        for unit in load_profile("snapdragon-8-gen3").accelerators:
            for limits in unit.constraints:
                found = lint(graph, limits)
                assert len(found.fallback) <= len(graph.nodes)
                assert found.crossing_bytes >= 0

"""What a network costs, read off graphs whose arithmetic is known."""

from __future__ import annotations

import math
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from converters.costs import LayerSize, layer_costs, layer_sizes, total_macs
from converters.schemes import parse_scheme

FLOAT = TensorProto.FLOAT


def graph(path: Path, nodes: list, weights: dict[str, tuple[int, ...]], shape, out) -> Path:
    initializers = [
        helper.make_tensor(name, FLOAT, dims, [0.5] * math.prod(dims))
        for name, dims in weights.items()
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info("y", FLOAT, out)],
        initializers,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)])
    onnx.save(model, str(path))
    return path


def test_a_convolution_takes_in_what_follows_it(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["d"]),
        helper.make_node("Add", ["d", "r"], ["s"]),
        helper.make_node("Relu", ["s"], ["y"]),
    ]
    weights = {"w": (4, 3, 3, 3), "b": (4,), "v": (4, 4, 1, 1)}
    path = graph(tmp_path / "m.onnx", nodes, weights, (1, 3, 8, 8), (1, 4, 8, 8))
    sizes = layer_sizes(path)
    assert [size.kind for size in sizes] == ["dense", "pointwise"]
    assert sizes[0] == LayerSize("dense", 4 * 64 * 27, 4 * 27 + 4, 3 * 64 + 4 * 64)
    assert sizes[1].macs == 4 * 64 * 4
    assert total_macs(sizes) == 4 * 64 * 31


def test_depthwise_pooling_and_linear_layers(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], group=6, strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["y"]),
    ]
    weights = {"w": (6, 1, 3, 3), "v": (6, 10)}
    path = graph(tmp_path / "m.onnx", nodes, weights, (1, 6, 8, 8), (1, 10))
    sizes = layer_sizes(path)
    assert [size.kind for size in sizes] == ["depthwise", "memory", "pointwise"]
    assert [size.macs for size in sizes] == [6 * 16 * 9, 0, 60]
    assert sizes[1].activations == 6 * 16 + 6


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("fp32", 100 * 4 + 50 * 4),
        ("wfp16", 100 * 4 + 50 * 4),
        ("dynamic_wi8_afp32", 100 + 50 * 4),
        ("static_wi8_ai8", 100 + 50),
    ],
)
def test_traffic_follows_the_scheme(scheme: str, expected: int) -> None:
    costs = layer_costs([LayerSize("dense", 7, 100, 50)], parse_scheme(scheme))
    assert (costs[0].macs, costs[0].bytes) == (7, expected)

"""The lint of a neutral graph: exactly the planted violations, parts as a partitioner counts."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from device_profiles.latency import LayerCost
from device_profiles.lint import Graph, Node, Tensor, lint
from edge_sdk.contracts.profile import Constraints

LIMITS = Constraints(
    runtime="npu",
    format="tflite",
    ops=("CONV_2D", "RELU", "Fused*"),
    dtypes=("int8",),
    max_rank=4,
    weight_granularity=("per-tensor",),
    source="a test",
)


def chain(ops: list[str], **changes) -> Graph:
    """A chain of operators; ``changes`` replaces fields of the tensor before the named node."""
    tensors = {
        f"t{i}": Tensor(f"t{i}", "int8", (1, 8, 8, 4), bytes=256) for i in range(len(ops) + 1)
    }
    for name, change in changes.items():
        found = tensors[name]
        values = {field: getattr(found, field) for field in found.__slots__}
        tensors[name] = Tensor(**{**values, **change})
    nodes = tuple(
        Node(f"n{i}", op, f"layer{i}", (f"t{i}",), (f"t{i + 1}",), LayerCost("dense", 1000, 512))
        for i, op in enumerate(ops)
    )
    return Graph("tflite", nodes, tensors, ("t0",), (f"t{len(ops)}",), size_bytes=1000)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["CONV_2D", "RELU", "FusedThing", "ERF", "TOPK"]), min_size=1))
def test_exactly_the_planted_operators_are_found(ops: list[str]) -> None:
    found = lint(chain(ops), LIMITS)
    planted = [f"n{i}" for i, op in enumerate(ops) if op in ("ERF", "TOPK")]
    assert [f.node for f in found.findings] == planted
    assert [f.module for f in found.findings] == [f"layer{name[1:]}" for name in planted]
    assert list(found.fallback) == planted
    assert {f.rule for f in found.findings} <= {"op"}
    runs = "".join("." if op in ("ERF", "TOPK") else "x" for op in ops)
    assert found.partitions == len([part for part in runs.split(".") if part])
    switches = sum(a != b for a, b in zip("." + runs, runs + ".", strict=True))
    assert found.crossing_bytes == 256 * switches
    assert found.clean == (not planted)
    assert len(found.costs) == len(planted)


@settings(deadline=None)
@given(st.integers(0, 5), st.sampled_from(["rank", "static-shape", "dtype"]))
def test_a_planted_tensor_is_found_at_both_its_nodes(at: int, rule: str) -> None:
    change = {
        "rank": {"shape": (1, 1, 8, 8, 4)},
        "static-shape": {"shape": (1, -1, 8, 4)},
        "dtype": {"dtype": "float32"},
    }[rule]
    found = lint(chain(["CONV_2D"] * 5, **{f"t{at}": change}), LIMITS)
    assert {f.rule for f in found.findings} == {rule}
    expected = {f"n{i}" for i in (at - 1, at) if 0 <= i < 5}
    assert set(found.fallback) == {f.node for f in found.findings} == expected
    assert all(f"'t{at}'" in f.why for f in found.findings)


def test_a_rank_that_nobody_knows_is_no_static_shape() -> None:
    found = lint(chain(["RELU"], t0={"shape": (), "ranked": False}), LIMITS)
    assert [f.rule for f in found.findings] == ["static-shape"]


def test_granularity_of_constants_only() -> None:
    quantized = {"constant": True, "scales": 8}
    assert [f.rule for f in lint(chain(["RELU"], t0=quantized), LIMITS).findings] == ["granularity"]
    assert lint(chain(["RELU"], t0={"scales": 8}), LIMITS).clean
    assert lint(chain(["RELU"], t0={"constant": True, "scales": 1}), LIMITS).clean


def test_integer_weights_with_float_activations() -> None:
    limits = msgspec.structs.replace(LIMITS, dtypes=("int8", "float32"))
    tensors = {
        "x": Tensor("x", "float32", (1, 4)),
        "w": Tensor("w", "int8", (4, 4), constant=True, scales=1),
        "y": Tensor("y", "float32", (1, 4)),
    }
    node = Node("n", "CONV_2D", "layer", ("x", "w"), ("y",))
    graph = Graph("tflite", (node,), tensors, ("x",), ("y",), 10)
    assert [f.rule for f in lint(graph, limits).findings] == ["hybrid"]
    assert lint(graph, msgspec.structs.replace(limits, hybrid=True)).clean


def test_a_compiler_that_takes_one_part_leaves_the_others() -> None:
    limits = msgspec.structs.replace(LIMITS, max_partitions=1)
    found = lint(chain(["RELU", "ERF", "RELU", "RELU"]), limits)
    assert found.partitions == 1
    assert found.fallback == ("n1", "n2", "n3")
    assert [f.rule for f in found.findings] == ["op", "partition", "partition"]


def test_rules_for_the_whole_model() -> None:
    batch = {"t0": {"shape": (2, 8, 8, 3)}}
    limits = msgspec.structs.replace(LIMITS, batch_one=True, layout="NCHW")
    found = lint(chain(["RELU"], **batch), limits)
    assert {f.rule for f in found.findings} == {"batch", "layout"}
    assert found.fallback == ("n0",), "nothing runs there with another batch"
    small = msgspec.structs.replace(LIMITS, max_model_mib=0.0005)
    assert [f.rule for f in lint(chain(["RELU"]), small).findings] == ["model-size"]
    other = msgspec.structs.replace(LIMITS, format="onnx")
    assert [f.rule for f in lint(chain(["RELU"]), other).findings] == ["format"]


def test_branches_that_are_ready_together_are_one_part() -> None:
    tensors = {n: Tensor(n, "int8", (1, 4), bytes=4) for n in ("in", "a", "b", "c", "out")}
    nodes = (
        Node("left", "RELU", "", ("in",), ("a",)),
        Node("mid", "ERF", "", ("in",), ("b",)),
        Node("right", "RELU", "", ("in",), ("c",)),
        Node("join", "RELU", "", ("a", "b", "c"), ("out",)),
    )
    graph = Graph("tflite", nodes, tensors, ("in",), ("out",), 10)
    assert lint(graph, LIMITS).partitions == 1

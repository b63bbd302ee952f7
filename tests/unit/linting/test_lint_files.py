"""``edge model lint`` on files that real exporters wrote."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from onnx import TensorProto, helper
from torch import nn

from converters.linting import read_graph, scheme_of
from converters.linting.tflite_graph import module_of
from edge_sdk.cli.model_lint import lint
from edge_sdk.errors import ConversionError


class Tiny(nn.Module):
    """A convolution, an operator that NPUs lack, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.odd = nn.Sequential(nn.Conv2d(4, 4, 1))
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.erf(self.odd(self.stem(x))).mean((2, 3)))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lint") / "tiny.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        program = torch.onnx.export(
            Tiny().eval(), (torch.zeros(1, 3, 8, 8),), dynamo=True, verbose=False
        )
    assert program is not None
    program.save(str(path))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(lint, [str(argument) for argument in arguments])


def test_the_planted_operator_and_its_layer_are_named(exported: Path) -> None:
    done = run(exported, "-p", "snapdragon-8-gen3", "--json")
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)["result"]
    (finding,) = found["findings"]
    assert (finding["rule"], finding["op"]) == ("op", "Erf")
    assert "odd" in finding["module"]
    assert found["partitions"] == 2
    assert found["crossing_bytes"] == 2 * 4 * 64 * 4 + 3 * 64 * 4 + 2 * 4
    assert found["cpu"]["high_ms"] > found["cpu"]["low_ms"] > 0
    assert found["transfer_ms"] > 0


def test_strict_is_a_failed_gate(exported: Path) -> None:
    done = run(exported, "-p", "snapdragon-8-gen3", "--strict", "--json")
    assert done.exit_code == 3
    assert json.loads(done.stdout)["error"]["code"] == "gate.lint"
    text = run(exported, "-p", "snapdragon-8-gen3").stdout
    assert "Erf" in text
    assert "2 parts on the accelerator" in text


def test_another_format_than_the_accelerators(exported: Path) -> None:
    assert json.loads(run(exported, "-p", "rpi4-coral", "--json").stdout)["result"] == []
    assert run(exported, "-p", "rpi4-coral", "--strict").exit_code == 3


@pytest.mark.parametrize(
    ("profile", "code"),
    [("rpi4", "profile.no-accelerator"), ("tensor-g4", "profile.no-constraints")],
)
def test_profiles_without_anything_to_check(exported: Path, profile: str, code: str) -> None:
    done = run(exported, "-p", profile, "--json")
    assert done.exit_code == 4
    assert json.loads(done.stdout)["error"]["code"] == code


def test_layers_are_named_with_and_without_the_exporters_metadata(exported: Path) -> None:
    by_op = {node.op: node for node in read_graph(exported).nodes}
    assert by_op["Gemm"].module == "head"
    model = onnx.load(str(exported))
    for node in model.graph.node:
        del node.metadata_props[:]
    bare = exported.with_name("bare.onnx")
    onnx.save(model, str(bare))
    modules = [node.module for node in read_graph(bare).nodes if node.op == "Conv"]
    assert modules == ["stem.0", "odd.0"]
    (erf,) = [node for node in read_graph(bare).nodes if node.op == "Erf"]
    assert erf.module == "after odd.0"


def test_costs_of_nodes(exported: Path) -> None:
    costs = [node.cost for node in read_graph(exported).nodes if node.op == "Conv"]
    assert [cost.macs for cost in costs] == [4 * 64 * 27, 4 * 64 * 4]
    assert [cost.kind for cost in costs] == ["dense", "pointwise"]


def test_operators_between_dequantization_and_quantization_are_integers(tmp_path: Path) -> None:
    parts = [
        helper.make_tensor("scale", TensorProto.FLOAT, (), [0.1]),
        helper.make_tensor("zero", TensorProto.INT8, (), [0]),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "scale", "zero"], ["d"]),
        helper.make_node("Relu", ["d"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "scale", "zero"], ["y"]),
    ]
    shape = (1, 4)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.INT8, shape)],
        [helper.make_tensor_value_info("y", TensorProto.INT8, shape)],
        parts,
    )
    path = tmp_path / "q.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), str(path))
    read = read_graph(path)
    assert {read.tensors[name].dtype for name in ("x", "d", "r", "y")} == {"int8"}
    assert scheme_of(read) == "fp32", "no weighted layer computes in integers"


@pytest.mark.parametrize("content", [b"", b"\x08\x01garbage", b"....TFL3" + b"\xff" * 40])
@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
def test_hostile_files_end_in_the_error_family(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(ConversionError):
        read_graph(path)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("net.Net/torch.nn.modules.conv.Conv2d_stem;1", "stem"),
        ("w.W/m.Net_wrapped/torch.nn.Sequential_features/torch.nn.ReLU_2;;w.W", "features.2"),
        ("serving_default_output_0_output", ""),
        ("", ""),
    ],
)
def test_layer_in_the_name_of_a_tensor(name: str, module: str) -> None:
    assert module_of(name) == module

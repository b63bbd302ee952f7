"""One trained grid, two formats: the same scales in both files and the same answers."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from converters.cache import Cache
from converters.convert import Options
from converters.inspect import check_claim, inspect_model
from converters.qat.parity import onnx_scales, tflite_scales
from converters.qat.prepare import layers_of, ranges_of
from converters.qat.run import QatOutcome, qat
from converters.schemes import parse_scheme
from converters.train import Epoch
from edge_sdk.cli.model import command
from edge_sdk.errors import ConversionError, GateError
from tests.fakes.grids import trained_integers, trained_scales
from tests.fakes.mixed_net import Mixed
from tests.unit.converters.conftest import TINY


@pytest.fixture(scope="module")
def mixed_ref(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A task around the network that has every construct, at one resolution."""
    code = "resolutions = ((16, 16),)\n    def build(self):\n        torch.manual_seed(1)\n"
    source = f"{TINY}\n\n{inspect.getsource(Mixed)}\n\nclass Both(Tiny):\n    {code}"
    path = tmp_path_factory.mktemp("mixed") / "mixed_task.py"
    path.write_text(f"{source}        return Mixed()\n")
    return f"{path}:Both"


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by the conversions of these tests: the float files are the same in all of them."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def outcome(
    mixed_ref: str, cache_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> QatOutcome:
    return qat(
        mixed_ref,
        ["rpi4", "x86-generic"],
        tmp_path_factory.mktemp("qat") / "mixed",
        options=Options(max_drop=0.5),
        epochs=2,
        cache=Cache(cache_folder),
    )


def artifact(outcome: QatOutcome, kind: str) -> Path:
    (item,) = (
        item
        for item in outcome.outcome.measured
        if item.format == kind and item.scheme == "static_wi8_ai8"
    )
    return outcome.outcome.out / "artifacts" / item.path.name


def test_both_files_carry_every_scale_and_integer_that_was_trained(outcome: QatOutcome) -> None:
    assert outcome.trained is not None
    graph = outcome.trained.graph
    scales = trained_scales(graph)
    # Ten activations and six weights; the sum and its concatenation share a range.
    assert len(scales) == len(list(ranges_of(graph))) + len(list(layers_of(graph))) == 10 + 6
    for kind, read in (("onnx", onnx_scales), ("tflite", tflite_scales)):
        path = artifact(outcome, kind)
        assert read(path) == scales
        assert trained_integers(path) == trained_integers(graph)
    (parity,) = outcome.parity
    assert (parity.shared_scales, parity.only_onnx, parity.only_tflite) == (len(scales), 0, 0)


def test_both_formats_answer_alike_to_rounding(outcome: QatOutcome) -> None:
    (parity,) = outcome.parity
    assert parity.largest_lsb <= 2
    assert parity.different_share <= 0.02


def test_the_files_are_int8_throughout(outcome: QatOutcome) -> None:
    for kind in ("onnx", "tflite"):
        path = artifact(outcome, kind)
        check_claim(inspect_model(path), parse_scheme("static_wi8_ai8"), path)
    ops = inspect_model(artifact(outcome, "tflite")).ops
    assert not {"QUANTIZE", "DEQUANTIZE", "SUB"} & set(ops)  # no float island, no BatchNorm left
    assert ops["DEPTHWISE_CONV_2D"] == 3  # the stem has one input channel
    model = onnx.load(str(artifact(outcome, "onnx")))
    assert not any(node.op_type == "BatchNormalization" for node in model.graph.node)
    biases = [tensor for tensor in model.graph.initializer if tensor.name.endswith(".bias.steps")]
    assert biases and all(tensor.data_type == onnx.TensorProto.INT32 for tensor in biases)


def test_the_artifacts_are_the_network_that_was_trained(outcome: QatOutcome) -> None:
    assert outcome.trained is not None
    for item in outcome.outcome.measured:
        if item.scheme == "static_wi8_ai8":
            assert item.accuracy == pytest.approx(outcome.trained.accuracy["16x16"], abs=0.034)


def test_the_command_reports_and_a_refused_gate_keeps_the_training(
    outcome: QatOutcome, mixed_ref: str, cache_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    base = ["qat", mixed_ref, "-o", str(out), "-p", "x86-generic", "--json"]
    base += ["--cache", str(cache_folder)]
    refused = CliRunner().invoke(command, [*base, "--epochs", "1", "--learning-rate", "1"])
    assert refused.exit_code == GateError.exit_code, refused.output
    error = json.loads(refused.stdout)["error"]
    checkpoint = tmp_path / "out.qat.pt"
    assert error["code"] == "gate.accuracy-drop"
    assert f"--checkpoint {checkpoint}" in error["hint"]
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]
    again = CliRunner().invoke(command, [*base, "--checkpoint", str(checkpoint), "--max-drop", "1"])
    assert again.exit_code == 0, again.output
    result = json.loads(again.stdout)["result"]
    assert result["training"] is None
    assert result["parity"][0]["only_onnx"] == 0
    assert (out / "conversion.json").is_file() and (out / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--checkpoint", "none.pt"], "task.weights-missing"),
        (["-w", "none.pt"], "task.weights-missing"),
        (["-p", "rpi44"], "profile.unknown"),
        (["--epochs", "0"], "task.not-trainable"),
        (["--learning-rate", "7"], "usage.bad-rate"),
    ],
)
def test_bad_requests_leave_nothing(
    mixed_ref: str, tmp_path: Path, arguments: list[str], code: str
) -> None:
    done = CliRunner().invoke(
        command, ["qat", mixed_ref, "-o", str(tmp_path / "o"), *arguments, "--json"]
    )
    assert json.loads(done.stdout)["error"]["code"] == code
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_conversion_is_refused_before_training(
    mixed_ref: str, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    said: list[Epoch] = []
    with pytest.raises(ConversionError, match="output-occupied"):
        qat(mixed_ref, ["rpi4"], tmp_path, options=Options(), report=said.append)
    assert said == []
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_interrupted_training_leaves_nothing(mixed_ref: str, tmp_path: Path) -> None:
    def interrupt(epoch: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        qat(mixed_ref, ["rpi4"], tmp_path / "o", options=Options(), report=interrupt)
    assert list(tmp_path.iterdir()) == []

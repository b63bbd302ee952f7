"""Modules that cannot become a file: code, cause, hint and the layer in the user's code."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from converters.convert import convert
from converters.data import calibration_set, evaluation_set
from converters.limits import check_size
from converters.loading import LoadedTask, load_task
from converters.module import build_module, check_examples
from converters.onnx_export import export_onnx
from converters.tflite_export import export_tflite
from edge_sdk.errors import ConversionError, EdgeError, TaskError

# The exporters use deprecated parts of torch; the product runs them in children without warnings.
pytestmark = pytest.mark.filterwarnings("ignore::Warning")

TASK = """
import torch
from torch import nn

{module}

class Bad:
    kind = "generic"
    name = "bad"
    resolutions = ((1, 16),)

    def build(self):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(16, 16), Part()).eval()

    def example_input(self, height, width):
        return {example}

    def calibration(self, height, width):
        yield {data}

    evaluation = calibration
"""
Write = Callable[..., LoadedTask]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(
        forward: str = "return x",
        init: str = "pass",
        example: str = "torch.randn(1, 16)",
        data: str = "torch.randn(4, 16)",
    ) -> LoadedTask:
        module = "\n".join(
            [
                "class Part(nn.Module):",
                "    def __init__(self):",
                "        super().__init__()",
                textwrap.indent(textwrap.dedent(init), " " * 8),
                "    def forward(self, x):",
                textwrap.indent(textwrap.dedent(forward), " " * 8),
            ]
        )
        path = tmp_path / "bad_task.py"
        path.write_text(TASK.format(module=module, example=example, data=data))
        return load_task(f"{path}:Bad")

    return make


def export(task: LoadedTask, kind: str, folder: Path) -> None:
    module = build_module(task, None)
    example = check_examples(task, module, *task.resolutions[0])
    tool = export_onnx if kind == "onnx" else export_tflite
    tool(module, example, folder / f"file.{kind}")


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_control_flow_that_depends_on_values(write: Write, tmp_path: Path, kind: str) -> None:
    task = write("if x.sum() > 0:\n    return x * 2\nreturn x")
    with pytest.raises(ConversionError) as caught:
        export(task, kind, tmp_path)
    assert caught.value.code == "conversion.data-dependent"
    assert "layer '1' (Part, bad_task.py:" in caught.value.cause
    assert "torch.where" in caught.value.hint
    assert not (tmp_path / f"file.{kind}").exists()


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_an_operator_without_translation(write: Write, tmp_path: Path, kind: str) -> None:
    task = write("return torch.linalg.svd(x.reshape(-1, 4, 4))[1]")
    with pytest.raises(ConversionError) as caught:
        export(task, kind, tmp_path)
    assert caught.value.code == "conversion.unsupported-op"
    assert "svd" in caught.value.cause
    assert "layer '1' (Part, bad_task.py:" in caught.value.cause


def test_an_operator_that_converts_but_does_not_load(write: Write, tmp_path: Path) -> None:
    """topk becomes an operator that no TFLite runtime has."""
    task = write("return torch.topk(x, 3).values")
    with pytest.raises(ConversionError) as caught:
        export(task, "tflite", tmp_path)
    assert caught.value.code == "conversion.unsupported-op"
    assert "sort" in caught.value.cause
    assert "layer '1' (Part" in caught.value.cause
    export(task, "onnx", tmp_path)


def test_complex_numbers_are_refused_with_the_way_out(write: Write, tmp_path: Path) -> None:
    """stft does not convert to TFLite; the DFT as a matrix product does, and agrees."""
    stft = "return torch.stft(x, 8, 4, window=torch.hann_window(8), return_complex=True).abs()"
    task = write(stft)
    with pytest.raises(ConversionError) as caught:
        export(task, "tflite", tmp_path)
    assert caught.value.code == "conversion.complex-tensor"
    assert "DFT matrix" in caught.value.hint
    weights = "self.w = nn.Parameter(torch.randn(16, 4, dtype=torch.complex64))"
    with pytest.raises(ConversionError) as caught:
        export(write("return (x.to(torch.complex64) @ self.w).abs()", weights), "tflite", tmp_path)
    assert caught.value.code == "conversion.complex-tensor"


def test_a_dft_as_a_matrix_product_converts(write: Write, tmp_path: Path) -> None:
    from edge_sdk.runtime.negotiate import open_engine

    init = """
        angle = torch.outer(torch.arange(16.0), torch.arange(9.0)) * 2 * torch.pi / 16
        self.register_buffer("real", angle.cos())
        self.register_buffer("imaginary", angle.sin())
    """
    task = write("return ((x @ self.real) ** 2 + (x @ self.imaginary) ** 2 + 1e-9).sqrt()", init)
    export(task, "tflite", tmp_path)
    module = build_module(task, None)
    sample = torch.randn(1, 16)
    engine = open_engine(tmp_path / "file.tflite", format="tflite")
    with torch.inference_mode():
        spectrum = torch.fft.rfft(module[0](sample)).abs()  # type: ignore[operator,index]
    assert abs(engine.run([sample.numpy()])[0] - spectrum.numpy()).max() < 1e-4
    engine.close()


@pytest.mark.parametrize(
    ("init", "forward"),
    [
        ("self.register_buffer('h', torch.zeros(1, 16))", "self.h += x\nreturn x + self.h"),
        ("self.h = None", "self.h = x if self.h is None else self.h + x\nreturn self.h"),
        ("self.h = 0", "self.h += 1\nreturn x"),
    ],
)
def test_a_hidden_state_is_refused_by_name(write: Write, init: str, forward: str) -> None:
    task = write(forward, init)
    with pytest.raises(TaskError) as caught:
        check_examples(task, build_module(task, None), 1, 16)
    assert caught.value.code == "task.stateful-module"
    assert "'1.h'" in caught.value.cause


def test_a_cache_is_no_state(write: Write) -> None:
    task = write("self.n = torch.ones(16)\nreturn x + self.n", "self.n = None")
    assert len(check_examples(task, build_module(task, None), 1, 16)) == 1


def test_randomness_in_evaluation_mode_is_refused(write: Write) -> None:
    task = write("return nn.functional.dropout(x, 0.5)")
    with pytest.raises(TaskError, match=r"self\.training") as caught:
        check_examples(task, build_module(task, None), 1, 16)
    assert caught.value.code == "task.random-output"


@pytest.mark.parametrize(
    ("forward", "what"),
    [
        ("return x.argmax(-1, keepdim=True)", "int64"),
        ("return x.sum()", "sample axis"),
        ("return x / 0", "NaN or infinity"),
        ("return {'a': x}", "dict"),
    ],
)
def test_outputs_that_no_file_can_have(write: Write, forward: str, what: str) -> None:
    task = write(forward)
    with pytest.raises(TaskError, match=what) as caught:
        check_examples(task, build_module(task, None), 1, 16)
    assert caught.value.code == "task.bad-output"


@pytest.mark.parametrize(
    ("data", "code", "what"),
    [
        ("torch.full((4, 16), float('nan'))", "task.bad-batch", "NaN"),
        ("torch.zeros(0, 16)", "task.bad-batch", "empty"),
        ("torch.zeros(4, 15)", "task.bad-batch", r"shape \(4, 15\)"),
        ("torch.zeros(4, 16, dtype=torch.float64)", "task.bad-batch", "float64"),
        ("torch.zeros(4, 16, dtype=torch.complex64)", "task.bad-batch", "real and imaginary"),
        ("(torch.zeros(4, 16), torch.zeros(4, 16))", "task.bad-batch", "1 inputs"),
        ("'text'", "task.bad-batch", "str"),
        ("torch.zeros(4, 16) if height > 1 else 1 / 0", "task.user-code-failed", "ZeroDivision"),
    ],
)
def test_samples_of_the_wrong_kind(write: Write, data: str, code: str, what: str) -> None:
    task = write(data=data)
    for collect in (calibration_set, evaluation_set):
        with pytest.raises(TaskError, match=what) as caught:
            collect(task, 1, 16)
        assert caught.value.code == code


def test_no_samples_at_all(write: Write) -> None:
    with pytest.raises(TaskError) as caught:
        calibration_set(write(data="from iter(())"), 1, 16)
    assert caught.value.code == "task.no-data"


def test_token_ids_too_large_for_a_float_are_refused(write: Write) -> None:
    task = write(example="torch.full((1, 16), 2**24 + 1)")
    with pytest.raises(TaskError, match=r"2\*\*24"):
        calibration_set(task, 1, 16)


def test_more_than_two_gigabytes_are_refused_without_allocating_them() -> None:
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(64, 30_000), nn.Linear(30_000, 30_000))
    with pytest.raises(ConversionError, match="'1'") as caught:
        check_size(module)
    assert caught.value.code == "conversion.too-large"
    assert "3.4 GiB" in caught.value.cause
    with torch.device("meta"):
        shared = nn.Sequential(nn.Linear(15_000, 15_000), nn.Linear(15_000, 15_000))
    shared[1].weight = shared[0].weight  # counted once
    assert check_size(shared) < 2**30


def test_weights_without_values_are_refused(write: Write) -> None:
    task = write(init="self.w = nn.Parameter(torch.empty(4, device='meta'))")
    with pytest.raises(TaskError, match=r"'1.w'") as caught:
        build_module(task, None)
    assert caught.value.code == "task.bad-weights"


def test_a_refused_conversion_leaves_nothing_behind(write: Write, tmp_path: Path) -> None:
    """The whole way, through the child processes; an earlier folder stays as it was."""
    task = write("if x.sum() > 0:\n    return x * 2\nreturn x")
    out = tmp_path / "out"
    with pytest.raises(EdgeError) as caught:
        convert(task.ref, ["rpi4"], out)
    assert caught.value.code == "conversion.data-dependent"
    assert not out.exists()
    assert {path.name for path in tmp_path.iterdir()} <= {"bad_task.py", "__pycache__"}

"""Streaming models over a hundred steps: in both runtimes, and against files that cheat."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from torch import nn

from converters.onnx_export import export_onnx
from converters.stream import (
    STEPS,
    check_streams,
    judge,
    reference_stream,
    run_stream,
    stream_inputs,
)
from edge_sdk.errors import ConversionError
from edge_sdk.runtime.negotiate import open_engine

PAIRS = ((1, 1),)


class Streaming(nn.Module):
    """A recurrent cell: a sample and a state in, an answer and the next state out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Linear(12, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        after = torch.relu(self.mix(torch.cat([x, state], 1)))
        return self.head(after), after


EXAMPLES = (torch.zeros(1, 4), torch.zeros(1, 8))


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return Streaming().eval()


@pytest.fixture(scope="module")
def streaming(module: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stream") / "s.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter uses what torch itself deprecates
        export_onnx(module, EXAMPLES, path)
    return path


@pytest.fixture(scope="module")
def steps() -> np.ndarray:
    samples = np.random.default_rng(0).normal(size=(30, 12)).astype(np.float32)
    return stream_inputs(samples, [(1, 4), (1, 8)], PAIRS)


def measured(path: Path, scheme: str = "fp32"):
    engine = open_engine(path, format="onnx")
    outputs = tuple(engine.outputs)
    engine.close()
    return SimpleNamespace(path=path, format="onnx", scheme=scheme, outputs=outputs)


def changed(source: Path, target: Path, edit) -> Path:
    model = onnx.load(str(source))
    edit(model.graph)
    onnx.save(model, str(target))
    return target


def test_inputs_go_round_the_samples_and_states_start_at_zero(steps: np.ndarray) -> None:
    assert steps.shape == (STEPS, 12)
    assert not steps[:, 4:].any()
    assert np.array_equal(steps[0, :4], steps[30, :4]) and not np.array_equal(steps[0], steps[1])


def test_a_faithful_file_follows_pytorch_for_a_hundred_steps(
    module: nn.Module, streaming: Path, steps: np.ndarray
) -> None:
    wanted = reference_stream(module, steps, EXAMPLES, PAIRS)
    found = run_stream(streaming, "onnx", steps, PAIRS)
    assert found.shape == wanted.shape == (STEPS, 11)
    assert np.abs(found - wanted).max() < 1e-4
    one_by_one = reference_stream(module, steps[:1], EXAMPLES, PAIRS)
    assert np.array_equal(one_by_one, wanted[:1])
    assert not np.allclose(wanted[0], wanted[30]), "the state matters: equal inputs, other answers"


def test_every_artifact_of_a_task_is_streamed(
    module: nn.Module, streaming: Path, steps: np.ndarray
) -> None:
    reached = check_streams(module, EXAMPLES, steps, [measured(streaming)], PAIRS)  # type: ignore[list-item]
    assert reached["s.onnx"] > 80
    assert check_streams(module, EXAMPLES, steps, [measured(streaming)], ()) == {}  # type: ignore[list-item]


def test_a_state_that_is_silently_zero_is_refused(
    module: nn.Module, streaming: Path, steps: np.ndarray, tmp_path: Path
) -> None:
    """Correct on the first step of a stream, wrong ever after."""

    def zero(graph: onnx.GraphProto) -> None:
        name = graph.output[1].name
        for node in graph.node:
            for index, output in enumerate(node.output):
                if output == name:
                    node.output[index] = "true_state"
            for index, given_ in enumerate(node.input):
                if given_ == name:
                    node.input[index] = "true_state"
        graph.initializer.append(numpy_helper.from_array(np.zeros((1, 1), np.float32), "nil"))
        graph.node.append(helper.make_node("Mul", ["true_state", "nil"], [name]))

    path = changed(streaming, tmp_path / "zero.onnx", zero)
    first = run_stream(path, "onnx", steps[:1], PAIRS)
    assert np.allclose(
        first[:, :3], reference_stream(module, steps[:1], EXAMPLES, PAIRS)[:, :3], atol=1e-5
    )
    with pytest.raises(ConversionError, match="stays zero") as caught:
        check_streams(module, EXAMPLES, steps, [measured(path)], PAIRS)  # type: ignore[list-item]
    assert caught.value.code == "conversion.state-frozen"


def test_a_state_that_fades_is_refused(
    module: nn.Module, streaming: Path, steps: np.ndarray, tmp_path: Path
) -> None:
    def fade(graph: onnx.GraphProto) -> None:
        name = graph.input[1].name
        for node in graph.node:
            for index, given_ in enumerate(node.input):
                if given_ == name:
                    node.input[index] = "faded"
        graph.initializer.append(numpy_helper.from_array(np.full((1, 1), 0.3, np.float32), "less"))
        graph.node.insert(0, helper.make_node("Mul", [name, "less"], ["faded"]))

    path = changed(streaming, tmp_path / "fade.onnx", fade)
    with pytest.raises(ConversionError) as caught:
        check_streams(module, EXAMPLES, steps, [measured(path)], PAIRS)  # type: ignore[list-item]
    assert caught.value.code == "conversion.stream-drift"


def test_ends_that_do_not_fit_are_refused(streaming: Path, steps: np.ndarray) -> None:
    with pytest.raises(ConversionError) as caught:
        run_stream(streaming, "onnx", steps, ((1, 0),))
    assert caught.value.code == "conversion.bad-state"


@given(st.integers(0, 2**32 - 1), st.floats(0, 2))
def test_the_verdict_depends_on_noise_alone(seed: int, level: float) -> None:
    random = np.random.default_rng(seed)
    wanted = random.normal(size=(STEPS, 11)).astype(np.float32)
    noise = level * random.normal(size=wanted.shape).astype(np.float32)
    shapes = [(1, 3), (1, 8)]
    try:
        reached = judge("f", "static_wi8_ai8", wanted + noise, wanted, shapes, PAIRS)
    except ConversionError as error:
        assert error.slug == "stream-drift" and level > 0.2
    else:
        assert reached >= 10 and level < 0.5


def test_a_state_that_stands_still_in_pytorch_too_is_no_fault() -> None:
    wanted = np.zeros((STEPS, 11), np.float32)
    wanted[:, :3] = np.random.default_rng(0).normal(size=(STEPS, 3))
    assert judge("f", "fp32", wanted, wanted, [(1, 3), (1, 8)], PAIRS) > 100


TASK = """
import numpy as np
import torch
from torch import nn


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Linear(12, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x, state):
        after = torch.relu(self.mix(torch.cat([x, state], 1)))
        return self.head(after), after


class Stream:
    kind = "generic"
    name = "stream"
    states = ((1, 1),)
    tolerance = 0.3

    def build(self):
        return Cell()

    def example_input(self, height, width):
        return torch.zeros(1, 4), torch.zeros(1, 8)

    def _batch(self, seed):
        random = torch.Generator().manual_seed(seed)
        x = torch.randn(64, 4, generator=random)
        return x, torch.rand(64, 8, generator=random)

    def calibration(self, height, width):
        yield self._batch(1)

    def evaluation(self, height, width):
        yield self._batch(2)
"""


def test_a_streaming_task_converts_to_both_formats_with_its_state_alive(tmp_path: Path) -> None:
    """The conversion itself streams every artifact; here its int8 files once more by hand."""
    from converters.convert import Options, convert

    (tmp_path / "task.py").write_text(TASK)
    outcome = convert(
        f"{tmp_path / 'task.py'}:Stream",
        ["x86-generic", "rpi4"],
        tmp_path / "out",
        options=Options(schemes=("static_wi8_ai8",), max_drop=0.2),
    )
    module = Streaming().eval()
    samples = np.random.default_rng(5).normal(size=(30, 12)).astype(np.float32)
    steps_ = stream_inputs(samples, [(1, 4), (1, 8)], PAIRS)
    wanted = reference_stream(module, steps_, EXAMPLES, PAIRS)
    for item in outcome.measured:
        path = tmp_path / "out" / "artifacts" / item.path.name
        found = run_stream(path, item.format, steps_, PAIRS)
        shapes = [(1, 3), (1, 8)]
        assert judge(path.name, item.scheme, found, wanted, shapes, PAIRS) > 15
    assert {(item.format, item.scheme) for item in outcome.measured} >= {
        (kind, scheme) for kind in ("onnx", "tflite") for scheme in ("fp32", "static_wi8_ai8")
    }


@pytest.mark.parametrize("pairs", [((1, 2),), ((2, 1),), ((0, 1),)])
def test_a_state_that_does_not_fit_the_module_is_refused(
    module: nn.Module, steps: np.ndarray, pairs
) -> None:
    with pytest.raises(ConversionError) as caught:
        reference_stream(module, steps, EXAMPLES, pairs)
    assert caught.value.code == "conversion.bad-state" and str(pairs[0]) in caught.value.cause

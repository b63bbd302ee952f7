"""States that pass through tanh or a sigmoid, whose scale TFLite fixes: a hundred steps each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from converters.calibrate.states import check_states
from converters.inspect import inspect_model, problems_with
from converters.onnx_export import export_onnx
from converters.onnx_quantize import quantize_onnx
from converters.packing import pack, unpack
from converters.schemes import parse_scheme
from converters.settings import Settings
from converters.stream import STEPS, judge, reference_stream, stream_inputs, work
from converters.tflite_export import export_tflite
from converters.tflite_quantize import quantize_tflite

pytestmark = [
    # torch's exporters use what torch itself has deprecated.
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:FutureWarning"),
    # Calibration is the case that keeping all tensors is meant for.
    pytest.mark.filterwarnings("ignore:Warning. Enabling `experimental_preserve_all:UserWarning"),
]

EXPORT = {"onnx": export_onnx, "tflite": export_tflite}
QUANTIZE = {"onnx": quantize_onnx, "tflite": quantize_tflite}


class Cell(nn.Module):
    """Four numbers and a state of eight in, three numbers and the next state out."""

    def __init__(self, gates: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Linear(12, 8 * gates)
        self.head = nn.Linear(8, 3)

    def mixed(self, x: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        return self.mix(torch.cat([x, state], 1))


class Elman(Cell):
    def forward(self, x, state):
        state = torch.tanh(self.mixed(x, state))
        return self.head(state), state


class Sigmoid(Cell):
    def forward(self, x, state):
        state = torch.sigmoid(2 * self.mixed(x, state))
        return self.head(state), state


class Both(Cell):
    """Two operators that each have a fixed scale of their own make one state."""

    def forward(self, x, state):
        first, second = self.mixed(x, state).chunk(2, 1)
        state = torch.cat([torch.tanh(first), torch.sigmoid(second)], 1)
        return self.head(state), state


class Gated(Cell):
    """A GRU."""

    def __init__(self) -> None:
        super().__init__(gates=2)
        self.candidate = nn.Linear(12, 8)

    def forward(self, x, state):
        update, reset = torch.sigmoid(self.mixed(x, state)).chunk(2, 1)
        new = torch.tanh(self.candidate(torch.cat([x, reset * state], 1)))
        state = (1 - update) * new + update * state
        return self.head(state), state


class Long(Cell):
    """An LSTM, with its two states."""

    def __init__(self) -> None:
        super().__init__(gates=4)

    def forward(self, x, state, cell):
        write, keep, value, read = self.mixed(x, state).chunk(4, 1)
        cell = torch.sigmoid(keep) * cell + torch.sigmoid(write) * torch.tanh(value)
        state = torch.sigmoid(read) * torch.tanh(cell)
        return self.head(state), state, cell


class Window(nn.Module):
    """A sliding window of what came out of tanh."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.mix, self.head = nn.Linear(4, 4), nn.Conv1d(4, 8, 6), nn.Linear(8, 3)

    def forward(self, x, window):
        new = torch.tanh(self.inner(x)).unsqueeze(-1)
        window = torch.cat([window[:, :, 1:], new], 2)
        return self.head(torch.relu(self.mix(window)).flatten(1)), window


SHAPES = {Long: [(1, 4), (1, 8), (1, 8)], Window: [(1, 4), (1, 4, 6)]}
CELLS = (Elman, Sigmoid, Both, Gated, Long, Window)


def stream(module: nn.Module, seed: int):
    """Inputs of a hundred steps from a zero state, PyTorch's answers, examples and states."""
    shapes = SHAPES.get(type(module), [(1, 4), (1, 8)])
    pairs = tuple((index, index) for index in range(1, len(shapes)))
    examples = tuple(torch.zeros(shape) for shape in shapes)
    width = sum(int(np.prod(shape)) for shape in shapes)
    random = np.random.default_rng(seed).normal(size=(STEPS, width)).astype(np.float32)
    steps = stream_inputs(random, shapes, pairs)
    return steps, reference_stream(module, steps, examples, pairs), examples, pairs


def calibration(module: nn.Module) -> np.ndarray:
    """A stream with the states as they went in, not only zeros."""
    steps, answers, examples, pairs = stream(module, 1)
    inputs = unpack(steps, [tuple(example.shape) for example in examples])
    outputs = unpack(answers, output_shapes(module, examples))
    for before, after in pairs:
        inputs[before][1:] = outputs[after][:-1]
    return pack(inputs)


def output_shapes(module: nn.Module, examples) -> list[tuple[int, ...]]:
    with torch.inference_mode():
        return [tuple(output.shape) for output in module(*examples)]


def streamed(path: Path, kind: str, steps: np.ndarray, pairs) -> np.ndarray:
    """What the child process of :func:`converters.stream.run_stream` does, in this one."""
    given, outputs = path.with_suffix(".steps.npy"), path.with_suffix(".outputs.npy")
    np.save(given, steps)
    request = {"path": str(path), "format": kind, "pairs": pairs}
    work({**request, "steps": str(given), "outputs": str(outputs)}, lambda text: None)
    return np.load(outputs)


@pytest.fixture(scope="module", params=CELLS, ids=lambda kind: kind.__name__)
def cell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A recurrent module and its float files."""
    module = request.param().eval()
    folder = tmp_path_factory.mktemp("cell")
    for kind, export in EXPORT.items():
        export(module, stream(module, 0)[2], folder / f"float.{kind}")
    return module, folder


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@pytest.mark.parametrize(("scheme", "least_db"), [("static_wi8_ai8", 28), ("static_wi8_ai16", 33)])
def test_a_hundred_steps_follow_pytorch(cell, kind, scheme, least_db, tmp_path: Path) -> None:
    module, folder = cell
    steps, wanted, examples, pairs = stream(module, 2)
    target = tmp_path / f"int.{kind}"
    settings = Settings(states=pairs)
    QUANTIZE[kind](folder / f"float.{kind}", scheme, calibration(module), target, settings)
    check_states(target, pairs)
    assert problems_with(inspect_model(target), parse_scheme(scheme)) == []
    found = streamed(target, kind, steps, pairs)
    shapes = output_shapes(module, examples)
    assert judge(target.name, scheme, found, wanted, shapes, pairs) > least_db


@pytest.mark.parametrize(("scheme", "scale"), [("ai8", 1 / 128), ("ai16", 1 / 32768)])
def test_a_state_from_tanh_has_the_scale_of_tanh_at_both_ends(scheme, scale, tmp_path) -> None:
    module = Elman().eval()
    _, _, examples, pairs = stream(module, 0)
    source, target = tmp_path / "float.tflite", tmp_path / "int.tflite"
    export_tflite(module, examples, source)
    settings = Settings(states=pairs)
    quantize_tflite(source, f"static_wi8_{scheme}", calibration(module), target, settings)
    facts = inspect_model(target)
    before = next(spec for spec in facts.inputs if "args_1" in spec.name)
    after = next(spec for spec in facts.outputs if "output_1" in spec.name)
    for spec in (before, after):
        assert (spec.scale, spec.zero_point) == (scale, 0)

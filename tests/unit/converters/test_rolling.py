"""Steps of a stream get the states that PyTorch leaves there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from converters.loading import load_task
from converters.packing import pack, unpack
from converters.rolling import rolled
from edge_sdk.errors import TaskError


class Sum(nn.Module):
    """The state is the sum so far."""

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * 2, state + x


@pytest.mark.parametrize("count", [12, 10, 3, 1])
def test_states_are_those_of_the_stream_so_far(count: int) -> None:
    x = np.arange(1, count + 1, dtype=np.float32)[:, None]
    rubbish = np.full((count, 1), 99, np.float32)
    shapes = [(1, 1), (1, 1)]
    found = rolled(Sum(), pack([x, rubbish]), [torch.zeros(s) for s in shapes], [(1, 1)], 4)
    same, states = unpack(found, shapes)
    assert np.array_equal(same, x)
    wanted = [x[i - i % 4 : i].sum() for i in range(count)]
    assert states[:, 0].tolist() == wanted


TASK = """
class Task:
    kind = "generic"
    name = "streams"
    states = {states}
    sequence_steps = {steps}
    def build(self): ...
    def example_input(self, height, width): ...
    def calibration(self, height, width): ...
    def evaluation(self, height, width): ...
"""


def loaded(folder: Path, states: str, steps: str) -> int:
    (folder / "task.py").write_text(TASK.format(states=states, steps=steps))
    return load_task(f"{folder / 'task.py'}:Task").sequence_steps


def test_a_task_says_how_long_its_streams_are(tmp_path: Path) -> None:
    assert loaded(tmp_path, "((1, 1),)", "49") == 49


@pytest.mark.parametrize(("states", "steps"), [("()", "4"), ("((1, 1),)", "-1"), ("()", "'4'")])
def test_a_length_without_states_or_of_another_kind_is_refused(
    tmp_path: Path, states: str, steps: str
) -> None:
    with pytest.raises(TaskError, match="sequence_steps"):
        loaded(tmp_path, states, steps)

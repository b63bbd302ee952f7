"""What a task says about listening and its states reaches the release."""

from __future__ import annotations

from pathlib import Path

import pytest

from converters.folder import artifact_of
from converters.loading import load_task
from converters.results import Measured
from edge_sdk.contracts.audio import FeatureSpec
from edge_sdk.contracts.operating_point import TensorSpec
from edge_sdk.errors import TaskError

TASK = """
from edge_sdk.contracts.audio import FeatureSpec, SoundInfo
class Task:
    kind = "generic"
    name = "listens"
    sound = {sound}
    def build(self): ...
    def example_input(self, height, width): ...
    def calibration(self, height, width): ...
    def evaluation(self, height, width): ...
"""


def task(folder: Path, sound: str) -> str:
    (folder / "task.py").write_text(TASK.format(sound=sound))
    return f"{folder / 'task.py'}:Task"


def test_how_a_network_listens_is_part_of_its_task(tmp_path: Path) -> None:
    code = 'SoundInfo(features=FeatureSpec(bands=20), labels=("yes", "no"))'
    sound = load_task(task(tmp_path, code)).sound
    assert sound is not None
    assert sound.features == FeatureSpec(bands=20)


def test_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="SoundInfo"):
        load_task(task(tmp_path, '"loud"'))


def test_states_are_written_in_the_files_order() -> None:
    """The module's order is told by the numbers in the names; the file may have another one."""

    def specs(*names: str) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(name=name, dtype="float32", shape=(1, 2), layout="NC") for name in names
        )

    item = Measured(
        path=Path("m.tflite"),
        digest="0" * 64,
        size_bytes=1,
        format="tflite",
        scheme="fp32",
        height_px=1,
        width_px=1,
        inputs=specs("args_2", "args_0", "args_1"),
        outputs=specs("output_1", "output_2", "output_0"),
        accuracy=1.0,
        accuracy_drop=0.0,
        scheme_drop=0.0,
        agreement=1.0,
        max_output_error=0.0,
        distance=0.0,
        latency={},
        memory_mib=0.0,
        golden=Path("g.npz"),
        golden_digest="1" * 64,
        tolerance={},
    )
    # Module: input 1 continues output 1, input 2 continues output 2.
    assert artifact_of(item, ((1, 1), (2, 2))).states == ((2, 0), (0, 1))

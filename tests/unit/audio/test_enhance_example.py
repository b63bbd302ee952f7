"""The example's task says truly what its network takes, remembers and gives."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from converters.loading import load_task
from edge_sdk.contracts.audio import EnhanceSpec
from tests.source_walk import ROOT
from tests.unit.audio.test_features import noise, tone

FOLDER = ROOT / "examples" / "enhance"
NAMES = ("task", "train", "enhance_data")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The task's module, whose speech is a few tones."""
    monkeypatch.syspath_prepend(str(FOLDER))
    kept = {name: sys.modules.pop(name, None) for name in NAMES}
    import task

    monkeypatch.setattr(task, "speech", lambda count, seed: [tone(200.0, 1.5), tone(300.0)])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield task
    torch.set_num_threads(threads)
    for name in NAMES:
        sys.modules.pop(name, None)
        if (before := kept[name]) is not None:
            sys.modules[name] = before


def test_states_come_back_where_they_left(example: ModuleType) -> None:
    found = load_task(f"{FOLDER / 'task.py'}:Enhance")
    assert found.enhance == EnhanceSpec()
    network, inputs = found.task.build().eval(), found.task.example_input(1, 1)
    with torch.inference_mode():
        outputs = network(*inputs)
    assert outputs[0].shape == (1, 2, 1, EnhanceSpec().bands)
    assert {before for before, _ in found.states} == set(range(1, len(inputs)))
    for before, after in found.states:
        assert inputs[before].shape == outputs[after].shape


def test_samples_follow_on_each_other(example: ModuleType) -> None:
    streams = list(example.Enhance().calibration(1, 1))
    for stream in streams:
        assert stream[0].shape == (example.STEPS, 3, 1, EnhanceSpec().bands)
        assert len({len(one) for one in stream}) == 1
        assert torch.isfinite(stream[0]).all()
    assert not torch.equal(streams[0][0], streams[1][0])


def test_training_writes_weights_that_the_task_takes(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import train

    monkeypatch.setattr(train, "speech", lambda count, seed: [tone(200.0, 1.5), noise(1.0)])
    monkeypatch.setattr(train, "recorded_noise", list)
    monkeypatch.setattr(train, "BATCH", 2)
    monkeypatch.setattr(train, "SIZE", 2560)
    weights = tmp_path / "out.pt"
    train.main(["-o", str(weights), "--minutes", "0.01"])
    example.Enhance().build().load_state_dict(torch.load(weights, weights_only=True))
    again = train.spoken(weights.with_suffix(".speech.npz"), 2, 0)
    assert [len(one) for one in again] == [24000, 16000]
    assert np.allclose(again[0], tone(200.0, 1.5), atol=1e-4)

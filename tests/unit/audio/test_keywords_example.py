"""The example's stream gives, step by step, what its network gives for the whole."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from edge_sdk.audio.wavefile import wave_bytes
from tests.source_walk import ROOT
from tests.unit.audio.test_features import RATE, noise

FOLDER = ROOT / "examples" / "keywords"
NAMES = ("task", "keywords_data")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """The task's module, over a few made-up recordings."""
    for digit in range(10):
        for speaker in ("ann", "bob", "cem"):
            path = tmp_path / f"{digit}_{speaker}_0.wav"
            path.write_bytes(wave_bytes(noise(0.4, digit, 0.2), 8000))
    monkeypatch.setenv("KEYWORDS_CLIPS", str(tmp_path))
    monkeypatch.syspath_prepend(str(FOLDER))
    kept = {name: sys.modules.pop(name, None) for name in NAMES}
    import task

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more are slower on networks so small
    yield task
    torch.set_num_threads(threads)
    for name in NAMES:
        sys.modules.pop(name, None)
        if (before := kept[name]) is not None:
            sys.modules[name] = before


def test_a_hundred_steps_of_the_stream_are_the_whole_network(example: ModuleType) -> None:
    whole, stream = example.Keywords().build().eval(), example.KeywordsStream().build().eval()
    chance = torch.Generator().manual_seed(1)
    for tensor in whole.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=chance) * 0.4 + 0.05)
    stream.load_state_dict(whole.state_dict())
    steps = 120
    frames = torch.randn(1, 40, 2 * steps, generator=chance)
    with torch.inference_mode():
        offline, *_ = whole.network(frames, *whole.network.memories(1))
        memories, found = whole.network.memories(1), []
        for step in range(steps):
            logits, *memories = stream(frames[:, :, 2 * step : 2 * step + 2], *memories)
            found.append(logits)
    assert offline.std() > 0.01, "the answers are not all the same"
    assert torch.allclose(torch.stack(found, 2), offline, rtol=1e-4, atol=1e-4)


def test_its_samples_fit_its_networks(example: ModuleType) -> None:
    task, stream = example.Keywords(), example.KeywordsStream()
    inputs, labels = next(task.evaluation(*task.resolutions[0]))
    assert inputs.shape == (64, 1, 98, 40)
    assert set(labels.tolist()) == set(range(11))
    assert task.build().eval()(inputs).shape == (64, 11)
    batch = next(stream.calibration(1, 1))
    assert [tuple(part.shape[1:]) for part in batch] == [
        tuple(part.shape[1:]) for part in stream.example_input(1, 1)
    ]
    assert len(batch[0]) == stream.sequence_steps
    outputs = stream.build().eval()(*batch)
    assert outputs[0].shape == (49, len(stream.sound.labels))
    assert [tuple(outputs[o].shape) for _, o in stream.states] == [
        tuple(batch[i].shape) for i, _ in stream.states
    ]


def test_held_out_speakers_are_not_trained_on(example: ModuleType) -> None:
    data = sys.modules["keywords_data"]
    assert {clip.held_out for clip in data.clips()} == {True, False}
    assert sum(clip.held_out for clip in data.clips()) == 10


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_espeak_speaks(example: ModuleType) -> None:
    data = sys.modules["keywords_data"]
    samples = data.speak("seven", "en-us", 160, 50)
    assert 0.2 < len(samples) / RATE < 1.5
    assert np.abs(samples).max() > 0.05
    assert len(data.speak("", "en-us", 160, 50)) == 0

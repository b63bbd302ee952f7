"""The example task: real digits, a split that holds, and the bars of the main job."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from converters.convert import Options, convert
from converters.data import calibration_set, evaluation_set
from converters.loading import LoadedTask, load_task
from converters.module import save_weights
from converters.train import train

EXAMPLE = Path(__file__).parents[3] / "examples" / "digits"


@pytest.fixture(scope="module")
def digits() -> Iterator[LoadedTask]:
    yield load_task(f"{EXAMPLE}/task.py:Digits")


@pytest.fixture(scope="module")
def data(digits: LoadedTask) -> ModuleType:
    return importlib.import_module("digits_data")


def test_the_held_out_digits_are_never_trained_or_calibrated_on(data: ModuleType) -> None:
    frames, _ = data.held_out()
    others, _ = data.for_training()
    assert (len(frames), len(others)) == (360, 1437)
    seen = {frame.tobytes() for frame in others}
    twins = sum(frame.tobytes() in seen for frame in frames)
    assert twins == 0


def test_the_split_is_balanced(data: ModuleType) -> None:
    counts = np.bincount(data.held_out()[1], minlength=10)
    assert counts.min() >= 25


def test_inputs_are_what_a_device_makes_of_a_frame(digits: LoadedTask, data: ModuleType) -> None:
    frame = data.held_out()[0][0]
    small = cv2.resize(frame, (24, 24), interpolation=cv2.INTER_LINEAR_EXACT)
    preprocess = digits.preprocess
    expected = (small.astype(np.float32) - preprocess.mean[0]) / preprocess.std[0]
    assert np.array_equal(evaluation_set(digits, 24, 24).inputs[0, 0], expected)
    assert calibration_set(digits, 32, 32).shape == (256, 1, 32, 32)


def test_the_video_shows_the_held_out_digits_in_order(data: ModuleType, tmp_path: Path) -> None:
    sys.path.insert(0, str(EXAMPLE))
    stream = importlib.import_module("digits_video").write_stream(tmp_path / "s.avi", hold=2)
    labels = json.loads(stream.labels.read_text())["labels"]
    frames, classes = data.held_out()
    assert labels == [str(label) for label in classes for _ in range(2)]
    capture = cv2.VideoCapture(str(stream.video))
    read = 0
    for index in range(stream.frames):
        ok, image = capture.read()
        assert ok, index
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(int)
        assert np.abs(grey - frames[index // 2]).mean() < 3
        read += 1
    assert not capture.read()[0]
    capture.release()
    assert read == stream.frames == len(labels) == 720
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.avi", "s.labels.json"]


def test_the_damaged_release_learns_other_labels(data: ModuleType) -> None:
    task = load_task(f"{EXAMPLE}/task.py:DigitsMislabelled").task
    labels = np.arange(10)
    confused = task.targets(labels)
    assert sorted(confused) == list(range(10))
    assert int((confused != labels).sum()) == 6


@pytest.mark.slow
def test_the_bars_of_the_main_job(digits: LoadedTask, tmp_path: Path) -> None:
    """int8 within a percentage point of float, int8 file at most 0.35x of the fp32 file."""
    trained = train(digits, seed=0, epochs=4)
    assert min(trained.accuracy.values()) > 0.9
    save_weights(trained.module, tmp_path / "w.pt")
    options = Options(
        weights=tmp_path / "w.pt", schemes=("static_wi8_ai8",), resolutions=((32, 32), (24, 24))
    )
    outcome = convert(digits.ref, ["rpi4", "x86-generic"], tmp_path / "out", options=options)
    baseline = {(m.format, m.size): m for m in outcome.measured if m.scheme == "fp32"}
    integer = [m for m in outcome.measured if m.scheme == "static_wi8_ai8"]
    assert len(integer) == 4
    for item in integer:
        floating = baseline[item.format, item.size]
        assert item.size_bytes <= 0.35 * floating.size_bytes
        assert floating.accuracy - item.accuracy <= 0.01
        assert item.inputs[0].dtype == item.outputs[0].dtype == "int8"

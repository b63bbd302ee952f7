"""Data of the wrong shape, dtype or content is refused before anything is exported."""

from __future__ import annotations

import pytest

from converters.data import MAX_CALIBRATION, calibration_set, evaluation_set
from converters.loading import load_task
from edge_sdk.errors import TaskError


def test_good_data_is_collected(tiny: str) -> None:
    task = load_task(tiny)
    assert calibration_set(task, 12, 12).shape == (48, 1, 12, 12)
    samples = evaluation_set(task, 24, 24)
    assert samples.inputs.shape == (60, 1, 24, 24)
    assert samples.labels.tolist()[:4] == [0, 1, 2, 0]


def test_endless_calibration_is_bounded(write_task) -> None:
    ref = write_task("def calibration(self, h, w):\n    while True: yield bars(100, h, w, 0)[0]")
    assert len(calibration_set(load_task(ref), 12, 12)) == MAX_CALIBRATION


@pytest.mark.parametrize(
    ("body", "slug", "found"),
    [
        ("yield torch.zeros(4, 3, h, w)", "bad-batch", "(4, 3, 12, 12)"),
        ("yield torch.zeros(4, 1, 99, w)", "bad-batch", "(4, 1, 99, 12)"),
        ("yield torch.zeros(h, w)", "bad-batch", "(12, 12)"),
        ("yield torch.zeros(4, 1, h, w, dtype=torch.float64)", "bad-batch", "float64"),
        ("yield torch.zeros(4, 1, h, w, dtype=torch.uint8)", "bad-batch", "uint8"),
        ("yield torch.full((4, 1, h, w), float('nan'))", "bad-batch", "NaN"),
        ("yield torch.full((4, 1, h, w), float('inf'))", "bad-batch", "infinity"),
        ("yield torch.zeros(0, 1, h, w)", "bad-batch", "empty"),
        ("yield [[1.0]]", "bad-batch", "list"),
        ("return 7", "bad-batch", "int"),
        ("return None", "bad-batch", "NoneType"),
        ("return iter(())", "no-data", "no batch"),
        ("raise KeyError('missing split')", "user-code-failed", "KeyError"),
        ("yield bars(4, h, w, 0)[0]; 1 / 0", "user-code-failed", "ZeroDivisionError"),
    ],
)
def test_bad_calibration_is_refused(write_task, body: str, slug: str, found: str) -> None:
    task = load_task(write_task(f"def calibration(self, h, w):\n    {body}"))
    with pytest.raises(TaskError) as caught:
        calibration_set(task, 12, 12)
    assert caught.value.slug == slug
    assert found in caught.value.cause
    assert "calibration(12, 12)" in caught.value.cause


def test_the_second_batch_is_the_one_named(write_task) -> None:
    body = "yield bars(4, h, w, 0)[0]\n    yield torch.zeros(1)"
    task = load_task(write_task(f"def calibration(self, h, w):\n    {body}"))
    with pytest.raises(TaskError, match="batch 1 of"):
        calibration_set(task, 12, 12)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("yield bars(4, h, w, 0)[0]", "Tensor"),
        ("yield bars(4, h, w, 0)[0], torch.tensor([0, 1, 2])", "(3,)"),
        ("yield bars(4, h, w, 0)[0], torch.tensor([0.0, 1.0, 2.0, 0.0])", "float32"),
        ("yield bars(4, h, w, 0)[0], torch.tensor([0, 1, 2, 3])", "0 to 3"),
        ("yield bars(4, h, w, 0)[0], torch.tensor([-1, 1, 2, 0])", "-1 to 2"),
        ("yield bars(4, h, w, 0)[0], ['left'] * 4", "dtype"),
    ],
)
def test_bad_evaluation_is_refused(write_task, body: str, found: str) -> None:
    task = load_task(write_task(f"def evaluation(self, h, w):\n    {body}"))
    with pytest.raises(TaskError) as caught:
        evaluation_set(task, 12, 12)
    assert caught.value.code == "task.bad-batch"
    assert found in caught.value.cause


def test_plain_lists_of_labels_are_welcome(write_task) -> None:
    task = load_task(
        write_task("def evaluation(self, h, w):\n    yield bars(3, h, w, 0)[0], [0, 1, 2]")
    )
    assert evaluation_set(task, 12, 12).labels.tolist() == [0, 1, 2]

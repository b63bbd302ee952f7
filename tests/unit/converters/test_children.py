"""Native code may crash, hang or lie in its own process; the parent turns it into an error."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from converters.children import Job, run_jobs
from edge_sdk.errors import ConversionError, StorageError, TaskError


def job(folder: Path, behaviour: str, *, name: str = "job", **request: Any) -> Job:
    return Job(
        name=name,
        module="tests.fakes.converter_child",
        request={"behaviour": behaviour, **request},
        folder=folder,
        timeout_s=request.pop("timeout_s", 60.0),
    )


def children_left() -> list[str]:
    """Command lines of our children, without the tracker that multiprocessing keeps for itself."""
    lines = (" ".join(child.cmdline()) for child in psutil.Process().children())
    return [line for line in lines if "resource_tracker" not in line]


def test_answers_come_back_in_order(tmp_path: Path) -> None:
    jobs = [job(tmp_path, "answer", name=f"j{n}", value=n) for n in range(5)]
    steps: list[tuple[str, str]] = []
    answers = run_jobs(jobs, parallel=3, on_step=lambda name, text: steps.append((name, text)))
    assert [answer["answer"] for answer in answers] == [0, 1, 2, 3, 4]
    assert ("j3", "about to answer") in steps


def test_large_answers_are_not_cut(tmp_path: Path) -> None:
    value = "x" * 1_000_000
    assert run_jobs([job(tmp_path, "answer", value=value)], parallel=1)[0]["answer"] == value


@pytest.mark.parametrize(
    ("behaviour", "slug", "words"),
    [
        ("crash", "native-crash", "SIGSEGV"),
        ("die", "child-failed", "an unplanned defect"),
        ("exit", "child-failed", "said on standard output"),
    ],
)
def test_a_child_that_ends_badly(tmp_path: Path, behaviour: str, slug: str, words: str) -> None:
    with pytest.raises(ConversionError) as caught:
        run_jobs([job(tmp_path, behaviour, name="digits.tflite")], parallel=1)
    assert caught.value.slug == slug
    assert words in caught.value.cause
    assert "digits.tflite" in caught.value.cause


def test_an_error_keeps_its_class_and_words(tmp_path: Path) -> None:
    with pytest.raises(TaskError) as caught:
        run_jobs([job(tmp_path, "raise")], parallel=1)
    assert caught.value.as_dict() == {
        "code": "task.bad-batch",
        "cause": "the cause",
        "hint": "the hint",
    }


def test_a_child_that_answers_and_does_not_end_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converters.children.LEAVE_S", 0.5)
    assert run_jobs([job(tmp_path, "linger", value=7)], parallel=1)[0]["answer"] == 7
    assert children_left() == []


def test_a_hanging_child_is_ended(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(ConversionError, match=r"conversion\.child-timeout"):
        run_jobs([job(tmp_path, "hang", timeout_s=1.0)], parallel=1)
    assert time.monotonic() - started < 60
    assert not children_left()


def test_the_first_error_ends_the_others(tmp_path: Path) -> None:
    late = tmp_path / "late"
    jobs = [
        job(tmp_path, "touch", name="slow", path=str(late), seconds=300),
        job(tmp_path, "raise", name="bad"),
    ]
    with pytest.raises(TaskError):
        run_jobs(jobs, parallel=2)
    assert not late.exists()
    assert not children_left()


def test_an_interrupt_ends_every_child(tmp_path: Path) -> None:
    def interrupt(name: str, text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs([job(tmp_path, "hang")], parallel=1, on_step=interrupt)
    assert not children_left()


def test_a_child_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from converters.children import Job, run_jobs\n"
        "request = {'behaviour': 'hang'}\n"
        f"job = Job('j', 'tests.fakes.converter_child', request, Path({str(tmp_path)!r}))\n"
        "run_jobs([job], parallel=1, on_step=lambda job, text: print('running', flush=True))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"running\n"
        (child,) = psutil.Process(parent.pid).children()
        parent.kill()
    psutil.wait_procs([child], timeout=30)
    assert not child.is_running()


def test_errors_are_results_where_the_rest_goes_on(tmp_path: Path) -> None:
    jobs = [
        job(tmp_path, "raise", name="bad"),
        job(tmp_path, "hang", name="late", timeout_s=2.0),
        job(tmp_path, "crash", name="crash"),
        job(tmp_path, "answer", name="good", value=7),
    ]
    done: list[str] = []
    found = run_jobs(
        jobs, parallel=2, keep_going=True, on_done=lambda name, result: done.append(name)
    )
    assert [getattr(answer, "slug", "") for answer in found[:3]] == [
        "bad-batch",
        "child-timeout",
        "native-crash",
    ]
    assert found[3]["answer"] == 7
    assert sorted(done) == ["bad", "crash", "good", "late"]
    assert not children_left()


def test_a_full_disk_in_a_child_is_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        run_jobs([job(tmp_path, "full-disk", place=str(tmp_path / "a.onnx"))], parallel=1)
    assert caught.value.code == "storage.disk-full"
    assert "a.onnx" in caught.value.cause


def test_a_killed_child_hints_at_memory(tmp_path: Path) -> None:
    with pytest.raises(ConversionError) as caught:
        run_jobs([job(tmp_path, "killed")], parallel=1)
    assert caught.value.slug == "native-crash"
    assert "memory" in caught.value.hint


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="the last words"):
        run_jobs([job(tmp_path, "chatter")], parallel=1)


def test_a_job_may_have_any_name(tmp_path: Path) -> None:
    found = run_jobs([job(tmp_path, "answer", name=f"{'x' * 300}/\n", value=1)], parallel=1)
    assert found[0]["answer"] == 1

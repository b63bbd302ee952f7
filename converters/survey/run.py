"""Running a survey: children that go through a list of tasks, restarted after a crash."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from converters.children import Job, run_jobs
from converters.survey.cell import SCHEMES, Cell
from edge_sdk.errors import ConversionError

FORMATS = ("onnx", "tflite")
_FATAL = {"native-crash", "child-timeout", "child-failed"}


def survey(
    tasks: Mapping[str, str],
    folder: Path,
    *,
    formats: Sequence[str] = FORMATS,
    schemes: Sequence[str] = SCHEMES,
    seconds: float = 0.05,
    timeout_s: float = 900.0,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Cell]:
    """Build and verify every task in every format under every scheme.

    Each format has a child process of its own that goes through the tasks. A cell that crashes or
    hangs its child is recorded as such and the child starts again behind it.

    Args:
        tasks: name to ``path.py:Class``.
        folder: for the files built and the cells found; one left by an earlier, interrupted
            survey is continued.
        formats: ``onnx``, ``tflite``.
        schemes: in the order of the table; fp32 is always built.
        seconds: spent on timing each file.
        timeout_s: for one child to get through all tasks.
        progress: told each task as it begins.

    Returns:
        One cell per task, format and scheme, in that order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [(t, f, s) for t in tasks for f in formats for s in schemes]
    for _ in range(len(wanted) + 1):
        open_formats = [
            f for f in formats if any(not _path(folder, *k).exists() for k in wanted if k[1] == f)
        ]
        if not open_formats:
            break
        jobs = [_job(tasks, f, schemes, folder, seconds, timeout_s) for f in open_formats]
        try:
            run_jobs(jobs, parallel=len(jobs), on_step=lambda job, text: progress(f"{job}: {text}"))
        except ConversionError as error:
            if error.slug not in _FATAL or not _blame(folder, wanted, error):
                raise
    return [read_cell(_path(folder, *key)) for key in wanted]


def read_cell(path: Path) -> Cell:
    """A cell as the child left it."""
    return Cell(**json.loads(path.read_text()))


def _job(
    tasks: Mapping[str, str],
    kind: str,
    schemes: Sequence[str],
    folder: Path,
    seconds: float,
    timeout_s: float,
) -> Job:
    return Job(
        name=f"survey {kind}",
        module="converters.survey.worker",
        request={
            "tasks": dict(tasks),
            "format": kind,
            "schemes": list(schemes),
            "folder": str(folder),
            "seconds": seconds,
        },
        folder=folder,
        timeout_s=timeout_s,
        threads=1,
    )


def _blame(folder: Path, wanted: list[tuple[str, str, str]], error: ConversionError) -> bool:
    """Record a child's death for the cells it had begun; False when it had begun none.

    When one child dies the others are ended too; theirs have only to be begun again. The message
    names the format of the child that died.
    """
    found = False
    for key in wanted:
        mark = _path(folder, *key).with_suffix(".begun")
        if mark.exists() and not _path(folder, *key).exists():
            if f"survey {key[1]}" in error.cause:
                cell = Cell(*key, code=error.code, cause=error.cause, hint=error.hint)
                _path(folder, *key).write_text(json.dumps(cell.as_dict()))
                found = True
            mark.unlink()
    return found


def _path(folder: Path, task: str, kind: str, scheme: str) -> Path:
    return folder / f"{task}.{kind}.{scheme}.json"

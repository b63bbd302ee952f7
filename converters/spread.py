"""A matrix of models x profiles: one search per model, several at a time, here or on Ray.

A search takes all profiles of its model at once, for whatever two profiles need is done once; so
the models are what is spread. Every worker uses the same keys: with a cache folder that they
share, nothing is done twice, wherever it ran. On a cluster the tasks' files and the output folder
lie on a shared file system.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from converters.children import Job, child_main, run_jobs
from converters.fit.run import FitOptions
from edge_sdk.errors import ConversionError, EdgeError, UsageError, error_from

LOCAL = "local"
MEMORY_PER_JOB_MIB = 3000
"""A search runs an exporter and a quantizer at a time; see :mod:`converters.memory`."""
SEARCH_TIMEOUT_S = 24 * 3600.0
_OBJECT_STORE_BYTES = 128 * 1024**2
RAY_HINT = "pip install 'edge-sdk[ray]'"


@dataclass(frozen=True, slots=True)
class Cell:
    """One model's row of the matrix; all plain data, to travel between processes."""

    task: str
    """``path.py:Class`` with an absolute path."""
    profiles: tuple[str, ...]
    out: Path
    options: FitOptions
    cache: Path | None
    cache_max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one model."""

    task: str
    result: dict[str, Any] | None
    """:func:`converters.fit.result.fit_data`; None where it failed."""
    unfit: tuple[str, ...]
    """Profiles that nothing fits."""
    error: EdgeError | None = None


Tell = Callable[[str], None]
Answer = dict[str, Any]
"""Of :func:`search_cell`."""


def run_matrix(
    cells: Sequence[Cell],
    *,
    ray: str | None = None,
    workers: int | None = None,
    progress: Tell = lambda text: None,
) -> list[Row]:
    """Search every cell; a failure of one is its row's and ends no other.

    Args:
        cells: one per model.
        ray: None for processes of this machine; ``local`` for a Ray instance that is started for
            this call on the loopback interface; else the address of a running cluster.
        workers: searches at a time on this machine; as memory and cores allow when None.
        progress: told each model when it is done.

    Returns:
        Rows in the order of ``cells``.

    Raises:
        UsageError: ``usage.extra-missing``, ``usage.ray-unreachable``.
    """
    count = min(len(cells), workers or workers_here()) or 1
    if ray is None:
        answers = _on_processes(cells, count, progress)
    else:
        answers = _on_ray(cells, ray, count, progress)
    return [_row(cell, answer) for cell, answer in zip(cells, answers, strict=True)]


def workers_here() -> int:
    """Searches at a time that this machine's cores and memory allow."""
    from converters.memory import ProcSensor

    by_memory = ProcSensor().available_mib() / MEMORY_PER_JOB_MIB
    return max(1, int(min(os.cpu_count() or 1, by_memory)))


def search_cell(cell: Cell) -> Answer:
    """One model's search, in a process of its own.

    Returns:
        ``{"result", "unfit"}`` or ``{"error"}``: an error of ours travels as plain data.
    """
    from converters.cache import DEFAULT_MAX_BYTES, Cache
    from converters.fit.result import fit_data
    from converters.fit.run import fit

    limit = cell.cache_max_bytes or DEFAULT_MAX_BYTES
    try:
        cache = Cache(cell.cache, max_bytes=limit) if cell.cache is not None else None
        found = fit(cell.task, cell.profiles, cell.out, options=cell.options, cache=cache)
    except EdgeError as error:
        return {"error": error.as_dict()}
    return {"result": fit_data(found), "unfit": found.unfit}


def _on_processes(cells: Sequence[Cell], count: int, progress: Tell) -> list[Answer]:
    """One child per cell: one that crashes or is killed takes no other with it."""
    with tempfile.TemporaryDirectory() as scratch:
        jobs = [
            Job(
                name=short_name(cell),
                module="converters.spread",
                request=msgspec.to_builtins(cell, enc_hook=str),
                folder=Path(scratch),
                timeout_s=SEARCH_TIMEOUT_S,
            )
            for cell in cells
        ]
        found = run_jobs(
            jobs,
            parallel=count,
            on_done=lambda job, answer: progress(f"{job} done"),
            keep_going=True,
        )
    return [
        {"error": answer.as_dict()} if isinstance(answer, EdgeError) else answer for answer in found
    ]


def _on_ray(cells: Sequence[Cell], address: str, count: int, progress: Tell) -> list[Answer]:
    answers: dict[int, Answer] = {}
    with _session(address, count) as ray:
        remote = ray.remote(search_cell).options(num_cpus=1, max_retries=1)
        waiting = {remote.remote(cell): index for index, cell in enumerate(cells)}
        while waiting:
            (reference,), _ = ray.wait(list(waiting), num_returns=1)
            index = waiting.pop(reference)
            try:
                answers[index] = ray.get(reference)
            except ray.exceptions.RayError as error:  # the worker died, or a defect of ours
                answers[index] = {"error": _lost(cells[index], error).as_dict()}
            progress(f"{short_name(cells[index])} done")
    return [answers[index] for index in range(len(cells))]


def _lost(cell: Cell, error: Exception) -> EdgeError:
    lines = str(error).strip().splitlines()
    return ConversionError(
        "child-failed",
        f"The search of {short_name(cell)} ended on its Ray worker: "
        f"{lines[-1][:300] if lines else type(error).__name__}",
        "Run the command again without --ray to see whether the model or the cluster is at fault.",
    )


def short_name(cell: Cell) -> str:
    """``file.py:Class`` of a cell's task."""
    return cell.task.rpartition("/")[2]


@contextmanager
def _session(address: str, count: int) -> Iterator[Any]:
    """A connection to Ray that ends with the block; ``local`` starts and stops an instance."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing here reports home
    try:
        ray: Any = import_module("ray")
    except ImportError:
        raise UsageError("extra-missing", "Ray is not installed.", RAY_HINT) from None
    quiet = {"logging_level": "ERROR", "log_to_driver": False, "ignore_reinit_error": False}
    try:
        if address == LOCAL:
            ray.init(
                num_cpus=count,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                _node_ip_address="127.0.0.1",
                **quiet,
            )
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(
            "ray-unreachable",
            f"No Ray at {address}: {str(error).splitlines()[0] if str(error) else 'no answer'}.",
            "Give the address of a running cluster, or --ray local.",
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _row(cell: Cell, answer: Answer) -> Row:
    if "error" in answer:
        return Row(cell.task, None, (), error_from(answer["error"]))
    return Row(cell.task, answer["result"], tuple(answer["unfit"]))


def _search(request: dict[str, Any], step: Tell) -> Answer:
    """Body of a child process, see :mod:`converters.children`."""
    return search_cell(msgspec.convert(request, Cell, dec_hook=lambda kind, value: kind(value)))


if __name__ == "__main__":
    child_main(_search)

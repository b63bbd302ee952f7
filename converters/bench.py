"""Measuring latency in the runtime a device uses."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from converters.children import Job, run_jobs
from converters.inspect.model import format_of
from converters.publish import CONVERSION_NAME
from converters.results import RUNTIME_OF
from edge_sdk.contracts.base import decode
from edge_sdk.contracts.conversion import Conversion
from edge_sdk.errors import ConversionError, UsageError
from edge_sdk.suggest import did_you_mean


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One model file timed on this machine."""

    file: str
    runtime: str
    unit: str
    threads: int
    median_ms: float
    p95_ms: float
    runs: int
    load_ms: float
    memory_mib: float
    size_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return asdict(self)


def model_files(path: Path, profile: str | None = None) -> list[Path]:
    """The model files a path stands for: itself, or those of a conversion.

    Args:
        path: a model file or the folder of a conversion.
        profile: only the files on this profile's ladder, in its order.

    Raises:
        ConversionError: ``conversion.file-missing``, ``conversion.not-a-conversion``.
        UsageError: ``usage.unknown-profile``.
    """
    if not path.is_dir():
        if not path.is_file():
            raise ConversionError("file-missing", f"There is no file {path}.", "Check the path.")
        return [path]
    conversion = read_conversion(path)
    if profile is None:
        return sorted(path / conversion.files[digest] for digest in conversion.artifacts)
    if profile not in conversion.ladders:
        raise UsageError(
            "unknown-profile",
            f"{path} was not converted for {profile!r}.",
            did_you_mean(profile, conversion.ladders),
        )
    return [path / conversion.files[point.artifact] for point in conversion.ladders[profile]]


def read_conversion(folder: Path) -> Conversion:
    """The ``conversion.json`` of a folder.

    Raises:
        ConversionError: ``conversion.not-a-conversion``.
        ContractError: the file is malformed or too new.
    """
    path = folder / CONVERSION_NAME
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConversionError(
            "not-a-conversion",
            f"{folder} holds no readable {CONVERSION_NAME}.",
            "Give a model file, or the folder that edge model convert wrote.",
        ) from error
    return decode(data, Conversion, str(path))


def bench(
    files: Sequence[Path],
    *,
    threads: int = 1,
    seconds: float = 1.0,
    runtime: str | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> list[BenchRow]:
    """Time single inferences of each file, one process after the other.

    Args:
        files: TFLite or ONNX files with one input.
        threads: CPU threads.
        seconds: time spent per file, after a warm-up.
        runtime: overrides the choice by format.
        progress: told each file when it is done.

    Raises:
        ConversionError, RuntimeUnavailableError: the first file that does not run.
    """
    with tempfile.TemporaryDirectory() as scratch:
        jobs = [_job(path, Path(scratch), index, threads, seconds, runtime)
                for index, path in enumerate(files)]  # fmt: skip
        answers = run_jobs(jobs, parallel=1, on_done=lambda job, result: progress(job))
    return [_row(path, answer, threads) for path, answer in zip(files, answers, strict=True)]


def _job(
    path: Path, scratch: Path, index: int, threads: int, seconds: float, runtime: str | None
) -> Job:
    kind = format_of(path)
    folder = scratch / str(index)
    folder.mkdir()
    return Job(
        name=path.name,
        module="converters.verify_worker",
        request={
            "path": str(path),
            "format": kind,
            "runtime": runtime or RUNTIME_OF[kind],
            "threads": [threads],
            "seconds": seconds,
            "samples": None,
        },
        folder=folder,
        timeout_s=120 + 10 * seconds,
    )


def _row(path: Path, answer: dict[str, Any], threads: int) -> BenchRow:
    timing = answer["latency"][str(threads)]
    return BenchRow(
        file=path.name,
        runtime=answer["runtime"],
        unit=answer["unit"],
        threads=threads,
        median_ms=timing["median_ms"],
        p95_ms=timing["p95_ms"],
        runs=timing["runs"],
        load_ms=answer["load_ms"],
        memory_mib=answer["memory_mib"],
        size_bytes=path.stat().st_size,
    )

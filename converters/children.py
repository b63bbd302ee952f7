"""Child processes for everything that runs native code: exporters, quantizers, runtimes.

A converter that aborts, a kernel that segfaults or a run that never ends takes its own process
with it, and becomes an error that names the artifact. Requests go down as one JSON file; events
come back as JSON lines over a pipe: ``{"step"}``, ``{"result"}`` or ``{"error"}``.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn

from converters.memory import MemoryBudget
from edge_sdk.durable import storage_error
from edge_sdk.errors import ConversionError, EdgeError, error_from

LEAVE_S = 30.0
"""A child that has closed its pipe may take so long to end."""
MAX_LINE_BYTES = 16 * 1024**2
_TAIL_CHARS = 400
_TAIL_BYTES = 64 * 1024
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Job:
    """One child process to run."""

    name: str
    """What a person calls it, e.g. ``the TFLite export``."""
    module: str
    """Python module to run, which calls :func:`child_main`."""
    request: Mapping[str, Any]
    folder: Path
    """Where the request and the log of the child are written."""
    timeout_s: float = 900.0
    threads: int | None = None
    """Bound on the math libraries' own threads."""


@dataclass(slots=True)
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    pipe: int
    log: IO[bytes]
    deadline: float
    pending: bytes = b""
    result: Any = None
    error: EdgeError | None = None
    steps: list[str] = field(default_factory=list)
    peak_mib: float = 0.0


def run_jobs(
    jobs: Sequence[Job],
    *,
    parallel: int,
    on_step: Callable[[str, str], None] = lambda job, text: None,
    on_done: Callable[[str, Any], None] = lambda job, result: None,
    memory: MemoryBudget | None = None,
    keep_going: bool = False,
) -> list[Any]:
    """Run jobs, at most ``parallel`` at a time; their results in the order of ``jobs``.

    Fewer run at a time where memory would not suffice for more, see :mod:`converters.memory`.

    The first error ends every other child; with ``keep_going`` an error is its job's result
    instead. No child outlives this call, whatever ends it.

    Raises:
        EdgeError: as the child raised it, or ``conversion.native-crash``,
            ``conversion.child-timeout``, ``conversion.child-failed``.
    """
    memory = memory or MemoryBudget()
    waiting = list(enumerate(jobs))
    results: dict[int, Any] = {}
    running: dict[int, _Running] = {}
    selector = selectors.DefaultSelector()
    try:
        while waiting or running:
            while waiting and len(running) < max(1, parallel):
                pids = [(child.job.module, child.process.pid) for child in running.values()]
                if not memory.may_start(waiting[0][1].module, pids):
                    break
                index, job = waiting.pop(0)
                running[index] = _start(job)
                selector.register(running[index].pipe, selectors.EVENT_READ, index)
            readable = {key.data for key, _ in selector.select(timeout=0.5)}
            for index, child in list(running.items()):
                late = time.monotonic() > child.deadline
                if not late and (index not in readable or _read(child, on_step)):
                    continue
                selector.unregister(child.pipe)
                try:
                    results[index] = _expire(child) if late else _finish(child)
                except EdgeError as error:
                    if not keep_going:
                        raise
                    results[index] = error
                memory.learn(child.job.module, child.peak_mib)
                del running[index]
                on_done(child.job.name, results[index])
    finally:
        for child in running.values():
            _kill(child)
        selector.close()
    return [results[index] for index in range(len(jobs))]


def child_main(work: Callable[[dict[str, Any], Callable[[str], None]], Any]) -> None:
    """Body of a child's module: read the request, work, write the result or the error.

    Args:
        work: gets the request and a function that reports a step; returns JSON data.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us; no second traceback
    _end_with_parent(int(sys.argv[3]))
    request = json.loads(Path(sys.argv[1]).read_text())
    with os.fdopen(int(sys.argv[2]), "w", buffering=1) as pipe:

        def send(event: dict[str, Any]) -> None:
            pipe.write(json.dumps(event) + "\n")

        try:
            result = work(request, lambda text: send({"step": text}))
            send({"result": result, "peak_mib": _peak_mib()})
        except EdgeError as error:
            send({"error": error.as_dict()})
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            place = Path(error.filename or request.get("folder") or request.get("target") or ".")
            send({"error": storage_error(error, place).as_dict()})


def _peak_mib() -> float:
    """Peak resident memory of this process; 0 where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def _end_with_parent(parent: int) -> None:
    """On Linux, let the kernel end this process when its parent dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the call above
            sys.exit(1)


def _start(job: Job) -> _Running:
    folder = Path(tempfile.mkdtemp(prefix="job-", dir=job.folder))
    request = folder / "request.json"
    request.write_text(json.dumps(job.request))
    log = (folder / "log").open("w+b")
    reader, writer = os.pipe()
    environment = dict(os.environ) | {"PYTHONUNBUFFERED": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    if job.threads is not None:
        environment |= {"OMP_NUM_THREADS": str(job.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    try:
        process = subprocess.Popen(
            [
                *(sys.executable, "-W", "ignore", "-m", job.module),
                *(str(request), str(writer), str(os.getpid())),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(writer,),
            env=environment,
        )
    except BaseException:
        os.close(reader)
        log.close()
        raise
    finally:
        os.close(writer)
    return _Running(job, process, reader, log, time.monotonic() + job.timeout_s)


def _read(child: _Running, on_step: Callable[[str, str], None]) -> bool:
    """Take in what the pipe holds; False once the child has closed it."""
    data = os.read(child.pipe, 1 << 16)
    child.pending += data
    *lines, child.pending = child.pending.split(b"\n")
    for line in lines:
        event = json.loads(line)
        if "step" in event:
            on_step(child.job.name, event["step"])
        elif "error" in event:
            child.error = error_from(event["error"])
        else:
            child.result = event
            child.peak_mib = float(event.get("peak_mib", 0.0))
    return bool(data) and len(child.pending) <= MAX_LINE_BYTES


def _finish(child: _Running) -> Any:
    try:
        code = child.process.wait(timeout=LEAVE_S)
    except subprocess.TimeoutExpired:
        # Its answer, if it gave one, is complete; only its going hangs.
        child.process.kill()
        code = child.process.wait(timeout=LEAVE_S)
    tail = _tail(child)
    os.close(child.pipe)
    child.log.close()
    if child.error is not None:
        raise child.error
    if child.result is not None:
        # Native libraries sometimes abort while unloading; the answer is complete by then.
        return child.result["result"]
    if code < 0:
        hint = f"The native library crashed on this model. Last words: {tail or 'none'}"
        if code == -signal.SIGKILL:
            hint = "Most likely memory ran out: close other programs, or convert a smaller model."
        raise ConversionError(
            "native-crash", f"{child.job.name} ended by {_signal_name(-code)}.", hint
        )
    raise ConversionError(
        "child-failed",
        f"{child.job.name} failed: {tail or f'exit code {code}'}",
        "This is a defect or a broken installation; run the command again, then report it.",
    )


def _expire(child: _Running) -> NoReturn:
    _kill(child)
    raise ConversionError(
        "child-timeout",
        f"{child.job.name} did not finish within {child.job.timeout_s:.0f} s.",
        "Use a smaller model or fewer evaluation samples, or a faster machine.",
    )


def _kill(child: _Running) -> None:
    child.process.kill()
    child.process.wait(timeout=LEAVE_S)
    if not child.log.closed:
        os.close(child.pipe)
        child.log.close()


def _tail(child: _Running) -> str:
    """The last line the child wrote to its log, where a Python traceback has its message."""
    child.log.seek(max(0, child.log.seek(0, os.SEEK_END) - _TAIL_BYTES))
    lines = child.log.read().decode(errors="replace").strip().splitlines()
    return lines[-1].strip()[-_TAIL_CHARS:] if lines else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

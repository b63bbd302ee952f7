"""What happens when a worker or its supervisor crashes, hangs, or talks nonsense."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import msgspec
import pytest

from agent.worker.channel import EXIT_ORPHANED
from agent.worker.handle import WorkerHandle
from agent.worker.protocol import (
    Failed,
    Finished,
    Ready,
    Results,
    SetPoint,
    Start,
    Stats,
    Stop,
    encode_frame,
)
from edge_sdk.errors import StorageError
from tests.fakes.classifiers import DeviceRelease, Recipe, make_release
from tests.fakes.workers import PATIENCE_S, Workers, collect, has, wait_exit


def wait_gone(pid: int) -> None:
    """Until a process that is not our child has ended (a zombie has)."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state in "ZX":
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} still runs")


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def heartbeats(handle: WorkerHandle, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    count = 0
    while time.monotonic() < deadline:
        count += sum(isinstance(event, Stats) for event in handle.poll())
        time.sleep(0.01)
    return count


def test_a_segfault_is_seen_with_its_last_words(workers: Workers, ladder: DeviceRelease) -> None:
    handle = workers.spawn(workers.spec(ladder, source={"loop": True, "fps": 100.0}))
    collect(handle, has(Results))
    os.kill(handle.pid, signal.SIGSEGV)
    assert wait_exit(handle) == -signal.SIGSEGV
    assert handle.exit_reason == "killed by SIGSEGV"
    assert "Segmentation fault" in handle.output
    assert not handle.alive and not handle.send(Stop())


def test_a_stopped_worker_misses_its_heartbeat_and_can_be_killed(
    workers: Workers, ladder: DeviceRelease
) -> None:
    handle = workers.spawn(workers.spec(ladder, source={"loop": True, "fps": 100.0}))
    collect(handle, has(Stats))
    os.kill(handle.pid, signal.SIGSTOP)
    heartbeats(handle, 0.3)  # what was on its way
    assert heartbeats(handle, 0.7) == 0
    assert handle.alive
    handle.kill()
    assert wait_exit(handle) == -signal.SIGKILL


def test_a_hang_in_the_native_runtime_stops_the_heartbeat(workers: Workers, tmp_path: Path) -> None:
    release = make_release(tmp_path / "r", [Recipe("onnx-hang", 16)])
    handle = workers.spawn(workers.spec(release, hold=True))
    collect(handle, lambda seen: sum(isinstance(e, Stats) for e in seen) >= 2)

    handle.send(Start())
    heartbeats(handle, 0.3)
    assert heartbeats(handle, 0.7) == 0
    assert handle.alive
    handle.kill()
    assert wait_exit(handle) == -signal.SIGKILL


def test_commands_to_a_stopped_worker_do_not_block_and_are_bounded(
    workers: Workers, ladder: DeviceRelease
) -> None:
    handle = workers.spawn(workers.spec(ladder, hold=True))
    collect(handle, has(Ready))
    os.kill(handle.pid, signal.SIGSTOP)
    sent = 0
    while handle.send(SetPoint(index=0)):
        sent += 1
        assert sent < 1_000_000
    os.kill(handle.pid, signal.SIGCONT)
    events = collect(handle, has(Stats))
    assert events and handle.alive


def test_a_supervisor_that_does_not_read_holds_nothing_up(
    workers: Workers, ladder: DeviceRelease
) -> None:
    """The worker goes on deciding, gives results up and says how many; counts stay exact."""
    spec = workers.spec(ladder, batch=1000, source={"loop": True}, start_point=3)
    handle = workers.spawn(spec)
    events = collect(handle, has(Ready))
    for pause_s in (1.0, 2.0, 4.0, 8.0, 16.0):
        time.sleep(pause_s)
        events += collect(handle, lambda seen: sum(isinstance(e, Stats) for e in seen) >= 3)
        if any(isinstance(e, Stats) and e.results_dropped for e in events):
            break
    handle.send(Stop())
    events += collect(handle, has(Finished))
    frames = sum(e.frames for e in events if isinstance(e, Stats))
    given_up = sum(e.results_dropped for e in events if isinstance(e, Stats))
    arrived = sum(len(e.decisions) for e in events if isinstance(e, Results))
    assert given_up > 0 and frames == arrived + given_up


_SUPERVISOR = """
import sys, time, msgspec
from agent.worker.handle import WorkerHandle
from agent.worker.protocol import Ready, WorkerSpec

spec = msgspec.json.decode(sys.argv[1], type=WorkerSpec)
handle = WorkerHandle.spawn(spec)
while not any(isinstance(event, Ready) for event in handle.poll()):
    time.sleep(0.01)
print(handle.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("kind", ["onnx", "onnx-hang"])
def test_a_worker_ends_with_its_supervisor(workers: Workers, tmp_path: Path, kind: str) -> None:
    """Even when it hangs in native code: the kernel ends it."""
    release = make_release(tmp_path / "r", [Recipe(kind, 16)])
    spec = workers.spec(release, source={"loop": True, "fps": 50.0})
    supervisor = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_SUPERVISOR), msgspec.json.encode(spec).decode()],
        stdout=subprocess.PIPE,
    )
    with supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        supervisor.kill()
    wait_gone(pid)


def _bare_worker() -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "agent.worker", str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
        )
    return process, ours


def test_a_worker_ends_when_its_socket_closes(workers: Workers, ladder: DeviceRelease) -> None:
    process, link = _bare_worker()
    with process:
        with link:
            link.sendall(encode_frame(workers.spec(ladder, hold=True)))
            assert link.recv(4)
        assert process.wait(PATIENCE_S) == EXIT_ORPHANED
        assert process.stderr is not None and b"Traceback" not in process.stderr.read()


@pytest.mark.parametrize("garbage", [b"\xff" * 64, b"\0" * 64, b"\0\0\0\x03abc" * 9])
def test_a_worker_that_is_told_nonsense_ends(garbage: bytes) -> None:
    process, link = _bare_worker()
    with process, link:
        link.sendall(garbage)
        assert process.wait(PATIENCE_S) == EXIT_ORPHANED
        assert process.stderr is not None
        words = process.stderr.read()
        assert b"contract.worker-frame" in words and b"Traceback" not in words


def test_a_worker_that_another_process_started_ends_at_once() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.run(
            [sys.executable, "-m", "agent.worker", str(theirs.fileno()), "1"],
            pass_fds=[theirs.fileno()],
            timeout=PATIENCE_S,
            check=False,
        )
    assert process.returncode == EXIT_ORPHANED


def test_a_person_who_starts_a_worker_is_told_what_to_do() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent.worker"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "edge-agent run" in done.stderr


def _talker(script: str) -> WorkerHandle:
    """A handle on a process that says what a test wants."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        code = f"import socket, sys, time; link = socket.socket(fileno={theirs.fileno()})\n{script}"
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    return WorkerHandle(process, ours)


def test_a_worker_that_talks_nonsense_is_killed_and_reported_once() -> None:
    frame = encode_frame(Ready(point=0, load_ms=1.0, runtime="litert", unit="cpu", rss_mib=1.0))
    script = f"link.sendall({frame!r}); link.sendall(b'\\xff' * 100); time.sleep(600)"
    with _talker(script) as handle:
        events = collect(handle, has(Failed))
        assert [type(event) for event in events] == [Ready, Failed]
        assert isinstance(events[1], Failed) and events[1].code == "contract.worker-frame"
        assert wait_exit(handle) == -signal.SIGKILL
        assert handle.poll() == [] and not handle.send(Stop())


def test_output_is_kept_at_its_end_and_never_blocks_the_worker() -> None:
    script = "sys.stdout.write('x' * 3_000_000 + 'last words'); sys.stdout.flush()"
    with _talker(script) as handle:
        assert wait_exit(handle) == 0
        assert handle.output.endswith("last words") and len(handle.output) <= 16 * 1024


def test_a_missing_interpreter_is_an_error_with_a_hint(
    workers: Workers, ladder: DeviceRelease
) -> None:

    before = open_descriptors()
    with pytest.raises(StorageError) as caught:
        WorkerHandle.spawn(workers.spec(ladder), python="/nowhere/python")
    assert caught.value.code == "storage.no-process"
    assert open_descriptors() == before


def test_handles_leave_no_descriptor_behind(workers: Workers, ladder: DeviceRelease) -> None:
    before = open_descriptors()
    for _ in range(3):
        with WorkerHandle.spawn(workers.spec(ladder, hold=True)) as handle:
            collect(handle, has(Ready))
        assert not handle.alive and handle.fileno() == -1 and handle.poll() == []
    assert open_descriptors() == before


def test_a_worker_needs_no_heavy_package() -> None:
    """What the worker imports is what a Pi has to load."""
    code = (
        "import sys, agent.worker.main; heavy = {'torch', 'onnx', 'cv2', 'onnxruntime', "
        "'ai_edge_litert', 'paho', 'psutil', 'cryptography'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE_S)

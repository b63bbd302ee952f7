"""The supervisor's handle on a worker process; none of its calls waits for the worker.

The worker runs in a session of its own, so that it can be killed with everything it started, and
talks over one end of a socket pair that it inherits. What it prints is kept in a bounded ring, as
the last words of a crashed native library are often all there is to go by.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from types import TracebackType
from typing import Self

from agent.sound.config import STDIN
from agent.worker.lean import python_flags
from agent.worker.protocol import (
    Command,
    Event,
    Failed,
    FrameReader,
    WorkerSpec,
    decode_event,
    encode_frame,
)
from edge_sdk.errors import ContractError, StorageError

READ_BYTES = 64 * 1024
MAX_POLL_BYTES = 1024 * 1024
"""One poll reads no more than this, so that a chatty worker cannot hold the supervisor."""
MAX_UNSENT_BYTES = 256 * 1024
MAX_OUTPUT_BYTES = 16 * 1024


class WorkerHandle:
    """A running worker; build it with :meth:`spawn`.

    Spawn from a thread that lives as long as the supervisor: Linux delivers the worker's
    parent-death signal when the *thread* that started it ends.
    """

    def __init__(self, process: subprocess.Popen[bytes], link: socket.socket) -> None:
        self._process = process
        self._link = link
        self._reader = FrameReader()
        self._unsent = bytearray()
        self._output = bytearray()
        self._open = True
        self._listening = True

    @classmethod
    def spawn(cls, spec: WorkerSpec, *, python: str = sys.executable) -> WorkerHandle:
        """Start ``python -m agent.worker`` and hand it ``spec``.

        Raises:
            StorageError: ``storage.no-process`` when the machine cannot start another process.
        """
        ours, theirs = socket.socketpair()
        link = (str(theirs.fileno()), str(os.getpid()))
        source = spec.pipeline.source if spec.pipeline is not None else None
        hears_stdin = source is not None and (source.kind, source.path) == ("pipe", STDIN)
        try:
            process = subprocess.Popen(
                # -P keeps the current folder, which may hold anything, off the import path.
                [python, *python_flags(), "-P", "-m", "agent.worker", *link],
                pass_fds=[theirs.fileno()],
                stdin=None if hears_stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise StorageError(
                "no-process",
                f"Cannot start a worker process: {error.strerror or error}.",
                "Free memory, or raise the limit of processes for the agent's user.",
            ) from error
        finally:
            theirs.close()
        ours.setblocking(False)
        if process.stdout is not None:
            os.set_blocking(process.stdout.fileno(), False)
        handle = cls(process, ours)
        handle.send(spec)
        return handle

    @property
    def pid(self) -> int:
        """The worker's process id, which is also its process group's."""
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs; then its exit code, or minus the signal that ended it."""
        return self._process.poll()

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.exit_status is None

    @property
    def killed(self) -> bool:
        """Whether a SIGKILL ended it, the agent's own or another."""
        return self.exit_status == -signal.SIGKILL

    @property
    def exit_reason(self) -> str:
        """How it ended, for a person."""
        status = self.exit_status
        if status is None:
            return "running"
        if status >= 0:
            return f"exit code {status}"
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-status).name}"
        return f"killed by signal {-status}"

    @property
    def output(self) -> str:
        """The end of what the worker and its native libraries printed."""
        self._drain_output()
        return self._output.decode(errors="replace")

    def fileno(self) -> int:
        """The socket, for a selector; readable means :meth:`poll` has something. -1 once closed."""
        return self._link.fileno()

    def send(self, command: Command) -> bool:
        """Queue a command; False when the worker is gone or has stopped reading."""
        if not (self._open and self._listening) or len(self._unsent) > MAX_UNSENT_BYTES:
            return False
        self._unsent += encode_frame(command)
        self._flush()
        return self._listening

    def poll(self) -> list[Event]:
        """Events that have arrived. Call it at least every second, as it also drains the output.

        A worker that sends what is no message is killed and reported as :class:`Failed`, once.
        """
        self._flush()
        self._drain_output()
        events: list[Event] = []
        taken = 0
        while self._open and taken < MAX_POLL_BYTES:
            data = self._receive()
            if data is None:
                break
            taken += len(data)
            events += self._decode(data)
        return events

    def kill(self) -> None:
        """End the worker and everything it started, now; :attr:`exit_status` follows shortly."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self, timeout_s: float = 5.0) -> None:
        """Kill the worker if it still runs, reap it and free the descriptors.

        This is the one call that waits: for a killed process to go, at most ``timeout_s``.
        """
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        self._drain_output()
        self._open = False
        self._link.close()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _receive(self) -> bytes | None:
        """Bytes, or None when there are none now or ever again."""
        try:
            data = self._link.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            data = b""
        if not data:
            self._open = False
            return None
        return data

    def _decode(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        try:
            for body in self._reader.feed(data):
                event = decode_event(body)
                if event is not None:
                    events.append(event)
        except ContractError as error:
            self.kill()
            self._open = False
            events.append(Failed(code=error.code, cause=error.cause, hint=error.hint))
        return events

    def _flush(self) -> None:
        while self._open and self._unsent:
            try:
                sent = self._link.send(self._unsent)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # Its end is closed; what it said before is still to be read.
                self._listening = False
                self._unsent.clear()
                return
            del self._unsent[:sent]

    def _drain_output(self) -> None:
        stream = self._process.stdout
        if stream is None or stream.closed:
            return
        # Bounded: a worker that prints without end must not hold the supervisor here.
        for _ in range(MAX_POLL_BYTES // READ_BYTES):
            try:
                data = os.read(stream.fileno(), READ_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            if not data:
                return
            self._output += data
            del self._output[:-MAX_OUTPUT_BYTES]

"""A worker process that does what the test says; implements :class:`agent.worker.ports.Worker`."""

from __future__ import annotations

from agent.worker.protocol import Command, Event, Ready, WorkerSpec
from edge_sdk.errors import StorageError


class FakeWorker:
    """Holds a queue of events and remembers commands."""

    _next_pid = 1000

    def __init__(self, spec: WorkerSpec) -> None:
        FakeWorker._next_pid += 1
        self.pid = FakeWorker._next_pid
        self.spec = spec
        self.commands: list[Command] = []
        self.events: list[Event] = []
        self.alive = True
        self.closed = False
        self.exit_reason = "running"
        self.output = ""

    def fileno(self) -> int:
        return -1

    def send(self, command: Command) -> bool:
        self.commands.append(command)
        return self.alive

    def poll(self) -> list[Event]:
        events, self.events = self.events, []
        return events

    def kill(self) -> None:
        self.die("killed by SIGKILL")

    def close(self) -> None:
        self.die("killed by SIGKILL")
        self.closed = True

    @property
    def killed(self) -> bool:
        return self.exit_reason == "killed by SIGKILL"

    def load(self) -> None:
        """The model is loaded."""
        self.events.append(Ready(point=0, load_ms=1.0, runtime="x", unit="cpu", rss_mib=1.0))

    def die(self, reason: str) -> None:
        if self.alive:
            self.alive = False
            self.exit_reason = reason


class Workshop:
    """Spawns fake workers, or fails to."""

    def __init__(self) -> None:
        self.workers: list[FakeWorker] = []
        self.out_of_memory = False

    def spawn(self, spec: WorkerSpec) -> FakeWorker:
        if self.out_of_memory:
            raise StorageError("no-process", "Cannot start a worker process.", "Free memory.")
        self.workers.append(FakeWorker(spec))
        return self.workers[-1]

    @property
    def last(self) -> FakeWorker:
        return self.workers[-1]

    @property
    def living(self) -> list[FakeWorker]:
        return [worker for worker in self.workers if worker.alive]

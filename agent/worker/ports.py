"""What the service needs of a worker process, whom it tells, and how patient it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from agent.update.ports import PlacedRelease
from agent.worker.protocol import (
    Command,
    Event,
    PointChanged,
    PointRefused,
    Ready,
    Results,
    Stats,
    WorkerSpec,
)

Role = Literal["active", "trial", "golden"]


class Worker(Protocol):
    """What the service needs of :class:`agent.worker.handle.WorkerHandle`."""

    @property
    def pid(self) -> int:
        """Process id."""

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""

    @property
    def killed(self) -> bool:
        """Whether a SIGKILL ended it, the agent's own or another."""

    @property
    def exit_reason(self) -> str:
        """How it ended."""

    @property
    def output(self) -> str:
        """The end of what it printed."""

    def fileno(self) -> int:
        """Readable when :meth:`poll` has something; -1 once closed."""

    def send(self, command: Command) -> bool:
        """Queue a command."""

    def poll(self) -> list[Event]:
        """Events that have arrived."""

    def kill(self) -> None:
        """End it now."""

    def close(self) -> None:
        """Kill, reap and free."""


class Listener(Protocol):
    """Who is told; the supervisor."""

    def on_ready(self, token: str, ready: Ready) -> None:
        """The worker of ``token`` serves frames from now on."""

    def on_stats(self, token: str, stats: Stats) -> None:
        """Counts of the worker of ``token``, which serves or did until a moment ago."""

    def on_results(self, release: PlacedRelease, results: Results) -> None:
        """Decisions of the worker that serves ``release``, or did until a moment ago."""

    def on_point(self, event: PointChanged | PointRefused) -> None:
        """The serving worker moved, or could not."""

    def on_golden(self, token: str, ok: bool, detail: str) -> None:
        """A golden test ended."""

    def on_worker_crash(self, token: str, detail: str) -> None:
        """A worker on trial died or hung."""

    def on_killed(self, token: str) -> None:
        """The committed release's worker was ended by a SIGKILL that the agent did not send."""

    def on_service_unhealthy(self, token: str, detail: str) -> None:
        """The committed release's restart budget is spent."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a worker may be silent or take, and how often it may die."""

    load_s: float = 60.0
    hang_s: float = 10.0
    leave_s: float = 3.0
    golden_attempts: int = 2
    backoff_s: float = 0.5
    backoff_max_s: float = 30.0
    budget: int = 5
    budget_window_s: float = 60.0


def filled(template: WorkerSpec, release: PlacedRelease, point: int, *, golden: bool) -> WorkerSpec:
    """What a worker for ``release`` is started with; a serving one holds until told to start."""
    return msgspec.structs.replace(
        template,
        mode="golden" if golden else "serve",
        manifest=str(release.manifest_path),
        blobs=str(release.blobs),
        start_point=point,
        hold=not golden,
    )


def epitaph(worker: Worker, failure: str) -> str:
    """Why a worker ended, as well as can be told; ``failure`` is what it or the agent said."""
    last = worker.output.strip().splitlines()[-1:] if not failure else []
    words = failure or worker.exit_reason
    return f"{words} ({last[0][:200]})" if last else words

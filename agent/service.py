"""Which model serves: starts, watches, replaces and restarts worker processes.

At most three workers exist at a time: the one that serves, one that is loading to take its place,
and a golden test. A replacement loads its model while the old one still serves; the source (a
camera can be opened only once) changes hands when the old worker is gone.

Single-threaded: the supervisor calls :meth:`ModelService.tick` often, nothing here waits.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from agent.update.ports import Clock, PlacedRelease
from agent.worker.ports import Listener, Patience, Role, Worker, epitaph, filled
from agent.worker.protocol import (
    AllowCascade,
    Command,
    Event,
    Failed,
    Finished,
    GoldenDone,
    PointChanged,
    PointRefused,
    Ready,
    Results,
    SetPoint,
    Start,
    Stats,
    Stop,
    WorkerSpec,
)
from edge_sdk.errors import StorageError

LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class _Running:
    worker: Worker
    role: Role
    token: str
    release: PlacedRelease
    heard: float
    """Monotonic time of its last event."""
    ready: Ready | None = None
    failure: str = ""
    finished: bool = False
    attempt: int = 1
    done: bool = False
    """A golden test has given its verdict."""


class ModelService:
    """Implements :class:`agent.update.ports.Host`.

    Args:
        template: the worker's specification; paths, mode and point are filled in per start.
        spawn: starts a worker process.
        clock: time.
        listener: who is told.
        patience: limits.
    """

    def __init__(
        self,
        template: WorkerSpec,
        spawn: Callable[[WorkerSpec], Worker],
        clock: Clock,
        listener: Listener,
        patience: Patience | None = None,
    ) -> None:
        self._template = template
        self._spawn_worker = spawn
        self._clock = clock
        self._listener = listener
        self._patience = patience or Patience()
        self._serving: _Running | None = None
        self._incoming: _Running | None = None
        self._golden: _Running | None = None
        self._leaving: list[tuple[_Running, float]] = []
        self._committed: tuple[PlacedRelease, str] | None = None
        self._restart_at: float | None = None
        self._trial: str | None = None
        """Token of the trial under way; a trial that has been called off is not one any more."""
        self._ended = False
        """The committed release's stream has come to its end; there is nothing left to serve."""
        self._deaths: deque[float] = deque(maxlen=64)
        self._stillborn: list[tuple[Role, str, str]] = []
        self._point = 0
        self.restarts = 0
        """Restarts of committed workers since the agent started."""

    # --- Host ---

    def start_golden(self, release: PlacedRelease, token: str) -> None:
        """Run the golden test of ``release`` in a process of its own."""
        self._drop_golden()
        self._golden = self._start(release, token, "golden")

    def cancel_golden(self, token: str) -> None:
        """Kill the golden test of ``token`` if it still runs."""
        if self._golden is not None and self._golden.token == token:
            self._drop_golden()

    def start_trial(self, release: PlacedRelease, token: str) -> None:
        """Put ``release`` into service as soon as it is loaded."""
        self._restart_at = None
        self._trial, self._ended = token, False
        self._replace_incoming(self._start(release, token, "trial"))

    def commit(self, release: PlacedRelease, token: str) -> None:
        """The worker on trial becomes the committed one."""
        self._committed = (release, token)
        self._trial = None
        self._deaths.clear()
        for running in (self._serving, self._incoming):
            if running is not None and running.token == token:
                running.role = "active"

    def serve(self, release: PlacedRelease | None, token: str) -> None:
        """Serve the committed ``release``, ending any trial."""
        self._deaths.clear()
        self._restart_at = None
        self._trial, self._ended = None, False
        self._replace_incoming(None)
        serving = self._serving
        if serving is not None and release is not None and _serves(serving, release):
            serving.token = token
            self._committed = (release, token)
            return
        self._committed = None if release is None else (release, token)
        if release is not None:
            self._incoming = self._start(release, token, "active")
        elif serving is not None:
            self._ask_to_leave(serving)
            self._serving = None

    # --- the supervisor's side ---

    @property
    def serving(self) -> PlacedRelease | None:
        """The release whose worker delivers frames now."""
        return None if self._serving is None else self._serving.release

    @property
    def on_trial(self) -> bool:
        """Whether the serving worker is one on trial."""
        return self._serving is not None and self._serving.role == "trial"

    @property
    def is_starting(self) -> bool:
        """Whether a worker is loading, or a start is due."""
        return bool(self._incoming or self._restart_at is not None or self._stillborn)

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of all workers."""
        return [running.worker.pid for running in self._all() if running.worker.alive]

    def filenos(self) -> list[int]:
        """Descriptors to wait on."""
        return [fd for running in self._all() if (fd := running.worker.fileno()) >= 0]

    def set_point(self, index: int, *, alone: bool = False) -> None:
        """Move the serving worker, and start later ones, at this rung of the ladder.

        ``alone`` where memory does not hold two points.
        """
        self._point = index
        self._tell(SetPoint(index=index, alone=alone))

    def allow_cascade(self, on: bool) -> None:
        """Whether workers, later ones included, may hold a second point that answers first."""
        self._template = msgspec.structs.replace(self._template, cascade=on)
        self._tell(AllowCascade(on=on))

    def _tell(self, command: Command) -> None:
        for running in (self._serving, self._incoming):
            if running is not None:
                running.worker.send(command)

    def tick(self) -> None:
        """Read events, notice deaths and hangs, hand over, restart."""
        now = self._clock.monotonic()
        self._mourn_stillborn(now)
        for running in self._all():
            self._read(running, now)
        for running in self._all():
            self._watch(running, now)
        self._bury(now)
        self._hand_over()
        self._keep_serving(now)

    def leave(self) -> None:
        """Tell every worker to end; :meth:`stop` waits for it."""
        for running in self._all():
            running.worker.send(Stop())

    def stop(self) -> None:
        """End every worker; each is given a moment to flush its results."""
        deadline = self._clock.monotonic() + self._patience.leave_s
        self.leave()
        while self._clock.monotonic() < deadline and self.worker_pids:
            for running in self._all():
                self._read(running, deadline)
            time.sleep(0.02)
        for running in self._all():
            running.worker.close()
        self._serving = self._incoming = self._golden = None
        self._leaving = []

    # --- inside ---

    def _all(self) -> list[_Running]:
        present: Iterable[_Running | None] = (self._serving, self._incoming, self._golden)
        return [r for r in present if r is not None] + [r for r, _ in self._leaving]

    def _start(self, release: PlacedRelease, token: str, role: Role) -> _Running | None:
        is_golden = role == "golden"
        spec = filled(self._template, release, self._point, golden=is_golden)
        try:
            worker = self._spawn_worker(spec)
        except StorageError as error:
            # Told at the next tick: the caller is in the middle of its own transition.
            self._stillborn.append((role, token, error.cause))
            return None
        LOG.info("worker %d starts %s %s (%s)", worker.pid, release.release, release.version, role)
        return _Running(worker, role, token, release, heard=self._clock.monotonic())

    def _replace_incoming(self, running: _Running | None) -> None:
        if self._incoming is not None:
            self._incoming.worker.close()
        self._incoming = running

    def _drop_golden(self) -> None:
        if self._golden is not None:
            self._golden.worker.close()
            self._golden = None

    def _ask_to_leave(self, running: _Running) -> None:
        running.worker.send(Stop())
        self._leaving.append((running, self._clock.monotonic() + self._patience.leave_s))

    def _read(self, running: _Running, now: float) -> None:
        for event in running.worker.poll():
            running.heard = max(running.heard, now)
            self._dispatch(running, event)

    def _dispatch(self, running: _Running, event: Event) -> None:
        match event:
            case Ready():
                running.ready = event
            case Stats() if running is not self._incoming:
                self._listener.on_stats(running.token, event)
            case Results():
                self._listener.on_results(running.release, event)
            case PointChanged() | PointRefused() if running is self._serving:
                self._listener.on_point(event)
            case GoldenDone() if not running.done:
                running.done = True
                self._listener.on_golden(running.token, event.ok, event.detail)
            case Failed():
                running.failure = f"{event.code}: {event.cause}"
            case Finished():
                running.finished = True
            case _:
                return

    def _watch(self, running: _Running, now: float) -> None:
        """Kill a worker that has been silent for too long; its death is handled like any other."""
        holding = running.ready is not None and running is self._incoming
        if holding or not running.worker.alive or running.finished:
            return
        limit_s = self._patience.hang_s if running is self._serving else self._patience.load_s
        if now - running.heard > limit_s:
            running.failure = running.failure or f"no sign of life for {limit_s:.0f} s"
            running.worker.kill()

    def _bury(self, now: float) -> None:
        """Free what has ended, and say so where it matters."""
        for running, deadline in list(self._leaving):
            if not running.worker.alive or now > deadline:
                self._read(running, now)
                running.worker.close()
                self._leaving.remove((running, deadline))
        golden = self._golden
        if golden is not None and (golden.done or not golden.worker.alive):
            self._read(golden, now)
            self._end_golden(golden)
        for lost in (self._serving, self._incoming):
            if lost is not None and not lost.worker.alive:
                self._lose(lost, now)

    def _end_golden(self, golden: _Running) -> None:
        """Free a golden test; one that gave no verdict is tried again before it counts.

        A process may die for reasons that are not the release's, such as the kernel's
        out-of-memory killer.
        """
        self._golden = None
        detail = epitaph(golden.worker, golden.failure)
        golden.worker.close()
        if golden.done:
            return
        if golden.attempt < self._patience.golden_attempts:
            LOG.warning("golden test ended without a verdict, trying again: %s", detail)
            self._golden = self._start(golden.release, golden.token, "golden")
            if self._golden is not None:
                self._golden.attempt = golden.attempt + 1
        else:
            self._listener.on_golden(golden.token, False, f"golden test: {detail}")

    def _lose(self, running: _Running, now: float) -> None:
        """A worker that served, or was to serve, has ended."""
        self._read(running, now)
        if running is self._serving:
            self._serving = None
        else:
            self._incoming = None
        detail = epitaph(running.worker, running.failure)
        if running.role == "active" and running.worker.killed and not running.failure:
            self._listener.on_killed(running.token)
        running.worker.close()
        if running.finished:
            LOG.info("pipeline ended: %s", detail)
            self._ended = running.role == "active"
            return
        LOG.warning("worker %d died: %s", running.worker.pid, detail)
        self._tell_death(running.role, running.token, detail, now)

    def _mourn_stillborn(self, now: float) -> None:
        waiting, self._stillborn = self._stillborn, []
        for role, token, detail in waiting:
            self._tell_death(role, token, detail, now)

    def _tell_death(self, role: Role, token: str, detail: str, now: float) -> None:
        if role == "golden":
            self._listener.on_golden(token, False, detail)
        elif role == "trial":
            self._listener.on_worker_crash(token, detail)
        else:
            self._schedule_restart(token, detail, now)

    def _schedule_restart(self, token: str, detail: str, now: float) -> None:
        patience = self._patience
        self._deaths.append(now)
        recent = sum(1 for death in self._deaths if now - death <= patience.budget_window_s)
        delay = min(patience.backoff_s * 2 ** (recent - 1), patience.backoff_max_s)
        self._restart_at = now + delay
        if recent == patience.budget:
            self._listener.on_service_unhealthy(token, detail)

    def _keep_serving(self, now: float) -> None:
        """Hold to it that outside of a trial the committed release serves, loads, or waits to.

        A worker of another release, such as that of a trial that was called off, does not count:
        it goes on only until the committed release has taken its place.
        """
        if self._committed is None or self._trial is not None or self._ended:
            return
        serving = self._serving
        is_served = serving is not None and _serves(serving, self._committed[0])
        if is_served or self._incoming is not None:
            self._restart_at = None
        elif self._restart_at is None:
            self._restart_at = now
        elif now >= self._restart_at:
            self._restart_at = None
            self.restarts += 1
            self._incoming = self._start(*self._committed, "active")

    def _hand_over(self) -> None:
        """Let a loaded replacement open the source once nobody else holds it."""
        incoming = self._incoming
        if incoming is None or incoming.ready is None:
            return
        if self._serving is not None:
            self._ask_to_leave(self._serving)
            self._serving = None
        if any(running.worker.alive for running, _ in self._leaving):
            return
        incoming.worker.send(Start())
        incoming.heard = self._clock.monotonic()
        self._serving, self._incoming = incoming, None
        self._listener.on_ready(incoming.token, incoming.ready)


def _serves(running: _Running, release: PlacedRelease) -> bool:
    same = running.release.digest == release.digest
    return same and running.role == "active" and running.worker.alive

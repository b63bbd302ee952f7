"""What the updater needs from its surroundings, and what it tells them.

The updater is single-threaded and never sleeps. Its owner (the supervisor) builds it with these
ports and then feeds it; see :class:`agent.update.updater.Updater` for the methods to call:

==========================================  =====================================================
``start()``                                 once, after construction: resumes whatever was going on
``on_connected()`` / ``on_disconnected()``  the broker accepted us / is gone
``on_message(topic, payload, retained)``    a message on any topic that the updater subscribed to
``on_ready(token)``                         the worker started for ``token`` serves frames
``on_golden(token, ok, detail)``            the golden test ended (a crash is ``ok=False``)
``on_stats(token, stats)``                  counts since the last call, from the worker of ``token``
``on_worker_crash(token, detail)``          the worker of ``token`` died or hung
``on_service_unhealthy(token, detail)``     the committed release crash-loops: its restart budget
                                            is spent
``tick()``                                  often (5 to 10 times a second): timers, verification
==========================================  =====================================================

Tokens name one start of one model. Whatever comes with an outdated token is ignored, so the owner
need not care about messages that cross.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from edge_sdk.contracts.update import UpdateStatus

SlotName = Literal["a", "b"]


@dataclass(frozen=True, slots=True)
class PlacedRelease:
    """A release whose files are complete and verified on this device."""

    release: str
    version: str
    digest: str
    """SHA-256 of the signed manifest's envelope: the identity of the release."""
    manifest_path: Path
    """The verified manifest (:class:`~edge_sdk.contracts.manifest.Manifest`, JSON)."""
    blobs: Path
    """Folder with one file per digest."""


@dataclass(frozen=True, slots=True)
class ServiceStats:
    """What a worker did since its last report."""

    frames: int = 0
    """Frames decided."""
    errors: int = 0
    """Frames whose inference failed; not part of :attr:`frames`."""
    labelled: int = 0
    """Of :attr:`frames`, those whose stream carried a label."""
    correct: int = 0
    """Of :attr:`labelled`, those decided as labelled."""
    latencies_ms: tuple[float, ...] = ()
    timed: int = 0
    """Of :attr:`latencies_ms`, those of a pipeline that has an objective."""
    late: int = 0
    """Of these, slower than the objective of their pipeline."""
    where: str = ""
    """Which pipeline it was, and at which operating point; latencies compare within one alone."""


class Link(Protocol):
    """The broker. All calls are non-blocking; subscriptions are silently void while offline."""

    def subscribe(self, topic: str | Sequence[str], qos: int = 0) -> None:
        """Ask for topics, and for their retained messages once more if already subscribed."""

    def unsubscribe(self, topic: str | Sequence[str]) -> None:
        """Stop asking for topics."""

    def publish(self, topic: str, payload: bytes, qos: int = 0, retain: bool = False) -> object:
        """Send one message; the updater does not rely on it, so what it returns is ignored."""


@dataclass(frozen=True, slots=True)
class RangeJob:
    """A run of consecutive bytes of one object, wanted in pieces of a chunk."""

    number: int
    """Answers carry it, so that late ones are known as such."""
    url: str
    first: int
    """Offset of the first byte."""
    length: int


@dataclass(frozen=True, slots=True)
class RangePiece:
    """The next chunk of a job, unverified; the last may be shorter."""

    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class RangeEnd:
    """A job is over."""

    number: int
    problem: str = ""
    """Why it is not complete; empty when it is."""
    final: bool = False
    """The server has answered: asking again would give the same."""


class Fetcher(Protocol):
    """HTTP in the background, one job at a time. All calls return at once."""

    def fetch(self, job: RangeJob) -> None:
        """Begin a job, in place of one that has not ended."""

    def poll(self) -> Sequence[RangePiece | RangeEnd]:
        """What came since the last call, in order; bounded, since what is not polled waits."""

    def cancel(self) -> None:
        """End the job, if there is one, and the connection."""


class Host(Protocol):
    """The owner of the worker processes. All calls return at once; results come as events."""

    def start_golden(self, release: PlacedRelease, token: str) -> None:
        """Run the golden test of every usable point of ``release`` in a process of its own.

        The committed release goes on serving. Answer with ``on_golden``.
        """

    def cancel_golden(self, token: str) -> None:
        """Kill the golden test if it still runs; no answer is expected."""

    def start_trial(self, release: PlacedRelease, token: str) -> None:
        """Put ``release`` into service in place of whatever serves now.

        Answer with ``on_ready``, then ``on_stats``; do not restart the worker when it dies, report
        ``on_worker_crash`` and the updater decides.
        """

    def commit(self, release: PlacedRelease, token: str) -> None:
        """The trial of ``token`` has been won: keep its worker, from now on as the committed one.

        From here on the owner restarts the worker itself.
        """

    def serve(self, release: PlacedRelease | None, token: str) -> None:
        """Serve the committed ``release``, ending any trial; None means serve nothing.

        Called once by ``start()``, after every rollback, and after a fallback to the previous
        release. The owner restarts the worker when it dies, and calls ``on_service_unhealthy``
        when its restart budget is spent.
        """


class UpdateSensors(Protocol):
    """What preflight looks at."""

    def disk_free_bytes(self) -> int:
        """Free space for this user on the state directory's file system."""

    def battery_percent(self) -> float | None:
        """Charge of a battery that is *discharging*; None on mains power or without a battery."""

    def cpu_headroom_percent(self) -> float | None:
        """Idle share of the whole machine, 0..100; None when not known yet."""

    def memory_headroom_percent(self) -> float | None:
        """Share of memory that is available without swapping, 0..100; None when not known."""

    def throttled(self) -> bool:
        """Whether the processor is being slowed down because of heat."""

    def crowded(self) -> bool:
        """Whether other programs leave no room on the processor, whatever the release does."""


class Clock(Protocol):
    """Time."""

    def now(self) -> float:
        """Seconds since the epoch; for reports only, it may jump."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; for every timer."""


Report = Callable[[UpdateStatus], None]
"""Called at each change of phase and about once a second while downloading; must not block."""

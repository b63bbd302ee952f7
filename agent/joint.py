"""All pipelines' workers as the updater sees them: one host of one release.

A device has one desired release, and every pipeline runs it. A release is on trial in all of them
at once; it is ready when the last one is, and a worker that dies in any of them counts against it.
The golden test runs once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from agent.update.ports import Host, PlacedRelease, ServiceStats


class Updates(Protocol):
    """What is told upwards; see :mod:`agent.update.ports`."""

    def on_ready(self, token: str) -> None:
        """The worker of ``token`` serves."""

    def on_stats(self, token: str, stats: ServiceStats) -> None:
        """Counts of the worker of ``token``."""

    def on_golden(self, token: str, ok: bool, detail: str) -> None:
        """A golden test ended."""

    def on_worker_crash(self, token: str, detail: str) -> None:
        """A worker on trial died or hung."""

    def on_service_unhealthy(self, token: str, detail: str) -> None:
        """The committed release keeps crashing."""


class JointHost:
    """Implements :class:`agent.update.ports.Host` over the hosts of several pipelines."""

    def __init__(self) -> None:
        self._hosts: Mapping[str, Host] = {}
        self._updates: Updates
        self._trial = ""
        self._awaited: set[str] = set()
        """Pipelines in which the release on trial does not serve yet."""

    def join(self, hosts: Mapping[str, Host], updates: Updates) -> None:
        """Give it the pipelines' hosts by name, and the updater."""
        self._hosts, self._updates = dict(hosts), updates

    # --- Host ---

    def start_golden(self, release: PlacedRelease, token: str) -> None:
        """Once: the files are the same for every pipeline."""
        next(iter(self._hosts.values())).start_golden(release, token)

    def cancel_golden(self, token: str) -> None:
        """Where it runs."""
        next(iter(self._hosts.values())).cancel_golden(token)

    def start_trial(self, release: PlacedRelease, token: str) -> None:
        """In every pipeline."""
        self._trial, self._awaited = token, set(self._hosts)
        for host in self._hosts.values():
            host.start_trial(release, token)

    def commit(self, release: PlacedRelease, token: str) -> None:
        """In every pipeline."""
        self._trial = ""
        for host in self._hosts.values():
            host.commit(release, token)

    def serve(self, release: PlacedRelease | None, token: str) -> None:
        """In every pipeline."""
        self._trial = ""
        for host in self._hosts.values():
            host.serve(release, token)

    # --- the pipelines' side ---

    def on_ready(self, pipeline: str, token: str) -> None:
        """A pipeline's worker serves; the last one makes a trial ready."""
        if token == self._trial:
            self._awaited.discard(pipeline)
            if self._awaited:
                return
        self._updates.on_ready(token)

    def on_stats(self, token: str, stats: ServiceStats) -> None:
        """Counts of any pipeline; those of a trial count from the time it serves everywhere."""
        if token != self._trial or not self._awaited:
            self._updates.on_stats(token, stats)

    def on_golden(self, token: str, ok: bool, detail: str) -> None:
        """The golden test ended."""
        self._updates.on_golden(token, ok, detail)

    def on_worker_crash(self, token: str, detail: str) -> None:
        """A worker on trial died or hung in one pipeline."""
        self._updates.on_worker_crash(token, detail)

    def on_service_unhealthy(self, token: str, detail: str) -> None:
        """The committed release keeps crashing in one pipeline."""
        self._updates.on_service_unhealthy(token, detail)

"""What the fleet asks of whoever talks to the broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edge_sdk.contracts.delivery import TopicRequest
from edge_sdk.contracts.trust import TimeRequest
from edge_sdk.contracts.update import ChunkRequest

Request = ChunkRequest | TopicRequest | TimeRequest


class Courier(Protocol):
    """Carries to the broker what the database says. Every call returns at once."""

    def seed(self, releases: Sequence[str]) -> None:
        """Publish the chunks of releases, named by their envelope's digest."""

    def clear(self, releases: Sequence[str]) -> None:
        """Remove the chunks of releases that no other wanted release shares."""

    def desired(self, devices: Sequence[str], *, after_seeding: bool) -> None:
        """Publish the newest desired state of devices."""

    def answer(self, request: Request) -> None:
        """Send a device what it asks for."""

    def metadata(self) -> None:
        """Publish the TUF metadata as it is now."""

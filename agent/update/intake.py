"""Everything that brings chunks in: MQTT always, an HTTP mirror where the release names one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agent.update.download import Downloader, Piece
from agent.update.mirror import Mirror, Wanted


class Intake:
    """One place to ask for chunks; what the mirror cannot give comes over MQTT.

    Args:
        download: MQTT.
        mirror: HTTP.
    """

    def __init__(self, download: Downloader, mirror: Mirror) -> None:
        self._download, self._mirror = download, mirror
        self._bounded = False

    @property
    def done(self) -> bool:
        """Whether nothing is left to fetch."""
        return self._download.done and self._mirror.done

    @property
    def stalled_s(self) -> float:
        """Seconds since the last good chunk; a mirror at work has limits of its own."""
        return self._download.stalled_s if self._mirror.done else 0.0

    @property
    def bytes_received(self) -> int:
        """Everything that arrived, wanted or not."""
        return self._download.bytes_received + self._mirror.bytes_received

    @property
    def retries(self) -> int:
        """Chunks and requests that were asked for again."""
        return self._download.retries + self._mirror.retries

    @property
    def note(self) -> str:
        """What a person should know about the way chunks take; empty when all goes well."""
        return self._mirror.note

    def remaining(self, digest: str) -> int:
        """Chunks of one blob that have not arrived."""
        return self._download.remaining(digest) + self._mirror.remaining(digest)

    def start(self, wanted: Sequence[Wanted], mirror: str = "") -> None:
        """Fetch these chunks instead of whatever was being fetched.

        Args:
            wanted: blobs and their missing chunks.
            mirror: base URL that the signed manifest names.
        """
        base = "" if self._bounded else mirror  # a mirror knows no pace
        self._download.start(self._mirror.start(base, wanted))

    def limit(self, bytes_per_s: int) -> None:
        """Bound what is fetched from now on, besides the device's own bound; 0 for no other."""
        self._bounded = self._download.limit(bytes_per_s) > 0

    def stop(self) -> None:
        """Want nothing any more."""
        self._mirror.stop()
        self._download.stop()

    def hold(self, held: bool) -> None:
        """Ask for nothing for now, or go on with what is missing."""
        self._mirror.hold(held)
        self._download.hold(held)

    def on_connected(self) -> None:
        """The broker is there."""
        self._download.on_connected()

    def on_disconnected(self) -> None:
        """The broker is gone; a mirror goes on."""
        self._download.on_disconnected()

    def on_chunk(self, topic: str, payload: bytes) -> Iterator[Piece]:
        """Take in a message, as :meth:`Downloader.on_chunk`."""
        return self._download.on_chunk(topic, payload)

    def tick(self) -> Iterator[Piece]:
        """Timers of both, and what has come from the mirror."""
        yield from self._mirror.pieces()
        back = self._mirror.given_back()
        if back:
            self._download.add(back)
        self._download.tick()

"""What a source of sound looks like to the microphone thread that drains it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from edge_sdk.audio.samples import SoundFormat
from edge_sdk.errors import SourceError

BLOCK_S = 0.04
"""Sound per read. Each costs two threads a wake-up, which on a busy machine is more than what they
then do; a decision waits half of it on average."""
STALL_S = 2.0
"""A live device that delivers nothing for so long is lost, whatever its driver says."""


class SoundReader(Protocol):
    """Blocking access to samples; used from one thread only, but for :meth:`close`."""

    @property
    def live(self) -> bool:
        """Whether sound comes in its own time and is lost when nobody takes it."""

    @property
    def where(self) -> str:
        """The file or device, for messages."""

    def open(self) -> SoundFormat:
        """Begin; may be called again after :meth:`close`.

        Returns:
            How the samples lie that :meth:`read` gives.

        Raises:
            SourceError: it cannot be opened.
        """

    def read(self) -> bytes | None:
        """The next block of whole frames, about :data:`BLOCK_S`; None at the end, or when the
        device is lost or silent for :data:`STALL_S`."""

    def close(self) -> None:
        """Free the file or device; harmless when it is not open."""

    @property
    def overruns(self) -> int:
        """How often the driver has lost sound before it came here."""


@runtime_checkable
class Answering(Protocol):
    """A source whose sound comes from somebody who wants to know what was heard in it."""

    def answer(self, label: str) -> None:
        """A word was heard. Called from another thread than the reader's."""


def no_microphone(where: str, why: str) -> SourceError:
    """A microphone that cannot be opened."""
    return SourceError(
        "no-microphone",
        f"Cannot open {where}{f': {why}' if why else ''}.",
        "Check the cable, that no other program holds it, and that this user is in the audio "
        "group; `arecord -L` and `python -m sounddevice` list what there is.",
    )

"""Drains a source of sound in a thread of its own, into a ring of one rate and one channel.

A microphone that is lost is opened again with a growing pause, for as long as it takes; listeners
learn that something is missing. A file ends.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from agent.sound.base import Answering, SoundReader
from agent.sound.drift import Drift
from agent.sound.ring import Listener, SoundRing
from agent.sources.reading import FIRST_PAUSE_S, LONGEST_PAUSE_S, read_out
from edge_sdk.audio.condition import Conditioner
from edge_sdk.audio.levels import FAULTS
from edge_sdk.audio.samples import SoundFormat, decode_samples
from edge_sdk.errors import SourceError

RING_S = 8.0
WRONG_CLOCK_PPM = 2000.0
"""No crystal is off by so much: the device runs at another rate than it says."""

log = logging.getLogger(__name__)


class Microphone:
    """A running source of sound.

    Args:
        reader: the source; used from the microphone's thread only.
        rate_hz: what listeners get.
        channel: which channel; None for the mean of all.
        loop: begin a file again at its end.
        ring_s: seconds that are kept.
        clock: monotonic seconds.
        wait: waits until the event is set, or so many seconds; its result is not used.
    """

    def __init__(
        self,
        reader: SoundReader,
        rate_hz: int,
        *,
        channel: int | None = None,
        loop: bool = False,
        ring_s: float = RING_S,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Event, float], object] = threading.Event.wait,
    ) -> None:
        self._reader = reader
        self._rate_hz = rate_hz
        self._channel = channel
        self._loop = loop
        self._clock = clock
        self._wait = wait
        self._closed = threading.Event()
        self._lost = ""
        self._conditioner: Conditioner | None = None
        self._drift: Drift | None = None
        self.returns = 0
        """How often the device was lost and came back."""
        self.ring = SoundRing(round(ring_s * rate_hz), waits=not reader.live)
        self._thread = threading.Thread(target=self._run, name="microphone", daemon=True)

    def listen(self) -> Listener:
        """One more consumer; before :meth:`start` to hear everything."""
        return self.ring.listen()

    def start(self) -> None:
        """Open the source and begin to read, in the background."""
        self._thread.start()

    @property
    def trouble(self) -> str:
        """What is wrong with the sound now, in one sentence; empty when all is well."""
        if self._lost:
            return self._lost
        drift_ppm = self.drift_ppm
        if drift_ppm is not None and abs(drift_ppm) > WRONG_CLOCK_PPM:
            return (
                f"{self._reader.where} runs {abs(drift_ppm) / 1e4:.1f} % too "
                f"{'fast' if drift_ppm > 0 else 'slow'}: it has another rate than it says."
            )
        conditioner = self._conditioner
        return FAULTS[conditioner.fault] if conditioner is not None else ""

    @property
    def drift_ppm(self) -> float | None:
        """How fast the device's clock runs; None for files, and before that is known."""
        return None if self._drift is None else self._drift.ppm

    @property
    def overruns(self) -> int:
        """How often the driver lost sound."""
        return self._reader.overruns

    def tell(self, label: str) -> None:
        """A word was heard: tell whoever gave the sound, if they want to know."""
        if isinstance(self._reader, Answering):
            self._reader.answer(label)

    def close(self, timeout_s: float = 3.0) -> None:
        """Stop. A read that hangs in a driver is left behind in its daemon thread."""
        self._closed.set()
        self.ring.close()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            read = self._read_live if self._reader.live else self._read_file
            error = read_out(read, self._reader.where)
        finally:
            self._reader.close()
        self.ring.end(error)

    def _read_file(self) -> None:
        while not self._closed.is_set():
            before = self.ring.written
            self._drain(self._reader.open())
            self._reader.close()
            if self.ring.written == before and not self._closed.is_set():
                raise SourceError(
                    "empty",
                    f"{self._reader.where} holds no sound.",
                    "Check path in [pipeline.source].",
                )
            if not self._loop:
                return
            self.ring.mark_gap()

    def _read_live(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._closed.is_set():
            try:
                form = self._reader.open()
                if self.ring.written:
                    self.returns += 1
                    self.ring.mark_gap()
                if self._drain(form):
                    pause_s = FIRST_PAUSE_S
                cause = f"{self._reader.where} stopped delivering sound."
            except SourceError as error:
                if error.slug == "bad-rate":
                    raise
                cause = error.cause
            self._reader.close()
            if self._closed.is_set():
                return
            if not self._lost:
                log.warning("%s Trying again.", cause)
            self._lost = cause
            self._wait(self._closed, pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _drain(self, form: SoundFormat) -> int:
        """Until the end, or until the device is lost; the number of samples it gave."""
        conditioner = Conditioner(form.rate_hz, self._rate_hz, self._picked(form))
        drift = Drift(form.rate_hz) if self._reader.live else None
        self._conditioner, self._drift = conditioner, drift
        count, overruns = 0, self._reader.overruns
        while not self._closed.is_set():
            data = self._reader.read()
            if data is None:
                break
            if self._reader.overruns != overruns:
                overruns = self._reader.overruns
                self.ring.mark_gap()
            frames = decode_samples(data, form)
            count += len(frames)
            if drift is not None:
                drift.arrived(count, self._clock())
            self._lost = ""
            self.ring.write(conditioner.push(frames))
        self.ring.write(conditioner.flush())
        return count

    def _picked(self, form: SoundFormat) -> int | None:
        """The configured channel, where the device has so many."""
        if self._channel is not None and self._channel >= form.channels:
            log.warning(
                "%s has %d channels; the mean of all takes the place of channel %d",
                *(self._reader.where, form.channels, self._channel),
            )
            return None
        return self._channel

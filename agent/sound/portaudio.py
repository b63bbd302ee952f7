"""A microphone through PortAudio and the ``sounddevice`` package: Linux, macOS and Windows."""

from __future__ import annotations

import contextlib
import queue
from typing import Any

from agent.sound.base import BLOCK_S, STALL_S, no_microphone
from edge_sdk.audio.samples import Encoding, SoundFormat
from edge_sdk.errors import SourceError

_TYPES: dict[Encoding, str] = {
    "u8": "uint8",
    "s16": "int16",
    "s24": "int24",
    "s32": "int32",
    "f32": "float32",
}
MAX_WAITING = 100
"""Blocks between PortAudio's thread and ours: two seconds."""


def import_sounddevice() -> Any:
    """The package, which loads the native library.

    Raises:
        SourceError: ``source.extra-missing``.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        raise SourceError(
            "extra-missing",
            f"Microphones need sounddevice and PortAudio, which cannot be loaded: {error}.",
            "pip install 'edge-sdk[audio]', and on Linux apt-get install libportaudio2; or use "
            "kind = 'alsa', which needs alsa-utils only.",
        ) from error
    return sounddevice


class PortAudioReader:
    """Reads a microphone.

    Args:
        device: PortAudio's number, or part of a name; empty for the default.
        form: what is asked for; a device that has no such rate is opened at its own.
        package: stands in for ``sounddevice``.

    Raises:
        SourceError: ``source.extra-missing``.
    """

    live = True

    def __init__(self, device: int | str, form: SoundFormat, package: Any = None) -> None:
        self._package = package or import_sounddevice()
        self._device = device if device != "" else None
        self._form = form
        self._stream: Any = None
        self._blocks: queue.Queue[bytes] = queue.Queue(MAX_WAITING)
        self.overruns = 0
        self._looked = False

    @property
    def where(self) -> str:
        """The device."""
        return f"microphone {'(default)' if self._device is None else self._device}"

    def open(self) -> SoundFormat:
        """Open the device, at the asked format or else at the rate it has.

        Raises:
            SourceError: ``source.no-microphone``.
        """
        self.close()
        self._blocks = queue.Queue(MAX_WAITING)
        errors = (self._package.PortAudioError, ValueError, OSError)
        try:
            self._look_again()
            return self._start(self._form)
        except errors as first:
            try:
                info = self._package.query_devices(self._device, "input")
                own = SoundFormat(
                    round(info["default_samplerate"]),
                    min(self._form.channels, int(info["max_input_channels"])),
                    self._form.encoding,
                )
                return self._start(own)
            except errors:
                raise no_microphone(self.where, str(first)) from first

    def _look_again(self) -> None:
        """PortAudio lists devices once: what is plugged in later exists after a new start only."""
        if self._looked:
            with contextlib.suppress(self._package.PortAudioError):  # it was not even started
                self._package._terminate()
            self._package._initialize()
        self._looked = True

    def _start(self, form: SoundFormat) -> SoundFormat:
        stream = self._package.RawInputStream(
            samplerate=form.rate_hz,
            blocksize=round(form.rate_hz * BLOCK_S),
            device=self._device,
            channels=form.channels,
            dtype=_TYPES[form.encoding],
            callback=self._arrived,
        )
        try:
            stream.start()
        except BaseException:
            stream.close(ignore_errors=True)  # or the next attempt finds the device in use
            raise
        self._stream = stream
        return form

    def _arrived(self, data: Any, _frames: int, _time: Any, status: Any) -> None:
        """Called by PortAudio's thread, which must not wait."""
        if status and status.input_overflow:
            self.overruns += 1
        try:
            self._blocks.put_nowait(bytes(data))
        except queue.Full:
            self.overruns += 1

    def read(self) -> bytes | None:
        """The next block, or None when none has come for a while: the device is gone."""
        try:
            return self._blocks.get(timeout=STALL_S)
        except queue.Empty:
            return None

    def close(self) -> None:
        """Free the device."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close(ignore_errors=True)

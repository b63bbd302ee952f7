"""WAV files block by block: every PCM and float width, also headers that a stream has written.

The standard library reads no float samples and refuses ``WAVE_FORMAT_EXTENSIBLE``, which most
recorders write. Layout: Microsoft, "Multimedia Programming Interface and Data Specifications 1.0".
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from edge_sdk.audio.samples import BYTES, Encoding, Floats, SoundFormat, decode_samples
from edge_sdk.errors import SourceError

MAX_CHANNELS = 64
MAX_CHUNKS = 1000
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_KINDS: dict[tuple[int, int], Encoding] = {
    (_PCM, 8): "u8",
    (_PCM, 16): "s16",
    (_PCM, 24): "s24",
    (_PCM, 32): "s32",
    (_FLOAT, 32): "f32",
    (_FLOAT, 64): "f64",
}
_UNKNOWN_SIZE = 0xFFFFFFFF
"""What programs write that do not know the length when they begin."""


class WaveFile:
    """A WAV file that is read from its beginning to its end.

    Args:
        file: opened for reading; stays the caller's.
        where: its name in messages.

    Raises:
        SourceError: ``source.bad-wave``.
    """

    def __init__(self, file: BinaryIO, where: str) -> None:
        self._file = file
        self._where = where
        self.form, self._left = self._header()

    def read(self, frames: int) -> bytes:
        """At most so many whole frames; empty at the end. A file that is cut off ends early."""
        wanted = frames * self.form.frame_bytes
        data = self._file.read(wanted if self._left is None else min(wanted, self._left))
        whole = len(data) - len(data) % self.form.frame_bytes
        if self._left is not None:
            self._left -= len(data)
        return data[:whole]

    def _header(self) -> tuple[SoundFormat, int | None]:
        """Format and length of the data in bytes; the file then stands at the first sample."""
        riff, _, wave = struct.unpack("<4sI4s", self._exactly(12))
        if riff not in (b"RIFF", b"RF64") or wave != b"WAVE":
            raise self._bad("it does not begin as a WAV file does")
        form: SoundFormat | None = None
        for _ in range(MAX_CHUNKS):
            name, size = struct.unpack("<4sI", self._exactly(8))
            if name == b"data":
                if form is None:
                    raise self._bad("its samples come before their format")
                return form, None if size in (0, _UNKNOWN_SIZE) else size
            if name == b"fmt ":
                form = self._format(self._exactly(min(size, 64)))
                size -= min(size, 64)
            self._skip(size + size % 2)
        raise self._bad("it has no samples")

    def _format(self, data: bytes) -> SoundFormat:
        if len(data) < 16:
            raise self._bad("its format is cut off")
        kind, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", data)
        if kind == _EXTENSIBLE and len(data) >= 26:
            (kind,) = struct.unpack_from("<H", data, 24)
        encoding = _KINDS.get((kind, bits))
        if encoding is None:
            raise self._bad(f"its samples are of kind {kind} with {bits} bits")
        if not 1 <= channels <= MAX_CHANNELS or not rate_hz:
            raise self._bad(f"it claims {channels} channels at {rate_hz} Hz")
        return SoundFormat(rate_hz, channels, encoding)

    def _exactly(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise self._bad("it ends in its header")
        return data

    def _skip(self, count: int) -> None:
        # Read, not sought: the file may be a pipe.
        while count > 0:
            count -= len(self._exactly(min(count, 65536)))

    def _bad(self, what: str) -> SourceError:
        return SourceError(
            "bad-wave",
            f"{self._where} cannot be read as WAV: {what}.",
            "Write it as PCM or float WAV, e.g. with: ffmpeg -i FILE -c:a pcm_s16le out.wav",
        )


def read_wave(path: Path) -> tuple[Floats, int]:
    """A whole file: samples (N, channels) float32 and their rate in Hz.

    Raises:
        SourceError: ``source.missing-file`` or ``source.bad-wave``.
    """
    try:
        with path.open("rb") as file:
            wave = WaveFile(file, str(path))
            parts = []
            while data := wave.read(65536):
                parts.append(decode_samples(data, wave.form))
    except OSError as error:
        raise missing_sound(path, error) from error
    empty = np.zeros((0, wave.form.channels), np.float32)
    return (np.concatenate(parts) if parts else empty), wave.form.rate_hz


def wave_bytes(samples: Floats, rate_hz: int) -> bytes:
    """Samples (N,) or (N, channels) as a 16-bit WAV file."""
    frames = samples[:, None] if samples.ndim == 1 else samples
    stored = np.clip(np.rint(frames * 2.0**15), -(2**15), 2**15 - 1).astype("<i2")
    data: bytes = stored.tobytes()
    form = SoundFormat(rate_hz, frames.shape[1], "s16")
    width = BYTES[form.encoding]
    numbers = (_PCM, form.channels, rate_hz, rate_hz * form.frame_bytes, form.frame_bytes)
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, *numbers, 8 * width)
    body = head + struct.pack("<4sI", b"data", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def missing_sound(path: Path, error: OSError) -> SourceError:
    """A sound file that cannot be opened."""
    return SourceError(
        "missing-file",
        f"Cannot read the sound file {path}: {error.strerror or error}.",
        "Check path in [pipeline.source]; it is relative to the configuration's folder.",
    )

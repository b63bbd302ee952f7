"""A microphone through ALSA's own ``arecord``: no Python package, no native code in the worker."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Sequence

from agent.sound.base import BLOCK_S, no_microphone
from agent.sound.files import read_exactly
from edge_sdk.audio.samples import Encoding, SoundFormat
from edge_sdk.errors import SourceError

_NAMES: dict[Encoding, str] = {
    "u8": "U8",
    "s16": "S16_LE",
    "s24": "S24_3LE",
    "s32": "S32_LE",
    "f32": "FLOAT_LE",
    "f64": "FLOAT64_LE",
}
BUFFER_S = 0.2
LEAVE_S = 1.0


class AlsaReader:
    """Reads what ``arecord`` writes.

    Args:
        device: ALSA's name, e.g. ``default``, ``plughw:1,0`` or ``dsnoop:1``, which several
            programs may share.
        form: what is asked for; ``plug`` devices convert to it.
        program: the recorder.
    """

    live = True
    overruns = 0

    def __init__(
        self, device: str, form: SoundFormat, program: Sequence[str] = ("arecord",)
    ) -> None:
        self._device = device
        self._form = form
        self._program = tuple(program)
        self._process: subprocess.Popen[bytes] | None = None
        self._first: bytes | None = None

    @property
    def where(self) -> str:
        """The device."""
        return f"microphone {self._device}"

    def open(self) -> SoundFormat:
        """Start recording.

        Raises:
            SourceError: ``source.extra-missing`` or ``source.no-microphone``.
        """
        self.close()
        form = self._form
        command = [*self._program, "-q", "-t", "raw", "-D", self._device]
        command += ["-f", _NAMES[form.encoding], "-r", str(form.rate_hz), "-c", str(form.channels)]
        command += [f"--buffer-time={int(BUFFER_S * 1e6)}", f"--period-time={int(BLOCK_S * 1e6)}"]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except (FileNotFoundError, PermissionError) as error:
            raise SourceError(
                "extra-missing",
                f"Recording through ALSA needs {self._program[0]}, which is not installed.",
                "apt-get install alsa-utils, or use kind = 'microphone'.",
            ) from error
        except OSError as error:
            raise no_microphone(self.where, error.strerror or str(error)) from error
        self._first = self._read()
        if self._first is None:
            why = self._last_words() or "the recorder runs, but delivers no sound"
            raise no_microphone(self.where, why)
        return form

    def read(self) -> bytes | None:
        """The next block, or None when the device is gone."""
        first, self._first = self._first, None
        return first or self._read()

    def close(self) -> None:
        """Stop recording."""
        process, self._process = self._process, None
        if process is None:
            return
        for stream in (process.stdout, process.stderr):
            if stream is not None:  # what it still writes must not keep it, nor its children us
                stream.close()
        process.terminate()
        try:
            process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # a driver may hold it for long
                process.wait(LEAVE_S)

    def _read(self) -> bytes | None:
        process, form = self._process, self._form
        if process is None or process.stdout is None:
            return None
        wanted = round(form.rate_hz * BLOCK_S) * form.frame_bytes
        return read_exactly(process.stdout.fileno(), wanted, form.frame_bytes) or None

    def _last_words(self) -> str:
        process = self._process
        if process is None or process.stderr is None:
            return ""
        process.terminate()
        os.set_blocking(process.stderr.fileno(), False)
        try:
            process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            process.kill()
        said = process.stderr.read(2000) or b""
        return said.decode(errors="replace").strip().replace("\n", "; ")

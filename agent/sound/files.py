"""Sound from files and pipes."""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from agent.sound.base import BLOCK_S, STALL_S
from agent.sound.config import STDIN
from edge_sdk.audio.samples import SoundFormat
from edge_sdk.audio.wavefile import WaveFile, missing_sound
from edge_sdk.errors import SourceError


class WaveReader:
    """Reads a WAV file from its first sample to its last.

    Args:
        path: the file.
    """

    live = False
    overruns = 0

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._wave: WaveFile | None = None

    @property
    def where(self) -> str:
        """The file."""
        return str(self._path)

    def open(self) -> SoundFormat:
        """Begin at the first sample.

        Raises:
            SourceError: ``source.missing-file`` or ``source.bad-wave``.
        """
        self.close()
        check_file(self._path)
        try:
            self._file = self._path.open("rb")
        except OSError as error:
            raise missing_sound(self._path, error) from error
        self._wave = WaveFile(self._file, self.where)
        return self._wave.form

    def read(self) -> bytes | None:
        """The next block, or None at the end."""
        wave = self._wave
        return None if wave is None else wave.read(round(wave.form.rate_hz * BLOCK_S)) or None

    def close(self) -> None:
        """Free the file."""
        if self._file is not None:
            self._file.close()
            self._file = self._wave = None


class CodecReader:
    """FLAC, Ogg and what else libsndfile decodes, through the ``soundfile`` package.

    Args:
        path: the file.

    Raises:
        SourceError: ``source.extra-missing``.
    """

    live = False
    overruns = 0

    def __init__(self, path: Path) -> None:
        try:
            import soundfile
        except (ImportError, OSError) as error:
            raise SourceError(
                "extra-missing",
                f"{path.name} is no WAV file, and reading others needs soundfile, which cannot "
                f"be imported: {error}.",
                "pip install 'edge-sdk[audio]'",
            ) from error
        self._soundfile: Any = soundfile
        self._path = path
        self._file: Any = None

    @property
    def where(self) -> str:
        """The file."""
        return str(self._path)

    def open(self) -> SoundFormat:
        """Begin at the first sample.

        Raises:
            SourceError: ``source.missing-file`` or ``source.bad-wave``.
        """
        self.close()
        check_file(self._path)
        try:
            self._file = self._soundfile.SoundFile(self._path)
        except (self._soundfile.SoundFileError, RuntimeError) as error:
            raise self._undecodable(error) from error
        return SoundFormat(self._file.samplerate, self._file.channels, "f32")

    def read(self) -> bytes | None:
        """The next block, or None at the end.

        Raises:
            SourceError: ``source.bad-wave`` where the file is damaged.
        """
        if self._file is None:
            return None
        wanted = round(self._file.samplerate * BLOCK_S)
        try:
            frames = self._file.read(wanted, dtype="float32", always_2d=True)
        except (self._soundfile.SoundFileError, RuntimeError) as error:
            raise self._undecodable(error) from error
        return frames.astype("<f4").tobytes() or None

    def close(self) -> None:
        """Free the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _undecodable(self, error: Exception) -> SourceError:
        return SourceError(
            "bad-wave",
            f"{self._path} cannot be decoded: {str(error).rstrip('.')}.",
            "Write it as WAV, e.g. with: ffmpeg -i FILE -c:a pcm_s16le out.wav",
        )


def check_file(path: Path) -> None:
    """Refuse what is no regular file: a pipe would make the reader wait for a writer for ever.

    Raises:
        SourceError: ``source.missing-file``.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise missing_sound(path, error) from error
    if not stat.S_ISREG(mode):
        raise SourceError(
            "missing-file",
            f"{path} is {_sort(mode)}, not a sound file.",
            "Name a file; raw samples from a pipe are heard with kind = 'pipe'.",
        )


def check_pipe(path: str) -> None:
    """Refuse what would end at once and begin again for ever. What is not there may come.

    Raises:
        SourceError: ``source.no-pipe``.
    """
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        raise SourceError(
            "no-pipe",
            f"{path} is {_sort(mode)}, not a pipe.",
            "Make one with mkfifo; a sound file is heard with kind = 'sound'.",
        )


def _sort(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "a file"
    return "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"


class PipeReader:
    """Raw samples from a named pipe or a character device, which come and go as a microphone does.

    ``-`` is the standard input: it may be slow, and ends.

    Args:
        path: what to open.
        form: how the samples lie, which a pipe cannot say.
    """

    overruns = 0

    def __init__(self, path: str, form: SoundFormat) -> None:
        self._path = path
        self._form = form
        self._descriptor = -1
        self.live = path != STDIN

    @property
    def where(self) -> str:
        """The pipe."""
        return self._path if self.live else "the standard input"

    def open(self) -> SoundFormat:
        """Open without waiting for a writer.

        Raises:
            SourceError: ``source.missing-file`` or ``source.no-pipe``.
        """
        self.close()
        if self.live:
            check_pipe(self._path)
        try:
            if self.live:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
            else:
                self._descriptor = os.dup(0)
        except OSError as error:
            raise missing_sound(Path(self._path), error) from error
        return self._form

    def read(self) -> bytes | None:
        """The next block; None when the writer is gone, or a live one silent."""
        wanted = round(self._form.rate_hz * BLOCK_S) * self._form.frame_bytes
        data = read_exactly(self._descriptor, wanted, self._form.frame_bytes)
        return (data or None) if self.live else data

    def close(self) -> None:
        """Free the pipe."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class PacedReader:
    """A file that behaves like a microphone: its sound comes at its own rate, ready or not.

    Stands in for a device in tests, in benchmarks and where a recording is to be replayed. At the
    end of the file it is lost, as a microphone that is pulled out, and then begins again.

    Args:
        reader: a file.
        clock: monotonic seconds.
        sleep: waits for so many.
    """

    live = True
    overruns = 0

    def __init__(
        self,
        reader: WaveReader | CodecReader,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._reader = reader
        self._clock = clock
        self._sleep = sleep
        self._form = SoundFormat(1)
        self._began_s = 0.0
        self._frames = 0

    @property
    def where(self) -> str:
        """The file."""
        return self._reader.where

    @property
    def began_s(self) -> float:
        """Clock time of the first sample."""
        return self._began_s

    def open(self) -> SoundFormat:
        """Begin to play."""
        self._form = self._reader.open()
        self._began_s, self._frames = self._clock(), 0
        return self._form

    def read(self) -> bytes | None:
        """The next block, once its last sample has been played."""
        data = self._reader.read()
        if data is not None:
            self._frames += len(data) // self._form.frame_bytes
            due_s = self._began_s + self._frames / self._form.rate_hz
            self._sleep(max(0.0, due_s - self._clock()))
        return data

    def close(self) -> None:
        """Free the file."""
        self._reader.close()


def read_exactly(descriptor: int, wanted: int, frame_bytes: int) -> bytes | None:
    """So many bytes of a descriptor; fewer, but whole frames, at its end.

    None at the end; empty when nothing has come for :data:`agent.sound.base.STALL_S`.
    """
    data = bytearray()
    ended = False
    while len(data) < wanted and not ended:
        if not select.select((descriptor,), (), (), STALL_S)[0]:
            break
        try:
            part = os.read(descriptor, wanted - len(data))
        except BlockingIOError:
            continue
        except OSError:
            part = b""
        ended = not part
        data += part
    whole = len(data) - len(data) % frame_bytes
    return None if ended and not whole else bytes(data[:whole])

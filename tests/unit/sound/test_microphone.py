"""A microphone that vanishes, lies, clips or is silent: never a crash, never a stuck thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.sound.files import PacedReader, PipeReader, WaveReader
from agent.sound.microphone import Microphone
from agent.sound.ring import Listener
from agent.sources.reading import LONGEST_PAUSE_S
from edge_sdk.audio.condition import conditioned
from edge_sdk.audio.samples import Floats, SoundFormat, decode_samples
from edge_sdk.audio.wavefile import read_wave, wave_bytes
from edge_sdk.errors import EdgeError, SourceError
from tests.unit.audio.test_features import noise

Take = bytes | None | EdgeError | Exception


class ScriptedReader:
    """Our own interface, played from a list: one inner list per time it is opened."""

    overruns = 0

    def __init__(
        self, takes: list[list[Take]], *, live: bool = True, form: SoundFormat | None = None
    ) -> None:
        self.live = live
        self.where = "the script"
        self._form = form or SoundFormat(16000)
        self._takes = iter(takes)
        self._now: Iterator[Take] = iter(())
        self.opened = 0
        self.exhausted = threading.Event()

    def open(self) -> SoundFormat:
        self.opened += 1
        takes = next(self._takes, None)
        if takes is None:
            self.exhausted.set()
            raise SourceError("no-microphone", "Cannot open the script: it is over.", "Stop.")
        self._now = iter(takes)
        return self._form

    def read(self) -> bytes | None:
        take = next(self._now, None)
        if isinstance(take, Exception):
            raise take
        return take

    def close(self) -> None:
        self._now = iter(())


def packed(samples: Floats) -> bytes:
    return (samples * 2**15).astype("<i2").tobytes()


def collect(listener: Listener, until: Callable[[], bool]) -> list[tuple[int, int, bool]]:
    """Start, length and resumption of what is heard, neighbours joined."""
    found: list[tuple[int, int, bool]] = []
    for _ in range(1000):
        heard = listener.take(0.05)
        if heard is None:
            if until() or listener.ended:
                return found
        elif heard.resumed or not found:
            found.append((heard.start, len(heard.samples), heard.resumed))
        else:
            start, length, resumed = found[-1]
            found[-1] = (start, length + len(heard.samples), resumed)
    raise AssertionError("the source never ended")


def no_wait(pauses: list[float]) -> Callable[[threading.Event, float], object]:
    def wait(closed: threading.Event, seconds: float) -> object:
        pauses.append(seconds)
        return closed.wait(0.001)

    return wait


def test_a_microphone_that_is_pulled_out_and_put_back_is_heard_again() -> None:
    block = packed(noise(0.02))
    reader = ScriptedReader([[block, block], [block]])
    pauses: list[float] = []
    microphone = Microphone(reader, 16000, wait=no_wait(pauses))
    listener = microphone.listen()
    microphone.start()
    try:
        found = collect(listener, reader.exhausted.is_set)
        assert found == [(0, 640, False), (640, 320, True)]
        assert microphone.returns == 1
        assert "it is over" in microphone.trouble
    finally:
        microphone.close()
    assert pauses[:2] == [0.25, 0.25], "a device that gave sound is looked for quickly"
    assert max(pauses) <= LONGEST_PAUSE_S


def test_pauses_grow_while_there_is_no_microphone() -> None:
    reader, pauses = ScriptedReader([]), list[float]()
    microphone = Microphone(reader, 16000, wait=no_wait(pauses))
    microphone.start()
    while len(pauses) < 9:
        threading.Event().wait(0.002)
    microphone.close()
    assert pauses[:9] == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert microphone.ring.ended


@pytest.mark.parametrize(
    ("form", "build"),
    [
        (SoundFormat(44100, 2, "f32"), lambda x: np.stack((x, x), 1).astype("<f4").tobytes()),
        (SoundFormat(8000, 1, "u8"), lambda x: ((x * 127) + 128).astype(np.uint8).tobytes()),
        (
            SoundFormat(48000, 6, "s32"),
            lambda x: np.stack([x * 2**31] * 6, 1).astype("<i4").tobytes(),
        ),
    ],
)
def test_any_format_becomes_the_models(form: SoundFormat, build: Callable[[Floats], bytes]) -> None:
    data = build(noise(0.5))
    size = form.frame_bytes * 441
    blocks: list[Take] = [data[i : i + size] for i in range(0, len(data), size)]
    microphone = Microphone(ScriptedReader([blocks], live=False, form=form), 16000)
    listener = microphone.listen()
    microphone.start()
    parts = []
    while not listener.ended:
        heard = listener.take(1.0)
        parts += [] if heard is None else [heard.samples]
    microphone.close()
    frames = decode_samples(data, form)
    assert np.array_equal(np.concatenate(parts), conditioned(frames, form.rate_hz, 16000))


@pytest.mark.parametrize(
    ("sound", "words"),
    [
        (np.zeros(6 * 16000, np.float32), "silence"),
        (np.sign(noise(2.0)) * np.float32(0.9999), "cut off"),
        (noise(2.0, level=0.01) + np.float32(0.5), "offset"),
    ],
)
def test_faulty_sound_is_said_and_still_delivered(sound: Floats, words: str) -> None:
    reader = ScriptedReader([[packed(part) for part in np.array_split(sound, 50)]], live=False)
    microphone = Microphone(reader, 16000)
    listener = microphone.listen()
    microphone.start()
    ((_, length, _),) = collect(listener, lambda: False)
    assert length == len(sound)
    assert words in microphone.trouble
    microphone.close()


def test_a_rate_that_no_device_has_ends_with_the_reason() -> None:
    reader = ScriptedReader([[b"\0" * 640]], form=SoundFormat(12345))
    microphone = Microphone(reader, 16000)
    listener = microphone.listen()
    microphone.start()
    with pytest.raises(SourceError) as caught:
        collect(listener, lambda: False)
    assert caught.value.code == "source.bad-rate"
    microphone.close()


def test_a_driver_that_fails_ends_in_an_error_and_not_in_silence() -> None:
    reader = ScriptedReader([[packed(noise(0.1)), ZeroDivisionError("driver")]])
    microphone = Microphone(reader, 16000)
    listener = microphone.listen()
    microphone.start()
    with pytest.raises(SourceError) as caught:
        collect(listener, lambda: False)
    assert caught.value.code == "source.failed"
    microphone.close()


def test_a_clock_that_is_far_off_is_said() -> None:
    """A device that says 16 kHz and delivers 48 kHz."""
    now = iter(0.02 / 3 * i for i in range(10**6))
    reader = ScriptedReader([[packed(noise(0.02))] * 3100])
    troubles: list[str] = []

    def wait(closed: threading.Event, _: float) -> object:
        return closed.wait(0.01)

    def clock() -> float:
        troubles.append(microphone.trouble)
        return next(now)

    microphone = Microphone(reader, 16000, ring_s=100.0, clock=clock, wait=wait)
    listener = microphone.listen()
    microphone.start()
    while not reader.exhausted.is_set():
        listener.take(0.05)
    microphone.close()
    assert microphone.drift_ppm == pytest.approx(2e6, rel=0.01)
    assert any("200.0 % too fast" in trouble for trouble in troubles)


def test_a_wave_file_is_heard_by_all_and_ends(tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    path.write_bytes(wave_bytes(noise(1.0), 16000))
    microphone = Microphone(WaveReader(path), 16000, ring_s=0.1)
    one, two = microphone.listen(), microphone.listen()
    microphone.start()
    total = {one: 0, two: 0}
    while not (one.ended and two.ended):
        for listener in total:
            heard = listener.take(1.0)
            total[listener] += len(heard.samples) if heard else 0
    microphone.close()
    assert set(total.values()) == {16000}
    assert one.lost == two.lost == 0


@pytest.mark.parametrize("loop", [True, False])
def test_a_file_without_sound_is_an_error(tmp_path: Path, loop: bool) -> None:
    path = tmp_path / "empty.wav"
    path.write_bytes(wave_bytes(noise(0.0), 16000))
    microphone = Microphone(WaveReader(path), 16000, loop=loop)
    listener = microphone.listen()
    microphone.start()
    with pytest.raises(SourceError) as caught:
        collect(listener, lambda: False)
    assert caught.value.code == "source.empty"
    microphone.close()


def test_a_looped_file_says_where_it_begins_again(tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    path.write_bytes(wave_bytes(noise(0.1), 16000))
    microphone = Microphone(WaveReader(path), 16000, loop=True)
    listener = microphone.listen()
    microphone.start()
    pieces = []
    while len(pieces) < 3:
        heard = listener.take(1.0, most=1600)
        assert heard is not None
        pieces += [heard] if heard.start % 1600 == 0 else []
    microphone.close()
    assert [(p.start, p.resumed) for p in pieces] == [(0, False), (1600, True), (3200, True)]


def test_a_paced_file_takes_its_own_time(tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    path.write_bytes(wave_bytes(noise(0.1), 16000))
    now = [5.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    reader = PacedReader(WaveReader(path), lambda: now[0], sleep)
    reader.open()
    arrived = []
    while (data := reader.read()) is not None:
        arrived.append((len(data), round(now[0] - 5.0, 6)))
    reader.close()
    assert arrived == [(1280, 0.04), (1280, 0.08), (640, 0.1)]
    assert reader.live


def test_a_named_pipe_gives_whole_frames_and_reports_its_writers_end(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = PipeReader(str(path), SoundFormat(16000))
    reader.open()
    writer = os.open(path, os.O_WRONLY)
    os.write(writer, b"\1\2" * 800 + b"\3")
    first = reader.read()
    os.close(writer)
    second, third = reader.read(), reader.read()
    reader.close()
    assert first is not None
    assert second is not None
    assert (len(first), len(second), third) == (1280, 320, None)


def test_a_pipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        PipeReader(str(tmp_path / "none"), SoundFormat(16000)).open()
    assert caught.value.code == "source.missing-file"


def test_other_codings_are_read_with_the_extra(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="needs the audio extra")
    from agent.sound.files import CodecReader

    path = tmp_path / "noise.flac"
    soundfile.write(path, noise(0.1), 22050)
    (tmp_path / "bad.flac").write_bytes(b"no sound at all")
    reader = CodecReader(path)
    form, data = reader.open(), b""
    while block := reader.read():
        data += block
    reader.close()
    assert form == SoundFormat(22050, 1, "f32")
    assert np.abs(decode_samples(data, form)[:, 0] - noise(0.1)).max() < 1e-3
    with pytest.raises(SourceError) as caught:
        CodecReader(tmp_path / "bad.flac").open()
    assert caught.value.code == "source.bad-wave"
    with pytest.raises(SourceError) as caught:
        CodecReader(tmp_path / "none.flac").open()
    assert caught.value.code == "source.missing-file"


def test_read_wave_and_microphone_agree(tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    path.write_bytes(wave_bytes(noise(0.3), 44100))
    samples, rate_hz = read_wave(path)
    microphone = Microphone(WaveReader(path), 16000)
    listener = microphone.listen()
    microphone.start()
    parts = []
    while not listener.ended:
        heard = listener.take(1.0)
        parts += [] if heard is None else [heard.samples]
    microphone.close()
    assert np.array_equal(np.concatenate(parts), conditioned(samples, rate_hz, 16000))

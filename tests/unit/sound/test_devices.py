"""Real recorders on a device that ALSA plays from a file: arecord and PortAudio, no sound card."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from agent.pipelines.config import SourceConfig
from agent.sound import files
from agent.sound.alsa import AlsaReader
from agent.sound.base import BLOCK_S
from agent.sound.check import check_sound
from agent.sound.portaudio import PortAudioReader, import_sounddevice
from edge_sdk.audio.samples import SoundFormat
from edge_sdk.errors import SourceError
from tests.source_walk import ROOT

FORM = SoundFormat(16000)
BLOCK_BYTES = round(16000 * BLOCK_S) * 2
SYSTEM = Path("/usr/share/alsa/alsa.conf")
DEVICE = """
pcm.loopback {{
  type file
  slave.pcm null
  file /dev/null
  infile "{path}"
  format raw
}}
"""
needs_arecord = pytest.mark.skipif(
    shutil.which("arecord") is None, reason="arecord (alsa-utils) is not installed"
)


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What the device ``loopback`` plays."""
    data = np.arange(32000, dtype="<i2").tobytes()
    (tmp_path / "sound.raw").write_bytes(data)
    config = tmp_path / "asound.conf"
    config.write_text(DEVICE.format(path=tmp_path / "sound.raw"))
    monkeypatch.setenv("ALSA_CONFIG_PATH", f"{SYSTEM}:{config}")
    return data


@needs_arecord
def test_arecord_delivers_what_the_device_plays(played: bytes) -> None:
    reader = AlsaReader("loopback", FORM)
    assert reader.open() == FORM
    blocks = [reader.read() for _ in range(20)]
    reader.close()
    assert b"".join(block or b"" for block in blocks) == played[: 20 * BLOCK_BYTES]


@needs_arecord
def test_a_device_that_is_not_there_is_named_with_alsas_words(played: bytes) -> None:
    reader = AlsaReader("absent", FORM)
    with pytest.raises(SourceError) as caught:
        reader.open()
    reader.close()
    assert caught.value.code == "source.no-microphone"
    assert "absent" in caught.value.cause
    assert "Unknown PCM" in caught.value.cause


def test_a_recorder_that_dies_is_a_lost_microphone(tmp_path: Path) -> None:
    program = tmp_path / "recorder"
    program.write_text("#!/bin/sh\nhead -c 2000 /dev/zero\n")
    program.chmod(0o755)
    reader = AlsaReader("default", FORM, (str(program),))
    reader.open()
    blocks = [reader.read() for _ in range(3)]
    reader.close()
    assert [len(block or b"") for block in blocks] == [1280, 720, 0]


def test_a_recorder_that_hangs_with_a_child_holds_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "STALL_S", 0.2)
    program = tmp_path / "recorder"
    program.write_text("#!/bin/sh\nsleep 5 &\nwait\n")  # the child keeps the pipes open
    program.chmod(0o755)
    reader = AlsaReader("default", FORM, (str(program),))
    began_s = time.monotonic()
    with pytest.raises(SourceError) as caught:
        reader.open()
    reader.close()
    assert time.monotonic() - began_s < 4
    assert "delivers no sound" in caught.value.cause


def test_without_a_recorder_the_package_is_named() -> None:
    with pytest.raises(SourceError) as caught:
        AlsaReader("default", FORM, ("recorder-that-is-absent",)).open()
    assert caught.value.code == "source.extra-missing"
    assert "alsa-utils" in caught.value.hint


@pytest.fixture
def portaudio() -> None:
    try:
        import_sounddevice()
    except SourceError as error:
        pytest.skip(error.cause)


HEAR = """
from agent.sound.portaudio import PortAudioReader
from edge_sdk.audio.samples import SoundFormat
reader = PortAudioReader("loopback", SoundFormat(16000))
reader.open()
print(b"".join(reader.read() or b"" for _ in range(20)).hex())
reader.close()
"""


@needs_arecord
def test_portaudio_delivers_what_the_device_plays(portaudio: None, played: bytes) -> None:
    # PortAudio looks for devices once per process.
    done = subprocess.run(
        [sys.executable, "-c", HEAR], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert bytes.fromhex(done.stdout.split()[-1]) == played[: 20 * BLOCK_BYTES]


LATE = """
from pathlib import Path
import sys
from agent.sound.portaudio import PortAudioReader
from edge_sdk.audio.samples import SoundFormat
from edge_sdk.errors import SourceError
reader = PortAudioReader("loopback", SoundFormat(16000))
try:
    reader.open()
except SourceError as error:
    print(error.code)
Path(sys.argv[1]).write_text(sys.argv[2])
reader.open()
print(len(reader.read()))
reader.close()
"""


@needs_arecord
def test_a_microphone_that_is_plugged_in_later_is_found(
    portaudio: None, played: bytes, tmp_path: Path
) -> None:
    config = tmp_path / "asound.conf"
    device = config.read_text()
    config.write_text("")
    done = subprocess.run(
        [sys.executable, "-c", LATE, str(config), device],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == ["source.no-microphone", str(BLOCK_BYTES)]


@needs_arecord
def test_doctor_hears_whether_a_microphone_is_muted(played: bytes, tmp_path: Path) -> None:
    assert "dB" in check_sound(SourceConfig(kind="alsa", device="loopback"))
    (tmp_path / "sound.raw").write_bytes(bytes(64000))
    with pytest.raises(SourceError) as caught:
        check_sound(SourceConfig(kind="alsa", device="loopback"))
    assert caught.value.code == "source.silent"
    assert "muted" in caught.value.cause


def test_a_device_that_opens_but_does_not_start_is_freed(portaudio: None) -> None:
    import sounddevice

    closed = []

    class Stream:
        def __init__(self, **options: object) -> None:
            pass

        def start(self) -> None:
            raise sounddevice.PortAudioError("Unanticipated host error")

        def close(self, ignore_errors: bool) -> None:
            closed.append(ignore_errors)

    package = SimpleNamespace(**{**vars(sounddevice), "RawInputStream": Stream})
    with pytest.raises(SourceError) as caught:
        PortAudioReader("loopback", FORM, package).open()
    assert caught.value.code == "source.no-microphone"
    assert closed and all(closed)


def test_portaudio_without_such_a_device_says_so(portaudio: None) -> None:
    reader = PortAudioReader("a device that is absent", FORM)
    with pytest.raises(SourceError) as caught:
        reader.open()
    assert caught.value.code == "source.no-microphone"
    assert "a device that is absent" in caught.value.cause

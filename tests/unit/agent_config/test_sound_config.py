"""What a pipeline that listens may be told, and what doctor says of its microphone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.config import AgentConfig, load_config
from agent.doctor import Check, examine
from agent.sound.config import SoundConfig
from edge_sdk.audio.wavefile import wave_bytes
from edge_sdk.errors import ConfigError
from tests.unit.audio.test_features import noise


def write(folder: Path, source: str, sound: str = "") -> Path:
    path = folder / "agent.toml"
    path.write_text(
        f'device_id = "pi-7"\nprofile = "rpi4"\nstate_dir = "state"\nruntime_dir = "run"\n'
        f"[pipeline.source]\n{source}\n[pipeline.sound]\n{sound}\n"
    )
    return path


def load(folder: Path, source: str, sound: str = "") -> AgentConfig:
    return load_config(write(folder, source, sound), {}, root=False)


@pytest.mark.parametrize("kind", ["microphone", "alsa", "wyoming"])
def test_a_device_needs_no_path(tmp_path: Path, kind: str) -> None:
    (pipeline,) = load(tmp_path, f'kind = "{kind}"').pipelines
    assert (pipeline.source.rate_hz, pipeline.source.channels) == (16000, 1)
    assert pipeline.sound == SoundConfig()


@pytest.mark.parametrize("kind", ["sound", "pipe"])
def test_a_file_needs_one(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f'kind = "{kind}"')
    assert caught.value.code == "config.source-incomplete"


def test_paths_are_relative_to_the_file_but_the_standard_input_is_none(tmp_path: Path) -> None:
    (pipeline,) = load(tmp_path, 'kind = "pipe"\npath = "-"', 'clips = "heard"').pipelines
    assert pipeline.source.path == "-"
    assert pipeline.sound.clips == str(tmp_path / "heard")
    (pipeline,) = load(tmp_path, 'kind = "sound"\npath = "a.wav"').pipelines
    assert pipeline.source.path == str(tmp_path / "a.wav")
    assert pipeline.sound.clips == ""


@pytest.mark.parametrize(
    ("source", "sound", "words"),
    [
        ('kind = "microfone"', "", "microphone"),
        ('kind = "alsa"\nrate = 16000', "", "rate_hz"),
        ('kind = "alsa"\nencoding = "s12"', "", "s16"),
        ('kind = "alsa"', "cutoff = 0.5", "cutoffs"),
        ('kind = "alsa"', 'cutoffs = { "hey" = 2.0 }', "<= 1"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, source: str, sound: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, source, sound)
    assert words in str(caught.value)


def test_two_pipelines_do_not_share_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    one = '[[pipeline]]\nname = "{}"\nsource = {{ kind = "pipe", path = "-" }}\n'
    path.write_text('device_id = "pi-7"\nstate_dir = "s"\n' + one.format("a") + one.format("b"))
    with pytest.raises(ConfigError) as caught:
        load_config(path, {}, root=False)
    assert caught.value.code == "config.same-pipe"


def check_of_source(path: Path) -> Check:
    return next(check for check in examine(path) if check.name == "source")


def test_doctor_opens_the_sound(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wave_bytes(noise(0.1), 44100))
    found = check_of_source(write(tmp_path, 'kind = "sound"\npath = "a.wav"'))
    assert found.ok
    assert "44100 Hz" in found.detail
    found = check_of_source(write(tmp_path, 'kind = "sound"\npath = "b.wav"'))
    assert not found.ok
    assert "b.wav" in found.detail
    assert check_of_source(write(tmp_path, 'kind = "pipe"\npath = "later"')).ok


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ('kind = "sound"\npath = "folder"', "is a folder"),
        ('kind = "sound"\npath = "queue"', "is a pipe"),
        ('kind = "sound"\npath = "queue.wav"', "is a pipe"),
        ('kind = "pipe"\npath = "folder"', "not a pipe"),
        ('kind = "pipe"\npath = "agent.toml"', "not a pipe"),
        ('kind = "pipe"\npath = "queue"\nrate_hz = 11111', "11111 Hz"),
        ('kind = "wyoming"\ndevice = "kitchen"', "tcp://HOST:PORT"),
        ('kind = "wyoming"\ndevice = "tcp://127.0.0.1:99999"', "Port out of range"),
    ],
)
def test_doctor_finds_what_the_agent_would_stumble_over(
    tmp_path: Path, source: str, words: str
) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "queue")
    os.mkfifo(tmp_path / "queue.wav")
    found = check_of_source(write(tmp_path, source))
    assert not found.ok
    assert words in found.detail


def test_doctor_does_not_wake_the_writer_of_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "queue")
    assert check_of_source(write(tmp_path, 'kind = "pipe"\npath = "queue"')).ok
    with pytest.raises(OSError, match="No such device"):  # nobody has it open
        os.open(tmp_path / "queue", os.O_WRONLY | os.O_NONBLOCK)

"""From configuration to a running source of sound."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agent.pipelines.config import SourceConfig
from agent.sound.base import SoundReader
from agent.sound.files import CodecReader, PacedReader, PipeReader, WaveReader
from agent.sound.microphone import Microphone
from edge_sdk.audio.samples import SoundFormat

WAVE_SUFFIXES = {".wav", ".wave"}


def build_sound_reader(config: SourceConfig, words: Sequence[str] = ()) -> SoundReader:
    """The reader a configuration asks for, not yet open.

    Args:
        config: the source.
        words: what can be heard, for clients that ask.

    Raises:
        SourceError: ``source.extra-missing``.
    """
    form = SoundFormat(config.rate_hz, config.channels, config.encoding)
    # Each kind is imported where it is asked for: what a worker does not use should not stay in
    # its memory.
    if config.kind == "microphone":
        from agent.sound.portaudio import PortAudioReader

        # 0 is what a camera's index begins with; here it stands for the system's own choice.
        return PortAudioReader(config.device or "", form)
    if config.kind == "alsa":
        from agent.sound.alsa import AlsaReader

        return AlsaReader(str(config.device or "default"), form)
    if config.kind == "wyoming":
        from agent.sound.wake_service import DEFAULT_ADDRESS, WakeService

        return WakeService(str(config.device or DEFAULT_ADDRESS), form, words)
    if config.kind == "pipe":
        return PipeReader(config.path, form)
    path = Path(config.path)
    file = WaveReader(path) if path.suffix.lower() in WAVE_SUFFIXES else CodecReader(path)
    return PacedReader(file) if config.realtime else file


def build_microphone(config: SourceConfig, rate_hz: int, words: Sequence[str] = ()) -> Microphone:
    """A microphone or what stands in for one, not yet started.

    Args:
        config: the source.
        rate_hz: what the network hears.
        words: what can be heard, for clients that ask.

    Raises:
        SourceError: ``source.extra-missing``.
    """
    channel = config.channel if config.channel >= 0 else None
    return Microphone(build_sound_reader(config, words), rate_hz, channel=channel, loop=config.loop)

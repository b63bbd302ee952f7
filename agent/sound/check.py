"""What ``edge-agent doctor`` says of a source of sound: does it open, and what is heard."""

from __future__ import annotations

import numpy as np

from agent.pipelines.config import SourceConfig
from agent.sound.base import BLOCK_S, SoundReader, no_microphone
from agent.sound.build import build_sound_reader
from agent.sound.files import check_pipe
from edge_sdk.audio.levels import FAULTS, LevelLimits, measure_levels
from edge_sdk.audio.resample import Resampler
from edge_sdk.audio.samples import SoundFormat, decode_samples, mono
from edge_sdk.contracts.audio import FeatureSpec
from edge_sdk.errors import SourceError

LISTEN_S = 1.0
SETTLE_S = 0.2
"""Many devices begin with a click or with silence."""


def check_sound(source: SourceConfig) -> str:
    """The source in a few words.

    Raises:
        SourceError: what opening it raises, ``source.bad-rate``, or ``source.silent`` for a
            microphone that hears nothing.
    """
    if source.kind == "wyoming":  # a running agent may hold the port
        from agent.sound.wake_service import DEFAULT_ADDRESS, host_and_port

        host, port = host_and_port(str(source.device or DEFAULT_ADDRESS))
        return f"clients of {host}, port {port}"
    if source.kind == "pipe":  # opening it would wake a writer that waits for the agent
        check_pipe(source.path)
        _check_rate(source.rate_hz)
        return f"pipe {source.path}, {source.rate_hz} Hz, {source.channels} channels"
    reader = build_sound_reader(source)
    try:
        form = reader.open()
        _check_rate(form.rate_hz)
        found = f"{reader.where}, {form.rate_hz} Hz, {form.channels} channels"
        if source.kind in ("microphone", "alsa"):
            found += f", {_loudness_db(reader, form, source.channel):.0f} dB"
        return found
    finally:
        reader.close()


def _check_rate(rate_hz: int) -> None:
    Resampler(rate_hz, FeatureSpec().sample_rate_hz)


def _loudness_db(reader: SoundReader, form: SoundFormat, channel: int) -> float:
    """Of the first second; full scale is 0."""
    heard = []
    for _ in range(round((SETTLE_S + LISTEN_S) / BLOCK_S)):
        data = reader.read()
        if not data:
            raise no_microphone(reader.where, "it opens, but delivers no sound")
        heard.append(decode_samples(data, form))
    picked = channel if 0 <= channel < form.channels else None
    sound = mono(np.concatenate(heard), picked)[round(SETTLE_S * form.rate_hz) :]
    loudness_db = measure_levels(sound).rms_db
    if loudness_db < LevelLimits().silent_db:
        raise SourceError(
            "silent",
            f"{reader.where}: {FAULTS['silent']}",
            "Raise it, e.g. with alsamixer (F4 for capture), and check switches on the device.",
        )
    return loudness_db

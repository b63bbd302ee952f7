"""WAV files of every width, as recorders and streams write them; garbage is refused in words."""

from __future__ import annotations

import io
import struct
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.audio.samples import decode_samples
from edge_sdk.audio.wavefile import WaveFile, read_wave, wave_bytes
from edge_sdk.errors import SourceError
from tests.unit.audio.test_features import noise


def written(
    kind: int, bits: int, data: bytes, *, channels: int = 1, size: int | None = None
) -> bytes:
    width = channels * bits // 8
    head = struct.pack("<HHIIHH", kind, channels, 16000, 16000 * width, width, bits)
    if kind == 0xFFFE:
        real = 1 if bits < 32 else 3
        head += struct.pack("<HHIH14s", 22, bits, 0, real, b"\0" * 14)
    odd = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    body = b"fmt " + struct.pack("<I", len(head)) + head + odd
    body += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def frames_of(content: bytes) -> list[float]:
    file = WaveFile(io.BytesIO(content), "x.wav")
    return decode_samples(file.read(1000), file.form)[:, 0].tolist()


HALF = {
    (1, 8): bytes([192]),
    (1, 16): struct.pack("<h", 2**14),
    (1, 24): b"\0\0\x40",
    (1, 32): struct.pack("<i", 2**30),
    (3, 32): struct.pack("<f", 0.5),
    (3, 64): struct.pack("<d", 0.5),
    (0xFFFE, 24): b"\0\0\x40",
    (0xFFFE, 32): struct.pack("<f", 0.5),
}


@pytest.mark.parametrize(("kind", "bits"), sorted(HALF))
def test_every_width_is_read(kind: int, bits: int) -> None:
    assert frames_of(written(kind, bits, HALF[kind, bits] * 3)) == [0.5] * 3


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 1000])
def test_a_length_that_is_unknown_or_too_long_reads_to_the_end(size: int) -> None:
    assert frames_of(written(1, 16, HALF[1, 16] * 3 + b"\1", size=size)) == [0.5] * 3


def test_what_we_write_the_standard_library_reads_and_so_do_we(tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    stereo = np.stack((noise(0.1, 1), noise(0.1, 2)), axis=1)
    path.write_bytes(wave_bytes(stereo, 44100))
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 44100, 1600)
    samples, rate_hz = read_wave(path)
    assert rate_hz == 44100
    assert np.abs(samples - stereo).max() <= 2**-16


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "ends in its header"),
        (b"OggS" + bytes(40), "does not begin"),
        (written(1, 16, b"")[:30], "ends in its header"),
        (written(85, 16, b""), "kind 85"),
        (written(1, 12, b""), "12 bits"),
        (written(1, 16, b"", channels=0), "0 channels"),
        (b"RIFF\4\0\0\0WAVE" + b"data\0\0\0\0", "before their format"),
    ],
)
def test_other_files_are_refused_with_the_reason(content: bytes, what: str) -> None:
    with pytest.raises(SourceError) as caught:
        WaveFile(io.BytesIO(content), "x.wav")
    assert caught.value.code == "source.bad-wave"
    assert what in caught.value.cause


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 80), st.binary(max_size=8))
def test_damaged_headers_never_crash(noise: bytes, at: int, patch: bytes) -> None:
    content = bytearray(written(1, 16, noise))
    content[at : at + len(patch)] = patch
    try:
        file = WaveFile(io.BytesIO(bytes(content)), "x.wav")
        decode_samples(file.read(100), file.form)
    except SourceError as error:
        assert error.code == "source.bad-wave"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        read_wave(tmp_path / "nothing.wav")
    assert caught.value.code == "source.missing-file"
    assert "nothing.wav" in caught.value.cause

"""Who else takes noise out of speech on a CPU, as far as their packages are installed."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge_sdk.audio.resample import Resampler
from edge_sdk.audio.samples import Floats

RATE_HZ = 16000
RNNOISE_HZ, RNNOISE_FRAME = 48000, 480
SPEEX_FRAME = 160

Enhance = Callable[[Floats], Floats]

PUBLISHED = {
    "DTLN (published)": (14.2, 2.16, 89.1),
    "GTCRN (published)": (13.2, 2.15, 88.8),
    "RNNoise (published)": (11.5, 2.04, 89.3),
    "noisy (published)": (4.6, 1.44, 84.2),
}
"""SI-SDR in dB, PESQ wide band and STOI in percent on other material (real noisy speech at 16 kHz,
measured when this was planned): an order of magnitude, not a row of the same table."""


def peers() -> dict[str, Enhance]:
    """By name."""
    found: dict[str, Enhance] = {}
    if importlib.util.find_spec("speexdsp_ns") is not None:
        found["speexdsp"] = speex
    if (library := _rnnoise()) is not None:
        found["RNNoise"] = lambda sound: rnnoise(library, sound)
    return found


def speex(sound: Floats) -> Floats:
    """libspeexdsp's preprocessor, 10 ms a frame."""
    from speexdsp_ns import NoiseSuppression

    stage = NoiseSuppression.create(SPEEX_FRAME, RATE_HZ)
    whole = _whole_frames(sound, SPEEX_FRAME)
    data = np.rint(whole * 32767).clip(-32768, 32767).astype("<i2").reshape(-1, SPEEX_FRAME)
    cleaned = b"".join(stage.process(frame.tobytes()) for frame in data)
    return np.frombuffer(cleaned, "<i2")[: len(sound)].astype(np.float32) / np.float32(32767)


def rnnoise(library: ctypes.CDLL, sound: Floats) -> Floats:
    """Xiph's RNNoise, which hears 48 kHz."""
    up, down = Resampler(RATE_HZ, RNNOISE_HZ), Resampler(RNNOISE_HZ, RATE_HZ)
    wide = np.concatenate((up.push(sound), up.flush()))
    frames = (_whole_frames(wide, RNNOISE_FRAME) * np.float32(32767)).reshape(-1, RNNOISE_FRAME)
    state = library.rnnoise_create(None)
    floats = ctypes.POINTER(ctypes.c_float)
    cleaned = np.empty_like(frames)
    for taken, given in zip(frames, cleaned, strict=True):
        library.rnnoise_process_frame(
            state, given.ctypes.data_as(floats), taken.ctypes.data_as(floats)
        )
    library.rnnoise_destroy(state)
    low = down.push(cleaned.reshape(-1) / np.float32(32767))
    return np.concatenate((low, down.flush()))[: len(sound)]


def _rnnoise() -> ctypes.CDLL | None:
    found = importlib.util.find_spec("pyrnnoise")
    if found is None or found.origin is None:
        return None
    library = ctypes.CDLL(str(Path(found.origin).with_name("librnnoise.so")))
    library.rnnoise_create.restype = ctypes.c_void_p
    library.rnnoise_create.argtypes = [ctypes.c_void_p]
    library.rnnoise_destroy.argtypes = [ctypes.c_void_p]
    library.rnnoise_process_frame.argtypes = [ctypes.c_void_p] + 2 * [
        ctypes.POINTER(ctypes.c_float)
    ]
    return library


def _whole_frames(sound: Floats, frame: int) -> Floats:
    return np.ascontiguousarray(np.pad(sound, (0, -len(sound) % frame)))

"""Whoever can speak on this machine: espeak-ng, flite and Piper, each as a command.

A voice says a text or our own sounds (:mod:`converters.wakeword.phonemes`) in some manner. None of
the commands is shipped; what is installed is found, and used.
"""

from __future__ import annotations

import io
import json
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

import numpy as np

from converters.wakeword.phonemes import Phones, for_espeak, for_flite
from edge_sdk.audio.condition import conditioned
from edge_sdk.audio.samples import Floats, decode_samples
from edge_sdk.audio.wavefile import WaveFile
from edge_sdk.errors import EdgeError, SourceError

RATE_HZ: Final = 16000
_TIMEOUT_S: Final = 30.0
_MOST_SAMPLES: Final = 10**7
_SILENCE: Final = 0.01
"""Share of full scale below which a voice has not begun, or has ended."""
_RATE_STEP_HZ: Final = 500
"""Rates in such steps keep the resampling filter short."""
_NO_PERSON: Final = re.compile(r"robo|demon|whisper|^fast$|croak|kaukovalta|^Mr", re.IGNORECASE)
"""espeak-ng's variants that no household's member sounds like."""

EngineName = Literal["espeak-ng", "flite", "piper"]


@dataclass(frozen=True, slots=True)
class Voice:
    """Somebody who can speak."""

    engine: EngineName
    name: str
    """As the command takes it; for Piper the path of its model."""
    speaker: int = 0
    """Which of a Piper model's speakers."""

    @property
    def title(self) -> str:
        """For reports."""
        name = Path(self.name).stem if self.engine == "piper" else self.name
        return f"{self.engine}:{name}" + (f"#{self.speaker}" if self.speaker else "")


@dataclass(frozen=True, slots=True)
class Manner:
    """How something is said, 1 being a voice's own way."""

    tempo: float = 1.0
    pitch: float = 1.0
    size: float = 1.0
    """Of the vocal tract, below 1 smaller: formants and pitch move up together."""
    liveliness: float = 1.0
    """How far the pitch moves."""


def find_voices(piper: Sequence[Path] = ()) -> tuple[Voice, ...]:
    """All voices on this machine.

    Args:
        piper: models (``.onnx`` beside their ``.onnx.json``) or folders of such.

    Raises:
        SourceError: ``source.no-voices`` when there is nobody.
    """
    found = (*_espeak_voices(), *_flite_voices(), *_piper_voices(piper))
    if not found:
        raise SourceError(
            "no-voices",
            "Neither espeak-ng nor flite is installed, and no Piper voice was named.",
            "Install them, e.g. with: apt-get install espeak-ng flite",
        )
    return found


def say(words: str | Phones, voice: Voice, manner: Manner = Manner()) -> Floats:
    """What a voice says, (N,) float32 at 16 kHz without silence around it.

    Args:
        words: a text, or sounds; Piper takes texts only.

    Raises:
        SourceError: ``source.voice-failed`` when the command fails or stays silent.
    """
    data = _SPEAK[voice.engine](words, voice, manner)
    try:
        wave = WaveFile(io.BytesIO(data), voice.title)
        frames = decode_samples(wave.read(_MOST_SAMPLES), wave.form)
    except EdgeError as error:
        raise _failed(voice, error.cause) from error
    loud = np.flatnonzero(np.abs(frames[:, 0]) > _SILENCE)
    if not len(loud):
        raise _failed(voice, f"it says nothing of {words!r}")
    # A smaller mouth: the same samples, played faster.
    rate_hz = max(8000, round(wave.form.rate_hz / manner.size / _RATE_STEP_HZ) * _RATE_STEP_HZ)
    return conditioned(frames[loud[0] : loud[-1] + 1], rate_hz, RATE_HZ)


def some_manner(chance: random.Random) -> Manner:
    """As people differ, and a little more: training needs more variety than the test will show."""
    return Manner(
        tempo=min(max(chance.gauss(1.0, 0.18), 0.6), 1.6),
        pitch=min(max(chance.gauss(1.0, 0.25), 0.5), 1.7),
        size=1.0 if chance.random() < 0.25 else chance.uniform(0.82, 1.22),
        liveliness=chance.uniform(0.4, 1.6),
    )


def some_voice(voices: Sequence[Voice], chance: random.Random) -> Voice:
    """One of them. Recorded voices are few, yet nearer to people: each engine gets its share."""
    engines = sorted({voice.engine for voice in voices})
    weights = [_SHARE[engine] for engine in engines]
    engine = chance.choices(engines, weights)[0]
    return chance.choice([voice for voice in voices if voice.engine == engine])


@cache
def _espeak_voices() -> tuple[Voice, ...]:
    if shutil.which("espeak-ng") is None:
        return ()
    accents = [
        row[1] for row in _rows(["espeak-ng", "--voices=en"]) if not row[4].startswith("mb/")
    ]
    variants = [
        row[4].removeprefix("!v/")
        for row in _rows(["espeak-ng", "--voices=variant"])
        if row[4].startswith("!v/") and not _NO_PERSON.search(row[4].removeprefix("!v/"))
    ]
    accents = sorted({a for a in accents if a.startswith("en")})
    names = [
        accent + variant for accent in accents for variant in ("", *("+" + v for v in variants))
    ]
    return tuple(Voice("espeak-ng", name) for name in names)


def _rows(command: Sequence[str]) -> list[list[str]]:
    lines = _output(command).decode(errors="replace").splitlines()[1:]
    rows = [re.split(r"\s+", line.strip()) for line in lines]
    return [row for row in rows if len(row) >= 5]


@cache
def _flite_voices() -> tuple[Voice, ...]:
    if shutil.which("flite") is None:
        return ()
    names = _output(["flite", "-lv"]).decode(errors="replace").partition(":")[2].split()
    # awb_time knows the words of the clock only, and kal is kal16 at half the rate.
    skipped = {"awb_time", "kal"} if "kal16" in names else {"awb_time"}
    return tuple(Voice("flite", name) for name in names if name not in skipped)


def _piper_voices(places: Sequence[Path]) -> tuple[Voice, ...]:
    found: list[Voice] = []
    for place in places:
        if not place.exists():
            raise _bad_piper(place, "does not exist")
        models = sorted(place.rglob("*.onnx")) if place.is_dir() else [place]
        for model in models:
            found += _piper_speakers(model)
        if not models:
            raise _bad_piper(place, "holds no Piper model")
    if found and shutil.which("piper") is None:
        raise SourceError(
            "no-voices",
            "Piper's models were named, but the command piper is not on the path.",
            "pip install piper-tts",
        )
    return tuple(found)


def _piper_speakers(model: Path) -> list[Voice]:
    try:
        described = json.loads(model.with_name(model.name + ".json").read_bytes())
        speakers = max(1, min(int(described.get("num_speakers", 1)), 2000))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise _bad_piper(model, f"has no readable description beside it ({error})") from error
    return [Voice("piper", str(model), number) for number in range(speakers)]


def _bad_piper(place: Path, what: str) -> SourceError:
    return SourceError(
        "bad-voice", f"{place} {what}.", "Name a .onnx file that lies beside its .onnx.json."
    )


def _espeak(words: str | Phones, voice: Voice, manner: Manner) -> bytes:
    text = words if isinstance(words, str) else for_espeak(words)
    command = ["espeak-ng", "-v", voice.name, "-s", str(round(160 * manner.tempo))]
    command += ["-p", str(round(min(max(50 * manner.pitch, 0), 99))), "--stdout", "--", text]
    return _output(command, voice)


_FLITE_PITCH_HZ: Final = {"awb": 120.0, "kal16": 105.0, "rms": 100.0, "slt": 180.0}


def _flite(words: str | Phones, voice: Voice, manner: Manner) -> bytes:
    pitch_hz = _FLITE_PITCH_HZ.get(voice.name, 120.0) * manner.pitch**0.7
    settings = {
        "duration_stretch": 1.0 / manner.tempo,
        "int_f0_target_mean": pitch_hz,
        "int_f0_target_stddev": 20.0 * manner.liveliness,
    }
    command = ["flite", "-voice", voice.name]
    for name, value in settings.items():
        command += ["--setf", f"{name}={value:.2f}"]
    command += ["-t", words] if isinstance(words, str) else ["-p", for_flite(words)]
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        _output([*command, "-o", file.name], voice)
        return Path(file.name).read_bytes()


def _piper(words: str | Phones, voice: Voice, manner: Manner) -> bytes:
    if not isinstance(words, str):
        raise _failed(voice, "Piper takes texts, not sounds")
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        command = ["piper", "--model", voice.name, "--speaker", str(voice.speaker)]
        command += ["--length-scale", f"{1.0 / manner.tempo:.2f}"]
        command += ["--noise-w-scale", f"{0.8 * manner.liveliness:.2f}"]
        _output([*command, "--output-file", file.name], voice, words)
        return Path(file.name).read_bytes()


_SPEAK: Final = {"espeak-ng": _espeak, "flite": _flite, "piper": _piper}
_SHARE: Final[dict[str, float]] = {"espeak-ng": 0.6, "flite": 0.4, "piper": 1.5}


def _output(command: Sequence[str], voice: Voice | None = None, text: str = "") -> bytes:
    who = voice or Voice("flite" if command[0] == "flite" else "espeak-ng", "")
    try:
        done = subprocess.run(
            command, input=text.encode(), capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(who, str(error)) from error
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise _failed(who, last[0] if last else f"exit code {done.returncode}")
    return done.stdout


def _failed(voice: Voice, what: str) -> SourceError:
    return SourceError(
        "voice-failed",
        f"The voice {voice.title} cannot speak: {what}.",
        "Try the command by hand, and install or update it.",
    )

"""A day of sound, as fast as it goes: does anything grow, is every hour like the one before?

The same hour is heard again and again, in blocks of several lengths, through everything that a
worker does with sound: conversion from 48 kHz stereo, resampling, offset removal, levels, the ring
with two listeners, features, network, detection. Every hour must give the hits and scores of
the second one bit for bit (the first begins in silence), and memory must not grow.

Run ``python benchmarks/audio_day.py --conversion out/keywords``; without a conversion a network
that measures loudness listens. ``--quick`` hears three shortened hours, ``--json`` prints one
document, ``--check`` exits with 1 when something grows or drifts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from listening import RATE_HZ, Release, release_of  # noqa: E402

from agent.pipelines.listening import Listening  # noqa: E402
from agent.sound.ring import SoundRing  # noqa: E402
from agent.worker.memory import rss_mib  # noqa: E402
from edge_sdk.audio.condition import Conditioner  # noqa: E402
from edge_sdk.audio.samples import SoundFormat, decode_samples  # noqa: E402
from tests.fakes.classifiers import PROFILE  # noqa: E402
from tests.fakes.listeners import make_listening_release  # noqa: E402

FORM = SoundFormat(48000, 2)
GROWTH_MIB = 2.0
LEVEL_FRAMES = 2400
LENGTHS = (960, 960, 1024, 4800, 256)
"""Frames per read, in turn."""


@dataclass
class Hour:
    """What was heard in one."""

    hits: int = 0
    steps: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    rss_mib: float = 0.0


def hour_of_sound(seconds: int) -> bytes:
    """Loud and quiet noise, 48 kHz stereo.

    Its length is a whole number of turns of reads, and of steps of two frames at 16 kHz, so that
    every hour begins alike.
    """
    chance = np.random.default_rng(0)
    unit = math.lcm(sum(LENGTHS), 960)
    frames = FORM.rate_hz * seconds // unit * unit
    levels = chance.choice([0.0005, 0.02, 0.2], frames // LEVEL_FRAMES + 1)
    stored = np.empty((frames, 2), "<i2")
    # Second by second: an hour of float64 would be three gigabytes.
    for start in range(0, frames, FORM.rate_hz):
        size = min(FORM.rate_hz, frames - start)
        first = start // LEVEL_FRAMES
        level = np.repeat(levels[first : first + FORM.rate_hz // LEVEL_FRAMES], LEVEL_FRAMES)
        part = chance.standard_normal((size, 2)) * level[:size, None]
        stored[start : start + len(part)] = np.clip(part * 2**15, -(2**15), 2**15 - 1)
    return stored.tobytes()


def hear(listening: Listening, sound: bytes, hours: int) -> list[Hour]:
    """The same sound ``hours`` times without a break."""
    conditioner, ring = Conditioner(FORM.rate_hz, RATE_HZ), SoundRing(8 * RATE_HZ)
    listener, other = ring.listen(), ring.listen()
    found = []
    for _ in range(hours):
        hour, at, turn = Hour(), 0, 0
        while at < len(sound):
            size = LENGTHS[turn % len(LENGTHS)] * FORM.frame_bytes
            ring.write(conditioner.push(decode_samples(sound[at : at + size], FORM)))
            at, turn = at + size, turn + 1
            other.take(0.0)
            heard = listener.take(0.0)
            if heard is None:
                continue
            for step in listening.push(heard):
                hour.steps += 1
                hour.hits += len(step.hits)
                hour.digest.update(step.scores.tobytes())
        hour.rss_mib = rss_mib()
        found.append(hour)
    return found


def release(conversion: Path | None, scratch: Path) -> Release:
    """What listens."""
    if conversion is not None:
        return release_of(conversion, scratch / "release")
    made = make_listening_release(scratch / "release")
    return Release(made.path, made.blobs, PROFILE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--conversion", type=Path, help="a converted network that listens")
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--quick", action="store_true", help="three hours of 30 seconds")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--check", action="store_true", help="exit with 1 when something drifts")
    options = parser.parse_args()
    hours, seconds = (3, 30) if options.quick else (max(3, options.hours), 3600)
    sound = hour_of_sound(seconds)
    start_s = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        listening = release(options.conversion, Path(folder)).listening(0)
        found = hear(listening, sound, hours)
    heard_s = hours * len(sound) / FORM.frame_bytes / FORM.rate_hz
    used_s = time.process_time() - start_s
    same = len({hour.digest.hexdigest() for hour in found[1:]}) == 1
    growth_mib = found[-1].rss_mib - found[1].rss_mib
    figures = {
        "heard_h": round(heard_s / 3600, 2),
        "steps": sum(hour.steps for hour in found),
        "hits_per_hour": found[1].hits,
        "hours_alike": same,
        "growth_mib": round(growth_mib, 2),
        "core_percent": round(100 * used_s / heard_s, 3),
    }
    missed = not same or growth_mib > GROWTH_MIB
    if options.json:
        print(json.dumps({"figures": figures, "missed": missed}, indent=2))
    else:
        for name, value in figures.items():
            print(f"{name:16}{value}")
        print(
            f"{figures['heard_h']} h heard, {'all alike' if same else 'NOT alike'}, "
            f"{growth_mib:+.2f} MiB: {'missed' if missed else 'held'}"
        )
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())

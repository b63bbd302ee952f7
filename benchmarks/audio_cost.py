"""What listening costs: processor time per second of sound, part by part, and resident memory.

With a converted network (``--conversion``, see ``examples/keywords``) every point of its ladder is
timed together with the front end, and a worker process listens to a pipe at the pace of a
microphone: its processor time and memory are those of a device, as the agent starts it: without
docstrings once ``edge-agent compile`` was run here.

Run ``python benchmarks/audio_cost.py``; ``--quick`` for fewer rounds, ``--json`` for one document,
``--check`` to exit with 1 when the bar is missed. Times are processor time of this process, so that
a busy machine distorts them little; each is the median of its rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from listening import Release, fed_worker, play, release_of

from agent.sound.ring import Heard
from agent.worker.protocol import Event, Stats
from edge_sdk.audio.activity import ActivityGate
from edge_sdk.audio.condition import Conditioner
from edge_sdk.audio.features import FrontEnd
from edge_sdk.audio.samples import Floats, SoundFormat, decode_samples
from edge_sdk.contracts.audio import FeatureSpec

RATE_HZ = 16000
BARS = {"core_percent": 1.0, "rss_mib": 45.0}
WARM_UP_S = 3


def core_percent(push: Callable[[int], object], blocks: int, block_s: float, rounds: int) -> float:
    """Percent of a core that ``push`` takes when called every ``block_s``."""
    for index in range(min(blocks, 50)):
        push(index)
    shares = []
    for _ in range(rounds):
        start = time.process_time()
        for index in range(blocks):
            push(index)
        shares.append((time.process_time() - start) / (blocks * block_s))
    return round(100 * statistics.median(shares), 3)


def sound(seconds: int) -> Floats:
    """Noise whose loudness changes, so that nothing is a constant."""
    random = np.random.default_rng(0)
    levels = np.repeat(random.choice([0.0005, 0.02, 0.2], seconds * 4), RATE_HZ // 4)
    return (random.standard_normal(len(levels)) * levels).astype(np.float32)


def measure(quick: bool) -> dict[str, float]:
    """Percent of a core by part, in blocks of 10, 20 and 100 ms."""
    seconds, rounds = (5, 3) if quick else (20, 7)
    samples = sound(seconds)
    raw = np.clip(samples * 2**15, -(2**15), 2**15 - 1).astype("<i2").tobytes()
    figures = {}
    for block_ms in (10, 20, 100):
        size = RATE_HZ * block_ms // 1000
        blocks, block_s = len(samples) // size, block_ms / 1000
        front, gate = FrontEnd(FeatureSpec()), ActivityGate(RATE_HZ)

        def at(index: int, size: int = size) -> Floats:
            return samples[index * size : (index + 1) * size]

        def through(push: Callable[[Floats], object]) -> Callable[[int], object]:
            return lambda index: push(at(index))

        figures[f"front_end_{block_ms}ms"] = core_percent(
            through(front.push), blocks, block_s, rounds
        )
        figures[f"gate_{block_ms}ms"] = core_percent(through(gate.push), blocks, block_s, rounds)
        for name, rate_hz, channels in (("16k_mono", 16000, 1), ("48k_stereo", 48000, 2)):
            form = SoundFormat(rate_hz, channels)
            width = form.frame_bytes * rate_hz * block_ms // 1000
            conditioner = Conditioner(rate_hz, RATE_HZ)
            count = len(raw) // width

            def condition(
                index: int,
                form: SoundFormat = form,
                width: int = width,
                conditioner: Conditioner = conditioner,
            ) -> object:
                data = raw[index * width : (index + 1) * width]
                return conditioner.push(decode_samples(data, form))

            figures[f"condition_{name}_{block_ms}ms"] = core_percent(
                condition, count, block_s, rounds
            )
    return figures


def measure_networks(release: Release, quick: bool) -> dict[str, float]:
    """Percent of a core for front end, network and detection, by point, in blocks of 20 ms."""
    seconds, rounds = (5, 3) if quick else (20, 7)
    samples, size = sound(seconds), RATE_HZ // 50
    figures = {}
    for index, point in enumerate(release.points().ladder):
        listening = release.listening(index)

        def push(number: int, listening: Any = listening) -> object:
            at = number * size
            return listening.push(Heard(samples[at : at + size], at, False))

        figures[f"listening {point.id}"] = core_percent(
            push, len(samples) // size, size / RATE_HZ, rounds
        )
        listening.close()
    return figures


def measure_worker(release: Release, scratch: Path, quick: bool, point: int) -> dict[str, float]:
    """A worker process at the pace of a microphone, with one point of the ladder."""
    seconds = 10 if quick else 40
    rss_mib: list[float] = []

    def hear(event: Event, _at_s: float) -> None:
        if isinstance(event, Stats):
            rss_mib.append(event.rss_mib)

    with fed_worker(release, scratch, point) as (worker, pipe):
        play(worker, pipe, sound(WARM_UP_S), hear)
        process = psutil.Process(worker.pid)
        before, start_s = process.cpu_times(), time.monotonic()
        play(worker, pipe, sound(seconds), hear)
        after, end_s = process.cpu_times(), time.monotonic()
        own_mib = process.memory_full_info().uss / 2**20
    used_s = after.user + after.system - before.user - before.system
    return {
        "worker_core_percent": round(100 * used_s / (end_s - start_s), 2),
        "worker_rss_mib": round(max(rss_mib), 1),
        "worker_private_mib": round(own_mib, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--check", action="store_true", help="exit with 1 when the bar is missed")
    parser.add_argument("--conversion", type=Path, help="a converted network that listens")
    parser.add_argument("--point", type=int, default=0, help="of its ladder, which is judged")
    options = parser.parse_args()
    figures = measure(options.quick)
    judged = {"core_percent": figures["front_end_20ms"] + figures["condition_16k_mono_20ms"]}
    if options.conversion:
        with tempfile.TemporaryDirectory() as folder:
            release = release_of(options.conversion, Path(folder) / "release")
            networks = measure_networks(release, options.quick)
            if not 0 <= options.point < len(networks):
                parser.error(f"the ladder has the points 0 to {len(networks) - 1}")
            figures |= networks
            figures |= measure_worker(release, Path(folder), options.quick, options.point)
        judged = {
            "core_percent": figures["condition_16k_mono_20ms"]
            + list(networks.values())[options.point],
            "rss_mib": figures["worker_rss_mib"],
        }
    judged = {name: round(value, 3) for name, value in judged.items()}
    missed = [name for name, value in judged.items() if value > BARS[name]]
    if options.json:
        document = {"figures": figures, "judged": judged, "bars": BARS, "missed": missed}
        print(json.dumps(document, indent=2))
    else:
        for name, value in figures.items():
            print(f"{name:56}{value:8.3f} {'MiB' if name.endswith('mib') else '% of a core'}")
        what = "to decisions" if options.conversion else "to features"
        memory = f", {judged['rss_mib']:.1f} MiB" if options.conversion else ""
        print(
            f"{judged['core_percent']:.2f} % of a core from a microphone {what} every 20 ms"
            f"{memory}: {'missed' if missed else 'within the bars'}"
        )
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())

"""What listening costs: processor time per second of sound, part by part.

Run ``python benchmarks/audio_cost.py``; ``--quick`` for fewer rounds, ``--json`` for one document,
``--check`` to exit with 1 when the bar is missed. Times are processor time of this process, so that
a busy machine distorts them little; each is the median of its rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from edge_sdk.audio.activity import ActivityGate
from edge_sdk.audio.condition import Conditioner
from edge_sdk.audio.features import FrontEnd
from edge_sdk.audio.samples import Floats, SoundFormat, decode_samples
from edge_sdk.contracts.audio import FeatureSpec

RATE_HZ = 16000
BAR_CORE_PERCENT = 1.0


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--check", action="store_true", help="exit with 1 when the bar is missed")
    options = parser.parse_args()
    figures = measure(options.quick)
    total = figures["front_end_20ms"] + figures["condition_16k_mono_20ms"]
    missed = total > BAR_CORE_PERCENT
    if options.json:
        document = {"core_percent": figures, "total": round(total, 3), "bar": BAR_CORE_PERCENT}
        print(json.dumps(document, indent=2))
    else:
        for name, value in figures.items():
            print(f"{name:28}{value:8.3f} % of a core")
        print(
            f"{total:.2f} % of a core from a 16 kHz microphone to features every 20 ms: "
            f"{'missed' if missed else 'within'} the bar of {BAR_CORE_PERCENT:g} %"
        )
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())

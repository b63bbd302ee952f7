"""Click in, decision out: a worker hears a pipe at the pace of a microphone; when does it say so?

First the pipeline alone: a network that only measures loudness hears short bursts. The sound that
must be heard before the decision is known (the same code says so offline), so what remains is
blocks, features, inference and the way to the supervisor. Then, with a converted network
(``--conversion``, see ``examples/keywords``), words that it has not learnt from: how long after the
end of the word is it reported?

Run ``python benchmarks/audio_latency.py``; ``--quick`` for fewer words, ``--json`` for one
document, ``--check`` to exit with 1 when the bar is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "keywords")]

from listening import RATE_HZ, Release, fed_worker, percentile, play, release_of  # noqa: E402

from agent.sound.ring import Heard  # noqa: E402
from agent.worker.protocol import Event, Results  # noqa: E402
from edge_sdk.audio.samples import Floats  # noqa: E402
from tests.fakes.classifiers import PROFILE  # noqa: E402
from tests.fakes.listeners import make_listening_release  # noqa: E402

BAR_MS = 200.0
"""After the end of the phrase."""
LATE_S = 0.8


def bursts(count: int) -> tuple[Floats, list[int]]:
    """Noise of 0.3 s now and then in a quiet room, and where each begins."""
    chance = np.random.default_rng(0)
    parts, starts, at = [], [], 0
    for _ in range(count):
        gap = int(chance.uniform(0.9, 1.2) * RATE_HZ)
        parts += [0.0005 * chance.standard_normal(gap), 0.2 * chance.standard_normal(4800)]
        starts.append(at + gap)
        at += gap + 4800
    parts.append(0.0005 * chance.standard_normal(RATE_HZ))
    return np.concatenate(parts).astype(np.float32), starts


def words(count: int) -> tuple[Floats, list[tuple[int, int, str]]]:
    """Held-out words in a quiet room: start, end and label of each."""
    from keywords_data import LABELS, clips

    chance = np.random.default_rng(0)
    held = [clip for clip in clips() if clip.held_out]
    parts, said, at = [], [], 0
    for index in chance.permutation(len(held))[:count]:
        clip = held[index]
        gap = int(chance.uniform(1.0, 1.3) * RATE_HZ)
        word = clip.samples * np.float32(0.3 / np.abs(clip.samples).max())
        parts += [0.001 * chance.standard_normal(gap), word]
        said.append((at + gap, at + gap + len(word), LABELS[clip.label]))
        at += gap + len(word)
    parts.append(0.001 * chance.standard_normal(RATE_HZ))
    return np.concatenate(parts).astype(np.float32), said


def heard_live(release: Release, scratch: Path, samples: Floats) -> list[tuple[float, str]]:
    """Seconds since the first sample at which each decision came, and its label."""
    found: list[tuple[float, str]] = []

    def hear(event: Event, at_s: float) -> None:
        if isinstance(event, Results):
            found.extend((at_s, decision.label) for decision in event.decisions)

    with fed_worker(release, scratch) as (worker, pipe):
        began_s = play(worker, pipe, samples, hear)
    return [(at_s - began_s, label) for at_s, label in found]


def pipeline(scratch: Path, count: int) -> dict[str, float]:
    """Milliseconds from the last sample that a decision needs to its arrival."""
    made = make_listening_release(scratch / "loudness")
    release = Release(made.path, made.blobs, PROFILE)
    samples, starts = bursts(count)
    steps = release.listening(0).push(Heard(samples, 0, False))
    due_s = [hit.at_s for step in steps for hit in step.hits]
    live_s = [at_s for at_s, _ in heard_live(release, scratch, samples)]
    if len(due_s) != count or len(live_s) != count:
        raise SystemExit(f"{count} bursts, {len(due_s)} heard offline, {len(live_s)} live")
    own = [1e3 * (live - due) for live, due in zip(live_s, due_s, strict=True)]
    total = [1e3 * (live - start / RATE_HZ) for live, start in zip(live_s, starts, strict=True)]
    return {
        "pipeline_p50_ms": percentile(own, 0.5),
        "pipeline_p95_ms": percentile(own, 0.95),
        "click_p50_ms": percentile(total, 0.5),
        "click_p95_ms": percentile(total, 0.95),
    }


def keywords(conversion: Path, scratch: Path, count: int) -> dict[str, float]:
    """Milliseconds from the end of a word to its report; negative when that comes before."""
    release = release_of(conversion, scratch / "keywords")
    samples, said = words(count)
    live = heard_live(release, scratch, samples)
    after, right = [], 0
    for start, end, label in said:
        hits = [
            (at_s, found)
            for at_s, found in live
            if start / RATE_HZ <= at_s <= end / RATE_HZ + LATE_S
        ]
        if hits:
            after.append(1e3 * (hits[0][0] - end / RATE_HZ))
            right += hits[0][1] == label
    if not after:
        raise SystemExit("The network heard none of the words.")
    return {
        "words": len(said),
        "words_heard": len(after),
        "words_right": right,
        "word_end_p50_ms": percentile(after, 0.5),
        "word_end_p95_ms": percentile(after, 0.95),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--conversion", type=Path, help="a converted network that listens")
    parser.add_argument("--quick", action="store_true", help="fewer words")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--check", action="store_true", help="exit with 1 when the bar is missed")
    options = parser.parse_args()
    count = 10 if options.quick else 40
    with tempfile.TemporaryDirectory() as folder:
        figures = pipeline(Path(folder), count)
        if options.conversion:
            figures |= keywords(options.conversion, Path(folder), count)
    figures = {name: round(value, 1) for name, value in figures.items()}
    judged = figures.get("word_end_p95_ms", figures["click_p95_ms"])
    missed = judged > BAR_MS
    if options.json:
        print(json.dumps({"figures": figures, "bar_ms": BAR_MS, "missed": missed}, indent=2))
    else:
        for name, value in figures.items():
            print(f"{name:20}{value:10.1f}")
        what = "after the end of the word" if options.conversion else "after a click"
        print(
            f"p95 {judged:.0f} ms {what}, of which {figures['pipeline_p95_ms']:.0f} ms is the "
            f"pipeline: {'missed' if missed else 'within'} the bar of {BAR_MS:.0f} ms"
        )
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())

"""How much noise a network takes out of real speech, what is left of the speech, and what it costs.

Digits of six speakers, nine in a row, with environmental sound of a fold that no training has
heard, at 0 to 15 dB. The recordings hold nothing above 4 kHz, so the noise is cut there, too, and
PESQ is the narrow-band one (ITU-T P.862 at 8 kHz); the wide-band one is printed beside it, for
comparison with other people's tables. Peers are run where their packages are installed
(``pip install 'edge-sdk[bench]'``).

    python benchmarks/enhancement.py --weights out/enhance.pt --conversion out/enhance

``--quick`` for a few utterances, ``--json`` for one document, ``--check`` to exit with 1 when a bar
is missed: 6 dB of SI-SDR, 0.4 of PESQ, any of STOI over the noisy input, 40 ms of delay.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from enhancement_data import RATE_HZ, Utterance, speakers, utterances  # noqa: E402
from enhancement_peers import PUBLISHED, peers  # noqa: E402

from agent.pipelines.enhancing import enhancer_of  # noqa: E402
from edge_sdk.audio.enhance import Enhancer  # noqa: E402
from edge_sdk.audio.resample import Resampler  # noqa: E402
from edge_sdk.audio.samples import Floats  # noqa: E402
from edge_sdk.contracts.audio import EnhanceSpec  # noqa: E402
from edge_sdk.contracts.base import decode  # noqa: E402
from edge_sdk.contracts.conversion import Conversion  # noqa: E402
from edge_sdk.runtime.negotiate import open_engine  # noqa: E402
from edge_sdk.runtime.stream import StreamSession  # noqa: E402

SPEC = EnhanceSpec()
MEASURES = ("si_sdr_db", "pesq_nb", "pesq_wb", "stoi")
BARS = {"si_sdr_db": 6.0, "pesq_nb": 0.4, "stoi": 0.0}
"""Over the noisy input."""
BAR_MS = 40.0
MOST_LAG = RATE_HZ // 20
"""Peers may be late by so much; the lag is taken out."""

SCHEMES = ("fp32", "static_wi8_ai8")

Enhance = Callable[[Floats], Floats]


def main() -> int:
    """Measure, print, judge."""
    options = _options()
    if any(importlib.util.find_spec(name) is None for name in ("pesq", "pystoi")):
        sys.exit("This needs pesq and pystoi: pip install 'edge-sdk[bench]'")
    held = options.speakers or speakers(options.digits)
    chosen = [
        one
        for one in utterances(options.digits, options.noise, options.fold, options.count)
        if one.speaker in held
    ]
    if options.quick:
        chosen = chosen[:: max(1, len(chosen) // 12)]
    systems: dict[str, Enhance] = {"noisy": lambda sound: sound, **peers()}
    costs: dict[str, dict[str, float]] = {}
    if options.weights:
        systems["ours, PyTorch"] = offline(options.weights)
    for name, enhancer in streamed(options.conversion).items():
        systems[name] = lambda sound, enhancer=enhancer: through(enhancer, sound)  # type: ignore[misc]
        costs[name] = cost(enhancer, chosen[0].noisy, rounds=3 if options.quick else 15)
        costs[name]["paced_p95_ms"] = paced(enhancer, 2.0 if options.quick else 10.0)
    scores = {name: [score(run, one) for one in chosen] for name, run in systems.items()}
    table = {name: _mean(rows) for name, rows in scores.items()}
    missed = _missed(table, costs)
    if options.json:
        figures = {"scores": table, "costs": costs, "published": PUBLISHED, "missed": missed}
        print(json.dumps({"utterances": len(chosen), **figures}, indent=2))
    else:
        _print(chosen, scores, table, costs, missed)
    return 1 if options.check and missed else 0


def offline(weights: Path) -> Enhance:
    """The network over whole recordings, in PyTorch."""
    import torch

    from converters.enhance.network import EnhanceNetwork
    from edge_sdk.audio.spectrum import Analysis, cut

    torch.set_num_threads(1)
    network = EnhanceNetwork(SPEC.bands)
    network.load_state_dict(torch.load(weights, weights_only=True))
    network.eval()

    def run(sound: Floats) -> Floats:
        analysis = Analysis(SPEC)
        features = analysis.features(analysis.spectra(cut(_padded(sound), SPEC)))
        with torch.inference_mode():
            found, *_ = network(torch.from_numpy(features)[None], *network.memories(1))
        answers = iter(found[0].numpy().transpose(1, 0, 2))
        return through(Enhancer(SPEC, lambda features: next(answers)), sound)

    return run


def streamed(folder: Path | None) -> dict[str, Enhancer]:
    """The TFLite files of a conversion in float and in int8, as a device runs them."""
    if folder is None:
        return {}
    path = folder / "conversion.json"
    conversion = decode(path.read_bytes(), Conversion, str(path))
    found = {}
    for digest, artifact in conversion.artifacts.items():
        if artifact.format != "tflite" or artifact.scheme not in SCHEMES:
            continue
        engine = open_engine(folder / conversion.files[digest], format=artifact.format, threads=1)
        session = StreamSession(engine, artifact.inputs, artifact.outputs, artifact.states)
        name = f"ours, {engine.runtime} {artifact.scheme}"
        found[name] = enhancer_of(session, SPEC)
    return found


def through(enhancer: Enhancer, sound: Floats) -> Floats:
    """A whole recording, block by block of 10 ms."""
    enhancer.reset()
    blocks = [enhancer.push(sound[at : at + 160]) for at in range(0, len(sound), 160)]
    return np.concatenate([*blocks, enhancer.flush()])


def _padded(sound: Floats) -> Floats:
    """As many frames as a stream of this length takes until its last sample is out."""
    return np.concatenate((sound, np.zeros(2 * SPEC.window_samples, np.float32)))


def score(enhance: Enhance, one: Utterance) -> dict[str, float]:
    """One system on one utterance."""
    from pesq import pesq
    from pystoi import stoi

    found = _aligned(enhance(one.noisy), one.clean)
    clean, heard = (np.asarray(sound, np.float64) for sound in (one.clean, found))
    low, low_heard = (_at_8k(sound) for sound in (one.clean, found))
    return {
        "si_sdr_db": si_sdr(heard, clean),
        "pesq_nb": float(pesq(8000, low, low_heard, "nb")),
        "pesq_wb": float(pesq(RATE_HZ, one.clean, found, "wb")),
        "stoi": 100 * float(stoi(low, low_heard, 8000)),
    }


def si_sdr(found: Any, clean: Any) -> float:
    """Scale-invariant signal to distortion in dB (Le Roux et al. 2019)."""
    found, clean = found - found.mean(), clean - clean.mean()
    target = float(found @ clean) / float(clean @ clean) * clean
    return float(10 * np.log10(float(target @ target) / float(np.sum((found - target) ** 2))))


def _aligned(found: Floats, clean: Floats) -> Floats:
    """Without the delay that a system adds."""
    size = 1 << (len(clean) + MOST_LAG).bit_length()
    product = np.conj(np.fft.rfft(clean, size)) * np.fft.rfft(found, size)
    lag = int(np.argmax(np.fft.irfft(product)[:MOST_LAG]))
    return np.concatenate((found[lag:], np.zeros(lag, np.float32)))[: len(clean)]


def _at_8k(sound: Floats) -> Floats:
    down = Resampler(RATE_HZ, 8000)
    return np.concatenate((down.push(sound), down.flush()))


def cost(enhancer: Enhancer, sound: Floats, rounds: int) -> dict[str, float]:
    """Milliseconds per step (processor time and the slowest of a hundred), percent of a core."""
    half = SPEC.window_samples // 2
    pieces = [sound[at : at + half] for at in range(0, len(sound) - half, half)]
    enhancer.reset()
    shares, walls = [], []
    for _ in range(rounds):
        before = time.process_time()
        for piece in pieces:
            start = time.perf_counter()
            enhancer.push(piece)
            walls.append(1e3 * (time.perf_counter() - start))
        shares.append((time.process_time() - before) / len(pieces))
    step_s, p99 = statistics.median(shares), float(np.percentile(walls, 99))
    return {
        "step_ms": 1e3 * step_s,
        "step_p99_ms": p99,
        "core_percent": 100 * step_s / (half / RATE_HZ),
        "delay_ms": 1e3 * enhancer.delay_s + 1e3 * step_s,
    }


def paced(enhancer: Enhancer, seconds: float) -> float:
    """95 % of a live stream's samples come out cleaned within so many milliseconds of being spoken.

    Blocks of 4 ms arrive when their last sample has been spoken; a larger period of a microphone
    adds its own length.
    """
    enhancer.reset()
    block, given, waits = 64, 0, []
    quiet = np.zeros(block, np.float32)
    start = time.perf_counter()
    for number in range(1, int(seconds * RATE_HZ) // block + 1):
        time.sleep(max(0.0, start + number * block / RATE_HZ - time.perf_counter()))
        count = len(enhancer.push(quiet))
        if count:
            waits.append(1e3 * (time.perf_counter() - start - given / RATE_HZ))
            given += count
    return float(np.percentile(waits, 95))


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.fmean(row[name] for row in rows) for name in MEASURES}


def _missed(
    table: dict[str, dict[str, float]], costs: dict[str, dict[str, float]]
) -> dict[str, list[str]]:
    """Bars that each of our systems misses."""
    found: dict[str, list[str]] = {}
    for name, row in table.items():
        if name.startswith("ours"):
            late = costs.get(name, {"delay_ms": 0.0})["delay_ms"] > BAR_MS
            found[name] = ["delay_ms"] * late + [
                measure
                for measure, bar in BARS.items()
                if row[measure] < table["noisy"][measure] + max(bar, 1e-9)
            ]
    return {name: bars for name, bars in found.items() if bars}


def _print(
    chosen: list[Utterance],
    scores: dict[str, list[dict[str, float]]],
    table: dict[str, dict[str, float]],
    costs: dict[str, dict[str, float]],
    missed: dict[str, list[str]],
) -> None:
    print(f"{len(chosen)} utterances of {', '.join(sorted({one.speaker for one in chosen}))}")
    print(f"{'':32}{'SI-SDR':>8}{'PESQ-nb':>9}{'PESQ-wb':>9}{'STOI':>7}   SI-SDR at each ratio")
    ratios = sorted({one.snr_db for one in chosen})
    for name, row in table.items():
        each = [
            statistics.fmean(
                got["si_sdr_db"]
                for got, one in zip(scores[name], chosen, strict=True)
                if one.snr_db == ratio
            )
            for ratio in ratios
        ]
        print(
            f"{name:32}{row['si_sdr_db']:8.1f}{row['pesq_nb']:9.2f}{row['pesq_wb']:9.2f}"
            f"{row['stoi']:7.1f}   " + " ".join(f"{value:5.1f}" for value in each)
        )
    print("On other material, for an order of magnitude:")
    for name, (ratio, quality, clear) in PUBLISHED.items():
        print(f"{name:32}{ratio:8.1f}{'':9}{quality:9.2f}{clear:7.1f}")
    for name, row in costs.items():
        print(
            f"{name:32}{row['step_ms']:.3f} ms a step of 16 ms (p99 {row['step_p99_ms']:.2f}), "
            f"{row['core_percent']:.2f} % of a core, {row['delay_ms']:.1f} ms delay "
            f"(live, p95: {row['paced_p95_ms']:.1f})"
        )
    for name, row in table.items():
        if name.startswith("ours"):
            gains = ", ".join(f"{m} {row[m] - table['noisy'][m]:+.2f}" for m in BARS)
            print(f"{name}: {gains}; missed: {', '.join(missed.get(name, [])) or 'nothing'}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    shared = ROOT.parent / "shared" / "data" / "audio"
    parser.add_argument("--digits", type=Path, default=shared / "digits")
    parser.add_argument("--noise", type=Path, default=shared / "environment")
    parser.add_argument("--fold", default="3", help="of the noise")
    parser.add_argument("--speakers", nargs="*", help="only these")
    parser.add_argument("--count", type=int, default=96, help="utterances")
    parser.add_argument("--weights", type=Path, help="of the network, for PyTorch")
    parser.add_argument("--conversion", type=Path, help="of the network, as devices run it")
    parser.add_argument("--quick", action="store_true", help="a few utterances")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a bar is missed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

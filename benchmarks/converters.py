"""Accuracy, size and latency of int8 conversion, beside the plain library calls a user would write.

Trains a ResNet-18 class network on photographs of clothes (digits where they are absent), converts
it with and without repair, and measures the full network at 224 on both runtimes, one thread. The
plain way is ``torch.onnx.export`` + ``quantize_static`` and ``litert_torch.convert`` +
``ai_edge_quantizer`` as their documentation shows them. Bars: accuracy drop at most 0.5 points
after repair, file at most 0.26x, int8 at least 3.2x faster than fp32 on ONNX Runtime with VNNI;
against the plain calls at most 0.1 points less accurate and 2 % slower.

Int8 files answer like the float network on all but a few images in a thousand, and on those few
either may be right. So both files see the held-out images at four positions, and a gap counts when
it exceeds the bar and is no accident: when a fair coin would give the plain file as many of the
images on which one of both alone is right in less than one of twenty runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Run as a script, this folder comes first on the path, where this file hides the package.
sys.path[:] = [
    str(ROOT),
    *(path for path in sys.path if Path(path).resolve() != ROOT / "benchmarks"),
]

import numpy as np  # noqa: E402
import torch  # noqa: E402

from benchmarks import qat  # noqa: E402
from benchmarks.clothing import shifted  # noqa: E402
from benchmarks.qat import qat_row  # noqa: E402
from benchmarks.side_by_side import Pair, Times, in_turns, paired, ratio  # noqa: E402
from converters.answers import answers_of  # noqa: E402
from converters.cache import Cache  # noqa: E402
from converters.children import Job, run_jobs  # noqa: E402
from converters.convert import Options, Outcome, convert  # noqa: E402
from converters.loading import load_task  # noqa: E402
from converters.module import save_weights  # noqa: E402
from converters.results import Measured  # noqa: E402
from converters.train import train  # noqa: E402

TASKS = Path(__file__).with_name("clothing.py")
SCHEMES = ("fp32", "static_wi8_ai8", "static_wi8_au8")
MAX_DROP_PT, MAX_RATIO, LEAST_SPEEDUP = 0.5, 0.26, 3.2
MAX_PLAIN_DROP_PT, MAX_SLOWER = 0.1, 1.02
ACCIDENT = 0.05
ROUNDS = 60
FORMATS = ("onnx", "tflite")


@dataclass
class Row:
    """One way of converting, in one format."""

    way: str
    format: str
    scheme: str
    accuracy: float
    bytes: int


@dataclass
class Timed:
    """The full network's files of one format."""

    times: Times
    bytes: dict[str, int]


def main() -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smaller network, minutes")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), quick=arguments.quick, quiet=arguments.json)
    print(json.dumps(result, indent=1) if arguments.json else "\n".join(lines(result)))
    return 1 if arguments.check and not all(result["held"].values()) else 0


def measure(folder: Path, *, quick: bool, quiet: bool) -> dict[str, Any]:
    """Everything that the bars speak of."""

    def say(text: str) -> None:
        if not quiet:
            print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)

    ref = f"{TASKS}:{'Quick' if quick else 'Clothing'}"
    say("train")
    weights = folder / "weights.pt"
    trained = train(load_task(ref), report=lambda e: say(f"epoch {e.number}: {e.accuracy:.4f}"))
    save_weights(trained.module, weights)
    options = {"weights": weights, "max_drop": 1.0}
    cache = Cache(folder / "cache")
    say("convert without repair")
    off = Options(repair="off", schemes=SCHEMES, **options)
    ptq = convert(ref, ["x86-vnni"], folder / "ptq", options=off, cache=cache)
    say("convert with repair")
    always = Options(repair="always", schemes=SCHEMES[:2], **options)
    ours = convert(ref, ["x86-vnni"], folder / "repaired", options=always, cache=cache)
    say("the plain library calls")
    plain = plain_rows(ref, weights, folder / "plain", accuracy=True)
    say("ours and plain on the held-out images at four positions")
    pairs = pairs_of(ref, ours, folder / "plain")
    say("the full network at 224")
    timed = latencies(f"{TASKS}:Latency", folder, say)
    say("training on the int8 grid")
    grid = qat_row(ref, weights, folder, epochs=2, say=say)
    return with_training(verdict(ptq, ours, plain, pairs, timed), grid)


def with_training(result: dict[str, Any], grid: qat.Row) -> dict[str, Any]:
    """The figures, with those of quantization-aware training beside them."""
    size = round(grid.size_ratio * grid.float_bytes)
    for kind, accuracy in (("onnx", grid.onnx), ("tflite", grid.tflite)):
        result["rows"].append(vars(Row("ours, QAT", kind, "static_wi8_ai8", accuracy, size)))
    result["qat_drop_pt"] = grid.drop * 100
    result["held"]["drop with QAT"] = round(grid.drop, 6) <= qat.MAX_DROP
    return result


def plain_rows(ref: str, weights: Path | None, folder: Path, *, accuracy: bool) -> list[Row]:
    """The plain calls' files, built in a process of their own, and what they score."""
    folder.mkdir()
    request = {"task": ref, "weights": str(weights) if weights else None, "folder": str(folder)}
    module = "benchmarks.plain_worker"
    (files,) = run_jobs([Job("plain calls", module, request, folder)], parallel=1)
    rows = []
    for name in files:
        path = Path(name)
        score = _accuracy(ref, path) if accuracy else 0.0
        rows.append(Row("plain", path.suffix[1:], path.stem, score, path.stat().st_size))
    return rows


def pairs_of(ref: str, ours: Outcome, plain: Path) -> dict[str, Pair]:
    """Our repaired int8 file against the plain one, by format."""
    task = load_task(ref)
    images, labels = shifted(task.resolutions[0][0])
    found = {}
    for kind in FORMATS:
        paths = {
            item.scheme: ours.out / "artifacts" / item.path.name
            for item in ours.measured
            if item.format == kind
        }
        files = (plain / f"int8.{kind}", paths["static_wi8_ai8"], paths["fp32"])
        named = [answers_of(path, images)[0].argmax(1) for path in files]
        found[kind] = paired(named[0], named[1], labels, named[2])
    return found


def latencies(ref: str, folder: Path, say: Any) -> dict[str, Timed]:
    """All files of a format taking turns, by format."""
    options = Options(schemes=SCHEMES, repair="off", max_drop=1.0)
    outcome = convert(ref, ["x86-vnni"], folder / "big", options=options)
    plain = plain_rows(ref, None, folder / "big-plain", accuracy=False)
    found = {}
    for kind in FORMATS:
        files = {
            item.scheme: outcome.out / "artifacts" / item.path.name
            for item in outcome.measured
            if item.format == kind
        }
        files |= {
            f"plain {row.scheme}": folder / "big-plain" / f"{row.scheme}.{kind}"
            for row in plain
            if row.format == kind
        }
        say(f"time {kind}")
        sizes = {name: path.stat().st_size for name, path in files.items()}
        found[kind] = Timed(in_turns(files, kind, ROUNDS), sizes)
    return found


def _accuracy(ref: str, path: Path) -> float:
    task = load_task(ref)
    height, width = task.resolutions[0]
    (inputs, labels) = next(iter(task.task.evaluation(height, width)))
    outputs, _ = answers_of(path, inputs.numpy())
    return float(np.mean(outputs.argmax(1) == np.asarray(labels)))


def verdict(
    ptq: Outcome,
    ours: Outcome,
    plain: list[Row],
    pairs: dict[str, Pair],
    timed: dict[str, Timed],
) -> dict[str, Any]:
    """Figures and which bars they hold."""
    reference = next(iter(ours.reference.values()))
    rows = [
        *(_row("ours, plain PTQ", item) for item in ptq.measured),
        *(_row("ours, repaired", item) for item in ours.measured if item.scheme != "fp32"),
        *plain,
    ]
    drop = max((reference - row.accuracy) * 100 for row in rows if row.way == "ours, repaired")
    ratios = {kind: one.bytes["static_wi8_ai8"] / one.bytes["fp32"] for kind, one in timed.items()}
    speedups = {
        f"{kind} {scheme}": ratio(one.times, "fp32", scheme)
        for kind, one in timed.items()
        for scheme in SCHEMES[1:]
        if scheme in one.times
    }
    slower = {
        f"{kind} {scheme}": ratio(one.times, mine, f"plain {scheme}")
        for kind, one in timed.items()
        for scheme, mine in (("fp32", "fp32"), ("int8", "static_wi8_ai8"))
    }
    vnni = "vnni" in Path("/proc/cpuinfo").read_text()
    fast = max(speed for name, speed in speedups.items() if name.startswith("onnx"))
    return {
        "reference": reference,
        "rows": [vars(row) for row in rows],
        "repairs": [vars_of(repair) for repair in ours.repairs],
        "ms_at_224": {
            kind: {name: float(np.median(values)) for name, values in one.times.items()}
            for kind, one in timed.items()
        },
        "drop_pt": drop,
        "file_ratio": ratios,
        "speedup": speedups,
        "against_plain": {kind: pair.as_dict() for kind, pair in pairs.items()},
        "ours_over_plain_latency": slower,
        "vnni": vnni,
        "held": {
            "drop": drop <= MAX_DROP_PT,
            "file": max(ratios.values()) <= MAX_RATIO,
            "accuracy against plain": all(
                pair.gap_pt <= MAX_PLAIN_DROP_PT or pair.chance >= ACCIDENT
                for pair in pairs.values()
            ),
            "latency against plain": max(slower.values()) <= MAX_SLOWER,
        }
        | ({"speed": fast >= LEAST_SPEEDUP} if vnni else {}),
    }


def vars_of(repair: Any) -> dict[str, Any]:
    """A repair as plain data."""
    return {name: getattr(repair, name) for name in repair.__slots__}


def _row(way: str, item: Measured) -> Row:
    return Row(way, item.format, item.scheme, item.accuracy, item.size_bytes)


def lines(result: dict[str, Any]) -> list[str]:
    """What a person reads; the figures of the bars last."""
    found = [f"PyTorch: {result['reference'] * 100:.2f} % on the held-out images"]
    found += [
        f"{row['way']:16s} {row['format']:7s} {row['scheme']:16s} "
        f"{row['accuracy'] * 100:6.2f} %  {row['bytes'] / 1e6:7.3f} MB"
        for row in result["rows"]
    ]
    found += [
        f"{repair['kind']:16s} {repair['format']:7s} {repair['scheme']:16s} "
        f"{repair['before_db']:.1f} -> {repair['after_db']:.1f} dB, "
        f"{'kept' if repair['applied'] else 'refused'}"
        for repair in result["repairs"]
    ]
    found += [
        f"ours against plain, {kind} int8, {pair['images']} views: alone right on "
        f"{pair['ours_only']} and {pair['plain_only']} (gap {pair['gap_pt']:+.2f} pt, by accident "
        f"in {pair['chance']:.0%}), like the float network on {pair['ours_agree']:.2%} and "
        f"{pair['plain_agrees']:.2%}"
        for kind, pair in result["against_plain"].items()
    ]
    for kind, times in result["ms_at_224"].items():
        shown = ", ".join(f"{name} {ms:.2f}" for name, ms in times.items())
        found.append(f"ResNet-18 at 224, {kind}, CPU ms on one thread: {shown}")
    slower = ", ".join(
        f"{name} {share:.3f}x" for name, share in result["ours_over_plain_latency"].items()
    )
    found.append(f"time of ours by that of plain: {slower}")
    for name, held in result["held"].items():
        found.append(f"{'ok  ' if held else 'MISS'} {name}")
    return [*found, _last_line(result)]


def _last_line(result: dict[str, Any]) -> str:
    """The figures of the bars."""
    ratios = ", ".join(f"{kind} {share:.3f}x" for kind, share in result["file_ratio"].items())
    speeds = ", ".join(f"{name} {share:.2f}x" for name, share in result["speedup"].items())
    gaps = ", ".join(f"{p['gap_pt']:+.2f}" for p in result["against_plain"].values())
    slowest = max(result["ours_over_plain_latency"].values())
    return (
        f"drop {result['drop_pt']:+.2f} pt, with QAT {result['qat_drop_pt']:+.2f}; file {ratios}; "
        f"faster than fp32: {speeds} ({'with' if result['vnni'] else 'without'} VNNI); "
        f"plain is ahead by {gaps} pt, ours takes at most {slowest:.3f}x its time"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())

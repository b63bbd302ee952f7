"""Bar of the per-frame gate: latency saved and accuracy lost on photographs of clothes.

One ResNet-18 is trained at two resolutions (``benchmarks/cascade_network.py``; most epochs at half
the full one, which is cheaper) and exported; the files run in ONNX Runtime on one thread. The
held-out photographs are divided in halves eight times: on one half the product's own calibration
chooses the threshold (no label is used), on the other the cascade is judged against the full
resolution alone. Beside it, with just as many frames escalated: a random choice, and choices made
before any network looked (edges, JPEG size), at thresholds of the calibration half. At the end all
held-out frames really run through the gate, one by one.

On two cores ``--quick`` takes some minutes, the whole run about half an hour, nearly all of it
training; ``--weights`` and ``--networks`` skip that. Without the photographs scikit-learn's digits
take their place, and the bar is not judged.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
# Run as a script, this folder comes first on the path, where converters.py hides the package.
OWN = ROOT / "benchmarks"
sys.path[:] = [str(ROOT), *(path for path in sys.path if Path(path).resolve() != OWN)]

SPLITS = 8
LEAST_SAVING = 0.25
MAX_LOSS = 0.005
RANDOM_DRAWS = 20
RUNS = 200
PASSES = 3
QUIET = 0.2
"""Quantile of the latencies that counts: on a busy machine the rest is other programs' work."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Row:
    """A way to choose the frames that are looked at again; means over the splits."""

    chosen_by: str
    escalated: float
    disagreement: float
    loss: float
    """Accuracy of the full resolution alone minus that of the cascade."""
    loss_deviation: float
    saving: float
    saving_deviation: float
    auc: float
    """Area under the ROC curve: how well the choice foretells a disagreement; .5 is chance."""


@dataclass(frozen=True)
class Result:
    """Everything that was measured."""

    task: str
    held_out: int
    accuracy: dict[str, float]
    latency_ms: dict[str, float]
    refusals: int
    """Splits whose calibration refused; they run the full resolution alone."""
    rows: tuple[Row, ...]
    real_ms: float
    """Mean of the real run through the gate, all frames."""
    real_alone_ms: float
    real_escalated: float
    seconds: float

    @property
    def passes(self) -> bool:
        """Whether the bar is met."""
        ours = self.rows[0]
        return ours.saving >= LEAST_SAVING and ours.loss <= MAX_LOSS

    @property
    def real_saving(self) -> float:
        """Share of the mean latency that the real run saved."""
        return 1.0 - self.real_ms / self.real_alone_ms


@dataclass(frozen=True)
class Held:
    """The held-out frames with what is known about each."""

    first: Array
    full: Array
    """(N, K) logits of both files."""
    labels: Array
    hardness: dict[str, Array]
    """By chooser, (N,): the higher, the rather it is looked at again."""


def hardness(images: Array) -> dict[str, Array]:
    """Complexity before any network looks: edges, and bytes as JPEG."""
    edges, size = [], []
    for image in images:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        edges.append(cv2.Laplacian(grey, cv2.CV_32F).var())
        size.append(len(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1]))
    return {"edges (Laplacian)": np.array(edges), "JPEG size": np.array(size, float)}


def auc(score: Array, positive: Array) -> float:
    """Mann-Whitney: the chance that a positive scores above a negative; ties count half."""
    if positive.all() or not positive.any():
        return 0.5
    from scipy.stats import rankdata

    ranks, count = rankdata(score), int(positive.sum())
    above = ranks[positive].sum() - count * (count + 1) / 2
    return float(above / (count * (len(score) - count)))


def judge(held: Held, costs: tuple[float, float], tolerance: float) -> tuple[tuple[Row, ...], int]:
    """All choosers over all splits, ours first.

    Args:
        held: the frames.
        costs: latency of the first and of the full point, ms.
        tolerance: of disagreement.

    Returns:
        The rows, and how many calibrations refused.
    """
    from converters.cascade.calibrate import Pair, Terms, calibrate
    from edge_sdk.runtime.margins import margins

    doubt = 1.0 - margins(held.first).astype(float)
    choosers = {"margin (ours)": doubt, "random": None, **held.hardness}
    seen: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in choosers}
    refusals = 0
    for split in range(SPLITS):
        order = np.random.default_rng(split).permutation(len(held.labels))
        at, on = order[: len(order) // 2], order[len(order) // 2 :]
        pair = Pair(held.first[at], held.full[at], *costs)
        verdict = calibrate(pair, Terms(tolerance, 0.0), seed=split)
        refusals += bool(verdict.refusal)
        threshold = 2.0 if verdict.refusal else verdict.threshold
        share = float(np.mean(doubt[at] > 1.0 - threshold))
        for name, score in choosers.items():
            if name == "margin (ours)":
                outcomes = [_outcome(held, on, margins(held.first[on]) < threshold, costs)]
            elif score is None:
                random = np.random.default_rng(1000 + split)
                outcomes = [
                    _outcome(held, on, random.random(len(on)) < share, costs)
                    for _ in range(RANDOM_DRAWS)
                ]
            else:
                least = np.quantile(score[at], 1.0 - share)
                outcomes = [_outcome(held, on, score[on] > least, costs)]
            seen[name].append(tuple(np.mean(outcomes, axis=0)))
    differs = held.first.argmax(1) != held.full.argmax(1)
    return tuple(
        _row(name, seen[name], 0.5 if score is None else auc(score, differs))
        for name, score in choosers.items()
    ), refusals


def _outcome(
    held: Held, on: Array, again: Array, costs: tuple[float, float]
) -> tuple[float, float, float, float]:
    """Escalated, disagreement, loss, saving."""
    full = held.full[on].argmax(1)
    said = np.where(again, full, held.first[on].argmax(1))
    right, alone = said == held.labels[on], full == held.labels[on]
    escalated = float(np.mean(again))
    # Where every frame is escalated nobody would run the first point at all.
    mean_ms = costs[1] if again.all() else costs[0] + escalated * costs[1]
    return (
        escalated,
        float(np.mean(said != full)),
        float(alone.mean() - right.mean()),
        1.0 - mean_ms / costs[1],
    )


def _row(name: str, outcomes: list[tuple[float, float, float, float]], area: float) -> Row:
    mean, spread = np.mean(outcomes, axis=0), np.std(outcomes, axis=0)
    return Row(
        chosen_by=name,
        escalated=float(mean[0]),
        disagreement=float(mean[1]),
        loss=float(mean[2]),
        loss_deviation=float(spread[2]),
        saving=float(mean[3]),
        saving_deviation=float(spread[3]),
        auc=area,
    )


def measure(sides_px: tuple[int, int], networks: Any, folder: Path, tolerance: float) -> Result:
    """Export, answer, judge, run.

    Args:
        sides_px: full and lower resolution.
        networks: by resolution.
        folder: scratch.
        tolerance: of disagreement.
    """
    from benchmarks.cascade_network import resized
    from benchmarks.clothing import PHOTOGRAPHS, as_input, images_of
    from converters.answers import answers_of
    from converters.cascade.calibrate import Pair, Terms, calibrate

    started = time.monotonic()
    images, labels = images_of("held-out", sides_px[0])
    inputs = {side: as_input(resized(images, side)).numpy() for side in sides_px}
    files = {side: export(networks[side], side, folder) for side in sides_px}
    answers = {side: answers_of(files[side], inputs[side])[0] for side in sides_px}
    full, first = sides_px
    latency = times_ms(files, inputs)
    costs = latency[first], latency[full]
    held = Held(answers[first], answers[full], labels, hardness(images))
    rows, refusals = judge(held, costs, tolerance)
    verdict = calibrate(Pair(held.first, held.full, *costs), Terms(tolerance, 0.0))
    threshold = 2.0 if verdict.refusal else verdict.threshold
    real = run_gate(files, inputs, threshold)
    return Result(
        task="clothing" if PHOTOGRAPHS.is_dir() else "digits",
        held_out=len(labels),
        accuracy={
            str(side): float((answers[side].argmax(1) == labels).mean()) for side in sides_px
        },
        latency_ms={str(side): latency[side] for side in sides_px},
        refusals=refusals,
        rows=rows,
        real_ms=real[0],
        real_alone_ms=real[1],
        real_escalated=real[2],
        seconds=time.monotonic() - started,
    )


def export(network: Any, side_px: int, folder: Path) -> Path:
    """A float32 ONNX file."""
    import torch

    from converters.module import contiguous
    from converters.onnx_export import export_onnx

    path = folder / f"{side_px}.onnx"
    export_onnx(contiguous(network.eval()), (torch.zeros(1, 3, side_px, side_px),), path)
    return path


def times_ms(files: dict[int, Path], inputs: dict[int, Array]) -> dict[int, float]:
    """Quiet single inferences (:data:`QUIET`) on one thread, the files in turn."""
    engines = {side: _engine(path) for side, path in files.items()}
    took: dict[int, list[float]] = {side: [] for side in files}
    for run in range(RUNS):
        for side, engine in engines.items():
            image = np.ascontiguousarray(inputs[side][run % len(inputs[side])][None])
            start = time.perf_counter()
            engine.run((image,))
            took[side].append((time.perf_counter() - start) * 1e3)
    for engine in engines.values():
        engine.close()
    return {side: float(np.quantile(values, QUIET)) for side, values in took.items()}


def run_gate(
    files: dict[int, Path], inputs: dict[int, Array], threshold: float
) -> tuple[float, float, float]:
    """Mean ms per frame through the device's gate, that of the full file alone, and the share
    escalated; in turn, so that both feel the same machine. A frame's latency is the fastest of
    :data:`PASSES`, as other programs only ever add to it."""
    from agent.adapt.gate import Plan
    from edge_sdk.runtime.margins import margins

    full, first = files
    engines = {side: _engine(path) for side, path in files.items()}
    gate, escalated = Plan(first=1, full=0, threshold=min(threshold, 1.0)), 0
    took_s = np.full((2, len(inputs[full])), np.inf)
    for _ in range(PASSES):
        for number, (low, high) in enumerate(zip(inputs[first], inputs[full], strict=True)):
            start = time.perf_counter()
            sure = float(margins(engines[first].run((low[None],))[0])[0])
            if gate.escalates(sure):
                escalated += 1
                engines[full].run((high[None],))
            middle = time.perf_counter()
            engines[full].run((high[None],))
            both = middle - start, time.perf_counter() - middle
            took_s[:, number] = np.minimum(took_s[:, number], both)
    for engine in engines.values():
        engine.close()
    gated_ms, alone_ms = took_s.mean(axis=1) * 1e3
    return float(gated_ms), float(alone_ms), escalated / (PASSES * len(inputs[full]))


def _engine(path: Path) -> Any:
    from edge_sdk.runtime.negotiate import open_engine

    return open_engine(path, format="onnx", threads=1)


def table(result: Result) -> str:
    """The rows for people."""
    full, first = result.accuracy
    about = (
        f"{result.task}, {result.held_out} held-out images, ResNet-18 at {full} and {first} px: "
        f"accuracy {result.accuracy[full]:.4f} and {result.accuracy[first]:.4f}, "
        f"{result.latency_ms[full]:.2f} and {result.latency_ms[first]:.2f} ms"
    )
    columns = ("share", 8), ("differs", 9), ("loss pt", 15), ("saves %", 14), ("AUC", 6)
    head = "".join(f"{name:>{width}}" for name, width in columns)
    lines = [
        about,
        f"means over {SPLITS} splits ({result.refusals} calibrations refused)",
        f"{'looked at again by':20}{head}",
    ]
    lines += [
        f"{row.chosen_by:20}{row.escalated:8.1%}{row.disagreement:9.2%}"
        f"{row.loss * 100:+8.2f} ±{row.loss_deviation * 100:5.2f}"
        f"{row.saving * 100:8.1f} ±{row.saving_deviation * 100:4.1f}{row.auc:6.2f}"
        for row in result.rows
    ]
    lines.append(
        f"really run, frame by frame: {result.real_ms:.2f} ms instead of "
        f"{result.real_alone_ms:.2f} ({result.real_saving:.1%} saved, "
        f"{result.real_escalated:.1%} looked at again)"
    )
    return "\n".join(lines)


def trained(options: argparse.Namespace, say: Callable[[str], None]) -> Any:
    """The networks: loaded, or trained from the given or from new weights."""
    from benchmarks.cascade_network import RATE, WARM_RATE, build, enlarged, load, save, train

    if options.networks is not None and options.networks.is_file():
        networks = build((options.full_px, options.first_px), options.width, None)
        load(networks, options.networks)
        return networks
    networks = build((options.warm_px, options.first_px), options.width, options.weights)
    train(networks, options.warm_epochs, say, rate=WARM_RATE)
    networks = enlarged(networks, options.full_px)
    train(networks, options.epochs, say, rate=RATE, seed=5)
    if options.networks is not None:
        save(networks, options.networks)
    return networks


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--full-px", type=int, default=192)
    parser.add_argument("--first-px", type=int, default=64)
    parser.add_argument("--warm-px", type=int, default=96, help="The full one, to begin with.")
    parser.add_argument("--width", type=int, default=32, help="Channels of the first stage.")
    parser.add_argument("--warm-epochs", type=int, default=20, help="8 with --weights.")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--weights", type=Path, help="Of benchmarks/clothing.py:Clothing.")
    parser.add_argument("--networks", type=Path, help="Where the trained networks are kept.")
    parser.add_argument("--tolerance", type=float, default=0.02)
    parser.add_argument("--quick", action="store_true", help="64 and 32 px, small, short.")
    parser.add_argument("--json", type=Path, help="Also write everything here.")
    options = parser.parse_args(arguments)
    if options.quick:
        options.full_px, options.warm_px, options.first_px = 64, 48, 32
        options.width, options.warm_epochs, options.epochs = 16, 5, 1
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run it; 1 when the bar is missed on the photographs."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    options = parse(arguments)
    torch.set_num_threads(1)
    networks = trained(options, lambda text: print(text, file=sys.stderr, flush=True))
    with tempfile.TemporaryDirectory() as scratch:
        sides = (options.full_px, options.first_px)
        result = measure(sides, networks, Path(scratch), options.tolerance)
    print(table(result))
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(result), indent=2) + "\n")
    if options.quick or result.task != "clothing":
        print("the bar is judged by the whole run on the photographs")
        return 0
    ours = result.rows[0]
    print(
        f"bar: saves {ours.saving:.1%} (at least {LEAST_SAVING:.0%}) at {ours.loss * 100:+.2f} pt "
        f"(at most {MAX_LOSS * 100:.1f}): {'met' if result.passes else 'MISSED'}"
    )
    return 0 if result.passes else 1


if __name__ == "__main__":
    sys.exit(main())

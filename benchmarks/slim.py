"""Bars of ``edge model slim``: ResNet-18 at 58 % fewer multiply-accumulates, and the zoo.

Trains the network of ``benchmarks/clothing.py`` on photographs of clothes (digits where they are
absent), narrows it, and gives the narrow network, the unpruned one and Torch-Pruning's the very
same extra training: same batches, same teacher, same loss. Accuracy is that of the ONNX files in
ONNX Runtime, float32 and int8; latency is measured on one thread, all files in turn. A network of
full size with masked channels stands beside them.

On two idle cores the whole run takes about 25 minutes (14 + 12 epochs of half a minute each and the
search) and ``--quick`` two; ``--weights`` keeps the first training between runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
# Run as a script, this folder comes first on the path, where converters.py hides the package.
OWN = ROOT / "benchmarks"
sys.path[:] = [str(ROOT), *(path for path in sys.path if Path(path).resolve() != OWN)]

from benchmarks.clothing import images_of, shifted  # noqa: E402
from benchmarks.slim_networks import CONTROL, MACS_SHARE, NAMES, OURS, Bench, Say  # noqa: E402

TASKS = ROOT / "benchmarks" / "clothing.py"
MAX_LOSS = 0.01
LEAST_SPEEDUP = 2.0
LEAST_ARCHITECTURES = 12
RUNS = 60

Scores = np.ndarray[Any, np.dtype[np.float64]]
"""(images,) which share of an image's positions is recognised."""


@dataclass(frozen=True)
class Row:
    """One network."""

    network: str
    macs_share: float
    repaired: float
    """PyTorch's accuracy before the extra training."""
    fp32: float
    int8: float
    """Of the files in ONNX Runtime, after it."""
    fp32_ms: float
    int8_ms: float
    fp32_speedup: float = 1.0
    int8_speedup: float = 1.0


@dataclass(frozen=True)
class Result:
    """Everything that was measured."""

    task: str
    held_out: int
    seconds: float
    rows: tuple[Row, ...]
    errors: tuple[float, float]
    """Standard errors of :attr:`losses`."""
    kept: dict[str, int]
    """Channels of the slim network, by group."""
    peer: str
    """Version of Torch-Pruning, or why it is not here."""
    architectures: dict[str, str]
    """Zoo: what can be narrowed, or the refusal."""

    def row(self, key: float) -> Row:
        """By its key in :data:`NAMES`."""
        return next(row for row in self.rows if row.network == NAMES[key])

    @property
    def losses(self) -> tuple[float, float]:
        """fp32 and int8, against the unpruned network's in the same precision."""
        ours, control = self.row(OURS), self.row(CONTROL)
        return control.fp32 - ours.fp32, control.int8 - ours.int8

    @property
    def narrowed(self) -> int:
        """Architectures of the zoo that can be narrowed."""
        return sum(not text.startswith("refused") for text in self.architectures.values())

    @property
    def passes(self) -> bool:
        """Whether the bars are met."""
        ours = self.row(OURS)
        return (
            max(self.losses) < MAX_LOSS
            and ours.macs_share <= MACS_SHARE
            and ours.fp32_speedup >= LEAST_SPEEDUP
            and self.narrowed >= LEAST_ARCHITECTURES
        )


def measure(
    ref: str, weights: Path, folder: Path, *, epochs: int, rate: float, say: Say, peers: bool = True
) -> Result:
    """Narrow, train side by side, convert, compare.

    Args:
        ref: of the task.
        weights: of its training.
        folder: scratch.
        epochs: of the extra training.
        rate: its learning rate.
        say: told what goes on.
        peers: also uniform widths and Torch-Pruning.
    """
    from converters.loading import load_task
    from converters.norm_statistics import recalibrate
    from converters.slim.narrow import silence

    started, task = time.monotonic(), load_task(ref)
    bench = Bench(task, weights, epochs, rate, say, peers=peers)
    repaired = bench.scores()
    bench.train()
    macs = bench.macs()
    files = {}
    for key, module in bench.modules().items():
        say(f"convert {NAMES[key]}")
        files[NAMES[key]] = bench.convert(module, folder / f"{key}")
    masked = silence(bench.module, bench.groups, bench.kept)
    recalibrate(masked, bench.samples)
    files["masked"] = bench.convert(masked, folder / "masked")
    say("latency")
    took = latencies([path for pair in files.values() for path in pair])
    side_px = task.resolutions[0][0]
    held_out = len(images_of("held-out", side_px)[1])
    rows, scores = [], {}
    for name, (plain, int8) in files.items():
        say(f"accuracy of {name}")
        scores[name] = [recognised(path, *shifted(side_px), held_out) for path in (plain, int8)]
        fp32, quantized = (float(score.mean()) for score in scores[name])
        rows.append(
            Row(
                network=name,
                macs_share=macs.get(name, 1.0),
                repaired=repaired.get(name, 0.0),
                fp32=fp32,
                int8=quantized,
                fp32_ms=took[plain],
                int8_ms=took[int8],
            )
        )
    paired = zip(scores[NAMES[CONTROL]], scores[NAMES[OURS]], strict=True)
    fp32_error, int8_error = (float(np.std(a - b) / held_out**0.5) for a, b in paired)
    return Result(
        task=f"{task.name} {'x'.join(map(str, task.resolutions[0]))}",
        held_out=held_out,
        seconds=time.monotonic() - started,
        rows=_faster(rows),
        errors=(fp32_error, int8_error),
        kept=dict(bench.kept),
        peer=bench.peer,
        architectures=architectures(say),
    )


def _faster(rows: list[Row]) -> tuple[Row, ...]:
    from dataclasses import replace

    control = next(row for row in rows if row.network == NAMES[CONTROL])
    return tuple(
        replace(
            row,
            fp32_speedup=control.fp32_ms / row.fp32_ms,
            int8_speedup=control.int8_ms / row.int8_ms,
        )
        for row in rows
    )


def open_session(path: Path) -> Any:
    """As a device runs it: one thread, CPU."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def latencies(paths: list[Path]) -> dict[Path, float]:
    """Lower quartile of single inferences in ms, the files in turn: noise meets all alike."""
    sessions = {path: open_session(path) for path in paths}
    took: dict[Path, list[float]] = {path: [] for path in paths}
    for index in range(RUNS + 3):
        for path, session in sessions.items():
            feed = session.get_inputs()[0]
            image = np.zeros(feed.shape, np.float32 if "float" in feed.type else np.int8)
            session.run(None, {feed.name: image})
            start = time.thread_time()
            session.run(None, {feed.name: image})
            if index >= 3:
                took[path].append((time.thread_time() - start) * 1e3)
    return {path: float(np.percentile(values, 25)) for path, values in took.items()}


def recognised(path: Path, views: Any, labels: Any, images: int) -> Scores:
    """Top-1 of a file in its runtime, one view at a time, as a mean over each image's views."""
    from converters.inspect import inspect_model
    from converters.wiring import answer, feeds

    facts, session = inspect_model(path), open_session(path)
    names = [spec.name for spec in facts.inputs]
    right = []
    for stored, label in zip(feeds(views, facts.inputs), labels, strict=True):
        outputs = session.run(None, dict(zip(names, stored, strict=True)))
        right.append(int(answer(outputs, facts.outputs).argmax()) == int(label))
    return np.asarray(right, np.float64).reshape(-1, images).mean(0)


def architectures(say: Say) -> dict[str, str]:
    """What can be narrowed in each network of the zoo."""
    from converters.loading import load_task
    from converters.module import build_module, check_examples
    from converters.slim.find import analyse
    from converters.slim.plan import nothing_to_narrow
    from tests.zoo import zoo

    found = {}
    for name, ref in zoo().items():
        say(f"zoo: {name}")
        task = load_task(ref)
        module = build_module(task, None)
        analysis = analyse(module, check_examples(task, module, *task.resolutions[0]))
        if analysis.groups:
            channels = sum(group.size * group.block for group in analysis.groups)
            held = [f"{item.name} {item.reason}" for item in analysis.held]
            stays = f"; stays: {'; '.join(held[:3])}" if held else ""
            found[name] = f"{len(analysis.groups)} groups, {channels} channels{stays}"
        else:
            found[name] = f"refused: {nothing_to_narrow(task, analysis.held).cause}"
    return found


def show(result: Result) -> None:
    """As a table."""
    print(
        f"{result.task}, {result.held_out} held-out samples at 4 positions, {result.seconds:.0f} s"
    )
    print(f"{'network':26}{'MACs':>7}{'before':>9}{'fp32':>9}{'int8':>9}{'ms':>9}{'int8 ms':>9}")
    for row in result.rows:
        print(
            f"{row.network:26}{row.macs_share:7.3f}{row.repaired * 100:9.2f}{row.fp32 * 100:9.2f}"
            f"{row.int8 * 100:9.2f}{row.fp32_ms:9.3f}{row.int8_ms:9.3f}"
            f"   {row.fp32_speedup:.2f}x {row.int8_speedup:.2f}x"
        )
    print(f"Torch-Pruning: {result.peer}")
    for name, text in result.architectures.items():
        print(f"  {name:18} {text[:150]}")
    fp32, int8 = (
        f"{loss * 100:+.2f} (standard error {error * 100:.2f})"
        for loss, error in zip(result.losses, result.errors, strict=True)
    )
    ours = result.row(OURS)
    print("kept: " + ", ".join(f"{name} {count}" for name, count in result.kept.items()))
    print(
        f"loss fp32 {fp32}, int8 {int8} points (bar {MAX_LOSS * 100:.0f}) at "
        f"{(1 - ours.macs_share) * 100:.0f} % fewer MACs; {ours.fp32_speedup:.2f}x faster "
        f"(bar {LEAST_SPEEDUP:g}x), int8 {ours.int8_speedup:.2f}x; "
        f"{result.narrowed} of {len(result.architectures)} architectures "
        f"(bar {LEAST_ARCHITECTURES})"
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smaller network, minutes")
    parser.add_argument("--epochs", type=int, help="of the extra training; default 12, quick 3")
    parser.add_argument("--rate", type=float, default=1e-3, help="its learning rate")
    parser.add_argument("--weights", type=Path, help="of an earlier training; written if absent")
    parser.add_argument("--bare", action="store_true", help="only slim and the unpruned network")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    ref = f"{TASKS}:{'Quick' if arguments.quick else 'Clothing'}"
    epochs = arguments.epochs or (3 if arguments.quick else 12)
    with tempfile.TemporaryDirectory() as name:
        weights = arguments.weights or Path(name) / "weights.pt"
        if not weights.is_file():
            _train(ref, weights)
        result = measure(
            ref,
            weights,
            Path(name),
            epochs=epochs,
            rate=arguments.rate,
            say=_say,
            peers=not arguments.bare,
        )
    if arguments.json:
        extra = {"losses": result.losses, "passes": result.passes}
        print(json.dumps(asdict(result) | extra, indent=2))
    else:
        show(result)
    if arguments.check and not result.passes:
        sys.exit(1)


def _train(ref: str, path: Path) -> None:
    from converters.loading import load_task
    from converters.module import save_weights
    from converters.train import train

    trained = train(
        load_task(ref), report=lambda e: _say(f"float, epoch {e.number}: {e.accuracy:.4f}")
    )
    save_weights(trained.module, path)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

"""A ResNet-18 class network after quantization-aware training: at most 0.2 points below float32.

Trains the network of ``benchmarks/clothing.py`` on photographs of clothes (digits where they are
absent), trains it on the int8 grid, converts it, and compares the accuracy of the files in their
runtimes, the sizes and the outputs of both formats. The last line has the larger drop of the two.
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

ROOT = Path(__file__).resolve().parents[1]
TASKS = ROOT / "benchmarks" / "clothing.py"
MAX_DROP = 0.002
"""Of the accuracy, 0..1."""
MAX_SIZE = 0.26
"""Of the float file's size; a very small network's file is mostly structure."""
LEAST_BYTES = 4 * 1024**2
"""Of the float file, for the size to be judged."""


@dataclass(frozen=True)
class Row:
    """What one network lost."""

    network: str
    held_out: int
    float_accuracy: float
    calibrated: float
    """On the grid before training, both formats alike."""
    onnx: float
    tflite: float
    """After training, of the files in their runtimes."""
    float_bytes: int
    size_ratio: float
    """int8 file against fp32 file, the larger of both formats."""
    largest_lsb: int
    """Between both formats' outputs."""
    seconds: float

    @property
    def drop(self) -> float:
        """Larger loss of both formats, 0..1; negative where training gained."""
        return self.float_accuracy - min(self.onnx, self.tflite)

    @property
    def passes(self) -> bool:
        """Whether the bars are met."""
        judged = self.float_bytes >= LEAST_BYTES
        return round(self.drop, 6) <= MAX_DROP and not (judged and self.size_ratio > MAX_SIZE)


def qat_row(
    ref: str, weights: Path, folder: Path, *, epochs: int, say: Callable[[str], None]
) -> Row:
    """Train one trained network on the grid, convert it and compare.

    Args:
        ref: of the task.
        weights: of its float training.
        folder: scratch.
        epochs: of training on the grid.
        say: told what goes on.
    """
    from converters.convert import Options
    from converters.data import evaluation_set
    from converters.loading import load_task
    from converters.qat.run import qat

    task, started = load_task(ref), time.monotonic()
    found = qat(
        ref,
        ["rpi4", "x86-generic"],
        folder / "qat",
        options=Options(weights=weights, max_drop=1.0),
        epochs=epochs,
        report=lambda e: say(f"int8 grid, epoch {e.number}: {e.accuracy:.4f}"),
        progress=say,
    )
    if found.trained is None:
        raise SystemExit("nothing was trained")
    size = next(iter(found.trained.accuracy))
    measured = found.outcome.measured
    int8 = {item.format: item for item in measured if item.scheme == "static_wi8_ai8"}
    plain = {item.format: item for item in measured if item.scheme == "fp32"}
    return Row(
        network=f"{task.name} {size}",
        held_out=len(evaluation_set(task, *task.resolutions[0]).labels),
        float_accuracy=found.trained.float_accuracy[size],
        calibrated=found.trained.calibrated_accuracy[size],
        onnx=int8["onnx"].accuracy,
        tflite=int8["tflite"].accuracy,
        float_bytes=plain["onnx"].size_bytes,
        size_ratio=max(int8[kind].size_bytes / plain[kind].size_bytes for kind in int8),
        largest_lsb=max(item.largest_lsb for item in found.parity),
        seconds=time.monotonic() - started,
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smaller network, minutes")
    parser.add_argument("--epochs", type=int, default=4, help="of training on the grid")
    parser.add_argument("--weights", type=Path, help="of an earlier float training")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Run as a script, this folder comes first on the path, where converters.py hides the package.
    own = ROOT / "benchmarks"
    sys.path[:] = [str(ROOT), *(path for path in sys.path if Path(path).resolve() != own)]
    ref = f"{TASKS}:{'Quick' if arguments.quick else 'Clothing'}"
    with tempfile.TemporaryDirectory() as name:
        weights = arguments.weights or _trained(ref, Path(name) / "weights.pt")
        row = qat_row(ref, weights, Path(name), epochs=arguments.epochs, say=_say)
    if arguments.json:
        print(json.dumps(asdict(row) | {"drop": row.drop, "passes": row.passes}, indent=2))
    else:
        print(
            f"{row.network}, {row.held_out} held-out samples: float {row.float_accuracy:.4f}, "
            f"calibrated {row.calibrated:.4f}, trained on the grid: ONNX {row.onnx:.4f}, TFLite "
            f"{row.tflite:.4f}; file {row.size_ratio:.3f}x; formats differ by {row.largest_lsb} "
            f"step; {row.seconds:.0f} s"
        )
        print(f"drop after QAT {row.drop * 100:+.2f} points (bar {MAX_DROP * 100:.1f})")
    if arguments.check and not row.passes:
        sys.exit(1)


def _trained(ref: str, path: Path) -> Path:
    from converters.loading import load_task
    from converters.module import save_weights
    from converters.train import train

    task = load_task(ref)
    trained = train(task, report=lambda e: _say(f"float, epoch {e.number}: {e.accuracy:.4f}"))
    save_weights(trained.module, path)
    return path


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

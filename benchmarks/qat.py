"""ResNet-18 after quantization-aware training: at most 0.2 points below float32, in both formats.

    python benchmarks/qat.py --photos FOLDER  # train/CLASS/*.jpg, validation, test
    python benchmarks/qat.py --quick          # digits

Float training, training on the int8 grid, conversion and verification in the runtimes are one run;
the accuracies are those of the files. The last line has the larger drop of both formats.
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

TASKS = Path(__file__).with_name("resnet18_task.py")
PHOTOS = "EDGE_BENCH_PHOTOS"
MAX_DROP = 0.002
"""Of the accuracy, 0..1."""
MAX_SIZE = 0.26
"""Of the float file's size."""


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
    size_ratio: float
    """int8 file against fp32 file, the larger of both formats."""
    largest_lsb: int
    """Between both formats' outputs."""
    train_s: float
    qat_s: float

    @property
    def drop(self) -> float:
        """Larger loss of both formats, 0..1; negative where training gained."""
        return self.float_accuracy - min(self.onnx, self.tflite)

    @property
    def passes(self) -> bool:
        """Whether the bars are met."""
        return round(self.drop, 6) <= MAX_DROP and self.size_ratio <= MAX_SIZE


def qat_row(folder: Path, *, photos: Path | None, epochs: int, qat_epochs: int) -> Row:
    """Train, train on the grid, convert and compare one ResNet-18.

    Args:
        folder: scratch.
        photos: images by class; None: digits.
        epochs: of float training.
        qat_epochs: of training on the grid.
    """
    from converters.convert import Options
    from converters.data import evaluation_set
    from converters.loading import load_task
    from converters.module import save_weights
    from converters.qat.run import qat
    from converters.train import train

    if photos is not None:
        os.environ[PHOTOS] = str(photos)
    ref = f"{TASKS}:{'Photos' if photos else 'Digits18'}"
    task, weights = load_task(ref), folder / "weights.pt"
    started = time.monotonic()
    save_weights(
        train(task, epochs=epochs, report=lambda e: _say(f"float {e.number} {e.accuracy:.4f}"))
        .module,
        weights,
    )  # fmt: skip
    trained_at = time.monotonic()
    found = qat(
        ref,
        ["rpi4", "x86-generic"],
        folder / "out",
        options=Options(weights=weights, max_drop=1.0),
        epochs=qat_epochs,
        report=lambda e: _say(f"int8 grid {e.number} {e.accuracy:.4f}"),
        progress=_say,
    )
    if found.trained is None:
        raise SystemExit("nothing was trained")
    size = next(iter(found.trained.accuracy))
    int8 = {i.format: i for i in found.outcome.measured if i.scheme == "static_wi8_ai8"}
    plain = {i.format: i for i in found.outcome.measured if i.scheme == "fp32"}
    return Row(
        network=f"ResNet-18 on {'photos' if photos else 'digits'} {size}",
        held_out=len(evaluation_set(task, *task.resolutions[0]).labels),
        float_accuracy=found.trained.float_accuracy[size],
        calibrated=found.trained.calibrated_accuracy[size],
        onnx=int8["onnx"].accuracy,
        tflite=int8["tflite"].accuracy,
        size_ratio=max(int8[kind].size_bytes / plain[kind].size_bytes for kind in int8),
        largest_lsb=max(item.largest_lsb for item in found.parity),
        train_s=trained_at - started,
        qat_s=time.monotonic() - trained_at,
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, help="folder of images; digits without it")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--qat-epochs", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="digits, few epochs")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    arguments = parser.parse_args()
    photos = None if arguments.quick else arguments.photos
    epochs = arguments.epochs or (3 if arguments.quick else 10 if photos else 6)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with tempfile.TemporaryDirectory() as name:
        row = qat_row(Path(name), photos=photos, epochs=epochs, qat_epochs=arguments.qat_epochs)
    if arguments.json:
        print(json.dumps(asdict(row) | {"drop": row.drop, "passes": row.passes}, indent=2))
    else:
        print(
            f"{row.network}, {row.held_out} held-out samples: float {row.float_accuracy:.4f}, "
            f"calibrated {row.calibrated:.4f}, trained on the grid: ONNX {row.onnx:.4f}, TFLite "
            f"{row.tflite:.4f}; file {row.size_ratio:.3f}x; formats differ by {row.largest_lsb} "
            f"step; {row.train_s:.0f} s + {row.qat_s:.0f} s"
        )
        print(f"drop after QAT {row.drop * 100:+.2f} points (bar {MAX_DROP * 100:.1f})")
    if arguments.check and not row.passes:
        sys.exit(1)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

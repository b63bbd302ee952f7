"""What the engines add to their runtimes: the same models through both, taking turns.

    python benchmarks/engine_overhead.py [--quick] [--json] [--check]

"Raw" is the runtime's own interface as its manual shows it: ``set_tensor``, ``invoke``,
``get_tensor`` for LiteRT and ``session.run`` for ONNX Runtime, on one thread. A ratio under 1 means
that the engine is faster, because it copies no tensors. ``--check`` fails when a model of at least
2 ms costs more than 10 % extra, or the smallest more than 2.5 times (its inference is a few
microseconds, so this bounds the fixed cost).
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

sys.path.insert(0, str(Path(__file__).parent.parent))

from edge_sdk.runtime.negotiate import open_engine
from tests.fakes.models import write_onnx, write_tflite

HEAVY_MS = 2.0
MAX_RATIO_HEAVY = 1.10
MAX_RATIO_TINY = 2.5


def main() -> None:
    """Measure, print, and judge when asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the rounds")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    arguments = parser.parse_args()
    rounds = 30 if arguments.quick else 150
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(*case, rounds) for case in cases(Path(folder))]
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        print(f"{'model':<34}{'raw ms':>10}{'engine ms':>11}{'ratio':>8}")
        for row in rows:
            times = f"{row['raw_ms']:>10.4f}{row['engine_ms']:>11.4f}{row['ratio']:>8.3f}"
            print(f"{row['model']:<34}{times}")
    failures = [failure for row in rows if (failure := judge(row))]
    if arguments.check and failures:
        raise SystemExit("\n".join(failures))


def cases(folder: Path) -> list[tuple[str, Path, str, tuple[int, ...]]]:
    """Name, file, format and input shape of each model."""
    tiny, image, heavy = (1, 4, 4, 3), (1, 512, 512, 3), (1, 96, 96, 64)
    return [
        (
            "litert tiny add",
            write_tflite(folder / "tiny.tflite", shape=tiny),
            "tflite",
            tiny,
        ),
        (
            "litert 512x512 add (copy-bound)",
            write_tflite(folder / "image.tflite", shape=image),
            "tflite",
            image,
        ),
        (
            "litert 3x3 convolution, 64 channels",
            write_tflite(folder / "heavy.tflite", shape=heavy, operator="CONV_2D"),
            "tflite",
            heavy,
        ),
        (
            "onnxruntime tiny convolution",
            write_onnx(folder / "tiny.onnx", size_px=4),
            "onnx",
            (1, 3, 4, 4),
        ),
        (
            "onnxruntime 512x512 (copy-bound)",
            write_onnx(folder / "image.onnx", size_px=512),
            "onnx",
            (1, 3, 512, 512),
        ),
        (
            "onnxruntime 30 layers at 192",
            write_onnx(folder / "heavy.onnx", size_px=192, layers=30),
            "onnx",
            (1, 3, 192, 192),
        ),
    ]


def measure(
    name: str, path: Path, format: str, shape: tuple[int, ...], rounds: int
) -> dict[str, Any]:
    """Medians of both ways in short rounds side by side, so that a busy machine hits both."""
    frame = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    raw = raw_litert(path) if format == "tflite" else raw_onnxruntime(path)
    engine = open_engine(path, format="tflite" if format == "tflite" else "onnx")

    def through_engine(x: np.ndarray) -> np.ndarray:
        return engine.run([x])[0]

    np.testing.assert_array_equal(through_engine(frame), raw(frame))
    calls = calls_per_round(raw, frame)
    raw_s, engine_s = [], []
    for turn in range(rounds):
        order = [(raw, raw_s), (through_engine, engine_s)]
        for run, times in order if turn % 2 else reversed(order):
            times.append(timed(run, frame, calls))
    return {
        "model": name,
        "raw_ms": 1e3 * statistics.median(raw_s),
        "engine_ms": 1e3 * statistics.median(engine_s),
        "ratio": statistics.median(b / a for a, b in zip(raw_s, engine_s, strict=True)),
        "rounds": rounds,
        "calls_per_round": calls,
    }


def raw_litert(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """LiteRT as its manual uses it."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    index = interpreter.get_input_details()[0]["index"]
    output = interpreter.get_output_details()[0]["index"]

    def run(x: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(index, x)
        interpreter.invoke()
        return interpreter.get_tensor(output)

    return run


def raw_onnxruntime(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """ONNX Runtime as its manual uses it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})[0]


def calls_per_round(run: Callable[[np.ndarray], np.ndarray], frame: np.ndarray) -> int:
    """About 4 ms of calls, after warming up."""
    timed(run, frame, 5)
    return max(1, min(1000, int(0.004 / max(timed(run, frame, 5), 1e-6))))


def timed(run: Callable[[np.ndarray], np.ndarray], frame: np.ndarray, calls: int) -> float:
    """Seconds per call."""
    begin = time.perf_counter()
    for _ in range(calls):
        run(frame)
    return (time.perf_counter() - begin) / calls


def judge(row: dict[str, Any]) -> str | None:
    """What is wrong with a row, if anything."""
    bar = MAX_RATIO_HEAVY if row["raw_ms"] >= HEAVY_MS else MAX_RATIO_TINY
    if row["ratio"] <= bar:
        return None
    return f"{row['model']}: engine/raw is {row['ratio']:.3f}, the bar is {bar}"


if __name__ == "__main__":
    main()

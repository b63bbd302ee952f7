"""Bar: ``edge model fit`` for eight profiles of one model takes at most twice the time of one.

Both start with an empty cache and everything that is searched in common; what differs is the
profiles alone. Rounds alternate one and eight, the order turning from round to round, and the
figure is the median of the rounds' ratios. No accuracy is asked for: the bar is about work.

    python benchmarks/fit.py [--quick] [--json] [--check]

About four minutes on two quiet cores; ``--quick`` takes one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MAX_RATIO = 2.0
PROFILES = (
    "rpi4",
    "rpi5",
    "rpi3b-plus",
    "rpi-zero-2w",
    "jetson-orin-nano",
    "jetson-agx-orin",
    "snapdragon-8-gen3",
    "x86-generic",
)

TASK = """
import numpy as np
import torch
from torch import nn

from converters.task import Preprocess

SIDES = {sides}
STAGES = {stages}


def images(count, height, width, seed):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    found = random.normal(0, 0.3, (count, 3, height, width)).astype(np.float32)
    for image, label in zip(found, labels, strict=True):
        image[label] += 1.0
    return torch.from_numpy(found), torch.from_numpy(labels)


class Block(nn.Module):
    def __init__(self, inner, outer, stride):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner), nn.ReLU(),
            nn.Conv2d(inner, outer, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU(),
        )

    def forward(self, x):
        return self.conv(x)


class Sized:
    name = "sized"
    labels = ("red", "green", "blue")
    resolutions = SIDES
    preprocess = Preprocess(color="rgb", mean=(0.0,) * 3, std=(255.0,) * 3)

    def build(self):
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU()]
        for index in range(STAGES):
            layers.append(Block(16 << index, 32 << index, 2))
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16 << STAGES, 3)]
        return nn.Sequential(*layers)

    def example_input(self, height, width):
        return torch.zeros(1, 3, height, width)

    def calibration(self, height, width):
        yield images(32, height, width, 1)[0]

    def evaluation(self, height, width):
        yield images(64, height, width, 2)
"""


def main() -> None:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smaller network, one round")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit 1 when the bar is missed")
    arguments = parser.parse_args()
    # The script's own folder is first on the path, and its converters.py hides the package.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    sides, stages = (((32, 32),), 2) if arguments.quick else (((96, 96), (64, 64)), 4)
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        task = Path(folder) / "sized.py"
        task.write_text(TASK.format(sides=sides, stages=stages))
        if not arguments.json:
            print("One search unmeasured first, then rounds from an empty cache:", flush=True)
        search(task, PROFILES[:1], "warm-up")  # imports, page cache, compiled bytecode
        for number in range(1 if arguments.quick else 3):
            rounds.append(measure(task, number))
            if not arguments.json:
                print(f"round {number + 1}: {described(rounds[-1])}", flush=True)
    ratio = statistics.median(row["ratio"] for row in rounds)
    report = {"rounds": rounds, "ratio": ratio, "bar": MAX_RATIO, "profiles": len(PROFILES)}
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        verdict = "held" if ratio <= MAX_RATIO else "missed"
        print(
            f"fit for eight profiles takes {ratio:.2f}x the time of one, the median of "
            f"{len(rounds)} round{'s' if len(rounds) > 1 else ''} (bar: at most {MAX_RATIO:g}x, "
            f"{verdict})"
        )
    if arguments.check and ratio > MAX_RATIO:
        raise SystemExit(1)


def measure(task: Path, number: int) -> dict[str, Any]:
    """One and eight profiles, each with an empty cache."""
    kinds = [("one", PROFILES[:1]), ("eight", PROFILES)]
    row: dict[str, Any] = {}
    for name, profiles in kinds if number % 2 == 0 else reversed(kinds):
        row |= {f"{name}_{key}": value for key, value in search(task, profiles, name).items()}
    row["ratio"] = row["eight_s"] / row["one_s"]
    return row


def search(task: Path, profiles: tuple[str, ...], name: str) -> dict[str, Any]:
    """Seconds of a search, and how much it did."""
    from converters.cache import Cache
    from converters.fit.run import FitOptions, fit

    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(Path(folder) / "cache")
        begin = time.perf_counter()
        found = fit(
            f"{task}:Sized", profiles, Path(folder) / name, options=FitOptions(), cache=cache
        )
        seconds = time.perf_counter() - begin
    return {"s": seconds, "artifacts": found.built, "candidates": sum(found.considered.values())}


def described(row: dict[str, Any]) -> str:
    """A round as a line."""
    parts = [
        f"{label} {row[f'{name}_s']:.1f} s ({row[f'{name}_candidates']} candidates judged, "
        f"{row[f'{name}_artifacts']} files built and measured)"
        for name, label in (("one", f"{PROFILES[0]} alone"), ("eight", "all eight profiles"))
    ]
    return f"{', '.join(parts)}: {row['ratio']:.2f}x"


if __name__ == "__main__":
    main()

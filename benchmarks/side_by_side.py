"""Model files beside each other: seconds in turns, and right answers in pairs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.runtime.engine import Engine
from edge_sdk.runtime.negotiate import open_engine

WARM_UP = 5

Times = dict[str, npt.NDArray[np.float64]]
"""CPU milliseconds of each turn, by file."""


def in_turns(files: Mapping[str, Path], kind: str, rounds: int) -> Times:
    """Rounds in which every file runs once, every other one backwards: noise hits all alike.

    Args:
        files: by name, all of one format.
        kind: ``onnx`` or ``tflite``.
        rounds: that count, after a warm-up.
    """
    engines = {name: open_engine(path, format=kind, threads=1) for name, path in files.items()}
    feeds = {name: [_noise(spec) for spec in engine.inputs] for name, engine in engines.items()}
    times: dict[str, list[float]] = {name: [] for name in files}
    order = list(files)
    for turn in range(rounds + WARM_UP):
        for name in order if turn % 2 else reversed(order):
            took = _timed(engines[name], feeds[name])
            if turn >= WARM_UP:
                times[name].append(took)
    for engine in engines.values():
        engine.close()
    return {name: np.array(values) for name, values in times.items()}


def ratio(times: Times, one: str, other: str) -> float:
    """Median over the turns of one file's time by another's."""
    return float(np.median(times[one] / times[other]))


def _timed(engine: Engine, feed: list[Any]) -> float:
    started = time.process_time()
    engine.run(feed)
    return (time.process_time() - started) * 1e3


def _noise(spec: Any) -> Any:
    random = np.random.default_rng(0)
    if spec.dtype == "float32":
        return random.normal(size=spec.shape).astype(np.float32)
    limits = np.iinfo(spec.dtype)
    return random.integers(limits.min, limits.max, spec.shape).astype(spec.dtype)


@dataclass(frozen=True)
class Pair:
    """Two files on the same images: the plain one and ours."""

    images: int
    plain_only: int
    """Images on which the plain file alone is right."""
    ours_only: int
    plain_agrees: float
    """Share of images on which the file says what the float network says."""
    ours_agree: float

    @property
    def gap_pt(self) -> float:
        """Points by which the plain file is more accurate."""
        return (self.plain_only - self.ours_only) / self.images * 100

    @property
    def chance(self) -> float:
        """Probability of as many images for the plain file, or more, if both were equally good.

        The exact one-sided test of McNemar (Psychometrika, 1947).
        """
        tried = self.plain_only + self.ours_only
        return sum(comb(tried, wins) for wins in range(self.plain_only, tried + 1)) / 2**tried

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self) | {"gap_pt": self.gap_pt, "chance": self.chance}


def paired(
    plain: npt.NDArray[Any], ours: npt.NDArray[Any], truth: npt.NDArray[Any], net: npt.NDArray[Any]
) -> Pair:
    """Compare the classes two files name, all (N,), with the labels and the float network's."""
    plain_right, ours_right = plain == truth, ours == truth
    return Pair(
        images=len(truth),
        plain_only=int(np.sum(plain_right & ~ours_right)),
        ours_only=int(np.sum(ours_right & ~plain_right)),
        plain_agrees=float(np.mean(plain == net)),
        ours_agree=float(np.mean(ours == net)),
    )

"""Max pooling that pads with minus infinity, in TFLite files.

Where PyTorch's padding is not TFLite's SAME, the exporter pads by PADV2 with minus infinity. No
integer type holds that, and its range would leave everything else one step. It needs neither: the
lowest step of what is padded stands for "never the largest" just as well, and exactly. So the
padded tensor has the range of what is padded, and the constant becomes a finite one, far below
every activation, which the quantizer clips to that lowest step.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from converters.calibrate.observe import ENDLESS, Ranges
from converters.tflite_tidy import TfliteGraph


def padded_tensors(path: Path) -> dict[str, str]:
    """What comes out of an endless padding, by name, and what goes into it."""
    graph = TfliteGraph.of(path)
    return {
        graph.name(int(pad.Outputs(0))): graph.name(int(pad.Inputs(0)))
        for pad in graph.named("PADV2")
        if _is_endless(graph, int(pad.Inputs(2)))
    }


def with_padding(ranges: Ranges, padded: dict[str, str]) -> Ranges:
    """Every padded tensor with the range of what is padded."""
    return ranges | {after: ranges[before] for after, before in padded.items() if before in ranges}


@contextlib.contextmanager
def finite_pads(path: Path) -> Iterator[Path]:
    """The file, or a copy whose endless pads are finite for as long as the block lasts."""
    data = bytearray(path.read_bytes())
    graph = TfliteGraph.over(data)
    changed = [
        index
        for index in {int(pad.Inputs(2)) for pad in graph.named("PADV2")}
        if _is_endless(graph, index)
    ]
    for index in changed:
        graph.values(index)[:] = ENDLESS
    if not changed:
        yield path
        return
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / path.name
        copy.write_bytes(bytes(data))
        yield copy


def _is_endless(graph: TfliteGraph, index: int) -> bool:
    values = graph.values(index) if graph.is_float(index) else np.zeros(0, np.float32)
    return bool(values.size) and bool((values <= ENDLESS).all())

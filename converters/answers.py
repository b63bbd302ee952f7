"""What a model file of ours answers, in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from converters.inspect.model import format_of
from converters.packing import widths_of
from converters.task import Floats
from converters.wiring import answer, as_exported, feeds, module_shapes
from edge_sdk.runtime.negotiate import open_engine


def answers_of(path: Path, samples: Floats) -> tuple[Floats, tuple[int, ...]]:
    """Run packed samples one by one.

    Args:
        path: an artifact by our exporters and quantizers.
        samples: packed, (N, ...).

    Returns:
        Packed answers (N, ...), and the elements per sample of each output.

    Raises:
        RuntimeUnavailableError: no runtime takes the file.
    """
    kind = format_of(path)
    engine = open_engine(path, format=kind, threads=1)
    try:
        inputs = [as_exported(spec, kind) for spec in engine.inputs]
        outputs = [as_exported(spec, kind) for spec in engine.outputs]
        found = [answer(engine.run(arrays), outputs) for arrays in feeds(samples, inputs)]
    finally:
        engine.close()
    return np.concatenate(found), widths_of(module_shapes(outputs))

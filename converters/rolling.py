"""Samples of a streaming task with the states that really come before them.

What a state holds in the middle of a stream depends on the weights, which a task does not see. So a
task may give consecutive steps, and PyTorch fills the states in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.packing import pack, unpack
from converters.stream import Pairs
from converters.task import Floats

if TYPE_CHECKING:
    from torch import nn


def rolled(
    module: nn.Module, packed: Floats, examples: Sequence[Any], pairs: Pairs, steps: int
) -> Floats:
    """The same samples, each with the states that the sample before it has left.

    Args:
        module: in evaluation mode.
        packed: N samples, see :mod:`converters.packing`; every ``steps`` of them begin a stream
            anew, with states of zero. What they hold as states is not used.
        examples: one tensor per input, for shapes and types.
        pairs: which output becomes which input.
        steps: length of a stream.
    """
    import torch

    arrays = unpack(packed, [tuple(example.shape) for example in examples])
    for before, _ in pairs:
        arrays[before][:] = 0
    with torch.inference_mode():
        for step in range(steps):
            # All streams take this step together; the last may have ended already.
            rows = np.arange(step, len(packed), steps)
            if not len(rows):
                break
            inputs = [
                torch.from_numpy(array[rows]).to(example.dtype)
                for array, example in zip(arrays, examples, strict=True)
            ]
            outputs = module(*inputs)
            follow = rows + 1
            goes_on = (follow < len(packed)) & (follow % steps != 0)
            for before, after in pairs:
                arrays[before][follow[goes_on]] = outputs[after].numpy()[goes_on]
    return pack(arrays)

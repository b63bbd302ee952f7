"""From a module's inputs and outputs to a file's, and back.

A file may list its inputs and outputs in another order than the module, in another layout
(channels last) and with other types. Exporters here number the names (``input_1``,
``serving_default_args_1``), which tells the order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from msgspec import structs

from converters.packing import Array, Shape, pack, to_channels_first, unpack
from converters.task import Floats
from edge_sdk.contracts.operating_point import TensorSpec
from edge_sdk.runtime.engine import dequantize, quantize, to_layout

_NUMBER = re.compile(r"(?:args|input|output)_(\d+)")


def as_exported(spec: TensorSpec, kind: str) -> TensorSpec:
    """A tensor of a file exported here with its true layout, which readers can only guess.

    Args:
        spec: as a reader or a runtime reports it.
        kind: ``tflite`` (images channels last) or ``onnx`` (as in the module).
    """
    if len(spec.shape) != 4:
        return spec
    image = kind == "tflite" and spec.dtype not in ("int32", "int64", "bool")
    return structs.replace(spec, layout="NHWC" if image else "NCHW")


def module_order(specs: Sequence[TensorSpec]) -> list[int]:
    """For each input (or output) of the module in order, its position in the file."""
    numbers = [_NUMBER.search(spec.name) for spec in specs]
    if len(specs) == 1 or not all(numbers):
        return list(range(len(specs)))
    found = [int(number[1]) for number in numbers if number]
    return sorted(range(len(specs)), key=found.__getitem__)


def module_shapes(specs: Sequence[TensorSpec]) -> list[Shape]:
    """Shapes of one sample in the module's order and layout."""
    return [user_shape(specs[position]) for position in module_order(specs)]


def user_shape(spec: TensorSpec) -> Shape:
    """The shape the module gives this tensor."""
    images = spec.layout == "NHWC" and len(spec.shape) == 4
    return to_channels_first(spec.shape) if images else spec.shape


def in_file_order(packed: Floats, specs: Sequence[TensorSpec]) -> list[Floats]:
    """Packed samples (module's order) as one array (N, ...) per tensor of the file, user layout."""
    arrays = unpack(packed, module_shapes(specs))
    placed = dict(zip(module_order(specs), arrays, strict=True))
    return [placed[position] for position in range(len(specs))]


def feeds(packed: Floats, specs: Sequence[TensorSpec]) -> list[list[Array]]:
    """For each sample what the engine wants: one stored array per input, in the file's order."""
    arrays = in_file_order(packed, specs)
    return [
        [
            quantize(to_layout(array[row : row + 1], spec), spec)
            for array, spec in zip(arrays, specs, strict=True)
        ]
        for row in range(len(packed))
    ]


def named_feeds(packed: Floats, specs: Sequence[TensorSpec], kind: str) -> list[dict[str, Array]]:
    """For each sample the stored arrays by name, as the quantizers' calibration takes them.

    The names are those of the graph's inputs in ONNX, of the signature's (``args_0``, ``args_1``)
    in TFLite.
    """
    true = [as_exported(spec, kind) for spec in specs]
    names = {position: f"args_{index}" for index, position in enumerate(module_order(true))}
    if kind == "onnx":
        names = {position: spec.name for position, spec in enumerate(true)}
    return [
        {names[position]: array for position, array in enumerate(arrays)}
        for arrays in feeds(packed, true)
    ]


def answer(outputs: Sequence[Array], specs: Sequence[TensorSpec]) -> Floats:
    """One inference's outputs, dequantized and packed in the module's order, (1, ...)."""
    real = []
    for position in module_order(specs):
        array = np.array(dequantize(outputs[position], specs[position]))
        if specs[position].layout == "NHWC" and array.ndim == 4:
            array = np.ascontiguousarray(array.transpose(0, 3, 1, 2))
        real.append(array)
    return pack(real)


def file_outputs(packed: Floats, specs: Sequence[TensorSpec]) -> list[Floats]:
    """Packed answers as one array per output of the file, in its order *and* layout."""
    arrays = in_file_order(packed, specs)
    return [to_layout(array, spec) for array, spec in zip(arrays, specs, strict=True)]

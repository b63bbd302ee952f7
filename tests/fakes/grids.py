"""What a module trained on the int8 grid and a file say about their integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from torch import fx

from converters.qat.parity import Scales
from converters.qat.prepare import layers_of, ranges_of


def trained_scales(graph: fx.GraphModule) -> Scales:
    """Every activation's (scale, zero point) and every weight's scales of a frozen module."""
    found: Scales = {(float(part.scale), float(part.zero_point)) for _, part in ranges_of(graph)}
    for _, layer in layers_of(graph):
        found.add(tuple(layer.scales.tolist()))
    return found


def trained_integers(source: fx.GraphModule | Path) -> list[bytes]:
    """The int8 weights of each layer, in an order that no layout changes."""
    if isinstance(source, fx.GraphModule):
        arrays = [layer.stored.numpy() for _, layer in layers_of(source)]
    elif source.suffix == ".onnx":
        tensors = onnx.load(str(source)).graph.initializer
        arrays = [numpy_helper.to_array(t) for t in tensors if len(t.dims) > 1]
        arrays = [array for array in arrays if array.dtype == np.int8]
    else:
        arrays = _tflite_weights(source)
    return sorted(np.sort(array.reshape(-1)).tobytes() for array in arrays)


def _tflite_weights(path: Path) -> list[np.ndarray]:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    found = []
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if tensor.type == schema.TensorType.INT8 and data is not None and len(tensor.shape) > 1:
            found.append(np.asarray(data, np.uint8).view(np.int8))
    return found

"""Running a float ONNX file with every activation visible."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

from converters.calibrate.observe import Array, Feed, Run

_FATAL_ONLY = 4


def onnx_run(source: Path) -> Run:
    """A function that answers all activations of ``source``, inputs included.

    The session runs unoptimised: a fused operator would hide what it fused.
    """
    import onnxruntime as ort

    model = onnx.load(str(source))
    constants = {tensor.name for tensor in model.graph.initializer}
    outputs = {value.name for value in model.graph.output}
    for node in model.graph.node:
        for name in node.output:
            if name and name not in outputs and name not in constants:
                model.graph.output.append(onnx.ValueInfoProto(name=name))
                outputs.add(name)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_outputs()]

    def run(feed: Feed) -> Mapping[str, Array]:
        return dict(feed) | dict(zip(names, session.run(names, dict(feed)), strict=True))

    return run

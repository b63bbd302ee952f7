"""Running a float TFLite file with every activation visible."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from converters.calibrate.observe import Array, Feed, Run


def tflite_run(source: Path, signature: str) -> Run:
    """A function that answers all tensors of ``source``'s main graph, by name.

    Args:
        source: float32 file.
        signature: the one to call; feeds name its inputs.
    """
    from ai_edge_quantizer.utils import tfl_interpreter_utils as interpreters

    interpreter = interpreters.create_tfl_interpreter(
        str(source), use_xnnpack=True, num_threads=1, preserve_all_tensors=True
    )
    graph = interpreters.get_signature_main_subgraph_index(interpreter, signature)

    def run(feed: Feed) -> Mapping[str, Array]:
        interpreters.invoke_interpreter_signature(interpreter, dict(feed), signature)
        found: Mapping[str, Array] = interpreters.get_tensor_name_to_content_map(interpreter, graph)
        return found

    return run

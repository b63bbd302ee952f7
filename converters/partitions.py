"""Into how many pieces LiteRT's XNNPACK delegate cuts a file.

One piece is what one hopes for. Operators without a kernel there split the graph, and every border
costs a hand-over: int8 HARD_SWISH cuts a MobileNetV3 into many and makes it slower than fp32.
Keeping such operators in float (:attr:`converters.settings.Settings.keep`) can be the faster file.
"""

from __future__ import annotations

from pathlib import Path

MANY = 4
"""More than this is worth a warning."""


def delegate_partitions(path: Path) -> int:
    """Pieces that the delegate runs; 0 when it runs nothing.

    Loads the file in this process: call it where a crash may happen (a child).
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    operators = interpreter._get_ops_details()
    return sum(operator["op_name"] == "DELEGATE" for operator in operators)

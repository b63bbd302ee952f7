"""The golden test of a streaming model: a hundred steps in a row on this device.

The golden vectors hold every single step to the host, states included. What they cannot show is
that states come back: a runtime that overwrites its answer while it still reads it, or that hands
out memory it uses again, gives right steps and a wrong stream. So the steps run in a row twice,
states fed back as they lie and as copies, and must agree to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_sdk.contracts.manifest import Artifact
from edge_sdk.runtime.engine import Array, Engine
from edge_sdk.runtime.stream import StreamSession

STEPS = 100


def stream_problem(engine: Engine, artifact: Artifact, inputs: Sequence[Array]) -> str:
    """What is wrong with a hundred steps in a row, as a clause; empty when nothing is.

    Args:
        engine: the loaded artifact; stays open.
        artifact: whose states are fed back; one without states has no stream.
        inputs: golden inputs (N, ...), real values in the user's layout, one array per input.

    Raises:
        ContractError: ``contract.bad-states``.
        RuntimeUnavailableError: an inference failed.
    """
    if not artifact.states:
        return ""
    before = {index for index, _ in artifact.states}
    fed = [array for index, array in enumerate(inputs) if index not in before]
    runs = [
        StreamSession(one, artifact.inputs, artifact.outputs, artifact.states)
        for one in (engine, _Copying(engine))
    ]
    as_they_lie, copied = (_answers(run, fed) for run in runs)
    for step, (one, other) in enumerate(zip(as_they_lie, copied, strict=True)):
        if not all(np.isfinite(answer).all() for answer in one):
            return f"step {step} of a stream gives numbers that are not finite"
        if any(a.tobytes() != b.tobytes() for a, b in zip(one, other, strict=True)):
            return f"from step {step} of a stream on its states do not come back as they left"
    return ""


def _answers(session: StreamSession, fed: Sequence[Array]) -> list[list[Array]]:
    """Each step's answers; the golden rows in turn."""
    rows = [step % len(fed[0]) if fed else 0 for step in range(STEPS)]
    return [session.step([array[row : row + 1] for array in fed]) for row in rows]


class _Copying:
    """An engine whose answers are copies, so that nothing it does later can change them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.runtime, self.unit = engine.runtime, engine.unit
        self.inputs, self.outputs = engine.inputs, engine.outputs

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        return [np.array(answer) for answer in self._engine.run([np.array(one) for one in inputs])]

    def input_buffer(self, index: int) -> Array:
        return self._engine.input_buffer(index)

    def close(self) -> None:
        self._engine.close()

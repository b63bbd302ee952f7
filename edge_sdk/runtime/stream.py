"""A streaming model: states go in and come out, and are carried from step to step as they lie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_sdk.contracts.operating_point import TensorSpec
from edge_sdk.errors import ContractError
from edge_sdk.runtime.engine import Array, Engine, dequantize, quantize, to_layout

Pairs = Sequence[tuple[int, int]]
"""(input, output) positions in the file's order."""


class StreamSession:
    """An engine with a memory; not safe for concurrent use.

    States are fed back in their own type, without a detour by way of floats: an int8 state has the
    same scale on both sides, or the model is refused.

    Args:
        engine: the loaded model; the session closes it.
        inputs: what the release says of them.
        outputs: likewise.
        states: which output becomes which input; empty for a model without memory.

    Raises:
        ContractError: ``contract.bad-states``.
    """

    def __init__(
        self,
        engine: Engine,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        states: Pairs,
    ) -> None:
        _check(inputs, outputs, states)
        self.engine = engine
        self._states = tuple(states)
        before, after = {i for i, _ in states}, {o for _, o in states}
        self._fed = [i for i in range(len(inputs)) if i not in before]
        self._heard = [o for o in range(len(outputs)) if o not in after]
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)
        self.inputs = [inputs[i] for i in self._fed]
        """Those that :meth:`step` takes."""
        self.outputs = [outputs[o] for o in self._heard]
        """Those that :meth:`step` gives."""
        self._arrays: list[Array] = [np.zeros(0)] * len(inputs)
        self.reset()

    def reset(self) -> None:
        """Forget the stream: every state is zero."""
        for index, _ in self._states:
            spec = self._inputs[index]
            self._arrays[index] = np.full(spec.shape, spec.zero_point or 0, spec.dtype)

    def step(self, inputs: Sequence[Array]) -> list[Array]:
        """One step.

        Args:
            inputs: real values (float32) for each of :attr:`inputs`, images as (N, C, H, W).

        Returns:
            Real values for each of :attr:`outputs`, as the file lays them out; copies.

        Raises:
            RuntimeUnavailableError: the inference failed.
        """
        for index, real in zip(self._fed, inputs, strict=True):
            spec = self._inputs[index]
            self._arrays[index] = to_layout(quantize(real, spec), spec)
        found = self.engine.run(self._arrays)
        for index, output in self._states:
            # Views of the runtime's memory may go straight back in, see Engine.run.
            self._arrays[index] = found[output]
        return [np.array(dequantize(found[o], self._outputs[o])) for o in self._heard]

    def close(self) -> None:
        """Free the model."""
        self.engine.close()


def _check(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], states: Pairs) -> None:
    for before, after in states:
        if not (0 <= before < len(inputs) and 0 <= after < len(outputs)):
            raise _bad(
                f"the state ({before}, {after}) does not exist among {len(inputs)} inputs and "
                f"{len(outputs)} outputs"
            )
        taken, left = inputs[before], outputs[after]
        if _form(taken) != _form(left):
            raise _bad(f"a state leaves as {_form(left)} and is taken as {_form(taken)}")
    if len({before for before, _ in states}) < len(states):
        raise _bad("two states go into the same input")


def _form(spec: TensorSpec) -> tuple[str, tuple[int, ...], float | None, int | None]:
    # To seven digits: files keep scales as float32.
    scale = None if spec.scale is None else float(f"{spec.scale:.6e}")
    return spec.dtype, spec.shape, scale, spec.zero_point


def _bad(what: str) -> ContractError:
    return ContractError(
        "bad-states",
        f"The model's streaming states do not fit together: {what}.",
        "Convert the model and create the release again.",
    )

"""States are carried as they lie, in both runtimes' manner, and must fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from edge_sdk.contracts.operating_point import TensorSpec
from edge_sdk.errors import ContractError
from edge_sdk.runtime.engine import Array
from edge_sdk.runtime.stream import StreamSession


def spec(
    name: str, shape: tuple[int, ...], scale: float | None = None, zero: int = 0
) -> TensorSpec:
    return TensorSpec(
        name=name,
        dtype="float32" if scale is None else "int8",
        shape=shape,
        layout="NC",
        scale=scale,
        zero_point=None if scale is None else zero,
    )


class Adder:
    """An engine of our own interface: the state is the sum of all inputs.

    As LiteRT does, it gives views of memory that the next run overwrites.
    """

    runtime, unit = "fake", "cpu"

    def __init__(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        self.inputs, self.outputs = inputs, outputs
        self._memory = [np.zeros(s.shape, s.dtype) for s in outputs]
        self.closed = False

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        for array, wanted in zip(inputs, self.inputs, strict=True):
            assert (array.shape, array.dtype.name) == (wanted.shape, wanted.dtype)
        total = inputs[0].copy() + inputs[1]
        self._memory[0][...] = total
        self._memory[1][...] = total * 2 if self.outputs[1].scale is None else total
        return self._memory

    def input_buffer(self, index: int) -> Array:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


def test_a_float_state_is_carried_and_reset() -> None:
    engine = Adder([spec("s", (1, 2)), spec("x", (1, 2))], [spec("t", (1, 2)), spec("y", (1, 2))])
    session = StreamSession(engine, engine.inputs, engine.outputs, [(0, 0)])
    found = [session.step([np.full((1, 2), i, np.float32)]) for i in (1, 2, 3)]
    assert [len(outputs) for outputs in found] == [1, 1, 1]
    assert [outputs[0][0, 0] for outputs in found] == [2, 6, 12]
    session.reset()
    assert session.step([np.ones((1, 2), np.float32)])[0].tolist() == [[2, 2]]
    assert [s.name for s in session.inputs] == ["x"]
    assert [s.name for s in session.outputs] == ["y"]
    session.close()
    assert engine.closed


def test_an_integer_state_stays_an_integer_and_starts_at_real_zero() -> None:
    specs = [spec("s", (1, 2), 0.5, -10), spec("x", (1, 2), 0.5, 0)]
    engine = Adder(specs, [spec("t", (1, 2), 0.5, -10), spec("y", (1, 2), 0.5, -10)])
    session = StreamSession(engine, engine.inputs, engine.outputs, [(0, 0)])
    found = [session.step([np.full((1, 2), 1.5, np.float32)])[0][0, 0] for _ in range(3)]
    assert found == [1.5, 3.0, 4.5]


def test_a_model_without_states_runs_as_it_is() -> None:
    engine = Adder([spec("a", (1, 2)), spec("b", (1, 2))], [spec("t", (1, 2)), spec("y", (1, 2))])
    session = StreamSession(engine, engine.inputs, engine.outputs, [])
    one = np.ones((1, 2), np.float32)
    assert [output.tolist() for output in session.step([one, one])] == [[[2, 2]], [[4, 4]]]


@pytest.mark.parametrize(
    ("output", "states", "what"),
    [
        (spec("t", (1, 3)), [(0, 0)], "(1, 3)"),
        (spec("t", (1, 2), 0.5), [(0, 0)], "int8"),
        (spec("t", (1, 2)), [(0, 5)], "does not exist"),
        (spec("t", (1, 2)), [(0, 0), (0, 1)], "same input"),
    ],
)
def test_states_that_do_not_fit_are_refused(
    output: TensorSpec, states: list[tuple[int, int]], what: str
) -> None:
    inputs, outputs = [spec("s", (1, 2)), spec("x", (1, 2))], [output, spec("y", (1, 2))]
    with pytest.raises(ContractError) as caught:
        StreamSession(Adder(inputs, outputs), inputs, outputs, states)
    assert caught.value.code == "contract.bad-states"
    assert what in caught.value.cause


def test_int8_states_of_another_scale_are_refused() -> None:
    inputs = [spec("s", (1, 2), 0.5), spec("x", (1, 2))]
    outputs = [spec("t", (1, 2), 0.51), spec("y", (1, 2))]
    with pytest.raises(ContractError) as caught:
        StreamSession(Adder(inputs, outputs), inputs, outputs, [(0, 0)])
    assert caught.value.code == "contract.bad-states"

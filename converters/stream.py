"""Streaming models over many steps: does the state come back, move, and stay near PyTorch's?

One inference tells nothing about a state. A converted model whose state output is constant, or
whose answers are zeros, passes every single-step comparison that starts from a zero state.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.children import Job, child_main, run_jobs
from converters.layer_noise import sqnr_of
from converters.packing import Shape, pack, unpack
from converters.results import RUNTIME_OF, Measured
from converters.schemes import parse_scheme
from converters.task import Floats
from converters.wiring import answer, as_exported, feeds, module_order
from edge_sdk.errors import ConversionError
from edge_sdk.runtime.negotiate import open_engine

if TYPE_CHECKING:
    from torch import nn

    from converters.loading import LoadedTask
    from converters.verify import Reference

STEPS = 100
Pairs = Sequence[tuple[int, int]]
"""(input, output) positions in the module's order."""

_LEAST_DB = {"float": 30.0, "integer": 10.0}
"""Signal to noise over all steps below which a stream has come apart. Aligned int8 states keep 35
to 41 dB, clipped ones 16 to 19; below 10 the noise is a third of the signal."""
_STILL = 1e-7


def stream_inputs(packed: Floats, shapes: Sequence[Shape], pairs: Pairs) -> Floats:
    """Inputs of :data:`STEPS` steps: held-out samples in turn, every state zero.

    Args:
        packed: held-out samples, see :mod:`converters.packing`.
        shapes: of one sample of each input, in the module's order.
        pairs: which inputs are states.
    """
    arrays = unpack(packed, shapes)
    states = {before for before, _ in pairs}
    rows = np.arange(STEPS) % len(packed)
    return pack(
        [
            np.zeros((STEPS, *array.shape[1:]), np.float32) if i in states else array[rows]
            for i, array in enumerate(arrays)
        ]
    )


def reference_stream(
    module: nn.Module, packed: Floats, examples: Sequence[Any], pairs: Pairs
) -> Floats:
    """PyTorch's answers to each step, its states fed back; packed, (STEPS, elements).

    Args:
        module: in evaluation mode.
        packed: from :func:`stream_inputs`.
        examples: one tensor per input, for shapes and types.
        pairs: which output becomes which input.

    Raises:
        ConversionError: ``conversion.bad-state``.
    """
    import torch

    arrays = unpack(packed, [tuple(example.shape) for example in examples])
    rows: list[Floats] = []
    state: dict[int, Any] = {}
    with torch.inference_mode():
        for step in range(len(packed)):
            inputs = [
                state.get(i, torch.from_numpy(array[step : step + 1]).to(examples[i].dtype))
                for i, array in enumerate(arrays)
            ]
            found = module(*inputs)
            outputs = list(found) if isinstance(found, tuple | list) else [found]
            if step == 0:
                _check_pairs(pairs, inputs, outputs)
            state = {before: outputs[after] for before, after in pairs}
            rows.append(pack([output.numpy() for output in outputs]))
    return np.concatenate(rows)


def _check_pairs(pairs: Pairs, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Refuse states that the module does not have, or that do not fit where they go back in."""
    for before, after in pairs:
        if before >= len(inputs) or after >= len(outputs):
            found = f"there are {len(inputs)} inputs and {len(outputs)} outputs"
        elif inputs[before].shape != outputs[after].shape:
            found = f"{tuple(outputs[after].shape)} leaves, {tuple(inputs[before].shape)} is taken"
        else:
            continue
        raise ConversionError(
            "bad-state",
            f"The state ({before}, {after}) does not fit the module: {found}.",
            "Give pairs (input, output) of equal shape, counted from 0 in the order of forward.",
        )


def judge(
    name: str,
    scheme: str,
    outputs: Floats,
    reference: Floats,
    shapes: Sequence[Shape],
    pairs: Pairs,
) -> float:
    """Hold a stream to PyTorch's; its signal to noise over all steps in dB, states left out.

    Args:
        name: of the artifact, for messages.
        scheme: of the artifact.
        outputs: packed answers (STEPS, elements), module's order.
        reference: PyTorch's.
        shapes: of one step's outputs, module's order.
        pairs: which outputs are states.

    Raises:
        ConversionError: ``conversion.state-frozen`` or ``conversion.stream-drift``.
    """
    got, wanted = unpack(outputs, shapes), unpack(reference, shapes)
    states = {after for _, after in pairs}
    for index in sorted(states):
        if _moves(wanted[index]) and not _moves(got[index]):
            constant = "zero" if not np.any(got[index]) else "constant"
            raise ConversionError(
                "state-frozen",
                f"{name}: the state output {index} stays {constant} over {len(outputs)} steps; "
                "in PyTorch it changes.",
                "The exporter froze it. Return the new state as a fresh tensor (cat, not slice "
                "assignment), and leave a static scheme out if only that one fails.",
            )
    heard = [i for i in range(len(shapes)) if i not in states] or sorted(states)
    signal = sum(float(np.sum(np.square(wanted[i], dtype=np.float64))) for i in heard)
    noise = sum(float(np.sum(np.square(got[i] - wanted[i], dtype=np.float64))) for i in heard)
    reached = sqnr_of(signal, noise)
    kind = "integer" if parse_scheme(scheme).integer_weights else "float"
    if reached < _LEAST_DB[kind] and math.sqrt(noise / max(1, outputs.size)) > _STILL:
        raise ConversionError(
            "stream-drift",
            f"{name}: over {len(outputs)} steps its answers have {reached:.1f} dB of signal over "
            f"noise against PyTorch; {_LEAST_DB[kind]:.0f} are needed.",
            "Calibrate with states from the middle of a stream, not only zeros, or leave this "
            "scheme out (--schemes).",
        )
    return reached


def run_stream(path: Path, kind: str, packed: Floats, pairs: Pairs) -> Floats:
    """An artifact's answers to each step in a process of its own, states fed back as they lie.

    Raises:
        ConversionError: ``conversion.bad-state`` and those of
            :func:`converters.children.run_jobs`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.save(folder / "steps.npy", packed)
        request = {
            "path": str(path),
            "format": kind,
            "pairs": [list(pair) for pair in pairs],
            "steps": str(folder / "steps.npy"),
            "outputs": str(folder / "outputs.npy"),
        }
        run_jobs([Job(f"stream of {path.name}", __name__, request, folder)], parallel=1)
        found: Floats = np.load(folder / "outputs.npy")
        return found


def work(request: dict[str, Any], step: Callable[[str], None]) -> None:
    """Body of the child process; see :func:`run_stream`."""
    kind = request["format"]
    engine = open_engine(Path(request["path"]), format=kind, runtimes=[RUNTIME_OF[kind]])
    inputs = [as_exported(spec, kind) for spec in engine.inputs]
    outputs = [as_exported(spec, kind) for spec in engine.outputs]
    order = module_order(inputs), module_order(outputs)
    pairs = [(order[0][before], order[1][after]) for before, after in request["pairs"]]
    for before, after in pairs:
        if (inputs[before].shape, inputs[before].dtype) != (
            outputs[after].shape,
            outputs[after].dtype,
        ):
            raise ConversionError(
                "bad-state",
                f"{Path(request['path']).name}: the state leaves as {outputs[after].dtype}"
                f"{list(outputs[after].shape)} and is taken as {inputs[before].dtype}"
                f"{list(inputs[before].shape)}.",
                "Give pairs (input, output) of equal shape, in the order of forward.",
            )
    rows, state = [], dict[int, Any]()
    for arrays in feeds(np.load(request["steps"]), inputs):
        found = [np.array(a) for a in engine.run([state.get(i, a) for i, a in enumerate(arrays)])]
        state = {before: found[after] for before, after in pairs}
        rows.append(answer(found, outputs))
    engine.close()
    np.save(request["outputs"], np.concatenate(rows))


def check_streams(
    module: nn.Module,
    examples: Sequence[Any],
    samples: Floats,
    measured: Sequence[Measured],
    pairs: Pairs,
) -> dict[str, float]:
    """Run every artifact of a streaming task for :data:`STEPS` steps.

    Args:
        module: in evaluation mode.
        examples: one tensor per input at the artifacts' resolution.
        samples: packed held-out samples at that resolution.
        measured: artifacts at that resolution.
        pairs: the task's ``states``; nothing is run when empty.

    Returns:
        Signal to noise in dB by file name.

    Raises:
        ConversionError: ``conversion.state-frozen``, ``conversion.stream-drift``,
            ``conversion.bad-state``.
    """
    if not pairs:
        return {}
    from converters.wiring import module_shapes

    steps = stream_inputs(samples, [tuple(example.shape) for example in examples], pairs)
    wanted = reference_stream(module, steps, examples, pairs)
    return {
        item.path.name: judge(
            item.path.name,
            item.scheme,
            run_stream(item.path, item.format, steps, pairs),
            wanted,
            module_shapes(item.outputs),
            pairs,
        )
        for item in measured
    }


def check_task_streams(
    task: LoadedTask, weights: Path | None, reference: Reference, measured: Sequence[Measured]
) -> dict[str, float]:
    """:func:`check_streams` for a task that declares ``states``, at every resolution.

    Raises:
        ConversionError: as :func:`check_streams`.
    """
    pairs = task.states
    if not pairs:
        return {}
    from converters.module import build_module, check_examples

    module = build_module(task, weights)
    found: dict[str, float] = {}
    for size, samples in reference.samples.items():
        items = [item for item in measured if item.size == size]
        if items:
            examples = check_examples(task, module, *map(int, size.split("x")))
            found |= check_streams(module, examples, samples.inputs, items, pairs)
    return found


def _moves(array: Floats) -> bool:
    """Whether any element changes from one step to another."""
    return bool(np.ptp(array, axis=0).max(initial=0.0) > _STILL)


if __name__ == "__main__":
    child_main(work)

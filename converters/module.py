"""The user's module: built, loaded with weights, checked, made safe to export."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from converters.data import check_inputs
from converters.fold import fold
from converters.generic import example_arrays
from converters.limits import check_size
from converters.loading import LoadedTask
from converters.packing import pack, unpack
from converters.purity import flat_outputs, run_twice
from converters.task import Floats
from converters.usercode import LIMIT_S, first_line, user_code
from edge_sdk.durable import DiskStorage
from edge_sdk.errors import TaskError

_BATCH = 128


def build_module(task: LoadedTask, weights: Path | None, *, seed: int | None = 0) -> nn.Module:
    """The task's module in evaluation mode, ready to export.

    Without weights a module has those it is born with. Several processes build it, and all must
    get the same: hence the seed; with None the generator goes on from where it stands.

    Parameters and buffers are cloned contiguous: the TFLite exporter reads the memory of a
    non-contiguous constant in the wrong order without saying so.

    Raises:
        TaskError: ``task.not-a-module``, ``task.bad-weights``, ``task.batchnorm-training``,
            ``task.user-code-failed``.
        ConversionError: ``conversion.too-large``.
    """
    with (
        user_code(task.path, "build()", limit_s=LIMIT_S),
        torch.random.fork_rng(devices=[], enabled=seed is not None),
    ):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        module = task.task.build() if task.width == 1.0 else task.task.build(width=task.width)
    if not isinstance(module, nn.Module):
        raise TaskError(
            "not-a-module",
            f"{task.path}: build() returned {type(module).__name__}, not a torch.nn.Module.",
            "Return the module itself.",
        )
    check_size(module)
    _refuse_meta(task, module)
    if weights is not None:
        load_weights(module, weights, narrow=task.width != 1.0)
    module.eval()
    _refuse_training_layers(task, module)
    module = contiguous(module.float().cpu())
    if task.folded is None:
        return module
    height, width = task.resolutions[0]
    example = _example(task, height, width)
    inputs = example if isinstance(example, tuple) else (example,)
    return contiguous(fold(module, task.folded, inputs))


def _example(task: LoadedTask, height: int, width: int) -> Any:
    with user_code(task.path, f"example_input({height}, {width})", limit_s=LIMIT_S):
        return task.task.example_input(height, width)


def contiguous(module: nn.Module) -> nn.Module:
    """Clone every parameter, buffer and tensor attribute into contiguous memory, in place."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if not tensor.is_contiguous():
                tensor.set_(tensor.clone(memory_format=torch.contiguous_format))  # type: ignore[call-overload]
            tensor.requires_grad_(False)
        for layer in module.modules():
            for name, value in vars(layer).items():
                if isinstance(value, torch.Tensor) and not value.is_contiguous():
                    setattr(layer, name, value.clone(memory_format=torch.contiguous_format))
    return module


def check_example(task: LoadedTask, module: nn.Module, height: int, width: int) -> torch.Tensor:
    """The task's example input, proven to run through the module.

    Raises:
        TaskError: ``task.bad-batch``, ``task.bad-output``, ``task.user-code-failed``.
    """
    example = _example(task, height, width)
    checked = check_inputs(task, example, height, width, f"example_input({height}, {width})")
    one = torch.from_numpy(checked[:1].copy())
    output = run_twice(task, module, (one,), f"{height}x{width}")
    expected = (1, len(task.labels))
    if not isinstance(output, torch.Tensor) or tuple(output.shape) != expected:
        found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise TaskError(
            "bad-output",
            f"{task.path.name}: the module returns {found} for one {height}x{width} input; "
            f"logits of shape {expected} were expected, one per label.",
            "Return one tensor (N, number of labels) of raw scores.",
        )
    if not torch.isfinite(output).all():
        raise TaskError(
            "bad-output",
            f"{task.path.name}: the module returns NaN or infinity for the example input.",
            "Check the weights: they may be damaged or the training may have diverged.",
        )
    return one


def check_examples(
    task: LoadedTask, module: nn.Module, height: int, width: int
) -> tuple[torch.Tensor, ...]:
    """The example of a task of either kind, one tensor per input, proven to run.

    Raises:
        TaskError: as :func:`check_example`.
    """
    if task.kind == "classification":
        return (check_example(task, module, height, width),)
    arrays = example_arrays(task, height, width)
    inputs = tuple(torch.from_numpy(array.copy()) for array in arrays)
    check_answer(task, run_twice(task, module, inputs, f"{height}x{width}"))
    return inputs


def check_answer(task: LoadedTask, answer: Any) -> list[torch.Tensor]:
    """The outputs of a ``generic`` module for one sample.

    Raises:
        TaskError: ``task.bad-output``.
    """
    outputs = flat_outputs(answer)
    if not outputs:
        raise _bad_output(task, f"{type(answer).__name__}", "a tensor or a tuple of tensors")
    for index, output in enumerate(outputs):
        what = f"output {index}, {output.dtype} {tuple(output.shape)}".replace("torch.", "")
        if output.dtype != torch.float32:
            raise _bad_output(task, what, "float32 (leave argmax and the like to the application)")
        if output.ndim < 2 or len(output) != 1:
            raise _bad_output(task, what, "the sample axis first, (1, ...)")
        if not torch.isfinite(output).all():
            raise _bad_output(task, f"NaN or infinity in {what}", "finite numbers")
    return outputs


def _bad_output(task: LoadedTask, found: str, expected: str) -> TaskError:
    return TaskError(
        "bad-output",
        f"{task.path.name}: the module returns {found} for one sample; expected {expected}.",
        "Return what converters/task.py:GenericTask describes.",
    )


def reference_outputs(
    task: LoadedTask,
    module: nn.Module,
    inputs: Floats,
    example: tuple[torch.Tensor, ...] | None = None,
) -> Floats:
    """What PyTorch answers, float32 (N, classes), in batches.

    Samples and answers of a ``generic`` task are packed (see :mod:`converters.packing`) and run
    one by one, as the device does.

    Raises:
        TaskError: ``task.user-code-failed``.
    """
    if task.kind == "generic" and example is not None:
        return _generic_outputs(task, module, inputs, example)
    parts = []
    with user_code(task.path, "The module's forward"), torch.inference_mode():
        for start in range(0, len(inputs), _BATCH):
            part = module(torch.from_numpy(inputs[start : start + _BATCH]))
            parts.append(part.numpy().astype(np.float32))
    return np.concatenate(parts)


def _generic_outputs(
    task: LoadedTask, module: nn.Module, inputs: Floats, example: tuple[torch.Tensor, ...]
) -> Floats:
    arrays = unpack(inputs, [tuple(part.shape) for part in example])
    parts: list[Floats] = []
    with user_code(task.path, "The module's forward"), torch.inference_mode():
        for row in range(len(inputs)):
            sample = (
                torch.from_numpy(array[row : row + 1]).to(like.dtype)
                for array, like in zip(arrays, example, strict=True)
            )
            answer = module(*sample)
            parts.append(pack([part.numpy() for part in check_answer(task, answer)]))
    return np.concatenate(parts)


def load_weights(module: nn.Module, path: Path, *, narrow: bool = False) -> None:
    """Load a state dict written by :func:`save_weights` (or ``torch.save`` of one).

    Only tensors are unpickled (``weights_only``): a weights file cannot run code.

    Args:
        module: changed in place.
        path: of the file.
        narrow: the module may have fewer channels than the file; it gets the first ones, as
            slimmable networks are trained (Yu et al., "Slimmable Neural Networks", ICLR 2019).

    Raises:
        TaskError: ``task.weights-missing`` or ``task.bad-weights``.
    """
    if not path.is_file():
        raise TaskError(
            "weights-missing",
            f"There is no weights file {path}.",
            "Train one with: edge model train FILE.py:Task -o weights.pt",
        )
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _bad_weights(path, f"is not a PyTorch weights file: {first_line(error)}") from error
    if not isinstance(state, dict):
        raise _bad_weights(path, f"holds {type(state).__name__}, not a state dict.")
    if narrow:
        state = _prefixes(state, module)
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        detail = " ".join(lines[1:3])[:300] or first_line(error)
        raise _bad_weights(path, f"does not fit the module. {detail}") from error
    if any(
        not torch.isfinite(t).all() for t in module.state_dict().values() if t.is_floating_point()
    ):
        raise _bad_weights(path, "holds NaN or infinity.")


def _prefixes(state: dict[str, Any], module: nn.Module) -> dict[str, Any]:
    """Every tensor cut to the module's own shape where it is larger."""
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    return {
        name: value[tuple(slice(0, side) for side in shapes[name])].clone()
        if isinstance(value, torch.Tensor) and name in shapes and value.ndim == len(shapes[name])
        else value
        for name, value in state.items()
    }


def save_weights(module: nn.Module, path: Path) -> int:
    """Write the state dict atomically; returns its size in bytes.

    Raises:
        StorageError: the disk is full or the folder cannot be written; an older file stays.
    """
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    data = buffer.getvalue()
    DiskStorage().write(path, data)
    return len(data)


def _bad_weights(path: Path, what: str) -> TaskError:
    return TaskError(
        "bad-weights",
        f"{path} {what}",
        "Give the file that training this very module wrote.",
    )


def _refuse_meta(task: LoadedTask, module: nn.Module) -> None:
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_meta:
            raise TaskError(
                "bad-weights",
                f"{task.path.name}: {name!r} lies on the meta device and has no values.",
                "Let build() return a module with real weights.",
            )


def _refuse_training_layers(task: LoadedTask, module: nn.Module) -> None:
    """A BatchNorm that would use the statistics of the batch exports as something else."""
    for name, layer in module.named_modules():
        if not isinstance(layer, nn.modules.batchnorm._BatchNorm):
            continue
        if layer.training or layer.running_mean is None:
            why = "stays in training mode after eval()" if layer.training else "keeps no statistics"
            raise TaskError(
                "batchnorm-training",
                f"{task.path.name}: the BatchNorm {name!r} {why}; its answer would depend on the "
                "other samples of the batch.",
                "Let eval() reach it, and build it with track_running_stats=True.",
            )

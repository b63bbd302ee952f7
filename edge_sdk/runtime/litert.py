"""TFLite files on LiteRT, or on tflite-runtime where that is all there is.

Outputs are views of the interpreter's arena, not copies. The interpreter refuses to run while
numpy views made by it are alive, so the views here are made over the tensor's address instead.
That address holds because tensors of static shape are placed once, by ``allocate_tensors``, and
nothing here allocates again; outputs of dynamic shape have no address before the first inference
and are copied.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk.contracts.operating_point import TensorSpec
from edge_sdk.errors import RuntimeUnavailableError
from edge_sdk.runtime.engine import Array
from edge_sdk.runtime.packages import Packages, uninitialized
from edge_sdk.runtime.tensors import (
    Expected,
    closed,
    failed,
    guess_layout,
    probing_input,
    rejected,
)

_IDENTIFIER = b"TFL3"
"""Bytes 4 to 8 of every TFLite flatbuffer."""


class LiteRtEngine:
    """A TFLite model in one interpreter; not safe for concurrent use.

    ``kernels`` is ``xnnpack`` or ``builtin`` (plain kernels, slower, for models on which the
    XNNPACK delegate fails).
    """

    def __init__(self, interpreter: Any, runtime: str, kernels: str) -> None:
        self._interpreter: Any = interpreter
        self.runtime = runtime
        self.unit = "cpu"
        self.kernels = kernels
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        self.inputs: tuple[TensorSpec, ...] = tuple(_spec(detail) for detail in inputs)
        self.outputs: tuple[TensorSpec, ...] = tuple(_spec(detail) for detail in outputs)
        self._expected = Expected(self.inputs)
        self._input_views = [_view(interpreter, detail) for detail in inputs]
        self._output_views = [_static_view(interpreter, detail) for detail in outputs]
        views = [view for view in self._output_views if view is not None]
        self._static = views if len(views) == len(outputs) else []

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """See :meth:`edge_sdk.runtime.engine.Engine.run`."""
        interpreter = self._interpreter
        if interpreter is None:
            raise closed(self.runtime)
        self._expected.check(inputs)
        for array, view in zip(inputs, self._input_views, strict=True):
            if array is not view:
                np.copyto(view, array)
        try:
            interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise failed(self.runtime, error) from error
        if self._static:
            return list(self._static)
        return [
            _dynamic_output(interpreter, position) if view is None else view
            for position, view in enumerate(self._output_views)
        ]

    def input_buffer(self, index: int) -> Array:
        """See :meth:`edge_sdk.runtime.engine.Engine.input_buffer`."""
        if self._interpreter is None:
            raise closed(self.runtime)
        return self._input_views[index]

    def close(self) -> None:
        """Drop the interpreter; its memory lives on while a caller holds an output."""
        self._interpreter = None
        self._input_views = []
        self._output_views = []
        self._static = []


def open_litert(
    path: Path, threads: int, packages: Packages, *, distribution: str, module: str
) -> LiteRtEngine:
    """Load a TFLite file and run it once.

    Args:
        path: the model file; memory-mapped by the runtime.
        threads: CPU threads.
        packages: where the interpreter comes from.
        distribution: name of its package, for messages.
        module: module with ``Interpreter``.

    Raises:
        RuntimeUnavailableError: ``runtime.broken-install`` or ``runtime.model-rejected``.
    """
    try:
        api = interpreter_module(packages, module)
    except (ImportError, AttributeError, RuntimeError) as error:
        raise RuntimeUnavailableError(
            "broken-install",
            f"{distribution} is installed but does not import: {error}.",
            f"Reinstall it: pip install --force-reinstall {distribution}",
        ) from error
    _check_identifier(path)
    try:
        return _probed(api, path, threads, distribution, "xnnpack")
    except RuntimeUnavailableError as first:
        try:
            return _probed(api, path, threads, distribution, "builtin")
        except RuntimeUnavailableError:
            raise first from None


def interpreter_module(packages: Packages, module: str) -> Any:
    """The module with ``Interpreter``, and of its package nothing else.

    ``ai_edge_litert`` begins with a library for another interface than this one's, 1.6 MiB of
    memory.

    Args:
        packages: where it comes from.
        module: its full name.

    Raises:
        ImportError: it is broken or absent.
    """
    try:
        with uninitialized(module.partition(".")[0]):
            return packages.load(module)
    except ImportError:  # a version may need what its package does first
        return packages.load(module)


def _probed(api: Any, path: Path, threads: int, runtime: str, kernels: str) -> LiteRtEngine:
    options: dict[str, Any] = {}
    if kernels == "builtin":
        kind = api.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        options["experimental_op_resolver_type"] = kind
    try:
        interpreter = api.Interpreter(model_path=str(path), num_threads=threads, **options)
        interpreter.allocate_tensors()
        engine = LiteRtEngine(interpreter, _public_name(runtime), kernels)
        engine.run([probing_input(spec) for spec in engine.inputs])
    except RuntimeUnavailableError as error:
        raise rejected(_public_name(runtime), path, error.cause) from error
    except (RuntimeError, ValueError, TypeError) as error:
        raise rejected(_public_name(runtime), path, error) from error
    return engine


def _public_name(distribution: str) -> str:
    return "litert" if distribution == "ai-edge-litert" else distribution


def _check_identifier(path: Path) -> None:
    with path.open("rb") as handle:
        if handle.read(8)[4:] != _IDENTIFIER:
            raise RuntimeUnavailableError(
                "model-rejected",
                f"{path} is not a TFLite file (no TFL3 identifier).",
                "Pass a .tflite file; convert the model again if this should be one.",
            )


def _spec(detail: dict[str, Any]) -> TensorSpec:
    shape = tuple(int(size) for size in detail["shape"])
    scales = detail["quantization_parameters"]["scales"]
    points = detail["quantization_parameters"]["zero_points"]
    quantized = len(scales) == 1
    return TensorSpec(
        name=detail["name"],
        dtype=np.dtype(detail["dtype"]).name,
        shape=shape,
        layout=guess_layout(shape, "NHWC"),
        scale=float(scales[0]) if quantized else None,
        zero_point=int(points[0]) if quantized else None,
    )


def _static_view(interpreter: Any, detail: dict[str, Any]) -> Array | None:
    """A view of an output, or None when its shape is only known after an inference."""
    if any(size < 0 for size in detail.get("shape_signature", ())):
        return None
    try:
        view = _view(interpreter, detail)
    except ValueError:  # no memory yet
        return None
    return view if view.size else None


def _dynamic_output(interpreter: Any, position: int) -> Array:
    """A copy of an output whose shape the last inference decided."""
    detail = interpreter.get_output_details()[position]
    if 0 in detail["shape"]:  # the interpreter refuses to hand out empty tensors
        return np.empty(detail["shape"], detail["dtype"])
    output: Array = interpreter.get_tensor(detail["index"])
    return output


def _view(interpreter: Any, detail: dict[str, Any]) -> Array:
    """A tensor's memory as an array that keeps the interpreter, so the memory, alive."""
    own = interpreter.tensor(detail["index"])()
    address, _ = own.__array_interface__["data"]
    memory: Any = (ctypes.c_byte * own.nbytes).from_address(address)
    memory.owner = interpreter
    view: Array = np.frombuffer(memory, dtype=own.dtype).reshape(own.shape)
    return view

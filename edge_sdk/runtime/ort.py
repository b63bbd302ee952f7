"""ONNX files on ONNX Runtime, on the CPU or on an accelerator that proves itself.

Inputs are bound where they lie and outputs land in buffers of the engine's own, so no tensor is
copied. Two sets of outputs take turns: a caller may feed one call's outputs to the next.

A file may describe its tensors in ``metadata_props``: the key ``edge.tensor.NAME`` holds JSON with
``layout``, ``scale`` and ``zero_point``, which ONNX itself cannot say about a graph's inputs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_sdk.contracts.base import Wire
from edge_sdk.contracts.operating_point import Layout, TensorSpec
from edge_sdk.errors import RuntimeUnavailableError
from edge_sdk.runtime.engine import Array
from edge_sdk.runtime.packages import Packages
from edge_sdk.runtime.tensors import (
    Expected,
    closed,
    failed,
    first_line,
    guess_layout,
    probing_input,
    rejected,
)

METADATA_PREFIX = "edge.tensor."
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""Units this engine knows, and ONNX Runtime's name for each."""

_FATAL_ONLY = 4
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    **{f"tensor({kind}{bits})": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16)},
    **{f"tensor({kind}{bits})": f"{kind}{bits}" for kind in ("int", "uint") for bits in (32, 64)},
}


class TensorNote(Wire, kw_only=True):
    """What ``edge.tensor.NAME`` says."""

    layout: Layout | None = None
    scale: float | None = None
    zero_point: int | None = None


class OrtEngine:
    """An ONNX model in one session; not safe for concurrent use."""

    runtime = "onnxruntime"

    def __init__(self, session: Any, errors: tuple[type[Exception], ...], unit: str) -> None:
        self._session: Any = session
        self._errors = errors
        self.unit = unit
        notes = session.get_modelmeta().custom_metadata_map
        self.inputs: tuple[TensorSpec, ...] = tuple(_spec(n, notes) for n in session.get_inputs())
        self.outputs: tuple[TensorSpec, ...] = tuple(_spec(n, notes) for n in session.get_outputs())
        self._expected = Expected(self.inputs)
        self._names = [spec.name for spec in self.inputs]
        dynamic = any(not isinstance(d, int) for n in session.get_outputs() for d in n.shape)
        self._turns = [] if dynamic else [_Turn(session, self.outputs) for _ in range(2)]
        self._buffers: list[Array | None] = [None] * len(self.inputs)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """See :meth:`edge_sdk.runtime.engine.Engine.run`."""
        session = self._session
        if session is None:
            raise closed(self.runtime)
        self._expected.check(inputs)
        try:
            if not self._turns:
                feed = dict(zip(self._names, inputs, strict=True))
                return list(session.run(None, feed))
            turn = self._turns[0]
            self._turns.reverse()
            turn.bind(self._names, inputs)
            session.run_with_iobinding(turn.binding)
        except self._errors as error:
            raise failed(self.runtime, error) from error
        return list(turn.outputs)

    def input_buffer(self, index: int) -> Array:
        """See :meth:`edge_sdk.runtime.engine.Engine.input_buffer`."""
        if self._session is None:
            raise closed(self.runtime)
        buffer = self._buffers[index]
        if buffer is None:
            buffer = self._buffers[index] = probing_input(self.inputs[index])
        return buffer

    def close(self) -> None:
        """Free the session."""
        self._session = None
        self._turns = []
        self._buffers = [None] * len(self.inputs)


class _Turn:
    """A binding with its own output buffers."""

    def __init__(self, session: Any, specs: Sequence[TensorSpec]) -> None:
        self.binding: Any = session.io_binding()
        self.outputs = [np.zeros(spec.shape, spec.dtype) for spec in specs]
        self._bound: list[Array | None] = [None] * len(session.get_inputs())
        for spec, output in zip(specs, self.outputs, strict=True):
            pointer = output.ctypes.data
            kind = output.dtype.type
            self.binding.bind_output(spec.name, "cpu", 0, kind, output.shape, pointer)

    def bind(self, names: Sequence[str], inputs: Sequence[Array]) -> None:
        """Bind the inputs in place; an array that is bound already costs nothing."""
        for index, (name, array) in enumerate(zip(names, inputs, strict=True)):
            if self._bound[index] is not array:
                self.binding.bind_cpu_input(name, np.ascontiguousarray(array))
                # Only a contiguous array was bound itself; a copy of it must be made anew.
                self._bound[index] = array if array.flags.c_contiguous else None


def open_ort(
    path: Path, threads: int, packages: Packages, units: Sequence[str] = ("cuda", "cpu")
) -> OrtEngine:
    """Load an ONNX file on the first unit that completes an inference there.

    Args:
        path: the model file.
        threads: CPU threads inside an operator.
        packages: where onnxruntime comes from.
        units: keys of :data:`PROVIDERS` in order of preference. TensorRT must be asked for: it
            compiles the model for minutes when it first loads it.

    Raises:
        RuntimeUnavailableError: ``runtime.broken-install``, ``runtime.unknown-unit`` or
            ``runtime.model-rejected`` with the reason per unit.
    """
    api = _import(packages)
    errors = _native_errors(packages)
    caught: tuple[type[Exception], ...] = (_UnitRejectedError, *errors)
    reasons = []
    for unit in units:
        try:
            return _probed(api, errors, path, threads, unit)
        except caught as error:
            reasons.append(f"{unit}: {first_line(error)}")
    if len(reasons) == 1:
        reasons = [reasons[0].partition(": ")[2]]
    raise rejected(OrtEngine.runtime, path, " ".join(reasons))


class _UnitRejectedError(Exception):
    """A unit is absent, or did none of the work."""


def _probed(
    api: Any, errors: tuple[type[Exception], ...], path: Path, threads: int, unit: str
) -> OrtEngine:
    if unit not in PROVIDERS:
        raise RuntimeUnavailableError(
            "unknown-unit",
            f"ONNX Runtime has no unit {unit!r} here.",
            f"Use one of {', '.join(PROVIDERS)}.",
        )
    if unit != "cpu":
        _prove(api, path, unit)
    session = api.InferenceSession(str(path), _options(api, threads), providers=_chain(unit))
    engine = OrtEngine(session, errors, unit)
    try:
        engine.run([probing_input(spec) for spec in engine.inputs])
    except RuntimeUnavailableError as error:
        raise _UnitRejectedError(error.cause) from error
    return engine


def _prove(api: Any, path: Path, unit: str) -> None:
    """Run once with the profiler on and see on which provider the operators really ran."""
    provider = PROVIDERS[unit]
    if provider not in api.get_available_providers():
        raise _UnitRejectedError("this build of ONNX Runtime does not have it")
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        options = _options(api, 1)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "probe")
        session = api.InferenceSession(str(path), options, providers=_chain(unit))
        specs = [_spec(node, {}) for node in session.get_inputs()]
        session.run(None, {spec.name: probing_input(spec) for spec in specs})
        time_us = provider_times(Path(session.end_profiling()).read_bytes())
    if not time_us:
        raise _UnitRejectedError("the probing inference left no trace of where it ran")
    if max(time_us, key=lambda name: time_us[name]) != provider:
        raise _UnitRejectedError(f"most of the probing inference ran on {_busiest(time_us)}")


def provider_times(profile: bytes) -> dict[str, int]:
    """Microseconds of kernel time per execution provider in an ONNX Runtime profile."""
    times: dict[str, int] = {}
    for event in json.loads(profile):
        provider = event.get("args", {}).get("provider")
        if provider and event["name"].endswith("_kernel_time"):
            times[provider] = times.get(provider, 0) + int(event["dur"])
    return times


def _busiest(times: dict[str, int]) -> str:
    return max(times, key=lambda name: times[name])


def _chain(unit: str) -> list[str]:
    return [PROVIDERS[unit]] if unit == "cpu" else [PROVIDERS[unit], PROVIDERS["cpu"]]


def _options(api: Any, threads: int) -> Any:
    options = api.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY  # failures arrive as exceptions
    return options


def _import(packages: Packages) -> Any:
    try:
        return packages.load("onnxruntime")
    except (ImportError, AttributeError, RuntimeError) as error:
        raise RuntimeUnavailableError(
            "broken-install",
            f"onnxruntime is installed but does not import: {error}.",
            "Reinstall it: pip install --force-reinstall onnxruntime",
        ) from error


def _native_errors(packages: Packages) -> tuple[type[Exception], ...]:
    """ONNX Runtime's exceptions, which share no base but Exception."""
    native = vars(packages.load("onnxruntime.capi.onnxruntime_pybind11_state")).values()
    kinds = [kind for kind in native if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*kinds, RuntimeError, ValueError)


def _spec(node: Any, notes: dict[str, str]) -> TensorSpec:
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        raise _UnitRejectedError(f"{node.name!r} has type {node.type}, which is not supported")
    shape = _shape(node)
    note = _note(notes.get(METADATA_PREFIX + node.name))
    return TensorSpec(
        name=node.name,
        dtype=dtype,
        shape=shape,
        layout=note.layout or guess_layout(shape, "NCHW"),
        scale=note.scale,
        zero_point=note.zero_point,
    )


def _shape(node: Any) -> tuple[int, ...]:
    """The declared shape; a free batch axis counts as 1."""
    sizes: list[int] = []
    for axis, size in enumerate(node.shape):
        if isinstance(size, int):
            sizes.append(size)
        elif axis == 0:
            sizes.append(1)
        else:
            raise _UnitRejectedError(
                f"{node.name!r} leaves axis {axis} ({size or 'unnamed'}) open; export it with "
                "static shapes"
            )
    return tuple(sizes)


def _note(text: str | None) -> TensorNote:
    if text is None:
        return TensorNote()
    try:
        return msgspec.json.decode(text, type=TensorNote)
    except msgspec.DecodeError:
        return TensorNote()

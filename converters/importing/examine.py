"""Looking at a stranger's file: is it readable, static, runnable, and what is inside?

Runs in the child process of :mod:`converters.importing.worker`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.inspect import ModelFacts, ModelFormat, inspect_model, problems_with
from converters.inspect.model import MAX_MODEL_BYTES, format_of, unreadable
from converters.schemes import SUPPORTED, parse_scheme
from edge_sdk.errors import ConversionError, RuntimeUnavailableError
from edge_sdk.runtime.negotiate import open_engine
from edge_sdk.runtime.tensors import probing_input

Shapes = dict[str, tuple[int, ...]]
"""Shapes the user asked for, by input name; under ``""`` for the only input."""


@dataclass(frozen=True, slots=True)
class Examined:
    """A file that has been rewritten to static shapes, and has run once."""

    format: ModelFormat
    scheme: str
    facts: ModelFacts
    runtime: str


def examine(source: Path, target: Path, shapes: Shapes) -> Examined:
    """Check a file and write what the rest of the import works on.

    Args:
        source: the user's file.
        target: where the static, self-contained file goes; the caller owns the folder.
        shapes: for inputs whose shape the file leaves open.

    Raises:
        ConversionError: ``conversion.unreadable-model``, ``conversion.too-large``,
            ``conversion.external-data``, ``conversion.unsupported-opset``,
            ``conversion.unsupported-op``, ``conversion.dynamic-shape``,
            ``conversion.bad-input-shape``, ``conversion.not-runnable``,
            ``conversion.unknown-precision``.
    """
    kind = format_of(source)
    if source.stat().st_size > MAX_MODEL_BYTES:
        raise ConversionError(
            "too-large",
            f"{source} is {source.stat().st_size / 1024**3:.1f} GiB; both formats end at 2 GiB.",
            "Give a smaller model; one that fits no file fits no small device either.",
        )
    if kind == "onnx":
        from converters.importing.examine_onnx import normalise_onnx

        normalise_onnx(source, target, shapes)
    else:
        from converters.importing.examine_tflite import normalise_tflite

        normalise_tflite(source, target, shapes)
    facts = inspect_model(target)
    if not facts.inputs or not facts.outputs:
        raise unreadable(source, "its graph has no input or no output")
    runtime = _run_once(source, target, kind)
    return Examined(kind, scheme_of(facts, source), facts, runtime)


def scheme_of(facts: ModelFacts, source: Path) -> str:
    """The scheme a file already follows.

    Raises:
        ConversionError: ``conversion.unknown-precision``.
    """
    for name in SUPPORTED:
        if not name.startswith("mixed") and not problems_with(facts, parse_scheme(name)):
            return name
    floats = all(spec.dtype in ("float32", "int32", "int64", "bool") for spec in facts.inputs)
    weights = {layer.weight_dtype for layer in facts.layers}
    if floats and weights <= {"float32"}:
        return "fp32"  # token ids and flags among the inputs are no quantization
    nearest = "static_wi8_ai8" if weights & {"int8", "uint8"} else "fp32"
    shown = "; ".join(problems_with(facts, parse_scheme(nearest))[:3])
    raise ConversionError(
        "unknown-precision",
        f"{source.name} is quantized in a way that no scheme here names; for {nearest}: {shown}.",
        "Import the float file instead: it is quantized here, to a scheme whose name is true.",
    )


def check_names(shapes: Shapes, names: list[str]) -> None:
    """Refuse shapes for inputs that are not there.

    Raises:
        ConversionError: ``conversion.bad-input-shape``.
    """
    unknown = [name for name in shapes if name and name not in names]
    if unknown or ("" in shapes and len(names) > 1):
        raise ConversionError(
            "bad-input-shape",
            f"--input-shape names {unknown[0] if unknown else 'no input'}; the file has "
            f"{', '.join(names[:10])}.",
            "Write --input-shape NAME=1,3,224,224, once per input.",
        )


def choose_shape(
    name: str, declared: tuple[int | None, ...], shapes: Shapes, *, only: bool
) -> tuple[int, ...]:
    """The static shape of an input.

    Args:
        name: of the input.
        declared: the file's shape, None where it leaves an axis open.
        shapes: what the user asked for.
        only: whether the file has no other input.

    Raises:
        ConversionError: ``conversion.dynamic-shape``, ``conversion.bad-input-shape``.
    """
    wanted = shapes.get(name, shapes.get("") if only else None)
    if wanted is None:
        open_axes = [axis for axis, size in enumerate(declared) if size is None and axis]
        if open_axes:
            text = ", ".join("?" if size is None else str(size) for size in declared)
            raise ConversionError(
                "dynamic-shape",
                f"Input {name!r} has the open shape ({text}); devices run static shapes.",
                f"Say which: --input-shape {name}=1,... (one number per axis).",
            )
        return tuple(1 if size is None else size for size in declared)
    fits = len(wanted) == len(declared) and all(
        size in (None, given) for size, given in zip(declared, wanted, strict=True)
    )
    if not fits or wanted[0] != 1:
        raise ConversionError(
            "bad-input-shape",
            f"--input-shape {wanted} does not fit input {name!r}, which is declared {declared}; "
            "the first axis is always 1, one sample at a time.",
            "Give one number per axis, and only change axes that the file leaves open (None).",
        )
    return wanted


def _run_once(source: Path, target: Path, kind: ModelFormat) -> str:
    """One inference in the runtime a device uses; twice must give the same answer."""
    try:
        engine = open_engine(target, format=kind)
    except RuntimeUnavailableError as error:
        if error.slug == "not-installed":
            raise
        raise ConversionError(
            "not-runnable",
            f"{source.name} does not run: {error.cause}",
            "Check that it runs where it was made; it may need operators, custom kernels or "
            "another file that is not here.",
        ) from error
    feeds = [probing_input(spec) for spec in engine.inputs]
    first = [np.array(array) for array in engine.run(feeds)]
    again = engine.run([probing_input(spec) for spec in engine.inputs])
    same = all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        for a, b in zip(first, again, strict=True)
    )
    runtime = engine.runtime
    engine.close()
    if not same:
        raise ConversionError(
            "hidden-state",
            f"{source.name} answers the same input differently the second time.",
            "It keeps a state inside or draws at random; export it with the state as an input and "
            "an output.",
        )
    return runtime

"""What an imported file is about: its kind, labels and preprocessing, from the file or the user."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.importing.samples import Given
from converters.loading import MAX_LABELS, LoadedTask
from converters.metadata import ModelNotes
from converters.packing import pack
from converters.task import Floats
from converters.wiring import module_order
from edge_sdk.contracts.audio import SoundInfo
from edge_sdk.contracts.manifest import Preprocess
from edge_sdk.contracts.operating_point import TensorSpec
from edge_sdk.contracts.topics import check_name
from edge_sdk.errors import ConversionError

NO_IMAGE = Preprocess(color="gray", mean=(0.0,), std=(1.0,))


@dataclass(frozen=True, slots=True)
class Described:
    """What the user says about the file; None where the file itself may say it."""

    name: str | None = None
    labels: tuple[str, ...] | None = None
    preprocess: Preprocess | None = None
    tolerance: float = 0.1
    """See :attr:`edge_sdk.contracts.manifest.TaskInfo.output_tolerance`."""
    states: tuple[tuple[int, int], ...] = ()
    """(input, output) positions of a streaming model's states, in the file's order."""
    sound: SoundInfo | None = None
    """How it listens, if it does."""


def subject_of(
    source: Path,
    described: Described,
    notes: ModelNotes | None,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
) -> LoadedTask:
    """The file as a task: a classifier when its labels and preprocessing are known, else generic.

    Raises:
        ConversionError: ``conversion.labels-mismatch``, ``conversion.preprocess-missing``.
        ConfigError: ``config.bad-name``.
    """
    labels = described.labels or (notes.labels if notes else ())
    preprocess = described.preprocess or (notes.preprocess if notes else None)
    name = described.name or source.stem.replace(" ", "-")
    check_name(name, "model name")
    wanted = described.labels is not None
    classifies = _is_classifier(inputs, outputs, labels)
    if wanted and not classifies:
        shape = list(outputs[0].shape)
        raise ConversionError(
            "labels-mismatch",
            f"{len(labels)} labels were given; {source.name} has {len(inputs)} inputs and its "
            f"first output is {shape}.",
            "Labels are for one image in and one score per label out; leave them out otherwise.",
        )
    if wanted and preprocess is None:
        raise ConversionError(
            "preprocess-missing",
            f"{source.name} does not say how pixels become its input, and nothing else does.",
            "Add --mean and --std in pixel units, e.g. --mean 123.7,116.3,103.5 "
            "--std 58.4,57.1,57.4.",
        )
    return LoadedTask(
        ref=str(source),
        path=source,
        task=_Bare(),
        name=name,
        labels=labels if classifies and preprocess else (),
        preprocess=preprocess or NO_IMAGE,
        resolutions=(resolution(_given(inputs, described.states)),),
        schemes=(),
        kind="classification" if classifies and preprocess else "generic",
        tolerance=described.tolerance,
        states=_in_module_order(described.states, inputs, outputs),
        sound=described.sound,
    )


def _in_module_order(
    states: tuple[tuple[int, int], ...],
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
) -> tuple[tuple[int, int], ...]:
    taken, given = module_order(inputs), module_order(outputs)
    return tuple((taken.index(before), given.index(after)) for before, after in states)


def _given(
    inputs: tuple[TensorSpec, ...], states: tuple[tuple[int, int], ...]
) -> tuple[TensorSpec, ...]:
    """Those that are no states."""
    taken = {before for before, _ in states}
    return tuple(spec for at, spec in enumerate(inputs) if at not in taken)


class _Bare:
    """Stands where a user's task object would: it has no score of its own."""


def read_labels(path: Path) -> tuple[str, ...]:
    """Class names, one per line.

    Raises:
        ConversionError: ``conversion.bad-labels``.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _bad_labels(path, f"cannot be read ({error})") from error
    labels = tuple(line.strip() for line in lines if line.strip())
    if not 1 <= len(labels) <= MAX_LABELS:
        raise _bad_labels(path, f"holds {len(labels)} labels")
    return labels


def _bad_labels(path: Path, what: str) -> ConversionError:
    return ConversionError(
        "bad-labels", f"{path} {what}.", "Give a text file with one class name per line."
    )


def resolution(inputs: tuple[TensorSpec, ...]) -> tuple[int, int]:
    """(height, width) of the first image input; (1, length) of a sequence."""
    for spec in inputs:
        if spec.layout == "NHWC":
            return spec.shape[1], spec.shape[2]
        if spec.layout == "NCHW":
            return spec.shape[2], spec.shape[3]
    shape = inputs[0].shape
    return (1, shape[1]) if len(shape) > 1 else (1, 1)


def packed(given: Given, inputs: tuple[TensorSpec, ...]) -> Floats:
    """Samples as one array, in the order and layout that verification unpacks."""
    arrays: list[Any] = []
    for position in module_order(inputs):
        array = given.arrays[position]
        images = inputs[position].layout == "NHWC" and array.ndim == 4
        arrays.append(array.transpose(0, 3, 1, 2) if images else array)
    return pack(arrays)


def _is_classifier(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], labels: tuple[str, ...]
) -> bool:
    if len(inputs) != 1 or len(outputs) != 1 or inputs[0].layout not in ("NCHW", "NHWC"):
        return False
    return outputs[0].shape == (1, len(labels))

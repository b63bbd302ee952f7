"""What a release must look like for a vision pipeline to feed it. No I/O and no numpy, since the
supervisor asks before anything is loaded."""

from __future__ import annotations

import math

from edge_sdk.contracts.audio import SoundInfo
from edge_sdk.contracts.manifest import Artifact, Preprocess, TaskInfo
from edge_sdk.contracts.operating_point import TensorSpec
from edge_sdk.errors import ContractError

CHANNELS = {"gray": 1, "rgb": 3}
FLOATS = frozenset({"float32", "float16"})
QUANTIZED = frozenset({"int8", "uint8", "int16"})


def check_feedable(task: TaskInfo, artifact: Artifact) -> None:
    """Refuse an artifact that no pipeline can feed, or whose answer none can read.

    Raises:
        ContractError: ``contract.no-pipeline``, ``contract.model-input`` or
            ``contract.model-output``.
    """
    if task.sound is not None:
        _check_listens(task.sound, artifact)
        return
    if task.kind != "classification":
        raise ContractError(
            "no-pipeline",
            f"The release's task {task.name!r} is {task.kind!r}; this device's pipelines classify"
            " images or listen.",
            "Roll it out to devices whose application runs it, or convert a classification task.",
        )
    if len(artifact.inputs) != 1:
        raise _input(f"The model has {len(artifact.inputs)} inputs; a camera gives one image.")
    spec = artifact.inputs[0]
    image_shape(task.preprocess, spec)
    if not (_is_float(spec) or _is_quantized(spec)):
        raise _input(
            f"The model's input {spec.name!r} is {spec.dtype} with scale {spec.scale}; pipelines"
            f" feed {', '.join(sorted(FLOATS))}, or {', '.join(sorted(QUANTIZED))} with a scale."
        )
    check_output(task, artifact)


def check_output(task: TaskInfo, artifact: Artifact) -> None:
    """Refuse an artifact that does not give one logit per label.

    Raises:
        ContractError: ``contract.model-output``.
    """
    shapes = [list(spec.shape) for spec in artifact.outputs]
    if not task.labels or shapes != [[1, len(task.labels)]]:
        raise ContractError(
            "model-output",
            f"The model's outputs are {shapes} for {len(task.labels)} labels.",
            "A classifier gives one logit per label; correct the task and convert again.",
        )


def _check_listens(sound: SoundInfo, artifact: Artifact) -> None:
    before, after = {i for i, _ in artifact.states}, {o for _, o in artifact.states}
    taken = [spec for at, spec in enumerate(artifact.inputs) if at not in before]
    if len(taken) != 1:
        raise _input(f"The model has {len(taken)} inputs besides its states; sound gives one.")
    given = next((spec for at, spec in enumerate(artifact.outputs) if at not in after), None)
    size = math.prod(given.shape) if given is not None else 0
    if size != len(sound.labels):
        raise ContractError(
            "model-output",
            f"The model gives {size} scores for {len(sound.labels)} labels.",
            "Correct the task's sound (labels) and convert again.",
        )


def image_shape(preprocess: Preprocess, spec: TensorSpec) -> tuple[int, int, int]:
    """``(channels, height, width)`` of the one image that an input takes.

    Raises:
        ContractError: ``contract.model-input``.
    """
    channels = CHANNELS[preprocess.color]
    shape = spec.shape
    if len(shape) == 4 and shape[0] == 1 and len(preprocess.mean) == len(preprocess.std):
        height_width = {"NCHW": shape[2:], "NHWC": shape[1:3]}.get(spec.layout)
        found = {"NCHW": shape[1], "NHWC": shape[3]}.get(spec.layout)
        if height_width and found == channels == len(preprocess.mean) and min(height_width) > 0:
            return channels, height_width[0], height_width[1]
    raise _input(
        f"The model's input {spec.name!r} is {spec.layout} {list(spec.shape)}, and the release "
        f"prepares one {preprocess.color} image with {len(preprocess.mean)} means and "
        f"{len(preprocess.std)} deviations."
    )


def _is_float(spec: TensorSpec) -> bool:
    return spec.dtype in FLOATS and spec.scale is None


def _is_quantized(spec: TensorSpec) -> bool:
    scale = spec.scale
    return spec.dtype in QUANTIZED and scale is not None and math.isfinite(scale) and scale > 0


def _input(cause: str) -> ContractError:
    return ContractError(
        "model-input",
        cause,
        "Correct the task's preprocess or its example input and convert the model again.",
    )

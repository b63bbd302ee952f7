"""Image classification: frame to decision."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from agent.pipelines.pixels import Pixels
from agent.pipelines.preprocess import Preprocessor
from agent.pipelines.shapes import check_output
from agent.sources.base import Frame
from edge_sdk.contracts.manifest import Artifact, TaskInfo
from edge_sdk.contracts.operating_point import TensorSpec
from edge_sdk.contracts.telemetry import Decision
from edge_sdk.errors import ContractError
from edge_sdk.runtime.engine import Array, Engine, dequantize


class VisionPipeline:
    """A loaded model with everything around it.

    Args:
        engine: the loaded artifact; the pipeline closes it.
        artifact: what the release says about it; its specs hold, as a file does not always say
            which axis is which.
        task: labels and preprocessing.
        pixels: the pixel operations.

    Raises:
        ContractError: ``contract.model-input`` or ``contract.model-output`` when engine, artifact
            and task do not fit together.
    """

    def __init__(self, engine: Engine, artifact: Artifact, task: TaskInfo, pixels: Pixels) -> None:
        self.engine = engine
        check_specs(engine, artifact)
        self._output = artifact.outputs[0]
        self._labels = task.labels
        check_output(task, artifact)
        buffer = engine.input_buffer(0)
        self._preprocess = Preprocessor(task.preprocess, artifact.inputs[0], pixels, buffer)

    def process(self, frame: Frame) -> Decision:
        """Decide on one frame.

        Raises:
            RuntimeUnavailableError: the inference failed.
            ContractError: ``contract.model-output`` when the scores are no numbers.
        """
        return self.decision(frame, self.logits(frame))

    def logits(self, frame: Frame) -> Array:
        """The model's scores for one frame, (K,) float32, finite; read them before the next call.

        Raises:
            RuntimeUnavailableError, ContractError: as :meth:`process`.
        """
        (stored,) = self.engine.run((self._preprocess(frame.image),))
        logits: Array = dequantize(stored, self._output)[0]
        if not math.isfinite(float(logits.max())):
            raise ContractError(
                "model-output",
                f"The model's scores for frame {frame.number} are not finite.",
                "Run the golden test on this device; if it passes, the frame drove the model out "
                "of its range: convert with calibration data like it.",
            )
        return logits

    def decision(self, frame: Frame, logits: Array) -> Decision:
        """What scores for a frame say.

        Args:
            frame: which one.
            logits: of :meth:`logits`.
        """
        return Decision(
            frame=frame.number,
            label=self._labels[int(logits.argmax())],
            # Softmax of the largest logit: its own term is exp(0).
            score=1.0 / float(np.exp(logits - logits.max()).sum()),
            expected=frame.label,
        )

    def close(self) -> None:
        """Free the model."""
        self.engine.close()


def check_specs(engine: Engine, artifact: Artifact, *, single: bool = True) -> None:
    """Hold a loaded model to what the release says about it.

    Args:
        engine: the loaded model.
        artifact: what the release says.
        single: whether it must have exactly one input and one output.

    Raises:
        ContractError: ``contract.model-input`` or ``contract.model-output``.
    """
    if not _alike(engine.inputs, artifact.inputs, single):
        raise ContractError("model-input", *_mismatch(engine.inputs, artifact.inputs, artifact))
    if not _alike(engine.outputs, artifact.outputs, single):
        raise ContractError("model-output", *_mismatch(engine.outputs, artifact.outputs, artifact))


def _alike(real: Sequence[TensorSpec], said: Sequence[TensorSpec], single: bool) -> bool:
    fits = len(said) == 1 or (said and not single)
    return bool(fits) and [_form(spec) for spec in real] == [_form(spec) for spec in said]


def _mismatch(
    real: Sequence[TensorSpec], said: Sequence[TensorSpec], artifact: Artifact
) -> tuple[str, str]:
    """Cause and hint."""
    cause = (
        f"The artifact {artifact.digest[:12]} has {[_form(spec) for spec in real]} where its "
        f"release says {[_form(spec) for spec in said]}; a vision pipeline takes exactly one."
    )
    return cause, "Convert the model and create the release again."


def _form(spec: TensorSpec) -> tuple[str, tuple[int, ...]]:
    return spec.dtype, spec.shape

"""From a task to a verified int8 conversion by quantization-aware training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from converters.cache import Cache
from converters.convert import Options, Outcome, Step, convert
from converters.data import evaluation_set
from converters.loading import load_task
from converters.publish import Publisher
from converters.qat.checkpoint import SCHEME, require_checkpoint, save_checkpoint
from converters.qat.parity import Parity, compare_formats
from converters.qat.train import DEFAULT_EPOCHS, QatTrained, Ranges, train_qat
from converters.train import Epoch
from device_profiles.loader import load_profile
from edge_sdk.errors import GateError

CHECKPOINT_SUFFIX = ".qat.pt"


@dataclass(frozen=True, slots=True)
class QatOutcome:
    """A finished conversion, what trained it, and how equal its formats are."""

    outcome: Outcome
    checkpoint: Path
    parity: list[Parity]
    trained: QatTrained | None
    """None when an earlier checkpoint was converted."""


def qat(
    task_ref: str,
    profiles: Sequence[str],
    out: Path,
    *,
    options: Options,
    epochs: int = DEFAULT_EPOCHS,
    seed: int = 0,
    ranges: Ranges = "observed",
    learning_rate: float | None = None,
    checkpoint: Path | None = None,
    cache: Cache | None = None,
    report: Callable[[Epoch], None] = lambda epoch: None,
    progress: Step = lambda text: None,
) -> QatOutcome:
    """Train a task on the int8 grid and convert the result.

    The trained grid is saved beside the folder (``OUT.qat.pt``) before anything is converted: a
    gate that refuses the artifacts does not cost the training.

    Args:
        task_ref: ``path.py:Class``.
        profiles: ids or paths of device profiles.
        out: folder of the conversion.
        options: ``weights`` are what training starts from; ``schemes`` are ignored.
        epochs, seed, ranges, learning_rate, report: see
            :func:`~converters.qat.train.train_qat`.
        checkpoint: convert this earlier result instead of training.
        cache: of earlier passes of the conversion.
        progress: told each step of the conversion.

    Raises:
        TaskError, ConversionError, ProfileError, GateError, StorageError: no folder is written
            then, and an earlier one at ``out`` is untouched.
    """
    # Before hours of training, not after.
    for name in profiles:
        load_profile(name)
    Publisher(out.absolute(), force=options.force).check()
    task = load_task(task_ref)
    trained: QatTrained | None = None
    if checkpoint is not None:
        require_checkpoint(checkpoint, options.weights)
    else:
        trained = train_qat(
            task,
            options.weights,
            epochs=epochs,
            seed=seed,
            ranges=ranges,
            learning_rate=learning_rate,
            report=report,
        )
        checkpoint = out.with_name(out.name + CHECKPOINT_SUFFIX)
        save_checkpoint(trained.graph, checkpoint, options.weights)
    options = replace(options, schemes=(SCHEME,), qat=checkpoint)
    try:
        outcome = convert(task_ref, profiles, out, options=options, cache=cache, progress=progress)
    except GateError as error:
        if error.slug != "accuracy-drop":
            raise
        raise GateError(
            "accuracy-drop",
            error.cause,
            f"Train longer (--epochs) or the steps too (--ranges learned), or accept more with "
            f"--max-drop; --checkpoint {checkpoint} converts this training again.",
        ) from error
    progress("compare the formats")
    sizes = dict.fromkeys((item.height_px, item.width_px) for item in outcome.measured)
    samples = {f"{h}x{w}": evaluation_set(task, h, w).inputs for h, w in sizes}
    return QatOutcome(outcome, checkpoint, compare_formats(out, outcome.measured, samples), trained)

"""What a release promises those who feed it and those who use its answers.

Shapes and dtypes are held against this device's pipelines (:mod:`agent.pipelines.shapes`): sizes
and precision may change from release to release, as the pipeline follows. Labels and preprocessing
are held against the release before: whoever reads the results, or has chosen light and lens for
this picture, relies on them.
"""

from __future__ import annotations

import hashlib

import msgspec

from edge_sdk.contracts.base import Wire, encode
from edge_sdk.contracts.manifest import TaskInfo


class InputContract(Wire, kw_only=True):
    """The part of a task that others rely on."""

    labels: str
    """SHA-256 over the labels in their order."""
    label_count: int
    preprocess: str
    """SHA-256 over the preprocessing."""


def contract_of(task: TaskInfo) -> InputContract:
    """The contract in a signed manifest's task."""
    named = task.labels if task.sound is None else task.sound.labels
    labels = hashlib.sha256(msgspec.json.encode(named)).hexdigest()
    preprocess = hashlib.sha256(encode(task.preprocess)).hexdigest()
    return InputContract(labels=labels, label_count=len(named), preprocess=preprocess)


def difference(new: InputContract | None, old: InputContract | None) -> str:
    """What of a contract has changed, as a sentence; empty when nothing has, or none is known."""
    if new is None or old is None:
        return ""
    parts = []
    if new.labels != old.labels:
        parts.append(f"its {new.label_count} labels are not the {old.label_count} of before")
    if new.preprocess != old.preprocess:
        parts.append("its preprocessing is another one")
    if not parts:
        return ""
    text = " and ".join(parts)
    return f"{text[0].upper()}{text[1:]}."

"""What ``edge model convert`` leaves behind: the input of a release."""

from __future__ import annotations

import msgspec

from edge_sdk.contracts.base import SCHEMA, Wire
from edge_sdk.contracts.manifest import Artifact, TaskInfo
from edge_sdk.contracts.operating_point import OperatingPoint


class Conversion(Wire, kw_only=True):
    """``conversion.json`` in the folder of a finished conversion."""

    schema: int = SCHEMA
    created: str
    """ISO 8601, UTC."""
    task: TaskInfo
    artifacts: dict[str, Artifact]
    """By digest."""
    ladders: dict[str, tuple[OperatingPoint, ...]]
    """By profile id, most faithful first, cheapest last."""
    files: dict[str, str]
    """Digest of every artifact and golden file to its path relative to the folder."""
    provenance: dict[str, str] = msgspec.field(default_factory=dict)

"""A wake word of another project, in our terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_sdk.contracts.audio import SoundInfo


@dataclass(frozen=True, slots=True)
class Listens:
    """A streaming model and how it listens."""

    name: str
    format: Literal["tflite", "onnx"]
    data: bytes
    states: tuple[tuple[int, int], ...]
    """(input, output) positions in the file's order."""
    sound: SoundInfo

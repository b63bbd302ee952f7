"""One cell of a survey's table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

SCHEMES = ("fp32", "wfp16", "dynamic_wi8_afp32", "static_wi8_ai8")
MIN_SQNR_DB = 10.0
"""Below this an integer file's answers are mostly noise; the float ones are held to much more."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What became of one task in one format under one scheme."""

    task: str
    format: str
    scheme: str
    code: str = ""
    """Empty when the file was built and verified, else the error's code."""
    cause: str = ""
    hint: str = ""
    sqnr_db: float = 0.0
    agreement: float = 0.0
    size_bytes: int = 0
    size_ratio: float = 0.0
    """Of the file's size to that of the same format's fp32 file."""
    latency_ms: float = 0.0
    """Median of single inferences on this host, one thread."""

    @property
    def verified(self) -> bool:
        """Whether the file exists and answers as it should."""
        return not self.code

    @property
    def key(self) -> tuple[str, str, str]:
        """Task, format, scheme."""
        return self.task, self.format, self.scheme

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return asdict(self)

"""What ``edge model slim`` is asked for; it decides whether a checkpoint may be resumed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from converters.slim.importance import METHODS
from converters.train import MAX_EPOCHS
from edge_sdk.errors import UsageError
from edge_sdk.suggest import did_you_mean

MAX_WIDTHS = 16
LEAST_WIDTH = 0.1
ROUND_TO = 8
ROUND_TO_WIDE = 16
_WIDE_VECTORS = ("avx512", "vnni", "sve")


@dataclass(frozen=True, slots=True)
class Settings:
    """Choices of a run."""

    widths: tuple[float, ...] = (1.0, 0.75, 0.5, 0.35)
    """The full 1.0 first, descending."""
    importance: str = "activation"
    round_to: int | None = None
    """Outputs of a layer come in multiples of this; None: as the profile's kernels like it."""
    uniform: bool = False
    """One share for all layers instead of the search."""
    separate: bool = False
    """Each width has weights of its own, repaired by least squares."""
    norms: bool = False
    """Also narrow what LayerNorm normalises."""
    epochs: int | None = None
    """None: the task's own number; 0: no training."""
    labels: bool = True
    """Train on labels where the task has them; otherwise on the wide network's answers."""
    learning_rate: float | None = None
    hard: float = 0.3
    """Share of the labels in the loss of separate widths."""
    temperature: float = 2.0
    bfloat16: bool = False
    """Multiply in bfloat16 while training; weights and their updates stay float32."""
    seed: int = 0
    profile: str | None = None
    """Whose predicted latency the search minimises; None: multiply-accumulates."""
    scheme: str = "fp32"
    """That the latency is predicted for."""

    def checked(self) -> Settings:
        """Itself.

        Raises:
            UsageError: ``usage.bad-slim``, ``usage.unknown-importance``.
        """
        if self.importance not in METHODS:
            raise UsageError(
                "unknown-importance",
                f"There is no importance {self.importance!r}.",
                did_you_mean(self.importance, METHODS),
            )
        narrower = self.widths[1:]
        rules = {
            "widths that start with 1.0 and fall": self.widths[:1] == (1.0,)
            and list(self.widths) == sorted(set(self.widths), reverse=True),
            f"one to {MAX_WIDTHS - 1} narrower widths": 0 < len(narrower) < MAX_WIDTHS,
            f"no width under {LEAST_WIDTH}": all(w >= LEAST_WIDTH for w in narrower),
            "--round-to from 1 to 256": self.round_to is None or 1 <= self.round_to <= 256,
            f"0 to {MAX_EPOCHS} epochs": self.epochs is None or 0 <= self.epochs <= MAX_EPOCHS,
            "a learning rate above 0 and at most 1": self.learning_rate is None
            or 0 < self.learning_rate <= 1,
            "a share of the labels from 0 to 1": 0 <= self.hard <= 1,
            "a temperature above 0 and at most 100": 0 < self.temperature <= 100,
        }
        for rule, holds in rules.items():
            if not holds:
                raise UsageError("bad-slim", f"Slimming needs {rule}.", "Change that option.")
        return self

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for the checkpoint."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }


def round_to_of(settings: Settings, features: tuple[str, ...]) -> int:
    """Multiple that outputs come in.

    Kernels work on blocks of channels, as many as a vector holds: 16 float32 with AVX-512, 8 or
    fewer elsewhere. A layer that ends inside a block costs as much as one that fills it.

    Args:
        settings: of the run; an explicit choice wins.
        features: of the device's processors, as its profile lists them.
    """
    if settings.round_to is not None:
        return settings.round_to
    wide = any(feature.startswith(_WIDE_VECTORS) for feature in features)
    return ROUND_TO_WIDE if wide else ROUND_TO

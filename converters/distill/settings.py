"""What a distillation is asked to do; a resumed one must be asked the same."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from converters.train import MAX_EPOCHS
from edge_sdk.errors import UsageError
from edge_sdk.suggest import did_you_mean

Loss = Literal["logit", "feature", "mask"]
LOSSES: tuple[Loss, ...] = get_args(Loss)


@dataclass(frozen=True, slots=True)
class Settings:
    """Choices of one distillation."""

    losses: tuple[Loss, ...] = ("logit",)
    """Added up."""
    temperature: float = 4.0
    hard: float = 0.3
    """Share of the task's own loss on labelled batches, 0..1; 0 never looks at labels."""
    features: tuple[str, ...] = ()
    """``STUDENT_LAYER=TEACHER_LAYER``; empty: matched by shape."""
    epochs: int | None = None
    """None: the task's own number."""
    seed: int = 0
    learning_rate: float | None = None
    alone: bool = True
    """Train the student without the teacher first, for comparison."""

    def checked(self) -> Settings:
        """Itself, when every value is in range.

        Raises:
            UsageError: ``usage.unknown-loss``, ``usage.bad-distillation``.
        """
        for name in self.losses:
            if name not in LOSSES:
                raise UsageError(
                    "unknown-loss", f"There is no loss {name!r}.", did_you_mean(name, LOSSES)
                )
        rules = {
            "at least one loss": bool(self.losses),
            "a temperature above 0 and at most 100": 0 < self.temperature <= 100,
            "a share of the labels from 0 to 1": 0 <= self.hard <= 1,
            f"1 to {MAX_EPOCHS} epochs": self.epochs is None or 1 <= self.epochs <= MAX_EPOCHS,
            "a learning rate above 0 and at most 1": self.learning_rate is None
            or 0 < self.learning_rate <= 1,
            "--features only together with --loss feature": not self.features
            or "feature" in self.losses,
        }
        for rule, kept in rules.items():
            if not kept:
                raise UsageError(
                    "bad-distillation", f"Distillation needs {rule}.", "Change that option."
                )
        return self

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for the checkpoint."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

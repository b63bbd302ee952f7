"""How a scheme is applied: what calibrates it, how finely, and which layers stay out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

Method = Literal["min-max", "percentile", "entropy", "mse"]
Granularity = Literal["channel", "tensor"]
LayerKind = Literal["linear", "convolution"]
LAYER_KINDS: tuple[LayerKind, ...] = get_args(LayerKind)
METHODS: tuple[Method, ...] = get_args(Method)
GRANULARITIES: tuple[Granularity, ...] = get_args(Granularity)


@dataclass(frozen=True, slots=True)
class Settings:
    """Choices that leave a scheme's name unchanged."""

    calibration: Method = "min-max"
    """How ranges follow from what was seen, see :mod:`converters.calibrate.methods`."""
    granularity: Granularity = "channel"
    """One scale per output channel of a weight, or one for all of it."""
    keep: tuple[str, ...] = ()
    """Layers that stay in float32, by the names of :mod:`converters.layers`."""
    integers: tuple[LayerKind, ...] = ()
    """Kinds of layers that a mixed static file computes in integers, all else staying float32;
    without any, everything but :attr:`keep`."""
    only: tuple[str, ...] | None = None
    """When given, only these layers are quantized: sensitivity analysis."""
    states: tuple[tuple[int, int], ...] = ()
    """(input, output) of the module, by position, where the output is fed back as the input: the
    two share one scale."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a child process."""
        return {
            "calibration": self.calibration,
            "granularity": self.granularity,
            "keep": list(self.keep),
            "integers": list(self.integers),
            "only": None if self.only is None else list(self.only),
            "states": [list(pair) for pair in self.states],
        }

    @staticmethod
    def of(data: dict[str, Any]) -> Settings:
        """From :meth:`as_dict`."""
        only = data["only"]
        return Settings(
            calibration=data["calibration"],
            granularity=data["granularity"],
            keep=tuple(data["keep"]),
            integers=tuple(data["integers"]),
            only=None if only is None else tuple(only),
            states=tuple((before, after) for before, after in data["states"]),
        )


DEFAULTS = Settings()

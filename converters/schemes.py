"""Quantization schemes whose names decode.

The grammar follows ai-edge-quantizer's recipe names: ``fp32``; ``wfp16`` (weights stored as
float16, computed in float32); ``MODE_wiN_aT`` with a mode (``static``: ranges fixed by
calibration, ``dynamic``: ranges found at run time, ``weight_only``: weights expanded before
computing), the weights' integer bits and the activations' type (``fp32`` or ``iM`` written as
``afp32`` / ``aiM``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from edge_sdk.errors import ConversionError
from edge_sdk.suggest import did_you_mean

Mode = Literal["float", "static", "dynamic", "weight_only"]

SUPPORTED = ("fp32", "wfp16", "dynamic_wi8_afp32", "static_wi8_ai8")
"""What the exporters build, from the most faithful to the most compact."""

DEFAULT = ("fp32", "wfp16", "static_wi8_ai8")
"""Built when nothing else asks for more; fp32 is the baseline of every comparison."""

_INTEGER = re.compile(
    r"(?P<mode>static|dynamic|weight_only)_wi(?P<weight>4|8)_a(?P<activation>fp32|i8|i16)"
)


@dataclass(frozen=True, slots=True)
class Scheme:
    """A decoded scheme.

    ``weight_bits`` and ``activation_bits`` are 32 and 16 for floats, 4, 8 or 16 for integers;
    the flags tell which.
    """

    mode: Mode
    weight_bits: int
    activation_bits: int
    integer_weights: bool
    integer_activations: bool

    def __str__(self) -> str:
        if self.mode == "float":
            return "fp32" if self.weight_bits == 32 else "wfp16"
        activation = f"i{self.activation_bits}" if self.integer_activations else "fp32"
        return f"{self.mode}_wi{self.weight_bits}_a{activation}"

    @property
    def weight_dtypes(self) -> tuple[str, ...]:
        """numpy names of the element types that weights may have under this scheme."""
        if self.integer_weights:
            return (f"int{self.weight_bits}", f"uint{self.weight_bits}")
        return (f"float{self.weight_bits}",)

    @property
    def io_dtype(self) -> str:
        """numpy name of the element type of the model's inputs and outputs."""
        return f"int{self.activation_bits}" if self.integer_activations else "float32"


def parse_scheme(name: str) -> Scheme:
    """Decode a scheme's name.

    Raises:
        ConversionError: ``conversion.bad-scheme``.
    """
    if name in ("fp32", "wfp16"):
        return Scheme("float", 32 if name == "fp32" else 16, 32, False, False)
    match = _INTEGER.fullmatch(name)
    mode = match["mode"] if match else ""
    activation = match["activation"] if match else ""
    if match is None or (mode == "static") != activation.startswith("i"):
        raise ConversionError(
            "bad-scheme",
            f"{name!r} does not name a quantization scheme.",
            did_you_mean(name, SUPPORTED),
        )
    bits = 32 if activation == "fp32" else int(activation[1:])
    return Scheme(_mode(mode), int(match["weight"]), bits, True, activation != "fp32")


def supported_scheme(name: str) -> Scheme:
    """Decode a scheme that this version can build.

    Raises:
        ConversionError: ``conversion.bad-scheme`` or ``conversion.scheme-unsupported``.
    """
    scheme = parse_scheme(name)
    if name not in SUPPORTED:
        raise ConversionError(
            "scheme-unsupported",
            f"The scheme {name} is known but this version cannot build it.",
            f"Use one of {', '.join(SUPPORTED)}.",
        )
    return scheme


def in_order(names: set[str]) -> list[str]:
    """Schemes from the most faithful to the most compact, fp32 always among them."""
    return [name for name in SUPPORTED if name in names | {"fp32"}]


def _mode(text: str) -> Mode:
    modes: dict[str, Mode] = {
        "static": "static",
        "dynamic": "dynamic",
        "weight_only": "weight_only",
    }
    return modes[text]

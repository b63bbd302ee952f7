"""Quantization schemes whose names decode.

The grammar follows ai-edge-quantizer's recipe names: ``fp32``; ``wfp16`` (weights stored as
float16, computed in float32); ``MODE_wiN_aT`` with a mode (``static``: ranges fixed by
calibration, ``dynamic``: ranges found at run time, ``weight_only``: weights expanded before
computing), the weights' integer bits and the activations' type (``fp32``, ``iM`` or ``uM`` written
as ``afp32`` / ``aiM`` / ``auM``).

``mixed_BASE_KEPT`` is a file in which most layers follow BASE and some, named in the conversion's
report, are kept in KEPT: ``mixed_static_wi8_ai8_fp32``; ``mixed_fp16_fp32`` computes in float16
with normalisation and softmax in float32.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from edge_sdk.errors import ConversionError
from edge_sdk.suggest import did_you_mean

Mode = Literal["float", "static", "dynamic", "weight_only"]

SUPPORTED = (
    "fp32",
    "wfp16",
    "mixed_fp16_fp32",
    "weight_only_wi8_afp32",
    "dynamic_wi8_afp32",
    "static_wi8_ai16",
    "mixed_static_wi8_ai8_fp32",
    "static_wi8_ai8",
    "static_wi8_au8",
)
"""What the exporters build, from the most faithful to the most compact. ``static_wi8_au8`` exists
in ONNX only."""

DEFAULT = ("fp32", "wfp16", "static_wi8_ai8")
"""Built when nothing else asks for more; fp32 is the baseline of every comparison."""

ALIASES = {"weight_only_wi8": "weight_only_wi8_afp32"}
"""Short names that people use."""

_INTEGER = re.compile(
    r"(?P<mode>static|dynamic|weight_only)_wi(?P<weight>4|8)_a(?P<activation>fp32|i8|i16|u8)"
)
_MIXED = re.compile(r"mixed_(?P<base>fp16|static_wi8_ai8|static_wi8_ai16|static_wi8_au8)_fp32")


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
    unsigned: bool = False
    """Activations run from 0 up: u8s8, for x86 processors with VNNI."""
    mixed: bool = False
    """Some layers are kept in float32."""

    def __str__(self) -> str:
        name = self._base_name()
        return f"mixed_{name}_fp32" if self.mixed else name

    def _base_name(self) -> str:
        if self.mode == "float":
            if self.weight_bits == 32:
                return "fp32"
            return "wfp16" if self.activation_bits == 32 else "fp16"
        sign = "u" if self.unsigned else "i"
        activation = f"{sign}{self.activation_bits}" if self.integer_activations else "fp32"
        return f"{self.mode}_wi{self.weight_bits}_a{activation}"

    @property
    def weight_dtypes(self) -> tuple[str, ...]:
        """numpy names of the element types that weights may have under this scheme."""
        if self.integer_weights:
            return (f"int{self.weight_bits}", f"uint{self.weight_bits}")
        return (f"float{self.weight_bits}",)

    @property
    def io_dtype(self) -> str:
        """numpy name of the element type of the model's inputs and outputs.

        A mixed file may have float32 ones instead, where the first or last layer is kept.
        """
        if not self.integer_activations:
            return "float32"
        return f"{'u' if self.unsigned else ''}int{self.activation_bits}"

    @property
    def base(self) -> Scheme:
        """What most layers of a mixed file follow; the scheme itself when it is not mixed."""
        return replace(self, mixed=False)


def parse_scheme(name: str) -> Scheme:
    """Decode a scheme's name.

    Raises:
        ConversionError: ``conversion.bad-scheme``.
    """
    if name in ("fp32", "wfp16"):
        return Scheme("float", 32 if name == "fp32" else 16, 32, False, False)
    mixed = _MIXED.fullmatch(name)
    if mixed is not None:
        if mixed["base"] == "fp16":
            return Scheme("float", 16, 16, False, False, mixed=True)
        return replace(parse_scheme(mixed["base"]), mixed=True)
    match = _INTEGER.fullmatch(name)
    mode = match["mode"] if match else ""
    activation = match["activation"] if match else ""
    if match is None or (mode == "static") != activation.startswith(("i", "u")):
        raise ConversionError(
            "bad-scheme",
            f"{name!r} does not name a quantization scheme.",
            did_you_mean(name, SUPPORTED),
        )
    integer = activation != "fp32"
    bits = int(activation[1:]) if integer else 32
    return Scheme(_mode(mode), int(match["weight"]), bits, True, integer, activation == "u8")


def canonical(name: str) -> str:
    """The full name behind a short one; any other name as it is."""
    return ALIASES.get(name, name)


def mixed_name(base: str) -> str:
    """The scheme of a file that follows ``base`` but for some layers."""
    return str(replace(parse_scheme(base), mixed=True))


def supported_scheme(name: str, kind: str = "") -> Scheme:
    """Decode a scheme that this version can build.

    Args:
        name: the scheme's name.
        kind: ``tflite`` or ``onnx`` where the format is known.

    Raises:
        ConversionError: ``conversion.bad-scheme`` or ``conversion.scheme-unsupported``.
    """
    scheme = parse_scheme(name)
    if scheme.unsigned and kind == "tflite":
        raise ConversionError(
            "scheme-unsupported",
            f"TFLite has no unsigned activations as {name} asks for.",
            "Build it as ONNX only (--format onnx), or use static_wi8_ai8.",
        )
    if name not in SUPPORTED and str(scheme.base) not in SUPPORTED:
        raise ConversionError(
            "scheme-unsupported",
            f"The scheme {name} is known but this version cannot build it.",
            f"Use one of {', '.join(SUPPORTED)}.",
        )
    return scheme


def builds(name: str, kind: str) -> bool:
    """Whether a supported scheme exists in a format."""
    return kind != "tflite" or not parse_scheme(name).unsigned


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

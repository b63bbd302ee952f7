"""Holding a file to what its name says: an int8 file that is not int8 is an error."""

from __future__ import annotations

from pathlib import Path

from converters.inspect.model import Layer, ModelFacts
from converters.schemes import Scheme
from edge_sdk.contracts.operating_point import TensorSpec
from edge_sdk.errors import ConversionError

_WHOLE = ("int32", "int64", "bool")
_FP32 = Scheme("float", 32, 32, False, False)
_RECURRENT = (
    "mixed_static_wi8_ai8_fp32 keeps it in float32 between int8 layers, and TFLite "
    "(--format tflite) has it in int8, unrolled"
)
_WAYS_OUT = {
    "ConvTranspose": "weight_only_wi8_afp32 and static_wi8_ai8 store its weights as int8, and "
    "TFLite (--format tflite) takes this scheme",
    "GRU": _RECURRENT,
    "LSTM": f"dynamic_wi8_afp32 has an integer kernel for it, {_RECURRENT}",
}
"""What works instead for operators that ONNX Runtime's quantizer leaves in float."""


def problems_with(facts: ModelFacts, scheme: Scheme) -> list[str]:
    """Everything in a file that contradicts a scheme; empty when the name is true."""
    if scheme.mixed:
        return _mixed_problems(facts, scheme.base)
    found = [problem for layer in facts.layers for problem in _layer_problems(layer, scheme)]
    for kind, spec in _ends(facts):
        if spec.dtype != scheme.io_dtype:
            found.append(f"{kind} {spec.name!r} is {spec.dtype}")
        elif scheme.integer_activations and spec.scale is None:
            found.append(f"{kind} {spec.name!r} has no scale")
    if scheme.integer_weights and not facts.layers:
        found.append("it has no layer with weights")
    return found


def _mixed_problems(facts: ModelFacts, base: Scheme) -> list[str]:
    """A mixed file's layers each follow the base or are plain float32, and some do the first."""
    found = []
    following = 0
    for layer in facts.layers:
        problems = _layer_problems(layer, base)
        if not problems:
            following += 1
        elif _layer_problems(layer, _FP32):
            found.append(problems[0])
    if not following:
        found.append(f"no layer follows {base}")
    for kind, spec in _ends(facts):
        if spec.dtype not in (base.io_dtype, "float32"):
            found.append(f"{kind} {spec.name!r} is {spec.dtype}")
        elif spec.dtype != "float32" and spec.scale is None:
            found.append(f"{kind} {spec.name!r} has no scale")
    return found


def _layer_problems(layer: Layer, scheme: Scheme) -> list[str]:
    """What contradicts the scheme in one layer."""
    found = []
    if layer.weight_dtype not in scheme.weight_dtypes:
        found.append(f"{_of(layer)} has {layer.weight_dtype} weights")
    if scheme.integer_activations and layer.activation_dtype != scheme.io_dtype:
        found.append(f"{_of(layer)} works on {layer.activation_dtype} activations")
    half = layer.activation_dtype == "float16"
    if scheme.mode == "float" and half and scheme.activation_bits != 16:
        found.append(f"{_of(layer)} works on float16 activations")
    if scheme.mode in ("weight_only", "dynamic"):
        if layer.activation_dtype != "float32":
            found.append(f"{_of(layer)} works on {layer.activation_dtype} activations")
        elif layer.expanded != (scheme.mode == "weight_only"):
            how = "expands its weights" if layer.expanded else "does not expand its weights"
            found.append(f"{_of(layer)} {how}")
    return found


def _ends(facts: ModelFacts) -> list[tuple[str, TensorSpec]]:
    """Inputs and outputs; without inputs of whole numbers (token ids), which no scheme changes."""
    return [
        *(("input", spec) for spec in facts.inputs if spec.dtype not in _WHOLE),
        *(("output", spec) for spec in facts.outputs),
    ]


def check_claim(facts: ModelFacts, scheme: Scheme, path: Path) -> None:
    """Refuse a file that is not what its scheme claims.

    Raises:
        ConversionError: ``conversion.false-claim`` listing the first contradictions.
    """
    problems = problems_with(facts, scheme)
    if problems:
        shown = "; ".join(problems[:3])
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ConversionError(
            "false-claim",
            f"{path.name} claims {scheme} but {shown}{more}.",
            _way_out(facts, scheme),
        )


def _way_out(facts: ModelFacts, scheme: Scheme) -> str:
    """What to do about the layers that stayed float."""
    kept = dict.fromkeys(layer.op for layer in facts.layers if _layer_problems(layer, scheme.base))
    known = [f"The quantizer leaves {op} float: {_WAYS_OUT[op]}." for op in kept if op in _WAYS_OUT]
    if known:
        return " ".join(known)
    return (
        "A layer the quantizer cannot handle stays float; replace it, or leave this scheme out "
        "with --schemes."
    )


def _of(layer: Layer) -> str:
    return f"{layer.op} {layer.name!r}"

"""Scheme names decode, and encode back to themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.schemes import (
    SUPPORTED,
    Scheme,
    builds,
    canonical,
    in_order,
    mixed_name,
    parse_scheme,
    supported_scheme,
)
from edge_sdk.errors import ConversionError

NAMES = st.one_of(
    st.sampled_from(["fp32", "wfp16", "mixed_fp16_fp32"]),
    st.builds("static_wi{}_a{}".format, st.sampled_from([4, 8]), st.sampled_from(["i8", "i16"])),
    st.builds("static_wi{}_au8".format, st.sampled_from([4, 8])),
    st.builds("mixed_static_wi8_a{}_fp32".format, st.sampled_from(["i8", "i16", "u8"])),
    st.builds(
        "{}_wi{}_afp32".format,
        st.sampled_from(["dynamic", "weight_only"]),
        st.sampled_from([4, 8]),
    ),
)


@given(NAMES)
def test_a_name_survives_decoding(name: str) -> None:
    assert str(parse_scheme(name)) == name


@given(st.text(max_size=30))
def test_anything_else_is_refused_with_a_hint(text: str) -> None:
    try:
        scheme = parse_scheme(text)
    except ConversionError as error:
        assert error.code == "conversion.bad-scheme"
        assert "fp32" in error.hint or "Did you mean" in error.hint
    else:
        assert str(scheme) == text


@pytest.mark.parametrize(
    "name",
    [
        "mixed_fp32_fp32",
        "mixed_wfp16_fp32",
        "dynamic_wi8_au8",
        "static_wi8_afp32",
        "dynamic_wi8_ai8",
        "static_wi8",
        "int8",
        "wi8_ai8",
        "STATIC_WI8_AI8",
    ],
)
def test_contradictions_are_refused(name: str) -> None:
    with pytest.raises(ConversionError, match=r"conversion\.bad-scheme"):
        parse_scheme(name)


def test_what_a_scheme_says_about_a_file() -> None:
    static = parse_scheme("static_wi8_ai8")
    assert static == Scheme("static", 8, 8, True, True)
    assert static.io_dtype == "int8"
    assert "int8" in static.weight_dtypes and "float32" not in static.weight_dtypes
    assert parse_scheme("dynamic_wi8_afp32").io_dtype == "float32"
    assert parse_scheme("wfp16").weight_dtypes == ("float16",)


def test_known_but_not_built() -> None:
    with pytest.raises(ConversionError, match=r"conversion\.scheme-unsupported"):
        supported_scheme("static_wi4_ai8")


def test_unsigned_activations_exist_in_onnx_only() -> None:
    assert supported_scheme("static_wi8_au8", "onnx").io_dtype == "uint8"
    assert builds("static_wi8_au8", "onnx") and not builds("static_wi8_au8", "tflite")
    with pytest.raises(ConversionError, match=r"conversion\.scheme-unsupported"):
        supported_scheme("static_wi8_au8", "tflite")


def test_a_mixed_scheme_names_its_base() -> None:
    mixed = parse_scheme("mixed_static_wi8_ai8_fp32")
    assert str(mixed.base) == "static_wi8_ai8"
    assert mixed_name("static_wi8_ai8") == str(mixed)
    assert parse_scheme("mixed_fp16_fp32").weight_dtypes == ("float16",)


def test_short_names_are_understood() -> None:
    assert canonical("weight_only_wi8") in SUPPORTED
    assert canonical("fp32") == "fp32"


@given(st.sets(st.sampled_from(SUPPORTED)))
def test_the_baseline_comes_first_and_is_always_there(names: set[str]) -> None:
    ordered = in_order(names)
    assert ordered[0] == "fp32"
    assert set(ordered) == names | {"fp32"}

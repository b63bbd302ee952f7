"""Scheme names decode, and encode back to themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.schemes import SUPPORTED, Scheme, in_order, parse_scheme, supported_scheme
from edge_sdk.errors import ConversionError

NAMES = st.one_of(
    st.sampled_from(["fp32", "wfp16"]),
    st.builds("static_wi{}_ai{}".format, st.sampled_from([4, 8]), st.sampled_from([8, 16])),
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
    ["static_wi8_afp32", "dynamic_wi8_ai8", "static_wi8", "int8", "wi8_ai8", "STATIC_WI8_AI8"],
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
        supported_scheme("static_wi8_ai16")


@given(st.sets(st.sampled_from(SUPPORTED)))
def test_the_baseline_comes_first_and_is_always_there(names: set[str]) -> None:
    ordered = in_order(names)
    assert ordered[0] == "fp32"
    assert set(ordered) == names | {"fp32"}

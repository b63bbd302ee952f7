"""Errors, suggestions and configuration: what a person gets to read."""

from __future__ import annotations

from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, field

from edge_sdk import errors
from edge_sdk.contracts.base import Config, Wire, convert_config, decode, encode
from edge_sdk.contracts.topics import check_name
from edge_sdk.errors import ConfigError, ContractError, EdgeError, TrustError
from edge_sdk.suggest import did_you_mean

FAMILIES = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EdgeError)
]


@pytest.mark.parametrize("kind", FAMILIES, ids=lambda kind: kind.family)
def test_an_error_says_code_cause_and_hint(kind: type[EdgeError]) -> None:
    error = kind("some-slug", "What is wrong.", "What to do.")
    assert error.code == f"{kind.family}.some-slug"
    assert str(error) == f"{error.code}: What is wrong. Hint: What to do."
    assert error.as_dict() == {
        "code": error.code,
        "cause": "What is wrong.",
        "hint": "What to do.",
    }
    assert 1 <= kind.exit_code <= 100


def test_every_family_is_a_name_of_its_own() -> None:
    names = [kind.family for kind in FAMILIES]
    assert len(names) == len(set(names))


def test_a_close_word_is_suggested_and_a_far_one_lists_all() -> None:
    known = ["rpi4", "rpi5", "jetson-orin-nano"]
    assert "'rpi4'" in did_you_mean("rpi44", known)
    assert "'jetson-orin-nano'" in did_you_mean("JETSON-ORIN", known)
    assert did_you_mean("zzz", known) == "Known: jetson-orin-nano, rpi4, rpi5."
    assert did_you_mean("zzz", []) == "None is known here."


@given(st.text(max_size=60), st.lists(st.text(max_size=20), max_size=6))
def test_a_suggestion_is_one_sentence_for_any_word(word: str, known: list[str]) -> None:
    assert did_you_mean(word, known).endswith((".", "?"))


class Inner(Config, kw_only=True):
    """A nested section."""

    level: Annotated[float, Meta(ge=0)] = 0.0


class Outer(Config, kw_only=True):
    """A file."""

    name: str
    inner: Inner = Inner()
    rows: tuple[Inner, ...] = ()
    table: dict[str, Inner] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("data", "code", "hint"),
    [
        ({"name": "x", "naem": 1}, "config.unknown-key", "'name'"),
        ({"name": "x", "inner": {"levle": 1}}, "config.unknown-key", "'level'"),
        ({"name": "x", "rows": [{"levels": 1}]}, "config.unknown-key", "'level'"),
        ({"name": "x", "table": {"a": {"leve": 1}}}, "config.unknown-key", "'level'"),
        ({"name": "x", "inner": {"level": -1}}, "config.invalid", ""),
        ({"name": 5}, "config.invalid", ""),
        ({}, "config.invalid", ""),
    ],
)
def test_a_bad_configuration_names_the_place(data: dict[str, object], code: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        convert_config(data, Outer, "agent.toml")
    assert caught.value.code == code
    assert caught.value.cause.startswith("agent.toml")
    assert hint in caught.value.hint


class Message(Wire, kw_only=True):
    """A document."""

    schema: int = 1
    text: str = ""


def test_a_wire_document_round_trips_and_ignores_what_it_does_not_know() -> None:
    assert decode(encode(Message(text="ä")), Message, "message") == Message(text="ä")
    assert decode(b'{"text":"a","later":[1]}', Message, "message") == Message(text="a")


def test_a_newer_schema_is_refused_with_its_number() -> None:
    with pytest.raises(ContractError, match=r"contract\.too-new.*schema 2"):
        decode(b'{"schema":2}', Message, "message")


@given(st.one_of(st.binary(max_size=60), st.just(b"[" * 100_000)))
def test_any_bytes_decode_or_give_a_contract_error(data: bytes) -> None:
    try:
        assert isinstance(decode(data, Message, "message"), Message)
    except ContractError as error:
        assert error.slug in ("malformed", "too-new")


@given(st.text(max_size=80))
def test_a_checked_name_is_safe_as_a_topic_level_and_a_file_name(name: str) -> None:
    try:
        check_name(name, "device")
    except ConfigError as error:
        assert error.code == "config.bad-name"
    else:
        assert not set(name) & set("/+#\0\\ \n\r")
        assert name not in (".", "..")
        assert name.isascii()


def test_a_family_can_be_caught_apart_from_the_others() -> None:
    with pytest.raises(TrustError):
        raise TrustError("bad-signature", "a", "b")
    assert not issubclass(TrustError, ContractError)

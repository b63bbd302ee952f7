"""Every contract: round trips, readers of another version, and configuration with typing errors."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_sdk.contracts.base import SCHEMA, Config, Wire, convert_config, decode, encode
from edge_sdk.contracts.envelope import Envelope, pre_authentication_encoding
from edge_sdk.contracts.export import documents
from edge_sdk.contracts.profile import DeviceProfile
from edge_sdk.errors import ConfigError, ContractError
from tests.fakes.structs import example_of, structs

WIRE = [kind for kind in documents() if issubclass(kind, Wire)]
CONFIG = [kind for kind in documents() if issubclass(kind, Config)]
VERSIONED = [kind for kind in WIRE if "schema" in kind.__struct_fields__]
PROMISED = {
    "DeviceProfile", "OperatingPoint", "Manifest", "Conversion", "Desired", "UpdateStatus",
    "DeviceState", "TelemetrySample", "ResultBatch", "ChunkRequest", "Envelope",
}  # fmt: skip

each_wire = pytest.mark.parametrize("kind", WIRE, ids=lambda kind: kind.__name__)
thorough = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def test_every_promised_document_is_exported() -> None:
    assert {kind.__name__ for kind in documents()} >= PROMISED


@each_wire
@given(data=st.data())
@thorough
def test_round_trip(kind: type[Wire], data: st.DataObject) -> None:
    value = data.draw(structs(kind))
    text = encode(value)
    again = decode(text, kind, "it")
    assert same(again, value)
    assert encode(again) == text, "encoding is not stable"


@each_wire
@given(data=st.data())
@thorough
def test_fields_of_a_newer_writer_are_ignored(kind: type[Wire], data: st.DataObject) -> None:
    value = data.draw(structs(kind))
    tree = msgspec.json.decode(encode(value))
    assert same(decode(msgspec.json.encode(with_extras(tree)), kind, "it"), value)


def with_extras(tree: Any) -> Any:
    """A document as a later version would write it: one more field in the outer object."""
    assert "field_of_the_future" not in tree
    return {"field_of_the_future": {"a": [1, None]}, **tree, "x": "y"}


@pytest.mark.parametrize("kind", VERSIONED, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("newer", [SCHEMA + 1, SCHEMA + 1000])
def test_a_newer_schema_is_refused_with_the_hint_to_update(kind: type[Wire], newer: int) -> None:
    tree = msgspec.json.decode(encode(example_of(kind)))
    with pytest.raises(ContractError) as caught:
        decode(msgspec.json.encode({**tree, "schema": newer}), kind, "the document")
    assert caught.value.code == "contract.too-new"
    assert f"schema {newer}" in caught.value.cause
    assert "Update" in caught.value.hint


@pytest.mark.parametrize("kind", VERSIONED, ids=lambda kind: kind.__name__)
def test_a_document_without_schema_is_read_as_the_first(kind: type[Wire]) -> None:
    value = example_of(kind)
    tree = msgspec.json.decode(encode(value))
    del tree["schema"]
    assert same(decode(msgspec.json.encode(tree), kind, "it"), value)


@each_wire
@given(data=st.data())
@thorough
def test_damaged_documents_are_contract_errors(kind: type[Wire], data: st.DataObject) -> None:
    text = bytearray(encode(data.draw(structs(kind))))
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(text)))
    for damaged in (bytes(text), bytes(text[:cut])):
        try:
            decode(damaged, kind, "it")
        except ContractError as error:
            assert error.hint


@each_wire
@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{", b"1", b"[" * 50_000, b"\xff"])
def test_what_is_no_document_at_all(kind: type[Wire], data: bytes) -> None:
    with pytest.raises(ContractError) as caught:
        decode(data, kind, "it")
    assert caught.value.code == "contract.malformed"


@each_wire
def test_a_required_field_that_is_missing_is_named(kind: type[Wire]) -> None:
    required = [field.encode_name for field in msgspec.structs.fields(kind) if field.required]
    tree = msgspec.json.decode(encode(example_of(kind)))
    for name in required:
        short = {key: value for key, value in tree.items() if key != name}
        with pytest.raises(ContractError, match=name):
            decode(msgspec.json.encode(short), kind, "it")


@pytest.mark.parametrize("kind", CONFIG, ids=lambda kind: kind.__name__)
@given(data=st.data())
@thorough
def test_configuration_round_trips(kind: type[Config], data: st.DataObject) -> None:
    value = data.draw(structs(kind))
    assert same(convert_config(msgspec.to_builtins(value), kind, "it"), value)


@given(data=st.data())
@thorough
def test_a_misspelt_key_is_refused_with_the_right_one(data: st.DataObject) -> None:
    """At any depth of a device profile."""
    tree = msgspec.to_builtins(example_of(DeviceProfile))
    places = list(objects_in(tree))
    place = data.draw(st.sampled_from(places))
    key = data.draw(st.sampled_from(sorted(place)))
    at = data.draw(st.integers(1, len(key) - 1))
    misspelt = key[:at] + key[at - 1] + key[at:]
    if misspelt in place:
        return
    place[misspelt] = place.pop(key)
    with pytest.raises(ConfigError) as caught:
        convert_config(tree, DeviceProfile, "my.toml")
    # A missing required key may be reported before the unknown one.
    assert caught.value.code in ("config.unknown-key", "config.invalid")
    if caught.value.code == "config.unknown-key":
        assert repr(misspelt) in caught.value.cause
        assert repr(key) in caught.value.hint


@given(data=st.data())
@thorough
def test_an_extra_key_is_refused_by_name(data: st.DataObject) -> None:
    tree = msgspec.to_builtins(example_of(DeviceProfile))
    place = data.draw(st.sampled_from(list(objects_in(tree))))
    key = data.draw(st.sampled_from(sorted(place)))
    place[key + "x"] = place[key]
    with pytest.raises(ConfigError) as caught:
        convert_config(tree, DeviceProfile, "my.toml")
    assert caught.value.code == "config.unknown-key"
    assert repr(key + "x") in caught.value.cause
    assert repr(key) in caught.value.hint


def objects_in(tree: Any) -> Any:
    """Every struct-like object of a profile's tree (a plain mapping's keys are free)."""
    if isinstance(tree, dict):
        yield tree
        for key, item in tree.items():
            if key != "transfer_percent":
                yield from objects_in(item)
    elif isinstance(tree, list | tuple):
        for item in tree:
            yield from objects_in(item)


@given(
    kind=st.text(max_size=20),
    payload=st.binary(max_size=50),
    other_kind=st.text(max_size=20),
    other=st.binary(max_size=50),
)
def test_what_is_signed_tells_every_type_and_payload_apart(
    kind: str, payload: bytes, other_kind: str, other: bytes
) -> None:
    one = pre_authentication_encoding(kind, payload)
    two = pre_authentication_encoding(other_kind, other)
    assert (one == two) == ((kind, payload) == (other_kind, other))


def test_what_is_signed_is_dsse() -> None:
    """The example of DSSE's protocol description."""
    signed = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")
    assert signed == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


@given(payload=st.binary(max_size=100))
def test_an_envelope_keeps_bytes_exactly(payload: bytes) -> None:
    value = Envelope(payloadType="t", payload=payload, signatures=())
    assert decode(encode(value), Envelope, "it").payload == payload


def same(one: Any, two: Any) -> bool:
    """Equality under which raw JSON compares by content."""
    return bool(plain(one) == plain(two))


def plain(value: Any) -> Any:
    if isinstance(value, msgspec.Raw):
        return msgspec.json.decode(value)
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    return value

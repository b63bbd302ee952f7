"""Broker addresses as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.errors import ConfigError
from edge_sdk.server.link import BrokerAddress, parse_broker_url


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "user"),
    [
        ("mqtt://localhost", "localhost", 1883, False, ""),
        ("mqtt://10.0.0.1:1884", "10.0.0.1", 1884, False, ""),
        ("mqtts://broker.example", "broker.example", 8883, True, ""),
        ("mqtts://fleet@broker.example:1/", "broker.example", 1, True, "fleet"),
        ("mqtt://[::1]:1883", "::1", 1883, False, ""),
    ],
)
def test_good_addresses(url: str, host: str, port: int, tls: bool, user: str) -> None:
    assert parse_broker_url(url) == BrokerAddress(host, port, tls, user)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:1883",
        "http://localhost",
        "mqtt://",
        "mqtt://host:port",
        "mqtt://host:99999",
        "mqtt://host/path",
        "mqtt://user:secret@host",
        "mqtt://[::1",
    ],
)
def test_bad_addresses(url: str) -> None:
    with pytest.raises(ConfigError, match="bad-broker-url") as caught:
        parse_broker_url(url)
    assert "secret" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_a_named_error(text: str) -> None:
    try:
        address = parse_broker_url(text)
    except ConfigError as error:
        assert error.code == "config.bad-broker-url"
    else:
        assert address.host
        assert 0 < address.port < 65536

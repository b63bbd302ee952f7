"""TLS files of an agent: every way in which they can be wrong, in words."""

from __future__ import annotations

import ssl
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.config import BrokerConfig
from agent.link.reach import check_broker
from edge_sdk.brokers.authority import Authority, create_authority
from edge_sdk.cli.credentials import write_credentials
from edge_sdk.errors import EdgeError
from edge_sdk.tls import TlsFiles, client_context, explain
from tests.fakes.processes import free_port


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return create_authority(tmp_path_factory.mktemp("ca"), "edge")


@pytest.fixture
def home(authority: Authority, tmp_path: Path) -> Path:
    write_credentials(authority, "cam-1", tmp_path)
    return tmp_path


def files(home: Path) -> TlsFiles:
    return TlsFiles(home / "broker-ca.pem", home / "device.pem", home / "device.key")


def broker(home: Path) -> BrokerConfig:
    return BrokerConfig(
        host="127.0.0.1",
        port=free_port(),
        tls_ca=str(home / "broker-ca.pem"),
        tls_cert=str(home / "device.pem"),
        tls_key=str(home / "device.key"),
    )


def test_good_files_make_a_context_that_checks_the_broker(home: Path) -> None:
    context = client_context(files(home), time.time())
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert not context.verify_flags & 0x200000


def test_a_clock_before_the_authority_is_not_held_against_the_broker(home: Path) -> None:
    assert client_context(files(home), 0.0).verify_flags & 0x200000
    assert client_context(files(home), 0.0).verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("name", ["broker-ca.pem", "device.pem", "device.key"])
@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"\x00\xff" * 9])
def test_a_bad_file_is_named(home: Path, name: str, content: bytes | None) -> None:
    path = home / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EdgeError) as caught:
        client_context(files(home), time.time())
    assert caught.value.code == "config.bad-tls"
    assert name in caught.value.cause


def test_a_key_of_another_certificate(home: Path, authority: Authority) -> None:
    (home / "device.key").write_bytes(authority.issue("cam-2").key_pem)
    with pytest.raises(EdgeError, match="does not belong to"):
        client_context(files(home), time.time())


def test_a_key_with_a_passphrase_does_not_ask_on_the_terminal(
    home: Path, authority: Authority
) -> None:
    from cryptography.hazmat.primitives import serialization as form

    made = authority.issue("cam-1")
    protection = form.BestAvailableEncryption(b"secret")
    pem = made.key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, protection)
    (home / "device.key").write_bytes(pem)
    with pytest.raises(EdgeError, match="bad-tls"):
        client_context(files(home), time.time())


def test_the_doctor_finds_an_exposed_key(home: Path) -> None:
    (home / "device.key").chmod(0o640)
    with pytest.raises(EdgeError, match="key-exposed"):
        check_broker(broker(home), "edge", "cam-1", time.time())


def test_the_doctor_finds_the_certificate_of_another_device(home: Path) -> None:
    with pytest.raises(EdgeError, match="wrong-certificate"):
        check_broker(broker(home), "edge", "cam-2", time.time())


def test_a_foreign_authority_may_name_devices_as_it_likes(home: Path) -> None:
    with pytest.raises(EdgeError, match="broker-unreachable"):
        check_broker(broker(home), "other-tenant", "cam-2", time.time())


def test_the_doctor_finds_an_expired_certificate(home: Path) -> None:
    later = datetime(2080, 1, 1, tzinfo=UTC).timestamp()
    with pytest.raises(EdgeError, match="certificate-expired"):
        check_broker(broker(home), "edge", "cam-1", later)


def test_unknown_problems_stay_as_they_are() -> None:
    assert explain(OSError("Connection refused")) == "Connection refused"
    text = "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca (_ssl.c:2580)"
    assert "another authority" in explain(text)

"""The broker's authority: what lies on the disk, what is in force, what a certificate may do."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.brokers.authority import Authority, create_authority
from edge_sdk.brokers.certificates import Identity, name_of
from edge_sdk.brokers.layout import SERVER
from edge_sdk.durable import held_lock
from edge_sdk.errors import ConfigError, StorageError, TrustError, UsageError
from tests.fakes.storage import FaultyStorage, PowerCut

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    create_authority(folder, "edge", now=lambda: NOW)
    return folder


@pytest.fixture
def authority(made: Path, tmp_path: Path) -> Authority:
    return Authority(shutil.copytree(made, tmp_path / "ca"), now=lambda: NOW)


def revoked_serials(authority: Authority) -> set[int]:
    crl = x509.load_pem_x509_crl(authority.crl_path.read_bytes())
    key = x509.load_pem_x509_certificate(authority.ca_pem).public_key()
    assert crl.is_signature_valid(key)  # type: ignore[arg-type]  # any kind of public key
    return {entry.serial_number for entry in crl}


def usages(made: Identity) -> list[x509.ObjectIdentifier]:
    return list(made.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_private_keys_are_the_owners_only(authority: Authority) -> None:
    for name in ("ca.key", "server.key"):
        assert (authority.folder / name).stat().st_mode & 0o077 == 0
    assert authority.issued()[0].name == SERVER
    assert revoked_serials(authority) == set()


def test_an_authority_is_never_replaced(authority: Authority) -> None:
    before = authority.ca_pem
    with pytest.raises(StorageError, match="file-exists"):
        create_authority(authority.folder, "edge")
    assert (authority.folder / "ca.pem").read_bytes() == before


def test_a_certificate_names_its_device_and_opens_nothing_else(authority: Authority) -> None:
    made = authority.issue("cam-1")
    assert name_of(made.certificate) == "cam-1"
    assert usages(made) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not made.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    made.certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.ca_pem))
    assert made.certificate.not_valid_before_utc < NOW  # a host whose clock is late still connects


def test_the_brokers_certificate_cannot_sign_in(authority: Authority) -> None:
    made = authority.issue_broker(["broker.example", "192.0.2.7", "::1"])
    names = made.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.example"]
    assert len(names.get_values_for_type(x509.IPAddress)) == 2
    assert usages(made) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_nothing_outlives_the_authority(authority: Authority) -> None:
    ca = x509.load_pem_x509_certificate(authority.ca_pem)
    made = authority.issue("cam-1", days=100_000)
    assert made.certificate.not_valid_after_utc == ca.not_valid_after_utc
    crl = x509.load_pem_x509_crl(authority.crl_path.read_bytes())
    assert crl.next_update_utc == ca.not_valid_after_utc  # an outdated list locks everybody out


@pytest.mark.parametrize("name", ["", "a/b", "../x", "+", "#", "_other", "a" * 65])
def test_a_name_that_is_no_devices_gets_none(authority: Authority, name: str) -> None:
    with pytest.raises(ConfigError, match="bad-name"):
        authority.issue(name)
    assert [each.name for each in authority.issued()] == [SERVER]


@given(hosts=st.lists(st.text(max_size=80), max_size=3))
def test_any_host_is_certified_or_refused_with_a_reason(made: Path, hosts: list[str]) -> None:
    authority = Authority(made, now=lambda: NOW)
    try:
        authority.issue_broker(hosts)
    except UsageError as error:
        assert error.code == "usage.bad-host"


def test_revoking_all_or_all_but_the_newest(authority: Authority) -> None:
    old, new = authority.issue("cam-1"), authority.issue("cam-1")
    other = authority.issue("cam-2")
    assert authority.revoke("cam-1", keep_newest=True) == 1
    assert revoked_serials(authority) == {old.certificate.serial_number}
    assert authority.revoke("cam-1") == 1
    gone = {old.certificate.serial_number, new.certificate.serial_number}
    assert revoked_serials(authority) == gone
    assert {each.name: each.revoked is None for each in authority.issued()} == {
        SERVER: True,
        "cam-1": False,
        "cam-2": True,
    }
    assert other.certificate.serial_number not in gone


@pytest.mark.parametrize("name", ["cam-9", "", "../issued/cam-1", "."])
def test_revoking_a_stranger_is_an_error(authority: Authority, name: str) -> None:
    authority.issue("cam-1")
    with pytest.raises(TrustError, match="no-certificate"):
        authority.revoke(name)


def test_a_new_certificate_for_the_server(authority: Authority) -> None:
    before = (authority.folder / "server.pem").read_bytes()
    authority.issue_server()
    after = (authority.folder / "server.pem").read_bytes()
    assert after != before
    authority.revoke(SERVER, keep_newest=True)
    kept = x509.load_pem_x509_certificate(after).serial_number
    assert kept not in revoked_serials(authority)
    assert x509.load_pem_x509_certificate(before).serial_number in revoked_serials(authority)


def test_every_damage_is_named(authority: Authority) -> None:
    folder = authority.folder
    with pytest.raises(TrustError, match="no-authority"):
        Authority(folder / "nothing")
    for name in ("ca.key", "ca.pem"):
        good = (folder / name).read_bytes()
        for bad in (b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n", b"\xff" * 50):
            (folder / name).write_bytes(bad)
            with pytest.raises(TrustError, match="bad-authority"):
                Authority(folder)
        (folder / name).write_bytes(good)
    (folder / "ca.key").write_bytes((folder / "server.key").read_bytes())
    with pytest.raises(TrustError, match="does not belong"):
        Authority(folder)


def test_two_revocations_do_not_overlap(authority: Authority) -> None:
    authority.issue("cam-1")
    with (
        held_lock(authority.folder / "lock", StorageError("x", "x", "x")),
        pytest.raises(StorageError, match="authority-in-use"),
    ):
        authority.revoke("cam-1")
    assert authority.revoke("cam-1") == 1


def test_a_cut_while_it_is_made_leaves_none_or_all_of_it(tmp_path: Path) -> None:
    whole = FaultyStorage()
    create_authority(tmp_path / "whole", "edge", storage=whole)
    for cut in range(1, whole.steps + 1):
        folder = tmp_path / str(cut)
        with pytest.raises(PowerCut):
            create_authority(folder, "edge", storage=FaultyStorage(cut_at=cut))
        if not (folder / "ca.pem").exists():
            create_authority(folder, "edge")
        server = x509.load_pem_x509_certificate((folder / "server.pem").read_bytes())
        ca = x509.load_pem_x509_certificate(Authority(folder).ca_pem)
        server.verify_directly_issued_by(ca)
        assert (folder / "server.key").stat().st_mode & 0o077 == 0


def test_a_cut_revocation_can_be_done_again(made: Path, tmp_path: Path) -> None:
    cut, done = 0, False
    while not done:
        cut += 1
        folder = shutil.copytree(made, tmp_path / str(cut))
        serials = {Authority(folder).issue("cam-1").certificate.serial_number for _ in range(2)}
        try:
            Authority(folder, storage=FaultyStorage(cut_at=cut)).revoke("cam-1")
            done = True
        except PowerCut:
            # Either it has been told to be revoked, or the command finds it again.
            if not serials <= revoked_serials(Authority(folder)):
                Authority(folder).revoke("cam-1")
        assert revoked_serials(Authority(folder)) == serials
        listed = [each for each in Authority(folder).issued() if each.name == "cam-1"]
        assert len(listed) == 2
        assert all(each.revoked for each in listed)
    assert cut > 10


def test_dates(authority: Authority) -> None:
    made = authority.issue("cam-1", days=30)
    assert made.certificate.not_valid_after_utc == NOW + timedelta(days=30)

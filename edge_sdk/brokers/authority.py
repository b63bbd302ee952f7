"""A fleet's own certificate authority for its broker: a folder, and what may be done with it.

::

    AUTHORITY/
      ca.pem, ca.key                  the authority; the key signs certificates and nothing else
      server.pem, server.key          by which the fleet server signs in at the broker
      crl.pem                         revoked certificates, for the broker
      issued/<name>/<serial>.pem      every certificate in force, without its key
      revoked/<name>/<serial>.pem     those that no longer count; the file's time says since when

Whoever holds ``ca.key`` can pose as any device or as the server *at the broker*. That is a broker
in a stranger's hands, which devices are built to withstand: no signature hangs on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge_sdk.brokers import certificates as certs
from edge_sdk.brokers.layout import SERVER
from edge_sdk.contracts.topics import check_name
from edge_sdk.durable import DiskStorage, held_lock
from edge_sdk.errors import StorageError, TrustError, UsageError

LIFETIME_DAYS = 3653
"""How long a certificate lasts. A device in the field has no hand to renew it; what is stolen is
revoked."""


@dataclass(frozen=True, slots=True)
class Issued:
    """One certificate of a device or the server."""

    name: str
    serial: str
    expires: datetime
    revoked: datetime | None


class Authority:
    """An authority that exists.

    Args:
        folder: as laid out by :func:`create_authority`.
        now: the present, UTC.
        storage: through which files are written.

    Raises:
        TrustError: ``trust.no-authority`` or ``trust.bad-authority``.
    """

    def __init__(
        self,
        folder: Path,
        now: Callable[[], datetime] = certs.utc_now,
        storage: DiskStorage | None = None,
    ) -> None:
        self.folder, self._now = folder, now
        self._storage = storage or DiskStorage()
        self._identity = _load_identity(folder)

    @property
    def ca_pem(self) -> bytes:
        """The authority's certificate."""
        return self._identity.certificate_pem

    @property
    def crl_path(self) -> Path:
        """The list of revoked certificates."""
        return self.folder / "crl.pem"

    def issue(self, name: str, days: int = LIFETIME_DAYS) -> certs.Identity:
        """A new certificate for a device; earlier ones of the name stay in force.

        Raises:
            ConfigError: ``config.bad-name``.
            StorageError: a failed write; no certificate is in force then that nobody knows of.
        """
        if name != SERVER:
            check_name(name, "device")
        return _issue(self.folder, self._storage, self._identity, name, self._now(), days)

    def issue_server(self) -> None:
        """Write a new certificate for the fleet server to sign in by; earlier ones stay in force.

        Raises:
            StorageError: a failed write.
        """
        _issue_server(self.folder, self._storage, self._identity, self._now())

    def issue_broker(self, hosts: Sequence[str], days: int = LIFETIME_DAYS) -> certs.Identity:
        """A certificate by which clients recognise the broker.

        Raises:
            UsageError: ``usage.bad-host``.
        """
        try:
            return certs.issue_broker(self._identity, hosts, self._now(), days)
        except (ValueError, IndexError) as error:
            raise UsageError(
                "bad-host",
                f"{', '.join(hosts) or 'No name'} cannot stand in a certificate.",
                "Give the broker's DNS names (ASCII; write others as xn--...) and IP addresses.",
            ) from error

    def revoke(self, name: str, *, keep_newest: bool = False) -> int:
        """Revoke the certificates of a name, and write the list anew; how many were revoked.

        Args:
            name: the device.
            keep_newest: leave the one that was issued last in force.

        Raises:
            TrustError: ``trust.no-certificate``.
            StorageError: ``storage.authority-in-use`` or a failed write.
        """
        # Two revocations at once could each miss the other's in the list.
        with held_lock(self.folder / "lock", _in_use(self.folder)):
            found = self._in_force(name)
            doomed = found[:-1] if keep_newest else found
            for path in doomed:
                self._storage.write(self._revoked(path), path.read_bytes())
            # Before they are taken from the others: whoever is cut off here can do it again.
            self._write_crl()
            for path in doomed:
                self._storage.remove(path)
        return len(doomed)

    def issued(self) -> list[Issued]:
        """Every certificate, by name and age."""
        found = []
        for state in ("issued", "revoked"):
            for path in (self.folder / state).glob("*/*.pem"):
                if state == "issued" and self._revoked(path).exists():
                    continue
                made = _load_certificate(path)
                at = _changed_at(path) if state == "revoked" else None
                found.append(Issued(path.parent.name, path.stem, made.not_valid_after_utc, at))
        return sorted(found, key=lambda each: (each.name, each.expires))

    def _revoked(self, issued: Path) -> Path:
        return self.folder / "revoked" / issued.parent.name / issued.name

    def _in_force(self, name: str) -> list[Path]:
        folder = self.folder / "issued" / name
        paths = list(folder.glob("*.pem")) if name and "/" not in name else []
        if not paths:
            raise TrustError(
                "no-certificate",
                f"No certificate in force is known for {name!r}.",
                "`edge broker authority list` shows who has one.",
            )
        return sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name))

    def _write_crl(self) -> None:
        revoked = [
            (_load_certificate(path), _changed_at(path))
            for path in sorted((self.folder / "revoked").glob("*/*.pem"))
        ]
        data = certs.revocation_list(self._identity, revoked, self._now())
        self._storage.write(self.crl_path, data)


def create_authority(
    folder: Path,
    tenant: str,
    days: int = 2 * LIFETIME_DAYS,
    now: Callable[[], datetime] = certs.utc_now,
    storage: DiskStorage | None = None,
) -> Authority:
    """Make a new authority, with the server's certificate.

    Raises:
        StorageError: ``storage.file-exists`` or a failed write; half an authority is overwritten.
    """
    if (folder / "ca.pem").exists():
        raise StorageError(
            "file-exists",
            f"There is an authority in {folder} already.",
            "Use it. A new one elsewhere would mean new certificates for every device.",
        )
    identity = certs.make_authority(f"{tenant} broker authority", now(), days)
    storage = storage or DiskStorage()
    storage.write(folder / "ca.key", identity.key_pem, 0o600)
    storage.write(folder / "crl.pem", certs.revocation_list(identity, [], now()))
    _issue_server(folder, storage, identity, now())
    storage.write(folder / "ca.pem", identity.certificate_pem)  # the last: now there is one
    return Authority(folder, now, storage)


def _issue(
    folder: Path,
    storage: DiskStorage,
    authority: certs.Identity,
    name: str,
    now: datetime,
    days: int = LIFETIME_DAYS,
) -> certs.Identity:
    """Make a certificate; nobody has it before it is noted."""
    made = certs.issue_client(authority, name, now, days)
    path = folder / "issued" / name / f"{made.certificate.serial_number:x}.pem"
    storage.write(path, made.certificate_pem)
    return made


def _issue_server(
    folder: Path, storage: DiskStorage, authority: certs.Identity, now: datetime
) -> None:
    made = _issue(folder, storage, authority, SERVER, now)
    storage.write(folder / "server.key", made.key_pem, 0o600)
    storage.write(folder / "server.pem", made.certificate_pem)


def _load_identity(folder: Path) -> certs.Identity:
    if not (folder / "ca.pem").is_file():
        raise TrustError(
            "no-authority",
            f"There is no broker authority in {folder}.",
            "Make one with `edge broker authority init`, or name its folder with --authority.",
        )
    certificate = _load_certificate(folder / "ca.pem")
    path = folder / "ca.key"
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _damaged(path, error) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _damaged(path, "it is not an elliptic-curve key")
    if key.public_key() != certificate.public_key():
        raise _damaged(path, "it does not belong to ca.pem")
    return certs.Identity(certificate, key)


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, problem: object) -> TrustError:
    return TrustError(
        "bad-authority",
        f"{path} cannot be used: {problem}.",
        "Restore it from a copy; docs/security.md says what to do when there is none.",
    )


def _changed_at(path: Path) -> datetime:
    return datetime.fromtimestamp(int(path.stat().st_mtime), UTC)


def _in_use(folder: Path) -> StorageError:
    return StorageError(
        "authority-in-use",
        f"Another command is revoking certificates in {folder}.",
        "Run this one again when it has ended.",
    )

"""A release folder against the TUF root that devices are provisioned with: does it stand?"""

from __future__ import annotations

from pathlib import Path

from edge_sdk.bundle.blobs import blob_ref
from edge_sdk.bundle.tuf_metadata import check_signed, parse_targets, target_path
from edge_sdk.bundle.tuf_trust import begin, check_alive, find_target, update_root
from edge_sdk.contracts.manifest import Manifest
from edge_sdk.durable import storage_error
from edge_sdk.errors import TrustError


def check_named(
    metadata: Path, anchor: bytes, manifest: Manifest, envelope: bytes, now_s: float
) -> None:
    """Refuse a release that the publisher's targets beside it do not name.

    Args:
        metadata: the roots since ``anchor``, and the targets, as `edge release sign` copies them.
        anchor: the root in the trust file.
        manifest: the release's.
        envelope: its signed bytes.
        now_s: seconds since the epoch.

    Raises:
        TrustError: the metadata does not hold or has expired; ``trust.no-target`` or
            ``trust.other-target``.
        StorageError: there is none.
    """
    trusted = begin(anchor)
    while (path := metadata / f"{trusted.root.version + 1}.root.json").exists():
        trusted = update_root(trusted, _read(path))
    check_alive(trusted.root, "root", now_s)
    targets = parse_targets(_read(metadata / "targets.json"))
    check_signed(targets, trusted.root.roles["targets"], "targets")
    check_alive(targets, "targets", now_s)
    target = find_target(targets, target_path(manifest.release, manifest.version))
    ref = blob_ref(envelope)
    if (target.sha256, target.length) != (ref.digest, ref.size_bytes):
        raise TrustError(
            "other-target",
            f"The targets name another {manifest.release} {manifest.version} than this one.",
            "Sign it with `edge release sign --keys KEYS`, under a version of its own.",
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise TrustError(
            "no-target",
            f"{path} is not there: no publisher's targets name the release.",
            "Sign it with `edge release sign --keys KEYS`.",
        ) from None
    except OSError as error:
        raise storage_error(error, path) from error

"""What the commands of the key ceremony show."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk.cli.output import Output

if TYPE_CHECKING:
    from tuf.api.metadata import Root, Targets

    from edge_sdk.repository.ring import Ring

DAY_S = 86_400
WARN_DAYS = 60
"""Metadata that expires sooner is pointed out."""
ID_DIGITS = 16


def show(out: Output, ring: Ring) -> None:
    """Who signs for what; and the trust file, brought up to the newest root."""
    from edge_sdk.repository import metadata as md

    pending = ring.pending()
    result: dict[str, Any] = {"pending": ring.missing_signatures(), "changes": ring.changes()}
    root = ring.root().signed if ring.begun or pending is None else pending.signed
    named = "pending" if not ring.begun else f"until {root.expires:%Y-%m-%d}"
    columns = ("role", "must sign", "key id", "private key here")
    out.table(f"Root {root.version}, {named}", columns, _rows(ring, root))
    result["roles"] = {
        role: {"threshold": md.role_threshold(root, role), "keyids": md.role_keyids(root, role)}
        for role in md.KEY_ROLES
    }
    if ring.begun:
        result |= _in_force(out, ring, root)
    if pending is not None:
        _show_pending(out, ring)
    out.result(result)


def _rows(ring: Ring, root: Root) -> list[tuple[object, ...]]:
    from edge_sdk.repository import metadata as md
    from edge_sdk.repository.ring import OFFLINE

    here = ring.private_keys()
    rows: list[tuple[object, ...]] = []
    for role in md.KEY_ROLES:
        keyids = md.role_keyids(root, role)
        asks = f"{md.role_threshold(root, role)} of {len(keyids)}"
        for keyid in keyids:
            if keyid in here:
                path = here[keyid]
                lies = path.name if path.parent == ring.folder else str(path)
            else:
                lies = "-" if role in OFFLINE else "on the server"
            rows.append((role, asks, keyid[:ID_DIGITS], lies))
    return rows


def _in_force(out: Output, ring: Ring, root: Root) -> dict[str, Any]:
    """What goes for a root in force: its trust file, the targets, and what is to be done."""
    trust, targets = write_trust(ring), ring.targets().signed
    out.line(
        f"Targets {targets.version}: {len(targets.targets)} releases,"
        f" until {targets.expires:%Y-%m-%d}. Trust file: {trust}"
    )
    unused = [str(path) for keyid, path in ring.private_keys().items() if keyid not in root.keys]
    if unused and ring.pending() is None:
        out.line(f"These private keys count no more; destroy them: {', '.join(unused)}")
    for line in _expiring(root, targets, ring.folder):
        out.line(line, "yellow")
    return {
        "root": root.version,
        "targets": targets.version,
        "trust": trust,
        "unused": unused,
        "expires": {"root": root.expires.isoformat(), "targets": targets.expires.isoformat()},
    }


def _expiring(root: Root, targets: Targets, folder: Path) -> list[str]:
    found = []
    for role, signed in (("root", root), ("targets", targets)):
        days = (signed.expires.timestamp() - time.time()) / DAY_S
        if days < WARN_DAYS:
            when = f"expires in {days:.0f} days" if days >= 0 else f"expired {-days:.0f} days ago"
            command = f"edge release key renew {folder} --role {role}"
            found.append(f"The {role} metadata {when}: `{command}`")
    return found


def _show_pending(out: Output, ring: Ring) -> None:
    pending = ring.pending()
    if pending is None:
        return
    out.line(f"Pending root {pending.signed.version} changes:", "bold")
    for line in ring.changes():
        out.line(f"  {line}")
    for version, count in ring.missing_signatures().items():
        out.line(f"  {count} more signatures of root {version}'s keys are needed")


def write_trust(ring: Ring) -> Path:
    """The file that devices are provisioned with, holding the newest root."""
    from edge_sdk.bundle.trust import load_trust, save_trust, trust_root

    path, root = ring.folder / "trust.json", ring.roots()[-1]
    if not path.exists() or load_trust(path).root != root:
        save_trust(trust_root([], [], root=root), path, ring.storage)
    return path


def changed(out: Output, ring: Ring, in_force: bool) -> None:
    """Show what a change has led to, and what comes next."""
    from edge_sdk.errors import TrustError

    folder = ring.folder
    if in_force and not ring.targets_hold():
        try:
            ring.renew_targets()
        except TrustError:
            out.line("The targets key must sign anew:", "yellow")
            out.next_step(f"edge release key renew {folder} --key TARGETS.pem")
            show(out, ring)
            return
    show(out, ring)
    if in_force:
        out.next_step(f"edge release key publish {folder}")
    else:
        out.next_step(
            f"edge release key sign {folder} --key KEY.pem",
            f"# or copy {ring.metadata_folder} to the other holders, who sign there, and back",
        )

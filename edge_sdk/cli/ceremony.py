"""``edge release key init|list|add|rotate|revoke|sign|renew|publish``: the key ceremony."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edge_sdk.cli.ceremony_tell import changed, show
from edge_sdk.cli.connect import fleet_options, open_client
from edge_sdk.cli.output import Output, with_output
from edge_sdk.cli.passphrase import FILE, Passphrases, passphrase_options

if TYPE_CHECKING:
    from tuf.api.metadata import Root

    from edge_sdk.repository.metadata import KeyRole
    from edge_sdk.repository.ring import Ring

F = TypeVar("F", bound=Callable[..., Any])
FOLDER = click.Path(path_type=Path, file_okay=False)
ROLE = click.Choice(["root", "targets", "snapshot", "timestamp", "fleet"])


def key_options(function: F) -> F:
    """Add the folder, private keys elsewhere, and the passphrase."""
    function = click.option(
        "--key",
        "elsewhere",
        type=FILE,
        multiple=True,
        help="A private key that lies outside KEYS; repeatable.",
    )(passphrase_options(function))
    return click.argument("keys", type=FOLDER)(function)


def open_ring(
    keys: Path,
    elsewhere: tuple[Path, ...],
    passphrase_file: Path | None,
    passphrase_env: str,
    *,
    to_change: bool = True,
) -> Ring:
    """The ceremony's folder, with keys that unlock by what was given.

    Raises:
        StorageError: ``storage.keys-in-use``: another command changes it at this moment.
    """
    from edge_sdk.durable import DiskStorage, held_lock
    from edge_sdk.errors import StorageError
    from edge_sdk.repository.ring import Ring

    if to_change and keys.is_dir():
        busy = StorageError(
            "keys-in-use", f"Another command is changing {keys}.", "Wait for it, then try again."
        )
        click.get_current_context().with_resource(held_lock(keys / ".lock", busy))
    unlock = Passphrases(passphrase_file, passphrase_env).load
    return Ring(keys, DiskStorage(), unlock, time.time, elsewhere)


@click.command("init")
@click.argument("keys", type=FOLDER)
@click.option(
    "--server-keys",
    type=FOLDER,
    required=True,
    help="Folder with the server's fleet.key.pub, snapshot.key.pub and timestamp.key.pub: its "
    "data folder, or a copy of these files. `edge server keys` makes them.",
)
@click.option(
    "--root-keys",
    type=click.IntRange(0),
    help="Root keys to make here; 2 unless there are others.",
)
@click.option(
    "--root-public",
    "holders",
    type=FILE,
    multiple=True,
    help="Public root key of a holder who made it elsewhere (`edge release key create`); "
    "repeatable.",
)
@click.option("--threshold", default=2, show_default=True, help="Root keys that must sign.")
@passphrase_options
@with_output
def init(
    out: Output,
    keys: Path,
    server_keys: Path,
    root_keys: int | None,
    holders: tuple[Path, ...],
    threshold: int,
    passphrase_file: Path | None,
    passphrase_env: str,
) -> None:
    """Make root and targets keys, the first root, and the trust file for devices."""
    from edge_sdk.bundle.signing import load_public

    online: tuple[KeyRole, ...] = ("fleet", "snapshot", "timestamp")
    public = {role: [load_public(server_keys / f"{role}.key.pub")] for role in online}
    public["root"] = [load_public(path) for path in holders]
    made = root_keys if root_keys is not None else (0 if holders else 2)
    ring = open_ring(keys, (), passphrase_file, passphrase_env)
    ring.check_new(root_keys=made, threshold=threshold, public=public)
    given = Passphrases(passphrase_file, passphrase_env).new(f"the keys in {keys}")
    ring.init(root_keys=made, threshold=threshold, public=public, passphrase=given)
    out.line(f"Keep each private key in {keys} on media of its own, offline, with a copy.")
    if not ring.begun:
        changed(out, ring, False)
        return
    show(out, ring)
    out.next_step(
        f"edge device enroll DEVICE --trust {keys / 'trust.json'} ...",
        f"edge release sign RELEASE --keys {keys}",
    )


@click.command("list")
@key_options
@with_output
def list_keys(out: Output, /, keys: Path, **options: Any) -> None:
    """Show who may sign for what, and until when."""
    ring = open_ring(keys, **options, to_change=False)
    show(out, ring)
    pending = ring.pending() is not None
    out.next_step(f"edge release key {'sign' if pending else 'publish'} {keys}")


@click.command("add")
@key_options
@click.option("--role", type=ROLE, required=True, help="For which the key is to sign.")
@click.option("--public", type=FILE, help="A public key made elsewhere; otherwise one is made.")
@click.option("--threshold", type=click.IntRange(1), help="New number of signatures asked for.")
@with_output
def add(
    out: Output,
    /,
    keys: Path,
    role: KeyRole,
    public: Path | None,
    threshold: int | None,
    **options: Any,
) -> None:
    """Let one more key sign for a role."""
    from edge_sdk.repository import metadata as md
    from edge_sdk.repository.refusals import check_threshold

    ring = open_ring(keys, **options)
    if threshold is not None:
        check_threshold(threshold, len(md.role_keyids(ring.root().signed, role)) + 1, role)
    new = _new_public(ring, role, public, options)

    def edit(root: Root) -> None:
        md.add_key(root, role, new)
        if threshold is not None and role != "fleet":
            root.roles[role].threshold = threshold

    changed(out, ring, ring.change(edit))


@click.command("rotate")
@key_options
@click.option("--role", type=ROLE, required=True, help="Whose key is replaced.")
@click.option("--old", default="", help="Id of the key to replace, or its beginning.")
@click.option("--public", type=FILE, help="A public key made elsewhere; otherwise one is made.")
@with_output
def rotate(
    out: Output, /, keys: Path, role: KeyRole, old: str, public: Path | None, **options: Any
) -> None:
    """Replace a role's key; the old and the new root keys sign."""
    from edge_sdk.repository import metadata as md

    ring = open_ring(keys, **options)
    gone = _find(md.role_keyids(ring.root().signed, role), old, f"{role} keys")
    new = _new_public(ring, role, public, options)

    def edit(root: Root) -> None:
        md.add_key(root, role, new)
        md.remove_key(root, role, gone)

    changed(out, ring, ring.change(edit))


@click.command("revoke")
@key_options
@click.option("--keyid", required=True, help="Id of the key, or its beginning.")
@click.option("--threshold", type=click.IntRange(1), help="New number of signatures asked for.")
@with_output
def revoke(out: Output, /, keys: Path, keyid: str, threshold: int | None, **options: Any) -> None:
    """Let a key sign for nothing any more."""
    from edge_sdk.repository import metadata as md

    ring = open_ring(keys, **options)
    root = ring.root().signed
    gone = _find(sorted(root.keys), keyid, "keys")
    roles = [role for role in md.KEY_ROLES if gone in md.role_keyids(root, role)]

    def edit(root: Root) -> None:
        for role in roles:
            md.remove_key(root, role, gone)
            if threshold is not None and role != "fleet":
                root.roles[role].threshold = threshold

    changed(out, ring, ring.change(edit))


@click.command("sign")
@key_options
@click.option(
    "--from",
    "copies",
    type=FILE,
    multiple=True,
    help="Another holder's pending.root.json, whose signatures are added; repeatable.",
)
@click.option("--discard", is_flag=True, help="Give the pending root up instead.")
@with_output
def sign(
    out: Output, /, keys: Path, copies: tuple[Path, ...], discard: bool, **options: Any
) -> None:
    """Add the signatures that can be made here to a root that lacks some."""
    ring = open_ring(keys, **options)
    if discard:
        ring.discard_pending()
        out.line("The pending root is given up.")
        out.result({"discarded": True})
        out.next_step(f"edge release key list {keys}")
        return
    for line in ring.changes():
        out.line(f"Signing: {line}")
    for copy in copies:
        ring.add_signatures(copy)
    changed(out, ring, ring.sign_pending())


@click.command("renew")
@key_options
@click.option("--role", type=click.Choice(["root", "targets"]), default="targets")
@with_output
def renew(out: Output, /, keys: Path, role: str, **options: Any) -> None:
    """Sign the targets, or the root, anew before they expire."""
    ring = open_ring(keys, **options)
    if role == "targets":
        ring.renew_targets()
        changed(out, ring, True)
    else:
        changed(out, ring, ring.change(lambda root: None))


@click.command("publish")
@click.argument("keys", type=FOLDER)
@fleet_options
@with_output
def publish(out: Output, /, keys: Path, server: str, token: str, data: Path | None) -> None:
    """Give the server the newest root and targets, without a release."""
    from msgspec import to_builtins

    with open_client(server, token, data) as client:
        versions = client.publish_metadata(keys / "metadata")
    out.line(f"In force: root {versions.root}, targets {versions.targets}.")
    out.result(to_builtins(versions))
    out.next_step("edge server status")


def _new_public(ring: Ring, role: KeyRole, public: Path | None, options: dict[str, Any]) -> bytes:
    from edge_sdk.bundle.signing import load_public
    from edge_sdk.errors import UsageError
    from edge_sdk.repository.metadata import role_keyids, tuf_keyid
    from edge_sdk.repository.refusals import same_key
    from edge_sdk.repository.ring import OFFLINE

    if public is not None:
        new = load_public(public)
        if tuf_keyid(new) in role_keyids(ring.root().signed, role):
            raise same_key(role)
        return new
    if role not in OFFLINE:
        raise UsageError(
            "no-public-key",
            f"The {role} key is made on the server.",
            f"`edge server keys --data DATA --replace {role}`, then --public DATA/{role}.key.pub.",
        )
    ring.unlock_root()
    words = Passphrases(options["passphrase_file"], options["passphrase_env"])
    return ring.make_key(role, words.new(f"the new {role} key")).public


def _find(keyids: list[str], beginning: str, what: str) -> str:
    from edge_sdk.errors import UsageError

    found = [keyid for keyid in keyids if keyid.startswith(beginning)]
    if len(found) != 1:
        which = f" have an id that begins with {beginning!r}" if beginning else ""
        raise UsageError(
            "unknown-key",
            f"{len(found)} {what}{which}; which one is meant?",
            f"Give the beginning of one of: {', '.join(keyid[:16] for keyid in keyids)}.",
        )
    return found[0]


COMMANDS = (init, list_keys, add, rotate, revoke, sign, renew, publish)

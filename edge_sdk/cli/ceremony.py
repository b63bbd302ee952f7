"""``edge release key init|list|add|rotate|revoke|sign|renew|publish``: the key ceremony."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edge_sdk.cli.connect import fleet_options, open_client
from edge_sdk.cli.output import Output, with_output

if TYPE_CHECKING:
    from tuf.api.metadata import Root

    from edge_sdk.bundle.signing import SigningKey
    from edge_sdk.repository.metadata import KeyRole
    from edge_sdk.repository.ring import Ring

F = TypeVar("F", bound=Callable[..., Any])
FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
ROLE = click.Choice(["root", "targets", "snapshot", "timestamp", "fleet"])
DEFAULT_VARIABLE = "EDGE_KEY_PASSPHRASE"


def passphrase_options(function: F) -> F:
    """Add where the passphrase of the offline keys comes from."""
    for option in (
        click.option("--passphrase-file", type=FILE, help="File that holds the passphrase."),
        click.option(
            "--passphrase-env",
            default=DEFAULT_VARIABLE,
            show_default=True,
            help="Environment variable that holds it; asked for when neither is there.",
        ),
    ):
        function = option(function)
    return function


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
    keys: Path, elsewhere: tuple[Path, ...], passphrase_file: Path | None, passphrase_env: str
) -> Ring:
    """The ceremony's folder, with keys that unlock by what was given."""
    from edge_sdk.bundle.signing import load_key
    from edge_sdk.durable import DiskStorage
    from edge_sdk.repository.ring import Ring

    def unlock(path: Path) -> SigningKey:
        given = given_passphrase(passphrase_file, passphrase_env)
        if not given:
            given = click.prompt(f"Passphrase of {path.name}", hide_input=True, err=True).encode()
        return load_key(path, given)

    return Ring(keys, DiskStorage(), unlock, time.time, elsewhere)


def given_passphrase(file: Path | None, variable: str) -> bytes:
    """The passphrase from a file or the environment; empty when there is none.

    Raises:
        TrustError: ``trust.no-passphrase``: the file cannot be read.
    """
    from edge_sdk.errors import TrustError

    if file is None:
        return os.environ.get(variable, "").encode()
    try:
        return file.read_bytes().strip()
    except OSError as error:
        raise TrustError(
            "no-passphrase",
            f"Cannot read the passphrase file {file}: {error.strerror or error}.",
            "Correct the path.",
        ) from error


@click.command("init")
@click.argument("keys", type=FOLDER)
@click.option(
    "--server-keys",
    type=FOLDER,
    required=True,
    help="Folder with the server's fleet.key.pub, snapshot.key.pub and timestamp.key.pub: its "
    "data folder, or a copy of these files. `edge server keys` makes them.",
)
@click.option("--root-keys", default=2, show_default=True, help="Root keys to make.")
@click.option("--threshold", default=2, show_default=True, help="Root keys that must sign.")
@passphrase_options
@with_output
def init(
    out: Output,
    keys: Path,
    server_keys: Path,
    root_keys: int,
    threshold: int,
    passphrase_file: Path | None,
    passphrase_env: str,
) -> None:
    """Make root and targets keys, the first root, and the trust file for devices."""
    from edge_sdk.bundle.signing import load_public

    given = given_passphrase(passphrase_file, passphrase_env)
    if not given:
        given = click.prompt(
            "Passphrase for the new keys", hide_input=True, confirmation_prompt=True, err=True
        ).encode()
    online: tuple[KeyRole, ...] = ("fleet", "snapshot", "timestamp")
    public = {role: [load_public(server_keys / f"{role}.key.pub")] for role in online}
    ring = open_ring(keys, (), passphrase_file, passphrase_env)
    ring.init(root_keys=root_keys, threshold=threshold, public=public, passphrase=given)
    _show(out, ring)
    out.line(f"Keep each private key in {keys} on media of its own, offline, with a copy.")
    out.next_step(
        f"edge device enroll DEVICE --trust {keys / 'trust.json'} ...",
        f"edge release sign RELEASE --keys {keys}",
    )


@click.command("list")
@key_options
@with_output
def list_keys(out: Output, /, keys: Path, **options: Any) -> None:
    """Show who may sign for what, and until when."""
    _show(out, open_ring(keys, **options))
    out.next_step(f"edge release key publish {keys}")


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

    ring = open_ring(keys, **options)
    new = _new_public(ring, role, public, options)

    def edit(root: Root) -> None:
        md.add_key(root, role, new)
        if threshold is not None and role != "fleet":
            root.roles[role].threshold = threshold

    _changed(out, ring, ring.change(edit))


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
    gone = _find(md.role_keyids(ring.root().signed, role), old)
    new = _new_public(ring, role, public, options)

    def edit(root: Root) -> None:
        md.add_key(root, role, new)
        md.remove_key(root, role, gone)

    _changed(out, ring, ring.change(edit))


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
    gone = _find(sorted(root.keys), keyid)
    roles = [role for role in md.KEY_ROLES if gone in md.role_keyids(root, role)]

    def edit(root: Root) -> None:
        for role in roles:
            md.remove_key(root, role, gone)
            if threshold is not None and role != "fleet":
                root.roles[role].threshold = threshold

    _changed(out, ring, ring.change(edit))


@click.command("sign")
@key_options
@click.option("--discard", is_flag=True, help="Give the pending root up instead.")
@with_output
def sign(out: Output, /, keys: Path, discard: bool, **options: Any) -> None:
    """Add the signatures that can be made here to a root that lacks some."""
    ring = open_ring(keys, **options)
    if discard:
        ring.discard_pending()
        out.line("The pending root is given up.")
        out.result({"discarded": True})
        out.next_step(f"edge release key list {keys}")
        return
    _changed(out, ring, ring.sign_pending())


@click.command("renew")
@key_options
@click.option("--role", type=click.Choice(["root", "targets"]), default="targets")
@with_output
def renew(out: Output, /, keys: Path, role: str, **options: Any) -> None:
    """Sign the targets, or the root, anew before they expire."""
    ring = open_ring(keys, **options)
    if role == "targets":
        ring.renew_targets()
        _changed(out, ring, True)
    else:
        _changed(out, ring, ring.change(lambda root: None))


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
    from edge_sdk.repository.ring import OFFLINE

    if public is not None:
        return load_public(public)
    if role not in OFFLINE:
        raise UsageError(
            "no-public-key",
            f"The {role} key is made on the server.",
            f"`edge server keys --data DATA --replace {role}`, then --public DATA/{role}.key.pub.",
        )
    given = given_passphrase(options["passphrase_file"], options["passphrase_env"])
    if not given:
        given = click.prompt(
            "Passphrase for the new key", hide_input=True, confirmation_prompt=True, err=True
        ).encode()
    return ring.make_key(role, given).public


def _find(keyids: list[str], beginning: str) -> str:
    from edge_sdk.errors import UsageError

    found = [keyid for keyid in keyids if keyid.startswith(beginning)]
    if len(found) != 1:
        raise UsageError(
            "unknown-key",
            f"{len(found)} keys have an id that begins with {beginning!r}.",
            f"Name one of: {', '.join(keyid[:16] for keyid in keyids)}.",
        )
    return found[0]


def _changed(out: Output, ring: Ring, in_force: bool) -> None:
    from edge_sdk.errors import TrustError

    if in_force and not ring.targets_hold():
        try:
            ring.renew_targets()
        except TrustError:
            out.line("The targets must be signed anew: `edge release key renew` with their key.")
    _show(out, ring)
    if in_force:
        out.next_step(f"edge release key publish {ring.folder}")
        return
    lacking = ring.missing_signatures()
    for version, count in lacking.items():
        out.line(f"Pending: {count} more signatures of root {version}'s keys are needed.")
    out.next_step(f"edge release key sign {ring.folder} --key KEY.pem")


def _show(out: Output, ring: Ring) -> None:
    """Who signs for what; and the trust file, brought up to the newest root."""
    from edge_sdk.bundle.trust import save_trust, trust_root
    from edge_sdk.repository import metadata as md

    rows: list[tuple[object, ...]] = []
    result: dict[str, Any] = {"pending": ring.missing_signatures(), "roles": {}}
    if not ring.begun and ring.pending() is not None:
        out.result(result)
        return
    root, at_hand = ring.root().signed, ring.private_keys()
    for role in md.KEY_ROLES:
        keyids = md.role_keyids(root, role)
        threshold = md.role_threshold(root, role)
        here = sum(keyid in at_hand for keyid in keyids)
        ids = ", ".join(keyid[:16] for keyid in keyids)
        rows.append((role, f"{threshold} of {len(keyids)}", here, ids))
        result["roles"][role] = {"threshold": threshold, "keyids": keyids}
    trust = ring.folder / "trust.json"
    save_trust(trust_root([], [], root=ring.roots()[-1]), trust, ring.storage)
    targets = ring.targets().signed
    columns = ("role", "must sign", "keys here", "key ids")
    out.table(f"Root {root.version}, until {root.expires:%Y-%m-%d}", columns, rows)
    out.line(
        f"Targets {targets.version}: {len(targets.targets)} releases,"
        f" until {targets.expires:%Y-%m-%d}. Trust file: {trust}"
    )
    result |= {"root": root.version, "targets": targets.version, "trust": trust}
    out.result(result)


COMMANDS = (init, list_keys, add, rotate, revoke, sign, renew, publish)

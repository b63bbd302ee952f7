"""``edge release``: create, sign, verify, show and publish releases."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_sdk.cli import ceremony, mirror_layout
from edge_sdk.cli.output import Output, with_output
from edge_sdk.cli.passphrase import FILE, Passphrases, passphrase_options

if TYPE_CHECKING:
    from edge_sdk.bundle.deltas import Saving
    from edge_sdk.bundle.release import Release
    from edge_sdk.contracts.manifest import Manifest
    from edge_sdk.contracts.operating_point import OperatingPoint

FOLDER = click.Path(path_type=Path, file_okay=False)


class _WithPublish(click.Group):
    """Adds ``publish``, which talks to a server and is imported only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), "publish"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "publish":
            return super().get_command(ctx, cmd_name)
        module = importlib.import_module("edge_sdk.cli.publish")
        publish: click.Command = module.publish
        return publish


@click.group(cls=_WithPublish)
def command() -> None:
    """Create, sign and publish releases."""


@command.group()
def key() -> None:
    """Signing keys and trust files: a TUF repository's, or single keys for small sites."""


command.add_command(mirror_layout.mirror)

for _ceremony in ceremony.COMMANDS:
    key.add_command(_ceremony)


@key.command("create")
@click.argument("path", type=FILE)
@click.option("--passphrase", is_flag=True, help="Protect the private key by a passphrase.")
@with_output
def key_create(out: Output, path: Path, passphrase: bool) -> None:
    """Make an Ed25519 key: PATH (private) and PATH.pub (public)."""
    from edge_sdk.bundle.signing import generate_key, public_path, save_key

    new = generate_key()
    save_key(new, path, Passphrases().new(f"{path}") if passphrase else None)
    out.line(f"key id       {new.keyid}")
    out.line(f"private key  {path}  (keep it secret, keep a copy)")
    out.line(f"public key   {public_path(path)}")
    out.result({"keyid": new.keyid, "private": path, "public": public_path(path)})
    out.next_step(
        f"edge release key trust --release-key {public_path(path)} -o trust.json",
        f"edge release sign RELEASE --key {path}",
    )


@key.command("show")
@click.argument("path", type=FILE)
@with_output
def key_show(out: Output, path: Path) -> None:
    """Show a key's id and its public half."""
    import base64

    from edge_sdk.bundle.signing import keyid, load_public, public_path

    public = load_public(public_path(path) if public_path(path).exists() else path)
    encoded = base64.b64encode(public).decode()
    out.line(f"key id      {keyid(public)}")
    out.line(f"public key  {encoded}")
    out.result({"keyid": keyid(public), "public": encoded})
    out.next_step(f"edge release key trust --release-key {path} -o trust.json")


@key.command("trust")
@click.option("--release-key", "release_keys", type=FILE, multiple=True, help="May sign releases.")
@click.option("--fleet-key", "fleet_keys", type=FILE, multiple=True, help="May direct devices.")
@click.option("--threshold", default=1, show_default=True, help="Release signatures needed.")
@click.option("-o", "--out", "path", type=FILE, default=Path("trust.json"), show_default=True)
@with_output
def key_trust(
    out: Output,
    release_keys: tuple[Path, ...],
    fleet_keys: tuple[Path, ...],
    threshold: int,
    path: Path,
) -> None:
    """Write the trust file that devices and `edge release verify` check signatures with."""
    from edge_sdk.bundle.signing import load_public
    from edge_sdk.bundle.trust import save_trust, trust_root
    from edge_sdk.durable import DiskStorage

    root = trust_root(map(load_public, release_keys), map(load_public, fleet_keys), threshold)
    save_trust(root, path, DiskStorage())
    out.line(f"{path}: {threshold} of {len(root.release_keys)} release keys must sign,")
    out.line(f"  {len(root.fleet_keys)} fleet keys may direct devices")
    out.result(
        {
            "path": path,
            "release_keys": sorted(root.release_keys),
            "release_threshold": threshold,
            "fleet_keys": sorted(root.fleet_keys),
        }
    )
    out.next_step(f"edge release verify RELEASE --trust {path}")


@command.command()
@click.argument("conversion", type=FOLDER)
@click.option("-o", "--out", "folder", type=FOLDER, required=True, help="Folder to create.")
@click.option("--name", required=True, help="Name of the line of releases, e.g. digits.")
@click.option("--version", required=True, help="What people call it, e.g. 2 or 1.4.0.")
@click.option("--sequence", type=click.IntRange(min=0), help="Default: the current Unix time.")
@click.option("--whole", is_flag=True, help="No recipes: for agents older than this version.")
@click.option(
    "--base",
    "bases",
    type=FOLDER,
    multiple=True,
    help="An earlier release: devices that run it fetch deltas.",
)
@click.option("--no-compare", is_flag=True, help="Do not measure bsdiff4, xdelta3 and zstd, too.")
@click.option(
    "--mirror",
    default="",
    help="http(s) address below which devices also find the blobs; see `edge release mirror`.",
)
@with_output
def create(
    out: Output,
    conversion: Path,
    folder: Path,
    name: str,
    version: str,
    sequence: int | None,
    whole: bool,
    bases: tuple[Path, ...],
    no_compare: bool,
    mirror: str,
) -> None:
    """Build a release folder from the folder of a finished CONVERSION."""
    from edge_sdk.bundle.deltas import BaseRelease, find_deltas
    from edge_sdk.bundle.release import BLOBS_NAME, create_release, open_release

    opened = [open_release(base) for base in bases]
    known = [BaseRelease(each.manifest, each.folder / BLOBS_NAME) for each in opened]
    savings: list[Saving] = []
    with out.progress("Release", total=None) as progress:

        def told(saving: Saving) -> None:
            savings.append(saving)
            progress.step(f"delta for {saving.name}")

        create_release(
            conversion,
            folder,
            name=name,
            version=version,
            sequence=sequence,
            whole=whole,
            deltas=lambda artifacts, files: find_deltas(
                artifacts, files, known, compare=not no_compare, told=told
            ),
            mirror=mirror,
            notify=lambda done: progress.step(done),
        )
    if bases:
        _show_savings(out, savings)
    _show(out, open_release(folder), savings)
    out.next_step(*_ways_to_sign(folder))


@command.command()
@click.argument("folder", type=FOLDER)
@click.option("--key", "key_path", type=FILE, help="Private key to sign with.")
@click.option(
    "--keys",
    type=FOLDER,
    help="Folder of `edge release key init`: name the release in its targets, and sign them.",
)
@click.option("--offline-key", "elsewhere", type=FILE, multiple=True, help="Targets key elsewhere.")
@passphrase_options
@with_output
def sign(
    out: Output,
    folder: Path,
    key_path: Path | None,
    keys: Path | None,
    elsewhere: tuple[Path, ...],
    passphrase_file: Path | None,
    passphrase_env: str,
) -> None:
    """Verify a release's content and sign it, by one key or through a repository's targets."""
    from edge_sdk.bundle.release import sign_release
    from edge_sdk.errors import UsageError

    if (key_path is None) == (keys is None):
        raise UsageError(
            "key-or-keys", "Exactly one of --key and --keys is needed.", "Give one of them."
        )
    if keys is not None:
        ring = ceremony.open_ring(keys, elsewhere, passphrase_file, passphrase_env)
        path, version = ring.sign_folder(folder)
        out.line(f"Signed {folder}: {path} in targets {version}, copied to {folder}/metadata.")
        out.result({"folder": folder, "target": path, "targets_version": version})
        out.next_step(f"edge release publish {folder}")
        return
    signing_key = Passphrases(passphrase_file, passphrase_env).load(key_path or Path())
    envelope = sign_release(folder, signing_key)
    signers = [signature.keyid for signature in envelope.signatures]
    out.line(f"Signed {folder} with {signing_key.keyid}; signatures: {', '.join(signers)}")
    out.result({"folder": folder, "keyid": signing_key.keyid, "signatures": signers})
    out.next_step(
        f"edge release verify {folder} --trust trust.json",
        f"edge release publish {folder}",
    )


@command.command()
@click.argument("folder", type=FOLDER)
@click.option("--trust", "trust_path", type=FILE, required=True, help="The trust file.")
@with_output
def verify(out: Output, folder: Path, trust_path: Path) -> None:
    """Check a release as a device would: signatures, consistency, every byte."""
    from edge_sdk.bundle.release import open_release
    from edge_sdk.bundle.trust import load_trust

    trust = load_trust(trust_path)
    with out.progress("Verify", total=None) as progress:
        release = open_release(folder, trust, notify=lambda digest: progress.step(digest[:12]))
    out.line(f"Good: {len(release.manifest.blobs)} blobs and the signatures hold.", "green")
    _show(out, release)
    out.next_step(f"edge release publish {folder}")


@command.command()
@click.argument("folder", type=FOLDER)
@with_output
def show(out: Output, folder: Path) -> None:
    """Show what a release contains."""
    from edge_sdk.bundle.release import open_release

    release = open_release(folder)
    _show(out, release)
    if release.envelope is None:
        out.next_step(*_ways_to_sign(folder))
    else:
        out.next_step(f"edge release publish {folder}")


def _ways_to_sign(folder: Path) -> tuple[str, str]:
    return (
        f"edge release sign {folder} --keys KEYS   # of `edge release key init`",
        f"edge release sign {folder} --key KEY.pem   # one pinned key, for a small site",
    )


def _show_savings(out: Output, savings: Sequence[Saving]) -> None:
    rows = []
    for each in savings:
        tool, size = min(each.rivals.items(), key=lambda rival: rival[1], default=("-", 0))
        rival = f"{size} ({tool})" if size else "-"
        delta = "-" if each.delta_bytes is None else str(each.delta_bytes)
        rows.append((each.name, each.base, each.full_bytes, rival, delta, each.saved_bytes))
    columns = ("file", "from version", "full", "best general tool", "delta", "saved")
    out.table("Bytes that a device with an earlier release fetches", columns, rows)


def _show(out: Output, release: Release, savings: Sequence[Saving] = ()) -> None:
    manifest = release.manifest
    signers = [each.keyid for each in release.envelope.signatures] if release.envelope else []
    out.line(
        f"{manifest.release} {manifest.version} (sequence {manifest.sequence}, "
        f"{len(manifest.blobs)} blobs, {release.size_bytes / 1024:.0f} KiB, "
        f"{len(manifest.derived)} files built on the device), "
        f"signed by: {', '.join(signers) or 'nobody'}"
    )
    if manifest.mirror:
        out.line(f"mirror: {manifest.mirror}")
    rows = [
        (
            *(profile, len(ladder), f"{_download_bytes(manifest, ladder) / 1024:.0f}"),
            *(ladder[0].id, f"{ladder[0].accuracy:.4f}", ladder[-1].id),
        )
        for profile, ladder in sorted(manifest.ladders.items())
    ]
    columns = ("profile", "points", "KiB", "best", "accuracy", "cheapest")
    out.table("Ladders, and what a device fetches for them", columns, rows)
    deltas = [{**asdict(each), "saved_bytes": each.saved_bytes} for each in savings]
    out.result(_summary(release, signers) | {"deltas": deltas})


def _download_bytes(manifest: Manifest, ladder: tuple[OperatingPoint, ...]) -> int:
    from edge_sdk.bundle.needs import needed_refs

    return sum(ref.size_bytes for ref in needed_refs(manifest, ladder))


def _summary(release: Release, signers: list[str]) -> dict[str, Any]:
    manifest = release.manifest
    return {
        "folder": release.folder,
        "release": manifest.release,
        "version": manifest.version,
        "sequence": manifest.sequence,
        "created": manifest.created,
        "blobs": len(manifest.blobs),
        "size_bytes": release.size_bytes,
        "derived": len(manifest.derived),
        "mirror": manifest.mirror,
        "download_bytes": {
            profile: _download_bytes(manifest, ladder)
            for profile, ladder in manifest.ladders.items()
        },
        "signatures": signers,
        "ladders": {name: [p.id for p in ladder] for name, ladder in manifest.ladders.items()},
    }

"""Release folders: a manifest, its signatures, and the blobs it names.

::

    RELEASE/
      manifest.json      the manifest's exact bytes, for people and tools to read
      envelope.json      the signed envelope around those bytes; what devices fetch and verify
      metadata/          TUF roots and targets that name it, where it was signed with `--keys`
      blobs/<digest>     artifacts, golden files, and recipes for those that are built on the device
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edge_sdk.bundle.blobs import BlobStore, blob_ref
from edge_sdk.bundle.check import check_manifest
from edge_sdk.bundle.needs import artifacts_of
from edge_sdk.bundle.pack import Packing, SourceFile, pack
from edge_sdk.bundle.signing import SigningKey, add_signature, sign
from edge_sdk.bundle.trust import open_envelope, verify_manifest
from edge_sdk.bundle.tuf_release import check_named
from edge_sdk.contracts.base import decode, encode
from edge_sdk.contracts.conversion import Conversion
from edge_sdk.contracts.envelope import MANIFEST_TYPE, Envelope
from edge_sdk.contracts.manifest import Artifact, BlobRef, DeltaRef, Manifest
from edge_sdk.contracts.mirror import check_mirror
from edge_sdk.contracts.topics import check_name
from edge_sdk.contracts.trust import TrustRoot
from edge_sdk.durable import DiskStorage, Storage, storage_error, sync_folder
from edge_sdk.errors import ContractError, StorageError, TrustError

MANIFEST_NAME = "manifest.json"
ENVELOPE_NAME = "envelope.json"
BLOBS_NAME = "blobs"
METADATA_NAME = "metadata"
CONVERSION_NAME = "conversion.json"

DeltaFinder = Callable[
    [Mapping[str, Artifact], Mapping[str, Path]], Iterable[tuple[DeltaRef, bytes]]
]
"""Given the artifacts and the files that travel whole, by digest."""
Notify = Callable[[str], None]
"""Told the name of each file as it is done, for a progress display."""


@dataclass(frozen=True, slots=True)
class Release:
    """An opened release folder."""

    folder: Path
    manifest: Manifest
    payload: bytes
    """The manifest's exact bytes."""
    envelope: Envelope | None
    """None while the release is unsigned."""
    envelope_bytes: bytes | None

    @property
    def envelope_ref(self) -> BlobRef:
        """What a desired state names: the signed envelope's bytes as a blob.

        Raises:
            TrustError: ``trust.unsigned``.
        """
        if self.envelope_bytes is None:
            raise _unsigned(self.folder)
        return blob_ref(self.envelope_bytes)

    @property
    def size_bytes(self) -> int:
        """All blobs together."""
        return sum(ref.size_bytes for ref in self.manifest.blobs.values())

    def blob_path(self, digest: str) -> Path:
        """Where a blob lies."""
        return self.folder / BLOBS_NAME / digest


def create_release(
    conversion_folder: Path,
    out_folder: Path,
    *,
    name: str,
    version: str,
    sequence: int | None = None,
    storage: Storage | None = None,
    whole: bool = False,
    deltas: DeltaFinder = lambda _artifacts, _files: (),
    mirror: str = "",
    notify: Notify = lambda _: None,
) -> Manifest:
    """Build an unsigned release folder from a finished conversion; it appears at once or not.

    Args:
        conversion_folder: what ``edge model convert`` left behind.
        out_folder: must not exist.
        name: the line of releases.
        version: what people will call it.
        sequence: orders the releases of one name; the current Unix time when not given, so that
            two machines need not agree on a counter.
        storage: through which files are written.
        whole: ship every file itself, for devices whose agent is too old for recipes.
        deltas: finds shorter ways from earlier releases, see :mod:`edge_sdk.bundle.deltas`.
        mirror: base URL below which the blobs will lie, named by their digests; empty for none.
        notify: told each file's name when it is in place.

    Raises:
        ContractError: the conversion is malformed, incomplete or was changed afterwards.
        StorageError: ``storage.folder-exists``, or a failed write.
        ConfigError: ``config.bad-name`` or ``config.bad-mirror``.
    """
    check_name(name, "release name")
    check_name(version, "version")
    mirror = check_mirror(mirror) if mirror else ""
    conversion = read_conversion(conversion_folder)
    storage = storage or DiskStorage()
    files = dict(source_files(conversion, conversion_folder))
    with _new_folder(out_folder) as building:
        packing = _pack(conversion, files, whole, notify)
        blobs = BlobStore(building / BLOBS_NAME, storage)
        refs = dict(_put_files(packing, conversion_folder, blobs, notify))
        shorter = []
        paths = {file.ref.digest: file.path for file in packing.whole}
        for way, data in deltas(conversion.artifacts, paths):
            refs[way.delta] = blobs.put(data)
            shorter.append(way)
        manifest = Manifest(
            release=name,
            version=version,
            sequence=int(time.time()) if sequence is None else sequence,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            task=conversion.task,
            blobs=refs,
            artifacts=conversion.artifacts,
            ladders=conversion.ladders,
            derived=packing.derived,
            deltas=tuple(shorter),
            mirror=mirror,
            provenance=conversion.provenance,
        )
        check_manifest(manifest)
        storage.write(building / MANIFEST_NAME, encode(manifest))
    return manifest


def sign_release(folder: Path, key: SigningKey, *, storage: Storage | None = None) -> Envelope:
    """Verify a release folder's content and add ``key``'s signature to its envelope.

    Raises:
        StorageError, TrustError, ContractError: as :func:`open_release`; nothing is signed then.
    """
    release = open_release(folder)
    if release.envelope is None:
        envelope = sign(MANIFEST_TYPE, release.payload, key)
    else:
        envelope = add_signature(release.envelope, key)
    (storage or DiskStorage()).write(folder / ENVELOPE_NAME, encode(envelope))
    return envelope


def open_release(
    folder: Path, trust: TrustRoot | None = None, *, notify: Notify = lambda _: None
) -> Release:
    """Read a release folder and verify all of it: every blob, every recipe, and the envelope.

    Args:
        folder: as written by :func:`create_release`.
        trust: when given, the signatures must satisfy it as well.
        notify: told each blob's digest when it has been verified.

    Raises:
        StorageError: ``storage.not-a-release``, or a missing or unreadable blob.
        ContractError: the manifest or envelope is malformed, too new or inconsistent.
        TrustError: a blob is damaged, a recipe makes something else, the envelope holds another
            manifest, the release is unsigned though ``trust`` is given, or its signatures do not
            hold.
    """
    payload = _read(folder / MANIFEST_NAME)
    manifest = decode(payload, Manifest, str(folder / MANIFEST_NAME))
    check_manifest(manifest)
    envelope_bytes = _read_envelope(folder)
    envelope = None
    if envelope_bytes is not None:
        envelope = open_envelope(envelope_bytes, str(folder / ENVELOPE_NAME))
        if envelope.payload != payload:
            raise TrustError(
                "other-manifest",
                f"{folder / ENVELOPE_NAME} does not hold the bytes of {MANIFEST_NAME}.",
                "One of them was changed; build and sign the release again.",
            )
    if trust is not None:
        if envelope_bytes is None:
            raise _unsigned(folder)
        _check_trusted(folder, trust, manifest, envelope_bytes)
    blobs = BlobStore(folder / BLOBS_NAME, DiskStorage())
    for ref in manifest.blobs.values():
        blobs.verify(ref.digest)
        notify(ref.digest)
    if manifest.derived:
        _check_recipes(manifest, blobs, notify)
    return Release(folder, manifest, payload, envelope, envelope_bytes)


def _check_trusted(folder: Path, trust: TrustRoot, manifest: Manifest, envelope: bytes) -> None:
    """By the publisher's targets where there is a TUF root, else by the pinned keys."""
    if trust.root:
        check_named(folder / METADATA_NAME, trust.root, manifest, envelope, time.time())
    else:
        verify_manifest(envelope, trust)


def _check_recipes(manifest: Manifest, blobs: BlobStore, notify: Notify) -> None:
    # Imported here because it needs numpy, which releases without recipes do without.
    from edge_sdk.bundle.shelf import Shelf

    shelf = Shelf(blobs, manifest.derived)
    for digest in manifest.derived:
        shelf.check(digest)
        notify(digest)


def read_conversion(folder: Path) -> Conversion:
    """What `edge model convert` wrote about its folder.

    Raises:
        ContractError: ``contract.no-conversion``, or it is malformed.
    """
    path = folder / CONVERSION_NAME
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ContractError(
            "no-conversion",
            f"{folder} is not a finished conversion: cannot read {path.name}"
            f" ({error.strerror or error}).",
            "Give the folder that `edge model convert` wrote.",
        ) from error
    return decode(data, Conversion, str(path))


def source_files(conversion: Conversion, folder: Path) -> Iterator[tuple[str, SourceFile]]:
    """Every file an artifact needs, each held to the digest the conversion recorded.

    Raises:
        ContractError: ``contract.incomplete-conversion``.
    """
    for artifact in conversion.artifacts.values():
        for digest, kind in ((artifact.digest, artifact.format), (artifact.golden, "golden")):
            name = conversion.files.get(digest)
            if name is None:
                raise _incomplete(folder, f"no file is listed for {digest[:12]}")
            path = (folder / name).resolve()
            if not path.is_relative_to(folder.resolve()):
                raise _incomplete(folder, f"{name!r} lies outside it")
            try:
                ref = blob_ref(path)
            except OSError as error:
                raise _incomplete(folder, f"{name}: {error.strerror or error}") from error
            if ref.digest != digest:
                raise _changed(folder, name)
            yield digest, SourceFile(path, ref, kind)


def _pack(
    conversion: Conversion, files: dict[str, SourceFile], whole: bool, notify: Notify
) -> Packing:
    if whole:
        return Packing(whole=list(files.values()))
    artifacts = conversion.artifacts
    ladders = [
        [
            digest
            for needed in artifacts_of(conversion.task, ladder)
            if (artifact := artifacts.get(needed)) is not None
            for digest in (artifact.digest, artifact.golden)
        ]
        for ladder in conversion.ladders.values()
    ]
    return pack(files, ladders, notify)


def _put_files(
    packing: Packing, folder: Path, blobs: BlobStore, notify: Notify
) -> Iterator[tuple[str, BlobRef]]:
    for file in packing.whole:
        ref = blobs.put(file.path.read_bytes())
        if ref != file.ref:
            raise _changed(folder, file.path.name)
        notify(file.path.name)
        yield ref.digest, ref
    for recipe in packing.recipes.values():
        ref = blobs.put(recipe)
        yield ref.digest, ref


def _changed(folder: Path, name: str) -> ContractError:
    return _incomplete(folder, f"{name} was changed after the conversion")


def _incomplete(folder: Path, problem: str) -> ContractError:
    return ContractError(
        "incomplete-conversion",
        f"The conversion in {folder} cannot be released: {problem}.",
        "Run `edge model convert` again.",
    )


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """A folder that becomes ``path`` when the block ends well and vanishes when it does not."""
    if path.exists():
        raise StorageError(
            "folder-exists",
            f"{path} exists already.",
            "Choose another folder; a release is never overwritten.",
        )
    building = path.with_name(f".{path.name}.partial")
    try:
        shutil.rmtree(building, ignore_errors=True)  # of a run that was killed
        building.mkdir(parents=True)
        yield building
        building.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(
            "not-a-release",
            f"{path.parent} is not a release: cannot read {path.name} ({error.strerror or error}).",
            "Give a folder that `edge release create` wrote.",
        ) from error


def _read_envelope(folder: Path) -> bytes | None:
    path = folder / ENVELOPE_NAME
    return _read(path) if path.exists() else None


def _unsigned(folder: Path) -> TrustError:
    return TrustError(
        "unsigned",
        f"The release in {folder} is not signed.",
        "Sign it with `edge release sign`.",
    )

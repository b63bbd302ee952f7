"""An enhancer before a network that listens: both in one conversion, and so in one release."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from msgspec.structs import replace

from converters.publish import CONVERSION_NAME
from edge_sdk.bundle.release import read_conversion, source_files
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.conversion import Conversion
from edge_sdk.contracts.manifest import Artifact
from edge_sdk.durable import DiskStorage, Storage
from edge_sdk.errors import ConversionError

FOLDER: Final = "filter"


def add_filter(
    listens: Path, enhancer: Path, *, scheme: str = "", storage: Storage | None = None
) -> tuple[Artifact, ...]:
    """Put a filter into the conversion of a network that listens, in place of one it has.

    Per runtime that the network's ladders use, the cheapest file of the enhancer's ladders; the
    gate has let all of them pass.

    Args:
        listens: folder of its conversion, which is changed.
        enhancer: folder of the enhancer's conversion.
        scheme: only files of this scheme; empty leaves the choice.
        storage: through which files are written.

    Returns:
        The files that were chosen.

    Raises:
        ConversionError: ``conversion.no-filter``; nothing is changed then.
        ContractError: ``contract.no-conversion``, ``contract.incomplete-conversion`` where a file
            of the enhancer is missing or changed, or a conversion is malformed.
        StorageError: the write failed.
    """
    target, source = read_conversion(listens), read_conversion(enhancer)
    if target.task.sound is None or source.task.enhance is None:
        raise _no_filter(
            f"{listens} listens to nothing"
            if target.task.sound is None
            else f"{enhancer} cleans no speech"
        )
    rates = (target.task.sound.features.sample_rate_hz, source.task.enhance.spec.sample_rate_hz)
    if rates[0] != rates[1]:
        raise _no_filter(f"{listens} hears {rates[0]} Hz, {enhancer} cleans {rates[1]} Hz")
    runtimes = {point.runtime for ladder in target.ladders.values() for point in ladder}
    chosen = {name: _cheapest(source, name, scheme) for name in sorted(runtimes)}
    missing = [name for name, found in chosen.items() if found is None]
    if missing:
        raise _no_filter(f"{enhancer} has no {scheme or 'file'} for {missing[0]}")
    artifacts = [found for found in chosen.values() if found is not None]
    storage = storage or DiskStorage()
    files = dict(_copied(source, enhancer, listens, artifacts, storage))
    before = target.task.enhance.artifacts.values() if target.task.enhance else ()
    kept = {digest: one for digest, one in target.artifacts.items() if digest not in before}
    enhance = replace(source.task.enhance, artifacts={one.runtime: one.digest for one in artifacts})
    merged = replace(
        target,
        task=replace(target.task, enhance=enhance),
        artifacts=kept | {one.digest: one for one in artifacts},
        files=target.files | files,
    )
    storage.write(listens / CONVERSION_NAME, encode(merged))
    return tuple(artifacts)


def _cheapest(source: Conversion, runtime: str, scheme: str) -> Artifact | None:
    """The last of a ladder for this runtime, ladders being sorted from faithful to cheap."""
    for ladder in source.ladders.values():
        for point in reversed(ladder):
            if point.runtime == runtime and scheme in ("", point.scheme):
                return source.artifacts[point.artifact]
    return None


def _copied(
    source: Conversion, enhancer: Path, listens: Path, artifacts: list[Artifact], storage: Storage
) -> dict[str, str]:
    wanted = replace(source, artifacts={one.digest: one for one in artifacts})
    sound = dict(source_files(wanted, enhancer))  # all of them, before the first is written
    found = {}
    for digest, file in sound.items():
        name = f"{FOLDER}/{file.path.name}"
        storage.write(listens / name, file.path.read_bytes())
        found[digest] = name
    return found


def _no_filter(what: str) -> ConversionError:
    return ConversionError(
        "no-filter",
        f"{what}.",
        "Name the conversion of a network that listens, then that of an enhancer for the same "
        "runtimes (docs/enhancement.md).",
    )

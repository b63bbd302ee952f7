"""Which blobs of a release a device has to have, given the points it runs.

Host and device use the same rule: the host to see which files must be shipped whole as well, the
device to fetch the smaller of both ways.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from edge_sdk.contracts.manifest import (
    DELTA_CODEC,
    BlobRef,
    DeltaRef,
    Derivation,
    Manifest,
    TaskInfo,
)
from edge_sdk.contracts.operating_point import OperatingPoint


def needed_refs(manifest: Manifest, points: Iterable[OperatingPoint]) -> tuple[BlobRef, ...]:
    """Blobs that a device running ``points`` needs, each once, best point first.

    Args:
        manifest: a consistent release.
        points: a ladder of it.
    """
    sizes = {digest: ref.size_bytes for digest, ref in manifest.blobs.items()}
    chosen = choose_blobs(files_of(manifest, points), sizes, manifest.derived)
    return tuple(manifest.blobs[digest] for digest in chosen)


def files_of(manifest: Manifest, points: Iterable[OperatingPoint]) -> list[str]:
    """Digests of the artifacts and golden files of ``points``, each once, in order."""
    files: dict[str, None] = {}
    for digest in artifacts_of(manifest.task, points):
        artifact = manifest.artifacts[digest]
        files |= {artifact.digest: None, artifact.golden: None}
    return list(files)


def artifacts_of(task: TaskInfo, points: Iterable[OperatingPoint]) -> list[str]:
    """Digests of what ``points`` run, and of the filters that clean the sound before them."""
    filters = task.enhance.artifacts if task.enhance is not None else {}
    found: dict[str, None] = {}
    for point in points:
        found[point.artifact] = None
        if point.runtime in filters:
            found[filters[point.runtime]] = None
    return list(found)


def whole_bytes(manifest: Manifest, points: Iterable[OperatingPoint]) -> int:
    """Size of the files of ``points`` when each travels whole."""
    blobs, derived = manifest.blobs, manifest.derived
    return sum(
        (blobs[digest] if digest in blobs else derived[digest]).size_bytes
        for digest in files_of(manifest, points)
    )


def choose_deltas(
    manifest: Manifest, missing: Mapping[str, int], there: Callable[[str], bool]
) -> dict[str, DeltaRef]:
    """The smallest usable delta for each blob that it makes cheaper, by the blob's digest.

    Args:
        manifest: a consistent release.
        missing: bytes still to be fetched, for each blob of it that is needed.
        there: whether a blob, perhaps of another release, is on the device.
    """
    chosen: dict[str, DeltaRef] = {}
    least = dict(missing)
    for each in manifest.deltas:
        size = manifest.blobs[each.delta].size_bytes
        known = each.codec == DELTA_CODEC and each.target in least
        if known and size < least[each.target] and there(each.base):
            chosen[each.target], least[each.target] = each, size
    return chosen


def choose_blobs(
    files: Iterable[str], sizes: Mapping[str, int], derived: Mapping[str, Derivation]
) -> list[str]:
    """Digests of the blobs to fetch so that every file is there or can be built.

    Files of one base are built together or fetched together, whichever is less; the base costs
    nothing where it is a wanted file itself.

    Args:
        files: digests of the files wanted.
        sizes: of the blobs there are, by digest.
        derived: how files can be built.
    """
    wanted = dict.fromkeys(files)
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for digest in wanted:
        if digest in derived:
            groups[derived[digest].base].append(digest)
    whole = {digest for digest in wanted if digest not in derived}
    for base, members in groups.items():
        recipes = {derived[digest].recipe for digest in members}
        through = sum(sizes[digest] for digest in recipes | ({base} - whole))
        there = all(digest in sizes for digest in members)
        if there and sum(sizes[digest] for digest in members) <= through:
            whole.update(members)
    chosen: dict[str, None] = {}
    for digest in wanted:
        if digest in whole:
            chosen[digest] = None
        else:
            chosen |= {derived[digest].base: None, derived[digest].recipe: None}
    return list(chosen)

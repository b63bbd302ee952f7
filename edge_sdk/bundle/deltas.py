"""Deltas from earlier releases: found by the publisher, for the files that devices would fetch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.bundle.blobs import blob_ref
from edge_sdk.contracts.manifest import Artifact, BlobRef, DeltaRef, Manifest

MOST_SHARE = 0.9
"""A delta is shipped below this share of its file."""
MAX_CANDIDATES = 3
"""Files of one release that are tried as the base of one file."""


@dataclass(frozen=True, slots=True)
class Saving:
    """What came of looking for a delta."""

    name: str
    """What the file is, for people."""
    base: str
    """Version of the release that the base is from."""
    full_bytes: int
    delta_bytes: int | None
    """None when none is worth shipping."""
    rivals: Mapping[str, int]
    """Bytes by general tools."""

    @property
    def saved_bytes(self) -> int:
        """What a device with that release saves."""
        return 0 if self.delta_bytes is None else self.full_bytes - self.delta_bytes


@dataclass(frozen=True, slots=True)
class BaseRelease:
    """An opened release that devices may run."""

    manifest: Manifest
    blobs: Path
    """Folder of its blobs."""


def find_deltas(
    artifacts: Mapping[str, Artifact],
    files: Mapping[str, Path],
    bases: Sequence[BaseRelease],
    *,
    compare: bool = False,
    told: Callable[[Saving], None] = lambda _: None,
) -> Iterator[tuple[DeltaRef, bytes]]:
    """The smallest delta for each new file from each earlier release, where one is worth it.

    Args:
        artifacts: of the new release, by digest.
        files: what travels whole, by digest.
        bases: earlier releases.
        compare: measure general tools, too, for :attr:`Saving.rivals`.
        told: told what came of each file.
    """
    roles = _roles(artifacts)
    for digest, path in files.items():
        target = path.read_bytes()
        for base in bases:
            candidates = _candidates(base.manifest, roles.get(digest, set()), digest, len(target))
            if not candidates:
                continue
            olds = [(ref, (base.blobs / ref.digest).read_bytes()) for ref in candidates]
            found = _smallest(olds, target)
            rivals = _rivals([old for _, old in olds], target) if compare else {}
            size = len(found[1]) if found is not None else None
            name = " ".join(map(str, min(roles[digest])))
            told(Saving(name, base.manifest.version, len(target), size, rivals))
            if found is not None:
                ref, delta = found
                made = blob_ref(delta).digest
                yield DeltaRef(target=digest, base=ref.digest, delta=made), delta


def _smallest(olds: Sequence[tuple[BlobRef, bytes]], target: bytes) -> tuple[BlobRef, bytes] | None:
    # Imported here because it needs numpy, which releases without deltas do without.
    from edge_sdk.delta.find import DeltaBase

    best = None
    for ref, old in olds:
        delta = DeltaBase(old).delta(target)
        if delta is not None and (best is None or len(delta) < len(best[1])):
            best = ref, delta
    return best if best is not None and len(best[1]) < MOST_SHARE * len(target) else None


def _rivals(olds: Sequence[bytes], target: bytes) -> dict[str, int]:
    from edge_sdk.delta.rivals import rival_sizes

    best: dict[str, int] = {}
    for old in olds:
        for tool, size in rival_sizes(old, target).items():
            best[tool] = min(size, best.get(tool, size))
    return best


def _roles(artifacts: Mapping[str, Artifact]) -> dict[str, set[tuple[object, ...]]]:
    """What each file is for: files of two releases with the same role succeed each other."""
    roles: dict[str, set[tuple[object, ...]]] = {}
    for artifact in artifacts.values():
        size = f"{artifact.height_px}x{artifact.width_px}"
        role = (artifact.format, artifact.runtime, artifact.scheme, size)
        roles.setdefault(artifact.digest, set()).add(("model", *role))
        roles.setdefault(artifact.golden, set()).add(("vectors", *role))
    return roles


def _candidates(
    base: Manifest, roles: set[tuple[object, ...]], digest: str, size: int
) -> list[BlobRef]:
    """Stored files of a release with one of these roles, those nearest in size first."""
    if digest in base.blobs:
        return []  # a device with that release has it
    found = [
        base.blobs[old]
        for old, theirs in _roles(base.artifacts).items()
        if old in base.blobs and theirs & roles
    ]
    return sorted(found, key=lambda ref: abs(ref.size_bytes - size))[:MAX_CANDIDATES]

"""Whether a manifest is consistent in itself: every name in it leads somewhere."""

from __future__ import annotations

from collections.abc import Iterator

from edge_sdk.bundle.blobs import check_blob_ref, is_digest
from edge_sdk.contracts.manifest import Manifest
from edge_sdk.contracts.topics import check_name
from edge_sdk.errors import ConfigError, ContractError

MAX_DERIVED_BYTES = 512 * 1024 * 1024
"""A file is built in memory; none of this size was ever meant for a small device."""


def check_manifest(manifest: Manifest) -> None:
    """Refuse a manifest whose parts do not fit together.

    A signature says who made a manifest, not that it was made well; a device must not find out
    half-way through an update.

    Raises:
        ContractError: ``contract.bad-blob-ref`` or ``contract.inconsistent-manifest``.
    """
    for ref in manifest.blobs.values():
        check_blob_ref(ref)
    problem = next(_problems(manifest), None)
    if problem is not None:
        raise ContractError(
            "inconsistent-manifest",
            f"The manifest of {manifest.release[:64]!r} {manifest.version[:64]!r} is wrong: "
            f"{problem}.",
            "Build the release again with `edge release create`.",
        )


def _problems(manifest: Manifest) -> Iterator[str]:
    try:
        check_name(manifest.release, "release name")
        check_name(manifest.version, "version")
    except ConfigError as error:
        yield error.cause.rstrip(".")
    for digest, ref in manifest.blobs.items():
        if digest != ref.digest:
            yield f"blob {digest[:12]} is listed under another digest"
    for digest, artifact in manifest.artifacts.items():
        if digest != artifact.digest:
            yield f"artifact {digest[:12]} is listed under another digest"
        for needed in (artifact.digest, artifact.golden):
            if needed not in manifest.blobs and needed not in manifest.derived:
                yield f"blob {needed[:12]} is used but not listed"
    yield from _filter_problems(manifest)
    yield from _derivation_problems(manifest)
    yield from _delta_problems(manifest)
    for profile, ladder in manifest.ladders.items():
        if not ladder:
            yield f"the ladder of {profile!r} is empty"
        for point in ladder:
            artifact_of = manifest.artifacts.get(point.artifact)
            if artifact_of is None:
                yield f"point {point.id!r} of {profile!r} names an artifact that is not listed"
            elif artifact_of.runtime != point.runtime:
                yield f"point {point.id!r} of {profile!r} runs on another runtime than its artifact"


def _filter_problems(manifest: Manifest) -> Iterator[str]:
    enhance = manifest.task.enhance
    for runtime, digest in enhance.artifacts.items() if enhance is not None else ():
        artifact = manifest.artifacts.get(digest)
        if artifact is None or artifact.runtime != runtime:
            yield f"the filter for {runtime!r} is no artifact that is listed for it"


def _delta_problems(manifest: Manifest) -> Iterator[str]:
    for each in manifest.deltas:
        name = f"the delta {each.delta[:12]!r}"
        for needed in (each.target, each.delta):
            if needed not in manifest.blobs:
                yield f"{name} names blob {needed[:12]}, which is not listed"
        if not is_digest(each.base) or each.base == each.target:
            yield f"{name} starts from no other file"


def _derivation_problems(manifest: Manifest) -> Iterator[str]:
    for digest, derivation in manifest.derived.items():
        name = f"the derived file {digest[:12]!r}"
        if not is_digest(digest):
            yield f"{name} has no digest for a name"
        for needed in (derivation.base, derivation.recipe):
            if needed not in manifest.blobs:
                yield f"{name} needs blob {needed[:12]}, which is not listed"
        if derivation.base in manifest.derived:
            yield f"the base of {name} is derived itself"
        if not 0 < derivation.size_bytes <= MAX_DERIVED_BYTES:
            yield f"{name} would have {derivation.size_bytes} bytes"

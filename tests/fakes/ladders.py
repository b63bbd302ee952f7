"""Releases whose points share bytes, packed as ``edge release create`` packs them."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from edge_sdk.bundle.blobs import blob_ref
from edge_sdk.bundle.deltas import BaseRelease, find_deltas
from edge_sdk.bundle.needs import files_of
from edge_sdk.bundle.pack import SourceFile, pack
from edge_sdk.contracts.base import encode
from tests.fakes.classifiers import DeviceRelease, Recipe, make_release

PADDING_BYTES = 40_000
"""What the points of the padded ladder have in common."""


def packed(release: DeviceRelease, folder: Path) -> DeviceRelease:
    """The same release, with recipes for what can be built."""
    manifest = release.manifest
    kinds = {each.golden: "golden" for each in manifest.artifacts.values()}
    files = {
        digest: SourceFile(release.blobs / digest, ref, kinds.get(digest, "model"))
        for digest, ref in manifest.blobs.items()
    }
    ladders = [files_of(manifest, ladder) for ladder in manifest.ladders.values()]
    packing = pack(files, ladders, lambda _: None)
    blobs = folder / "blobs"
    blobs.mkdir(parents=True)
    stored = [file.path.read_bytes() for file in packing.whole] + list(packing.recipes.values())
    refs = [blob_ref(data) for data in stored]
    for ref, data in zip(refs, stored, strict=True):
        (blobs / ref.digest).write_bytes(data)
    slim = replace(manifest, blobs={ref.digest: ref for ref in refs}, derived=packing.derived)
    path = folder / "manifest.json"
    path.write_bytes(encode(slim))
    return DeviceRelease(slim, path, blobs)


def with_deltas(release: DeviceRelease, base: DeviceRelease) -> DeviceRelease:
    """The same release, in place, with deltas from another one."""
    manifest = release.manifest
    files = {digest: release.blobs / digest for digest in manifest.blobs}
    found = list(find_deltas(manifest.artifacts, files, [BaseRelease(base.manifest, base.blobs)]))
    refs = dict(manifest.blobs)
    for way, data in found:
        (release.blobs / way.delta).write_bytes(data)
        refs[way.delta] = blob_ref(data)
    shorter = replace(manifest, blobs=refs, deltas=tuple(way for way, _ in found))
    release.path.write_bytes(encode(shorter))
    return DeviceRelease(shorter, release.path, release.blobs)


def padded_ladder(folder: Path) -> DeviceRelease:
    """Three ONNX points with a long text in common, so that two of them become recipes."""
    points = [
        Recipe("onnx", size, padding_bytes=PADDING_BYTES - 16 * number)
        for number, size in enumerate((16, 12, 8))
    ]
    return packed(make_release(folder / "whole", points), folder / "packed")

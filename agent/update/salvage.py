"""Putting the state together again when both of its files are lost.

What proves itself is believed: manifests by their signatures or by the trusted targets, the last
desired state by its signature, blobs by their hashes. Nothing tells which release had won its
trial, but the one desired last may have been in the middle of it. So another complete one is
preferred to it, and it goes through its tests again when the broker repeats the wish; only when it
is alone does it serve. Releases remembered as bad are forgotten.
"""

from __future__ import annotations

from agent.update.authority import Authority
from agent.update.state import ReleaseRecord, UpdateState
from agent.update.store import DeviceStore
from agent.update.trust import (
    Device,
    Fitting,
    accept_desired,
    record_of,
    usable_points,
)
from edge_sdk.bundle.needs import needed_refs
from edge_sdk.bundle.trust import open_envelope, read_manifest, verify_manifest
from edge_sdk.contracts.update import Desired
from edge_sdk.errors import EdgeError


def salvage(store: DeviceStore, authority: Authority, device: Device) -> UpdateState:
    """A state that serves the best release found whole on the disk, if there is any."""
    wish = _last_wish(store, authority, device)
    records = [_whole(store, digest, authority, device) for digest in store.stored_manifests()]
    wished = wish.manifest.digest if wish is not None else ""
    found = sorted(
        (record for record in records if record is not None),
        key=lambda record: (record.digest != wished, record.sequence),
    )
    return UpdateState(
        slots={"a": found[-1]} if found else {},
        active="a" if found else None,
        counter=wish.counter if wish is not None else -1,
        salvaged=True,
    )


def _last_wish(store: DeviceStore, authority: Authority, device: Device) -> Desired | None:
    try:
        return accept_desired(store.read_desired(), authority.keys, device.device_id)
    except EdgeError:
        return None


def _whole(
    store: DeviceStore, digest: str, authority: Authority, device: Device
) -> ReleaseRecord | None:
    """A release of which everything is there and verified."""
    try:
        envelope = store.blobs.read(digest)
        vouched = authority.vouches(digest)
        manifest = read_manifest(envelope) if vouched else verify_manifest(envelope, authority.keys)
        points = usable_points(manifest, device.profile_id, device.runtimes)
    except EdgeError:
        return None
    payload = open_envelope(envelope, "the stored envelope").payload
    fitting = Fitting(manifest, payload, points, needed_refs(manifest, points))
    record = record_of(fitting, digest)
    return record if store.intact(record) else None

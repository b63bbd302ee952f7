"""A burglar: whoever holds the server with all of its keys, and the broker, but no offline key.

They order a release of their own making, and their orders hold in every respect but one: the
publisher's targets do not name it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from edge_sdk.bundle.blobs import blob_ref
from edge_sdk.bundle.release import open_release
from edge_sdk.bundle.signing import load_key, sign
from edge_sdk.bundle.trust import open_envelope
from edge_sdk.bundle.tuf_metadata import target_path
from edge_sdk.contracts.base import decode, encode
from edge_sdk.contracts.envelope import DESIRED_TYPE, MANIFEST_TYPE
from edge_sdk.contracts.manifest import CHUNK_BYTES
from edge_sdk.contracts.topics import Topics
from edge_sdk.contracts.update import Desired


def forged_messages(
    fleet_key: Path, topics: Topics, loot: Path, version: str, orders: Mapping[str, bytes]
) -> list[tuple[str, bytes]]:
    """Topic and payload of what the burglar publishes, retained, in this order.

    Args:
        fleet_key: the server's private key, which signs orders.
        topics: the fleet's.
        loot: a release folder, whose content is given out under a new version.
        version: the new one.
        orders: the last signed order of each device, by device; the forged ones continue them.
    """
    key = load_key(fleet_key)
    manifest = replace(open_release(loot).manifest, version=version)
    envelope = encode(sign(MANIFEST_TYPE, encode(manifest), key))
    ref = blob_ref(envelope)
    messages = [
        (topics.chunk(ref.digest, index), envelope[start : start + CHUNK_BYTES])
        for index, start in enumerate(range(0, len(envelope), CHUNK_BYTES))
    ]
    for device_id, order in orders.items():
        last = decode(open_envelope(order, "an order").payload, Desired, "an order")
        forged = replace(
            last,
            deployment=f"forged-{version}",
            counter=last.counter + 1,
            version=version,
            manifest=ref,
            target=target_path(manifest.release, version),
        )
        messages.append(
            (topics.desired(device_id), encode(sign(DESIRED_TYPE, encode(forged), key)))
        )
    return messages

"""Faults that come together: a full disk at boot, rotting files, releases that lie."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from agent.update.limits import UpdateLimits
from edge_sdk.bundle.signing import sign
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.envelope import MANIFEST_TYPE
from edge_sdk.contracts.update import Phase
from tests.fakes.storage import FaultyStorage
from tests.fakes.updating import RELEASE_KEY, Rig, TinyRelease, desired_bytes, tiny_release

V1, V2 = tiny_release("1"), tiny_release("2")


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A device that serves version 1."""
    rig = Rig(tmp_path)
    rig.publish(V1)
    rig.publish(V2)
    rig.boot()
    rig.want(desired_bytes(V1, 1))
    rig.settle()
    return rig


@pytest.mark.parametrize("phase", [Phase.GOLDEN, Phase.TRIAL])
def test_no_candidate_starts_uncounted_when_the_disk_is_full_at_boot(
    rig: Rig, phase: Phase
) -> None:
    rig.want(desired_bytes(V2, 2))
    rig.reach(phase)
    full = FaultyStorage(full_at=1, stays_full=True)
    rig.boot(full)
    assert rig.host.starts[0] == "serve 1"
    assert rig.host.golden is None
    assert rig.settle().phase in {Phase.REJECTED, Phase.ROLLED_BACK}
    assert rig.version == "1"
    full.full_at = 0
    rig.turn()
    rig.boot()  # what could not be written then has been written since
    assert rig.updater.state.phase in {Phase.REJECTED, Phase.ROLLED_BACK}
    assert rig.updater.state.code == "storage.disk-full"


def test_a_wish_that_cannot_be_saved_is_told_and_comes_again(rig: Rig) -> None:
    full = FaultyStorage(full_at=1, stays_full=True)
    rig.boot(full)
    rig.want(desired_bytes(V2, 2))
    told = rig.reports[-1]
    assert (told.deployment, told.phase, told.code) == ("d2", Phase.REJECTED, "storage.disk-full")
    assert rig.updater.state.counter == 1
    full.full_at = 0
    rig.connect()
    assert rig.settle().phase is Phase.COMMITTED
    assert rig.version == "2"


def test_a_blob_that_rots_between_download_and_use_is_fetched_again(rig: Rig) -> None:
    rig.want(desired_bytes(V2, 2))
    rig.reach(Phase.VERIFYING)
    victim = rig.folder / "blobs" / next(iter(V2.blobs))
    victim.write_bytes(bytes(victim.stat().st_size))
    assert rig.settle().phase is Phase.COMMITTED
    assert rig.version == "2"


def test_a_disk_that_keeps_rotting_ends_the_update(rig: Rig) -> None:
    rig.want(desired_bytes(V2, 2))
    for _ in range(3):
        rig.reach(Phase.VERIFYING)
        victim = rig.folder / "blobs" / next(iter(V2.blobs))
        victim.write_bytes(bytes(victim.stat().st_size))
        while rig.updater.state.phase is Phase.VERIFYING:
            rig.updater.tick()
    assert rig.updater.state.phase is Phase.REJECTED
    assert rig.updater.state.code == "trust.blob-damaged"
    assert rig.version == "1"


def test_a_signed_reference_that_contradicts_itself_is_refused(rig: Rig) -> None:
    """Chunk hashes that hold, under a digest that does not: it must not be fetched for ever."""
    digest = next(iter(V2.blobs))
    other = next(iter(V1.blobs))
    blobs = dict(V2.manifest.blobs)
    blobs[digest] = msgspec.structs.replace(blobs[digest], chunks=V1.manifest.blobs[other].chunks)
    manifest = msgspec.structs.replace(V2.manifest, blobs=blobs)
    envelope = encode(sign(MANIFEST_TYPE, encode(manifest), RELEASE_KEY))
    lying = TinyRelease(manifest, envelope, V2.blobs | {digest: V1.blobs[other]})
    rig.publish(lying)
    rig.want(desired_bytes(lying, 2))
    status = rig.settle()
    assert (status.phase, status.code) == (Phase.REJECTED, "trust.blob-damaged")
    assert list((rig.folder / "parts").iterdir()) == []


def test_an_empty_blob_is_a_blob(rig: Rig) -> None:
    hollow = tiny_release("5", shared=b"")
    rig.publish(hollow)
    rig.want(desired_bytes(hollow, 2))
    assert rig.settle().phase is Phase.COMMITTED


def test_a_battery_that_stays_low_ends_the_update(rig: Rig) -> None:
    rig.limits = UpdateLimits(battery_patience_s=30.0, disk_margin_bytes=0)
    rig.boot()
    rig.sensors.battery = 3.0
    rig.want(desired_bytes(V2, 2))
    status = rig.settle()
    assert (status.phase, status.code) == (Phase.REJECTED, "storage.battery-low")
    assert rig.version == "1"


def test_progress_is_told_about_once_a_second(rig: Rig) -> None:
    rig.limits = UpdateLimits(window=1, progress_interval_s=1.0, disk_margin_bytes=0)
    large = tiny_release("6", size=50 * 65536)
    rig.publish(large)
    rig.boot()
    rig.reports.clear()
    rig.want(desired_bytes(large, 2))
    began = rig.clock.time
    rig.reach(Phase.VERIFYING)
    told = [status for status in rig.reports if status.phase is Phase.DOWNLOADING]
    assert len(told) <= rig.clock.time - began + 2
    received = [status.bytes_received for status in told]
    assert received == sorted(received)
    assert 0 < received[-1] <= told[-1].bytes_total + len(large.envelope)


def test_a_release_signed_anew_is_recognised(rig: Rig) -> None:
    """The same content in another envelope: nothing is fetched but the envelope."""
    again = TinyRelease(
        V1.manifest,
        V1.envelope[:-1] + b"  }",  # another digest around the same signed payload
        V1.blobs,
    )
    assert again.digest != V1.digest
    rig.publish(again)
    received = rig.received
    rig.want(desired_bytes(again, 2))
    assert rig.settle().phase is Phase.COMMITTED
    assert rig.received - received == len(again.envelope)
    assert rig.updater.active is not None
    assert rig.updater.active.digest == again.digest
    assert "trial 1" not in rig.host.starts[-1:]

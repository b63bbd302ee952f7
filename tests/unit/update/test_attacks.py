"""The attack suite: each test fails when the defence it names is taken away.

The attacker holds the broker: may publish, replace, withhold and delete anything, and replay all
that was ever signed. Where a test gives more (a stolen key), it says so.
"""

from __future__ import annotations

import tracemalloc
import zlib
from pathlib import Path

import pytest
from msgspec.structs import replace
from tuf.api.metadata import MetaFile, Timestamp

from agent.update.asking_time import STALE_ANSWER_S
from agent.update.ports import Clock
from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.shelf import Shelf
from edge_sdk.bundle.signing import generate_key, sign
from edge_sdk.bundle.tuf_metadata import MAX_BYTES
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.envelope import MANIFEST_TYPE
from edge_sdk.contracts.manifest import CHUNK_BYTES
from edge_sdk.contracts.trust import TimeRequest, TufHead
from edge_sdk.contracts.update import Phase
from edge_sdk.durable import DiskStorage
from edge_sdk.errors import ContractError, TrustError
from edge_sdk.recipes.program import Literal, encode_recipe, open_recipe
from edge_sdk.repository import metadata as md
from tests.fakes.tuf_repository import DAY_S, KEYS
from tests.fakes.tuf_rig import TufRig, rig_with
from tests.fakes.updating import (
    DEVICE,
    OTHER_KEY,
    RELEASE_KEY,
    TOPICS,
    TinyRelease,
    desired_bytes,
    tiny_release,
)

ONE = tiny_release("1", size=3000)
TWO = tiny_release("2", size=3000)


@pytest.fixture
def rig(tmp_path: Path) -> TufRig:
    """A device that runs version 1."""
    return rig_with(tmp_path, ONE)


def served(rig: TufRig, version: str = "1") -> None:
    """Whatever happened, the device serves."""
    assert rig.version == version
    assert rig.host.serving is not None
    assert rig.host.serving.version == version


def test_the_way_it_should_go(rig: TufRig) -> None:
    """Without an attacker the next release is installed; what follows differs in one thing each."""
    rig.add(TWO)
    rig.want(rig.wished(TWO, 2))
    rig.settle()
    served(rig, "2")
    assert rig.codes == []


# --- metadata ---


def test_freeze(rig: TufRig) -> None:
    """Nothing new is let through; expiry tells, and nothing is installed on old knowledge."""
    rig.real_s = rig.clock.time = 2 * DAY_S
    rig.link.drop()
    rig.updater.on_disconnected()
    rig.connect()
    rig.run_for(70)
    assert "trust.expired-metadata" in rig.codes
    rig.want(rig.wished(TWO, 2))
    rig.run_for(10)
    assert rig.phase is Phase.OFFERED  # waits; the release is not even fetched
    served(rig)


@pytest.mark.parametrize("snapshot", [False, True], ids=["timestamp", "snapshot"])
def test_rollback(rig: TufRig, snapshot: bool) -> None:
    """An old timestamp again, of the same snapshot or of an older one."""
    old = rig.repo.mark()
    rig.repo.resign(snapshot=snapshot)
    rig.put(rig.repo.files)
    rig.run_for(2)
    before = rig.versions
    rig.put({**rig.repo.files, "timestamp": old["timestamp"]})
    rig.run_for(2)
    assert "trust.rollback" in rig.codes
    assert rig.versions == before
    served(rig)


def test_rollback_to_an_older_snapshot(rig: TufRig) -> None:
    """The timestamp key is stolen: a newer timestamp cannot name what was replaced."""
    repo, old = rig.repo, rig.repo.mark()
    repo.resign()
    rig.put(repo.files)
    rig.run_for(5)
    before = rig.versions
    repo.timestamp_version += 1
    files = repo.mark()
    files["timestamp"] = md.make_timestamp(
        repo.timestamp_version,
        old["2.snapshot"],
        repo.now_s,
        repo.now_s + DAY_S,
        repo.keys["timestamp"][0],
    )
    rig.put(files)
    rig.run_for(5)
    assert "trust.rollback" in rig.codes
    assert rig.versions == before
    served(rig)


def test_rollback_of_the_targets(rig: TufRig) -> None:
    """Snapshot and timestamp keys are stolen: they cannot bring back what was withdrawn."""
    repo, old = rig.repo, rig.repo.mark()
    rig.add(TWO)
    rig.run_for(5)
    before = rig.versions["targets"]
    repo.files[f"{repo.targets.version}.targets"] = old["2.targets"]
    repo.resign()
    rig.put(repo.files)
    rig.run_for(15)
    assert "trust.rollback" in rig.codes
    assert rig.versions["targets"] == before
    served(rig)


def test_mix_and_match(rig: TufRig) -> None:
    """The snapshot key is stolen: another snapshot under the version that the timestamp names."""
    repo = rig.repo
    repo.add("releases/digits/2", TWO.envelope)
    files = repo.mark()
    files["3.snapshot"] = md.make_snapshot(
        3, files["2.targets"], repo.now_s, repo.now_s + DAY_S, repo.keys["snapshot"][0]
    )
    rig.put(files)
    rig.run_for(2)
    assert "trust.mix-and-match" in rig.codes
    assert rig.versions["snapshot"] == 2
    served(rig)


def test_mix_and_match_without_hashes(rig: TufRig) -> None:
    """A timestamp may name a version alone; an old snapshot under its name is seen all the same."""
    repo, old = rig.repo, rig.repo.mark()
    repo.add("releases/digits/2", TWO.envelope)
    stamp = md.read(repo.files["timestamp"], Timestamp).signed
    stamp.snapshot_meta = MetaFile(3)
    files = repo.mark()
    files["timestamp"] = md.write(md.signed_by(stamp, repo.keys["timestamp"]))
    files["3.snapshot"] = old["2.snapshot"]
    rig.put(files)
    rig.run_for(2)
    assert "trust.mix-and-match" in rig.codes
    assert rig.versions["targets"] == 2
    served(rig)


def test_endless_data(rig: TufRig) -> None:
    """Metadata without end is refused unread."""
    rig.retain(TOPICS.tuf_timestamp(), b" " * (MAX_BYTES["timestamp"] + 1))
    rig.retain(TOPICS.tuf_head(), b" " * 5000)
    rig.run_for(2)
    assert rig.codes == ["trust.metadata-too-large"]
    served(rig)


class Remembering(DiskStorage):
    """Remembers the pieces that were written."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write_at(self, path: Path, offset: int, data: bytes) -> None:
        self.pieces.append(data)
        super().write_at(path, offset, data)


def test_endless_chunk(rig: TufRig) -> None:
    """A chunk longer than any chunk never reaches the disk."""
    storage = Remembering()
    rig.boot(storage)
    rig.add(TWO)
    rig.broker.retained[TOPICS.chunk(TWO.digest, 0)] = bytes(CHUNK_BYTES * 4)
    rig.want(rig.wished(TWO, 2))
    rig.settle()
    assert 0 < max(map(len, storage.pieces)) <= CHUNK_BYTES
    served(rig, "2")


def test_slow_retrieval(tmp_path: Path) -> None:
    """A download that never ends is ended, and metadata that never comes holds nothing up."""
    rig = rig_with(tmp_path, ONE)
    rig.add(TWO)
    for topic in [topic for topic in rig.broker.retained if topic.startswith("t1/b/")]:
        del rig.broker.retained[topic]
    rig.broker.answers = False
    rig.want(rig.wished(TWO, 2))
    rig.run_for(2)
    assert rig.phase is Phase.OFFERED
    rig.clock.time += rig.limits.download_patience_s + 1
    rig.run_for(1)
    assert rig.phase is Phase.REJECTED
    served(rig)


def test_withheld_metadata_ends_the_wait(rig: TufRig) -> None:
    rig.publish(TWO)
    rig.want(rig.wished(TWO, 2, targets_version=99))
    rig.run_for(5)
    assert rig.phase is Phase.OFFERED
    rig.clock.time += rig.limits.download_patience_s + 1
    rig.repo.now_s += round(rig.limits.download_patience_s)
    rig.repo.resign(snapshot=False)
    rig.put(rig.repo.files)
    rig.run_for(1)
    assert rig.reports[-1].code == "trust.no-metadata"
    served(rig)


def test_arbitrary_software(rig: TufRig) -> None:
    """A stolen server: its keys direct devices, but cannot make a release exist."""
    rig.publish(TWO)
    rig.want(rig.wished(TWO, 2))
    rig.run_for(2)
    assert rig.reports[-1].code == "trust.no-target"
    served(rig)


def test_other_bytes_under_a_published_name(rig: TufRig) -> None:
    """The name is published; the fleet key points it at something else."""
    other = tiny_release("2", size=3000, seed=99)
    rig.add(TWO)
    rig.publish(other)
    rig.want(rig.wished(other, 2))
    rig.run_for(2)
    assert rig.reports[-1].code == "trust.other-target"
    served(rig)


def test_forged_targets(rig: TufRig) -> None:
    """Snapshot and timestamp keys are stolen; the targets are signed by a stranger."""
    rig.repo.keys["targets"] = [KEYS[11]]
    rig.add(TWO)
    rig.want(rig.wished(TWO, 2))
    rig.run_for(15)
    assert "trust.bad-signature" in rig.codes
    assert rig.versions["targets"] == 2
    served(rig)


@pytest.mark.parametrize("role", ["timestamp", "snapshot"])
def test_forged_online_metadata(rig: TufRig, role: str) -> None:
    """Signed by nobody whom the root names."""
    rig.repo.keys[role] = [KEYS[11]]
    rig.add(TWO)
    rig.run_for(15)
    assert "trust.bad-signature" in rig.codes
    assert rig.versions["targets"] == 2
    served(rig)


def test_one_of_two_root_keys(rig: TufRig) -> None:
    rig.repo.replace_key("targets", KEYS[9], by=rig.repo.keys["root"][:1])
    rig.repo.change_targets()
    rig.put(rig.repo.files)
    rig.run_for(2)
    assert "trust.bad-signature" in rig.codes
    assert rig.versions["root"] == 1
    served(rig)


def test_root_of_a_stranger(rig: TufRig) -> None:
    """Signed as it asks itself, by nobody whom the present root names."""
    strangers = list(KEYS[10:12])
    for old, new in zip(rig.repo.keys["root"], strangers, strict=False):
        md.remove_key(rig.repo.root, "root", md.tuf_keyid(old.public))
        md.add_key(rig.repo.root, "root", new.public)
    rig.repo.change_root(strangers)
    rig.put(rig.repo.files)
    rig.run_for(2)
    assert "trust.bad-signature" in rig.codes
    assert rig.versions["root"] == 1
    served(rig)


def test_root_that_its_own_keys_did_not_sign(rig: TufRig) -> None:
    """The holders name keys that nobody may have: nothing could ever be changed after that."""
    holders = rig.repo.keys["root"]
    for old, new in zip(holders, KEYS[9:12], strict=True):
        md.remove_key(rig.repo.root, "root", md.tuf_keyid(old.public))
        md.add_key(rig.repo.root, "root", new.public)
    rig.repo.change_root(holders[:2])
    rig.put(rig.repo.files)
    rig.run_for(2)
    assert "trust.bad-signature" in rig.codes
    assert rig.versions["root"] == 1
    served(rig)


def test_root_that_skips_one(rig: TufRig) -> None:
    """The next root but one, in the place of the next, which may have revoked a key."""
    rig.repo.change_root()
    rig.repo.change_root()
    rig.put({**rig.repo.files, "2.root": rig.repo.files["3.root"]})
    rig.run_for(2)
    assert "trust.rollback" in rig.codes
    assert rig.versions["root"] == 1
    served(rig)


def test_revoked_key(rig: TufRig) -> None:
    """What a revoked targets key signs counts no more, and neither does the fleet's old key."""
    stolen = rig.repo.replace_key("targets", KEYS[9])
    rig.repo.change_targets()
    rig.put(rig.repo.files)
    rig.run_for(5)
    assert rig.versions["root"] == 2
    good = rig.versions["targets"]
    rig.repo.keys["targets"] = [stolen]
    rig.add(TWO)
    rig.run_for(5)
    assert "trust.bad-signature" in rig.codes
    assert rig.versions["targets"] == good == 3
    served(rig)


def test_revoked_fleet_key(rig: TufRig) -> None:
    rig.repo.replace_key("fleet", KEYS[9])
    rig.add(TWO)
    rig.run_for(2)
    rig.want(rig.wished(TWO, 2))  # by the old key
    rig.run_for(2)
    assert "trust.bad-signature" in rig.codes
    served(rig)
    rig.fleet_key = KEYS[9]
    rig.want(rig.wished(TWO, 2))
    rig.settle()
    served(rig, "2")


def test_fast_forward_and_recovery(rig: TufRig) -> None:
    """The online keys are stolen and versions made to run ahead; new keys in a new root recover."""
    repo, honest = rig.repo, (rig.repo.timestamp_version, rig.repo.snapshot_version)
    repo.timestamp_version += 1_000_000
    repo.snapshot_version += 1_000_000
    repo.resign()
    rig.put(repo.files)
    rig.run_for(2)
    assert rig.versions["timestamp"] > 1_000_000
    repo.timestamp_version, repo.snapshot_version = honest
    repo.resign()
    rig.put(repo.files)
    rig.run_for(2)
    assert "trust.rollback" in rig.codes  # stuck, but serving
    served(rig)
    repo.replace_key("timestamp", KEYS[8])
    repo.replace_key("snapshot", KEYS[9])
    rig.add(TWO)
    rig.want(rig.wished(TWO, 2))
    rig.settle()
    assert rig.versions["timestamp"] == repo.timestamp_version
    served(rig, "2")


def test_announced_root_that_never_comes(rig: TufRig) -> None:
    """A lie in the unsigned head delays; it does not stop."""
    rig.add(TWO)
    rig.put(rig.repo.files, TufHead(root=2**40, timestamp=1, targets=1))
    rig.want(rig.wished(TWO, 2))
    rig.settle()
    served(rig, "2")


def test_garbage_head(rig: TufRig) -> None:
    rig.retain(TOPICS.tuf_head(), b'{"root": -5}')
    rig.run_for(1)
    assert rig.codes == ["contract.malformed"]
    served(rig)


# --- wishes ---


def test_wrong_device(rig: TufRig) -> None:
    rig.add(TWO)
    rig.want(rig.wished(TWO, 2, device_id="cam-2"))
    rig.run_for(2)
    assert "trust.other-device" in rig.codes
    served(rig)


def test_wrong_hardware(rig: TufRig) -> None:
    """The fleet key says another board; or the publisher made the release for another one."""
    rig.add(TWO)
    rig.want(rig.wished(TWO, 2, profile="jetson-orin-nano"))
    rig.run_for(2)
    assert rig.codes == ["trust.other-hardware"]
    three = tiny_release("3", size=3000)
    rig.publish(three)
    rig.repo.add("releases/digits/3", three.envelope, ["jetson-orin-nano"])
    rig.put(rig.repo.files)
    rig.want(rig.wished(three, 3))
    rig.run_for(2)
    assert rig.reports[-1].code == "trust.other-hardware"
    assert rig.received < 20_000  # the release was not fetched
    served(rig)


def test_replayed_wish(rig: TufRig) -> None:
    first = rig.wished(ONE, 1)
    rig.add(TWO)
    rig.want(rig.wished(TWO, 2))
    rig.settle()
    rig.want(first)
    rig.run_for(2)
    assert "trust.replayed" in rig.codes
    served(rig, "2")


def test_wish_by_a_stranger(rig: TufRig) -> None:
    rig.add(TWO)
    rig.want(rig.wished(TWO, 2, key=OTHER_KEY))
    rig.run_for(2)
    assert rig.codes == ["trust.bad-signature"]
    served(rig)


def test_wish_without_a_target(rig: TufRig) -> None:
    """A server that would go back to pinned keys is refused by a device with a root."""
    rig.publish(TWO)
    rig.want(desired_bytes(TWO, 2))
    rig.run_for(2)
    assert rig.reports[-1].code == "trust.no-target"
    served(rig)


def test_wish_for_another_release_than_its_target(rig: TufRig) -> None:
    rig.add(TWO)
    rig.want(rig.wished(TWO, 2, target="releases/digits/1"))
    rig.run_for(2)
    assert rig.reports[-1].code == "trust.other-release"
    served(rig)


# --- chunks and recipes ---


@pytest.mark.parametrize("right_size", [False, True])
def test_chunk_poisoning_under_a_right_topic(rig: TufRig, right_size: bool) -> None:
    """Wrong bytes under the digest's own topic are never stored; the server's copy is asked for."""
    storage = Remembering()
    rig.boot(storage)
    rig.add(TWO)
    poisons = set()
    for digest, data in TWO.everything:
        poison = b"p" * (len(data) if right_size else 6)
        rig.broker.retained[TOPICS.chunk(digest, 0)] = poison
        poisons.add(poison)
    rig.want(rig.wished(TWO, 2))
    rig.settle()
    served(rig, "2")
    assert rig.broker.requests
    assert not poisons.intersection(storage.pieces)


def test_poison_that_never_stops_is_given_up(rig: TufRig) -> None:
    rig.add(TWO)
    rig.broker.retained[TOPICS.chunk(TWO.digest, 0)] = b"poison"
    rig.broker.answers = False
    rig.want(rig.wished(TWO, 2))
    rig.settle(turns=2000)
    assert rig.reports[-1].code == "trust.bad-chunk"
    served(rig)


def test_retained_deletion(rig: TufRig) -> None:
    """Somebody deletes what the broker keeps; the device asks the server for it."""
    rig.add(TWO)
    for topic in [topic for topic in rig.broker.retained if "/b/" in topic]:
        rig.retain(topic, b"")
    rig.retain(TOPICS.tuf_timestamp(), b"")
    rig.want(rig.wished(TWO, 2))
    rig.settle()
    served(rig, "2")


def test_partial_bundle(rig: TufRig) -> None:
    """One blob is never there: nothing is started with the rest."""
    rig.add(TWO)
    missing = next(iter(TWO.blobs))
    rig.broker.retained.pop(TOPICS.chunk(missing, 0))
    rig.broker.blobs.pop(missing)
    rig.want(rig.wished(TWO, 2))
    rig.run_for(60)
    assert rig.phase is Phase.DOWNLOADING
    assert "golden 2" not in rig.host.starts
    served(rig)


# --- time ---


class WrongClock:
    """A device whose clock is off by a constant."""

    def __init__(self, right: Clock, off_s: float) -> None:
        self._right, self._off_s = right, off_s

    def now(self) -> float:
        return self._right.now() + self._off_s

    def monotonic(self) -> float:
        return self._right.monotonic()


def with_clock(folder: Path, off_s: float) -> TufRig:
    rig = TufRig(folder)
    right = rig.clock
    rig.add(ONE)
    rig.clock = WrongClock(right, off_s)  # type: ignore[assignment]
    rig.boot()
    rig.clock = right
    return rig


@pytest.mark.parametrize("off_s", [-1_790_000_000.0, 3 * 365 * DAY_S], ids=["1970", "+3 years"])
def test_wrong_clock(tmp_path: Path, off_s: float) -> None:
    """The fleet says what time it is, and the update goes its way."""
    rig = with_clock(tmp_path, off_s)
    rig.want(rig.wished(ONE, 1))
    rig.settle()
    served(rig)


def test_clock_ahead_and_no_answer_is_no_brick(tmp_path: Path) -> None:
    """Everything looks expired: nothing is installed, an alert is given, and an answer heals it."""
    rig = TufRig(tmp_path)
    rig.add(ONE)
    right = rig.clock
    rig.server_answers = False
    rig.clock = WrongClock(right, 3 * 365 * DAY_S)  # type: ignore[assignment]
    rig.boot()
    rig.clock = right
    rig.want(rig.wished(ONE, 1))
    rig.run_for(8)
    assert "trust.expired-metadata" in rig.codes
    assert rig.phase is Phase.OFFERED
    rig.server_answers = True
    rig.settle()
    served(rig)


def test_freeze_of_a_device_in_1970(tmp_path: Path) -> None:
    """Old metadata and no time: the floor shows the clock to be wrong, so nothing is installed."""
    rig = with_clock(tmp_path, 0.0)
    rig.run_for(8)
    rig.server_answers = False
    rig.clock = WrongClock(rig.clock, -1_790_000_000.0)  # type: ignore[assignment]
    right = rig.clock._right  # type: ignore[attr-defined]
    rig.boot()
    rig.clock = right
    rig.want(rig.wished(ONE, 1))
    rig.run_for(8)
    assert rig.phase is Phase.OFFERED
    rig.clock.time += rig.limits.download_patience_s + 1
    rig.turn()
    assert rig.reports[-1].code == "trust.no-time"


def test_replayed_time(tmp_path: Path) -> None:
    """An answer to an old question, and one by a stranger, say nothing."""
    rig = TufRig(tmp_path)
    rig.add(ONE)
    rig.server_answers = False
    rig.boot()
    (first,) = rig.questions
    rig.run_for(70)  # asked again meanwhile
    assert len(rig.questions) > 1
    future = rig.now_s + 300 * DAY_S
    rig.link.receive(*rig.attestation(first, at=future))
    rig.link.receive(*rig.attestation(rig.questions[-1], at=future, key=generate_key()))
    topic, _ = rig.attestation(first)
    others = TimeRequest(device_id="cam-2", nonce=rig.questions[-1].nonce)
    rig.link.receive(topic, rig.attestation(others, at=future)[1])
    rig.turn()
    assert not rig.updater._authority.time.attested
    rig.link.receive(*rig.attestation(rig.questions[-1], at=future))
    rig.turn()
    assert rig.updater._authority.time.now() >= future


def test_answer_that_was_held_back(tmp_path: Path) -> None:
    """The attacker lets an answer through a minute late: the time it states is past."""
    rig = TufRig(tmp_path)
    rig.add(ONE)
    rig.server_answers = False
    rig.boot()
    rig.run_for(75)
    held = rig.attestation(rig.questions[-1])
    rig.clock.time += STALE_ANSWER_S + 1
    rig.link.receive(*held)
    rig.turn()
    assert not rig.updater._authority.time.attested


def test_floor_falls_with_the_key_that_lifted_it(rig: TufRig) -> None:
    """A stolen fleet key says 2100; the next root revokes it, and the device believes again."""
    authority = rig.updater._authority
    authority.time.attest(rig.now_s + 70 * 365 * DAY_S)
    rig.repo.replace_key("fleet", KEYS[9])
    rig.fleet_key = KEYS[9]
    rig.want(rig.wished(TWO, 2))  # it comes before the root that names its key
    rig.broker.retained[TOPICS.desired(DEVICE.device_id)] = rig.wish
    rig.add(TWO)
    rig.run_for(10)
    assert authority.time.now() < rig.now_s + DAY_S
    served(rig, "2")


def test_decompression_bomb() -> None:
    """A recipe whose stream makes far more than it says is refused in bounded memory."""
    honest = encode_recipe(100, [Literal(10)], bytes(10))
    bomb = honest[: honest.index(b"\x78\xda")] + zlib.compress(bytes(50_000_000), 9)
    tracemalloc.start()
    with pytest.raises(ContractError) as caught:
        open_recipe(bomb, 100, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.code == "contract.bad-recipe"
    assert peak < 1_000_000


def test_file_that_would_fill_the_memory(rig: TufRig) -> None:
    """The publisher's own manifest may not ask a device to build a file without bound."""
    packed = tiny_release("2", size=3000, packed=True)
    ((digest, derivation),) = packed.manifest.derived.items()
    huge = {digest: replace(derivation, size_bytes=1 << 40)}
    manifest = replace(packed.manifest, derived=huge)
    envelope = encode(sign(MANIFEST_TYPE, encode(manifest), RELEASE_KEY))
    two = TinyRelease(manifest, envelope, packed.blobs)
    rig.add(two)
    rig.want(rig.wished(two, 2))
    rig.settle()
    assert rig.reports[-1].code == "contract.inconsistent-manifest"
    served(rig)


def test_recipe_for_another_base(rig: TufRig) -> None:
    """What comes out of a recipe must have the digest the manifest states: a wrong base shows."""
    packed = tiny_release("2", size=3000, packed=True)
    ((digest, derivation),) = packed.manifest.derived.items()
    wrong = replace(derivation, base=next(iter(packed.manifest.artifacts.values())).golden)
    manifest = replace(packed.manifest, derived={digest: wrong})
    blobs = BlobStore(rig.folder / "loose", DiskStorage())
    for data in packed.blobs.values():
        blobs.put(data)
    with pytest.raises((TrustError, ContractError)):
        Shelf(blobs, manifest.derived).read(digest)
    served(rig)

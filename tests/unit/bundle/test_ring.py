"""The key ceremony: who must sign what, and how one recovers from a lost key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_sdk.bundle.signing import SigningKey, generate_key, load_key, save_key
from edge_sdk.bundle.tuf_trust import begin, update_root
from edge_sdk.durable import DiskStorage
from edge_sdk.errors import EdgeError
from edge_sdk.repository import metadata as md
from edge_sdk.repository.ring import Ring
from edge_sdk.server.metadata import TIMESTAMP_S, MetadataShop, OnlineKeys
from tests.fakes.tuf_repository import NOW_S

ONLINE = OnlineKeys(generate_key(), generate_key(), generate_key())
PUBLIC: dict[md.KeyRole, list[bytes]] = {
    "fleet": [ONLINE.fleet.public],
    "snapshot": [ONLINE.snapshot.public],
    "timestamp": [ONLINE.timestamp.public],
}


class Time:
    now_s = float(NOW_S)

    def __call__(self) -> float:
        return self.now_s


def unlock(path: Path) -> SigningKey:
    return load_key(path, b"secret")


@pytest.fixture
def ring(tmp_path: Path) -> Ring:
    ring = Ring(tmp_path / "keys", DiskStorage(), unlock, Time())
    ring.init(root_keys=3, threshold=2, public=PUBLIC, passphrase=b"secret")
    return ring


def code(act: Callable[[], object]) -> str:
    with pytest.raises(EdgeError) as caught:
        act()
    return caught.value.code


def lose(ring: Ring, role: str, number: int) -> Path:
    """Take a private key out of the folder; where it is now."""
    path = ring.folder / f"{role}-{number}.pem"
    aside = ring.folder.parent / path.name
    return path.rename(aside)


def replace(role: md.KeyRole, keyid: str, public: bytes) -> Callable[[md.Root], None]:
    def edit(root: md.Root) -> None:
        md.add_key(root, role, public)
        md.remove_key(root, role, keyid)

    return edit


def test_offline_keys_are_encrypted_and_private(ring: Ring) -> None:
    for path in ring.folder.glob("*.pem"):
        assert b"BEGIN ENCRYPTED PRIVATE KEY" in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0
        assert code(lambda path=path: load_key(path, b"guess")) == "trust.wrong-passphrase"


def test_no_keys_without_a_passphrase_and_none_twice(ring: Ring, tmp_path: Path) -> None:
    other = Ring(tmp_path / "other", DiskStorage(), unlock, Time())
    make = {"root_keys": 2, "threshold": 2, "public": PUBLIC}
    assert code(lambda: other.init(**make, passphrase=b"")) == "trust.no-passphrase"  # type: ignore[arg-type]
    assert code(lambda: ring.init(**make, passphrase=b"x")) == "storage.file-exists"  # type: ignore[arg-type]
    make["threshold"] = 3
    assert code(lambda: other.init(**make, passphrase=b"x")) == "trust.bad-threshold"  # type: ignore[arg-type]


def test_a_root_by_one_holder_waits_for_the_other(ring: Ring) -> None:
    """2 of 3 must sign; each holder has one key, on a machine of their own."""
    keys = [lose(ring, "root", number) for number in (1, 2, 3)]
    assert not ring.change(lambda root: None)
    assert ring.missing_signatures() == {"1": 2, "2": 2}
    for key in keys[:2]:
        assert len(ring.roots()) == 1
        holder = Ring(ring.folder, DiskStorage(), unlock, Time(), (key,))
        (ring.folder / f"{key.name}.pub").rename(key.with_name(f"{key.name}.pub"))
        done = holder.sign_pending()
    assert done
    assert len(ring.roots()) == 2
    assert ring.pending() is None
    assert code(ring.sign_pending) == "usage.nothing-pending"


def test_one_change_at_a_time_and_a_pending_one_can_be_given_up(ring: Ring) -> None:
    lose(ring, "root", 1)
    lose(ring, "root", 2)
    assert not ring.change(lambda root: None)
    assert code(lambda: ring.change(lambda root: None)) == "trust.root-pending"
    ring.discard_pending()
    assert ring.pending() is None


def test_a_lost_root_key_is_replaced_by_the_others(ring: Ring) -> None:
    lose(ring, "root", 1)
    lost = md.tuf_keyid(load_key(ring.folder.parent / "root-1.pem", b"secret").public)
    new = ring.make_key("root", b"secret")
    assert ring.change(replace("root", lost, new.public))
    roots = ring.roots()
    assert update_root(begin(roots[0]), roots[1]).root.version == 2
    assert lost not in md.role_keyids(ring.root().signed, "root")


def test_a_lost_targets_key_is_replaced_by_the_root(ring: Ring) -> None:
    ring.sign_release("releases/d/1", b"envelope", ["rpi4"])
    path = lose(ring, "targets", 1)
    lost = md.tuf_keyid(load_key(path, b"secret").public)
    assert code(ring.renew_targets) == "trust.too-few-keys"
    new = ring.make_key("targets", b"secret")
    assert ring.change(replace("targets", lost, new.public))
    assert not ring.targets_hold()
    ring.renew_targets()
    assert ring.targets_hold()
    assert set(ring.targets().signed.targets) == {"releases/d/1"}


def test_no_role_is_left_without_keys(ring: Ring) -> None:
    (only,) = md.role_keyids(ring.root().signed, "targets")
    assert code(lambda: ring.change(lambda root: md.remove_key(root, "targets", only))) == (
        "trust.bad-threshold"
    )
    assert code(lambda: ring.change(lambda root: md.remove_key(root, "targets", "x"))) == (
        "usage.unknown-key"
    )
    assert len(ring.roots()) == 1


def test_a_folder_without_a_repository(tmp_path: Path) -> None:
    assert code(Ring(tmp_path, DiskStorage(), unlock, Time()).roots) == "trust.no-repository"


# --- the server's half ---


@pytest.fixture
def clock() -> Time:
    return Time()


def open_shop(folder: Path, clock: Time, keys: OnlineKeys = ONLINE) -> MetadataShop:
    return MetadataShop(folder / "server", DiskStorage(), keys, clock)


def test_the_server_makes_what_the_publisher_did_not(
    ring: Ring, tmp_path: Path, clock: Time
) -> None:
    shop = open_shop(tmp_path, clock)
    assert not shop.required
    shop.publish(ring.roots(), ring.targets_bytes())
    assert shop.versions == {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1}
    ring.sign_release("releases/d/1", b"envelope", ["rpi4"])
    shop.publish(ring.roots(), ring.targets_bytes())
    assert shop.versions == {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2}
    again = open_shop(tmp_path, clock)
    assert again.versions == shop.versions


def test_the_timestamp_is_renewed_long_before_it_expires(
    ring: Ring, tmp_path: Path, clock: Time
) -> None:
    shop = open_shop(tmp_path, clock)
    shop.publish(ring.roots(), ring.targets_bytes())
    assert not shop.resign()
    clock.now_s += TIMESTAMP_S * 0.3
    assert shop.resign()
    assert shop.versions == {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1}


def test_a_server_that_was_off_for_months_starts_and_goes_on(
    ring: Ring, tmp_path: Path, clock: Time
) -> None:
    open_shop(tmp_path, clock).publish(ring.roots(), ring.targets_bytes())
    clock.now_s += 100 * 86_400
    assert open_shop(tmp_path, clock).versions["timestamp"] == 2
    clock.now_s += 400 * 86_400  # the targets have expired: it starts all the same
    assert open_shop(tmp_path, clock).versions["targets"] == 1


def test_what_the_server_refuses(ring: Ring, tmp_path: Path, clock: Time) -> None:
    old = ring.targets_bytes()
    ring.sign_release("releases/d/1", b"envelope", ["rpi4"])
    shop = open_shop(tmp_path, clock)
    other = OnlineKeys(generate_key(), generate_key(), generate_key())
    stranger = open_shop(tmp_path / "other", clock, other)
    roots, targets = ring.roots(), ring.targets_bytes()
    assert code(lambda: stranger.publish(roots, targets)) == "trust.not-online-key"
    shop.publish(roots, targets)
    assert code(lambda: shop.publish(roots, old)) == "trust.rollback"
    assert code(lambda: shop.publish(roots, b"{}")) == "trust.bad-metadata"
    clock.now_s += 400 * 86_400
    assert code(lambda: shop.publish(roots, targets)) == "trust.expired-metadata"


@pytest.mark.parametrize("role", ["snapshot", "timestamp", "fleet"])
def test_a_lost_online_key_is_replaced(
    ring: Ring, tmp_path: Path, clock: Time, role: md.KeyRole
) -> None:
    """A new key on the server, a new root that names it; devices follow."""
    open_shop(tmp_path, clock).publish(ring.roots(), ring.targets_bytes())
    from dataclasses import replace as with_fields

    new = generate_key()
    keys = with_fields(ONLINE, **{role: new})
    shop = open_shop(tmp_path, clock, keys)
    assert not shop.resign()  # nothing is signed by a key that no root names
    (old,) = md.role_keyids(ring.root().signed, role)
    assert ring.change(replace(role, old, new.public))
    shop.publish(ring.roots(), ring.targets_bytes())
    assert shop.versions["root"] == 2
    assert open_shop(tmp_path, clock, keys).versions == shop.versions


class CutError(Exception):
    """The power goes."""


class CuttingStorage(DiskStorage):
    """Loses power before the ``at``-th durable step."""

    def __init__(self, at: int) -> None:
        self.left = at

    def step(self, name: str, path: Path) -> None:
        self.left -= 1
        if self.left == 0:
            raise CutError


@pytest.mark.parametrize("at", range(1, 21))
def test_power_cut_while_publishing(ring: Ring, tmp_path: Path, clock: Time, at: int) -> None:
    shop = open_shop(tmp_path, clock)
    shop.publish(ring.roots(), ring.targets_bytes())
    before = shop.versions
    assert ring.change(lambda root: None)
    ring.sign_release("releases/d/1", b"envelope", ["rpi4"])
    shop._storage = CuttingStorage(at)
    try:
        shop.publish(ring.roots(), ring.targets_bytes())
    except CutError:
        again = open_shop(tmp_path, clock)
        assert all(again.versions[role] >= before[role] for role in before)
        again.publish(ring.roots(), ring.targets_bytes())
        assert again.target_of("d", "1", "x") is None
        assert again.versions["targets"] == 2


def test_save_key_is_used_for_every_private_key(ring: Ring, tmp_path: Path) -> None:
    key = generate_key()
    save_key(key, tmp_path / "elsewhere.pem", b"secret")
    held = Ring(ring.folder, DiskStorage(), unlock, Time(), (tmp_path / "elsewhere.pem",))
    assert md.tuf_keyid(key.public) in held.private_keys()

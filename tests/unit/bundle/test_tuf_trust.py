"""The device's verifier against python-tuf's, on the same bytes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.exceptions import FormatError
from securesystemslib.formats import encode_canonical
from tuf.api.exceptions import RepositoryError
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from edge_sdk.bundle import tuf_trust
from edge_sdk.bundle.canonical import canonical_json
from edge_sdk.bundle.tuf_metadata import MAX_BYTES, parse_root, signers
from edge_sdk.bundle.tuf_trust import Trusted, check_fresh, next_wanted, restore
from edge_sdk.errors import TrustError
from edge_sdk.repository import metadata as md
from tests.fakes.tuf_repository import DAY_S, KEYS, NOW_S, Repository

Files = dict[str, bytes]
REFUSED = "refused"


def ours(files: Files, kept: Files, now_s: int) -> str:
    """The verdict of the verifier under test, driven as the agent drives it."""
    try:
        trusted = restore(kept["root"], lambda role: kept.get(role))
        while following := files.get(f"{trusted.root.version + 1}.root"):
            trusted = tuf_trust.update_root(trusted, following)
        trusted = tuf_trust.update_timestamp(trusted, files["timestamp"], now_s)
        while wanted := next_wanted(trusted):
            role, version = wanted
            update = getattr(tuf_trust, f"update_{role}")
            trusted = update(trusted, files.get(f"{version}.{role}", b""), now_s)
        check_fresh(trusted, now_s)
    except TrustError:
        return REFUSED
    return str(trusted.versions)


def theirs(files: Files, kept: Files, now_s: int) -> str:
    """python-tuf's verdict, in the order in which its Updater goes."""
    try:
        trusted = TrustedMetadataSet(kept["root"], EnvelopeType.METADATA)
        trusted.reference_time = datetime.fromtimestamp(now_s, UTC)
        while following := files.get(f"{trusted.root.version + 1}.root"):
            trusted.update_root(following)
        _quietly(lambda: trusted.update_timestamp(kept["timestamp"]))
        _unless_equal(lambda: trusted.update_timestamp(files["timestamp"]))
        if not _quietly(lambda: trusted.update_snapshot(kept["snapshot"], trusted=True)):
            version = trusted.timestamp.snapshot_meta.version
            trusted.update_snapshot(files.get(f"{version}.snapshot", b""))
        if not _quietly(lambda: trusted.update_targets(kept["targets"])):
            version = trusted.snapshot.meta["targets.json"].version
            trusted.update_targets(files.get(f"{version}.targets", b""))
    except (RepositoryError, KeyError):
        return REFUSED
    roles = ("root", "timestamp", "snapshot", "targets")
    return str({role: trusted[role].version for role in roles})


def _quietly(load: Callable[[], object]) -> bool:
    """What the Updater does with what it finds on its disk."""
    try:
        load()
    except (RepositoryError, KeyError, RuntimeError):
        return False
    return True


def _unless_equal(load: Callable[[], object]) -> None:
    from tuf.api.exceptions import EqualVersionNumberError

    try:
        load()
    except EqualVersionNumberError:
        return


def kept_of(files: Files) -> Files:
    """What a device that refreshed at this moment has on its disk."""
    newest = dict.fromkeys(("root", "snapshot", "targets"), 0)
    for name in files:
        version, _, role = name.partition(".")
        if role in newest:
            newest[role] = max(newest[role], int(version))
    kept = {role: files[f"{version}.{role}"] for role, version in newest.items()}
    return {**kept, "timestamp": files["timestamp"]}


CHANGES: dict[str, Callable[[Repository], object]] = {
    "timestamp again": lambda repo: repo.resign(snapshot=False),
    "snapshot again": lambda repo: repo.resign(),
    "targets again": lambda repo: repo.change_targets(),
    "a release": lambda repo: repo.add(f"releases/d/{repo.targets.version}", b"x"),
    "root again": lambda repo: repo.change_root(),
    "root key": lambda repo: repo.replace_key("root", _other(repo, "root")),
    "timestamp key": lambda repo: repo.replace_key("timestamp", _other(repo, "timestamp")),
    "timestamp key, signed": lambda repo: (
        repo.replace_key("timestamp", _other(repo, "timestamp")),
        repo.resign(snapshot=False),
    ),
    "snapshot key, signed": lambda repo: (
        repo.replace_key("snapshot", _other(repo, "snapshot")),
        repo.resign(),
    ),
    "targets key, signed": lambda repo: (
        repo.replace_key("targets", _other(repo, "targets")),
        repo.change_targets(),
    ),
    "root by one key": lambda repo: repo.change_root(repo.keys["root"][:1]),
    "root by a stranger": lambda repo: repo.change_root([KEYS[11], KEYS[10]]),
    "root skips a version": lambda repo: (
        md.new_version(repo.root, NOW_S, NOW_S + DAY_S),
        repo.change_root(),
    ),
    "time passes": lambda repo: setattr(repo, "now_s", repo.now_s + 3 * DAY_S),
    "a month passes": lambda repo: setattr(repo, "now_s", repo.now_s + 31 * DAY_S),
    "timestamp runs ahead": lambda repo: (
        setattr(repo, "timestamp_version", repo.timestamp_version + 1000),
        repo.resign(snapshot=False),
    ),
    "snapshot by a stranger": lambda repo: _with_key(repo, "snapshot", KEYS[11]),
    "timestamp by a stranger": lambda repo: _with_key(repo, "timestamp", KEYS[11]),
}


def _other(repo: Repository, role: str) -> object:
    taken = {key.public for keys in repo.keys.values() for key in keys}
    return next(key for key in KEYS[7:10] if key.public not in taken)


def _with_key(repo: Repository, role: str, key: object) -> None:
    """Sign once with another key."""
    right, repo.keys[role] = repo.keys[role], [key]  # type: ignore[list-item]
    repo.resign()
    repo.keys[role] = right


changes = st.lists(st.sampled_from(sorted(CHANGES)), max_size=6)


def _apply(repo: Repository, names: list[str]) -> None:
    for name in names:
        try:
            CHANGES[name](repo)
        except StopIteration:  # no key is left to rotate to
            continue


@settings(max_examples=60, deadline=None)
@given(before=changes, after=changes, data=st.data())
def test_same_verdict_as_python_tuf(
    before: list[str], after: list[str], data: st.DataObject
) -> None:
    """Whatever happened to a repository, and whichever of its files an attacker serves again."""
    repo = Repository()
    _apply(repo, before)
    old = repo.mark()
    kept = kept_of(old) if data.draw(st.booleans(), "has refreshed") else {"root": repo.anchor}
    _apply(repo, after)
    files = repo.mark()
    for name in data.draw(st.lists(st.sampled_from(sorted(old)), max_size=2), "served again"):
        files[data.draw(st.sampled_from([name, *_same_role(files, name)]), "in place of")] = old[
            name
        ]
    assert ours(files, kept, repo.now_s) == theirs(files, kept, repo.now_s)


def _same_role(files: Files, name: str) -> list[str]:
    role = name.rpartition(".")[2]
    return sorted(other for other in files if other.rpartition(".")[2] == role)


def _paths(value: object, at: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Every place in a JSON document."""
    found = [at]
    items = value.items() if isinstance(value, dict) else []
    items = enumerate(value) if isinstance(value, list) else items
    for key, item in items:
        found += _paths(item, (*at, key))
    return found


ODD = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        1,
        2,
        10**30,
        1.5,
        "",
        "x",
        "1.0",
        "2026-01-01T00:00:00Z",
        [],
        {},
        "ff" * 32,
    ]
)


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_mutated_metadata_is_never_accepted_where_python_tuf_refuses(data: st.DataObject) -> None:
    """One value anywhere replaced or removed, and signed again by the right keys."""
    repo = Repository()
    kept = kept_of(repo.mark())
    repo.add("releases/d/1", b"x")
    repo.change_root()
    files = repo.mark()
    name = data.draw(st.sampled_from(["2.root", "timestamp", "2.snapshot", "2.targets"]))
    document = json.loads(files[name])
    place = data.draw(st.sampled_from([path for path in _paths(document) if path]))
    _replace(document, place, data.draw(ODD), remove=data.draw(st.booleans()))
    role = name.rpartition(".")[2]
    if data.draw(st.booleans(), "signed again"):
        _sign_again(document, repo, role)
    files[name] = json.dumps(document).encode()
    verdict = ours(files, kept, repo.now_s)
    if verdict != REFUSED:
        assert verdict == theirs(files, kept, repo.now_s)


def _replace(document: object, place: tuple[object, ...], value: object, *, remove: bool) -> None:
    *parents, last = place
    for key in parents:
        document = document[key]  # type: ignore[index]
    if remove:
        del document[last]  # type: ignore[attr-defined]
    else:
        document[last] = copy.deepcopy(value)  # type: ignore[index]


def _sign_again(document: object, repo: Repository, role: str) -> None:
    """As an insider would: whatever it says, the right keys have signed it."""
    try:
        message = canonical_json(document["signed"])  # type: ignore[index]
    except (ValueError, KeyError, TypeError):
        return
    document["signatures"] = [  # type: ignore[index]
        {"keyid": md.tuf_keyid(key.public), "sig": key.private.sign(message).hex()}
        for key in repo.keys[role][:2]
    ]


@settings(max_examples=60, deadline=None)
@given(
    position=st.integers(0, 4000),
    value=st.integers(0, 255),
    name=st.sampled_from(["timestamp", "1.snapshot", "1.targets", "1.root"]),
)
def test_a_changed_byte_is_refused_or_means_the_same(position: int, value: int, name: str) -> None:
    """White space may change; nothing else may."""
    repo = Repository()
    files = repo.mark()
    changed = bytearray(files[name])
    changed[position % len(changed)] = value
    kept = {"root": bytes(changed) if name == "1.root" else repo.anchor}
    files[name] = bytes(changed)
    assert ours(files, kept, NOW_S) == theirs(files, kept, NOW_S)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.text('ab\\"é', max_size=3), inner, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_canonical_form_is_python_tufs(value: object) -> None:
    assert canonical_json(value) == encode_canonical(value).encode()


@pytest.mark.parametrize("value", [1.5, {"a": [float("nan")]}, b"x", "\ud800"])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        canonical_json(value)
    with pytest.raises((FormatError, UnicodeEncodeError)):
        encode_canonical(value).encode()


def slug(act: Callable[[], object]) -> str:
    with pytest.raises(TrustError) as caught:
        act()
    return caught.value.slug


def full(repo: Repository, now_s: int = NOW_S) -> Trusted:
    trusted = restore(repo.anchor, lambda role: kept_of(repo.files).get(role))
    check_fresh(trusted, now_s)
    return trusted


def test_longer_metadata_is_refused_unread() -> None:
    trusted = tuf_trust.begin(Repository().anchor)
    padded = Repository().files["timestamp"] + b" " * MAX_BYTES["timestamp"]
    assert slug(lambda: tuf_trust.update_timestamp(trusted, padded, NOW_S)) == "metadata-too-large"


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'{"signed":{}}', b"[" * 50_000])
def test_garbage_is_refused(data: bytes) -> None:
    assert slug(lambda: tuf_trust.begin(data)) == "bad-metadata"


@pytest.mark.parametrize("place", ["keytype", "scheme"])
def test_a_key_of_another_kind_is_refused_as_python_tuf_does(place: str) -> None:
    repo = Repository()
    kept = kept_of(repo.mark())
    repo.change_root()
    files = repo.mark()
    document = json.loads(files["2.root"])
    next(iter(document["signed"]["keys"].values()))[place] = "unheard-of"
    _sign_again(document, repo, "root")
    files["2.root"] = json.dumps(document).encode()
    assert ours(files, kept, repo.now_s) == theirs(files, kept, repo.now_s) == REFUSED


def test_one_key_under_two_ids_counts_once() -> None:
    """Stricter than python-tuf: a threshold means so many different keys."""
    repo = Repository()
    root = parse_root(repo.anchor)
    role = root.roles["root"]
    first, second, _ = sorted(role.keys)
    doubled = type(role)({first: role.keys[first], second: role.keys[first]}, 2)
    signature = dict(root.signatures)
    mine = next(keyid for keyid in role.keys if keyid in signature)
    twice = ((first, signature[mine]), (second, signature[mine]))
    forged = type(root)(**{**_fields(root), "signatures": twice})
    only = type(role)({first: role.keys[mine], second: role.keys[mine]}, 2)
    assert len(signers(forged, only)) == 1
    assert len(doubled.keys) == 2


def _fields(value: object) -> dict[str, object]:
    names = type(value).__dataclass_fields__  # type: ignore[attr-defined]
    return {name: getattr(value, name) for name in names}


def test_nothing_new_changes_nothing() -> None:
    repo = Repository()
    trusted = full(repo)
    assert tuf_trust.update_timestamp(trusted, repo.files["timestamp"], NOW_S) is trusted


def test_expiry_is_to_the_second() -> None:
    repo = Repository()
    full(repo, NOW_S + DAY_S - 1)
    assert slug(lambda: full(repo, NOW_S + DAY_S)) == "expired-metadata"


def test_incomplete_metadata_is_not_fresh() -> None:
    repo = Repository()
    trusted = tuf_trust.update_timestamp(
        tuf_trust.begin(repo.anchor), repo.files["timestamp"], NOW_S
    )
    assert slug(lambda: check_fresh(trusted, NOW_S)) == "no-metadata"


def test_unknown_release_is_not_published() -> None:
    trusted = full(Repository())
    assert slug(lambda: tuf_trust.find_target(check_fresh(trusted, NOW_S), "releases/d/9")) == (
        "no-target"
    )


def test_damaged_files_are_left_out_and_the_root_is_not() -> None:
    repo = Repository()
    kept = kept_of(repo.files)
    kept["snapshot"] = kept["snapshot"][:-9]
    trusted = restore(kept["root"], lambda role: kept.get(role))
    assert trusted.versions == {"root": 1, "timestamp": 1, "snapshot": 0, "targets": 1}
    assert slug(lambda: restore(kept["root"][:-9], lambda role: None)) == "bad-metadata"


def test_root_names_the_fleet_keys() -> None:
    repo = Repository()
    before = tuf_trust.begin(repo.anchor)
    repo.replace_key("fleet", KEYS[9])
    after = tuf_trust.update_root(before, repo.files["2.root"])
    assert before.root.fleet is not None
    assert after.root.fleet is not None
    assert set(after.root.fleet.keys.values()) == {KEYS[9].public}
    assert tuf_trust.keys_removed(before.root, after.root)
    assert not tuf_trust.keys_removed(after.root, after.root)

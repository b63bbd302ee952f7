"""The key ceremony as its holders type it."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge_sdk.bundle.signing import generate_key
from edge_sdk.cli import passphrase
from edge_sdk.cli.release import command as release
from edge_sdk.cli.server import command as server
from edge_sdk.durable import DiskStorage
from edge_sdk.repository.metadata import KeyRole
from edge_sdk.repository.ring import DAY_S, Ring
from tests.fakes.fleet import write_release
from tests.fakes.tuf_repository import NOW_S
from tests.fakes.updating import tiny_release

PUBLIC: dict[KeyRole, list[bytes]] = {
    role: [generate_key().public] for role in ("fleet", "snapshot", "timestamp")
}
SECRET = {"EDGE_KEY_PASSPHRASE": "secret"}


def run(
    *words: object,
    code: int = 0,
    typed: str | None = None,
    env: Any = SECRET,
    group: tuple[str, ...] = ("key",),
) -> Any:
    """What ``edge release key WORDS --json`` found; the error's code when it is to fail."""
    arguments = [*group, *map(str, words), "--json"]
    done = CliRunner().invoke(release, arguments, input=typed, env=env)
    assert done.exit_code == code, done.output
    document = json.loads(done.stdout[done.stdout.index("{") :])
    return document["result"] if code == 0 else document["error"]["code"]


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """The server's data folder with its keys."""
    folder = tmp_path / "fleet"
    assert CliRunner().invoke(server, ["keys", "--data", str(folder)]).exit_code == 0
    return folder


@pytest.fixture
def keys(tmp_path: Path, fleet: Path) -> Path:
    """A ceremony with both root keys in one folder."""
    folder = tmp_path / "keys"
    run("init", folder, "--server-keys", fleet)
    return folder


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody sits there."""
    monkeypatch.setattr(passphrase, "is_terminal", lambda: True)


def private(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.pem"))


# --- passphrases ---


def test_nobody_to_ask_is_told_and_leaves_nothing(tmp_path: Path, fleet: Path) -> None:
    keys = tmp_path / "keys"
    assert run("init", keys, "--server-keys", fleet, code=6, env={}) == "trust.passphrase-needed"
    empty = tmp_path / "empty"
    empty.touch()
    options = ("--server-keys", fleet, "--passphrase-file", empty)
    assert run("init", keys, *options, code=6, env={}) == "trust.no-passphrase"
    assert not keys.exists()


def test_what_cannot_be_is_refused_before_anybody_types(tmp_path: Path, fleet: Path) -> None:
    """No terminal and no passphrase here: whoever asked first would say so."""
    init = ("init", tmp_path / "keys", "--server-keys")
    assert run(*init, tmp_path / "flet", code=6, env={}) == "trust.no-key"
    assert run(*init, fleet, "--threshold", 3, code=6, env={}) == "trust.bad-threshold"


@pytest.mark.usefixtures("terminal")
def test_a_mistyped_passphrase_is_asked_for_again(keys: Path) -> None:
    typed = "wrong\nsecret\nsecret\nnew\nnew\nsecret\n"
    assert run("rotate", keys, "--role", "targets", typed=typed, env={})["root"] == 2
    thrice = "a\nb\nc\n"
    assert run("renew", keys, typed=thrice, code=6, env={}) == "trust.wrong-passphrase"


def test_no_key_is_left_behind_that_nobody_named(keys: Path) -> None:
    wrong = {"EDGE_KEY_PASSPHRASE": "wrong"}
    rotate = ("rotate", keys, "--role", "targets")
    assert run(*rotate, code=6, env=wrong) == "trust.wrong-passphrase"
    assert private(keys) == ["root-1.pem", "root-2.pem", "targets-1.pem"]


# --- one holder ---


def test_the_list_names_files_and_dead_keys(keys: Path) -> None:
    assert run("list", keys)["unused"] == []
    assert run("rotate", keys, "--role", "targets")["unused"] == [str(keys / "targets-1.pem")]
    shown = CliRunner().invoke(release, ["key", "list", str(keys)], env={"COLUMNS": "200"}).output
    assert "root-2.pem" in shown
    assert "destroy" in shown


def test_a_servers_key_is_replaced_there_first(keys: Path, fleet: Path) -> None:
    """The commands of the recovery table, in the wrong order and in the right one."""
    rotate = ("rotate", keys, "--role", "fleet", "--public", fleet / "fleet.key.pub")
    assert run(*rotate, code=2) == "usage.same-key"
    (fleet / "fleet.key").unlink()
    lost = CliRunner().invoke(server, ["keys", "--data", str(fleet)])
    assert lost.exit_code == 6
    assert "--replace fleet" in lost.output
    replace = ["keys", "--data", str(fleet), "--replace", "fleet"]
    assert CliRunner().invoke(server, replace).exit_code == 0
    assert run(*rotate)["root"] == 2


def test_keys_that_others_may_read_are_pointed_out(
    fleet: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (fleet / "timestamp.key").chmod(0o644)
    assert CliRunner().invoke(server, ["keys", "--data", str(fleet)]).exit_code == 0
    assert "chmod 600" in caplog.text


def test_metadata_that_is_gone_is_told(keys: Path) -> None:
    (keys / "metadata" / "targets.json").unlink()
    assert run("list", keys, code=7) == "storage.unreadable"


def test_an_ambiguous_key_is_asked_back(keys: Path) -> None:
    assert run("rotate", keys, "--role", "root", code=2) == "usage.unknown-key"
    more = ("add", keys, "--role", "root", "--threshold", 5)
    assert run(*more, code=6) == "trust.bad-threshold"
    assert private(keys) == ["root-1.pem", "root-2.pem", "targets-1.pem"]


def test_a_root_that_has_expired_is_renewed(tmp_path: Path) -> None:
    """Three years in a drawer: the list says so, and the same keys go on."""
    old = tmp_path / "keys"
    unlock = passphrase.Passphrases(None, "P").load
    ring = Ring(old, DiskStorage(), unlock, lambda: NOW_S - 3 * 365 * DAY_S)
    ring.init(root_keys=2, threshold=2, public=PUBLIC, passphrase=b"secret")
    shown = CliRunner().invoke(release, ["key", "list", str(old)]).output
    assert "days ago" in shown
    assert f"edge release key renew {old} --role root" in " ".join(shown.split())
    assert run("renew", old, "--role", "root")["root"] == 2
    assert run("renew", old)["targets"] == 2
    assert "days ago" not in CliRunner().invoke(release, ["key", "list", str(old)]).output


def test_two_commands_do_not_change_the_keys_at_once(keys: Path) -> None:
    with (keys / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run("renew", keys, code=7) == "storage.keys-in-use"
        assert run("list", keys)["targets"] == 1
    assert run("renew", keys)["targets"] == 2


def test_a_release_is_verified_against_the_root(keys: Path, tmp_path: Path) -> None:
    """As devices do: by the targets, whatever roots came since the one they were given."""
    shutil.copy(keys / "trust.json", tmp_path / "trust.json")
    folder = write_release(tiny_release("1", size=3000), tmp_path / "r1")
    check = ("verify", folder, "--trust", tmp_path / "trust.json")
    assert run(*check, code=6, group=()) == "trust.no-target"
    run("rotate", keys, "--role", "targets")
    run("sign", folder, "--keys", keys, group=())
    assert run(*check, group=())["version"] == "1"
    other = write_release(tiny_release("1", size=3000, seed=9), tmp_path / "other")
    shutil.copytree(folder / "metadata", other / "metadata")
    check = ("verify", other, "--trust", tmp_path / "trust.json")
    assert run(*check, code=6, group=()) == "trust.other-target"


# --- two of three holders, each on a machine of their own ---


def copy_metadata(source: Path, target: Path) -> None:
    """As by mail or stick: files are added and replaced, none is deleted."""
    shutil.copytree(source / "metadata", target / "metadata", dirs_exist_ok=True)


@pytest.fixture
def holders(tmp_path: Path, fleet: Path) -> dict[str, Path]:
    """Folders of three holders of root keys; the first one's also has the targets key."""
    folders = {name: tmp_path / name for name in ("ada", "ben", "cleo")}
    public: list[object] = []
    for folder in folders.values():
        run("create", folder / "mine.pem", "--passphrase")
        public += ["--root-public", folder / "mine.pem.pub"]
    begun = run("init", folders["ada"], "--server-keys", fleet, *public)
    assert begun["pending"] == {"1": 1}  # her own key lay in the folder, and has signed
    copy_metadata(folders["ada"], folders["ben"])
    assert run("sign", folders["ben"])["root"] == 1
    copy_metadata(folders["ben"], folders["ada"])
    copy_metadata(folders["ben"], folders["cleo"])
    return folders


def test_the_first_root_comes_into_force_by_two(holders: dict[str, Path]) -> None:
    ada = run("list", holders["ada"])
    assert ada["pending"] == {}
    assert ada["roles"]["root"]["threshold"] == 2
    assert len(ada["roles"]["root"]["keyids"]) == 3
    assert (holders["ada"] / "trust.json").exists()


def test_a_change_goes_from_holder_to_holder(holders: dict[str, Path]) -> None:
    ada, ben = holders["ada"], holders["ben"]
    first = run("rotate", ada, "--role", "targets")
    assert first["pending"] == {"1": 1, "2": 1}
    assert sum("targets" in line for line in first["changes"]) == 2
    copy_metadata(ada, ben)
    assert run("list", ben)["changes"] == first["changes"]  # seen before it is signed
    assert run("sign", ben)["root"] == 2
    copy_metadata(ben, ada)  # the pending root that lies there still is overtaken
    assert run("list", ada)["pending"] == {}
    assert run("sign", ada, code=2) == "usage.nothing-pending"
    assert run("renew", ada)["targets"] == 2


def test_two_holders_sign_copies_at_the_same_time(holders: dict[str, Path], tmp_path: Path) -> None:
    ada, ben, cleo = holders.values()
    away = (ada / "mine.pem").rename(tmp_path / "mine.pem")  # in the safe
    (ada / "mine.pem.pub").rename(tmp_path / "mine.pem.pub")
    assert run("renew", ada, "--role", "root")["pending"] == {"1": 2, "2": 2}
    for other in (ben, cleo):
        copy_metadata(ada, other)
        assert run("sign", other)["pending"] == {"1": 1, "2": 1}
    copies = [word for other in (ben, cleo) for word in ("--from", pending(other))]
    assert run("sign", ada, *copies)["root"] == 2
    run("renew", ada, "--role", "root")
    assert run("sign", ada, "--from", pending(ben), code=2) == "usage.other-root"
    assert away.exists()


def pending(folder: Path) -> Path:
    return folder / "metadata" / "pending.root.json"

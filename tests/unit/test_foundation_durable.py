"""Durable writes: cut the power at every step, for real, and look what is on the disk."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.durable import DiskStorage, storage_error, sync_folder
from edge_sdk.errors import StorageError

STEPS = ("write", "half", "rename", "done")
OLD, NEW = b"old" * 5000, b"new and longer" * 5000


class FailsAt(DiskStorage):
    """A disk that reports an error at one step."""

    def __init__(self, name: str, error: OSError) -> None:
        self._name, self._error = name, error

    def step(self, name: str, path: Path) -> None:
        if name == self._name:
            raise self._error


KILLED_AT = """
import os, signal, sys
from pathlib import Path
from edge_sdk.durable import DiskStorage

class Cut(DiskStorage):
    def step(self, name, path):
        if name == sys.argv[2]:
            os.kill(os.getpid(), signal.SIGKILL)

path = Path(sys.argv[1])
if sys.argv[2] == "remove":
    Cut().remove(path)
else:
    Cut().write(path, b"new and longer" * 5000)
"""


@pytest.mark.parametrize("step", [*STEPS, "remove"])
def test_a_process_killed_at_any_step_leaves_the_old_file_or_the_new_one(
    step: str, tmp_path: Path
) -> None:
    path = tmp_path / "state.json"
    DiskStorage().write(path, OLD)
    done = subprocess.run([sys.executable, "-c", KILLED_AT, str(path), step], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == (NEW if step == "done" else OLD)
    DiskStorage().write(path, NEW)
    assert path.read_bytes() == NEW
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "storage.disk-full"),
        (errno.EDQUOT, "storage.disk-full"),
        (errno.EIO, "storage.write-failed"),
    ],
)
def test_an_error_at_any_step_is_reported_and_leaves_no_litter(
    step: str, number: int, code: str, tmp_path: Path
) -> None:
    path = tmp_path / "state.json"
    DiskStorage().write(path, OLD)
    with pytest.raises(StorageError) as caught:
        FailsAt(step, OSError(number, os.strerror(number))).write(path, NEW)
    assert caught.value.code == code
    assert str(path) in caught.value.cause
    assert path.read_bytes() == (NEW if step == "done" else OLD)
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_a_limit_of_the_operating_system_itself_is_survived(tmp_path: Path) -> None:
    """A real write error: the kernel refuses to let the file grow beyond a limit."""
    path = tmp_path / "state.json"
    DiskStorage().write(path, OLD)
    program = (
        "import resource, signal, sys\nfrom pathlib import Path\n"
        "from edge_sdk.durable import DiskStorage\nfrom edge_sdk.errors import StorageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: DiskStorage().write(Path(sys.argv[1]), b'x' * 100_000)\n"
        "except StorageError as error: sys.exit(0 if error.slug == 'write-failed' else 1)\n"
        "sys.exit(2)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], timeout=60)
    assert done.returncode == 0
    assert path.read_bytes() == OLD
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_a_folder_that_is_missing_is_made_and_a_file_in_its_place_is_an_error(
    tmp_path: Path,
) -> None:
    DiskStorage().write(tmp_path / "a" / "b" / "c", b"x")
    assert (tmp_path / "a" / "b" / "c").read_bytes() == b"x"
    with pytest.raises(StorageError) as caught:
        DiskStorage().write(tmp_path / "a" / "b" / "c" / "d", b"x")
    assert caught.value.code == "storage.write-failed"


def test_names_of_new_folders_are_made_durable_too(tmp_path: Path) -> None:
    synced: list[str] = []

    class Noting(DiskStorage):
        def sync(self, handle: int) -> None:
            path = Path(f"/proc/self/fd/{handle}").resolve()
            synced.append(str(path.relative_to(tmp_path.resolve())))

    Noting().write(tmp_path / "a" / "b" / "c", b"x")
    assert synced == [".", "a", "a/b/c.tmp", "a/b"]


def test_removing_is_idempotent_and_an_error_is_a_storage_error(tmp_path: Path) -> None:
    DiskStorage().write(tmp_path / "x", b"x")
    DiskStorage().remove(tmp_path / "x")
    DiskStorage().remove(tmp_path / "x")
    DiskStorage().remove(tmp_path / "nowhere" / "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError):
        DiskStorage().remove(tmp_path / "folder")
    sync_folder(tmp_path)


@settings(max_examples=25)
@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=4))
def test_the_last_write_wins_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, versions: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("disk") / "file"
    for data in versions:
        DiskStorage().write(path, data)
    assert path.read_bytes() == versions[-1]


def test_an_error_without_a_number_still_reads_well() -> None:
    error = storage_error(OSError("odd"), Path("x"))
    assert error.cause == "Cannot write x: odd."


# -- files that arrive in pieces ----------------------------------------------------------------

PIECES_KILLED_AT = """
import os, signal, sys
from pathlib import Path
from edge_sdk.durable import DiskStorage

class Cut(DiskStorage):
    def step(self, name, path):
        if name == sys.argv[2]:
            os.kill(os.getpid(), signal.SIGKILL)

part, path = Path(sys.argv[1], "part"), Path(sys.argv[1], "blob")
storage = Cut()
storage.write_at(part, 5, b"world")
storage.write_at(part, 0, b"hello")
storage.finish(part, path)
"""


@pytest.mark.parametrize("step", ["piece", "sync", "rename", "done"])
def test_a_file_in_pieces_is_either_unfinished_or_whole(step: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PIECES_KILLED_AT, str(tmp_path), step], timeout=60)
    assert done.returncode == -signal.SIGKILL
    part, path = tmp_path / "part", tmp_path / "blob"
    assert path.is_file() == (step == "done")
    if step == "done":
        assert path.read_bytes() == b"helloworld"
        return
    storage = DiskStorage()
    storage.write_at(part, 0, b"hello")
    storage.write_at(part, 5, b"world")
    storage.finish(part, path)
    assert path.read_bytes() == b"helloworld"
    assert not part.exists()


@settings(max_examples=25)
@given(st.binary(min_size=1, max_size=4000), st.integers(1, 700), st.randoms())
def test_pieces_in_any_order_and_more_than_once_make_the_file(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, size: int, random: Random
) -> None:
    folder = tmp_path_factory.mktemp("pieces")
    offsets = list(range(0, len(data), size))
    order = offsets + offsets[:2]
    random.shuffle(order)
    for offset in order:
        DiskStorage().write_at(folder / "part", offset, data[offset : offset + size])
    DiskStorage().finish(folder / "part", folder / "deep" / "blob")
    assert (folder / "deep" / "blob").read_bytes() == data


@pytest.mark.parametrize("step", ["sync", "rename"])
def test_an_error_while_finishing_keeps_the_pieces(step: str, tmp_path: Path) -> None:
    disk = FailsAt(step, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    disk.write_at(tmp_path / "part", 0, b"x")
    with pytest.raises(StorageError, match=r"storage\.disk-full"):
        disk.finish(tmp_path / "part", tmp_path / "blob")
    assert (tmp_path / "part").read_bytes() == b"x"
    assert not (tmp_path / "blob").exists()


def test_a_piece_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    disk = FailsAt("piece", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(StorageError, match=r"storage\.disk-full"):
        disk.write_at(tmp_path / "part", 0, b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match=r"storage\.write-failed"):
        DiskStorage().write_at(tmp_path / "folder", 0, b"x")
    with pytest.raises(StorageError, match=r"storage\.write-failed"):
        DiskStorage().finish(tmp_path / "absent", tmp_path / "blob")

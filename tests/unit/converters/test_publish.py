"""The output folder is the old one or the new one, whatever happens in between."""

from __future__ import annotations

import errno
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from converters.publish import CONVERSION_NAME, Publisher
from edge_sdk.errors import ConversionError, StorageError

STEPS = ("aside", "place", "clean")


class PowerCut(BaseException):
    """The power goes off: nothing after it runs."""


CUT = """
import os, sys
from pathlib import Path
from converters.publish import CONVERSION_NAME, Publisher

class Cut(Publisher):
    def step(self, name):
        if name == sys.argv[2]:
            os._exit(9)  # no clean-up code may help

with Cut(Path(sys.argv[1])).building() as folder:
    (folder / CONVERSION_NAME).write_text(sys.argv[3])
"""


def publish_cut(out: Path, at: str, content: str) -> int:
    """Publish in a process that loses power right before a step; its exit code.

    Not by fork: other tests leave threads of native libraries behind, which a fork trips over.
    """
    return subprocess.run([sys.executable, "-c", CUT, str(out), at, content]).returncode


def publish(publisher: Publisher, content: str) -> None:
    with publisher.building() as folder:
        (folder / CONVERSION_NAME).write_text(content)


def read(out: Path) -> str:
    return (out / CONVERSION_NAME).read_text()


def leftovers(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir() if path != out)


def test_a_new_folder_appears(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    publish(Publisher(out), "one")
    assert read(out) == "one"
    assert leftovers(out) == []


def test_an_earlier_conversion_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish(Publisher(out), "one")
    publish(Publisher(out), "two")
    assert read(out) == "two"
    assert leftovers(out) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_while_building_changes_nothing(tmp_path: Path, error: type) -> None:
    out = tmp_path / "out"
    publish(Publisher(out), "one")
    with pytest.raises(error), Publisher(out).building() as folder:
        (folder / "half").write_text("half")
        raise error
    assert read(out) == "one"
    assert leftovers(out) == []


@pytest.mark.parametrize("at", STEPS)
def test_an_exception_at_every_step_keeps_a_whole_folder(tmp_path: Path, at: str) -> None:
    class Fails(Publisher):
        def step(self, name: str) -> None:
            if name == at:
                raise PowerCut

    out = tmp_path / "out"
    publish(Publisher(out), "one")
    with pytest.raises(PowerCut):
        publish(Fails(out), "two")
    assert read(out) == ("two" if at == "clean" else "one")


@pytest.mark.parametrize("at", STEPS)
def test_a_power_cut_at_every_step_is_recovered(tmp_path: Path, at: str) -> None:
    out = tmp_path / "out"
    publish(Publisher(out), "one")
    assert publish_cut(out, at, "two") == 9
    with pytest.raises(ValueError), Publisher(out).building():
        raise ValueError  # the next run fails too, but first it repairs
    assert read(out) == ("two" if at == "clean" else "one")
    assert leftovers(out) == []


def test_a_first_conversion_cut_short_leaves_nothing_behind(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert publish_cut(out, "place", "one") == 9
    assert not out.exists()
    publish(Publisher(out), "two")
    assert read(out) == "two"
    assert leftovers(out) == []


def test_foreign_content_is_never_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(ConversionError, match=r"conversion\.output-occupied"):
        publish(Publisher(out), "one")
    assert (out / "thesis.tex").read_text() == "years of work"
    publish(Publisher(out, force=True), "one")
    assert read(out) == "one"


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    publish(Publisher(out), "one")
    assert read(out) == "one"


def test_a_plain_file_in_the_way_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("a file")
    with pytest.raises(ConversionError, match=r"conversion\.output-occupied"):
        publish(Publisher(out), "one")
    assert out.read_text() == "a file"


def test_a_parent_that_is_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError):
        publish(Publisher(tmp_path / "file" / "out"), "one")


def test_two_conversions_into_one_folder_do_not_mix(tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = "import sys; print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        (tmp_path / f".out.building-{other.pid}").mkdir()
        with pytest.raises(ConversionError, match=r"conversion\.output-busy"):
            publish(Publisher(out), "one")
        other.communicate(b"")
    publish(Publisher(out), "one")
    assert leftovers(out) == []


def test_of_two_that_begin_at_once_none_overtakes_the_other(tmp_path: Path) -> None:
    """The other's folder appears between the look around and the creation of one's own."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:

        class Late(Publisher):
            def check(self) -> None:
                super().check()
                (tmp_path / f".out.building-{other.pid}").mkdir(exist_ok=True)

        with pytest.raises(ConversionError, match=r"conversion\.output-busy"):
            publish(Late(tmp_path / "out"), "one")
        assert leftovers(tmp_path / "out") == [f".out.building-{other.pid}"]
        other.communicate(b"\n")


@pytest.mark.parametrize("out", ["/", "..", "../.."])
def test_the_folder_one_stands_in_is_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    with pytest.raises(ConversionError, match=r"conversion\.output-occupied"):
        publish(Publisher(Path(out).absolute(), force=True), "one")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b"]


def test_a_name_that_looks_like_a_pattern_is_a_name(tmp_path: Path) -> None:
    (tmp_path / ".a.building-1").mkdir()
    publish(Publisher(tmp_path / "[a]"), "one")
    assert read(tmp_path / "[a]") == "one"
    assert (tmp_path / ".a.building-1").is_dir()


@pytest.mark.parametrize("number", [errno.ENOSPC, None])
def test_a_full_disk_is_named_with_its_place(tmp_path: Path, number: int | None) -> None:
    place = str(tmp_path / "scratch" / "calibration.npz")
    error = OSError(number, "full", place) if number else OSError("34560 requested and 1 written")
    publisher = Publisher(tmp_path / "out")
    with pytest.raises(StorageError) as caught, publisher.building():
        raise error
    assert caught.value.code == "storage.disk-full"
    assert (place if number else tempfile.gettempdir()) in caught.value.cause
    assert list(tmp_path.iterdir()) == []

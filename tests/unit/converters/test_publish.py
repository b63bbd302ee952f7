"""The output folder is the old one or the new one, whatever happens in between."""

from __future__ import annotations

import subprocess
import sys
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

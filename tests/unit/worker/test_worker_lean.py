"""Workers without docstrings, where what they import is compiled so, and only there."""

from __future__ import annotations

import json
import os
import py_compile
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli.main import main
from agent.worker import lean
from agent.worker.protocol import Ready
from tests.fakes.listeners import make_listening_release
from tests.fakes.workers import Workers, collect, has

FEW = ("agent", "logging", "msgspec", "numpy", "ai_edge_litert.interpreter", "no.such.module")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Compiled modules of this process and of those that it starts lie here, and nowhere else."""
    folder = tmp_path / "compiled"
    monkeypatch.setattr(sys, "pycache_prefix", str(folder))
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(folder))
    monkeypatch.setattr(lean, "IMPORTED", FEW)
    monkeypatch.setattr(lean, "_TOLD_BY", ("agent", "logging", "msgspec", "numpy"))
    yield folder


def compiled(tmp_path: Path) -> tuple[Path, Path]:
    source = tmp_path / "module.py"
    source.write_text('"""Says much."""\n')
    target = py_compile.compile(str(source), optimize=2)
    assert target is not None
    return source, Path(target)


def test_what_is_compiled_from_the_present_source_is_fresh(tmp_path: Path, cache: Path) -> None:
    source, target = compiled(tmp_path)
    assert target.is_relative_to(cache)
    assert lean.is_fresh(source)


def test_what_is_compiled_by_content_is_python_s_to_judge(tmp_path: Path, cache: Path) -> None:
    source, _ = compiled(tmp_path)
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(source), optimize=2, invalidation_mode=mode)
    assert lean.is_fresh(source)


def test_an_update_makes_it_stale(tmp_path: Path, cache: Path) -> None:
    source, _ = compiled(tmp_path)
    os.utime(source, (1, 1))
    assert not lean.is_fresh(source)


def test_a_change_of_size_makes_it_stale(tmp_path: Path, cache: Path) -> None:
    source, _ = compiled(tmp_path)
    before = source.stat()
    source.write_text("")
    os.utime(source, (before.st_atime, before.st_mtime))
    assert not lean.is_fresh(source)


@pytest.mark.parametrize("content", [b"", b"short", b"of another Python" * 9])
def test_what_is_no_compiled_module_is_not_fresh(
    tmp_path: Path, cache: Path, content: bytes
) -> None:
    source, target = compiled(tmp_path)
    target.write_bytes(content)
    assert not lean.is_fresh(source)


def test_without_a_compiled_file_nothing_is_fresh(tmp_path: Path, cache: Path) -> None:
    source, target = compiled(tmp_path)
    target.unlink()
    assert not lean.is_fresh(source)
    source.unlink()
    assert not lean.is_fresh(source)


def test_a_worker_is_lean_once_its_modules_are_compiled(tmp_path: Path, cache: Path) -> None:
    assert lean.python_flags() == []
    lean.compile_workers()
    assert lean.python_flags() == ["-OO"]
    workers = Workers(tmp_path)
    try:
        release = make_listening_release(tmp_path / "release")
        worker = workers.spawn(
            workers.spec(release, source={"kind": "sound", "path": "word.wav"}, hold=True)
        )
        collect(worker, has(Ready))
        command = Path(f"/proc/{worker.pid}/cmdline").read_bytes().split(b"\0")
    finally:
        workers.close()
    assert b"-OO" in command


def test_the_command_says_what_it_did(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compile", "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["result"] == {"compiled": True}
    assert lean.is_compiled()


def test_where_nothing_can_be_written_it_says_so(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.raises(SystemExit) as ended:
        main(["compile"])
    assert ended.value.code
    assert "error[storage.not-compiled]" in capsys.readouterr().err
    assert lean.python_flags() == []

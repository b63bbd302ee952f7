"""Packaging files: pins are complete and portable, and the Makefile and CI fail with a reason."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.source_walk import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKE = shutil.which("make")
needs_make = pytest.mark.skipif(MAKE is None, reason="make is not installed")


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    entries = [line for line in lines if line and not line.startswith("#")]
    odd = [e for e in entries if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", e)]
    assert odd == [], "name==version only: no local versions, paths or addresses"
    return dict(entry.split("==") for entry in entries)


def test_every_direct_requirement_is_pinned_within_its_range() -> None:
    pinned = pins()
    extras = PROJECT["optional-dependencies"]
    for text in [*PROJECT["dependencies"], *(r for listed in extras.values() for r in listed)]:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name == PROJECT["name"]:
            assert requirement.extras <= set(extras), text
            continue
        assert name in pinned, f"{name} is not in constraints.txt"
        assert requirement.specifier.contains(pinned[name], prereleases=True), text


def test_the_agents_extras_ask_for_nothing_of_the_host() -> None:
    extras = PROJECT["optional-dependencies"]
    names = {Requirement(r).name for extra in ("agent", "litert") for r in extras[extra]}
    assert names == {"paho-mqtt", "psutil", "cryptography", "numpy", "ai-edge-litert"}


@needs_make
def test_bare_make_lists_every_target() -> None:
    done = make(ROOT)
    assert done.returncode == 0
    targets = re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text())
    assert {"install", "demo", "test", "lint", "docs", "clean"} <= set(targets)
    assert [t for t in targets if f"make {t} " not in done.stdout] == []


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that `make install` looks at, without an environment."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@needs_make
def test_a_missing_python_is_named_with_a_hint(checkout: Path) -> None:
    done = make(checkout, "install", "PYTHON=python-that-is-absent")
    assert done.returncode != 0
    assert "python-that-is-absent was not found" in done.stderr
    assert "Hint:" in done.stderr
    assert not (checkout / ".venv").exists()


@needs_make
@pytest.mark.parametrize(
    ("script", "message"),
    [
        ('[ "$1" = --version ] && { echo "Python 3.9.1"; exit 0; }; exit 1', "Python 3.9.1 is too"),
        ('case "$*" in *ensurepip*) exit 1;; *) exit 0;; esac', "apt-get install python3-venv"),
    ],
    ids=["too old", "without venv"],
)
def test_an_unfit_python_is_refused_with_a_hint(checkout: Path, script: str, message: str) -> None:
    python = checkout / "odd-python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    done = make(checkout, "install", f"PYTHON={python}")
    assert done.returncode != 0
    assert message in done.stderr
    assert "Hint:" in done.stderr
    assert not (checkout / ".venv").exists()


@needs_make
def test_a_finished_install_is_not_repeated_until_a_requirement_changes(checkout: Path) -> None:
    stamp = checkout / ".venv" / ".installed"
    stamp.parent.mkdir()
    stamp.touch()
    assert make(checkout, "-q", "install").returncode == 0
    os.utime(stamp, (0, 0))
    assert make(checkout, "-q", "install").returncode == 1


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.skipif(
    shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None,
    reason="mosquitto is not installed, so .ci/run would install it",
)
@pytest.mark.parametrize(("failing", "code"), [("lint", 7), ("test", 9), ("demo", 3), ("none", 0)])
def test_ci_ends_with_the_exit_code_of_the_step_that_failed(
    failing: str, code: int, tmp_path: Path
) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    stand_in = tmp_path / "bin" / "make"
    stand_in.parent.mkdir()
    stand_in.write_text(f'#!/bin/sh\necho "ran $1"\n[ "$1" = {failing} ] && exit {code}\nexit 0\n')
    stand_in.chmod(0o755)
    done = subprocess.run(
        [str(tmp_path / ".ci" / "run")],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PATH": f"{stand_in.parent}:{os.environ['PATH']}"},
    )
    assert done.returncode == code, done.stderr
    steps = ["install", "lint", "test", "demo"]
    expected = steps[: steps.index(failing) + 1] if failing in steps else steps
    assert re.findall(r"(?m)^ran (\w+)", done.stdout) == expected


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert MAKE is not None
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        [MAKE, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )

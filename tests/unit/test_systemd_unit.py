"""The shipped service unit: what it promises, and that systemd itself accepts it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from agent.cli.main import _parser
from agent.config import default_folders

UNIT = Path(__file__).parents[2] / "agent" / "systemd" / "edge-agent.service"
ANALYZE = shutil.which("systemd-analyze")


def settings(section: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    current = ""
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            current = line.strip("[]")
        elif current == section and line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key].append(value)
    return found


def test_it_notifies_is_watched_and_is_always_restarted() -> None:
    service = settings("Service")
    assert service["Type"] == ["notify"]
    assert service["Restart"] == ["always"]
    assert 10 <= int(service["WatchdogSec"][0]) <= 120
    assert settings("Unit")["StartLimitIntervalSec"] == ["0"]
    assert settings("Install")["WantedBy"] == ["multi-user.target"]


def test_its_folders_are_those_the_agent_uses() -> None:
    service = settings("Service")
    state, runtime = default_folders({}, root=True)
    assert f"/var/lib/{service['StateDirectory'][0]}" == state
    assert f"/run/{service['RuntimeDirectory'][0]}" == runtime


def test_its_command_line_is_one_the_agent_accepts() -> None:
    (command,) = settings("Service")["ExecStart"]
    program, *arguments = command.split()
    assert program.endswith("/edge-agent")
    options = _parser().parse_args(arguments)
    assert options.command == "run"
    assert options.config == Path("/etc/edge-agent/agent.toml")


def test_it_runs_without_privileges_and_leaves_the_governor_its_files() -> None:
    service = settings("Service")
    for key in ("DynamicUser", "NoNewPrivileges", "ProtectHome", "PrivateTmp", "LockPersonality"):
        assert service[key] == ["yes"], key
    assert service["CapabilityBoundingSet"] == [""]
    assert service["ProtectSystem"] == ["strict"]
    assert "ProcSubset" not in service, "would hide /proc/pressure"
    assert "PrivateDevices" not in service, "would hide cameras"


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_it(tmp_path: Path) -> None:
    assert ANALYZE is not None
    copy = tmp_path / UNIT.name
    text = re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text())
    copy.write_text(text)
    done = subprocess.run(
        [ANALYZE, "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert UNIT.name not in done.stderr


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_rates_its_exposure_as_ok() -> None:
    assert ANALYZE is not None
    done = subprocess.run(
        [ANALYZE, "security", "--offline=true", "--threshold=30", "--no-pager", str(UNIT)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot rate a file")
    assert done.returncode == 0, done.stdout[-300:] + done.stderr

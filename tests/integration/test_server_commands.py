"""The fleet commands as a user types them, against a real server, broker and device."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.config import load_config, tls_files
from edge_sdk.bundle.signing import public_pem
from edge_sdk.bundle.trust import load_trust
from edge_sdk.contracts.update import Phase
from edge_sdk.tls import client_context
from tests.fakes.brokers import running_broker
from tests.fakes.fleet import PahoDevice, RunningServer, write_release
from tests.fakes.processes import edge_command, free_port
from tests.fakes.updating import RELEASE_KEY, tiny_release


class Shell:
    """Runs ``edge`` with the environment of a user who has set EDGE_DATA."""

    def __init__(self, data: Path) -> None:
        self._data = data

    def __call__(self, *args: str, code: int = 0, **env: str) -> str:
        done = subprocess.run(
            edge_command(*args),
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "EDGE_DATA": str(self._data), "COLUMNS": "160", **env},
        )
        assert "Traceback" not in done.stderr
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 or "--json" in args else done.stderr

    def json(self, *args: str, code: int = 0, **env: str) -> Any:
        document = json.loads(self(*args, "--json", code=code, **env))
        return document["result"] if code == 0 else document["error"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("commands")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RunningServer]:
    with running_broker("amqtt", folder / "broker") as broker:
        running = RunningServer(folder / "data", broker.url)
        yield running
        running.stop()


@pytest.fixture(scope="module")
def edge(server: RunningServer) -> Shell:
    return Shell(server.data)


@pytest.fixture(scope="module")
def public(folder: Path) -> Path:
    path = folder / "release.pub"
    path.write_bytes(public_pem(RELEASE_KEY.public))
    return path


def enrolled(edge: Shell, out: Path, public: Path) -> None:
    """A device that exists for the server only: tests of this file may run apart."""
    options = ("--profile", "rpi4", "--release-key", str(public), "--out", str(out))
    edge("device", "enroll", out.name, *options)


def test_the_whole_way_by_hand(edge: Shell, folder: Path, public: Path) -> None:
    assert "connected" in edge("server", "status")
    out = folder / "cam-1"
    edge(
        *("device", "enroll", "cam-1", "--profile", "rpi4", "--out", str(out)),
        *("--release-key", str(public), "--video", "digits.avi"),
    )
    config = load_config(out / "agent.toml", {"HOME": str(folder)}, root=False)
    assert (config.device_id, config.profile, config.tenant) == ("cam-1", "rpi4", "edge")
    assert (config.state_dir, config.runtime_dir) == (str(out / "state"), str(out / "run"))
    assert config.pipelines[0].source.path == str(Path("digits.avi").absolute())
    trust = load_trust(out / "trust.json")
    for version in ("1", "2"):
        release = write_release(tiny_release(version), folder / f"v{version}")
        assert f"Published digits {version}" in edge("release", "publish", str(release))

    def verdict(version: str) -> Phase:
        return Phase.REJECTED if version == "2" else Phase.COMMITTED

    device = PahoDevice(config.broker.port, "cam-1", trust, verdict=verdict)
    try:
        text = edge("rollout", "create", "digits", "1", "--timeout", "60")
        assert "cam-1: committed" in text
        assert "edge rollout rollback" in text
        error = edge.json("rollout", "create", "digits", "2", "--timeout", "60", code=3)
        assert error["code"] == "gate.rollout-failed"
        assert "cam-1 rejected" in error["cause"]
        status = edge.json("rollout", "status")
        assert (status["state"], status["members"][0]["status"]) == ("failed", "failed")
        assert "digits 1" in edge("device", "list")
        shown = edge.json("device", "show", "cam-1")
        assert (shown["version"], shown["desired_version"]) == ("1", "1")
        device.verdict = lambda _: Phase.COMMITTED
        edge("rollout", "create", "digits", "2", "--canary", "1", "--timeout", "60")
        assert edge.json("rollout", "rollback")["state"] == "rolled_back"
        text = edge("rollout", "status")
        assert "restored" in text and "Warning" not in text
    finally:
        device.stop()


def test_a_rollout_that_nobody_answers_times_out_and_can_be_aborted(
    edge: Shell, folder: Path, public: Path
) -> None:
    enrolled(edge, folder / "cam-silent", public)
    edge("release", "publish", str(write_release(tiny_release("5"), folder / "v5")))
    error = edge.json("rollout", "create", "digits", "5", "--timeout", "0.5", code=5)
    assert error["code"] == "link.rollout-timeout"
    assert edge.json("rollout", "create", "digits", "5", code=2)["code"] == "usage.rollout-active"
    paused = edge.json("rollout", "pause")
    assert (paused["state"], paused["paused"]) == ("full", True)
    assert {member["status"] for member in paused["members"]} == {"waiting"}
    assert "full, paused" in edge("rollout", "status")
    assert "offered" in edge("rollout", "resume")
    assert "aborted" in edge("rollout", "abort")
    assert edge.json("rollout", "pause", code=2)["code"] == "usage.rollout-ended"
    bounds = ("--window", "00:00-24:00", "--rate-kib-s", "64", "--devices-per-hour", "60")
    text = edge("rollout", "create", "digits", "5", "--no-wait", *bounds)
    assert "full" in text
    assert "Windows: 00:00-24:00; 64 KiB/s a device; 60 devices an hour" in text
    edge("rollout", "abort")
    bad = ("--window", "at night")
    error = edge.json("rollout", "create", "digits", "5", *bad, code=4)
    assert error["code"] == "config.bad-window"


def test_a_rollback_warns_where_there_is_nothing_to_go_back_to(
    edge: Shell, folder: Path, public: Path
) -> None:
    enrolled(edge, folder / "cam-new", public)
    edge("release", "publish", str(write_release(tiny_release("6"), folder / "v6")))
    edge("rollout", "create", "digits", "6", "--device", "cam-new", "--no-wait")
    text = edge("rollout", "rollback")
    assert "kept" in text and "restored" not in text
    assert "Warning: nothing to go back to on cam-new" in text


def test_a_device_of_a_broker_with_tls_gets_its_certificate(
    edge: Shell, folder: Path, public: Path
) -> None:
    options = ("--profile", "rpi4", "--release-key", str(public), "--broker", "mqtts://b.example")
    out = folder / "cam-tls"
    enroll = ("device", "enroll", "cam-tls", *options, "--out", str(out))
    assert edge.json(*enroll, code=4)["code"] == "config.tls-incomplete"
    edge("broker", "authority", "init")
    assert "device.key" in edge(*enroll)
    config = load_config(out / "agent.toml", {"HOME": str(folder)}, root=False).broker
    assert (config.host, config.port) == ("b.example", 8883)
    assert client_context(tls_files(config), 0.0)
    assert [each["name"] for each in edge.json("broker", "authority", "list")] == [
        "_server",
        "cam-tls",
    ]
    edge(*enroll, "--force", "--broker-ca", str(out / "broker-ca.pem"))
    config = load_config(out / "agent.toml", {"HOME": str(folder)}, root=False).broker
    assert (config.tls_cert, config.tls_ca) == ("", str(out / "broker-ca.pem"))


def test_enrolling_refuses_what_cannot_work(edge: Shell, folder: Path, public: Path) -> None:
    def enroll(name: str, *options: str) -> dict[str, str]:
        out = ("--out", str(folder / "refused"))
        error: dict[str, str] = edge.json(
            "device", "enroll", name, *out, *options, code=(4, 4, 2, 6)[len(seen)]
        )
        seen.append(error["code"])
        return error

    seen: list[str] = []
    key = ("--release-key", str(public))
    assert "rpi4" in enroll("cam-9", "--profile", "rpi44", *key)["hint"]
    enroll("cam/9", "--profile", "rpi4", *key)
    enroll("cam-9", "--profile", "rpi4")
    enroll("cam-9", "--profile", "rpi4", "--release-key", str(folder / "none.pub"))
    assert seen[1:] == ["config.bad-name", "usage.no-release-key", "trust.no-key"]
    assert not (folder / "refused").exists()
    assert "cam-9" not in edge("device", "list")


def test_enrolling_twice_replaces_only_when_told(edge: Shell, folder: Path, public: Path) -> None:
    args = ["device", "enroll", "cam-2", "--profile", "rpi5", "--out", str(folder / "cam-2")]
    args += ["--release-key", str(public), "--broker", "mqtt://fleet@10.0.0.9", "--camera", "2"]
    edge(*args)
    written = tomllib.loads((folder / "cam-2" / "agent.toml").read_text())
    assert written["broker"] == {"host": "10.0.0.9", "port": 1883, "username": "fleet"}
    assert written["pipeline"]["source"] == {"kind": "camera", "device": 2}
    assert edge.json(*args, code=7)["code"] == "storage.file-exists"
    edge(*args, "--force", "--system")
    written = tomllib.loads((folder / "cam-2" / "agent.toml").read_text())
    assert not {"state_dir", "runtime_dir"} & written.keys()


def test_the_server_is_found_by_option_environment_or_folder(
    edge: Shell, server: RunningServer, public: Path, tmp_path: Path
) -> None:
    enrolled(edge, tmp_path / "cam-found", public)
    token = (server.data / "token").read_text().strip()
    by_option = ("--server", server.url, "--token", token)
    assert "cam-found" in edge("device", "list", *by_option, EDGE_DATA="")
    env = {"EDGE_SERVER": server.url, "EDGE_TOKEN": token, "EDGE_DATA": ""}
    assert "cam-found" in edge("device", "list", **env)
    assert edge.json("device", "list", code=4, EDGE_DATA="")["code"] == "config.no-token"
    error = edge.json("device", "list", "--token", "wrong", code=5)
    assert error["code"] == "link.unauthorised"
    error = edge.json("device", "list", "--data", str(tmp_path), code=5)
    assert error["code"] == "link.server-unreachable"
    gone = ("--server", f"http://127.0.0.1:{free_port()}", "--token", "x")
    assert edge.json("device", "list", *gone, code=5)["code"] == "link.server-unreachable"


def test_publishing_what_is_not_a_release_is_refused(edge: Shell, tmp_path: Path) -> None:
    assert edge.json("release", "publish", str(tmp_path), code=7)["code"] == "storage.not-a-release"


@pytest.mark.parametrize(
    "command",
    [
        "server run",
        "server status",
        "broker run",
        "device list",
        "device show",
        "device enroll",
        "rollout create",
        "rollout status",
        "rollout rollback",
        "rollout abort",
        "rollout pause",
        "rollout resume",
        "release publish",
    ],
)
def test_every_command_has_help_and_json(edge: Shell, command: str) -> None:
    text = edge(*command.split(), "--help")
    assert "--json" in text

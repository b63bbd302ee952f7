"""A whole fleet for tests: a real broker, the real server, real agents, tiny real models."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge_sdk.bundle.release import sign_release
from edge_sdk.bundle.signing import generate_key, load_key, load_public, public_pem
from edge_sdk.bundle.trust import trust_root
from edge_sdk.client.api import FleetClient
from edge_sdk.contracts.base import decode, encode
from edge_sdk.contracts.fleet import DeviceInfo
from edge_sdk.contracts.manifest import Manifest
from edge_sdk.contracts.update import FINAL_PHASES, TrialPolicy
from edge_sdk.durable import DiskStorage
from edge_sdk.errors import LinkError
from edge_sdk.repository.metadata import KeyRole
from edge_sdk.repository.ring import Ring
from tests.fakes.brokers import RunningBroker
from tests.fakes.classifiers import PROFILE, DeviceRelease, Recipe, make_release, write_frames
from tests.fakes.processes import Process, edge_command, free_port

RELEASE = "brightest"
TENANT = "test"
QUICK_TRIAL = TrialPolicy(min_frames=30, max_frames=3000, max_seconds=60.0, max_latency_ratio=1e6)
"""Latency says nothing here: the models take microseconds and the machine is shared."""

LADDER = (Recipe("onnx"), Recipe("onnx", size_px=8))

CONFIG = """
device_id = "{id}"
tenant = "{tenant}"
profile = "{profile}"
state_dir = "state"
runtime_dir = "run"
telemetry_interval_s = 0.5

[broker]
host = "127.0.0.1"
port = {port}
{tls}

[governor]
enabled = false

[update]
chunk_timeout_s = 0.5
headroom_patience_s = 0.1
preflight_retry_s = 0.1

[mirror]
min_bytes = 1

[pipeline]
name = "camera"

[pipeline.source]
kind = "frames"
path = "{frames}"
fps = 60.0
loop = true
"""


class FleetHouse:
    """Starts and stops the parts of a fleet below one folder."""

    def __init__(self, folder: Path, broker: RunningBroker) -> None:
        self.ring: Ring | None = None
        self.mirror = ""
        """Base URL that releases published from now on name."""
        self.folder = folder
        self.broker = broker
        self.data = folder / "data"
        self.port = free_port()
        self.key = generate_key()
        self.agents: dict[str, Process] = {}
        self.frames = write_frames(folder / "frames.npz", count=60)
        (folder / "release.pub").write_bytes(public_pem(self.key.public))
        self.server = self._server()

    def _server(self) -> Process:
        command = edge_command(
            *("server", "run", "--data", str(self.data), "--port", str(self.port)),
            *("--broker", self.broker.url, "--tenant", TENANT),
            *("--release-key", str(self.folder / "release.pub")),
        )
        process = Process(command, self.folder / "server.log")
        wait_until(lambda: (self.data / "token").exists() and self._healthy(), 60.0, "the server")
        return process

    def use_tuf(self) -> Ring:
        """Begin a TUF repository; devices that are added from now on are bound to its root."""
        online: tuple[KeyRole, ...] = ("fleet", "snapshot", "timestamp")
        public = {role: [load_public(self.data / f"{role}.key.pub")] for role in online}
        self.ring = Ring(
            self.folder / "keys",
            DiskStorage(),
            lambda path: load_key(path, b"secret"),
            time.time,
        )
        self.ring.init(root_keys=2, threshold=2, public=public, passphrase=b"secret")
        return self.ring

    def _healthy(self) -> bool:
        try:
            with self.client() as client:
                return client.health().ok
        except LinkError:
            return False

    def client(self) -> FleetClient:
        """A client with the server's token."""
        token = (self.data / "token").read_text().strip()
        return FleetClient(f"http://127.0.0.1:{self.port}", token)

    def restart_server(self) -> None:
        """SIGKILL the server and start it again."""
        self.server.stop(signal.SIGKILL)
        self.server = self._server()

    def publish(self, version: str, recipes: tuple[Recipe, ...] = LADDER, **options: float) -> None:
        """Make, sign and publish a release of the brightest-channel classifier."""
        folder = self.folder / f"release-{version}"
        self.publish_made(make_release(folder, recipes, version=version, **options), version)

    def publish_made(self, made: DeviceRelease, version: str) -> None:
        """Sign and publish a release that lies in a folder of its own."""
        manifest = decode(made.path.read_bytes(), Manifest, "manifest")
        changes = {"sequence": int(version), "mirror": self.mirror}
        made.path.write_bytes(encode(msgspec.structs.replace(manifest, **changes)))
        sign_release(made.path.parent, self.key)
        if self.ring is not None:
            self.ring.sign_folder(made.path.parent)
        with self.client() as client:
            client.publish_release(made.path.parent)

    def roll_out(self, version: str, *devices: str, trial: TrialPolicy = QUICK_TRIAL) -> str:
        """Begin a rollout; returns its id."""
        with self.client() as client:
            return client.create_rollout(
                RELEASE, version, devices=devices, trial=trial, max_failures=len(devices)
            ).id

    def add_device(self, device_id: str) -> Path:
        """Enroll a device; returns its home folder."""
        home = self.folder / device_id
        home.mkdir()
        with self.client() as client:
            client.enroll(device_id, PROFILE)
            fleet_key = client.trust().public_key
        trust = trust_root([self.key.public], [fleet_key])
        if self.ring is not None:
            trust = trust_root([], [], root=self.ring.roots()[-1])
        (home / "trust.json").write_bytes(encode(trust))
        config = CONFIG.format(
            id=device_id,
            tenant=TENANT,
            profile=PROFILE,
            port=self.broker.port,
            tls="\n".join(self.broker.agent_lines(device_id, home)),
            frames=self.frames,
        )
        (home / "agent.toml").write_text(config)
        return home

    def start_agent(self, device_id: str, kill_at: int = 0) -> Process:
        """Start an agent; ``kill_at`` n kills it by SIGKILL before its n-th durable step."""
        config = str(self.folder / device_id / "agent.toml")
        module = ["agent.cli.main", "run", "--config", config]
        if kill_at:
            module = ["tests.fakes.killing_agent", config, str(kill_at)]
        log = self.folder / device_id / "agent.log"
        process = Process([sys.executable, "-m", *module], log)
        self.agents[device_id] = process
        return process

    def worker_pid(self, device_id: str) -> int:
        """Process id of the device's newest worker, from the agent's log."""
        return int(re.findall(r"worker (\d+) starts", self.agents[device_id].output())[-1])

    def device(self, device_id: str) -> DeviceInfo:
        """What the server knows of a device."""
        with self.client() as client:
            return client.device(device_id)

    def wait_for_version(self, device_id: str, version: str, timeout_s: float = 60.0) -> None:
        """Wait until the device is online and serves ``version``."""

        def reached() -> bool:
            info = self.device(device_id)
            return info.online and info.version == version

        try:
            wait_until(reached, timeout_s, f"{device_id} to run {version}")
        except TimeoutError as error:
            log = self.agents[device_id].output()[-4000:]
            raise TimeoutError(f"{error}; last seen {self.device(device_id)}; {log}") from None

    def wait_for_end(self, rollout: str, device_id: str, timeout_s: float = 60.0) -> str:
        """Wait for a device's last word on a rollout; returns its phase."""
        phase = ""

        def ended() -> bool:
            nonlocal phase
            phase = self.phase(rollout, device_id)
            return phase in FINAL_PHASES

        try:
            wait_until(ended, timeout_s, f"{device_id} to finish rollout {rollout}")
        except TimeoutError as error:
            log = self.agents[device_id].output()[-4000:]
            raise TimeoutError(f"{error}; last phase {phase!r}; {log}") from None
        return phase

    def phase(self, rollout: str, device_id: str) -> str:
        """How far a device is with a rollout, as the server has heard."""
        with self.client() as client:
            members = client.rollout(rollout).members
        return str(next(member.phase for member in members if member.device_id == device_id))

    def stop(self) -> None:
        """End everything this house started."""
        for agent in self.agents.values():
            agent.stop()
        self.server.stop()


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Poll until true.

    Raises:
        TimeoutError: it never was.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(0.05)

"""The demo's fleet: broker, server and three agents, each a process of its own."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.demo.board import Board
from edge_sdk.demo.processes import Processes, wait_for
from edge_sdk.demo.shell import Shell

TENANT = "demo"
STREAM_FPS = 25.0


@dataclass(frozen=True, slots=True)
class Member:
    """A simulated device."""

    id: str
    profile: str
    board: str
    """What its device tree says; empty for a machine without one."""


MEMBERS = (
    Member("pi-kitchen", "rpi4", "Raspberry Pi 4 Model B Rev 1.5"),
    Member("jetson-door", "jetson-orin-nano", "NVIDIA Jetson Orin Nano Developer Kit"),
    Member("laptop", "x86-generic", ""),
)

AGENT_SETTINGS = """
# Quick reactions, so that the demo shows in seconds what takes a real device minutes.
telemetry_interval_s = 0.5
sensors_root = "{board}"

[pipeline]
name = "camera"
objective_ms = 40.0

[pipeline.source]
kind = "video"
path = "{video}"
labels = "{labels}"
fps = {fps}
loop = true

[pipeline.publish]
batch = 25
max_interval_s = 0.5

[governor]
time_constant_s = 0.5
dwell_down_s = 1.5
dwell_up_s = 2.5
"""


@dataclass(frozen=True, slots=True)
class Stream:
    """The labelled video all agents look at."""

    video: Path
    labels: Path


class Fleet:
    """Starts the processes and knows how to reach them.

    Args:
        folder: everything the fleet writes lies below it.
        processes: owner of the processes.
        shell: runs ``edge`` commands.
    """

    def __init__(self, folder: Path, processes: Processes, shell: Shell) -> None:
        self._folder = folder
        self._processes = processes
        self._shell = shell
        self.data = folder / "server"
        self.broker_port = free_port()
        self.server_port = free_port()
        self.boards: dict[str, Board] = {}

    @property
    def server_url(self) -> str:
        """Where the fleet server listens."""
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def access(self) -> tuple[str, ...]:
        """Options that let a command reach the server."""
        return ("--server", self.server_url, "--data", str(self.data))

    def start_server(self) -> None:
        """Start the broker and the fleet server, and wait until both answer."""
        broker = ["broker", "run", "--port", str(self.broker_port)]
        self._processes.start("broker", "edge_sdk.cli.main", broker)
        wait_for(lambda: answers(self.broker_port), 30.0, "the broker", self._processes)
        server = [
            *("server", "run", "--data", str(self.data), "--port", str(self.server_port)),
            *("--broker", f"mqtt://127.0.0.1:{self.broker_port}", "--tenant", TENANT),
        ]
        self._processes.start("server", "edge_sdk.cli.main", server)
        wait_for(lambda: answers(self.server_port), 30.0, "the server", self._processes)

    def enroll(self, member: Member, trust: Path, stream: Stream) -> Path:
        """Enroll a device; returns its configuration file."""
        home = self._folder / "devices" / member.id
        self._shell.run(
            *("device", "enroll", member.id, "--profile", member.profile),
            *("--trust", str(trust), "--out", str(home), *self.access),
        )
        board = Board(home / "board", member.board)
        self.boards[member.id] = board
        config = home / "agent.toml"
        settings = AGENT_SETTINGS.format(
            board=board.root.absolute(),
            video=stream.video.absolute(),
            labels=stream.labels.absolute(),
            fps=STREAM_FPS,
        )
        config.write_text(with_settings(config.read_text(), settings))
        return config

    def start_agent(self, member: Member, config: Path) -> None:
        """Start a device's agent."""
        self._processes.start(member.id, "agent.cli.main", ["run", "--config", str(config)])


def with_settings(config: str, settings: str) -> str:
    """An agent configuration with the demo's settings in place of its example pipeline."""
    top, *sections = config.split("\n[")
    kept = [part for part in sections if part.startswith(("broker]", "broker."))]
    heading, *own = settings.split("\n[")
    dropped = ("telemetry_interval_s", "sensors_root", "state_dir", "runtime_dir")
    lines = [line for line in top.splitlines() if not line.startswith(dropped)]
    folders = 'state_dir = "state"\nruntime_dir = "run"\n'
    return "\n[".join(["\n".join(lines) + "\n" + folders + heading, *kept, *own])


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection(("127.0.0.1", port), 0.5):
            return True
    except OSError:
        return False

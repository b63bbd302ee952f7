"""A RabbitMQ cluster with the MQTT plugin for tests: every port on the loopback interface.

Nothing of the system's own RabbitMQ is touched: each node has its own name, folders, ports and
configuration, all nodes share a port mapper (epmd) that is started and ended here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes.processes import Process, free_port, wait_for_port

INSTALLED = Path("/usr/lib/rabbitmq/bin")
"""Where Debian and Ubuntu put the scripts that do not change user."""
START_S = 120.0

CONFIG = """
listeners.tcp.1 = 127.0.0.1:{amqp}
mqtt.listeners.tcp.1 = 127.0.0.1:{mqtt}
mqtt.allow_anonymous = true
mqtt.tcp_listen_options.nodelay = true
default_user = guest
default_pass = guest
cluster_formation.peer_discovery_backend = classic_config
cluster_formation.target_cluster_size_hint = {size}
{members}
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.absolute = 1GB
"""


class RabbitNode:
    """One node; speaks MQTT 3.1.1 on :attr:`port`."""

    def __init__(self, number: int, folder: Path, size: int, mapper_port: int) -> None:
        self.port, self._folder = free_port(), folder / f"rabbit{number}"
        self._folder.mkdir(parents=True)
        self.name = f"rabbit{number}@localhost"
        members = "\n".join(
            f"cluster_formation.classic_config.nodes.{index} = rabbit{index}@localhost"
            for index in range(1, size + 1)
        )
        text = CONFIG.format(amqp=free_port(), mqtt=self.port, size=size, members=members)
        (self._folder / "rabbitmq.conf").write_text(text)
        (self._folder / "plugins").write_text("[rabbitmq_mqtt].\n")
        self._process = Process(
            [str(INSTALLED / "rabbitmq-server")],
            self._folder / "output.log",
            self._environment(folder, mapper_port),
        )

    def _environment(self, home: Path, mapper_port: int) -> dict[str, str]:
        # One scheduler thread that does not spin: several nodes share a test machine's cores.
        virtual_machine = "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none"
        loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
        return {
            "HOME": str(home),  # of the cookie by which nodes know each other
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(mapper_port),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "data"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_PID_FILE": str(self._folder / "pid"),
            "RABBITMQ_CONF_ENV_FILE": str(self._folder / "no-such-file"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{virtual_machine} {loopback}",
        }

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"mqtt://127.0.0.1:{self.port}"

    def wait(self) -> None:
        """Until it has joined and takes MQTT connections."""
        self._process.wait_for("completed with", START_S)
        wait_for_port(self.port, self._process.child)

    def agent_lines(self, device_id: str, home: Path) -> list[str]:
        """Nothing that an agent needs besides host and port."""
        del device_id, home
        return []

    def stop(self) -> None:
        """End the script and the virtual machine below it; nothing here is worth a goodbye."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.child.pid, signal.SIGKILL)
        self._process.stop()


@contextmanager
def rabbit_cluster(folder: Path, size: int) -> Iterator[list[RabbitNode]]:
    """``size`` nodes that have joined each other."""
    mapper = shutil.which("epmd")
    if mapper is None or not (INSTALLED / "rabbitmq-server").exists():
        pytest.skip("RabbitMQ is not installed (apt-get install rabbitmq-server)")
    folder.mkdir(parents=True, exist_ok=True)
    cookie = folder / ".erlang.cookie"
    cookie.write_text(os.urandom(16).hex())
    cookie.chmod(0o400)
    port = free_port()
    command = [mapper, "-address", "127.0.0.1", "-port", str(port), "-relaxed_command_check"]
    epmd = Process(command, folder / "epmd.log")
    nodes: list[RabbitNode] = []
    try:
        wait_for_port(port, epmd.child)
        for number in range(1, size + 1):
            # One after the other: where two join at once, the register of client ids (Raft) may
            # stay without a leader on the last one, which then refuses everybody.
            nodes.append(RabbitNode(number, folder, size, port))
            nodes[-1].wait()
        yield nodes
    finally:
        for node in nodes:
            node.stop()
        epmd.stop()

"""What interruptions cost an update: the broker is killed twice and the agent once, all by SIGKILL.

Real parts throughout: mosquitto (without persistence, so it loses every chunk it kept), the fleet
server, and the agent's updater and link in a process of its own. Between broker and device is a
link of limited rate that counts bytes: everything that reaches the device, MQTT's own bytes, lost
beginnings of chunks and duplicates included.

    python benchmarks/ota_resume.py [--quick] [--json] [--check]
"""

from __future__ import annotations

import argparse
import json
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from edge_sdk.client.api import FleetClient
from edge_sdk.contracts.base import decode, encode
from edge_sdk.contracts.fleet import RolloutState
from edge_sdk.contracts.trust import TrustRoot
from tests.fakes.brokers import RunningBroker
from tests.fakes.fleet import RunningServer, device_trust, write_release
from tests.fakes.thin_device import ThinDevice
from tests.fakes.updating import tiny_release

BAR = 1.02
PATIENCE_S = 120.0
DOWN_SECONDS = 1.0
"""The broker stays away this long."""


class SlowLink:
    """Passes TCP connections on at a limited rate towards the device, and counts that direction."""

    def __init__(self, port: int, bytes_per_s: float) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._to, self._rate = port, bytes_per_s
        self.received = 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            device, _ = self._listener.accept()
            threading.Thread(target=self._pass, args=(device,), daemon=True).start()

    def _pass(self, device: socket.socket) -> None:
        with device, suppress(OSError), socket.create_connection(("127.0.0.1", self._to)) as broker:
            device.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
            broker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
            with selectors.DefaultSelector() as ready:
                ready.register(broker, selectors.EVENT_READ, device)
                ready.register(device, selectors.EVENT_READ, broker)
                while self._pump(ready, broker):
                    pass

    def _pump(self, ready: selectors.BaseSelector, broker: socket.socket) -> bool:
        for key, _ in ready.select():
            source: socket.socket = key.fileobj  # type: ignore[assignment]
            data = source.recv(8192)
            if not data:
                return False
            key.data.sendall(data)
            if source is broker:
                self.received += len(data)
                time.sleep(len(data) / self._rate)
        return True


class Agent:
    """This program again, as a device; may be killed and started anew on the same files."""

    def __init__(self, port: int, folder: Path, trust: Path) -> None:
        self._command = [sys.executable, __file__, "--device", str(port), str(folder), str(trust)]
        self._child: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._child = subprocess.Popen(self._command)

    def kill(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.send_signal(signal.SIGKILL)
            child.wait(20)


def run_device(port: int, folder: Path, trust: Path) -> None:
    """The child process: a device until it is killed."""
    device = ThinDevice(port, "cam-1", decode(trust.read_bytes(), TrustRoot, "trust"), folder)
    while True:
        time.sleep(1)
        del device.reports[:-10]


def wait_for(check: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not check():
        if time.monotonic() > deadline:
            raise SystemExit(f"never happened: {what}")
        time.sleep(0.02)


def restart(broker: RunningBroker) -> None:
    broker.kill()
    time.sleep(DOWN_SECONDS)
    broker.start()


def measure(size: int, bytes_per_s: float) -> dict[str, float]:
    """One transfer of ``size`` bytes with three interruptions, at a quarter, a half and three."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        broker = RunningBroker("mosquitto", folder)
        stack.callback(broker.stop)
        server = RunningServer(folder / "data", broker.url)
        stack.callback(server.stop)
        client = server.client()
        stack.callback(client.close)
        trust = folder / "trust.json"
        trust.write_bytes(encode(device_trust(client)))
        link = SlowLink(broker.port, bytes_per_s)
        agent = Agent(link.port, folder / "device", trust)
        stack.callback(agent.kill)
        wait_for(lambda: any(d.online for d in client.devices()), "the device is online")
        release = tiny_release("1", size=size * 3 // 4)  # and a second file a third as large
        payload = sum(len(data) for _, data in release.everything)
        client.publish_release(write_release(release, folder / "release"))
        before, began = link.received, time.monotonic()
        client.create_rollout("digits", "1")
        events: list[Callable[[], None]] = [
            lambda: restart(broker),
            lambda: (agent.kill(), agent.start()),  # type: ignore[func-returns-value]
            lambda: restart(broker),
        ]
        for quarter, happens in enumerate(events, 1):
            share = payload * quarter / 4
            wait_for(lambda share=share: link.received - before > share, "bytes arrive")  # type: ignore[misc]
            happens()
        _finish(client)
        return {
            "payload_bytes": payload,
            "received_bytes": link.received - before,
            "ratio": (link.received - before) / payload,
            "seconds": round(time.monotonic() - began, 1),
        }


def _finish(client: FleetClient) -> None:
    wait_for(lambda: client.rollout().state is RolloutState.DONE, "the device commits")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="A smaller transfer, once.")
    parser.add_argument("--json", action="store_true", help="One JSON document.")
    parser.add_argument("--check", action="store_true", help="Exit 1 when the bar is missed.")
    parser.add_argument("--device", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device:
        run_device(int(options.device[0]), *map(Path, options.device[1:]))
        return
    sizes = [10_000_000] if options.quick else [20_000_000] * 3
    rows = [measure(size, 4e6) for size in sizes]
    worst = max(row["ratio"] for row in rows)
    met = worst <= BAR
    if options.json:
        print(json.dumps({"runs": rows, "worst_ratio": worst, "bar": BAR, "met": met}))
    else:
        for row in rows:
            print(
                f"{row['payload_bytes'] / 1e6:.1f} MB in {row['seconds']} s: received"
                f" {row['received_bytes'] / 1e6:.2f} MB, {row['ratio']:.4f} of the payload"
            )
        print(
            f"broker killed twice, agent once: at most {worst:.4f} of the payload received"
            f" (bar {BAR}): {'met' if met else 'MISSED'}"
        )
    if options.check and not met:
        sys.exit(1)


if __name__ == "__main__":
    main()

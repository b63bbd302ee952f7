"""What a verified refresh of TUF metadata with nothing new costs: bytes on the wire and CPU.

The device's own code (updater and link) connects to a real broker through a counting relay, so that
every byte of MQTT counts in both directions: the connection's handshake apart, subscriptions, head,
timestamp, acknowledgements, and the question for the time with its signed answer. CPU is this
thread's, for everything that the authority does with these messages, verification included.

    python benchmarks/ota_refresh.py [--quick] [--json] [--check]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from agent.config import BrokerConfig
from agent.link.mqtt import Connected, Message, MqttLink
from agent.run import SystemClock
from agent.update.authority import Authority
from agent.update.trust import Device
from agent.update.trust_store import TrustStore
from edge_sdk.bundle.signing import SigningKey, generate_key, sign
from edge_sdk.bundle.trust import trust_root
from edge_sdk.contracts.base import decode, encode
from edge_sdk.contracts.envelope import TIME_TYPE
from edge_sdk.contracts.topics import Topics
from edge_sdk.contracts.trust import TimeAttestation, TimeRequest, TufHead
from edge_sdk.durable import DiskStorage
from edge_sdk.repository import metadata as md

BAR_BYTES = 2048
BAR_CPU_MS = 5.0
PATIENCE_S = 20.0
RELEASES = 50
TOPICS = Topics("bench")
DEVICE = Device("cam-1", "rpi4", ("litert",))


class Relay:
    """Passes a TCP connection on and counts its bytes."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._to = port
        self.up = self.down = 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            client, _ = self._listener.accept()
            threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._to)) as server:
            other = {client: server, server: client}
            while True:
                for source in select.select(list(other), [], [])[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    if source is client:
                        self.up += len(data)
                    else:
                        self.down += len(data)
                    other[source].sendall(data)


class Server:
    """Publishes metadata and answers questions for the time, as the fleet server does."""

    def __init__(self, port: int) -> None:
        self._fleet = generate_key()
        keys = {
            role: generate_key() for role in ("root", "root2", "targets", "snapshot", "timestamp")
        }
        self.root, messages = _repository(keys, self._fleet)
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="server")
        self._client.on_message = self._answer
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._client.subscribe(TOPICS.every_device("ask"), 1)
        for topic, data in messages:
            self._client.publish(topic, data, 1, True).wait_for_publish(PATIENCE_S)

    def _answer(self, client: paho.Client, _: object, message: paho.MQTTMessage) -> None:
        request = decode(message.payload, TimeRequest, "question")
        answer = TimeAttestation(device_id=request.device_id, nonce=request.nonce, at=time.time())
        envelope = encode(sign(TIME_TYPE, encode(answer), self._fleet))
        client.publish(TOPICS.time(request.device_id), envelope, 1)

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def _repository(
    keys: dict[str, SigningKey], fleet: SigningKey
) -> tuple[bytes, list[tuple[str, bytes]]]:
    now = int(time.time())
    year = now + 365 * 86400
    public: dict[md.KeyRole, list[bytes]] = {
        "root": [keys["root"].public, keys["root2"].public],
        "targets": [keys["targets"].public],
        "snapshot": [keys["snapshot"].public],
        "timestamp": [keys["timestamp"].public],
        "fleet": [fleet.public],
    }
    root = md.write(md.signed_by(md.new_root(public, 2, now, year), [keys["root"], keys["root2"]]))
    targets = md.new_targets(now, year)
    for number in range(RELEASES):
        md.add_target(targets, f"releases/digits/{number}", b"%d" % number, ["rpi4"])
    targets_data = md.write(md.signed_by(targets, [keys["targets"]]))
    snapshot = md.make_snapshot(1, targets_data, now, year, keys["snapshot"])
    stamp = md.make_timestamp(1, snapshot, now, now + 86400, keys["timestamp"])
    head = TufHead(root=1, timestamp=1, targets=1)
    return root, [
        (TOPICS.tuf("root", 1), root),
        (TOPICS.tuf("targets", 1), targets_data),
        (TOPICS.tuf("snapshot", 1), snapshot),
        (TOPICS.tuf_head(), encode(head)),
        (TOPICS.tuf_timestamp(), stamp),
    ]


def refresh(root: bytes, folder: Path, port: int) -> dict[str, float]:
    """One connection of the device until its metadata is fresh and the time is known."""
    relay = Relay(port)
    link = MqttLink(BrokerConfig(host="127.0.0.1", port=relay.port), "cam-1", ("bench/will", b""))
    notices: list[str] = []
    authority = Authority(
        trust=trust_root([], [], root=root),
        store=TrustStore(folder, DiskStorage()),
        link=link,
        topics=TOPICS,
        device=DEVICE,
        clock=SystemClock(),
        notice=lambda code, _: notices.append(code),
        rekeyed=lambda: None,
    )
    authority.start()
    link.start()
    cpu = handshake = 0.0
    head = stamp = False
    deadline = time.monotonic() + PATIENCE_S
    while not (authority.time.attested and head and stamp and authority.versions["targets"]):
        if time.monotonic() > deadline:
            raise SystemExit(f"no refresh: {authority.versions}, {notices}")
        select.select([link.fileno()], [], [], 0.05)
        for item in link.poll():
            began = time.thread_time()
            if isinstance(item, Connected):
                handshake = relay.up + relay.down
                authority.on_connected()
            elif isinstance(item, Message):
                authority.on_message(item.topic, item.payload)
                head = head or item.topic == TOPICS.tuf_head()
                stamp = stamp or item.topic == TOPICS.tuf_timestamp()
            cpu += time.thread_time() - began
        began = time.thread_time()
        authority.tick()
        cpu += time.thread_time() - began
    time.sleep(0.1)  # the last acknowledgements
    total = relay.up + relay.down - handshake
    link.stop()
    return {"wire_bytes": total, "cpu_ms": cpu * 1000, "handshake_bytes": handshake}


def measure(runs: int) -> dict[str, float]:
    """A first refresh, then ``runs`` with nothing new; medians, and the largest on the wire."""
    program = next(
        (path for path in ("/usr/sbin/mosquitto", "/usr/bin/mosquitto") if Path(path).exists()), ""
    )
    if not program:
        raise SystemExit("mosquitto is not installed (apt-get install mosquitto)")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port: int = probe.getsockname()[1]
        config = folder / "mosquitto.conf"
        config.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nuser root\n"
            "set_tcp_nodelay true\nlog_dest none\n"
        )
        broker = subprocess.Popen([program, "-c", str(config)])
        stack.callback(broker.wait, 10)
        stack.callback(broker.terminate)
        _wait_for(port)
        server = Server(port)
        stack.callback(server.stop)
        first = refresh(server.root, folder / "state", port)
        rows = [refresh(server.root, folder / "state", port) for _ in range(runs)]
    return {
        "runs": runs,
        "first_wire_bytes": first["wire_bytes"],
        "first_cpu_ms": round(first["cpu_ms"], 3),
        "wire_bytes": max(row["wire_bytes"] for row in rows),
        "cpu_ms": round(statistics.median(row["cpu_ms"] for row in rows), 3),
    }


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
            return
        time.sleep(0.05)
    raise SystemExit("the broker does not start")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="Fewer runs.")
    parser.add_argument("--json", action="store_true", help="One JSON document.")
    parser.add_argument("--check", action="store_true", help="Exit 1 when a bar is missed.")
    options = parser.parse_args()
    result = measure(5 if options.quick else 30)
    met = result["wire_bytes"] <= BAR_BYTES and result["cpu_ms"] < BAR_CPU_MS
    if options.json:
        print(json.dumps({**result, "bar_bytes": BAR_BYTES, "bar_cpu_ms": BAR_CPU_MS, "met": met}))
    else:
        print(
            f"first refresh ({RELEASES} releases named): {result['first_wire_bytes']:.0f} bytes,"
            f" {result['first_cpu_ms']:.2f} ms CPU"
        )
        print(
            f"refresh with nothing new: {result['wire_bytes']:.0f} bytes on the wire"
            f" (bar {BAR_BYTES}), {result['cpu_ms']:.2f} ms CPU (bar {BAR_CPU_MS:.0f}):"
            f" {'met' if met else 'MISSED'}"
        )
    if options.check and not met:
        sys.exit(1)


if __name__ == "__main__":
    main()

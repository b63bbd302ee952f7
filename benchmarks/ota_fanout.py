"""What fan-out costs the broker: devices that fetch chunk by chunk, and devices that ride a wave.

Devices are simulated many to a process, but what they do is the agent's own code: its downloader
(window, retries, verification by hash), its asking and its riding, over a small MQTT client of this
program's. Not simulated is the writing of chunks to a disk. The server's side is the server's own
link and its waves. The broker is mosquitto with its default queue.

Broker CPU is user and system time of its process over the transfer, by bytes delivered. Beside it,
in the same run, stands what a plain TCP sender pays to send as many bytes to as many sockets.

    python benchmarks/ota_fanout.py [--quick] [--json] [--check] [--devices N]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import selectors
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from msgspec.structs import replace

from agent.run import SystemClock
from agent.update.asking import Asking
from agent.update.download import Downloader
from agent.update.limits import UpdateLimits
from agent.update.riding import Riding
from edge_sdk.bundle.blobs import blob_ref, chunk_count
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.delivery import BrokerReport
from edge_sdk.contracts.manifest import CHUNK_BYTES, BlobRef
from edge_sdk.contracts.topics import Topics
from edge_sdk.delivery.spans import for_fleet, messages
from edge_sdk.delivery.wave import CREDIT_EVERY
from edge_sdk.server.link import BrokerAddress, Link
from edge_sdk.server.probing import PAYLOADS_BYTES
from edge_sdk.server.waves import Waves

BAR_WAVE, BAR_WINDOW = 0.25, 0.40
"""CPU seconds of the broker for each GB delivered."""
TOPICS = Topics("bench")
PATIENCE_S = 300.0
GATHER_S = 5.0
SLOW_BYTES_PER_S = 2e6
TICK_S = 0.1


def payload(size: int) -> bytes:
    return random.Random(size).randbytes(size)


# --- devices ---


def packet(kind: int, body: bytes) -> bytes:
    """An MQTT packet."""
    length, size = bytearray(), len(body)
    while True:
        size, digit = size >> 7, size & 0x7F
        length.append(digit | (0x80 if size else 0))
        if not size:
            return bytes((kind, *length)) + body


def text(value: str) -> bytes:
    return struct.pack(">H", len(value)) + value.encode()


class Wire:
    """An MQTT 3.1.1 client of a few lines; the agent's Link."""

    def __init__(self, port: int, name: str, bytes_per_s: float) -> None:
        self.socket = socket.socket()
        if bytes_per_s:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(packet(0x10, text("MQTT") + b"\x04\x02\x02\x58" + text(name)))
        self._in, self._out, self._number = bytearray(), bytearray(), 0
        self._kind, self._body, self._filled = 0, bytearray(), 0
        self._rate, self._free_at = bytes_per_s, 0.0

    def subscribe(self, topic: str | Sequence[str], qos: int = 0) -> None:
        topics = [topic] if isinstance(topic, str) else topic
        self._send(0x82, b"".join(text(each) + bytes((qos,)) for each in topics))

    def unsubscribe(self, topic: str | Sequence[str]) -> None:
        self._send(0xA2, b"".join(map(text, [topic] if isinstance(topic, str) else topic)))

    def publish(self, topic: str, payload: bytes, qos: int = 0, retain: bool = False) -> object:
        self._out += packet(0x30 | retain, text(topic) + payload)
        return True

    def _send(self, kind: int, body: bytes) -> None:
        self._number = self._number % 65535 + 1
        self._out += packet(kind, struct.pack(">H", self._number) + body)

    def flush(self) -> None:
        """Send what has been said; requests are small and fit into any socket's buffer."""
        if self._out:
            self.socket.setblocking(True)
            self.socket.sendall(self._out)
            self._out.clear()

    def readable(self, now: float) -> bool:
        """Whether a slow device may read on."""
        return now >= self._free_at

    def read(self, now: float) -> Iterator[tuple[int, bytearray]]:
        """Packets that have arrived."""
        most = 16 * 1024 if self._rate else 256 * 1024
        if self._body:  # straight to its place: the devices share cores with the broker
            room = memoryview(self._body)[self._filled : self._filled + most]
            size = self.socket.recv_into(room)
        else:
            data = self.socket.recv(most)
            size = len(data)
            self._in += data
        if not size:
            raise SystemExit("the broker ended a connection")
        if self._rate:
            self._free_at = max(self._free_at, now - 0.01) + size / self._rate
        if self._body:
            self._filled += size
            if self._filled == len(self._body):
                body, self._body = self._body, bytearray()
                yield self._kind, body
            return
        yield from self._parse()

    def _parse(self) -> Iterator[tuple[int, bytearray]]:
        """Packets that are whole; of one that is not, what has come is put in its place."""
        at = 0
        while (found := self._header(at)) is not None:
            begin, size = found
            kind, body = self._in[at], self._in[begin : begin + size]
            at = begin + len(body)
            if len(body) < size:
                self._kind, self._filled = kind, len(body)
                self._body = body + bytes(size - len(body))
                break
            yield kind, body
        del self._in[:at]

    def _header(self, at: int) -> tuple[int, int] | None:
        """Begin and size of the packet's body; None while its header is not whole."""
        size = shift = 0
        for index in range(at + 1, min(at + 5, len(self._in))):
            digit = self._in[index]
            size |= (digit & 0x7F) << shift
            shift += 7
            if digit < 0x80:
                return index + 1, size
        return None


class SimulatedDevice:
    """The agent's transfer over a :class:`Wire`."""

    def __init__(self, port: int, number: int, bytes_per_s: float) -> None:
        self.wire = Wire(port, f"d{number}", bytes_per_s)
        clock, name = SystemClock(), f"d{number}"
        self.asking = Asking(self.wire, TOPICS, name, clock)
        riding = Riding(self.wire, TOPICS, name, clock)
        self.download = Downloader(self.asking, riding, TOPICS, clock, UpdateLimits())
        self.pieces = 0
        self.done_at = 0.0

    def connected(self) -> None:
        self.asking.on_connected()
        self.download.on_connected()
        self.wire.flush()

    def receive(self, now: float) -> None:
        for kind, body in self.wire.read(now):
            if kind >> 4 == 2:
                self.connected()
            elif kind >> 4 == 3:
                self._message(kind, body)
        self.asking.tick()  # as the agent does whenever something has come
        self.wire.flush()

    def _message(self, kind: int, body: bytearray) -> None:
        size = struct.unpack_from(">H", body)[0]
        topic, begin = body[2 : 2 + size].decode(), 2 + size
        if kind & 0x06:  # QoS 1: acknowledged, though lost acknowledgements would do no harm
            self.wire._out += packet(0x40, bytes(body[begin : begin + 2]))
            begin += 2
        payload = bytes(memoryview(body)[begin:])
        message = self.asking.on_message(topic, payload, bool(kind & 1))
        if message is not None:
            self.pieces += sum(1 for _ in self.download.on_chunk(*message))

    def tick(self) -> None:
        self.download.tick()
        self.asking.tick()
        self.wire.flush()


def run_devices(port: int, count: int, size: int, bytes_per_s: float) -> None:
    """The child process: connect, wait for a line, fetch, and say how it went."""
    ref = blob_ref(payload(size))
    devices = [SimulatedDevice(port, number, bytes_per_s) for number in range(count)]
    ready = selectors.DefaultSelector()
    for device in devices:
        ready.register(device.wire.socket, selectors.EVENT_READ, device)
    _turn(ready, devices, lambda: all(device.asking._report for device in devices))
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    for device in devices:
        device.download.start([(ref, range(len(ref.chunks)))])
        device.wire.flush()
    _turn(ready, devices, lambda: _all_done(devices))
    retries = sum(device.download.retries for device in devices)
    received = sum(device.download.bytes_received for device in devices)
    finished = sum(bool(device.done_at) for device in devices)
    missing = sum(chunk_count(size) - device.pieces for device in devices)
    times = sorted(device.done_at - began for device in devices if device.done_at)
    result = {
        "finished": finished,
        "missing": missing,
        "retries": retries,
        "received_bytes": received,
        "seconds": round(times[-1], 2) if times else 0.0,
        "device_cpu_s": round(sum(os.times()[:2]), 2),
    }
    print(json.dumps(result), flush=True)


def _all_done(devices: list[SimulatedDevice]) -> bool:
    now = time.monotonic()
    for device in devices:
        if not device.done_at and device.download.done:
            device.done_at = now
    return all(device.done_at for device in devices)


def _turn(ready: selectors.BaseSelector, devices: list[SimulatedDevice], until: object) -> None:
    """Serve the sockets until the condition holds."""
    deadline = ticked = time.monotonic()
    deadline += PATIENCE_S
    while time.monotonic() < deadline:
        slow = 0.0
        for key, _ in ready.select(TICK_S):
            now = time.monotonic()
            device: SimulatedDevice = key.data
            if device.wire.readable(now):
                device.receive(now)
            else:
                slow = 0.002
        if slow:
            time.sleep(slow)
        now = time.monotonic()
        if now - ticked >= TICK_S:
            ticked = now
            for device in devices:
                device.tick()
            if until():  # type: ignore[operator]
                return


# --- raw TCP ---


def run_raw_receivers(port: int, count: int, size: int) -> None:
    """The child process of the plain fan-out: reads and forgets."""
    ready = selectors.DefaultSelector()
    left: dict[socket.socket, int] = {}
    for _ in range(count):
        one = socket.create_connection(("127.0.0.1", port))
        left[one] = size
        ready.register(one, selectors.EVENT_READ)
    buffer = bytearray(256 * 1024)
    while left:
        for key, _ in ready.select():
            one = key.fileobj  # type: ignore[assignment]
            left[one] -= one.recv_into(buffer)
            if left[one] <= 0:
                ready.unregister(one)
                del left[one]


def raw_cpu_s(count: int, size: int) -> float:
    """CPU seconds to send ``size`` bytes to each of ``count`` sockets, chunk by chunk."""
    data = payload(size)
    with socket.create_server(("127.0.0.1", 0), backlog=count) as listener:
        child = _child("--raw-receivers", listener.getsockname()[1], count, size)
        peers = [listener.accept()[0] for _ in range(count)]
        before = sum(os.times()[:2])
        for start in range(0, size, CHUNK_BYTES):
            chunk = memoryview(data)[start : start + CHUNK_BYTES]
            for peer in peers:
                peer.sendall(chunk)
        spent = sum(os.times()[:2]) - before
        for peer in peers:
            peer.close()
        child.wait(PATIENCE_S)
    return spent


# --- the fleet's side ---


def _child(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@contextmanager
def mosquitto() -> Iterator[tuple[int, int]]:
    """A broker with its default queue: ``(port, pid)``."""
    places = ("/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto")
    program = next((path for path in places if Path(path).exists()), "")
    if not program:
        raise SystemExit("mosquitto is not installed (apt-get install mosquitto)")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        config = Path(name) / "mosquitto.conf"
        config.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nuser root\n"
            "set_tcp_nodelay true\nallow_duplicate_messages true\nlog_dest none\n"
        )
        broker = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
        try:
            yield port, broker.pid
        finally:
            broker.terminate()
            broker.wait(20)


def cpu_s(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def fleet(port: int, data: bytes, gather_s: float, devices: int) -> Iterator[Waves]:
    """The server's link and waves, with one blob to serve, and its chunks kept by the broker."""
    probed = BrokerReport(max_payload_bytes=PAYLOADS_BYTES[0], gather_s=gather_s)
    report = for_fleet(replace(probed, credit_every=CREDIT_EVERY), devices)
    ref = blob_ref(data)

    def chunk(digest: str, index: int) -> bytes | None:
        return (
            data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES] if digest == ref.digest else None
        )

    def count(digest: str) -> int:
        return len(ref.chunks) if digest == ref.digest else 0

    link = Link(
        BrokerAddress("127.0.0.1", port),
        "server",
        [TOPICS.every_device("credit")],
        lambda topic, data, _: waves.on_credit(topic, data),
        lambda: None,
    )
    waves = Waves(TOPICS, link, count, chunk, gather_s, lambda: report.max_payload_bytes)
    link.start()
    waves.start()
    try:
        _seed(link, ref, data, report)
        yield waves
    finally:
        link.stop()
        waves.stop()


def _seed(link: Link, ref: BlobRef, data: bytes, report: BrokerReport) -> None:
    deadline = time.monotonic() + 20
    while not link.connected:
        if time.monotonic() > deadline:
            raise SystemExit("the broker does not answer")
        time.sleep(0.02)
    link.send(TOPICS.broker(), encode(report))
    for index, span in messages(len(ref.chunks), report.span):  # for a wave, too: some may leave it
        kept = data[index * CHUNK_BYTES : (index + span) * CHUNK_BYTES]
        link.send(TOPICS.chunk(ref.digest, index, span), kept)
    link.drain(20)


def _line(stream: IO[str] | None) -> str:
    line = stream.readline() if stream is not None else ""
    if not line:
        raise SystemExit("the devices' process ended early")
    return line


def measure(count: int, size: int, *, wave: bool, bytes_per_s: float = 0.0) -> dict[str, float]:
    """One transfer of ``size`` bytes to ``count`` devices."""
    gather_s = GATHER_S if wave else 0.0
    data = payload(size)
    with mosquitto() as (port, pid), fleet(port, data, gather_s, count) as waves:
        child = _child("--simulate", port, count, size, bytes_per_s)
        _line(child.stdout)
        before = cpu_s(pid)
        child.stdin.write("go\n")  # type: ignore[union-attr]
        child.stdin.flush()  # type: ignore[union-attr]
        result: dict[str, float] = json.loads(_line(child.stdout))
        spent = cpu_s(pid) - before
        child.wait(20)
        gigabytes = count * size / 1e9
        result |= {
            "devices": count,
            "bytes": size,
            "broker_cpu_s": round(spent, 3),
            "cpu_s_per_gb": round(spent / gigabytes, 3),
            "wave_chunks": waves.chunks_sent,
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="100 devices instead of 1,000.")
    parser.add_argument("--devices", type=int, help="So many devices in the large fan-out.")
    parser.add_argument("--json", action="store_true", help="One JSON document.")
    parser.add_argument("--check", action="store_true", help="Exit 1 when a bar is missed.")
    parser.add_argument("--simulate", nargs=4, type=float, help=argparse.SUPPRESS)
    parser.add_argument("--raw-receivers", nargs=3, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    if options.simulate:
        port, count, size, rate = options.simulate
        run_devices(int(port), int(count), int(size), rate)
    elif options.raw_receivers:
        run_raw_receivers(*options.raw_receivers)
    else:
        report(options)


def report(options: argparse.Namespace) -> None:
    """Measure and print."""
    count = options.devices or (100 if options.quick else 1000)
    size, slow_size = 5_000_000, 4_000_000 if options.quick else 20_000_000
    slow = {
        name: measure(20, slow_size, wave=name == "wave", bytes_per_s=SLOW_BYTES_PER_S)
        for name in ("window", "wave")
    }
    raw = raw_cpu_s(count, size) / (count * size / 1e9)
    window = measure(count, size, wave=False)
    wave = measure(count, size, wave=True)
    whole = all(row["finished"] == row["devices"] and not row["missing"] for row in slow.values())
    lost = sum(row["retries"] for row in slow.values())
    met = {
        "slow": whole and not lost,
        "wave": wave["cpu_s_per_gb"] <= BAR_WAVE and wave["finished"] == count,
        "window": window["cpu_s_per_gb"] <= BAR_WINDOW and window["finished"] == count,
    }
    rows = {"slow_window": slow["window"], "slow_wave": slow["wave"]}
    rows |= {"window": window, "wave": wave}
    if options.json:
        print(json.dumps({**rows, "raw_cpu_s_per_gb": round(raw, 3), "met": met}))
    else:
        for name, row in rows.items():
            print(
                f"{name:<12} {row['devices']:>5} devices x {row['bytes'] / 1e6:.0f} MB in"
                f" {row['seconds']:.1f} s: {row['finished']} finished, {row['retries']} chunks"
                f" asked for again, broker {row['cpu_s_per_gb']:.3f} CPU s/GB"
            )
        print(f"raw TCP sender to as many sockets: {raw:.3f} CPU s/GB")
        for name, row, bar in (("wave", wave, BAR_WAVE), ("window", window, BAR_WINDOW)):
            spent = row["cpu_s_per_gb"]
            print(
                f"{name}: {spent:.3f} s/GB (bar {bar}), {spent / raw:.2f}x raw: {_word(met[name])}"
            )
        print(f"20 devices at 2 MB/s lost {lost} chunks: {_word(met['slow'])}")
    if options.check and not all(met.values()):
        sys.exit(1)


def _word(met: bool) -> str:
    return "met" if met else "MISSED"


if __name__ == "__main__":
    main()

"""Devices of the fan-out's benchmark, many to a process, and the receivers of a plain TCP sender.

What a device does is the agent's own code: its downloader, its asking and its riding, over a small
MQTT client of this program's.
"""

from __future__ import annotations

import json
import os
import random
import selectors
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence

from agent.run import SystemClock
from agent.update.asking import Asking
from agent.update.download import Downloader
from agent.update.limits import UpdateLimits
from agent.update.riding import Riding
from edge_sdk.bundle.blobs import blob_ref, chunk_count
from edge_sdk.contracts.topics import Topics

TOPICS = Topics("bench")
PATIENCE_S = 300.0
TICK_S = 0.1
BUFFER = memoryview(bytearray(1 << 20))
"""Every message of every device comes by here, so that it stays in the processor's cache."""


def payload(size: int) -> bytes:
    return random.Random(size).randbytes(size)


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
    """An MQTT 3.1.1 client of a few lines; the agent's Link.

    The devices share cores with the broker, so they are to take as little of them as they can:
    what has come of a message stays with the kernel until all of it has, unless the device is slow.
    """

    def __init__(self, port: int, name: str, bytes_per_s: float) -> None:
        self.socket = socket.socket()
        if bytes_per_s:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(packet(0x10, text("MQTT") + b"\x04\x02\x02\x58" + text(name)))
        self._in, self._out, self._number = bytearray(), bytearray(), 0
        self._expected = 0
        """Bytes of the packet that is waited for."""
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

    def read(self, now: float) -> Iterator[tuple[int, memoryview]]:
        """Packets that have arrived; each is to be used before the next is asked for."""
        if self._rate:
            yield from self._read_slowly(now)
        elif not self._expected:
            head = self.socket.recv(5, socket.MSG_PEEK)
            found = _header(head)
            if not head:
                raise SystemExit("the broker ended a connection")
            if found is not None:
                self._expect(sum(found))
        else:
            size = self._expected
            if self.socket.recv_into(BUFFER, size, socket.MSG_WAITALL) < size:
                raise SystemExit("the broker ended a connection")
            self._expect(0)
            begin, _ = _header(BUFFER) or (0, 0)
            yield BUFFER[0], BUFFER[begin:size]

    def _expect(self, size: int) -> None:
        self._expected = size
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size or 1)

    def _read_slowly(self, now: float) -> Iterator[tuple[int, memoryview]]:
        data = self.socket.recv(16 * 1024)
        if not data:
            raise SystemExit("the broker ended a connection")
        self._free_at = max(self._free_at, now - 0.01) + len(data) / self._rate
        self._in += data
        while (found := _header(self._in)) is not None and sum(found) <= len(self._in):
            kind, body = self._in[0], bytes(self._in[found[0] : sum(found)])
            del self._in[: sum(found)]
            yield kind, memoryview(body)


def _header(data: bytes | bytearray | memoryview) -> tuple[int, int] | None:
    """Bytes of a packet's header and of its body; None while the header is not whole."""
    size = shift = 0
    for index in range(1, min(5, len(data))):
        size |= (data[index] & 0x7F) << shift
        shift += 7
        if data[index] < 0x80:
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

    def _message(self, kind: int, body: memoryview) -> None:
        size = struct.unpack_from(">H", body)[0]
        topic, begin = bytes(body[2 : 2 + size]).decode(), 2 + size
        if kind & 0x06:  # QoS 1: acknowledged, though lost acknowledgements would do no harm
            self.wire._out += packet(0x40, bytes(body[begin : begin + 2]))
            begin += 2
        payload = bytes(body[begin:])
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

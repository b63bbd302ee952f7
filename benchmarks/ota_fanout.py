"""What fan-out costs the broker: devices that fetch by window, and devices that ride a wave.

Devices are simulated many to a process, but what they do is the agent's own code: its downloader
(window, retries, verification by hash), its asking and its riding, over a small MQTT client of this
program's. Not simulated is the writing of chunks to a disk. The server's side is the server's own
link and its waves, and its rule for what the broker keeps. The broker is mosquitto with its default
queue.

Broker CPU is user and system time of its process over the transfer, by bytes delivered; medians of
several rounds. Beside it, in each round, stands what a plain TCP sender pays to send as many bytes
to as many sockets, in messages of the same size.

    python benchmarks/ota_fanout.py [--quick] [--json] [--check] [--devices N] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
sys.path[:] = [
    str(ROOT),
    *(path for path in sys.path if Path(path).resolve() != ROOT / "benchmarks"),
]

from msgspec.structs import replace  # noqa: E402

from benchmarks.ota_devices import (  # noqa: E402
    PATIENCE_S,
    TOPICS,
    payload,
    run_devices,
    run_raw_receivers,
)
from edge_sdk.bundle.blobs import blob_ref  # noqa: E402
from edge_sdk.contracts.base import encode  # noqa: E402
from edge_sdk.contracts.delivery import BrokerReport  # noqa: E402
from edge_sdk.contracts.manifest import CHUNK_BYTES, BlobRef  # noqa: E402
from edge_sdk.delivery.spans import for_fleet, messages  # noqa: E402
from edge_sdk.delivery.wave import CREDIT_EVERY, SPAN  # noqa: E402
from edge_sdk.server.link import BrokerAddress, Link  # noqa: E402
from edge_sdk.server.probing import PAYLOADS_BYTES  # noqa: E402
from edge_sdk.server.waves import Waves  # noqa: E402

BAR_WAVE, BAR_WINDOW = 0.25, 0.40
"""CPU seconds of the broker for each GB delivered."""
GATHER_S = 5.0
SLOW_BYTES_PER_S = 2e6


# --- raw TCP ---


def raw_cpu_s(count: int, size: int, message_bytes: int = SPAN * CHUNK_BYTES) -> float:
    """CPU seconds to send ``size`` bytes to each of ``count`` sockets, message by message."""
    data = payload(size)
    with socket.create_server(("127.0.0.1", 0), backlog=count) as listener:
        child = _child("--raw-receivers", listener.getsockname()[1], count, size)
        peers = [listener.accept()[0] for _ in range(count)]
        before = sum(os.times()[:2])
        for start in range(0, size, message_bytes):
            message = memoryview(data)[start : start + message_bytes]
            for peer in peers:
                peer.sendall(message)
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
    parser.add_argument("--rounds", type=int, help="So often; the medians count.")
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
    rounds = [_round(count, size) for _ in range(options.rounds or (1 if options.quick else 3))]
    spent = {way: median(each[way]["cpu_s_per_gb"] for each in rounds) for way in rounds[0]}
    bars = {"wave": BAR_WAVE, "window": BAR_WINDOW}
    whole = all(row["finished"] == row["devices"] and not row["missing"] for row in slow.values())
    lost = sum(row["retries"] for row in slow.values())
    met = {"slow": whole and not lost}
    for way, bar in bars.items():
        met[way] = spent[way] <= bar and all(each[way]["finished"] == count for each in rounds)
    if options.json:
        print(json.dumps({"slow": slow, "rounds": rounds, "cpu_s_per_gb": spent, "met": met}))
    else:
        for name, row in slow.items():
            print(_row(f"slow_{name}", row))
        for each in rounds:
            for way in bars:
                print(_row(way, each[way]))
        print(
            f"plain TCP sender to as many sockets: {spent['raw']:.3f} CPU s/GB in messages of"
            f" {SPAN * CHUNK_BYTES // 1024} KiB, {spent['raw_chunks']:.3f} of"
            f" {CHUNK_BYTES // 1024} KiB"
        )
        for way, bar in bars.items():
            ratio = median(each[way]["cpu_s_per_gb"] / _raw(each) for each in rounds)
            print(f"{way}: {spent[way]:.3f} s/GB (bar {bar}), {ratio:.2f}x raw: {_word(met[way])}")
        print(f"20 devices at 2 MB/s lost {lost} chunks: {_word(met['slow'])}")
    if options.check and not all(met.values()):
        sys.exit(1)


def _round(count: int, size: int) -> dict[str, dict[str, float]]:
    """Everything once, one after the other."""
    gigabytes = count * size / 1e9
    return {
        "raw": {"cpu_s_per_gb": raw_cpu_s(count, size) / gigabytes},
        "window": measure(count, size, wave=False),
        "wave": measure(count, size, wave=True),
        "raw_chunks": {"cpu_s_per_gb": raw_cpu_s(count, size, CHUNK_BYTES) / gigabytes},
    }


def _raw(each: dict[str, dict[str, float]]) -> float:
    return each["raw"]["cpu_s_per_gb"]


def _row(name: str, row: dict[str, float]) -> str:
    return (
        f"{name:<12} {row['devices']:>5} devices x {row['bytes'] / 1e6:.0f} MB in"
        f" {row['seconds']:.1f} s: {row['finished']} finished, {row['retries']} chunks asked for"
        f" again, broker {row['cpu_s_per_gb']:.3f} CPU s/GB"
    )


def _word(met: bool) -> str:
    return "met" if met else "MISSED"


if __name__ == "__main__":
    main()

"""Brokers that cannot do all that is wanted of them: what the server finds, and updates anyway."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from edge_sdk.contracts.delivery import BrokerReport, DeliveryMode
from edge_sdk.contracts.fleet import RolloutState
from edge_sdk.contracts.manifest import CHUNK_BYTES
from edge_sdk.contracts.topics import Topics
from edge_sdk.contracts.update import UpdateStatus
from edge_sdk.delivery.wave import CREDIT_EVERY
from edge_sdk.server.link import parse_broker_url
from edge_sdk.server.probing import PAYLOADS_BYTES, Prober, probe
from tests.fakes.brokers import RunningBroker, SilentBroker, broker, running_broker
from tests.fakes.fleet import RunningServer, device_trust, write_release
from tests.fakes.thin_device import ThinDevice
from tests.fakes.updating import tiny_release

__all__ = ["broker"]


def eventually(check: Callable[[], object], what: str, patience_s: float = 60.0) -> None:
    deadline = time.monotonic() + patience_s
    while not check():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.05)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def found(broker: RunningBroker) -> BrokerReport:
    return probe(parse_broker_url(broker.url), "prober", Topics("edge"))


def test_brokers_that_keep_everything(broker: RunningBroker) -> None:
    assert found(broker) == BrokerReport(max_payload_bytes=PAYLOADS_BYTES[0])


@pytest.mark.parametrize(
    ("extra", "report"),
    [
        (
            "retain_available false\n",
            BrokerReport(
                retained=False, wildcard_retained=False, max_payload_bytes=PAYLOADS_BYTES[0]
            ),
        ),
        ("max_packet_size 100000\n", BrokerReport(max_payload_bytes=CHUNK_BYTES)),
        ("max_packet_size 20000\n", BrokerReport(max_payload_bytes=16384)),
        ("message_size_limit 5000\n", BrokerReport(max_payload_bytes=4096)),
    ],
)
def test_what_a_broker_cannot_do_is_found(tmp_path: Path, extra: str, report: BrokerReport) -> None:
    with running_broker("mosquitto", tmp_path, extra) as running:
        assert found(running) == report


def test_riders_are_told_how_long_to_wait_and_how_often_to_speak(tmp_path: Path) -> None:
    with running_broker("mosquitto", tmp_path) as running:
        prober = Prober(parse_broker_url(running.url), "prober", Topics("edge"), gather_s=2.0)
        prober.look()
    assert (prober.report.gather_s, prober.report.credit_every) == (2.0, CREDIT_EVERY)


def test_a_broker_that_says_nothing_is_told_from_a_poor_one() -> None:
    silent = SilentBroker()
    address = parse_broker_url(f"mqtt://127.0.0.1:{silent.port}")
    report = probe(address, "prober", Topics("edge"), answer_s=0.5)
    silent.stop()
    assert report.retained
    assert report.problem
    nobody = probe(parse_broker_url("mqtt://127.0.0.1:1"), "prober", Topics("edge"))
    assert nobody.problem


def update(
    stack: ExitStack, folder: Path, server_side: RunningBroker, device_side: RunningBroker
) -> tuple[UpdateStatus, ThinDevice, list[str]]:
    """One device brought to a release; its last status, itself, and the server's events."""
    server = RunningServer(folder / "data", server_side.url)
    stack.callback(server.stop)
    client = server.client()
    stack.callback(client.close)
    device = ThinDevice(device_side.port, "cam-1", device_trust(client), folder / "cam-1")
    stack.callback(device.stop)
    eventually(lambda: any(d.online for d in client.devices()), "the device is online")
    release = tiny_release("1", size=600_000)
    client.publish_release(write_release(release, folder / "v1"))
    client.create_rollout("digits", "1")
    eventually(lambda: client.rollout().state is RolloutState.DONE, "the rollout is done")
    assert device.version == "1"
    return device.reports[-1], device, [event.text for event in client.events(0, 1000)]


def test_small_messages_only(stack: ExitStack, tmp_path: Path) -> None:
    running = stack.enter_context(
        running_broker("mosquitto", tmp_path / "broker", "max_packet_size 20000\n")
    )
    status, device, events = update(stack, tmp_path, running, running)
    assert device.updater.delivery.mode is DeliveryMode.RESPONSE
    assert status.bytes_received == status.bytes_total
    assert any("payloads up to 16384 bytes; chunks go by response" in text for text in events)


def test_a_device_on_a_node_without_the_servers_retained_messages(
    stack: ExitStack, tmp_path: Path
) -> None:
    far = stack.enter_context(running_broker("mosquitto", tmp_path / "far"))
    bridge = (
        f"connection near\naddress 127.0.0.1:{far.port}\ntopic edge/# both 1\n"
        "bridge_outgoing_retain false\ncleansession true\nrestart_timeout 1\n"
    )
    near = stack.enter_context(running_broker("mosquitto", tmp_path / "near", bridge))
    status, device, events = update(stack, tmp_path, near, far)
    assert device.updater.delivery.mode is DeliveryMode.RESPONSE
    assert "does not reach this device" in device.updater.delivery.reason
    assert status.bytes_received == status.bytes_total
    assert any("cam-1 gets its chunks by response" in text for text in events)


def test_a_wave_brings_a_release_to_a_fleet(
    broker: RunningBroker, stack: ExitStack, tmp_path: Path
) -> None:
    server = RunningServer(tmp_path / "data", broker.url, "--gather", "2")
    stack.callback(server.stop)
    client = server.client()
    stack.callback(client.close)
    trust = device_trust(client)
    devices = [
        ThinDevice(broker.port, f"cam-{number}", trust, tmp_path / f"cam-{number}")
        for number in range(5)
    ]
    for device in devices:
        stack.callback(device.stop)
    eventually(lambda: sum(d.online for d in client.devices()) == 5, "the devices are online")
    release = tiny_release("1", size=20 * CHUNK_BYTES)
    client.publish_release(write_release(release, tmp_path / "v1"))
    client.create_rollout("digits", "1")
    eventually(lambda: client.rollout().state is RolloutState.DONE, "the rollout is done")
    assert [device.version for device in devices] == ["1"] * 5
    for device in devices:
        assert device.reports[-1].bytes_received == device.reports[-1].bytes_total
    token = (tmp_path / "data" / "token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    metrics = httpx.get(f"{server.url}/metrics", headers=headers, trust_env=False)
    sent = re.search(r"^edge_wave_chunks_sent_total (\S+)", metrics.text, re.MULTILINE)
    assert sent is not None
    assert float(sent[1]) == 20

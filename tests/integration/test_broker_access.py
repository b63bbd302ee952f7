"""Who gets into a mosquitto that `edge broker mosquitto` has set up, and what each may do there.

Real broker, real TLS, the real access rules. Attacks that a broker must stop are among these.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from agent.config import BrokerConfig
from agent.link.mqtt import Connected, Disconnected, MqttLink
from agent.link.reach import check_broker
from edge_sdk.brokers.authority import Authority, create_authority
from edge_sdk.brokers.layout import SERVER
from edge_sdk.brokers.mosquitto import write_mosquitto
from edge_sdk.cli.credentials import write_credentials
from edge_sdk.contracts.topics import Topics
from edge_sdk.errors import LinkError
from edge_sdk.tls import TlsFiles, client_context
from tests.fakes.brokers import TlsMosquitto
from tests.fakes.house import TENANT, FleetHouse, wait_until

# paho leaves the socket of a failed handshake to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")

TOPICS = Topics(TENANT)
CHUNK = TOPICS.chunk("ab" * 32, 0)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return create_authority(tmp_path_factory.mktemp("ca"), TENANT)


@pytest.fixture
def broker(authority: Authority, tmp_path: Path) -> Iterator[TlsMosquitto]:
    running = TlsMosquitto(authority, TOPICS, tmp_path / "mosquitto")
    try:
        yield running
    finally:
        running.stop()


class Client:
    """A client with a certificate, and all it hears."""

    def __init__(self, broker: TlsMosquitto, name: str, client_id: str = "") -> None:
        self.heard: dict[str, bytes] = {}
        self.lost = 0
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id or name)
        self.client.tls_set_context(client_context(self._files(broker, name), time.time()))
        self.client.on_message = lambda _c, _u, m: self.heard.update({m.topic: m.payload})
        self.client.on_disconnect = self._gone
        self.client.connect("localhost", broker.port)
        self.client.loop_start()
        wait_until(self.client.is_connected, 10.0, f"{name} to connect")

    def _files(self, broker: TlsMosquitto, name: str) -> TlsFiles:
        folder = broker.authority.folder
        if name == SERVER:
            return TlsFiles(folder / "ca.pem", folder / "server.pem", folder / "server.key")
        home = broker.folder / name
        write_credentials(broker.authority, name, home)
        return TlsFiles(home / "broker-ca.pem", home / "device.pem", home / "device.key")

    def _gone(self, *_: object) -> None:
        self.lost += 1

    def put(self, topic: str, payload: bytes) -> None:
        self.client.publish(topic, payload, qos=1, retain=True).wait_for_publish(10.0)

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def agent_broker(broker: TlsMosquitto, home: Path) -> BrokerConfig:
    return BrokerConfig(
        host="localhost",
        port=broker.port,
        tls_ca=str(home / "broker-ca.pem"),
        tls_cert=str(home / "device.pem"),
        tls_key=str(home / "device.key"),
    )


def why_not(config: BrokerConfig) -> str:
    """What the agent says about a connection that does not come about, and the doctor as well."""
    link = MqttLink(config, "d1", (TOPICS.state("d1"), b"gone"))
    link.start()
    reasons: list[str] = []

    def told() -> bool:
        for item in link.poll():
            assert not isinstance(item, Connected)
            if isinstance(item, Disconnected):
                reasons.append(item.reason)
        return bool(reasons)

    try:
        wait_until(told, 10.0, "a reason")
    finally:
        link.stop()
    with pytest.raises(LinkError) as caught:
        check_broker(config, TENANT, "d1", time.time())
    assert reasons[-1] in caught.value.cause
    return reasons[-1]


def test_a_device_signs_in_by_its_certificate(broker: TlsMosquitto, tmp_path: Path) -> None:
    home = tmp_path / "d1"
    write_credentials(broker.authority, "d1", home)
    config = agent_broker(broker, home)
    assert "signs in as 'd1'" in check_broker(config, TENANT, "d1", time.time())
    link = MqttLink(config, f"{TENANT}-d1", (TOPICS.state("d1"), b"gone"))
    link.start()
    try:
        wait_until(lambda: link.connected, 10.0, "the connection")
    finally:
        link.stop()


def test_refusals_say_why(broker: TlsMosquitto, tmp_path: Path) -> None:
    home = tmp_path / "d1"
    write_credentials(broker.authority, "d1", home)
    config = agent_broker(broker, home)
    ca_only = BrokerConfig(host="localhost", port=broker.port, tls_ca=config.tls_ca)
    assert "asks for a client certificate" in why_not(ca_only)
    stranger = create_authority(tmp_path / "stranger", TENANT)
    write_credentials(stranger, "d1", home)
    assert "not signed by the configured CA" in why_not(config)
    (home / "broker-ca.pem").write_bytes(broker.authority.ca_pem)
    assert "another authority" in why_not(config)


def test_an_expired_certificate(broker: TlsMosquitto, tmp_path: Path) -> None:
    made = Authority(broker.authority.folder, lambda: datetime(2020, 1, 1, tzinfo=UTC))
    short = made.issue("d1", days=10)
    (tmp_path / "device.pem").write_bytes(short.certificate_pem)
    (tmp_path / "device.key").write_bytes(short.key_pem)
    (tmp_path / "broker-ca.pem").write_bytes(made.ca_pem)
    files = TlsFiles(*(tmp_path / n for n in ("broker-ca.pem", "device.pem", "device.key")))
    with pytest.raises(ssl.SSLError, match="ALERT_CERTIFICATE_EXPIRED"):
        hear_nothing(broker.port, client_context(files, time.time()))


def hear_nothing(port: int, context: ssl.SSLContext) -> None:
    with (
        socket.create_connection(("localhost", port), 5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        secure.settimeout(5)
        secure.recv(1)


def test_a_revoked_certificate_is_out(broker: TlsMosquitto, tmp_path: Path) -> None:
    home = tmp_path / "d1"
    write_credentials(broker.authority, "d1", home)
    broker.authority.revoke("d1")
    (broker.folder / "crl.pem").write_bytes(broker.authority.crl_path.read_bytes())
    broker.stop()
    broker.start()
    assert "revoked" in why_not(agent_broker(broker, home))
    write_credentials(broker.authority, "d1", home)  # issued after the list: in
    check_broker(agent_broker(broker, home), TENANT, "d1", time.time())


def test_a_new_authority_takes_over_device_by_device(broker: TlsMosquitto, tmp_path: Path) -> None:
    """What docs/security.md says for a lost ca.key."""
    old, new = broker.authority, create_authority(tmp_path / "new", TENANT)
    for name, crl in (("ca.pem", new.ca_pem), ("crl.pem", new.crl_path.read_bytes())):
        path = broker.folder / name
        path.write_bytes(path.read_bytes() + crl)
    broker.stop()
    broker.start()
    for home, authority in ((tmp_path / "d1", old), (tmp_path / "d2", new)):
        write_credentials(authority, home.name, home)
    both = old.ca_pem + new.ca_pem
    (tmp_path / "d2" / "broker-ca.pem").write_bytes(both)
    for name in ("d1", "d2"):
        check_broker(agent_broker(broker, tmp_path / name), TENANT, name, time.time())
    # Every device has been given its files; the old authority goes.
    broker.stop()
    hosts = ("localhost",)
    write_mosquitto(
        new,
        TOPICS,
        broker.folder,
        hosts,
        port=broker.port,
        user="root",
        bind="127.0.0.1",
        force=True,
    )
    broker.start()
    check_broker(agent_broker(broker, tmp_path / "d2"), TENANT, "d2", time.time())
    with pytest.raises(LinkError, match="not signed by the configured CA"):
        check_broker(agent_broker(broker, tmp_path / "d1"), TENANT, "d1", time.time())


def test_a_device_cannot_pose_as_the_broker(authority: Authority, tmp_path: Path) -> None:
    write_credentials(authority, "d2", tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "device.pem", tmp_path / "device.key")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            for _ in range(2):
                peer, _address = listener.accept()
                with peer, contextlib.suppress(OSError):
                    context.wrap_socket(peer, server_side=True).close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        ca = str(tmp_path / "broker-ca.pem")
        config = BrokerConfig(host="localhost", port=listener.getsockname()[1], tls_ca=ca)
        assert "is not the broker" in why_not(config)
        thread.join(10)


def test_another_client_deletes_nothing_and_writes_nothing(broker: TlsMosquitto) -> None:
    topics = [TOPICS.tuf_timestamp(), CHUNK, TOPICS.desired("d1"), TOPICS.time("d1")]
    server, thief, device = (Client(broker, name) for name in (SERVER, "d2", "d1"))
    try:
        thief.client.subscribe("#", 1)
        for topic in topics:
            server.put(topic, b"genuine")
            thief.put(topic, b"")
            thief.put(topic, b"forged")
        thief.put(TOPICS.state("d1"), b"forged")
        device.put(TOPICS.desired("d1"), b"forged")
        for topic in topics:
            device.client.subscribe(topic, 1)
        wait_until(lambda: len(device.heard) == len(topics), 10.0, "all to come")
        assert set(device.heard.values()) == {b"genuine"}
        server.client.subscribe(TOPICS.every_device("state"), 1)
        server.put(TOPICS.desired("d2"), b"x")
        wait_until(
            lambda: TOPICS.desired("d2") in thief.heard, 10.0, "the end of what is under way"
        )
        assert TOPICS.state("d1") not in server.heard
        assert set(thief.heard) == {TOPICS.tuf_timestamp(), CHUNK, TOPICS.desired("d2")}
    finally:
        for client in (server, thief, device):
            client.stop()


def test_client_id_takeover(broker: TlsMosquitto) -> None:
    """Nobody can throw a device, or the server, out by connecting under its client id."""
    device, server = Client(broker, "d1", f"{TENANT}-d1"), Client(broker, SERVER, "edge-server")
    thieves = [Client(broker, "d2", name) for name in (f"{TENANT}-d1", "d1", "edge-server", SERVER)]
    try:
        device.put(TOPICS.state("d1"), b"still here")
        server.put(CHUNK, b"still here")
        assert (device.lost, server.lost) == (0, 0)
        assert device.client.is_connected()
    finally:
        for client in (device, server, *thieves):
            client.stop()


def test_what_is_retained_survives_a_restart(broker: TlsMosquitto) -> None:
    server = Client(broker, SERVER)
    chunks = {TOPICS.chunk("ab" * 32, index): bytes([index]) * 65536 for index in range(40)}
    for topic, data in chunks.items():
        server.put(topic, data)
    server.stop()
    assert broker.stop(signal.SIGTERM) == 0
    broker.start()
    device = Client(broker, "d1")
    try:
        device.client.subscribe(f"{TENANT}/b/#", 0)
        wait_until(lambda: len(device.heard) == len(chunks), 10.0, "the chunks")
        assert device.heard == chunks
    finally:
        device.stop()


def test_an_update_over_mutual_tls(tmp_path: Path) -> None:
    authority = create_authority(tmp_path / "data" / "broker", TENANT)  # where the server looks
    broker = TlsMosquitto(authority, TOPICS, tmp_path / "mosquitto")
    try:
        house = FleetHouse(tmp_path, broker)
        try:
            house.add_device("d1")
            house.start_agent("d1")
            house.publish("1")
            assert house.wait_for_end(house.roll_out("1", "d1"), "d1") == "committed"
            house.wait_for_version("d1", "1")
        finally:
            house.stop()
    finally:
        broker.stop()

"""A fleet under TUF with a real server, agent and broker; and attacks that a broker must stop."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge_sdk.contracts.topics import Topics
from edge_sdk.repository import metadata as md
from edge_sdk.server.keys import replace_key
from tests.fakes.brokers import RunningBroker, mosquitto_program, running_broker
from tests.fakes.house import TENANT, FleetHouse, wait_until

TOPICS = Topics(TENANT)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[FleetHouse]:
    with running_broker("mosquitto", tmp_path / "broker") as broker:
        house = FleetHouse(tmp_path, broker)
        try:
            yield house
        finally:
            house.stop()


def test_published_installed_and_the_fleet_key_replaced(house: FleetHouse) -> None:
    ring = house.use_tuf()
    house.add_device("d1")
    house.start_agent("d1")
    house.publish("1")
    assert house.wait_for_end(house.roll_out("1", "d1"), "d1") == "committed"
    # The fleet's key is lost: a new one on the server, named by a new root.
    house.server.stop()
    public = replace_key(house.data, "fleet")
    new = md.public_key(_raw(public))

    def edit(root: md.Root) -> None:
        (old,) = md.role_keyids(root, "fleet")
        md.add_key(root, "fleet", _raw(public))
        md.remove_key(root, "fleet", old)

    assert ring.change(edit)
    house.server = house._server()
    with house.client() as client:
        assert client.publish_metadata(ring.metadata_folder).root == 2
    house.publish("2")
    assert house.wait_for_end(house.roll_out("2", "d1"), "d1") == "committed"
    assert md.role_keyids(ring.root().signed, "fleet") == [new.keyid]


def _raw(path: Path) -> bytes:
    from edge_sdk.bundle.signing import load_public

    return load_public(path)


# --- attacks that the broker's access rules stop; docs/security.md has these rules ---

ACL = """
user server
topic readwrite {tenant}/#

pattern read {tenant}/tuf/#
pattern read {tenant}/b/#
pattern read {tenant}/broker
pattern read {tenant}/dev/%u/rsp/#
pattern read {tenant}/dev/%u/desired
pattern read {tenant}/dev/%u/time
pattern write {tenant}/dev/%u/state
pattern write {tenant}/dev/%u/ota
pattern write {tenant}/dev/%u/tel
pattern write {tenant}/dev/%u/req
pattern write {tenant}/dev/%u/want
pattern write {tenant}/dev/%u/ask
pattern write {tenant}/dev/%u/out/#
"""


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[RunningBroker]:
    """mosquitto with passwords, access rules, and client ids bound to user names."""
    program = mosquitto_program()
    if program is None:
        pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
    folder = tmp_path / "broker"
    folder.mkdir()
    passwords, rules = folder / "passwords", folder / "acl"
    passwords.touch(mode=0o600)
    for user in ("server", "d1", "d2"):
        command = ["mosquitto_passwd", "-b", str(passwords), user, user]
        subprocess.run(command, check=True, capture_output=True)
    rules.write_text(ACL.format(tenant=TENANT))
    extra = (
        f"allow_anonymous false\npassword_file {passwords}\nacl_file {rules}\n"
        "use_username_as_clientid true\n"
    )
    with running_broker("mosquitto", folder, extra) as broker:
        yield broker


class Client:
    """A client with a user name, and all it hears."""

    def __init__(self, broker: RunningBroker, user: str, client_id: str = "") -> None:
        self.heard: dict[str, bytes] = {}
        self.lost = 0
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id or user)
        self.client.username_pw_set(user, user)
        self.client.on_message = lambda _c, _u, m: self.heard.update({m.topic: m.payload})
        self.client.on_disconnect = self._gone
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        wait_until(self.client.is_connected, 10.0, f"{user} to connect")

    def _gone(self, *_: object) -> None:
        self.lost += 1

    def put(self, topic: str, payload: bytes) -> None:
        self.client.publish(topic, payload, qos=1, retain=True).wait_for_publish(10.0)

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def test_another_client_deletes_nothing_and_writes_nothing(guarded: RunningBroker) -> None:
    topics = [TOPICS.tuf_timestamp(), TOPICS.chunk("ab" * 32, 0), TOPICS.desired("d1")]
    server, thief, device = (Client(guarded, user) for user in ("server", "d2", "d1"))
    try:
        for topic in topics:
            server.put(topic, b"genuine")
            thief.put(topic, b"")
            thief.put(topic, b"forged")
        thief.put(TOPICS.state("d1"), b"forged")
        for topic in topics:
            device.client.subscribe(topic, 1)
        wait_until(lambda: len(device.heard) == len(topics), 10.0, "all to come")
        assert set(device.heard.values()) == {b"genuine"}
        server.client.subscribe(TOPICS.every_device("state"), 1)
        server.put(TOPICS.desired("d2"), b"x")  # an answer after which nothing earlier is under way
        time.sleep(0.2)
        assert TOPICS.state("d1") not in server.heard
    finally:
        for client in (server, thief, device):
            client.stop()


def test_client_id_takeover(guarded: RunningBroker) -> None:
    """Another user cannot throw a device out by connecting under its client id."""
    device = Client(guarded, "d1", f"{TENANT}-d1")
    thief = Client(guarded, "d2", f"{TENANT}-d1")
    try:
        time.sleep(0.5)
        assert device.lost == 0
        assert device.client.is_connected()
    finally:
        thief.stop()
        device.stop()

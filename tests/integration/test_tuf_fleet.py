"""A fleet under TUF with a real server, agent and broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from edge_sdk.repository import metadata as md
from edge_sdk.server.keys import replace_key
from tests.fakes.brokers import running_broker
from tests.fakes.house import FleetHouse


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
    with house.client() as client:
        assert client.device("d1").root_version == 2
        page = httpx.get(client.url, headers={"Authorization": f"Bearer {token(house)}"})
    assert '<small class="quiet">root 2</small>' in page.text


def token(house: FleetHouse) -> str:
    return (house.data / "token").read_text().strip()


def _raw(path: Path) -> bytes:
    from edge_sdk.bundle.signing import load_public

    return load_public(path)

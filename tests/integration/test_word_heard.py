"""A release that listens reaches a real agent over MQTT, and a word comes back over MQTT."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import paho.mqtt.client as mqtt
import pytest

from edge_sdk.audio.wavefile import wave_bytes
from edge_sdk.contracts.base import decode
from edge_sdk.contracts.telemetry import Decision, ResultBatch
from edge_sdk.contracts.topics import Topics
from tests.fakes.brokers import RunningBroker, broker  # noqa: F401 - a fixture
from tests.fakes.house import QUICK_TRIAL, TENANT, FleetHouse
from tests.fakes.listeners import make_listening_release
from tests.unit.audio.test_features import RATE, noise


@pytest.fixture
def house(tmp_path: Path, broker: RunningBroker) -> Iterator[FleetHouse]:  # noqa: F811
    house = FleetHouse(tmp_path, broker)
    try:
        yield house
    finally:
        house.stop()


def listen_instead(home: Path, sound: Path) -> None:
    """Make the device's camera a microphone that hears a file again and again."""
    config = home / "agent.toml"
    before, _, _ = config.read_text().partition("[pipeline]")
    config.write_text(
        before + f'[pipeline]\nname = "kitchen"\n\n[pipeline.source]\nkind = "sound"\n'
        f'path = "{sound}"\nrealtime = true\nloop = true\n'
    )


def test_a_word_is_heard_and_reported(house: FleetHouse, tmp_path: Path) -> None:
    sound = tmp_path / "said.wav"
    word = np.concatenate((noise(0.7, 1, 0.0005), noise(0.4, 2, 0.2), noise(0.4, 3, 0.0005)))
    sound.write_bytes(wave_bytes(word, RATE))
    home = house.add_device("d1")
    listen_instead(home, sound)
    heard: list[Decision] = []
    told = threading.Event()

    def on_message(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        batch = decode(message.payload, ResultBatch, "results")
        heard.extend(batch.decisions)
        told.set()

    listener = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    listener.on_message = on_message
    listener.connect("127.0.0.1", house.broker.port)
    listener.subscribe(Topics(TENANT).results("d1", "kitchen"))
    listener.loop_start()
    try:
        house.start_agent("d1")
        house.publish_made(make_listening_release(tmp_path / "listens"), "1")
        with house.client() as client:
            rollout = client.create_rollout("loudness", "1", devices=["d1"], trial=QUICK_TRIAL).id
        assert house.wait_for_end(rollout, "d1") == "committed"
        assert told.wait(30.0), house.agents["d1"].output()[-2000:]
    finally:
        listener.loop_stop()
        listener.disconnect()
    assert {decision.label for decision in heard} == {"loud"}
    assert all(decision.score >= 0.5 for decision in heard)

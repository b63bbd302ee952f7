"""What is written for mosquitto, and that its access rules know every topic of the product."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from edge_sdk.brokers.authority import create_authority
from edge_sdk.brokers.mosquitto import acl_text, config_text, write_mosquitto
from edge_sdk.contracts.topics import Topics
from edge_sdk.errors import StorageError

TOPICS = Topics("edge")

EXAMPLES = {"device_id": "%u", "pipeline": "camera", "digest": "ab" * 32, "index": 3, "span": 4}
EXAMPLES |= {"role": "root", "version": 1, "part": 0, "parts": 1, "topic": "edge/tuf/head"}
SERVERS_OWN = {
    "every_device",
    "probe",
    "below",
    "carries_chunks",
    "parse_chunk",
    "parse_span",
    "parse_wave",
    "parse_device",
    "parse_response",
}
"""Not topics that a device reads or writes."""


def matches(rule: str, topic: str) -> bool:
    return topic.startswith(rule[:-1]) if rule.endswith("#") else topic == rule


def test_a_rule_for_every_topic_of_the_layout() -> None:
    """A topic that is added to the layout must be given to somebody."""
    rules = [
        line.split(" ", 2)[2]
        for line in acl_text(TOPICS).splitlines()
        if line.startswith("pattern")
    ]
    methods = dict(inspect.getmembers(TOPICS, inspect.ismethod))
    named = {name for name in methods if not name.startswith("_")} - SERVERS_OWN
    assert len(named) > 8
    for name in named:
        wanted = inspect.signature(methods[name]).parameters
        topic = methods[name](**{key: EXAMPLES[key] for key in wanted})
        assert any(matches(rule, topic) for rule in rules), f"{name}: {topic}"


def test_no_device_may_write_what_is_for_all() -> None:
    writes = [line for line in acl_text(TOPICS).splitlines() if " write " in line]
    assert writes
    assert all("/dev/%u/" in line for line in writes)
    assert not [line for line in writes if "desired" in line or "time" in line]


def test_the_queue_grows_with_the_fleet() -> None:
    def queued(devices: int) -> int:
        text = config_text(Path("/x"), port=8883, devices=devices)
        return int(text.split("max_queued_messages ")[1].split()[0])

    assert queued(1) >= 1000
    assert queued(10_000) == 40_000


def test_files_and_their_modes(tmp_path: Path) -> None:
    authority = create_authority(tmp_path / "ca", "edge")
    folder = tmp_path / "mosquitto"
    write_mosquitto(authority, TOPICS, folder, ["localhost"], port=8883)
    assert (folder / "broker.key").stat().st_mode & 0o077 == 0
    assert str(folder) in (folder / "mosquitto.conf").read_text()
    with pytest.raises(StorageError, match="file-exists"):
        write_mosquitto(authority, TOPICS, folder, ["localhost"], port=8883)
    (folder / "data" / "mosquitto.db").write_bytes(b"retained")
    write_mosquitto(authority, TOPICS, folder, ["localhost"], port=8884, force=True)
    assert "listener 8884" in (folder / "mosquitto.conf").read_text()
    assert (folder / "data" / "mosquitto.db").read_bytes() == b"retained"

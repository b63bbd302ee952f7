"""The server's broker connection: an absent broker, a vanishing one, a rival with the same id."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edge_sdk.server.link import WINDOW, BrokerAddress, Link
from tests.fakes.brokers import RunningBroker, SilentBroker, broker, running_broker
from tests.fakes.processes import free_port

__all__ = ["broker"]


def eventually(check: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Ears:
    """Counts connections and keeps messages."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.connections = 0

    def message(self, topic: str, payload: bytes) -> None:
        self.messages.append((topic, payload))

    def connected(self) -> None:
        self.connections += 1


@pytest.fixture
def links() -> Iterator[Callable[[int, str], tuple[Link, Ears]]]:
    with ExitStack() as stack:

        def make(port: int, client_id: str) -> tuple[Link, Ears]:
            ears = Ears()
            address = BrokerAddress("127.0.0.1", port)
            link = Link(address, client_id, ["t/+"], ears.message, ears.connected)
            link.start()
            stack.callback(link.stop)
            return link, ears

        yield make


Maker = Callable[[int, str], tuple[Link, Ears]]


def test_it_waits_for_a_broker_that_comes_later(
    links: Maker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running_broker("amqtt", tmp_path) as broker:
        broker.stop()
        link, ears = links(broker.port, "server")
        time.sleep(0.6)
        assert not link.connected
        assert not link.send("t/a", b"lost")
        assert caplog.text.count("trying again until it is there") == 1  # said once, not each time
        broker.start()
        eventually(lambda: link.connected)
        assert link.send("t/a", b"kept")
        assert link.drain(20)
        eventually(lambda: ears.messages == [("t/a", b"kept")])


def test_every_connection_is_announced_and_subscribed(broker: RunningBroker, links: Maker) -> None:
    link, ears = links(broker.port, "server")
    for turn in range(1, 4):
        eventually(lambda turn=turn: ears.connections == turn and link.connected)  # type: ignore[misc]
        assert link.send("t/a", b"%d" % turn)
        eventually(lambda turn=turn: ("t/a", b"%d" % turn) in ears.messages)  # type: ignore[misc]
        broker.kill()
        eventually(lambda: not link.connected)
        broker.start()


def test_many_large_messages_pass_the_window(broker: RunningBroker, links: Maker) -> None:
    link, ears = links(broker.port, "server")
    eventually(lambda: link.connected)
    for number in range(200):
        assert link.send(f"t/{number}", bytes(65536))
    assert link.drain(60)
    eventually(lambda: len({topic for topic, _ in ears.messages}) == 200)


def test_a_sender_is_not_stuck_when_the_broker_dies(broker: RunningBroker, links: Maker) -> None:
    link, _ = links(broker.port, "server")
    eventually(lambda: link.connected)
    results: list[bool] = []
    done = threading.Event()

    def flood() -> None:
        while link.send("t/x", bytes(65536)):
            results.append(True)
        done.set()

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    eventually(lambda: len(results) > 20)
    broker.kill()
    assert done.wait(60)
    broker.start()


def flooded(link: Link, count: int) -> list[bool]:
    """What became of ``count`` messages, sent by a thread that must come to an end."""
    outcomes: list[bool] = []
    thread = threading.Thread(
        target=lambda: outcomes.extend(link.send("t/a", b"x") for _ in range(count)), daemon=True
    )
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    return outcomes


def test_a_broker_that_stops_acknowledging_is_connected_to_afresh(
    caplog: pytest.LogCaptureFixture,
) -> None:
    silent, ears = SilentBroker(), Ears()
    address = BrokerAddress("127.0.0.1", silent.port)
    link = Link(address, "server", ["t/+"], ears.message, ears.connected, acknowledge_s=0.5)
    link.start()
    try:
        for turn in (1, 2):
            eventually(lambda turn=turn: ears.connections >= turn and link.connected)  # type: ignore[misc]
            outcomes = flooded(link, WINDOW + 1)
            assert outcomes == [True] * WINDOW + [False]
        eventually(lambda: silent.accepted >= 3)
    finally:
        link.stop()
        silent.stop()
    assert "nothing was acknowledged" in caplog.text


def test_what_cannot_be_published_does_not_fill_the_window(
    broker: RunningBroker, links: Maker
) -> None:
    link, ears = links(broker.port, "server")
    eventually(lambda: link.connected)
    for _ in range(WINDOW):
        with pytest.raises(ValueError, match="wildcard"):
            link.send("t/#", b"x")
    assert link.drain(20)
    assert link.send("t/a", b"kept")
    eventually(lambda: ears.messages == [("t/a", b"kept")])


def test_a_rival_with_the_same_id_does_not_end_either(broker: RunningBroker, links: Maker) -> None:
    first, _ = links(broker.port, "same")
    eventually(lambda: first.connected)
    rival, _ = links(broker.port, "same")
    time.sleep(1.0)
    rival.stop()
    eventually(lambda: first.connected)
    assert first.send("t/a", b"alive")


def test_a_program_that_is_no_broker_is_given_up_and_tried_again(
    links: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        link, _ = links(other.getsockname()[1], "server")
        for _ in range(2):
            peer, _address = other.accept()
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            peer.close()
        assert not link.connected
    nowhere, _ = links(free_port(), "server")
    assert not nowhere.connected
    assert "Traceback" not in caplog.text

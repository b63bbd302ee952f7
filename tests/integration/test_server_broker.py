"""The embedded broker as a process: messages, retained state, exit, and refusals."""

from __future__ import annotations

import json
import queue
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest

from tests.fakes.brokers import RunningBroker, broker, running_broker
from tests.fakes.processes import Process, edge_command

__all__ = ["broker"]

Message = tuple[str, bytes, bool]


@contextmanager
def client(
    port: int, name: str, clean: bool = True
) -> Iterator[tuple[mqtt.Client, Callable[[], Message]]]:
    """A connected paho client and a function that waits for its next message."""
    inbox: queue.Queue[Message] = queue.Queue()
    connected: queue.Queue[bool] = queue.Queue()
    link = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, clean_session=clean)
    link.on_message = lambda _c, _u, m: inbox.put((m.topic, m.payload, m.retain))
    link.on_connect = lambda *_: connected.put(True)
    link.connect("127.0.0.1", port)
    link.loop_start()
    connected.get(timeout=20)
    try:
        yield link, lambda: inbox.get(timeout=20)
    finally:
        link.disconnect()
        link.loop_stop()


def subscribe(link: mqtt.Client, *topics: str) -> None:
    """Subscribe and wait for the acknowledgement."""
    done: queue.Queue[bool] = queue.Queue()
    link.on_subscribe = lambda *_: done.put(True)
    link.subscribe([(topic, 0) for topic in topics])
    done.get(timeout=20)


def unsubscribe(link: mqtt.Client, *topics: str) -> None:
    """Unsubscribe and wait for the acknowledgement."""
    done: queue.Queue[bool] = queue.Queue()
    link.on_unsubscribe = lambda *_: done.put(True)
    link.unsubscribe(list(topics))
    done.get(timeout=20)


def test_large_retained_message_arrives_and_clears(broker: RunningBroker) -> None:
    payload = bytes(range(256)) * 1024  # four times a chunk
    with client(broker.port, "server") as (server, _):
        server.publish("t/b/1", payload, qos=1, retain=True).wait_for_publish(20)
        with client(broker.port, "early") as (early, receive):
            subscribe(early, "t/b/1")
            assert receive() == ("t/b/1", payload, True)
        server.publish("t/b/1", b"", qos=1, retain=True).wait_for_publish(20)
        server.publish("t/end", b"x", qos=1, retain=True).wait_for_publish(20)
        with client(broker.port, "late") as (late, receive):
            subscribe(late, "t/b/1", "t/end")
            assert receive() == ("t/end", b"x", True)


def test_a_connecting_client_gets_only_what_it_asked_for(broker: RunningBroker) -> None:
    with client(broker.port, "device-1") as (first, receive_first):
        first.publish("t/b/1", b"chunk", qos=1, retain=True).wait_for_publish(20)
        subscribe(first, "t/b/1")
        receive_first()
        with client(broker.port, "device-2") as (second, receive_second):
            second.publish("t/own", b"mine", qos=1, retain=True).wait_for_publish(20)
            subscribe(second, "t/own")
            assert receive_second()[0] == "t/own"


def test_clients_come_and_go_while_others_change_subscriptions(broker: RunningBroker) -> None:
    with client(broker.port, "window") as (window, receive):
        window.publish("t/b/0", b"chunk", qos=1, retain=True).wait_for_publish(20)
        for turn in range(40):
            subscribe(window, "t/b/0", f"t/b/{turn + 1}")
            assert receive()[0] == "t/b/0"
            with client(broker.port, f"device-{turn % 3}") as (_, _unused):
                unsubscribe(window, "t/b/0", f"t/b/{turn + 1}")


def test_last_will_is_retained(broker: RunningBroker) -> None:
    script = (
        "import paho.mqtt.client as m, os, sys\n"
        "c = m.Client(m.CallbackAPIVersion.VERSION2, client_id='dying')\n"
        "c.will_set('t/state', b'offline', 1, True)\n"
        "c.on_connect = lambda *_: os.kill(os.getpid(), 9)\n"
        "c.connect('127.0.0.1', int(sys.argv[1])); c.loop_forever()\n"
    )
    with client(broker.port, "watcher") as (watcher, receive):
        subscribe(watcher, "t/state")
        command = [sys.executable, "-c", script, str(broker.port)]
        assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL
        assert receive()[:2] == ("t/state", b"offline")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_on_signals(tmp_path: Path, number: int) -> None:
    process = Process(edge_command("broker", "run", "--port", "0"), tmp_path / "log")
    port = int(process.wait_for(r"Broker ready on mqtt://127\.0\.0\.1:(\d+)").group(1))
    with client(port, "idle"):
        assert process.stop(number) == 0
    assert "Traceback" not in process.output()
    assert "Broker stopped." in process.output()


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = subprocess.run(
            edge_command("broker", "run", "--port", str(port), "--json"),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 7
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "storage.port-in-use"
    assert str(port) in error["cause"]
    assert done.stderr == ""


def test_an_address_of_another_machine_is_refused() -> None:
    done = subprocess.run(
        edge_command("broker", "run", "--host", "192.0.2.1", "--port", "0"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 7
    assert "error[storage.cannot-listen]" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_starts_again_on_the_same_port_after_a_kill(tmp_path: Path) -> None:
    with running_broker("amqtt", tmp_path) as running:
        with client(running.port, "before"):
            running.kill()
        running.start()
        with client(running.port, "after") as (link, receive):
            subscribe(link, "t/x")
            link.publish("t/x", b"1", qos=1)
            assert receive()[1] == b"1"

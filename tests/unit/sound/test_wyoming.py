"""A wake-word service that the protocol's own client talks to, and others try to confuse."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.sound.config import SoundConfig
from agent.sound.wake_service import WakeService
from agent.sound.wyoming import Message, MessageReader, ProtocolError, encode_message, info_message
from agent.worker.protocol import Results
from edge_sdk.audio.samples import SoundFormat
from edge_sdk.errors import SourceError
from tests.fakes.listeners import make_listening_release
from tests.fakes.workers import Workers, collect, has
from tests.unit.worker.test_worker_sound import spec, words

FORM = SoundFormat(16000)
START = {"rate": 16000, "width": 2, "channels": 1}

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
messages = st.builds(
    Message,
    st.text(max_size=12),
    st.dictionaries(st.text(max_size=6), values),
    st.binary(max_size=99),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(messages, max_size=4), st.integers(1, 50))
def test_messages_survive_any_cut(sent: list[Message], size: int) -> None:
    data, reader = b"".join(map(encode_message, sent)), MessageReader()
    found = [m for i in range(0, len(data), size) for m in reader.feed(data[i : i + size])]
    assert found == sent


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=200) | messages.map(encode_message),
    st.binary(max_size=5),
    st.integers(0, 99),
)
def test_garbage_is_refused_and_nothing_else_happens(data: bytes, patch: bytes, at: int) -> None:
    damaged = bytearray(data)
    damaged[at : at + len(patch)] = patch
    with contextlib.suppress(ProtocolError):
        list(MessageReader().feed(bytes(damaged)))


@pytest.mark.parametrize(
    "data",
    [
        b'{"type": "x", "payload_length": 99999999}\n',
        b'{"type": "x", "data_length": -1}\n',
        b'{"type": "x", "data_length": 2}\n[]',
        b"x" * 70000,
        b"{}\n",
    ],
)
def test_lies_about_lengths_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(MessageReader().feed(data))


class Talk:
    """A client that writes and reads whole messages."""

    def __init__(self, port: int) -> None:
        self.link = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._reader = MessageReader()
        self._got: list[Message] = []

    def send(self, kind: str, payload: bytes = b"", **data: Any) -> None:
        self.link.sendall(encode_message(Message(kind, data, payload)))

    def receive(self, service: WakeService) -> Message:
        while not self._got:
            service._turn()
            self.link.settimeout(0.02)
            try:
                data = self.link.recv(65536)
            except TimeoutError:
                continue
            assert data, "the service hung up"
            self._got += self._reader.feed(data)
        return self._got.pop(0)


@pytest.fixture
def service() -> Iterator[WakeService]:
    service = WakeService("tcp://127.0.0.1:0", FORM, ["loud"])
    assert service.open() == FORM
    yield service
    service.close()


def sound_of(service: WakeService, size: int) -> bytes:
    found = b""
    while len(found) < size:
        found += service.read() or b""
    return found


def test_one_client_speaks_and_is_told(service: WakeService) -> None:
    one, two = Talk(service.port), Talk(service.port)
    two.send("describe")
    assert two.receive(service) == info_message(["loud"])
    one.send("audio-start", **START)
    one.send("audio-chunk", b"\1\2" * 50, **START)
    assert sound_of(service, 100) == b"\1\2" * 50
    two.send("audio-start", **START)
    assert "another client" in two.receive(service).data["text"]
    service.answer("loud")
    heard = one.receive(service)
    assert (heard.kind, heard.data["name"]) == ("detection", "loud")
    before = service.overruns
    one.link.close()
    two.send("audio-chunk", b"\3\4" * 50, **START)
    while service.overruns == before:
        service._turn()
    two.send("audio-chunk", b"\3\4" * 50, **START)
    assert sound_of(service, 100)[:100] == b"\3\4" * 50
    two.link.close()


def test_the_end_of_sound_without_a_word_is_answered(service: WakeService) -> None:
    client = Talk(service.port)
    client.send("detect", names=["other"])
    client.send("audio-start", **START)
    client.send("audio-chunk", b"\0" * 320, **START)
    sound_of(service, 320)
    service.answer("loud")  # not one it asked for
    client.send("audio-stop")
    assert client.receive(service).kind == "not-detected"
    client.link.close()


def test_another_format_is_refused_in_words(service: WakeService) -> None:
    client = Talk(service.port)
    client.send("audio-start", rate=44100, width=2, channels=2)
    refused = client.receive(service)
    assert refused.kind == "error"
    assert "44100" in refused.data["text"]
    client.link.close()


def test_a_client_that_sends_garbage_is_dropped_alone(service: WakeService) -> None:
    bad, good = Talk(service.port), Talk(service.port)
    bad.link.sendall(b"GET / HTTP/1.1\r\n\r\n")
    good.send("ping", text="hello")
    assert good.receive(service) == Message("pong", {"text": "hello"})
    bad.link.settimeout(5)
    service._turn()
    assert bad.link.recv(10) == b""
    bad.link.close()
    good.link.close()


@pytest.mark.parametrize("address", ["here", "udp://127.0.0.1:1", "tcp://127.0.0.1", "tcp://a b:1"])
def test_an_address_that_is_none_is_named(address: str) -> None:
    with pytest.raises(SourceError) as caught:
        WakeService(address, FORM, []).open()
    assert caught.value.code == "source.no-listener"
    assert address in caught.value.cause


def test_a_port_that_is_taken_is_named(service: WakeService) -> None:
    with pytest.raises(SourceError, match=str(service.port)):
        WakeService(f"tcp://127.0.0.1:{service.port}", FORM, []).open()


@pytest.mark.filterwarnings("ignore:'audioop' is deprecated")
def test_the_protocols_own_client_hears_of_words_from_a_real_worker(tmp_path: Path) -> None:
    pytest.importorskip("wyoming", reason="the protocol's own package is not installed")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    release = make_listening_release(tmp_path / "release")
    workers = Workers(tmp_path)
    try:
        source = {"kind": "wyoming", "device": f"tcp://127.0.0.1:{port}"}
        handle = workers.spawn(spec(workers, release, "", SoundConfig(), source=source))
        info, heard = asyncio.run(asyncio.wait_for(talk(port), 60))
        assert json.loads(json.dumps(info))["wake"][0]["models"][0]["phrase"] == "loud"
        assert heard == ["loud"]
        events = collect(handle, has(Results))
        assert [d.label for e in events if isinstance(e, Results) for d in e.decisions] == ["loud"]
    finally:
        workers.close()


async def talk(port: int) -> tuple[dict[str, Any], list[str]]:
    from wyoming.audio import AudioChunk, AudioStart, AudioStop
    from wyoming.client import AsyncTcpClient
    from wyoming.info import Describe, Info
    from wyoming.wake import Detect, Detection

    client = AsyncTcpClient("127.0.0.1", port)
    while True:  # the worker is still loading
        try:
            await client.connect()
            break
        except ConnectionError:
            await asyncio.sleep(0.05)
    await client.write_event(Describe().event())
    described = await client.read_event()
    assert described is not None
    info = Info.from_event(described).event().data
    await client.write_event(Detect(names=["loud"]).event())
    await client.write_event(AudioStart(rate=16000, width=2, channels=1).event())
    sound = (words()[: 2 * 16000] * 2**15).astype("<i2").tobytes()
    for start in range(0, len(sound), 2048):
        chunk = sound[start : start + 2048]
        await client.write_event(AudioChunk(rate=16000, width=2, channels=1, audio=chunk).event())
    await client.write_event(AudioStop().event())
    event = await client.read_event()
    assert event is not None and Detection.is_type(event.type)
    await client.disconnect()
    name = Detection.from_event(event).name
    return info, [] if name is None else [name]


def test_the_words_travel_as_the_release_names_them() -> None:
    assert msgspec.json.encode(info_message(["hey robin", "stop"]).data).count(b"phrase") == 2

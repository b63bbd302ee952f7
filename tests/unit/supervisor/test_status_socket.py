"""The status socket, over a real Unix socket."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.status import SOCKET_NAME, Request, StatusSocket, ask, read_status, responded
from edge_sdk.errors import ConfigError, LinkError, UsageError


def test_a_reader_gets_the_document(tmp_path: Path) -> None:
    status = StatusSocket(tmp_path)
    expected = {"version": "2" * 100_000}
    document = json.dumps(expected).encode()
    answering = threading.Thread(target=lambda: _answer_one(status, document))
    answering.start()
    assert read_status(tmp_path) == expected
    answering.join(5)
    status.close()
    assert list(tmp_path.iterdir()) == []


def _answer_one(status: StatusSocket, document: bytes) -> None:
    import select

    select.select([status], [], [], 5)
    status.answer(lambda _: document)


def test_no_agent_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match=r"link\.agent-not-running.*edge-agent run"):
        read_status(tmp_path)


def test_a_socket_left_by_a_killed_agent_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as killed:
        killed.bind(str(tmp_path / SOCKET_NAME))
    StatusSocket(tmp_path).close()


def test_a_path_the_kernel_cannot_take_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="runtime_dir"):
        StatusSocket(tmp_path / ("x" * 120))


def test_nobody_waiting_is_no_error(tmp_path: Path) -> None:
    status = StatusSocket(tmp_path)
    status.answer(lambda _: b"{}")
    status.close()


@pytest.mark.parametrize("answer", [b"", b'{"version"', b"[]"])
def test_an_agent_that_dies_while_it_answers_is_a_clear_error(
    tmp_path: Path, answer: bytes
) -> None:
    status = StatusSocket(tmp_path)
    answering = threading.Thread(target=lambda: _answer_one(status, answer))
    answering.start()
    with pytest.raises(LinkError, match="middle of its answer"):
        read_status(tmp_path)
    answering.join(5)
    status.close()


def test_a_request_is_obeyed_and_answered_with_the_status(tmp_path: Path) -> None:
    status, asked = StatusSocket(tmp_path), []

    def respond(data: bytes) -> bytes:
        return responded(data, lambda request: asked.append(request.pin), lambda: {"point": "p1"})

    answering = threading.Thread(target=lambda: _respond_one(status, respond))
    answering.start()
    assert ask(tmp_path, Request(pin="p1")) == {"point": "p1"}
    answering.join(5)
    status.close()
    assert asked == ["p1"]


def _respond_one(status: StatusSocket, respond: Callable[[bytes], bytes]) -> None:
    import select

    select.select([status], [], [], 5)
    status.answer(respond)


def test_one_who_connects_and_says_nothing_does_not_hold_the_agent(tmp_path: Path) -> None:
    status = StatusSocket(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.connect(str(tmp_path / SOCKET_NAME))
        begun = time.monotonic()
        status.answer(lambda _: b"{}")
        assert time.monotonic() - begun < 5.0
    status.close()


def test_a_refusal_comes_back_as_the_error_it_was(tmp_path: Path) -> None:
    def obey(_: Request) -> None:
        raise UsageError("unknown-point", "There is none.", "Name another.")

    status = StatusSocket(tmp_path)
    answering = threading.Thread(
        target=lambda: _respond_one(status, lambda data: responded(data, obey, dict))
    )
    answering.start()
    with pytest.raises(UsageError, match="There is none") as caught:
        ask(tmp_path, Request(pin="p9"))
    answering.join(5)
    status.close()
    assert caught.value.code == "usage.unknown-point"


@given(st.binary(max_size=200))
def test_no_bytes_make_the_agent_do_anything_but_refuse(data: bytes) -> None:
    asked: list[Request] = []
    answer = json.loads(responded(data, asked.append, lambda: {"status": 1}))
    assert asked or not data or answer["error"]["code"].startswith("contract.")
    for request in asked:
        assert request.pin is msgspec.UNSET or request.pin is None or isinstance(request.pin, str)

"""The status socket, over a real Unix socket."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest

from agent.status import SOCKET_NAME, StatusSocket, read_status
from edge_sdk.errors import ConfigError, LinkError


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

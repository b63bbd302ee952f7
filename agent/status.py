"""``edge-agent status`` and ``pin``: one JSON document each way over a Unix socket.

A socket in the runtime folder costs no flash writes and cannot be stale: nobody answers when no
agent runs. Who may write to it, its owner and root, may also ask for something.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from edge_sdk.contracts.base import Wire, decode, encode
from edge_sdk.durable import storage_error
from edge_sdk.errors import ConfigError, EdgeError, LinkError, error_from

SOCKET_NAME = "agent.sock"
MAX_STATUS_BYTES = 1 << 20
MAX_REQUEST_BYTES = 4096
MAX_PATH_BYTES = 107
"""``sun_path`` holds 108 bytes including the final zero (unix(7))."""
_TIMEOUT_S = 2.0
_ASKING_TIMEOUT_S = 0.2
"""The agent's loop waits no longer than this for one who asks."""


class Request(Wire, kw_only=True):
    """What a person asks of the running agent; without one they want its status."""

    pin: str | msgspec.UnsetType | None = msgspec.UNSET
    """Id or number of the operating point to hold; None ends that."""
    pipeline: str = ""
    """Name of the pipeline that is meant; empty for all."""
    paused: bool | msgspec.UnsetType = msgspec.UNSET
    """Whether downloads of updates are to wait."""


class StatusSocket:
    """The agent's side: answers each connection with the current document."""

    def __init__(self, folder: Path) -> None:
        """Listen in ``folder``.

        Raises:
            ConfigError: ``config.runtime-dir-too-long``.
            StorageError: the folder cannot be used.
        """
        self._path = folder / SOCKET_NAME
        if len(os.fsencode(self._path)) > MAX_PATH_BYTES:
            raise ConfigError(
                "runtime-dir-too-long",
                f"The status socket's path {self._path} is longer than {MAX_PATH_BYTES} bytes.",
                "Choose a shorter runtime_dir; the limit is the kernel's.",
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._path.unlink(missing_ok=True)
            self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._server.bind(str(self._path))
        except OSError as error:
            raise storage_error(error, self._path) from error
        self._server.listen(4)
        self._server.setblocking(False)

    def fileno(self) -> int:
        """Readable when somebody asks."""
        return self._server.fileno()

    def answer(self, respond: Callable[[bytes], bytes]) -> None:
        """Serve one waiting connection; one that does not read or write in time is dropped.

        Args:
            respond: the document for a request; without one it is empty.
        """
        with contextlib.suppress(OSError):
            connection, _ = self._server.accept()
            with connection:
                connection.settimeout(_ASKING_TIMEOUT_S)
                connection.sendall(respond(_received(connection, MAX_REQUEST_BYTES)))

    def close(self) -> None:
        """Stop answering and remove the socket."""
        self._server.close()
        self._path.unlink(missing_ok=True)


def read_status(folder: Path) -> dict[str, Any]:
    """The running agent's status document.

    Raises:
        LinkError: ``link.agent-not-running``.
    """
    return _ask(folder, b"")


def ask(folder: Path, request: Request) -> dict[str, Any]:
    """The running agent's status document after it has done what was asked.

    Raises:
        LinkError: ``link.agent-not-running``.
        EdgeError: what the agent says about the request.
    """
    document = _ask(folder, encode(request))
    refusal = document.get("error")
    if isinstance(refusal, dict):
        raise error_from(refusal)
    return document


def responded(
    data: bytes, obey: Callable[[Request], None], status: Callable[[], dict[str, Any]]
) -> bytes:
    """The answer to a request: the status after it, or ``{"error": ...}``."""
    try:
        if data:
            obey(decode(data, Request, "The request"))
    except EdgeError as error:
        return msgspec.json.encode({"error": error.as_dict()})
    return msgspec.json.encode(status())


def _ask(folder: Path, request: bytes) -> dict[str, Any]:
    path = folder / SOCKET_NAME
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(_TIMEOUT_S)
            client.connect(str(path))
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            answer = _received(client, MAX_STATUS_BYTES)
    except OSError as error:
        raise LinkError(
            "agent-not-running",
            f"No agent answers at {path}: {error.strerror or error}.",
            "Start it with `edge-agent run --config FILE`, or name its configuration here.",
        ) from error
    return _decoded(answer, path)


def _received(connection: socket.socket, limit_bytes: int) -> bytes:
    """Everything up to the other side's end, at most a little over the limit."""
    parts: list[bytes] = []
    size = 0
    while size < limit_bytes and (part := connection.recv(65536)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _decoded(data: bytes, path: Path) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise LinkError(
            "agent-not-running",
            f"The agent at {path} went away in the middle of its answer.",
            "Ask again; if it happens again, read the agent's log.",
        )
    return document

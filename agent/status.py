"""``edge-agent status``: one JSON document over a Unix socket in the runtime folder.

A socket costs no flash writes and cannot be stale: nobody answers when no agent runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Any

from edge_sdk.durable import storage_error
from edge_sdk.errors import ConfigError, LinkError

SOCKET_NAME = "agent.sock"
MAX_STATUS_BYTES = 1 << 20
MAX_PATH_BYTES = 107
"""``sun_path`` holds 108 bytes including the final zero (unix(7))."""
_TIMEOUT_S = 2.0


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

    def answer(self, document: bytes) -> None:
        """Serve one waiting connection; a reader that does not read is dropped."""
        with contextlib.suppress(OSError):
            connection, _ = self._server.accept()
            with connection:
                connection.settimeout(0.2)
                connection.sendall(document)

    def close(self) -> None:
        """Stop answering and remove the socket."""
        self._server.close()
        self._path.unlink(missing_ok=True)


def read_status(folder: Path) -> dict[str, Any]:
    """The running agent's status document.

    Raises:
        LinkError: ``link.agent-not-running``.
    """
    path = folder / SOCKET_NAME
    parts: list[bytes] = []
    size = 0
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(_TIMEOUT_S)
            client.connect(str(path))
            while size < MAX_STATUS_BYTES and (part := client.recv(65536)):
                parts.append(part)
                size += len(part)
    except OSError as error:
        raise LinkError(
            "agent-not-running",
            f"No agent answers at {path}: {error.strerror or error}.",
            "Start it with `edge-agent run --config FILE`, or name its configuration here.",
        ) from error
    return _decoded(b"".join(parts), path)


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

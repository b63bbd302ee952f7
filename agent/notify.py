"""The service manager's notification protocol (``sd_notify(3)``), without libsystemd.

One datagram of ``KEY=value`` lines per message, to the unix socket named in ``NOTIFY_SOCKET``.
Telling the manager is never worth failing for: without a socket, or with one that is gone or
full, messages are dropped.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

LOG = logging.getLogger(__name__)

MAX_STATUS = 200
"""Characters of a status line; the rest is cut."""


class Notifier:
    """Talks to the service manager that started this process, if one did.

    Args:
        environment: the process environment (``NOTIFY_SOCKET``, ``WATCHDOG_USEC``,
            ``WATCHDOG_PID``).
        pid: this process; a watchdog meant for another one is not ours to feed.
    """

    def __init__(self, environment: Mapping[str, str], pid: int | None = None) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._watchdog_s = _watchdog_s(environment, os.getpid() if pid is None else pid)
        self._socket: socket.socket | None = None

    @property
    def watchdog_interval_s(self) -> float | None:
        """How often to call :meth:`alive`: half the manager's limit; None without a watchdog."""
        return None if self._watchdog_s is None else self._watchdog_s / 2.0

    def ready(self, status: str = "") -> bool:
        """Start-up is finished. Returns whether the manager was told, as all methods here do."""
        return self._send("READY=1", _status(status))

    def status(self, text: str) -> bool:
        """One line for ``systemctl status``."""
        return self._send(_status(text))

    def alive(self) -> bool:
        """Feed the watchdog."""
        return self._send("WATCHDOG=1")

    def stopping(self, status: str = "") -> bool:
        """Shutdown has begun."""
        return self._send("STOPPING=1", _status(status))

    def close(self) -> None:
        """Close the socket; later messages open it again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str) -> bool:
        message = "\n".join(line for line in lines if line).encode("utf-8", "replace")
        if self._address is None or not message:
            return False
        try:
            if self._socket is None:
                self._socket = socket.socket(
                    socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
                )
            self._socket.sendto(message, self._address)
        except OSError as error:
            LOG.debug("service manager not told %s: %s", lines[0], error)
            return False
        return True


def _address(name: str) -> bytes | None:
    """The socket's address: a path, or a Linux abstract name written with a leading ``@``."""
    if name.startswith("@") and len(name) > 1:
        return b"\0" + os.fsencode(name[1:])
    return os.fsencode(name) if name.startswith("/") else None


def _watchdog_s(environment: Mapping[str, str], pid: int) -> float | None:
    owner, limit = environment.get("WATCHDOG_PID", ""), environment.get("WATCHDOG_USEC", "")
    if owner not in ("", str(pid)) or not (limit.isascii() and limit.isdecimal()):
        return None
    microseconds = int(limit[:18])
    return microseconds / 1e6 if microseconds else None


def _status(text: str) -> str:
    """``STATUS=`` on one line; a line break would start another key."""
    line = " ".join(text.split())[:MAX_STATUS]
    return f"STATUS={line}" if line else ""

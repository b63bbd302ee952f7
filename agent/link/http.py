"""HTTP range requests in a thread of their own: one connection, one job at a time, all bounded.

Standard library only. Policy: redirects are not followed (the signed manifest names the address,
and an answer must not send a device to another one), proxies of the environment are not used, no
credentials are sent, and of an answer no more is read than was asked for. What waits to be polled
is bounded; then the connection is not read, and TCP slows the server down.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import re
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit

from agent.update.ports import RangeEnd, RangeJob, RangePiece
from edge_sdk import __version__
from edge_sdk.contracts.manifest import CHUNK_BYTES
from edge_sdk.errors import EdgeError
from edge_sdk.tls import explain

log = logging.getLogger(__name__)

INBOX_PIECES = 32
"""2 MiB of chunks that nobody has polled yet."""
HELD_S = 300.0
"""An owner that polls nothing for this long has lost interest."""
IDLE_S = 20.0
"""A connection without work is closed after this long."""
RETRY_STATUS = frozenset({408, 425, 429})
"""Answers below 500 that may be others the next time."""

_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(?:\d{1,18}|\*)")


class _Refused(Exception):  # noqa: N818  # not an error of the product: it ends up in a RangeEnd
    """The server has answered, and the answer will not change."""


class HttpFetcher:
    """Implements :class:`agent.update.ports.Fetcher`.

    Args:
        context: makes the TLS context at the first https address.
        timeout_s: for connecting, and for each wait for bytes.
    """

    def __init__(self, context: Callable[[], ssl.SSLContext], timeout_s: float) -> None:
        self._context, self._timeout_s = context, timeout_s
        self._changed = threading.Condition()
        self._job: RangeJob | None = None
        self._wanted = 0
        """Number of the job that counts; 0 for none."""
        self._inbox: deque[RangePiece | RangeEnd] = deque()
        self._thread: threading.Thread | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._peer: tuple[str, str, int | None] | None = None
        self._socket: socket.socket | None = None
        """Kept besides the connection, which forgets it when the server wants to close."""

    def fetch(self, job: RangeJob) -> None:
        """Begin a job, in place of one that has not ended."""
        with self._changed:
            self._job, self._wanted = job, job.number
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)
                self._thread.start()

    def poll(self) -> list[RangePiece | RangeEnd]:
        """What came since the last call, in order."""
        with self._changed:
            items = list(self._inbox)
            self._inbox.clear()
            self._changed.notify_all()
        return items

    def cancel(self) -> None:
        """End the job, if there is one, and the connection: that ends a wait for bytes, too."""
        with self._changed:
            self._job, self._wanted = None, 0
            self._inbox.clear()
            self._changed.notify_all()
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # Not the method of a TLS socket, which is not meant for another thread.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _run(self) -> None:
        """The thread: work while there is some, and end when there has been none for a while."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._job is not None, IDLE_S)
                job, self._job = self._job, None
                if job is None:
                    self._close()
                    self._thread = None
                    return
            self._put(self._one(job))

    def _one(self, job: RangeJob) -> RangeEnd:
        try:
            self._transfer(job)
        except _Refused as refusal:
            self._close()
            return RangeEnd(job.number, str(refusal), final=True)
        except EdgeError as error:
            self._close()
            return RangeEnd(job.number, error.cause, final=True)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._close()
            return RangeEnd(job.number, _in_words(error))
        except Exception as error:
            log.exception("the mirror's thread met an unexpected error")
            self._close()
            return RangeEnd(job.number, f"internal error: {error}", final=True)
        return RangeEnd(job.number)

    def _transfer(self, job: RangeJob) -> None:
        response = self._ask(job)
        _check(response, job)
        left = job.length
        while left:
            data = _read(response, min(CHUNK_BYTES, left))
            left -= len(data)
            if not self._put(RangePiece(job.number, data)):
                raise TimeoutError("the owner has lost interest")
        if response.status != http.client.PARTIAL_CONTENT or response.read(1):
            self._close()  # more may follow, which nobody wants

    def _ask(self, job: RangeJob) -> http.client.HTTPResponse:
        """Send the request; once more where the server had closed a connection at rest."""
        url = urlsplit(job.url)
        used = self._connect(url)
        try:
            return self._request(url, job)
        except (ConnectionError, http.client.BadStatusLine):
            if not used or self._wanted != job.number:
                raise
            self._close()
            self._connect(url)
            return self._request(url, job)

    def _request(self, url: SplitResult, job: RangeJob) -> http.client.HTTPResponse:
        connection = self._connection
        if connection is None:
            raise ConnectionResetError("cancelled")
        headers = {
            "Range": f"bytes={job.first}-{job.first + job.length - 1}",
            "Accept-Encoding": "identity",
            "User-Agent": f"edge-agent/{__version__}",
        }
        connection.request("GET", url.path or "/", headers=headers)
        return connection.getresponse()

    def _connect(self, url: SplitResult) -> bool:
        """Have a connection to the right server; whether it has been used before."""
        peer = (url.scheme, url.hostname or "", url.port)
        if self._connection is not None and self._peer == peer and self._connection.sock:
            return True  # it has no socket where the server wanted to close
        self._close()
        secure = url.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(peer[1], peer[2], timeout=self._timeout_s)
        plain = socket.create_connection((connection.host, connection.port), self._timeout_s)
        self._hold(plain)
        connection.sock = plain
        if secure:
            context = self._context()
            wrapped = context.wrap_socket(
                plain, server_hostname=connection.host, do_handshake_on_connect=False
            )
            self._hold(wrapped)
            connection.sock = wrapped
            wrapped.do_handshake()
        self._connection, self._peer = connection, peer
        return False

    def _hold(self, sock: socket.socket) -> None:
        """From now on :meth:`cancel` ends what waits for this socket."""
        with self._changed:
            self._socket = sock

    def _put(self, item: RangePiece | RangeEnd) -> bool:
        """Hand on what is still wanted; wait for room. False when nobody wants it."""

        def wanted() -> bool:
            return self._wanted == item.number

        with self._changed:
            self._changed.wait_for(lambda: not wanted() or len(self._inbox) < INBOX_PIECES, HELD_S)
            if not wanted() or len(self._inbox) >= INBOX_PIECES:
                return False
            self._inbox.append(item)
            return True

    def _close(self) -> None:
        with self._changed:
            connection, self._connection, self._peer = self._connection, None, None
            sock, self._socket = self._socket, None
        if connection is not None:
            connection.close()
        if sock is not None:
            sock.close()


def _check(response: http.client.HTTPResponse, job: RangeJob) -> None:
    """Whether the body is what was asked for.

    Raises:
        _Refused: it is not, and will not be.
        OSError: it is not, and may be the next time.
    """
    status = response.status
    if status >= http.client.INTERNAL_SERVER_ERROR or status in RETRY_STATUS:
        raise ConnectionError(f"the server says {status} {response.reason[:60]}")
    if http.client.MULTIPLE_CHOICES <= status < http.client.BAD_REQUEST:
        raise _Refused(f"it redirects ({status}), which is not followed")
    if status not in (http.client.OK, http.client.PARTIAL_CONTENT):
        raise _Refused(f"the server says {status} {response.reason[:60]}")
    if response.getheader("Content-Encoding", "identity") != "identity":
        raise _Refused("it encodes the blob")
    if status == http.client.OK and job.first:
        raise _Refused("it ignores ranges, and a part of the blob is here already")
    if status == http.client.PARTIAL_CONTENT:
        found = _RANGE.fullmatch(response.getheader("Content-Range", ""))
        if found is None or int(found[1]) != job.first:
            raise _Refused("it sends another range than it was asked for")


def _read(response: http.client.HTTPResponse, size: int) -> bytes:
    """Exactly ``size`` bytes."""
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = response.readinto(view)
        if not count:
            raise ConnectionError("the answer is too short")
        view = view[count:]
    return bytes(data)


def _in_words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return explain(error, "the mirror") or type(error).__name__

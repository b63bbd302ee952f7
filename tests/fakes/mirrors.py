"""A plain HTTP server of blobs with every bad habit one can have, on the loopback interface."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

from agent.update.ports import RangeEnd, RangeJob, RangePiece
from edge_sdk.contracts.manifest import CHUNK_BYTES

Habit = Literal[
    "good",
    "no_ranges",
    "wrong",
    "truncated",
    "slow",
    "silent",
    "missing",
    "broken",
    "redirect",
    "other_range",
    "encoded",
    "endless",
    "hangs_up",
    "closes",
    "not_http",
]
HABITS: tuple[Habit, ...] = Habit.__args__  # type: ignore[attr-defined]


class BlobFetcher:
    """A mirror in memory that has every blob; implements the updater's Fetcher."""

    def __init__(self, blobs: Mapping[str, bytes]) -> None:
        self.blobs = blobs
        self.jobs: list[RangeJob] = []
        """Those that were begun."""
        self._job: RangeJob | None = None

    def fetch(self, job: RangeJob) -> None:
        self.jobs.append(job)
        self._job = job

    def poll(self) -> list[RangePiece | RangeEnd]:
        job, self._job = self._job, None
        if job is None:
            return []
        span = self.blobs[job.url.rpartition("/")[2]][job.first :][: job.length]
        pieces = [span[at : at + CHUNK_BYTES] for at in range(0, len(span), CHUNK_BYTES)]
        return [*(RangePiece(job.number, piece) for piece in pieces), RangeEnd(job.number)]

    def cancel(self) -> None:
        self._job = None


PATIENCE_S = 20.0
"""What a slow or silent answer takes at most, should nobody hang up."""


class RangeServer:
    """Serves blobs below ``/models``; ``habit`` may change between requests.

    Args:
        blobs: digest to bytes.
        habit: how it behaves.
    """

    def __init__(self, blobs: Mapping[str, bytes], habit: Habit = "good") -> None:
        self.blobs, self.habit = dict(blobs), habit
        self.sound_after: int | None = None
        """Behaves well from this request on."""
        self.cut_after = 230_000
        """Bytes that a truncated answer has."""
        self.asked: list[tuple[str, int, int]] = []
        """Digest, first byte and last byte of each request."""
        self.sent_bytes: Counter[str] = Counter()
        self.agents: set[str] = set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with contextlib.suppress(ConnectionError):
                    server.answer(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The base URL of the mirror."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/models"

    def stop(self) -> None:
        """Close the port."""
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """One request."""
        digest = request.path.rpartition("/")[2]
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers["Range"])
        assert wanted is not None
        first, last = int(wanted[1]), int(wanted[2])
        self.agents.add(request.headers["User-Agent"])
        self.asked.append((digest, first, last))
        habit = self.habit
        if self.sound_after is not None and len(self.asked) > self.sound_after:
            habit = "good"
        data = self.blobs.get(digest)
        if data is None or habit == "missing":
            self._short(request, 404)
        elif habit == "broken":
            self._short(request, 503)
        elif habit == "redirect":
            self._short(request, 302, ("Location", f"{self.url}/{digest}"))
        elif habit == "hangs_up":
            request.close_connection = True
        elif habit == "not_http":
            request.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
            request.close_connection = True
        elif habit == "silent":
            self._closing.wait(PATIENCE_S)
            request.close_connection = True
        else:
            self._body(request, habit, digest, data, (first, last))

    def _body(
        self,
        request: BaseHTTPRequestHandler,
        habit: Habit,
        digest: str,
        data: bytes,
        span: tuple[int, int],
    ) -> None:
        first, last = span if habit != "no_ranges" else (0, len(data) - 1)
        body = data[first : last + 1]
        if habit == "wrong":
            middle = len(body) * 2 // 3
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        request.send_response(200 if habit in ("no_ranges", "endless") else 206)
        shown = first + 1 if habit == "other_range" else first
        if habit not in ("no_ranges", "endless"):
            request.send_header("Content-Range", f"bytes {shown}-{last}/{len(data)}")
        if habit == "encoded":
            request.send_header("Content-Encoding", "gzip")
        if habit in ("closes", "endless"):
            request.send_header("Connection", "close")
        if habit != "endless":
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        for piece in self._pieces(habit, body):
            request.wfile.write(piece)
            self.sent_bytes[digest] += len(piece)
        request.close_connection = request.close_connection or habit in ("truncated", "slow")

    def _pieces(self, habit: Habit, body: bytes) -> Iterator[bytes]:
        if habit == "slow":
            deadline = time.monotonic() + PATIENCE_S
            for start in range(0, len(body), 100):
                yield body[start : start + 100]
                if self._closing.wait(0.05) or time.monotonic() > deadline:
                    return
        elif habit == "endless":
            yield body
            while not self._closing.is_set():
                yield bytes(65536)
        else:
            yield body[: self.cut_after] if habit == "truncated" else body

    def _short(
        self, request: BaseHTTPRequestHandler, status: int, *headers: tuple[str, str]
    ) -> None:
        request.send_response(status)
        for header in headers:
            request.send_header(*header)
        request.send_header("Content-Length", "0")
        request.end_headers()

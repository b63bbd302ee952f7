"""Range requests against a real HTTP server with bad habits."""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.link.http import INBOX_PIECES, HttpFetcher
from agent.update.ports import RangeEnd, RangeJob, RangePiece
from edge_sdk.brokers.authority import create_authority
from edge_sdk.contracts.manifest import CHUNK_BYTES
from edge_sdk.tls import TlsFiles, client_context
from tests.fakes.mirrors import Habit, RangeServer
from tests.fakes.processes import free_port

DATA = random.Random(1).randbytes(5 * CHUNK_BYTES + 77)
NAME = "ab" * 32


@pytest.fixture
def server() -> Iterator[RangeServer]:
    running = RangeServer({NAME: DATA})
    yield running
    running.stop()


@pytest.fixture
def fetcher() -> Iterator[HttpFetcher]:
    made = HttpFetcher(ssl.create_default_context, timeout_s=1.0)
    yield made
    made.cancel()


def get(
    fetcher: HttpFetcher, url: str, first: int = 0, length: int = len(DATA), number: int = 1
) -> tuple[list[bytes], RangeEnd]:
    fetcher.fetch(RangeJob(number, url, first, length))
    return collect(fetcher, number)


def collect(fetcher: HttpFetcher, number: int) -> tuple[list[bytes], RangeEnd]:
    pieces: list[bytes] = []
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for item in fetcher.poll():
            assert item.number == number
            if isinstance(item, RangeEnd):
                return pieces, item
            pieces.append(item.data)
        time.sleep(0.005)
    raise AssertionError("no end")


def test_pieces_are_chunks_and_the_connection_is_kept(
    server: RangeServer, fetcher: HttpFetcher
) -> None:
    pieces, end = get(fetcher, f"{server.url}/{NAME}")
    assert b"".join(pieces) == DATA
    assert {len(piece) for piece in pieces[:-1]} == {CHUNK_BYTES}
    assert end == RangeEnd(1)
    kept = fetcher._socket
    pieces, end = get(fetcher, f"{server.url}/{NAME}", 2 * CHUNK_BYTES, CHUNK_BYTES, number=2)
    assert pieces == [DATA[2 * CHUNK_BYTES : 3 * CHUNK_BYTES]]
    assert fetcher._socket is kept
    assert all(agent.startswith("edge-agent/") for agent in server.agents)


@pytest.mark.parametrize(
    ("habit", "final", "words"),
    [
        ("missing", True, "404"),
        ("redirect", True, "not followed"),
        ("other_range", True, "another range"),
        ("encoded", True, "encodes"),
        ("broken", False, "503"),
        ("truncated", False, "short"),
        ("hangs_up", False, "closed"),
        ("not_http", False, "SSH"),
        ("silent", False, "in time"),
    ],
)
def test_a_bad_answer_is_told_apart(
    server: RangeServer, fetcher: HttpFetcher, habit: Habit, final: bool, words: str
) -> None:
    server.habit = habit
    pieces, end = get(fetcher, f"{server.url}/{NAME}")
    assert words in end.problem
    assert end.final is final
    assert b"".join(pieces) == DATA[: len(pieces) * CHUNK_BYTES]
    server.habit = "good"
    assert get(fetcher, f"{server.url}/{NAME}", number=2)[1] == RangeEnd(2)


def test_a_server_without_ranges_does_for_a_whole_blob_only(
    server: RangeServer, fetcher: HttpFetcher
) -> None:
    server.habit = "no_ranges"
    pieces, end = get(fetcher, f"{server.url}/{NAME}")
    assert (b"".join(pieces), end.problem) == (DATA, "")
    _, end = get(fetcher, f"{server.url}/{NAME}", CHUNK_BYTES, CHUNK_BYTES, number=2)
    assert end.final and "ignores ranges" in end.problem


def test_no_more_is_read_than_was_asked_for(server: RangeServer, fetcher: HttpFetcher) -> None:
    server.habit = "endless"
    pieces, end = get(fetcher, f"{server.url}/{NAME}")
    assert (b"".join(pieces), end.problem) == (DATA, "")
    assert fetcher._socket is None


def test_what_is_not_polled_waits_at_the_server(fetcher: HttpFetcher) -> None:
    data = bytes((INBOX_PIECES + 200) * CHUNK_BYTES)
    server = RangeServer({NAME: data})
    try:
        fetcher.fetch(RangeJob(1, f"{server.url}/{NAME}", 0, len(data)))
        time.sleep(0.5)
        assert len(fetcher._inbox) == INBOX_PIECES
        pieces, end = collect(fetcher, 1)
        assert (sum(map(len, pieces)), end.problem) == (len(data), "")
    finally:
        server.stop()


@pytest.mark.parametrize("habit", ["silent", "slow"])
def test_cancelling_ends_a_wait_at_once(
    server: RangeServer, fetcher: HttpFetcher, habit: Habit
) -> None:
    server.habit = habit
    patient = HttpFetcher(ssl.create_default_context, timeout_s=60.0)
    patient.fetch(RangeJob(1, f"{server.url}/{NAME}", 0, len(DATA)))
    deadline = time.monotonic() + 10
    while not server.asked and time.monotonic() < deadline:
        time.sleep(0.01)
    patient.cancel()
    server.habit = "good"
    began = time.monotonic()
    pieces, end = get(patient, f"{server.url}/{NAME}", number=2)
    assert (b"".join(pieces), end) == (DATA, RangeEnd(2))
    assert time.monotonic() - began < 5
    patient.cancel()


def test_an_absent_server_and_an_absent_name(fetcher: HttpFetcher) -> None:
    _, end = get(fetcher, f"http://127.0.0.1:{free_port()}/{NAME}")
    assert "refused" in end.problem and not end.final
    _, end = get(fetcher, f"http://nowhere.invalid/{NAME}", number=2)
    assert end.problem and not end.final


def test_https_is_verified(tmp_path: Path) -> None:
    authority = create_authority(tmp_path / "ca", "edge")
    made = authority.issue_broker(["127.0.0.1"])
    (tmp_path / "cert.pem").write_bytes(made.certificate_pem)
    (tmp_path / "key.pem").write_bytes(made.key_pem)
    server = RangeServer({NAME: DATA})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server._http.socket = context.wrap_socket(server._http.socket, server_side=True)
    url = server.url.replace("http:", "https:")
    try:
        _, end = get(HttpFetcher(ssl.create_default_context, 2.0), f"{url}/{NAME}")
        assert "the mirror's certificate is not signed" in end.problem
        own = TlsFiles(authority.folder / "ca.pem")
        fetcher = HttpFetcher(lambda: client_context(own, time.time()), 2.0)
        pieces, end = get(fetcher, f"{url}/{NAME}")
        assert (b"".join(pieces), end) == (DATA, RangeEnd(1))
        fetcher.cancel()
    finally:
        server.stop()


def test_tls_files_that_cannot_be_used_end_the_job_and_not_the_thread(
    server: RangeServer, tmp_path: Path
) -> None:
    files = TlsFiles(tmp_path / "missing.pem")
    fetcher = HttpFetcher(lambda: client_context(files, time.time()), 2.0)
    url = f"{server.url.replace('http:', 'https:')}/{NAME}"
    _, end = get(fetcher, url)
    assert end.final and "missing.pem" in end.problem
    pieces, end = get(fetcher, f"{server.url}/{NAME}", number=2)
    assert (b"".join(pieces), end) == (DATA, RangeEnd(2))
    fetcher.cancel()


def test_an_answer_to_a_cancelled_job_is_dropped(server: RangeServer, fetcher: HttpFetcher) -> None:
    fetcher.fetch(RangeJob(1, f"{server.url}/{NAME}", 0, len(DATA)))
    fetcher.cancel()
    time.sleep(0.2)
    assert not [item for item in fetcher.poll() if isinstance(item, RangePiece)]

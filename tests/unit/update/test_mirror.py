"""The mirror's decisions, without a network: what is asked for, and what is given back."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.update.limits import MirrorLimits
from agent.update.mirror import Mirror
from agent.update.ports import RangeEnd, RangeJob, RangePiece
from edge_sdk.bundle.blobs import blob_ref, chunk_size
from edge_sdk.contracts.manifest import CHUNK_BYTES, BlobRef
from edge_sdk.contracts.mirror import check_mirror
from edge_sdk.errors import ConfigError
from tests.fakes.updating import FakeClock

BASE = "https://mirror.example/models"
LIMITS = MirrorLimits(min_bytes=CHUNK_BYTES)


def blob(chunks: int, seed: int = 0, tail: int = 100) -> tuple[bytes, BlobRef]:
    data = random.Random(seed).randbytes((chunks - 1) * CHUNK_BYTES + tail)
    return data, blob_ref(data)


class Script:
    """A fetcher that does what the test says."""

    def __init__(self) -> None:
        self.jobs: list[RangeJob] = []
        self.items: list[RangePiece | RangeEnd] = []
        self.cancelled = 0

    def fetch(self, job: RangeJob) -> None:
        self.jobs.append(job)

    def poll(self) -> list[RangePiece | RangeEnd]:
        items, self.items = self.items, []
        return items

    def cancel(self) -> None:
        self.cancelled += 1
        self.items.clear()

    def serve(self, data: bytes, chunks: int | None = None) -> None:
        """Answer the newest job, as far as ``chunks``."""
        job = self.jobs[-1]
        span = data[job.first : job.first + job.length]
        pieces = [span[at : at + CHUNK_BYTES] for at in range(0, len(span), CHUNK_BYTES)]
        self.items += [RangePiece(job.number, piece) for piece in pieces[:chunks]]

    def end(self, problem: str = "", final: bool = False) -> None:
        self.items.append(RangeEnd(self.jobs[-1].number, problem, final))


class Bench:
    """A mirror between a script and a clock."""

    def __init__(self, limits: MirrorLimits = LIMITS) -> None:
        self.script, self.clock = Script(), FakeClock()
        self.mirror = Mirror(self.script, self.clock, limits)

    def step(self, seconds: float = 0.1) -> list[int]:
        """Indexes of the chunks that have come."""
        self.clock.time += seconds
        return [piece.index for piece in self.mirror.pieces()]


def test_missing_chunks_are_asked_for_in_runs() -> None:
    bench = Bench()
    data, ref = blob(6)
    assert bench.mirror.start(BASE, [(ref, [0, 1, 4, 5])]) == []
    assert bench.mirror.remaining(ref.digest) == 4
    bench.step()
    assert bench.script.jobs == [RangeJob(1, f"{BASE}/{ref.digest}", 0, 2 * CHUNK_BYTES)]
    bench.script.serve(data)
    bench.script.end()
    assert bench.step() == [0, 1]
    assert bench.script.jobs[1].first == 4 * CHUNK_BYTES
    assert bench.script.jobs[1].length == CHUNK_BYTES + 100
    bench.script.serve(data)
    assert bench.step() == [4, 5]
    assert bench.mirror.done
    assert bench.mirror.bytes_received == 3 * CHUNK_BYTES + 100


@pytest.mark.parametrize(
    ("base", "limits"),
    [
        ("", LIMITS),
        ("ftp://x/y", LIMITS),
        ("https://user@x/y", LIMITS),
        (BASE, MirrorLimits(min_bytes=1 << 30)),
        (BASE, MirrorLimits(enabled=False, min_bytes=0)),
    ],
)
def test_what_is_not_for_the_mirror_comes_another_way(base: str, limits: MirrorLimits) -> None:
    bench = Bench(limits)
    _, ref = blob(3)
    assert bench.mirror.start(base, [(ref, [0, 2])]) == [(ref, [0, 2])]
    bench.step()
    assert bench.mirror.done and not bench.script.jobs


def test_wrong_bytes_are_never_handed_on_and_end_it_for_that_blob() -> None:
    bench = Bench()
    (data, ref), (other_data, other) = blob(3, 1), blob(2, 2)
    bench.mirror.start(BASE, [(ref, [0, 1, 2]), (other, [0, 1])])
    bench.step()
    bench.script.serve(data[:CHUNK_BYTES] + bytes(2 * CHUNK_BYTES))
    assert bench.step() == [0]
    assert bench.script.cancelled == 1
    assert bench.mirror.given_back() == [(ref, [1, 2])]
    assert bench.mirror.given_back() == []
    assert "wrong bytes" in bench.mirror.note
    assert bench.script.jobs[-1].url.endswith(other.digest)
    bench.script.serve(other_data)
    assert bench.step() == [0, 1]
    assert bench.mirror.done


def test_a_short_answer_goes_on_where_it_broke_off() -> None:
    bench = Bench()
    data, ref = blob(5)
    bench.mirror.start(BASE, [(ref, list(range(5)))])
    bench.step()
    bench.script.serve(data, chunks=2)
    bench.script.end("connection reset")
    assert bench.step() == [0, 1]
    assert len(bench.script.jobs) == 1, "not at once"
    bench.step(1.1)
    assert bench.script.jobs[-1].first == 2 * CHUNK_BYTES
    bench.script.serve(data)
    assert bench.step() == [2, 3, 4]
    assert (bench.mirror.done, bench.mirror.retries) == (True, 1)


def test_failures_in_a_row_end_it() -> None:
    bench = Bench(MirrorLimits(min_bytes=1, attempts=3))
    _, ref = blob(4)
    bench.mirror.start(BASE, [(ref, [1, 2, 3])])
    for pause in (0.1, 1.1, 2.1):
        bench.step(pause)
        bench.script.end("the server says 503")
        bench.step()
    assert len(bench.script.jobs) == 3
    assert bench.mirror.given_back() == [(ref, [1, 2, 3])]
    assert bench.mirror.note == "the server says 503, 3 times in a row; going on over MQTT"
    assert bench.mirror.done


def test_a_server_that_says_nothing_is_given_up() -> None:
    bench = Bench(MirrorLimits(min_bytes=1, attempts=1, timeout_s=30))
    data, ref = blob(3)
    bench.mirror.start(BASE, [(ref, [0, 1, 2])])
    bench.step()
    bench.script.serve(data, chunks=1)
    assert bench.step(29) == [0]
    assert bench.step(29) == []
    assert not bench.mirror.given_back()
    bench.step(2)
    assert bench.mirror.given_back() == [(ref, [1, 2])]
    assert bench.script.cancelled == 1


def test_what_comes_late_is_not_believed() -> None:
    bench = Bench()
    data, ref = blob(2)
    bench.mirror.start(BASE, [(ref, [0, 1])])
    bench.step()
    old = bench.script.jobs[-1].number
    bench.mirror.stop()
    bench.mirror.start(BASE, [(ref, [0, 1])])
    bench.step()
    bench.script.items = [RangePiece(old, data[:CHUNK_BYTES]), RangeEnd(old, "gone", final=True)]
    assert bench.step() == []
    assert bench.mirror.remaining(ref.digest) == 2


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_every_chunk_comes_or_is_given_back_exactly_once(seed: int, sizes: list[int]) -> None:
    """Whatever the server does, in whatever order."""
    weather = random.Random(seed)
    bench = Bench(MirrorLimits(min_bytes=1, attempts=2, timeout_s=5))
    blobs = {ref.digest: (data, ref) for data, ref in (blob(n, i) for i, n in enumerate(sizes))}
    missing = {
        digest: [i for i in range(len(ref.chunks)) if weather.random() < 0.8]
        for digest, (_, ref) in blobs.items()
    }
    bench.mirror.start(BASE, [(blobs[digest][1], rest) for digest, rest in missing.items()])
    seen: list[tuple[str, int]] = []
    for _ in range(200):
        bench.clock.time += weather.choice([0.1, 1.0, 6.0])
        for piece in bench.mirror.pieces():
            assert len(piece.data) == chunk_size(piece.ref, piece.index)
            assert (
                piece.data == blobs[piece.ref.digest][0][piece.index * CHUNK_BYTES :][:CHUNK_BYTES]
            )
            seen.append((piece.ref.digest, piece.index))
        seen += [(ref.digest, i) for ref, rest in bench.mirror.given_back() for i in rest]
        if bench.mirror.done:
            break
        if bench.script.jobs and not bench.script.items:
            data = blobs[bench.script.jobs[-1].url.rpartition("/")[2]][0]
            harm = weather.choice(["none", "none", "short", "wrong", "final", "silence"])
            if harm == "wrong":
                data = data[: weather.randrange(len(data))].ljust(len(data), b"\0")
            if harm != "silence":
                bench.script.serve(data, weather.randrange(4) if harm == "short" else None)
                bench.script.end("x" if harm != "none" else "", final=harm == "final")
    assert bench.mirror.done
    assert sorted(seen) == sorted((digest, i) for digest, rest in missing.items() for i in rest)


@given(text=st.text(max_size=60) | st.from_regex(r"https?://[a-z0-9:@/?#\[\]. ]{0,30}"))
def test_any_address_is_taken_or_refused_with_a_reason(text: str) -> None:
    try:
        base = check_mirror(text)
    except ConfigError as error:
        assert error.code == "config.bad-mirror"
    else:
        assert base.startswith(("http://", "https://"))
        assert not set("?#@ \r\n") & set(base.partition("://")[2].partition("/")[0])

"""Topics: building and reading are inverse, and nothing else is read as one of ours."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge_sdk.contracts.topics import Topics, check_name
from edge_sdk.errors import ConfigError

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True).filter(
    lambda name: ".." not in name
)
digests = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
BUILDERS = ["desired", "state", "ota", "telemetry", "request", "ask_time", "time"]
LEAVES = {"desired": "desired", "state": "state", "ota": "ota", "telemetry": "tel",
          "request": "req", "ask_time": "ask", "time": "time"}  # fmt: skip


@given(tenant=names, device=names, builder=st.sampled_from(BUILDERS))
def test_device_topics_round_trip(tenant: str, device: str, builder: str) -> None:
    topics = Topics(tenant)
    built = getattr(topics, builder)(device)
    assert topics.parse_device(built) == (device, LEAVES[builder])
    assert topics.parse_chunk(built) is None


@given(tenant=names, device=names, pipeline=names)
def test_result_topics_round_trip(tenant: str, device: str, pipeline: str) -> None:
    topics = Topics(tenant)
    assert topics.parse_device(topics.results(device, pipeline)) == (device, f"out/{pipeline}")


@given(tenant=names, digest=digests, index=st.integers(0, 10**9 - 1))
def test_chunk_topics_round_trip(tenant: str, digest: str, index: int) -> None:
    topics = Topics(tenant)
    built = topics.chunk(digest, index)
    assert topics.parse_chunk(built) == (digest, index)
    assert topics.parse_device(built) is None


@given(tenant=names, other=names, device=names, digest=digests)
def test_other_tenants_are_not_read(tenant: str, other: str, device: str, digest: str) -> None:
    assume(tenant != other)
    assert Topics(other).parse_device(Topics(tenant).state(device)) is None
    assert Topics(other).parse_chunk(Topics(tenant).chunk(digest, 3)) is None


@given(text=st.text(max_size=60))
def test_arbitrary_topics_are_never_misread(text: str) -> None:
    topics = Topics("fleet")
    device, chunk = topics.parse_device(text), topics.parse_chunk(text)
    if device is not None:
        assert text == f"fleet/dev/{device[0]}/{device[1]}"
        check_name(device[0], "device")
    if chunk is not None:
        assert text == topics.chunk(*chunk)


@given(prefix=st.sampled_from(["fleet/b/", "fleet/dev/", "fleet/b/d/"]), rest=st.text(max_size=20))
def test_near_misses_are_never_misread(prefix: str, rest: str) -> None:
    topics = Topics("fleet")
    chunk = topics.parse_chunk(prefix + rest)
    assert chunk is None or topics.chunk(*chunk) == prefix + rest


@pytest.mark.parametrize(
    "topic",
    [
        "fleet/b/abc/0/-1",
        "fleet/b/abc/0/١",
        "fleet/b/abc/0/²",
        "fleet/b/abc/1/3",
        "fleet/b/abc/0/03",
        "fleet/b/abc/0/3/x",
        "fleet/b/abc/0/" + "9" * 5000,
        "fleet/dev//state",
        "fleet/dev/+/state",
        "fleet/dev/a b/state",
        "fleet/dev/a",
    ],
)
def test_malformed_topics(topic: str) -> None:
    topics = Topics("fleet")
    assert topics.parse_chunk(topic) is None
    assert topics.parse_device(topic) is None


def test_segments_hold_sixteen_chunks() -> None:
    topics = Topics("fleet")
    assert topics.chunk("d", 15) == "fleet/b/d/0/15"
    assert topics.chunk("d", 16) == "fleet/b/d/1/16"


@pytest.mark.parametrize(
    "name", ["", "a/b", "+", "#", "a+", "..", "a..b", "-a", ".a", "a" * 65, "a\n", "ä", "a b", "\0"]
)
def test_unsafe_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_name(name, "tenant")
    assert caught.value.code == "config.bad-name"
    with pytest.raises(ConfigError):
        Topics(name)


def test_subscription_to_every_device() -> None:
    assert Topics("fleet").every_device("tel") == "fleet/dev/+/tel"

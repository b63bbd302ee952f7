"""Frames between supervisor and worker: round trips, splits, newer peers and nonsense."""

from __future__ import annotations

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.pipelines.config import PipelineConfig, SourceConfig
from agent.worker.protocol import (
    MAX_FRAME_BYTES,
    Command,
    Event,
    Failed,
    Finished,
    FrameReader,
    GoldenDone,
    GoldenProgress,
    PointChanged,
    PointRefused,
    Ready,
    Results,
    SetPoint,
    Start,
    Stats,
    Stop,
    WorkerSpec,
    decode_command,
    decode_event,
    encode_frame,
)
from edge_sdk.contracts.telemetry import Decision
from edge_sdk.errors import ContractError

texts = st.text(max_size=30)
counts = st.integers(0, 2**40)
reals = st.floats(allow_nan=False)
commands = st.one_of(
    st.builds(
        WorkerSpec,
        mode=st.sampled_from(["serve", "golden"]),
        manifest=texts,
        blobs=texts,
        profile=texts,
        pipeline=st.none()
        | st.builds(
            PipelineConfig,
            source=st.builds(
                SourceConfig,
                kind=st.sampled_from(["video", "camera", "frames"]),
                device=st.integers(0, 9) | texts,
            ),
        ),
        start_point=counts,
        hold=st.booleans(),
    ),
    st.builds(Start),
    st.builds(SetPoint, index=counts),
    st.builds(Stop),
)
decision = st.builds(Decision, frame=counts, label=texts, score=reals, expected=texts)
events = st.one_of(
    st.builds(Ready, point=counts, load_ms=reals, runtime=texts, unit=texts, rss_mib=reals),
    st.builds(Stats, frames=counts, latencies_ms=st.lists(reals, max_size=5).map(tuple)),
    st.builds(Results, point=counts, decisions=st.lists(decision, max_size=5).map(tuple)),
    st.builds(PointChanged, index=counts, load_ms=reals),
    st.builds(PointRefused, index=counts, code=texts, cause=texts, hint=texts),
    st.builds(GoldenProgress, done=counts, total=counts),
    st.builds(GoldenDone, ok=st.booleans(), max_error=reals, detail=texts),
    st.builds(Finished, reason=st.sampled_from(["end-of-stream", "stopped"])),
    st.builds(Failed, code=texts, cause=texts, hint=texts),
)


@given(st.lists(commands | events, max_size=6), st.data())
def test_messages_survive_any_split_of_the_stream(
    messages: list[Command | Event], data: st.DataObject
) -> None:
    stream = b"".join(encode_frame(message) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = FrameReader()
    frames = [
        frame
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for frame in reader.feed(stream[start:end])
    ]
    decoded = [
        decode_command(frame) if isinstance(message, Command) else decode_event(frame)
        for frame, message in zip(frames, messages, strict=True)
    ]
    assert decoded == messages


@given(st.binary(max_size=200))
def test_nonsense_is_a_named_error_or_no_frame(data: bytes) -> None:
    try:
        for frame in FrameReader().feed(data):
            decode_event(frame)
            decode_command(frame)
    except ContractError as error:
        assert error.code == "contract.worker-frame"


@given(events, st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_message_is_a_named_error_or_another_message(
    event: Event, position: int, value: int
) -> None:
    body = bytearray(encode_frame(event)[4:])
    body[position % len(body)] = value
    try:
        decode_event(bytes(body))
    except ContractError as error:
        assert error.code == "contract.worker-frame"


def test_a_newer_peer_is_understood_as_far_as_possible() -> None:
    newer = msgspec.msgpack.encode({"type": "set-point", "index": 2, "smoothly": True})
    assert decode_command(newer) == SetPoint(index=2)
    assert decode_command(msgspec.msgpack.encode({"type": "levitate", "metres": 2})) is None
    assert decode_event(msgspec.msgpack.encode({"type": "levitated"})) is None


@pytest.mark.parametrize(
    "body", [{"type": "set-point"}, {"type": "set-point", "index": "x"}, {"index": 1}, [], 7]
)
def test_a_known_message_with_wrong_content_is_refused(body: object) -> None:
    with pytest.raises(ContractError):
        decode_command(msgspec.msgpack.encode(body))


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(ContractError):
        decode_event(b"\x81\xa4type" + b"\x91" * 100_000)


@pytest.mark.parametrize("length", [0, MAX_FRAME_BYTES + 1, 2**32 - 1])
def test_a_length_no_message_has_is_refused_before_it_is_buffered(length: int) -> None:
    reader = FrameReader()
    good = encode_frame(Stop())
    frames = reader.feed(good + struct.pack(">I", length) + b"rest")
    assert next(frames) == good[4:]
    with pytest.raises(ContractError):
        next(frames)


def test_a_message_too_long_to_send_is_refused_by_its_sender() -> None:
    with pytest.raises(ContractError):
        encode_frame(Failed(code="x" * MAX_FRAME_BYTES, cause="", hint=""))

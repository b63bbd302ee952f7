"""What supervisor and worker say to each other over their socket pair.

A frame is a 4-byte big-endian length and that many bytes of msgpack: one tagged struct. The first
frame a worker reads is its :class:`WorkerSpec`. Both ends ignore fields and tags they do not know,
so that an agent that was upgraded while its worker runs keeps understanding it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal, TypeVar

import msgspec

from agent.pipelines.config import PipelineConfig
from edge_sdk.contracts.base import Wire
from edge_sdk.contracts.telemetry import Decision
from edge_sdk.errors import ContractError

MAX_FRAME_BYTES = 4 * 1024 * 1024
"""A longer frame is garbage: the largest real one, a full batch of results, is under 200 KiB."""

_LENGTH = struct.Struct(">I")


class WorkerSpec(Wire, kw_only=True, tag="spec"):
    """What a worker is for."""

    mode: Literal["serve", "golden"]
    manifest: str
    """Path of the verified manifest."""
    blobs: str
    """Folder of content-addressed blobs."""
    profile: str
    """Which of the manifest's ladders to use."""
    pipeline: PipelineConfig | None = None
    """Needed to serve."""
    start_point: int = 0
    """Index into the ladder; past its end means the last."""
    hold: bool = False
    """Load, emit :class:`Ready`, and wait for :class:`Start` before opening the source."""
    threads: int = 0
    """Inference threads; 0 uses each point's own number."""
    runtimes: tuple[str, ...] = ()
    """Runtimes this device has: points for others are left out of the ladder, and indexes count
    what remains. Empty leaves none out."""
    stats_interval_s: float = 0.5
    cascade: bool = True
    """Whether a second point may be in memory to answer first."""


class Start(Wire, kw_only=True, tag="start"):
    """Open the source; ends ``hold``."""


class SetPoint(Wire, kw_only=True, tag="set-point"):
    """Move to another operating point. The last one asked for wins."""

    index: int
    alone: bool = False
    """Memory does not hold both: let go of the present one before this one is loaded."""


class AllowCascade(Wire, kw_only=True, tag="allow-cascade"):
    """Whether a second point may be in memory to answer first; it may until told otherwise."""

    on: bool


class Stop(Wire, kw_only=True, tag="stop"):
    """Finish the frame at hand, flush results and exit."""


class Ready(Wire, kw_only=True, tag="ready"):
    """The first point is loaded and has run once."""

    point: int
    load_ms: float
    runtime: str
    unit: str
    rss_mib: float


class Stats(Wire, kw_only=True, tag="stats"):
    """Counts since the previous :class:`Stats`. The frame loop sends it, so that it stops when
    the native runtime hangs: it is the heartbeat."""

    frames: int = 0
    dropped: int = 0
    queue_depth: int = 0
    errors: int = 0
    labelled: int = 0
    correct: int = 0
    low_confidence: int = 0
    gated: int = 0
    """Frames that a cheaper point answered first."""
    escalated: int = 0
    """Those of them that the governor's point looked at again."""
    latencies_ms: tuple[float, ...] = ()
    """Preprocessing to decision, one per frame; evenly thinned above 1,024."""
    point: int = 0
    rss_mib: float = 0.0
    results_dropped: int = 0
    """Decisions given up because the supervisor did not read."""
    source: str = ""
    """What is wrong with the source now, in one sentence; empty when it delivers."""


class Results(Wire, kw_only=True, tag="results"):
    """Decisions in frame order, all of one point."""

    point: int
    decisions: tuple[Decision, ...]


class PointChanged(Wire, kw_only=True, tag="point-changed"):
    """The next frame runs on this point."""

    index: int
    load_ms: float
    runtime: str = ""
    unit: str = ""


class PointRefused(Wire, kw_only=True, tag="point-refused"):
    """A point could not be loaded; the worker stays on the one it had."""

    index: int
    code: str
    cause: str
    hint: str


class GoldenProgress(Wire, kw_only=True, tag="golden-progress"):
    """One more point passed; the heartbeat of a golden test."""

    done: int
    total: int


class GoldenDone(Wire, kw_only=True, tag="golden-done"):
    """The golden test's verdict; the process ends after it."""

    ok: bool
    max_error: float
    """Largest absolute output difference seen; infinite where outputs cannot be compared."""
    detail: str
    """Names the first point that failed, or says what passed."""


class Finished(Wire, kw_only=True, tag="finished"):
    """The stream ended or :class:`Stop` was obeyed; the process ends after it."""

    reason: Literal["end-of-stream", "stopped"]


class Failed(Wire, kw_only=True, tag="failed"):
    """The worker cannot go on; the process ends after it."""

    code: str
    cause: str
    hint: str


Command = WorkerSpec | Start | SetPoint | AllowCascade | Stop
Event = (
    Ready
    | Stats
    | Results
    | PointChanged
    | PointRefused
    | GoldenProgress
    | GoldenDone
    | Finished
    | Failed
)
T = TypeVar("T")


class _Tag(msgspec.Struct):
    """Enough of a frame to see that it is one of a newer agent's."""

    type: str


_encoder = msgspec.msgpack.Encoder()
_commands: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_events: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)
_tags = msgspec.msgpack.Decoder(_Tag)
_COMMAND_TAGS = frozenset(
    str(kind.__struct_config__.tag) for kind in (WorkerSpec, Start, SetPoint, AllowCascade, Stop)
)
_EVENT_TAGS = frozenset(
    str(kind.__struct_config__.tag)
    for kind in (
        Ready,
        Stats,
        Results,
        PointChanged,
        PointRefused,
        GoldenProgress,
        GoldenDone,
        Finished,
        Failed,
    )
)


def encode_frame(message: Command | Event) -> bytes:
    """A message with its length in front."""
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise _bad_frame(f"a {type(message).__name__} of {len(body)} bytes")
    return _LENGTH.pack(len(body)) + body


def decode_command(body: bytes) -> Command | None:
    """A command, or None for one this version does not know.

    Raises:
        ContractError: ``contract.worker-frame``.
    """
    return _decode(body, _commands, _COMMAND_TAGS)


def decode_event(body: bytes) -> Event | None:
    """An event, or None for one this version does not know.

    Raises:
        ContractError: ``contract.worker-frame``.
    """
    return _decode(body, _events, _EVENT_TAGS)


def _decode(body: bytes, decoder: msgspec.msgpack.Decoder[T], known: frozenset[str]) -> T | None:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        try:
            tag = _tags.decode(body).type
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _bad_frame(str(error)) from error
        if tag in known:
            raise _bad_frame(f"{tag}: {error}") from error
        return None


class FrameReader:
    """Cuts a byte stream into frames; holds at most one frame and one read."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the frames that ``data`` completes; read to the end before feeding again.

        Raises:
            ContractError: ``contract.worker-frame`` for a length that no message has, after the
                frames before it.
        """
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if not 0 < length <= MAX_FRAME_BYTES:
                raise _bad_frame(f"a length of {length} bytes")
            end = _LENGTH.size + length
            if end > len(self._buffer):
                return
            frame = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield frame


def _bad_frame(what: str) -> ContractError:
    return ContractError(
        "worker-frame",
        f"Supervisor and worker do not understand each other: {what}.",
        "Restart the agent; if it happens again, reinstall edge-sdk, as its files may be mixed.",
    )

"""Traces of the governor: every sample it saw and what it decided, to be replayed elsewhere.

A trace is JSON, one object per line. A ``start`` line names the device, its policy and the ladder;
``tick`` lines follow, twice a second, until the next ``start``. A file grows to half its bound and
then takes the place of the one before it (``.1``), so that a trace never takes more than its bound.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated

import msgspec
from msgspec import Meta

from agent.adapt.governor import Decision
from agent.adapt.ladder import Rung
from agent.adapt.policy import GovernorPolicy
from agent.sense.sample import PressureSample
from edge_sdk.contracts.base import SCHEMA, Config, Wire
from edge_sdk.errors import ContractError, StorageError

LOG = logging.getLogger(__name__)

FLUSH_TICKS = 20
"""Lines are written together, for the sake of flash: a power cut loses ten seconds of a trace."""

MAX_LINE_BYTES = 1 << 20
MAX_TRACE_BYTES = 1 << 30
OLDER = ".1"
_SECONDS_DIGITS = 3


class TraceConfig(Config, kw_only=True):
    """Section ``[trace]`` of the agent's configuration."""

    path: Annotated[
        str, Meta(description="File that the governor's samples are written to; empty for none.")
    ] = ""
    max_mib: Annotated[
        float, Meta(ge=0.125, le=1024, description="Size of the trace, older file included.")
    ] = 8.0


class TraceStart(Wire, kw_only=True, tag="start"):
    """The ticks that follow belong to this release on this device."""

    schema: int = SCHEMA
    device_id: str
    profile: str
    at: float
    """Seconds since the epoch."""
    policy: GovernorPolicy
    """Fitted: its temperatures are set."""
    ladder: tuple[Rung, ...]
    pipeline: str = ""
    priority: int = 0
    """The higher, the more important among the device's pipelines."""


class TraceTick(Wire, kw_only=True, tag="tick"):
    """One sample and the decision on it."""

    t: float
    """Monotonic seconds of the device."""
    sample: PressureSample
    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a trace under one governor."""

    start: TraceStart
    ticks: tuple[TraceTick, ...]


_encoder = msgspec.json.Encoder()
_lines: msgspec.json.Decoder[TraceStart | TraceTick] = msgspec.json.Decoder(TraceStart | TraceTick)


class TraceFile:
    """Writes a trace; implements :class:`agent.adapt.steering.Recorder`.

    A disk that is full or broken ends the trace with one line in the log; the agent goes on.

    Args:
        config: where to and how large.
        device_id: named in the trace.
        profile: likewise.
        epoch: seconds since the epoch.
        pipeline: whose governor this is.
        priority: of the pipeline.
    """

    def __init__(
        self,
        config: TraceConfig,
        device_id: str,
        profile: str,
        epoch: Callable[[], float],
        *,
        pipeline: str = "",
        priority: int = 0,
    ) -> None:
        self._path = Path(config.path)
        self._half_bytes = int(config.max_mib * 2**20 / 2)
        self._device_id = device_id
        self._profile = profile
        self._epoch = epoch
        self._pipeline, self._priority = pipeline, priority
        self._start: TraceStart | None = None
        self._waiting: list[bytes] = []
        self._broken = False

    def begin(self, policy: GovernorPolicy, ladder: Sequence[Rung]) -> None:
        """Write a ``start`` line."""
        self._start = TraceStart(
            device_id=self._device_id,
            profile=self._profile,
            at=self._epoch(),
            policy=policy,
            ladder=tuple(ladder),
            pipeline=self._pipeline,
            priority=self._priority,
        )
        self._waiting.append(_line(self._start))

    def add(self, now: float, sample: PressureSample, decision: Decision) -> None:
        """Write a ``tick`` line, sooner or later."""
        tick = TraceTick(
            t=round(now, _SECONDS_DIGITS),
            sample=_short(sample),
            index=decision.index,
            reason=decision.reason,
        )
        self._waiting.append(_line(tick))
        if len(self._waiting) >= FLUSH_TICKS:
            self._flush()

    def close(self) -> None:
        """Write what is left."""
        self._flush()

    def _flush(self) -> None:
        waiting, self._waiting = b"".join(self._waiting), []
        if self._broken or not waiting:
            return
        try:
            self._write(waiting)
        except OSError as error:
            self._broken = True
            LOG.warning("the governor's trace ends: %s: %s", self._path, error)

    def _write(self, data: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as handle:
            size = handle.tell()
            if size + len(data) <= self._half_bytes or not size:
                handle.write(data)
                return
        self._path.replace(self._path.with_name(self._path.name + OLDER))
        # Each file can be replayed by itself.
        head = b"" if self._start is None else _line(self._start)
        with self._path.open("wb") as handle:
            handle.write(head + data)


def read_trace(path: Path) -> list[Segment]:
    """The segments of a trace, those without ticks left out.

    A last line that was cut off, as by a power cut, is left out; any other that is no trace is an
    error.

    Raises:
        ContractError: ``contract.bad-trace``.
        StorageError: ``storage.unreadable``.
    """
    try:
        with path.open("rb") as handle:
            if os.fstat(handle.fileno()).st_size > MAX_TRACE_BYTES:
                raise _bad(path, 0, f"it is larger than {MAX_TRACE_BYTES >> 20} MiB")
            return list(_segments(handle, path))
    except OSError as error:
        raise StorageError(
            "unreadable",
            f"Cannot read {path}: {error.strerror or error}.",
            "Name a trace that an agent has written; [trace] in its configuration says where to.",
        ) from error


def _segments(handle: IO[bytes], path: Path) -> Iterator[Segment]:
    start: TraceStart | None = None
    ticks: list[TraceTick] = []
    for item in _read_lines(handle, path):
        if isinstance(item, TraceTick):
            if start is None:
                raise _bad(path, 1, "it does not begin with a start line")
            ticks.append(item)
            continue
        if start is not None and ticks:
            yield Segment(start, tuple(ticks))
        start, ticks = item, []
    if start is None:
        raise _bad(path, 1, "there is no start line")
    if ticks:
        yield Segment(start, tuple(ticks))


def _read_lines(handle: IO[bytes], path: Path) -> Iterator[TraceStart | TraceTick]:
    number = 0
    while line := handle.readline(MAX_LINE_BYTES):
        number += 1
        try:
            item = _lines.decode(line)
            _check(item)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
            if not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES and number > 1:
                return
            raise _bad(path, number, str(error)) from error
        yield item


def _check(item: TraceStart | TraceTick) -> None:
    if isinstance(item, TraceStart):
        if item.schema > SCHEMA:
            raise ValueError(f"schema {item.schema}; this version reads up to {SCHEMA}")
        if not item.ladder:
            raise ValueError("the ladder is empty")


def _bad(path: Path, number: int, why: str) -> ContractError:
    return ContractError(
        "bad-trace",
        f"{path} is not a governor's trace: line {number}: {why}.",
        "A trace is written by the agent, with [trace] in its configuration.",
    )


def _line(item: TraceStart | TraceTick) -> bytes:
    return _encoder.encode(item) + b"\n"


def _short(sample: PressureSample) -> PressureSample:
    """Four digits are more than any sensor has; a trace is a third shorter with them."""
    changes = {
        name: round(value, 4)
        for name in sample.__struct_fields__
        if isinstance(value := getattr(sample, name), float)
    }
    return msgspec.structs.replace(sample, **changes)

"""The wire format of the Wyoming protocol, which Home Assistant and its voice satellites speak.

A message is a line of JSON with a type and the lengths of what follows: more JSON, then bytes.
Source: https://github.com/OHF-Voice/wyoming, README. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from edge_sdk import __version__

MAX_LINE_BYTES = 64 * 1024
MAX_PART_BYTES = 1024 * 1024
"""Of further JSON or of sound: half a minute of it."""


class ProtocolError(Exception):
    """The peer does not speak Wyoming."""


class Message(NamedTuple):
    """One event."""

    kind: str
    data: dict[str, Any]
    payload: bytes = b""


class _Head(msgspec.Struct):
    type: str
    data: dict[str, Any] | None = None
    data_length: int | None = None
    payload_length: int | None = None


_heads = msgspec.json.Decoder(_Head)
_parts: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])


def encode_message(message: Message) -> bytes:
    """A message as it travels."""
    data = msgspec.json.encode(message.data) if message.data else b""
    head = {
        "type": message.kind,
        "version": __version__,
        "data_length": len(data),
        "payload_length": len(message.payload),
    }
    return msgspec.json.encode(head) + b"\n" + data + message.payload


class MessageReader:
    """Cuts a byte stream into messages; holds at most one of them and one read."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that ``data`` completes; read to the end before feeding again.

        Raises:
            ProtocolError: this is no Wyoming, or a message is too long.
        """
        self._buffer += data
        while (message := self._next()) is not None:
            yield message

    def _next(self) -> Message | None:
        line_end = self._buffer.find(b"\n", 0, MAX_LINE_BYTES)
        if line_end < 0:
            if len(self._buffer) >= MAX_LINE_BYTES:
                raise ProtocolError("a line without an end")
            return None
        try:
            head = _heads.decode(bytes(self._buffer[:line_end]))
            data_size, size = head.data_length or 0, head.payload_length or 0
            if not (0 <= data_size <= MAX_PART_BYTES and 0 <= size <= MAX_PART_BYTES):
                raise ProtocolError(f"parts of {data_size} and {size} bytes")
            first, end = line_end + 1, line_end + 1 + data_size + size
            if len(self._buffer) < end:
                return None
            more = (
                _parts.decode(bytes(self._buffer[first : first + data_size])) if data_size else {}
            )
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(str(error)) from error
        payload = bytes(self._buffer[first + data_size : end])
        del self._buffer[:end]
        return Message(head.type, {**(head.data or {}), **more}, payload)


def info_message(words: Sequence[str]) -> Message:
    """What this service is and which words it knows."""
    made = {"name": "edge-sdk", "url": ""}
    common = {"attribution": made, "installed": True, "version": __version__}
    models = [
        {"name": word, "description": word, "phrase": word, "languages": [], **common}
        for word in words
    ]
    program = {"name": "edge-agent", "description": "Wake words on the device", **common}
    return Message("info", {"wake": [{**program, "models": models}]})

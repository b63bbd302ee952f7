"""The worker's end of the socket pair.

Commands are read by a thread of its own, which also ends the process when the supervisor is gone,
even while the main thread hangs in native code that has released the interpreter lock. Events are
sent by the main thread only, which never waits for the supervisor: what does not fit is kept, and
results beyond a bound are given up.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import socket
import threading
import time

from agent.worker.protocol import (
    Command,
    Event,
    FrameReader,
    Results,
    decode_command,
    encode_frame,
)
from edge_sdk.errors import ContractError

EXIT_ORPHANED = 75
"""Exit code of a worker whose supervisor went away."""
READ_BYTES = 64 * 1024
MAX_UNSENT_BYTES = 1024 * 1024

log = logging.getLogger(__name__)


class Channel:
    """Commands in, events out.

    Args:
        link: the inherited socket.
    """

    def __init__(self, link: socket.socket) -> None:
        link.setblocking(False)
        self._link = link
        self._unsent = bytearray()
        self._inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._listen, name="commands", daemon=True)

    def start(self) -> None:
        """Begin to read commands."""
        self._thread.start()

    def command(self, timeout_s: float = 0.0) -> Command | None:
        """The next command, or None when none came in time."""
        if timeout_s <= 0 and self._inbox.empty():
            return None
        try:
            return self._inbox.get(timeout=max(timeout_s, 0.0))
        except queue.Empty:
            return None

    @property
    def congested(self) -> bool:
        """The supervisor is not reading; statistics should be kept for later."""
        self._flush()
        return len(self._unsent) > MAX_UNSENT_BYTES // 2

    def send(self, event: Event) -> bool:
        """Send without waiting; False when results were given up because nobody reads."""
        if isinstance(event, Results) and self.congested:
            return False
        self._unsent += encode_frame(event)
        self._flush()
        return True

    def drain(self, timeout_s: float = 5.0) -> None:
        """Wait until everything is sent, at most ``timeout_s``: the last thing a worker does."""
        deadline = time.monotonic() + timeout_s
        self._flush()
        while self._unsent and (left_s := deadline - time.monotonic()) > 0:
            select.select((), (self._link,), (), left_s)
            self._flush()

    def _flush(self) -> None:
        while self._unsent:
            try:
                sent = self._link.send(self._unsent)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._unsent.clear()  # the listening thread is about to end the process
                return
            del self._unsent[:sent]

    def _listen(self) -> None:
        reader = FrameReader()
        try:
            while True:
                select.select((self._link,), (), ())
                data = self._link.recv(READ_BYTES)
                if not data:
                    break
                for body in reader.feed(data):
                    command = decode_command(body)
                    if command is not None:
                        self._inbox.put(command)
        except ContractError as error:
            log.error("%s", error)
        except OSError as error:
            log.error("The supervisor's socket failed: %s", error)
        # Nobody is left to work for. A clean exit could wait for the native code that hangs.
        os._exit(EXIT_ORPHANED)

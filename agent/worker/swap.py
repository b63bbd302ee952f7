"""Loads the next operating point beside the running one, so that no frame waits for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from agent.worker.memory import return_freed
from agent.worker.points import Loaded
from edge_sdk.errors import EdgeError, RuntimeUnavailableError

log = logging.getLogger(__name__)


PAUSE_PATIENCE_S = 0.25
"""A stream without pauses is overloaded, and waits for a cheaper point more than for one frame."""


class Swapper:
    """At most one load at a time; the last index asked for wins.

    Two points are in memory at most: the running one, and one that is loading or has run before,
    to which the way back is then immediate; where memory is short, only one that is loading.

    Args:
        load: loads a point; called in a thread of its own.
    """

    def __init__(self, load: Callable[[int], Loaded]) -> None:
        self._load = load
        self._wanted: int | None = None
        self._loading: int | None = None
        self._thread: threading.Thread | None = None
        self._loaded: Loaded | None = None
        self._error: EdgeError | None = None
        self._spare: Loaded | None = None
        self._may_keep = True
        self._keeping: int | None = None
        self._pausing = threading.Event()

    @property
    def busy(self) -> bool:
        """Whether :meth:`poll` has anything to look at."""
        return self._loading is not None

    def request(self, index: int) -> None:
        """Ask for a point."""
        self._wanted = index
        if self._loading is None:
            self._begin(index)

    def cancel(self) -> None:
        """Want none any more; what is loading is closed when it is there."""
        self._wanted = None

    def keep(self, replaced: Loaded) -> None:
        """Take the point that ran until now, in case it is asked for again."""
        before, self._spare = self._spare, replaced
        if before is not None:
            before.pipeline.close()
        if not self._may_keep:
            self.free_spare()

    def allow_spare(self, on: bool) -> None:
        """Whether a point may stay beside the running one; it may until told otherwise."""
        self._may_keep = on
        if not on:
            self.free_spare()

    def prepare(self, index: int) -> None:
        """Have a point in memory beside the running one, in place of any other spare.

        Does nothing while something is loading.
        """
        if self._loading is None and self.spare(index) is None:
            self._keeping = index
            self._begin(index)

    def spare(self, index: int) -> Loaded | None:
        """The point beside the running one, where it is this one."""
        found = self._spare
        return found if found is not None and found.index == index else None

    def free_spare(self) -> None:
        """Give the memory of the point beside the running one back, or of one that is loading."""
        self._keeping = None
        before, self._spare = self._spare, None
        if before is not None:
            before.pipeline.close()
            return_freed()

    def pause(self, begins: bool) -> None:
        """Say that the frame loop begins or ends to wait for a frame."""
        if begins:
            self._pausing.set()
        else:
            self._pausing.clear()

    def await_pause(self) -> None:
        """In the loading thread: wait for the pause behind a frame, a short while.

        Some runtimes hold the interpreter lock for as long as they load.
        """
        self._pausing.wait(PAUSE_PATIENCE_S)

    def poll(self) -> Loaded | tuple[int, EdgeError] | None:
        """What came of the last request, once: the point, or its index and why it is not there."""
        if self._loading is None:
            return None
        was_spare = self._thread is None
        if self._thread is not None:
            if self._thread.is_alive():
                return None
            self._thread.join()
            self._thread = None
        index, loaded, error = self._loading, self._loaded, self._error
        self._loaded = self._error = self._loading = None
        if index != self._wanted:
            if loaded is not None and (was_spare or index == self._keeping):
                self.keep(loaded)
            elif loaded is not None:
                loaded.pipeline.close()
            if error is not None and index == self._keeping:
                log.warning("Point %d cannot run beside the present one: %s", index, error)
            self._keeping = None
            if self._wanted is not None:
                self._begin(self._wanted)
            return None
        self._wanted = None
        if loaded is not None:
            return loaded
        return (index, error) if error is not None else None

    def _begin(self, index: int) -> None:
        self._loading = index
        spare, self._spare = self._spare, None
        if spare is not None and spare.index == index:
            self._loaded = replace(spare, load_ms=0.0)
            return
        self._thread = threading.Thread(
            target=self._run, args=(index, spare), name=f"load-{index}", daemon=True
        )
        self._thread.start()

    def _run(self, index: int, spare: Loaded | None) -> None:
        try:
            if spare is not None:
                spare.pipeline.close()  # makes room
            self._loaded = self._load(index)
        except EdgeError as error:
            self._error = error
        except Exception as error:  # the thread's boundary; the frame loop reports it
            log.exception("Loading point %d failed", index)
            self._error = RuntimeUnavailableError(
                "load-failed",
                f"Loading operating point {index} failed: {type(error).__name__}: {error}.",
                "The device may be out of memory; see the worker's output in the agent's log.",
            )

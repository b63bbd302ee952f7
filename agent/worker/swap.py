"""Loads the next operating point beside the running one, so that no frame waits for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from agent.worker.points import Loaded
from edge_sdk.errors import EdgeError, RuntimeUnavailableError

log = logging.getLogger(__name__)


class Swapper:
    """At most one load at a time; the last index asked for wins.

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

    @property
    def busy(self) -> bool:
        """Whether :meth:`poll` has anything to look at."""
        return self._wanted is not None

    def request(self, index: int) -> None:
        """Ask for a point."""
        self._wanted = index
        if self._thread is None:
            self._begin(index)

    def cancel(self) -> None:
        """Want none any more; what is loading is closed when it is there."""
        self._wanted = None

    def poll(self) -> Loaded | tuple[int, EdgeError] | None:
        """What came of the last request, once: the point, or its index and why it is not there."""
        if self._thread is None or self._thread.is_alive():
            return None
        self._thread.join()
        self._thread = None
        index, loaded, error = self._loading, self._loaded, self._error
        self._loaded = self._error = self._loading = None
        if index != self._wanted:
            if loaded is not None:
                loaded.pipeline.close()
            if self._wanted is not None:
                self._begin(self._wanted)
            return None
        self._wanted = None
        if loaded is not None:
            return loaded
        return (index, error) if index is not None and error is not None else None

    def _begin(self, index: int) -> None:
        self._loading = index
        self._thread = threading.Thread(
            target=self._run, args=(index,), name=f"load-{index}", daemon=True
        )
        self._thread.start()

    def _run(self, index: int) -> None:
        try:
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

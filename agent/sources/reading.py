"""What every thread that reads a source does around its reading."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edge_sdk.errors import EdgeError, SourceError

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 30.0
"""Between two attempts to open a device that is lost; each pause is twice the one before."""

log = logging.getLogger(__name__)


def read_out(read: Callable[[], None], where: str) -> EdgeError | None:
    """Read to the end; why it ended early, or None. The boundary of the reading thread.

    Args:
        read: returns at the end of the source.
        where: the source, for messages.
    """
    try:
        read()
    except EdgeError as error:
        return error
    except Exception as error:
        log.exception("Reading %s failed", where)
        return SourceError(
            "failed",
            f"Reading {where} failed: {error}.",
            "See the worker's output in the agent's log.",
        )
    return None

"""Running a user's code so that its failures name the user's line, not ours."""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from edge_sdk.errors import EdgeError, TaskError

LIMIT_S = 600.0
"""For one step that loads or makes something: an import, ``build()``, a batch of samples."""


class _TooSlow(BaseException):
    """Time is up; no ``except Exception`` of the user's may swallow it."""


@contextmanager
def user_code(path: Path, doing: str, *, limit_s: float | None = None) -> Iterator[None]:
    """Turn whatever the block raises into ``task.user-code-failed``, ``sys.exit()`` included.

    Args:
        path: the user's file; the deepest frame in its folder is what gets named.
        doing: what the code was asked for, e.g. ``calibration(32, 32)``.
        limit_s: how long the block may take; None where the work has no natural bound. Only the
            main thread can be interrupted, so others are not bounded.

    Raises:
        TaskError: ``task.user-code-failed``, ``task.too-slow``.
    """
    try:
        with _limited(limit_s):
            yield
    except (EdgeError, KeyboardInterrupt, GeneratorExit):
        raise
    except _TooSlow as error:
        raise TaskError(
            "too-slow",
            f"{doing} did not finish within {limit_s:.0f} s; it was at {where(error, path)}.",
            "Leave out what waits there (input, network, a sleep), or do it beforehand.",
        ) from None
    except BaseException as error:
        raise TaskError(
            "user-code-failed",
            f"{doing} raised {type(error).__name__} at {where(error, path)}: {first_line(error)}",
            "Fix the line named above; run the file on its own to see the whole traceback.",
        ) from error


@contextmanager
def _limited(limit_s: float | None) -> Iterator[None]:
    """Raise :class:`_TooSlow` at the line that runs when the time is up; an outer limit holds."""
    main = threading.current_thread() is threading.main_thread()
    if limit_s is None or not main or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return

    def expire(number: int, frame: FrameType | None) -> None:
        raise _TooSlow

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def where(error: BaseException, path: Path) -> str:
    """``file:line`` of the deepest frame in the user's folder, or of the deepest frame at all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _inside(frame.filename, path.parent)]
    frame = own[-1] if own else (frames[-1] if frames else None)
    return f"{frame.filename}:{frame.lineno}" if frame else str(path)


def first_line(error: BaseException, limit: int = 300) -> str:
    """The first line of an exception's message, bounded."""
    lines = str(error).strip().splitlines()
    return (lines[0][:limit] if lines else "no message").rstrip(".") + "."


def _inside(filename: str, folder: Path) -> bool:
    try:
        relative = Path(filename).resolve().relative_to(folder.resolve())
    except (ValueError, OSError):
        return False
    return "site-packages" not in relative.parts

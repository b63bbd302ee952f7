"""Running a user's code so that its failures name the user's line, not ours."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_sdk.errors import EdgeError, TaskError


@contextmanager
def user_code(path: Path, doing: str) -> Iterator[None]:
    """Turn any exception of the block into ``task.user-code-failed``.

    Args:
        path: the user's file; the deepest frame in its folder is what gets named.
        doing: what the code was asked for, e.g. ``calibration(32, 32)``.

    Raises:
        TaskError: ``task.user-code-failed``.
    """
    try:
        yield
    except EdgeError:
        raise
    except Exception as error:
        raise TaskError(
            "user-code-failed",
            f"{doing} raised {type(error).__name__} at {where(error, path)}: {first_line(error)}",
            "Fix the line named above; run the file on its own to see the whole traceback.",
        ) from error


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

"""A child process that behaves as its request says (see converters.children)."""

from __future__ import annotations

import atexit
import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from converters.children import child_main
from edge_sdk.errors import TaskError


def behave(request: dict[str, Any], step: Callable[[str], None]) -> Any:
    """Crash, hang, fail or answer."""
    behaviour = request["behaviour"]
    step(f"about to {behaviour}")
    print("said on standard output")
    if behaviour == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif behaviour == "hang":
        time.sleep(600)
    elif behaviour == "raise":
        raise TaskError("bad-batch", "the cause", "the hint")
    elif behaviour == "die":
        raise ZeroDivisionError("an unplanned defect")
    elif behaviour == "exit":
        sys.exit(3)
    elif behaviour == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif behaviour == "full-disk":
        raise OSError(errno.ENOSPC, "No space left on device", request["place"])
    elif behaviour == "chatter":
        print("chatter\n" * 100_000)
        raise ZeroDivisionError("the last words")
    elif behaviour == "linger":
        atexit.register(time.sleep, 600)
    elif behaviour == "touch":
        time.sleep(request["seconds"])
        with open(request["path"], "w") as handle:  # noqa: PTH123
            handle.write("done")
    return {"answer": request.get("value"), "pid": os.getpid()}


if __name__ == "__main__":
    child_main(behave)

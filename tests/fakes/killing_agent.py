"""An agent whose power is cut before its n-th durable step: ``killing_agent CONFIG N``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from agent.run import run_agent
from edge_sdk.durable import DiskStorage


class KillingStorage(DiskStorage):
    """Counts durable steps and kills its own process before the chosen one."""

    def __init__(self, kill_at: int) -> None:
        self._left = kill_at

    def step(self, name: str, path: Path) -> None:
        self._left -= 1
        print(f"durable step {name} {path.name[:20]}", flush=True)
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    storage = KillingStorage(int(sys.argv[2]))
    raise SystemExit(run_agent(Path(sys.argv[1]), verbose=False, announce=print, storage=storage))

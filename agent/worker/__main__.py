"""``python -m agent.worker``, started by :class:`agent.worker.handle.WorkerHandle`."""

import logging
import os
import sys

from agent.worker.main import main

if __name__ == "__main__":
    code = main(sys.argv[1:])
    logging.shutdown()
    sys.stderr.flush()
    # Unloading native libraries while a reader thread is inside one may crash or hang, and would
    # turn a clean end into a failure.
    os._exit(code)

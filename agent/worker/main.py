"""The worker process: one model, one stream, no network.

Everything native runs here, so that a crash or a hang of a runtime or a decoder never takes the
supervisor, and with it the way to repair, along.
"""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from agent.worker.channel import EXIT_ORPHANED, Channel
from agent.worker.options import serve_options
from agent.worker.points import Points, read_manifest
from agent.worker.protocol import Event, Failed, GoldenProgress, WorkerSpec
from edge_sdk.errors import ContractError, EdgeError, RuntimeUnavailableError

SPEC_TIMEOUT_S = 30.0
_PR_SET_PDEATHSIG = 1

log = logging.getLogger(__name__)


def main(arguments: list[str]) -> int:
    """Run a worker.

    Args:
        arguments: the inherited socket's descriptor and the supervisor's process id.

    Returns:
        The exit code: 0, or that of the error's family.
    """
    faulthandler.enable()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    if len(arguments) != 2 or not all(argument.isdecimal() for argument in arguments):
        sys.stderr.write("The agent's supervisor starts this process; run `edge-agent run`.\n")
        return 2
    if not die_with_parent(int(arguments[1])):
        return EXIT_ORPHANED
    channel = Channel(socket.socket(fileno=int(arguments[0])))
    channel.start()
    code = _work(channel)
    channel.drain()
    return code


def die_with_parent(parent: int) -> bool:
    """Ask Linux to kill this process when its supervisor ends; False when that is too late.

    The end of the socket says the same, but only to a process that can still run Python.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            log.warning("prctl(PR_SET_PDEATHSIG) failed: %s", os.strerror(ctypes.get_errno()))
    return os.getppid() == parent


def _work(channel: Channel) -> int:
    try:
        channel.send(_run(channel))
    except EdgeError as error:
        log.error("%s", error)
        channel.send(Failed(code=error.code, cause=error.cause, hint=error.hint))
        return error.exit_code
    except Exception as error:  # the process's boundary; the supervisor decides what follows
        log.exception("The worker failed")
        failure = RuntimeUnavailableError(
            "worker-failed",
            f"The worker failed: {type(error).__name__}: {error}.",
            "See the worker's output in the agent's log.",
        )
        channel.send(Failed(code=failure.code, cause=failure.cause, hint=failure.hint))
        return failure.exit_code
    return 0


def _run(channel: Channel) -> Event:
    spec = channel.command(SPEC_TIMEOUT_S)
    if not isinstance(spec, WorkerSpec):
        raise ContractError(
            "worker-frame",
            f"The first message to a worker was {type(spec).__name__}, not its specification.",
            "Restart the agent; if it happens again, reinstall edge-sdk.",
        )
    manifest = read_manifest(Path(spec.manifest))
    points = Points(
        manifest, Path(spec.blobs), spec.profile, threads=spec.threads, runtimes=spec.runtimes
    )
    # Each kind of work is imported where it begins: a worker that listens for years should not hold
    # the memory of cameras and archives.
    if spec.mode == "golden":
        from agent.worker.golden import golden_test

        def progress(done: int, total: int) -> None:
            channel.send(GoldenProgress(done=done, total=total))

        return golden_test(points, progress)
    from agent.worker.sound_setup import check_match

    options = serve_options(spec)
    check_match(manifest, options.pipeline)
    if manifest.task.sound is not None:
        from agent.worker.serve_sound import SoundLoop

        return SoundLoop(points, manifest.task.sound, channel, options).run()
    from agent.pipelines.pixels import pick_pixels
    from agent.worker.serve import FrameLoop

    return FrameLoop(points, channel, options, pick_pixels()).run()

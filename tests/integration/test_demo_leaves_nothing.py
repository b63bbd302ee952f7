"""Ctrl-C, or worse, at any moment of the demo leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.fakes.house import wait_until

HOLDER = """
import sys, time
from pathlib import Path
from edge_sdk.demo.fleet import answers, free_port
from edge_sdk.demo.processes import Processes
with Processes(Path(sys.argv[1])) as processes:
    port = free_port()
    processes.start("broker", "edge_sdk.cli.main", ["broker", "run", "--port", str(port)])
    while not answers(port):
        processes.check()
        time.sleep(0.05)
    print("ready", processes.pid("broker"), flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_children_end_with_their_holder(tmp_path: Path, number: int) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline().split()[1])
        assert psutil.pid_exists(child)
        holder.send_signal(number)
        holder.wait(30)
        wait_until(lambda: not psutil.pid_exists(child), 20.0, "the broker to end")


@pytest.mark.slow
def test_the_demo_interrupted_while_training(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "edge_sdk.cli.main", "demo", "-o", str(tmp_path / "demo")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with demo:
        wait_until(lambda: bool(psutil.Process(demo.pid).children()), 60.0, "training to begin")
        time.sleep(1.0)
        family = psutil.Process(demo.pid).children(recursive=True)
        os.kill(demo.pid, signal.SIGINT)
        assert demo.wait(30) == 130
        assert demo.stderr is not None
        assert "Traceback" not in demo.stderr.read()
        wait_until(lambda: not any(p.is_running() for p in family), 20.0, "its children to end")


def test_a_folder_that_is_not_a_demos_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    done = subprocess.run(
        [sys.executable, "-m", "edge_sdk.cli.main", "demo", "-o", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "usage.not-a-demo-folder" in done.stderr
    assert (tmp_path / "mine.txt").read_text() == "precious"

"""User code that exits, hangs or prints: an error that names its line, and a clean output."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from converters.loading import load_task
from converters.usercode import user_code
from edge_sdk.errors import TaskError
from tests.unit.converters.conftest import WriteTask

EDGE = "from edge_sdk.cli.main import main; main()"


@pytest.mark.parametrize("leave", ["sys.exit(0)", "raise SystemExit", "raise BaseException('odd')"])
def test_a_task_that_leaves_is_an_error(tmp_path: Path, leave: str) -> None:
    path = tmp_path / "leaves.py"
    path.write_text(f"import sys\n{leave}\n")
    with pytest.raises(TaskError) as caught:
        load_task(f"{path}:Task")
    assert caught.value.code == "task.user-code-failed"
    assert f"{path}:2" in caught.value.cause


def test_a_hanging_step_is_interrupted_at_its_line(tmp_path: Path) -> None:
    path = tmp_path / "hangs.py"
    path.write_text("import time\ntry:\n    time.sleep(60)\nexcept Exception:\n    pass\n")
    started = time.monotonic()
    with pytest.raises(TaskError) as caught, user_code(path, "Importing hangs.py", limit_s=0.2):
        exec(compile(path.read_text(), str(path), "exec"), {})
    assert caught.value.code == "task.too-slow"
    assert f"{path}:3" in caught.value.cause
    assert time.monotonic() - started < 30


def test_a_limit_ends_with_its_block(tmp_path: Path) -> None:
    with user_code(tmp_path / "task.py", "work", limit_s=0.3):
        pass
    time.sleep(0.5)  # an alarm left behind would raise here


def test_other_threads_run_without_a_limit(tmp_path: Path) -> None:
    done: list[str] = []

    def work() -> None:
        with user_code(tmp_path / "task.py", "work", limit_s=0.01):
            time.sleep(0.05)
            done.append("well")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert done == ["well"]


def test_ctrl_c_stays_ctrl_c(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), user_code(tmp_path / "task.py", "work"):
        raise KeyboardInterrupt


def test_what_a_task_prints_does_not_spoil_the_document(
    write_task: WriteTask, tmp_path: Path
) -> None:
    task = write_task("def build(self):\n    import sys\n    sys.exit(7)")
    path = Path(task.rpartition(":")[0])
    noisy = "import os\nprint('hello')\nos.write(1, b'from a native library\\n')\n"
    path.write_text(noisy + path.read_text())
    done = subprocess.run(
        [sys.executable, "-c", EDGE, "model", "convert", task, "--json", "-o", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    error = json.loads(done.stdout)["error"]
    assert done.returncode == 4
    assert error["code"] == "task.user-code-failed"
    assert "SystemExit" in error["cause"]
    assert "hello" in done.stderr
    assert "from a native library" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()

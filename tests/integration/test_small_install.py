"""The device's install in an empty environment: small, complete, free of the host's packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.source_walk import ROOT

pytestmark = [pytest.mark.install, pytest.mark.slow]

MIB = 1024 * 1024
MAX_DISK_MIB = 250.0
MAX_SUPERVISOR_RSS_MIB = 45.0
HOST_ONLY = {"alembic", "click", "jax", "matplotlib", "onnx", "onnxruntime", "rich", "sqlalchemy"}
HOST_ONLY |= {"starlette", "torch", "transformers", "litert-torch", "scikit-learn", "scipy"}

CONFIG = """
device_id = "empty-1"
profile = "x86-generic"
state_dir = "state"
runtime_dir = "run"

[broker]
host = "127.0.0.1"
port = 1

[pipeline.source]
kind = "frames"
path = "frames.npz"
"""

RSS_OF_SUPERVISOR = """
import re
from pathlib import Path
import agent.run, agent.supervisor
status = Path("/proc/self/status").read_text()
print(int(re.search(r"VmRSS:\\s+(\\d+) kB", status)[1]) / 1024)
"""


class Environment:
    """An empty virtual environment with the agent in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site = next((folder / "lib").glob("python3*")) / "site-packages"

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.folder / "bin" / program), *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=self.folder,
            env={"PATH": os.defpath, "HOME": str(self.folder), "LANG": "C.UTF-8"},
        )


def run_pip(python: str | Path, *arguments: str) -> None:
    """pip with this machine's ordinary configuration."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(python), "-m", "pip", "--disable-pip-version-check", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The repository's wheel with ``[agent,litert]``, and nothing else."""
    folder = tmp_path_factory.mktemp("small")
    run_pip(sys.executable, "wheel", "-q", "--no-deps", "-w", str(folder / "wheel"), str(ROOT))
    (wheel,) = (folder / "wheel").glob("edge_sdk-*.whl")
    subprocess.run(
        [sys.executable, "-m", "venv", str(folder / "venv")],
        check=True,
        timeout=120,
        env={"PATH": os.defpath},
    )
    run_pip(
        folder / "venv" / "bin" / "python",
        "install",
        "-q",
        "-c",
        str(ROOT / "constraints.txt"),
        f"edge-sdk[agent,litert] @ {wheel.as_uri()}",
    )
    return Environment(folder / "venv")


def packages(environment: Environment) -> set[str]:
    return {
        folder.name.partition("-")[0].lower().replace("_", "-")
        for folder in environment.site.glob("*.dist-info")
    }


def test_nothing_of_the_host_comes_along(installed: Environment) -> None:
    names = packages(installed)
    assert {"edge-sdk", "ai-edge-litert", "msgspec", "paho-mqtt"} <= names
    assert names & HOST_ONLY == set()


def test_it_carries_its_data_and_no_tests(installed: Environment) -> None:
    site = installed.site
    assert (site / "agent" / "systemd" / "edge-agent.service").is_file()
    assert list((site / "device_profiles").rglob("rpi4.toml"))
    assert (site / "agent" / "py.typed").is_file()
    assert not (site / "tests").exists()


def test_the_agent_imports_and_says_its_version(installed: Environment) -> None:
    done = installed.run("edge-agent", "--version")
    assert done.returncode == 0, done.stderr
    listed = installed.run("python", "-m", "pip", "show", "edge-sdk").stdout
    assert f"Version: {done.stdout.strip()}" in listed


def test_the_worker_imports(installed: Environment) -> None:
    done = installed.run("python", "-W", "error", "-c", "import agent.worker.main")
    assert done.returncode == 0, done.stderr


def test_the_doctor_finds_the_runtime_and_names_what_is_missing(installed: Environment) -> None:
    config = installed.folder / "agent.toml"
    config.write_text(CONFIG)
    done = installed.run("edge-agent", "doctor", "--config", str(config), "--json")
    assert done.stderr == ""
    document = json.loads(done.stdout)
    checks = {check["name"]: check for check in document["result"]}
    assert checks["configuration"]["ok"], checks["configuration"]
    assert checks["profile"]["ok"], checks["profile"]
    assert checks["runtimes"]["ok"], checks["runtimes"]
    assert "litert" in checks["runtimes"]["detail"]
    for absent in ("trust", "source", "broker"):
        assert not checks[absent]["ok"]
        assert checks[absent]["hint"]
    assert done.returncode == 1


def test_workers_of_an_installation_can_be_compiled_without_docstrings(
    installed: Environment,
) -> None:
    done = installed.run("edge-agent", "compile", "--json")
    assert done.returncode == 0, done.stderr
    lean = installed.run("python", "-c", "from agent.worker.lean import *; print(python_flags())")
    assert lean.stdout.strip() == "['-OO']"


def test_the_host_command_says_what_to_install(installed: Environment) -> None:
    done = installed.run("edge", "--help")
    assert done.returncode == 2
    assert "error[usage.extra-missing]" in done.stderr
    assert "Traceback" not in done.stderr


def test_disk_and_memory_stay_small(
    installed: Environment, record_property: pytest.RecordProperty
) -> None:
    sizes = {
        entry.name: sum(f.stat().st_size for f in files(entry)) / MIB
        for entry in installed.site.iterdir()
        if not entry.name.startswith(("pip", "setuptools"))
    }
    disk_mib = sum(sizes.values())
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:4]
    done = installed.run("python", "-c", RSS_OF_SUPERVISOR)
    assert done.returncode == 0, done.stderr
    rss_mib = float(done.stdout)
    record_property("install_disk_mib", round(disk_mib, 1))
    record_property("supervisor_import_rss_mib", round(rss_mib, 1))
    print(f"edge-sdk[agent,litert]: {disk_mib:.1f} MiB on disk without pip, largest:")
    print(", ".join(f"{name} {size:.1f}" for name, size in largest))
    print(f"supervisor modules imported: {rss_mib:.1f} MiB resident")
    assert disk_mib <= MAX_DISK_MIB
    assert rss_mib <= MAX_SUPERVISOR_RSS_MIB


def files(entry: Path) -> list[Path]:
    """Regular files at or below ``entry``, without compiled Python."""
    below = [entry] if entry.is_file() else entry.rglob("*")
    return [f for f in below if f.is_file() and not f.is_symlink() and f.suffix != ".pyc"]

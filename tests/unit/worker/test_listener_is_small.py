"""What a worker that listens does not hold in memory: see the bar of benchmarks/audio_cost.py."""

from __future__ import annotations

import subprocess
import sys

LISTENS = """
import sys
import agent.worker.main
import agent.worker.sound_setup
import agent.worker.serve_sound
from edge_sdk.runtime.litert import interpreter_module
from edge_sdk.runtime.packages import InstalledPackages
assert InstalledPackages().version("numpy")
interpreter_module(InstalledPackages(), "ai_edge_litert.interpreter")
with open("/proc/self/maps") as maps:
    files = {line.split("/")[-1].strip() for line in maps if "/" in line}
print(*sys.modules, *files)
"""
DOES_WITHOUT = {
    "_hashlib",
    "agent.config",
    "agent.pipelines.vision",
    "agent.sound.portaudio",
    "agent.sound.wake_service",
    "difflib",
    "edge_sdk.recipes.build",
    "edge_sdk.runtime.ort",
    "email",
    "importlib.metadata",
    "libLiteRt.so",
    "shutil",
    "subprocess",
    "tempfile",
    "zipfile",
}


def test_a_listener_holds_nothing_that_it_does_not_use() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", LISTENS], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert {"agent.sound.files", "ai_edge_litert.interpreter"} <= loaded
    assert loaded & DOES_WITHOUT == set()

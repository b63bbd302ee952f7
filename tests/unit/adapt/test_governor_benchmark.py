"""The benchmark runs and reports; its bars are checked where it is run, not here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "governor.py"


def test_the_governor_benchmark_reports_its_figures(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--quick", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert set(document["bars"]) <= set(document["figures"])
    assert document["figures"]["decision_us"] > 0
    assert document["figures"]["switches"] > 0

"""How small updates of models are as deltas, against bsdiff4, xdelta3 and ``zstd --patch-from``.

Pairs of files as :mod:`benchmarks.delta_pairs` trains and converts them. For each: bytes of the new
file, of the general tools' differences and of ours, and what making the file from it takes: the
time, and the memory beyond that of a Python process with numpy, the mapped base included. Bars:
never more than 2 % larger than the best of the general tools; at most half as large in the median.
The general tools' part takes far longest, and is remembered in the folder. Run::

    python benchmarks/delta.py --quick --folder out/pairs
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from edge_sdk.delta.find import DeltaBase  # noqa: E402
from edge_sdk.delta.rivals import rival_sizes  # noqa: E402

MOST_LARGER = 1.02
MEDIAN_TIMES = 2.0
REPEATS = 3
DECODER = """
import mmap, re, sys, time
from edge_sdk.delta.apply import apply_delta
delta = open(sys.argv[1], "rb").read()
with open(sys.argv[2], "rb") as handle:
    base = memoryview(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))
def status_kib(name):
    return int(re.search(name + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1])
before = status_kib("VmRSS")
with open(sys.argv[3], "wb") as out:
    began = time.process_time()
    for piece in apply_delta(delta, base, int(sys.argv[4])):
        if piece is not None:
            out.seek(piece[0])
            out.write(piece[1])
    spent = time.process_time() - began
print(spent, (status_kib("VmHWM") - before) / 1024)
"""


@dataclass(frozen=True)
class Row:
    """What was measured on one pair."""

    name: str
    full_bytes: int
    rivals: dict[str, int]
    delta_bytes: int
    decode_s: float
    """CPU time, median of three processes."""
    decode_mib: float

    @property
    def times(self) -> float:
        """How often ours fits into the best general tool's."""
        return min(self.rivals.values()) / self.delta_bytes


def main() -> int:
    """Print the rows and the bars; 1 where ``--check`` finds one missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small network, minutes less")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a bar is missed")
    parser.add_argument("--folder", type=Path, help="keep pairs and the tools' figures here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(given.folder or Path(scratch), quick=given.quick, quiet=given.json)
    worst = min(rows, key=lambda row: row.times)
    median = statistics.median(row.times for row in rows)
    held = worst.times >= 1 / MOST_LARGER and median >= MEDIAN_TIMES
    if given.json:
        report = {"rows": [asdict(row) | {"times": row.times} for row in rows]}
        print(json.dumps(report | {"median_times": median, "worst_times": worst.times}))
    else:
        print(f"worst: {worst.name}, {worst.times:.2f} times smaller (bar {1 / MOST_LARGER:.2f})")
        verdict = "held" if held else "missed"
        print(f"median {median:.2f} times smaller than the best general tool (bar 2.00): {verdict}")
    return 1 if given.check and not held else 0


def measure(folder: Path, *, quick: bool, quiet: bool) -> list[Row]:
    """One row for each pair, printed as it is done."""
    warnings.simplefilter("ignore")
    from benchmarks.delta_pairs import FULL, QUICK, Pair, write_pairs

    pairs: list[Pair] = write_pairs(folder, QUICK if quick else FULL)
    rows = []
    for pair in pairs:
        rows.append(_row(pair.name, pair.old, pair.new, folder))
        if not quiet:
            print(_line(rows[-1]), flush=True)
    return rows


def _row(name: str, old: Path, new: Path, folder: Path) -> Row:
    base, target = old.read_bytes(), new.read_bytes()
    delta = DeltaBase(base).delta(target)
    if delta is None:
        raise RuntimeError(f"{name}: no delta")
    path, made = folder / "delta", folder / "made"
    path.write_bytes(delta)
    command = [sys.executable, "-c", DECODER, *map(str, (path, old, made, len(target)))]
    runs = []
    for _ in range(REPEATS):
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        runs.append(tuple(map(float, done.stdout.split())))
    if made.read_bytes() != target:
        raise RuntimeError(f"{name}: made something else")
    return Row(
        name=name,
        full_bytes=len(target),
        rivals=_rivals(base, target, folder / "rivals.json"),
        delta_bytes=len(delta),
        decode_s=statistics.median(spent for spent, _ in runs),
        decode_mib=max(mib for _, mib in runs),
    )


def _rivals(base: bytes, target: bytes, cache: Path) -> dict[str, int]:
    """Measured once per pair: bsdiff4 takes its time."""
    known = json.loads(cache.read_text()) if cache.exists() else {}
    key = hashlib.sha256(base + target).hexdigest()[:16]
    if key not in known:
        known[key] = rival_sizes(base, target)
        if missing := {"bsdiff4", "xdelta3", "zstd"} - set(known[key]):
            raise SystemExit(
                f"Install {', '.join(sorted(missing))}: the bars are against all three."
            )
        cache.write_text(json.dumps(known))
    found: dict[str, int] = known[key]
    return found


def _line(row: Row) -> str:
    rivals = "  ".join(f"{tool} {size}" for tool, size in row.rivals.items())
    return (
        f"{row.name:26s} full {row.full_bytes:8d}  {rivals}  ours {row.delta_bytes:8d}"
        f"  {row.times:6.2f} times smaller  decode {row.decode_s:.2f} s, {row.decode_mib:.0f} MiB"
    )


if __name__ == "__main__":
    sys.exit(main())

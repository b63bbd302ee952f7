"""Child processes start only where memory suffices, and always at least one."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from converters.children import Job, run_jobs
from converters.memory import RESERVE_MIB, MemoryBudget, ProcSensor

MIB = st.floats(0, 10_000)


class FixedMemory:
    """A machine with so much memory, whose processes hold nothing yet."""

    def __init__(self, available_mib: float, resident_mib: float = 0.0) -> None:
        self.available, self.resident = available_mib, resident_mib

    def available_mib(self) -> float:
        return self.available

    def resident_mib(self, pid: int) -> float:
        return self.resident


@given(MIB, MIB, st.lists(MIB, max_size=4))
def test_what_starts_fits_with_all_that_runs(
    available: float, resident: float, peaks: list[float]
) -> None:
    names = [f"m{index}" for index in range(len(peaks))]
    budget = MemoryBudget(FixedMemory(available, resident), {"next": 100.0})
    for name, peak in zip(names, peaks, strict=True):
        budget.learn(name, peak)
    running = [(name, 1) for name in names]
    growth = sum(max(0.0, budget.expected_mib(name) - resident) for name in names)
    expected = not names or 100.0 + growth + RESERVE_MIB <= available
    assert budget.may_start("next", running) == expected


@given(st.lists(MIB, min_size=1))
def test_the_largest_peak_is_remembered(peaks: list[float]) -> None:
    budget = MemoryBudget(FixedMemory(0))
    guess = budget.expected_mib("job")
    for peak in peaks:
        budget.learn("job", peak)
    assert budget.expected_mib("job") == (max(peaks) if max(peaks) > 0 else guess)


def _job(folder: Path, number: int) -> Job:
    request = {"behaviour": "touch", "seconds": 0.3, "path": str(folder / str(number))}
    return Job(f"job {number}", "tests.fakes.converter_child", request, folder)


def test_little_memory_means_one_after_the_other(tmp_path: Path) -> None:
    most = {}
    for name, available in (("small", 10.0), ("large", 1e6)):
        budget = MemoryBudget(FixedMemory(available))
        alive = [0, 0]

        def begin(job: str, text: str, alive: list[int] = alive) -> None:
            alive[0] += 1
            alive[1] = max(alive)

        def end(job: str, result: object, alive: list[int] = alive) -> None:
            alive[0] -= 1

        jobs = [_job(tmp_path, number) for number in range(3)]
        run_jobs(jobs, parallel=3, on_step=begin, on_done=end, memory=budget)
        most[name] = alive[1]
        assert budget.seen_mib["tests.fakes.converter_child"] > 1
    assert most["small"] == 1
    assert most["large"] > 1


def test_this_machine_is_read(tmp_path: Path) -> None:
    import os

    sensor = ProcSensor()
    assert 0 < sensor.available_mib() < 10_000_000
    assert 1 < sensor.resident_mib(os.getpid()) < 100_000
    assert sensor.resident_mib(2**30) == 0


def test_a_control_group_is_a_limit(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 4194304 kB\n")
    assert ProcSensor(tmp_path).available_mib() == 4096
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("1048576\n")
    assert ProcSensor(tmp_path).available_mib() == 4096
    (group / "memory.max").write_text(f"{512 * 1024**2}\n")
    assert ProcSensor(tmp_path).available_mib() == 511

"""Parsers of kernel text: known files read right, and no bytes at all make one raise."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.sense import parse

PSI = b"some avg10=12.34 avg60=5.00 avg300=1.00 total=123\nfull avg10=0.00 avg60=0.00 total=1\n"
STAT = (
    b"cpu  100 5 45 800 50 0 0 0 30 0\ncpu0 50 5 20 400 25 0 0 0 15 0\n"
    b"cpu1 50 0 25 400 25 0 0 0 15 0\nintr 12345 0 1 2\n"
)
MEMINFO = b"MemTotal:        1024000 kB\nMemFree:  1000 kB\nMemAvailable:     512000 kB\n"


def test_psi_reads_the_some_line() -> None:
    assert parse.psi_some_avg10(PSI) == 12.34
    assert parse.psi_some_avg10(b"full avg10=3.00 avg60=0.00 avg300=0.00 total=1\n") is None
    assert parse.psi_some_avg10(b"some avg10=170.00 avg60=0.00\n") is None


def test_memory_prefers_the_kernels_own_estimate() -> None:
    info = parse.memory(MEMINFO)
    assert info == parse.MemoryInfo(total_mib=1000.0, available_mib=500.0)
    old = b"MemTotal: 1024000 kB\nMemFree: 102400 kB\nBuffers: 0 kB\nCached: 102400 kB\n"
    assert parse.memory(old) == parse.MemoryInfo(total_mib=1000.0, available_mib=200.0)
    assert parse.memory(b"MemTotal: 10 kB\nMemAvailable: 11 kB\n") is None


def test_cpu_times_count_iowait_as_idle_and_guest_time_once() -> None:
    times = parse.cpu_times(STAT)
    assert times == parse.CpuTimes(busy=150, total=1000, cores=2)
    later = parse.CpuTimes(busy=200, total=1100, cores=2)
    assert parse.busy_percent(times, later) == 50.0
    assert parse.busy_percent(later, times) is None
    assert parse.busy_percent(times, times) is None


def test_the_load_stand_in_is_the_waiting_share_of_the_demand() -> None:
    assert parse.load_stand_in(b"1.50 1.00 0.50 2/345 6789\n", 2) == 0.0
    assert parse.load_stand_in(b"8.00 1.00 0.50 2/345 6789\n", 2) == 75.0
    assert parse.load_stand_in(b"8.00 1.00", 0) is None
    assert parse.load_stand_in(b"nan inf", 2) is None
    assert parse.load_stand_in(b"", 2) is None


@pytest.mark.parametrize(
    ("text", "celsius"),
    [(b"48312\n", 48.312), (b"-5000", -5.0), (b"-274000\n", None), (b"9999999", None), (b"", None)],
)
def test_temperature_within_reason(text: bytes, celsius: float | None) -> None:
    assert parse.millicelsius(text) == celsius


@pytest.mark.parametrize(
    ("text", "slowed"),
    [(b"0\n", False), (b"50000\n", False), (b"0x50005", True), (b"8", True), (b"zzz", False)],
)
def test_the_firmwares_present_bits_count_and_its_history_does_not(
    text: bytes, slowed: bool
) -> None:
    assert parse.firmware_slowed(text) is slowed


def test_a_word_is_lower_case_and_short() -> None:
    assert parse.word(b"CPU-therm\n\x00") == "cpu-therm"
    assert len(parse.word(b"x" * 500)) == 64


numbers = st.integers(-(10**30), 10**30).map(lambda n: str(n).encode())
pieces = st.one_of(
    st.binary(max_size=40),
    numbers,
    st.sampled_from(
        [b"some avg10=", b"MemTotal:", b"MemAvailable: ", b" kB\n", b"cpu ", b"cpu0 ", b"\n", b" "]
    ),
)
garbage = st.lists(pieces, max_size=30).map(b"".join)


@given(garbage)
@example(PSI[:20])
@example(STAT * 3)
@example(b"cpu  " + b"9" * 400 + b" 1 1 1 1\n")
@example("٣٤".encode())
def test_no_bytes_make_a_parser_raise_or_leave_its_range(text: bytes) -> None:
    psi = parse.psi_some_avg10(text)
    assert psi is None or 0.0 <= psi <= 100.0
    load = parse.load_stand_in(text, 4)
    assert load is None or 0.0 <= load <= 100.0
    total_us = parse.psi_total_us(text)
    assert total_us is None or total_us > 0
    average = parse.load_average(text)
    assert average is None or average >= 0.0
    process = parse.process_times(text)
    assert process is None or isinstance(process.busy, int)
    info = parse.memory(text)
    assert info is None or 0.0 <= info.available_mib <= info.total_mib
    times = parse.cpu_times(text)
    assert times is None or 0 <= times.busy <= times.total
    heat = parse.millicelsius(text)
    assert heat is None or -40.0 <= heat <= 150.0
    charge = parse.percent(text)
    assert charge is None or 0.0 <= charge <= 100.0
    assert parse.integer(text) is None or isinstance(parse.integer(text), int)
    assert isinstance(parse.firmware_slowed(text), bool)
    assert len(parse.word(text)) <= 64


@given(st.floats(0.0, 100.0).map(lambda value: round(value, 2)))
def test_psi_round_trips_as_the_kernel_prints_it(value: float) -> None:
    text = f"some avg10={value:.2f} avg60=0.00 avg300=0.00 total=0\n".encode()
    assert parse.psi_some_avg10(text) == value


counters = st.lists(st.integers(0, 10**9), min_size=8, max_size=10)


@given(counters, counters)
def test_busy_share_of_any_two_readings_is_a_percentage(
    before: list[int], after: list[int]
) -> None:
    def line(values: list[int]) -> bytes:
        return b"cpu  " + b" ".join(b"%d" % value for value in values) + b"\n"

    first, second = parse.cpu_times(line(before)), parse.cpu_times(line(after))
    assert first is not None
    assert second is not None
    busy = parse.busy_percent(first, second)
    assert busy is None or 0.0 <= busy <= 100.0


@given(st.integers(1, 2**63), st.integers(0, 2**63), st.floats(0.0, 1e9), st.floats(-10.0, 1e6))
def test_stalled_time_between_any_two_readings_is_a_percentage(
    total_us: int, more_us: int, at: float, elapsed_s: float
) -> None:
    before = parse.Stall(total_us, at)
    stalled = parse.stalled_percent(before, parse.Stall(total_us + more_us, at + elapsed_s))
    assert stalled is None or 0.0 <= stalled <= 100.0
    assert parse.stalled_percent(parse.Stall(9, at), parse.Stall(8, at + 1.0)) is None

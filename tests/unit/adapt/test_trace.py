"""Traces on disk: bounded, readable after a power cut, and refused in one sentence otherwise."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.adapt.governor import Governor
from agent.adapt.policy import fitted
from agent.adapt.trace import TraceConfig, TraceFile, read_trace
from edge_sdk.errors import ContractError, StorageError
from tests.fakes.traces import CALM, HOT, LADDER, POLICY, write_trace


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    (segment,) = read_trace(write_trace(tmp_path / "trace.jsonl"))
    assert segment.start.device_id == "pi-7" and segment.start.profile == "rpi4"
    assert segment.start.ladder == LADDER and segment.start.policy == fitted(POLICY, None)
    assert [tick.sample for tick in segment.ticks] == [CALM] * 20 + [HOT] * 20 + [CALM] * 40
    assert segment.ticks[0].t == 100.5 and segment.ticks[-1].t == 140.0
    assert {tick.index for tick in segment.ticks} == {0, 1, 2}
    assert "pressure-thermal" in {tick.reason for tick in segment.ticks}


def test_an_agent_that_starts_again_begins_a_segment(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    write_trace(path)
    write_trace(path, [(5, HOT)])
    assert [len(segment.ticks) for segment in read_trace(path)] == [80, 5]


def test_a_segment_without_samples_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    write_trace(path, [])
    write_trace(path, [(3, CALM)])
    write_trace(path, [])
    assert [len(segment.ticks) for segment in read_trace(path)] == [3]


def test_it_never_takes_more_than_its_bound_and_both_files_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    write_trace(path, [(2000, HOT)], max_mib=0.125)
    sizes = [file.stat().st_size for file in tmp_path.iterdir()]
    assert len(sizes) == 2 and sum(sizes) <= 0.125 * 2**20
    (new,), (old,) = read_trace(path), read_trace(tmp_path / "trace.jsonl.1")
    assert new.start.ladder == old.start.ladder == LADDER
    assert old.ticks[-1].t < new.ticks[0].t <= old.ticks[-1].t + 1.0


def test_a_disk_that_refuses_ends_the_trace_and_not_the_agent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        write_trace(tmp_path / "file" / "trace.jsonl", [(100, CALM)])
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "the governor's trace ends"
    ]


def test_lines_are_written_together(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    file = TraceFile(TraceConfig(path=str(path)), "d", "rpi4", lambda: 0.0)
    governor = Governor(POLICY, LADDER)
    file.begin(governor.policy, governor.ladder)
    _, decision = governor.decide(governor.start(0.0), CALM, 1.0)
    file.add(1.0, CALM, decision)
    assert not path.exists()
    file.close()
    assert len(read_trace(path)[0].ticks) == 1


def test_a_power_cut_at_any_byte_of_the_last_lines_loses_no_line_before(tmp_path: Path) -> None:
    whole = write_trace(tmp_path / "whole.jsonl", [(4, HOT)]).read_bytes()
    lines = whole.splitlines(keepends=True)
    for size in range(len(lines[0]) + len(lines[1]), len(whole)):
        cut = tmp_path / "cut.jsonl"
        cut.write_bytes(whole[:size])
        complete = whole[:size].count(b"\n") - 1
        # A line whose newline alone is missing is whole.
        assert len(read_trace(cut)[0].ticks) in (complete, complete + 1)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (b"", "line 1"),
        (b"no json\n", "line 1"),
        (b'{"type":"tick","t":1.0,"sample":{},"index":0,"reason":""}\n', "line 1"),
        (b"\xff\xfe\n", "line 1"),
    ],
)
def test_what_is_no_trace_is_refused_by_line(tmp_path: Path, text: bytes, where: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(text)
    with pytest.raises(ContractError, match=where) as caught:
        read_trace(path)
    assert caught.value.code == "contract.bad-trace"


def test_damage_in_the_middle_is_refused_by_line(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "trace.jsonl", [(4, HOT)])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"\0\0\0\n", *lines[2:]]))
    with pytest.raises(ContractError, match="line 3"):
        read_trace(path)


def test_a_trace_of_a_later_version_and_an_empty_ladder_are_refused(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "trace.jsonl")
    text = path.read_text()
    path.write_text(text.replace('"schema":1', '"schema":2', 1))
    with pytest.raises(ContractError, match="schema 2"):
        read_trace(path)
    start, end = text.index('"ladder":['), text.index("]", text.index('"ladder":['))
    path.write_text(text[:start] + '"ladder":[' + text[end:])
    with pytest.raises(ContractError, match="ladder is empty"):
        read_trace(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"none\.jsonl"):
        read_trace(tmp_path / "none.jsonl")


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"{", b"\n", b'{"type":"start"}\n'])))
def test_no_bytes_get_past_the_reader_as_anything_but_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("trace") / "trace.jsonl"
    path.write_bytes(b"".join(parts))
    with pytest.raises(ContractError):
        read_trace(path)

"""Sizing: what stays on a ladder, and in which order."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.costs import LayerSize
from converters.ladder import Candidate, build_ladder, host_threads, in_order, pareto
from device_profiles.loader import load_profile, profile_ids
from edge_sdk.contracts.operating_point import LatencyBand, OperatingPoint
from edge_sdk.errors import ProfileError
from tests.fakes.measured import both_formats, measured

SIZES = {
    "32x32": [LayerSize("dense", 9_000_000, 100_000, 40_000)],
    "24x24": [LayerSize("dense", 5_000_000, 100_000, 22_000)],
}


def candidate(cost_ms: float, accuracy: float, distance: float, name: str = "") -> Candidate:
    point = OperatingPoint(
        id=name or f"{cost_ms}-{accuracy}-{distance}",
        artifact="0" * 64,
        runtime="litert",
        scheme="fp32",
        channel_width=1.0,
        height_px=32,
        width_px=32,
        threads=1,
        accuracy=accuracy,
        accuracy_drop=0.0,
        agreement=1.0,
        max_output_error=0.0,
        host_latency_ms=99.0,
        predicted=LatencyBand(low_ms=0.0, mid_ms=cost_ms, high_ms=9.0, basis=""),
    )
    return Candidate(point, distance)


def covered(one: Candidate, by: Candidate) -> bool:
    return (
        by.cost_ms <= one.cost_ms
        and by.point.accuracy >= one.point.accuracy
        and by.distance <= one.distance
    )


few = st.integers(0, 4).map(float)
candidates = st.lists(st.builds(candidate, few, few, few), min_size=1, max_size=12)


@given(candidates)
def test_what_is_dropped_is_covered_by_something_kept(items: list[Candidate]) -> None:
    kept = pareto(items)
    assert kept
    for item in items:
        assert any(covered(item, by) for by in kept)


@given(candidates)
def test_nothing_kept_is_covered_by_anything_else_kept(items: list[Candidate]) -> None:
    kept = pareto(items)
    for index, one in enumerate(kept):
        assert not any(covered(one, by) for at, by in enumerate(kept) if at != index)


@given(candidates)
def test_every_step_down_is_no_dearer(items: list[Candidate]) -> None:
    costs = [item.cost_ms for item in in_order(pareto(items))]
    assert costs == sorted(costs, reverse=True)


def test_float_stays_above_int8_when_accuracy_ties() -> None:
    fp32, int8 = candidate(2.0, 0.99, 0.0, "fp32"), candidate(1.0, 0.99, 0.1, "int8")
    assert [item.point.id for item in in_order(pareto([int8, fp32]))] == ["fp32", "int8"]


def test_a_slower_worse_and_farther_point_goes() -> None:
    kept = pareto([candidate(2.0, 0.9, 0.7), candidate(1.0, 0.95, 0.1)])
    assert [item.cost_ms for item in kept] == [1.0]


def test_of_equals_the_first_stays() -> None:
    twins = [candidate(1.0, 0.9, 0.1, "first"), candidate(1.0, 0.9, 0.1, "second")]
    assert [item.point.id for item in pareto(twins)] == ["first"]


@pytest.mark.parametrize("name", profile_ids())
def test_every_shipped_profile_gets_a_ladder_on_one_runtime(name: str) -> None:
    profile = load_profile(name)
    ladder = build_ladder(profile, both_formats(), SIZES)
    assert ladder.runtime == profile.runtimes[0].name
    assert {point.runtime for point in ladder.points} == {ladder.runtime}
    assert {point.scheme for point in ladder.points} <= set(profile.runtimes[0].schemes)
    assert len({point.id for point in ladder.points}) == len(ladder.points) >= 2
    assert {(p.height_px, p.width_px) for p in ladder.points} == {(32, 32), (24, 24)}
    assert all(point.predicted is None for point in ladder.points) == (not profile.cost)


def test_the_user_may_choose_the_runtime() -> None:
    ladder = build_ladder(load_profile("rpi4"), both_formats(), SIZES, runtime="onnxruntime")
    assert {point.runtime for point in ladder.points} == {"onnxruntime"}


def test_a_runtime_the_board_lacks_is_refused() -> None:
    with pytest.raises(ProfileError, match=r"profile\.runtime-unsupported"):
        build_ladder(load_profile("rpi4"), both_formats(), SIZES, runtime="tensorrt")


def test_the_next_runtime_serves_when_the_first_has_no_artifact() -> None:
    only_onnx = [item for item in both_formats() if item.format == "onnx"]
    assert build_ladder(load_profile("rpi4"), only_onnx, SIZES).runtime == "onnxruntime"


def test_limits_of_the_board_hold() -> None:
    profile = msgspec.structs.replace(load_profile("rpi4"), max_model_mib=0.0001)
    with pytest.raises(ProfileError, match=r"profile\.nothing-fits"):
        build_ladder(profile, both_formats(), SIZES)
    greedy = [replace(item, memory_mib=1e6) for item in both_formats()]
    with pytest.raises(ProfileError, match=r"profile\.nothing-fits"):
        build_ladder(load_profile("rpi4"), greedy, SIZES)


def test_more_threads_than_cores_are_never_timed() -> None:
    assert host_threads(1) == 1
    assert host_threads(10_000) < 10_000


def test_layers_of_a_mixed_file_that_stay_float_are_predicted_as_float() -> None:
    profile = load_profile("rpi4")
    sizes = {"32x32": [*SIZES["32x32"], LayerSize("memory", 0, 0, 1000), *SIZES["24x24"]]}
    mids = []
    for floats in ((False, False), (True, False), (True, True), (True,)):
        item = replace(
            measured("mixed_static_wi8_ai8_fp32", "32x32", "tflite", 0.9, 0.1), floats=floats
        )
        (point,) = build_ladder(profile, [item], sizes).points
        assert point.predicted is not None
        assert point.predicted.low_ms < point.predicted.mid_ms < point.predicted.high_ms
        mids.append(point.predicted.mid_ms)
    assert mids[0] < mids[1] < mids[2] and mids[3] == mids[0], "what does not fit is not believed"
    (exact,) = build_ladder(profile, [measured("fp32", "32x32", "tflite", 0.9, 0.1)], sizes).points
    assert exact.predicted is not None
    assert mids[2] == pytest.approx(exact.predicted.mid_ms)

"""The governor: what it must do in known situations, and what it must never do in any."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from agent.adapt.governor import Decision, Governor, GovernorState
from agent.adapt.ladder import Rung, rungs
from agent.adapt.policy import Band, GovernorPolicy, fitted
from agent.adapt.signals import STALE_S
from agent.sense.sample import PressureSample
from edge_sdk.contracts.base import convert_config
from edge_sdk.contracts.operating_point import LatencyBand, OperatingPoint
from edge_sdk.contracts.profile import Thermal
from edge_sdk.errors import ConfigError

TICK_S = 0.5
LADDER = [Rung(f"p{i}", 0.97 - 0.01 * i, 8.0 / 2**i) for i in range(4)]
POLICY = GovernorPolicy(time_constant_s=1.0, dwell_down_s=2.0, dwell_urgent_s=2.0, dwell_up_s=5.0)
CALM = PressureSample(
    cpu_pressure_percent=1.0,
    memory_pressure_percent=0.0,
    memory_available_mib=600.0,
    memory_total_mib=1000.0,
    temperature_celsius=50.0,
    deadline_miss_share=0.0,
)
BUSY = structs.replace(CALM, cpu_pressure_percent=90.0)


def run(
    governor: Governor,
    samples: Sequence[PressureSample],
    state: GovernorState | None = None,
    start: float = 0.0,
) -> tuple[GovernorState, list[Decision]]:
    state = state or governor.start(start)
    decisions = []
    for tick, sample in enumerate(samples, start=1):
        state, decision = governor.decide(state, sample, start + tick * TICK_S)
        decisions.append(decision)
    return state, decisions


def switches(decisions: Sequence[Decision]) -> list[tuple[float, int]]:
    return [
        (round((tick + 1) * TICK_S, 3), decision.index)
        for tick, decision in enumerate(decisions)
        if decision.changed
    ]


def test_steps_down_once_per_dwell_to_the_bottom_and_stays() -> None:
    _, decisions = run(Governor(POLICY, LADDER), [BUSY] * 40)
    assert switches(decisions) == [(2.5, 1), (4.5, 2), (6.5, 3)]
    assert {d.reason for d in decisions if d.index} == {"pressure-cpu"}
    assert decisions[-1].point == "p3"


def test_frames_that_are_very_late_do_not_wait_for_the_whole_dwell() -> None:
    late = structs.replace(CALM, deadline_miss_share=1.0, latency_share=3.0)
    policy = structs.replace(POLICY, dwell_urgent_s=1.0)
    _, decisions = run(Governor(policy, LADDER), [CALM, *[late] * 20])
    assert switches(decisions) == [(1.5, 2), (2.0, 3)], "to what is expected to be in time, and on"
    unknown = [Rung(f"p{i}", 0.9) for i in range(4)]
    _, decisions = run(Governor(policy, unknown), [CALM, *[late] * 20])
    assert switches(decisions) == [(2.0, 1), (3.0, 2), (4.0, 3)], (
        "one by one where costs are unknown"
    )
    fine = structs.replace(CALM, latency_share=0.2)
    hiccup = run(Governor(policy, LADDER), [fine, late, *[fine] * 20])[1]
    assert switches(hiccup) == []


def test_steps_back_up_once_per_dwell_when_calm() -> None:
    governor = Governor(POLICY, LADDER)
    state, _ = run(governor, [BUSY] * 40)
    _, decisions = run(governor, [CALM] * 60, state, start=20.0)
    assert [index for _, index in switches(decisions)] == [2, 1, 0]
    times = [time for time, _ in switches(decisions)]
    assert times[1] - times[0] == times[2] - times[1] == POLICY.dwell_up_s
    assert decisions[-1].reason == "recovered"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"cpu_pressure_percent": 80.0}, "pressure-cpu"),
        ({"memory_pressure_percent": 30.0}, "pressure-memory"),
        ({"memory_available_mib": 20.0}, "pressure-memory"),
        ({"temperature_celsius": 84.0}, "pressure-thermal"),
        ({"throttled": True}, "pressure-thermal"),
        ({"deadline_miss_share": 0.5}, "deadline"),
        ({"queue_frames": 4.0}, "queue"),
        ({"latency_share": 0.9}, "headroom"),
        ({"cpu_percent": 95.0}, "headroom"),
        ({"battery_percent": 10.0, "on_battery": True}, "energy"),
        ({"power_saving": True}, "energy"),
    ],
)
def test_every_signal_alone_steps_down_and_names_itself(
    change: dict[str, float], reason: str
) -> None:
    _, decisions = run(Governor(POLICY, LADDER), [structs.replace(CALM, **change)] * 8)
    assert decisions[-1].index == 1
    assert decisions[-1].reason == reason


def test_the_deepest_of_several_signals_is_the_reason() -> None:
    both = structs.replace(CALM, cpu_pressure_percent=42.0, deadline_miss_share=0.9)
    _, decisions = run(Governor(POLICY, LADDER), [both] * 8)
    assert decisions[-1].reason == "deadline"


def test_a_file_read_as_fast_as_it_goes_is_not_short_of_headroom() -> None:
    full = structs.replace(CALM, cpu_percent=100.0, paced=False)
    assert switches(run(Governor(POLICY, LADDER), [full] * 40)[1]) == []


def test_the_memory_of_the_point_just_left_costs_no_second_step() -> None:
    governor = Governor(structs.replace(POLICY, time_constant_s=4.0, dwell_up_s=100.0), LADDER)
    late = structs.replace(CALM, deadline_miss_share=1.0, latency_share=1.5)
    fine = structs.replace(CALM, latency_share=0.75)
    state, now = governor.start(0.0), 0.0
    for _ in range(120):
        now += TICK_S
        state, _ = governor.decide(state, late if state.index == 0 else fine, now)
    assert state.index == 1


def test_no_headroom_asked_for_is_none_kept() -> None:
    greedy = structs.replace(POLICY, headroom=0.0)
    full = structs.replace(CALM, cpu_percent=99.0, latency_share=0.95)
    assert switches(run(Governor(greedy, LADDER), [full] * 40)[1]) == []


def test_memory_of_the_worker_counts_where_a_limit_is_set() -> None:
    fat = structs.replace(CALM, worker_rss_mib=300.0)
    assert switches(run(Governor(POLICY, LADDER), [fat] * 40)[1]) == []
    limited = structs.replace(POLICY, worker_rss_mib=_band(200, 150))
    _, decisions = run(Governor(limited, LADDER), [fat] * 8)
    assert (decisions[-1].index, decisions[-1].reason) == (1, "pressure-memory")


@pytest.mark.parametrize(
    ("mode", "sample", "steps"),
    [
        ("off", {"battery_percent": 1.0, "on_battery": True, "power_saving": True}, False),
        ("low-battery", {"battery_percent": 1.0}, False),
        ("low-battery", {"battery_percent": 50.0, "on_battery": True}, False),
        ("low-battery", {"battery_percent": 10.0, "on_battery": True}, True),
        ("on-battery", {"battery_percent": 99.0, "on_battery": True}, True),
        ("on-battery", {}, False),
        ("always", {}, True),
    ],
)
def test_the_energy_saver_goes_to_the_lowest_point_above_the_floor_in_its_mode(
    mode: str, sample: dict[str, float], steps: bool
) -> None:
    saver = structs.replace(POLICY, energy_saver=mode, accuracy_floor=0.945)
    state, _ = run(Governor(saver, LADDER), [structs.replace(CALM, **sample)] * 60)
    assert (state.index, state.reason) == ((2, "energy") if steps else (0, "startup"))


def test_a_better_point_that_would_eat_the_headroom_is_not_gone_to() -> None:
    governor = Governor(POLICY, LADDER)
    start = governor.start(0.0, index=2)
    half = structs.replace(CALM, latency_share=0.45)  # twice that is more than 0.8
    assert switches(run(governor, [half] * 200, start)[1]) == []
    third = structs.replace(CALM, latency_share=0.35)  # twice that is less, four times is the same
    _, decisions = run(governor, [third] * 40, start)
    assert switches(decisions)[0][1] == 1
    busy = structs.replace(CALM, cpu_percent=60.0, own_cpu_percent=30.0)
    assert switches(run(governor, [busy] * 200, start)[1]) == []
    others = structs.replace(CALM, cpu_percent=60.0, own_cpu_percent=5.0)
    assert switches(run(governor, [others] * 60, start)[1])[0][1] == 1


def test_after_long_calm_the_better_point_is_tried_against_expectation() -> None:
    governor = Governor(structs.replace(POLICY, probe_s=30.0), LADDER)
    half = structs.replace(CALM, latency_share=0.45)
    _, decisions = run(governor, [half] * 70, governor.start(0.0, index=2))
    assert switches(decisions) == [(30.5, 1)]


def test_costs_are_the_profiles_predictions_or_all_the_hosts_measurements() -> None:
    def point(number: int, predicted_ms: float | None) -> OperatingPoint:
        band = predicted_ms and LatencyBand(
            low_ms=1.0, mid_ms=predicted_ms, high_ms=99.0, basis="test"
        )
        return OperatingPoint(
            id=f"p{number}", artifact="", runtime="litert", scheme="fp32", channel_width=1.0,
            height_px=8, width_px=8, threads=1, accuracy=0.9, accuracy_drop=0.0, agreement=1.0,
            max_output_error=0.0, host_latency_ms=3.0 - number, predicted=band or None,
        )  # fmt: skip

    assert [rung.cost for rung in rungs([point(0, 20.0), point(1, 9.0)])] == [20.0, 9.0]
    assert [rung.cost for rung in rungs([point(0, 20.0), point(1, None)])] == [3.0, 2.0]
    assert rungs([]) == []


@given(st.lists(st.floats(0.0, 100.0, allow_subnormal=False), min_size=2, max_size=6), st.data())
def test_a_better_point_never_counts_as_cheaper(costs: list[float], data: st.DataObject) -> None:
    governor = Governor(POLICY, [Rung(f"p{n}", 0.9, cost) for n, cost in enumerate(costs)])
    index, other = (data.draw(st.integers(0, len(costs) - 1)) for _ in range(2))
    ratio = governor.cost_ratio(index, other)
    assert ratio > 0.0
    assert ratio >= 1.0 if other < index else ratio <= 1.0


def test_readings_name_value_and_band_of_every_signal_that_can_be_told() -> None:
    state, _ = run(Governor(POLICY, LADDER), [structs.replace(CALM, cpu_percent=30.0)] * 3)
    readings = {reading.name: reading for reading in Governor(POLICY, LADDER).readings(state)}
    assert readings["busy_percent"].value == 30.0
    assert readings["busy_percent"].band == _band(80.0, 70.0)
    assert readings["temperature_celsius"].reason == "pressure-thermal"
    assert "own_cpu_percent" not in readings and "queue_frames" not in readings


def test_a_point_that_is_worse_and_dearer_is_passed_over_both_ways() -> None:
    costs = (4.0, 6.0, 2.0, 2.05, 2.2, 1.0)
    ladder = [Rung(f"p{n}", 0.9 - n / 100, cost) for n, cost in enumerate(costs)]
    governor = Governor(POLICY, ladder)
    assert governor.steps == (0, 2, 3, 5)
    state, decisions = run(governor, [BUSY] * 60)
    assert [index for _, index in switches(decisions)] == [2, 3, 5]
    state, decisions = run(governor, [CALM] * 100, state, start=30.0)
    assert [index for _, index in switches(decisions)] == [3, 2, 0]
    floored = Governor(structs.replace(POLICY, accuracy_floor=0.885), ladder)
    assert (floored.steps, floored.bottom) == ((0,), 0)
    off = run(governor, [CALM] * 30, governor.start(0.0, index=4))[1]
    assert [index for _, index in switches(off)] == [3, 2]


def test_it_never_rises_to_what_would_not_fit_into_memory() -> None:
    ladder = [Rung("large", 0.9, 2.0, memory_mib=500.0), Rung("small", 0.8, 1.0, memory_mib=50.0)]
    governor = Governor(structs.replace(POLICY, probe_s=6.0), ladder)
    short = structs.replace(CALM, memory_available_mib=450.0)
    state, decisions = run(governor, [short] * 100, governor.start(0.0, index=1))
    assert switches(decisions) == [], "not even to try"
    assert run(governor, [CALM] * 100, state, start=50.0)[0].index == 0


def test_a_rung_that_does_not_fit_beside_the_present_one_takes_its_place() -> None:
    ladder = [Rung("large", 0.9, 2.0, memory_mib=300.0), Rung("small", 0.8, 1.0, memory_mib=60.0)]
    governor = Governor(POLICY, ladder)
    for free_mib, alone in ((50.0, True), (70.0, False)):
        short = structs.replace(CALM, memory_available_mib=free_mib)
        _, decisions = run(governor, [short] * 8)
        assert [one.alone for one in decisions if one.changed] == [alone]
    # Large and small together are too much, and large instead of small is not.
    wide = structs.replace(POLICY, memory_used_percent=_band(95.0, 90.0))
    state = governor.start(0.0, index=1)
    for free_mib, alone in ((295.0, True), (400.0, False)):
        free = structs.replace(CALM, memory_available_mib=free_mib)
        _, decisions = run(Governor(wide, ladder), [free] * 40, state)
        assert [(one.index, one.alone) for one in decisions if one.changed] == [(0, alone)]


def test_where_needs_are_unknown_memory_in_its_band_holds_one_point() -> None:
    ladder = [Rung("large", 0.9, 2.0), Rung("small", 0.8, 1.0)]
    short = structs.replace(CALM, memory_available_mib=50.0)
    for sample, alone in ((short, True), (BUSY, False)):
        _, decisions = run(Governor(POLICY, ladder), [sample] * 8)
        assert [one.alone for one in decisions if one.changed] == [alone]


def test_a_worker_that_the_kernel_ended_begins_again_one_rung_lower_and_stays_there() -> None:
    governor = Governor(structs.replace(POLICY, probe_s=60.0), LADDER)
    killed = structs.replace(CALM, worker_killed=True)
    state, decisions = run(governor, [CALM, killed, CALM])
    assert switches(decisions) == [(1.0, 1)]
    assert decisions[1].reason == "pressure-memory"
    state, decisions = run(governor, [CALM] * 200, state, start=1.5)
    assert [tick for tick, _ in switches(decisions)] == [
        60.0 - 0.5
    ]  # of calm since the kill at 1.0
    assert state.index == 0
    assert run(governor, [killed] * 9)[0].index == governor.bottom


def test_a_spike_shorter_than_the_dwell_moves_nothing() -> None:
    _, decisions = run(Governor(POLICY, LADDER), [CALM] * 10 + [BUSY] * 2 + [CALM] * 10)
    assert switches(decisions) == []


def test_inside_the_band_nothing_moves_either_way() -> None:
    between = structs.replace(CALM, cpu_pressure_percent=25.0)
    governor = Governor(POLICY, LADDER)
    assert switches(run(governor, [between] * 100)[1]) == []
    state, _ = run(governor, [BUSY] * 6)
    state, _ = run(governor, [between] * 10, state, start=3.0)
    held = state.index
    assert switches(run(governor, [between] * 100, state, start=8.0)[1]) == []
    assert held > 0


def test_a_critical_temperature_jumps_to_the_bottom_at_once() -> None:
    hot = structs.replace(CALM, temperature_celsius=96.0)
    _, decisions = run(Governor(POLICY, LADDER), [CALM, hot])
    assert switches(decisions) == [(1.0, 3)]
    assert decisions[-1].reason == "pressure-thermal"


def test_a_critical_spike_restarts_the_calm_of_a_device_already_at_the_bottom() -> None:
    slow = Governor(structs.replace(POLICY, time_constant_s=60.0), LADDER)
    spike = structs.replace(CALM, temperature_celsius=96.0)
    _, light = run(slow, [CALM] * 9 + [spike] + [CALM] * 9)
    _, heavy = run(slow, [CALM] * 9 + [spike] + [CALM] * 9, slow.start(0.0, index=3))
    assert [d.index for d in light[9:]] == [d.index for d in heavy[9:]] == [3] * 10


def test_a_pin_holds_against_everything_and_is_clamped() -> None:
    hot = structs.replace(BUSY, temperature_celsius=120.0)
    pinned = Governor(structs.replace(POLICY, pin=1), LADDER)
    _, decisions = run(pinned, [hot] * 20)
    assert {(d.index, d.reason, d.changed) for d in decisions} == {(1, "pinned", False)}
    assert Governor(structs.replace(POLICY, pin=99), LADDER).start(0.0).index == 3


def test_a_pin_set_later_moves_there_and_its_removal_recovers() -> None:
    state, _ = run(Governor(POLICY, LADDER), [CALM])
    pinned = Governor(structs.replace(POLICY, pin=2), LADDER)
    state, decisions = run(pinned, [CALM] * 3, state, start=1.0)
    assert switches(decisions) == [(0.5, 2)]
    state, _ = run(Governor(POLICY, LADDER), [CALM] * 60, state, start=3.0)
    assert state.index == 0


def test_disabled_it_stays_where_it_started() -> None:
    off = Governor(structs.replace(POLICY, enabled=False), LADDER)
    assert switches(run(off, [structs.replace(BUSY, temperature_celsius=120.0)] * 30)[1]) == []


def test_the_accuracy_floor_ends_the_ladder_early() -> None:
    governor = Governor(structs.replace(POLICY, accuracy_floor=0.955), LADDER)
    state, _ = run(governor, [structs.replace(BUSY, temperature_celsius=120.0)] * 40)
    assert governor.bottom == 1
    assert state.index == 1
    assert Governor(structs.replace(POLICY, accuracy_floor=1.0), LADDER).bottom == 0


def test_a_device_that_can_tell_nothing_stays_at_the_top() -> None:
    _, decisions = run(Governor(POLICY, LADDER), [PressureSample()] * 50)
    assert switches(decisions) == []


def test_not_a_number_counts_as_absent() -> None:
    odd = PressureSample(cpu_pressure_percent=math.nan, temperature_celsius=math.nan)
    state, _ = run(Governor(POLICY, LADDER), [odd] * 20)
    assert state.index == 0
    assert [known.value for known in state.filtered if known] == [0.0], "throttled: no"


def test_a_signal_read_in_every_other_sample_still_counts() -> None:
    late = structs.replace(CALM, deadline_miss_share=1.0)
    quiet = structs.replace(CALM, deadline_miss_share=None)
    _, decisions = run(Governor(POLICY, LADDER), [late, quiet] * 6)
    assert [index for _, index in switches(decisions)] == [1, 2]


def test_a_signal_that_stays_away_is_forgotten() -> None:
    governor = Governor(POLICY, LADDER)
    state, _ = run(governor, [structs.replace(CALM, deadline_miss_share=1.0)] * 20)
    assert state.index == 3
    quiet = structs.replace(CALM, deadline_miss_share=None)
    state, _ = run(governor, [quiet] * 80, state, start=10.0)
    assert state.index == 0


def test_a_new_release_starts_on_the_rung_it_is_given() -> None:
    governor = Governor(POLICY, LADDER)
    assert governor.start(0.0, index=2).index == 2
    assert governor.start(0.0, index=9).index == 3


def test_telemetry_position_carries_the_wall_clock() -> None:
    governor = Governor(POLICY, LADDER)
    _, decisions = run(governor, [BUSY] * 6)
    position = decisions[-1].position(1_000_000.0)
    assert (position.index, position.size, position.point) == (1, 4, "p1")
    assert position.reason == "pressure-cpu"
    assert position.since == 1_000_000.0 - 0.5


def test_an_empty_ladder_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Governor(POLICY, [])


# -- policy -------------------------------------------------------------------------------------


def test_a_profile_fills_the_temperatures() -> None:
    board = Thermal(throttle_celsius=80.0, critical_celsius=85.0, source="test board")
    policy = fitted(GovernorPolicy(), board)
    assert policy.temperature_celsius == Band(enter=77.0, leave=69.0)
    assert policy.critical_celsius == 85.0
    own = fitted(GovernorPolicy(temperature_celsius=Band(enter=60.0, leave=50.0)), board)
    assert own.temperature_celsius == Band(enter=60.0, leave=50.0)


def test_a_critical_temperature_inside_the_band_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        fitted(GovernorPolicy(critical_celsius=60.0, temperature_celsius=_band(70, 65)), None)
    assert caught.value.code == "config.governor-temperature"


def _band(enter: float, leave: float) -> Band:
    return Band(enter=enter, leave=leave)


@pytest.mark.parametrize(
    ("section", "code"),
    [
        ({"cpu_pressure_percent": {"enter": 10.0, "leave": 20.0}}, "config.invalid"),
        ({"pin": -1}, "config.invalid"),
        ({"accuracy_floor": 2.0}, "config.invalid"),
        ({"dwell_up": 3.0}, "config.unknown-key"),
        ({"cpu_pressure_percent": {"enter": 10.0, "leafe": 2.0}}, "config.unknown-key"),
    ],
)
def test_a_bad_section_is_refused_with_a_code(section: dict[str, object], code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        convert_config(section, GovernorPolicy, "agent.toml [governor]")
    assert caught.value.code == code


def test_every_field_of_the_policy_is_described() -> None:
    schema = msgspec.json.schema(GovernorPolicy)["$defs"]
    for struct in ("GovernorPolicy", "Band"):
        bare = [n for n, f in schema[struct]["properties"].items() if "description" not in f]
        assert bare == []


def test_every_key_is_on_the_page() -> None:
    page = (Path(__file__).parents[3] / "docs" / "governor.md").read_text()
    names = [field.name for field in structs.fields(GovernorPolicy)]
    assert [name for name in names if f"`{name}`" not in page] == []


# -- properties ---------------------------------------------------------------------------------

level = st.floats(0.0, 100.0, allow_nan=False)
share = st.floats(0.0, 1.0, allow_nan=False)
mixed = st.builds(
    PressureSample,
    cpu_pressure_percent=level,
    memory_pressure_percent=level | st.none(),
    memory_available_mib=st.floats(0.0, 1000.0),
    memory_total_mib=st.just(1000.0),
    temperature_celsius=st.floats(20.0, 110.0),
    throttled=st.booleans(),
    worker_killed=st.sampled_from([False] * 7 + [True]),
    deadline_miss_share=share | st.none(),
    latency_share=st.floats(0.0, 3.0) | st.none(),
    queue_frames=st.floats(0.0, 4.0) | st.none(),
    cpu_percent=level | st.none(),
    own_cpu_percent=level | st.none(),
    worker_rss_mib=st.floats(0.0, 500.0) | st.none(),
    battery_percent=level | st.none(),
    on_battery=st.booleans(),
)
samples = st.one_of(st.just(CALM), st.just(BUSY), mixed)
"""Half of them plain, since a mixture of random levels is hardly ever calm."""
gappy = st.builds(
    PressureSample,
    cpu_pressure_percent=st.none() | level | st.just(math.inf),
    memory_available_mib=st.none() | st.floats(0.0, 1000.0),
    memory_total_mib=st.none() | st.just(1000.0) | st.just(0.0),
    temperature_celsius=st.none() | st.floats(20.0, 110.0),
    latency_share=st.none() | st.just(math.nan) | st.floats(0.0, 9.0),
    cpu_percent=st.none() | level,
    own_cpu_percent=st.none() | level,
)
runs = st.lists(st.tuples(st.sampled_from([1, 3, 8, 20]), samples), max_size=12)
"""Plateaus, since single random ticks would hardly ever fill a dwell."""
policies = st.builds(
    GovernorPolicy,
    time_constant_s=st.sampled_from([0.0, 0.3, 1.0, 4.0]),
    dwell_down_s=st.sampled_from([0.0, 0.5, 1.3, 3.0]),
    dwell_urgent_s=st.sampled_from([0.0, 0.5, 1.0]),
    dwell_jump_s=st.sampled_from([0.0, 0.5, 1.0]),
    dwell_up_s=st.sampled_from([0.0, 1.0, 2.7, 5.0]),
    accuracy_floor=st.sampled_from([0.0, 0.945, 0.955, 1.0]),
    probe_s=st.sampled_from([0.0, 5.0, 20.0]),
    headroom=st.sampled_from([0.0, 0.2, 0.5]),
    energy_saver=st.sampled_from(["off", "low-battery", "on-battery"]),
    worker_rss_mib=st.none() | st.just(Band(enter=300.0, leave=200.0)),
)
ladders = st.lists(
    st.tuples(st.floats(0.0, 20.0), st.sampled_from([0.0, 0.0, 20.0, 300.0])),
    min_size=1,
    max_size=6,
).map(lambda drawn: [Rung(f"p{i}", 0.97 - 0.01 * i, *one) for i, one in enumerate(drawn)])
"""Costs in no order, and some unknown: a ladder is ordered by accuracy."""


def flat(plateaus: Sequence[tuple[int, PressureSample]]) -> list[PressureSample]:
    return [sample for count, sample in plateaus for _ in range(count)]


def sample_never_late(plateaus: Sequence[tuple[int, PressureSample]]) -> bool:
    late = ("deadline_miss_share", "latency_share", "queue_frames")
    return not any(getattr(sample, name) for _, sample in plateaus for name in late)


@given(policies, ladders, runs)
def test_never_switches_faster_than_its_dwell(
    policy: GovernorPolicy, ladder: list[Rung], plateaus: list[tuple[int, PressureSample]]
) -> None:
    governor = Governor(policy, ladder)
    state, last = governor.start(0.0), 0.0
    for tick, sample in enumerate(flat(plateaus), start=1):
        before, now = state.index, tick * TICK_S
        alarmed = governor.is_alarmed(governor.observe(state, sample, now))
        late = alarmed and (sample.latency_share or 0.0) > 1.0 - policy.headroom
        state, decision = governor.decide(state, sample, now)
        if not decision.changed:
            continue
        heat = sample.temperature_celsius
        if state.index > before and heat is not None and heat >= 95.0:
            assert state.index == governor.bottom
        elif not (state.index > before and (late or sample.worker_killed)):
            down = min(policy.dwell_down_s, policy.dwell_urgent_s)
            if sample_never_late(plateaus):
                down = policy.dwell_down_s
            dwell = down if state.index > before else policy.dwell_up_s
            where = [governor.steps.index(index) for index in (state.index, before)]
            assert abs(where[0] - where[1]) == 1
            assert now - last >= dwell
        last = now


@given(
    policies,
    ladders,
    st.lists(st.tuples(st.integers(1, 10), st.one_of(samples, gappy)), max_size=12),
    st.integers(-3, 9),
    st.lists(st.floats(-5.0, 50.0), min_size=120, max_size=120),
)
def test_always_within_the_ladder_whatever_comes_and_however_the_clock_jumps(
    policy: GovernorPolicy,
    ladder: list[Rung],
    plateaus: list[tuple[int, PressureSample]],
    start: int,
    jumps: list[float],
) -> None:
    governor = Governor(policy, ladder)
    state, now = governor.start(0.0, start), 0.0
    for sample, jump in zip(flat(plateaus), jumps, strict=False):
        now += jump
        state, decision = governor.decide(state, sample, now)
        assert 0 <= decision.index <= governor.bottom < len(ladder)
        assert decision.index == state.index
        assert decision.held_s >= 0


@given(policies, ladders, runs, st.data())
def test_more_pressure_never_gives_a_better_point(
    policy: GovernorPolicy,
    ladder: list[Rung],
    plateaus: list[tuple[int, PressureSample]],
    data: st.DataObject,
) -> None:
    governor = Governor(policy, ladder)
    worse = [(n, data.draw(more_than(sample))) for n, sample in plateaus]
    _, light = run(governor, flat(plateaus))
    _, heavy = run(governor, flat(worse))
    for tick, (a, b) in enumerate(zip(light, heavy, strict=True)):
        assert b.index >= a.index, f"tick {tick}"


def more_than(sample: PressureSample) -> st.SearchStrategy[PressureSample]:
    """Samples that press at least as hard in every signal, and lack the same ones."""

    def add(*extra: float) -> PressureSample:
        changes: dict[str, object] = {
            field: before + more
            for field, more in zip(RISING, extra, strict=False)
            if (before := getattr(sample, field)) is not None
        }
        changes["throttled"] = sample.throttled or extra[-1] > 5.0
        changes["worker_killed"] = sample.worker_killed or extra[0] > 10.0
        changes["on_battery"] = sample.on_battery or extra[-1] > 5.0
        return structs.replace(sample, **changes)

    more = st.sampled_from([0.0, 0.0, 1.0, 10.0, 40.0])
    return st.builds(add, *([more] * (len(RISING) + 1)))


RISING = (
    "cpu_pressure_percent",
    "memory_pressure_percent",
    "memory_total_mib",
    "temperature_celsius",
    "deadline_miss_share",
    "latency_share",
    "queue_frames",
    "cpu_percent",
    "own_cpu_percent",
    "worker_rss_mib",
)
"""Pressure grows with each of these (with total memory: less of it is available)."""


@given(policies, ladders, runs)
def test_recovers_to_the_top_when_calm(
    policy: GovernorPolicy, ladder: list[Rung], plateaus: list[tuple[int, PressureSample]]
) -> None:
    governor = Governor(policy, ladder)
    state, _ = run(governor, flat(plateaus))
    # Old signals are forgotten, ten time constants of the filters, one dwell and a tick per rung.
    ticks = math.ceil(
        (STALE_S + 10 * policy.time_constant_s + len(ladder) * (policy.dwell_up_s + 2 * TICK_S))
        / TICK_S
    )
    state, _ = run(governor, [CALM] * ticks, state, start=state.sampled_at)
    assert state.index == 0


@given(policies, ladders, runs)
def test_the_same_history_gives_the_same_decisions(
    policy: GovernorPolicy, ladder: list[Rung], plateaus: list[tuple[int, PressureSample]]
) -> None:
    governor = Governor(policy, ladder)
    assert run(governor, flat(plateaus)) == run(governor, flat(plateaus))

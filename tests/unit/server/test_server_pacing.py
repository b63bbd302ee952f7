"""How fast a rollout goes on: by the hour, within windows, over restarts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.contracts.fleet import RolloutInfo, RolloutRequest, RolloutState
from edge_sdk.delivery.windows import parse_window
from edge_sdk.errors import ConfigError
from edge_sdk.server.issuing import Issuer
from edge_sdk.server.pacing import BURST_S, EVERYBODY, Pacing
from tests.fakes.fleet_db import FleetOnDisk

NOON = time.struct_time((2026, 1, 5, 12, 0, 0, 0, 5, 0))
NIGHT = time.struct_time((2026, 1, 5, 23, 0, 0, 0, 5, 0))
T0 = 1_790_000_000.0


def offered(pacing: Pacing, now: float, wanted: int) -> tuple[Pacing, int]:
    """As many offers as there are takers and room for."""
    offers = min(wanted, pacing.room(now, NOON))
    return replace(pacing, next_at=pacing.spent(offers, now)), offers


@given(
    st.integers(1, 100_000),
    st.lists(st.tuples(st.floats(0, 7200), st.integers(0, 500)), min_size=1, max_size=40),
)
def test_no_span_of_time_offers_more_than_its_share(
    per_hour: int, turns: list[tuple[float, int]]
) -> None:
    pacing, now, made = Pacing(per_hour=per_hour), T0, []
    for pause, wanted in turns:
        now += pause
        pacing, offers = offered(pacing, now, wanted)
        made.append((now, offers))
    for first, (begin, _) in enumerate(made):
        for last in range(first, len(made)):
            total = sum(count for _, count in made[first : last + 1])
            assert total <= (made[last][0] - begin + BURST_S) * per_hour / 3600 + 1 + 1e-6 * total


@given(st.integers(1, 3600))
def test_the_share_of_an_hour_is_used_up(per_hour: int) -> None:
    pacing, total = Pacing(per_hour=per_hour), 0
    for turn in range(720):
        pacing, offers = offered(pacing, T0 + 5.0 * turn, EVERYBODY)
        total += offers
    assert per_hour - 1 <= total <= per_hour + BURST_S * per_hour / 3600 + 1


def test_outside_of_the_windows_there_is_no_room() -> None:
    pacing = Pacing((parse_window("22:00-05:00"),), per_hour=60)
    assert pacing.room(T0, NOON) == 0
    assert "the next opens on Mon at 22:00" in pacing.waits(T0, NOON)
    assert pacing.room(T0, NIGHT) == 2
    assert pacing.waits(T0, NIGHT) == ""
    spent = replace(pacing, next_at=pacing.spent(2, T0))
    assert spent.room(T0, NIGHT) == 0
    assert "60 devices an hour: the next is offered it in 60 s" in spent.waits(T0, NIGHT)
    assert Pacing().room(T0, NOON) == EVERYBODY


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[time.struct_time]]:
    """The clock on the server's wall, to be set."""
    shown = [NOON]
    plain = Issuer.__init__

    def init(self: Issuer, *args: object, **kwargs: object) -> None:
        plain(self, *args, **{**kwargs, "local": lambda _: shown[0]})  # type: ignore[arg-type]

    monkeypatch.setattr(Issuer, "__init__", init)
    yield shown


def statuses(info: RolloutInfo) -> list[str]:
    return [member.status.value for member in info.members]


def test_a_night_rollout_offers_nothing_by_day_and_goes_on_at_its_pace_over_restarts(
    tmp_path: Path, wall: list[time.struct_time]
) -> None:
    here = FleetOnDisk(tmp_path)
    here.publish("1")
    for name in ("a", "b", "c"):
        here.state(name)
    request = RolloutRequest(
        release="digits",
        version="1",
        windows=("22:00-05:00",),
        devices_per_hour=30,
        rate_kib_s=256,
    )
    info = here.fleet.rolling.create(request)
    assert (info.state, statuses(info)) == (RolloutState.FULL, ["waiting"] * 3)
    assert "the next opens on Mon at 22:00, the server's time" in info.waits
    wall[0] = NIGHT
    here.fleet.rolling.tick()
    assert statuses(here.fleet.rolling.rollout("latest")) == ["offered", "waiting", "waiting"]
    wish = here.desired("a")
    assert wish is not None
    assert (wish.windows, wish.max_bytes_per_s) == (("22:00-05:00",), 256 * 1024)

    here.commit("a")
    here.fleet.rolling.tick()
    info = here.fleet.rolling.rollout("latest")
    assert statuses(info) == ["committed", "waiting", "waiting"]
    assert "30 devices an hour" in info.waits
    here.close()
    clock, here = here.clock, FleetOnDisk(tmp_path)
    here.clock = clock + 119.0
    here.fleet.rolling.tick()
    assert statuses(here.fleet.rolling.rollout("latest"))[1] == "waiting"
    here.clock = clock + 121.0
    here.fleet.rolling.pause("latest")
    here.fleet.rolling.tick()
    assert statuses(here.fleet.rolling.rollout("latest"))[1:] == ["waiting", "waiting"]
    here.fleet.rolling.resume("latest")
    assert statuses(here.fleet.rolling.rollout("latest"))[1:] == ["offered", "waiting"]
    here.fleet.rolling.abort("latest")
    here.fleet.rolling.tick()
    here.close()


def test_a_way_back_waits_for_no_window(tmp_path: Path, wall: list[time.struct_time]) -> None:
    here = FleetOnDisk(tmp_path)
    for version in ("1", "2"):
        here.publish(version)
    here.state("a")
    here.fleet.rolling.create(RolloutRequest(release="digits", version="1"))
    here.commit("a")
    wall[0] = NIGHT
    request = RolloutRequest(release="digits", version="2", windows=("22:00-05:00",))
    here.fleet.rolling.create(request)
    wall[0] = NOON
    here.fleet.rolling.rollback("latest")
    wish = here.desired("a")
    assert wish is not None and (wish.version, wish.windows) == ("1", ())
    here.close()


def test_a_window_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    here = FleetOnDisk(tmp_path)
    here.publish("1")
    here.state("a")
    with pytest.raises(ConfigError, match="bad-window"):
        here.fleet.rolling.create(
            RolloutRequest(release="digits", version="1", windows=("at night",))
        )
    assert here.fleet.rolling.rollouts() == []
    here.close()

"""The worker service: handover, restarts, hangs and deaths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.service import ModelService
from agent.update.ports import PlacedRelease
from agent.worker.ports import Patience
from agent.worker.protocol import (
    AllowCascade,
    Failed,
    Finished,
    GoldenDone,
    Results,
    SetPoint,
    Start,
    Stats,
    Stop,
    WorkerSpec,
)
from tests.fakes.workshop import Workshop

TEMPLATE = WorkerSpec(mode="serve", manifest="", blobs="", profile="x86-generic")
ONE = PlacedRelease("digits", "1", "1" * 64, Path("one.json"), Path("blobs"))
TWO = PlacedRelease("digits", "2", "2" * 64, Path("two.json"), Path("blobs"))


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


class Listener:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *arguments: self.told.append((name, *arguments))

    def names(self) -> list[str]:
        return [entry[0] for entry in self.told]


class House:
    def __init__(self) -> None:
        self.clock, self.listener, self.workshop = Clock(), Listener(), Workshop()
        self.service = ModelService(
            TEMPLATE, self.workshop.spawn, self.clock, self.listener, Patience()
        )

    def pass_time(self, seconds: float, steps: int = 1) -> None:
        for _ in range(steps):
            self.clock.time += seconds / steps
            self.service.tick()

    def serve(self, release: PlacedRelease, token: str) -> None:
        self.service.serve(release, token)
        self.workshop.last.load()
        self.service.tick()


@pytest.fixture
def house() -> House:
    return House()


def test_a_release_serves_once_its_model_is_loaded(house: House) -> None:
    house.service.serve(ONE, "t1")
    assert house.service.serving is None
    assert house.workshop.last.spec.hold
    assert house.workshop.last.spec.manifest == "one.json"
    house.workshop.last.load()
    house.service.tick()
    assert house.service.serving == ONE
    assert house.workshop.last.commands == [Start()]
    assert house.listener.names() == ["on_ready"]


def test_the_old_worker_serves_until_the_new_one_is_loaded_and_frees_the_source_first(
    house: House,
) -> None:
    house.serve(ONE, "t1")
    old = house.workshop.last
    house.service.start_trial(TWO, "t2")
    new = house.workshop.last
    house.service.tick()
    assert house.service.serving == ONE
    new.load()
    house.service.tick()
    assert Stop() in old.commands
    assert Start() not in new.commands, "the camera is still held by the old worker"
    old.die("exit code 0")
    house.service.tick()
    house.service.tick()
    assert Start() in new.commands
    assert house.service.serving == TWO
    assert house.service.on_trial


def test_an_old_worker_that_will_not_go_is_killed(house: House) -> None:
    house.serve(ONE, "t1")
    old = house.workshop.last
    house.service.start_trial(TWO, "t2")
    house.workshop.last.load()
    house.service.tick()
    house.pass_time(3.5)
    house.service.tick()
    assert old.closed
    assert house.service.serving == TWO


def test_a_trial_that_dies_while_loading_leaves_the_old_release_serving(house: House) -> None:
    house.serve(ONE, "t1")
    house.service.start_trial(TWO, "t2")
    house.workshop.last.die("killed by SIGSEGV")
    house.service.tick()
    assert house.listener.told[-1] == ("on_worker_crash", "t2", "killed by SIGSEGV")
    assert house.service.serving == ONE
    house.service.serve(ONE, "t3")
    house.service.tick()
    assert len(house.workshop.workers) == 2, "the same worker goes on"


def test_a_dead_trial_is_not_restarted_by_the_service(house: House) -> None:
    house.service.start_trial(TWO, "t2")
    house.workshop.last.load()
    house.service.tick()
    house.workshop.last.die("killed by SIGSEGV")
    house.pass_time(60.0, steps=60)
    assert len(house.workshop.workers) == 1


def test_a_committed_trial_is_restarted(house: House) -> None:
    house.service.start_trial(TWO, "t2")
    house.workshop.last.load()
    house.service.tick()
    house.service.commit(TWO, "t2")
    assert not house.service.on_trial
    house.workshop.last.die("killed by SIGSEGV")
    house.pass_time(1.0, steps=2)
    assert len(house.workshop.workers) == 2
    assert "on_worker_crash" not in house.listener.names()


def test_a_hang_is_a_death(house: House) -> None:
    house.serve(ONE, "t1")
    house.workshop.last.events.append(Stats(frames=1))
    house.pass_time(9.0)
    house.pass_time(9.0)
    assert house.workshop.living
    house.pass_time(2.0)
    assert not house.workshop.living
    house.pass_time(1.0)
    assert len(house.workshop.workers) == 2


def test_a_worker_that_waits_for_its_turn_is_not_hanging(house: House) -> None:
    house.serve(ONE, "t1")
    house.service.start_trial(TWO, "t2")
    house.workshop.last.load()
    # The old worker refuses to die for the kernel's reasons, not ours: nothing here ends it.
    assert house.workshop.last.alive
    house.pass_time(2.0, steps=4)
    assert house.workshop.last.alive


def test_a_crash_loop_spends_the_budget_once_and_backs_off(house: House) -> None:
    house.serve(ONE, "t1")
    for _ in range(600):
        if house.workshop.living:
            house.workshop.last.die("killed by SIGSEGV")
        house.pass_time(0.1)
    assert house.listener.names().count("on_service_unhealthy") == 1
    assert 5 <= len(house.workshop.workers) <= 8


def test_a_failure_is_told_with_its_cause(house: House) -> None:
    house.service.start_trial(TWO, "t2")
    worker = house.workshop.last
    worker.events.append(Failed(code="runtime.none", cause="No runtime.", hint=""))
    worker.die("exit code 8")
    house.service.tick()
    assert house.listener.told[-1] == ("on_worker_crash", "t2", "runtime.none: No runtime.")


def test_the_end_of_a_stream_is_no_crash(house: House) -> None:
    house.serve(ONE, "t1")
    house.workshop.last.events.append(Finished(reason="end-of-stream"))
    house.workshop.last.die("exit code 0")
    house.pass_time(60.0, steps=10)
    assert len(house.workshop.workers) == 1
    assert "on_service_unhealthy" not in house.listener.names()


def test_the_committed_release_comes_back_even_when_its_first_start_after_a_trial_dies(
    house: House,
) -> None:
    house.serve(ONE, "t1")
    house.service.start_trial(TWO, "t2")
    house.workshop.last.load()
    house.service.tick()
    house.pass_time(4.0, steps=2)
    assert house.service.serving == TWO
    house.service.serve(ONE, "t3")
    house.workshop.last.die("killed by SIGKILL")
    house.pass_time(2.0, steps=4)
    assert house.workshop.last.spec.manifest == "one.json"
    assert house.workshop.last.alive
    house.workshop.last.load()
    house.service.tick()
    house.pass_time(4.0, steps=2)
    assert house.service.serving == ONE
    assert not house.service.on_trial


def test_a_trial_that_was_called_off_and_dies_leaves_no_gap(house: House) -> None:
    house.workshop.out_of_memory = True
    house.service.start_trial(TWO, "t2")
    house.workshop.out_of_memory = False
    house.service.start_trial(TWO, "t2")
    house.workshop.last.load()
    house.service.tick()
    house.workshop.out_of_memory = True
    house.service.serve(ONE, "t3")
    house.workshop.last.die("killed by SIGSEGV")
    house.pass_time(1.0, steps=3)
    house.workshop.out_of_memory = False
    house.pass_time(40.0, steps=3)
    assert [worker.spec.manifest for worker in house.workshop.living] == ["one.json"]


def test_a_leaving_workers_last_words_are_heard_under_its_own_release(house: House) -> None:
    house.serve(ONE, "t1")
    old = house.workshop.last
    house.service.start_trial(TWO, "t2")
    house.workshop.last.load()
    house.service.tick()
    old.events += [Stats(frames=3), Results(point=0, decisions=())]
    old.die("exit code 0")
    house.service.tick()
    assert ("on_stats", "t1", Stats(frames=3)) in house.listener.told
    assert ("on_results", ONE, Results(point=0, decisions=())) in house.listener.told


def test_golden_verdicts(house: House) -> None:
    house.serve(ONE, "t1")
    house.service.start_golden(TWO, "g1")
    assert house.workshop.last.spec.mode == "golden"
    house.workshop.last.events.append(GoldenDone(ok=True, max_error=0.0, detail="4 points"))
    house.service.tick()
    assert house.listener.told[-1] == ("on_golden", "g1", True, "4 points")
    house.service.start_golden(TWO, "g2")
    told = len(house.listener.told)
    house.workshop.last.die("killed by SIGKILL")
    house.service.tick()
    assert len(house.listener.told) == told, "the kernel may have killed it for want of memory"
    house.workshop.last.die("killed by SIGSEGV")
    house.service.tick()
    assert house.listener.told[-1][:3] == ("on_golden", "g2", False)
    assert "SIGSEGV" in house.listener.told[-1][3]
    assert house.service.serving == ONE


def test_a_golden_test_that_hangs_fails(house: House) -> None:
    house.service.start_golden(TWO, "g1")
    for _ in range(2):
        house.pass_time(61.0)
        house.service.tick()
    assert house.listener.told[-1][:3] == ("on_golden", "g1", False)


def test_a_cancelled_golden_test_is_silent(house: House) -> None:
    house.service.start_golden(TWO, "g1")
    house.service.cancel_golden("another")
    assert house.workshop.living
    house.service.cancel_golden("g1")
    house.service.tick()
    assert not house.workshop.living
    assert house.listener.told == []


def test_a_machine_without_room_for_a_process_is_reported_not_fatal(house: House) -> None:
    house.workshop.out_of_memory = True
    house.service.start_golden(TWO, "g1")
    house.service.start_trial(TWO, "t1")
    assert house.listener.told == []
    house.service.tick()
    assert house.listener.names() == ["on_golden", "on_worker_crash"]
    house.service.serve(ONE, "t2")
    house.service.tick()
    house.workshop.out_of_memory = False
    house.pass_time(1.0)
    assert len(house.workshop.living) == 1


def test_the_point_follows_into_later_workers(house: House) -> None:
    house.serve(ONE, "t1")
    house.service.set_point(2)
    assert SetPoint(index=2) in house.workshop.last.commands
    house.service.start_trial(TWO, "t2")
    assert house.workshop.last.spec.start_point == 2


def test_a_serving_worker_that_somebody_else_ended_is_told_of(house: House) -> None:
    house.serve(ONE, "t1")
    house.workshop.last.die("killed by SIGKILL")
    house.service.tick()
    assert ("on_killed", "t1") in house.listener.told
    house.pass_time(1.0)
    house.workshop.last.load()
    house.service.tick()
    house.pass_time(Patience().hang_s + 1.0)  # silent: the service itself ends it
    house.workshop.last.load()
    house.service.start_trial(TWO, "t2")
    house.workshop.last.die("killed by SIGKILL")
    house.service.tick()
    assert house.listener.names().count("on_killed") == 1
    assert "on_worker_crash" in house.listener.names()


def test_short_memory_is_told_to_present_and_later_workers(house: House) -> None:
    house.serve(ONE, "t1")
    assert house.workshop.last.spec.cascade
    house.service.allow_cascade(False)
    assert AllowCascade(on=False) in house.workshop.last.commands
    house.service.start_trial(TWO, "t2")
    assert not house.workshop.last.spec.cascade
    house.service.allow_cascade(True)
    assert AllowCascade(on=True) in house.workshop.last.commands


class ServiceMachine(RuleBasedStateMachine):
    """Whatever happens, at most one worker holds the source, and a committed release comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.house = House()
        self.token = 0
        self.committed: PlacedRelease | None = None
        self.on_trial = False

    def next_token(self) -> str:
        self.token += 1
        return f"t{self.token}"

    @rule(release=st.sampled_from([ONE, TWO]))
    def serve(self, release: PlacedRelease) -> None:
        self.house.service.serve(release, self.next_token())
        self.committed, self.on_trial = release, False

    @rule(release=st.sampled_from([ONE, TWO]))
    def trial(self, release: PlacedRelease) -> None:
        self.house.service.start_trial(release, self.next_token())
        self.on_trial = True

    @precondition(lambda self: self.on_trial)
    @rule(release=st.sampled_from([ONE, TWO]))
    def commit(self, release: PlacedRelease) -> None:
        self.house.service.commit(release, f"t{self.token}")
        self.committed, self.on_trial = release, False

    @rule()
    def load(self) -> None:
        for worker in self.house.workshop.living:
            if worker.spec.mode == "serve" and Start() not in worker.commands:
                worker.load()

    @rule(which=st.integers(0, 3))
    def die(self, which: int) -> None:
        living = self.house.workshop.living
        if living:
            living[which % len(living)].die("killed by SIGSEGV")

    @rule(seconds=st.floats(0.05, 20.0))
    def wait(self, seconds: float) -> None:
        self.house.pass_time(seconds)

    @invariant()
    def one_holds_the_source(self) -> None:
        holding = [w for w in self.house.workshop.living if Start() in w.commands]
        assert len(holding) <= 1

    @invariant()
    def processes_are_bounded(self) -> None:
        assert len(self.house.workshop.living) <= 3

    @invariant()
    def the_committed_release_is_never_forgotten(self) -> None:
        if self.committed is None or self.on_trial:
            return
        self.house.service.tick()
        service = self.house.service
        assert service.serving or service.is_starting, "nothing serves and nothing will"

    def teardown(self) -> None:
        if self.committed is None or self.on_trial:
            return
        for _ in range(20):
            self.house.pass_time(2.0)
            for worker in self.house.workshop.living:
                if Stop() in worker.commands:
                    worker.die("exit code 0")
                elif Start() not in worker.commands:
                    worker.load()
                else:
                    worker.events.append(Stats(frames=1))
        assert self.house.service.serving == self.committed
        assert not self.house.service.on_trial


TestServiceMachine = ServiceMachine.TestCase
TestServiceMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)

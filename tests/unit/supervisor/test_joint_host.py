"""Several pipelines under one updater: one golden test, a trial everywhere, one account."""

from __future__ import annotations

from pathlib import Path

from agent.joint import JointHost
from agent.update.ports import PlacedRelease, ServiceStats

RELEASE = PlacedRelease("digits", "1", "ab" * 32, Path("manifest.json"), Path("blobs"))


class Pipeline:
    """Implements :class:`agent.update.ports.Host`; notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def start_golden(self, release: PlacedRelease, token: str) -> None:
        self.asked.append(f"golden {token}")

    def cancel_golden(self, token: str) -> None:
        self.asked.append(f"cancel {token}")

    def start_trial(self, release: PlacedRelease, token: str) -> None:
        self.asked.append(f"trial {token}")

    def commit(self, release: PlacedRelease, token: str) -> None:
        self.asked.append(f"commit {token}")

    def serve(self, release: PlacedRelease | None, token: str) -> None:
        self.asked.append(f"serve {token}")


class Heard:
    """Implements :class:`agent.joint.Updates`."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def on_ready(self, token: str) -> None:
        self.told.append(f"ready {token}")

    def on_stats(self, token: str, stats: ServiceStats) -> None:
        self.told.append(f"stats {token} {stats.frames}")

    def on_golden(self, token: str, ok: bool, detail: str) -> None:
        self.told.append(f"golden {token} {ok}")

    def on_worker_crash(self, token: str, detail: str) -> None:
        self.told.append(f"crash {token}")

    def on_service_unhealthy(self, token: str, detail: str) -> None:
        self.told.append(f"unhealthy {token}")


def joined() -> tuple[JointHost, Pipeline, Pipeline, Heard]:
    host, door, yard, heard = JointHost(), Pipeline(), Pipeline(), Heard()
    host.join({"door": door, "yard": yard}, heard)
    return host, door, yard, heard


def test_the_golden_test_runs_once_and_the_rest_everywhere() -> None:
    host, door, yard, _ = joined()
    host.start_golden(RELEASE, "g1")
    host.cancel_golden("g1")
    host.start_trial(RELEASE, "t1")
    host.commit(RELEASE, "t1")
    host.serve(None, "s1")
    assert door.asked == ["golden g1", "cancel g1", "trial t1", "commit t1", "serve s1"]
    assert yard.asked == ["trial t1", "commit t1", "serve s1"]


def test_a_trial_is_ready_when_the_last_pipeline_is_and_counts_from_then_on() -> None:
    host, _, _, heard = joined()
    host.start_trial(RELEASE, "t1")
    host.on_ready("door", "t1")
    host.on_ready("door", "t1")
    host.on_stats("t1", ServiceStats(frames=5))
    assert heard.told == []
    host.on_ready("yard", "t1")
    host.on_stats("t1", ServiceStats(frames=7))
    assert heard.told == ["ready t1", "stats t1 7"]
    host.on_worker_crash("t1", "died")
    host.start_trial(RELEASE, "t2")
    host.on_ready("yard", "t2")
    assert heard.told[2:] == ["crash t1"]


def test_outside_of_a_trial_everything_is_passed_on() -> None:
    host, _, _, heard = joined()
    host.start_trial(RELEASE, "t1")
    host.serve(RELEASE, "s1")
    host.on_ready("yard", "s1")
    host.on_stats("s1", ServiceStats(frames=3))
    host.on_golden("g1", True, "")
    host.on_service_unhealthy("s1", "again")
    assert heard.told == ["ready s1", "stats s1 3", "golden g1 True", "unhealthy s1"]

"""The whole updater against a broker in memory and a scripted host."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_sdk.contracts.update import Phase
from tests.fakes.updating import (
    OTHER_KEY,
    Rig,
    desired_bytes,
    tiny_release,
)

V1, V2, V3 = tiny_release("1"), tiny_release("2"), tiny_release("3")


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A device that has booted for the first time, with three releases published."""
    rig = Rig(tmp_path)
    for release in (V1, V2, V3):
        rig.publish(release)
    rig.boot()
    return rig


def phases(rig: Rig, deployment: str) -> list[Phase]:
    seen: list[Phase] = []
    for status in rig.reports:
        if status.deployment == deployment and seen[-1:] != [status.phase]:
            seen.append(status.phase)
    return seen


def test_first_install_goes_through_every_phase(rig: Rig) -> None:
    rig.want(desired_bytes(V1, 1))
    status = rig.settle()
    assert status.phase is Phase.COMMITTED, status
    assert phases(rig, "d1") == [
        Phase.OFFERED,
        Phase.PREFLIGHT,
        Phase.DOWNLOADING,
        Phase.VERIFYING,
        Phase.GOLDEN,
        Phase.TRIAL,
        Phase.COMMITTED,
    ]
    assert rig.host.committed
    assert rig.host.serving == rig.updater.active
    assert rig.link.widest <= rig.limits.window
    assert rig.link.subscribed == set()
    size = sum(len(data) for _, data in V1.everything)
    assert rig.received == size


def install(rig: Rig, payload: bytes) -> None:
    rig.want(payload)
    rig.settle()


def test_a_failed_golden_test_is_rejected_and_remembered(rig: Rig) -> None:
    install(rig, desired_bytes(V1, 1))
    rig.publish(V2, golden_ok=False)
    install(rig, desired_bytes(V2, 2))
    assert rig.reports[-1].phase is Phase.REJECTED
    assert rig.reports[-1].code == "gate.golden-failed"
    assert rig.version == "1"
    assert "trial 2" not in rig.host.starts
    install(rig, desired_bytes(V2, 3))
    assert rig.reports[-1].code == "trust.known-bad"


def test_a_bad_trial_rolls_back(rig: Rig) -> None:
    install(rig, desired_bytes(V1, 1))
    rig.publish(V2, accuracy=0.6)
    install(rig, desired_bytes(V2, 2))
    assert rig.reports[-1].phase is Phase.ROLLED_BACK
    assert rig.reports[-1].code in {"gate.accuracy", "gate.accuracy-floor"}
    assert rig.version == "1"
    assert rig.host.serving == rig.updater.active


def test_a_wrong_key_never_gets_anywhere(rig: Rig) -> None:
    rig.updater.on_desired(desired_bytes(V1, 1, key=OTHER_KEY))
    assert rig.reports[-1].code == "trust.bad-signature"
    assert rig.updater.state.phase is Phase.IDLE
    strange = tiny_release("7", key=OTHER_KEY)
    rig.publish(strange)
    install(rig, desired_bytes(strange, 2))
    assert rig.reports[-1].code == "trust.bad-signature"
    assert rig.host.starts == []

"""The supervisor, wired as on a device, when somebody else writes on the desired topic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.config import AgentConfig
from agent.pipelines.config import PipelineConfig, SourceConfig
from agent.run import build
from agent.supervisor import Supervisor
from edge_sdk.bundle.trust import save_trust
from edge_sdk.contracts.update import Phase, UpdateStatus
from edge_sdk.durable import DiskStorage
from tests.fakes.updating import TRUST


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    trust = tmp_path / "trust.json"
    save_trust(TRUST, trust, DiskStorage())
    config = AgentConfig(
        device_id="cam-1",
        state_dir=str(tmp_path / "state"),
        runtime_dir=str(tmp_path / "run"),
        trust=str(trust),
        pipelines=(PipelineConfig(source=SourceConfig(kind="frames", path="none.npz")),),
    )
    (tmp_path / "run").mkdir()
    supervisor = build(config, "rpi4", {}, DiskStorage())
    yield supervisor
    supervisor.run(lambda: True, 0)


def status(deployment: str, phase: Phase, code: str = "") -> UpdateStatus:
    return UpdateStatus(
        device_id="cam-1",
        deployment=deployment,
        release="",
        version="",
        phase=phase,
        at=0.0,
        code=code,
    )


def test_a_message_that_was_not_believed_is_not_shown_as_the_phase(supervisor: Supervisor) -> None:
    committed = status("d1", Phase.COMMITTED)
    supervisor.report(committed)
    supervisor.report(status("", Phase.REJECTED, "trust.bad-signature"))
    shown = supervisor.status()
    assert (shown["phase"], shown["deployment"]) == ("committed", "d1")
    assert shown["update"]["code"] == ""

"""A device under TUF: the rig of :mod:`tests.fakes.updating` with a repository and a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_sdk.bundle.signing import SigningKey, sign
from edge_sdk.bundle.trust import trust_root
from edge_sdk.bundle.tuf_metadata import target_path
from edge_sdk.contracts.base import decode, encode
from edge_sdk.contracts.envelope import TIME_TYPE
from edge_sdk.contracts.trust import TimeAttestation, TimeRequest, TrustRoot, TufHead
from edge_sdk.contracts.update import Phase
from tests.fakes.tuf_repository import Repository
from tests.fakes.updating import FLEET_KEY, TOPICS, Rig, TinyRelease, desired_bytes

_REPOSITORY = Repository(fleet=FLEET_KEY)
ANCHOR = trust_root([], [], root=_REPOSITORY.anchor)


@dataclass
class TufRig(Rig):
    """``repo`` is the publisher and the server."""

    repo: Repository = field(default_factory=lambda: Repository(fleet=FLEET_KEY))
    trust: TrustRoot = ANCHOR
    fleet_key: SigningKey = FLEET_KEY
    real_s: float = 0.0
    """How long ago the rig's clock and the real time agreed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.trust = trust_root([], [], root=self.repo.anchor)
        self.broker.answer_time = self.answer
        self.server_answers = True
        self.questions: list[TimeRequest] = []

    @property
    def now_s(self) -> float:
        """The real time."""
        return self.repo.now_s + self.real_s

    def answer(self, payload: bytes) -> list[tuple[str, bytes]]:
        """The server's answer to a question for the time."""
        request = decode(payload, TimeRequest, "question")
        self.questions.append(request)
        return [self.attestation(request)] if self.server_answers else []

    def attestation(
        self, request: TimeRequest, at: float | None = None, key: SigningKey | None = None
    ) -> tuple[str, bytes]:
        """A signed answer."""
        answer = TimeAttestation(
            device_id=request.device_id,
            nonce=request.nonce,
            at=self.now_s if at is None else at,
        )
        signed = sign(TIME_TYPE, encode(answer), key or self.fleet_key)
        return TOPICS.time(request.device_id), encode(signed)

    def add(self, release: TinyRelease, **behaviour: object) -> None:
        """Publish a release, and metadata that names it."""
        self.publish(release, **behaviour)
        path = target_path(release.manifest.release, release.manifest.version)
        self.repo.add(path, release.envelope, sorted(release.manifest.ladders))
        self.put(self.repo.files)

    def put(self, files: Mapping[str, bytes], head: TufHead | None = None) -> None:
        """Put metadata on the broker in the server's order; a connected device hears of it."""
        retained: list[tuple[str, bytes]] = []
        for name, data in sorted(files.items()):
            version, _, role = name.partition(".")
            if role:
                retained.append((TOPICS.tuf(role, int(version)), data))
        retained.append((TOPICS.tuf_head(), encode(head or self.head(files))))
        retained.append((TOPICS.tuf_timestamp(), files["timestamp"]))
        for topic, data in retained:
            self.retain(topic, data)

    def retain(self, topic: str, data: bytes) -> None:
        """Anybody publishes a retained message."""
        if data:
            self.broker.retained[topic] = data
        else:
            self.broker.retained.pop(topic, None)
        if hasattr(self, "link"):
            self.link.receive(topic, data)

    @staticmethod
    def head(files: Mapping[str, bytes]) -> TufHead:
        """The head that fits the files."""
        newest = max(int(name.partition(".")[0]) for name in files if name.endswith(".root"))
        return TufHead(root=newest, timestamp=1, targets=1)

    def wished(self, release: TinyRelease, counter: int, **more: object) -> bytes:
        """A desired state as the server signs it for this fleet."""
        manifest = release.manifest
        fields: dict[str, object] = {
            "target": target_path(manifest.release, manifest.version),
            "targets_version": self.repo.targets.version,
            "profile": self.device.profile_id,
            "issued_at": self.now_s,
            "key": self.fleet_key,
        }
        return desired_bytes(release, counter, **{**fields, **more})  # type: ignore[arg-type]

    def run_for(self, seconds: float) -> None:
        """Let time pass, turn by turn."""
        for _ in range(round(seconds / 0.5)):
            self.turn(0.5)

    @property
    def codes(self) -> list[str]:
        """Every error code told."""
        return [report.code for report in self.reports if report.code]

    @property
    def versions(self) -> dict[str, int]:
        """What the device trusts."""
        return dict(self.updater.trusted_versions)

    @property
    def phase(self) -> Phase:
        """Where the update stands."""
        return self.updater.state.phase


def rig_with(folder: Path, release: TinyRelease, **behaviour: object) -> TufRig:
    """A device that runs ``release``, and a repository that names it."""
    rig = TufRig(folder)
    rig.add(release, **behaviour)
    rig.boot()
    rig.want(rig.wished(release, 1))
    rig.settle()
    assert rig.version == release.manifest.version
    rig.reports.clear()
    return rig

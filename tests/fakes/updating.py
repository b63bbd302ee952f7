"""A device under update without models: tiny signed releases, a scripted host, a settable clock."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from agent.update.limits import MirrorLimits, UpdateLimits
from agent.update.mirror import Mirror
from agent.update.ports import Fetcher, PlacedRelease, ServiceStats
from agent.update.store import PieceStorage
from agent.update.trust import Device, usable_points
from agent.update.updater import Updater
from edge_sdk.bundle.blobs import BlobStore, blob_ref
from edge_sdk.bundle.shelf import Shelf
from edge_sdk.bundle.signing import SigningKey, generate_key, sign
from edge_sdk.bundle.trust import trust_root
from edge_sdk.contracts.base import decode, encode
from edge_sdk.contracts.conversion import Conversion
from edge_sdk.contracts.envelope import DESIRED_TYPE, MANIFEST_TYPE
from edge_sdk.contracts.manifest import (
    Artifact,
    DeltaRef,
    Derivation,
    Manifest,
    Preprocess,
    TaskInfo,
)
from edge_sdk.contracts.operating_point import OperatingPoint, TensorSpec
from edge_sdk.contracts.topics import Topics
from edge_sdk.contracts.trust import TrustRoot
from edge_sdk.contracts.update import FINAL_PHASES, Desired, Phase, TrialPolicy, UpdateStatus
from edge_sdk.delta.find import DeltaBase
from edge_sdk.durable import DiskStorage
from edge_sdk.recipes.program import Block, encode_recipe
from tests.fakes.link import FakeBroker, FakeLink
from tests.fakes.storage import PowerCut, SwiftStorage

RELEASE_KEY = generate_key()
FLEET_KEY = generate_key()
OTHER_KEY = generate_key()
TRUST = trust_root([RELEASE_KEY.public], [FLEET_KEY.public])
TOPICS = Topics("t1")
DEVICE = Device("cam-1", "rpi4", ("litert",))
QUICK = TrialPolicy(min_frames=20, max_seconds=60.0, max_worker_crashes=1)


@dataclass(frozen=True)
class TinyRelease:
    """A release whose artifacts are random bytes."""

    manifest: Manifest
    envelope: bytes
    blobs: dict[str, bytes]

    @property
    def digest(self) -> str:
        return blob_ref(self.envelope).digest

    @property
    def model(self) -> bytes:
        """The first artifact."""
        return self.blobs[next(iter(self.manifest.artifacts))]

    @property
    def everything(self) -> list[tuple[str, bytes]]:
        return [(self.digest, self.envelope), *self.blobs.items()]


def tiny_release(
    version: str,
    *,
    size: int = 150_000,
    seed: int | None = None,
    accuracy: float = 0.95,
    sequence: int | None = None,
    key: SigningKey = RELEASE_KEY,
    shared: bytes | None = None,
    profiles: tuple[str, ...] = ("rpi4",),
    runtime: str = "litert",
    packed: bool = False,
    base: TinyRelease | None = None,
    delta: bytes | None = None,
    mirror: str = "",
) -> TinyRelease:
    """A signed release with two artifacts for each profile.

    With ``packed`` the second is the first third of the first one, and travels as a recipe. With
    ``base`` the first one is nearly that release's, and travels as a delta, too: the right one
    unless ``delta`` is given.
    """
    source = random.Random(version if seed is None else seed)
    models = [source.randbytes(size), shared if shared is not None else source.randbytes(size // 3)]
    deltas: list[bytes] = []
    if base is not None:
        models[0], right = _changed(base.model, source)
        deltas = [right if delta is None else delta]
    derived: dict[str, Derivation] = {}
    recipe: tuple[bytes, ...] = ()
    if packed:
        models[1] = models[0][: size // 3]
        recipe = (encode_recipe(size, [Block(0, ((0, size // 3),))], b""),)
        whole, made, how = (blob_ref(data).digest for data in (*models, *recipe))
        derived[made] = Derivation(base=whole, recipe=how, size_bytes=size // 3)
    golden = source.randbytes(3000)
    stored = (*models[: 1 if packed else 2], *recipe, *deltas, golden)
    blobs = {blob_ref(data).digest: data for data in stored}
    artifacts = {}
    points = []
    for index, data in enumerate(models):
        digest = blob_ref(data).digest
        artifacts[digest] = _artifact(digest, blob_ref(golden).digest, runtime)
        points.append(_point(f"p{index}", digest, accuracy - index * 0.01, runtime))
    manifest = Manifest(
        release="digits",
        version=version,
        sequence=int(version) if sequence is None else sequence,
        created="2026-01-01T00:00:00+00:00",
        task=TaskInfo(
            name="digits",
            kind="classification",
            labels=("0", "1"),
            preprocess=Preprocess(color="gray", mean=(0.0,), std=(1.0,)),
            reference_accuracy=accuracy,
        ),
        blobs={digest: blob_ref(data) for digest, data in blobs.items()},
        artifacts=artifacts,
        ladders={profile: tuple(points) for profile in profiles},
        derived=derived,
        deltas=tuple(
            DeltaRef(
                target=blob_ref(models[0]).digest,
                base=blob_ref(base.model).digest,
                delta=blob_ref(each).digest,
            )
            for each in deltas
            if base is not None
        ),
        mirror=mirror,
    )
    envelope = encode(sign(MANIFEST_TYPE, encode(manifest), key))
    return TinyRelease(manifest, envelope, blobs)


def _changed(old: bytes, source: random.Random) -> tuple[bytes, bytes]:
    """A file with one changed byte in every 4000, and the delta that makes it."""
    new = bytearray(old)
    for at in range(0, len(new), 4000):
        new[at] ^= source.randrange(1, 256)
    delta = DeltaBase(old).delta(bytes(new))
    assert delta is not None
    return bytes(new), delta


def write_conversion(folder: Path) -> Path:
    """The folder of a finished conversion, with bytes for models."""
    source, artifacts = tiny_release("1", size=70_000), folder / "artifacts"
    artifacts.mkdir(parents=True)
    for digest, data in source.blobs.items():
        (artifacts / f"{digest[:8]}.bin").write_bytes(data)
    document = Conversion(
        created="2026-01-01T00:00:00+00:00",
        task=source.manifest.task,
        artifacts=source.manifest.artifacts,
        ladders=source.manifest.ladders,
        files={digest: f"artifacts/{digest[:8]}.bin" for digest in source.blobs},
        provenance={"torch": "2.13.0"},
    )
    (folder / "conversion.json").write_bytes(encode(document))
    return folder


def _artifact(digest: str, golden: str, runtime: str) -> Artifact:
    image = TensorSpec(
        name="x", dtype="int8", shape=(1, 1, 8, 8), layout="NCHW", scale=1.0, zero_point=-128
    )
    logits = TensorSpec(name="y", dtype="float32", shape=(1, 2), layout="NC")
    return Artifact(
        digest=digest,
        format="tflite",
        runtime=runtime,  # type: ignore[arg-type]
        scheme="static_wi8_ai8",
        height_px=8,
        width_px=8,
        inputs=(image,),
        outputs=(logits,),
        golden=golden,
        tolerance={runtime: 0.1},
    )


def _point(name: str, digest: str, accuracy: float, runtime: str) -> OperatingPoint:
    return OperatingPoint(
        id=name,
        artifact=digest,
        runtime=runtime,  # type: ignore[arg-type]
        scheme="static_wi8_ai8",
        channel_width=1.0,
        height_px=8,
        width_px=8,
        threads=1,
        accuracy=accuracy,
        accuracy_drop=0.0,
        agreement=1.0,
        max_output_error=0.0,
        host_latency_ms=1.0,
    )


def desired_bytes(
    release: TinyRelease,
    counter: int,
    *,
    deployment: str = "",
    device_id: str = DEVICE.device_id,
    trial: TrialPolicy = QUICK,
    key: SigningKey = FLEET_KEY,
    **more: object,
) -> bytes:
    """A signed desired state."""
    desired = Desired(
        device_id=device_id,
        deployment=deployment or f"d{counter}",
        counter=counter,
        release=release.manifest.release,
        version=release.manifest.version,
        manifest=blob_ref(release.envelope),
        trial=trial,
        **more,  # type: ignore[arg-type]
    )
    return encode(sign(DESIRED_TYPE, encode(desired), key))


class FakeClock:
    """Time that moves when told."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return 1_790_000_000.0 + self.time

    def monotonic(self) -> float:
        return self.time


@dataclass
class FakeSensors:
    """A device with room, power and leisure, unless set otherwise."""

    free: int = 1 << 30
    battery: float | None = None
    idle: float | None = 80.0
    memory: float | None = 60.0
    hot: bool = False
    full: bool = False
    """Of others' work."""

    def disk_free_bytes(self) -> int:
        return self.free

    def battery_percent(self) -> float | None:
        return self.battery

    def cpu_headroom_percent(self) -> float | None:
        return self.idle

    def memory_headroom_percent(self) -> float | None:
        return self.memory

    def throttled(self) -> bool:
        return self.hot

    def crowded(self) -> bool:
        return self.full


@dataclass(frozen=True)
class Behaviour:
    """How a release behaves when it runs."""

    golden_ok: bool = True
    accuracy: float | None = 0.95
    """None for a stream without labels."""
    crashes: int = 0
    """So many starts in service end in a crash."""
    crash_loops: bool = False
    fells_agent: bool = False
    """Its golden test takes the whole agent down."""
    error_share: float = 0.0
    latency_ms: float = 5.0


class FakeHost:
    """Runs releases by script. Checks at every start that all files are there and whole."""

    def __init__(self, behaviours: dict[str, Behaviour], seed: int = 1) -> None:
        self.behaviours = behaviours
        self.serving: PlacedRelease | None = None
        self.token = ""
        self.committed = False
        self.golden: tuple[PlacedRelease, str] | None = None
        self.starts: list[str] = []
        self.pending: list[Callable[[Updater], None]] = []
        self.dead = False
        self._random = random.Random(seed)
        self._crashed: dict[str, int] = {}

    def start_golden(self, release: PlacedRelease, token: str) -> None:
        assert self.golden is None, "two golden tests at once"
        self._check(release)
        self.starts.append(f"golden {release.version}")
        self.golden = (release, token)
        if self.behaviours[release.version].fells_agent:
            raise PowerCut(f"golden {release.version}")

    def cancel_golden(self, token: str) -> None:
        if self.golden is not None and self.golden[1] == token:
            self.golden = None

    def start_trial(self, release: PlacedRelease, token: str) -> None:
        self._put(release, token, committed=False)
        self.starts.append(f"trial {release.version}")

    def commit(self, release: PlacedRelease, token: str) -> None:
        assert self.token == token
        assert self.serving == release
        self._check(release)
        self.committed = True

    def serve(self, release: PlacedRelease | None, token: str) -> None:
        if release is None:
            self.serving, self.token, self.committed = None, token, True
            return
        self._put(release, token, committed=True)
        self.starts.append(f"serve {release.version}")

    def _put(self, release: PlacedRelease, token: str, *, committed: bool) -> None:
        self._check(release)
        self.serving, self.token, self.committed, self.dead = release, token, committed, False

    def _check(self, release: PlacedRelease) -> None:
        """Nothing is started unverified: every file of the device's ladder is whole or builds."""
        manifest = decode(release.manifest_path.read_bytes(), Manifest, "manifest")
        shelf = Shelf(BlobStore(release.blobs, DiskStorage()), manifest.derived)
        for point in usable_points(manifest, DEVICE.profile_id, DEVICE.runtimes):
            for digest in (point.artifact, manifest.artifacts[point.artifact].golden):
                assert hashlib.sha256(shelf.read(digest)).hexdigest() == digest

    def run(self, updater: Updater, frames: int = 20) -> None:
        """Let everything that runs do something, and report it."""
        if self.golden is not None:
            release, token = self.golden
            self.golden = None
            ok = self.behaviours[release.version].golden_ok
            updater.on_golden(token, ok, "" if ok else "output 0 differs by 3.1")
        if self.serving is not None and not self.dead:
            self._run_service(updater, self.serving, frames)

    def _run_service(self, updater: Updater, release: PlacedRelease, frames: int) -> None:
        behaviour, token = self.behaviours[release.version], self.token
        crashed = self._crashed.get(release.version, 0)
        if behaviour.crash_loops or crashed < behaviour.crashes:
            self._crashed[release.version] = crashed + 1
            self.dead = True
            if self.committed:
                updater.on_service_unhealthy(token, "5 crashes in 60 s")
            else:
                updater.on_worker_crash(token, "signal 11")
            return
        updater.on_ready(token)
        updater.on_stats(token, self._stats(behaviour, frames))

    def _stats(self, behaviour: Behaviour, frames: int) -> ServiceStats:
        errors = round(frames * behaviour.error_share)
        labelled = frames if behaviour.accuracy is not None else 0
        share = behaviour.accuracy or 0.0
        correct = sum(self._random.random() < share for _ in range(labelled))
        return ServiceStats(
            frames=frames,
            errors=errors,
            labelled=labelled,
            correct=correct,
            latencies_ms=(behaviour.latency_ms,) * frames,
        )


@dataclass
class Rig:
    """A device, its broker and its clock. ``boot`` starts the agent; the disk outlives it."""

    folder: Path
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    limits: UpdateLimits = field(
        default_factory=lambda: UpdateLimits(disk_margin_bytes=0, progress_interval_s=0.5)
    )
    device: Device = DEVICE
    trust: TrustRoot = TRUST
    frames: int = 20
    """What serves decides so many in a turn."""
    fetcher: Fetcher | None = None
    """Does requests to the mirror that a release names."""
    mirror_limits: MirrorLimits = field(default_factory=MirrorLimits)

    def __post_init__(self) -> None:
        self.broker = FakeBroker(TOPICS)
        self.clock = FakeClock()
        self.sensors = FakeSensors()
        self.reports: list[UpdateStatus] = []
        self.received = 0
        self.wish = b""
        """The retained desired state."""

    def publish(self, release: TinyRelease, **behaviour: object) -> None:
        """Seed a release, and script how it will behave."""
        self.broker.seed_blobs(release.everything)
        self.behaviours[release.manifest.version] = Behaviour(**behaviour)  # type: ignore[arg-type]

    def boot(self, storage: PieceStorage | None = None, *, connected: bool = True) -> Updater:
        """Start the agent on what the disk holds."""
        self.link = FakeLink(self.broker, connected=connected)
        self.host = FakeHost(self.behaviours)
        self.updater = Updater(
            device=self.device,
            topics=TOPICS,
            state_dir=self.folder,
            trust=self.trust,
            link=self.link,
            host=self.host,
            sensors=self.sensors,
            clock=self.clock,
            report=self.reports.append,
            storage=storage or SwiftStorage(),
            limits=self.limits,
            mirror=Mirror(self.fetcher, self.clock, self.mirror_limits),
        )
        self.updater.start()
        if connected:
            self.connect()
        return self.updater

    def connect(self) -> None:
        """The broker accepts the device and delivers the retained wish."""
        self.link.connected = True
        self.updater.on_connected()
        self.updater.on_desired(self.wish)

    def want(self, payload: bytes) -> None:
        """Publish a desired state."""
        self.wish = payload
        self.updater.on_desired(payload)

    def turn(self, seconds: float = 0.2) -> None:
        """One turn of the supervisor's loop."""
        self._listen()
        self.updater.tick()
        self.host.run(self.updater, self.frames)
        self.clock.time += seconds

    def _listen(self) -> None:
        for topic, payload, retained in self.link.poll():
            if not topic.endswith("/broker"):
                self.received += len(payload)
            self.updater.on_message(topic, payload, retained)

    def reach(self, phase: Phase, turns: int = 600) -> None:
        """Run until ``phase`` is entered, and no further."""
        for _ in range(turns):
            if self.updater.state.phase is phase:
                return
            self._listen()
            self.updater.tick()
            if self.updater.state.phase is phase:
                return
            self.host.run(self.updater)
            self.clock.time += 0.2
        raise AssertionError(f"{phase} not reached: {self.updater.state.phase}")

    def settle(self, turns: int = 600) -> UpdateStatus:
        """Run until the deployment has ended; the last status."""
        for _ in range(turns):
            self.turn()
            if self.updater.state.phase in FINAL_PHASES:
                return self.reports[-1]
        raise AssertionError(f"not settled: {self.updater.state.phase}, {self.reports[-1:]}")

    @property
    def version(self) -> str:
        """What is committed."""
        return self.updater.active.version if self.updater.active else ""

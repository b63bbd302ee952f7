"""Whatever happens at whatever durable step of an update: the device serves, and ends up right.

Every scenario is one update, good or bad, run once on a disk that tells at each durable step what
a crash would leave (:mod:`tests.fakes.crash_disk`); from each remainder an agent is started. Before
it hears of any broker it must serve something, it must never serve what is not verified (the host
checks at every start), and in the end it must run the right version, with nothing left lying
about. Then the disk fills up at each step, for a moment or for good.

``make test TESTS=tests/unit/update/test_crash_matrix.py`` prints the number of cases.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from agent.update import download
from agent.update.limits import MirrorLimits
from agent.update.store import PieceStorage
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.delivery import BrokerReport
from edge_sdk.contracts.manifest import CHUNK_BYTES
from edge_sdk.contracts.update import FINAL_PHASES, Phase
from edge_sdk.delivery import spans
from tests.fakes.crash_disk import (
    FATES,
    LOST,
    ROTTEN,
    TORN,
    CrashDisk,
    DiskGone,
    Image,
    Moment,
    read_image,
    write_image,
)
from tests.fakes.mirrors import BlobFetcher
from tests.fakes.storage import FaultyStorage, PowerCut, SwiftStorage
from tests.fakes.tuf_rig import TufRig
from tests.fakes.updating import TOPICS, Rig, TinyRelease, desired_bytes, tiny_release

OLD = tiny_release("1", size=70_000)
NEW = tiny_release("2", size=70_000, packed=True)
"""One of its files is built on the device, from one that is updated like any other."""
CLOSE = tiny_release("2", size=70_000, packed=True, base=OLD)
"""The same, but that one comes as a delta where version 1 is there."""

MIRRORED = tiny_release("2", size=70_000, packed=True, mirror="https://models.example/fleet")
"""Its files come by HTTP."""

TURN_S, FRAMES = 0.5, 100
AGAIN_EVERY = 5
"""Every so many crashes a second one hits the recovery."""
MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Scenario:
    """A way for version 2 to behave, and where that must end."""

    behaviour: dict[str, object]
    version: str
    phase: Phase
    first: bool = False
    """Nothing is installed before."""
    tuf: bool = False
    release: TinyRelease = NEW
    wave: bool = False
    """Its large file comes by a wave."""
    span: int = 1
    """So many chunks of it come in one message."""


SCENARIOS = {
    "good": Scenario({}, "2", Phase.COMMITTED, release=CLOSE),
    "golden-fails": Scenario({"golden_ok": False}, "1", Phase.REJECTED, release=MIRRORED),
    "trial-fails": Scenario({"accuracy": 0.5}, "1", Phase.ROLLED_BACK, wave=True),
    "crash-loops": Scenario({"crash_loops": True}, "1", Phase.ROLLED_BACK, release=CLOSE),
    "tuf-good": Scenario({}, "2", Phase.COMMITTED, tuf=True),
    "fells-the-agent": Scenario({"fells_agent": True}, "1", Phase.REJECTED, span=2),
    "first-install": Scenario({}, "2", Phase.COMMITTED, first=True, release=CLOSE),
}
ON_A_FULL_DISK = [name for name in SCENARIOS if name not in ("fells-the-agent", "first-install")]
"""The others write nothing that these do not write."""


@dataclass
class Stage:
    """A scenario ready to be played on any folder, again and again."""

    scenario: Scenario
    rig: Rig
    before: Image
    """The device's disk when the update begins."""
    wish: bytes
    retry: Callable[[], bytes]
    """The same release, wished for anew."""
    counter: int = 2
    seen: set[bytes] = field(default_factory=set)
    in_spans: bool = False
    """Whether any span has been asked for."""

    def begin(self, image: Image) -> None:
        """Put a disk into the device."""
        write_image(image, self.rig.folder)
        self.rig.wish = self.wish
        self.rig.reports.clear()

    def play(self, storage: PieceStorage) -> None:
        """Boot on what is there and go through the update, as often as the agent is felled."""
        for _ in range(10):
            try:
                self.boot(storage)
                self.run()
                return
            except PowerCut:
                continue
        raise AssertionError("the agent goes down for ever")

    def boot(self, storage: PieceStorage) -> None:
        """Alone at first, as after a cut in a place without network."""
        self.rig.boot(storage, connected=False)
        self.always_servable()
        self.rig.turn()
        self.always_servable()
        self.rig.connect()

    def run(self, turns: int = 600) -> None:
        state = self.rig.updater.state
        for _ in range(turns):
            self.rig.turn(TURN_S)
            self.always_servable()
            self.in_spans |= any(map(TOPICS.parse_span, self.rig.link.subscribed))
            state = self.rig.updater.state
            if state.phase in FINAL_PHASES and state.counter == self.counter:
                return
        raise AssertionError(f"not settled: {state.phase}")

    def always_servable(self) -> None:
        if not self.scenario.first:
            assert self.rig.host.serving is not None

    def check_end(self, *, phase: bool = True) -> None:
        rig, scenario = self.rig, self.scenario
        assert rig.version == scenario.version, rig.reports[-3:]
        assert rig.host.serving == rig.updater.active
        assert rig.host.committed
        if phase:
            assert rig.updater.state.phase is scenario.phase
        self._check_tidy(OLD if scenario.version == "1" else scenario.release)

    def check_way(self) -> None:
        """The files have come the way that this scenario is about."""
        fetcher, broker = self.rig.fetcher, self.rig.broker
        assert isinstance(fetcher, BlobFetcher)
        assert bool(fetcher.jobs) == bool(self.scenario.release.manifest.mirror)
        assert bool(broker.credits) == self.scenario.wave
        assert self.in_spans == (self.scenario.span > 1)

    def _check_tidy(self, active: TinyRelease) -> None:
        """Nothing lies about that no slot refers to."""
        state, folder = self.rig.updater.state, self.rig.folder
        found = {path.name for path in (folder / "blobs").iterdir()}
        assert found == state.referenced()
        deltas = {each.delta for each in active.manifest.deltas}
        assert {active.digest, *active.blobs} - deltas <= found
        assert list((folder / "parts").glob("*")) == []
        manifests = {path.stem for path in (folder / "manifests").iterdir()}
        assert manifests == {record.digest for record in state.slots.values()}

    def is_new(self, image: Image) -> bool:
        """Whether no agent has been started on such a disk yet; a second one would do the same."""
        digest = hashlib.sha256()
        for name, data in sorted(image.items()):
            digest.update(f"{name}\0{-1 if data is None else len(data)}\0".encode() + (data or b""))
        known = digest.digest() in self.seen
        self.seen.add(digest.digest())
        return not known


@pytest.fixture(autouse=True)
def hushed() -> Iterator[None]:
    """A thousand crashes make a long log."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(autouse=True)
def short_waves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two chunks are worth a wave or a span: as many steps as it takes, and no more."""
    monkeypatch.setattr(download, "MIN_CHUNKS", 2)
    monkeypatch.setattr(spans, "MIN_SPANS", 1)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """In memory where possible: these disks are crashed, not trusted."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        yield Path(name) / "device"


@cache
def stage(name: str, folder: Path) -> Stage:
    scenario = SCENARIOS[name]
    rig = TufRig(folder) if scenario.tuf else Rig(folder)
    rig.frames = FRAMES
    publish = rig.add if isinstance(rig, TufRig) else rig.publish
    wished = rig.wished if isinstance(rig, TufRig) else desired_bytes
    publish(OLD)
    write_image({}, folder)
    rig.boot(SwiftStorage())
    if not scenario.first:
        rig.want(wished(OLD, 1))
        rig.settle()
        assert rig.version == "1"
    before = read_image(folder)
    new = scenario.release
    publish(new, **scenario.behaviour)
    rig.fetcher, rig.mirror_limits = BlobFetcher(new.blobs), MirrorLimits(min_bytes=1)
    if scenario.wave:
        report = BrokerReport(max_payload_bytes=CHUNK_BYTES, gather_s=1.0)
        rig.broker.retained[TOPICS.broker()] = encode(report)
        rig.broker.gathers = True
    if scenario.span > 1:
        rig.broker.seed_blobs(new.everything, span=scenario.span)
        report = BrokerReport(max_payload_bytes=CHUNK_BYTES, span=scenario.span)
        rig.broker.retained[TOPICS.broker()] = encode(report)
    return Stage(scenario, rig, before, wished(new, 2), lambda: wished(new, 3))


def record(
    stage: Stage, image: Image, *, cut_at: int = 0, forgets_to_sync: bool = False
) -> list[Moment]:
    """Play from an image and keep every moment of it, or one."""
    stage.begin(image)
    disk = CrashDisk(stage.rig.folder, cut_at=cut_at, forgets_to_sync=forgets_to_sync)
    try:
        stage.play(disk)
    except DiskGone:
        pass
    finally:
        disk.close()
    return disk.moments


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_crash_at_every_durable_step(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    play, tally = stage(name, folder), Counter[str]()
    moments = record(play, play.before)
    play.check_end()
    play.check_way()
    assert len(moments) > 60
    for number, moment in enumerate(moments):
        for fate in FATES:
            tally["cases"] += 1
            image = moment.remains[fate]
            if play.is_new(image):
                recover(play, image, f"{fate} at {number}: {moment.step}", fate)
                tally["run"] += 1
        if number % AGAIN_EVERY == 0:
            fate = FATES[number // AGAIN_EVERY % len(FATES)]
            later = record(play, moment.remains[fate], cut_at=1 + number % 17)
            for second in later:  # none, where everything had ended by then
                image = second.remains[FATES[number % len(FATES)]]
                recover(play, image, f"{fate} at {number}: {moment.step}, then again", ROTTEN)
                tally.update(cases=1, run=1)
    tell(capsys, f"{name}: {tally['cases']} crashes at {len(moments)} steps", tally)


def recover(play: Stage, image: Image, what: str, fate: str) -> None:
    try:
        play.begin(image)
        play.play(SwiftStorage())
        # Where the newest state rots, an end may be forgotten, and the same wish comes to nothing
        # new; the version must be right all the same.
        play.check_end(phase=fate is not ROTTEN)
    except AssertionError as error:
        raise AssertionError(f"{what}: {error}") from error


@pytest.mark.parametrize("name", ON_A_FULL_DISK)
def test_a_full_disk_at_every_durable_step(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The update may be refused, but the old release serves on and a later attempt succeeds."""
    play, tally = stage(name, folder), Counter[str]()
    steps = len(record(play, play.before))
    for stays_full in (False, True):
        for full_at in range(1, steps + 1):
            play.begin(play.before)
            storage = FaultyStorage(full_at=full_at, stays_full=stays_full)
            suffer(play, storage)
            storage.full_at = 0
            retry(play, f"full at {full_at}, {stays_full=}")
            tally.update(cases=1, run=1)
    tell(capsys, f"{name}: the disk full in {tally['cases']} cases", tally)


def suffer(play: Stage, storage: FaultyStorage) -> None:
    """Until the update has ended, or has got nowhere, with whatever is left of the disk."""
    for _ in range(10):
        try:
            play.boot(storage)
            for _ in range(60):
                play.rig.turn(TURN_S)
                play.always_servable()
                if play.rig.updater.state.phase in FINAL_PHASES and not play.rig.host.golden:
                    return
            return
        except PowerCut:
            continue


def retry(play: Stage, what: str) -> None:
    """With room again, a new deployment of the same release ends where it should."""
    rig, scenario = play.rig, play.scenario
    rig.turn()
    rig.wish = play.retry()
    for _ in range(10):
        try:
            rig.boot(SwiftStorage())
            rig.settle()
            break
        except PowerCut:
            continue
    known_bad = rig.updater.state.code == "trust.known-bad"
    assert known_bad or rig.updater.state.phase is scenario.phase, (what, rig.reports[-1])
    assert rig.version == scenario.version, what
    assert rig.host.serving == rig.updater.active


def test_the_matrix_would_notice_a_missing_sync(folder: Path) -> None:
    """On a product that never syncs, most crashes of the power leave another disk."""
    play = stage("good", folder)
    moments = record(play, play.before)
    hasty = record(play, play.before, forgets_to_sync=True)
    assert [moment.step for moment in hasty] == [moment.step for moment in moments]
    for fate in (LOST, TORN):
        other = [a.remains[fate] != b.remains[fate] for a, b in zip(moments, hasty, strict=True)]
        assert sum(other) > len(moments) // 2
    with pytest.raises(AssertionError):
        for moment in hasty:
            recover(play, moment.remains[TORN], moment.step, TORN)


def test_the_sum_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Cases that leave the same disk are run once."""
    if TOTAL["tests"] < len(SCENARIOS) + len(ON_A_FULL_DISK):
        pytest.skip("only a part of the matrix has run")
    assert TOTAL["run"] > 1000
    with capsys.disabled():
        print(f"\ncrash matrix: {TOTAL['cases']:,} cases, all recovered", end="")
        print(f" ({TOTAL['run']:,} run, the others leave the same disk as one of them)", end="")


def tell(capsys: pytest.CaptureFixture[str], what: str, tally: Counter[str]) -> None:
    TOTAL.update(tally, tests=1)
    with capsys.disabled():
        print(f"\n  {what}", end="")


TOTAL = Counter[str]()

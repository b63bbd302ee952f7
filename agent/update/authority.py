"""Whom this device believes now: keeps TUF metadata fresh over MQTT, and judges wishes by it.

Where the trust file holds a TUF root, nothing is installed that the publisher's targets do not
name; without one the pinned keys decide, and everything here stands still.

A refresh costs two retained messages when there is nothing new: the head, which says at once that
no newer root exists, and the timestamp. Anything newer is asked for by its version, root by root,
then snapshot and targets, and judged by :mod:`edge_sdk.bundle.tuf_trust`. Whatever fails changes
nothing that is trusted, is told, and is tried again with growing pauses; the committed release goes
on serving.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from agent.update.asking_time import ASK_S, TimeAsking, pause_s
from agent.update.ports import Clock, Link
from agent.update.timekeeping import Timekeeper
from agent.update.trust import Device, other_hardware
from agent.update.trust_store import TrustStore
from edge_sdk.bundle import trust as documents
from edge_sdk.bundle import tuf_trust
from edge_sdk.bundle.tuf_metadata import RoleName, Root, Targets, target_path
from edge_sdk.contracts.base import decode
from edge_sdk.contracts.topics import Topics
from edge_sdk.contracts.trust import TrustRoot, TufHead
from edge_sdk.contracts.update import Desired
from edge_sdk.errors import EdgeError, TrustError

log = logging.getLogger(__name__)

SETTLE_S = 5.0
"""Head and time are waited for this long before the timestamp is judged without them."""
MAX_HEAD_BYTES = 1024
CHECK_S = 60.0
"""Expired metadata is looked for this often."""


@dataclass(slots=True)
class _Asked:
    """A piece of metadata on its way."""

    role: RoleName
    version: int
    topic: str
    deadline: float
    attempts: int = 0


class Authority:
    """Trusted metadata, its refresh, and the verdict on wishes.

    Args:
        trust: the trust file.
        store: where trusted metadata is kept.
        link: the broker.
        topics: the tenant's layout.
        device: who this is.
        clock: time.
        notice: told, with a code and a sentence, what was not believed or has expired.
        rekeyed: called when other keys may direct this device than before.
    """

    def __init__(
        self,
        *,
        trust: TrustRoot,
        store: TrustStore,
        link: Link,
        topics: Topics,
        device: Device,
        clock: Clock,
        notice: Callable[[str, str], None],
        rekeyed: Callable[[], None],
    ) -> None:
        self._trust, self._store = trust, store
        self._link, self._topics, self._device, self._clock = link, topics, device, clock
        self._notice, self._rekeyed = notice, rekeyed
        self.time = Timekeeper(clock)
        self.keys = trust
        """Whose signatures count at present."""
        self.waits_for: TrustError | None = None
        """Why the last wish could not be judged yet."""
        self._trusted: tuf_trust.Trusted | None = None
        self._connected_at: float | None = None
        self._head: TufHead | None = None
        self._timestamp = b""
        self._asked: _Asked | None = None
        self._asking = TimeAsking(link, topics, device.device_id, clock)
        self._no_root_beyond = 0
        self._check_due = self._retry_due = 0.0

    @property
    def required(self) -> bool:
        """Whether releases must be named by TUF metadata."""
        return bool(self._trust.root)

    @property
    def versions(self) -> dict[RoleName, int]:
        """Version of each role's trusted metadata; empty without TUF."""
        return self._trusted.versions if self._trusted else {}

    def start(self) -> None:
        """Take up what the disk holds."""
        if not self.required:
            return
        self._trusted = self._store.load(self._trust.root)
        self.time = Timekeeper(self._clock, self._store.floor_s)
        self.time.saw(tuf_trust.newest_time(self._trusted))
        self.keys = documents.keys_of(self._trusted.root)

    # --- wishes ---

    def admits(self, desired: Desired) -> bool:
        """Whether a wish may be carried out; False while newer metadata is awaited.

        Raises:
            TrustError: ``trust.no-target``, ``trust.other-target``, ``trust.other-release`` or
                ``trust.other-hardware``: it never will be.
        """
        if self._trusted is None:
            return True
        _check_path(desired)
        try:
            targets = self._fresh(self._trusted, desired)
        except TrustError as error:
            self.waits_for = error
            return False
        target = tuf_trust.find_target(targets, desired.target)
        if (target.sha256, target.length) != (desired.manifest.digest, desired.manifest.size_bytes):
            raise TrustError(
                "other-target",
                f"The publisher's targets name another {desired.release} {desired.version} than"
                " the desired state does.",
                "Publish the release again, and find out who signs desired states.",
            )
        if target.profiles and self._device.profile_id not in target.profiles:
            raise other_hardware(", ".join(target.profiles), self._device.profile_id)
        return True

    def vouches(self, digest: str) -> bool:
        """Whether the trusted targets name this envelope, however old they are."""
        targets = self._trusted.targets if self._trusted else None
        return targets is not None and any(
            target.sha256 == digest for target in targets.targets.values()
        )

    def saw(self, desired: Desired) -> None:
        """A wish whose signature holds: it was signed at some time."""
        if self._trusted is not None:
            self.time.saw(desired.issued_at)
            self._store.save_floor(self.time.floor_s)

    def _fresh(self, trusted: tuf_trust.Trusted, desired: Desired) -> Targets:
        if not self.time.known:
            raise TrustError(
                "no-time",
                "The clock is known to be wrong, and the fleet has not said what time it is.",
                "Check that the server answers, or set the device's clock.",
            )
        targets = tuf_trust.check_fresh(trusted, self.time.now())
        if targets.version < desired.targets_version:
            raise TrustError(
                "no-metadata",
                f"The desired state was decided on targets {desired.targets_version};"
                f" {targets.version} are the newest that came.",
                "Check what the server has published, and who else publishes there.",
            )
        return targets

    # --- the link ---

    def on_connected(self) -> None:
        """Ask for what is newest."""
        if self._trusted is None:
            return
        self._connected_at = self._clock.monotonic()
        self._asked, self._head, self._timestamp = None, None, b""
        self._no_root_beyond, self._retry_due = 0, 0.0
        for topic in (self._topics.tuf_head(), self._topics.tuf_timestamp()):
            self._link.subscribe(topic, qos=1)
        self._link.subscribe(self._topics.time(self._device.device_id), qos=1)
        self._asking.ask(0)

    def on_disconnected(self) -> None:
        """Nothing comes any more."""
        self._connected_at = self._asked = None

    def on_message(self, topic: str, payload: bytes) -> bool:
        """A message; whether it was one of ours."""
        if self._trusted is None:
            return False
        if topic == self._topics.tuf_head():
            self._on_head(payload)
        elif topic == self._topics.tuf_timestamp():
            self._on_timestamp(payload)
        elif topic == self._topics.time(self._device.device_id):
            self._on_time(payload)
        elif self._asked is not None and topic == self._asked.topic:
            self._on_metadata(self._asked, payload)
        else:
            return topic.startswith(f"{self._topics.tenant}/tuf/")
        return True

    def tick(self) -> None:
        """Timers."""
        if self._trusted is None:
            return
        now = self._clock.monotonic()
        if now >= self._check_due:
            self._check_due = now + CHECK_S
            self._tell_expired(self._trusted)
        if self._connected_at is None:
            return
        if not self.time.attested:
            self._asking.tick()
        if self._asked is not None and now >= self._asked.deadline:
            self._overdue(self._asked)
        elif self._timestamp and now >= self._retry_due:
            self._go_on()

    def _on_head(self, payload: bytes) -> None:
        if not payload or len(payload) > MAX_HEAD_BYTES:
            return
        try:
            self._head = decode(payload, TufHead, "the head of the metadata")
        except EdgeError as error:
            self._notice(error.code, error.cause)
            return
        self._no_root_beyond = 0
        self._go_on()

    def _on_timestamp(self, payload: bytes) -> None:
        if not payload:
            return
        self._timestamp = payload
        if self._asked is not None and self._asked.role != "root":
            self._drop(self._asked)  # what is newest may name something else by now
        self._go_on()

    # --- refreshing ---

    def _settled(self) -> bool:
        """Whether head and time have come, or were waited for long enough."""
        if self._connected_at is None:
            return False
        if self._head is not None and self.time.attested:
            return True
        return self._clock.monotonic() >= self._connected_at + SETTLE_S

    def _go_on(self) -> None:
        """Do what comes next: a root, the timestamp, or what the timestamp names."""
        trusted = self._trusted
        if trusted is None or self._asked is not None or not self._settled():
            return
        following = trusted.root.version + 1
        announced = self._head is not None and self._head.root >= following
        if announced and following != self._no_root_beyond:
            self._ask("root", following)
        elif self._judge_timestamp(trusted):
            self._ask_missing()

    def _judge_timestamp(self, trusted: tuf_trust.Trusted) -> bool:
        """Take over the timestamp that came last, if any; False when it was refused."""
        if not self._timestamp:
            return True
        data, self._timestamp = self._timestamp, b""
        try:
            self._take(tuf_trust.update_timestamp(trusted, data, self.time.now()))
        except TrustError as error:
            if error.slug == "expired-metadata" and not self.time.attested:
                self._timestamp = data  # it may be the clock that is wrong
                self._retry_due = self._clock.monotonic() + SETTLE_S
            self._notice(error.code, error.cause)
            return False
        return True

    def _ask_missing(self) -> None:
        trusted = self._trusted
        if trusted is None or trusted.timestamp is None:
            return
        try:
            wanted = tuf_trust.next_wanted(trusted)
        except TrustError as error:
            self._notice(error.code, error.cause)
            return
        if wanted is not None:
            self._ask(*wanted)

    def _ask(self, role: RoleName, version: int) -> None:
        topic = self._topics.tuf(role, version)
        self._asked = _Asked(role, version, topic, self._clock.monotonic() + ASK_S)
        self._link.subscribe(topic, qos=1)

    def _on_metadata(self, asked: _Asked, payload: bytes) -> None:
        trusted = self._trusted
        if trusted is None or not payload:
            return
        try:
            after = self._judge(trusted, asked.role, payload)
        except TrustError as error:
            self._notice(error.code, error.cause)
            return  # it is asked for again when it is overdue
        self._drop(asked)
        self._take(after)
        self._go_on()

    def _judge(
        self, trusted: tuf_trust.Trusted, role: RoleName, payload: bytes
    ) -> tuf_trust.Trusted:
        if role == "root":
            return tuf_trust.update_root(trusted, payload)
        if role == "snapshot":
            return tuf_trust.update_snapshot(trusted, payload, self.time.now())
        return tuf_trust.update_targets(trusted, payload, self.time.now())

    def _overdue(self, asked: _Asked) -> None:
        """Ask again with growing pauses; without the next root go on under the present one."""
        asked.attempts += 1
        asked.deadline = self._clock.monotonic() + pause_s(asked.attempts)
        if asked.role == "root":
            self._drop(asked)
            self._no_root_beyond = asked.version
            what = f"Root metadata {asked.version} was announced and does not come."
            self._notice("trust.no-metadata", what)
            self._go_on()
            return
        self._link.unsubscribe(asked.topic)
        self._link.subscribe(asked.topic, qos=1)

    def _drop(self, asked: _Asked) -> None:
        self._link.unsubscribe(asked.topic)
        self._asked = None

    def _take(self, after: tuf_trust.Trusted) -> None:
        """Write what has become trusted, then act on it."""
        before = self._trusted
        if before is None or after is before:
            return
        self._store.save(before, after)
        self._trusted = after
        if after.root is not before.root:
            self._new_root(before.root, after.root)
        self.time.saw(tuf_trust.newest_time(after))
        self._store.save_floor(self.time.floor_s)
        log.info("trusted metadata: %s", after.versions)

    def _new_root(self, before: Root, after: Root) -> None:
        if tuf_trust.keys_removed(before, after):
            self.time.forget()
            self._asking.ask(0)
        # It may have come before the root that it is signed under.
        self._link.subscribe(self._topics.tuf_timestamp(), qos=1)
        keys = documents.keys_of(after)
        changed = keys.fleet_keys != self.keys.fleet_keys
        self.keys = keys
        if changed:
            self._rekeyed()

    def _on_time(self, payload: bytes) -> None:
        try:
            at = self._asking.on_answer(payload, self.keys)
        except EdgeError as error:
            self._notice(error.code, error.cause)
            return
        if at is not None:
            self.time.attest(at)
            self._store.save_floor(self.time.floor_s)
            self._go_on()

    def _tell_expired(self, trusted: tuf_trust.Trusted) -> None:
        """Alert; what is installed goes on serving."""
        if trusted.timestamp is None or not self.time.known:
            return
        try:
            tuf_trust.check_fresh(trusted, self.time.now())
        except TrustError as error:
            if error.slug == "expired-metadata":
                self._notice(error.code, error.cause)


def _check_path(desired: Desired) -> None:
    """Refuse a wish whose parts are not about one release."""
    if not desired.target:
        raise TrustError(
            "no-target",
            "The desired state names no published target, which this device asks for.",
            "Give the server the repository's metadata: `edge release publish`.",
        )
    if desired.target != target_path(desired.release, desired.version):
        raise TrustError(
            "other-release",
            f"The desired state is about {desired.release} {desired.version}, its target is"
            f" {desired.target[:160]!r}.",
            "Create the rollout again.",
        )

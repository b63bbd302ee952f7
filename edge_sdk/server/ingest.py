"""What devices say, written to the database. Runs inside a transaction of the caller."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from edge_sdk.contracts.base import decode
from edge_sdk.contracts.delivery import DeliveryMode, TopicRequest
from edge_sdk.contracts.fleet import MemberStatus
from edge_sdk.contracts.telemetry import TelemetrySample
from edge_sdk.contracts.topics import Topics
from edge_sdk.contracts.trust import NONCE_BYTES, TimeRequest
from edge_sdk.contracts.update import (
    FINAL_PHASES,
    ChunkRequest,
    DeviceState,
    Phase,
    UpdateCosts,
    UpdateStatus,
)
from edge_sdk.errors import ContractError, GateError
from edge_sdk.server import records, rollout_records
from edge_sdk.server.courier import Request
from edge_sdk.server.issuing import RESTORE_SUFFIX, Changes, Issuer
from edge_sdk.server.ladders import steps
from edge_sdk.server.records import Row
from edge_sdk.server.rollout import Committed, Failed

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 64 * 1024
MAX_UNENROLLED = 10_000
"""Devices beyond this many are ignored unless enrolled: a stranger cannot fill the disk."""
STANDING = (
    "agent_version",
    "runtime",
    "release",
    "version",
    "detail",
    "point",
    "root_version",
)
"""What a twin says of a device, and the database keeps."""
LEAVES = ("state", "ota", "tel", "req", "want", "ask")


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message from the broker."""

    topic: str
    payload: bytes
    retained: bool = False
    """The broker kept it: the device said it at some time, perhaps long ago."""


@dataclass
class Ingest:
    """Applies device messages.

    Args:
        topics: the tenant's topics.
        issuer: carries out what a verdict means for the rollout.
        now: seconds since the epoch.
    """

    topics: Topics
    issuer: Issuer
    now: Callable[[], float]
    refused: int = 0
    """Messages that were malformed, too large or not about their sender."""
    failed: int = 0
    """Messages that could not be stored; a defect, since what devices may say is bounded."""
    requests: list[Request] = field(default_factory=list)
    """What devices asked for since the list was last taken."""

    def take_requests(self) -> list[Request]:
        """What devices asked for since the last call."""
        taken, self.requests = self.requests, []
        return taken

    def message(self, connection: sa.Connection, incoming: Incoming) -> Changes:
        """Apply one message; a bad one is counted, and is all that is lost.

        Raises:
            sqlalchemy.exc.OperationalError: the database cannot be written, whatever the message.
        """
        parsed = self.topics.parse_device(incoming.topic)
        if parsed is None or len(incoming.payload) > MAX_MESSAGE_BYTES or not incoming.payload:
            self.refused += bool(incoming.payload)
            return Changes()
        device_id, leaf = parsed
        try:
            with connection.begin_nested():
                return self._dispatch(connection, device_id, leaf, incoming)
        except ContractError:
            self.refused += 1
        except sa.exc.OperationalError:
            raise
        except Exception:
            # The boundary of a message: the others in its transaction are other devices'.
            self.failed += 1
            log.exception("a message on %s could not be stored", incoming.topic)
        return Changes()

    def _dispatch(
        self, connection: sa.Connection, device_id: str, leaf: str, incoming: Incoming
    ) -> Changes:
        payload = incoming.payload
        if leaf == "req":
            request = decode(payload, ChunkRequest, leaf)
            self._check_sender(request.device_id, device_id)
            self.requests.append(request)
            return Changes()
        if leaf == "want":
            wanted = decode(payload, TopicRequest, leaf)
            self._check_sender(wanted.device_id, device_id)
            self.requests.append(wanted)
            return Changes()
        if leaf == "ask":
            question = decode(payload, TimeRequest, leaf)
            self._check_sender(question.device_id, device_id)
            if len(question.nonce) == NONCE_BYTES and not incoming.retained:
                self.requests.append(question)
            return Changes()
        if leaf == "tel":
            sample = decode(payload, TelemetrySample, leaf)
            self._check_sender(sample.device_id, device_id)
            self._telemetry(connection, sample, payload)
            return Changes()
        if leaf == "ota":
            status = decode(payload, UpdateStatus, leaf)
            self._check_sender(status.device_id, device_id)
            return self._status(connection, status)
        if leaf == "state":
            state = decode(payload, DeviceState, leaf)
            self._check_sender(state.device_id, device_id)
            return self._state(connection, state, incoming.retained)
        return Changes()

    def _check_sender(self, named: str, sender: str) -> None:
        """A broker's access list binds a topic to a device, so the topic is what counts."""
        if named != sender:
            raise ContractError(
                "wrong-sender",
                f"A message on the topic of {sender!r} speaks about {named[:64]!r}.",
                "Check the device's configuration.",
            )

    def _known(self, connection: sa.Connection, device_id: str) -> Row | None:
        """The device's row, created at its first message."""
        row = records.device_row(connection, device_id)
        if row is not None:
            return row
        if records.device_count(connection) >= MAX_UNENROLLED:
            return None
        records.save_device(connection, device_id)
        self._event(connection, "device", f"{device_id} reported for the first time.", device_id)
        return records.device_row(connection, device_id)

    def _state(self, connection: sa.Connection, state: DeviceState, retained: bool) -> Changes:
        row = self._known(connection, state.device_id)
        if row is None:
            return Changes()
        if state.online != row["online"]:
            word = "online" if state.online else "offline"
            self._event(connection, "device", f"{state.device_id} is {word}.", state.device_id)
        values: dict[str, Any] = {"online": state.online}
        if not retained or row["last_seen"] is None:
            values["last_seen"] = self.now()
        if state.online or row["last_seen"] is None:
            # A last will is as old as the connection it ended: only "offline" in it is news.
            values |= {name: getattr(state, name) for name in STANDING}
            values["profile"] = state.profile or row["profile"]
        records.save_device(connection, state.device_id, **values)
        if state.online:
            self._delivery(connection, state)
            self._phase(connection, row, state.deployment, state.phase, state.detail, "", state)
        return self._verdict_of_state(connection, state)

    def _delivery(self, connection: sa.Connection, state: DeviceState) -> None:
        """Note that a device does not get its chunks the usual way, and when it does again."""
        usual = state.delivery.partition(":")[0] in ("", DeliveryMode.WINDOW)
        text = f"{state.device_id} gets its chunks by {state.delivery}."
        last = records.last_event(connection, "delivery", state.device_id)
        if last != text and not (usual and last is None):
            self._event(connection, "delivery", text, state.device_id)

    def _verdict_of_state(self, connection: sa.Connection, state: DeviceState) -> Changes:
        """A twin tells what a lost status said, even after the server was away."""
        rollout = rollout_records.active_rollout(connection)
        if rollout is None or state.deployment != rollout["id"]:
            return Changes()
        if self._outdated(connection, rollout, state):
            return Changes()
        number, device_id = rollout["number"], state.device_id
        rollout_records.update_member(connection, number, device_id, phase=state.phase)
        if state.phase not in FINAL_PHASES:
            return Changes()
        return self._verdict(connection, rollout, state.device_id, state.phase, state.detail)

    def _status(self, connection: sa.Connection, status: UpdateStatus) -> Changes:
        row = self._known(connection, status.device_id)
        if row is None:
            return Changes()
        records.save_device(connection, status.device_id, last_seen=self.now())
        if not status.deployment:
            self._refusal(connection, status)
            return Changes()
        self._phase(
            connection, row, status.deployment, status.phase, status.detail, status.code, status
        )
        if status.phase is Phase.COMMITTED and status.code:
            self._once(connection, "alert", f"{status.device_id}: {status.detail}", status)
        rollout = rollout_records.rollout_row(connection, status.deployment)
        if rollout is None or self._outdated(connection, rollout, status):
            return Changes()
        self._note_member(connection, rollout["number"], status)
        if status.phase not in FINAL_PHASES:
            return Changes()
        return self._verdict(connection, rollout, status.device_id, status.phase, status.detail)

    def _outdated(
        self, connection: sa.Connection, rollout: Row, about: DeviceState | UpdateStatus
    ) -> bool:
        """Whether a device speaks of an offer that was recalled or replaced since.

        What it says of one that still stands, and of a rollout that it is done with, counts.
        """
        last = records.desired_row(connection, about.device_id)
        if last is None or not 0 < about.counter < last["counter"]:
            return False
        member = rollout_records.member_row(connection, rollout["number"], about.device_id)
        standing = (MemberStatus.WAITING, MemberStatus.OFFERED, MemberStatus.COMMITTED)
        return member is not None and member["status"] in standing

    def _note_member(self, connection: sa.Connection, number: int, status: UpdateStatus) -> None:
        """The device's own last word; why it was left alone stays beside it."""
        names = UpdateCosts.__struct_fields__
        values: dict[str, Any] = {
            name: getattr(status, name) for name in names if getattr(status, name)
        }
        if status.seconds_in:
            values["seconds_in"] = rollout_records.packed_seconds(status.seconds_in)
        member = rollout_records.member_row(connection, number, status.device_id)
        if member is not None and member["status"] != MemberStatus.KEPT:
            values["detail"] = status.detail
        about = {"phase": status.phase, "code": status.code, **values}
        rollout_records.update_member(connection, number, status.device_id, **about)

    def _refusal(self, connection: sa.Connection, status: UpdateStatus) -> None:
        """Something on the device's desired topic that it does not believe.

        Anybody who can write there may have sent it, so it says nothing about a rollout. Repeats
        are noted once.
        """
        if not (status.code or status.detail):
            return
        said = status.detail or status.code
        if status.code.startswith(GateError.family):  # about what serves, and no message
            self._once(connection, "alert", f"{status.device_id}: {said}", status)
            return
        self._once(
            connection, "refusal", f"{status.device_id} refuses a desired state: {said}", status
        )

    def _once(self, connection: sa.Connection, kind: str, text: str, status: UpdateStatus) -> None:
        """Note what a device repeats, unless it was its last word of that kind."""
        if records.last_event(connection, kind, status.device_id) != text:
            self._event(connection, kind, text, status.device_id, code=status.code)

    def _phase(
        self,
        connection: sa.Connection,
        row: Row,
        deployment: str,
        phase: Phase,
        detail: str,
        code: str,
        about: DeviceState | UpdateStatus,
    ) -> None:
        """Note a change of phase once, whichever message brings it first."""
        if (row["deployment"], row["phase"]) == (deployment, phase):
            return
        records.save_device(
            connection, row["id"], deployment=deployment, phase=phase, detail=detail
        )
        if phase is Phase.IDLE or not deployment:
            return
        what = f"{about.release} {about.version}".strip() or "an update"
        if deployment.endswith(RESTORE_SUFFIX):
            what = f"return to {what}"
        text = f"{row['id']}: {what} {phase.replace('_', ' ')}" + (f": {detail}" if detail else ".")
        self._event(
            connection,
            "update",
            text,
            row["id"],
            rollout_id=deployment.removesuffix(RESTORE_SUFFIX),
            version=about.version,
            phase=phase.value,
            code=code,
        )

    def _verdict(
        self, connection: sa.Connection, rollout: Row, device_id: str, phase: Phase, detail: str
    ) -> Changes:
        if phase is Phase.COMMITTED:
            return self.issuer.apply(connection, rollout, Committed(device_id))
        reason = f"{device_id} {phase.replace('_', ' ')}" + (f" ({detail})" if detail else "")
        return self.issuer.apply(connection, rollout, Failed(device_id, reason))

    def _telemetry(
        self, connection: sa.Connection, sample: TelemetrySample, payload: bytes
    ) -> None:
        row = self._known(connection, sample.device_id)
        if row is None:
            return
        same = row["sum_version"] == sample.version
        records.save_device(
            connection,
            sample.device_id,
            last_seen=self.now(),
            telemetry=payload,
            sum_version=sample.version,
            frames=sample.frames + (row["frames"] if same else 0),
            labelled=sample.labelled + (row["labelled"] if same else 0),
            correct=sample.correct + (row["correct"] if same else 0),
        )
        for name, way, position in steps(records.last_sample(row), sample):
            who = f"{sample.device_id} {name}".rstrip()
            self._event(
                connection,
                "ladder",
                f"{who} stepped {way} to {position.point} ({position.reason}).",
                sample.device_id,
                version=sample.version,
            )

    def _event(
        self, connection: sa.Connection, kind: str, text: str, device_id: str, **about: str
    ) -> None:
        records.add_event(connection, self.now(), kind, text, device_id=device_id, **about)

"""What an operator does with rollouts: start, watch, pause, resume, abort, take back."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import msgspec
import sqlalchemy as sa

from edge_sdk.contracts.fleet import RolloutInfo, RolloutRequest
from edge_sdk.delivery.windows import parse_window
from edge_sdk.errors import ConfigError, UsageError
from edge_sdk.server import records, rollout_records
from edge_sdk.server.issuing import Changes, Issuer
from edge_sdk.server.metadata_desk import MetadataDesk
from edge_sdk.server.records import Row
from edge_sdk.server.rollout import Abort, Pause, Resume, Start, TakeBack, Tick, plan
from edge_sdk.server.targets import choose_devices, previous_release
from edge_sdk.suggest import did_you_mean

MAX_ROLLOUTS_PER_CALL = 100


class RolloutDesk:
    """Operations of the server about rollouts. Thread-safe.

    Args:
        engine: the fleet's database, for reading.
        transaction: opens one on it, for writing.
        issuer: carries out what the state machine decides.
        metadata: knows which releases the publisher has named.
        heard_since: when a device must have been heard of to be online, seconds since the epoch.
        carry: told what a committed transaction means for the broker.
    """

    def __init__(
        self,
        engine: sa.Engine,
        transaction: Callable[[], AbstractContextManager[sa.Connection]],
        issuer: Issuer,
        metadata: MetadataDesk,
        heard_since: Callable[[], float],
        carry: Callable[[Changes], None],
    ) -> None:
        self._engine, self._transaction = engine, transaction
        self._issuer, self._metadata = issuer, metadata
        self._heard_since, self._carry = heard_since, carry

    def create(self, request: RolloutRequest) -> RolloutInfo:
        """Start rolling a release out.

        Raises:
            UsageError: ``usage.rollout-active``, ``usage.unknown-release``,
                ``usage.unknown-device``, ``usage.profile-not-in-release`` or
                ``usage.no-devices``.
            ConfigError: ``config.bad-rollout`` or ``config.bad-window``.
        """
        if min(request.canary, request.max_failures, request.devices_per_hour) < 0:
            raise ConfigError(
                "bad-rollout",
                "canary, max_failures and devices_per_hour of a rollout cannot be negative.",
                "Use 0 or more.",
            )
        for window in request.windows:
            parse_window(window)
        with self._transaction() as connection:
            _refuse_second(connection)
            release = _find_release(connection, request.release, request.version)
            self._metadata.check_published(release)
            row = self._add(connection, request, release)
            records.mark_seeded(connection, [release["id"]], True)
            changes = self._issuer.apply(connection, row, Start())
            info = self._info(connection, _find_rollout(connection, row["id"]))
        self._carry(replace(changes, seeded=(release["digest"],)))
        return info

    def _add(self, connection: sa.Connection, request: RolloutRequest, release: Row) -> Row:
        profiles = json.loads(release["profiles"])
        chosen, skipped = choose_devices(connection, request, profiles, self._heard_since())
        previous = {device.id: previous_release(connection, device) for device in chosen}
        rollout = plan(
            previous,
            canary=request.canary,
            max_failures=request.max_failures,
            rollback_on_failure=request.rollback_on_failure,
            without_previous={name for name, known in previous.items() if known is None},
        )
        return rollout_records.add_rollout(
            connection,
            rollout,
            previous,
            release_id=release["id"],
            canary=request.canary,
            trial=msgspec.json.encode(request.trial).decode(),
            new_contract=request.new_contract,
            windows=json.dumps(request.windows),
            rate_kib_s=request.rate_kib_s,
            devices_per_hour=request.devices_per_hour,
            skipped=json.dumps(skipped),
            created_at=self._issuer.now(),
        )

    def rollout(self, rollout_id: str) -> RolloutInfo:
        """One rollout; ``latest`` names the newest.

        Raises:
            UsageError: ``usage.unknown-rollout``.
        """
        with self._engine.connect() as connection:
            return self._info(connection, _find_rollout(connection, rollout_id))

    def rollouts(self, limit: int = MAX_ROLLOUTS_PER_CALL) -> list[RolloutInfo]:
        """The newest rollouts, newest first."""
        with self._engine.connect() as connection:
            rows = rollout_records.all_rollouts(connection, limit)
            return [self._info(connection, row) for row in rows]

    def pause(self, rollout_id: str) -> RolloutInfo:
        """Let no further device begin; those that have begun go on. Repeated, changes nothing.

        Raises:
            UsageError: ``usage.unknown-rollout`` or ``usage.rollout-ended``.
        """
        return self._turn(rollout_id, Pause())

    def resume(self, rollout_id: str) -> RolloutInfo:
        """Go on with a paused rollout; one that is not paused stays as it is.

        Raises:
            UsageError: ``usage.unknown-rollout`` or ``usage.rollout-ended``.
        """
        return self._turn(rollout_id, Resume())

    def abort(self, rollout_id: str) -> RolloutInfo:
        """Stop a rollout; devices that have not committed get their release back.

        Raises:
            UsageError: ``usage.unknown-rollout`` or ``usage.rollout-ended``.
        """
        return self._end(rollout_id, Abort())

    def rollback(self, rollout_id: str) -> RolloutInfo:
        """Give every device of the newest rollout its previous release back.

        A device that has none keeps what it has committed (``kept``); an open offer is withdrawn.

        Raises:
            UsageError: ``usage.unknown-rollout``, ``usage.rollout-ended`` or
                ``usage.not-latest-rollout``.
        """
        return self._end(rollout_id, TakeBack())

    def tick(self) -> None:
        """Offer what time alone has made room for."""
        with self._engine.connect() as connection:
            active = rollout_records.active_rollout(connection)
            if active is None or not self._issuer.due(connection, active):
                return
        with self._transaction() as connection:
            row = _find_rollout(connection, active["id"])
            changes = self._issuer.apply(connection, row, Tick())
        self._carry(changes)

    def _info(self, connection: sa.Connection, row: Row) -> RolloutInfo:
        info = rollout_records.rollout_info(connection, row)
        return msgspec.structs.replace(info, waits=self._issuer.waits(connection, row))

    def _turn(self, rollout_id: str, event: Pause | Resume) -> RolloutInfo:
        with self._transaction() as connection:
            row = _find_rollout(connection, rollout_id)
            if not rollout_records.is_running(row):
                raise _ended(row)
            changes = self._issuer.apply(connection, row, event)
            info = self._info(connection, _find_rollout(connection, row["id"]))
        self._carry(changes)
        return info

    def _end(self, rollout_id: str, event: Abort | TakeBack) -> RolloutInfo:
        with self._transaction() as connection:
            row = _find_rollout(connection, rollout_id)
            latest = rollout_records.latest_rollout(connection)
            if latest is not None and latest["number"] != row["number"]:
                raise UsageError(
                    "not-latest-rollout",
                    f"Rollout {row['id']} has been followed by {latest['id']}.",
                    "Roll the wanted version out again with `edge rollout create`.",
                )
            changes = self._issuer.apply(connection, row, event)
            if not changes.ended:
                raise _ended(row)
            info = self._info(connection, _find_rollout(connection, row["id"]))
        self._carry(changes)
        return info


def _refuse_second(connection: sa.Connection) -> None:
    active = rollout_records.active_rollout(connection)
    if active is not None:
        raise UsageError(
            "rollout-active",
            f"Rollout {active['id']} is still {active['state']}"
            f"{' and paused' if active['paused'] else ''}.",
            "Wait for it, or end it: `edge rollout rollback` or `edge rollout abort`.",
        )


def _find_release(connection: sa.Connection, name: str, version: str) -> Row:
    found = records.release_named(connection, name, version)
    if found is None:
        rows = records.all_releases(connection)
        known = [f"{row['name']} {row['version']}" for row in rows]
        raise _unknown("release", f"{name} {version}", known)
    return found


def _find_rollout(connection: sa.Connection, rollout_id: str) -> Row:
    if rollout_id == "latest":
        row = rollout_records.latest_rollout(connection)
    else:
        row = rollout_records.rollout_row(connection, rollout_id)
    if row is None:
        rows = rollout_records.all_rollouts(connection, MAX_ROLLOUTS_PER_CALL)
        raise _unknown("rollout", rollout_id, [known["id"] for known in rows])
    return row


def _ended(row: Row) -> UsageError:
    return UsageError(
        "rollout-ended",
        f"Rollout {row['id']} is {row['state'].replace('_', ' ')} already.",
        "See `edge rollout status`.",
    )


def _unknown(what: str, name: str, known: list[str]) -> UsageError:
    return UsageError(
        f"unknown-{what}",
        f"There is no {what} {name!r} on this server.",
        did_you_mean(name, known[:50]),
    )

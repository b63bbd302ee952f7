"""Tables of the fleet server. Times are seconds since the epoch on the server's clock."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

releases = Table(
    "releases",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False),
    Column("version", String(64), nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("profiles", Text, nullable=False),  # JSON list
    Column("keyids", Text, nullable=False),  # JSON list
    Column("size_bytes", Integer, nullable=False),
    Column("published_at", Float, nullable=False),
    # Its chunks may be retained on the broker; set before seeding, unset after clearing.
    Column("seeded", Boolean, nullable=False, default=False),
    UniqueConstraint("name", "version"),
)

devices = Table(
    "devices",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("profile", String(64), nullable=False, default=""),
    Column("enrolled", Boolean, nullable=False, default=False),
    Column("online", Boolean, nullable=False, default=False),
    Column("last_seen", Float),
    Column("agent_version", String(64), nullable=False, default=""),
    Column("runtime", String(64), nullable=False, default=""),
    Column("release", String(64), nullable=False, default=""),
    Column("version", String(64), nullable=False, default=""),
    Column("phase", String(32), nullable=False, default=""),
    Column("deployment", String(64), nullable=False, default=""),
    Column("detail", Text, nullable=False, default=""),
    Column("point", String(128), nullable=False, default=""),
    Column("root_version", Integer, nullable=False, default=0, server_default="0"),
    Column("telemetry", LargeBinary),  # latest sample as it came, JSON
    # Sums since the running version started.
    Column("sum_version", String(64), nullable=False, default=""),
    Column("frames", Integer, nullable=False, default=0),
    Column("labelled", Integer, nullable=False, default=0),
    Column("correct", Integer, nullable=False, default=0),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("release_id", Integer, ForeignKey("releases.id"), nullable=False),
    Column("state", String(16), nullable=False),
    Column("canary", Integer, nullable=False),
    Column("max_failures", Integer, nullable=False),
    Column("rollback_on_failure", Boolean, nullable=False),
    Column("trial", Text, nullable=False),  # JSON
    Column("new_contract", Boolean, nullable=False, default=False, server_default="0"),
    Column("paused", Boolean, nullable=False, default=False, server_default="0"),
    Column("windows", Text, nullable=False, default="[]", server_default="[]"),  # JSON list
    Column("rate_kib_s", Integer, nullable=False, default=0, server_default="0"),
    Column("devices_per_hour", Integer, nullable=False, default=0, server_default="0"),
    Column("next_offer_at", Float, nullable=False, default=0.0, server_default="0"),
    Column("skipped", Text, nullable=False),  # JSON list
    Column("reason", Text, nullable=False, default=""),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
)

rollout_devices = Table(
    "rollout_devices",
    metadata,
    Column("rollout", Integer, ForeignKey("rollouts.number"), primary_key=True),
    Column("device_id", String(64), ForeignKey("devices.id"), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("canary", Boolean, nullable=False),
    Column("status", String(16), nullable=False),
    Column("previous_id", Integer, ForeignKey("releases.id")),
    Column("phase", String(32), nullable=False, default=""),
    Column("detail", Text, nullable=False, default=""),
    Column("code", String(64), nullable=False, default=""),
    Column("bytes_received", Integer, nullable=False, default=0),
    Column("bytes_total", Integer, nullable=False, default=0),
    Column("bytes_reused", Integer, nullable=False, default=0),
    Column("chunk_retries", Integer, nullable=False, default=0),
    Column("bytes_offered", Integer, nullable=False, default=0, server_default="0"),
    Column("bytes_saved_recipes", Integer, nullable=False, default=0, server_default="0"),
    Column("bytes_saved_delta", Integer, nullable=False, default=0, server_default="0"),
    Column("bytes_written", Integer, nullable=False, default=0, server_default="0"),
    Column("seconds_in", Text, nullable=False, default="{}", server_default="{}"),  # JSON object
    # A verdict asks for open offers and failures of its rollout; neither may read all devices.
    Index("ix_rollout_devices_rollout", "rollout", "status"),
)

desired = Table(
    "desired",
    metadata,
    Column("device_id", String(64), ForeignKey("devices.id"), primary_key=True),
    Column("counter", Integer, nullable=False),
    Column("deployment", String(64), nullable=False),
    Column("release_id", Integer, ForeignKey("releases.id")),  # NULL: nothing to run
    Column("envelope", LargeBinary, nullable=False),  # empty: the retained message is cleared
    Column("issued_at", Float, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("text", Text, nullable=False),
    Column("device_id", String(64), nullable=False, default=""),
    Column("rollout_id", String(64), nullable=False, default=""),
    Column("version", String(64), nullable=False, default=""),
    Column("phase", String(32), nullable=False, default=""),
    Column("code", String(64), nullable=False, default=""),
    Index("ix_events_device_id", "device_id"),
    sqlite_autoincrement=True,  # ids are never reused, so "after" cursors stay valid
)

"""Bounds of an update that a site may want to change; part of the agent's configuration."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from edge_sdk.contracts.base import Config

Seconds = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=100)]


class UpdateLimits(Config, kw_only=True):
    """Waits, sizes and thresholds of the updater."""

    window: Annotated[int, Meta(ge=1, le=64)] = 8
    """Chunks asked for at a time; more than the broker queues for a slow device loses some."""
    chunk_timeout_s: Seconds = 2.0
    """A chunk that has not come by then is asked for again, later where answers take longer;
    doubles with each attempt, less up to half by chance."""
    chunk_backoff_max_s: Seconds = 30.0
    max_bytes_per_s: Annotated[int, Meta(ge=0)] = 0
    """Bound on downloads; 0 for none."""
    windows: tuple[str, ...] = ()
    """When downloads may begin and run, in local time: ``["22:00-05:00", "Sat,Sun 00:00-24:00"]``;
    empty for always."""
    max_bad_chunks: Annotated[int, Meta(ge=1)] = 8
    """One chunk with wrong bytes this many times ends the update."""
    download_patience_s: Seconds = 86_400.0
    """A download without a single good chunk for this long ends the update."""
    progress_interval_s: Seconds = 1.0
    disk_margin_bytes: Annotated[int, Meta(ge=0)] = 16 * 1024 * 1024
    """Left free beyond what the release needs."""
    min_battery_percent: Share = 20.0
    min_headroom_percent: Share = 20.0
    """Idle CPU and available memory wanted before starting."""
    headroom_patience_s: Seconds = 60.0
    """A busy or hot processor is waited for this long; then the update begins all the same."""
    memory_patience_s: Seconds = 3600.0
    """Memory is waited for this long; then the update ends."""
    battery_patience_s: Seconds = 86_400.0
    preflight_retry_s: Seconds = 5.0
    golden_timeout_s: Seconds = 300.0
    trial_start_timeout_s: Seconds = 60.0
    """From starting the trial's worker to its first readiness."""


class MirrorLimits(Config, kw_only=True):
    """Fetching large blobs by HTTP, where the release names a mirror."""

    enabled: Annotated[bool, Meta(description="Whether mirrors are used at all.")] = True
    min_bytes: Annotated[
        int,
        Meta(ge=0, description="Smaller blobs come over MQTT: a request costs more than it saves."),
    ] = 1024 * 1024
    timeout_s: Annotated[
        float,
        Meta(gt=0, le=600, description="A chunk of 64 KiB that takes longer counts as a failure."),
    ] = 30.0
    attempts: Annotated[
        int,
        Meta(ge=1, le=20, description="Failures in a row, after which the rest comes over MQTT."),
    ] = 3
    ca: Annotated[
        str, Meta(description="CA certificates (PEM) of an https mirror; the system's if empty.")
    ] = ""

"""``/metrics`` in Prometheus' text format, made from the database at each scrape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from anyio import to_thread
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from edge_sdk.accounting import added
from edge_sdk.contracts.fleet import ENDED, DeviceInfo, RolloutInfo
from edge_sdk.server.ladders import positions

if TYPE_CHECKING:
    from edge_sdk.server.app import Context

_SAMPLE_GAUGES = {
    "fps": ("edge_device_frames_per_second", "Frames decided per second."),
    "latency_p50_ms": ("edge_device_latency_p50_milliseconds", "Median inference latency."),
    "latency_p95_ms": ("edge_device_latency_p95_milliseconds", "95th percentile of latency."),
    "latency_p99_ms": ("edge_device_latency_p99_milliseconds", "99th percentile of latency."),
    "frames_dropped": ("edge_device_frames_dropped", "Frames dropped in the last interval."),
    "errors": ("edge_device_inference_errors", "Failed inferences in the last interval."),
    "low_confidence": ("edge_device_low_confidence", "Decisions under 0.5 in the last interval."),
    "queue_depth": ("edge_device_queue_depth", "Frames waiting."),
    "cpu_percent": ("edge_device_cpu_percent", "Processor use of the whole machine."),
    "cpu_pressure": ("edge_device_cpu_pressure_percent", "PSI some avg10, or its stand-in."),
    "memory_available_mib": ("edge_device_memory_available_mebibytes", "Available memory."),
    "supervisor_rss_mib": ("edge_device_supervisor_rss_mebibytes", "Memory of the supervisor."),
    "worker_rss_mib": ("edge_device_worker_rss_mebibytes", "Memory of the worker."),
    "temperature_celsius": ("edge_device_temperature_celsius", "Hottest thermal zone."),
    "throttled": ("edge_device_throttled", "1 when the board slows itself down."),
    "load_ms": ("edge_device_load_milliseconds", "Time to load the active point."),
    "worker_restarts": ("edge_device_worker_restarts", "Restarts of the worker."),
}
_COSTS = {
    "bytes_offered": "offered",
    "bytes_received": "received",
    "bytes_reused": "reused",
    "bytes_saved_recipes": "saved_recipes",
    "bytes_saved_delta": "saved_delta",
    "bytes_written": "written",
}


class FleetCollector(Collector):
    """Turns the fleet's present state into metric families.

    Args:
        context: the application's.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def describe(self) -> Iterable[Metric]:
        """Nothing is promised in advance: registering must not read the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every family, from one reading of the database."""
        devices = self._context.fleet.devices()
        yield from _server_families(self._context)
        yield from _device_families(devices)
        yield from _sample_families(devices)


def _server_families(context: Context) -> Iterator[Metric]:
    connected = GaugeMetricFamily("edge_broker_connected", "1 when the broker is reachable.")
    connected.add_metric([], float(context.broker_connected()))
    yield connected
    active = GaugeMetricFamily("edge_rollouts_active", "Rollouts that have not ended.")
    newest = context.fleet.rolling.rollouts(1)  # no other can be active
    active.add_metric([], sum(rollout.state not in ENDED for rollout in newest))
    yield active
    for rollout in newest:
        yield from cost_families(rollout)
    for name, value in context.counters().items():
        yield CounterMetricFamily(f"edge_{name}", f"{name.replace('_', ' ')}.", value=value)


def cost_families(rollout: RolloutInfo) -> Iterator[Metric]:
    """What the newest rollout has cost all its devices together."""
    costs = added(rollout.members)
    size = GaugeMetricFamily(
        "edge_rollout_bytes",
        "Bytes of the newest rollout, all devices together; docs/ota.md says what each kind is.",
        labels=["rollout", "kind"],
    )
    for field, kind in _COSTS.items():
        size.add_metric([rollout.id, kind], getattr(costs, field))
    yield size
    retries = GaugeMetricFamily(
        "edge_rollout_chunk_retries", "Chunks asked for again.", labels=["rollout"]
    )
    retries.add_metric([rollout.id], costs.chunk_retries)
    yield retries
    seconds = GaugeMetricFamily(
        "edge_rollout_phase_seconds",
        "Time spent in a phase, all devices together.",
        labels=["rollout", "phase"],
    )
    for phase, spent_s in costs.seconds_in.items():
        seconds.add_metric([rollout.id, phase], spent_s)
    yield seconds


def _device_families(devices: list[DeviceInfo]) -> Iterator[Metric]:
    online = GaugeMetricFamily(
        "edge_device_online", "1 when connected and heard of lately.", labels=["device"]
    )
    info = GaugeMetricFamily(
        "edge_device_info",
        "What a device runs; always 1.",
        labels=["device", "profile", "release", "version", "runtime", "phase"],
    )
    accuracy = GaugeMetricFamily(
        "edge_device_accuracy_ratio",
        "Share of labelled frames decided correctly since the version started.",
        labels=["device"],
    )
    for device in devices:
        online.add_metric([device.id], float(device.online))
        about = (device.profile, device.release, device.version, device.runtime, device.phase)
        info.add_metric([device.id, *about], 1)
        if device.accuracy is not None:
            accuracy.add_metric([device.id], device.accuracy)
    yield from (online, info, accuracy)


def _sample_families(devices: list[DeviceInfo]) -> Iterator[Metric]:
    samples = [(device.id, device.telemetry) for device in devices]
    for field, (name, text) in _SAMPLE_GAUGES.items():
        family = GaugeMetricFamily(name, text, labels=["device"])
        for device_id, sample in samples:
            value = getattr(sample, field) if sample is not None else None
            if value is not None:
                family.add_metric([device_id], float(value))
        yield family
    ladder = GaugeMetricFamily(
        "edge_device_ladder_index", "Operating point; 0 is the most accurate.", labels=["device"]
    )
    for device_id, sample in samples:
        if sample is not None and sample.ladder is not None:
            ladder.add_metric([device_id], sample.ladder.index)
    yield ladder
    each = GaugeMetricFamily(
        "edge_pipeline_ladder_index",
        "Operating point of each of several pipelines; 0 is the most accurate.",
        labels=["device", "pipeline"],
    )
    for device_id, sample in samples:
        for name, position in positions(sample).items():
            if name:
                each.add_metric([device_id, name], position.index)
    yield each


async def scrape(request: Request) -> Response:
    """The metrics page."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FleetCollector(request.app.state.context))
    text = await to_thread.run_sync(generate_latest, registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)

"""Builds an agent from its configuration and runs it until a signal."""

from __future__ import annotations

import fcntl
import importlib.util
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec
import psutil

from agent.adapt.policy import GovernorPolicy, fitted
from agent.adapt.steering import Steering
from agent.adapt.trace import TraceFile
from agent.config import AUTO, AgentConfig, load_config
from agent.joint import JointHost
from agent.link.http import HttpFetcher
from agent.link.mqtt import MqttLink
from agent.notify import Notifier
from agent.pipelines.config import PipelineConfig
from agent.sense.device import DeviceSensors
from agent.sense.processes import Processes
from agent.sense.sensors import Sensors
from agent.service import ModelService
from agent.status import StatusSocket
from agent.stream import Stream
from agent.supervisor import Supervisor
from agent.update.limits import MirrorLimits
from agent.update.mirror import Mirror
from agent.update.store import PieceStorage
from agent.update.trust import Device
from agent.update.updater import Updater
from agent.worker.handle import WorkerHandle
from agent.worker.protocol import WorkerSpec
from edge_sdk.bundle.trust import load_trust
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.topics import Topics
from edge_sdk.contracts.update import DeviceState
from edge_sdk.durable import DiskStorage, storage_error
from edge_sdk.errors import ProfileError, StorageError
from edge_sdk.tls import TlsFiles, client_context

LOG = logging.getLogger(__name__)

INTERRUPTED = 128 + signal.SIGINT


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds from an arbitrary start."""
        return time.monotonic()


def process_environment() -> Mapping[str, str]:
    """The environment, read when asked."""
    return dict(os.environ)


def run_agent(
    path: Path,
    *,
    verbose: bool,
    announce: Callable[[str, str], None],
    storage: PieceStorage | None = None,
) -> int:
    """Run until SIGTERM (exit code 0, what a service manager sends) or SIGINT (130).

    Args:
        path: the configuration file.
        verbose: log details.
        announce: told device id and profile when everything is built.
        storage: durable writes; the real disk unless a test cuts the power.
    """
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    environment = process_environment()
    config = load_config(path, environment)
    profile = resolve_profile(config)
    with _exclusive(Path(config.state_dir)):
        supervisor = build(config, profile, environment, storage or DiskStorage())
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        stopping: list[int] = []
        signal.set_wakeup_fd(wake_write)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda received, _frame: stopping.append(received))
        announce(config.device_id, profile)
        supervisor.run(lambda: bool(stopping), wake_read)
    return INTERRUPTED if stopping[0] == signal.SIGINT else 0


def _fetcher(limits: MirrorLimits, clock: SystemClock) -> HttpFetcher:
    files = TlsFiles(Path(limits.ca) if limits.ca else None)
    return HttpFetcher(lambda: client_context(files, clock.now()), limits.timeout_s)


def resolve_profile(config: AgentConfig) -> str:
    """The configured profile, or the detected one for ``auto``.

    Raises:
        ProfileError: unknown, or ``profile.not-detected``.
    """
    from device_profiles.loader import load_profile
    from device_profiles.probe import probe

    if config.profile != AUTO:
        return load_profile(config.profile).id
    found = probe(Path(config.sensors_root)).profile
    if found is None:
        raise ProfileError(
            "not-detected",
            "This board matches no device profile.",
            "Name one as profile in the agent's configuration; `edge profile list` shows them.",
        )
    return found


def build(
    config: AgentConfig, profile: str, environment: Mapping[str, str], storage: PieceStorage
) -> Supervisor:
    """Wire the parts of an agent together; starts nothing.

    Raises:
        ConfigError: ``config.governor-temperature``.
    """
    from device_profiles.loader import load_profile

    governor = fitted(config.governor, load_profile(profile).thermal)
    clock = SystemClock()
    device = Device(config.device_id, profile, installed_runtimes())
    sensors = Sensors(Path(config.sensors_root))
    gone = DeviceState(device_id=config.device_id, online=False, profile=profile)
    will = (Topics(config.tenant).state(config.device_id), encode(gone))
    link = MqttLink(config.broker, f"{config.tenant}-{config.device_id}", will)
    host = JointHost()
    streams = [
        _stream(config, pipeline, governor, device, clock, link, host)
        for pipeline in config.pipelines
    ]
    supervisor = Supervisor(
        config=config,
        device=device,
        clock=clock,
        link=link,
        sense=sensors.read,
        streams=streams,
        process_rss_mib=rss_mib,
        notifier=Notifier(environment),
        status=StatusSocket(Path(config.runtime_dir)),
    )
    updater = Updater(
        device=device,
        topics=Topics(config.tenant),
        state_dir=Path(config.state_dir),
        trust=load_trust(Path(config.trust)),
        storage=storage,
        limits=config.update,
        mirror=Mirror(_fetcher(config.mirror, clock), clock, config.mirror),
        objective_ms=_strictest_ms(config.pipelines),
        link=link,
        host=host,
        sensors=DeviceSensors(
            sensors,
            Path(config.state_dir),
            lambda: sum(stream.own_cpu_percent for stream in streams),
        ),
        clock=clock,
        report=supervisor.report,
        greeted=supervisor.on_greeting,
    )
    host.join({stream.config.name: stream.service for stream in streams}, updater)
    supervisor.join(updater)
    return supervisor


def _stream(
    config: AgentConfig,
    pipeline: PipelineConfig,
    governor: GovernorPolicy,
    device: Device,
    clock: SystemClock,
    link: MqttLink,
    host: JointHost,
) -> Stream:
    """One pipeline with its workers' owner."""
    stream = Stream(
        config=pipeline,
        policy=governor,
        device=device,
        topics=Topics(config.tenant),
        clock=clock,
        publish=link.publish,
        steering=Steering(governor, _recorder(config, pipeline, device.profile_id, clock)),
        own_cpu_percent=Processes().cpu_percent,
        host=host,
    )
    template = WorkerSpec(
        mode="serve",
        manifest="",
        blobs="",
        profile=device.profile_id,
        pipeline=pipeline,
        threads=config.threads,
        runtimes=device.runtimes,
    )
    stream.join(ModelService(template, WorkerHandle.spawn, clock, stream))
    return stream


def _recorder(
    config: AgentConfig, pipeline: PipelineConfig, profile: str, clock: SystemClock
) -> TraceFile | None:
    """The pipeline's trace; among several each has a file of its own."""
    if not config.trace.path:
        return None
    path = Path(config.trace.path)
    if len(config.pipelines) > 1:
        path = path.with_name(f"{path.stem}-{pipeline.name}{path.suffix}")
    trace = msgspec.structs.replace(config.trace, path=str(path))
    return TraceFile(
        trace,
        config.device_id,
        profile,
        clock.now,
        pipeline=pipeline.name,
        priority=pipeline.priority,
    )


def _strictest_ms(pipelines: Sequence[PipelineConfig]) -> float:
    """The objective that a release on trial is held to; 0 for none.

    Latencies of all pipelines are judged together, so that the strictest one counts.
    """
    return min((one.objective_ms for one in pipelines if one.objective_ms), default=0.0)


def installed_runtimes() -> tuple[str, ...]:
    """Runtimes whose package is present, without importing any: they cost tens of MiB each."""
    packages = {
        "litert": ("ai_edge_litert", "tflite_runtime"),
        "onnxruntime": ("onnxruntime",),
    }
    return tuple(
        name for name, found in packages.items() if any(map(importlib.util.find_spec, found))
    )


def rss_mib(pid: int | None) -> float:
    """Resident memory of a process, None for this one; 0.0 when it is gone."""
    try:
        return round(psutil.Process(pid).memory_info().rss / 2**20, 1)
    except psutil.Error:
        return 0.0


def _exclusive(folder: Path) -> IO[str]:
    """Hold the state folder's lock for as long as the returned file is open."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / "lock").open("a")
    except OSError as error:
        raise storage_error(error, folder) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise StorageError(
            "already-running",
            f"Another agent uses {folder}.",
            "Stop it first, or give this one a state_dir of its own.",
        ) from error
    return handle

"""The agent's configuration: one TOML file, every field described, unknown keys refused.

Paths in the file are relative to the file's own folder, and absolute once loaded. Folders that are
not set follow systemd's ``STATE_DIRECTORY`` and ``RUNTIME_DIRECTORY``, then ``/var/lib`` and
``/run`` for root, then the XDG base directories.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from agent.adapt.policy import GovernorPolicy
from agent.adapt.trace import TraceConfig
from agent.pipelines.config import PipelineConfig
from agent.sound.config import DEVICES, STDIN
from agent.update.limits import MirrorLimits, UpdateLimits
from edge_sdk.contracts.base import Config, convert_config
from edge_sdk.contracts.topics import check_name
from edge_sdk.delivery.windows import parse_window
from edge_sdk.errors import ConfigError
from edge_sdk.tls import TlsFiles

NAME = "edge-agent"
MAX_CONFIG_BYTES = 256 * 1024
AUTO = "auto"
"""The profile name that asks for the board to be detected."""
MAX_PIPELINES = 16
"""Each has a worker process of its own."""


class BrokerConfig(Config, kw_only=True):
    """The MQTT broker."""

    host: Annotated[str, Meta(min_length=1, description="Name or address of the broker.")] = (
        "localhost"
    )
    port: Annotated[int, Meta(ge=1, le=65535, description="TCP port; 8883 is usual with TLS.")] = (
        1883
    )
    username: Annotated[str, Meta(description="User name; empty for none.")] = ""
    password_file: Annotated[str, Meta(description="File that holds the password.")] = ""
    tls_ca: Annotated[
        str, Meta(description="CA certificates (PEM) the broker must be signed by; turns TLS on.")
    ] = ""
    tls_cert: Annotated[str, Meta(description="Client certificate (PEM) for mutual TLS.")] = ""
    tls_key: Annotated[str, Meta(description="Private key (PEM) of the client certificate.")] = ""
    keepalive_s: Annotated[
        int, Meta(ge=5, le=3600, description="Seconds of silence before a ping.")
    ] = 30


class AgentConfig(Config, kw_only=True):
    """Everything ``edge-agent`` needs to know."""

    device_id: Annotated[str, Meta(description="This device's name in the fleet.")]
    tenant: Annotated[str, Meta(description="The fleet's topic prefix.")] = "edge"
    profile: Annotated[
        str, Meta(min_length=1, description="Device profile; 'auto' detects the board.")
    ] = AUTO
    state_dir: Annotated[
        str, Meta(description="Blobs, slots and the state file; survives a reboot.")
    ] = ""
    runtime_dir: Annotated[
        str, Meta(description="The unix socket of `edge-agent status`; may vanish at reboot.")
    ] = ""
    trust: Annotated[str, Meta(min_length=1, description="The keys releases are signed by.")] = (
        "trust.json"
    )
    broker: BrokerConfig = BrokerConfig()
    pipelines: Annotated[
        tuple[PipelineConfig, ...],
        Meta(
            min_length=1,
            max_length=MAX_PIPELINES,
            description="A table [pipeline], or several [[pipeline]]; the most important first "
            "once loaded.",
        ),
    ] = msgspec.field(name="pipeline")
    governor: GovernorPolicy = GovernorPolicy()
    trace: TraceConfig = TraceConfig()
    update: UpdateLimits = UpdateLimits()
    mirror: MirrorLimits = MirrorLimits()
    sensors_root: Annotated[
        str, Meta(min_length=1, description="Folder that /proc and /sys are read under.")
    ] = "/"
    telemetry_interval_s: Annotated[
        float, Meta(ge=0.2, le=3600, description="Seconds between telemetry samples.")
    ] = 10.0
    threads: Annotated[
        int, Meta(ge=0, le=64, description="Inference threads; 0 uses the release's own number.")
    ] = 0


def load_config(
    path: Path, environment: Mapping[str, str], *, root: bool | None = None
) -> AgentConfig:
    """Read, check and complete a configuration file.

    Args:
        path: the TOML file.
        environment: the process environment, for default folders.
        root: whether to use the system's folders; None asks the operating system.

    Raises:
        ConfigError: ``config.missing-file``, ``config.unreadable``, ``config.malformed``,
            ``config.unknown-key``, ``config.invalid``, ``config.bad-name``,
            ``config.same-name``, ``config.same-pipe``, ``config.source-incomplete``,
            ``config.tls-incomplete`` or ``config.no-home``.
    """
    data = _parse(path)
    if isinstance(lone := data.get("pipeline"), dict):
        convert_config(lone, PipelineConfig, f"{path} [pipeline]")
        data["pipeline"] = [lone]
    config: AgentConfig = convert_config(data, AgentConfig, str(path))
    _check(config, path)
    if not (config.state_dir and config.runtime_dir):
        is_root = os.geteuid() == 0 if root is None else root
        state, runtime = default_folders(environment, root=is_root)
        config = msgspec.structs.replace(
            config,
            state_dir=config.state_dir or state,
            runtime_dir=config.runtime_dir or runtime,
        )
    return _resolve(config, path.absolute().parent)


def default_folders(environment: Mapping[str, str], *, root: bool) -> tuple[str, str]:
    """``(state_dir, runtime_dir)`` for an agent whose configuration names none.

    Raises:
        ConfigError: ``config.no-home``.
    """
    if root:
        state, runtime = f"/var/lib/{NAME}", f"/run/{NAME}"
    else:
        state, runtime = _xdg_folders(environment)
    # systemd passes a colon-separated list; the first entry is the unit's own folder.
    state = environment.get("STATE_DIRECTORY", "").split(":")[0] or state
    runtime = environment.get("RUNTIME_DIRECTORY", "").split(":")[0] or runtime
    if not state:
        raise ConfigError(
            "no-home",
            "There is no home folder to keep the agent's state in (HOME is not set).",
            "Set state_dir in the configuration, or run the agent from its systemd unit.",
        )
    return state, runtime or f"{state}/run"


def _xdg_folders(environment: Mapping[str, str]) -> tuple[str, str]:
    """The XDG base directories, which say that a relative path counts as not set."""
    home = environment.get("HOME", "")
    state = environment.get("XDG_STATE_HOME", "")
    if not state.startswith("/"):
        state = f"{home}/.local/state" if home.startswith("/") else ""
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    return (
        f"{state}/{NAME}" if state else "",
        f"{runtime}/{NAME}" if runtime.startswith("/") else "",
    )


def read_password(broker: BrokerConfig) -> str | None:
    """The broker password, without the newline that editors add; None where none is set.

    Raises:
        ConfigError: ``config.password-file``.
    """
    if not broker.password_file:
        return None
    try:
        with Path(broker.password_file).open("rb") as handle:
            return handle.read(4096).decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "password-file",
            f"Cannot read the broker password from {broker.password_file}: {error}.",
            "Check broker.password_file and that the agent's user may read it.",
        ) from error


def tls_files(broker: BrokerConfig) -> TlsFiles:
    """The PEM files of a broker that is reached by TLS."""

    def path(value: str) -> Path | None:
        return Path(value) if value else None

    return TlsFiles(path(broker.tls_ca), path(broker.tls_cert), path(broker.tls_key))


def _parse(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as handle:
            data = handle.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(
            "missing-file",
            f"There is no configuration file {path}.",
            "Name one with --config; docs/agent-config.md has one to start from.",
        ) from None
    except OSError as error:
        raise ConfigError(
            "unreadable",
            f"Cannot read {path}: {error.strerror or error}.",
            "Check that it is a file and that this user may read it.",
        ) from error
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError(
            "malformed",
            f"{path} is larger than {MAX_CONFIG_BYTES // 1024} KiB.",
            "This is probably not the agent's configuration; check --config.",
        )
    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        last_line = data.count(b"\n") + 1
        problem = str(error).replace("at end of document", f"at line {last_line}, the last")
        raise ConfigError(
            "malformed",
            f"{path} is not valid TOML: {problem}.",
            "Correct the line named above; docs/agent-config.md shows the format.",
        ) from error


def _check(config: AgentConfig, path: Path) -> None:
    """What the types cannot say."""
    check_name(config.device_id, "device_id")
    check_name(config.tenant, "tenant")
    for pipeline in config.pipelines:
        _check_pipeline(pipeline, path)
    names = [pipeline.name for pipeline in config.pipelines]
    if same := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            "same-name",
            f"{path}: more than one pipeline is named {same[0]!r}.",
            "Give each [[pipeline]] a name of its own; results are published under it.",
        )
    pipes = [one.source.path for one in config.pipelines if one.source.kind == "pipe"]
    if same := sorted({pipe for pipe in pipes if pipes.count(pipe) > 1}):
        raise ConfigError(
            "same-pipe",
            f"{path}: more than one pipeline hears the pipe {same[0]!r}; each would get parts of "
            "the sound.",
            "Give each a pipe of its own, e.g. with tee.",
        )
    for window in config.update.windows:
        parse_window(window)
    broker = config.broker
    if bool(broker.tls_cert) != bool(broker.tls_key) or (broker.tls_cert and not broker.tls_ca):
        raise ConfigError(
            "tls-incomplete",
            f"{path}: tls_cert, tls_key and tls_ca belong together in [broker].",
            "Set all three for mutual TLS, or tls_ca alone to check the broker only.",
        )


def _check_pipeline(pipeline: PipelineConfig, path: Path) -> None:
    check_name(pipeline.name, "pipeline.name")
    source = pipeline.source
    if source.kind not in DEVICES and not source.path:
        raise ConfigError(
            "source-incomplete",
            f"{path}: a {source.kind} source needs a path.",
            "Set path in [pipeline.source].",
        )


def _resolve(config: AgentConfig, folder: Path) -> AgentConfig:
    """The same configuration with absolute paths, the most important pipeline first."""

    def absolute(value: str) -> str:
        return str(folder / Path(value).expanduser()) if value else ""

    replace = msgspec.structs.replace
    broker = config.broker

    def resolved(pipeline: PipelineConfig) -> PipelineConfig:
        source = pipeline.source
        path = source.path if source.path == STDIN else absolute(source.path)
        sound = replace(pipeline.sound, clips=absolute(pipeline.sound.clips))
        found = replace(source, path=path, labels=absolute(source.labels))
        return replace(pipeline, source=found, sound=sound)

    return replace(
        config,
        state_dir=absolute(config.state_dir),
        runtime_dir=absolute(config.runtime_dir),
        trust=absolute(config.trust),
        sensors_root=absolute(config.sensors_root),
        trace=replace(config.trace, path=absolute(config.trace.path)),
        mirror=replace(config.mirror, ca=absolute(config.mirror.ca)),
        broker=replace(
            broker,
            password_file=absolute(broker.password_file),
            tls_ca=absolute(broker.tls_ca),
            tls_cert=absolute(broker.tls_cert),
            tls_key=absolute(broker.tls_key),
        ),
        pipelines=tuple(
            resolved(pipeline)
            for pipeline in sorted(config.pipelines, key=lambda one: -one.priority)
        ),
    )

"""``edge-agent doctor``: what this device has, what it lacks, and what to do about it."""

from __future__ import annotations

import importlib.util
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from agent.config import AgentConfig, load_config
from agent.link.reach import check_broker
from agent.pipelines.config import PipelineConfig, SourceConfig
from agent.run import installed_runtimes, process_environment, resolve_profile
from agent.sound.config import SOUND_KINDS
from agent.worker.lean import is_compiled
from edge_sdk.bundle.trust import load_trust
from edge_sdk.errors import EdgeError, RuntimeUnavailableError, SourceError, StorageError

MIN_FREE_MIB = 64


@dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    ok: bool
    detail: str
    hint: str = ""

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return asdict(self)


def examine(path: Path) -> list[Check]:
    """Every check that can be made; the configuration's own failure ends the list."""
    try:
        config = load_config(path, process_environment())
    except EdgeError as error:
        return [Check("configuration", False, error.cause, error.hint)]
    return [Check("configuration", True, str(path)), *_checks(config)]


def _checks(config: AgentConfig) -> Iterator[Check]:
    checks: tuple[tuple[str, Callable[[AgentConfig], str]], ...] = (
        ("profile", resolve_profile),
        ("runtimes", _runtimes),
        ("workers", _workers),
        ("state folder", _state_folder),
        ("trust", _trust),
        *((_source_name(config, one), partial(_source, one)) for one in config.pipelines),
        ("broker", _broker),
    )
    for name, check in checks:
        try:
            yield Check(name, True, check(config))
        except EdgeError as error:
            yield Check(name, False, error.cause, error.hint)


def _runtimes(_config: AgentConfig) -> str:
    from edge_sdk.runtime.negotiate import available

    if not installed_runtimes():
        raise RuntimeUnavailableError(
            "none-installed",
            "No inference runtime is installed.",
            "pip install 'edge-sdk[litert]' or pip install 'edge-sdk[onnx]'",
        )
    found = {**available("tflite"), **available("onnx")}
    return "; ".join(f"{name} {state}" for name, state in found.items())


def _workers(_config: AgentConfig) -> str:
    if is_compiled():
        return "without docstrings"
    return "with docstrings; `edge-agent compile` spares each of them 2 MiB"


def _state_folder(config: AgentConfig) -> str:
    folder = Path(config.state_dir)
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free_mib = shutil.disk_usage(existing).free // 2**20
    if free_mib < MIN_FREE_MIB:
        raise StorageError(
            "disk-full",
            f"Only {free_mib} MiB are free for {folder}.",
            f"Free at least {MIN_FREE_MIB} MiB, or move state_dir.",
        )
    return f"{folder}, {free_mib} MiB free"


def _trust(config: AgentConfig) -> str:
    root = load_trust(Path(config.trust))
    return (
        f"{root.release_threshold} of {len(root.release_keys)} release keys, "
        f"{len(root.fleet_keys)} fleet keys"
    )


def _source_name(config: AgentConfig, pipeline: PipelineConfig) -> str:
    return "source" if len(config.pipelines) == 1 else f"source of {pipeline.name}"


def _source(pipeline: PipelineConfig, _config: AgentConfig) -> str:
    source = pipeline.source
    if source.kind in SOUND_KINDS:
        return _sound_source(source)
    if source.kind != "frames" and importlib.util.find_spec("cv2") is None:
        raise SourceError(
            "extra-missing",
            f"A {source.kind} source needs OpenCV, which is not installed.",
            "pip install 'edge-sdk[vision]'",
        )
    if source.kind != "camera" and not Path(source.path).is_file():
        raise SourceError(
            "missing-file",
            f"There is no file {source.path}.",
            "Correct pipeline.source.path.",
        )
    return f"{source.kind} {source.device if source.kind == 'camera' else source.path}"


def _sound_source(source: SourceConfig) -> str:
    from agent.sound.check import check_sound

    return check_sound(source)


def _broker(config: AgentConfig) -> str:
    return check_broker(config.broker, config.tenant, config.device_id, time.time())

"""The agent's configuration file: what is accepted, completed and refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import AgentConfig, BrokerConfig, default_folders, load_config, read_password
from agent.pipelines.config import PipelineConfig, PublishConfig, SourceConfig
from agent.update.limits import MirrorLimits
from edge_sdk.errors import ConfigError

SMALLEST = """
device_id = "pi-7"
[pipeline.source]
kind = "camera"
"""


def load(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> AgentConfig:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    return load_config(path, environment or {"HOME": "/home/pi"}, root=False)


def refusal(tmp_path: Path, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert str(tmp_path / "agent.toml") in caught.value.cause or "name" in caught.value.cause
    return caught.value


def test_the_smallest_file_is_completed(tmp_path: Path) -> None:
    config = load(tmp_path, SMALLEST)
    assert (config.tenant, config.profile, config.broker.port) == ("edge", "auto", 1883)
    assert config.state_dir == "/home/pi/.local/state/edge-agent"
    assert config.runtime_dir == "/home/pi/.local/state/edge-agent/run"
    assert config.trust == str(tmp_path / "trust.json")
    assert config.sensors_root == "/"
    assert config.pipelines[0].source.path == config.broker.tls_ca == ""


TWO = """
device_id = "pi-7"
[[pipeline]]
name = "yard"
[pipeline.source]
kind = "video"
path = "yard.avi"
[[pipeline]]
name = "door"
priority = 2
[pipeline.source]
kind = "camera"
"""


def test_several_pipelines_come_the_most_important_first(tmp_path: Path) -> None:
    config = load(tmp_path, TWO)
    assert [pipeline.name for pipeline in config.pipelines] == ["door", "yard"]
    assert config.pipelines[1].source.path == str(tmp_path / "yard.avi")
    equal = load(tmp_path, TWO.replace("priority = 2", ""))
    assert [pipeline.name for pipeline in equal.pipelines] == ["yard", "door"]


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        device_id = "pi-7"
        state_dir = "state"
        runtime_dir = "/run/mine"
        trust = "../keys/trust.json"
        sensors_root = "fake"
        [broker]
        password_file = "secret"
        tls_ca = "ca.pem"
        tls_cert = "c.pem"
        tls_key = "k.pem"
        [pipeline.source]
        kind = "video"
        path = "stream.avi"
        labels = "stream.json"
        """,
    )
    assert config.state_dir == str(tmp_path / "state") and config.runtime_dir == "/run/mine"
    assert config.trust == str(tmp_path / "../keys/trust.json")
    assert config.sensors_root == str(tmp_path / "fake")
    assert config.broker.password_file == str(tmp_path / "secret")
    assert config.broker.tls_key == str(tmp_path / "k.pem")
    assert config.pipelines[0].source.path == str(tmp_path / "stream.avi")
    assert config.pipelines[0].source.labels == str(tmp_path / "stream.json")


@pytest.mark.parametrize(
    ("environment", "root", "state", "runtime"),
    [
        ({}, True, "/var/lib/edge-agent", "/run/edge-agent"),
        ({"HOME": "/h"}, False, "/h/.local/state/edge-agent", "/h/.local/state/edge-agent/run"),
        (
            {"HOME": "/h", "XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "/r"},
            False,
            "/s/edge-agent",
            "/r/edge-agent",
        ),
        (
            {"HOME": "/h", "XDG_STATE_HOME": "relative", "XDG_RUNTIME_DIR": "relative"},
            False,
            "/h/.local/state/edge-agent",
            "/h/.local/state/edge-agent/run",
        ),
        (
            {"STATE_DIRECTORY": "/var/lib/private/a:/var/lib/b", "RUNTIME_DIRECTORY": "/run/a"},
            False,
            "/var/lib/private/a",
            "/run/a",
        ),
        ({"STATE_DIRECTORY": "/sd"}, True, "/sd", "/run/edge-agent"),
    ],
)
def test_default_folders(environment: dict[str, str], root: bool, state: str, runtime: str) -> None:
    assert default_folders(environment, root=root) == (state, runtime)


def test_without_a_home_the_state_folder_must_be_named() -> None:
    with pytest.raises(ConfigError) as caught:
        default_folders({}, root=False)
    assert caught.value.code == "config.no-home"


@pytest.mark.parametrize(
    ("text", "code", "clue"),
    [
        (SMALLEST.replace("device_id", "device-id"), "config.unknown-key", "device_id"),
        (SMALLEST + "fsp = 3", "config.unknown-key", "fps"),
        (SMALLEST + "[broker]\nhots = 'x'", "config.unknown-key", "host"),
        (SMALLEST + "[governer]", "config.unknown-key", "governor"),
        ("device_id = ", "config.malformed", "line 1"),
        (SMALLEST + "\n\nx = [1,", "config.malformed", "line 7"),
        ("[pipeline.source]\nkind='camera'", "config.invalid", "device_id"),
        (SMALLEST.replace("camera", "lidar"), "config.invalid", "lidar"),
        (SMALLEST.replace("camera", "vidoe"), "config.invalid", "'video'"),
        ("[pipeline.source]\nkind='camera'", "config.invalid", "Add the key"),
        (SMALLEST + "fps = -1", "config.invalid", "fps"),
        (SMALLEST + "[broker]\nport = 70000", "config.invalid", "port"),
        (SMALLEST.replace("pi-7", "a/b"), "config.bad-name", "a/b"),
        ("tenant = '../x'\n" + SMALLEST, "config.bad-name", "../x"),
        (SMALLEST.replace("camera", "video"), "config.source-incomplete", "path"),
        (SMALLEST.replace("camera", "frames"), "config.source-incomplete", "path"),
        (TWO.replace("door", "yard"), "config.same-name", "yard"),
        (TWO + "fsp = 3", "config.unknown-key", "fps"),
        (TWO.replace("camera", "vidoe"), "config.invalid", "'video'"),
        (TWO.replace("yard.avi", ""), "config.source-incomplete", "path"),
        (TWO.replace('"door"', '"a/b"'), "config.bad-name", "a/b"),
        ("pipeline = []\ndevice_id = 'd'", "config.invalid", "pipeline"),
        ("pipeline = 3\ndevice_id = 'd'", "config.invalid", "pipeline"),
        (SMALLEST + "[broker]\ntls_cert = 'c'", "config.tls-incomplete", "tls_key"),
        (SMALLEST + "[broker]\ntls_cert='c'\ntls_key='k'", "config.tls-incomplete", "tls_ca"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, code: str, clue: str) -> None:
    error = refusal(tmp_path, text)
    assert error.code == code
    assert clue in error.cause + error.hint


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "none.toml", {}, root=True)
    assert caught.value.code == "config.missing-file" and "--config" in caught.value.hint
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path, {}, root=True)
    assert caught.value.code == "config.unreadable"
    huge = tmp_path / "huge.toml"
    huge.write_text("#" * 300_000)
    with pytest.raises(ConfigError) as caught:
        load_config(huge, {}, root=True)
    assert caught.value.code == "config.malformed"


@given(st.binary(max_size=200) | st.text(max_size=80).map(str.encode))
def test_any_file_is_a_configuration_or_a_named_error(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "agent.toml"
        path.write_bytes(data)
        with pytest.raises(ConfigError):
            load_config(path, {}, root=True)


def test_the_password_loses_its_newline_only(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b" pass word \r\n")
    assert read_password(BrokerConfig(password_file=str(secret))) == " pass word "
    assert read_password(BrokerConfig()) is None
    with pytest.raises(ConfigError) as caught:
        read_password(BrokerConfig(password_file=str(tmp_path / "none")))
    assert caught.value.code == "config.password-file"


STRUCTS = (AgentConfig, BrokerConfig, MirrorLimits, PipelineConfig, PublishConfig, SourceConfig)


@pytest.mark.parametrize(
    ("kind", "field"),
    [(kind, field.encode_name) for kind in STRUCTS for field in msgspec.structs.fields(kind)],
)
def test_every_field_is_described_here_and_in_the_documentation(kind: type, field: str) -> None:
    section = _struct(next(f.type for f in msgspec.structs.fields(kind) if f.encode_name == field))
    schema = msgspec.json.schema_components([kind])[1][kind.__name__]["properties"][field]
    page = (Path(__file__).parents[3] / "docs" / "agent-config.md").read_text()
    if section:
        assert f"{field}]" in page
    else:
        assert schema.get("description"), schema
        assert f"`{field}`" in page


def _struct(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, msgspec.Struct)


def test_the_documented_example_loads(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "agent-config.md").read_text()
    blocks = [
        "".join(lines)
        for fenced, lines in itertools.groupby(page.splitlines(keepends=True), key=_Fence().inside)
        if fenced
    ]
    assert blocks
    for block in blocks:
        load(tmp_path, block)


class _Fence:
    """Follows ```toml fences through a page."""

    def __init__(self) -> None:
        self._open = False

    def inside(self, line: str) -> bool:
        if line.startswith("```"):
            self._open = line.startswith("```toml")
            return False
        return self._open

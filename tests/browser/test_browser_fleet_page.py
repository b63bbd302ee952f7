"""The fleet's page in a real Chromium: what it shows, that it refreshes, that it blocks nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from edge_sdk.contracts.update import Phase
from tests.fakes.brokers import running_broker
from tests.fakes.fleet import PahoDevice, RunningServer, device_trust, write_release
from tests.fakes.updating import tiny_release

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A fleet of two, of which one has refused version 2."""
    folder = tmp_path_factory.mktemp("page")
    with running_broker("amqtt", folder / "broker") as broker:
        running = RunningServer(folder / "data", broker.url)
        devices = []
        try:
            with running.client() as client:
                for version in ("1", "2"):
                    release = tiny_release(version)
                    client.publish_release(write_release(release, folder / f"v{version}"))
                for name in ("cam-calm", "cam-picky"):
                    client.enroll(name, "rpi4")
                    devices.append(
                        PahoDevice(
                            broker.port, name, device_trust(client), verdict=_verdict_of(name)
                        )
                    )
                for version in ("1", "2"):
                    client.create_rollout("digits", version, canary=1)
                    _until(lambda: client.rollout().state in ("done", "failed"))
                devices[0].telemetry(
                    frames=50, labelled=50, correct=48, latency_p50_ms=1.25, latency_p95_ms=2.5
                )
                _until(lambda: client.device("cam-calm").labelled == 50)
            yield running
        finally:
            for device in devices:
                device.stop()
            running.stop()


def _verdict_of(name: str):  # type: ignore[no-untyped-def]
    refuses = name == "cam-picky"
    return lambda version: Phase.ROLLED_BACK if refuses and version == "2" else Phase.COMMITTED


def _until(check) -> None:  # type: ignore[no-untyped-def]
    import time

    deadline = time.monotonic() + 60
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def browse(server: RunningServer, profile: Path, *options: str, path: str = "/") -> str:
    """The page's DOM once its scripts have run, signed in by the token in the address."""
    assert CHROMIUM is not None
    token = (server.data / "token").read_text().strip()
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update"]
    command += ["--disable-sync", f"--user-data-dir={profile}", "--enable-logging=stderr"]
    address = f"{server.url}{path}" + (f"?token={token}" if path == "/" else "")
    done = subprocess.run(
        [*command, *options, "--dump-dom", address], capture_output=True, text=True, timeout=120
    )
    assert "Content Security Policy" not in done.stderr, done.stderr
    assert "Uncaught" not in done.stderr, done.stderr
    return done.stdout


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


def test_devices_rollout_and_events_are_shown(server: RunningServer, tmp_path: Path) -> None:
    html = browse(server, tmp_path)
    text = text_of(html)
    assert "2 /2 devices online" in text
    assert "cam-picky rolled back" in text
    assert "96.0 %" in text
    assert "1.25 / 2.50 ms" in text
    assert "Published digits 2." in text
    assert "cam-picky: digits 2 rolled back." in text
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.S)
    devices = [text_of(row).split() for row in rows if "dot" in row]
    assert [row[:4] for row in devices] == [
        ["cam-calm", "rpi4", "digits", "2"],
        ["cam-picky", "rpi4", "digits", "1"],
    ]


def test_the_page_refreshes_itself(server: RunningServer, tmp_path: Path) -> None:
    first = text_of(browse(server, tmp_path / "a"))
    assert "cam-new" not in first
    with server.client() as client:
        client.enroll("cam-new", "rpi5")
    # Served before the enrollment and refreshed by the script: the page itself is not asked again.
    late = browse(server, tmp_path / "b", "--virtual-time-budget=6000")
    assert "cam-new" in text_of(late)


def test_without_the_token_the_page_says_what_to_do(server: RunningServer, tmp_path: Path) -> None:
    text = text_of(browse(server, tmp_path, path="/metrics"))
    assert "Access token needed" in text
    assert "cam-calm" not in text


def test_a_name_cannot_smuggle_markup(server: RunningServer, tmp_path: Path) -> None:
    from edge_sdk.contracts.base import encode
    from edge_sdk.contracts.update import DeviceState

    evil = "<img src=x onerror=\"document.title='owned'\">"
    with server.client() as client:
        port = int(client.trust().broker.rsplit(":", 1)[1])
        device = PahoDevice(port, "cam-evil", device_trust(client))
        try:
            _until(lambda: any(d.id == "cam-evil" for d in client.devices()))
            state = DeviceState(device_id="cam-evil", online=True, release=evil, version=evil)
            device.publish("state", encode(state))
            _until(lambda: client.device("cam-evil").release == evil)
            html = browse(server, tmp_path)
        finally:
            device.stop()
    assert "<img" not in html
    assert "owned</title>" not in html
    assert "onerror" in text_of(html)

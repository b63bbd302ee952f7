"""The REST interface over HTTP, from a server whose broker is not there."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from edge_sdk.client.api import FleetClient
from edge_sdk.contracts.fleet import RolloutState
from edge_sdk.errors import (
    ConfigError,
    ContractError,
    LinkError,
    StorageError,
    TrustError,
    UsageError,
)
from tests.fakes.fleet import RunningServer, write_release
from tests.fakes.processes import edge_command, free_port
from tests.fakes.updating import OTHER_KEY, tiny_release


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    data = tmp_path_factory.mktemp("fleet") / "data"
    running = RunningServer(data, f"mqtt://127.0.0.1:{free_port()}")
    yield running
    assert running.stop() == 0


@pytest.fixture
def client(server: RunningServer) -> Iterator[FleetClient]:
    with server.client() as client:
        yield client


@pytest.fixture
def http(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False) as http:
        yield http


def token(server: RunningServer) -> str:
    return (server.data / "token").read_text().strip()


def test_it_runs_without_its_broker_and_says_so(client: FleetClient) -> None:
    health = client.health()
    assert health.ok
    assert not health.broker_connected


@pytest.mark.parametrize(
    "path", ["/api/v1/devices", "/api/v1/trust", "/api/v1/nothing", "/metrics", "/", "/partial"]
)
@pytest.mark.parametrize("header", ["", "Bearer wrong", "Basic abc", "Bearer"])
def test_nothing_is_told_without_the_token(http: httpx.Client, path: str, header: str) -> None:
    answer = http.get(path, headers={"Authorization": header} if header else {})
    assert answer.status_code == 401
    assert "cam" not in answer.text
    if path.startswith("/api"):
        assert answer.json()["error"]["code"] == "link.unauthorised"


def test_a_browser_exchanges_the_token_for_a_cookie(
    server: RunningServer, http: httpx.Client
) -> None:
    assert http.get("/?token=wrong").status_code == 401
    answer = http.get(f"/?token={token(server)}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
    assert token(server) not in cookie
    assert http.get("/").status_code == 200
    assert http.get("/metrics").status_code == 200
    # The cookie opens no door that changes anything.
    assert http.get("/api/v1/devices").status_code == 401
    assert http.post("/api/v1/rollouts", json={}).status_code == 401


def test_pages_forbid_what_they_do_not_need(server: RunningServer, http: httpx.Client) -> None:
    page = http.get("/", headers={"Authorization": f"Bearer {token(server)}"})
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    for host in ("http://", "https://", "//cdn"):
        assert f'src="{host}' not in page.text and f'href="{host}' not in page.text
    for path in ("/static/fleet.css", "/vendor/htmx.min.js"):
        assert http.get(path).status_code == 200


def test_a_release_is_uploaded_once(client: FleetClient, tmp_path: Path) -> None:
    release = tiny_release("1", size=700_000)
    folder = write_release(release, tmp_path / "v1")
    seen: list[str] = []
    info = client.publish_release(folder, seen.append)
    assert (info.name, info.version, info.digest) == ("digits", "1", release.digest)
    assert sorted(seen) == sorted(release.manifest.blobs)
    assert client.publish_release(folder) == info
    assert [r.version for r in client.releases()] == ["1"]
    with pytest.raises(UsageError, match="version-exists"):
        client.publish_release(write_release(tiny_release("1", seed=5), tmp_path / "other"))


def test_a_release_that_does_not_hold_is_refused_before_it_travels(
    client: FleetClient, tmp_path: Path
) -> None:
    folder = write_release(tiny_release("7"), tmp_path / "v7")
    (folder / "envelope.json").unlink()
    with pytest.raises(TrustError, match="unsigned"):
        client.publish_release(folder)
    damaged = write_release(tiny_release("8"), tmp_path / "v8")
    next((damaged / "blobs").iterdir()).write_bytes(b"x")
    with pytest.raises(TrustError, match="blob-damaged"):
        client.publish_release(damaged)
    with pytest.raises(StorageError, match="not-a-release"):
        client.publish_release(tmp_path)
    assert not {"7", "8"} & {r.version for r in client.releases()}


def test_a_cut_upload_is_resumed_by_blob(
    server: RunningServer, client: FleetClient, tmp_path: Path
) -> None:
    release = tiny_release("2", size=400_000)
    folder = write_release(release, tmp_path / "v2")
    digest, data = next(iter(release.blobs.items()))
    address = (server.url.removeprefix("http://").split(":")[0], int(server.url.rsplit(":", 1)[1]))
    with socket.create_connection(address, 10) as half:
        head = (
            f"PUT /api/v1/blobs/{digest} HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {token(server)}\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        half.sendall(head.encode() + data[: len(data) // 2])
    assert client.publish_release(folder).version == "2"
    stored = {path.name for path in (server.data / "blobs").iterdir()}
    assert {name for name in stored if name.endswith(".part")} == set()


def test_errors_come_back_as_they_were_raised(client: FleetClient) -> None:
    with pytest.raises(UsageError, match="unknown-device"):
        client.device("nobody")
    with pytest.raises(UsageError, match="unknown-release"):
        client.create_rollout("digits", "99")
    with pytest.raises(UsageError, match="unknown-rollout"):
        client.rollout("r0-none")
    with pytest.raises(ConfigError, match="bad-name"):
        client.device("no/such name")
    with pytest.raises(ConfigError, match="bad-name"):
        client.enroll("cam-1", "../profile")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/rollouts", b"{", 400, "contract.malformed"),
        ("POST", "/rollouts", b'{"release": 1}', 400, "contract.malformed"),
        ("PUT", "/releases", b"[]", 400, "contract.malformed"),
        ("PUT", "/releases", b"x" * (5 << 20), 413, "contract.too-large"),
        ("PUT", "/devices/a", b"y" * 300_000, 413, "contract.too-large"),
        ("PUT", "/blobs/nonsense", b"", 400, "contract.bad-blob-ref"),
        ("PUT", "/blobs/" + "0" * 64, b"data", 422, "trust.blob-damaged"),
        ("GET", "/events?after=x", b"", 400, "usage.bad-request"),
        ("GET", "/events?after=-1", b"", 400, "usage.bad-request"),
        ("GET", "/events?after=" + "9" * 30, b"", 400, "usage.bad-request"),
        (
            "POST",
            "/rollouts",
            b'{"release":"a","version":"1","canary":%d}' % 2**63,
            400,
            "contract.malformed",
        ),
        ("GET", "/nothing", b"", 404, "usage.no-such-page"),
        ("DELETE", "/devices", b"", 405, "usage.bad-request"),
    ],
)
def test_bad_requests_are_named(
    server: RunningServer,
    http: httpx.Client,
    method: str,
    path: str,
    body: bytes,
    status: int,
    code: str,
) -> None:
    headers = {"Authorization": f"Bearer {token(server)}"}
    answer = http.request(method, "/api/v1" + path, content=body, headers=headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert set(error) == {"code", "cause", "hint"}
    assert server.process is not None and "Traceback" not in server.process.output()


def test_a_rollout_waits_for_devices_without_a_broker(
    server: RunningServer, client: FleetClient, tmp_path: Path
) -> None:
    client.publish_release(write_release(tiny_release("3"), tmp_path / "v3"))
    client.enroll("cam-1", "rpi4")
    info = client.create_rollout("digits", "3", canary=1)
    assert info.state is RolloutState.FULL
    assert client.device("cam-1").desired_version == "3"
    with pytest.raises(UsageError, match="rollout-active"):
        client.create_rollout("digits", "3")
    assert client.pause().paused
    page = httpx.get(client.url, headers={"Authorization": f"Bearer {token(server)}"}).text
    assert "full, paused" in page
    assert not client.resume().paused
    assert client.abort().state is RolloutState.ABORTED
    assert client.device("cam-1").desired_version == ""
    texts = [event.text for event in client.events(0, 1000)]
    assert "Offered digits 3 to cam-1 (desired state 1)." in texts
    assert "Withdrew the offer to cam-1: nothing to go back to." in texts


def test_the_clients_own_troubles(server: RunningServer) -> None:
    with FleetClient(server.url, "wrong") as client, pytest.raises(LinkError, match="unauthorised"):
        client.devices()
    url = f"http://127.0.0.1:{free_port()}"
    with FleetClient(url, "x") as client, pytest.raises(LinkError, match="server-unreachable"):
        client.health()
    for bad in ("", "ftp://x", "127.0.0.1:80"):
        with pytest.raises(ConfigError, match="bad-server-url"):
            FleetClient(bad, "x")


def test_a_server_that_never_answers_times_out() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            FleetClient(url, "x", read_seconds=0.3) as client,
            pytest.raises(LinkError, match="server-timeout"),
        ):
            client.health()


def test_something_else_behind_the_address_is_noticed() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        def answer() -> None:
            for body in (b"hello", b'{"error": 5}'):
                link, _ = other.accept()
                with link:
                    link.recv(65536)
                    status = b"200 OK" if body == b"hello" else b"500 Oops"
                    link.sendall(
                        b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
                        % (status, len(body), body)
                    )

        thread = threading.Thread(target=answer)
        thread.start()
        with FleetClient(f"http://127.0.0.1:{other.getsockname()[1]}", "x") as client:
            for _ in range(2):
                with pytest.raises(LinkError, match="bad-answer"):
                    client.health()
        thread.join(10)


def refuse(*options: str) -> dict[str, str]:
    """The error of a server that cannot start."""
    done = subprocess.run(
        edge_command("server", "run", *options, "--json"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    error: dict[str, str] = json.loads(done.stdout)["error"]
    return error | {"exit": str(done.returncode)}


def test_a_server_that_cannot_start_says_why(server: RunningServer, tmp_path: Path) -> None:
    port = server.url.rsplit(":", 1)[1]
    error = refuse("--data", str(tmp_path / "d"), "--port", port)
    assert (error["code"], error["exit"]) == ("storage.port-in-use", "7")
    assert port in error["cause"]
    assert not (tmp_path / "d").exists()
    error = refuse("--data", str(server.data), "--port", "0")
    assert (error["code"], error["exit"]) == ("storage.data-in-use", "7")
    error = refuse("--data", str(tmp_path / "d"), "--port", "0", "--broker", "localhost")
    assert (error["code"], error["exit"]) == ("config.bad-broker-url", "4")
    error = refuse("--data", str(tmp_path / "d"), "--port", "0", "--tenant", "a/b")
    assert (error["code"], error["exit"]) == ("config.bad-name", "4")
    key = str(tmp_path / "missing.pub")
    error = refuse("--data", str(tmp_path / "d"), "--port", "0", "--release-key", key)
    assert (error["code"], error["exit"]) == ("trust.no-key", "6")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "fleet.db").write_text("no database" * 100)
    error = refuse("--data", str(tmp_path / "bad"), "--port", "0")
    assert (error["code"], error["exit"]) == ("storage.bad-database", "7")


def test_a_server_with_release_keys_takes_only_their_releases(tmp_path: Path) -> None:
    from edge_sdk.bundle.signing import public_pem
    from tests.fakes.updating import RELEASE_KEY

    key = tmp_path / "release.pub"
    key.write_bytes(public_pem(RELEASE_KEY.public))
    broker = f"mqtt://127.0.0.1:{free_port()}"
    server = RunningServer(tmp_path / "data", broker, "--release-key", str(key))
    try:
        with server.client() as client:
            client.publish_release(write_release(tiny_release("1"), tmp_path / "v1"))
            forged = write_release(tiny_release("2", key=OTHER_KEY), tmp_path / "v2")
            with pytest.raises(TrustError, match="untrusted-signer"):
                client.publish_release(forged)
            assert [r.version for r in client.releases()] == ["1"]
    finally:
        server.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_on_signals(tmp_path: Path, number: int) -> None:
    server = RunningServer(tmp_path / "data", f"mqtt://127.0.0.1:{free_port()}")
    process = server.process
    assert process is not None
    assert (server.data / "server.json").exists()
    assert server.stop(number) == 0
    assert "Traceback" not in process.output()
    assert "Server stopped." in process.output()
    assert not (server.data / "server.json").exists()


def test_contract_errors_name_the_request(client: FleetClient) -> None:
    with pytest.raises(ContractError, match="bad-blob-ref"):
        client._request("PUT", "/blobs/short", content=b"")

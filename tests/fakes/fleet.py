"""A fleet server as a process, and devices that speak the real protocol without running models."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt

from edge_sdk.bundle.blobs import blob_ref
from edge_sdk.bundle.release import BLOBS_NAME, ENVELOPE_NAME, MANIFEST_NAME
from edge_sdk.bundle.trust import trust_root, verify_desired, verify_manifest
from edge_sdk.client.api import FleetClient
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.manifest import BlobRef
from edge_sdk.contracts.telemetry import TelemetrySample
from edge_sdk.contracts.topics import Topics
from edge_sdk.contracts.trust import TrustRoot
from edge_sdk.contracts.update import ChunkRequest, Desired, DeviceState, Phase, UpdateStatus
from tests.fakes.processes import Process, edge_command
from tests.fakes.updating import RELEASE_KEY, TinyRelease

REQUEST_AFTER_SECONDS = 1.0


def write_release(release: TinyRelease, folder: Path) -> Path:
    """The release as a folder that ``edge release create`` and ``sign`` could have written."""
    (folder / BLOBS_NAME).mkdir(parents=True)
    (folder / MANIFEST_NAME).write_bytes(encode(release.manifest))
    (folder / ENVELOPE_NAME).write_bytes(release.envelope)
    for digest, data in release.blobs.items():
        (folder / BLOBS_NAME / digest).write_bytes(data)
    return folder


class RunningServer:
    """``edge server run`` on a port of its own; can be killed and started again."""

    def __init__(self, data: Path, broker_url: str, *options: str) -> None:
        self.data = data
        self._command = edge_command(
            *("server", "run", "--data", str(data), "--port", "0", "--broker", broker_url),
            *options,
        )
        self._starts = 0
        self.process: Process | None = None
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._starts += 1
        log = self.data.with_name(f"server-{self._starts}.log")
        self.process = Process(self._command, log)
        self.url = self.process.wait_for(r"Server ready on (\S+)").group(1)

    def stop(self, number: int = 15) -> int:
        """End it; the exit code."""
        process, self.process = self.process, None
        return process.stop(number) if process else 0

    def client(self) -> FleetClient:
        """A client with the server's token."""
        return FleetClient(self.url, (self.data / "token").read_text().strip())


class PahoDevice:
    """A device: accepts desired states, downloads by topic, verifies, reports.

    Args:
        trust: whom it believes.
        verdict: what becomes of an accepted version; committed unless it says otherwise.
    """

    def __init__(
        self,
        port: int,
        device_id: str,
        trust: TrustRoot,
        *,
        tenant: str = "edge",
        verdict: Callable[[str], Phase] = lambda _: Phase.COMMITTED,
    ) -> None:
        self.device_id = device_id
        self.version = ""
        self.verdict = verdict
        self.counters: list[int] = []
        self.requests = 0
        self._trust = trust
        self._topics = Topics(tenant)
        self._lock = threading.RLock()
        self._desired: Desired | None = None
        self._blobs: dict[str, bytes] = {}
        self._missing: dict[str, set[int]] = {}
        self._parts: dict[str, dict[int, bytes]] = {}
        self._refs: dict[str, BlobRef] = {}
        self._phase = Phase.IDLE
        self._timer: threading.Timer | None = None
        self._stopped = False
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=device_id)
        self._client.reconnect_delay_set(1, 1)
        self._client.will_set(self._topics.state(device_id), self._state(online=False), 1, True)
        self._client.on_connect = self._connected
        self._client.on_message = self._message
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()

    def stop(self) -> None:
        """Say goodbye and disconnect."""
        with self._lock:
            self._stopped = True
            if self._timer:
                self._timer.cancel()
        if self._client.is_connected():
            topic = self._topics.state(self.device_id)
            self._client.publish(topic, self._state(online=False), 1, True).wait_for_publish(5)
        self._client.disconnect()
        self._client.loop_stop()

    def telemetry(self, **values: Any) -> None:
        """Publish a sample."""
        sample = TelemetrySample(
            device_id=self.device_id, at=1.0, interval_s=1.0, version=self.version, **values
        )
        self._client.publish(self._topics.telemetry(self.device_id), encode(sample), 1)

    def publish(self, leaf: str, payload: bytes) -> None:
        """Publish anything on one of the device's own topics."""
        topic = self._topics.state(self.device_id).removesuffix("state") + leaf
        self._client.publish(topic, payload, 1).wait_for_publish(10)

    def _connected(self, *_: Any) -> None:
        with self._lock:
            self._client.subscribe(self._topics.desired(self.device_id), 1)
            self._tell_state()
            self._ask_again()

    def _message(self, _c: Any, _u: Any, message: mqtt.MQTTMessage) -> None:
        with self._lock:
            chunk = self._topics.parse_chunk(message.topic)
            if chunk is None:
                self._wish(bytes(message.payload))
            else:
                self._chunk(*chunk, bytes(message.payload))

    def _wish(self, payload: bytes) -> None:
        if not payload:
            return
        desired = verify_desired(payload, self._trust)
        assert desired.device_id == self.device_id
        last = self.counters[-1] if self.counters else 0
        if self._desired is not None and self._desired.deployment == desired.deployment:
            return
        assert desired.counter > last, f"counter went from {last} to {desired.counter}"
        self.counters.append(desired.counter)
        self._desired = desired
        self._missing.clear()
        self._report(Phase.DOWNLOADING)
        self._fetch(desired.manifest)
        self._progress()

    def _fetch(self, ref: BlobRef) -> None:
        if ref.digest in self._blobs:
            return
        self._refs[ref.digest] = ref
        self._parts.setdefault(ref.digest, {})
        self._missing[ref.digest] = set(range(len(ref.chunks))) - self._parts[ref.digest].keys()
        for index in self._missing[ref.digest]:
            self._client.subscribe(self._topics.chunk(ref.digest, index), 0)
        self._later()

    def _later(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = threading.Timer(REQUEST_AFTER_SECONDS, self._ask_again)
        self._timer.daemon = True
        self._timer.start()

    def _ask_again(self) -> None:
        """Request what did not come by itself."""
        with self._lock:
            for digest, missing in self._missing.items():
                self.requests += 1
                chosen = tuple(sorted(missing))[:64]
                for index in chosen:
                    self._client.subscribe(self._topics.chunk(digest, index), 0)
                request = ChunkRequest(device_id=self.device_id, digest=digest, chunks=chosen)
                self._client.publish(self._topics.request(self.device_id), encode(request), 0)
            if self._missing and not self._stopped:
                self._later()

    def _chunk(self, digest: str, index: int, payload: bytes) -> None:
        ref, missing = self._refs.get(digest), self._missing.get(digest)
        if ref is None or missing is None or index not in missing:
            return
        if blob_ref(payload).digest != ref.chunks[index]:
            return
        self._parts[digest][index] = payload
        missing.discard(index)
        self._client.unsubscribe(self._topics.chunk(digest, index))
        if not missing:
            del self._missing[digest]
            whole = b"".join(self._parts[digest][i] for i in range(len(ref.chunks)))
            assert blob_ref(whole) == ref
            self._blobs[digest] = whole
            self._progress()

    def _progress(self) -> None:
        """Go on when the manifest, and then every blob, has arrived."""
        desired = self._desired
        if desired is None or self._missing or desired.manifest.digest not in self._blobs:
            return
        manifest = verify_manifest(self._blobs[desired.manifest.digest], self._trust)
        for ref in manifest.blobs.values():
            self._fetch(ref)
        if self._missing:
            return
        phase = self.verdict(desired.version)
        if phase is Phase.COMMITTED:
            self.version = desired.version
        self._report(phase)

    def _report(self, phase: Phase) -> None:
        self._phase = phase
        desired = self._desired
        assert desired is not None
        status = UpdateStatus(
            device_id=self.device_id,
            deployment=desired.deployment,
            release=desired.release,
            version=desired.version,
            phase=phase,
            at=1.0,
            bytes_received=sum(map(len, self._blobs.values())),
            bytes_total=sum(ref.size_bytes for ref in self._refs.values()),
        )
        self._client.publish(self._topics.ota(self.device_id), encode(status), 1)
        self._tell_state()

    def _tell_state(self) -> None:
        self._client.publish(self._topics.state(self.device_id), self._state(online=True), 1, True)

    def _state(self, *, online: bool) -> bytes:
        return encode(
            DeviceState(
                device_id=self.device_id,
                online=online,
                profile="rpi4",
                agent_version="0",
                runtime="none",
                release="digits" if self.version else "",
                version=self.version,
                phase=self._phase,
                deployment=self._desired.deployment if self._desired else "",
            )
        )


def device_trust(client: FleetClient) -> TrustRoot:
    """What a device of this server trusts."""
    return trust_root([RELEASE_KEY.public], [client.trust().public_key])

"""A client of the fleet server's REST interface."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from edge_sdk.bundle.release import METADATA_NAME, Release, open_release
from edge_sdk.bundle.tuf_metadata import parse_targets
from edge_sdk.contracts.base import Wire, encode
from edge_sdk.contracts.fleet import (
    DeviceInfo,
    EnrollRequest,
    FleetEvent,
    FleetTrust,
    Health,
    MetadataUpload,
    MetadataVersions,
    ReleaseInfo,
    RolloutInfo,
    RolloutRequest,
)
from edge_sdk.contracts.update import TrialPolicy
from edge_sdk.errors import ConfigError, EdgeError, LinkError, StorageError, TrustError, error_from

CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0
UPLOAD_PART_BYTES = 256 * 1024
MAX_ANSWER_BYTES = 64 * 1024 * 1024
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

T = TypeVar("T")
Notify = Callable[[str], None]
"""Told the digest of each blob that the server has, for a progress display."""


class FleetClient:
    """Talks to one server. Use as a context manager, or call :meth:`close`.

    Args:
        url: ``http://HOST:PORT``.
        token: the server's access token.
        read_seconds: how long the server may take to answer.

    Every method raises:
        LinkError: ``link.server-unreachable``, ``link.server-timeout``, ``link.unauthorised`` or
            ``link.bad-answer``.
        EdgeError: what the server answers, in the family it names.
    """

    def __init__(self, url: str, token: str, *, read_seconds: float = READ_SECONDS) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                "bad-server-url",
                f"{url!r} is not the address of a fleet server.",
                "Write it as http://HOST:PORT.",
            )
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url + "/api/v1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(read_seconds, connect=CONNECT_SECONDS),
            trust_env=parts.hostname not in _LOOPBACK,
        )

    def __enter__(self) -> FleetClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def health(self) -> Health:
        """Whether the server runs; needs no token."""
        return self._get("/health", Health)

    def trust(self) -> FleetTrust:
        """The fleet's public key."""
        return self._get("/trust", FleetTrust)

    def publish_release(self, folder: Path, progress: Notify = lambda _: None) -> ReleaseInfo:
        """Verify a release folder and publish it; what the server has is not sent again.

        Raises:
            TrustError: ``trust.unsigned``, or the folder's content does not hold.
            StorageError, ContractError: the folder is not a whole release.
        """
        release = open_release(folder)
        if release.envelope_bytes is None:
            raise TrustError(
                "unsigned",
                f"The release in {folder} is not signed.",
                "Sign it with `edge release sign`, then publish again.",
            )
        for digest in release.manifest.blobs:
            self._put_blob(release, digest)
            progress(digest)
        answer = self._request("PUT", "/releases", content=release.envelope_bytes)
        if (folder / METADATA_NAME).is_dir():
            self.publish_metadata(folder / METADATA_NAME)
        return self._decode(answer, ReleaseInfo)

    def publish_metadata(self, folder: Path) -> MetadataVersions:
        """Publish roots and targets; nothing is sent when the server's are as new.

        Args:
            folder: holds ``1.root.json``, ``2.root.json``... and ``targets.json``.

        Raises:
            StorageError: they cannot be read.
            TrustError: the server does not believe them.
        """
        roots: list[bytes] = []
        while (path := folder / f"{len(roots) + 1}.root.json").exists():
            roots.append(_read(path))
        targets = _read(folder / "targets.json")
        there = self.metadata_versions()
        if there.root >= len(roots) and there.targets >= parse_targets(targets).version:
            return there
        upload = MetadataUpload(roots=tuple(roots), targets=targets)
        return self._send("PUT", "/tuf", upload, MetadataVersions)

    def metadata_versions(self) -> MetadataVersions:
        """Which TUF metadata the server has."""
        return self._get("/tuf", MetadataVersions)

    def releases(self) -> list[ReleaseInfo]:
        """Published releases, oldest first."""
        return self._get("/releases", list[ReleaseInfo])

    def devices(self) -> list[DeviceInfo]:
        """Known devices."""
        return self._get("/devices", list[DeviceInfo])

    def device(self, device_id: str) -> DeviceInfo:
        """One device."""
        return self._get(f"/devices/{_segment(device_id)}", DeviceInfo)

    def enroll(self, device_id: str, profile: str) -> DeviceInfo:
        """Make a device known to the server."""
        path = f"/devices/{_segment(device_id)}"
        return self._send("PUT", path, EnrollRequest(profile=profile), DeviceInfo)

    def create_rollout(
        self,
        release: str,
        version: str,
        *,
        canary: int = 0,
        max_failures: int = 0,
        rollback_on_failure: bool = False,
        devices: tuple[str, ...] = (),
        trial: TrialPolicy | None = None,
        new_contract: bool = False,
        windows: tuple[str, ...] = (),
        rate_kib_s: int = 0,
        devices_per_hour: int = 0,
    ) -> RolloutInfo:
        """Start rolling a release out; see :class:`RolloutRequest` for the arguments."""
        request = RolloutRequest(
            release=release,
            version=version,
            canary=canary,
            max_failures=max_failures,
            rollback_on_failure=rollback_on_failure,
            devices=devices,
            trial=trial or TrialPolicy(),
            new_contract=new_contract,
            windows=windows,
            rate_kib_s=rate_kib_s,
            devices_per_hour=devices_per_hour,
        )
        return self._send("POST", "/rollouts", request, RolloutInfo)

    def rollouts(self) -> list[RolloutInfo]:
        """The newest rollouts, newest first."""
        return self._get("/rollouts", list[RolloutInfo])

    def rollout(self, rollout_id: str = "latest") -> RolloutInfo:
        """One rollout."""
        return self._get(f"/rollouts/{_segment(rollout_id)}", RolloutInfo)

    def rollback(self, rollout_id: str = "latest") -> RolloutInfo:
        """Give every device of the newest rollout its previous release back."""
        return self._turn(rollout_id, "rollback")

    def abort(self, rollout_id: str = "latest") -> RolloutInfo:
        """Stop a rollout; devices that have committed keep the release."""
        return self._turn(rollout_id, "abort")

    def pause(self, rollout_id: str = "latest") -> RolloutInfo:
        """Let no further device begin; those that have begun go on."""
        return self._turn(rollout_id, "pause")

    def resume(self, rollout_id: str = "latest") -> RolloutInfo:
        """Go on with a paused rollout."""
        return self._turn(rollout_id, "resume")

    def _turn(self, rollout_id: str, action: str) -> RolloutInfo:
        path = f"/rollouts/{_segment(rollout_id)}/{action}"
        return self._decode(self._request("POST", path), RolloutInfo)

    def events(self, after: int = 0, limit: int = 200) -> list[FleetEvent]:
        """Events with an id above ``after``, oldest first."""
        return self._get(f"/events?after={after}&limit={limit}", list[FleetEvent])

    def _put_blob(self, release: Release, digest: str) -> None:
        path = f"/blobs/{digest}"
        if self._request("HEAD", path, accept=(404,)).status_code == 404:
            file = release.blob_path(digest)
            self._request("PUT", path, content=_parts(file), size_bytes=file.stat().st_size)

    def _get(self, path: str, kind: type[T]) -> T:
        return self._decode(self._request("GET", path), kind)

    def _send(self, method: str, path: str, body: Wire, kind: type[T]) -> T:
        return self._decode(self._request(method, path, content=encode(body)), kind)

    def _request(
        self,
        method: str,
        path: str,
        *,
        content: bytes | Iterator[bytes] | None = None,
        size_bytes: int | None = None,
        accept: tuple[int, ...] = (),
    ) -> httpx.Response:
        headers = {} if size_bytes is None else {"Content-Length": str(size_bytes)}
        try:
            answer = self._http.request(method, path, content=content, headers=headers)
        except httpx.TimeoutException as error:
            raise LinkError(
                "server-timeout",
                f"The fleet server at {self.url} does not answer in time.",
                "Check its load and the network, then try again.",
            ) from error
        except httpx.HTTPError as error:
            raise LinkError(
                "server-unreachable",
                f"No fleet server answers at {self.url}: {error}.",
                "Start one (`edge server run`), or correct --server.",
            ) from error
        if answer.is_success or answer.status_code in accept:
            return answer
        raise self._error(answer)

    def _error(self, answer: httpx.Response) -> EdgeError:
        """The error the server answered with, as the same class it was raised as there."""
        if answer.status_code == 401:
            return LinkError(
                "unauthorised",
                f"The fleet server at {self.url} refuses the access token.",
                "Give the right one with --token or EDGE_TOKEN, or name the server's --data.",
            )
        try:
            return error_from(json.loads(answer.content)["error"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return self._bad_answer(f"status {answer.status_code}")

    def _decode(self, answer: httpx.Response, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except msgspec.DecodeError as error:
            raise self._bad_answer(str(error)) from error

    def _bad_answer(self, problem: str) -> LinkError:
        return LinkError(
            "bad-answer",
            f"What answers at {self.url} does not speak the fleet interface ({problem}).",
            "Check the address, and that client and server have the same version.",
        )


def _segment(text: str) -> str:
    """A path segment; names need no quoting, and anything else is not a name."""
    from edge_sdk.contracts.topics import check_name

    return check_name(text, "name")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> StorageError:
    return StorageError(
        "unreadable",
        f"Cannot read {path}: {error.strerror or error}.",
        "Check the file's permissions and the health of the disk.",
    )


def _parts(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as handle:
            while part := handle.read(UPLOAD_PART_BYTES):
                yield part
    except OSError as error:
        raise _unreadable(path, error) from error

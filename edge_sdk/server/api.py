"""``/api/v1``: the REST interface, JSON in and out. See docs/server.md."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_sdk import __version__
from edge_sdk.bundle.trust import MAX_ENVELOPE_BYTES
from edge_sdk.contracts.base import decode
from edge_sdk.contracts.fleet import (
    EnrollRequest,
    Health,
    MetadataUpload,
    RolloutInfo,
    RolloutRequest,
)
from edge_sdk.errors import (
    ConfigError,
    ContractError,
    EdgeError,
    LinkError,
    StorageError,
    TrustError,
    UsageError,
)
from edge_sdk.server.rollout_desk import RolloutDesk

if TYPE_CHECKING:
    from edge_sdk.server.app import Context

MAX_BODY_BYTES = 256 * 1024
MAX_METADATA_BYTES = 8 * 1024 * 1024
_STATUS: tuple[tuple[type[EdgeError], int], ...] = (
    (UsageError, 409),
    (ConfigError, 400),
    (ContractError, 400),
    (TrustError, 422),
    (StorageError, 507),
    (LinkError, 502),
)
_SLUG_STATUS = {"bad-request": 400, "blob-missing": 409, "blob-too-large": 413, "too-large": 413}


def status_of(error: EdgeError) -> int:
    """The HTTP status of an error."""
    if error.slug.startswith("unknown-"):
        return 404
    if error.slug in _SLUG_STATUS:
        return _SLUG_STATUS[error.slug]
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def error_response(error: EdgeError, status: int) -> Response:
    """``{"error": {"code", "cause", "hint"}}``, the shape that ``--json`` prints."""
    return _json({"error": error.as_dict()}, status)


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


Endpoint = Callable[[Request], Awaitable[Response]]


async def _call(function: Callable[..., Any], *args: Any) -> Any:
    """Run blocking work (database, disk) in a worker thread."""
    return await to_thread.run_sync(function, *args)


async def _body(request: Request, limit: int) -> bytes:
    """The request's body.

    Raises:
        ContractError: ``contract.too-large``.
    """
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > limit:
            raise ContractError(
                "too-large",
                f"The body of {request.method} {request.url.path} has more than {limit} bytes.",
                "Check what is being sent.",
            )
    return bytes(data)


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or len(text) > 18:
        raise UsageError(
            "bad-request", f"The parameter {name}={text[:40]!r} is not a number.", "Use digits."
        )
    return int(text)


async def health(request: Request) -> Response:
    """Whether the server runs, and reaches its broker."""
    context = _context(request)
    connected, report = context.broker_connected(), context.broker_report()
    health = Health(ok=True, version=__version__, broker_connected=connected, broker_report=report)
    return _json(health)


async def trust(request: Request) -> Response:
    """The fleet's public key."""
    return _json(_context(request).trust)


async def releases(request: Request) -> Response:
    """Published releases."""
    return _json(await _call(_context(request).fleet.releases))


async def publish(request: Request) -> Response:
    """Register a release: the body is its signed envelope, its blobs are there already."""
    data = await _body(request, MAX_ENVELOPE_BYTES)
    info, new = await _call(_context(request).fleet.publish_release, data)
    return _json(info, 201 if new else 200)


async def metadata(request: Request) -> Response:
    """``GET`` the versions in force; ``PUT`` what the publisher signed."""
    fleet = _context(request).fleet
    if request.method == "GET":
        return _json(fleet.desk.versions())
    body = decode(await _body(request, MAX_METADATA_BYTES), MetadataUpload, "The metadata")
    return _json(await _call(fleet.desk.publish, body))


async def blob(request: Request) -> Response:
    """``HEAD``: is the blob here? ``PUT``: receive it."""
    depot = _context(request).fleet.depot
    digest = request.path_params["digest"]
    size = await _call(depot.size_of, digest)
    if request.method == "HEAD":
        return Response(status_code=404 if size is None else 204)
    if size is not None:
        return Response(status_code=204)
    with depot.upload(digest) as upload:
        async for part in request.stream():
            await _call(upload.write, part)
        await _call(upload.finish)
    return Response(status_code=201)


async def devices(request: Request) -> Response:
    """Known devices."""
    return _json(await _call(_context(request).fleet.devices))


async def device(request: Request) -> Response:
    """``GET`` one device; ``PUT`` enrolls it."""
    fleet, device_id = _context(request).fleet, request.path_params["device_id"]
    if request.method == "PUT":
        body = decode(await _body(request, MAX_BODY_BYTES), EnrollRequest, "The request")
        return _json(await _call(fleet.enroll, device_id, body.profile))
    return _json(await _call(fleet.device, device_id))


async def rollouts(request: Request) -> Response:
    """``GET`` the newest rollouts; ``POST`` starts one."""
    fleet = _context(request).fleet
    if request.method == "POST":
        body = decode(await _body(request, MAX_BODY_BYTES), RolloutRequest, "The request")
        return _json(await _call(fleet.rolling.create, body), 201)
    return _json(await _call(fleet.rolling.rollouts))


def _of_rollout(act: Callable[[RolloutDesk, str], RolloutInfo]) -> Endpoint:
    """What the desk does with one rollout; ``latest`` names the newest."""

    async def answer(request: Request) -> Response:
        desk = _context(request).fleet.rolling
        return _json(await _call(act, desk, request.path_params["rollout_id"]))

    return answer


async def events(request: Request) -> Response:
    """The event log after an id, oldest first."""
    after, limit = _number(request, "after", 0), _number(request, "limit", 200)
    return _json(await _call(_context(request).fleet.events, after, limit))


ROUTES = [
    Route("/health", health),
    Route("/trust", trust),
    Route("/releases", releases, methods=["GET"]),
    Route("/releases", publish, methods=["PUT"]),
    Route("/tuf", metadata, methods=["GET", "PUT"]),
    Route("/blobs/{digest}", blob, methods=["HEAD", "PUT"]),
    Route("/devices", devices),
    Route("/devices/{device_id}", device, methods=["GET", "PUT"]),
    Route("/rollouts", rollouts, methods=["GET", "POST"]),
    Route("/rollouts/{rollout_id}", _of_rollout(RolloutDesk.rollout)),
    Route("/rollouts/{rollout_id}/rollback", _of_rollout(RolloutDesk.rollback), methods=["POST"]),
    Route("/rollouts/{rollout_id}/abort", _of_rollout(RolloutDesk.abort), methods=["POST"]),
    Route("/rollouts/{rollout_id}/pause", _of_rollout(RolloutDesk.pause), methods=["POST"]),
    Route("/rollouts/{rollout_id}/resume", _of_rollout(RolloutDesk.resume), methods=["POST"]),
    Route("/events", events),
]

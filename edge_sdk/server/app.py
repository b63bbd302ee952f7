"""The server's HTTP application: REST under ``/api/v1``, pages, metrics.

Everything except ``/api/v1/health`` and the page's own style and script files needs the access
token. A program sends it as ``Authorization: Bearer``; a browser opens ``/?token=...`` once and is
given a cookie that opens pages and metrics, but never the REST interface, so no other web page can
make a browser change the fleet.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from edge_sdk.contracts.fleet import FleetTrust
from edge_sdk.errors import EdgeError, LinkError, UsageError
from edge_sdk.server import api, metrics, pages
from edge_sdk.server.fleet import Fleet
from edge_sdk.server.keys import page_cookie

COOKIE = "edge_page"
COOKIE_SECONDS = 30 * 24 * 3600
OPEN_PATHS = frozenset({"/api/v1/health"})
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

Next = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Context:
    """What requests are answered from."""

    fleet: Fleet
    token: str
    trust: FleetTrust
    broker_connected: Callable[[], bool]
    broker_report: Callable[[], str]
    """What the broker can do and which way chunks take, for a person."""
    counters: Callable[[], dict[str, int]]
    """Totals of the server's own work, for metrics."""


def build_app(context: Context) -> Starlette:
    """The ASGI application."""
    app = Starlette(
        routes=[
            Mount("/api/v1", routes=api.ROUTES),
            Route("/", pages.home),
            Route("/partial", pages.partial),
            Route("/metrics", metrics.scrape),
            Mount("/static", StaticFiles(packages=[("edge_sdk.server.web", "static")])),
            Mount("/vendor", StaticFiles(packages=[("edge_sdk.server.web", "vendor")])),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=_guard)],
        exception_handlers={
            EdgeError: _edge_error,
            HTTPException: _http_error,
            ClientDisconnect: _gone,
        },
    )
    app.state.context = context
    return app


async def _guard(request: Request, call_next: Next) -> Response:
    """Check who asks, and add the security headers to every answer."""
    context: Context = request.app.state.context
    path = request.url.path
    response: Response
    offered = request.query_params.get("token")
    if path == "/" and offered is not None and _same(offered, context.token):
        response = RedirectResponse("/", status_code=303)
        response.set_cookie(
            COOKIE,
            page_cookie(context.token),
            max_age=COOKIE_SECONDS,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
    elif _allowed(request, context):
        response = await call_next(request)
    elif path.startswith("/api/"):
        response = api.error_response(_unauthorised(), 401)
    else:
        response = pages.sign_in(request)
    response.headers.update(SECURITY_HEADERS)
    return response


def _allowed(request: Request, context: Context) -> bool:
    path = request.url.path
    if path in OPEN_PATHS or path.startswith(("/static/", "/vendor/")):
        return True
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and _same(given.strip(), context.token):
        return True
    if path.startswith("/api/"):
        return False
    return _same(request.cookies.get(COOKIE, ""), page_cookie(context.token))


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def _unauthorised() -> LinkError:
    return LinkError(
        "unauthorised",
        "The server refuses the request: the access token is missing or wrong.",
        "Give --token or EDGE_TOKEN; the server keeps its token in DATA/token.",
    )


async def _edge_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, EdgeError):
        raise error
    return api.error_response(error, api.status_of(error))


async def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    problem = UsageError(
        "no-such-page" if error.status_code == 404 else "bad-request",
        f"{request.method} {request.url.path}: {error.detail}.",
        "See docs/server.md for the interface.",
    )
    return api.error_response(problem, error.status_code)


async def _gone(_: Request, _error: Exception) -> Response:
    """Nobody is left to read an answer to an upload that was cut off."""
    return Response(status_code=400)

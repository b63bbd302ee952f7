"""The HTML page: devices, the current rollout and the event log, rendered on the server.

A script (htmx, vendored) replaces the page's middle every two seconds; without it the page still
shows everything and reloads by hand.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anyio import to_thread
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from edge_sdk import __version__
from edge_sdk.accounting import added, in_words, times_in_words
from edge_sdk.contracts.fleet import ENDED, DeviceInfo, MemberStatus, RolloutInfo
from edge_sdk.contracts.telemetry import LadderPosition, TelemetrySample
from edge_sdk.server.ladders import positions

if TYPE_CHECKING:
    from edge_sdk.server.app import Context

EVENTS_SHOWN = 60
EARLIER_SHOWN = 5

_pages = Environment(
    loader=PackageLoader("edge_sdk.server.web"),
    autoescape=select_autoescape(default=True),
    undefined=StrictUndefined,
)


@dataclass(frozen=True, slots=True)
class DeviceLine:
    """A row of the device table."""

    device: DeviceInfo
    sample: TelemetrySample | None
    seen: str
    tone: str
    """Colour class: good, busy, bad or quiet."""

    @property
    def ladders(self) -> dict[str, LadderPosition]:
        """Where each pipeline stands, the most important first."""
        return positions(self.sample)


def ago(then: float | None, now: float) -> str:
    """``12 s ago`` in the largest fitting unit."""
    if then is None:
        return "never"
    seconds = max(now - then, 0.0)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def clock(at: float) -> str:
    """Local time of day, with the date when it is not today."""
    form = "%H:%M:%S" if time.time() - at < 20 * 3600 else "%d %b %H:%M"
    return time.strftime(form, time.localtime(at))


def _tone(device: DeviceInfo) -> str:
    if not device.online:
        return "quiet"
    if device.phase in ("rolled_back", "rejected"):
        return "bad"
    return "good" if device.phase in ("", "idle", "committed") else "busy"


def _share(rollout: RolloutInfo, *statuses: MemberStatus) -> int:
    return sum(member.status in statuses for member in rollout.members)


_TONES = {
    "committed": "good",
    "done": "good",
    "offered": "busy",
    "failed": "bad",
    "aborted": "warn",
    "restored": "warn",
    "kept": "warn",
    "rolled_back": "warn",
}
_pages.globals |= {
    "MemberStatus": MemberStatus,
    "share": _share,
    "tones": _TONES,
    "version": __version__,
}
_pages.filters |= {"clock": clock, "added": added, "costs": in_words, "times": times_in_words}


def _model(context: Context) -> dict[str, Any]:
    """Everything the page shows."""
    fleet, now = context.fleet, time.time()
    rollouts = fleet.rolling.rollouts(1 + EARLIER_SHOWN)
    return {
        "tenant": context.trust.tenant,
        "broker": context.trust.broker,
        "root_version": fleet.desk.versions().root,
        "connected": context.broker_connected(),
        "broker_report": context.broker_report(),
        "devices": [
            DeviceLine(device, device.telemetry, ago(device.last_seen, now), _tone(device))
            for device in fleet.devices()
        ],
        "rollout": rollouts[0] if rollouts else None,
        "active": bool(rollouts) and rollouts[0].state not in ENDED,
        "earlier": rollouts[1:],
        "releases": list(reversed(fleet.releases()))[:8],
        "events": fleet.newest_events(EVENTS_SHOWN),
    }


async def home(request: Request) -> Response:
    """The page."""
    return await _render(request, "home.html")


async def partial(request: Request) -> Response:
    """The part of the page that changes."""
    return await _render(request, "fleet.html")


async def _render(request: Request, template: str) -> Response:
    model = await to_thread.run_sync(_model, request.app.state.context)
    html = _pages.get_template(template).render(model)
    return HTMLResponse(html, headers={"Cache-Control": "no-store"})


def sign_in(_: Request) -> Response:
    """What a browser without the cookie sees."""
    return HTMLResponse(_pages.get_template("sign_in.html").render(), status_code=401)

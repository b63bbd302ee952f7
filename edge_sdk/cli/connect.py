"""How commands find the fleet server: ``--server`` and ``--token``, or the server's data folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edge_sdk.errors import ConfigError, LinkError

if TYPE_CHECKING:
    from edge_sdk.client.api import FleetClient

DEFAULT_SERVER = "http://127.0.0.1:8080"
F = TypeVar("F", bound=Callable[..., Any])


def fleet_options(function: F) -> F:
    """Add ``--server``, ``--token`` and ``--data``; the command gets a ``client`` opener.

    The environment variables EDGE_SERVER, EDGE_TOKEN and EDGE_DATA stand in for the options.
    """
    for option in (
        click.option(
            "--data",
            envvar="EDGE_DATA",
            type=click.Path(path_type=Path),
            help="Data folder of a server on this machine: gives address and token.  [EDGE_DATA]",
        ),
        click.option(
            "--token", envvar="EDGE_TOKEN", default="", help="Access token.  [EDGE_TOKEN]"
        ),
        click.option(
            "--server",
            envvar="EDGE_SERVER",
            default="",
            help=f"Address of the fleet server, {DEFAULT_SERVER} by default.  [EDGE_SERVER]",
        ),
    ):
        function = option(function)
    return function


def open_client(server: str, token: str, data: Path | None) -> FleetClient:
    """A client for what the options name.

    Raises:
        ConfigError: ``config.no-token`` or ``config.bad-server-url``.
        LinkError: ``link.server-unreachable`` when no server runs on the data folder.
    """
    from edge_sdk.client.api import FleetClient

    if data is not None:
        server = server or _address(data)
        token = token or _token(data)
    if not token:
        raise ConfigError(
            "no-token",
            "No access token for the fleet server is given.",
            "Give --token or EDGE_TOKEN, or name the server's data folder with --data.",
        )
    return FleetClient(server or DEFAULT_SERVER, token)


def _address(data: Path) -> str:
    try:
        return str(json.loads((data / "server.json").read_bytes())["url"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LinkError(
            "server-unreachable",
            f"No fleet server runs on the data folder {data}.",
            f"Start one: edge server run --data {data}",
        ) from error


def _token(data: Path) -> str:
    try:
        return (data / "token").read_text().strip()
    except OSError as error:
        raise ConfigError(
            "no-token",
            f"The access token in {data} cannot be read: {error.strerror or error}.",
            "Only the user who runs the server may read it; give --token instead.",
        ) from error

"""The fleet server as a process: data folder, threads, HTTP, and a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from edge_sdk.bundle.signing import keyid, load_public
from edge_sdk.contracts.fleet import FleetTrust
from edge_sdk.contracts.topics import Topics
from edge_sdk.durable import DiskStorage
from edge_sdk.errors import EdgeError
from edge_sdk.server import records
from edge_sdk.server.app import Context, build_app
from edge_sdk.server.broker import listen_error
from edge_sdk.server.db.engine import open_database
from edge_sdk.server.depot import Depot
from edge_sdk.server.fleet import OFFLINE_AFTER_SECONDS, Fleet
from edge_sdk.server.inbox import Inbox
from edge_sdk.server.ingest import LEAVES
from edge_sdk.server.keys import access_token, locked_data, online_keys
from edge_sdk.server.link import BrokerAddress, Link
from edge_sdk.server.metadata import MetadataShop
from edge_sdk.server.outbox import Outbox
from edge_sdk.server.periodic import Periodic, pacing, renewal
from edge_sdk.server.probing import Prober
from edge_sdk.server.waves import Waves
from edge_sdk.tls import client_context

log = logging.getLogger(__name__)

ADDRESS_NAME = "server.json"
"""Where a running server says its address, for ``--data`` of the other commands."""
CREDIT = "/credit"
"""The end of topics that are read for waves, past the database."""
SHUTDOWN_SECONDS = 3
BACKLOG = 128


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What ``edge server run`` was asked for."""

    data: Path
    host: str
    port: int
    broker: BrokerAddress
    tenant: str
    release_keys: tuple[Path, ...] = ()
    offline_after_s: float = OFFLINE_AFTER_SECONDS
    gather_s: float = 0.0
    """Devices that begin a transfer wait this long for others, to ride one wave; 0 for no waves."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Told once, when requests are answered."""

    url: str
    data: Path
    key_id: str


@dataclass
class _Parts:
    """The running threads."""

    fleet: Fleet
    link: Link
    inbox: Inbox
    outbox: Outbox
    periodic: tuple[Periodic, ...]
    prober: Prober
    waves: Waves
    counters: dict[str, Callable[[], int]] = field(default_factory=dict)

    def start(self) -> None:
        for job in self.periodic:
            job.start()
        self.inbox.start()
        self.outbox.start()
        self.waves.start()
        self.link.start()

    def stop(self) -> None:
        """The link first: it wakes the outbox when that waits for an acknowledgement."""
        for job in self.periodic:
            job.stop()
        self.link.stop()
        self.waves.stop()
        self.outbox.stop()
        self.inbox.stop()


def run_server(settings: ServerSettings, on_ready: Callable[[Ready], None]) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        StorageError: ``storage.port-in-use``, ``storage.cannot-listen``, ``storage.data-in-use``,
            ``storage.bad-database``, ``storage.database-too-new`` or a failed write.
        TrustError: a key cannot be read.
        ConfigError: ``config.bad-name`` or ``config.bad-tls``.
    """
    topics = Topics(settings.tenant)
    if settings.broker.tls:
        client_context(settings.broker.files, time.time())  # for its errors; made per connection
    release_keys = {keyid(key): key for key in map(load_public, settings.release_keys)}
    with (
        _listening(settings.host, settings.port) as listener,
        locked_data(settings.data),
        _open_fleet(settings, topics, release_keys) as (fleet, trust),
    ):
        parts = _assemble(fleet, settings, trust[0])
        url = _url(settings.host, listener)
        context = Context(
            fleet=fleet,
            token=access_token(settings.data),
            trust=FleetTrust(
                tenant=settings.tenant,
                broker=str(settings.broker),
                keyid=trust[0],
                public_key=trust[1],
            ),
            broker_connected=lambda: parts.link.connected,
            broker_report=lambda: parts.prober.words if parts.link.connected else "",
            counters=lambda: {name: count() for name, count in parts.counters.items()},
        )
        parts.start()
        try:
            with _announced(settings.data, url):
                ready = Ready(url, settings.data, trust[0])
                asyncio.run(_serve(context, listener, lambda: on_ready(ready)))
        finally:
            parts.stop()


@contextmanager
def _open_fleet(
    settings: ServerSettings, topics: Topics, release_keys: dict[str, bytes]
) -> Iterator[tuple[Fleet, tuple[str, bytes]]]:
    """The fleet over its data folder, with the id and public half of its key."""
    data = settings.data
    keys = online_keys(data)
    key = keys.fleet
    shop = MetadataShop(data, DiskStorage(), keys, time.time)
    depot = Depot(data, DiskStorage(), release_keys)
    engine = open_database(data / "fleet.db")
    try:
        with engine.connect() as connection:
            published = [row["digest"] for row in records.all_releases(connection)]
        with contextlib.suppress(EdgeError):  # a damaged release must not keep the server down
            depot.sweep(published)
        quiet_s = settings.offline_after_s
        fleet = Fleet(engine, depot, key, topics, time.time, offline_after_s=quiet_s, metadata=shop)
        renewed = fleet.desk.renew_desired()
        if renewed:
            log.info("%d desired states signed by the new fleet key", renewed)
        yield fleet, (key.keyid, key.public)
    finally:
        engine.dispose()


def _assemble(fleet: Fleet, settings: ServerSettings, key_id: str) -> _Parts:
    inbox = Inbox(fleet.ingest)
    name = f"edge-server-{settings.tenant}-{key_id[:8]}"
    gather_s = settings.gather_s
    prober = Prober(settings.broker, name, fleet.topics, gather_s)

    def on_message(topic: str, payload: bytes, retained: bool) -> None:
        if topic.endswith(CREDIT):
            waves.on_credit(topic, payload)
        else:
            inbox.put(topic, payload, retained)

    def on_connected() -> None:
        waves.reset()
        outbox.connected(prober.report)

    leaves = [fleet.topics.every_device(leaf) for leaf in (*LEAVES, CREDIT.strip("/"))]
    link = Link(settings.broker, name, leaves, on_message, on_connected, before=prober.look)
    outbox = Outbox(fleet, link)
    waves = Waves(
        fleet.topics,
        link,
        outbox.chunks_of,
        outbox.served,
        gather_s,
        lambda: prober.report.max_payload_bytes,
    )
    fleet.attach(outbox)
    counters = {
        "chunks_sent": lambda: outbox.chunks_sent,
        "wave_chunks_sent": lambda: waves.chunks_sent,
        "messages_dropped": lambda: inbox.dropped,
        "messages_failed": lambda: fleet.failed_messages,
        "messages_refused": lambda: fleet.refused_messages,
    }
    periodic = (renewal(fleet, outbox), pacing(fleet))
    return _Parts(fleet, link, inbox, outbox, periodic, prober, waves, counters)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A bound socket; connections wait in its backlog until the application serves.

    Raises:
        StorageError: ``storage.port-in-use`` or ``storage.cannot-listen``.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(BACKLOG)
        except OSError as error:
            raise listen_error(error, host, port) from error
        yield listener
    finally:
        listener.close()


def _url(host: str, listener: socket.socket) -> str:
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # an address to dial, not to bind
    shown = f"[{shown}]" if ":" in shown else shown
    return f"http://{shown}:{listener.getsockname()[1]}"


@contextmanager
def _announced(data: Path, url: str) -> Iterator[None]:
    """The address file, for as long as the server runs."""
    path, storage = data / ADDRESS_NAME, DiskStorage()
    storage.write(path, json.dumps({"url": url, "pid": os.getpid()}).encode())
    try:
        yield
    finally:
        storage.remove(path)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which end the process by the signal itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(context: Context, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    config = uvicorn.Config(
        build_app(context),
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    server = _Server(config)

    def stop() -> None:
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not (server.started or serving.done()):
        await asyncio.sleep(0.01)
    if server.started:
        on_ready()
    await serving

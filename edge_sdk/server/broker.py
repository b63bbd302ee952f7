"""The embedded MQTT broker for demos, tests and small sites: amqtt in a process of its own.

It speaks MQTT 3.1.1, keeps retained messages in memory and has no authentication, so it listens on
the loopback interface unless told otherwise. Nothing is lost when it restarts: the server publishes
chunks and desired states again on every connection, and devices publish their states again. Use
mosquitto for more than about fifty devices.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
from collections.abc import Callable, Iterator
from typing import Any

from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig

from edge_sdk.errors import StorageError

SHUTDOWN_SECONDS = 5.0
_PLUGINS = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}


class _Snapshots(dict[str, Any]):
    """A dict that may change while it is iterated over."""

    def __iter__(self) -> Iterator[str]:
        return iter(list(super().keys()))

    def items(self) -> Any:
        return list(super().items())


class _SteadyBroker(Broker):  # type: ignore[misc]  # amqtt is not typed
    """amqtt with two repairs that short-lived subscriptions to chunk topics need.

    amqtt 0.12 iterates over its subscriptions while other clients change them, which ends the
    iterating client's session; it keeps every filter ever subscribed to; and to a client that
    connects it sends the retained messages of everybody's filters.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._subscriptions = _Snapshots()

    async def _handle_unsubscription(self, client_session: Any, handler: Any, waiter: Any) -> None:
        await super()._handle_unsubscription(client_session, handler, waiter)
        for topic in waiter.result().topics:
            if not self._subscriptions.get(topic, True):
                del self._subscriptions[topic]

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Any
    ) -> None:
        holders = self._subscriptions.get(subscription[0], ())
        if any(holder.client_id == session.client_id for holder, _ in holders):
            await super()._publish_retained_messages_for_subscription(subscription, session)


def run_broker(host: str, port: int, on_ready: Callable[[int], None]) -> None:
    """Run the broker until SIGTERM or SIGINT.

    Args:
        host: address to listen on.
        port: TCP port; 0 lets the system choose one.
        on_ready: called once with the port when clients can connect.

    Raises:
        StorageError: ``storage.port-in-use`` or ``storage.cannot-listen``.
    """
    _quiet_logs()
    asyncio.run(_serve(host, port, on_ready))


async def _serve(host: str, port: int, on_ready: Callable[[int], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    broker = await start_broker(host, port)
    on_ready(bound_port(broker))
    await stop.wait()
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(broker.shutdown(), SHUTDOWN_SECONDS)


async def start_broker(host: str, port: int) -> Any:
    """An amqtt broker that listens on ``host:port``, in the running event loop.

    Raises:
        StorageError: ``storage.port-in-use`` or ``storage.cannot-listen``.
    """
    bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    config = BrokerConfig.from_dict(
        {"listeners": {"default": {"type": "tcp", "bind": bind}}, "plugins": _PLUGINS}
    )
    broker = _SteadyBroker(config)
    try:
        await broker.start()
    except Exception as error:
        cause = _os_error(error)
        if cause is None:
            raise
        raise listen_error(cause, host, port) from error
    return broker


def bound_port(broker: Any) -> int:
    """The TCP port a started broker listens on."""
    port: int = broker._servers["default"].instance.sockets[0].getsockname()[1]
    return port


def listen_error(error: OSError, host: str, port: int) -> StorageError:
    """The user's view of a socket that cannot be bound."""
    if error.errno == errno.EADDRINUSE:
        return StorageError(
            "port-in-use",
            f"Port {port} on {host} is taken by another program.",
            "Stop that program, or choose another port with --port (0 picks a free one).",
        )
    return StorageError(
        "cannot-listen",
        f"Cannot listen on {host}:{port}: {error.strerror or error}.",
        "Check --host and --port; ports below 1024 need root.",
    )


def _os_error(error: BaseException) -> OSError | None:
    """The operating system's refusal behind an exception, if there is one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _quiet_logs() -> None:
    """amqtt logs every connection as information and every lost client as an error."""
    logging.getLogger("amqtt").setLevel(logging.CRITICAL)
    logging.getLogger("transitions").setLevel(logging.ERROR)

"""Work that is due again and again, each in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from edge_sdk.errors import EdgeError
from edge_sdk.server.courier import Courier
from edge_sdk.server.fleet import Fleet

log = logging.getLogger(__name__)

RENEWAL_SECONDS = 60.0
PACING_SECONDS = 5.0


class Periodic:
    """Does a job every so often until it is stopped; one that fails is done again next time.

    Args:
        name: of the thread, and in the log.
        every_s: between two turns.
        job: what to do.
    """

    def __init__(self, name: str, every_s: float, job: Callable[[], None]) -> None:
        self._name, self._every_s, self._job = name, every_s, job
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            try:
                self._job()
            except EdgeError as error:
                log.error("%s: %s", self._name, error)
            except Exception:
                log.exception("%s met an unexpected error", self._name)


def renewal(fleet: Fleet, courier: Courier) -> Periodic:
    """Signs the online metadata anew before it expires."""

    def renew() -> None:
        shop = fleet.desk.shop
        if shop is not None and shop.resign():
            courier.metadata()

    return Periodic("renewal", RENEWAL_SECONDS, renew)


def pacing(fleet: Fleet) -> Periodic:
    """Offers a rollout's release to further devices when time has made room for them."""
    return Periodic("pacing", PACING_SECONDS, fleet.rolling.tick)

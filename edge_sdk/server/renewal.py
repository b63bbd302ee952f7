"""Signs the online metadata anew before it expires, in a thread of its own."""

from __future__ import annotations

import logging
import threading

from edge_sdk.errors import EdgeError
from edge_sdk.server.courier import Courier
from edge_sdk.server.fleet import Fleet

log = logging.getLogger(__name__)

LOOK_SECONDS = 60.0


class Renewal:
    """Looks once a minute.

    Args:
        fleet: whose metadata it is.
        courier: told when there is something new.
    """

    def __init__(self, fleet: Fleet, courier: Courier) -> None:
        self._fleet, self._courier = fleet, courier
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="renewal", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                shop = self._fleet.desk.shop
                if shop is not None and shop.resign():
                    self._courier.metadata()
            except EdgeError as error:
                log.error("the metadata could not be signed anew: %s", error)
            except Exception:
                log.exception("the metadata could not be signed anew")

"""How many requests are worked on at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from serving.gateway.metrics import IN_FLIGHT
from serving.gateway.refusal import Refusal


class Admission:
    """Counts requests in flight, streams included; past the bound they are told to come back.

    A bounded count, not a queue: a client that waits in a queue here holds its upload in memory, and the
    autoscaler watches requests in flight.
    """

    def __init__(self, max_in_flight: int) -> None:
        self.max_in_flight = max_in_flight
        self._in_flight = 0

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold a place. Raises Refusal (429) where all are taken."""
        if self._in_flight >= self.max_in_flight:
            raise Refusal(429, "busy", "the gateway is busy; try again")
        self._in_flight += 1
        IN_FLIGHT.set(self._in_flight)
        try:
            yield
        finally:
            self._in_flight -= 1
            IN_FLIGHT.set(self._in_flight)

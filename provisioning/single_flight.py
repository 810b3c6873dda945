"""One flight per key: whoever asks for what is being fetched already waits for that answer."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from provisioning.background import end_tasks

V = TypeVar("V")


class SingleFlight(Generic[V]):
    """Runs at most one task per key. A waiter that gives up does not end the flight for the others."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, asyncio.Task[V]] = {}

    async def run(self, key: Hashable, fetch: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """Join the flight of `key`, or start it with `fetch`. Raises what `fetch` raises, to every waiter."""
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(fetch())
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(flight)

    def _landed(self, key: Hashable, flight: "asyncio.Task[V]") -> None:
        del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # looked at here, in case every waiter has gone

    async def landed(self, wait_s: float) -> None:
        """Wait for the flights under way now, for `wait_s` at most; how they end is told to their waiters alone."""
        if self._flights:
            await asyncio.wait(list(self._flights.values()), timeout=wait_s)

    async def close(self) -> None:
        """End all flights and wait for their end."""
        await end_tasks(*self._flights.values(), quietly=True)

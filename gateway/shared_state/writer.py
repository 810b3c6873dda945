"""Writes to Redis beside requests: bounded, the latest of each name, and given up while Redis is away."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.shared_state.errors import RedisUnavailable
from provisioning.background import end_tasks

MOST_WAITING = 10_000
AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Write:
    """A value on its way.

    Attributes:
        life_s: How long Redis keeps it.
    """

    value: bytes
    life_s: float


class Writer:
    """Writes in the background.

    Attributes:
        dropped: Values that found no room, or no Redis.
    """

    def __init__(self, write: Callable[[str, Write], Awaitable[None]]) -> None:
        """Begin with nothing to do.

        Args:
            write: Writes one value under a name; raises RedisUnavailable.
        """
        self._write = write
        self._waiting: dict[str, Write] = {}
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0

    def put(self, name: str, write: Write) -> None:
        """Write it soon, and nothing that waits under the same name."""
        if len(self._waiting) >= MOST_WAITING and name not in self._waiting:
            self.dropped += 1
            return
        self._waiting[name] = write
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._drain())

    async def settled(self) -> None:
        """Wait until nothing waits."""
        if self._task is not None:
            await self._task

    async def close(self) -> None:
        """Drop what waits: it is read again by whoever needs it."""
        await end_tasks(self._task)

    async def _drain(self) -> None:
        while self._waiting:
            names = list(self._waiting)[:AT_ONCE]
            taken = [(name, self._waiting.pop(name)) for name in names]
            outcomes = await asyncio.gather(*(self._one(name, write) for name, write in taken))
            if not any(outcomes):  # Redis is away, and what is known is in PostgreSQL
                self.dropped += len(self._waiting)
                self._waiting.clear()

    async def _one(self, name: str, write: Write) -> bool:
        try:
            await self._write(name, write)
        except RedisUnavailable:
            self.dropped += 1
            return False
        return True

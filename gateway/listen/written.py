"""What lets aiohttp's coroutines live with answers that callbacks write."""

import asyncio
from typing import Any

from aiohttp import web


class Written(web.StreamResponse):
    """Tells aiohttp that the answer went out by our own hand, and whether the connection lives on."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._lives_on = keep_alive

    @property
    def keep_alive(self) -> bool:
        """What aiohttp asks for after the answer."""
        return self._lives_on

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing left to write."""

    async def write_eof(self, data: Any = b"") -> None:
        """Nothing left to write."""


class Wake:
    """Lets callbacks of an exchange wake the one coroutine that watches it."""

    __slots__ = ("_future", "_loop")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()

    def set(self) -> None:
        """Wake it."""
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self) -> None:
        """Sleep until the next `set`, or not at all if there was one since the last sleep."""
        await self._future
        self._future = self._loop.create_future()

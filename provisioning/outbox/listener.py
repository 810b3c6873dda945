"""Hears what PostgreSQL notifies, on a connection of its own; a pool's connections carry no state of a session."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import asyncpg
import structlog

from provisioning.background import end_tasks
from provisioning.outbox.queue import CHANNEL

CONNECT_TIMEOUT_S = 5.0
ALIVE_EVERY_S = 15.0
AGAIN_FIRST_S = 0.5
AGAIN_CAP_S = 30.0
_log = structlog.get_logger(__name__)


class Listener:
    """Calls somebody for each topic in which something was written. What it misses, a poll finds."""

    def __init__(self, url: str, heard: Callable[[str], None], connected: Callable[[], None]) -> None:
        """Settle whom to call.

        Args:
            url: A direct DSN: a pooler in transaction mode passes no notifications on.
            heard: Called with the topic.
            connected: Called after every new connection: something may have been missed before.
        """
        self._url = url
        self._heard = heard
        self._connected = connected
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End."""
        await end_tasks(self._task)

    async def _run(self) -> None:
        again_s = AGAIN_FIRST_S
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await self._listen()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                _log.debug("outbox_not_listening", reason=type(error).__name__)
            if asyncio.get_running_loop().time() - began > AGAIN_CAP_S:
                again_s = AGAIN_FIRST_S
            await asyncio.sleep(again_s)
            again_s = min(again_s * 2, AGAIN_CAP_S)

    async def _listen(self) -> None:
        """Until the connection is gone."""
        connection = await asyncpg.connect(
            self._url,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=CONNECT_TIMEOUT_S,
            server_settings={"application_name": "gateway outbox"},
        )
        gone = asyncio.Event()
        try:
            connection.add_termination_listener(lambda *_: gone.set())
            await connection.add_listener(CHANNEL, lambda _c, _p, _n, payload: self._heard(str(payload)))
            self._connected()
            while not gone.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(ALIVE_EVERY_S):
                        await gone.wait()
                if not gone.is_set():
                    await connection.execute("SELECT 1")  # a peer that vanished without a word answers no more
        finally:
            connection.terminate()

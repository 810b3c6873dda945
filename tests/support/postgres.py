"""Real PostgreSQL for tests, run by our own supervisor, with durability off."""

import asyncio
import os
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

from provisioning.database.embedded import EmbeddedPostgres
from provisioning.database.migrate import upgrade
from tests.support.ports import free_port

FAST_AND_FORGETFUL = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "300",
    "autovacuum": "off",
}
TEMPLATE = "template_gateway"
T = TypeVar("T")


def on_database(url: str, name: str) -> str:
    """The same server's DSN for another database."""
    return url.replace("/gateway?", f"/{name}?", 1)


class PostgresServer:
    """A server that a test owns: it may stop, freeze and start it again under the same address and data.

    Attributes:
        url: DSN over 127.0.0.1 without a password; stays the same over restarts.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._running = self._new()
        self.url = self._running.tcp_url

    def _new(self) -> EmbeddedPostgres:
        return EmbeddedPostgres(self._folder, options=FAST_AND_FORGETFUL, port=self._port)

    @property
    def socket_url(self) -> str:
        """DSN over the Unix socket; changes with every start."""
        return self._running.url

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._running.pid is not None
        return self._running.pid

    async def start(self, *, migrated: bool = True) -> None:
        self._running = self._new()
        await self._running.start()
        if migrated:
            await upgrade(self.url)

    async def stop(self) -> None:
        await self._running.stop()

    def freeze(self) -> None:
        """Stop the server's time: connections stay open and nothing answers."""
        for pid in (self.pid, *self._children()):
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in (*self._children(), self.pid):
            os.kill(pid, signal.SIGCONT)

    def _children(self) -> list[int]:
        return [int(word) for word in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]


class PostgresPerWorker:
    """One server for a whole test process: a migrated template, and a fresh copy of it per test.

    It has an event loop of its own that runs only inside its calls, so that tests with and without a loop can use it.
    """

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._server = PostgresServer(folder)
        self._admin: asyncpg.Connection[asyncpg.Record] | None = None
        self._made = 0

    def start(self) -> None:
        self._run(self._start())

    def stop(self) -> None:
        self._run(self._stop())
        self._loop.close()

    def create(self) -> str:
        """Make a database of its own for one test; returns its DSN over 127.0.0.1."""
        self._made += 1
        name = f"test_{self._made}"
        self._run(self._execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
        return on_database(self._server.url, name)

    def create_empty(self) -> str:
        """Make a database without any table of ours."""
        self._made += 1
        self._run(self._execute(f"CREATE DATABASE test_{self._made}"))
        return on_database(self._server.url, f"test_{self._made}")

    def drop(self, url: str) -> None:
        name = url.rpartition("/")[2].partition("?")[0]
        self._run(self._execute(f"DROP DATABASE {name} WITH (FORCE)"))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    async def _execute(self, statement: str) -> None:
        assert self._admin is not None
        await self._admin.execute(statement)

    async def _start(self) -> None:
        await self._server.start(migrated=False)
        self._admin = await asyncpg.connect(on_database(self._server.url, "postgres"))
        await self._admin.execute(f"CREATE DATABASE {TEMPLATE}")
        await upgrade(on_database(self._server.url, TEMPLATE))

    async def _stop(self) -> None:
        if self._admin is not None:
            await self._admin.close()
        await self._server.stop()

"""Several gateways as processes of their own on one PostgreSQL and one Redis, with a real balancer before them.

Each replica keeps its ports over restarts, as the balancer's file names them, and can be asked past the balancer.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support.gateway import merged, written_settings
from tests.support.haproxy import haproxy
from tests.support.jwks_server import JwksServer, serve_jwks
from tests.support.ports import free_port
from tests.support.serve_process import ServeProcess, serve_process
from tests.support.upstream import RecordingUpstream, recording_upstream
from tests.support.wire import Reply, connected, request

REPLICAS = 3
DEADLINE_S = 30.0
IN_TOUCH = "gateway_revocations_in_touch"


class Door:
    """Where requests are taken: the balancer, or one of the gateways behind it."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def ask(self, raw: bytes) -> Reply:
        """Send one request on a connection of its own."""
        async with connected(self.port) as wire:
            return await wire.ask(raw)

    async def get(self, target: str, *lines: str) -> Reply:
        """GET on a connection of its own."""
        return await self.ask(request(target, *lines))


class Replica(Door):
    """One gateway, which may be ended and started again.

    Attributes:
        settings: As its file will hold them at its next start.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        super().__init__(free_port())
        self.admin_port = free_port()
        self.settings = settings
        self._folder = folder
        self._process: ServeProcess | None = None
        self._stack = AsyncExitStack()

    @property
    def process(self) -> ServeProcess:
        """The running one."""
        assert self._process is not None
        return self._process

    async def start(self) -> None:
        """Start it, until it listens."""
        where = {"listen": f"127.0.0.1:{self.port}", "admin": {"listen": f"127.0.0.1:{self.admin_port}"}}
        started = serve_process(self._folder, merged(self.settings, where))
        self._process = await self._stack.enter_async_context(started)

    async def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        await self._stack.aclose()
        self._process = None

    async def kill(self) -> None:
        """End it as the kernel does when memory is out."""
        process = self.process.process
        process.kill()
        await process.wait()
        await self.stop()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop its time: connections stay open, and nothing answers."""
        pid = self.process.process.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def admin(self, target: str) -> Reply:
        """GET on its admin port."""
        async with connected(self.admin_port) as wire:
            return await wire.ask(request(target, "Connection: close"))

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of its samples with these labels; 0 when there is none."""
        text = (await self.admin("/metrics")).body.decode()
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return sum(
            sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items()
        )


@dataclass(frozen=True, slots=True)
class Fleet:
    """Replicas, what stands before them, and what behind.

    Attributes:
        door: The balancer; without one, the first replica.
    """

    door: Door
    replicas: tuple[Replica, ...]
    database_url: str
    upstream: RecordingUpstream
    jwks: JwksServer

    async def each(self, target: str, *lines: str) -> list[int]:
        """GET from every replica past the balancer; gives the statuses."""
        return [(await replica.get(target, *lines)).status for replica in self.replicas]

    async def metric(self, name: str, **labels: str) -> list[float]:
        """A metric of every replica."""
        return [await replica.metric(name, **labels) for replica in self.replicas]

    async def until_each(self, status: int, target: str, *lines: str) -> None:
        """Wait until every replica answers so, asked past the balancer."""
        async with asyncio.timeout(DEADLINE_S):
            for replica in self.replicas:
                while (await replica.get(target, *lines)).status != status:  # noqa: ASYNC110 - nobody here is told
                    await asyncio.sleep(0.02)

    async def until_whole(self, *wanted: int) -> None:
        """Wait until those replicas hear of each other that say 1 here, and those that say 0 know that they do not."""
        async with asyncio.timeout(DEADLINE_S):
            while tuple(await self.metric(IN_TOUCH)) != (wanted or (1,) * len(self.replicas)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


@asynccontextmanager
async def fleet_under_test(
    folder: Path, database_url: str, redis_urls: str | Sequence[str], *, balanced: bool = False, **changes: Any
) -> AsyncIterator[Fleet]:
    """Run one.

    Args:
        folder: For the files of all.
        database_url: Of them all.
        redis_urls: Of them all, or of each replica by itself: ways to the same Redis that can be cut alone.
        balanced: Put a HAProxy before them; it must be installed then.
        changes: Go over their settings, nested.
    """
    urls = [redis_urls] * REPLICAS if isinstance(redis_urls, str) else redis_urls
    async with serve_jwks() as jwks, recording_upstream() as upstream, AsyncExitStack() as stack:
        written = written_settings(database_url, jwks.url, upstream.url, **changes)
        replicas = tuple(Replica(folder, merged(written, {"redis": {"url": url}})) for url in urls)
        for replica in replicas:
            stack.push_async_callback(replica.stop)
        await asyncio.gather(*(replica.start() for replica in replicas))
        door: Door = replicas[0]
        if balanced:
            ports = [replica.port for replica in replicas]
            before = await asyncio.to_thread(stack.enter_context, haproxy(folder / "balancer", ports))
            door = Door(before.port)
        yield Fleet(door, replicas, database_url, upstream, jwks)

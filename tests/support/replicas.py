"""Several gateways as processes of their own, on one database: what a balancer stands before."""

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.gateway import written_settings
from tests.support.jwks_server import serve_jwks
from tests.support.serve_process import ServeProcess, serve_process
from tests.support.upstream import RecordingUpstream, recording_upstream
from tests.support.wire import Reply, request

_GONE = (ConnectionError, EOFError, TimeoutError, asyncio.IncompleteReadError)


@dataclass
class Replicas:
    """Gateways that may be killed, and the upstream behind all of them.

    Attributes:
        killed: How many were.
        asked_again: Requests that a killed one left without an answer, and another one was asked for.
    """

    folder: Path
    settings: dict[str, Any]
    upstream: RecordingUpstream
    stack: AsyncExitStack
    running: list[ServeProcess] = field(default_factory=list)
    killed: int = 0
    asked_again: int = 0
    _turns: Iterator[int] = field(default_factory=itertools.count)

    async def start(self, count: int) -> None:
        """Start some more, all at once."""
        started = [self.stack.enter_async_context(serve_process(self.folder, self.settings)) for _ in range(count)]
        self.running += await asyncio.gather(*started)

    async def kill(self, place: int) -> None:
        """End one as the kernel does when memory is out, and start another one in its place."""
        os.kill(self.running[place].process.pid, signal.SIGKILL)
        self.killed += 1
        self.running[place] = await self.stack.enter_async_context(serve_process(self.folder, self.settings))

    async def get(self, target: str, *lines: str) -> Reply:
        """GET from the one whose turn it is; who gets no answer at all asks the next, as a balancer does."""
        while True:
            try:
                return await self.running[next(self._turns) % len(self.running)].ask(request(target, *lines))
            except _GONE:
                self.asked_again += 1
                await asyncio.sleep(0.02)


@asynccontextmanager
async def replicas_under_test(folder: Path, database_url: str, count: int, **changes: Any) -> AsyncIterator[Replicas]:
    """Run some with one key ring, one database and one upstream; `changes` go over their settings, nested."""
    async with serve_jwks() as jwks, recording_upstream() as upstream, AsyncExitStack() as stack:
        settings = written_settings(database_url, jwks.url, upstream.url, **changes)
        replicas = Replicas(folder, settings, upstream, stack)
        await replicas.start(count)
        yield replicas

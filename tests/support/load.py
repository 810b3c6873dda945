"""Clients that keep asking, and tell what was lost: answers that broke, and new connections left unanswered."""

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.support.wire import Wire, connected, request


@dataclass
class Load:
    """What a crowd of clients met.

    Attributes:
        answered: Answers that came whole.
        counts: How many came of each.
        lost: How each loss looked. A kept connection that ends between two answers is none: HTTP allows it at any time.
        refused: Dials that were refused.
    """

    port: int
    target: str
    tls: ssl.SSLContext | None = None
    answered: int = 0
    counts: Counter[int] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    refused: int = 0
    over: bool = False

    @property
    def statuses(self) -> set[int]:
        """All statuses that came."""
        return set(self.counts)

    async def until_answered(self, more: int) -> None:
        """Wait until this many further answers came."""
        wanted = self.answered + more
        async with asyncio.timeout(60):
            while self.answered < wanted:  # noqa: ASYNC110 - counted by many tasks
                await asyncio.sleep(0.01)

    async def client(self, *lines: str) -> None:
        """Ask until it is over, or nobody listens any more."""
        raw = request(self.target, *lines)
        while not self.over:
            try:
                async with connected(self.port, self.tls) as wire:
                    await self._converse(wire, raw)
            except ConnectionRefusedError:
                self.refused += 1
                return

    async def _converse(self, wire: Wire, raw: bytes) -> None:
        answers = 0
        while not self.over:
            try:
                reply = await wire.ask(raw)
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                begun = isinstance(error, asyncio.IncompleteReadError) and error.partial
                if begun or not answers:
                    self.lost.append(f"{error!r} after {answers} answers")
                return
            answers += 1
            self.answered += 1
            self.counts[reply.status] += 1
            if reply.get("connection") == "close":
                return


@asynccontextmanager
async def load_on(
    port: int,
    target: str = "/public/x",
    *,
    keeping: int = 8,
    dialling: int = 8,
    lines: Sequence[str] = (),
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Load]:
    """Run a crowd.

    Args:
        port: Of the gateway.
        target: What they ask for.
        keeping: Clients that keep their connections.
        dialling: Clients that dial for each request.
        lines: Fields of each request.
        tls: Their context; None: plain.
    """
    load = Load(port, target, tls)
    async with asyncio.TaskGroup() as group:
        for _ in range(keeping):
            group.create_task(load.client(*lines))
        for _ in range(dialling):
            group.create_task(load.client("Connection: close", *lines))
        try:
            yield load
        finally:
            load.over = True

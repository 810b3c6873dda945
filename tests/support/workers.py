"""`gateway serve` with several workers, as processes of their own."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support.gateway import MASTER_KEY, ORIGIN, PUBLISHABLE_KEY, ROUTES, merged
from tests.support.jwks_server import serve_jwks
from tests.support.serve_process import ServeProcess, serve_process
from tests.support.upstream import RecordingUpstream, recording_upstream
from tests.support.wire import Reply, connected, request

DEADLINE_S = 30.0


@dataclass
class Crew:
    """A supervisor, its workers, and the upstream behind them."""

    process: ServeProcess
    upstream: RecordingUpstream

    @property
    def port(self) -> int:
        return self.process.port

    def lines(self, event: str, **facts: Any) -> list[dict[str, Any]]:
        """Log lines of an event, in order."""
        return [
            line
            for line in self.process.lines
            if line["event"] == event and all(line.get(name) == value for name, value in facts.items())
        ]

    def pid(self, worker: int) -> int:
        """Process id of the latest worker of a place."""
        return int(self.lines("worker listening", worker=worker)[-1]["pid"])

    async def told(self, event: str, count: int = 1, **facts: Any) -> list[dict[str, Any]]:
        """Wait until an event was logged this many times."""
        await self.until(lambda: len(self.lines(event, **facts)) >= count)
        return self.lines(event, **facts)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(DEADLINE_S):
            while not holds():  # noqa: ASYNC110 - read from another process's log
                await asyncio.sleep(0.01)

    async def get(self, target: str, *lines: str) -> Reply:
        """GET on a connection of its own."""
        return await self.process.ask(request(target, *lines))

    @contextmanager
    def frozen(self, *workers: int) -> Iterator[None]:
        """Stop these workers where they are; the kernel goes on to take connections for them."""
        pids = [self.pid(worker) for worker in workers]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    async def admin(self, target: str) -> Reply:
        """GET on the admin port."""
        async with connected(self.process.admin_port) as wire:
            return await wire.ask(request(target, "Connection: close"))

    async def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """All samples of /metrics, by name and labels."""
        text = (await self.admin("/metrics")).body.decode()
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples with these labels."""
        samples = (await self.metrics()).items()
        return sum(value for (found, has), value in samples if found == name and labels.items() <= dict(has).items())


def settings_of_workers(jwks_url: str, upstream_url: str, database_url: str, redis_url: str) -> dict[str, Any]:
    """Settings of two workers, as a file holds them."""
    return {
        "listen": "127.0.0.1:0",
        "admin": {"listen": "127.0.0.1:0"},
        "workers": 2,
        "clerk": {
            "publishable_key": PUBLISHABLE_KEY,
            "jwks_url": jwks_url,
            "authorized_parties": [ORIGIN],
            "allow_insecure_http": True,
        },
        "database": {"url": database_url},
        "redis": {"url": redis_url},
        "upstreams": {"app": {"url": upstream_url}},
        "routes": ROUTES,
        "secrets": {"master_key": MASTER_KEY},
    }


@asynccontextmanager
async def crew_under_test(folder: Path, database_url: str, redis_url: str, **changes: Any) -> AsyncIterator[Crew]:
    """Run one with two workers; `changes` go over its settings, nested."""
    async with serve_jwks() as jwks, recording_upstream() as upstream:
        settings = merged(settings_of_workers(jwks.url, upstream.url, database_url, redis_url), changes)
        async with serve_process(folder, settings) as process:
            yield Crew(process, upstream)

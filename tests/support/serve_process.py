"""`gateway serve` as a process of its own, configured by a file as an operator would."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.wire import Reply, connected, request

START_DEADLINE_S = 60.0
END_DEADLINE_S = 30.0


@dataclass
class ServeProcess:
    """A gateway that said it listens.

    Attributes:
        port: Where clients connect.
        lines: Log lines it has written so far.
        file: Its settings.
        silent: Set when nobody can write its log any more.
    """

    process: asyncio.subprocess.Process
    file: Path
    port: int = 0
    admin_port: int = 0
    lines: list[dict[str, Any]] = field(default_factory=list)
    silent: asyncio.Event = field(default_factory=asyncio.Event)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Log lines of one event, so far."""
        return [line for line in self.lines if line["event"] == name]

    async def metric(self, name: str) -> float:
        """Read one sample without labels from /metrics."""
        async with connected(self.admin_port) as wire:
            text = (await wire.ask(request("/metrics", "Connection: close"))).body.decode()
        return next(float(line.split(" ")[1]) for line in text.splitlines() if line.split(" ")[0] == name)

    async def ask(self, raw: bytes) -> Reply:
        """Send one request on a connection of its own."""
        async with connected(self.port) as wire:
            return await wire.ask(raw)

    async def ended(self) -> int:
        """Ask it to stop, and give its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), END_DEADLINE_S)


@asynccontextmanager
async def serve_process(folder: Path, settings: dict[str, Any]) -> AsyncIterator[ServeProcess]:
    """Run one with these settings; JSON is YAML, and the log is read for the ports the system chose."""
    file = folder / f"gateway-{os.urandom(4).hex()}.yaml"
    await asyncio.to_thread(file.write_text, json.dumps(settings))
    command = [sys.executable, "-m", "gateway", "serve", "-c", str(file)]
    # Standard error is inherited: pytest shows it when a test fails.
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, limit=2**20)
    running = ServeProcess(process, file)
    reading: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(START_DEADLINE_S):
            while not running.port:
                await _read_line(running)
        reading = asyncio.create_task(_read_on(running))
        yield running
    finally:
        await running.ended()
        if reading is not None:
            await reading


async def _read_line(running: ServeProcess) -> bool:
    assert running.process.stdout is not None
    raw = await running.process.stdout.readline()
    if raw:
        line = json.loads(raw)
        running.lines.append(line)
        if line["event"] == "listening":
            running.port = int(line["listen"].rpartition(":")[2])
            running.admin_port = int(line["admin"].rpartition(":")[2])
    elif not running.port:
        raise AssertionError(f"gateway serve ended before it listened: {running.lines}")
    return bool(raw)


async def _read_on(running: ServeProcess) -> None:
    """Read until the process ends, so that its log never fills a pipe."""
    while await _read_line(running):
        pass
    running.silent.set()

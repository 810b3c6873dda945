"""Something between a gateway and what it depends on that can go wrong in every way a network and a server can.

A TCP proxy on 127.0.0.1. What is wrong may change at any moment, also for connections that are open: bytes that a
blackhole held back arrive when it ends, as after a partition, so an answer may come long after nobody waits for it.
"""

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from tests.support.ports import BACKLOG, free_port

_PIECE = 65536
_TRICKLE_S = 0.2
_COMMAND = re.compile(rb"\*\d+\r\n\$\d+\r\n[A-Za-z]+\r\n")
_LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"


class Fault(StrEnum):
    """What is wrong."""

    NONE = "none"
    LATENCY = "latency"  # each answer comes later
    BLACKHOLE = "blackhole"  # connections open, nothing passes
    RESET = "reset"  # connections open, and are cut
    REFUSE = "refuse"  # nobody listens
    HALF = "half"  # each answer ends after its first bytes, and the connection stays
    TRICKLE = "trickle"  # one byte now and then
    LOADING = "loading"  # Redis answers, and does not serve yet
    MIDWAY = "midway"  # connections open, and are cut by the first question
    CUT = "cut"  # each answer ends after its first byte, and the connection with it
    INSTEAD = "instead"  # each answer is other bytes


@dataclass(eq=False)
class _Pair:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None

    def cut(self) -> None:
        """End both ends at once, the client's with a reset."""
        if self.client.transport.is_closing():
            return
        with suppress(OSError):
            sock = self.client.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.transport.abort()
        if self.server is not None:
            self.server.transport.abort()


class FaultProxy:
    """Stands before one server.

    Attributes:
        port: Where it listens, also after it refused for a while.
        fault: What is wrong now; `set` changes it.
        connections: Taken so far.
        open: Connections that are open now.
    """

    def __init__(self, host: str, port: int) -> None:
        self._behind = host, port
        self.port = free_port()
        self.fault = Fault.NONE
        self.connections = 0
        self._latency_s = 0.0
        self._half_bytes = 3
        self._instead = b""
        self._changed = asyncio.Event()
        self._pairs: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Server | None = None

    @classmethod
    def before(cls, url: str) -> "FaultProxy":
        """Stand before the server of a URL."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        return cls(parts.hostname, parts.port)

    def through(self, url: str) -> str:
        """The same URL by way of this."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{user}{at}127.0.0.1:{self.port}").geturl()

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self._pairs)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["FaultProxy"]:
        """Listen inside the context."""
        await self._listen()
        try:
            yield self
        finally:
            await self._stop_listening()
            self._cut_all()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def set(self, fault: Fault, *, latency_s: float = 0.3, instead: bytes = b"") -> None:
        """Change what is wrong, for all connections at once.

        Args:
            fault: From now on.
            latency_s: Of `LATENCY`.
            instead: Of `INSTEAD`.
        """
        self.fault, self._latency_s, self._instead = fault, latency_s, instead
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if fault is Fault.REFUSE:
            await self._stop_listening()
        elif self._listening is None:
            await self._listen()
        if fault in (Fault.REFUSE, Fault.RESET):
            self._cut_all()

    async def _listen(self) -> None:
        self._listening = await asyncio.start_server(self._taken, "127.0.0.1", self.port, backlog=BACKLOG)

    async def _stop_listening(self) -> None:
        server, self._listening = self._listening, None
        if server is not None:
            server.close()  # not `wait_closed`, which waits for the connections too

    def _cut_all(self) -> None:
        for pair in list(self._pairs):
            pair.cut()

    def _taken(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        pair = _Pair(writer)
        self._pairs.add(pair)
        try:
            if self.fault is Fault.RESET:
                return
            back_reader, pair.server = await asyncio.open_connection(*self._behind)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._ask(reader, pair))
                ways.create_task(self._answer(back_reader, pair))
        except* (ConnectionError, OSError, EOFError):
            pass
        finally:
            self._pairs.discard(pair)
            pair.cut()
            for end in (pair.client, pair.server):
                if end is not None:
                    end.close()

    async def _ask(self, reader: asyncio.StreamReader, pair: _Pair) -> None:
        """Carry what the client says."""
        assert pair.server is not None
        while data := await reader.read(_PIECE):
            await self._until_not(Fault.BLACKHOLE)
            if self.fault is Fault.MIDWAY:
                break
            if self.fault is Fault.LOADING:
                pair.client.write(_LOADING * len(_COMMAND.findall(data)))
                continue
            pair.server.write(data)
            await pair.server.drain()
        raise ConnectionResetError  # so that the other way ends as well

    async def _answer(self, reader: asyncio.StreamReader, pair: _Pair) -> None:
        """Carry what the server says, as badly as wanted."""
        while data := await reader.read(_PIECE):
            await self._until_not(Fault.BLACKHOLE)
            if self.fault is Fault.INSTEAD:
                data = self._instead
            elif self.fault is Fault.CUT:
                pair.client.write(data[:1])
                break
            elif self.fault is Fault.LATENCY:
                await self._pause(self._latency_s)
            elif self.fault is Fault.HALF:
                pair.client.write(data[: self._half_bytes])
                data = data[self._half_bytes :]
                await self._until_not(Fault.HALF)
            while data and self.fault is Fault.TRICKLE:
                pair.client.write(data[:1])
                data = data[1:]
                await self._pause(_TRICKLE_S)
            await self._until_not(Fault.BLACKHOLE)
            pair.client.write(data)
            await pair.client.drain()
        raise ConnectionResetError

    async def _until_not(self, fault: Fault) -> None:
        while self.fault is fault:
            await self._changed.wait()

    async def _pause(self, seconds: float) -> None:
        """Wait, or until something else is wrong."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)


@asynccontextmanager
async def fault_proxy(url: str) -> AsyncIterator[FaultProxy]:
    """Run one before the server of a URL."""
    async with FaultProxy.before(url).running() as proxy:
        yield proxy

"""A real upstream that keeps what reached it, byte for byte, and answers as a test tells it."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gateway.edge.fields import folded
from tests.support.ports import BACKLOG

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok"


@dataclass
class Received:
    """One request as the upstream read it: its head as sent, and its decoded body.

    Attributes:
        whole: The body was read to its end.
    """

    head: bytes
    body: bytes = b""
    whole: bool = False

    @property
    def request_line(self) -> bytes:
        """Method, target and version."""
        return self.head.split(b"\r\n", 1)[0]

    @property
    def target(self) -> bytes:
        """The request target, byte for byte."""
        return self.request_line.split(b" ")[1]

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        """Field lines in order, names as sent."""
        lines = self.head.split(b"\r\n")[1:]
        return [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines if line)]

    def all(self, name: str) -> list[str]:
        """Values of a field under any spelling a server may read as this name."""
        wanted = folded(name.encode())
        return [value.decode("latin-1") for spelling, value in self.fields if folded(spelling) == wanted]

    def one(self, name: str) -> str:
        """The value of a field that must have come exactly once."""
        (value,) = self.all(name)
        return value


Responder = Callable[[Received, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool | None]]


async def answer_ok(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The default: a small fixed answer."""
    writer.write(OK)


def answering(raw: bytes) -> Responder:
    """Answer with these bytes."""

    async def respond(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)

    return respond


def answering_and_closing(raw: bytes) -> Responder:
    """Answer with these bytes and close."""

    async def respond(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(raw)
        return False

    return respond


@dataclass
class RecordingUpstream:
    """Keeps requests in order.

    Attributes:
        respond: Answers a request whose body was read; False closes the connection.
        respond_early: Answers a request as soon as its head is there, when set.
        connections: How many were accepted.
        writers: Connections open now.
        most_open: The most connections that were open at once.
    """

    port: int = 0
    secure: bool = False
    received: list[Received] = field(default_factory=list)
    respond: Responder = answer_ok
    respond_early: Responder | None = None
    connections: int = 0
    most_open: int = 0
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Base URL."""
        return f"{'https' if self.secure else 'http'}://127.0.0.1:{self.port}"

    @property
    def last(self) -> Received:
        """The latest request."""
        return self.received[-1]

    async def seen(self, count: int) -> None:
        """Wait until this many requests began to arrive."""
        await until(lambda: len(self.received) >= count)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read requests until the peer or the responder ends it."""
        self.connections += 1
        self.writers.add(writer)
        self.most_open = max(self.most_open, len(self.writers))
        try:
            while await self._one(reader, writer):
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.lost.set()
        finally:
            self.writers.discard(writer)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        received = Received(head[:-4])
        self.received.append(received)
        if self.respond_early is not None:
            return await self.respond_early(received, reader, writer) is not False
        await read_body(received, reader)
        return await self.respond(received, reader, writer) is not False


async def until(condition: Callable[[], object], deadline_s: float = 10.0) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - any condition, not only those somebody announces
            await asyncio.sleep(0.002)


async def read_body(received: Received, reader: asyncio.StreamReader) -> None:
    """Read a body by the framing fields, strictly."""
    if received.all("transfer-encoding") == ["chunked"]:
        while size := int((await reader.readuntil(b"\r\n"))[:-2], 16):
            received.body += await reader.readexactly(size)
            assert await reader.readexactly(2) == b"\r\n"
        assert await reader.readexactly(2) == b"\r\n", "no trailers go up"
    elif lengths := received.all("content-length"):
        (length,) = lengths
        assert re.fullmatch("[0-9]+", length)
        received.body = await reader.readexactly(int(length))
    received.whole = True


@asynccontextmanager
async def recording_upstream(
    *, port: int = 0, path: Path | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[RecordingUpstream]:
    """Run one on this port, on a free one, or on a Unix socket; it ends as if its process had."""
    upstream = RecordingUpstream(secure=tls is not None)
    if path is None:
        server = await asyncio.start_server(upstream.serve, "127.0.0.1", port, limit=2**20, ssl=tls, backlog=BACKLOG)
        upstream.port = server.sockets[0].getsockname()[1]
    else:
        server = await asyncio.start_unix_server(upstream.serve, path, limit=2**20)
    try:
        yield upstream
    finally:
        server.close()
        for writer in tuple(upstream.writers):
            writer.close()

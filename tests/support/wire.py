"""A client that sends exactly the bytes a test gives it, and reads answers strictly."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

DEADLINE_S = 10.0


@dataclass
class Reply:
    """One answer."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes = b""
    interim: list[int] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        """All values of a field."""
        return [value for spelling, value in self.fields if spelling.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """The value of a field that comes at most once."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    def json(self) -> Any:
        """The body, read as JSON."""
        return orjson.loads(self.body)

    @property
    def code(self) -> str:
        """The stable code of a problem document, which must be whole."""
        assert self.get("content-type") == "application/problem+json"
        problem = self.json()
        assert problem["status"] == self.status
        assert problem["requestId"] == self.get("x-request-id")
        return str(problem["code"])

    @property
    def challenge(self) -> "Challenge":
        """The parsed WWW-Authenticate field."""
        return Challenge.parse(self.get("www-authenticate"))


@dataclass(frozen=True)
class Challenge:
    """A Bearer challenge (RFC 6750 §3)."""

    realm: str | None = None
    error: str | None = None
    scope: str | None = None

    @classmethod
    def parse(cls, value: str | None) -> "Challenge":
        """Read `Bearer a="b", …`."""
        assert value is not None, "no challenge"
        scheme, _, rest = value.partition(" ")
        assert scheme == "Bearer"
        pairs = dict(part.strip().split("=", 1) for part in rest.split(","))
        return cls(**{name: text.strip('"') for name, text in pairs.items()})


class Answers:
    """Answers, read strictly from a stream."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.reader = reader

    async def reply(self, method: str = "GET") -> Reply:
        """Read one answer; its framing must be sound."""
        async with asyncio.timeout(DEADLINE_S):
            interim = []
            while True:
                reply = await self._head()
                if reply.status >= 200 or reply.status == 101:
                    break
                interim.append(reply.status)
            reply.interim = interim
            if method != "HEAD" and reply.status not in (101, 204, 304):
                reply.body = await self._body(reply)
            return reply

    async def _head(self) -> Reply:
        head = await self.reader.readuntil(b"\r\n\r\n")
        line, *lines = head[:-4].decode("latin-1").split("\r\n")
        version, status, _ = line.split(" ", 2)
        assert version == "HTTP/1.1"
        pairs = [text.split(":", 1) for text in lines]
        return Reply(int(status), [(name, value.strip()) for name, value in pairs])

    async def _body(self, reply: Reply) -> bytes:
        if reply.get("transfer-encoding") == "chunked":
            assert reply.get("content-length") is None
            body = b""
            while size := int((await self.reader.readuntil(b"\r\n"))[:-2], 16):
                body += await self.reader.readexactly(size)
                assert await self.reader.readexactly(2) == b"\r\n"
            assert await self.reader.readexactly(2) == b"\r\n"
            return body
        length = reply.get("content-length")
        return await (self.reader.read() if length is None else self.reader.readexactly(int(length)))

    async def closed(self) -> bool:
        """Tell whether the peer ends the connection without another byte."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True

    async def rest(self) -> bytes:
        """Everything up to the end of the connection, however it ends."""
        data = b""
        async with asyncio.timeout(DEADLINE_S):
            try:
                while piece := await self.reader.read(65536):
                    data += piece
            except ConnectionError:
                pass
        return data


class Wire(Answers):
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader)
        self.writer = writer

    async def send(self, raw: bytes) -> None:
        """Send bytes."""
        self.writer.write(raw)
        await self.writer.drain()

    async def ask(self, raw: bytes) -> Reply:
        """Send a request and read its answer."""
        await self.send(raw)
        return await self.reply(raw.split(b" ", 1)[0].decode("latin-1"))


class Answering(Protocol):
    """Whoever takes requests: a gateway in this process, one of several elsewhere, or the balancer before them."""

    async def ask(self, raw: bytes) -> Reply:
        """Send one request on a connection of its own."""


@asynccontextmanager
async def connected(port: int, tls: ssl.SSLContext | None = None, address: str | None = None) -> AsyncIterator[Wire]:
    """Open one connection.

    Args:
        port: Of 127.0.0.1.
        tls: The client's context; None: plain.
        address: To come from, of 127.0.0.0/8; None: 127.0.0.1.
    """
    local = (address, 0) if address is not None else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22, ssl=tls, local_addr=local)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


def request(
    target: str = "/", *lines: str, method: str = "GET", host: str = "app.example.test", body: bytes = b""
) -> bytes:
    """Write a request head (and body) from field lines; `Content-Length` comes with a body."""
    head = [f"{method} {target} HTTP/1.1", f"Host: {host}", *lines]
    if body:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


def bearer(token: str) -> str:
    """The Authorization line of a token."""
    return f"Authorization: Bearer {token}"

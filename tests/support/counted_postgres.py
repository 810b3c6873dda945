"""Counts the statements that reach PostgreSQL, between a gateway and its server, at their wire."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

_ASKS_FIRST = (80877103, 80877104)  # for TLS, for GSSAPI: the startup message follows


class CountedPostgres:
    """A relay.

    Attributes:
        url: Of the same database, through here.
        texts: What was executed so far, by either protocol; preparing a statement is no execution.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._place = parts.hostname, parts.port
        self._parts = parts
        self.url = ""
        self.texts: list[str] = []

    @property
    def statements(self) -> int:
        """How many were executed so far."""
        return len(self.texts)

    def reads_of(self, *tables: str) -> list[str]:
        """Those executed so far that look up rows of these tables, and change none."""
        wanted = re.compile(rf"\b(FROM|JOIN)\s+({'|'.join(tables)})\b")
        return [text for text in self.texts if wanted.search(text) and "UPDATE" not in text]

    @asynccontextmanager
    async def running(self) -> AsyncIterator["CountedPostgres"]:
        """Relay inside the context."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        user = f"{self._parts.username}@" if self._parts.username else ""
        netloc = f"{user}127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self.url = self._parts._replace(netloc=netloc).geturl()
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection(*self._place)
        ways = (self._forward(reader, back_writer), _relay(back_reader, writer))
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await asyncio.gather(*ways)
        for end in (writer, back_writer):
            end.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            message = await _message(reader)
            writer.write(message)
            if int.from_bytes(message[4:8]) not in _ASKS_FIRST:
                break
        prepared: dict[bytes, str] = {}
        portals: dict[bytes, str] = {}
        while True:
            kind = await reader.readexactly(1)
            message = await _message(reader)
            first, _, rest = message[4:].partition(b"\0")
            second = rest.partition(b"\0")[0]
            match kind:  # PostgreSQL: Frontend/Backend Protocol, Message Formats
                case b"P":
                    prepared[first] = second.decode()
                case b"B":
                    portals[first] = prepared[second]
                case b"E":
                    self.texts.append(portals[first])
                case b"Q":
                    self.texts.append(first.decode())
                case _:
                    pass
            writer.write(kind + message)


async def _message(reader: asyncio.StreamReader) -> bytes:
    size = await reader.readexactly(4)
    return size + await reader.readexactly(int.from_bytes(size) - 4)


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    raise ConnectionResetError  # so that the other way ends as well

"""A client and an upstream that read with h11: no byte of the gateway is judged by a parser of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import h11

from tests.support.raw_exchanges import Script

HEAD_CAP = 2**18
DEADLINE_S = 20.0
Lines = list[tuple[bytes, bytes]]


@dataclass
class Message:
    """One message as h11 reads it.

    Attributes:
        start: What its first line says: method and target, or status and reason; empty when the head never came.
        lines: Fields in order, names lower-cased.
        whole: Its end came, as its framing has it.
    """

    start: tuple[bytes, ...] = ()
    lines: Lines = field(default_factory=list)
    body: bytes = b""
    whole: bool = False

    def without(self, *names: bytes) -> Lines:
        """The fields but these."""
        return [(name, value) for name, value in self.lines if name not in names]

    def all(self, name: bytes) -> list[bytes]:
        """Values of a field."""
        return [value for other, value in self.lines if other == name]


async def write(writer: asyncio.StreamWriter, script: Script) -> None:
    """Write in pieces, with pauses; nobody minds when the peer leaves first."""
    start = 0
    with suppress(ConnectionError):
        for size, pause in [*script.pieces, (len(script.raw), 0)]:
            if writer.transport.is_closing():  # uvloop raises where asyncio ignores
                return
            writer.write(script.raw[start : start + size])
            start += size
            if pause:
                await asyncio.sleep(0.001 * (pause - 1))
        await writer.drain()


async def read_message(parser: h11.Connection, reader: asyncio.StreamReader, message: Message) -> None:
    """Read one message to its end, or as far as it comes."""
    try:
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(await reader.read(2**18))
            elif isinstance(event, h11.Request):
                message.start, message.lines = (event.method, event.target), list(event.headers)
            elif isinstance(event, h11.Response):
                message.start, message.lines = (b"%d" % event.status_code, event.reason), list(event.headers)
            elif isinstance(event, h11.Data):
                message.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                message.whole = True
                return
            elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                return
    except (h11.RemoteProtocolError, ConnectionError):
        return


async def ask(port: int, method: str, script: Script) -> Message:
    """Send a request's bytes and read the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**18)
    parser, message = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_CAP), Message()
    # h11 must know the method; what goes out is the script.
    parser.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    parser.send(h11.EndOfMessage())
    try:
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(write(writer, script), read_message(parser, reader, message))
    finally:
        writer.close()
    return message


@dataclass
class ScriptedUpstream:
    """Reads a request to its end, writes what the script says, and keeps what it read.

    Attributes:
        script: For the next requests.
    """

    port: int = 0
    script: Script = field(default_factory=lambda: Script(b"", []))
    seen: list[Message] = field(default_factory=list)
    closing: set[asyncio.StreamWriter] = field(default_factory=set)

    async def settled(self) -> None:
        """Wait until what this upstream closed is closed, and its peers, on the same loop, had turns to notice."""
        while self.closing:  # noqa: ASYNC110 - a handful of turns
            await asyncio.sleep(0.001)
        for _ in range(5):
            await asyncio.sleep(0.001)

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer until the peer or the script ends it."""
        rest = b""
        try:
            while True:
                parser, message = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_CAP), Message()
                if rest:
                    parser.receive_data(rest)
                await read_message(parser, reader, message)
                if message.start:
                    self.seen.append(message)
                if not message.whole:
                    return
                script, rest = self.script, parser.trailing_data[0]
                await write(writer, script)
                if script.close:
                    return
        except ConnectionError:
            return
        finally:
            self.closing.add(writer)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            self.closing.discard(writer)


@asynccontextmanager
async def scripted_upstream() -> AsyncIterator[ScriptedUpstream]:
    """Run one."""
    upstream = ScriptedUpstream()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, limit=2**18)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()

"""Websocket handshakes as bytes, from both sides, and an echo server of an independent library."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager

from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame
from websockets.streams import StreamReader

from tests.support.upstream import Received, Responder
from tests.support.wire import request

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 §1.3
ASKING = ("Connection: Upgrade", "Upgrade: websocket")
VERSION = "Sec-WebSocket-Version: 13"


def handshake(target: str = "/public/ws", *lines: str, method: str = "GET") -> bytes:
    """A good handshake, with these lines besides."""
    return request(target, *ASKING, VERSION, f"Sec-WebSocket-Key: {KEY}", *lines, method=method)


def switching(*lines: str, accept: str = ACCEPT, rest: bytes = b"") -> bytes:
    """An upstream's 101."""
    head = ["HTTP/1.1 101 Switching Protocols", *ASKING, f"Sec-WebSocket-Accept: {accept}", *lines]
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + rest


def then_echo(raw: bytes) -> Responder:
    """Send these bytes, then whatever comes, back."""

    async def respond(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(raw)
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        return False

    return respond


def accept_of(key: str) -> str:
    """Sec-WebSocket-Accept, written down once more so that the gateway's own is not compared with itself."""
    text = key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1(text.encode()).digest()).decode()


def frame(opcode: int, payload: bytes, *, final: bool = True, mask: bytes = b"") -> bytes:
    """One frame (RFC 6455 §5.2)."""
    size = len(payload)
    flag = 0x80 if mask else 0
    if size < 126:
        length = bytes((flag | size,))
    elif size < 65536:
        length = bytes((flag | 126,)) + size.to_bytes(2, "big")
    else:
        length = bytes((flag | 127,)) + size.to_bytes(8, "big")
    body = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload)) if mask else payload
    return bytes((opcode | (0x80 if final else 0),)) + length + mask + body


class ServersEar:
    """Reads what a client sends as `websockets` does on a server (and uvicorn with it)."""

    def __init__(self) -> None:
        self._stream = StreamReader()
        self._parsing = self._next()

    def hear(self, data: bytes) -> list[Frame]:
        """Take bytes as they come; gives the frames that are whole with them."""
        self._stream.feed_data(data)
        heard: list[Frame] = []
        while self._stream.buffer:
            try:
                next(self._parsing)
            except StopIteration as done:
                heard.append(done.value)
                self._parsing = self._next()
            else:
                break  # it wants more
        return heard

    def _next(self) -> Generator[None, None, Frame]:
        return Frame.parse(self._stream.read_exact, mask=True)


async def echo(connection: ServerConnection) -> None:
    """Send every message back."""
    async for message in connection:
        await connection.send(message)


@asynccontextmanager
async def echo_server(**options: object) -> AsyncIterator[str]:
    """Run the library's server; gives its http address."""
    defaults: dict[str, object] = {"handler": echo, "max_size": None, "ping_interval": None, "subprotocols": None}
    chosen = defaults | options
    handler = chosen.pop("handler")
    async with serve(handler, "127.0.0.1", 0, **chosen) as server:  # type: ignore[arg-type]  # options of many types
        yield f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"

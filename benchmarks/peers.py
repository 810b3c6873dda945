"""Both ends of the measured websockets, as raw as can be: a client without checks, a server that only echoes.

Every message is a binary one of 125 bytes in one frame, masked with zeros, so that echoing it is a copy.

    python -m benchmarks.peers PORT     the echo server
"""

import asyncio
import base64
import gc
import hashlib
import sys
from collections.abc import Callable
from typing import cast

import uvloop

PAYLOAD = 125
_MASKED, _PLAIN = PAYLOAD + 6, PAYLOAD + 2  # a frame's bytes on the way up, and down
_FRAME_UP = b"\x82\xfd\0\0\0\0" + b"m" * PAYLOAD
_FRAME_DOWN = b"\x82\x7d"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


def accept_of(key: bytes) -> bytes:
    """What proves that a server understood the handshake (RFC 6455 §4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def handshake(token: str) -> bytes:
    """Write a client's request; the client is no browser, so the token is in a field."""
    return (
        f"GET /socket HTTP/1.1\r\nHost: app.example.test\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\n"
        f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {_KEY.decode()}\r\n\r\n"
    ).encode()


def switched(head: bytes) -> bool:
    """Whether an answer's head says 101 to our key."""
    return head.startswith(b"HTTP/1.1 101 ") and accept_of(_KEY) in head


class Echo(asyncio.Protocol):
    """One connection of the server."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        data = self._buffer + data
        if not self._open:
            head, ended, data = data.partition(b"\r\n\r\n")
            if not ended:
                self._buffer = head
                return
            lines = (line.partition(b":") for line in head.split(b"\r\n"))
            key = next(value.strip() for name, _, value in lines if name.lower() == b"sec-websocket-key")
            answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            self._transport.write(answer + b"Sec-WebSocket-Accept: " + accept_of(key) + b"\r\n\r\n")
            self._open = True
        whole = len(data) // _MASKED * _MASKED
        self._buffer = data[whole:]
        if whole:
            echoes = [_FRAME_DOWN + data[at + 6 : at + _MASKED] for at in range(0, whole, _MASKED)]
            self._transport.write(b"".join(echoes))


class Client(asyncio.Protocol):
    """One connection of the client.

    Attributes:
        opened: Done with whether the server switched; false also when the connection ended before.
        echoes: Whole messages that came back.
    """

    def __init__(self, token: str) -> None:
        self._request = handshake(token)
        self._head = b""
        self._received = 0
        self._on_echo: Callable[[], bool] | None = None
        self.transport: asyncio.Transport | None = None
        self.opened: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.echoes = 0

    def itself(self) -> "Client":
        """What `create_connection` asks for."""
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)
        self._request = b""

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            self._head += data
            head, ended, _ = self._head.partition(b"\r\n\r\n")
            if ended:
                self.opened.set_result(switched(head))
                self._head = b""
            return
        self._received += len(data)
        while self._received >= _PLAIN:
            self._received -= _PLAIN
            self.echoes += 1
            if self._on_echo is not None and self._on_echo():
                self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if not self.opened.done():
            self.opened.set_result(False)

    def send(self, on_echo: Callable[[], bool] | None = None) -> None:
        """Send one message; `on_echo`, once given, tells at each echo whether to send another."""
        self._on_echo = on_echo or self._on_echo
        if self.transport is not None:
            self.transport.write(_FRAME_UP)

    def close(self) -> None:
        """Drop the connection, without a close frame."""
        if self.transport is not None:
            self.transport.abort()


async def serve(port: int) -> None:
    """Echo until killed."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port, backlog=4096)
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))

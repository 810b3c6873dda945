"""W08: messages made to hurt, and ends that do not read. Bytes pass as they are; memory is bounded by back-pressure."""

import asyncio
import os
import socket
import zlib
from typing import Any

import pytest

from tests.support.gateway import GatewayUnderTest
from tests.support.upstream import Received, Responder, until
from tests.support.websockets import frame, handshake, switching, then_echo
from tests.support.wire import request

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS: dict[str, Any] = {"upstreams": {"app": {"idle_timeout": "1s"}}}
MIB = 1 << 20
HELD_AT_MOST = 16 * MIB  # four sockets' buffers of the kernel, which grow to several MiB each; our part is 128 KiB
MASK = b"\x01\x02\x03\x04"


async def opened(gateway: GatewayUnderTest) -> socket.socket:
    """A tunnel whose client decides when it reads, and whose own buffers are small."""
    client, loop = socket.socket(), asyncio.get_running_loop()
    client.setblocking(False)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
    await loop.sock_connect(client, ("127.0.0.1", gateway.port))
    await loop.sock_sendall(client, handshake())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await loop.sock_recv(client, 1)
    assert head.startswith(b"HTTP/1.1 101 ")
    return client


async def receive(client: socket.socket, size: int) -> bytes:
    """Exactly so many bytes."""
    loop, data = asyncio.get_running_loop(), bytearray()
    async with asyncio.timeout(60):
        while len(data) < size:
            piece = await loop.sock_recv(client, min(MIB, size - len(data)))
            assert piece, f"{size - len(data)} of {size} bytes did not come"
            data += piece
    return bytes(data)


def bomb() -> bytes:
    """A deflated message (RFC 7692) of 64 MiB in some 64 KiB."""
    deflating = zlib.compressobj(wbits=-15)
    payload = deflating.compress(bytes(64 * MIB)) + deflating.flush(zlib.Z_SYNC_FLUSH)
    return frame(0x42, payload[:-4], mask=MASK)


@pytest.mark.parametrize(
    "raw",
    [
        frame(0x2, os.urandom(65 * MIB)),
        frame(0x1, b"", final=False) + frame(0x0, b"x", final=False, mask=MASK) * 1_000_000 + frame(0x0, b""),
        frame(0x0, b"", final=False) * 1_000_000,
        bomb(),
        (frame(0x9, b"p" * 125, mask=MASK) + frame(0xA, b"")) * 10_000,
        os.urandom(MIB),
    ],
    ids=["message_of_65_mib", "tiny_fragments", "empty_fragments", "deflated_bomb", "pings", "no_frames"],
)
async def test_w08_bytes_pass_both_ways_as_they_are(gateway: GatewayUnderTest, raw: bytes) -> None:
    gateway.upstream.respond_early = then_echo(switching())
    with await opened(gateway) as client:
        sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(client, raw))
        got = await receive(client, len(raw))
        await sending

    assert got == raw


def pouring(taken: list[int]) -> Responder:
    """An upstream that writes messages for as long as somebody takes them."""

    async def respond(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(switching())
        piece = frame(0x2, bytes(65_526))
        try:
            while True:
                writer.write(piece)
                await writer.drain()
                taken[0] += len(piece)
        except ConnectionError:
            taken[1] += 1
        return False

    return respond


def deaf(ended: list[int]) -> Responder:
    """An upstream that switches and reads nothing more."""

    async def respond(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(switching())
        await writer.drain()
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport can
        await until(writer.transport.is_closing)
        ended[1] += 1
        return False

    return respond


async def pour(client: socket.socket, taken: list[int]) -> None:
    piece = frame(0x2, bytes(65_526), mask=MASK)
    while True:
        await asyncio.get_running_loop().sock_sendall(client, piece)
        taken[0] += len(piece)


@pytest.mark.parametrize("slow", ["client", "upstream"])
async def test_w08_an_end_that_does_not_read_stops_the_other_and_then_ends_it(
    gateway: GatewayUnderTest, slow: str
) -> None:
    taken, stalled = [0, 0], await gateway.metric("gateway_websocket_closes_total", reason="stalled")
    gateway.upstream.respond_early = pouring(taken) if slow == "client" else deaf(taken)
    with await opened(gateway) as client:
        sending = asyncio.create_task(pour(client, taken)) if slow == "upstream" else None
        while await gateway.metric("gateway_websocket_closes_total", reason="stalled") == stalled:  # noqa: ASYNC110 - asks over a port
            await asyncio.sleep(0.05)
        if sending is not None:
            with pytest.raises(ConnectionError):
                await asyncio.wait_for(sending, 10)
            for writer in gateway.upstream.writers:
                writer.transport.abort()
        await until(lambda: taken[1])
        gateway.upstream.respond_early = None
        after = await gateway.ask(request("/public/after"))

    assert 0 < taken[0] < HELD_AT_MOST
    assert after.status == 200
    assert await gateway.metric("gateway_websockets_open") == 0

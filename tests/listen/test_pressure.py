"""Slow readers, vanished clients and crowds: memory stays bounded, and every place is given back."""

import asyncio
import socket
from typing import Any

import pytest

from tests.support.gateway import GatewayUnderTest
from tests.support.upstream import OK, Received, read_body, until
from tests.support.wire import connected, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS: dict[str, Any] = {"upstreams": {"app": {"idle_timeout": 2}}}
MIB = 1 << 20
LARGE = 64 * MIB
PIECE = bytes(64 * 1024)
BOUND = 32 * MIB  # what the kernel may hold in the sockets of both connections is most of it
"""What may be under way at once: buffers of four sockets (several MiB each on loopback) and the gateway's own."""


async def quiet_socket(gateway: GatewayUnderTest) -> socket.socket:
    """A connection whose owner decides when it reads."""
    connection = socket.socket()
    connection.setblocking(False)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", gateway.port))
    return connection


async def read_all(connection: socket.socket) -> int:
    loop, total = asyncio.get_running_loop(), 0
    async with asyncio.timeout(60):
        while data := await loop.sock_recv(connection, MIB):
            total += len(data)
    return total


async def stalled(progress: list[int]) -> int:
    """Wait until a sender makes no more progress; gives how far it came."""
    async with asyncio.timeout(30):
        while True:
            before = progress[0]
            await asyncio.sleep(0.3)
            if progress[0] == before > 0:
                return before


async def test_a_download_waits_for_a_slow_client(gateway: GatewayUnderTest) -> None:
    sent = [0]

    async def large(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE)
        for _ in range(LARGE // len(PIECE)):
            writer.write(PIECE)
            await writer.drain()
            sent[0] += len(PIECE)

    gateway.upstream.respond = large
    with await quiet_socket(gateway) as client:
        await asyncio.get_running_loop().sock_sendall(client, request("/public/x", "Connection: close"))
        reached = await stalled(sent)
        total = await read_all(client)

    assert reached < BOUND
    assert total > LARGE


async def test_an_upload_waits_for_a_slow_upstream(gateway: GatewayUnderTest) -> None:
    sent, gate = [0], asyncio.Event()

    async def slow(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await read_body(received, reader)
        writer.write(OK)

    async def upload() -> None:
        for _ in range(LARGE // len(PIECE)):
            await wire.send(PIECE)
            sent[0] += len(PIECE)

    gateway.upstream.respond_early = slow
    async with gateway.wire() as wire:
        await wire.send(request("/public/x", f"Content-Length: {LARGE}", method="POST"))
        uploading = asyncio.create_task(upload())
        reached = await stalled(sent)
        gate.set()
        await uploading
        reply = await wire.reply()

    assert reached < BOUND
    assert reply.status == 200
    assert len(gateway.upstream.last.body) == LARGE


async def test_a_client_that_pipelines_and_never_reads_fills_no_memory(gateway: GatewayUnderTest) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(PIECE), PIECE)

    async def respond(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    gateway.upstream.respond = respond
    with await quiet_socket(gateway) as client:
        flood = asyncio.create_task(asyncio.get_running_loop().sock_sendall(client, request("/public/x") * 2000))
        await until(lambda: gateway.upstream.received)
        async with asyncio.timeout(30):
            before = 0
            while len(gateway.upstream.received) != before:
                before = len(gateway.upstream.received)
                await asyncio.sleep(0.3)
        flood.cancel()

    assert before * len(PIECE) < BOUND


@pytest.mark.parametrize("begun", [False, True], ids=["before_the_answer", "within_the_answer"])
async def test_a_client_that_vanishes_frees_the_upstream(gateway: GatewayUnderTest, begun: bool) -> None:
    async def endless(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if begun:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n")
        await reader.read()
        return False

    gateway.upstream.respond = endless
    async with gateway.wire() as wire:
        await wire.send(request("/public/x"))
        await gateway.upstream.seen(1)
        if begun:
            await wire.reader.readuntil(b"begun")
    await until(lambda: not gateway.upstream.writers)

    assert await gateway.metric("gateway_upstream_connections", upstream="app", state="busy") == 0


@pytest.mark.parametrize("framing", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
async def test_a_client_that_vanishes_within_an_upload_leaves_no_whole_request(
    gateway: GatewayUnderTest, framing: str
) -> None:
    async with gateway.wire() as wire:
        await wire.send(request("/public/x", framing, method="POST") + b"5\r\nhello\r\n")
        await gateway.upstream.seen(1)
    await until(lambda: not gateway.upstream.writers)

    assert not gateway.upstream.last.whole


async def test_a_client_that_stops_reading_is_cut_after_the_idle_timeout(gateway: GatewayUnderTest) -> None:
    async def endless(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + PIECE + b"\r\n")
            await writer.drain()

    gateway.upstream.respond = endless
    with await quiet_socket(gateway) as client:
        await asyncio.get_running_loop().sock_sendall(client, request("/public/x"))
        await gateway.upstream.seen(1)
        await until(lambda: not gateway.upstream.writers)

        with pytest.raises(ConnectionResetError):
            await read_all(client)


async def test_an_upload_that_stops_is_cut_after_the_idle_timeout(gateway: GatewayUnderTest) -> None:
    async with gateway.wire() as wire:
        await wire.send(request("/public/x", "Content-Length: 1000000", method="POST") + b"part")
        reply = await wire.reply()

        assert reply.status == 504
        assert await wire.closed()
    await until(lambda: not gateway.upstream.writers)


async def test_600_at_once_are_all_served_over_512_connections(gateway: GatewayUnderTest) -> None:
    open_gate = asyncio.Event()
    gateway.upstream.most_open = 0

    async def wait(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await open_gate.wait()
        writer.write(OK)

    async def client() -> int:
        async with connected(gateway.port) as wire:
            return (await wire.ask(request("/public/x"))).status

    gateway.upstream.respond = wait
    clients = [asyncio.create_task(client()) for _ in range(600)]
    await gateway.upstream.seen(512)
    await asyncio.sleep(0.1)
    at_once = len(gateway.upstream.received)
    open_gate.set()
    statuses = await asyncio.gather(*clients)

    assert statuses == [200] * 600
    assert at_once == gateway.upstream.most_open == 512

"""D: slow, oversized and numerous clients: others are served, memory stays bounded, and every place is freed."""

import asyncio
import gzip
import socket
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support.clerk_keys import jwks
from tests.support.clerk_webhooks import SECRET
from tests.support.gateway import MASTER_KEY, PUBLISHABLE_KEY, ROUTES, GatewayUnderTest, gateway_under_test, mint_token
from tests.support.jwks_server import serve_jwks
from tests.support.serve_process import serve_process
from tests.support.upstream import OK, Received, answer_ok, answering, recording_upstream
from tests.support.websockets import handshake, switching, then_echo
from tests.support.wire import Wire, bearer, connected, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
CONNECTIONS = 130
SETTINGS: dict[str, Any] = {
    "limits": {"head_timeout": "1s", "keepalive": "1500ms"},
    "clerk": {"webhook_secrets": [SECRET]},
    "upstreams": {"app": {"idle_timeout": "1s", "max_connections": CONNECTIONS, "queue_timeout": "10s"}},
}
MIB = 1 << 20
TRACE = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def crowd(stack: AsyncExitStack, gateway: GatewayUnderTest, count: int) -> list[Wire]:
    """That many connections."""
    return [await stack.enter_async_context(gateway.wire()) for _ in range(count)]


async def test_d01_heads_that_dribble_end_at_the_deadline_and_harm_nobody(gateway: GatewayUnderTest) -> None:
    served = []

    async def dribble(wire: Wire) -> bytes:
        await wire.send(b"GET /public/slow HTTP/1.1\r\nHost: a\r\nX-Pad: ")
        answer = asyncio.create_task(wire.rest())
        while not answer.done():
            if not wire.writer.transport.is_closing():
                wire.writer.write(b"a")
            await asyncio.sleep(0.1)
        return await answer

    async with AsyncExitStack() as stack:
        wires = await crowd(stack, gateway, 100)
        dribbling = asyncio.gather(*(dribble(wire) for wire in wires))
        while not dribbling.done():
            served.append((await gateway.get("/public/other")).status)
        answers = await dribbling

    assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers if answer)
    assert any(answers)  # who still writes when its connection is closed may see the reset alone
    assert set(served) == {200}
    assert {received.target for received in gateway.upstream.received} == {b"/public/other"}


@pytest.mark.parametrize("framing", ["Content-Length: 1000000000", "Transfer-Encoding: chunked"])
async def test_d02_uploads_that_fall_silent_end_and_free_their_places(gateway: GatewayUnderTest, framing: str) -> None:
    async with AsyncExitStack() as stack:
        wires = await crowd(stack, gateway, CONNECTIONS)
        for wire in wires:
            await wire.send(request("/public/silent", framing, method="POST"))
        await gateway.upstream.seen(CONNECTIONS)
        after = await gateway.get("/public/after")  # waits for one of their places
        answers = await asyncio.gather(*(wire.rest() for wire in wires))

    assert after.status == 200
    assert all(answer.startswith(b"HTTP/1.1 504 ") for answer in answers)
    assert await gateway.metric("gateway_upstream_connections", state="busy") == 0


@pytest.mark.parametrize("framing", ["Content-Length: 60000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize(("method", "target"), [("PATCH", "/users/current/settings"), ("POST", "/webhooks/clerk")])
async def test_d02_bodies_for_the_gateway_itself_that_fall_silent_end(
    gateway: GatewayUnderTest, method: str, target: str, framing: str
) -> None:
    signed = ("svix-id: msg_1", f"svix-timestamp: {int(time.time())}", "svix-signature: v1,not-read-before-the-body")
    lines = (bearer(mint_token()), "Content-Type: application/json", *signed, framing)
    async with gateway.wire() as wire:
        await wire.send(request(target, *lines, method=method))
        reply = await wire.reply()

        assert (reply.status, reply.code, reply.get("connection")) == (408, "body_timeout", "close")
        assert await wire.closed()


async def test_d02_a_body_of_single_bytes_arrives_though_it_takes_longer_than_the_idle_timeout(
    gateway: GatewayUnderTest,
) -> None:
    body = b"one byte at a time"
    async with gateway.wire() as wire:
        await wire.send(request("/public/x", f"Content-Length: {len(body)}", method="POST"))
        for octet in body:
            await wire.send(bytes((octet,)))
            await asyncio.sleep(0.08)
        reply = await wire.reply()

    assert reply.status == 200
    assert gateway.upstream.last.body == body


async def slow_reader(port: int) -> socket.socket:
    """A client whose window takes little, and who decides when it reads."""
    connection = socket.socket()
    connection.setblocking(False)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    return connection


def grown_to(pid: int) -> int:
    """The most memory a process has held, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024


async def test_d02_five_hundred_clients_that_hardly_read_fill_no_memory_and_free_their_places(
    tmp_path: Path, database_url: str, fast_lane: bool
) -> None:
    count, size = 500, 2 * MIB

    async def large(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if received.target == b"/public/after":
            writer.write(OK)
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // 65_536):
            writer.write(bytes(65_536))
            await writer.drain()

    async with AsyncExitStack() as stack:
        keys = await stack.enter_async_context(serve_jwks())
        upstream = await stack.enter_async_context(recording_upstream())
        upstream.respond = large
        settings = {
            "listen": "127.0.0.1:0",
            "admin": {"listen": "127.0.0.1:0"},
            "fast_lane": fast_lane,
            "clerk": {"publishable_key": PUBLISHABLE_KEY, "jwks_url": keys.url, "allow_insecure_http": True},
            "database": {"url": database_url},
            "upstreams": {
                "app": {
                    "url": upstream.url,
                    "connect_timeout": "30s",  # the upstream of these tests is none of the fastest
                    "idle_timeout": "3s",
                    "max_connections": count,
                    "queue_timeout": "30s",
                }
            },
            "routes": ROUTES,
            "secrets": {"master_key": MASTER_KEY},
        }
        process = await stack.enter_async_context(serve_process(tmp_path, settings))
        before = grown_to(process.process.pid)
        clients = [stack.enter_context(await slow_reader(process.port)) for _ in range(count)]
        loop = asyncio.get_running_loop()
        for number, client in enumerate(clients):
            await loop.sock_sendall(client, request(f"/public/{number}"))
            await upstream.seen(number - 50)  # as fast as it takes them
        await upstream.seen(count)
        for _ in range(3):  # a byte now and then
            await asyncio.sleep(0.2)
            for client in clients:
                await loop.sock_recv(client, 1)
        async with connected(process.port) as wire:
            await wire.send(request("/public/after"))
            async with asyncio.timeout(30):
                answer = await wire.reader.readuntil(b"\r\n\r\nok")
        grown = grown_to(process.process.pid) - before

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert grown < count * 128 * 1024


@pytest.mark.parametrize(
    ("target", "lines", "statuses"),
    [
        ("/public/x", [f"X-{number}: v" for number in range(127)], {200}),
        ("/public/x", [f"X-{number}: v" for number in range(128)], {431}),
        ("/public/x", [*(f"X-{number}: v" for number in range(125)), TRACE, "Content-Length: 0"], {200}),
        ("/public/x", [*(f"X-{number}: v" for number in range(126)), TRACE, "Content-Length: 0"], {431}),
        ("/public/x", ["Accept: */*"] * 5000, {431}),
        ("/public/x", ["X-Large: " + "a" * 8191], {200}),
        ("/public/x", ["X-Large: " + "a" * 33_000], {431}),
        ("/public/x", ["Cookie: " + "; ".join(f"c{number}=v" for number in range(200))], {200}),
        ("/public/x", [f"Cookie: c{number}=v" for number in range(200)], {431}),
        ("/public/x?q=" + "a" * 64 * 1024, [], {414, 431}),
        ("/public/" + "a" * 64 * 1024, [], {414, 431}),
    ],
    ids=[
        "127",
        "128",
        "127_of_all_kinds",
        "128_of_all_kinds",
        "5000",
        "line",
        "large",
        "cookies",
        "cookie_fields",
        "query",
        "path",
    ],
)
async def test_d03_heads_are_taken_up_to_their_limits(
    gateway: GatewayUnderTest, target: str, lines: list[str], statuses: set[int]
) -> None:
    reply = await gateway.get(target, *lines)

    assert reply.status in statuses
    assert len(gateway.upstream.received) == (reply.status == 200)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n" * 20_000),
        ("application/x-www-form-urlencoded", b"a=b&" * 200_000),
        ("application/json", b"[" * 1_000_000),
        ("application/json", b'{"a":' * 200_000),
        ("application/json", b'{"a": ' + b"9" * 1_000_000 + b"}"),
    ],
    ids=["multipart", "urlencoded", "nested_lists", "nested_objects", "digits"],
)
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_d03_bodies_made_to_hurt_an_own_endpoint_are_refused(
    gateway: GatewayUnderTest, content_type: str, body: bytes, framing: str
) -> None:
    lines = [bearer(mint_token()), f"Content-Type: {content_type}"]
    if framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
        sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        lines.append(f"Content-Length: {len(body)}")
        sent = body
    async with gateway.wire() as wire:
        wire.writer.write(request("/users/current/settings", *lines, method="PATCH") + sent)
        reply = await wire.reply()

    assert reply.status in (400, 413, 415, 422)
    assert reply.code
    assert gateway.upstream.received == []


async def test_d04_requests_pipelined_by_the_hundred_thousand_wait_in_the_clients_own_buffers(
    gateway: GatewayUnderTest,
) -> None:
    raw, count, sent = request("/public/x"), 100_000, 0
    gateway.upstream.respond = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n" + bytes(4000))

    async def flood(client: socket.socket) -> None:
        nonlocal sent
        batch = raw * 100
        for _ in range(count // 100):
            await asyncio.get_running_loop().sock_sendall(client, batch)
            sent += 100

    with await slow_reader(gateway.port) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        flooding = asyncio.create_task(flood(client))
        before = -1
        while before != len(gateway.upstream.received):
            before = len(gateway.upstream.received)
            await asyncio.sleep(0.3)
        others = [(await gateway.get("/public/other")).status for _ in range(20)]
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)

    assert others == [200] * 20
    assert before < 4000
    assert sent < count


async def test_d04_connections_that_idle_end_by_time_whatever_came_before(gateway: GatewayUnderTest) -> None:
    before = [b"", request("/public/x"), request("/users/current"), request("/public/x", method="POST", body=b"hello")]
    async with AsyncExitStack() as stack:
        wires = await crowd(stack, gateway, 200)
        for number, wire in enumerate(wires):
            if first := before[number % len(before)]:
                await wire.ask(first)

        ends = await asyncio.gather(*(wire.closed() for wire in wires))
    assert ends == [True] * 200


async def test_d05_compressed_bodies_are_never_inflated(gateway: GatewayUnderTest) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    gateway.upstream.respond = answering(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(bomb), bomb)
    )

    reply = await gateway.ask(request("/public/x", "Content-Encoding: gzip", method="POST", body=bomb))

    assert reply.body == gateway.upstream.last.body == bomb
    assert reply.get("content-encoding") == gateway.upstream.last.one("content-encoding") == "gzip"


async def test_d05_an_own_endpoint_inflates_nothing(gateway: GatewayUnderTest) -> None:
    bomb = gzip.compress(b'{"theme": "' + b"a" * 10_000_000 + b'"}')
    lines = (bearer(mint_token()), "Content-Type: application/json", "Content-Encoding: gzip")

    reply = await gateway.ask(request("/users/current/settings", *lines, method="PATCH", body=bomb))

    assert reply.status in (400, 413, 415, 422)


async def compressed_keys(request: web.Request) -> web.StreamResponse:
    body = gzip.compress(jwks()[:-1] + b" " * 50_000_000 + b"}")
    return web.Response(body=body, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})


async def endless_keys(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" " * 65_536)


@pytest.mark.parametrize("answer", [compressed_keys, endless_keys])
async def test_d05_a_key_server_that_answers_without_end_is_cut_and_nobody_is_believed(
    database_url: str, fast_lane: bool, answer: Any
) -> None:
    async with gateway_under_test(database_url, jwks_answer=answer, fast_lane=fast_lane) as gateway:
        reply = await gateway.get("/x", bearer(mint_token()))

    assert (reply.status, reply.code) == (503, "verifier_unavailable")


async def test_d06_open_websockets_take_no_place_from_requests(database_url: str, fast_lane: bool) -> None:
    upstreams = {"app": {"max_connections": 2, "queue_timeout": "1s"}}
    async with (
        gateway_under_test(database_url, fast_lane=fast_lane, upstreams=upstreams) as gateway,
        AsyncExitStack() as stack,
    ):
        gateway.upstream.respond_early = then_echo(switching())
        for wire in await crowd(stack, gateway, 150):
            await wire.send(handshake())
            await wire.reader.readuntil(b"\r\n\r\n")
        gateway.upstream.respond_early = None
        statuses = [(await gateway.get("/public/x")).status for _ in range(20)]
        open_now = await gateway.metric("gateway_websockets_open")

    assert statuses == [200] * 20
    assert open_now == 150


async def test_d06_open_event_streams_leave_room_for_requests(gateway: GatewayUnderTest) -> None:
    streams = CONNECTIONS - 10
    done = asyncio.Event()

    async def events(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not received.target.startswith(b"/public/events"):
            await answer_ok(received, reader, writer)
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not done.is_set():
            writer.write(b"9\r\ndata: 1\n\n\r\n")
            await asyncio.sleep(0.2)
        writer.write(b"0\r\n\r\n")

    gateway.upstream.respond = events
    async with AsyncExitStack() as stack:
        wires = await crowd(stack, gateway, streams)
        for wire in wires:
            await wire.send(request("/public/events"))
            await wire.reader.readuntil(b"data: 1\n\n")
        statuses = [(await gateway.get("/public/x")).status for _ in range(20)]
        alive = [await wire.reader.readuntil(b"data: 1\n\n") for wire in wires]
        done.set()
        await asyncio.gather(*(wire.reader.readuntil(b"\r\n0\r\n\r\n") for wire in wires))

    assert statuses == [200] * 20
    assert len(alive) == streams

"""Tunnels, driven by an independent client and server."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.upstream import tunnel
from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.upstream import answering_and_closing, until
from tests.support.websockets import echo_server, frame, handshake, switching, then_echo
from tests.support.wire import request


@pytest.fixture(params=[True, False], ids=["fast_lane", "aiohttp_lane"])
def fast_lane(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@asynccontextmanager
async def in_front_of(url: str, database_url: str, fast_lane: bool, **settings: Any) -> AsyncIterator[GatewayUnderTest]:
    upstreams = {"app": {"url": url}}
    async with gateway_under_test(database_url, fast_lane=fast_lane, upstreams=upstreams, **settings) as gateway:
        yield gateway


def connecting(gateway: GatewayUnderTest, target: str = "/public/ws", **options: Any) -> connect:
    defaults: dict[str, Any] = {"max_size": None, "ping_interval": None, "proxy": None}
    return connect(f"ws://127.0.0.1:{gateway.port}{target}", **(defaults | options))


async def closes(gateway: GatewayUnderTest, reason: str) -> None:
    """Wait until a tunnel ended for this reason and none is open."""
    async with asyncio.timeout(10):
        while not await gateway.metric("gateway_websocket_closes_total", reason=reason):  # noqa: ASYNC110 - asks over a port
            await asyncio.sleep(0.01)
    assert await gateway.metric("gateway_websockets_open") == 0
    assert await gateway.metric("gateway_upstream_connections", state="upgraded") == 0


async def end_of(connection: ClientConnection | ServerConnection) -> ConnectionClosed:
    """How a connection ended."""
    async with asyncio.timeout(10):
        with pytest.raises(ConnectionClosed) as caught:
            while True:
                await connection.recv()
    return caught.value


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_messages_of_all_sizes_come_back(database_url: str, fast_lane: bool, compression: str | None) -> None:
    text = "grüße " * 5_000
    sizes = (0, 1, 125, 126, 65_535, 65_536, 4_000_000)
    async with echo_server() as url, in_front_of(url, database_url, fast_lane) as gateway:
        authorization = {"Authorization": f"Bearer {mint_token()}"}
        async with connecting(gateway, "/ws", compression=compression, additional_headers=authorization) as socket:
            await socket.send(text)
            got: list[str | bytes] = [await socket.recv()]
            for size in sizes:
                await socket.send(bytes(size))
                got.append(await socket.recv())
            agreed = socket.response.headers.get("Sec-WebSocket-Extensions", "") if socket.response else ""

    assert got == [text, *(bytes(size) for size in sizes)]
    assert ("permessage-deflate" in agreed) is (compression is not None)


async def test_fragments_pings_and_pongs_pass(database_url: str, fast_lane: bool) -> None:
    async with (
        echo_server() as url,
        in_front_of(url, database_url, fast_lane) as gateway,
        connecting(gateway) as socket,
    ):
        await socket.send(["a", "b" * 70_000, "", "c"])
        pong = await socket.ping(b"payload")
        await asyncio.wait_for(pong, 10)

        assert await socket.recv() == "a" + "b" * 70_000 + "c"


async def test_w08_very_many_tiny_fragments_pass(database_url: str, fast_lane: bool) -> None:
    fragments = frame(0x0, b"x", final=False) * 200_000
    async with gateway_under_test(database_url, fast_lane=fast_lane) as gateway, gateway.wire() as wire:
        gateway.upstream.respond_early = then_echo(switching())
        await wire.send(handshake())
        await wire.reader.readuntil(b"\r\n\r\n")
        sending = asyncio.create_task(wire.send(fragments))

        assert await wire.reader.readexactly(len(fragments)) == fragments
        await sending


async def test_a_subprotocol_is_agreed_end_to_end(database_url: str, fast_lane: bool) -> None:
    async with (
        echo_server(subprotocols=["v2.chat"]) as url,
        in_front_of(url, database_url, fast_lane) as gateway,
        connecting(gateway, subprotocols=["v1.chat", "v2.chat"]) as socket,
    ):
        assert socket.subprotocol == "v2.chat"


async def test_a_refusal_of_the_upstream_reaches_the_client(database_url: str, fast_lane: bool) -> None:
    async with gateway_under_test(database_url, fast_lane=fast_lane) as gateway:
        gateway.upstream.respond_early = answering_and_closing(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        with pytest.raises(InvalidStatus) as caught:
            async with connecting(gateway):
                pass

    assert caught.value.response.status_code == 403


async def test_close_codes_of_the_upstream_reach_the_client(database_url: str, fast_lane: bool) -> None:
    async def leave(connection: ServerConnection) -> None:
        await connection.close(4321, "enough")

    async with echo_server(handler=leave) as url, in_front_of(url, database_url, fast_lane) as gateway:
        async with connecting(gateway) as socket:
            end = await end_of(socket)

        assert end.rcvd is not None
        assert (end.rcvd.code, end.rcvd.reason) == (4321, "enough")
        await closes(gateway, "closed")


async def test_close_codes_of_the_client_reach_the_upstream(database_url: str, fast_lane: bool) -> None:
    ends: list[ConnectionClosed] = []

    async def listen(connection: ServerConnection) -> None:
        ends.append(await end_of(connection))

    async with echo_server(handler=listen) as url, in_front_of(url, database_url, fast_lane) as gateway:
        async with connecting(gateway) as socket:
            await socket.close(4000, "bye")
        await closes(gateway, "closed")

    assert [(end.rcvd.code, end.rcvd.reason) for end in ends if end.rcvd] == [(4000, "bye")]


async def test_two_hundred_tunnels_at_once_keep_their_bytes_apart(database_url: str, fast_lane: bool) -> None:
    count = 200
    upstreams = {"app": {"max_connections": 2}}  # tunnels are no part of it
    async with echo_server() as url:
        upstreams["app"]["url"] = url  # type: ignore[assignment]  # settings of two types
        async with gateway_under_test(database_url, fast_lane=fast_lane, upstreams=upstreams) as gateway:

            async def talk(number: int) -> bool:
                async with connecting(gateway, compression=None, open_timeout=60) as socket:
                    ready.release()
                    await all_open.wait()
                    for turn in range(3):
                        await socket.send(f"{number}-{turn}")
                        if await socket.recv() != f"{number}-{turn}":
                            return False
                    return True

            ready, all_open = asyncio.Semaphore(0), asyncio.Event()
            talks = [asyncio.create_task(talk(number)) for number in range(count)]
            async with asyncio.timeout(60):
                for _ in range(count):
                    await ready.acquire()
                assert await gateway.metric("gateway_websockets_open", route="/public/**") == count
                plain = await gateway.get("/public/x")
                all_open.set()
                told = await asyncio.gather(*talks)

        assert told == [True] * count
        assert plain.status in (200, 426)


@pytest.mark.parametrize("slow", ["client", "upstream"])
async def test_w08_a_slow_reader_slows_the_writer_down(database_url: str, fast_lane: bool, slow: str) -> None:
    size, piece = 64 * 1024 * 1024, bytes(65_536)
    taken, go_on = 0, asyncio.Event()

    async def pour(write: asyncio.StreamWriter) -> None:
        nonlocal taken
        write.write(frame(0x2, b"")[:1] + b"\x7f" + size.to_bytes(8, "big"))
        for _ in range(size // len(piece)):
            write.write(piece)
            await write.drain()
            taken += len(piece)

    async def swallow(reader: asyncio.StreamReader) -> int:
        await go_on.wait()
        got = 0
        while got < size + 10:
            got += len(await reader.read(2**20))
        return got

    swallowed: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def respond(received: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(switching())
        if slow == "client":
            await pour(writer)
        else:
            swallowed.set_result(await swallow(reader))
        return False

    async with gateway_under_test(database_url, fast_lane=fast_lane) as gateway, gateway.wire() as wire:
        gateway.upstream.respond_early = respond
        await wire.send(handshake())
        await wire.reader.readuntil(b"\r\n\r\n")
        pouring = asyncio.create_task(pour(wire.writer)) if slow == "upstream" else None
        await until(lambda: taken)
        before = -1
        while before != taken:  # until nothing moves any more
            before = taken
            await asyncio.sleep(0.3)
        held = taken
        go_on.set()
        async with asyncio.timeout(60):
            got = await (swallow(wire.reader) if slow == "client" else swallowed)
        if pouring is not None:
            await pouring

    assert (
        held < size / 2
    )  # what the kernel's buffers on four sockets and the readers hold; the gateway's part is small
    assert got == size + 10


async def test_w08_a_reader_that_takes_nothing_ends_both_ends(database_url: str, fast_lane: bool) -> None:
    async def pour(received: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(switching())
        try:
            while True:
                writer.write(frame(0x2, bytes(65_536)))
                await writer.drain()
        except ConnectionError:
            gone.set()
        return False

    gone = asyncio.Event()
    upstreams = {"app": {"idle_timeout": "500ms"}}
    async with gateway_under_test(database_url, fast_lane=fast_lane, upstreams=upstreams) as gateway:
        gateway.upstream.respond_early = pour
        async with gateway.wire() as wire:
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport can
            await wire.send(handshake())
            async with asyncio.timeout(30):
                await gone.wait()
            await closes(gateway, "stalled")


@pytest.mark.parametrize("way", ["half", "whole"])
async def test_a_slow_client_gets_all_of_what_an_upstream_said_before_it_left(
    database_url: str, fast_lane: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "HALF_CLOSED_S", 0.1)
    monkeypatch.setattr(tunnel, "REPLY_S", 0.1)
    size = 24 * 1024 * 1024
    left, done = asyncio.Event(), asyncio.Event()

    async def respond(received: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(switching(rest=frame(0x2, bytes(size))))
        if way == "half":
            writer.write_eof()
            left.set()
            await done.wait()
        left.set()
        return False

    async with gateway_under_test(database_url, fast_lane=fast_lane) as gateway, gateway.wire() as wire:
        gateway.upstream.respond_early = respond
        await wire.send(handshake())
        await wire.reader.readuntil(b"\r\n\r\n")
        await left.wait()
        got = reads = 0
        async with asyncio.timeout(60):
            while piece := await wire.reader.read(2**20):
                got, reads = got + len(piece), reads + 1
                if reads <= 15:
                    await asyncio.sleep(0.1)
            done.set()

    assert got == len(frame(0x2, bytes(size)))


async def test_a_limit_holds_for_a_tunnel_that_is_half_closed(
    database_url: str, fast_lane: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "REPLY_S", 0.2)

    async def chatter(received: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(switching())
        while not writer.is_closing():
            writer.write(frame(0x1, b"still here"))
            await asyncio.sleep(0.02)
        return False

    async with gateway_under_test(database_url, fast_lane=fast_lane, websocket={"max_age": "300ms"}) as gateway:
        gateway.upstream.respond_early = chatter
        async with gateway.wire() as wire:
            await wire.send(handshake())
            await wire.reader.readuntil(b"\r\n\r\n")
            wire.writer.write_eof()

            assert frame(0x1, b"still here") in await wire.rest()
        await closes(gateway, "client")


async def test_a_killed_upstream_ends_the_client(database_url: str, fast_lane: bool) -> None:
    async with gateway_under_test(database_url, fast_lane=fast_lane) as gateway:
        gateway.upstream.respond_early = then_echo(switching())
        async with gateway.wire() as wire:
            await wire.send(handshake())
            await wire.reader.readuntil(b"\r\n\r\n")
            for writer in gateway.upstream.writers:
                writer.transport.abort()

            assert await wire.closed()
        await closes(gateway, "upstream")


async def test_a_killed_client_ends_the_upstream(database_url: str, fast_lane: bool) -> None:
    async with gateway_under_test(database_url, fast_lane=fast_lane) as gateway:
        gateway.upstream.respond_early = then_echo(switching())
        async with gateway.wire() as wire:
            await wire.send(handshake())
            await wire.reader.readuntil(b"\r\n\r\n")
            wire.writer.transport.abort()
            await until(lambda: not gateway.upstream.writers)
        await closes(gateway, "client")


async def test_a_client_that_leaves_before_the_101_frees_the_upstream(database_url: str, fast_lane: bool) -> None:
    async def wait(received: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        return bool(await reader.read())

    async with gateway_under_test(database_url, fast_lane=fast_lane) as gateway:
        gateway.upstream.respond_early = wait
        async with gateway.wire() as wire:
            await wire.send(handshake())
            await gateway.upstream.seen(1)
            wire.writer.transport.abort()
        await until(lambda: not gateway.upstream.writers)

        assert await gateway.metric("gateway_upstream_connections", state="upgraded") == 0
        assert await gateway.metric("gateway_websockets_open") == 0


async def test_an_upstream_that_does_not_answer_the_handshake_is_timed_out(database_url: str, fast_lane: bool) -> None:
    async def wait(received: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        return bool(await reader.read())

    upstreams = {"app": {"response_timeout": "200ms"}}
    async with gateway_under_test(database_url, fast_lane=fast_lane, upstreams=upstreams) as gateway:
        gateway.upstream.respond_early = wait
        reply = await gateway.ask(handshake())

    assert (reply.status, reply.code) == (504, "upstream_timeout")


async def test_the_first_half_of_a_close_leaves_the_second_open(database_url: str, fast_lane: bool) -> None:
    async def answer_late(received: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(switching())
        got = await reader.read()  # to its end
        writer.write(b"late:" + got)
        return False

    async with gateway_under_test(database_url, fast_lane=fast_lane) as gateway:
        gateway.upstream.respond_early = answer_late
        async with gateway.wire() as wire:
            await wire.send(handshake())
            await wire.reader.readuntil(b"\r\n\r\n")
            await wire.send(b"last words")
            wire.writer.write_eof()

            assert await wire.rest() == b"late:last words"
        await closes(gateway, "client")


async def test_half_a_close_does_not_hold_a_tunnel_for_ever(
    database_url: str, fast_lane: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "HALF_CLOSED_S", 0.2)
    async with gateway_under_test(database_url, fast_lane=fast_lane) as gateway:
        forever = asyncio.Event()

        async def stay(received: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
            writer.write(switching())
            await forever.wait()
            return False

        gateway.upstream.respond_early = stay
        async with gateway.wire() as wire:
            await wire.send(handshake())
            await wire.reader.readuntil(b"\r\n\r\n")
            wire.writer.write_eof()

            assert await wire.closed()
        forever.set()
        await closes(gateway, "client")


@pytest.mark.parametrize("limit", ["max_age", "idle_timeout"])
async def test_a_limit_ends_a_tunnel_with_a_close_frame(database_url: str, fast_lane: bool, limit: str) -> None:
    async with (
        echo_server() as url,
        in_front_of(url, database_url, fast_lane, websocket={limit: "300ms"}) as gateway,
    ):
        async with connecting(gateway) as socket:
            await socket.send("one")
            first = await socket.recv()
            end = await end_of(socket)

        assert first == "one"
        assert end.rcvd is not None
        assert (end.rcvd.code, end.rcvd.reason) == (1001, limit)
        await closes(gateway, limit)


async def test_a_tunnel_in_use_is_not_idle(database_url: str, fast_lane: bool) -> None:
    async with (
        echo_server() as url,
        in_front_of(url, database_url, fast_lane, websocket={"idle_timeout": "1s"}) as gateway,
        connecting(gateway) as socket,
    ):
        for _ in range(15):
            await socket.send("again")
            await socket.recv()
            await asyncio.sleep(0.1)


async def test_a_close_frame_of_ours_waits_for_the_end_of_a_frame(
    database_url: str, fast_lane: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "REPLY_S", 1.0)
    whole = frame(0x1, b"hello")
    go_on = asyncio.Event()

    async def respond(received: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(switching(rest=whole[:3]))
        await go_on.wait()
        writer.write(whole[3:] + frame(0x1, b"never seen"))
        return bool(await reader.read())

    async with gateway_under_test(database_url, fast_lane=fast_lane, websocket={"max_age": "200ms"}) as gateway:
        gateway.upstream.respond_early = respond
        async with gateway.wire() as wire:
            await wire.send(handshake())
            await wire.reader.readuntil(b"\r\n\r\n")
            begun = await wire.reader.readexactly(3)
            await asyncio.sleep(0.5)
            go_on.set()

            assert begun + await wire.rest() == whole + frame(0x8, (1001).to_bytes(2, "big") + b"max_age")
        await closes(gateway, "max_age")


async def test_a_request_before_the_handshake_on_one_connection_changes_nothing(
    database_url: str, fast_lane: bool
) -> None:
    async with gateway_under_test(database_url, fast_lane=fast_lane) as gateway, gateway.wire() as wire:
        first = await wire.ask(request("/public/x"))
        gateway.upstream.respond_early = then_echo(switching())
        await wire.send(handshake())
        await wire.reader.readuntil(b"\r\n\r\n")
        await wire.send(b"\x81\x00")

        assert first.status == 200
        assert await wire.reader.readexactly(2) == b"\x81\x00"


async def test_both_ends_of_a_silent_tunnel_are_probed(database_url: str, fast_lane: bool) -> None:
    async with echo_server() as url, in_front_of(url, database_url, fast_lane) as gateway, connecting(gateway):
        legs = [thing for thing in gc.get_objects() if issubclass(type(thing), tunnel.Leg)]
        legs = [leg for leg in legs if not leg.gone and not leg.transport.is_closing()]
        sockets = [leg.transport.get_extra_info("socket") for leg in legs]

        assert len(sockets) == 2
        for probed in sockets:
            assert probed.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert probed.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == tunnel.PROBED_AFTER_S
